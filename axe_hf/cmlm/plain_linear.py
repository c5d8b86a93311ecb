"""Whether the weight of an output projection may be read instead of calling the module."""

import torch
from torch import nn


def is_plain_linear(module: nn.Module, device: torch.device) -> bool:
    """True for an `nn.Linear` on `device` and nothing more; an adapter, quantized or sharded weights, or a hook would be
    missed by reading the weight."""
    return (
        # A subclass of either may compute something else, or hold a part of the matrix only.
        type(module) is nn.Linear
        and type(module.weight) in (nn.Parameter, torch.Tensor)
        and module.weight.device == device
        and "forward" not in vars(module)  # as accelerate's hooks replace it
        and not (module._forward_hooks or module._forward_pre_hooks)
    )
