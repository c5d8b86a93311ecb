"""Decode with exported graphs, in ONNX Runtime."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from torch import Tensor, nn

from ..cmlm import CmlmConfig, MaskPredictGenerationConfig
from ..cmlm.generation_cmlm import MaskPredictGenerationMixin
from ..cmlm.modeling_cmlm import AttentionMasks, CmlmEncoderOutput
from .folder import MANIFEST, check_engine


def load_exported(folder: str | Path, *, num_threads: int | None = None) -> "ExportedCmlm":
    """Load what `export_model` or `axe-hf export` wrote, to be decoded with by ONNX Runtime.

    Args:
        folder: the folder, or its name on the Hub.
        num_threads: of the CPU; by default as many as PyTorch uses (`torch.get_num_threads()`,
            OMP_NUM_THREADS). Several Python threads may share what is loaded.

    Returns:
        A model for `translate`, `translate_with_scores` and the pipeline, with `generate`. Its
        tokenizer is loaded by `AutoTokenizer.from_pretrained(folder)`, if one was exported.

    Raises:
        ImportError: onnxruntime is missing.
        ValueError: `folder` holds no exported model.

    Example:
        >>> from axe_hf import translate
        >>> from axe_hf.export import load_exported
        >>> model = load_exported("exported")  # doctest: +SKIP
        >>> translate(model, tokenizer, ["A dog barks."], num_iterations=4)  # doctest: +SKIP
        ['Ein Hund bellt.']
    """
    if not is_exported(folder):
        problem = f"`folder` {folder} holds no exported model: there is no {MANIFEST} in it"
        raise ValueError(f"{problem}. Make one by `axe-hf export MODEL --output-dir DIR`.")
    path = Path(folder)
    if not path.is_dir():
        path = Path(snapshot_download(str(folder)))
    return ExportedCmlm(path, num_threads or torch.get_num_threads())


def is_exported(folder: str | Path) -> bool:
    """Whether a folder, or a name on the Hub, holds what `export_model` writes."""
    path = Path(folder)
    if path.exists():
        return (path / MANIFEST).is_file()
    try:
        return bool(hf_hub_download(str(folder), MANIFEST))
    except (OSError, ValueError):  # no such name, or no connection
        return False


class ExportedCmlm(nn.Module, MaskPredictGenerationMixin):
    """A model whose arithmetic is that of graphs: what `load_exported` returns.

    `generate` takes what that of `CmlmForConditionalGeneration` takes, since it is the same, but
    for `compile` and `use_onednn`; of an encoder's output it reads its own only.
    """

    def __init__(self, folder: Path, num_threads: int):
        super().__init__()
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.is_int8: bool = manifest["int8"]
        self.config = CmlmConfig.from_pretrained(folder)
        self.config._attn_implementation = "sdpa"  # with which some positions can be asked for
        self.generation_config = MaskPredictGenerationConfig.from_pretrained(folder)
        self.loading_problem, self.device, self.dtype = None, torch.device("cpu"), torch.float32
        encoder, decoder, head = (
            _Graph(folder / f"{name}.onnx", num_threads) for name in ("encoder", "decoder", "head")
        )
        # Under the names by which the loop asks for a model's parts.
        self.model: Any = SimpleNamespace(encoder=_Encoder(encoder), decoder=_Decoder(decoder))
        self.lm_head: Any = _Head(head, self.config.vocab_size)
        self.eval()

    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As `CmlmForConditionalGeneration.generate`."""
        check_engine(kwargs if generation_config is None else generation_config.to_dict() | kwargs)
        limit = self.config.max_source_length
        if input_ids is not None and (length := input_ids.shape[-1]) > limit:
            problem = (
                f"`input_ids` has {length} positions but `config.max_source_length` is {limit}"
            )
            raise ValueError(f"{problem}. Truncate the text, or train a model with a larger limit.")
        return super().generate(input_ids, attention_mask, generation_config, **kwargs)

    def train(self, mode: bool = True) -> "ExportedCmlm":
        if mode:
            raise TypeError("Exported graphs cannot be trained: train the model they were made of.")
        return super().train(mode)


class _Graph:
    """A graph, called with tensors by name."""

    def __init__(self, path: Path, num_threads: int):
        try:
            import onnxruntime
        except ImportError as error:
            text = 'Exported models need more packages: pip install "axe-hf[onnx]".'
            raise ImportError(text) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        # Threads that wait for work would keep the next graph's, and PyTorch's, from the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        return [torch.from_numpy(value) for value in self.session.run(None, arrays)]


class _Encoder:
    def __init__(self, graph: _Graph):
        self.graph = graph

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> CmlmEncoderOutput:
        inputs = {"input_ids": input_ids.long(), "attention_mask": attention_mask.long()}
        key_values, length_logits = self.graph(**inputs)
        # (batch, 2 * layers, heads, source, head_dim) as (batch, source, ...), where the loop
        # looks for the source's length.
        states: Any = key_values.movedim(3, 1)
        return CmlmEncoderOutput(last_hidden_state=states, length_logits=length_logits)


class _SourceKeyValues(NamedTuple):
    all_layers: Tensor  # (sentences, 2 * layers, heads, source, head_dim)


class _Decoder:
    def __init__(self, graph: _Graph):
        self.graph = graph

    def project_source(self, source_states: Tensor) -> tuple[_SourceKeyValues]:
        return (_SourceKeyValues(source_states.movedim(1, 3)),)

    def attention_masks(self, is_canvas, is_source, canvas_states, source_states) -> AttentionMasks:
        if is_source is None:
            is_source = torch.ones(source_states.shape[:2], dtype=torch.long)
        return AttentionMasks(is_canvas, is_source)

    def __call__(
        self,
        input_ids: Tensor,
        query_positions: Tensor | None,
        masks: AttentionMasks,
        source_key_values: tuple[_SourceKeyValues],
    ) -> CmlmEncoderOutput:
        (source,) = source_key_values
        if query_positions is None:
            query_positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        by_sentence = (len(source.all_layers), -1)
        (states,) = self.graph(
            canvas=input_ids.unflatten(0, by_sentence),
            query_positions=query_positions.unflatten(0, by_sentence),
            source_key_values=source.all_layers,
            attention_mask=masks.source.long(),  # type: ignore[union-attr]
        )
        return CmlmEncoderOutput(last_hidden_state=states.flatten(0, 1))  # type: ignore[arg-type]


class _Head:
    def __init__(self, graph: _Graph, vocab_size: int):
        self.graph, self.vocab_size = graph, vocab_size

    def column_parts(self) -> list[tuple[int, "_Head"]]:
        """What `TokenPredictor` reads: how many columns, and what gives them."""
        return [(self.vocab_size, self)]

    def __call__(self, states: Tensor) -> Tensor:
        return self.graph(states=states)[0]
