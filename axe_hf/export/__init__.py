"""A model as graphs that run without this package: programs of `torch.export`, and ONNX files."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmForConditionalGeneration
from ..output import whole_folder
from .modules import ExportableDecoderStep, ExportableEncoder, ExportableMaskPredict

Exportable = ExportableEncoder | ExportableDecoderStep | ExportableMaskPredict


def export_program(module: Exportable) -> ExportedProgram:
    """Trace a part of a model by `torch.export`, with free batch size and lengths.

    The program takes at least one sentence of at least one token; it refuses sources longer than
    the model's `max_source_length`, and canvases longer than `max_target_length`.

    Args:
        module: one of the three modules named `Exportable...`.

    Returns:
        The program: call `.module()`, or write it by `torch.export.save`.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf import ExportableEncoder, export_program
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> encoder = export_program(ExportableEncoder(model)).module()
        >>> source = torch.tensor([[7, 8, 9, 1], [8, 1, 0, 0], [7, 1, 0, 0]])
        >>> states, length_logits = encoder(source, source.ne(0).long())
        >>> states.shape
        torch.Size([3, 4, 16])
    """
    if not isinstance(module, Exportable):
        kinds = ", ".join(kind.__name__ for kind in Exportable.__args__)
        raise TypeError(f"`module` must be an {kinds}, got {type(module).__name__}.")
    inputs = module.example_inputs()
    axes = {name: free for name, (_, free) in inputs.items()}
    values = tuple(value for value, _ in inputs.values())
    with torch.no_grad():
        return torch.export.export(module, values, dynamic_shapes=axes)


def export_onnx(
    model: CmlmForConditionalGeneration,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    **generation: Any,
) -> dict[str, Path]:
    """Write a model as three ONNX files, all of them or none.

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
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('ONNX export needs more packages: pip install "axe-hf[onnx]".') from error
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
        taken = sorted(name for name in names if (folder / name).exists())
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"`folder` must be a folder, but {folder} is a file.")
        if taken and not overwrite:
            found = f"`folder` {folder} holds {', '.join(taken)} already"
            raise FileExistsError(f"{found}. Choose another, or pass overwrite=True.")
        for name, module in modules.items():
            _write_onnx(module, scratch / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in modules}


def _write_onnx(module: Exportable, file: Path) -> None:
    program = export_program(module)
    axes = {name: free for name, (_, free) in module.example_inputs().items()}
    with warnings.catch_warnings():
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
    onnx_program.save(file)
