"""The dynamic programme of AXE with back-pointers, the way back, and the loss along it: a program per sentence.

In the frame `A[i,j] - (blank costs up to j)`, skip prediction is free and a row is one prefix minimum::

    row[j] = min over k <= j of min( above[k-1] + cost[i,k] - blank[k]  align,    above[k] + delta * cost[i,k]  skip target )

A row lives in registers, lane `k` holds column `k + 1`, and one associative scan makes the next row of it. The scan
carries (minimum, step that it was reached by, minimum without the last lane): the third is `above[k-1]` of the next
row, so no lane looks at its neighbour. Canvases beyond a block are taken in tiles of columns, each through all rows;
the last column of a tile goes through memory to the next, as column 0 (`left`) goes to the first::

              lanes 0 .. BLOCK-1   BLOCK .. 2*BLOCK-1
    left  |  tile 0              | tile 1              |
    row 1 |  ->                  |                     |
    row 2 |  ->             edge |->                   |

A step into column j is -j if it aligns and j if it skips a target. Of equally cheap steps the smallest number is the
one to take: align at the nearest column, then skip prediction, as it leads to a column before, then skip target.
`steps[sentence, target, canvas]` holds the last step at or before each column, so the way back is one jump per target.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .scalars import in_two_parts
from .statistics import RowStatistics

MAX_BLOCK = 1024
MAX_BLOCK_TARGET = 256
# As in the PyTorch code: stands for the cost of probability zero, since inf - inf is not a number.
IMPOSSIBLE_COST = tl.constexpr(1e6)


@triton.jit
def _cheapest(cost, step, cost_before, other_cost, other_step, other_cost_before):
    is_other = (other_cost < cost) | ((other_cost == cost) & (other_step < step))
    return (
        tl.where(is_other, other_cost, cost),
        tl.where(is_other, other_step, step),
        tl.minimum(cost, other_cost_before),
    )


@triton.jit
def _cost(log_prob):
    return tl.minimum(-log_prob.to(tl.float64), IMPOSSIBLE_COST)


@triton.jit
def _fill_steps(
    token_log_probs,
    blank_log_prob,
    observed_mask,
    steps,
    edge_costs,
    edge_steps,
    delta,
    target_length,
    canvas_length,
    target,
    canvas,
    HAS_OBSERVED: tl.constexpr,
    TILED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Fills `steps`; the pointers are those of the sentence."""
    lane = tl.arange(0, BLOCK)
    for tile in range(0, canvas_length, BLOCK):
        position = tile + lane
        column = position + 1
        is_inside = position < canvas_length
        blank_cost = _cost(tl.load(blank_log_prob + position, mask=is_inside, other=0.0))
        above = tl.zeros([BLOCK], tl.float64)
        above_left = tl.zeros([BLOCK], tl.float64)
        left = tl.zeros([], tl.float64)
        if HAS_OBSERVED:
            is_seen = tl.load(observed_mask + position, mask=is_inside, other=0) != 0
            is_moved = is_seen & (column < canvas_length)
        # A row is read while the one before it is scanned.
        log_prob = tl.load(token_log_probs + position, mask=is_inside & (target_length > 0))
        left_log_prob = tl.load(token_log_probs, mask=target_length > 0)
        for i in range(0, target_length):
            below = token_log_probs + (i + 1) * canvas
            has_below = i + 1 < target_length
            next_log_prob = tl.load(below + position, mask=is_inside & has_below)
            next_left_log_prob = tl.load(below, mask=has_below)
            cost = _cost(log_prob)
            skip_cost = cost
            left = left + delta * _cost(left_log_prob)
            left_step = tl.zeros([], tl.int32)
            by_align = cost - blank_cost + above_left
            if HAS_OBSERVED:
                # What is skipped right behind an observed position is paid at the one that follows.
                row = token_log_probs + i * canvas
                moved_cost = _cost(tl.load(row + column, mask=is_moved, other=0.0))
                skip_cost = tl.where(is_moved, moved_cost, skip_cost)
            by_skip = above + delta * skip_cost
            if HAS_OBSERVED:
                # An observed target is reached by aligning it with its own position only, at no cost.
                is_shown = tl.load(observed_mask + i, mask=i < canvas, other=0) != 0
                own = tl.where(position == i, above_left, float("inf"))
                by_align = tl.where(is_shown, own, by_align)
                by_skip = tl.where(is_shown, float("inf"), by_skip)
                left = tl.where(is_shown, float("inf"), left)
            if TILED:
                is_later = tile > 0
                edge = ((tile // BLOCK + 1) % 2) * target + i
                edge_cost = tl.load(edge_costs + edge, mask=is_later, other=0.0)
                left = tl.where(is_later, edge_cost, left)
                left_step = tl.load(edge_steps + edge, mask=is_later, other=0)
            is_align = by_align <= by_skip
            best = tl.where(is_align, by_align, by_skip)
            step = tl.where(is_align, -column, column)
            before = tl.full([BLOCK], float("inf"), tl.float64)
            best, step, before = tl.associative_scan((best, step, before), 0, _cheapest)
            is_left = (left < best) | ((left == best) & (left_step < step))
            above = tl.where(is_left, left, best)
            step = tl.where(is_left, left_step, step)
            above_left = tl.minimum(left, before)
            out = steps + i * canvas + position
            tl.store(out, step.to(steps.dtype.element_ty), mask=is_inside)
            if TILED:
                edge = ((tile // BLOCK) % 2) * target + i
                is_last = lane == BLOCK - 1
                tl.store(edge_costs + edge, tl.sum(tl.where(is_last, above, 0.0), 0))
                tl.store(edge_steps + edge, tl.sum(tl.where(is_last, step, 0), 0))
            log_prob = next_log_prob
            left_log_prob = next_left_log_prob
        tl.debug_barrier()  # the edge was written by other threads than those that read it


@triton.jit
def _trace_back(
    steps, column, start, stop, canvas, TILED: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr
):
    """Returns the steps taken into targets `start` to `stop`, from the last to the first, and the column reached."""
    lane = tl.arange(0, BLOCK)
    number = tl.arange(0, SIZE)
    taken = tl.zeros([SIZE], tl.int32)
    last = steps + (stop - 1) * canvas + lane
    row = tl.load(last, mask=(lane < canvas) & (stop > start), other=0).to(tl.int32)
    for k in range(0, stop - start):
        i = stop - 1 - k
        tile = 0
        if TILED:
            tile = tl.maximum(column - 1, 0) // BLOCK * BLOCK
            here = steps + i * canvas + tile + lane
            row = tl.load(here, mask=tile + lane < canvas, other=0).to(tl.int32)
        step = tl.sum(tl.where(tile + lane + 1 == column, row, 0), 0)  # 0 in column 0
        if not TILED:
            above = steps + (i - 1) * canvas + lane
            row = tl.load(above, mask=(lane < canvas) & (i > start), other=0).to(tl.int32)
        taken = tl.where(number == i - start, step, taken)
        column = tl.where(step < 0, -step - 1, step)
    return taken, column


@triton.jit(do_not_specialize=["target", "canvas"])
def alignment_kernel(
    token_log_probs,
    blank_log_prob,
    mean_log_prob,
    target_lengths,
    canvas_lengths,
    observed_mask,
    steps,
    edge_costs,
    edge_steps,
    loss,
    cost,
    target_to_position,
    is_aligned,
    position_to_target,
    num_skipped_targets,
    num_skipped_predictions,
    token_weight,
    token_log_prob,
    is_blank,
    delta_high,
    delta_low,
    smoothing_high,
    smoothing_low,
    target,
    canvas,
    HAS_CANVAS_LENGTHS: tl.constexpr,
    HAS_OBSERVED: tl.constexpr,
    WITH_MEAN: tl.constexpr,
    TILED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_TARGET: tl.constexpr,
):
    sentence = tl.program_id(0).to(tl.int64)
    targets = sentence * target
    positions = sentence * canvas
    delta = tl.full([], delta_high, tl.float64) + tl.full([], delta_low, tl.float64)
    target_length = tl.minimum(tl.load(target_lengths + sentence), target).to(tl.int32)
    target_length = tl.where(canvas > 0, target_length, 0)
    canvas_length = tl.full([], 0, tl.int32) + canvas
    if HAS_CANVAS_LENGTHS:
        canvas_length = tl.minimum(tl.load(canvas_lengths + sentence), canvas).to(tl.int32)
    lane = tl.arange(0, BLOCK)
    for tile in range(0, canvas, BLOCK):
        nothing = tl.full([BLOCK], -1, tl.int64)
        out = position_to_target + positions + tile + lane
        tl.store(out, nothing, mask=tile + lane < canvas)
    _fill_steps(
        token_log_probs + targets * canvas,
        blank_log_prob + positions,
        observed_mask + positions if HAS_OBSERVED else observed_mask,
        steps + targets * canvas,
        edge_costs + 2 * targets if TILED else edge_costs,
        edge_steps + 2 * targets if TILED else edge_steps,
        delta,
        target_length,
        canvas_length,
        target,
        canvas,
        HAS_OBSERVED,
        TILED,
        BLOCK,
    )
    tl.debug_barrier()

    path_cost = tl.zeros([], tl.float64)
    uniform_cost = tl.zeros([], tl.float64)
    num_skipped = tl.zeros([], tl.int32)
    column = canvas_length
    num_chunks = tl.cdiv(target, BLOCK_TARGET)
    for chunk in range(0, num_chunks):
        start = (num_chunks - 1 - chunk) * BLOCK_TARGET
        stop = tl.minimum(start + BLOCK_TARGET, target_length)
        here = steps + targets * canvas
        step, column = _trace_back(
            here, column, start, stop, canvas, TILED, BLOCK, BLOCK_TARGET
        )
        number = start + tl.arange(0, BLOCK_TARGET)
        is_target = number < target_length
        aligned = step < 0
        position = tl.where(aligned, -step - 1, tl.maximum(step - 1, 0))
        weight = tl.where(aligned, 1.0, delta)
        if HAS_OBSERVED:
            at = observed_mask + positions + position
            is_behind = (tl.load(at, mask=is_target, other=0) != 0) & (step >= 0)
            position = tl.minimum(position + is_behind.to(tl.int32), canvas - 1)
            at = observed_mask + positions + position
            weight = tl.where(tl.load(at, mask=is_target, other=0) != 0, 0.0, weight)
        weight = tl.where(is_target, weight, 0.0)
        entry = (targets + number) * canvas + position
        log_prob = tl.load(token_log_probs + entry, mask=is_target, other=0.0)
        # where, not a product with 0: a cost may be infinite
        path_cost -= tl.sum(tl.where(weight > 0, weight * log_prob, 0.0), 0)
        if WITH_MEAN:
            mean = tl.load(mean_log_prob + positions + position, mask=is_target, other=0.0)
            uniform_cost -= tl.sum(tl.where(weight > 0, weight * mean, 0.0), 0)
        num_skipped += tl.sum((is_target & (step >= 0)).to(tl.int32), 0)
        out = targets + number
        exists = number < target
        tl.store(target_to_position + out, tl.where(is_target, position, -1), mask=exists)
        tl.store(is_aligned + out, aligned.to(tl.uint8), mask=exists)
        tl.store(token_weight + out, weight.to(token_weight.dtype.element_ty), mask=exists)
        tl.store(token_log_prob + out, log_prob, mask=exists)
        tl.store(position_to_target + positions + position, number, mask=is_target & aligned)
    tl.store(num_skipped_targets + sentence, num_skipped)
    tl.debug_barrier()

    num_blanks = tl.zeros([], tl.int32)
    for tile in range(0, canvas, BLOCK):
        at = positions + tile + lane
        is_inside = tile + lane < canvas_length
        blank = (tl.load(position_to_target + at, mask=is_inside, other=0) < 0) & is_inside
        log_prob = tl.load(blank_log_prob + at, mask=blank, other=0.0)
        path_cost -= tl.sum(log_prob.to(tl.float64), 0)
        if WITH_MEAN:
            mean = tl.load(mean_log_prob + at, mask=blank, other=0.0)
            uniform_cost -= tl.sum(mean.to(tl.float64), 0)
        num_blanks += tl.sum(blank.to(tl.int32), 0)
        tl.store(is_blank + at, blank.to(tl.uint8), mask=tile + lane < canvas)
    tl.store(num_skipped_predictions + sentence, num_blanks)
    tl.store(cost + sentence, path_cost.to(cost.dtype.element_ty))
    total = path_cost
    if WITH_MEAN:
        smoothing = tl.full([], smoothing_high, tl.float64) + tl.full([], smoothing_low, tl.float64)
        total = (1.0 - smoothing) * path_cost + smoothing * uniform_cost
    tl.store(loss + sentence, total.to(loss.dtype.element_ty))


def align(
    statistics: RowStatistics,
    target_lengths: Tensor,
    canvas_lengths: Tensor | None,
    observed_mask: Tensor | None,
    delta: float,
    label_smoothing: float,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns the loss `(batch,)`; the fields of `AxeAlignment`; token_weight, token_log_prob and is_blank."""
    log_probs = statistics.token_log_probs
    batch, target, canvas = log_probs.shape
    block = min(MAX_BLOCK, triton.next_power_of_2(max(16, canvas)))
    is_tiled = canvas > block
    new = log_probs.new_empty
    edge = (batch, 2, target)
    steps = new((batch, target, canvas), dtype=torch.int16 if canvas < 2**15 else torch.int32)
    edge_costs = new(edge, dtype=torch.float64) if is_tiled else None
    edge_steps = new(edge, dtype=torch.int32) if is_tiled else None
    loss, cost = new(batch), new(batch)
    target_to_position = new((batch, target), dtype=torch.long)
    is_aligned = new((batch, target), dtype=torch.bool)
    position_to_target = new((batch, canvas), dtype=torch.long)
    num_skipped = [new(batch, dtype=torch.long) for _ in range(2)]
    token_weight, token_log_prob = new((batch, target)), new((batch, target))
    is_blank = new((batch, canvas), dtype=torch.bool)
    if batch:
        alignment_kernel[(batch,)](
            log_probs,
            statistics.blank_log_prob,
            statistics.mean_log_prob,
            target_lengths,
            canvas_lengths,
            None if observed_mask is None else observed_mask.view(torch.uint8),
            *(steps, edge_costs, edge_steps, loss, cost, target_to_position),
            *(is_aligned.view(torch.uint8), position_to_target, *num_skipped),
            *(token_weight, token_log_prob, is_blank.view(torch.uint8)),
            *in_two_parts(delta),
            *in_two_parts(label_smoothing),
            target,
            canvas,
            HAS_CANVAS_LENGTHS=canvas_lengths is not None,
            HAS_OBSERVED=observed_mask is not None,
            WITH_MEAN=statistics.mean_log_prob is not None,
            TILED=is_tiled,
            BLOCK=block,
            BLOCK_TARGET=min(MAX_BLOCK_TARGET, triton.next_power_of_2(max(16, target))),
            num_warps=max(1, block // 256),
            # a fused multiply-add rounds otherwise than PyTorch and would decide near-ties otherwise
            enable_fp_fusion=False,
        )
    alignment = (target_to_position, is_aligned, position_to_target, *num_skipped, cost)
    return loss, alignment, (token_weight, token_log_prob, is_blank)
