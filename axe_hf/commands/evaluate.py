"""`axe-hf evaluate`."""

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

from ..output import write_text
from . import models
from .options import CommandParser, UsageError, add_option, flag

_SPLITS = ("test", "validation")
after_interrupt = models.after_interrupt
_USAGE = """\
axe-hf evaluate MODEL DATA --source-lang L --target-lang L [OPTIONS]
       axe-hf evaluate --translations FILE --references FILE [FILE ...] [OPTIONS]"""
_DESCRIPTION = """\
Translates the source side of sentence pairs and scores the result against the target side; or
scores translations that you have already.

DATA: JSON lines {"translation": {"en": "...", "de": "..."}}, where a list of right translations may
stand under "references"; or source, tab, target; or two text files "test.en,test.de"; .gz too; or
owner/name on the Hub or a folder, of which the split test is taken, else validation.
"""
_EXAMPLES = """\
examples:
  axe-hf evaluate my_model test.tsv --source-lang en --target-lang de --num-iterations 4
  axe-hf evaluate my_model test.en,test.de --source-lang en --target-lang de --output scores.json
  axe-hf evaluate --translations system.de --references first.de second.de
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    parser = CommandParser(usage=_USAGE, description=_DESCRIPTION, epilog=_EXAMPLES)
    models.add_model_options(parser, is_model_required=False)
    parser.add_argument("data", metavar="DATA", nargs="?", help="sentence pairs")
    texts = parser.add_argument_group("what to score, and where to (UTF-8)")
    add_option(texts, "source_lang", metavar="L", help="code of the source language in DATA")
    add_option(texts, "target_lang", metavar="L", help="code of the target language in DATA")
    add_option(texts, "split", metavar="NAME", help="split of a DATA on the Hub or in a folder")
    add_option(texts, "translations", metavar="FILE", help="translations to score, one a line")
    text = "right translations of the same lines; in a second file and further, lines may be empty"
    add_option(texts, "references", metavar="FILE", nargs="+", help=text)
    text = "BLEU's tokenizer; by default zh, ja-mecab or char for such target languages, else 13a"
    add_option(texts, "tokenize", metavar="NAME", help=text)
    models.add_output_options(texts, "write the scores here too, as JSON")
    options = models.parse_with_decoding(parser, argv)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    """Either a model, data and languages, or translations, references and no model's options."""

    def shown(names: Iterable[str]) -> str:
        return ", ".join({"model": "MODEL", "data": "DATA"}.get(n, flag(n)) for n in names)

    given = {name for name, value in vars(options).items() if value}
    of_model = ["model", "data", "source_lang", "target_lang"]
    of_texts = ["translations", "references"]
    needed = of_texts if given & {*of_texts} else of_model
    if missing := [name for name in needed if name not in given]:
        raise UsageError(f"the following arguments are required: {shown(missing)}")
    if needed == of_model:
        return
    if given & {"model", "data", "source_lang"}:
        raise UsageError("give either MODEL and DATA or --translations and --references, not both")
    running = ("device", "int8", "rescore_with", "split")
    if useless := [*(name for name in running if name in given), *options.generation]:
        raise UsageError(f"{shown(useless)}: for a MODEL only, and --translations need none")


def run(options: argparse.Namespace) -> None:
    """Score, print, and write the scores."""
    models.check_output(options)
    from ..evaluation import TranslationMetric, default_tokenize  # before any work: may be missing

    metric = TranslationMetric(tokenize=options.tokenize or default_tokenize(options.target_lang))
    is_given = options.translations is not None
    translations, references, facts = (_read if is_given else _translate)(options)
    scores = metric.compute(predictions=translations, references=references)
    results = {"num_sentences": len(translations), **(scores or {}), **facts}
    if options.output is not None:
        write_text(options.output, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(_table(results))


def _translate(options: argparse.Namespace) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """Translations of DATA, its references, and how it was done."""
    from .. import load_translations
    from ..translation import translate

    source, target = options.source_lang, options.target_lang
    languages = {"source_lang": source, "target_lang": target}
    rows = load_translations(options.data, **languages, split=options.split or _SPLITS)
    model, tokenizer = models.load_model(options)
    settings = options.generation | models.load_rescorer(options)
    settings["batch_size"] = options.batch_size
    if len(model.config.target_languages) > 1:  # else DATA may call its language otherwise
        settings["target_lang"] = target
    pairs = rows["translation"]
    references = [[pair[target]] for pair in pairs]
    if "references" in rows.column_names:
        references = [list(references) for references in rows["references"]]
    start = time.perf_counter()
    translations = translate(model, tokenizer, [pair[source] for pair in pairs], **settings)
    seconds = time.perf_counter() - start
    decoding = {name: getattr(model.generation_config, name) for name in models.OFFERED_SETTINGS}
    if decoding["collapse_repeats"] is None:
        decoding["collapse_repeats"] = model.config.allow_repetition
    asked = ("model", "data", "source_lang", "target_lang", "int8", "rescore_with", "batch_size")
    facts = {name: getattr(options, name) for name in asked} | {
        "int8": getattr(model, "is_int8", options.int8),  # as it was exported
        "split": rows.split and str(rows.split),
        "decoding": decoding | options.generation,
        "device": str(model.device),
        "seconds": seconds,
        "sentences_per_second": len(translations) / seconds,
    }
    return translations, references, facts


def _read(options: argparse.Namespace) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """The lines of --translations, the references of each, one of each file, and the files."""
    from ..data import read_lines

    translations = read_lines(options.translations)
    columns = [read_lines(path) for path in options.references]
    for path, lines in zip(options.references, columns, strict=True):
        if len(lines) != len(translations):
            expected = f"as many lines as {options.translations}, {len(translations)}"
            raise ValueError(f"--references: {path} must have {expected}, got {len(lines)}.")
    facts = {"translations": options.translations, "references": options.references}
    return translations, [list(row) for row in zip(*columns, strict=True)], facts


def _table(results: dict[str, Any]) -> str:
    lines = [
        f"BLEU             {results['bleu']:8.2f}  {results['bleu_signature']}",
        f"chrF             {results['chrf']:8.2f}  {results['chrf_signature']}",
        f"repetition rate  {results['repetition_rate']:8.2%}  tokens equal to the one before",
        f"length ratio     {results['length_ratio']:8.3f}  translations over references, in tokens",
        f"brevity penalty  {results['brevity_penalty']:8.3f}",
        f"length error     {results['length_error']:8.2f}  tokens per sentence",
        f"sentences        {results['num_sentences']:8}",
    ]
    if results.get("split"):
        lines[-1] += f"  of the split {results['split']}"
    if "seconds" in results:
        lines.append(
            f"speed            {results['sentences_per_second']:8.1f}  sentences/s on "
            f"{results['device']}, {results['batch_size']} at once, in {results['seconds']:.1f} s"
        )
    return "\n".join(lines)
