"""A fairseq dictionary, and the tokenizer that it is."""

from dataclasses import asdict
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers.utils import logging

from ..data.tokenizer import plain_settings
from .tokenization_fairseq import JOINER, UNK, BpeCodes, FairseqTokenizer, MosesSettings

logger = logging.get_logger(__name__)

# Mask-Predict's, in the order of their ids. Its model never sees the first: our blank.
SPECIAL_SYMBOLS = BLANK, PAD, EOS, _, MASK = ("<s>", "<pad>", "</s>", UNK, "<mask>")
_OVERWRITE = "#fairseq:overwrite"
# Private: behind a symbol that stands in the file twice, of which the last line counts.
_AGAIN = "\ue000"


def read_dictionary(path: str | Path) -> list[str]:
    """The symbols of a `dict.txt` by their ids, the special ones in front.

    A line is a symbol, a space, and how often it was counted; an id is a place in this order.
    Lines `madeupword0000 0` fill the number up, and are symbols as others.

    Raises:
        ValueError: a line of another form, or a file that is not UTF-8.
    """
    words = []
    for number, line in enumerate(_lines(path), start=1):
        symbol, _, count = line.rstrip().removesuffix(_OVERWRITE).rstrip().rpartition(" ")
        if not count.removeprefix("-").isdecimal() or len(line) <= len(count) + 1:
            expected = "a symbol, a space and a count"
            raise ValueError(f"{path}, line {number}: must be {expected}, got {line!r:.80}.")
        words.append(symbol)
    pieces = [word for word in words if word.startswith("▁")]
    if 10 * len(pieces) > len(words):
        problem = f"{path} holds the pieces of a sentencepiece model, such as {pieces[0]!r}"
        advice = "The original Mask-Predict had none, and their scores stand in no dictionary"
        raise ValueError(f"{problem}. {advice}: words or BPE codes can be imported.")
    return [*SPECIAL_SYMBOLS, *words]


def _lines(path: str | Path) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line.removesuffix("\n") for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}.") from error


def joined_dictionary(source: str | Path, target: str | Path) -> list[str]:
    """The symbols of both sides, which must be the same; ValueError says where they are not."""
    symbols, others = read_dictionary(source), read_dictionary(target)
    if symbols != others:
        pairs = zip(symbols, others, strict=False)
        shorter = min(len(symbols), len(others))
        i = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
        a, b = (repr(s[i]) if i < len(s) else "nothing" for s in (symbols, others))
        problem = f"id {i} is {a} in {source} and {b} in {target}"
        advice = "A CMLM here has one vocabulary for both sides (preprocess.py --joined-dictionary)"
        raise ValueError(f"The dictionaries must be the same, but {problem}. {advice}.")
    return symbols


def read_codes(path: str | Path) -> list[str]:
    """The lines of a file of BPE codes, checked."""
    lines = _lines(path)
    try:
        merges = BpeCodes(lines).ranks
        if all(second.isdecimal() for _, second in merges):
            found = "counts, as a dictionary does, and" if merges else ""
            raise ValueError(" ".join(f"it holds {found} no merges".split()))
    except ValueError as error:
        advice = "Codes of subword-nmt are read; fastBPE's are after cut -d' ' -f1,2, with the "
        advice += "line '#version: 0.2' on top."
        raise ValueError(f"{path}, {error}. {advice}") from error
    return lines


def _vocabulary(symbols: list[str]) -> dict[str, int]:
    """Ids by symbol. Of equal lines the last is what text is looked up to, but for special ones."""
    ids: dict[str, int] = {}
    repeated = []
    for i, symbol in enumerate(symbols):
        if symbol in ids:
            repeated.append(symbol)
            is_special = ids[symbol] < len(SPECIAL_SYMBOLS)
            hidden = i if is_special else ids[symbol]
            ids[symbol] = ids[symbol] if is_special else i
            while symbol in ids:
                symbol += _AGAIN
            ids[symbol] = hidden
        else:
            ids[symbol] = i
    if repeated:
        shown = ", ".join(map(repr, repeated[:10]))
        logger.warning(
            f"The dictionary has {len(repeated)} symbols twice; the last counts: {shown}"
        )
    return ids


def tokenizer_of(
    symbols: list[str], codes: list[str] | None, moses: MosesSettings | None
) -> FairseqTokenizer:
    """The tokenizer of a dictionary; `codes` are the lines of a file of BPE codes."""
    vocabulary = _vocabulary(symbols)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    # A text that spells a special symbol does not become it.
    spelt = "|".join(symbol for symbol in SPECIAL_SYMBOLS if symbol != UNK)
    tokenizer.normalizer = normalizers.Replace(Regex(rf"(?<!\S)(?:{spelt})(?!\S)"), UNK)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with_spaces = decoders.WordPiece(prefix=2 * _AGAIN, cleanup=False)  # no symbol begins so
    steps = [with_spaces, decoders.Fuse(), decoders.Replace(Regex(f"{_AGAIN}+"), "")]
    if any(symbol.endswith(JOINER) for symbol in symbols):
        steps += [decoders.Replace(Regex(f"{JOINER}(?: |$)"), "")]
    tokenizer.decoder = decoders.Sequence(steps)
    eos = [(EOS, SPECIAL_SYMBOLS.index(EOS))]
    tokenizer.post_processor = TemplateProcessing(f"$A {EOS}", f"$A {EOS} $B {EOS}", eos)
    return FairseqTokenizer(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        mask_token=MASK,
        extra_special_tokens={"blank_token": BLANK},
        **plain_settings(),
        moses=None if moses is None else asdict(moses),
        bpe_codes=codes,
    )


def warn_of_text(symbols: list[str], codes: list[str] | None, moses: MosesSettings | None) -> None:
    """Warn where the dictionary shows marks of another preparation than what was said of it."""
    found = []
    if moses is None and {"&apos;", "&quot;"} & {*symbols}:
        found.append(
            "it has '&apos;' or '&quot;', as Moses writes them, and no Moses was asked for"
        )
    if moses is not None and "@-@" in symbols and not moses.aggressive_dash_splits:
        found.append("it has '@-@', as Moses writes hyphens with aggressive_dash_splits")
    if moses is not None and moses.escape and not any(s.startswith("&") for s in symbols):
        found.append("it has no '&apos;' or '&quot;', which Moses writes with escape")
    if codes is None and any(s.endswith(JOINER) for s in symbols):
        found.append(f"it has pieces in {JOINER!r}, and no BPE codes were given: texts must be cut")
    for words in found:
        logger.warning(f"Does the dictionary fit the rest? {words[0].upper()}{words[1:]}.")
