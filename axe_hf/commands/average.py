"""`axe-hf average`."""

import argparse
import shlex

from ..output import check_new_folder, printable
from .models import positive_int
from .options import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Writes a model whose weights are the mean of several checkpoints' of one run, as Mask-Predict takes
its 5 best (EMNLP 2019, section 4.1): as fast as one of them, and most often a little better.

CHECKPOINTS: the folder of a run, for all checkpoint-* in it, or checkpoints. A run keeps its best
by --keep-best, and ends with their mean by --average-best.
"""
_EXAMPLES = """\
examples:
  axe-hf average runs/en-de --best 5 --output-dir runs/en-de-best5
  axe-hf average runs/en-de --last 3 --output-dir runs/en-de-last3
  axe-hf average runs/en-de/checkpoint-1000 runs/en-de/checkpoint-2000 --output-dir runs/mean
"""
_BEST = "take so many that evaluated best by --metric, as their trainer_state.json says"


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for."""
    usage = "axe-hf average CHECKPOINTS ... [--best K | --last K] --output-dir DIR"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    text = "folder of a run, or checkpoints"
    parser.add_argument("checkpoints", metavar="CHECKPOINTS", nargs="+", help=text)
    group = parser.add_argument_group("which to take, and where to write")
    number = {"type": positive_int, "metavar": "K"}
    add_option(group, "best", help=_BEST, **number)
    add_option(group, "last", help="take so many with the most steps", **number)
    text = "what is best: bleu, chrf, loss ... (bleu)"
    add_option(group, "metric", metavar="NAME", help=text)
    add_option(group, "output_dir", metavar="DIR", help="folder to make (required)")
    options = parser.parse_args(argv)
    if options.output_dir is None:
        raise UsageError("the following arguments are required: --output-dir")
    if options.best is not None and options.last is not None:
        raise UsageError("give either --best or --last, not both")
    if options.metric is not None and options.best is None:
        raise UsageError("--metric says what --best means: add --best, or leave it out")
    options.metric = options.metric or "bleu"
    return options


def run(options: argparse.Namespace) -> None:
    """Average, and say what was taken."""
    folder = check_new_folder(options.output_dir, "--output-dir")
    from ..adapters import is_adapter
    from ..training import average_checkpoints, choose_checkpoints

    how = {name: getattr(options, name) for name in ("best", "last", "metric")}
    chosen = choose_checkpoints(options.checkpoints, **how)
    if adapters := [str(path) for path in chosen if is_adapter(path)]:
        reason = "the mean of an adapter's factors is no mean of what they make"
        advice = "Save what axe_hf.load_merged gives of each, and take the mean of these"
        raise ValueError(f"CHECKPOINTS: {adapters[0]} is an adapter, and {reason}. {advice}.")
    average_checkpoints([*chosen], folder)
    for path, score in chosen.items():
        found = "" if score is None else f"  {options.metric} {score:.2f}"
        print(printable(f"{path}{found}"))
    print(f"Saved the mean of these {len(chosen)} in {printable(str(folder))}.")
    print(f'Try: axe-hf translate {printable(shlex.quote(str(folder)))} "..."')


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return f"Nothing was written to {options.output_dir}."
