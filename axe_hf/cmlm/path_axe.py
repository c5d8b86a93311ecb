"""Cross entropy along a path, mostly that of an AXE alignment: its value and its gradient.

Every prediction is used once, by align (its label is the target) or skip prediction (its label is
the blank), and again, weighted with delta, by each target that is skipped at it. So the gradient of
a position that is used with total weight S is `S * softmax - (onehots of its labels, weighted)`: a
softmax and a few single entries. Both halves pass over the logits once, in blocks of rows that fit
the cache. A mixture of all alignments differs in the entries, which are posteriors then, and many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .alignment_axe import (
    AxeAlignment,
    AxeOptions,
    AxeTargets,
    ExpectedSkips,
    align_axe,
    best_alignment,
)
from .family_axe import Moves, exact_dtype, first_of_equal, posterior_of, sentences_at_once

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


class FamilyPath(NamedTuple):
    """The same of many alignments: what to write over the softmax."""

    tokens: Tensor  # (batch, target + 1) long: the target tokens, the blank at padding and last
    entries: Tensor  # (batch, canvas, target + 1): the whole gradient at these tokens
    uses: Tensor  # (batch, canvas): total weight of the labels, as in `AxePath`
    blank_log_prob: Tensor  # (batch, canvas): log P_j(blank)


class PathLoss(NamedTuple):
    """A loss along a path; no tensor of it carries a gradient."""

    loss: Tensor  # (batch,): nats per sentence, label smoothing included
    alignment: AxeAlignment | ExpectedSkips | None  # None for cross entropy, which needs none
    path: AxePath | FamilyPath  # or a back end's own


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


@torch.no_grad()
def family_along_path(logits: Tensor, targets: AxeTargets, options: AxeOptions) -> PathLoss:
    """Returns the loss over all alignments, or along the best, that are not the paper's."""
    (batch, canvas, vocab), smoothing = logits.shape, options.label_smoothing
    tokens = F.pad(targets.tokens, (0, 1), value=options.blank_token_id)
    log_probs, mean_log_probs = gather_log_probs(logits, tokens[:, None], smoothing > 0)
    size = sentences_at_once(batch, targets.tokens.shape[1] * canvas, logits.device)
    starts = range(0, max(1, batch), size)
    chunks = [slice(start, start + size) for start in starts]
    parts = [_family_part(log_probs[c], tokens[c], targets[c], options, vocab) for c in chunks]
    cost, entries, uses, *alignment = (
        parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    )
    path = FamilyPath(tokens, entries, uses, log_probs[:, :, -1].contiguous())
    loss = smooth(cost, uses, mean_log_probs, smoothing)
    return PathLoss(loss, alignment_type(options)(*alignment), path)


def alignment_type(options: AxeOptions) -> type:
    """What a loss tells beside its value: `AxeAlignment` or `ExpectedSkips`."""
    return AxeAlignment if options.temperature == 0 or options.with_alignment else ExpectedSkips


def _family_part(
    log_probs: Tensor, tokens: Tensor, targets: AxeTargets, options: AxeOptions, vocab: int
) -> tuple[Tensor, ...]:
    """Of some sentences: the costs, the gradient's entries, the uses, and the alignment's parts."""
    temperature, smoothing, dtype = options.temperature, options.label_smoothing, log_probs.dtype
    moves = _moves(log_probs, tokens, targets, options)
    if temperature == 0 or options.with_alignment:
        posterior = posterior_of(moves, is_best=True)
        alignment = best_alignment(posterior, moves)
        cost, told = alignment.cost, tuple(vars(alignment).values())
    if temperature > 0:
        exact = exact_dtype(moves.say.device)
        costs = (moves.say, moves.skip_prediction)
        say, blank = (part.to(exact) / temperature for part in costs)
        posterior = posterior_of(replace(moves, say=say, skip_prediction=blank), is_best=False)
        cost = (-temperature * posterior.value).to(dtype)
        if not options.with_alignment:
            skips = posterior.skip_target.sum((1, 2)), posterior.skip_prediction.sum(1)
            told = tuple(part.to(dtype) for part in skips)
    delta = options.delta if options.delta != torch.inf else 0.0
    labels = torch.add(posterior.says, posterior.skip_target, alpha=delta)
    labels = torch.cat((labels, posterior.skip_prediction[:, None]), 1).transpose(1, 2)
    if targets.observed_mask is not None:
        labels = labels.masked_fill(targets.observed_mask[:, :, None], 0.0)
    total = labels.sum(2, keepdim=True)
    # equal tokens have one entry in the gradient, that of all
    first = first_of_equal(tokens)[:, None].expand_as(labels)
    labels = torch.zeros_like(labels).scatter_add_(2, first, labels).gather(2, first)
    entries = total * log_probs.expm1() + (1 - smoothing) * (total - labels)
    entries += total * (smoothing - smoothing / vocab)
    entries = entries.masked_fill_(total == 0, 0.0).to(dtype)
    return cost, entries, total[:, :, 0].to(dtype), *told


def _moves(log_probs: Tensor, tokens: Tensor, targets: AxeTargets, options: AxeOptions) -> Moves:
    """What may be done on the canvases, at temperature 1."""
    batch, canvas, _ = log_probs.shape
    observed_mask, canvas_lengths = targets.observed_mask, targets.canvas_lengths
    if targets.observed_tokens is not None and observed_mask is not None:
        # such a position says its token, for nothing, and nothing else
        is_shown = tokens[:, None] == targets.observed_tokens[:, :, None]
        shown = torch.zeros_like(log_probs).masked_fill_(~is_shown, -torch.inf)
        log_probs, observed_mask = torch.where(observed_mask[:, :, None], shown, log_probs), None
    if canvas_lengths is None:
        canvas_lengths = torch.full((batch,), canvas, device=log_probs.device)
    return Moves(
        say=log_probs[:, :, :-1].transpose(1, 2),
        skip_prediction=log_probs[:, :, -1],
        delta=options.delta,
        allow_repetition=options.allow_repetition,
        tokens=targets.tokens,
        target_lengths=targets.target_lengths,
        canvas_lengths=canvas_lengths,
        observed_mask=observed_mask,
    )


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
    grad = _weighted_softmax(logits, softmax_weight, smoothing, inplace)

    # The labels' entries are written whole, since p - 1 must be formed before it is rounded.
    def entry(weight, log_prob, label_weight):
        label_weight = (1 - smoothing) * grad_loss * label_weight
        value = weight * log_prob.expm1() + (weight * (1 - smoothing / vocab) - label_weight)
        return value.masked_fill(weight == 0, 0.0).to(grad.dtype)

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


@torch.no_grad()
def family_gradient(
    logits: Tensor, path: FamilyPath, grad_loss: Tensor, options: AxeOptions, inplace: bool
) -> Tensor:
    """As `path_gradient`, of many alignments."""
    grad_loss = grad_loss.to(path.uses.dtype)[:, None]
    entries = (path.entries * grad_loss[:, :, None]).flatten(0, 1)  # (rows, target + 1)
    canvas = logits.shape[1]
    rows = torch.arange(len(entries), device=logits.device)

    def write(block, start):  # while the block is in the cache, before it is rounded
        part = slice(start, start + len(block))
        block.scatter_(1, path.tokens[rows[part] // canvas], entries[part])

    smoothing = options.label_smoothing
    return _weighted_softmax(logits, path.uses * grad_loss, smoothing, inplace, write)


def _weighted_softmax(
    logits: Tensor,
    weights: Tensor,
    smoothing: float,
    inplace: bool,
    write: Callable[[Tensor, int], None] | None = None,
) -> Tensor:
    """The gradient but for the labels' entries, `weights` being `(batch, canvas)`.

    What is there to `write` gets blocks of rows in the weights' dtype, and where they start.
    """
    vocab, dtype = logits.shape[-1], weights.dtype
    flat = logits.detach().reshape(-1, vocab)
    grad = flat if inplace else torch.empty_like(flat, memory_format=torch.contiguous_format)
    size = _rows_per_block(logits, dtype)
    buffer = None  # in low precision it keeps the rounding to one, at the end
    if grad.dtype != dtype:
        buffer = flat.new_empty((min(size, len(flat)), vocab), dtype=dtype)
    # elsewhere a look at the weights would make the host wait
    is_on_cpu, start = logits.device.type == "cpu", 0
    blocks = (flat.split(size), grad.split(size), weights.reshape(-1, 1).split(size))
    for block, out, weight in zip(*blocks, strict=True):
        target = out if buffer is None else buffer[: len(block)]
        torch.softmax(block, -1, dtype=dtype, out=target)
        target *= weight
        if not is_on_cpu or not weight.all():
            target.masked_fill_(weight == 0, 0.0)  # what is not scored may be NaN
        if smoothing > 0:
            target -= weight * (smoothing / vocab)
        if write is not None:
            write(target, start)
        if buffer is not None:
            out.copy_(target)
        start += len(block)
    return grad.view(logits.shape)


def _rows_per_block(logits: Tensor, dtype: torch.dtype) -> int:
    is_on_cpu = logits.device.type == "cpu"
    budget = BLOCK_BYTES_CPU * torch.get_num_threads() if is_on_cpu else BLOCK_BYTES_GPU
    return max(1, budget // max(1, logits.shape[-1] * dtype.itemsize))
