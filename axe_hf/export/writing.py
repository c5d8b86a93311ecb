"""Write ONNX files."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmForConditionalGeneration
from ..output import whole_folder
from .modules import (
    Exportable,
    ExportableDecoderStep,
    ExportableEncoder,
    ExportableMaskPredict,
    export_program,
)


def export_onnx(
    model: CmlmForConditionalGeneration,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    **generation: Any,
) -> dict[str, Path]:
    """Write a model as three ONNX files for programs of your own, all of them or none.

    A folder for this library, in int8 if asked for, is written by `export_model`.

    - `mask_predict.onnx` (`ExportableMaskPredict`) translates; its metadata holds the settings.
    - `encoder.onnx` and `decoder_step.onnx` (`ExportableEncoder`, `ExportableDecoderStep`), for a
      decoding of one's own. The encoder's output has the name of the decoder's input.

    Each file stands alone and holds its weights; above 2 GB they are in a second file,
    `*.onnx.data`. Of the default `CmlmConfig`, 62 million parameters, they have 237, 139 and 161
    MiB in fp32 (`num_iterations=4`, `max_length=48`): a minute of one CPU core, 1.6 GiB of memory.

    Args:
        model: the model, in evaluation mode, with attention "sdpa" or "eager".
        folder: where to write; made if there is none.
        tokenizer: saved beside the files where given, for `AutoTokenizer.from_pretrained(folder)`.
        overwrite: replace files of the same names; other files in `folder` stay either way.
        **generation: settings, as in `ExportableMaskPredict`.

    Returns:
        The three files, by the names "encoder", "decoder_step" and "mask_predict".

    Raises:
        ImportError: onnx or onnxscript is missing.
        FileExistsError: a file to be written is there already.
        TypeError, ValueError: see `ExportableMaskPredict`.

    Example:
        >>> paths = export_onnx(model, "onnx", tokenizer=tokenizer)  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession(paths["mask_predict"])  # doctest: +SKIP
        >>> batch = tokenizer(["A dog barks."], return_tensors="np")  # doctest: +SKIP
        >>> tokens, log_probs, lengths = session.run(None, dict(batch))  # doctest: +SKIP
        >>> tokenizer.batch_decode(tokens, skip_special_tokens=True)  # doctest: +SKIP
        ['Ein Hund bellt.']
    """
    check_packages()
    modules: dict[str, Exportable] = {
        "encoder": ExportableEncoder(model),
        "decoder_step": ExportableDecoderStep(model),
        "mask_predict": ExportableMaskPredict(model, **generation),
    }
    folder = Path(folder)
    with whole_folder(folder) as scratch:
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        names = [*(f"{name}.onnx" for name in modules), *(path.name for path in scratch.iterdir())]
        check_names(folder, names, overwrite)
        for name, module in modules.items():
            write_onnx(module, scratch / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in modules}


def write_onnx(module: Exportable, file: Path) -> None:
    onnx_program_of(module).save(file)


def check_packages() -> None:
    """Raise where what writes ONNX files is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('ONNX export needs more packages: pip install "axe-hf[onnx]".') from error


def check_names(folder: Path, names: list[str], overwrite: bool) -> None:
    """Raise where files to be written are there already."""
    taken = sorted({name for name in names if (folder / name).exists()})
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"`folder` must be a folder, but {folder} is a file.")
    if taken and not overwrite:
        found = f"`folder` {folder} holds {', '.join(taken)} already"
        raise FileExistsError(f"{found}. Choose another, or pass overwrite=True.")


def onnx_program_of(module: Exportable) -> Any:
    """A module as an ONNX graph with free axes, its settings in the metadata."""
    program = export_program(module)
    axes = {name: free for name, (_, free) in module.example_inputs().items()}
    with warnings.catch_warnings(), _without_advice():
        # Of the two inputs that share an axis the second cannot name it: nothing to warn of.
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        names: Any = {"input_names": list(axes), "output_names": list(module.output_names)}
        onnx_program: Any = torch.onnx.export(
            program, dynamo=True, dynamic_shapes=axes, verbose=False, **names
        )
    for name, value in getattr(module, "settings", {}).items():
        onnx_program.model.metadata_props[name] = json.dumps(value)
    for node in onnx_program.model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    return onnx_program


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep from the screen what the exporter says of packages that no graph of ours needs."""

    def is_needed(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(is_needed)
    try:
        yield
    finally:
        logger.removeFilter(is_needed)
