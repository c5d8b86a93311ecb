"""What the commands' parsers share: one-line errors, the decoding settings, and files to write."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from ..cmlm.configuration_mask_predict import SETTINGS

# Settings of Mask-Predict that a command offers.
OFFERED_SETTINGS = {name: setting for name, setting in SETTINGS.items() if setting.is_option}


class UsageError(Exception):
    """The arguments of a command are wrong; the message says which, and what is right."""


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that prints descriptions as they are, and raises instead of exiting."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def flag(name: str) -> str:
    """An argument as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def add_option(parser: Any, name: str, **kwargs: Any) -> None:
    """Add an option that is shown `--with-dashes` and may be written `--with_underscores`, too."""
    parser.add_argument(flag(name), dest=name, **kwargs)
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
    """Add the settings of Mask-Predict; those not given stay the model's own."""
    group = parser.add_argument_group("decoding (each by default as the model was saved)")
    for name, setting in OFFERED_SETTINGS.items():
        about = setting.help.rstrip(".").replace("`", "").replace("%", "%%")
        if setting.kind is bool:
            kwargs: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            metavar = {int: "N", float: "X", str: "NAME"}[setting.kind]
            kwargs = {"type": setting.kind, "metavar": metavar}
        add_option(group, name, default=argparse.SUPPRESS, help=about, **kwargs)


def generation_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that were given.

    Raises:
        UsageError: a value out of its range.
    """
    given = {name: value for name, value in vars(options).items() if name in OFFERED_SETTINGS}
    for name, value in given.items():
        try:
            SETTINGS[name].check(value)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return given


def check_output(path: str | None, *, overwrite: bool) -> None:
    """Refuse, before any work, a file that cannot or should not be written.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it is no plain file.
        FileNotFoundError: its folder does not exist.
        PermissionError: its folder takes no files.
    """
    if path is None:
        return
    file = Path(path)
    folder = file.absolute().parent
    if file.exists() and not file.is_file():
        raise FileExistsError(f"--output must name a plain file, {path} is something else.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"--output: {path} exists already. Replace it by --overwrite.")
    if not folder.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {file.parent}. Make it first.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"--output: no permission to write into {folder}.")
