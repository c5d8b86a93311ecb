"""Smaller numbers for faster decoding on a CPU."""

import copy
import warnings

import torch
from torch import Tensor, nn

from .cmlm import CmlmForConditionalGeneration
from .cmlm.fused_loss_axe import is_plain_linear
from .cmlm.mask_predict import MAX_COLUMNS_CPU
from .cmlm.modeling_cmlm import CmlmAttention, KeyValues, check_class


def quantize_int8(model: CmlmForConditionalGeneration) -> CmlmForConditionalGeneration:
    """A copy of the model whose linear layers multiply in int8, for decoding on a CPU.

    Weights are rounded to 8 bits once, with a scale for each output, states in each layer as they
    come (dynamic quantization, by PyTorch); queries, keys and values are one multiplication.
    README's benchmark has it at twice the speed of float32 or a little more for a single sentence;
    translations can differ slightly, so score them. The copy decodes; it is neither trained nor
    saved: keep the model it was made of. Its arithmetic is `torch.ao`'s and will go when PyTorch
    drops that.

    What can be saved and shared is what `axe-hf export --int8` and `export_model` write. Of 6 + 6
    layers of width 512 that was faster, too, of 2 + 2 of 192 slower (examples/benchmarks).

    Args:
        model: a `CmlmForConditionalGeneration` in float32 on a CPU.

    Returns:
        The copy, in evaluation mode.

    Raises:
        TypeError: `model` is something else.
        ValueError: it is on another device, in another type, or quantized already.
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
    quantized = fuse_projections(model)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch will move it to torchao, which is a package of its own today.
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        for module in [*quantized.modules()]:
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    kind = _Int8Head if child is quantized.lm_head else Int8Linear
                    setattr(module, name, kind(child.weight, child.bias))
    quantized.generation_config.use_onednn = False  # that would be for float32
    quantized.save_pretrained = quantized.push_to_hub = _refuse_saving
    return quantized.eval()


@torch.no_grad()
def fuse_projections(model: CmlmForConditionalGeneration) -> CmlmForConditionalGeneration:
    """A copy in which queries, keys and values are one multiplication, so that the states are read
    and rounded once; its values are the same."""
    if getattr(model, "hf_quantizer", None) is not None:
        problem = "`model` was quantized already when it was loaded"
        raise ValueError(f"{problem}. Load what that was made of, without `quantization_config`.")
    fused = copy.deepcopy(model)
    for module in [*fused.modules()]:
        if type(module) is CmlmAttention:
            _fuse(module)
    return fused


class Int8Linear(nn.Module):
    """A linear layer whose weights were rounded to int8, with a scale of its own for each output.

    Args:
        weight: (outputs, inputs) fp32.
        bias: (outputs,) fp32 or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
        zeros = torch.zeros_like(scales, dtype=torch.long)
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        # PyTorch's own layout, chosen for the processor.
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, states: Tensor) -> Tensor:
        # In 7 bits: two products of 8 overflow the 16 that processors without VNNI add them in.
        return torch.ops.quantized.linear_dynamic.default(states, self.packed, True)


class _Int8Head(nn.Module):
    """The output projection in parts, so that logits are still in a core's cache when read."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.sizes = [len(part) for part in weight.split(MAX_COLUMNS_CPU)]
        biases = [None] * len(self.sizes) if bias is None else bias.split(MAX_COLUMNS_CPU)
        pairs = zip(weight.split(MAX_COLUMNS_CPU), biases, strict=True)
        self.parts = nn.ModuleList(Int8Linear(*pair) for pair in pairs)

    def column_parts(self) -> list[tuple[int, nn.Module]]:
        """What `TokenPredictor` reads: how many columns, and what gives them."""
        return [*zip(self.sizes, self.parts, strict=True)]

    def forward(self, states: Tensor) -> Tensor:
        return torch.cat([part(states) for part in self.parts], dim=-1)


class _FusedAttention(CmlmAttention):
    """With one multiplication for queries, keys and values: the states are rounded once."""

    def project_key_values(self, states: Tensor) -> KeyValues:
        return KeyValues(*map(self._split_heads, self.kv_proj(states).chunk(2, dim=-1)))

    def project(self, states: Tensor) -> tuple[Tensor, KeyValues]:
        queries, *others = map(self._split_heads, self.qkv_proj(states).chunk(3, dim=-1))
        return queries, KeyValues(*others)


def _fuse(attention: CmlmAttention) -> None:
    """Make it a `_FusedAttention`, in place, unless an adapter or a hook stands in the way."""
    queries, keys, values = layers = attention.q_proj, attention.k_proj, attention.v_proj
    if not all(is_plain_linear(layer, layer.weight.device) for layer in layers):
        return
    attention.kv_proj = _side_by_side(keys, values)
    attention.qkv_proj = _side_by_side(queries, keys, values)
    del attention.k_proj, attention.v_proj
    attention.__class__ = _FusedAttention


def _side_by_side(*layers: nn.Linear) -> nn.Linear:
    """One layer with the outputs of all `layers`, which read the same."""
    weight = torch.cat([layer.weight for layer in layers])
    fused = nn.Linear(weight.shape[1], len(weight), device="meta")
    fused.weight = nn.Parameter(weight)
    fused.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))
    return fused


def _refuse_saving(*args, **kwargs):
    raise TypeError("What quantize_int8 returns cannot be saved: save the model it was made of.")
