"""What the parsers of all commands share: errors of one line, and how options are written."""

import argparse
from typing import Any, NoReturn


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
