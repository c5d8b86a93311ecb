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
from torch.nn import functional as F

from .cmlm.loss_axe import AxeOptions, check_logits, check_options, checked_targets


def axe_loss_definition(
    logits: Tensor,
    labels: Tensor,
    *,
    blank_token_id: int,
    delta: float,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    observed_tokens: Tensor | None = None,
    label_smoothing: float = 0.0,
    allow_repetition: bool = False,
    temperature: float = 0.0,
) -> Tensor:
    """Returns AXE per sentence `(batch,)` by the recursion of the paper: one `min` a cell.

    With `P` the positions, `Y` the targets and `e` the blank::

        A[i,j] = min( A[i-1,j-1] - log P_j(Y_i),           align
                      A[i,j-1]   - log P_j(e),             skip prediction
                      A[i-1,j]   - delta * log P_j(Y_i) )  skip target

    Python's `min` keeps the first of equals, so ties go to align, then skip prediction, then skip
    target; and autograd follows the chosen path only. It takes seconds where `axe_loss` takes
    milliseconds. Source: Ghazvininejad et al., "Aligned Cross Entropy" (ICML 2020), section 3.

    The family around it is ours. With `allow_repetition` position j may say `Y_i` again if
    position j-1 said it: decoding makes one token of the run. So two equal targets do not stand
    side by side, and it matters whether position j said target i, `S`, or not, `N`::

        S[i,j] = min( A[i-1,j-1] - log P_j(Y_i),           align; from N, not A, if Y_i = Y_{i-1}
                      S[i,j-1]   - log P_j(Y_i) )          repeat, before skips if equal
        N[i,j] = min( A[i,j-1]   - log P_j(e),             skip prediction
                      A[i-1,j]   - delta * log P_j(Y_i) )  skip target
        A[i,j] = min( S[i,j], N[i,j] )

    `temperature` t > 0 puts `-t log sum exp(-cost / t)` in the place of `min`: all paths count,
    each by its posterior probability. With repetition, t = 1 and infinite `delta` that is CTC
    (Graves et al., ICML 2006, section 4).

    Args:
        All: as in `axe_loss`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
        >>> axe_loss_definition(logits, torch.tensor([[1]]), blank_token_id=0, delta=1.0)
        tensor([1.0989])
        >>> how = {"blank_token_id": 0, "delta": float("inf"), "allow_repetition": True}
        >>> axe_loss_definition(logits, torch.tensor([[1]]), temperature=1.0, **how)
        tensor([0.4057])
    """
    options = AxeOptions(blank_token_id, delta, label_smoothing, allow_repetition, temperature)
    check_options(options, "none", None)
    check_logits(logits, inplace_backward=False)
    masks = (observed_mask, observed_tokens)
    checked_targets(logits.shape, labels, options, canvas_lengths, *masks)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    losses = []
    for sentence, row in enumerate(labels.tolist()):
        tokens = [token for token in row if token != -100]
        length = logits.shape[1] if canvas_lengths is None else int(canvas_lengths[sentence])
        costs = -logits[sentence, :length].to(dtype).log_softmax(-1)
        uniform = costs.mean(-1)
        is_shown = torch.zeros(length, dtype=torch.bool)
        if observed_mask is not None:
            is_shown = observed_mask[sentence, :length]
        splits = is_shown.nonzero()[:, 0].tolist()
        if observed_tokens is not None:
            # an observed position says its token at cost 0, and nothing else
            says = observed_tokens[sentence, :length].masked_fill(~is_shown, 0)
            certain = -F.one_hot(says, logits.shape[-1]).to(dtype).log()
            costs = torch.where(is_shown[:, None], certain, costs)
            uniform, splits = uniform.masked_fill(is_shown, 0.0), []
        # or it splits the sentence; canvas and target then have equal length
        parts = []
        for before, stop in zip([-1, *splits], [*splits, None], strict=True):
            part, said = slice(before + 1, stop), tokens[before] if before >= 0 else None
            parts.append(_axe(costs[part], uniform[part], tokens[part], said, options))
        found, zero = [part for part in parts if part is not None], costs.new_zeros(())
        losses.append(sum(found, zero) if len(found) == len(parts) else zero + math.inf)
    return torch.stack(losses)


def _axe(
    costs: Tensor, uniform: Tensor, tokens: list[int], said_before: int | None, options: AxeOptions
) -> Tensor | None:
    """The loss of one sentence, or of what stands between two observed positions.

    Args:
        costs: `(canvas, vocab)`, -log P.
        uniform: `(canvas,)`. What label smoothing adds for each use of a position.
        tokens: the targets.
        said_before: the token of the observed position in front, if there is one.

    Returns:
        None where no alignment exists. A cell is (cost, what label smoothing adds).
    """
    repetition, t = options.allow_repetition, options.temperature

    def step(cell, weight, j, token):
        """The cell, and one more move at position j; None where that cannot be."""
        if cell is None or weight == math.inf:
            return None
        cost = weight * costs[j - 1, token] if weight else 0.0
        if cost == math.inf and not options.is_paper:
            return None
        return cell[0] + cost, cell[1] + weight * uniform[j - 1]

    def best(*ways):
        """The first of the cheapest ways; at a temperature all of them."""
        ways = [way for way in ways if way is not None]
        if t == 0 or not ways:
            return min(ways, key=lambda way: float(way[0].detach()), default=None)
        costs, uniforms = (torch.stack(part) for part in zip(*ways, strict=True))
        posterior = (-costs.detach() / t).softmax(0)  # held fixed
        return -t * (-costs / t).logsumexp(0), (posterior * uniforms).sum()

    zero = costs.new_zeros(())
    A: dict = {(0, 0): (zero, zero)}
    S: dict = {(0, 0): None if said_before is None else A[0, 0]}
    N: dict = {(0, 0): A[0, 0] if said_before is None else None}
    names = [said_before, *tokens]  # from 1, as in the recursion
    for i, token in enumerate(names):
        for j in range(len(costs) + 1):
            if i + j == 0:
                continue
            is_twin = repetition and i > 0 and token == names[i - 1]
            align = step((N if is_twin else A).get((i - 1, j - 1)), 1.0, j, token)
            repeat = step(S.get((i, j - 1)), 1.0, j, token) if repetition else None
            skip_prediction = step(A.get((i, j - 1)), 1.0, j, options.blank_token_id)
            skip_target = step(A.get((i - 1, j)), options.delta, max(j, 1), token)
            S[i, j] = best(align, repeat)
            N[i, j] = best(skip_prediction, skip_target)
            A[i, j] = best(S[i, j], N[i, j])
    end = A[len(tokens), len(costs)]
    if end is None:
        return None
    s = options.label_smoothing
    return (1 - s) * end[0] + s * end[1] if s else end[0]


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
