"""All alignments at once: how often each move is made, in the best of them or in their mixture.

With `t` the temperature, `l_j(v) = log P_j(v) / t`, and two tables, T where the last move said a
target (align, repeat) and N where it did not (skip prediction, skip target)::

    S[i,j] = T[i,j] (+) N[i,j]
    T[i,j] = l_j(Y_i) + ( S[i-1,j-1]  (+)  T[i,j-1] )                align, repeat
    N[i,j] = l_j(blank) + S[i,j-1]  (+)  delta l_j(Y_i) + S[i-1,j]   skip prediction, skip target

`(+)` is the logarithm of the sum of exponentials, or, for the best alignment, the larger of the two,
the first on a tie. Repeat is there with repetition only; then align comes from N[i-1,j-1] alone if
Y_i = Y_{i-1}, as decoding would make one of the two. Each `(+)` notes the share of its first
argument. On the way back a flow of 1 from the last cell is split by these shares: what arrives is
the posterior of a move, 0 or 1 along the best alignment. So nothing can overflow, and value and
posterior are as exact as float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Cells of all sentences' tables that a CPU works on at once: about 25 MiB of scratch.
MAX_CELLS_CPU = 2**17


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
    """Returns the posterior of every move, in float64: of the mixture or along the best alignment."""
    batch, target, canvas = moves.say.shape
    size = max(1, batch)  # whole sentences, on a GPU all at once
    if moves.say.device.type == "cpu":
        size = min(size, max(1, MAX_CELLS_CPU // max(1, target * canvas)))
    parts = [_posterior(moves[k : k + size], is_best) for k in range(0, max(1, batch), size)]
    return Posterior(*map(torch.cat, zip(*parts, strict=True)))


class _Grid:
    """Tables `(rows, columns, batch)` laid out front by front, `(fronts, rows, batch)`.

    The cells of a front follow from earlier fronts and are computed at once: an anti-diagonal
    (`tilt` 1), or a column (`tilt` 0) where no move goes down a column.
    """

    def __init__(self, rows: int, columns: int, tilt: int, like: Tensor):
        self.rows, self.columns, self.tilt = rows, columns, tilt
        self.fronts, self.like = columns + tilt * (rows - 1), like

    def new(self, border: float | None = None, is_behind: bool = False) -> Tensor:
        """A table whose first row and column are `border`, or the last ones of what `is_behind`."""
        table = self.like.new_empty((self.fronts, self.rows, self.like.shape[-1]))
        if border is not None:
            edge = -1 if is_behind else 0
            self.cells(table)[edge] = border
            self.cells(table)[:, edge] = border
        return table

    def cells(self, table: Tensor) -> Tensor:
        """The table seen by `(row, column, batch)`."""
        batch = table.shape[2]
        strides = ((self.tilt * self.rows + 1) * batch, self.rows * batch, 1)
        return table.as_strided((self.rows, self.columns, batch), strides)

    def inner(self) -> list[tuple[int, int, int]]:
        """Front, first row and row behind the last, of the cells that are not in row or column 0."""
        if not self.tilt:
            return [(front, 1, self.rows) for front in range(1, self.columns)]
        ends = range(2, self.fronts)
        return [(f, max(1, f - self.columns + 1), min(self.rows, f)) for f in ends]


@dataclass
class _Weights:
    """The weights of the moves into each cell; the cells of row and column 0 have a border."""

    grid: _Grid
    say: Tensor
    skip_prediction: Tensor
    skip_target: Tensor
    is_twin: Tensor  # (rows + 1, batch) bool: the row's token is that of the row before


def _posterior(moves: Moves, is_best: bool) -> Posterior:
    batch, target, canvas = moves.say.shape
    weights = _weights_by_front(moves)
    grid, sentences = weights.grid, torch.arange(batch, device=moves.say.device)
    either, shares = _forward(weights, moves, is_best)
    ends = (moves.target_lengths, moves.canvas_lengths, sentences)
    value = grid.cells(either)[1:, 1:][ends]
    del either  # the way back takes as much again
    value = value.masked_fill(value < _impossible(value.dtype) / 2, -torch.inf)
    passing = torch.zeros_like(shares[0])
    grid.cells(passing).index_put_(ends, (value != -torch.inf).to(value.dtype))
    says, skips, blanks = _backward(weights, moves, shares, passing)
    if moves.observed_mask is not None:  # what is skipped behind one is paid at the next
        is_shown = moves.observed_mask.t()
        behind = torch.where(is_shown, skips[:, 1:], 0)
        skips[:, 1:] -= behind
        skips[:, 2:] += behind[:, :-1]
    if canvas:  # before the first position is paid at the first
        skips[:, 1] += skips[:, 0]
    return Posterior(value, says.permute(2, 0, 1), skips[:, 1:].permute(2, 0, 1), blanks.t())


def _impossible(dtype: torch.dtype) -> float:
    """A weight that no alignment has; sums of it, and delta times it, are finite all the same."""
    return -(torch.finfo(dtype).max ** (1 / 3))


def _weights_by_front(moves: Moves) -> _Weights:
    batch, target, canvas = moves.say.shape
    device, observed = moves.say.device, moves.observed_mask
    dtype = torch.float32 if device.type == "mps" else torch.float64
    nothing = moves.say.new_empty((0, batch), dtype=dtype)
    grid = _Grid(target + 2, canvas + 2, int(moves.delta != torch.inf), nothing)
    impossible = _impossible(dtype)
    is_behind = torch.arange(canvas, device=device)[:, None] >= moves.canvas_lengths
    say, blank = grid.new(impossible), grid.new(impossible)
    cells, blanks = grid.cells(say), grid.cells(blank)
    cells[1], cells[2:, 1], blanks[:, 1] = 0.0, impossible, impossible
    cells[2:, 2:] = moves.say.permute(1, 2, 0)
    blanks[1:, 2:] = moves.skip_prediction.t()
    for inner in (cells[2:, 2:], blanks[1:, 2:]):
        inner.masked_fill_(is_behind, impossible).clamp_(min=impossible)
    if canvas:  # a target that is skipped before the first position is paid there
        cells[2:, 1] = cells[2:, 2]
    is_twin = torch.zeros((target + 3, batch), dtype=torch.bool, device=device)
    if moves.allow_repetition and moves.tokens is not None:
        is_twin[3:-1] = (moves.tokens[:, 1:] == moves.tokens[:, :-1]).t()
    skip = say
    if observed is not None:
        skip = say.clone()
        skips, shown = grid.cells(skip), observed.t()  # (canvas, batch)
        skips[2:, 2:-1] = torch.where(shown[:-1], cells[2:, 3:], cells[2:, 2:-1])
        diagonal = min(target, canvas)
        own = torch.zeros((target, batch), dtype=torch.bool, device=device)
        own[:diagonal] = shown[:diagonal]
        is_twin[2:-1] &= ~own  # what is shown need not be told from its neighbour
        number, position = (torch.arange(n, device=device) for n in (target, canvas))
        is_early = own[:, None] & (position < number[:, None])[:, :, None]
        cells[2:, 2:].masked_fill_(is_early | shown, impossible)
        cells[2:, 2:].diagonal().masked_fill_(shown[:diagonal].t(), 0.0)
        blanks[1:, 2:].masked_fill_(shown, impossible)
    return _Weights(grid, say, blank, skip, is_twin)


def _forward(weights: _Weights, moves: Moves, is_best: bool) -> tuple[Tensor, list[Tensor]]:
    """The table S, and the shares of T in S, of align in T and of skip prediction in N."""
    grid, delta, impossible = weights.grid, moves.delta, _impossible(weights.say.dtype)
    tilt, repeats = grid.tilt, moves.allow_repetition
    said, unsaid, either = (grid.new(impossible) for _ in range(3))
    said_share, align_share, blank_share = shares = [torch.empty_like(said) for _ in range(3)]
    tables = (said, unsaid, either, *shares, weights.say, weights.skip_prediction)

    def join(first, second, out, share):
        if is_best:
            torch.maximum(first, second, out=out)
            share.copy_(first >= second)
        else:
            torch.logaddexp(first, second, out=out)
            torch.sub(first, out, out=share).exp_()

    for front, start, stop in grid.inner():
        rows, above = slice(start, stop), slice(start - 1, stop - 1)
        t, n, s, said_part, align_part, blank_part, say, blank = (x[front, rows] for x in tables)
        corner = front - 1 - tilt
        enter = either[corner, above]
        if repeats:
            enter = torch.where(weights.is_twin[rows], unsaid[corner, above], enter)
            join(enter, said[front - 1, rows], t, align_part)
            t += say
        else:
            torch.add(enter, say, out=t)
        if tilt:
            below = torch.add(
                either[front - 1, above], weights.skip_target[front, rows], alpha=delta
            )
            join(either[front - 1, rows] + blank, below, n, blank_part)
        else:
            torch.add(either[front - 1, rows], blank, out=n)
        if front == 1 + tilt:  # the cell that all begins in
            n[0] = 0.0
        join(t, n, s, said_part)
    return either, shares


def _backward(
    weights: _Weights, moves: Moves, shares: list[Tensor], passing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors of say `(target, canvas, batch)`, skip target `(target, canvas + 1, batch)` and
    skip prediction `(canvas, batch)`; `passing` has 1 in the last cells, 0 elsewhere."""
    grid, (said_share, align_share, blank_share) = weights.grid, shares
    tilt, repeats, is_twin = grid.tilt, moves.allow_repetition, weights.is_twin.to(passing.dtype)
    by_align, by_repeat, by_blank = (grid.new(0.0, is_behind=True) for _ in range(3))
    by_skip = grid.new(0.0, is_behind=True) if tilt else torch.zeros_like(by_align)
    for front, start, stop in reversed(grid.inner()):
        # Here the border is behind the last row and column: cells of `rows` are in row `cells`.
        here, rows, cells = front - 1 - tilt, slice(start, stop), slice(start - 1, stop - 1)
        flow = torch.add(passing[here, cells], by_blank[here + 1, cells])
        if tilt:
            flow += by_skip[here + 1, rows]
        onward = by_align[front, rows]
        if repeats:  # in front of a twin only what did not say it
            past_twin = onward * is_twin[start + 1 : stop + 1]
            flow += onward
            flow -= past_twin
        else:
            flow += onward
        said = said_share[front, rows] * flow
        unsaid = flow - said
        if repeats:
            unsaid += past_twin
            said += by_repeat[here + 1, cells]
            torch.mul(said, align_share[front, rows], out=by_align[here, cells])
            torch.sub(said, by_align[here, cells], out=by_repeat[here, cells])
        else:
            by_align[here, cells] = said
        if tilt:
            torch.mul(unsaid, blank_share[front, rows], out=by_blank[here, cells])
            torch.sub(unsaid, by_blank[here, cells], out=by_skip[here, cells])
        else:
            by_blank[here, cells] = unsaid
    says = grid.cells(by_align)[1:-1, 1:-1]
    if repeats:
        says = says + grid.cells(by_repeat)[1:-1, 1:-1]
    skips = grid.cells(by_skip)[1:-1, :-1]
    return says, skips, grid.cells(by_blank)[:-1, 1:-1].sum(0)
