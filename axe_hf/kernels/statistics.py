"""Reads the logits once: what the alignment and the gradient need to know of every row.

A program takes one row, the logits of one position of one sentence, in blocks. A block is folded so
that what lies side by side belongs to one lane, which keeps a running maximum and a running sum of
its own; the lanes meet only at the end::

    logits[sentence, position]   | 0 .. 7 | 8 .. 15 |  ...  | next block: | 0 .. 7 | 8 .. 15 |
    lane                             0         1                              0         1

Then, with the row still in the L2 cache, the targets' logits are looked up. A program writes one
column of `token_log_probs[sentence]`, a table (target, canvas), as the alignment reads it by rows::

    token_log_probs[sentence, :, position]   blank_log_prob, row_max, row_log_sum[row]
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LANES = tl.constexpr(512)
LOGITS_PER_LANE = tl.constexpr(8)
NUM_WARPS = 4


class RowStatistics(NamedTuple):
    """Of the rows: `token_log_probs` `(batch, target, canvas)`, the rest `(batch, canvas)`.

    Rows behind the canvas's end are undefined but for `blank_log_prob`, which is 0 there.
    """

    token_log_probs: Tensor
    blank_log_prob: Tensor
    row_max: Tensor
    row_log_sum: Tensor
    mean_log_prob: Tensor | None


@triton.jit
def _reduce_row(first, vocab, WITH_MEAN: tl.constexpr, DTYPE: tl.constexpr):
    """The row's largest logit, the log-sum of the rest, and the mean log-probability."""
    lane = tl.arange(0, LANES)
    offset = lane[:, None] * LOGITS_PER_LANE + tl.arange(0, LOGITS_PER_LANE)[None, :]
    lane_max = tl.full([LANES], float("-inf"), DTYPE)
    lane_sum = tl.zeros([LANES], DTYPE)
    lane_total = tl.zeros([LANES], DTYPE)
    pivot = tl.zeros([], DTYPE)
    if WITH_MEAN:
        # The mean is taken of differences: large logits of nearly equal size would lose its digits.
        pivot = tl.load(first).to(DTYPE)
        pivot = tl.where(tl.abs(pivot) < float("inf"), pivot, 0.0)
    for start in range(0, vocab, LANES * LOGITS_PER_LANE):
        is_inside = start + offset < vocab
        values = tl.load(first + start + offset, mask=is_inside, other=float("-inf")).to(DTYPE)
        new_max = tl.maximum(lane_max, tl.max(values, 1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        new_sum = tl.sum(tl.exp(values - shift[:, None]), 1)
        lane_sum = lane_sum * tl.exp(lane_max - shift) + new_sum
        lane_max = new_max
        if WITH_MEAN:
            lane_total += tl.sum(tl.where(is_inside, values - pivot, 0.0), 1)
    largest = tl.max(lane_max, 0)
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.sum(lane_sum * tl.exp(lane_max - shift), 0)
    # in float64, as the fast logarithm is inexact near 1, where the loss of a sure model is
    log_sum = tl.log(total.to(tl.float64)).to(DTYPE)
    mean = tl.sum(lane_total, 0) / vocab + (pivot - largest - log_sum)
    return largest, log_sum, mean


@triton.jit(do_not_specialize=["target", "canvas", "blank_token_id"])
def statistics_kernel(
    logits,
    targets,
    results,
    strides,
    target,
    canvas,
    vocab,
    blank_token_id,
    DTYPE: tl.constexpr,
    BLOCK_TARGET: tl.constexpr,
):
    tokens, target_lengths, canvas_lengths = targets
    token_log_probs, blank_log_prob, row_max, row_log_sum, mean_log_prob = results
    WITH_MEAN: tl.constexpr = mean_log_prob is not None
    row = tl.program_id(0).to(tl.int64)
    sentence, position = row // canvas, row % canvas
    canvas_length = canvas
    if canvas_lengths is not None:
        canvas_length = tl.load(canvas_lengths + sentence)
    # position 0 counts always: targets without a canvas are skipped there
    if position >= tl.maximum(canvas_length, 1):
        tl.store(blank_log_prob + row, 0.0)
        return
    first = logits + sentence * strides[0] + position * strides[1]
    largest, log_sum, mean = _reduce_row(first, vocab, WITH_MEAN, DTYPE)
    tl.store(row_max + row, largest)
    tl.store(row_log_sum + row, log_sum)
    tl.store(blank_log_prob + row, tl.load(first + blank_token_id).to(DTYPE) - largest - log_sum)
    if WITH_MEAN:
        tl.store(mean_log_prob + row, mean)
    target_length = tl.load(target_lengths + sentence)
    for start in range(0, target_length, BLOCK_TARGET):
        number = start + tl.arange(0, BLOCK_TARGET)
        is_target = number < target_length
        token = tl.load(tokens + sentence * target + number, mask=is_target, other=0)
        # A label out of range shows as NaN; on a GPU nobody has checked.
        is_known = is_target & (token >= 0) & (token < vocab)
        value = tl.load(first + token, mask=is_known, other=float("nan")).to(DTYPE)
        out = token_log_probs + (sentence * target + number) * canvas + position
        tl.store(out, value - largest - log_sum, mask=is_target)


def row_statistics(logits: Tensor, targets, options) -> RowStatistics:
    """Returns log-probabilities of targets and blank, log-sum-exp in two parts, maybe the mean."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    batch, canvas, vocab = logits.shape
    target = targets.tokens.shape[1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with_mean = options.label_smoothing > 0
    rows = [logits.new_empty((batch, canvas), dtype=dtype) for _ in range(3 + with_mean)]
    table = logits.new_empty((batch, target, canvas), dtype=dtype)
    blank, largest, log_sum, *mean = rows
    statistics = RowStatistics(table, blank, largest, log_sum, mean[0] if mean else None)
    if batch * canvas:
        statistics_kernel[(batch * canvas,)](
            logits,
            (targets.tokens, targets.target_lengths, targets.canvas_lengths),
            tuple(statistics),
            logits.stride()[:2],
            *(target, canvas, vocab, options.blank_token_id),
            DTYPE=tl.float64 if dtype == torch.float64 else tl.float32,
            BLOCK_TARGET=min(256, triton.next_power_of_2(max(16, target))),
            num_warps=NUM_WARPS,
        )
    return statistics


def in_two_parts(value: float) -> tuple[float, float]:
    """Two numbers of single precision, as Triton passes floats, whose sum is `value` to 48 bits."""
    high = ctypes.c_float(value).value
    return high, ctypes.c_float(value - high).value
