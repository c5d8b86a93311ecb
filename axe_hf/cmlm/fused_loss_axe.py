"""The loss from decoder states and the output embedding: the logits of a whole batch never exist.

Whole sentences are projected a chunk at a time into one buffer, and the gradient is written over
their logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .alignment_axe import AxeOptions, AxeTargets
from .back_ends_axe import (
    BackEnd,
    RefuseSecondDerivative,
    back_end,
    check_single,
    differentiable_along_path,
)
from .loss_axe import (
    AxeOutput,
    check_derivatives,
    check_log_probs,
    check_options,
    checked_targets,
    reduce_loss,
)
from .path_axe import PathLoss

# Whole sentences whose logits fit this are projected at a time: the matrix products stay large
# enough to be efficient, and the logits small beside the gradient of the weight.
CHUNK_BYTES_CPU = 48 * 2**20
CHUNK_BYTES_GPU = 2**28

# Takes logits `(sentences, canvas, vocab)` and the slice of the batch that they belong to.
Align = Callable[[Tensor, slice], PathLoss]


def linear_axe_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    blank_token_id: int,
    delta: float,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    observed_tokens: Tensor | None = None,
    label_smoothing: float = 0.0,
    allow_repetition: bool = False,
    temperature: float = 0.0,
    reduction: str = "mean",
    num_items_in_batch: int | Tensor | None = None,
    return_alignment: bool = False,
    implementation: str = "auto",
) -> Tensor | AxeOutput:
    """The same as `axe_loss(F.linear(hidden_states, weight, bias), labels, ...)`, in less memory.

    The projection runs over a few sentences at a time. With `reduction="mean"` or `"sum"` the
    gradients are formed in the forward pass, since there every sentence weighs the same, and scaled
    in the backward pass; with `"none"` the backward pass projects again, so any gradient may come
    from above. The gradients of weight and bias are summed up in float32. Under autocast the
    projection runs in its dtype, as `F.linear` does. Under `torch.compile` it is `axe_loss` on the
    projected states, which saves nothing.

    Args:
        hidden_states: `(batch, canvas, hidden)`, float.
        weight: `(vocab, hidden)`, float: the output embedding.
        labels: `(batch, target)`, long. As in `axe_loss`, as are all arguments behind `bias`.
        bias: `(vocab,)`, float. Default: none.

    Returns:
        As `axe_loss`.

    Raises:
        As `axe_loss`.

    Example:
        >>> import torch
        >>> hidden_states, weight = torch.randn(2, 5, 8), torch.randn(7, 8, requires_grad=True)
        >>> labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
        >>> loss = linear_axe_loss(hidden_states, weight, labels, blank_token_id=0, delta=4.0)
        >>> loss.backward()
        >>> weight.grad.shape
        torch.Size([7, 8])
    """
    options = AxeOptions(
        *(blank_token_id, delta, label_smoothing, allow_repetition, temperature),
        with_alignment=return_alignment,
    )
    check_options(options, reduction, num_items_in_batch)
    check_projection(hidden_states, weight, bias)
    projection, is_summed = Projection(hidden_states, weight, bias), reduction != "none"
    targets = checked_targets(
        *(projection.shape, labels, options, canvas_lengths, observed_mask, observed_tokens)
    )
    result = linear_path_loss(projection, targets, options, implementation, is_summed)
    loss = reduce_loss(result.loss, reduction, targets, num_items_in_batch)
    return AxeOutput(loss, result.alignment) if return_alignment else loss  # type: ignore[arg-type]


def linear_path_loss(
    projection: Projection,
    targets: AxeTargets,
    options: AxeOptions,
    implementation: str = "auto",
    is_summed: bool = True,
) -> PathLoss:
    """`loss_axe.logits_path_loss` of what `projection` makes; its sum if `is_summed`."""
    chosen = back_end(implementation, options, projection.hidden_states.device)
    if torch.compiler.is_compiling():
        logits = F.linear(projection.hidden_states, projection.weight, projection.bias)
        return differentiable_along_path(logits, targets, options, implementation, False)
    result = linear_along_path(
        projection,
        lambda logits, chunk: chosen.along_path(logits, targets[chunk], options),
        options,
        chosen,
        is_summed=is_summed,
    )
    check_log_probs(result.path.blank_log_prob, targets.canvas_lengths)
    return result


def check_projection(hidden_states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuses states that are no batch, and derivatives that are not there."""
    for name, tensor in (("hidden_states", hidden_states), ("weight", weight), ("bias", bias)):
        if not isinstance(tensor, Tensor) and (tensor is not None or name != "bias"):
            raise TypeError(f"`{name}` must be a tensor, got {type(tensor).__name__}.")
    if not hidden_states.is_floating_point() or hidden_states.dim() != 3:
        raise ValueError(
            "`hidden_states` must be (batch, canvas, hidden) and float, got "
            f"{tuple(hidden_states.shape)}, {hidden_states.dtype}."
        )
    if weight.dim() != 2 or weight.shape[1] != hidden_states.shape[2]:
        raise ValueError(
            f"`weight` must be (vocab, hidden) with `hidden` = {hidden_states.shape[2]} as in "
            f"`hidden_states`, got {tuple(weight.shape)}."
        )
    if bias is not None and bias.shape != weight.shape[:1]:  # a single one would be spread out
        raise ValueError(f"`bias` must be (vocab,) = ({len(weight)},), got {tuple(bias.shape)}.")
    check_derivatives(hidden_states, weight, bias)


@dataclass(frozen=True)
class Projection:
    """Decoder states and what makes logits of them."""

    hidden_states: Tensor  # (batch, canvas, hidden)
    weight: Tensor  # (vocab, hidden)
    bias: Tensor | None  # (vocab,)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the logits."""
        return (*self.hidden_states.shape[:2], len(self.weight))

    def in_one_dtype(self) -> Projection:
        """Cast as `F.linear` casts under autocast."""
        device = self.hidden_states.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return self
        dtype = torch.get_autocast_dtype(device)
        bias = None if self.bias is None else self.bias.to(dtype)
        return Projection(self.hidden_states.to(dtype), self.weight.to(dtype), bias)

    def new_buffer(self) -> Tensor:
        """Memory for the logits of a chunk, `(sentences, canvas, vocab)`."""
        batch, canvas, _ = self.hidden_states.shape
        num_bytes = canvas * len(self.weight) * self.hidden_states.element_size()
        sentences = max(1, min(batch, _chunk_bytes(self.hidden_states) // max(1, num_bytes)))
        return self.hidden_states.new_empty((sentences, canvas, len(self.weight)))

    def logits_by_chunk(self, buffer: Tensor, has_last: bool) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of the batch and their logits; one empty slice for an empty batch.

        One buffer, since fresh memory costs a page fault every 4 KiB: in sum more than the softmax.
        With `has_last` it holds what an earlier run left, the logits of the last slice; that slice
        then comes first.
        """
        batch, size = len(self.hidden_states), len(buffer)
        starts = list(range(0, max(1, batch), size))
        if has_last:
            start = starts.pop()
            yield slice(start, batch), buffer[: batch - start]
        for start in starts:
            chunk = slice(start, min(start + size, batch))
            logits = buffer[: chunk.stop - start]
            rows, out = self.hidden_states[chunk].flatten(0, 1), logits.flatten(0, 1)
            if self.bias is None:
                torch.mm(rows, self.weight.t(), out=out)
            else:
                torch.addmm(self.bias, rows, self.weight.t(), out=out)
            yield chunk, logits


def linear_along_path(
    projection: Projection, align: Align, options: AxeOptions, chosen: BackEnd, *, is_summed: bool
) -> PathLoss:
    """Returns the loss per sentence, or its sum, with a gradient; alignment and path of the batch.

    `align`, of the back end `chosen`, computes the loss along the path of some sentences. The
    gradients of the sum are formed in the forward pass, as every sentence weighs the same.
    """
    projection = projection.in_one_dtype()
    call = _Call(align, options, chosen, is_summed, is_training=torch.is_grad_enabled())
    loss = _LinearAlongPath.apply(*vars(projection).values(), call)
    assert call.result is not None
    return call.result._replace(loss=loss)


@dataclass
class _Call:
    """What one call computes, and, in `result`, what came out besides the loss."""

    align: Align
    options: AxeOptions
    back_end: BackEnd
    is_summed: bool
    is_training: bool
    result: PathLoss | None = None

    def gradient(self, logits, path, grad_loss) -> Tensor:
        """Of the loss by the logits of a chunk, written over them."""
        return self.back_end.path_gradient(logits, path, grad_loss, self.options, inplace=True)


class _LinearAlongPath(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_states, weight, bias, call):
        projection, parts = Projection(hidden_states, weight, bias), []
        ctx.call, ctx.grads, ctx.buffer = call, None, None
        if call.is_summed and call.is_training and any(ctx.needs_input_grad):
            ctx.grads = _Gradients(projection, ctx.needs_input_grad)
        buffer = projection.new_buffer()
        for chunk, logits in projection.logits_by_chunk(buffer, has_last=False):
            part = call.align(logits, chunk)
            parts.append(part)
            if ctx.grads is not None:
                one = torch.ones_like(part.loss)
                ctx.grads.add(chunk, call.gradient(logits, part.path, one), projection)
        if not call.is_summed and call.is_training:
            ctx.buffer = buffer  # one chunk less to project again
        call.result = _joined(parts)
        ctx.save_for_backward(hidden_states, weight, bias, *call.result.path)
        ctx.set_materialize_grads(False)
        return call.result.loss.sum() if call.is_summed else call.result.loss.clone()

    @staticmethod
    def backward(ctx, grad_loss):
        if grad_loss is None:
            return None, None, None, None
        check_single(grad_loss)
        hidden_states, weight, bias, *path = ctx.saved_tensors
        projection = Projection(hidden_states, weight, bias)
        # A second backward pass over a retained graph finds these handed out, and computes again.
        grads, ctx.grads = ctx.grads, None
        buffer, ctx.buffer = ctx.buffer, None
        with torch.no_grad():
            if grads is not None:
                grads.scale(grad_loss)
            else:
                grads = _Gradients(projection, ctx.needs_input_grad)
                grad_losses = grad_loss.expand(len(hidden_states))
                has_last = buffer is not None
                buffer = buffer if has_last else projection.new_buffer()
                for chunk, logits in projection.logits_by_chunk(buffer, has_last):
                    part = (None if tensor is None else tensor[chunk] for tensor in path)
                    part = ctx.call.back_end.path_type(*part)
                    grad_logits = ctx.call.gradient(logits, part, grad_losses[chunk])
                    grads.add(chunk, grad_logits, projection)
            results = grads.finish(projection)
        if torch.is_grad_enabled():
            inputs = [tensor for tensor in (hidden_states, weight, bias) if tensor is not None]
            results = [
                None if grad is None else RefuseSecondDerivative.apply(grad, grad_loss, *inputs)
                for grad in results
            ]
        return *results, None


def _joined(parts: list[PathLoss]) -> PathLoss:
    """The parts of a batch in one, sentence by sentence."""

    def join(tensors):
        return None if tensors[0] is None else torch.cat(tensors)

    first, alignment = parts[0], None
    if first.alignment is not None:
        names = vars(first.alignment)
        columns = (join([getattr(part.alignment, name) for part in parts]) for name in names)
        alignment = type(first.alignment)(*columns)
    path = type(first.path)(*map(join, zip(*(part.path for part in parts), strict=True)))
    return PathLoss(join([part.loss for part in parts]), alignment, path)


class _Gradients:
    """Sums up the gradients of a projection's tensors, chunk by chunk; low precision in float32."""

    def __init__(self, projection: Projection, is_needed: tuple[bool, ...]):
        def new(tensor, needed, make):
            if not needed or tensor is None:
                return None
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            return make(tensor.shape, dtype=dtype, device=tensor.device)

        self.hidden_states = new(projection.hidden_states, is_needed[0], torch.empty)
        self.weight = new(projection.weight, is_needed[1], torch.zeros)
        self.bias = new(projection.bias, is_needed[2], torch.zeros)

    def add(self, chunk: slice, grad_logits: Tensor, projection: Projection) -> None:
        grad_rows = grad_logits.flatten(0, 1)  # (rows, vocab)
        if self.hidden_states is not None:
            out = self.hidden_states[chunk].flatten(0, 1)
            if out.dtype == projection.weight.dtype:
                torch.mm(grad_rows, projection.weight, out=out)
            else:
                out.copy_(grad_rows @ projection.weight)
        if self.weight is not None:
            rows = projection.hidden_states[chunk].flatten(0, 1)
            if rows.dtype == self.weight.dtype:
                self.weight.addmm_(grad_rows.t(), rows)
            else:
                self.weight += grad_rows.t() @ rows
        if self.bias is not None:
            self.bias += grad_rows.sum(0, dtype=self.bias.dtype)

    def scale(self, factor: Tensor) -> None:
        for grad in vars(self).values():
            if grad is not None:
                grad *= factor

    def finish(self, projection: Projection) -> list[Tensor | None]:
        pairs = zip(vars(self).values(), vars(projection).values(), strict=True)
        return [None if grad is None else grad.to(tensor.dtype) for grad, tensor in pairs]


def is_plain_linear(module: nn.Module, device: torch.device) -> bool:
    """Whether reading an output projection's weight tells all that calling it would.

    An adapter, quantized or sharded weights, or a hook would be missed.
    """
    return (
        # A subclass of either may compute something else, or hold a part of the matrix only.
        type(module) is nn.Linear
        and type(module.weight) in (nn.Parameter, torch.Tensor)
        and module.weight.device == device
        and "forward" not in vars(module)  # as accelerate's hooks replace it
        and not (module._forward_hooks or module._forward_pre_hooks)
    )


def is_fusing_worthwhile(hidden_states: Tensor, weight: Tensor) -> bool:
    """Whether the logits of states `(batch, canvas, hidden)` would not fit one chunk.

    With one they exist at once in either case, as they do under `torch.compile`.
    """
    if torch.compiler.is_compiling():
        return False
    num_rows = hidden_states.shape[:-1].numel()
    num_bytes = num_rows * len(weight) * hidden_states.element_size()
    return num_bytes > _chunk_bytes(hidden_states)


def _chunk_bytes(hidden_states: Tensor) -> int:
    return CHUNK_BYTES_CPU if hidden_states.device.type == "cpu" else CHUNK_BYTES_GPU
