"""A model whose ONNX graphs multiply in int8."""

import torch
from torch import Tensor, nn
from torch.onnx import ops

from ..cmlm import CmlmForConditionalGeneration
from ..quantization import fuse_projections

# Two products of 8 bits overflow the 16 that processors without VNNI add them in: weights have 7.
LARGEST = 63


def with_int8_weights(model: CmlmForConditionalGeneration) -> CmlmForConditionalGeneration:
    """A copy for `torch.onnx.export`; PyTorch itself does not know how to run it.

    Weights are rounded once, with a scale for each output, embeddings with one for each token;
    states when the graph runs, with one scale for all that is multiplied at once.
    """
    rounded = fuse_projections(model)
    known: dict[int, Int8Columns] = {}  # what is tied stays one

    def columns(weight: Tensor) -> Int8Columns:
        return known.setdefault(id(weight), Int8Columns(weight))

    with torch.no_grad():
        for module in [*rounded.modules()]:
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    setattr(module, name, Int8Linear(columns(child.weight), child.bias))
                elif name == "embed_tokens":
                    setattr(module, name, Int8Embedding(columns(child.weight)))
    return rounded


class Int8Columns(nn.Module):
    """`weight` (outputs, inputs) fp32 as integers, transposed, with a scale for each output."""

    def __init__(self, weight: Tensor):
        super().__init__()
        largest = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
        self.register_buffer("scales", largest / LARGEST)
        numbers = (weight / self.scales[:, None]).round().to(torch.int8)
        self.register_buffer("numbers", numbers.T.contiguous())  # (inputs, outputs)


class Int8Embedding(nn.Module):
    """Looks columns up, so that embeddings and output projection are stored once."""

    def __init__(self, columns: Int8Columns):
        super().__init__()
        self.columns = columns

    def forward(self, ids: Tensor) -> Tensor:
        found = self.columns.numbers.index_select(1, ids.flatten()).T  # (tokens, d_model)
        scales = self.columns.scales[ids][..., None]
        return found.unflatten(0, ids.shape).to(scales.dtype) * scales


class Int8Linear(nn.Module):
    """A linear layer."""

    def __init__(self, columns: Int8Columns, bias: Tensor | None):
        super().__init__()
        self.columns, self.bias = columns, bias

    def forward(self, states: Tensor) -> Tensor:
        return _linear(states, self.columns.numbers, self.columns.scales, self.bias)


def _linear(states: Tensor, columns: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`states` (..., inputs) times `columns` (inputs, outputs): the nodes that ONNX Runtime joins
    into one."""
    shape = (*states.shape[:-1], columns.shape[1])
    whole, scale, zero = ops.symbolic_multi_out(
        "DynamicQuantizeLinear",
        (states,),
        dtypes=(torch.uint8, torch.float32, torch.uint8),
        shapes=(states.shape, (), ()),
    )
    factors = (whole, columns, zero)
    product = ops.symbolic("MatMulInteger", factors, dtype=torch.int32, shape=shape)
    states = product.to(torch.float32) * (scale * scales)
    return states if bias is None else states + bias
