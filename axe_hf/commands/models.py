"""What `translate` and `evaluate` share: a model, how it decodes, and a file to write."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cmlm.configuration_mask_predict import SETTINGS
from .options import CommandParser, UsageError, add_option, flag

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

OFFERED_SETTINGS = {name: setting for name, setting in SETTINGS.items() if setting.is_option}
_METAVARS = {int: "N", float: "X", str: "NAME"}
_INT8 = "multiply in int8, on a CPU: about twice as fast for single sentences, slightly less exact"
_RESCORE_WITH = "autoregressive model to choose among --num-length-candidates: a folder or a name"


def add_model_options(parser: CommandParser, *, is_model_required: bool) -> None:
    """Add MODEL and how to run it."""
    text = "folder of a trained model, or its name on the Hub"
    nargs = None if is_model_required else "?"
    parser.add_argument("model", metavar="MODEL", nargs=nargs, help=text)
    group = parser.add_argument_group("running")
    text = "sentences at once (64)"
    add_option(group, "batch_size", type=positive_int, default=64, metavar="N", help=text)
    add_option(group, "device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add_option(group, "int8", action="store_true", help=_INT8)
    add_option(group, "rescore_with", metavar="MODEL", help=_RESCORE_WITH)


def add_output_options(group: Any, text: str) -> None:
    """Add the file to write."""
    add_option(group, "output", metavar="FILE", help=text)
    add_option(group, "overwrite", action="store_true", help="replace the output file")


def parse_with_decoding(parser: CommandParser, argv: list[str]) -> argparse.Namespace:
    """Add the decoding settings and parse; those that were given are put into `generation`."""
    group = parser.add_argument_group("decoding (each by default as the model was saved)")
    for name, setting in OFFERED_SETTINGS.items():
        kwargs: dict[str, Any] = {"type": setting.kind, "metavar": _METAVARS.get(setting.kind)}
        if setting.kind is bool:
            kwargs = {"action": argparse.BooleanOptionalAction}
        text = setting.help.rstrip(".").replace("`", "").replace("%", "%%")
        add_option(group, name, default=argparse.SUPPRESS, help=text, **kwargs)
    options = parser.parse_intermixed_args(argv)
    options.generation = {n: v for n, v in vars(options).items() if n in OFFERED_SETTINGS}
    try:
        for name, value in options.generation.items():
            SETTINGS[name].check(value)
    except ValueError as error:
        raise UsageError(str(error)) from error
    device = options.device or "cpu"
    if options.int8 and device.split(":")[0] != "cpu":
        raise UsageError(f"--int8 multiplies on a CPU: leave out --device {device}, or --int8")
    return options


def positive_int(text: str) -> int:
    """A number of things on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def check_output(options: argparse.Namespace) -> None:
    """Refuse, before any work, a file that cannot or should not be written."""
    if options.output is None:
        return
    file = Path(options.output)
    folder = file.absolute().parent
    if file.exists() and not file.is_file():
        raise FileExistsError(f"--output must name a plain file, {file} is something else.")
    if file.exists() and not options.overwrite:
        raise FileExistsError(f"--output: {file} exists already. Replace it by --overwrite.")
    read = ["/dev/stdin", *map(str, Path(options.model or "/dev/null").glob("*"))]
    for name in ("input", "translations", "references", "data"):
        given = getattr(options, name, None) or []
        read += given if isinstance(given, list) else [given, *map(str.strip, given.split(","))]
    if file.exists() and any(os.path.isfile(path) and file.samefile(path) for path in read):
        raise FileExistsError(f"--output: {file} is read, too. Write to another file.")
    if not folder.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {file.parent}. Make it first.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"--output: no permission to write into {folder}.")


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return "" if options.output is None else f"Nothing was written to {options.output}."


def load_model(options: argparse.Namespace) -> "Loaded":
    """MODEL, ready to decode, and its tokenizer; an adapter is merged with its base."""
    from transformers import AutoConfig

    from ..adapters import is_adapter

    name = options.model
    if is_adapter(name):
        model, tokenizer = _load_adapted(name, options)
    else:
        _check_folder(name, "MODEL")
        if _is_exported(name):
            return _load_exported(name, options)
        with _told_of(f"MODEL: {name} is neither a folder with a model nor one on the Hub"):
            kind = AutoConfig.from_pretrained(name).model_type
        if kind != "cmlm":
            raise ValueError(f"MODEL: {name} must be a CMLM, trained by axe-hf; it is a {kind!r}.")
        model, tokenizer = _load(name, "MODEL", options)
    if options.int8:
        from .. import quantize_int8

        model = quantize_int8(model.float())
    return model, tokenizer


def _is_exported(name: str) -> bool:
    from ..export import is_exported

    return is_exported(name)


def _load_exported(name: str, options: argparse.Namespace) -> "Loaded":
    from transformers import AutoTokenizer

    from .. import load_exported

    given = {"int8": options.int8, "device": options.device not in (None, "cpu")}
    if useless := [flag(option) for option, is_given in given.items() if is_given]:
        problem = f"MODEL: {name} holds exported graphs, which run on a CPU as they were written"
        raise ValueError(f"{problem}. Leave out {' and '.join(useless)}.")
    with _told_of(f"MODEL: {name} holds exported graphs but no tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name)
    model: Any = load_exported(name)
    return model, tokenizer


def is_of_graphs(model: Any) -> bool:
    """Whether it was exported."""
    return hasattr(model, "is_int8")


def model_card_of(name: str) -> str | None:
    """The README.md of MODEL, if it has one."""
    from transformers.utils import cached_file

    file = cached_file(name, "README.md", _raise_exceptions_for_missing_entries=False)
    return None if file is None else Path(file).read_text(encoding="utf-8")


def load_rescorer(options: argparse.Namespace) -> dict[str, Any]:
    """`rescore_with` for `translate`, where a model is asked for."""
    if (name := options.rescore_with) is None:
        return {}
    return {"rescore_with": load_named(name, "--rescore-with", options)}


def load_named(name: str, argument: str, options: argparse.Namespace) -> "Loaded":
    """Another model than MODEL, and its tokenizer; errors name the argument."""
    _check_folder(name, argument)
    return _load(name, argument, options)


def _load(name: str, argument: str, options: argparse.Namespace) -> "Loaded":
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    device = _device(options)
    problem = f"{argument}: {name} is no whole model with a tokenizer"
    with _without_progress_bar(), _told_of(problem):
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, info = AutoModelForSeq2SeqLM.from_pretrained(name, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{argument}: {name} lacks the weights {', '.join(missing):.300}.")
    return model.eval().to(device), tokenizer


def _load_adapted(name: str, options: argparse.Namespace) -> "Loaded":
    """An adapter and what it was trained on, as one model: all that comes next is of wholes."""
    from .. import load_merged

    device = _device(options)
    with _without_progress_bar():
        try:
            model, tokenizer = load_merged(name)
        except (FileNotFoundError, ImportError, ValueError) as error:
            raise type(error)(f"MODEL: {error}") from error
    model.to(device)
    return model, tokenizer


def _device(options: argparse.Namespace) -> str:
    """Where to run, which must be possible."""
    import torch

    device = "cpu" if options.int8 else options.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with _told_of(f"--device: {device!r} cannot be used", (RuntimeError, AssertionError)):
        torch.empty(0, device=device)
    return device


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _check_folder(name: str, argument: str) -> None:
    """Say plainly what is wrong with a path, for which Transformers would ask the Hub."""
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        from ..adapters import is_adapter

        kind = "whole model, save what axe_hf.load_merged gives" if is_adapter(path) else "model"
        raise ValueError(f"{argument}: {name} holds no {kind}: there is no config.json in it.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: must be the folder of a model, {name} is a file.")
    is_path = name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name
    if is_path and not path.exists():
        raise FileNotFoundError(f"{argument}: there is no folder {name}.")


@contextmanager
def _told_of(message: str, kinds: Any = Exception) -> Iterator[None]:
    """Put `message` before the first line of a library's own."""
    try:
        yield
    except kinds as error:
        told = error.__cause__ if type(error).__name__.startswith("Strict") else error
        first_line = (str(told).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{message} ({first_line})") from error
