"""`axe-hf translate`."""

import argparse
import json
import sys
from functools import partial
from typing import Any

from ..output import printable, write_text
from . import models
from .options import CommandParser, UsageError, add_option

after_interrupt = models.after_interrupt
_DESCRIPTION = """\
Translates sentences: those on the command line, the lines of a file, or those of standard input.
Prints one translation a line, in the same order; an empty line stays empty.
"""
_EXAMPLES = """\
examples:
  axe-hf translate my_model "Where is the station?" "I am hungry."
  axe-hf translate my_model --input news.en --output news.de --num-iterations 4
  cat news.en | axe-hf translate my_model > news.de
  axe-hf translate my_model --show-steps --num-iterations 4 "Where is the station?"
  axe-hf translate my_model --num-length-candidates 5 --num-return-sequences 3 --format tsv "Hi!"
  axe-hf translate my_model --num-length-candidates 5 --rescore-with teacher < news.en

Long texts must be split into sentences first, one a line.
"""
_SHOW_STEPS = (
    'print how each sentence is filled in: "_" again, "ε" blank, "·" goes on inside a word'
)
_NUM_RETURNED = "translations of each sentence, best first, up to --num-length-candidates (1)"
_FORMAT = "text; tsv: number of the sentence, score in nats, translation; jsonl: a list for each"


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    usage = "axe-hf translate MODEL [TEXT ...] [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    models.add_model_options(parser, is_model_required=True)
    text = "sentences; none: standard input"
    parser.add_argument("texts", metavar="TEXT", nargs="*", default=[], help=text)
    files = parser.add_argument_group("input and output (UTF-8)")
    add_option(files, "input", metavar="FILE", help="read sentences from here, one a line")
    models.add_output_options(files, "write translations here, all or nothing")
    how = {"type": models.positive_int, "default": 1, "metavar": "N", "help": _NUM_RETURNED}
    add_option(files, "num_return_sequences", **how)
    add_option(files, "format", choices=("text", "tsv", "jsonl"), default="text", help=_FORMAT)
    add_option(files, "show_steps", action="store_true", help=_SHOW_STEPS)
    options = models.parse_with_decoding(parser, argv)
    if options.show_steps and (options.num_return_sequences > 1 or options.format != "text"):
        raise UsageError("--show-steps shows one text: drop --num-return-sequences and --format")
    if options.texts and options.input is not None:
        raise UsageError("give sentences either as TEXT or in --input, not both")
    return options


def run(options: argparse.Namespace) -> None:
    """Translate; with `--output` nothing is written unless all is translated."""
    models.check_output(options)
    from ..data import read_lines
    from ..translation import translate_with_scores

    texts = options.texts or read_lines(options.input)
    model, tokenizer = models.load_model(options)
    settings = options.generation | models.load_rescorer(options)
    if options.show_steps:
        translations = [_with_steps(model, tokenizer, text, settings) for text in texts]
    else:
        settings |= {n: getattr(options, n) for n in ("batch_size", "num_return_sequences")}
        translations = translate_with_scores(model, tokenizer, texts, **settings)
    numbered = enumerate(translations, start=1)
    lines = [line + "\n" for n, best in numbered for line in _lines(n, best, options.format)]
    if options.output is not None:
        write_text(options.output, "".join(lines))
    elif not options.show_steps:
        sys.stdout.writelines(map(printable, lines) if sys.stdout.isatty() else lines)


def _lines(number: int, translations: list[Any], kind: str) -> list[str]:
    """The translations of a sentence; a line is a line, whatever a tokenizer makes of it."""
    if kind == "jsonl":
        return [json.dumps([vars(found) for found in translations], ensure_ascii=False)]
    start = "{}\t{:.4f}\t" if kind == "tsv" else ""
    texts = [start.format(number, found.score) + found.text for found in translations]
    return [text.replace("\n", " ") for text in texts]


def _with_steps(model: Any, tokenizer: Any, text: str, settings: dict[str, Any]) -> list:
    """Print the sentence, the iterations and the translation, which is returned alone."""
    import torch

    from ..history import format_history
    from ..pipeline import is_visible, valid_unicode
    from ..rescoring import generate_rescored
    from ..translation import translate_with_scores

    print(printable(text))
    with torch.random.fork_rng():  # drawn tokens are drawn alike below
        (found,) = translate_with_scores(model, tokenizer, [text], show_progress=False, **settings)
    if is_visible(text):
        settings = {**settings, "output_history": True, "return_dict_in_generate": True}
        generate = model.generate
        if rescore_with := settings.pop("rescore_with", None):
            generate = partial(generate_rescored, model, tokenizer, rescore_with)
        limit = {"truncation": True, "max_length": model.config.max_source_length}
        inputs = tokenizer([valid_unicode(text)], return_tensors="pt", **limit)
        print(format_history(generate(**inputs.to(model.device), **settings), tokenizer))
    print(f"{printable(found[0].text)}\n", flush=True)
    return found
