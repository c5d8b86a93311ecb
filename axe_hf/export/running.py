"""Decode with exported graphs, in ONNX Runtime."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..cmlm import CmlmConfig, MaskPredictGenerationConfig
from ..cmlm.generation_cmlm import MaskPredictGenerationMixin
from ..cmlm.modeling_cmlm import AttentionMasks, CmlmEncoderOutput
from .writing import MANIFEST


class ExportedCmlm(nn.Module, MaskPredictGenerationMixin):
    """A model whose arithmetic is that of graphs; what `load_exported` returns.

    `generate` takes and returns what `CmlmForConditionalGeneration.generate` does.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], num_threads: int):
        super().__init__()
        self.manifest = manifest
        self.config = CmlmConfig.from_pretrained(folder)
        self.config._attn_implementation = "sdpa"  # whose masks and query positions the graphs take
        self.generation_config = MaskPredictGenerationConfig.from_pretrained(folder)
        self.loading_problem, self.device, self.dtype = None, torch.device("cpu"), torch.float32
        graphs = {name: _Graph(folder / f"{name}.onnx", num_threads) for name in _GRAPHS}
        # Not as submodules: the mixin asks for a model's parts by these names.
        self.model: Any = SimpleNamespace(
            encoder=_Encoder(graphs["encoder"]), decoder=_Decoder(graphs["decoder"])
        )
        self.lm_head: Any = _Head(graphs["head"], self.config.vocab_size)
        self.eval()


_GRAPHS = ("encoder", "decoder", "head")


def load_exported(folder: str | Path, *, num_threads: int | None = None) -> ExportedCmlm:
    folder = Path(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return ExportedCmlm(folder, manifest, num_threads or torch.get_num_threads())


class _Graph:
    """A graph, called with tensors."""

    def __init__(self, path: Path, num_threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        return [torch.from_numpy(value) for value in self.session.run(None, arrays)]


class _Encoder:
    def __init__(self, graph: _Graph):
        self.graph = graph

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> CmlmEncoderOutput:
        key_values, length_logits = self.graph(
            input_ids=input_ids, attention_mask=attention_mask.long()
        )
        # (batch, 2 * layers, heads, source, head_dim), with the source where others have it
        return CmlmEncoderOutput(
            last_hidden_state=key_values.movedim(3, 1), length_logits=length_logits
        )


class _Source(NamedTuple):
    key_values: Tensor  # (sentences, 2 * layers, heads, source, head_dim)


class _Decoder:
    def __init__(self, graph: _Graph):
        self.graph = graph

    def project_source(self, states: Tensor) -> tuple[_Source]:
        return (_Source(states.movedim(1, 3)),)

    def attention_masks(self, is_canvas, is_source, canvas_states, source_states) -> AttentionMasks:
        if is_source is None:
            is_source = torch.ones(source_states.shape[:2], dtype=torch.long)
        return AttentionMasks(is_canvas, is_source)

    def __call__(self, input_ids, query_positions, masks, source_key_values) -> CmlmEncoderOutput:
        (source,) = source_key_values
        shape = (len(source.key_values), -1)
        if query_positions is None:
            query_positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        (states,) = self.graph(
            canvas=input_ids.unflatten(0, shape),
            query_positions=query_positions.unflatten(0, shape),
            source_key_values=source.key_values,
            attention_mask=masks.source.long(),
        )
        return CmlmEncoderOutput(last_hidden_state=states.flatten(0, 1))


class _Head:
    def __init__(self, graph: _Graph, vocab_size: int):
        self.graph, self.vocab_size = graph, vocab_size

    def column_parts(self) -> list[tuple[int, Any]]:
        return [(self.vocab_size, self)]

    def __call__(self, states: Tensor) -> Tensor:
        return self.graph(states=states)[0]
