"""Write a model as a folder that `load_exported` reads: ONNX graphs that share their weights."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmForConditionalGeneration, MaskPredictGenerationConfig
from ..cmlm.generation_cmlm import settings_of_call
from ..output import whole_folder
from ..pipeline import own_tokenizer
from ..quantization import fuse_projections
from .int8 import with_int8_weights
from .modules import Exportable, check_model
from .parts import ExportableCanvas, ExportableHead, ExportableSource
from .writing import check_names, check_packages, onnx_program_of

# By this file `load_exported` and the commands know the folder.
MANIFEST = "axe_hf_export.json"
WEIGHTS = "weights.onnx_data"
# Initializers that have fewer bytes stay in the graphs; the others begin at whole pages.
FEW, PAGE = 1024, 4096


def export_model(
    model: CmlmForConditionalGeneration,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    int8: bool = False,
    model_card: str | None = None,
    overwrite: bool = False,
    **generation: Any,
) -> None:
    """Write a model as a folder that `load_exported` reads, all of it or nothing.

    It can be shared, in int8 too, and takes every setting of the decoding. Graphs for programs of
    your own, each a file that stands alone, are written by `export_onnx`.

    The folder holds `encoder.onnx`, `decoder.onnx` and `head.onnx`, which share the weights in
    `weights.onnx_data`; configuration, settings of the decoding, tokenizer and model card. Of the
    default `CmlmConfig`, 62 million parameters, it has 240 MiB, or 66 in int8, and takes a minute
    of one CPU core.

    Args:
        model: the model in float32 and evaluation mode, with attention "sdpa" or "eager".
        folder: where to write; made if there is none.
        tokenizer: saved beside the graphs where given, for `AutoTokenizer.from_pretrained(folder)`.
        int8: whether weights are stored and multiplied as integers: a quarter of the size, and
            faster on a CPU if layers are wide; translations can differ slightly, so score them.
        model_card: Markdown, written to README.md; none by default.
        overwrite: replace files of the same names; other files in `folder` stay either way.
        **generation: settings of `MaskPredictGenerationConfig` in place of the model's own: what a
            call decodes by unless it says something else.

    Raises:
        ImportError: onnx or onnxscript is missing.
        FileExistsError: a file to be written is there already.
        TypeError, ValueError: the model or a setting cannot be exported.

    Example:
        >>> export_model(model, "exported", tokenizer=tokenizer, int8=True)  # doctest: +SKIP
        >>> model = load_exported("exported")  # doctest: +SKIP
        >>> translate(model, tokenizer, ["A dog barks."])  # doctest: +SKIP
        ['Ein Hund bellt.']
    """
    check_packages()
    settings = _settings(model, generation)
    rounded = with_int8_weights(model) if int8 else fuse_projections(model)
    modules: dict[str, Exportable] = {
        "encoder": ExportableSource(rounded),
        "decoder": ExportableCanvas(rounded),
        "head": ExportableHead(rounded),
    }
    folder = Path(folder)
    with whole_folder(folder) as scratch:
        model.config.save_pretrained(scratch)
        settings.save_pretrained(scratch)
        if tokenizer is not None:
            # Without the padding and truncation of its last call, which other readers would obey.
            own_tokenizer(tokenizer).save_pretrained(scratch)
        if model_card is not None:
            (scratch / "README.md").write_text(model_card, encoding="utf-8")
        manifest = {"int8": int8, "graphs": [*modules]} | _versions()
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        graphs = {name: scratch / f"{name}.onnx" for name in modules}
        names = [WEIGHTS, *(path.name for path in [*graphs.values(), *scratch.iterdir()])]
        check_names(folder, names, overwrite)
        weights = _Weights(scratch / WEIGHTS)
        for name, module in modules.items():
            weights.save(onnx_program_of(module), graphs[name])


def check_engine(settings: dict[str, Any]) -> None:
    """Refuse settings that say how PyTorch computes."""
    for name in ("compile", "use_onednn"):
        if settings.get(name):
            problem = f"`{name}` says how PyTorch computes, and graphs run in ONNX Runtime"
            raise ValueError(f"{problem}. Leave it out.")


def _settings(model: Any, generation: dict[str, Any]) -> MaskPredictGenerationConfig:
    """What is saved beside the graphs, once it is sure that a graph can be made."""
    check_model(model)
    if model.dtype != torch.float32:
        got = f"got {model.dtype}"
        raise ValueError(f"`model` must be in float32, {got}. Call model.float() first.")
    if model.loading_problem is not None:
        problem = f"Weights are not those of a checkpoint: {model.loading_problem}"
        raise ValueError(f"{problem}. Load a whole one, or set model.loading_problem = None.")
    check_engine(generation)
    settings = settings_of_call(model.config, model.generation_config, generation)
    settings.update(compile=False, use_onednn=None)
    return settings


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "onnx", "onnxscript")
    return {name: version(name) for name in packages}


class _Weights:
    """A file for the weights of several graphs, in which each is stored once."""

    def __init__(self, file: Path):
        self.file = file
        self.places: dict[bytes, tuple[int, int]] = {}  # offset and length, by digest
        file.touch()

    def save(self, onnx_program: Any, path: Path) -> None:
        """Write a graph whose weights are in the file."""
        import onnx_ir

        model = onnx_program.model
        with self.file.open("ab") as file:
            for name, value in model.graph.initializers.items():
                tensor = value.const_value
                if tensor.nbytes < FEW:
                    continue
                content = tensor.tobytes()
                digest = hashlib.sha256(content).digest()
                if digest not in self.places:
                    file.seek(0, 2)
                    file.write(bytes(-file.tell() % PAGE))
                    self.places[digest] = (file.tell(), file.write(content))
                offset, length = self.places[digest]
                value.const_value = onnx_ir.ExternalTensor(
                    self.file.name,
                    offset,
                    length,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=name,
                    base_dir=self.file.parent,
                )
        onnx_ir.save(model, path)
