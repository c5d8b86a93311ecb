"""`axe-hf import-fairseq`."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from ..output import check_new_folder, printable
from .options import CommandParser, UsageError, add_option, flag

_DESCRIPTION = """\
Imports a model that Mask-Predict's own program trained (bert_transformer_seq2seq, on fairseq):
weights, vocabulary and settings of decoding. The folder is a MODEL for "axe-hf translate",
"evaluate", "export" ..., takes raw text, and is loaded by Transformers.

CHECKPOINT: such as checkpoint_best.pt, or fairseq's average. It is read without running what is in
it. What the published weights allow, CC-BY-NC-4.0, is said in the model's card.
"""
_EXAMPLES = """\
examples:
  axe-hf import-fairseq checkpoint_best.pt --dict-source data/dict.en.txt \\
    --dict-target data/dict.de.txt --bpe-codes data/codes --source-lang en --target-lang de \\
    --moses-source-lang en --moses-target-lang de --moses-aggressive-dashes --output-dir my_model
  axe-hf import-fairseq checkpoint_best.pt --dict-source dict.txt --dict-target dict.txt \\
    --no-moses --output-dir my_model

How the data was tokenised before BPE is in no file: look into the script that prepared it, and say
it by --moses-..., or --no-moses. It needs more packages then: pip install "axe-hf[moses]".
"""
_MOSES = "language of {} for Moses, as in tokenizer.perl -l"
_FLAGS = {
    "moses_aggressive_dashes": ("aggressive_dash_splits", "tokenizer.perl -a: well @-@ known"),
    "moses_no_escape": ("escape", "tokenizer.perl -no-escape: no &apos; in place of an apostrophe"),
    "moses_normalize_punctuation": (
        "normalize_punctuation",
        "normalize-punctuation.perl went before",
    ),
    "moses_lowercase": ("lowercase", "lowercase.perl went after"),
}


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with what was said of Moses in `moses`, a dictionary or None."""
    usage = "axe-hf import-fairseq CHECKPOINT --dict-source F --dict-target F --output-dir DIR ..."
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="file that fairseq saved")
    group = parser.add_argument_group("files")
    add_option(group, "dict_source", metavar="FILE", help="dict.*.txt of the source (required)")
    add_option(group, "dict_target", metavar="FILE", help="the same of the target (required)")
    add_option(
        group, "bpe_codes", metavar="FILE", help="codes of subword-nmt; words are whole else"
    )
    add_option(group, "output_dir", metavar="DIR", help="folder to make (required)")
    group = parser.add_argument_group("how the texts were tokenised before BPE (one is required)")
    add_option(group, "no_moses", action="store_true", help="not by Moses: split at white space")
    for side in ("source", "target"):
        add_option(group, f"moses_{side}_lang", metavar="CODE", help=_MOSES.format(f"the {side}"))
    for name, (_, text) in _FLAGS.items():
        add_option(group, name, action="store_true", help=text)
    group = parser.add_argument_group("for the configuration and the card")
    for side in ("source", "target"):
        add_option(
            group, f"{side}_lang", metavar="CODE", help=f"language of the {side}, such as en"
        )
    text = "of the weights, such as apache-2.0, if they are your own (cc-by-nc-4.0)"
    add_option(group, "license", metavar="NAME", help=text)
    options = parser.parse_args(argv)
    _check(options)
    options.moses = _moses(options)
    return options


def _check(options: argparse.Namespace) -> None:
    required = ("dict_source", "dict_target", "output_dir")
    if missing := [flag(name) for name in required if getattr(options, name) is None]:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
    if (options.source_lang is None) != (options.target_lang is None):
        raise UsageError("give both --source-lang and --target-lang, or none of them")


def _moses(options: argparse.Namespace) -> dict[str, Any] | None:
    languages = [options.moses_source_lang, options.moses_target_lang]
    given = [flag(name) for name in _FLAGS if getattr(options, name)]
    if options.no_moses:
        if any(languages) or given:
            raise UsageError("give either --no-moses or --moses-..., not both")
        return None
    if None in languages:
        told = "say how the texts were tokenised: --moses-source-lang and --moses-target-lang"
        raise UsageError(f"{told}, or --no-moses. The script that prepared the data says it")
    how = {field: getattr(options, name) for name, (field, _) in _FLAGS.items()}
    how["escape"] = not how["escape"]
    return how | dict(zip(("source_lang", "target_lang"), languages, strict=True))


def run(options: argparse.Namespace) -> None:
    """Import, and say what to do with it."""
    folder = check_new_folder(options.output_dir, "--output-dir")
    for name in ("checkpoint", "dict_source", "dict_target", "bpe_codes"):
        path = getattr(options, name)
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(
                f"{'CHECKPOINT' if name == 'checkpoint' else flag(name)}: there is no file {path}."
            )
    from .. import MosesSettings, import_fairseq

    size = Path(options.checkpoint).stat().st_size / 2**20
    print(printable(f"Reading {options.checkpoint}, {size:,.0f} MiB ..."), flush=True)
    languages = [options.source_lang, options.target_lang]
    hyphen = ":" if any(code and "-" in code for code in languages) else "-"
    import_fairseq(
        options.checkpoint,
        folder,
        dict_source=options.dict_source,
        dict_target=options.dict_target,
        moses=None if options.moses is None else MosesSettings(**options.moses),
        bpe_codes=options.bpe_codes,
        direction=hyphen.join(languages) if options.source_lang else None,
        license=options.license,
    )
    written = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(printable(f"Wrote {folder}, {written:,.0f} MiB. Its README.md says what it is."))
    print(f'Try: axe-hf translate {printable(shlex.quote(str(folder)))} "..."')


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return f"Nothing was written to {options.output_dir}."
