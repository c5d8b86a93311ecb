"""`axe-hf serve`."""

import argparse
import copy
import os
import re
from pathlib import Path
from typing import Any

from ..serving import Batching, Limits
from . import models
from .options import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Serves models over HTTP: LibreTranslate's interface, which its clients and browser extensions
speak, and /v1/translate with settings of the decoding, n-best, scores and passes. The page /docs
describes both. Ends on Ctrl-C or SIGTERM, when what was accepted is answered.
"""
_EXAMPLES = """\
examples:
  axe-hf serve my_model=en-de
  axe-hf serve english_german=en-de german_english=de-en --port 8000 --int8
  axe-hf serve my_model --num-iterations 4 --num-length-candidates 3
  curl -d q="Good day. How are you?" -d source=en -d target=de http://127.0.0.1:5000/translate

A model that says which languages it translates is served by its name alone.
"""
_KEYS_VARIABLE = "AXE_HF_API_KEYS"
_MODEL = "folder of a trained model, or its name on the Hub; with =en-de where it does not say"
# Fields of `Limits`, which has their defaults.
_LIMITS = {
    "max_characters": "characters of a request",
    "max_items": "texts of a request",
    "max_body_bytes": "bytes of a request",
    "max_passes": "iterations times length candidates that a request may ask for",
    "max_queue": "sentences that may wait",
    "timeout": "seconds until a request is given up, 504",
}


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    usage = "axe-hf serve MODEL[=en-de,...] [MODEL ...] [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("models", metavar="MODEL", nargs="+", help=_MODEL)
    running = parser.add_argument_group("running")
    _add_number(running, "batch_size", Batching.max_sentences, "sentences decoded at once")
    text = "source tokens decoded at once, padding included"
    _add_number(running, "max_tokens", Batching.max_tokens, text)
    text = "cpu, cuda, cuda:1 ...; by default a GPU if there is one"
    add_option(running, "device", help=text)
    text = (
        "multiply in int8, on a CPU: faster, slightly less exact, and other sentences of a batch "
    )
    text += "may change a translation, as they share its scale"
    add_option(running, "int8", action="store_true", help=text)
    text = "cores that decode (all)"
    add_option(running, "num_threads", type=models.positive_int, metavar="N", help=text)
    server = parser.add_argument_group("server")
    text = "where to listen (127.0.0.1, which only this machine can reach)"
    add_option(server, "host", default="127.0.0.1", help=text)
    add_option(server, "port", type=_port, default=5000, metavar="N", help="(5000)")
    text = f"ask for one of these; also from the variable {_KEYS_VARIABLE}, spaces between"
    add_option(server, "api_key", metavar="KEY", action="append", default=[], help=text)
    add_option(server, "api_key_file", metavar="FILE", help="ask for one of its lines")
    text = "page that may call from a browser, such as https://example.org, or * for all (none)"
    add_option(server, "cors_origin", metavar="URL", action="append", default=[], help=text)
    limits = parser.add_argument_group("limits (what is over them is answered 413, 422 or 429)")
    for name, text in _LIMITS.items():
        _add_number(limits, name, getattr(Limits, name), text)
    options = models.parse_with_decoding(parser, argv)
    options.served = [_model_and_directions(word) for word in options.models]
    if len({name for name, _ in options.served}) < len(options.served):
        raise UsageError("a MODEL is given twice; say its directions at once: MODEL=en-de,de-en")
    return options


def _add_number(group: Any, name: str, default: float, text: str) -> None:
    kwargs = {"type": models.positive_int, "default": int(default), "metavar": "N"}
    add_option(group, name, help=f"{text} ({int(default)})", **kwargs)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port, 0 (a free one) to 65535, got {text!r}")
    return int(text)


def _model_and_directions(word: str) -> tuple[str, list[str] | None]:
    """MODEL and what stands behind its =, unless that belongs to the name."""
    name, _, given = word.rpartition("=")
    if not name or os.path.exists(word):
        return word, None
    directions = given.split(",")
    if not all(re.fullmatch(r"\w+-\w+|[\w-]+:[\w-]+", direction) for direction in directions):
        expected = "directions such as en-de, or zh-CN:en where a code has a hyphen"
        raise UsageError(f"behind the = of MODEL must stand {expected}, got {given!r}")
    return name, directions


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C before the models are loaded."""
    return "Nothing was served yet."


def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    keys = _api_keys(options)
    # Read when PyTorch is loaded: threads that wait for their turn leave the core to the answers.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ..serving import check_packages, create_app, open_socket, run_server

    check_packages()
    with open_socket(options.host, options.port) as listening:
        served = [_loaded(options, *each) for each in options.served]
        limits = Limits(**{name: getattr(options, name) for name in _LIMITS})
        batching = Batching(max_sentences=options.batch_size, max_tokens=options.max_tokens)
        kwargs: dict[str, Any] = {"limits": limits, "batching": batching}
        kwargs |= {"api_keys": keys, "cors_origins": options.cors_origin}
        app = create_app(served, **kwargs)
        run_server(app, listening, timeout=options.timeout)


def _loaded(options: argparse.Namespace, name: str, directions: list[str] | None) -> Any:
    import torch

    from ..serving import ServedModel

    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    own = copy.copy(options)
    own.model = name
    model, tokenizer = models.load_model(own)
    short = Path(name).name  # where a folder lies is nobody's business
    is_one = sum(Path(other).name == short for other, _ in options.served) == 1
    shown = short if is_one and Path(name).is_dir() else name
    return ServedModel(model, tokenizer, directions, shown, options.generation)


def _api_keys(options: argparse.Namespace) -> list[str]:
    keys = [*options.api_key, *os.environ.get(_KEYS_VARIABLE, "").split()]
    if options.api_key_file is not None:
        lines = Path(options.api_key_file).read_text(encoding="utf-8").splitlines()
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise ValueError(f"--api-key-file: {options.api_key_file} holds no key, one a line.")
        keys += found
    return keys
