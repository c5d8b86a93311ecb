"""All alignments at once: how often each move is made, in the best of them or in their mixture.

With `t` the temperature, `l_j(v) = log P_j(v) / t`, and two tables, T where the last move said a
target (align, repeat) and N where it did not (skip prediction, skip target)::

    S[i,j] = T[i,j] (+) N[i,j]
    T[i,j] = l_j(Y_i) + ( S[i-1,j-1]  (+)  T[i,j-1] )                align, repeat
    N[i,j] = l_j(blank) + S[i,j-1]  (+)  delta l_j(Y_i) + S[i-1,j]   skip prediction, skip target

`(+)` is the logarithm of the sum of exponentials or, for the best alignment, the larger of the
two, the first on a tie. Repeat is there with repetition only; then align comes from N[i-1,j-1]
alone if Y_i = Y_{i-1}, as decoding would make one of the two. Each `(+)` notes the share of its
first argument. On the way back a flow of 1 from the last cell is split by these shares: what
arrives is the posterior of a move, 0 or 1 for the best alignment. So nothing can overflow. With
repetition and infinite delta it is CTC's (Graves et al., ICML 2006, section 4.1); the rest is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Cells of all sentences' tables that a CPU works on at once: 100 MiB of scratch. More than AXE
# takes, since half the time of many small operations is in calling them.
MAX_FAMILY_CELLS_CPU = 2**20
# Values up to which PyTorch's CTC, which subtracts them, gives posteriors good to 1e-10.
MAX_CTC_VALUE = 1e5


class Posterior(NamedTuple):
    """How probable each move is, over all alignments; 0 or 1 in the best alone."""

    value: Tensor  # (batch,): log of the sum over all alignments; -inf where there is none
    says: Tensor  # (batch, target, canvas): position j says target i, by align or repeat
    skip_target: Tensor  # (batch, target, canvas): target i is skipped, to be paid at j
    skip_prediction: Tensor  # (batch, canvas)


@dataclass(frozen=True)
class Moves:
    """What may be done, and its logarithmic weight: one batch."""

    say: Tensor  # (batch, target, canvas): weight of position j saying target i
    skip_prediction: Tensor  # (batch, canvas)
    delta: float  # factor on the weight of a skipped target; infinite: none is skipped
    allow_repetition: bool
    tokens: Tensor | None  # (batch, target) long; with repetition, to know equal neighbours
    target_lengths: Tensor  # (batch,) long
    canvas_lengths: Tensor  # (batch,) long
    observed_mask: Tensor | None  # (batch, canvas) bool: position j says target j, for nothing

    def __getitem__(self, sentences: slice) -> Moves:
        parts = vars(self).items()
        return Moves(**{n: p[sentences] if isinstance(p, Tensor) else p for n, p in parts})


@torch.no_grad()
def posterior_of(moves: Moves, *, is_best: bool) -> Posterior:
    """Returns the posterior of every move in float64, for the mixture or the best alignment.

    Equal tokens of a sentence may share theirs in `says` in the first of them.
    """
    batch, target, canvas = moves.say.shape
    if not is_best and is_for_ctc(moves) and (posterior := ctc_posterior(moves)) is not None:
        return posterior
    size = sentences_at_once(batch, target * canvas, moves.say.device)
    parts = [_posterior(moves[k : k + size], is_best) for k in range(0, max(1, batch), size)]
    return parts[0] if len(parts) == 1 else Posterior(*map(torch.cat, zip(*parts, strict=True)))


def exact_dtype(device: torch.device) -> torch.dtype:
    """In which paths are chosen and sums kept: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def sentences_at_once(batch: int, cells: int, device: torch.device) -> int:
    """How many sentences with that many cells to work on, whole ones: on a GPU all."""
    if device.type != "cpu":
        return max(1, batch)
    return min(max(1, batch), max(1, MAX_FAMILY_CELLS_CPU // max(1, cells)))


def first_of_equal(tokens: Tensor) -> Tensor:
    """The first index at which each of the tokens `(batch, number)` stands in its sentence."""
    return (tokens[:, :, None] == tokens[:, None]).byte().argmax(2)


def is_for_ctc(moves: Moves) -> bool:
    """Whether PyTorch's CTC computes the same, and faster: it has a kernel where we have launches.

    Not on a CPU, where in float64 it is slower than the fronts. It reads lengths and values on the
    host, which a CUDA graph cannot record, and adds in any order.
    """
    is_ctc = moves.allow_repetition and moves.delta == torch.inf and moves.observed_mask is None
    if not (is_ctc and moves.say.is_cuda and moves.say.numel() and moves.tokens is not None):
        return False
    is_recorded = torch.cuda.is_current_stream_capturing()
    return not (is_recorded or torch.are_deterministic_algorithms_enabled())


def ctc_posterior(moves: Moves) -> Posterior | None:
    """`posterior_of` CTC by PyTorch's, whose gradient is `weight.exp() - posterior`.

    It does not mind that the weights are no distribution. Its classes are the blank and the
    targets, equal ones in the first. None where a sentence's value is too large for it.
    """
    (batch, target, canvas), impossible = moves.say.shape, _impossible(torch.float64)
    weights = moves.say.new_empty((canvas, batch, target + 1), dtype=torch.float64)
    weights[:, :, 0], weights[:, :, 1:] = moves.skip_prediction.t(), moves.say.permute(2, 0, 1)
    position = torch.arange(canvas, device=weights.device)[:, None]
    is_behind = position >= moves.canvas_lengths  # (canvas, batch)
    # finite, and behind the canvas's end the blank for nothing, as in the fronts
    weights.masked_fill_(is_behind[:, :, None], impossible).clamp_(min=impossible)
    weights[:, :, 0].masked_fill_(is_behind, 0.0)
    how = (first_of_equal(moves.tokens) + 1, [canvas] * batch, moves.target_lengths.tolist())
    # no F.ctc_loss: inside an operator and in inference mode autograd cannot give its gradient
    cost, table = torch.ops.aten._ctc_loss(weights, *how, 0, False)
    is_possible = cost < torch.finfo(cost.dtype).max ** (1 / 6)
    if (is_possible & (cost > MAX_CTC_VALUE)).any():
        return None
    ones = torch.ones_like(cost)
    slope = torch.ops.aten._ctc_loss_backward(ones, weights, *how, cost, table, 0, False)
    posterior = weights.exp_().sub_(slope).clamp_(min=0.0)
    # a position does one thing: so an error of the value cancels
    posterior /= posterior.sum(2, keepdim=True)
    posterior.masked_fill_(is_behind[:, :, None] | ~is_possible[:, None], 0.0)
    says = posterior[:, :, 1:].permute(1, 2, 0)
    value = (-cost).masked_fill_(~is_possible, -torch.inf)
    no_skips = says.new_zeros(()).expand_as(says)
    return Posterior(value, says, no_skips, posterior[:, :, 0].t())


class _Grid:
    """Tables `(row, column, batch)` laid out front by front, `(front, row, batch)`.

    The cells of a front follow from those of earlier ones and are computed at once: anti-diagonals
    (`tilt` 1), or columns (`tilt` 0) where no move goes down a column. Cell (i, j) of the programme
    is in row i + 1 and column j + 1; there is a border all around.
    """

    def __init__(self, target: int, canvas: int, batch: int, tilt: int):
        self.rows, self.columns, self.batch, self.tilt = target + 3, canvas + 3, batch, tilt
        self.num_fronts = self.columns + tilt * (self.rows - 1)

    def cells(self, table: Tensor) -> Tensor:
        """The table seen as `(row, column, batch)`."""
        strides = ((self.tilt * self.rows + 1) * self.batch, self.rows * self.batch, 1)
        return table.as_strided((self.rows, self.columns, self.batch), strides)

    def part(self, table: Tensor, front: int, start: int, stop: int) -> Tensor:
        """Some rows of a front, `(rows, batch)`; quicker than by two indices."""
        offset = (front * self.rows + start) * self.batch
        return table.as_strided((stop - start, self.batch), (self.batch, 1), offset)

    def fronts(self) -> list[tuple[int, int, int]]:
        """Each front with the first of its rows, border aside, and that behind the last."""
        first, last = 1 + self.tilt, self.num_fronts - 2 - self.tilt
        if not self.tilt:
            return [(front, 1, self.rows - 1) for front in range(first, last + 1)]
        end = self.columns - 2
        return [(f, max(1, f - end), min(self.rows - 1, f)) for f in range(first, last + 1)]


def _impossible(dtype: torch.dtype) -> float:
    """A weight that no alignment has; sums of it, and delta times it, are finite all the same."""
    return -(torch.finfo(dtype).max ** (1 / 3))


@dataclass
class _Weights:
    """Of the moves into each cell, `(front, row, batch)`."""

    grid: _Grid
    say: Tensor
    skip_prediction: Tensor
    skip_target: Tensor
    delta: float  # what is left to multiply `skip_target` with
    is_twin: Tensor  # (row, batch) bool: its token is that of the row before


def _posterior(moves: Moves, is_best: bool) -> Posterior:
    """`posterior_of` all sentences at once."""
    canvas = moves.say.shape[2]
    weights = _weights_by_front(moves)
    shares, last_column = _forward(weights, moves.allow_repetition, is_best)
    value = last_column.gather(0, moves.target_lengths[None] + 1)[0]
    is_possible = value > -(torch.finfo(value.dtype).max ** (1 / 6))
    value = value.masked_fill(~is_possible, -torch.inf)
    says, skips, blanks = _backward(weights, moves, shares, is_possible)
    if moves.observed_mask is not None:  # what is skipped behind one is paid at the next
        behind = torch.where(moves.observed_mask.t(), skips[:, 1:], 0)
        skips[:, 1:] -= behind
        skips[:, 2:] += behind[:, :-1]
    if canvas:  # before the first position is paid at the first
        skips[:, 1] += skips[:, 0]
    is_inside = torch.arange(canvas, device=blanks.device)[:, None] < moves.canvas_lengths
    blanks = torch.where(is_inside, blanks, 0)
    return Posterior(value, says.permute(2, 0, 1), skips[:, 1:].permute(2, 0, 1), blanks.t())


def _weights_by_front(moves: Moves) -> _Weights:
    (batch, target, canvas), device = moves.say.shape, moves.say.device
    dtype = exact_dtype(device)
    observed, impossible = moves.observed_mask, _impossible(dtype)
    grid = _Grid(target, canvas, batch, tilt=int(moves.delta != torch.inf))
    shape = (grid.num_fronts, grid.rows, batch)
    say, blank = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
    cells, blanks = grid.cells(say)[:-1, :-1], grid.cells(blank)[:-1, :-1]
    inner, position = cells[2:, 2:], torch.arange(canvas, device=device)
    cells[1], cells[2:, 1], blanks[:, 1] = 0.0, impossible, impossible
    is_behind = position[:, None] >= moves.canvas_lengths  # (canvas, batch)
    inner.copy_(moves.say.permute(1, 2, 0)).masked_fill_(is_behind, impossible)
    inner.clamp_(min=impossible)
    blanks[1:, 2:] = moves.skip_prediction.t()
    # behind the canvas's end, where the last column is reached, nothing costs anything
    blanks[1:, 2:].clamp_(min=impossible).masked_fill_(is_behind, 0.0)
    if canvas:  # a target that is skipped before the first position is paid there
        cells[2:, 1] = cells[2:, 2]
    is_twin = torch.zeros((grid.rows, batch), dtype=torch.bool, device=device)
    if moves.allow_repetition and moves.tokens is not None:
        is_twin[3:-1] = (moves.tokens[:, 1:] == moves.tokens[:, :-1]).t()
    weights = _Weights(grid, say, blank, say, moves.delta, is_twin)
    if grid.tilt and (moves.delta < 1 or observed is not None):  # not a multiple of `say`
        weights.skip_target, weights.delta = torch.empty_like(say), 1.0
        skips = grid.cells(weights.skip_target)[1:-1, 1:-1]
        skips.copy_(cells[1:, 1:])
        skips.mul_(moves.delta)
        skips[1:, 1:].masked_fill_(is_behind, impossible)
        if observed is not None:  # what is skipped behind one is paid at the next
            shown = observed.t()[:-1]
            skips[1:, 1:-1] = torch.where(shown, skips[1:, 2:], skips[1:, 1:-1])
    if observed is not None:
        _split_at_observed(inner, blanks[1:, 2:], is_twin[2:-1], observed.t())
    return weights


def _split_at_observed(say: Tensor, blank: Tensor, is_twin: Tensor, observed: Tensor) -> None:
    """Lets an observed position `(canvas, batch)` say its own target only, for nothing.

    Changes its arguments, `(target, canvas, batch)`, `(rows, canvas, batch)`, `(target, batch)`.
    """
    target, canvas, _ = say.shape
    diagonal = min(target, canvas)
    own = torch.zeros_like(is_twin)
    own[:diagonal] = observed[:diagonal]
    is_twin &= ~own  # what is shown need not be told from its neighbour
    number, position = (torch.arange(n, device=say.device) for n in (target, canvas))
    is_early = own[:, None] & (position < number[:, None])[:, :, None]
    say.masked_fill_(is_early | observed, _impossible(say.dtype))
    say.diagonal().masked_fill_(observed[:diagonal].t(), 0.0)
    blank.masked_fill_(observed, _impossible(say.dtype))


def _forward(
    weights: _Weights, repeats: bool, is_best: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The shares of T in S, of align in T and of skip prediction in N; S in the last column."""
    grid, tilt, part = weights.grid, weights.grid.tilt, weights.grid.part
    say, blank, skip = weights.say, weights.skip_prediction, weights.skip_target
    said_share = torch.empty_like(say)
    align_share = torch.empty_like(say) if repeats else said_share
    blank_share = torch.empty_like(say) if tilt else said_share
    # T, N and S of three fronts at a time; what is not reached is impossible
    shape, impossible = (3, *say.shape[1:]), _impossible(say.dtype)
    said, unsaid, either = (say.new_full(shape, impossible) for _ in range(3))
    last_column = torch.empty_like(either[0])

    def join(first, second, out, share):
        if is_best:
            torch.maximum(first, second, out=out)
            torch.ge(first, second, out=share)
        else:
            torch.logaddexp(first, second, out=out)
            torch.sub(first, out, out=share).exp_()

    for front, start, stop in grid.fronts():
        here, rows, above = (front, start, stop), (start, stop), (start - 1, stop - 1)
        new, left, corner = front % 3, (front - 1) % 3, (front - 1 - tilt) % 3
        t, n, s = (part(table, new, *rows) for table in (said, unsaid, either))
        enter = part(either, corner, *above)
        if repeats:
            enter = torch.where(weights.is_twin[start:stop], part(unsaid, corner, *above), enter)
            join(enter, part(said, left, *rows), t, part(align_share, *here))
            t += part(say, *here)
        else:
            torch.add(enter, part(say, *here), out=t)
        if tilt:
            torch.add(part(either, left, *above), part(skip, *here), alpha=weights.delta, out=n)
            skip_prediction = part(either, left, *rows) + part(blank, *here)
            join(skip_prediction, n, n, part(blank_share, *here))
        else:
            torch.add(part(either, left, *rows), part(blank, *here), out=n)
        if front == 1 + tilt:  # where everything begins
            n[0] = 0.0
        join(t, n, s, part(said_share, *here))
        if front - tilt * start == grid.columns - 2:
            last_column[start : start + 1 if tilt else stop] = s[: 1 if tilt else None]
    return (said_share, align_share, blank_share), last_column


def _backward(
    weights: _Weights, moves: Moves, shares: tuple[Tensor, Tensor, Tensor], is_possible: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors of say `(target, canvas, batch)`, skip target `(target, canvas + 1, batch)` and
    skip prediction `(canvas, batch)`; writes over weights and shares."""
    grid, tilt, part = weights.grid, weights.grid.tilt, weights.grid.part
    said_share, align_share, blank_share = shares
    repeats, is_twin = moves.allow_repetition, weights.is_twin.to(said_share.dtype)
    # a share is read before what flows there is written over it
    by_align, by_repeat = weights.say, align_share
    by_blank, by_skip = weights.skip_prediction, blank_share
    for table in (by_align, by_blank, *([by_repeat] * repeats), *([by_skip] * tilt)):
        grid.cells(table)[-1] = 0.0
        grid.cells(table)[:, -1] = 0.0
    ends = (moves.target_lengths + 1, torch.arange(grid.batch, device=is_twin.device))
    grid.cells(by_blank)[:, -1].index_put_(ends, is_possible.to(is_twin.dtype))
    for front, start, stop in reversed(grid.fronts()):
        here, below = (front, start, stop), (start + 1, stop + 1)
        onward = part(by_align, front + 1 + tilt, *below)
        if repeats:  # in front of a twin only what did not say it goes on
            past_twin = onward * part(is_twin, 0, *below)
            onward = onward - past_twin
        flow = onward + part(by_blank, front + 1, start, stop)
        if tilt:
            flow += part(by_skip, front + 1, *below)
        said = part(said_share, *here)
        said *= flow
        unsaid = torch.sub(flow, said, out=flow)
        if repeats:
            unsaid += past_twin
            said += part(by_repeat, front + 1, start, stop)
            torch.mul(said, part(align_share, *here), out=part(by_align, *here))
            torch.sub(said, part(by_align, *here), out=part(by_repeat, *here))
        else:
            part(by_align, *here).copy_(said)
        if tilt:
            torch.mul(unsaid, part(blank_share, *here), out=part(by_blank, *here))
            torch.sub(unsaid, part(by_blank, *here), out=part(by_skip, *here))
        else:
            part(by_blank, *here).copy_(unsaid)
    says = grid.cells(by_align)[2:-1, 2:-1]
    if repeats:
        says = says + grid.cells(by_repeat)[2:-1, 2:-1]
    skips = grid.cells(by_skip)[2:-1, 1:-1] if tilt else F.pad(says, (0, 0, 1, 0)).zero_()
    blanks = grid.cells(by_blank)[1:-1, 2:-1].sum(0)
    return says, skips, blanks
