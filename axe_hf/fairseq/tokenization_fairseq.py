"""The tokenizer of an imported model: raw text, Moses, subword-nmt's BPE, fairseq's dictionary.

This file imports nothing of the package: `save_pretrained` copies it beside the tokenizer, for
those who load it by `AutoTokenizer.from_pretrained(..., trust_remote_code=True)`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerFast

END_OF_WORD, JOINER, UNK = "</w>", "@@", "<unk>"
VERSIONS = {"0.1": False, "0.2": True}  # of codes: whether a word's end belongs to its last letter
_HEADER = re.compile(r"#version:\s*(\d+\.\d+)(?:\.0)*\s*")


@dataclass(frozen=True)
class MosesSettings:
    """How the texts that a model was trained on were tokenised by Moses, before any BPE.

    It is what the script that prepared the data said, and stands in no checkpoint: for instance
    `normalize-punctuation.perl -l en | tokenizer.perl -a -l en` is
    `MosesSettings("en", ..., normalize_punctuation=True, aggressive_dash_splits=True)`.

    Args:
        source_lang, target_lang: the languages by Moses's codes, of `tokenizer.perl -l`.
        aggressive_dash_splits (default False): a hyphen inside a word is "@-@" (`-a`).
        escape (default True): "&apos;" in place of an apostrophe and the like; False is
            `-no-escape`.
        normalize_punctuation (default False): `normalize-punctuation.perl` went first.
        lowercase (default False): `lowercase.perl` went last.

    Example:
        >>> from axe_hf import MosesSettings
        >>> MosesSettings("en", "de", aggressive_dash_splits=True).escape
        True
    """

    source_lang: str
    target_lang: str
    aggressive_dash_splits: bool = False
    escape: bool = True
    normalize_punctuation: bool = False
    lowercase: bool = False

    def tokenized(self, text: str, language: str) -> str:
        """`text` in tokens with spaces between; ImportError without sacremoses."""
        if self.normalize_punctuation:
            text = _moses("MosesPunctNormalizer", language).normalize(text)
        how = {"aggressive_dash_splits": self.aggressive_dash_splits, "escape": self.escape}
        text = _moses("MosesTokenizer", language).tokenize(text, return_str=True, **how)
        return text.lower() if self.lowercase else text

    def detokenized(self, text: str) -> str:
        """What a person would write for tokens of the target language."""
        how = {"unescape": self.escape}
        return _moses("MosesDetokenizer", self.target_lang).detokenize(text.split(), **how)


@lru_cache(maxsize=64)
def _moses(kind: str, language: str) -> Any:
    try:
        import sacremoses
    except ImportError as error:
        problem = "The texts of this model are tokenised by Moses, and sacremoses is missing"
        raise ImportError(f'{problem}: python -m pip install "axe-hf[moses]"') from error
    return getattr(sacremoses, kind)(lang=language)


class BpeCodes:
    """Byte pair encoding (Sennrich et al., ACL 2016) by a file of merges, as of subword-nmt.

    Args:
        lines: of the file, with its `#version:` if it has one: without, it is 0.1, in which the end
            of a word is a symbol of its own; in 0.2 it is a part of the last letter.

    Raises:
        ValueError: another version, or a line that is not two symbols; its number is named.
    """

    def __init__(self, lines: Sequence[str]):
        header = _HEADER.fullmatch(lines[0]) if lines else None
        version = header[1] if header else "0.1"
        if version not in VERSIONS:
            raise ValueError(f"line 1: the version must be 0.1 or 0.2, got {version}")
        self.is_end_attached = VERSIONS[version]
        self.ranks: dict[tuple[str, str], int] = {}
        for number, line in enumerate(lines, start=1):
            pair = line.strip("\r\n ").split(" ")
            if number == 1 and header:
                continue
            if len(pair) != 2:
                raise ValueError(
                    f"line {number}: must be two symbols and a space, got {line!r:.80}"
                )
            self.ranks.setdefault((pair[0], pair[1]), number)
        self._known: dict[str, tuple[str, ...]] = {}

    def segment(self, word: str) -> tuple[str, ...]:
        """The pieces of a word, `JOINER` behind all but the last."""
        if (known := self._known.get(word)) is not None:
            return known
        *parts, last = self._merged(word)
        pieces = (*(part + JOINER for part in parts), last)
        if len(word) < 50:  # longer ones are no words, and would fill the memory
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[word] = pieces
        return pieces

    def _merged(self, word: str) -> list[str]:
        if len(word) == 1:
            return [word]
        symbols = [*word, END_OF_WORD]
        if self.is_end_attached:
            symbols[-2:] = [symbols[-2] + symbols[-1]]
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=self._rank)
            if best not in self.ranks:
                break
            old, symbols = symbols, []
            i = 0
            while i < len(old):  # every place where the pair stands, from left to right
                size = 2 if tuple(old[i : i + 2]) == best else 1
                symbols.append("".join(old[i : i + size]))
                i += size
        last = symbols.pop().removesuffix(END_OF_WORD)
        return [*symbols, last] if last else symbols

    def _rank(self, pair: tuple[str, str]) -> float:
        return self.ranks.get(pair, float("inf"))


class FairseqTokenizer(PreTrainedTokenizerFast):
    """Turns raw text into the ids of a fairseq dictionary, and back, as the data was prepared.

    Text is tokenised by Moses if `moses` says how, split at white space, and each word cut by the
    BPE codes if there are some; pieces that the dictionary lacks are `<unk>`. Ids become text by
    joining what ends in "@@", and Moses's detokenizer. The file `tokenizer.json` is the dictionary
    alone, for text that is in pieces already: so are words with `is_split_into_words=True`.

    Args:
        moses: fields of `MosesSettings`, or None.
        bpe_codes: lines of a file of codes, or None.
        others: as of `PreTrainedTokenizerFast`.

    Example:
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("imported")  # doctest: +SKIP
        >>> tokenizer.tokenize("A well-known cat.")  # doctest: +SKIP
        ['A', 'well', '@-@', 'kno@@', 'wn', 'cat', '.']
    """

    _auto_class = "AutoTokenizer"  # each save copies this file
    _is_of_target = False
    _codes: BpeCodes | None = None

    @property
    def moses_settings(self) -> MosesSettings | None:
        fields = self.init_kwargs.get("moses")
        return None if fields is None else MosesSettings(**fields)

    def segmented(self, text: str, is_target: bool = False) -> str:
        """`text` in pieces of the dictionary, or what would be one, with spaces between."""
        if (moses := self.moses_settings) is not None:
            text = moses.tokenized(text, moses.target_lang if is_target else moses.source_lang)
        words, codes = text.split(), self._bpe_codes()
        if codes is None:
            return " ".join(words)
        return " ".join(piece for word in words for piece in codes.segment(word))

    def _bpe_codes(self) -> BpeCodes | None:
        lines = self.init_kwargs.get("bpe_codes")
        if lines is None:
            return None
        if self._codes is None:
            self._codes = BpeCodes(lines)
        return self._codes

    def _switch_to_input_mode(self) -> None:
        self._is_of_target = False

    def _switch_to_target_mode(self) -> None:
        self._is_of_target = True

    def _prepared(self, text: Any) -> Any:
        if isinstance(text, list | tuple):
            return type(text)(map(self._prepared, text))
        return self.segmented(text, self._is_of_target) if isinstance(text, str) else text

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        if not kwargs.get("is_split_into_words"):
            text, text_pair = self._prepared(text), self._prepared(text_pair)
        return super()._encode_plus(text, text_pair, **kwargs)

    def _decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str:
        text = super()._decode(token_ids, *args, **kwargs)
        return text if (moses := self.moses_settings) is None else moses.detokenized(text)

    def __repr__(self) -> str:
        # Names what was made of texts, in the file of a cache: so all that decides it is in there.
        codes = "\n".join(self.init_kwargs.get("bpe_codes") or ())
        digest = hashlib.blake2b(codes.encode(), digest_size=8).hexdigest()
        return f"{super().__repr__()} of {self.moses_settings}, BPE codes {digest}"
