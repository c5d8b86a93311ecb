"""`axe-hf train`: the fields of three dataclasses as options, or as a file."""

import shlex
from argparse import Namespace
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from transformers import HfArgumentParser

from ..training import AxeTrainingArguments, DataArguments, ModelArguments
from .config_file import as_options, read_config
from .parsing import UsageError
from .train_help import print_help

if TYPE_CHECKING:
    from ..training import TrainingResult

_KINDS = (ModelArguments, DataArguments, AxeTrainingArguments)
_CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class TrainOptions:
    """What `argv` asks for."""

    model: ModelArguments
    data: DataArguments
    training: AxeTrainingArguments
    argv: list[str]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(argv: list[str]) -> TrainOptions:
    """The settings of a run: of a file, if the first argument is one, and of options, which go first."""
    for flag in ("-h", "--help", "--help-all", "--help_all"):
        if flag in argv:
            print_help(_KINDS, is_complete="all" in flag)
            raise SystemExit(0)
    options = list(argv)
    if options and not options[0].startswith("-"):
        options = _options_of_file(options[0]) + options[1:]
    _check_names(options)
    parser = _Parser(_KINDS, prog="axe-hf train", add_help=False, allow_abbrev=False)
    namespace, unknown = parser.parse_known_args(options)
    if unknown:
        raise UsageError(f"there is no place for {shlex.join(unknown)}")
    try:
        return TrainOptions(*(_make(kind, namespace) for kind in _KINDS), argv)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error


def _check_names(options: list[str]) -> None:
    """Name an option that is not there or is missing, before argparse reads any."""
    names = {f.name: f for kind in _KINDS for f in fields(kind) if f.init}
    given = [word[2:].partition("=")[0].replace("-", "_") for word in options if word[:2] == "--"]
    for name in given:
        if name not in names and name.removeprefix("no_") not in names:
            near = get_close_matches(name, names, 1)
            hint = f"; did you mean {_flag(near[0])}?" if near else ""
            raise UsageError(f"there is no option {_flag(name)}{hint}")
    needed = [n for n, f in names.items() if f.default is f.default_factory is MISSING]
    missing = [_flag(name) for name in (*needed, "output_dir") if name not in given]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _options_of_file(path: str) -> list[str]:
    if Path(path).suffix not in _CONFIG_SUFFIXES:
        raise UsageError(
            f"the first argument must be an option or a file {', '.join(_CONFIG_SUFFIXES)}, got {path}"
        )
    names = [f.name for kind in _KINDS for f in fields(kind) if f.init]
    return as_options(read_config(path), names, path)


def _make(kind: type, namespace: Namespace) -> Any:
    return kind(**{f.name: getattr(namespace, f.name) for f in fields(kind) if f.init})


def run(options: TrainOptions) -> None:
    """Train."""
    from ..training import run_training

    result = run_training(options.model, options.data, options.training)
    if result.trainer.is_world_process_zero():
        print(_summary(options, result))


def _summary(options: TrainOptions, result: "TrainingResult") -> str:
    folder = options.training.output_dir
    lines = [f"\nSaved the model in {folder}."]
    for prefix, data in (("eval", "validation"), ("test", "test")):
        scores = {
            name: result.metrics.get(f"{prefix}_{name}")
            for name in ("bleu", "chrf", "repetition_rate", "bleu_signature")
        }
        if scores["bleu"] is not None:
            lines.append(
                f"On the {data} data: BLEU {scores['bleu']:.2f}, chrF {scores['chrf']:.2f}, repetition rate "
                f"{scores['repetition_rate']:.2%} ({scores['bleu_signature']})"
            )
    lines.append(f'Try: axe-hf translate {shlex.quote(folder)} "..."')
    return "\n".join(lines)


def after_interrupt(options: TrainOptions) -> str:
    """What to say after Ctrl-C: how to go on."""
    from transformers.trainer_utils import get_last_checkpoint

    folder = options.training.output_dir
    if Path(folder).is_dir() and get_last_checkpoint(folder) is not None:
        argv = options.argv
        if options.training.resume_from_checkpoint is None:
            argv = [*argv, "--resume-from-checkpoint", "last"]
        return f"Go on from the last checkpoint: {shlex.join(['axe-hf', 'train', *argv])}"
    return f"There was no checkpoint yet in {folder} (one comes every --save-steps steps): start again."
