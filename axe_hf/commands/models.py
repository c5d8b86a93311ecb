"""Loads the model that a command is given."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parsing import CommandParser, UsageError, add_option, positive_int

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .. import CmlmForConditionalGeneration


def add_model_options(parser: CommandParser, *, is_model_required: bool) -> None:
    """Add MODEL and how to run it."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs=None if is_model_required else "?",
        help="folder of a trained model, or its name on the Hub",
    )
    group = parser.add_argument_group("running")
    add_option(
        group,
        "batch_size",
        type=positive_int,
        default=64,
        metavar="N",
        help="sentences at once (64)",
    )
    add_option(group, "device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add_option(
        group,
        "int8",
        action="store_true",
        help="multiply in int8, on a CPU: about twice as fast for single sentences, slightly less "
        "exact",
    )
    add_option(
        group,
        "rescore_with",
        metavar="MODEL",
        help="let this autoregressive translation model, a folder or a name on the Hub, choose "
        "among the length candidates (with --num-length-candidates over 1)",
    )


def check_model_options(options: argparse.Namespace) -> None:
    """Refuse what does not go together, and fill in the device that `--int8` needs.

    Raises:
        UsageError: `--int8` on another device than a CPU.
    """
    if not options.int8:
        return
    if options.device is None:
        options.device = "cpu"
    if options.device.split(":")[0] != "cpu":
        raise UsageError(
            f"--int8 multiplies on a CPU: leave out --device {options.device}, or --int8"
        )


def load_model(
    name: str, device: str | None, *, is_int8: bool = False
) -> "tuple[CmlmForConditionalGeneration, PreTrainedTokenizerBase]":
    """A trained model, ready to decode, and its tokenizer; for int8 whatever its type, on a CPU.

    Raises:
        FileNotFoundError: `name` is a path where there is nothing.
        ValueError: there is no CMLM of that name, it has no tokenizer, or there is no such device.
    """
    from transformers import AutoConfig, AutoTokenizer

    _check_folder(name, "MODEL")
    with _told_of(f"MODEL: {name} is neither a folder with a model nor one on the Hub"):
        config = AutoConfig.from_pretrained(name)
    if config.model_type != "cmlm":
        raise ValueError(
            f"MODEL: {name} must be a CMLM, trained by axe-hf; it is a {config.model_type!r}."
        )
    place = _place(device)
    model = _load_weights(name).to(place)  # type: ignore[arg-type]
    with _told_of(f"MODEL: {name} has no tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name)
    if is_int8:
        from .. import quantize_int8

        model = quantize_int8(model.float())
    return model, tokenizer


def load_rescorer(options: argparse.Namespace) -> dict[str, Any]:
    """`rescore_with` for `translate`, where a model is asked for.

    Raises:
        ValueError: there is no autoregressive translation model of that name with a tokenizer.
    """
    name = options.rescore_with
    if name is None:
        return {}
    from transformers import AutoTokenizer

    _check_folder(name, "--rescore-with")
    with _told_of(f"--rescore-with: {name} is no encoder-decoder with a tokenizer"):
        model, tokenizer = _load_weights(name), AutoTokenizer.from_pretrained(name)
    model = model.to(_place(options.device))  # type: ignore[arg-type]
    return {"rescore_with": (model, tokenizer)}


def _load_weights(name: str) -> "PreTrainedModel":
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModelForSeq2SeqLM.from_pretrained(name).eval()
    finally:
        if was_on:
            logging.enable_progress_bar()


@contextmanager
def _told_of(message: str) -> Iterator[None]:
    """Put `message` before the first line of what Transformers says."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{message} ({_first_line(error)})") from error


def _place(device: str | None) -> "torch.device":
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {device!r} cannot be used ({_first_line(error)})") from error


def _check_folder(name: str, argument: str) -> None:
    """Say plainly what is wrong with a path, for which Transformers would ask the Hub."""
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"{argument}: {name} holds no model: there is no config.json in it.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: must be the folder of a model, {name} is a file.")
    is_path = (
        name.startswith((".", "~", os.sep))
        or name.count("/") > 1
        or os.sep != "/"
        and os.sep in name
    )
    if is_path and not path.exists():
        raise FileNotFoundError(f"{argument}: there is no folder {name}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
