"""Both papers in plain loops: Aligned Cross Entropy and Mask-Predict.

Read this first. It is the definition, a sentence at a time, that tests hold the fast code to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cmlm.loss_axe import AxeOptions, check_logits, check_options, check_tensors


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
    """Returns AXE per sentence `(batch,)` by the recursion of the paper: one `min` a cell.

    With `P` the positions, `Y` the targets and `e` the blank::

        A[i,j] = min( A[i-1,j-1] - log P_j(Y_i),           align
                      A[i,j-1]   - log P_j(e),             skip prediction
                      A[i-1,j]   - delta * log P_j(Y_i) )  skip target

    Python's `min` keeps the first of equals, so ties go to align, then skip prediction, then skip
    target; and autograd follows the chosen path only. It takes seconds where `axe_loss` takes
    milliseconds. Source: Ghazvininejad et al., "Aligned Cross Entropy" (ICML 2020), section 3.

    Args:
        All: as in `axe_loss`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
        >>> axe_loss_definition(logits, torch.tensor([[1]]), blank_token_id=0, delta=1.0)
        tensor([1.0989])
    """
    check_options(AxeOptions(blank_token_id, delta, label_smoothing), "none", None)
    check_logits(logits, inplace_backward=False)
    check_tensors(logits.shape, labels, blank_token_id, canvas_lengths, observed_mask)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    how = (blank_token_id, delta, label_smoothing)
    losses = []
    for sentence, row in enumerate(labels.tolist()):
        tokens = [token for token in row if token != -100]
        length = logits.shape[1] if canvas_lengths is None else int(canvas_lengths[sentence])
        costs = -logits[sentence, :length].to(dtype).log_softmax(-1)
        is_shown = [False] * length if observed_mask is None else observed_mask[sentence].tolist()
        loss = costs.new_zeros(())
        # an observed position splits the sentence; canvas and target then have equal length
        shown = [j for j in range(length) if is_shown[j]]
        for before, stop in zip([-1, *shown], [*shown, None], strict=True):
            part = slice(before + 1, stop)
            loss = loss + _axe(costs[part], tokens[part], *how)
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


@dataclass
class ReferenceCanvas:
    """One canvas that Mask-Predict fills in.

    Args:
        tokens: ids, `<mask>` at first where a token is to be predicted.
        open: positions that are to be predicted.
        masked: those of them that the next pass predicts.
        log_probs: log-probability of each token when it was predicted, nats; 0 elsewhere.
        is_changed: whether the last pass changed a token.
    """

    tokens: list[int]
    open: list[int]
    masked: list[int]
    log_probs: list[float] = field(default_factory=list)
    is_changed: bool = True

    @property
    def score(self) -> float:
        """Mean log-probability of what was predicted, nats per token."""
        return sum(self.log_probs) / max(len(self.open), 1)


class ReferenceDecoding(NamedTuple):
    """The canvases of a sentence, filled in, and the passes of the decoder that it took."""

    canvases: list[ReferenceCanvas]
    num_iterations: int


@torch.no_grad()
def mask_predict_reference(
    model: Any,
    source: Sequence[int],
    canvases: Sequence[Sequence[int]],
    num_iterations: int,
    *,
    schedule: str = "linear",
    threshold: float | None = None,
    early_stop: bool = False,
    suppressed: Sequence[int] = (),
) -> ReferenceDecoding:
    """Mask-Predict as it is defined, for the canvases of one sentence.

    Pass 1 predicts all masked positions at once, each by itself: the most probable token. Before
    pass t + 1, for t = 1 .. T-1, n = floor(N * (1 - t/T)) of the N predicted positions, at least
    one, are masked again: those of lowest log-probability, as it was when they were predicted; of
    equal ones the earlier. `<pad>` and `<mask>` are never predicted. Source: Ghazvininejad et al.,
    "Mask-Predict" (EMNLP 2019), section 3; https://arxiv.org/abs/1904.09324.

    The cosine schedule, n = floor(N * cos(pi t / 2T)), is MaskGIT's (Chang et al., CVPR 2022,
    section 3.2); `threshold` and `early_stop` are ours.

    Args:
        model: a `CmlmForConditionalGeneration` in evaluation mode.
        source: ids of the sentence, `</s>` at the end.
        canvases: one list of ids for each length candidate: `<mask>` to predict, other tokens stay.
        num_iterations: T.
        schedule: `"linear"` or `"cosine"`.
        threshold: only tokens less probable than this are masked again.
        early_stop: a canvas of which a pass after the first changes nothing is done.
        suppressed: further ids that are never predicted.

    Returns:
        The canvases, and the passes made: fewer than T where all canvases were done earlier, since
        nothing was masked again or changed.

    Example:
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf.reference import mask_predict_reference
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> mask = config.mask_token_id
        >>> decoding = mask_predict_reference(model, [7, 8, 9, 1], [[mask] * 3, [mask] * 4], 2)
        >>> [len(canvas.tokens) for canvas in decoding.canvases], decoding.num_iterations
        ([3, 4], 2)
    """
    config = model.config
    never = [config.pad_token_id, config.mask_token_id, *suppressed]
    states = []
    for tokens in canvases:
        positions = [i for i, token in enumerate(tokens) if token == config.mask_token_id]
        states.append(ReferenceCanvas(list(tokens), positions, positions, [0.0] * len(tokens)))
    t = 0
    for t in range(1, num_iterations + 1):
        for canvas in states:
            _predict(model, source, canvas, never)
        if t == num_iterations:
            break
        for canvas in states:
            num_masked = _num_masked(schedule, len(canvas.open), t, num_iterations)
            by_probability = sorted((canvas.log_probs[i], i) for i in canvas.open)
            canvas.masked = [i for _, i in by_probability[:num_masked]]
            if threshold is not None:
                limit = math.log(threshold)
                canvas.masked = [i for i in canvas.masked if canvas.log_probs[i] < limit]
        may_stop = early_stop or threshold is not None
        if may_stop and all(
            not canvas.masked or (early_stop and t > 1 and not canvas.is_changed)
            for canvas in states
        ):
            break
    return ReferenceDecoding(states, t)


def _predict(model: Any, source: Sequence[int], canvas: ReferenceCanvas, never: list[int]) -> None:
    """One pass: the most probable token at each masked position."""
    seen = list(canvas.tokens)
    for i in canvas.masked:
        seen[i] = model.config.mask_token_id
    outputs = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([seen]))
    logits = outputs.logits[0].to(torch.promote_types(outputs.logits.dtype, torch.float32))
    logits[:, never] = -torch.inf
    log_probs = logits.log_softmax(dim=-1)  # (canvas, vocab)
    before = list(canvas.tokens)
    for i in canvas.masked:
        canvas.tokens[i] = int(logits[i].argmax())
        canvas.log_probs[i] = float(log_probs[i, canvas.tokens[i]])
    canvas.is_changed = canvas.tokens != before


def _num_masked(schedule: str, length: int, t: int, num_iterations: int) -> int:
    """Positions masked before pass t + 1, in whole numbers where rounding could cost one."""
    if schedule == "linear":
        return max(1, length * (num_iterations - t) // num_iterations)
    return max(1, math.floor(length * math.cos(math.pi * t / (2 * num_iterations))))
