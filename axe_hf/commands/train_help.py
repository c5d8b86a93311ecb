"""The help of `axe-hf train`: what matters first, and the rest on request."""

import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from enum import Enum

from .parsing import CommandParser

_DESCRIPTION = """\
Trains a translation model on sentence pairs: a new one, with a vocabulary made from the same data, or
one to fine-tune. Leaves in --output-dir the model, its tokenizer, its model card, the scores and the
checkpoints. Everything can also stand in a file, by name; options behind it win.
"""
_EXAMPLES = """\
examples:
  a small model on a CPU, in ten minutes
    axe-hf train --source-lang en --target-lang de --train-file train.tsv --test-file test.tsv \\
      --output-dir runs/en-de --train-minutes 10 --max-tokens-per-batch 500 --masking full \\
      --length-multiplier 1.4 --length-jitter 0.2 --vocab-size 2000 --d-model 192 --encoder-layers 2 --decoder-layers 2
  the same settings in a file (source_lang: en ...), with another seed
    axe-hf train en-de.yaml --output-dir runs/en-de-2 --seed 2
  fine-tuning
    axe-hf train --model-name-or-path runs/en-de --train-file more.tsv ...
  going on after a break
    axe-hf train (the same options) --resume-from-checkpoint last
  several GPUs
    accelerate launch -m axe_hf train ...
"""

_IMPORTANT = (
    "output_dir",
    "train_minutes",
    "num_train_epochs",
    "max_steps",
    "max_tokens_per_batch",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "warmup_steps",
    "lr_scheduler_type",
    "masking",
    "length_multiplier",
    "length_jitter",
    "ema_decay",
    "bf16",
    "optim",
    "seed",
    "eval_strategy",
    "eval_steps",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "resume_from_checkpoint",
    "push_to_hub",
    "use_cpu",
)
# Where Transformers' own words do not say what `axe-hf train` does.
_TEXTS = {
    "output_dir": "Folder for everything the run leaves; a new or an empty one.",
    "max_steps": "Steps to train for, in place of epochs.",
    "eval_strategy": "When to evaluate on the validation data besides the end: no, steps or epoch.",
    "eval_steps": "Steps between two evaluations; those of --logging-steps if not given.",
    "save_steps": "Steps between two checkpoints.",
    "gradient_accumulation_steps": "Batches whose gradients make one step.",
    "lr_scheduler_type": "Shape of the learning rate: linear, cosine, inverse_sqrt ...",
    "bf16": "Train in bfloat16: faster where the hardware has it.",
    "optim": "Optimizer, a name of Transformers'.",
    "seed": "Of the first weights, the batches and the masks.",
    "load_best_model_at_end": "Keep the checkpoint that evaluates best, not the last one.",
    "metric_for_best_model": "What is best: loss if not given, or bleu, chrf ...",
    "resume_from_checkpoint": "Go on with a run: 'last', for the last checkpoint in --output-dir, or "
    "the folder of one.",
    "push_to_hub": "Upload the model to the Hub whenever it is saved.",
    "use_cpu": "Leave a GPU alone.",
}
_FIRST = ("source_lang", "target_lang", "train_file", "output_dir")


def print_help(kinds: Sequence[type], *, is_complete: bool) -> None:
    """Print the options, which are the fields of the model's, the data's and the trainer's arguments.

    Args:
        kinds: the three dataclasses, in this order.
        is_complete: whether to print all fields of the trainer's arguments.
    """
    model, data, training = ({f.name: f for f in fields(kind) if f.init} for kind in kinds)
    parser = CommandParser(
        prog="axe-hf train",
        usage="axe-hf train [CONFIG.json | CONFIG.yaml] [OPTIONS]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        add_help=False,
    )
    everything = {**model, **data, **training}
    important = {name: training[name] for name in _IMPORTANT}
    groups = {
        "needed": {name: everything[name] for name in _FIRST},
        "data and vocabulary": data,
        "model and loss": model,
        "training": important,
    }
    if is_complete:
        groups["everything else that Transformers' Seq2SeqTrainingArguments has"] = training
    shown = set()
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        for name in [name for name in options if name not in shown]:
            shown.add(name)
            option = options[name]
            flag = f"--{name.replace('_', '-')}"
            group.add_argument(flag, metavar=_metavar(option), help=_text(name, option))
    more = parser.add_argument_group("help")
    more.add_argument("-h", "--help", action="store_true", help="show these options")
    rest = len(training.keys() - important.keys())
    more.add_argument(
        "--help-all", action="store_true", help=f"show {rest} more, of Transformers' trainer"
    )
    parser.print_help()


def _metavar(option: Field) -> str:
    """The choices, or a word for the kind of value."""
    hint = option.type
    inner = [hint, *typing.get_args(hint)]
    for kind in inner:
        if typing.get_origin(kind) is typing.Literal:
            return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
        if isinstance(kind, type) and issubclass(kind, Enum):
            return "NAME"
    words = {bool: "BOOL", int: "N", float: "X"}
    return next((words[kind] for kind in inner if kind in words), "TEXT")


def _text(name: str, option: Field) -> str:
    text = _TEXTS.get(name) or " ".join(option.metadata.get("help", "").split())
    default = option.default
    if default is MISSING or default is None:
        return text
    return f"{text} ({default.value if isinstance(default, Enum) else default})"
