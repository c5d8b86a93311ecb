"""`axe-hf quickstart`."""

from dataclasses import fields

from ..quickstart import QuickstartArguments, run_quickstart
from .options import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Shows what this package is for, in about eight minutes on two CPU cores, without a network:

  1. reads an English-German phrasebook that comes with it,
  2. trains three small models on it for the same time: one of Transformers' own that writes word
     by word, and two that learn from it to write all at once, with cross entropy and with AXE,
  3. scores them on sentences they have not seen, in 1, 4 and 10 passes of the decoder, or by
     greedy and beam search,
  4. saves them, loads the AXE model again, and draws pictures of training and decoding.

It needs the extra "eval"; pictures need "plot": python -m pip install "axe-hf[eval,plot]"
"""
run = run_quickstart
_EXAMPLE = "example:\n  axe-hf quickstart --output-dir first_models --minutes 8 --seed 1"
_METAVARS = {str: "DIR", float: "X", int: "N"}


def parse(argv: list[str]) -> QuickstartArguments:
    """The `QuickstartArguments` that `argv` asks for; the options are its fields."""
    usage = "axe-hf quickstart [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLE)
    for field in fields(QuickstartArguments):
        kind, text = type(field.default), field.metadata["help"]
        kwargs = {"type": kind, "metavar": _METAVARS.get(kind), "help": f"{text} ({field.default})"}
        if kind is bool:
            kwargs = {"action": "store_true", "help": text}
        add_option(parser, field.name, default=field.default, **kwargs)
    try:
        return QuickstartArguments(**vars(parser.parse_args(argv)))
    except ValueError as error:
        raise UsageError(str(error)) from error


def after_interrupt(arguments: QuickstartArguments) -> str:
    """What to say after Ctrl-C."""
    return f"{arguments.output_dir} is as it was before."
