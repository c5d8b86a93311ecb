"""The dynamic programme of AXE, the way back, and the loss along it: a program per sentence.

The table is filled and traced back in `alignment_steps.py`; then two passes, over the targets and
over the canvas, write what the path means. Every tensor is contiguous, the sentence first::

    token_log_probs (target, canvas), blank_log_prob (canvas)    from the statistics kernel
    steps (target, canvas), 16-bit                               the back-pointers, scratch
    edge_costs (2, target), edge_steps                           a tile's last column, scratch
    target_to_position (target) ... is_blank (canvas)            the results
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .alignment_steps import fill_steps, trace_back
from .statistics import RowStatistics, in_two_parts

# Columns that a program holds in registers, and targets that it traces back before it writes them.
MAX_BLOCK = 1024
MAX_BLOCK_TARGET = 256


class Aligned(NamedTuple):
    """What the kernel leaves: the loss `(batch,)`, `AxeAlignment` by name, parts of the path."""

    loss: Tensor
    alignment: dict[str, Tensor]
    token_weight: Tensor
    token_log_prob: Tensor
    is_blank: Tensor


@triton.jit
def _write_targets(
    sources, results, sizes, delta, TILED: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr
):
    """The way back, what it means for each target, and what it costs, in nats."""
    token_log_probs, _, mean_log_prob, observed_mask, steps = sources
    per_target, position_to_target, _, targets = results
    target_to_position, is_aligned, token_weight, token_log_prob = per_target
    target_length, canvas_length, target, canvas = sizes
    cost = tl.zeros([], tl.float64)
    uniform_cost = tl.zeros([], tl.float64)
    num_skipped = tl.zeros([], tl.int32)
    column = canvas_length
    num_chunks = tl.cdiv(target, SIZE)
    for chunk in range(num_chunks):
        start = (num_chunks - 1 - chunk) * SIZE
        stop = tl.minimum(start + SIZE, target_length)
        step, column = trace_back(steps, column, start, stop, canvas, TILED, BLOCK, SIZE)
        number = start + tl.arange(0, SIZE)
        is_target = number < target_length
        aligned = step < 0
        position = tl.where(aligned, -step - 1, tl.maximum(step - 1, 0))
        weight = tl.where(aligned, 1.0, delta)
        if observed_mask is not None:
            is_seen = tl.load(observed_mask + position, mask=is_target, other=0) != 0
            position = tl.minimum(position + (is_seen & (step >= 0)).to(tl.int32), canvas - 1)
            is_seen = tl.load(observed_mask + position, mask=is_target, other=0) != 0
            weight = tl.where(is_seen, 0.0, weight)
        weight = tl.where(is_target, weight, 0.0)
        log_prob = tl.load(token_log_probs + number * canvas + position, mask=is_target, other=0.0)
        # where, not a product with 0: a cost may be infinite
        cost -= tl.sum(tl.where(weight > 0, weight * log_prob, 0.0), 0)
        if mean_log_prob is not None:
            mean = tl.load(mean_log_prob + position, mask=is_target, other=0.0)
            uniform_cost -= tl.sum(tl.where(weight > 0, weight * mean, 0.0), 0)
        num_skipped += tl.sum((is_target & (step >= 0)).to(tl.int32), 0)
        exists, out = number < target, targets + number
        tl.store(target_to_position + out, tl.where(is_target, position, -1), mask=exists)
        tl.store(is_aligned + out, aligned.to(tl.uint8), mask=exists)
        tl.store(token_weight + out, weight.to(token_weight.dtype.element_ty), mask=exists)
        tl.store(token_log_prob + out, log_prob, mask=exists)
        tl.store(position_to_target + position, number, mask=is_target & aligned)
    return cost, uniform_cost, num_skipped


@triton.jit
def _write_blanks(sources, results, sizes, BLOCK: tl.constexpr):
    """Which positions should say blank, what that costs, and their number."""
    _, blank_log_prob, mean_log_prob, _, _ = sources
    _, position_to_target, is_blank, _ = results
    _, canvas_length, _, canvas = sizes
    cost = tl.zeros([], tl.float64)
    uniform_cost = tl.zeros([], tl.float64)
    num_blanks = tl.zeros([], tl.int32)
    for tile in range(0, canvas, BLOCK):
        at = tile + tl.arange(0, BLOCK)
        is_inside = at < canvas_length
        blank = (tl.load(position_to_target + at, mask=is_inside, other=0) < 0) & is_inside
        log_prob = tl.load(blank_log_prob + at, mask=blank, other=0.0)
        cost -= tl.sum(log_prob.to(tl.float64), 0)
        if mean_log_prob is not None:
            mean = tl.load(mean_log_prob + at, mask=blank, other=0.0)
            uniform_cost -= tl.sum(mean.to(tl.float64), 0)
        num_blanks += tl.sum(blank.to(tl.int32), 0)
        tl.store(is_blank + at, blank.to(tl.uint8), mask=at < canvas)
    return cost, uniform_cost, num_blanks


@triton.jit(do_not_specialize=["target", "canvas"])
def alignment_kernel(
    statistics,
    lengths,
    scratch,
    numbers,
    per_sentence,
    per_target,
    per_position,
    target,
    canvas,
    TILED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_TARGET: tl.constexpr,
):
    loss, cost, num_skipped_targets, num_skipped_predictions = per_sentence
    sentence = tl.program_id(0).to(tl.int64)
    targets, positions = sentence * target, sentence * canvas
    delta = tl.full([], numbers[0], tl.float64) + tl.full([], numbers[1], tl.float64)
    target_lengths, canvas_lengths, observed_mask = lengths
    target_length = tl.minimum(tl.load(target_lengths + sentence), target).to(tl.int32)
    target_length = tl.where(canvas > 0, target_length, 0)
    canvas_length = tl.full([], 0, tl.int32) + canvas
    if canvas_lengths is not None:
        canvas_length = tl.minimum(tl.load(canvas_lengths + sentence), canvas).to(tl.int32)
    token_log_probs, blank_log_prob, mean_log_prob = statistics
    steps, edge_costs, edge_steps = scratch
    # from here on the pointers are those of the sentence
    token_log_probs += targets * canvas
    steps += targets * canvas
    blank_log_prob += positions
    if mean_log_prob is not None:
        mean_log_prob += positions
    if observed_mask is not None:
        observed_mask += positions
    if TILED:
        edge_costs += 2 * targets
        edge_steps += 2 * targets
    position_to_target, is_blank = per_position[0] + positions, per_position[1] + positions
    for tile in range(0, canvas, BLOCK):
        at = tile + tl.arange(0, BLOCK)
        tl.store(position_to_target + at, tl.full([BLOCK], -1, tl.int64), mask=at < canvas)
    sizes = (target_length, canvas_length, target, canvas)
    tables = (token_log_probs, blank_log_prob, observed_mask, steps, edge_costs, edge_steps)
    fill_steps(tables, delta, sizes, TILED, BLOCK)
    tl.debug_barrier()
    sources = (token_log_probs, blank_log_prob, mean_log_prob, observed_mask, steps)
    results = (per_target, position_to_target, is_blank, targets)
    path_cost, uniform, num_skipped = _write_targets(
        sources, results, sizes, delta, TILED, BLOCK, BLOCK_TARGET
    )
    tl.store(num_skipped_targets + sentence, num_skipped)
    tl.debug_barrier()
    blank_cost, blank_uniform, num_blanks = _write_blanks(sources, results, sizes, BLOCK)
    total = path_cost + blank_cost
    tl.store(num_skipped_predictions + sentence, num_blanks)
    tl.store(cost + sentence, total.to(cost.dtype.element_ty))
    if mean_log_prob is not None:
        smoothing = tl.full([], numbers[2], tl.float64) + tl.full([], numbers[3], tl.float64)
        total = (1.0 - smoothing) * total + smoothing * (uniform + blank_uniform)
    tl.store(loss + sentence, total.to(loss.dtype.element_ty))


def align(statistics: RowStatistics, targets, options) -> Aligned:
    """Returns the alignment and the loss along it, of `AxeTargets` and `AxeOptions`."""
    log_probs, observed = statistics.token_log_probs, targets.observed_mask
    batch, target, canvas = log_probs.shape
    block = min(MAX_BLOCK, triton.next_power_of_2(max(16, canvas)))
    is_tiled = canvas > block
    new = log_probs.new_empty
    edge = (batch, 2, target)
    steps = new((batch, target, canvas), dtype=torch.int16 if canvas < 2**15 else torch.int32)
    edge_costs = new(edge, dtype=torch.float64) if is_tiled else None
    edge_steps = new(edge, dtype=torch.int32) if is_tiled else None
    alignment = {
        "target_to_position": new((batch, target), dtype=torch.long),
        "is_aligned": new((batch, target), dtype=torch.bool),
        "position_to_target": new((batch, canvas), dtype=torch.long),
        "num_skipped_targets": new(batch, dtype=torch.long),
        "num_skipped_predictions": new(batch, dtype=torch.long),
        "cost": new(batch),
    }
    positions, is_aligned, numbers, *counts, cost = alignment.values()
    loss, is_blank = new(batch), new((batch, canvas), dtype=torch.bool)
    token_weight, token_log_prob = new((batch, target)), new((batch, target))
    if batch:
        alignment_kernel[(batch,)](
            (log_probs, statistics.blank_log_prob, statistics.mean_log_prob),
            (
                *(targets.target_lengths, targets.canvas_lengths),
                None if observed is None else observed.view(torch.uint8),
            ),
            (steps, edge_costs, edge_steps),
            (*in_two_parts(options.delta), *in_two_parts(options.label_smoothing)),
            (loss, cost, *counts),
            (positions, is_aligned.view(torch.uint8), token_weight, token_log_prob),
            (numbers, is_blank.view(torch.uint8)),
            *(target, canvas),
            TILED=is_tiled,
            BLOCK=block,
            BLOCK_TARGET=min(MAX_BLOCK_TARGET, triton.next_power_of_2(max(16, target))),
            num_warps=max(1, block // 256),
            # a fused multiply-add rounds otherwise than PyTorch and so would decide near-ties
            enable_fp_fusion=False,
        )
    return Aligned(loss, alignment, token_weight, token_log_prob, is_blank)
