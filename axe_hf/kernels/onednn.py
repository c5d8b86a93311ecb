"""Linear layers in float32 on a CPU, by oneDNN in place of the BLAS PyTorch was built with.

PyTorch hands them to MKL, which takes twice the time on AMD processors. (In bfloat16 it takes
oneDNN by itself.)
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# With fewer rows the weights' way to oneDNN's layout costs more than it saves.
MIN_ROWS = 16


class OneDnnLinear(TorchFunctionMode):
    """While it is active, oneDNN computes `F.linear` of float32 tensors on a CPU.

    Results differ by rounding only. For inference: a result carries no gradient.

    Example:
        >>> import torch
        >>> from axe_hf.kernels.onednn import OneDnnLinear
        >>> layer, states = torch.nn.Linear(8, 4), torch.randn(2, 16, 8)
        >>> with torch.no_grad(), OneDnnLinear():
        ...     output = layer(states)
        >>> torch.allclose(output, layer(states), atol=1e-5)
        True
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and _fits(*args):
            states, weight, *bias = args
            rows = states.flatten(0, -2)  # (rows, features)
            if missing := _rounded_up(num_rows := len(rows)) - num_rows:
                rows = F.pad(rows, (0, 0, 0, missing))
            bias = bias[0] if bias else None
            output = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
            return output[:num_rows].unflatten(0, states.shape[:-1])
        return func(*args, **(kwargs or {}))


def _rounded_up(num_rows: int) -> int:
    """One of eight numbers between two powers of two, at most an eighth more."""
    # oneDNN keeps code for each shape: 1,200 in four layers took 1.5 GB; rounded, 110 MB.
    step = max(MIN_ROWS, 2 ** (num_rows.bit_length() - 1) // 8)
    return -(-num_rows // step) * step


def _fits(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    tensors = (states, weight) if bias is None else (states, weight, bias)
    plain = (torch.float32, torch.strided, "cpu")
    is_plain = all((t.dtype, t.layout, t.device.type) == plain for t in tensors)
    is_plain &= {*map(type, tensors)} <= {torch.Tensor, torch.nn.Parameter}
    has_rows = states.shape[-1] > 0 and states.numel() // states.shape[-1] >= MIN_ROWS
    # Autocast has no rule for oneDNN's layout.
    is_free = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return is_plain and has_rows and is_free


def linear_on_cpu(
    use_onednn: bool | None, device: torch.device, dtype: torch.dtype
) -> AbstractContextManager:
    """The context in which a model of `dtype` on `device` decodes; None takes oneDNN where it pays.
    ValueError if it is asked for and cannot be had."""
    wrong = None if device.type == "cpu" and dtype == torch.float32 else f"in {dtype} on {device}"
    if not torch.backends.mkldnn.is_available():
        wrong = "in a PyTorch built without oneDNN"
    if use_onednn and wrong:
        text = f"`use_onednn=True` is for float32 on CPUs; the model is {wrong}"
        raise ValueError(f"{text}. Leave it to None.")
    is_wanted = is_amd_processor() if use_onednn is None else use_onednn
    return OneDnnLinear() if is_wanted and not wrong else nullcontext()


@lru_cache
def is_amd_processor() -> bool:
    """Whether the processor says that it is made by AMD."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8", "replace") if cpuinfo.exists() else ""
    return "AuthenticAMD" in (text or platform.processor())
