"""Writes the gradient of the AXE loss by the logits in one pass, in place or not.

A program takes one row. Its labels are the blank, or the target that is aligned with it, and the targets that are
skipped at it; `target_to_position` never falls along a sentence, so they lie side by side::

    target_to_position[sentence]   0 0 1 3 3 3 4 -1 -1        row 3: S = 1 + delta + delta (or 0 + 3 delta)
                                         └─┴─┴── its labels

    gradient[row] = upstream * ( S * softmax - onehots of the labels, weighted )

The softmax comes first, for the whole row; then the labels' entries are written over it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .scalars import in_two_parts

BLOCK_VOCAB = 4096
NUM_WARPS = 4


@triton.jit
def _expm1(x):
    """exp(x) - 1 for x <= 0 without loss of digits near 0: 15 terms of the series, as deep as float64 sees."""
    series = tl.full(x.shape, 1.0, x.dtype)
    for k in tl.static_range(15, 1, -1):
        series = 1.0 + x / k * series
    return tl.where(x > -0.5, x * series, tl.exp(x) - 1.0)


@triton.jit
def _write_label(pointer, log_prob, label_weight, weight, upstream, smoothing, vocab, mask):
    """The entry of a label, whole: p - 1 must be formed before it is rounded to the logits' dtype."""
    rest = weight * (1.0 - smoothing / vocab) - upstream * (1.0 - smoothing) * label_weight
    value = weight * _expm1(log_prob) + rest
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["target", "canvas", "blank_token_id"])
def gradient_kernel(
    logits,
    grad,
    tokens,
    target_to_position,
    token_weight,
    token_log_prob,
    is_blank,
    blank_log_prob,
    row_max,
    row_log_sum,
    grad_loss,
    smoothing_high,
    smoothing_low,
    stride_loss,
    stride_sentence,
    stride_position,
    grad_stride_sentence,
    grad_stride_position,
    target,
    canvas,
    vocab,
    blank_token_id,
    DTYPE: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_TARGET: tl.constexpr,
):
    # From the last row to the first: the forward pass has left the last ones in the L2 cache.
    row = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    sentence = row // canvas
    position = row % canvas
    smoothing = tl.full([], smoothing_high, DTYPE) + tl.full([], smoothing_low, DTYPE)
    upstream = tl.load(grad_loss + sentence * stride_loss).to(DTYPE)
    blank_weight = tl.load(is_blank + row).to(DTYPE)
    uses = blank_weight
    num_labels = tl.zeros([], tl.int32)
    num_before = tl.zeros([], tl.int32)
    for start in range(0, target, BLOCK_TARGET):
        number = start + tl.arange(0, BLOCK_TARGET)
        label = sentence * target + number
        at = tl.load(target_to_position + label, mask=number < target, other=-1)
        uses += tl.sum(tl.load(token_weight + label, mask=at == position, other=0.0), 0)
        num_labels += tl.sum((at == position).to(tl.int32), 0)
        num_before += tl.sum(((at < position) & (at >= 0)).to(tl.int32), 0)
    out = grad + sentence * grad_stride_sentence + position * grad_stride_position
    column = tl.arange(0, BLOCK_VOCAB)
    if uses == 0:  # padding and observed positions: the logits may be anything
        for start in range(0, vocab, BLOCK_VOCAB):
            zeros = tl.zeros([BLOCK_VOCAB], grad.dtype.element_ty)
            tl.store(out + start + column, zeros, mask=start + column < vocab)
        return
    weight = uses * upstream
    uniform = weight * smoothing / vocab
    first = logits + sentence * stride_sentence + position * stride_position
    largest = tl.load(row_max + row)
    log_sum = tl.load(row_log_sum + row)
    for start in range(0, vocab, BLOCK_VOCAB):
        is_inside = start + column < vocab
        value = tl.load(first + start + column, mask=is_inside, other=0.0).to(DTYPE)
        value = tl.exp(value - largest - log_sum) * weight - uniform
        tl.store(out + start + column, value.to(grad.dtype.element_ty), mask=is_inside)
    tl.debug_barrier()  # the entries that follow overwrite what other threads have just written
    for start in range(0, target, BLOCK_TARGET):
        number = start + tl.arange(0, BLOCK_TARGET)
        label = sentence * target + number
        at = tl.load(target_to_position + label, mask=number < target, other=-1)
        is_label = at == position
        token = tl.load(tokens + label, mask=is_label, other=-1)
        label_weight = tl.load(token_weight + label, mask=is_label, other=0.0)
        if num_labels > 1:  # a token that is skipped twice at a position has one entry
            label_weight = tl.zeros([BLOCK_TARGET], DTYPE)
            for k in range(num_labels):
                other = sentence * target + num_before + k
                other_weight = tl.load(token_weight + other)
                label_weight += tl.where(token == tl.load(tokens + other), other_weight, 0.0)
        is_label = is_label & (token >= 0) & (token < vocab)
        log_prob = tl.load(token_log_prob + label, mask=is_label, other=0.0)
        _write_label(
            out + token, log_prob, label_weight, weight, upstream, smoothing, vocab, is_label
        )
    log_prob = tl.load(blank_log_prob + row)
    blank = out + blank_token_id
    is_written = blank_weight > 0
    _write_label(blank, log_prob, blank_weight, weight, upstream, smoothing, vocab, is_written)


def write_gradient(
    logits: Tensor,
    path,
    grad_loss: Tensor,
    blank_token_id: int,
    label_smoothing: float,
    inplace: bool,
) -> Tensor:
    """Returns the gradient; `path` is a `TritonPath`."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    grad = logits
    if not inplace:
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
    batch, canvas, vocab = logits.shape
    target = path.tokens.shape[1]
    if batch * canvas:
        gradient_kernel[(batch * canvas,)](
            logits,
            grad,
            *path._replace(is_blank=path.is_blank.view(torch.uint8)),
            grad_loss,
            *in_two_parts(label_smoothing),
            grad_loss.stride(0),
            logits.stride(0),
            logits.stride(1),
            grad.stride(0),
            grad.stride(1),
            target,
            canvas,
            vocab,
            blank_token_id,
            DTYPE=tl.float64 if path.row_max.dtype == torch.float64 else tl.float32,
            BLOCK_VOCAB=BLOCK_VOCAB,
            BLOCK_TARGET=min(256, triton.next_power_of_2(max(16, target))),
            num_warps=NUM_WARPS,
        )
    return grad
