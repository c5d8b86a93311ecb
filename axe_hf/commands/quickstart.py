"""`axe-hf quickstart`."""

import argparse
from dataclasses import fields
from typing import Any

from .parsing import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Shows what this package is for, in about five minutes on two CPU cores, without a network:

  1. writes an English-German phrasebook and trains a vocabulary on it,
  2. trains two small models on it for the same time, one with cross entropy, one with AXE,
  3. scores both on sentences they have not seen, in 1, 4 and 10 passes of the decoder,
  4. saves them, loads the AXE model again, and draws pictures of training and decoding.

It needs the extra "eval"; pictures need "plot": python -m pip install "axe-hf[eval,plot]"
"""


def parse(argv: list[str]) -> Any:
    """The `QuickstartArguments` that `argv` asks for; the options are its fields."""
    from ..quickstart import QuickstartArguments

    parser = CommandParser(
        prog="axe-hf quickstart",
        usage="axe-hf quickstart [OPTIONS]",
        description=_DESCRIPTION,
        epilog="example:\n  axe-hf quickstart --output-dir first_models --minutes 8 --seed 1",
    )
    for option in fields(QuickstartArguments):
        about = option.metadata["help"]
        if isinstance(option.default, bool):
            add_option(parser, option.name, action="store_true", help=about)
            continue
        kind = type(option.default)
        text = f"{about} ({option.default:g})" if kind is float else f"{about} ({option.default})"
        metavar = {str: "DIR", float: "X", int: "N"}[kind]
        add_option(
            parser, option.name, type=kind, default=option.default, metavar=metavar, help=text
        )
    options: argparse.Namespace = parser.parse_args(argv)
    try:
        return QuickstartArguments(**vars(options))
    except ValueError as error:
        raise UsageError(str(error)) from error


def run(arguments: Any) -> None:
    """Run it."""
    from ..quickstart import run_quickstart

    run_quickstart(arguments)


def after_interrupt(arguments: Any) -> str:
    """What to say after Ctrl-C."""
    return f"{arguments.output_dir} is as it was before."
