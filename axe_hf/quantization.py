"""Smaller numbers for faster decoding on a CPU."""

import warnings

import torch
from torch import nn

from .cmlm import CmlmForConditionalGeneration
from .cmlm.modeling_cmlm import check_class


def quantize_int8(model: CmlmForConditionalGeneration) -> CmlmForConditionalGeneration:
    """A copy of the model whose linear layers multiply in int8, for decoding on a CPU.

    Weights are rounded to 8 bits once, states in each layer as they come (dynamic quantization, by
    PyTorch). README's benchmark has it at twice the speed of float32 or a little more for a single
    sentence; translations can differ slightly, so score them. The copy decodes; it is neither
    trained nor saved: keep the model it was made of.

    Args:
        model: a `CmlmForConditionalGeneration` in float32 on a CPU.

    Returns:
        The copy, in evaluation mode.

    Raises:
        TypeError: `model` is something else.
        ValueError: it is on another device or in another type.
        RuntimeError: this PyTorch has no int8 arithmetic for this processor.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, quantize_int8
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config)
        >>> quantize_int8(model).generate(torch.tensor([[7, 8, 9, 1]]), num_iterations=2).shape[0]
        1
    """
    check_class(model)
    if model.device.type != "cpu" or model.dtype != torch.float32:
        problem = f"`model` must be in float32 on a CPU, got {model.dtype} on {model.device}"
        raise ValueError(f'{problem}. Call model.to("cpu", torch.float32) first.')
    if torch.backends.quantized.engine == "none":
        raise RuntimeError("This PyTorch has no int8 arithmetic for this processor.")
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        # PyTorch will move it to torchao, which is a package of its own today.
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        quantized = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    quantized.save_pretrained = _refuse_saving
    return quantized.eval()


def _refuse_saving(*args, **kwargs):
    raise TypeError("What quantize_int8 returns cannot be saved: save the model it was made of.")
