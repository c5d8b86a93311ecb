"""A loss along a path from decoder states and the output embedding: the logits of the whole batch never exist at once.

Whole sentences are projected a chunk at a time into one buffer, and the gradient is written over their logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .autograd_axe import RefuseSecondDerivative
from .back_end_axe import along_path_gradient
from .input_checks_axe import check_one_dtype

# Whole sentences whose logits fit this are projected at a time: the matrix products stay large enough to be
# efficient, and the logits small beside the gradient of the weight.
CHUNK_BYTES_CPU = 48 * 2**20
CHUNK_BYTES_GPU = 2**28


def is_fusing_worthwhile(hidden_states: Tensor, weight: Tensor) -> bool:
    """Whether `linear_along_path` saves memory and loses no time against the loss of projected states.

    Args:
        hidden_states: `(batch, canvas, hidden)`.
        weight: `(vocab, hidden)`.

    Returns:
        True where the logits would not fit one chunk; with one they exist at once in either case. Never under
        `torch.compile`, where they do too.
    """
    if torch.compiler.is_compiling():
        return False
    num_rows = hidden_states.shape[:-1].numel()
    num_bytes = num_rows * len(weight) * hidden_states.element_size()
    return num_bytes > _chunk_bytes(hidden_states)


def linear_along_path(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    align: Callable[[Tensor, slice], tuple[Tensor, tuple[Tensor, ...], tuple]],
    blank_token_id: int | None,
    label_smoothing: float,
    is_summed: bool,
) -> tuple[Tensor, ...]:
    """Returns the loss per sentence, or its sum, and what else `align` tells of every sentence.

    With `is_summed` the gradients are formed in the forward pass, since every sentence weighs the same then, and
    scaled in the backward pass. Otherwise the backward pass projects again, so any gradient may come from above.

    Args:
        hidden_states: `(batch, canvas, hidden)`, float; cast as `F.linear` does under autocast.
        weight: `(vocab, hidden)`, of the same type.
        bias: `(vocab,)`, of the same type, or None.
        align: Takes the logits `(sentences, canvas, vocab)` of a slice of the batch, and the slice. Returns what
            `along_path` does, but for the alignment any tensors that have the batch in front.
        blank_token_id: As `along_path_gradient` takes it.
        label_smoothing: As `along_path_gradient` takes it.
        is_summed: Whether to return the sum.
    """
    device = hidden_states.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    check_one_dtype(hidden_states, weight, bias)
    options, is_training = (blank_token_id, label_smoothing), torch.is_grad_enabled()
    return _LinearAlongPath.apply(
        hidden_states, weight, bias, align, options, is_summed, is_training
    )


class _LinearAlongPath(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, bias, align, options, is_summed, is_training):
        ctx.options = options
        ctx.grads = ctx.buffer = None
        if is_summed and is_training and any(ctx.needs_input_grad):
            ctx.grads = _Gradients(hidden_states, weight, bias, ctx.needs_input_grad)
        parts, buffer = [], _new_buffer(hidden_states, weight)
        for chunk, logits in _project(hidden_states, weight, bias, buffer):
            loss, more, path = align(logits, chunk)
            parts.append((loss, *more, *path))
            if ctx.grads is not None:
                one = torch.ones_like(loss)
                grad_logits = along_path_gradient(logits, path, one, *options, inplace=True)
                ctx.grads.add(chunk, grad_logits, hidden_states, weight)
        if not is_summed and is_training:
            ctx.buffer = buffer  # one chunk less to project again
        ctx.path_type = type(path)
        loss, *rest = (
            None if tensors[0] is None else torch.cat(tensors)
            for tensors in zip(*parts, strict=True)
        )
        more, path = rest[: len(more)], rest[len(more) :]
        ctx.save_for_backward(hidden_states, weight, bias, *path)
        ctx.mark_non_differentiable(*more)
        ctx.set_materialize_grads(False)
        return (loss.sum() if is_summed else loss, *more)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return (None,) * 7
        hidden_states, weight, bias, *path = ctx.saved_tensors
        with torch.no_grad():
            # A second backward pass over a retained graph finds these handed out, and computes all again.
            grads, ctx.grads = ctx.grads, None
            buffer, ctx.buffer = ctx.buffer, None
            if grads is not None:
                grads.scale(grad_loss)
            else:
                grads = _Gradients(hidden_states, weight, bias, ctx.needs_input_grad)
                grad_loss_each = grad_loss.expand(len(hidden_states))
                has_last = buffer is not None
                buffer = buffer if has_last else _new_buffer(hidden_states, weight)
                for chunk, logits in _project(hidden_states, weight, bias, buffer, has_last):
                    chosen = ctx.path_type(
                        *(None if part is None else part[chunk] for part in path)
                    )
                    grad_logits = along_path_gradient(
                        logits, chosen, grad_loss_each[chunk], *ctx.options, inplace=True
                    )
                    grads.add(chunk, grad_logits, hidden_states, weight)
            results = grads.finish(hidden_states, weight, bias)
        if torch.is_grad_enabled():
            inputs = [tensor for tensor in (hidden_states, weight, bias) if tensor is not None]
            results = [
                None if grad is None else RefuseSecondDerivative.apply(grad, grad_loss, *inputs)
                for grad in results
            ]
        return *results, *(None,) * 4


class _Gradients:
    """Sums up the gradients by hidden states, weight and bias, chunk by chunk; low precision in float32."""

    def __init__(self, hidden_states, weight, bias, is_needed):
        def new(tensor, needed, make):
            if not needed or tensor is None:
                return None
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            return make(tensor.shape, dtype=dtype, device=tensor.device)

        self.hidden_states = new(hidden_states, is_needed[0], torch.empty)
        self.weight = new(weight, is_needed[1], torch.zeros)
        self.bias = new(bias, is_needed[2], torch.zeros)

    def add(self, chunk: slice, grad_logits: Tensor, hidden_states: Tensor, weight: Tensor) -> None:
        grad_rows = grad_logits.flatten(0, 1)  # (rows, vocab)
        if self.hidden_states is not None:
            out = self.hidden_states[chunk].flatten(0, 1)
            if out.dtype == weight.dtype:
                torch.mm(grad_rows, weight, out=out)
            else:
                out.copy_(grad_rows @ weight)
        if self.weight is not None:
            rows = hidden_states[chunk].flatten(0, 1)
            if rows.dtype == self.weight.dtype:
                self.weight.addmm_(grad_rows.t(), rows)
            else:
                self.weight += grad_rows.t() @ rows
        if self.bias is not None:
            self.bias += grad_rows.sum(0, dtype=self.bias.dtype)

    def scale(self, factor: Tensor) -> None:
        for grad in (self.hidden_states, self.weight, self.bias):
            if grad is not None:
                grad *= factor

    def finish(self, *inputs: Tensor | None) -> list[Tensor | None]:
        grads = (self.hidden_states, self.weight, self.bias)
        return [
            None if grad is None else grad.to(tensor.dtype)
            for grad, tensor in zip(grads, inputs, strict=True)
        ]


def _new_buffer(hidden_states: Tensor, weight: Tensor) -> Tensor:
    """Memory for the logits of one chunk, `(sentences, canvas, vocab)`; at least one sentence."""
    batch, canvas, _ = hidden_states.shape
    num_bytes = canvas * len(weight) * hidden_states.element_size()
    sentences = max(1, min(batch, _chunk_bytes(hidden_states) // max(1, num_bytes)))
    return hidden_states.new_empty((sentences, canvas, len(weight)))


def _project(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    buffer: Tensor,
    has_last: bool = False,
) -> Iterator[tuple[slice, Tensor]]:
    """Yields slices of the batch and their logits, all in one buffer; one empty slice for an empty batch.

    One buffer, since fresh memory costs a page fault every 4 KiB: in sum more than the softmax. With `has_last` it
    holds what an earlier run left, the logits of the last slice; that slice then comes first.
    """
    batch, size = len(hidden_states), len(buffer)
    starts = list(range(0, max(1, batch), size))
    if has_last:
        start = starts.pop()
        yield slice(start, batch), buffer[: batch - start]
    for start in starts:
        chunk = slice(start, min(start + size, batch))
        logits = buffer[: chunk.stop - start]
        rows, out = hidden_states[chunk].flatten(0, 1), logits.flatten(0, 1)
        if bias is None:
            torch.mm(rows, weight.t(), out=out)
        else:
            torch.addmm(bias, rows, weight.t(), out=out)
        yield chunk, logits


def _chunk_bytes(hidden_states: Tensor) -> int:
    return CHUNK_BYTES_CPU if hidden_states.device.type == "cpu" else CHUNK_BYTES_GPU
