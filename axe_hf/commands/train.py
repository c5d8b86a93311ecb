"""`axe-hf train`: the fields of three dataclasses as options, or as a file.

They are read from their source: help and wrong usage need neither PyTorch nor Transformers.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..declarations import Declaration, declared_fields
from ..output import predictions_name, printable
from .options import (
    CommandParser,
    UsageError,
    add_field,
    add_option,
    flag,
    given_settings,
    read_settings,
    unknown_option,
    without_secrets,
)

if TYPE_CHECKING:
    from ..training import AxeTrainingArguments, DataArguments, ModelArguments

_DESCRIPTION = """\
Trains a translation model, new or to fine-tune, on sentence pairs, and leaves it in --output-dir
with its tokenizer, scores and checkpoints. Settings may stand in a file; options behind it win.
"""
_EXAMPLES = """\
examples:
  a small model on a CPU, in ten minutes
    axe-hf train --source-lang en --target-lang de --train-file train.tsv --test-file test.tsv \\
      --output-dir runs/en-de --train-minutes 10 --max-tokens-per-batch 500 --masking full \\
      --length-multiplier 1.4 --length-jitter 0.2 --vocab-size 2000 --d-model 192 \\
      --encoder-layers 2 --decoder-layers 2
  the same settings in a file (source_lang: en ...), with another seed; going on after a break
    axe-hf train en-de.yaml --output-dir runs/en-de-2 --seed 2
    axe-hf train en-de.yaml --resume-from-checkpoint last
  from a pretrained translator, with three of its layers that write; fine-tuning; several GPUs
    axe-hf train --init-from Helsinki-NLP/opus-mt-en-de --decoder-layers 3 --train-file more.tsv ...
    axe-hf train --model-name-or-path runs/en-de --train-file more.tsv ...
    accelerate launch -m axe_hf train ...
"""

# The trainer's arguments that matter: ours, and Transformers' with a text that serves here.
_OURS: tuple[str, ...] = ("train_minutes", "num_train_epochs", "max_tokens_per_batch", "masking")
_OURS += ("per_device_train_batch_size", "learning_rate", "warmup_steps", "length_multiplier")
_OURS += ("length_jitter", "cross_entropy_first", "align_first", "draft_share", "freeze")
_OURS += ("num_iterations", "num_length_candidates", "ema_decay", "bleu_tokenize", "logging_steps")
_OURS += ("early_stopping_patience", "early_stopping_threshold", "keep_best", "average_best")
_OURS += ("save_total_limit",)
_THEIRS = {
    "do_train": "train; without any of these three, all is done that the data allow",
    "do_eval": "score the validation data at the end",
    "do_predict": "score the test data, and write generated_predictions.txt",
    "output_dir": "folder for everything the run leaves; a new or an empty one",
    "max_steps": "steps to train for, in place of epochs",
    "gradient_accumulation_steps": "batches whose gradients make one step",
    "lr_scheduler_type": "shape of the learning rate: linear, cosine, inverse_sqrt ...",
    "bf16": "train in bfloat16: faster where the hardware has it",
    "optim": "optimizer, a name of Transformers': adamw_torch_fused if not given, adafactor ...",
    "seed": "of the first weights, the batches and the masks",
    "eval_strategy": "when to evaluate on the validation data besides the end: no, steps or epoch",
    "eval_steps": "steps between two evaluations; those of --logging-steps if not given",
    "save_steps": "steps between two checkpoints",
    "load_best_model_at_end": "keep the checkpoint that evaluates best, not the last one",
    "metric_for_best_model": "what is best: loss if not given, or bleu, chrf ...",
    "resume_from_checkpoint": "checkpoint to go on from: 'last' in --output-dir, or a folder",
    "push_to_hub": "upload the model to the Hub whenever it is saved",
    "use_cpu": "leave a GPU alone",
}
Declared = dict[str, Declaration]


@dataclass(frozen=True)
class TrainOptions:
    """What `argv` asks for: the settings that were given, by name."""

    settings: dict[str, Any]
    argv: list[str]

    def arguments(self) -> "tuple[ModelArguments, DataArguments, AxeTrainingArguments]":
        """The three kinds of arguments, which know what may go together."""
        from ..training import (
            AxeTrainingArguments,
            DataArguments,
            ModelArguments,
            ScriptArguments,
        )

        for field in fields(AxeTrainingArguments):
            choices, value = field.metadata.get("choices"), self.settings.get(field.name)
            if choices and value is not None and value not in choices:
                text = f"{value!r} is none of {', '.join(map(repr, choices))}"
                raise UsageError(f"argument {flag(field.name)}: {text}")
        model, data, training, script = (
            {name: self.settings[name] for name in kind if name in self.settings}
            for kind in declared_arguments()
        )
        try:
            given = ModelArguments(**model), DataArguments(**data), AxeTrainingArguments(**training)
            return ScriptArguments(**script).applied_to(*given)
        except ValueError as error:
            text = f"{error} {getattr(error, 'doc', '')}"  # JSON's error does not say of what
            raise UsageError(" ".join(text.split())) from error


@cache
def declared_arguments() -> tuple[Declared, Declared, Declared, Declared]:
    """The fields of the model's, the data's and the trainer's arguments, and other names of some.

    The last are those of Transformers' run_translation.py.
    """
    package, spec = Path(__file__).parents[1], find_spec("transformers")  # which imports nothing
    if spec is None or spec.origin is None:
        raise ImportError("Transformers is not installed: python -m pip install transformers")
    theirs, ours = Path(spec.origin).parent, package / "training" / "arguments.py"
    config = declared_fields(package / "cmlm" / "configuration_cmlm.py", "CmlmConfig")
    model = {
        name: field if field.help else replace(config[name], kinds=field.kinds, is_required=False)
        for name, field in declared_fields(ours, "ModelArguments").items()
    }
    training = {
        **declared_fields(theirs / "training_args.py", "TrainingArguments"),
        **declared_fields(theirs / "training_args_seq2seq.py", "Seq2SeqTrainingArguments"),
        **declared_fields(ours, "AxeTrainingArguments"),
    }
    training["output_dir"] = replace(training["output_dir"], is_required=True)
    others = declared_fields(ours.with_name("script_arguments.py"), "ScriptArguments")
    return model, declared_fields(ours, "DataArguments"), training, others


def _parser(*, is_complete: bool) -> CommandParser:
    """The parser of all options, of which the help shows the trainer's others only if asked to."""
    usage = "axe-hf train [CONFIG.json | CONFIG.yaml] [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    model, data, training, others = declared_arguments()
    left = {**model, **data, **training, **others}
    groups: dict[str, Iterable[str]] = {
        "needed": ("source_lang", "target_lang", "directions", "train_file", "output_dir"),
        "data and vocabulary": data,
        "model and loss": model,
        "training": (*_OURS, *_THEIRS),
        "everything else that Transformers' Seq2SeqTrainingArguments has": training,
        "names of Transformers' run_translation.py for what is called otherwise here": others,
    }
    num_hidden = 0
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        rest = [left.pop(name) for name in names if name in left]
        is_hidden = (names is training or names is others) and not is_complete
        num_hidden += len(rest) if names is training or names is others else 0
        for field in rest:
            add_field(group, field, None if is_hidden else _THEIRS.get(field.name, field.help))
    add_option(parser, "help_all", action="help", help=f"show {num_hidden} more, of Transformers")
    return parser


def parse(argv: list[str]) -> TrainOptions:
    """The settings of a run: of a file, if the first argument is one, and of options, which win."""
    declared = {name: field for kind in declared_arguments() for name, field in kind.items()}
    words, settings = list(argv), {}
    parser = _parser(is_complete="--help-all" in argv or "--help_all" in argv)
    if words and not words[0].startswith("-"):
        settings = read_settings(words.pop(0), declared)
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        raise unknown_option(unknown, declared)
    settings |= given_settings(namespace, declared)
    needed = {name for name, field in declared.items() if field.is_required}
    needed |= set() if "directions" in settings else {"source_lang", "target_lang"}
    missing = [flag(name) for name in declared if name in needed and name not in settings]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
    return TrainOptions(settings, argv)


def run(options: TrainOptions) -> None:
    """Train, and print how well it went."""
    from ..training import run_training

    result = run_training(*options.arguments())
    if not result.trainer.is_world_process_zero():
        return
    args, folder = result.trainer.args, options.settings["output_dir"]
    directions = result.model.config.directions or []
    is_trained = result.trainer.train_dataset is not None
    if is_trained:
        print(f"\nSaved the model in {printable(folder)}.{_stopped_early(result.trainer)}")
    if args.do_predict and "test_bleu" in result.metrics:
        own = [predictions_name(n) for n in directions if f"test_{n}_bleu" in result.metrics]
        written = f"{printable(folder)}/{', '.join(own or [predictions_name()])}"
        print(f"Wrote the translations of the test data into {written}.")
    line = "On the {} data: BLEU {bleu:.2f}, chrF {chrf:.2f}, repetition rate {repetition_rate:.2%}"
    for prefix, data in (("eval_", "validation"), ("test_", "test")):
        scores = {name.removeprefix(prefix): value for name, value in result.metrics.items()}
        if "bleu" in scores:
            print(line.format(data, **scores), f"({scores['bleu_signature']})")
        for name in directions:
            if f"{name}_bleu" in scores:
                print(f"  {name}: BLEU {scores[f'{name}_bleu']:.2f}")
    if is_trained and hasattr(result.model, "merge_and_unload"):
        print("It is an adapter, which needs its base; axe_hf.load_merged makes one model of both.")
    if is_trained:
        targets = result.model.config.target_languages
        target = f" --target-lang {targets[0]}" if len(targets) > 1 else ""
        print(f'Try: axe-hf translate {printable(shlex.quote(folder))}{target} "..."')


def _stopped_early(trainer: Any) -> str:
    """Why training ended before its time, where `early_stopping_patience` ended it."""
    args, state = trainer.args, trainer.state
    callbacks = trainer.callback_handler.callbacks
    counts = [getattr(c, "early_stopping_patience_counter", 0) for c in callbacks]
    if args.early_stopping_patience is None or max(counts) < args.early_stopping_patience:
        return ""
    best = f"{args.metric_for_best_model} {state.best_metric:.4g} of step {state.best_global_step}"
    end = f"after step {state.global_step} of {state.max_steps}"
    text = f" Training ended early, {end}: {max(counts)} evaluations were no better than {best}."
    is_last = not (args.load_best_model_at_end or args.average_best)
    advice = " The model is the last one; --load-best-model-at-end takes the best."
    return text + (advice if is_last else "")


def after_interrupt(options: TrainOptions) -> str:
    """What to say after Ctrl-C: how to go on."""
    from transformers.trainer_utils import get_last_checkpoint

    folder, argv = options.settings["output_dir"], ["axe-hf", "train", *options.argv]
    asked = {name for name in ("do_train", "do_eval", "do_predict") if options.settings.get(name)}
    if asked and "do_train" not in asked:
        return ""
    if not Path(folder).is_dir() or get_last_checkpoint(folder) is None:
        return f"There was no checkpoint yet in {folder} (see --save-steps): start again."
    if "resume_from_checkpoint" not in options.settings:
        argv += ["--resume-from-checkpoint", "last"]
    return f"Go on from the last checkpoint: {shlex.join(without_secrets(argv))}"
