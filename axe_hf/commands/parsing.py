"""What the commands' parsers share: one-line errors, and options made from the settings of Mask-Predict."""

import argparse
import inspect
import re
from typing import Any, NoReturn

# Decoding by these names would change what a command returns; `translate --show-steps` shows the history.
_NOT_OPTIONS = {"output_history", "return_dict_in_generate"}
# Settings of Transformers that a command offers too.
_INHERITED = ("min_length", "max_length", "do_sample", "temperature")
# What those are that are None by default.
_KINDS = {"min_length": int, "max_length": int, "do_sample": bool, "use_onednn": bool}


class UsageError(Exception):
    """The arguments of a command are wrong; the message says which, and what is right."""


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that prints descriptions as they are, and raises instead of exiting."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def add_option(parser: Any, name: str, **kwargs: Any) -> None:
    """Add an option that is shown `--with-dashes` and may be written `--with_underscores`, as in Python."""
    parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **kwargs)
    if "_" in name:
        parser.add_argument(f"--{name}", dest=name, **kwargs | {"help": argparse.SUPPRESS})


def positive_int(text: str) -> int:
    """An option's value, a whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return value


def add_generation_options(parser: CommandParser) -> None:
    """Add the settings of `MaskPredictGenerationConfig`; those not given stay the model's own."""
    group = parser.add_argument_group("decoding (each by default as the model was saved)")
    texts = _documented_settings()
    for name, default in generation_defaults().items():
        kind = _KINDS.get(name, float) if default is None else type(default)
        if kind is bool:
            kwargs = {"action": argparse.BooleanOptionalAction}
        else:
            metavar = {int: "N", float: "X", str: "NAME"}[kind]
            kwargs = {"type": kind, "metavar": metavar}
        add_option(group, name, default=argparse.SUPPRESS, help=texts.get(name), **kwargs)


def generation_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that were given.

    Raises:
        UsageError: a value out of its range.
    """
    from .. import MaskPredictGenerationConfig

    names = generation_defaults()
    given = {name: value for name, value in vars(options).items() if name in names}
    try:
        MaskPredictGenerationConfig(**given)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return given


def generation_defaults() -> dict[str, Any]:
    """The settings of `MaskPredictGenerationConfig` that a command offers, with their defaults."""
    from transformers import GenerationConfig

    from .. import MaskPredictGenerationConfig

    inherited = vars(GenerationConfig())
    own = vars(MaskPredictGenerationConfig())
    names = [n for n in own if n not in inherited and n not in _NOT_OPTIONS]
    return {n: own[n] for n in (*names, *_INHERITED)}


def _documented_settings() -> dict[str, str]:
    """What the class says about each setting; "a, b: text" is about both."""
    from .. import MaskPredictGenerationConfig

    text = inspect.getdoc(MaskPredictGenerationConfig) or ""
    texts = {}
    for names, about in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8,}.*)*)", text, re.MULTILINE):
        about = " ".join(about.split()).rstrip(".").replace("`", "").replace("%", "%%")
        texts |= dict.fromkeys(names.split(", "), about)
    return texts
