"""Inside the alignment kernel: the table of steps, row by row, and the way back through it.

In the frame `A[i,j] - (blank costs up to j)`, skip prediction is free and a row is one prefix
minimum::

    row[j] = min over k <= j of min( above[k-1] + cost[i,k] - blank[k],   align
                                     above[k] + delta * cost[i,k] )       skip target

A row lives in registers, lane `k` holds column `k + 1`, and one associative scan makes the next row
of it. The scan carries (minimum, step that it was reached by, minimum without the last lane): the
third is `above[k-1]` of the next row, so no lane looks at its neighbour. Canvases beyond a block
are taken in tiles of columns, each through all rows; the last column of a tile goes through memory
to the next, as column 0 (`left`) goes to the first::

              lanes 0 .. BLOCK-1   BLOCK .. 2*BLOCK-1
    left  |  tile 0              | tile 1              |
    row 1 |  ->                  |                     |
    row 2 |  ->             edge |->                   |

A step into column j is -j if it aligns and j if it skips a target. Of equally cheap steps the
smallest number is the one to take: align at the nearest column, then skip prediction, as it leads
to a column before, then skip target. `steps[sentence, target, canvas]` holds the last step at or
before each column, so the way back is one jump per target.
"""

from __future__ import annotations

import triton
import triton.language as tl

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
def _row_of(table, row, num_rows, canvas, position, canvas_length):
    """Row number `row` of a table at `position`, 0 outside, and its first column."""
    first = table + row * canvas
    stop = tl.where(row < num_rows, canvas_length, 0)
    return (
        tl.load(first + position, mask=position < stop, other=0.0),
        tl.load(first, mask=stop > 0, other=0.0),
    )


@triton.jit
def _cost_behind_observed(cost, row, observed_mask, position, canvas_length):
    """What is skipped behind an observed position is paid at the one that follows."""
    is_seen = tl.load(observed_mask + position, mask=position < canvas_length, other=0) != 0
    is_moved = is_seen & (position + 1 < canvas_length)
    moved_cost = _cost(tl.load(row + position + 1, mask=is_moved, other=0.0))
    return tl.where(is_moved, moved_cost, cost)


@triton.jit
def _cheapest_steps(by_align, by_skip, left, left_step, column, BLOCK: tl.constexpr):
    """The next row by one prefix minimum: its costs, its steps, its costs one lane to the left."""
    best = tl.where(by_align <= by_skip, by_align, by_skip)
    step = tl.where(by_align <= by_skip, -column, column)
    before = tl.full([BLOCK], float("inf"), tl.float64)
    best, step, before = tl.associative_scan((best, step, before), 0, _cheapest)
    is_left = (left < best) | ((left == best) & (left_step < step))
    return (
        tl.where(is_left, left, best),
        tl.where(is_left, left_step, step),
        tl.minimum(left, before),
    )


@triton.jit
def _store_edge(edge_costs, edge_steps, edge, costs, step, BLOCK: tl.constexpr):
    """The last column of a tile, for the next."""
    is_last = tl.arange(0, BLOCK) == BLOCK - 1
    tl.store(edge_costs + edge, tl.sum(tl.where(is_last, costs, 0.0), 0))
    tl.store(edge_steps + edge, tl.sum(tl.where(is_last, step, 0), 0))


@triton.jit
def fill_steps(tables, delta, sizes, TILED: tl.constexpr, BLOCK: tl.constexpr):
    """Fills `steps`; the pointers are those of the sentence."""
    token_log_probs, blank_log_prob, observed_mask, steps, edge_costs, edge_steps = tables
    target_length, canvas_length, target, canvas = sizes
    for tile in range(0, canvas_length, BLOCK):
        position = tile + tl.arange(0, BLOCK)
        column = position + 1
        is_inside = position < canvas_length
        blank_cost = _cost(tl.load(blank_log_prob + position, mask=is_inside, other=0.0))
        above = tl.zeros([BLOCK], tl.float64)
        above_left = tl.zeros([BLOCK], tl.float64)
        left = tl.zeros([], tl.float64)
        # A row is read while the one before it is scanned.
        log_prob, left_log_prob = _row_of(
            token_log_probs, 0, target_length, canvas, position, canvas_length
        )
        for i in range(target_length):
            next_log_prob, next_left_log_prob = _row_of(
                token_log_probs, i + 1, target_length, canvas, position, canvas_length
            )
            cost = _cost(log_prob)
            left = left + delta * _cost(left_log_prob)
            left_step = tl.zeros([], tl.int32)
            by_align = cost - blank_cost + above_left
            by_skip = above + delta * cost
            if observed_mask is not None:
                row = token_log_probs + i * canvas
                cost = _cost_behind_observed(cost, row, observed_mask, position, canvas_length)
                # An observed target is reached by aligning it with its own position, for nothing.
                is_shown = tl.load(observed_mask + i, mask=i < canvas, other=0) != 0
                own = tl.where(position == i, above_left, float("inf"))
                by_align = tl.where(is_shown, own, by_align)
                by_skip = tl.where(is_shown, float("inf"), above + delta * cost)
                left = tl.where(is_shown, float("inf"), left)
            if TILED:
                edge = ((tile // BLOCK + 1) % 2) * target + i
                edge_cost = tl.load(edge_costs + edge, mask=tile > 0, other=0.0)
                left = tl.where(tile > 0, edge_cost, left)
                left_step = tl.load(edge_steps + edge, mask=tile > 0, other=0)
            above, step, above_left = _cheapest_steps(
                by_align, by_skip, left, left_step, column, BLOCK
            )
            out = steps + i * canvas + position
            tl.store(out, step.to(steps.dtype.element_ty), mask=is_inside)
            if TILED:
                edge = ((tile // BLOCK) % 2) * target + i
                _store_edge(edge_costs, edge_steps, edge, above, step, BLOCK)
            log_prob, left_log_prob = next_log_prob, next_left_log_prob
        tl.debug_barrier()  # the edge was written by other threads than those that read it


@triton.jit
def trace_back(
    steps, column, start, stop, canvas, TILED: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr
):
    """Returns the steps taken into targets `start` to `stop`, and the column reached."""
    lane = tl.arange(0, BLOCK)
    number = tl.arange(0, SIZE)
    taken = tl.zeros([SIZE], tl.int32)
    last = steps + (stop - 1) * canvas + lane
    row = tl.load(last, mask=lane < tl.where(stop > start, canvas, 0), other=0).to(tl.int32)
    for k in range(stop - start):
        i = stop - 1 - k
        tile = 0
        if TILED:
            tile = tl.maximum(column - 1, 0) // BLOCK * BLOCK
            here = steps + i * canvas + tile + lane
            row = tl.load(here, mask=tile + lane < canvas, other=0).to(tl.int32)
        step = tl.sum(tl.where(tile + lane + 1 == column, row, 0), 0)  # 0 in column 0
        if not TILED:
            above = steps + (i - 1) * canvas + lane
            row = tl.load(above, mask=lane < tl.where(i > start, canvas, 0), other=0).to(tl.int32)
        taken = tl.where(number == i - start, step, taken)
        column = tl.where(step < 0, -step - 1, step)
    return taken, column
