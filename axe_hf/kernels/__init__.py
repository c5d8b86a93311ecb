"""Triton kernels for the AXE loss, with the values of the PyTorch code in `axe_hf.cmlm`.

Importing this package does not import Triton; calling what is in it does.
"""

from .along_path import (
    TritonPath,
    align_log_probs,
    axe_along_path,
    is_triton_available,
    path_gradient,
)

__all__ = [
    "TritonPath",
    "align_log_probs",
    "axe_along_path",
    "is_triton_available",
    "path_gradient",
]
