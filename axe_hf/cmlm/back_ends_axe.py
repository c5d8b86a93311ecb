"""Who computes a loss along a path, plain PyTorch or Triton kernels, and how autograd sees it.

A back end is two functions: the loss along the path, and its gradient by the logits. Under
`torch.compile` both become operators that are called and not looked into: traced, the loop over the
target would be unrolled and compiled anew for every length, which takes minutes and gains nothing,
as the time is in the softmax.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .alignment_axe import AxeAlignment, AxeOptions, AxeTargets, ExpectedSkips
from .path_axe import (
    AxePath,
    FamilyPath,
    PathLoss,
    alignment_type,
    axe_along_path,
    family_along_path,
    family_gradient,
    path_gradient,
)

try:
    from axe_hf import kernels
except ImportError:  # the code of a checkpoint, where axe_hf is not installed
    kernels = None  # type: ignore[assignment]

IMPLEMENTATIONS = ("auto", "torch", "triton")
ALIGNMENT_FIELDS = tuple(field.name for field in fields(AxeAlignment))
# What a compiled loss hands on, by name: PyTorch 2.11 cannot trace vars() of a frozen dataclass.
_TARGET_FIELDS = tuple(field.name for field in fields(AxeTargets))
_OPTION_FIELDS = tuple(field.name for field in fields(AxeOptions))


@dataclass(frozen=True)
class BackEnd:
    """One way to compute; the values are the same."""

    name: str
    along_path: Callable[[Tensor, AxeTargets, AxeOptions], PathLoss]
    path_gradient: Callable[..., Tensor]  # as `path_axe.path_gradient`, for those paths
    path_type: type  # of those paths, a NamedTuple of tensors


TORCH = BackEnd("torch", axe_along_path, path_gradient, AxePath)
FAMILY = BackEnd("family", family_along_path, family_gradient, FamilyPath)


def back_end(implementation: str, options: AxeOptions, device: torch.device) -> BackEnd:
    """Returns who computes a loss: `"auto"` is Triton for the paper's AXE on an NVIDIA GPU.

    There it was 11 to 16 times faster (examples/benchmarks/README.md). It is PyTorch elsewhere.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}."
        )
    has_triton = device.type == "cuda" and kernels is not None and kernels.is_triton_available()
    if implementation == "auto" and options.is_paper and has_triton and torch.version.cuda:
        return _named("triton")
    if implementation != "triton":
        return TORCH if options.is_paper else FAMILY
    if not options.is_paper:
        raise ValueError(
            "`implementation='triton'` knows the paper's AXE only: neither `allow_repetition`, nor "
            "`temperature`, nor an infinite `delta`. Leave the choice to implementation='auto'."
        )
    if kernels is None:
        raise ImportError(
            "`implementation='triton'` needs the axe_hf package beside the checkpoint's code. Run "
            "`pip install axe_hf triton`, or leave the choice to implementation='auto'."
        )
    return _named("triton")


def _named(name: str) -> BackEnd:
    if name == "triton":
        return BackEnd(name, _triton_along_path, kernels.path_gradient, kernels.TritonPath)
    return FAMILY if name == FAMILY.name else TORCH


def _triton_along_path(logits: Tensor, targets: AxeTargets, options: AxeOptions) -> PathLoss:
    loss, alignment, path = kernels.axe_along_path(logits, targets, options)
    return PathLoss(loss, AxeAlignment(**alignment), path)


def differentiable_along_path(
    logits: Tensor,
    targets: AxeTargets,
    options: AxeOptions,
    implementation: str,
    inplace_backward: bool,
) -> PathLoss:
    """Returns the loss per sentence, whose gradient goes to the logits, and the path."""
    chosen = back_end(implementation, options, logits.device)
    if torch.compiler.is_compiling():
        inputs = [getattr(targets, name) for name in _TARGET_FIELDS]
        inputs += [getattr(options, name) for name in _OPTION_FIELDS]
        loss, alignment, path = _along_path_operator(chosen.name, logits.detach(), *inputs)
        result = PathLoss(loss, alignment_type(options)(*alignment), chosen.path_type(*path))
    else:
        result = chosen.along_path(logits, targets, options)
    return with_gradient(logits, result, options, chosen, inplace_backward)


def with_gradient(
    logits: Tensor, result: PathLoss, options: AxeOptions, chosen: BackEnd, inplace: bool = False
) -> PathLoss:
    """Ties a loss along a path to the logits that it was computed from."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return result
    loss = _AlongPath.apply(logits, result.loss, options, chosen.name, inplace, *result.path)
    return result._replace(loss=loss)


class _AlongPath(torch.autograd.Function):
    """Passes on a loss along a path; a first derivative in one pass over the logits, no second."""

    @staticmethod
    def forward(ctx, logits, loss, options, implementation, inplace, *path):
        ctx.save_for_backward(logits, *path)
        ctx.options, ctx.implementation, ctx.inplace = options, implementation, inplace
        return loss.clone()

    @staticmethod
    def backward(ctx, grad_loss):
        logits, *tensors = ctx.saved_tensors
        none = (None,) * (4 + len(tensors))
        chosen = _named(ctx.implementation)
        if torch.compiler.is_compiling():
            how = (ctx.options.blank_token_id, ctx.options.label_smoothing)
            return _compiled_gradient(chosen.name, logits, tensors, grad_loss, *how), *none
        check_single(grad_loss)
        path = chosen.path_type(*tensors)
        grad = chosen.path_gradient(logits, path, grad_loss, ctx.options, ctx.inplace)
        if torch.is_grad_enabled():
            grad = RefuseSecondDerivative.apply(grad, logits, grad_loss)
        return grad, *none


def check_single(grad_loss: Tensor) -> None:
    """Refuses the batch of gradients that autograd makes one tensor of."""
    if torch._C._functorch.is_legacy_batchedtensor(grad_loss):
        advice = "call torch.autograd.grad for each, without is_grads_batched=True"
        raise RuntimeError(f"The losses of axe_hf take one gradient at a time: {advice}.")


class RefuseSecondDerivative(torch.autograd.Function):
    """Passes on a gradient and refuses to be differentiated."""

    @staticmethod
    def forward(ctx, grad, *differentiable):
        return grad

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "The losses of axe_hf have a first derivative only, but a gradient was differentiated. "
            "Leave out create_graph=True, or use axe_hf.axe_loss_definition, which can be "
            "differentiated twice and is slow."
        )


# Under torch.compile: operators take and return tensors and plain numbers only. Of its own for
# every copy of this code, as a checkpoint may bring one: two may not define the same operator.
NAMESPACE = "axe_" + re.sub(r"\W", "_", __name__)


@torch.library.custom_op(
    f"{NAMESPACE}::along_path",
    mutates_args=(),
    schema="(str implementation, Tensor logits, Tensor tokens, Tensor target_lengths, "
    "Tensor? canvas_lengths, Tensor? observed_mask, Tensor? observed_tokens, int blank_token_id, "
    "float delta, float label_smoothing, bool allow_repetition, float temperature, "
    "bool with_alignment) -> (Tensor, Tensor[], Tensor[])",
)
def _along_path_operator(implementation, logits, *inputs):
    num_targets = len(_TARGET_FIELDS)
    targets, options = AxeTargets(*inputs[:num_targets]), AxeOptions(*inputs[num_targets:])
    loss, alignment, path = _named(implementation).along_path(logits, targets, options)

    # an operator's results may share memory neither with its arguments nor with each other
    def copies(tensors):
        return [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]

    return loss.clone(), copies(vars(alignment).values()), copies(path)


@_along_path_operator.register_fake
def _(implementation, logits, *inputs):
    batch, canvas, _ = logits.shape
    num_targets = len(_TARGET_FIELDS)
    tokens, options = inputs[0], AxeOptions(*inputs[num_targets:])
    target, dtype = tokens.shape[1], torch.promote_types(logits.dtype, torch.float32)
    per_target, per_position = (batch, target), (batch, canvas)
    kinds = {
        **dict.fromkeys(("tokens", "position", "target_to_position"), (per_target, torch.long)),
        **dict.fromkeys(("token_weight", "token_log_prob"), (per_target, dtype)),
        "is_aligned": (per_target, torch.bool),
        "position_to_target": (per_position, torch.long),
        "is_blank": (per_position, torch.bool),
        **dict.fromkeys(
            ("blank_log_prob", "uses", "row_max", "row_log_sum"), (per_position, dtype)
        ),
        **dict.fromkeys(("num_skipped_targets", "num_skipped_predictions"), (batch, torch.long)),
        **dict.fromkeys(("loss", "cost"), (batch, dtype)),
    }
    names = ALIGNMENT_FIELDS
    if implementation == FAMILY.name:
        kinds["tokens"] = ((batch, target + 1), torch.long)
        kinds["entries"] = ((batch, canvas, target + 1), dtype)
    if (kind := alignment_type(options)) is ExpectedSkips:
        names = tuple(field.name for field in fields(kind))
        kinds |= dict.fromkeys(names, (batch, dtype))

    def new(names):  # each tensor its own, in alignment and path alike
        return [logits.new_empty(kinds[name][0], dtype=kinds[name][1]) for name in names]

    path_fields = _named(implementation).path_type._fields
    return *new(["loss"]), new(names), new(path_fields)


@torch.library.custom_op(
    f"{NAMESPACE}::gradient",
    mutates_args=(),
    schema="(str implementation, Tensor logits, Tensor[] path, Tensor grad_loss, "
    "int blank_token_id, float label_smoothing) -> Tensor",
)
def _compiled_gradient(implementation, logits, path, grad_loss, blank_token_id, label_smoothing):
    chosen, options = _named(implementation), AxeOptions(blank_token_id, 0.0, label_smoothing)
    return chosen.path_gradient(logits, chosen.path_type(*path), grad_loss, options, False)


@_compiled_gradient.register_fake
def _(implementation, logits, path, grad_loss, blank_token_id, label_smoothing):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
