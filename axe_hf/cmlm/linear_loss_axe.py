"""AXE from decoder states and the output embedding: the logits of the whole batch never exist at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .alignment_axe import AxeAlignment
from .back_end_axe import along_path, along_path_gradient
from .input_checks_axe import (
    check_implementation,
    check_log_probs,
    check_options,
    check_projection,
    check_tensors,
)
from .loss_axe import AxeOutput, RefuseSecondDerivative, axe_loss, divide_by_targets, split_labels

# Whole sentences whose logits fit this are projected at a time: the matrix products stay large enough to be
# efficient, and the logits small beside the gradient of the weight.
CHUNK_BYTES_CPU = 2**25
CHUNK_BYTES_GPU = 2**28


def is_fusing_worthwhile(hidden_states: Tensor, weight: Tensor) -> bool:
    """Whether `linear_axe_loss` saves memory and loses no time against `axe_loss` on projected states.

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
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    num_items_in_batch: int | Tensor | None = None,
    return_alignment: bool = False,
    implementation: str = "auto",
) -> Tensor | AxeOutput:
    """The same as `axe_loss(F.linear(hidden_states, weight, bias), labels, ...)`, in a fraction of the memory.

    The projection runs over a few sentences at a time. With `reduction="mean"` or `"sum"` the gradients are formed
    in the forward pass, since there every sentence weighs the same, and scaled in the backward pass; with `"none"`
    the backward pass projects again, so any gradient may come from above. The gradients of weight and bias are
    summed up in float32. Under autocast the projection runs in its dtype, as `F.linear` does. Under `torch.compile`
    it is `axe_loss` on the projected states, which saves nothing.

    Args:
        hidden_states: `(batch, canvas, hidden)`, float.
        weight: `(vocab, hidden)`, float: the output embedding.
        labels: `(batch, target)`, long: the whole target of each sentence, `</s>` included; -100 behind its end.
        bias: `(vocab,)`, float. Default: none.
        blank_token_id: Id of the blank, a symbol of its own that is never a label.
        delta: Price of skipping a target, at least 0.
        canvas_lengths: `(batch,)`, long. Default: the whole canvas.
        observed_mask: `(batch, canvas)`, bool. Default: nothing observed.
        label_smoothing: In [0, 1). Default 0.
        reduction: `"mean"`, `"sum"` or `"none"`, as in `axe_loss`.
        num_items_in_batch: Divisor of `"mean"`, int or scalar tensor.
        return_alignment: Return `AxeOutput(loss, alignment)` in place of the loss.
        implementation: `"auto"`, `"torch"` or `"triton"`, as in `axe_loss`.

    Returns:
        The loss in nats, float32 or the logits' wider type; or `AxeOutput`.

    Raises:
        ValueError: On values or shapes that do not fit.
        TypeError: On wrong types.

    Example:
        >>> import torch
        >>> hidden_states, weight = torch.randn(2, 5, 8), torch.randn(7, 8, requires_grad=True)
        >>> labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
        >>> loss = linear_axe_loss(hidden_states, weight, labels, blank_token_id=0, delta=4.0)
        >>> loss.backward()
        >>> weight.grad.shape
        torch.Size([7, 8])
    """
    check_options(blank_token_id, delta, label_smoothing, reduction, num_items_in_batch)
    check_implementation(implementation)
    check_projection(hidden_states, weight, bias)
    batch, canvas, _ = hidden_states.shape
    check_tensors(batch, canvas, len(weight), labels, blank_token_id, canvas_lengths, observed_mask)
    if torch.compiler.is_compiling():
        return axe_loss(
            F.linear(hidden_states, weight, bias),
            labels,
            blank_token_id=blank_token_id,
            delta=delta,
            canvas_lengths=canvas_lengths,
            observed_mask=observed_mask,
            label_smoothing=label_smoothing,
            reduction=reduction,
            num_items_in_batch=num_items_in_batch,
            return_alignment=return_alignment,
            implementation=implementation,
        )
    device = hidden_states.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    tokens, target_lengths = split_labels(labels, blank_token_id)
    loss, *alignment = _LinearAxeLoss.apply(
        hidden_states,
        weight,
        bias,
        (tokens, target_lengths, canvas_lengths, observed_mask),
        (blank_token_id, delta, label_smoothing),
        implementation,
        reduction != "none",
        torch.is_grad_enabled(),
    )
    if reduction == "mean":
        loss = divide_by_targets(loss, target_lengths, observed_mask, num_items_in_batch)
    return AxeOutput(loss, AxeAlignment(*alignment)) if return_alignment else loss


class _LinearAxeLoss(torch.autograd.Function):
    """The loss per sentence, or its sum with `is_summed`, and the fields of the alignment."""

    @staticmethod
    def forward(
        ctx, hidden_states, weight, bias, targets, options, implementation, is_summed, is_training
    ):
        ctx.options = (options[0], options[2])
        ctx.grads = None
        if is_summed and is_training and any(ctx.needs_input_grad):
            ctx.grads = _Gradients(hidden_states, weight, bias, ctx.needs_input_grad)
        parts = []
        for chunk in _chunks(hidden_states, weight):
            logits = F.linear(hidden_states[chunk], weight, bias)  # (sentences, canvas, vocab)
            chosen = (None if tensor is None else tensor[chunk] for tensor in targets)
            loss, alignment, path = along_path(implementation, logits, *chosen, *options)
            parts.append((loss, *vars(alignment).values(), *path))
            if ctx.grads is not None:
                one = torch.ones_like(loss)
                grad_logits = along_path_gradient(logits, path, one, *ctx.options, inplace=True)
                ctx.grads.add(chunk, grad_logits, hidden_states, weight)
        loss, *rest = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        ctx.path_type = type(path)
        path = ctx.path_type(*rest[-len(path) :])
        alignment = rest[: -len(path)]
        check_log_probs(path.blank_log_prob, targets[2])
        ctx.save_for_backward(hidden_states, weight, bias, *path)
        ctx.mark_non_differentiable(*alignment)
        ctx.set_materialize_grads(False)
        return (loss.sum() if is_summed else loss, *alignment)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return (None,) * 8
        hidden_states, weight, bias, *path = ctx.saved_tensors
        with torch.no_grad():
            # A second backward pass over a retained graph finds the gradients handed out, and computes them again.
            grads, ctx.grads = ctx.grads, None
            if grads is not None:
                grads.scale(grad_loss)
            else:
                grads = _Gradients(hidden_states, weight, bias, ctx.needs_input_grad)
                grad_loss_each = grad_loss.expand(len(hidden_states))
                for chunk in _chunks(hidden_states, weight):
                    logits = F.linear(hidden_states[chunk], weight, bias)
                    chosen = ctx.path_type(*(tensor[chunk] for tensor in path))
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
        return *results, *(None,) * 5


class _Gradients:
    """Sums up the gradients by hidden states, weight and bias, chunk by chunk."""

    def __init__(self, hidden_states, weight, bias, is_needed):
        def zeros(tensor, needed):
            if not needed or tensor is None:
                return None
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            return torch.zeros(tensor.shape, dtype=dtype, device=tensor.device)

        self.hidden_states = zeros(hidden_states, is_needed[0])
        self.weight = zeros(weight, is_needed[1])
        self.bias = zeros(bias, is_needed[2])

    def add(self, chunk: slice, grad_logits: Tensor, hidden_states: Tensor, weight: Tensor) -> None:
        grad_rows = grad_logits.flatten(0, 1)  # (rows, vocab)
        if self.hidden_states is not None:
            self.hidden_states[chunk] = grad_logits @ weight
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


def _chunks(hidden_states: Tensor, weight: Tensor) -> list[slice]:
    """Slices of whole sentences; one empty slice for an empty batch."""
    batch, canvas, _ = hidden_states.shape
    size = canvas * len(weight) * hidden_states.element_size()
    size = max(1, _chunk_bytes(hidden_states) // max(1, size))
    return [slice(start, start + size) for start in range(0, max(1, batch), size)]


def _chunk_bytes(hidden_states: Tensor) -> int:
    return CHUNK_BYTES_CPU if hidden_states.device.type == "cpu" else CHUNK_BYTES_GPU
