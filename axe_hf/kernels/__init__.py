"""Faster back ends: Triton kernels for the AXE loss, oneDNN for linear layers on a CPU.

They give the values of the PyTorch code in `axe_hf.cmlm`. Importing this package does not import
Triton; calling what is in it does.
"""

from .along_path import (
    TritonPath,
    align_log_probs,
    axe_along_path,
    is_triton_available,
    path_gradient,
)
from .onednn import OneDnnLinear

__all__ = [
    "OneDnnLinear",
    "TritonPath",
    "align_log_probs",
    "axe_along_path",
    "is_triton_available",
    "path_gradient",
]
