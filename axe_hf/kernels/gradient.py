"""Writes the gradient of the AXE loss by the logits in one pass, in place or not.

A program takes one row. Its labels are the blank, or the target that is aligned with it, and the
targets that are skipped at it; `target_to_position` never falls along a sentence, so they lie side
by side::

    target_to_position[sentence]   0 0 1 3 3 3 4 -1 -1        row 3: S = 1 + 2 delta or 3 delta
                                         └─┴─┴── its labels

    gradient[row] = upstream * ( S * softmax - onehots of the labels, weighted )

The softmax comes first, for the whole row; then the labels' entries are written over it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .statistics import in_two_parts

BLOCK_VOCAB = tl.constexpr(4096)
NUM_WARPS = 4


@triton.jit
def _expm1(x):
    """exp(x) - 1 for x <= 0, all digits near 0: 15 terms, as deep as float64 sees."""
    series = tl.full(x.shape, 1.0, x.dtype)
    for k in tl.static_range(15, 1, -1):
        series = 1.0 + x / k * series
    return tl.where(x > -0.5, x * series, tl.exp(x) - 1.0)


@triton.jit
def _write_label(pointer, log_prob, label_weight, weight, upstream, smoothing, vocab, mask):
    """The entry of a label, whole: p - 1 must be formed before it is rounded."""
    rest = weight * (1.0 - smoothing / vocab) - upstream * (1.0 - smoothing) * label_weight
    value = weight * _expm1(log_prob) + rest
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _labels_of_row(labels, targets, position, target, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Weight of all labels of a row, their number, and how many come before them."""
    _, target_to_position, token_weight, _, _ = labels
    uses = tl.zeros([], DTYPE)
    num_labels = tl.zeros([], tl.int32)
    num_before = tl.zeros([], tl.int32)
    for start in range(0, target, BLOCK):
        number = start + tl.arange(0, BLOCK)
        label = targets + number
        at = tl.load(target_to_position + label, mask=number < target, other=-1)
        uses += tl.sum(tl.load(token_weight + label, mask=at == position, other=0.0), 0)
        num_labels += tl.sum((at == position).to(tl.int32), 0)
        num_before += tl.sum(((at < position) & (at >= 0)).to(tl.int32), 0)
    return uses, num_labels, num_before


@triton.jit
def _write_zeros(out, vocab):
    column = tl.arange(0, BLOCK_VOCAB)
    for start in range(0, vocab, BLOCK_VOCAB):
        zeros = tl.zeros([BLOCK_VOCAB], out.dtype.element_ty)
        tl.store(out + start + column, zeros, mask=start + column < vocab)


@triton.jit
def _write_softmax(out, first, largest, log_sum, weight, uniform, vocab, DTYPE: tl.constexpr):
    """weight * softmax of the row at `first` - uniform."""
    column = tl.arange(0, BLOCK_VOCAB)
    for start in range(0, vocab, BLOCK_VOCAB):
        is_inside = start + column < vocab
        value = tl.load(first + start + column, mask=is_inside, other=0.0).to(DTYPE)
        value = tl.exp(value - largest - log_sum) * weight - uniform
        tl.store(out + start + column, value.to(out.dtype.element_ty), mask=is_inside)


@triton.jit
def _joined_weight(
    token_weight, tokens, first_label, num_labels, token, DTYPE: tl.constexpr, BLOCK: tl.constexpr
):
    """A token that is skipped twice at a position has one entry: the weights of all its labels."""
    weight = tl.zeros([BLOCK], DTYPE)
    for k in range(num_labels):
        other = first_label + k
        other_weight = tl.load(token_weight + other)
        weight += tl.where(token == tl.load(tokens + other), other_weight, 0.0)
    return weight


@triton.jit(do_not_specialize=["target", "canvas", "blank_token_id"])
def gradient_kernel(
    logits,
    grad,
    path,
    grad_loss,
    numbers,
    strides,
    target,
    canvas,
    vocab,
    blank_token_id,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    labels, statistics = path
    tokens, target_to_position, token_weight, token_log_prob, is_blank = labels
    blank_log_prob, row_max, row_log_sum = statistics
    # From the last row to the first: the forward pass has left the last ones in the L2 cache.
    row = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    sentence, position = row // canvas, row % canvas
    targets = sentence * target
    smoothing = tl.full([], numbers[0], DTYPE) + tl.full([], numbers[1], DTYPE)
    upstream = tl.load(grad_loss + sentence * strides[0]).to(DTYPE)
    blank_weight = tl.load(is_blank + row).to(DTYPE)
    token_uses, num_labels, num_before = _labels_of_row(
        labels, targets, position, target, DTYPE, BLOCK
    )
    uses = blank_weight + token_uses
    out = grad + sentence * strides[3] + position * strides[4]
    if uses == 0:  # padding and observed positions: the logits may be anything
        _write_zeros(out, vocab)
        return
    weight = uses * upstream
    first = logits + sentence * strides[1] + position * strides[2]
    largest, log_sum = tl.load(row_max + row), tl.load(row_log_sum + row)
    uniform = weight * smoothing / vocab
    _write_softmax(out, first, largest, log_sum, weight, uniform, vocab, DTYPE)
    tl.debug_barrier()  # the entries that follow overwrite what other threads have just written
    for start in range(0, target, BLOCK):
        label = targets + start + tl.arange(0, BLOCK)
        is_there = start + tl.arange(0, BLOCK) < target
        is_label = tl.load(target_to_position + label, mask=is_there, other=-1) == position
        token = tl.load(tokens + label, mask=is_label, other=-1)
        label_weight = tl.load(token_weight + label, mask=is_label, other=0.0)
        if num_labels > 1:
            label_weight = _joined_weight(
                token_weight, tokens, targets + num_before, num_labels, token, DTYPE, BLOCK
            )
        is_label = is_label & (token >= 0) & (token < vocab)
        log_prob = tl.load(token_log_prob + label, mask=is_label, other=0.0)
        _write_label(
            out + token, log_prob, label_weight, weight, upstream, smoothing, vocab, is_label
        )
    out += blank_token_id
    log_prob, is_label = tl.load(blank_log_prob + row), blank_weight > 0
    _write_label(out, log_prob, blank_weight, weight, upstream, smoothing, vocab, is_label)


def write_gradient(logits: Tensor, path, grad_loss: Tensor, options, inplace: bool) -> Tensor:
    """Returns the gradient; `path` is a `TritonPath`, `options` are `AxeOptions`."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    grad = logits
    if not inplace:
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
    batch, canvas, vocab = logits.shape
    target = path.tokens.shape[1]
    *labels, is_blank, blank_log_prob, row_max, row_log_sum = path
    if batch * canvas:
        gradient_kernel[(batch * canvas,)](
            *(logits, grad),
            ((*labels, is_blank.view(torch.uint8)), (blank_log_prob, row_max, row_log_sum)),
            *(grad_loss, in_two_parts(options.label_smoothing)),
            (grad_loss.stride(0), *logits.stride()[:2], *grad.stride()[:2]),
            *(target, canvas, vocab, options.blank_token_id),
            DTYPE=tl.float64 if row_max.dtype == torch.float64 else tl.float32,
            BLOCK=min(256, triton.next_power_of_2(max(16, target))),
            num_warps=NUM_WARPS,
        )
    return grad
