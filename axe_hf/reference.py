"""Both papers in plain loops: Aligned Cross Entropy and Mask-Predict.

Read this first. It is the specification that the fast code is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axe_loss_definition(
    logits: Tensor,
    labels: Tensor,
    *,
    blank_token_id: int,
    delta: float,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Returns AXE per sentence by the recursion of the paper: two loops, one `min` a cell.

    Python's `min` keeps the first of equals, so ties go to align, then skip prediction, then skip
    target; and autograd follows the chosen path only. It takes seconds where `axe_loss` takes
    milliseconds.

    Args:
        logits: `(batch, canvas, vocab)`, float.
        labels: `(batch, target)`, long; -100 behind the target's end.
        blank_token_id: The id of the blank.
        delta: Factor on the cost of a skipped target.
        canvas_lengths: `(batch,)`, long. Default: the whole canvas.
        observed_mask: `(batch, canvas)`, bool. Default: nothing observed.
        label_smoothing: Share of the uniform distribution in the target distribution. Default 0.

    Returns:
        `(batch,)`, in nats, in float32 or the logits' wider type.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
        >>> axe_loss_definition(logits, torch.tensor([[1]]), blank_token_id=0, delta=1.0)
        tensor([1.0989])
    """
    losses = []
    for sentence, row in enumerate(labels.tolist()):
        tokens = [token for token in row if token != -100]
        length = logits.shape[1] if canvas_lengths is None else int(canvas_lengths[sentence])
        costs = -logits[sentence, :length].to(_at_least_float32(logits)).log_softmax(-1)
        is_shown = [False] * length if observed_mask is None else observed_mask[sentence].tolist()
        loss = costs.new_zeros(())
        start = 0
        # an observed position splits the sentence; canvas and target then have equal length
        for stop in [j for j in range(length) if is_shown[j]]:
            loss = loss + _axe(
                costs[start:stop], tokens[start:stop], blank_token_id, delta, label_smoothing
            )
            start = stop + 1
        loss = loss + _axe(
            costs[start:length], tokens[start:], blank_token_id, delta, label_smoothing
        )
        losses.append(loss)
    return torch.stack(losses)


def _axe(
    costs: Tensor, tokens: list[int], blank: int, delta: float, label_smoothing: float
) -> Tensor:
    """AXE of one sentence; `costs` is -log P `(canvas, vocab)`; a cell: (cost, smoothed cost)."""

    def step(cell, weight, position, token):
        cost = weight * costs[position, token] if weight else 0.0
        uniform = weight * costs[position].mean() if weight and label_smoothing else 0.0
        return cell[0] + cost, cell[1] + (1 - label_smoothing) * cost + label_smoothing * uniform

    zero = costs.new_zeros(())
    table = {(0, 0): (zero, zero)}
    for i in range(len(tokens) + 1):
        for j in range(len(costs) + 1):
            ways = []
            if i > 0 and j > 0:
                ways.append(step(table[i - 1, j - 1], 1.0, j - 1, tokens[i - 1]))
            if j > 0:
                ways.append(step(table[i, j - 1], 1.0, j - 1, blank))
            if i > 0:
                ways.append(step(table[i - 1, j], delta, max(j - 1, 0), tokens[i - 1]))
            if ways:
                table[i, j] = min(ways, key=lambda way: float(way[0].detach()))
    return table[len(tokens), len(costs)][1]


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
