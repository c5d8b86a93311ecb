"""The dynamic programme of AXE, the way back, and the loss along it: a program per sentence, a row at a time.

The table is filled and traced back in `alignment_steps.py`; then two passes, over the targets and over the canvas,
write what the path means. Every tensor is contiguous, the sentence first::

    token_log_probs (target, canvas), blank_log_prob (canvas)      what the statistics kernel has left
    steps           (target, canvas), 16-bit                       the back-pointers, scratch
    edge_costs      (2, target), edge_steps                        last column of a tile and the next, scratch
    target_to_position (target) ... is_blank (canvas)              the results
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .alignment_steps import fill_steps, trace_back
from .scalars import in_two_parts
from .statistics import RowStatistics

# Columns that a program holds in registers, and targets that it traces back before it writes them.
MAX_BLOCK = 1024
MAX_BLOCK_TARGET = 256


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
    fill_steps(
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
    for chunk in range(num_chunks):
        start = (num_chunks - 1 - chunk) * BLOCK_TARGET
        stop = tl.minimum(start + BLOCK_TARGET, target_length)
        here = steps + targets * canvas
        step, column = trace_back(here, column, start, stop, canvas, TILED, BLOCK, BLOCK_TARGET)
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
