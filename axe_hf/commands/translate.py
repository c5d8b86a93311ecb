"""`axe-hf translate`."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from ..output import printable, write_text
from . import models
from .options import CommandParser, UsageError, add_option, flag

_DESCRIPTION = """\
Translates sentences: those on the command line, the lines of a file, or those of standard input.
Prints one translation a line, in the same order; an empty line stays empty. Standard input is
answered as its lines come: a program may write a line and read its translation. On a terminal it
asks for sentences.
"""
_EXAMPLES = """\
examples:
  axe-hf translate my_model "Where is the station?" "I am hungry."
  axe-hf translate my_model --input news.en --output news.de --num-iterations 4
  tail -f news.en | axe-hf translate my_model --scores
  axe-hf translate my_model --split-sentences --input letter.txt --output brief.txt
  axe-hf translate my_model --target-lang de "Where is the station?"
  axe-hf translate my_model --show-steps --num-iterations 4 "Where is the station?"
  axe-hf translate my_model --num-length-candidates 5 --n-best 3 --format tsv "Hi!"
  axe-hf translate my_model --num-length-candidates 5 --rescore-with teacher < news.en

Sentences stand one a line; several in a line are translated as one, unless --split-sentences.
"""
_SHOW_STEPS = (
    'print how each sentence is filled in: "_" again, "ε" blank, "·" goes on inside a word'
)
_NUM_RETURNED = "translations of each sentence, best first, up to --num-length-candidates (1)"
_FORMAT = "text; tsv: number of the sentence, score in nats, translation; jsonl: a list for each"
_SCORES = (
    "put the score and a tab in front of each translation: nats per token; tsv and jsonl have it"
)
_DOCUMENT = (
    "take the whole input as a text, whose blank lines, indents and line ends stay as they are"
)
_SPLIT = 'the same, and translate the sentences of each line one by one (extra "documents")'
_SOURCE = "language of the sentences, by which they are split; by default the model's"
_TARGET = "language to translate into, of a model that knows several"
# Lines that are sorted by length and translated together, of a pipe that has so many, per batch.
_BATCHES_AT_ONCE = 64


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
    how: dict[str, Any] = {"type": models.positive_int, "default": 1, "metavar": "N"}
    how["dest"] = "n_best"
    files.add_argument("--n-best", "--num-return-sequences", **how, help=_NUM_RETURNED)
    files.add_argument("--n_best", "--num_return_sequences", **how, help=argparse.SUPPRESS)
    add_option(files, "scores", action="store_true", help=_SCORES)
    add_option(files, "format", choices=("text", "tsv", "jsonl"), default="text", help=_FORMAT)
    add_option(files, "show_steps", action="store_true", help=_SHOW_STEPS)
    add_option(files, "document", action="store_true", help=_DOCUMENT)
    add_option(files, "split_sentences", action="store_true", help=_SPLIT)
    add_option(files, "source_lang", metavar="L", help=_SOURCE)
    add_option(files, "target_lang", metavar="L", help=_TARGET)
    options = models.parse_with_decoding(parser, argv)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together."""
    options.document |= options.split_sentences
    many = {"--n-best": options.n_best > 1, "--format": options.format != "text"}
    many["--scores"] = options.scores
    if options.show_steps and any(many.values()):
        raise UsageError("--show-steps shows one text: drop --n-best, --scores and --format")
    if options.document and (wrong := [n for n, is_given in many.items() if is_given]):
        given = flag("split_sentences" if options.split_sentences else "document")
        raise UsageError(f"{given} gives one text for each: leave out {' and '.join(wrong)}")
    if options.document and options.show_steps:
        raise UsageError("--show-steps shows sentences: leave out --document, --split-sentences")
    if options.texts and options.input is not None:
        raise UsageError("give sentences either as TEXT or in --input, not both")


def run(options: argparse.Namespace) -> None:
    """Translate; with `--output` nothing is written unless all is translated."""
    models.check_output(options)
    from ..data import read_lines

    options.num_done = None
    is_live = not options.document and not options.texts and options.input is None
    if options.document:
        _write(_documents(options), options)
    elif is_live and options.output is None:
        options.num_done = 0
        for lines in _answers(_Translator.of(options), options):
            sys.stdout.writelines(map(printable, lines) if sys.stdout.isatty() else lines)
            sys.stdout.flush()
    else:
        texts = options.texts or read_lines(options.input)
        _write(_Translator.of(options).lines(texts), options)


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    if (number := getattr(options, "num_done", None)) is not None:
        return f"{number} lines were translated."
    return models.after_interrupt(options)


def _write(lines: list[str], options: argparse.Namespace) -> None:
    if options.output is not None:
        write_text(options.output, "".join(lines))
    elif not options.show_steps:
        sys.stdout.writelines(map(printable, lines) if sys.stdout.isatty() else lines)


@dataclass(frozen=True)
class _Translator:
    """A model with all that was asked of it."""

    model: Any
    tokenizer: Any
    settings: dict[str, Any]  # of `translate_with_scores`
    options: argparse.Namespace

    @classmethod
    def of(cls, options: argparse.Namespace) -> "_Translator":
        model, tokenizer = models.load_model(options)
        settings = options.generation | models.load_rescorer(options)
        if options.target_lang is not None:
            settings["target_lang"] = options.target_lang
        known = model.config.source_languages
        if options.source_lang is not None and known and options.source_lang not in known:
            raise ValueError(f"--source-lang: must be one of {known}, got {options.source_lang!r}.")
        return cls(model, tokenizer, settings, options)

    def lines(self, texts: list[str], first: int = 1, **more: Any) -> list[str]:
        """What is printed of sentences whose first is number `first`."""
        from ..translation import numbered_from, translate_with_scores

        options = self.options
        if options.show_steps:
            found = [_with_steps(self.model, self.tokenizer, text, self.settings) for text in texts]
        else:
            more |= {"batch_size": options.batch_size, "num_return_sequences": options.n_best}
            settings = self.settings | more
            with numbered_from(first):
                found = translate_with_scores(self.model, self.tokenizer, texts, **settings)
        numbered = enumerate(found, start=first)
        return [line + "\n" for n, best in numbered for line in _lines(n, best, options)]

    @property
    def source_language(self) -> str | None:
        """What was said, or else is known."""
        known = [n for n in self.model.config.source_languages if n != self.options.target_lang]
        return self.options.source_lang or (known[0] if len(known) == 1 else None)


def _answers(translator: _Translator, options: argparse.Namespace) -> Iterator[list[str]]:
    """What is printed of standard input, as its lines come."""
    from tqdm.auto import tqdm

    from ..data import arriving_lines

    is_asked, most = sys.stdin.isatty(), options.batch_size * _BATCHES_AT_ONCE
    piped: Any = sys.stdin.buffer
    windows = _typed() if is_asked else arriving_lines(piped, "standard input", most)
    # A bar on a terminal, but never between what is printed there.
    disable = True if is_asked or sys.stdout.isatty() else None
    with tqdm(desc="Translating", unit=" sentences", disable=disable) as bar:
        for texts in windows:
            lines = translator.lines(texts, options.num_done + 1, show_progress=False)
            yield [] if options.show_steps else lines
            options.num_done += len(texts)
            bar.update(len(texts))


def _typed() -> Iterator[list[str]]:
    """What is typed on a terminal, line by line."""
    with suppress(ImportError):  # the line can be edited, and called back
        import readline  # noqa: F401
    print("Type sentences, one a line; end with Ctrl-D.", file=sys.stderr, flush=True)
    for number in count(1):
        try:
            yield [_asked("> ")]
        except EOFError:
            print(file=sys.stderr)
            return
        except UnicodeDecodeError:
            print(f"Line {number} is not {sys.stdin.encoding}: type it again.", file=sys.stderr)


def _asked(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # into no file
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.rstrip("\n")


def _documents(options: argparse.Namespace) -> list[str]:
    """The translations of whole texts."""
    from ..data import read_text
    from ..documents import split_document

    if not options.texts and options.input is None and sys.stdin.isatty():
        print("Type a text; end with Ctrl-D.", file=sys.stderr, flush=True)
    texts = [text + "\n" for text in options.texts] or [read_text(options.input)]
    translator = _Translator.of(options)
    how = {"split_sentences": options.split_sentences}
    documents = [split_document(text, translator.source_language, **how) for text in texts]
    sentences = [sentence for document in documents for sentence in document.sentences]
    found = iter(translator.lines(sentences))
    return [
        document.joined([next(found).removesuffix("\n") for _ in document.sentences])
        for document in documents
    ]


def _lines(number: int, translations: list[Any], options: argparse.Namespace) -> list[str]:
    """The translations of a sentence; a line is a line, whatever a tokenizer makes of it."""
    if options.format == "jsonl":
        return [json.dumps([vars(found) for found in translations], ensure_ascii=False)]
    start = "{0}\t{1:.4f}\t" if options.format == "tsv" else "{1:.4f}\t" if options.scores else ""
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
        text = model.config.tagged(text, settings.get("target_lang"))
        settings = {**settings, "output_history": True, "return_dict_in_generate": True}
        generate = model.generate
        settings.pop("target_lang", None)
        if rescore_with := settings.pop("rescore_with", None):
            generate = partial(generate_rescored, model, tokenizer, rescore_with)
        limit = {"truncation": True, "max_length": model.config.max_source_length}
        inputs = tokenizer([valid_unicode(text)], return_tensors="pt", **limit)
        print(format_history(generate(**inputs.to(model.device), **settings), tokenizer))
    print(f"{printable(found[0].text)}\n", flush=True)
    return found
