"""The dynamic programme of Aligned Cross Entropy (AXE): which prediction says which target token.

With `P` the canvas positions, `Y` the target tokens, `e` the blank and `delta` the price of
skipping a target::

    A[i,j] = min( A[i-1,j-1] - log P_j(Y_i)            align
                  A[i,j-1]   - log P_j(e)              skip prediction
                  A[i-1,j]   - delta * log P_j(Y_i) )  skip target (column 0 pays at position 1)

Everything here works on costs that were gathered before; the vocabulary never appears. Source:
Ghazvininejad et al., Aligned Cross Entropy for Non-Autoregressive Machine Translation, ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .family_axe import Moves, Posterior, exact_dtype, posterior_of

# Of probability zero, since inf - inf is not a number. Far above any honest path.
IMPOSSIBLE_COST = 1e6
# Cells of all sentences' tables that a CPU works on at once: about 10 MiB of scratch.
MAX_CELLS_CPU = 2**18


@dataclass(frozen=True)
class AxeTargets:
    """What is to be said, and where: one batch, from the door of the loss to the kernels."""

    tokens: Tensor  # (batch, target) long: the target tokens, the blank at padding
    target_lengths: Tensor  # (batch,) long
    canvas_lengths: Tensor | None = None  # (batch,) long; None: the whole canvas
    observed_mask: Tensor | None = None  # (batch, canvas) bool: True where it shows its own token
    observed_tokens: Tensor | None = None  # (batch, canvas) long: or where it shows one of these

    def __getitem__(self, sentences: slice) -> AxeTargets:
        parts = vars(self).items()
        return AxeTargets(**{n: None if part is None else part[sentences] for n, part in parts})

    def num_scored(self) -> Tensor:
        """Targets that are neither padding nor observed, a scalar, long."""
        number = self.target_lengths.sum()
        if self.observed_mask is None or self.observed_tokens is not None:
            return number
        return number - self.observed_mask.sum()


@dataclass(frozen=True)
class AxeOptions:
    """How it is scored; travels with `AxeTargets`."""

    blank_token_id: int | None  # None for a path without blanks: plain cross entropy
    delta: float = 0.0  # factor on the cost of a skipped target
    label_smoothing: float = 0.0  # share of the uniform distribution in the target distribution
    allow_repetition: bool = False  # a token may stand on several positions in a row
    temperature: float = 0.0  # of the soft minimum over all alignments; 0: the best one
    with_alignment: bool = True  # whether the best one is wanted where the loss does without it

    @property
    def is_paper(self) -> bool:
        """Whether this is the AXE of the paper, which is not looked for among the family."""
        return not self.allow_repetition and self.temperature == 0 and self.delta != torch.inf


@dataclass(frozen=True)
class AxeAlignment:
    """The cheapest monotonic alignment of a batch of targets with a batch of canvases.

    Args:
        target_to_position: `(batch, target)`, long. The canvas position a target is aligned with,
            the first of several, or, if it is skipped, the position it was skipped at; -1 at
            padding, and where no alignment exists.
        is_aligned: `(batch, target)`, bool. True where the target is aligned, observed ones
            included; False where it is skipped, and at padding.
        position_to_target: `(batch, canvas)`, long. The target that a position is aligned with; -1
            where the prediction is skipped (it should say blank) and behind the canvas's end.
        num_skipped_targets: `(batch,)`, long.
        num_skipped_predictions: `(batch,)`, long.
        cost: `(batch,)`, float. The cost of the path in nats per sentence, without label smoothing;
            infinite where no alignment exists.
    """

    target_to_position: Tensor
    is_aligned: Tensor
    position_to_target: Tensor
    num_skipped_targets: Tensor
    num_skipped_predictions: Tensor
    cost: Tensor


@dataclass(frozen=True)
class ExpectedSkips:
    """What a loss over all alignments tells in place of the best one; both `(batch,)`, float."""

    num_skipped_targets: Tensor
    num_skipped_predictions: Tensor


@torch.no_grad()
def align_axe(
    target_costs: Tensor,
    blank_costs: Tensor,
    *,
    delta: float,
    target_lengths: Tensor | None = None,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    allow_repetition: bool = False,
    tokens: Tensor | None = None,
) -> AxeAlignment:
    """Finds the cheapest alignment; it carries no gradient.

    On equal cost, align comes before repeat before skip prediction before skip target. Costs above
    1e6 nats (and infinite ones) count as 1e6 while the path is chosen; with repetition or infinite
    `delta` they count as they are, and a sentence may have no alignment.

    Args:
        target_costs: `(batch, target, canvas)`, float. `-log P_j(Y_i)` in nats.
        blank_costs: `(batch, canvas)`, float. `-log P_j(blank)` in nats.
        delta: Factor on the cost of a skipped target, at least 0; infinite: none is skipped.
        target_lengths: `(batch,)`, long. Default: all targets count.
        canvas_lengths: `(batch,)`, long. Default: all positions count.
        observed_mask: `(batch, canvas)`, bool. True where the canvas shows its own token: position
            j then is aligned with target j, costs nothing, and the rest is aligned on either side
            of it. Default: none.
        allow_repetition: Whether a target may be said by several positions in a row.
        tokens: `(batch, target)`, long. With repetition, to know where neighbours are equal: then
            something must stand between them.

    Example:
        >>> import torch
        >>> late = torch.tensor([[[9.0, 0.1, 9.0], [9.0, 9.0, 0.1]]])  # one position late
        >>> align_axe(late, torch.tensor([[0.5, 9.0, 9.0]]), delta=1.0).target_to_position
        tensor([[1, 2]])
    """
    batch, target, canvas = target_costs.shape
    device = target_costs.device
    if canvas == 0:  # then one position, of which nothing is used
        padded = (F.pad(costs, (0, 1)) for costs in (target_costs, blank_costs))
        nothing = torch.zeros(batch, dtype=torch.long, device=device)
        alignment = align_axe(*padded, delta=delta, target_lengths=nothing, canvas_lengths=nothing)
        return replace(alignment, position_to_target=alignment.position_to_target[:, :0])
    if target_lengths is None:
        target_lengths = torch.full((batch,), target, device=device)
    if canvas_lengths is None:
        canvas_lengths = torch.full((batch,), canvas, device=device)
    if allow_repetition or delta == torch.inf:
        if allow_repetition and tokens is None:
            raise ValueError(
                "`allow_repetition` needs `tokens`, to know where neighbours are equal."
            )
        lengths = (target_lengths, canvas_lengths, observed_mask)
        moves = Moves(-target_costs, -blank_costs, delta, allow_repetition, tokens, *lengths)
        return best_alignment(posterior_of(moves, is_best=True), moves)
    is_target = torch.arange(target, device=device) < target_lengths[:, None]
    position, is_aligned = _cheapest_path(
        target_costs, blank_costs, delta, is_target, canvas_lengths, observed_mask
    )
    is_paid = is_aligned
    if observed_mask is not None:
        is_paid = is_aligned & ~observed_mask.gather(1, position)
    # skipped targets and padding write to one column too many, which is cut off
    numbers = torch.arange(target, device=device).expand(batch, target)
    position_to_target = torch.full((batch, canvas + 1), -1, device=device)
    position_to_target.scatter_(1, position.masked_fill(~is_aligned, canvas), numbers)
    position_to_target = position_to_target[:, :canvas]
    is_skipped = is_target & ~is_aligned
    is_inside = torch.arange(canvas, device=device) < canvas_lengths[:, None]
    is_blank = is_inside & (position_to_target < 0)
    path_costs = target_costs.gather(2, position[:, :, None])[:, :, 0]  # (batch, target)
    # where, not a product with 0: a cost may be infinite
    cost = torch.where(is_blank, blank_costs, 0).sum(1) + torch.where(is_paid, path_costs, 0).sum(1)
    if delta > 0:
        cost += delta * torch.where(is_skipped, path_costs, 0).sum(1)
    return AxeAlignment(
        target_to_position=position.masked_fill(~is_target, -1),
        is_aligned=is_aligned,
        position_to_target=position_to_target,
        num_skipped_targets=is_skipped.sum(1),
        num_skipped_predictions=is_blank.sum(1),
        cost=cost,
    )


def best_alignment(best: Posterior, moves: Moves) -> AxeAlignment:
    """The alignment whose moves have posterior 1."""
    (_, target, canvas), device = moves.say.shape, moves.say.device
    says, skips, is_blank = best.says > 0, best.skip_target > 0, best.skip_prediction > 0
    first = says & ~F.pad(says, (1, 0))[:, :, :canvas]
    paid = says if moves.observed_mask is None else says & ~moves.observed_mask[:, None]
    # where, not a product with 0: a weight may be infinite
    cost = -torch.where(is_blank, moves.skip_prediction, 0).sum(1)
    cost -= torch.where(paid, moves.say, 0).sum((1, 2))
    if 0 < moves.delta < torch.inf:
        cost -= moves.delta * torch.where(skips, moves.say, 0).sum((1, 2))
    # from 1, so that nothing is -1
    numbers, positions = (torch.arange(1, n + 1, device=device) for n in (target, canvas))
    return AxeAlignment(
        target_to_position=((first | skips) * positions).sum(2) - 1,
        is_aligned=says.any(2),
        position_to_target=(says * numbers[:, None]).sum(1) - 1,
        num_skipped_targets=skips.sum((1, 2)),
        num_skipped_predictions=is_blank.sum(1),
        cost=cost.masked_fill(best.value == -torch.inf, torch.inf),
    )


def _cheapest_path(
    target_costs: Tensor,
    blank_costs: Tensor,
    delta: float,
    is_target: Tensor,
    canvas_lengths: Tensor,
    observed_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Where each target is aligned or skipped and which of the two, both `(batch, target)`."""
    batch, target, canvas = target_costs.shape
    size = max(1, batch)  # whole sentences, on a GPU all at once
    if target_costs.device.type == "cpu":
        size = min(size, max(1, MAX_CELLS_CPU // max(1, target * canvas)))
    paths = []
    for start in range(0, max(1, batch), size):
        chunk = slice(start, start + size)
        align, skip_target = _step_costs(target_costs[chunk], blank_costs[chunk], delta)
        if observed_mask is not None:
            _split_at_observed(align, skip_target, observed_mask[chunk])
        table = _fill_table(align, skip_target)
        del skip_target  # the way back takes as much again
        paths.append(_trace_back(align, table, is_target[chunk], canvas_lengths[chunk]))
    position, is_aligned = (torch.cat(parts) for parts in zip(*paths, strict=True))
    if observed_mask is not None:  # what was skipped at an observed position is paid at the next
        is_behind = observed_mask.gather(1, position) & ~is_aligned
        position = (position + is_behind).clamp_(max=canvas - 1)
    return position, is_aligned


def _step_costs(target_costs: Tensor, blank_costs: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """The costs of align `(target, batch, canvas)` and skip target `(target, batch, canvas + 1)`.

    They are in the frame `A[i,j] - (blank costs up to j)`, where skip prediction is free.
    """
    batch, target, canvas = target_costs.shape
    # The frame subtracts large numbers from each other: in float32 that may cost the right path.
    dtype = exact_dtype(target_costs.device)
    align = torch.empty((target, batch, canvas), dtype=dtype, device=target_costs.device)
    align.copy_(target_costs.permute(1, 0, 2)).clamp_(max=IMPOSSIBLE_COST)
    skip_target = align.new_empty((target, batch, canvas + 1))
    torch.mul(align, delta, out=skip_target[:, :, 1:])
    skip_target[:, :, 0] = skip_target[:, :, 1]
    align -= blank_costs.to(dtype).clamp(max=IMPOSSIBLE_COST)
    return align, skip_target


def _split_at_observed(align: Tensor, skip_target: Tensor, observed_mask: Tensor) -> None:
    """Lets an observed position be reached by aligning its own target only, at no cost.

    Changes its arguments. The path enters row `o` at column `o` only; hence no other row can use
    position `o`, except to skip a target right behind it, which is to be paid at the next.
    """
    target, batch, canvas = align.shape
    diagonal = min(target, canvas)
    is_shown = observed_mask.new_zeros((target, batch))
    is_shown[:diagonal] = observed_mask[:, :diagonal].t()
    skip_target[:, :, 1:-1] = torch.where(
        observed_mask[:, :-1], skip_target[:, :, 2:], skip_target[:, :, 1:-1]
    )
    skip_target.masked_fill_(is_shown[:, :, None], torch.inf)
    align.masked_fill_(is_shown[:, :, None], torch.inf)
    align.diagonal(dim1=0, dim2=2).masked_fill_(observed_mask[:, :diagonal], 0.0)


def _fill_table(align: Tensor, skip_target: Tensor) -> Tensor:
    """Fills the table row by row; a row is one prefix minimum, as skip prediction is free.

    Leaves in `align` the value of every cell if it were reached by aligning.
    Returns `(target + 1, batch, canvas + 1)`.
    """
    target, batch, columns = skip_target.shape
    table = align.new_empty((target + 1, batch, columns))
    table[0] = 0
    unused = torch.empty((batch, columns), dtype=torch.long, device=align.device)
    views = (table[:-1], table[:-1, :, :-1], table[1:], align, skip_target, skip_target[:, :, 1:])
    for above, above_left, row, by_align, by_skip, by_skip_tail in zip(
        *(view.unbind(0) for view in views), strict=True
    ):
        by_align += above_left
        by_skip += above
        torch.minimum(by_skip_tail, by_align, out=by_skip_tail)
        torch.cummin(by_skip, 1, out=(row, unused))
    return table


def _trace_back(
    by_align: Tensor, table: Tensor, is_target: Tensor, canvas_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Follows the best path from the last cell; a run of skip predictions is one jump.

    Returns the position and whether it is aligned, both `(batch, target)`.
    """
    target, batch, canvas = by_align.shape
    row, row_left = table[1:, :, 1:], table[1:, :, :-1]
    is_align = by_align == row  # on a tie align wins
    is_skip_target = row < row_left  # on a tie with skip prediction skip target loses
    # A step into column j is 2j - 1 if it aligns and 2j if it skips a target: half of it is the
    # column left behind. In 16 bits where they fit: every pass over the table is memory traffic.
    dtype = torch.int16 if 2 * canvas < 2**15 else torch.int32
    double = torch.arange(0, 2 * canvas + 2, 2, dtype=dtype, device=by_align.device)
    steps = double.new_empty((target, batch, canvas + 1))
    steps[:, :, 0] = 0
    torch.mul(is_align | is_skip_target, double[1:], out=steps[:, :, 1:])
    steps[:, :, 1:] -= is_align.view(torch.int8)
    steps = steps.cummax(2).values  # the last step at or before each column
    is_padding = ~is_target.t()[:, :, None]
    torch.where(is_padding, double, steps, out=steps)  # padding stays where it is

    column = canvas_lengths[:, None]  # (batch, 1)
    visited = []
    for row_steps in reversed(steps.unbind(0)):
        step = row_steps.gather(1, column)
        visited.append(step)
        column = (step >> 1).long()
    steps = torch.cat(visited[::-1], 1).long() if visited else canvas_lengths.new_empty((batch, 0))
    is_aligned = (steps & 1).bool()
    # An aligned step left column j for j - 1, which is position j counted from 0.
    position = (steps >> 1) - (~is_aligned).long()
    return position.clamp_(min=0), is_aligned
