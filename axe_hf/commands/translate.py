"""`axe-hf translate`."""

import argparse
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
  axe-hf translate my_model --num-length-candidates 5 --rescore-with teacher < news.en

Long texts must be split into sentences first, one a line.
"""
_SHOW_STEPS = (
    'print how each sentence is filled in: "_" again, "ε" blank, "·" goes on inside a word'
)


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
    add_option(files, "show_steps", action="store_true", help=_SHOW_STEPS)
    options = models.parse_with_decoding(parser, argv)
    if options.texts and options.input is not None:
        raise UsageError("give sentences either as TEXT or in --input, not both")
    return options


def run(options: argparse.Namespace) -> None:
    """Translate; with `--output` nothing is written unless all is translated."""
    models.check_output(options)
    from ..data import read_lines
    from ..translation import translate

    texts = options.texts or read_lines(options.input)
    model, tokenizer = models.load_model(options)
    settings = options.generation | models.load_rescorer(options)
    if options.show_steps:
        translations = [_with_steps(model, tokenizer, text, settings) for text in texts]
    else:
        settings["batch_size"] = options.batch_size
        translations = translate(model, tokenizer, texts, **settings)
    # A line is a line, whatever a tokenizer makes of it.
    lines = [" ".join(translation.split("\n")) + "\n" for translation in translations]
    if options.output is not None:
        write_text(options.output, "".join(lines))
    elif not options.show_steps:
        sys.stdout.writelines(map(printable, lines) if sys.stdout.isatty() else lines)


def _with_steps(model: Any, tokenizer: Any, text: str, settings: dict[str, Any]) -> str:
    """Print the sentence, the iterations and the translation, which is returned."""
    import torch

    from ..history import format_history
    from ..rescoring import generate_rescored
    from ..translation import translate

    print(printable(text))
    with torch.random.fork_rng():  # drawn tokens are drawn alike below
        (translation,) = translate(model, tokenizer, [text], show_progress=False, **settings)
    if text.strip():
        settings = {**settings, "output_history": True, "return_dict_in_generate": True}
        generate = model.generate
        if rescore_with := settings.pop("rescore_with", None):
            generate = partial(generate_rescored, model, tokenizer, rescore_with)
        limit = model.config.max_source_length
        inputs = tokenizer([text], return_tensors="pt", truncation=True, max_length=limit)
        print(format_history(generate(**inputs.to(model.device), **settings), tokenizer))
    print(f"{printable(translation)}\n", flush=True)
    return translation
