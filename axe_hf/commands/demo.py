"""`axe-hf demo`."""

import argparse
import threading
from typing import Any

from . import models
from .options import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Serves a page to try a model on: the translation, the passes one after the other, how sure the model
is of each token, the lengths it tried, and AXE's alignment with a reference that you type.
"""
_EXAMPLES = """\
examples:
  axe-hf demo my_model
  axe-hf demo my_model --teacher my_teacher --num-iterations 4 --num-length-candidates 5
  axe-hf demo my_model_int8 --examples sentences.tsv --port 8080

The page is for this machine alone unless --host or --share says otherwise, and sends nothing home.
It needs more packages: pip install "axe-hf[demo]".
"""
_INT8 = "multiply in int8, on a CPU; a folder of axe-hf export --int8 does so without it"
_TEXTS = "sentences to click on, one a line, behind a tab a reference"
_TEACHER = "autoregressive model to show beside it: a folder or a name"
_HOST = "address to listen on (127.0.0.1: this machine; 0.0.0.0: the network)"
_SHARE = "let Gradio's servers give it a public address for a week"


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    usage = "axe-hf demo MODEL [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    text = "folder of a trained model, or its name on the Hub"
    parser.add_argument("model", metavar="MODEL", help=text)
    group = parser.add_argument_group("what to show")
    add_option(group, "teacher", metavar="MODEL", help=_TEACHER)
    add_option(group, "examples", metavar="FILE", help=_TEXTS)
    add_option(group, "title", metavar="TEXT", help="of the page; by default the model's name")
    group = parser.add_argument_group("running")
    add_option(group, "host", metavar="ADDRESS", default="127.0.0.1", help=_HOST)
    add_option(group, "port", metavar="N", type=_port, default=7860, help="port (7860)")
    add_option(group, "share", action="store_true", help=_SHARE)
    add_option(group, "device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add_option(group, "int8", action="store_true", help=_INT8)
    return models.parse_with_decoding(parser, argv)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be in [1, 65535], got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Load what is to be shown and serve it until Ctrl-C."""
    from .. import create_demo

    shown: dict[str, Any] = {"title": options.title or options.model.rstrip("/").rsplit("/", 1)[-1]}
    if options.examples is not None:
        shown["examples"] = _read_examples(options.examples)
    model, tokenizer = models.load_model(options)
    if options.teacher is not None:
        shown["teacher"] = models.load_named(options.teacher, "--teacher", options)
    page = create_demo(model, tokenizer, **shown, **options.generation)
    where = {"server_name": options.host, "server_port": options.port, "share": options.share}
    _, url, public = page.launch(**where, footer_links=[], quiet=True, prevent_thread_lock=True)
    print(f"Open {public or url} in a browser; Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _read_examples(path: str) -> list[tuple[str, str]]:
    from ..data import read_lines

    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        text, _, reference = line.partition("\t")
        if "\t" in reference:
            raise UsageError(f"--examples: line {number} of {path} has more than one tab")
        if text.strip():
            pairs.append((text, reference))
    return pairs


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return "The page is closed."
