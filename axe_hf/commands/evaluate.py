"""`axe-hf evaluate`."""

import argparse
import json
import time
from typing import Any

from ..output import write_text
from .models import add_model_options, check_model_options, load_model, load_rescorer
from .parsing import (
    OFFERED_SETTINGS,
    CommandParser,
    UsageError,
    add_generation_options,
    add_option,
    check_output,
    flag,
    generation_settings,
)

_DESCRIPTION = """\
Translates the source side of a file of sentence pairs and scores the result against the target
side; or scores translations that you have already. Prints BLEU and chrF with their sacreBLEU
signatures, how much of the text is repeated words, how long it is compared to the references, and
the speed.

DATA: JSON lines {"translation": {"en": "...", "de": "..."}}, where a list of right translations may
stand under "references"; or source, tab, target; or two text files "test.en,test.de"; .gz too.
"""
_EXAMPLES = """\
examples:
  axe-hf evaluate my_model test.tsv --source-lang en --target-lang de --num-iterations 4
  axe-hf evaluate my_model test.en,test.de --source-lang en --target-lang de --output scores.json
  axe-hf evaluate --translations system.de --references first.de second.de

Texts are compared as they are; sacreBLEU splits them into words itself.
"""
# Options of how a model runs, which mean nothing without one.
_OF_RUNNING = ("device", "int8", "rescore_with")


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    parser = CommandParser(
        prog="axe-hf evaluate",
        usage="axe-hf evaluate MODEL DATA --source-lang L --target-lang L [OPTIONS]\n"
        "       axe-hf evaluate --translations FILE --references FILE [FILE ...] [OPTIONS]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_model_options(parser, is_model_required=False)
    parser.add_argument("data", metavar="DATA", nargs="?", help="sentence pairs")
    texts = parser.add_argument_group("what to score (UTF-8)")
    add_option(texts, "source_lang", metavar="L", help="code of the source language in DATA")
    add_option(texts, "target_lang", metavar="L", help="code of the target language in DATA")
    add_option(texts, "translations", metavar="FILE", help="translations to score, one a line")
    add_option(
        texts,
        "references",
        metavar="FILE",
        nargs="+",
        help="right translations of the same lines; in a second file and further, lines may be "
        "empty",
    )
    results = parser.add_argument_group("results")
    add_option(results, "output", metavar="FILE", help="write the scores here too, as JSON")
    add_option(results, "overwrite", action="store_true", help="replace the output file")
    add_generation_options(parser)
    options = parser.parse_intermixed_args(argv)
    _check(options)
    check_model_options(options)
    options.generation = generation_settings(options)
    return options


def _check(options: argparse.Namespace) -> None:
    """Either a model, data and languages, or translations, references and no model's options."""
    of_model = ("model", "data", "source_lang", "target_lang")
    of_texts = ("translations", "references")
    given = {n for n in (*of_model, *of_texts) if getattr(options, n) is not None}
    needed = of_texts if given & set(of_texts) else of_model
    missing = [_shown(n) for n in needed if n not in given]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
    if needed == of_texts and given - set(of_texts):
        raise UsageError("give either MODEL and DATA or --translations and --references, not both")
    if needed == of_texts:
        useless = [n for n in _OF_RUNNING if getattr(options, n)]
        useless += [n for n in OFFERED_SETTINGS if hasattr(options, n)]
        if useless:
            raise UsageError(
                f"{', '.join(map(_shown, useless))}: for a MODEL only, and --translations need none"
            )


def _shown(name: str) -> str:
    """An argument as it is written on the command line."""
    return {"model": "MODEL", "data": "DATA"}.get(name, flag(name))


def run(options: argparse.Namespace) -> None:
    """Score, print, and write the scores."""
    check_output(options.output, overwrite=options.overwrite)
    from ..evaluation import TranslationMetric  # before any work: it may be missing

    is_given = options.translations is not None
    translations, references, facts = (_read if is_given else _translate)(options)
    scores = TranslationMetric().compute(predictions=translations, references=references)
    results = {"num_sentences": len(translations), **(scores or {}), **facts}
    if options.output is not None:
        write_text(options.output, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(_table(results))


def _translate(options: argparse.Namespace) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """Translations of DATA, its references, and how it was done."""
    from .. import load_translations
    from ..translation import translate

    languages = {"source_lang": options.source_lang, "target_lang": options.target_lang}
    rows = load_translations(options.data, **languages)
    model, tokenizer = load_model(options.model, options.device, is_int8=options.int8)
    rescorer = load_rescorer(options)
    sources = [pair[options.source_lang] for pair in rows["translation"]]
    if "references" in rows.column_names:
        references = [list(references) for references in rows["references"]]
    else:
        references = [[pair[options.target_lang]] for pair in rows["translation"]]
    start = time.perf_counter()
    translations = translate(
        model, tokenizer, sources, batch_size=options.batch_size, **options.generation, **rescorer
    )
    seconds = time.perf_counter() - start
    decoding = {name: getattr(model.generation_config, name) for name in OFFERED_SETTINGS}
    facts = {
        "model": options.model,
        "data": options.data,
        **languages,
        "decoding": decoding | options.generation,
        "int8": options.int8,
        "rescore_with": options.rescore_with,
        "batch_size": options.batch_size,
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
            raise ValueError(
                f"--references: {path} must have as many lines as {options.translations}, "
                f"{len(translations)}, got {len(lines)}."
            )
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
    if "seconds" in results:
        lines.append(
            f"speed            {results['sentences_per_second']:8.1f}  sentences/s on "
            f"{results['device']}, {results['batch_size']} at once, in {results['seconds']:.1f} s"
        )
    return "\n".join(lines)


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return "" if options.output is None else f"Nothing was written to {options.output}."
