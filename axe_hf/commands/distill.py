"""`axe-hf distill`: the fields of `DistillationSettings` as options."""

import argparse
import shlex
from functools import cache
from pathlib import Path

from ..declarations import Declaration, declared_fields
from ..output import printable
from .options import (
    CommandParser,
    UsageError,
    add_field,
    add_option,
    flag,
    given_settings,
    unknown_option,
)

_DESCRIPTION = """\
Lets a translation model of Transformers (Marian, NLLB, M2M100, mBART, T5 ...) translate the sources
of DATA, and writes the pairs for a student to learn from, with scores, counts and a data card.
Stopped or killed at any moment, the same command goes on where it was.
"""
_EXAMPLES = """\
examples:
  one's own teacher, and what follows
    axe-hf distill runs/teacher train.tsv --source-lang en --target-lang de --output-dir data/en-de
    axe-hf train --source-lang en --target-lang de --train-file data/en-de --output-dir runs/en-de
  a teacher of the Hub, sources alone, beams; several processes or GPUs
    axe-hf distill Helsinki-NLP/opus-mt-en-de news.en.gz --source-lang en --target-lang de \\
      --num-beams 4 --drop-copies --max-length-ratio 3 --output-dir data/news
    accelerate launch -m axe_hf distill ...
  languages by the teacher's codes; a prefix
    axe-hf distill facebook/nllb-200-distilled-600M news.en --teacher-source-lang eng_Latn \\
      --teacher-target-lang deu_Latn ...
    axe-hf distill google-t5/t5-small news.en --source-prefix "translate English to German: " ...
  on a CPU, several times faster (python -m pip install "axe-hf[ctranslate2]")
    axe-hf distill runs/teacher news.en --engine ctranslate2 --int8 ...
"""
_DATA = "sentence pairs (.jsonl, .json, .tsv; SOURCE,TARGET; a folder or a name on the Hub), or a "
_DATA += "text file of sources alone, one a line; several are joined"
_NEEDED = {
    "source_lang": "key of the source sides, such as en",
    "target_lang": "key of the target sides, such as de",
    "output_dir": "folder to write; new or empty, or of the same distillation, unfinished",
}
_GROUPS = {
    "search (each by default as the teacher was saved)": (
        "num_beams max_new_tokens length_penalty generation seed"
    ),
    "teacher": "teacher_source_lang teacher_target_lang source_prefix revision",
    "running": "engine dtype int8 device max_tokens_per_batch max_source_length shard_size",
    "what is kept": (
        "keep_original drop_copies drop_unfinished max_length_ratio max_ngram drop_lowest"
    ),
    "output": "format rows_per_file license overwrite",
}


@cache
def declared_settings() -> dict[str, Declaration]:
    """The fields of `DistillationSettings`."""
    file = Path(__file__).parents[1] / "teachers" / "distillation_settings.py"
    return declared_fields(file, "DistillationSettings")


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the settings that were given in `settings`."""
    usage = "axe-hf distill TEACHER DATA [DATA ...] [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    text = "encoder-decoder to learn from: a folder, or a name on the Hub"
    parser.add_argument("teacher", metavar="TEACHER", help=text)
    parser.add_argument("data", metavar="DATA", nargs="+", help=_DATA)
    group, declared = parser.add_argument_group("needed"), declared_settings()
    for name, text in _NEEDED.items():
        add_option(group, name, metavar="DIR" if name == "output_dir" else "CODE", help=text)
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        if title == "teacher":
            text = "tokenizer of the teacher, where it has none itself: a folder, or a name"
            add_option(group, "tokenizer", metavar="NAME", help=text)
        for name in names.split():
            add_field(group, declared[name], declared[name].help)
    options, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise unknown_option(unknown, declared)
    if missing := [flag(name) for name in _NEEDED if getattr(options, name) is None]:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
    options.settings, options.argv = given_settings(options, declared), argv
    return options


def run(options: argparse.Namespace) -> None:
    """Distill, and print what is left of how much, and what to do with it."""
    from ..teachers import DistillationSettings, distill, told_counts

    try:
        DistillationSettings(**options.settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    result = distill(
        options.teacher,
        options.data,
        options.output_dir,
        source_lang=options.source_lang,
        target_lang=options.target_lang,
        tokenizer=options.tokenizer,
        **options.settings,
    )
    if not result.is_main_process:
        return
    width = max(len(f"{count:,}") for count in result.counts.values())
    for text, count in told_counts(result.counts).items():
        print(f"{count:>{width},}  {text}")
    speed = result.sentences_per_second
    print(f"Mean score {result.mean_score:.4f} nats per token", end="")
    print("." if speed is None else f"; {speed:,.1f} sentences a second.")
    folder, teacher = (printable(shlex.quote(str(x))) for x in (result.folder, options.teacher))
    languages = f"--source-lang {options.source_lang} --target-lang {options.target_lang}"
    print(f"\nSaved the sentence pairs in {folder}.")
    print(
        f"Try: axe-hf train {printable(languages)} --train-file {folder} --init-from {teacher} ..."
    )


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C: how to go on."""
    if not Path(options.output_dir).is_dir():
        return f"Nothing was written to {options.output_dir}."
    command = shlex.join(["axe-hf", "distill", *options.argv])
    return f"The shards that were done are kept. Go on by the same command: {command}"
