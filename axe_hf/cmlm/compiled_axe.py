"""The two halves of the AXE loss as operators that `torch.compile` calls and does not look into.

Traced, the loop over the target would be unrolled and compiled anew for every length, which takes minutes and
gains nothing: the time is in the softmax. Eager code calls the functions of `path_axe.py` directly.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .alignment_axe import AxeAlignment
from .path_axe import AxePath, axe_along_path, path_gradient

# Of its own for every copy of this code, as a checkpoint may bring one: two may not define the same operator.
NAMESPACE = "axe_" + re.sub(r"\W", "_", __name__)


def compiled_axe_along_path(
    logits: Tensor, tokens: Tensor, *rest
) -> tuple[Tensor, AxeAlignment, AxePath]:
    """`axe_along_path` for use under `torch.compile`."""
    loss, *tensors = _along_path(logits.detach(), tokens, *rest)
    return loss, AxeAlignment(*tensors[:6]), AxePath(tokens, *tensors[6:])


def compiled_path_gradient(
    logits: Tensor, path: AxePath, grad_loss: Tensor, blank_token_id: int, label_smoothing: float
) -> Tensor:
    """`path_gradient` for use under `torch.compile`; never in place."""
    return _gradient(logits, list(path), grad_loss, blank_token_id, label_smoothing)


@torch.library.custom_op(
    f"{NAMESPACE}::along_path",
    mutates_args=(),
    schema=(
        "(Tensor logits, Tensor tokens, Tensor target_lengths, Tensor? canvas_lengths, Tensor? observed_mask, "
        "int blank_token_id, float delta, float label_smoothing) -> Tensor[]"
    ),
)
def _along_path(logits, tokens, *rest):
    loss, alignment, path = axe_along_path(logits, tokens, *rest)
    tensors = (loss, *vars(alignment).values(), *path[1:])
    # an operator's results may share memory neither with its arguments nor with each other
    return [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]


@_along_path.register_fake
def _(logits, tokens, *rest):
    batch, canvas, _ = logits.shape
    target = tokens.shape[1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    alignment = (
        ((batch, target), torch.long),
        ((batch, target), torch.bool),
        ((batch, canvas), torch.long),
        ((batch,), torch.long),
        ((batch,), torch.long),
        ((batch,), dtype),
    )
    path = (
        ((batch, target), torch.long),
        ((batch, target), dtype),
        ((batch, target), dtype),
        ((batch, canvas), torch.bool),
        ((batch, canvas), dtype),
        ((batch, canvas), dtype),
    )
    return [
        logits.new_empty(shape, dtype=kind)
        for shape, kind in (((batch,), dtype), *alignment, *path)
    ]


@torch.library.custom_op(
    f"{NAMESPACE}::gradient",
    mutates_args=(),
    schema="(Tensor logits, Tensor[] path, Tensor grad_loss, int blank_token_id, float label_smoothing) -> Tensor",
)
def _gradient(logits, path, grad_loss, blank_token_id, label_smoothing):
    return path_gradient(
        logits, AxePath(*path), grad_loss, blank_token_id, label_smoothing, inplace=False
    )


@_gradient.register_fake
def _(logits, path, grad_loss, blank_token_id, label_smoothing):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
