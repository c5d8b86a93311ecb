"""Cross entropy along a path, mostly that of an AXE alignment: its value and its gradient.

Every prediction is used once, by align (its label is the target) or skip prediction (its label is
the blank), and again, weighted with delta, by each target that is skipped at it. So the gradient of
a position that is used with total weight S is `S * softmax - (onehots of its labels, weighted)`: a
softmax and a few single entries. Both halves pass over the logits once, in blocks of rows that fit
the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .alignment_axe import AxeAlignment, AxeOptions, AxeTargets, align_axe

# A block stays in a core's cache between the passes over it; a GPU wants few large launches.
BLOCK_BYTES_CPU = 2**21
BLOCK_BYTES_GPU = 2**28


class AxePath(NamedTuple):
    """What the gradient needs to know of the path; None where there is no blank."""

    tokens: Tensor  # (batch, target) long: the target tokens, the blank at padding
    position: Tensor  # (batch, target) long: where a token is aligned or skipped; 0 at padding
    token_weight: Tensor  # (batch, target): weight of that label there, repetitions included
    token_log_prob: Tensor  # (batch, target): log P_position(token)
    is_blank: Tensor | None  # (batch, canvas) bool: True where the label is the blank
    blank_log_prob: Tensor | None  # (batch, canvas): log P_j(blank)
    uses: Tensor  # (batch, canvas): total weight S of the labels; 0 where nothing is scored


class PathLoss(NamedTuple):
    """A loss along a path; no tensor of it carries a gradient."""

    loss: Tensor  # (batch,): nats per sentence, label smoothing included
    alignment: AxeAlignment | None  # None for cross entropy, which needs none
    path: AxePath  # or a back end's own


@torch.no_grad()
def gather_log_probs(
    logits: Tensor, columns: Tensor, with_mean: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns log-probabilities of some tokens, and the vocabulary's mean, in one pass.

    The tokens `columns` are `(batch, canvas or 1, number)`, long, those to look up at each or at
    every position of the logits `(batch, canvas, vocab)`. Returns `(batch, canvas, number)` and
    `(batch, canvas)` or None, in float32 or the logits' wider type.
    """
    batch, canvas, vocab = logits.shape
    number = columns.shape[2]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    found = logits.new_empty((batch * canvas, number), dtype=dtype)
    mean = logits.new_empty(batch * canvas, dtype=dtype) if with_mean else None
    # a view: what is looked up is copied block by block
    columns = columns.expand(batch, canvas, number)
    rows = torch.arange(batch * canvas, device=logits.device)
    size = _rows_per_block(logits, dtype)
    buffer = logits.new_empty((min(size, batch * canvas), vocab), dtype=dtype)
    start = 0
    for block in logits.detach().reshape(-1, vocab).split(size):
        stop = start + len(block)
        log_probs = torch.log_softmax(block, -1, dtype=dtype, out=buffer[: len(block)])
        row = rows[start:stop]
        torch.gather(log_probs, 1, columns[row // canvas, row % canvas], out=found[start:stop])
        if mean is not None:
            torch.mean(log_probs, -1, out=mean[start:stop])
        start = stop
    return found.view(batch, canvas, number), None if mean is None else mean.view(batch, canvas)


@torch.no_grad()
def axe_along_path(logits: Tensor, targets: AxeTargets, options: AxeOptions) -> PathLoss:
    """Aligns and returns the loss along the path; `logits` are `(batch, canvas, vocab)`."""
    tokens, canvas_lengths = targets.tokens, targets.canvas_lengths
    observed_mask, delta = targets.observed_mask, options.delta
    canvas = logits.shape[1]
    columns = F.pad(tokens, (0, 1), value=options.blank_token_id)[:, None]
    log_probs, mean_log_probs = gather_log_probs(logits, columns, options.label_smoothing > 0)
    token_log_probs = log_probs[:, :, :-1].transpose(1, 2)  # (batch, target, canvas)
    blank_log_prob = log_probs[:, :, -1].contiguous()
    alignment = align_axe(
        -token_log_probs,
        -blank_log_prob,
        delta=delta,
        target_lengths=targets.target_lengths,
        canvas_lengths=canvas_lengths,
        observed_mask=observed_mask,
    )
    position = alignment.target_to_position.clamp(min=0)
    # Scalars of the loss's own type: Python's would make fp32 weights, and fp64 losses wrong in the
    # eighth digit.
    one = log_probs.new_ones(())
    weight = torch.where(alignment.is_aligned, one, delta * one)
    weight = weight.masked_fill(alignment.target_to_position < 0, 0.0)  # padding
    is_blank = alignment.position_to_target < 0
    if canvas_lengths is not None:
        is_blank &= torch.arange(canvas, device=logits.device) < canvas_lengths[:, None]
    if canvas == 0:  # nothing is said, and nothing may be scored
        tokens, position, weight = tokens[:, :0], position[:, :0], weight[:, :0]
    token_log_prob = token_log_probs.gather(2, position[:, :, None])[:, :, 0]
    if observed_mask is not None:
        weight = weight.masked_fill(observed_mask.gather(1, position), 0.0)
    uses = is_blank.to(weight.dtype).scatter_add_(1, position, weight)
    # a token that is skipped twice at a position has one entry in the gradient
    label = position * logits.shape[-1] + tokens
    token_weight = ((label[:, :, None] == label[:, None, :]) * weight[:, None, :]).sum(2)
    loss = smooth(alignment.cost, uses, mean_log_probs, options.label_smoothing)
    path = AxePath(tokens, position, token_weight, token_log_prob, is_blank, blank_log_prob, uses)
    return PathLoss(loss, alignment, path)


def smooth(
    cost: Tensor, uses: Tensor, mean_log_probs: Tensor | None, label_smoothing: float
) -> Tensor:
    """Mixes the cost of a path `(batch,)` with that of the uniform distribution along it.

    The means `(batch, canvas)`, from `gather_log_probs`, are None where nothing is smoothed.
    """
    if mean_log_probs is None:
        return cost
    # where, not a product with 0: the mean may be infinite
    uniform = torch.where(uses > 0, uses * -mean_log_probs, 0).sum(1)
    return (1 - label_smoothing) * cost + label_smoothing * uniform


@torch.no_grad()
def path_gradient(
    logits: Tensor, path: AxePath, grad_loss: Tensor, options: AxeOptions, inplace: bool
) -> Tensor:
    """Returns the gradient by the logits of a loss along a path, in the logits' dtype.

    The gradient by the loss, `grad_loss`, is `(batch,)`. If `inplace` the result is written over
    the logits `(batch, canvas, vocab)`.
    """
    vocab, dtype, smoothing = logits.shape[-1], path.uses.dtype, options.label_smoothing
    grad_loss = grad_loss.to(dtype)[:, None]
    softmax_weight = path.uses * grad_loss  # (batch, canvas)
    flat = logits.detach().reshape(-1, vocab)
    grad = flat if inplace else torch.empty_like(flat, memory_format=torch.contiguous_format)
    size = _rows_per_block(logits, dtype)
    buffer = None  # in low precision it keeps the rounding to one, at the end
    if grad.dtype != dtype:
        buffer = flat.new_empty((min(size, len(flat)), vocab), dtype=dtype)
    # elsewhere a look at the weights would make the host wait
    is_on_cpu = logits.device.type == "cpu"
    blocks = (flat.split(size), grad.split(size), softmax_weight.reshape(-1, 1).split(size))
    for block, out, weight in zip(*blocks, strict=True):
        target = out if buffer is None else buffer[: len(block)]
        torch.softmax(block, -1, dtype=dtype, out=target)
        target *= weight
        if not is_on_cpu or not weight.all():
            target.masked_fill_(weight == 0, 0.0)  # what is not scored may be NaN
        if smoothing > 0:
            target -= weight * (smoothing / vocab)
        if buffer is not None:
            out.copy_(target)

    # The labels' entries are written whole, since p - 1 must be formed before it is rounded.
    def entry(weight, log_prob, label_weight):
        label_weight = (1 - smoothing) * grad_loss * label_weight
        value = weight * log_prob.expm1() + (weight * (1 - smoothing / vocab) - label_weight)
        return value.masked_fill(weight == 0, 0.0).to(grad.dtype)

    grad = grad.view(logits.shape)
    # index_put_, because scatter_ on a CPU makes a float32 copy of the whole of a low-precision
    # tensor. Tokens first: the entries of padding are blanks, which the second call sets right.
    sentences = torch.arange(len(grad), device=grad.device)[:, None]
    token_weight = softmax_weight.gather(1, path.position)
    token_entry = entry(token_weight, path.token_log_prob, path.token_weight)
    grad.index_put_((sentences, path.position, path.tokens), token_entry)
    if path.is_blank is not None:
        blank_entry = entry(softmax_weight, path.blank_log_prob, path.is_blank)
        grad[:, :, options.blank_token_id] = blank_entry
    return grad


def _rows_per_block(logits: Tensor, dtype: torch.dtype) -> int:
    is_on_cpu = logits.device.type == "cpu"
    budget = BLOCK_BYTES_CPU * torch.get_num_threads() if is_on_cpu else BLOCK_BYTES_GPU
    return max(1, budget // max(1, logits.shape[-1] * dtype.itemsize))
