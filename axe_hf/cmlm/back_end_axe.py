"""Which code runs the two halves of the AXE loss: plain PyTorch, or Triton kernels on a GPU. The values are the same."""

from __future__ import annotations

import torch
from torch import Tensor

from .alignment_axe import AxeAlignment
from .path_axe import AxePath, axe_along_path, path_gradient

try:
    from axe_hf.kernels import TritonPath, is_triton_available
    from axe_hf.kernels import axe_along_path as triton_along_path
    from axe_hf.kernels import path_gradient as triton_gradient
except ImportError:  # the code of a checkpoint, where axe_hf is not installed
    TritonPath = None

PATH_TYPES = {"AxePath": AxePath, "TritonPath": TritonPath}


def uses_triton(implementation: str, device: torch.device) -> bool:
    """Returns whether the kernels run; `"auto"` takes them on a GPU where Triton is installed."""
    if implementation == "auto":
        return device.type == "cuda" and TritonPath is not None and is_triton_available()
    if implementation == "triton" and TritonPath is None:
        raise ImportError(
            "`implementation='triton'` needs the axe_hf package beside the checkpoint's code. Run "
            "`pip install axe_hf triton`, or leave the choice to implementation='auto'."
        )
    return implementation == "triton"


def path_type(implementation: str, device: torch.device) -> type:
    """Returns the type of the path that `along_path` returns."""
    return TritonPath if uses_triton(implementation, device) else AxePath


def along_path(implementation: str, logits: Tensor, *rest) -> tuple[Tensor, AxeAlignment, tuple]:
    """Returns what `axe_along_path` returns, but for the path, which only `along_path_gradient` understands."""
    if not uses_triton(implementation, logits.device):
        return axe_along_path(logits, *rest)
    loss, alignment, path = triton_along_path(logits, *rest)
    return loss, AxeAlignment(*alignment), path


def along_path_gradient(
    logits: Tensor,
    path: tuple,
    grad_loss: Tensor,
    blank_token_id: int | None,
    label_smoothing: float,
    inplace: bool,
) -> Tensor:
    """Returns the gradient by the logits; see `path_gradient`."""
    gradient = path_gradient if isinstance(path, AxePath) else triton_gradient
    return gradient(logits, path, grad_loss, blank_token_id, label_smoothing, inplace)
