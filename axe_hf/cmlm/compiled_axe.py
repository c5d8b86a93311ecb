"""The two halves of the AXE loss as operators that `torch.compile` calls and does not look into.

Traced, the loop over the target would be unrolled and compiled anew for every length, which takes minutes and
gains nothing: the time is in the softmax. Eager code calls the functions of `back_end_axe.py` directly.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .alignment_axe import AxeAlignment
from .back_end_axe import PATH_TYPES, along_path, along_path_gradient, path_type

# Of its own for every copy of this code, as a checkpoint may bring one: two may not define the same operator.
NAMESPACE = "axe_" + re.sub(r"\W", "_", __name__)


def compiled_axe_along_path(
    implementation: str, logits: Tensor, tokens: Tensor, *rest
) -> tuple[Tensor, AxeAlignment, tuple]:
    """`along_path` for use under `torch.compile`."""
    loss, *tensors = _along_path(implementation, logits.detach(), tokens, *rest)
    path = path_type(implementation, logits.device)(tokens, *tensors[6:])
    return loss, AxeAlignment(*tensors[:6]), path


def compiled_path_gradient(
    logits: Tensor, path: tuple, grad_loss: Tensor, blank_token_id: int, label_smoothing: float
) -> Tensor:
    """`along_path_gradient` for use under `torch.compile`; never in place."""
    return _gradient(
        type(path).__name__, logits, list(path), grad_loss, blank_token_id, label_smoothing
    )


@torch.library.custom_op(
    f"{NAMESPACE}::along_path",
    mutates_args=(),
    schema=(
        "(str implementation, Tensor logits, Tensor tokens, Tensor target_lengths, Tensor? canvas_lengths, "
        "Tensor? observed_mask, int blank_token_id, float delta, float label_smoothing) -> Tensor[]"
    ),
)
def _along_path(implementation, logits, tokens, *rest):
    loss, alignment, path = along_path(implementation, logits, tokens, *rest)
    tensors = (loss, *vars(alignment).values(), *path[1:])
    # an operator's results may share memory neither with its arguments nor with each other
    return [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]


@_along_path.register_fake
def _(implementation, logits, tokens, *rest):
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
    rows, row_flags = ((batch, canvas), dtype), ((batch, canvas), torch.bool)
    path = {
        "position": ((batch, target), torch.long),
        "target_to_position": ((batch, target), torch.long),
        "token_weight": ((batch, target), dtype),
        "token_log_prob": ((batch, target), dtype),
        "is_blank": row_flags,
        "blank_log_prob": rows,
        "uses": rows,
        "row_max": rows,
        "row_log_sum": rows,
    }
    path = [path[name] for name in path_type(implementation, logits.device)._fields[1:]]
    return [
        logits.new_empty(shape, dtype=kind)
        for shape, kind in (((batch,), dtype), *alignment, *path)
    ]


@torch.library.custom_op(
    f"{NAMESPACE}::gradient",
    mutates_args=(),
    schema=(
        "(str path_name, Tensor logits, Tensor[] path, Tensor grad_loss, int blank_token_id, float label_smoothing) "
        "-> Tensor"
    ),
)
def _gradient(path_name, logits, path, grad_loss, blank_token_id, label_smoothing):
    path = PATH_TYPES[path_name](*path)
    return along_path_gradient(logits, path, grad_loss, blank_token_id, label_smoothing, False)


@_gradient.register_fake
def _(path_name, logits, path, grad_loss, blank_token_id, label_smoothing):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
