"""The systems of `decoding.py` by engine: ours, by PyTorch, ONNX Runtime and torchao, and the same
sizes in Transformers and CTranslate2."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from decoding_cases import (
    END,
    MARIAN,
    Size,
    System,
    autoregressive,
    cmlm_system,
    make_cmlm,
    make_marian,
    marian_in_int8,
)
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TorchAoConfig
from transformers.utils.logging import disable_progress_bar

from axe_hf import CmlmForConditionalGeneration, export_model, load_exported, quantize_int8

CTRANSLATE2, ONNX_RUNTIME, TORCHAO = "CTranslate2", "ONNX Runtime", "torchao"


@dataclass(frozen=True)
class Grid:
    """What of each engine is measured."""

    size: Size
    precisions: tuple[str, ...]
    device: str
    threads: int
    layers: tuple[str, ...]
    canvases: tuple[float, ...]
    num_iterations: tuple[int, ...]
    is_compiled: bool
    folder: Path  # of models that are read from files

    def depths(self) -> dict[str, tuple[int, int]]:
        return {name: self.size.depths()[name] for name in self.layers}


def of_transformers(grid: Grid) -> Iterator[System]:
    """Greedy Marian of as many decoder as encoder layers, with its key-value cache."""
    for precision in grid.precisions:
        torch.manual_seed(0)
        model = make_marian(grid.size, grid.size.layers, grid.size.layers)
        if precision == "int8":
            model = marian_in_int8(model)
        else:
            model = model.to(device=grid.device, dtype=getattr(torch, precision))
        decode = partial(autoregressive, model, 1, grid.size.length)
        yield System(MARIAN, next(iter(grid.size.depths())), precision, decode, beams=1)


def of_ours(grid: Grid) -> Iterator[System]:
    """Every canvas at T = 1; some of the rest: see `is_taken`."""
    for layers, numbers in grid.depths().items():
        torch.manual_seed(0)
        model = make_cmlm(grid.size, *numbers)
        for precision in grid.precisions:
            own = quantize_int8(model) if precision == "int8" else model
            if precision != "int8":
                own = model.to(device=grid.device, dtype=getattr(torch, precision))
            make = partial(cmlm_system, own, layers, precision, length=grid.size.length)
            for canvas in grid.canvases:
                for T in grid.num_iterations:
                    if is_taken(grid, layers, canvas, T):
                        yield make(canvas=canvas, num_iterations=T)
                        if grid.is_compiled and precision != "int8":
                            yield make(canvas=canvas, num_iterations=T, compile=True)
            if layers == grid.layers[0] and precision != "int8":
                yield make(num_iterations=1, num_candidates=5)


def is_taken(grid: Grid, layers: str, canvas: float, num_iterations: int) -> bool:
    """Many passes on the shortest canvas only; of shallow decoders no canvas in between."""
    ends = (min(grid.canvases), max(grid.canvases))
    is_many = num_iterations > 4
    if layers != grid.layers[0]:
        return canvas in ends and not is_many
    return canvas == ends[0] or not is_many


def of_ctranslate2(grid: Grid) -> Iterator[System]:
    """Marian as CTranslate2 runs it, greedy, and with 5 beams but for the depths in between.

    It chooses its own BLAS: MKL on Intel, oneDNN elsewhere; on an AMD processor MKL (by
    CT2_USE_MKL=1) was slower.
    """
    import ctranslate2

    names = token_names(grid.size)
    for layers, numbers in grid.depths().items():
        folder = grid.folder / f"ctranslate2-{layers}"
        if not folder.exists():
            torch.manual_seed(0)
            write_marian(grid.size, numbers, folder)
        for precision in grid.precisions:
            settings = {"compute_type": precision, "intra_threads": grid.threads}
            translator = ctranslate2.Translator(str(folder), device=grid.device, **settings)
            is_end = layers in (grid.layers[0], grid.layers[-1])
            for beams in (1, 5) if is_end else (1,):
                decode = partial(through_ctranslate2, translator, names, beams, grid.size.length)
                yield System(CTRANSLATE2, layers, precision, decode, beams=beams)


def token_names(size: Size) -> list[str]:
    """One for each id of `make_marian`."""
    names = [f"t{i}" for i in range(size.vocab)] + ["<pad>"]
    names[0], names[END] = "<unk>", "</s>"
    return names


def write_marian(size: Size, numbers: tuple[int, int], folder: Path) -> None:
    """A model of `make_marian`, as CTranslate2 reads it."""
    convert(make_marian(size, *numbers), token_names(size), folder)


def convert(model: PreTrainedModel, names: list[str], folder: Path) -> None:
    """Converts a Marian model by CTranslate2's own tool; its tokens are called `names`."""
    from ctranslate2.converters import TransformersConverter

    source = folder.with_suffix(".transformers")
    disable_progress_bar()
    model.save_pretrained(source)
    words = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(source)
    TransformersConverter(str(source)).convert(str(folder))


def through_ctranslate2(
    translator, names: list[str], beams: int, length: int, sources: Tensor, mask: Tensor
) -> list[list[str]]:
    """Exactly `length` new tokens."""
    texts = [[names[i] for i in row] for row in sources.tolist()]
    bounds = {"min_decoding_length": length, "max_decoding_length": length}
    results = translator.translate_batch(texts, beam_size=beams, **bounds)
    tokens = [result.hypotheses[0] for result in results]
    if any(len(row) != length for row in tokens):
        raise RuntimeError(f"CTranslate2 made {[len(row) for row in tokens]} tokens, not {length}.")
    return tokens


def of_onnx_runtime(grid: Grid) -> Iterator[System]:
    """Ours as `load_exported` decodes, of as many decoder as encoder layers."""
    layers, numbers = next(iter(grid.depths().items()))
    for precision in ("float32", "int8"):
        if precision in grid.precisions:
            folder = grid.folder / f"{layers}-{precision}"
            if not folder.exists():
                torch.manual_seed(0)
                export_model(make_cmlm(grid.size, *numbers), folder, int8=precision == "int8")
            model = load_exported(folder, num_threads=grid.threads)
            yield from some_of_ours(grid, model, precision, ONNX_RUNTIME)


def of_torchao(grid: Grid) -> Iterator[System]:
    """Ours from a checkpoint in torchao's int8, of as many decoder as encoder layers."""
    if "int8" not in grid.precisions:
        return
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    layers, numbers = next(iter(grid.depths().items()))
    folder = grid.folder / f"{layers}-torchao"
    if not folder.exists():
        torch.manual_seed(0)
        make_cmlm(grid.size, *numbers).save_pretrained(folder)
    how = TorchAoConfig(Int8DynamicActivationInt8WeightConfig())
    model = CmlmForConditionalGeneration.from_pretrained(folder, quantization_config=how)
    yield from some_of_ours(grid, model.to(grid.device), "int8", TORCHAO)


def some_of_ours(grid: Grid, model, precision: str, engine: str) -> Iterator[System]:
    """T = 1 on the shortest and the longest canvas, T = 4 on the shortest."""
    shortest, longest = min(grid.canvases), max(grid.canvases)
    for canvas, T in dict.fromkeys([(shortest, 1), (longest, 1), (shortest, 4)]):
        if T in grid.num_iterations:
            how = {"length": grid.size.length, "canvas": canvas, "num_iterations": T}
            yield cmlm_system(model, grid.layers[0], precision, engine=engine, **how)


ENGINES: dict[str, Callable[[Grid], Iterator[System]]] = {
    "ctranslate2": of_ctranslate2,
    "transformers": of_transformers,
    "ours": of_ours,
    "onnxruntime": of_onnx_runtime,
    "torchao": of_torchao,
}
