"""The command `axe-hf`: runs a command, and turns every failure into one line and an exit code."""

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module

from . import __version__
from .commands import CommandParser, UsageError, without_secrets
from .output import printable

COMMANDS = {
    "quickstart": "train three small models in minutes, on the built-in data, and compare them",
    "distill": "let a translation model of Transformers write the data for a student",
    "train": "train a model on your sentence pairs, or fine-tune one",
    "average": "average the weights of a run's best or last checkpoints",
    "import-fairseq": "import a model that Mask-Predict's own program trained",
    "translate": "translate text with a trained model",
    "evaluate": "score a model, or translations that you have, with BLEU and chrF",
    "demo": "open a page in the browser to try a model on, step by step",
    "serve": "answer over HTTP, as LibreTranslate does and with all that the models can",
    "push": "share a model on the Hugging Face Hub, with the code it needs",
    "export": "write a model as ONNX graphs, in int8 if you like, that are shared and run fast",
}
FAILED, WRONG_USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run `axe-hf`.

    Args:
        argv: what stands behind `axe-hf`; that of the process by default.

    Returns:
        The exit code: 0, 1 (it failed), 2 (wrong arguments), 130 (Ctrl-C) or 141 (output unread).

    Example:
        >>> from axe_hf.cli import main
        >>> main(["--version"]) == 0  # doctest: +ELLIPSIS
        axe-hf ...
        True
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # translations do not fit into every locale's encoding
            stream.reconfigure(encoding="utf-8")
    if not sys.stderr.isatty():  # a log: no bars while data is tokenized and models are loaded
        for library in ("HF_DATASETS", "HF_HUB"):
            os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")
    try:
        code = _dispatch(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Without this, Python complains about the closed pipe once more when it exits.
        with suppress(OSError, ValueError):  # not a real file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _dispatch(argv: list[str]) -> int:
    num_global = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    parser, prefix, options, is_debugging = _parser(), "axe-hf", None, False
    try:
        is_debugging = parser.parse_args(argv[:num_global]).debug
        if num_global == len(argv):
            parser.print_help(sys.stderr)
            return WRONG_USAGE
        name, *rest = argv[num_global:]
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(COMMANDS)}."
            raise UsageError(f"there is no command {name!r}. {hint}")
        prefix, command = (
            f"axe-hf {name}",
            import_module(f".commands.{name.replace('-', '_')}", __package__),
        )
        options = command.parse(rest)
        command.run(options)
        return 0
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except UsageError as error:
        return _complain(prefix, f"{error} ({prefix} --help)", WRONG_USAGE)
    except KeyboardInterrupt:
        hint = "" if options is None else command.after_interrupt(options)
        print(printable(f"\n{prefix}: stopped. {hint}".rstrip()), file=sys.stderr, flush=True)
        return INTERRUPTED
    except Exception as error:
        if is_debugging or isinstance(error, BrokenPipeError):
            raise
        return _complain(
            prefix,
            _one_line(error, shlex.join(["axe-hf", "--debug", *without_secrets(argv)])),
            FAILED,
        )


def _parser() -> CommandParser:
    commands = "\n".join(f"  {name:<14}  {text}" for name, text in COMMANDS.items())
    parser = CommandParser(
        usage="axe-hf [--debug] COMMAND ...",
        description="Train, use and score translation models that write a whole sentence at once:\n"
        "CMLMs, trained with Aligned Cross Entropy (AXE), decoded by Mask-Predict.\n\n"
        f"commands:\n{commands}",
        epilog="Start with: axe-hf quickstart\nMore on a command: axe-hf COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"axe-hf {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def _complain(prefix: str, message: str, code: int) -> int:
    sys.stdout.flush()  # what was printed so far stands above the error
    print(printable(f"{prefix}: error: {message}"), file=sys.stderr, flush=True)
    return code


def _one_line(error: Exception, again: str) -> str:
    cause = error.__cause__
    if type(error).__name__.startswith("StrictDataclass") and isinstance(cause, Exception):
        error = cause  # a config's own words, without the name of its validator
    text = " ".join(str(error).split())
    # Failures that our own messages explain; any other is shown with the name of its type.
    if isinstance(error, ValueError | TypeError | OSError | ImportError) and text:
        return text
    return f"{type(error).__name__}: {text} (to see where: {again})"
