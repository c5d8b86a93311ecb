"""Train the vocabulary of source and target, and turn sentence pairs into its token ids."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AddedToken,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from ..cmlm.configuration_cmlm import SPECIAL_TOKEN_IDS, with_prefix
from ..cmlm.configuration_mask_predict import require
from .encoding import TokenColumn, WordIds, are_those_of_words
from .lengths import needed_positions

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

logger = logging.get_logger(__name__)

PAD, EOS, UNK, MASK, BLANK = SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<mask>", "<blank>")
SPACE = "▁"
# A word with the apostrophes inside it, a run of full stops, or one character of any other kind;
# each takes the space in front of it along, so that quotes and digits cost one token, not two.
# Longer runs are cut: time and memory of the trainers grow with the square of a piece's length.
LETTERS = r"[\p{L}\p{M}]{1,100}"
PIECE = Regex(rf"{SPACE}?(?:{LETTERS}(?:['’]{LETTERS}){{0,9}}|\.{{1,100}}|.)")
PRINTABLE_ASCII = tuple(chr(code) for code in range(0x21, 0x7F))
# The bytes of UTF-8 text outside ASCII: continuations 80..BF and leads C2..F4. ASCII characters
# are in every alphabet, so the other 141 bytes would be dead weight in the vocabulary.
FALLBACK_BYTES = tuple(f"<0x{code:02X}>" for code in (*range(0x80, 0xC0), *range(0xC2, 0xF5)))
# What the tokenizers of multilingual models (mBART, NLLB, M2M100 ...) call their two languages.
LANGUAGES = {"source_lang": "src_lang", "target_lang": "tgt_lang"}
# Share of the running text whose characters get a token of their own; the rest is spelt in bytes.
CHARACTER_COVERAGE = 0.9999
# Of a `PairTokenizer`, what besides the tokenizer decides what it makes.
_PAIR_SETTINGS = "source_lang target_lang max_source_length max_target_length max_canvas_length"
_PAIR_SETTINGS += " source_prefix"
_IDS_ALONE = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


class CmlmTokenizer(PreTrainedTokenizerFast):
    """Spells out the special tokens that have a name, such as `mask_token`, and no other ones.

    Made of a teacher's by `axe_hf.add_cmlm_symbols` it spells out all of that one's, and is set to
    its languages for good: `src_lang`, which stands in each text's ids, and `tgt_lang`.
    """

    @property
    def src_lang(self) -> str | None:
        return self.init_kwargs.get("src_lang")

    @property
    def tgt_lang(self) -> str | None:
        return self.init_kwargs.get("tgt_lang")

    def _add_tokens(self, new_tokens: list[Any], special_tokens: bool = False) -> int:
        # The backend spells out what is special to it. Language tags are not, but stay whole.
        named = {str(token) for token in self._special_tokens_map.values() if token}
        # When it is loaded, all those of its file are added again: a teacher's stay special.
        named |= {str(token) for token in self.added_tokens_decoder.values() if token.special}
        strings = {"normalized": not special_tokens}
        tokens = [AddedToken(t, **strings) if isinstance(t, str) else t for t in new_tokens]
        states = [token.__getstate__() | {"special": str(token) in named} for token in tokens]
        return super()._add_tokens([AddedToken(**state) for state in states])

    def _decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        if skip_special_tokens and self._extra_special_tokens and isinstance(token_ids, list):
            special_ids = {*self.all_special_ids}
            token_ids = [i for i in token_ids if i not in special_ids]
        return super()._decode(token_ids, skip_special_tokens, **kwargs)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 8000,
    algorithm: Literal["bpe", "unigram"] = "bpe",
    min_frequency: int = 2,
) -> CmlmTokenizer:
    """Train one subword vocabulary for both languages of a translation model.

    The ids `<pad>` 0, `</s>` 1, `<unk>` 2, `<mask>` 3 and `<blank>` 4 are fixed and match the
    defaults of `CmlmConfig`; `</s>` is appended to every text. Decoding gives the text back, up to
    Unicode's canonical composition (NFC), white space and the character "▁" (U+2581), which stands
    for it in tokens, folded to single spaces, and control characters and byte order marks dropped.
    Characters too rare for a token of their own are spelt in UTF-8 bytes, which take 115 entries of
    the vocabulary. A text that spells out a special token, such as "<mask>", is encoded as ordinary
    characters, unless the tokenizer is called with `split_special_tokens=False`.

    Args:
        texts: sentences of both languages, in any order; one pass over them is made.
        vocab_size: number of entries wanted, special tokens and bytes included. The tokenizer has
            fewer if the texts do not hold so many: size a model by `len(tokenizer)`.
        algorithm: "bpe" or "unigram", which takes several times as long.
        min_frequency: pairs seen fewer times are not merged; BPE only.

    Returns:
        A tokenizer that also has `mask_token_id` and `blank_token_id`, which survive
        `save_pretrained` and `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: there is no text, or `vocab_size` cannot hold the characters of the texts.
        TypeError: `texts` is a single string or yields something that is not a string.

    Example:
        >>> from axe_hf import train_tokenizer
        >>> tokenizer = train_tokenizer(["Good morning.", "Guten Morgen."] * 20, vocab_size=300)
        >>> tokenizer.convert_ids_to_tokens(tokenizer("Guten Morgen.").input_ids)
        ['▁Guten', '▁Morgen', '.', '</s>']
    """
    if algorithm not in ("bpe", "unigram"):
        raise ValueError(f"`algorithm` must be 'bpe' or 'unigram', got {algorithm!r}.")
    counts = {"vocab_size": vocab_size, "min_frequency": min_frequency}
    require({"at least 1": "vocab_size", "at least 0": "min_frequency"}, counts, optional=False)
    tokenizer = _empty_tokenizer(algorithm)
    sentences = _normalised(texts, tokenizer)
    alphabet, others = _choose_alphabet(sentences)
    smallest = len(SPECIAL_TOKENS) + len(FALLBACK_BYTES) + len(alphabet)
    if vocab_size < smallest:
        raise ValueError(f"`vocab_size` must be at least {smallest} here, got {vocab_size}.")
    # Rare characters leave the training text, so that neither algorithm can learn them.
    as_space = dict.fromkeys(map(ord, others), " ")
    known = (text.translate(as_space) for text in sentences)
    options: dict[str, Any] = {
        "vocab_size": vocab_size - len(FALLBACK_BYTES),
        "special_tokens": list(SPECIAL_TOKENS),
        "initial_alphabet": alphabet,
        "show_progress": False,
    }
    if algorithm == "bpe":
        trainer = trainers.BpeTrainer(min_frequency=min_frequency, **options)
        tokenizer.train_from_iterator(known, trainer)
    else:
        _train_unigram(tokenizer, known, trainers.UnigramTrainer(unk_token=UNK, **options))
    tokenizer.model = _with_fallback_bytes(tokenizer)
    return CmlmTokenizer(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        mask_token=MASK,
        extra_special_tokens={"blank_token": BLANK},
        **plain_settings(),
    )


def plain_settings() -> dict[str, Any]:
    """How each tokenizer of ours treats texts: they spell no symbol, and rows begin at the left."""
    return {
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }


def _empty_tokenizer(algorithm: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE() if algorithm == "bpe" else models.Unigram())
    without_controls = normalizers.Replace(Regex(r"[\p{Cc}\uFEFF&&[^\s]]"), "")
    single_spaces = normalizers.Replace(Regex(rf"[\s{SPACE}]+"), " ")
    # NFC and not NFKC, which would turn "½" and "…" into other characters for good.
    steps = [normalizers.NFC(), without_controls, single_spaces, normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    mark_words = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False)
    split = pre_tokenizers.Split(PIECE, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([mark_words, split])
    spaces, strip = decoders.Replace(SPACE, " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), strip])
    ids = [(EOS, SPECIAL_TOKENS.index(EOS))]
    tokenizer.post_processor = TemplateProcessing(f"$A {EOS}", f"$A {EOS} $B {EOS}", ids)
    return tokenizer


def _normalised(texts: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    if isinstance(texts, str) or not {"__iter__", "__getitem__"} & {*dir(texts)}:
        raise TypeError(f"`texts` must be an iterable of sentences ([text]), got {texts!r:.20}.")
    sentences = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"`texts` must yield strings, got {kind} as number {index}.")
        try:
            sentences.append(tokenizer.normalizer.normalize_str(text))
        except UnicodeEncodeError as error:
            got = f"{text[:60]!r} as number {index}"
            raise ValueError(f"`texts` must yield valid Unicode, got {got}.") from error
    if not any(sentences):
        got = f"{len(sentences)} texts that say nothing"
        raise ValueError(f"`texts` must hold at least one sentence, got {got}.")
    return sentences


def _choose_alphabet(sentences: list[str]) -> tuple[list[str], list[str]]:
    """Characters that get a token of their own, and those left to the fallback bytes."""
    counts = Counter(chain.from_iterable(sentences))
    del counts[" "]  # spaces become SPACE, which is always in the alphabet
    budget = int((1 - CHARACTER_COVERAGE) * counts.total())
    others = []
    # Ties are broken by code point: the same texts in any order give the same alphabet.
    for char in sorted(counts, key=lambda char: (counts[char], -ord(char))):
        budget -= counts[char]
        if budget < 0:
            break
        others.append(char)
    others = [char for char in others if not char.isascii()]
    return sorted({SPACE, *PRINTABLE_ASCII, *counts} - set(others)), others


def _train_unigram(tokenizer: Tokenizer, sentences: Iterable[str], trainer: Any) -> None:
    """Train with the frequent words doubled, so that they can become pieces at all.

    The trainer looks for candidates among strings that two different words share. A word such as
    "▁ist", part of no other, would never be one: on short sentences with 2000 entries that costs
    half as many tokens again. "▁ist▁ist" makes it a candidate, and seen once, shifts no statistics.
    """
    split, normalise = tokenizer.pre_tokenizer, tokenizer.normalizer
    num_words = trainer.vocab_size
    word_counts: Counter[str] = Counter()

    def words() -> Iterator[str]:
        for text in sentences:
            pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
            word_counts.update(pieces)
            yield " ".join(pieces)
        yield from (2 * word for word, _ in word_counts.most_common(num_words))

    # Already split and normalised; the normalizer would also take SPACE for a space.
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.train_from_iterator(words(), trainer)
    tokenizer.pre_tokenizer, tokenizer.normalizer = split, normalise


def _with_fallback_bytes(tokenizer: Tokenizer) -> models.Model:
    """The trained model with the fallback bytes between special tokens and pieces."""
    # The trainers can only add them as special tokens, which decoding would then leave out.
    trained = json.loads(tokenizer.to_str())["model"]
    if trained["type"] == "BPE":
        pieces = sorted(trained["vocab"], key=trained["vocab"].get)[len(SPECIAL_TOKENS) :]
        pieces = [*SPECIAL_TOKENS, *FALLBACK_BYTES, *pieces]
        vocab = {piece: index for index, piece in enumerate(pieces)}
        merges = [tuple(merge) for merge in trained["merges"]]
        return models.BPE(vocab=vocab, merges=merges, unk_token=UNK, byte_fallback=True)
    reserved = [(piece, 0.0) for piece in SPECIAL_TOKENS + FALLBACK_BYTES]
    # Text never matches "<0x80>", whose brackets stand alone, so its score is never looked at.
    scored = [*reserved, *_in_fixed_order(trained["vocab"][len(SPECIAL_TOKENS) :])]
    return models.Unigram(scored, unk_id=SPECIAL_TOKENS.index(UNK), byte_fallback=True)


def _in_fixed_order(vocab: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Unigram pieces, best first, freed from what differs between two runs of the trainer.

    Its hash tables change the last digits of the scores, and the order of the characters that it
    pruned and had to take back in: these are at the end, with scores 1e-4 apart.
    """
    by_score = sorted((-round(score, 6), piece) for piece, score in vocab)
    costs, pieces = zip(*by_score, strict=True)
    start = len(pieces) - 1
    while start > 0 and len(pieces[start - 1]) == 1 and costs[start] - costs[start - 1] < 2e-4:
        start -= 1
    in_order = [*pieces[:start], *sorted(pieces[start:])]
    return [(piece, -cost) for piece, cost in zip(in_order, costs, strict=True)]


def load_tokenizer(name: Any, advice: str, **kwargs: Any) -> PreTrainedTokenizerBase:
    """That of a folder or of a name on the Hub; ValueError, which ends in `advice`, for none."""
    try:
        return AutoTokenizer.from_pretrained(name, **kwargs)
    except Exception as error:
        # Sentencepiece's classes take None for the path of a file that is not there.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = "files of it are missing" if isinstance(error, TypeError) else lines[0]
        problem = f"{name} has no tokenizer that can be read ({reason})"
        raise ValueError(f"{problem}. {advice}") from error


def check_special_tokens(tokenizer: Any, names: Iterable[str]) -> None:
    """Raise for a tokenizer that lacks one of the special tokens `names`, such as "mask_token"."""
    how = "Load yours with from_pretrained(..., eos_token='</s>', pad_token='<pad>', mask_token="
    how += "'<mask>', extra_special_tokens={'blank_token': '<blank>'}), or with what it calls them."
    for name in names:
        if getattr(tokenizer, f"{name}_id", None) is None:
            raise ValueError(f"`tokenizer` must have a {name}. {how}")


def check_tokenizer(tokenizer: Any) -> None:
    """Raise for a tokenizer without the symbols of a CMLM, or that cannot write its texts."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        names, kind = "`tokenizer`, of a trainer `processing_class`,", type(tokenizer).__name__
        raise TypeError(f"{names} must be a tokenizer of Transformers, got {kind}.")
    check_special_tokens(tokenizer, [name.removesuffix("_id") for name in SPECIAL_TOKEN_IDS])
    check_text_format(tokenizer)


def check_text_format(tokenizer: Any) -> None:
    """Raise for a tokenizer that ends no text in `</s>`, or with one vocabulary for each side."""
    eos, around = tokenizer.eos_token, tokenizer.convert_ids_to_tokens(tokenizer("").input_ids)
    if eos not in around:
        raise ValueError(
            f"`tokenizer` must append its eos_token {eos!r}, but makes {around} of nothing. Load "
            "it with eos_token= what it appends, or set its backend_tokenizer.post_processor to "
            f"TemplateProcessing('$A {eos}', special_tokens=[({eos!r}, {tokenizer.eos_token_id})])."
        )
    if getattr(tokenizer, "separate_vocabs", False):
        raise ValueError("`tokenizer` has separate_vocabs, but a CMLM has one vocabulary for both.")


def encode_targets(tokenizer: Any, texts: list[str], limit: int | None = None) -> list[list[int]]:
    """Pieces and `</s>`, at most `limit`: a canvas has no place for a BOS or a language's code."""
    # One of two languages switches between them: a copy does not disturb it, or other threads.
    own = object.__new__(type(tokenizer))
    vars(own).update(vars(tokenizer))
    if vars(own).get("tgt_lang", "") is None:  # which M2M100's cannot do without
        own.tgt_lang = own.src_lang
    ids_alone = {"add_special_tokens": False} | _IDS_ALONE
    pieces = own(text_target=texts, **ids_alone).input_ids
    return [[*ids[: limit and limit - 1], tokenizer.eos_token_id] for ids in pieces]


@dataclass(frozen=True)
class PairTokenizer:
    """Makes token ids of sentence pairs, less those that are empty or too long.

    Args:
        tokenizer: one that appends `</s>`, see `train_tokenizer`; to targets nothing else.
        source_lang, target_lang: keys of the two sides.
        max_source_length, max_target_length: longest sides kept, in tokens with `</s>`.
        max_canvas_length: most positions that a target may need where a blank has to stand between
            equal neighbours; None if it has not.
        source_prefix: put before each source, also a tag with a prefix behind it; nothing of it is
            put twice.

    Raises:
        TypeError, ValueError: the tokenizer lacks what a CMLM needs, or a length is below 2.

    Example:
        >>> from axe_hf.data import PairTokenizer, train_tokenizer
        >>> tokenizer = train_tokenizer(["good day", "guten Tag"] * 9, vocab_size=300)
        >>> tokenize = PairTokenizer(tokenizer, "en", "de", 8, 8)
        >>> made = tokenize([{"en": "good day", "de": "guten Tag"}, {"en": "", "de": "Tag"}])
        >>> tokenizer.batch_decode(made["labels"], skip_special_tokens=True)
        ['guten Tag']
    """

    tokenizer: PreTrainedTokenizerBase
    source_lang: str
    target_lang: str
    max_source_length: int
    max_target_length: int
    max_canvas_length: int | None = None
    source_prefix: str = ""

    def __post_init__(self):
        check_tokenizer(self.tokenizer)
        lengths = "max_source_length max_target_length"
        require({"at least 2, a word and </s>": lengths}, vars(self), optional=False)

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, list[list[int]]]:
        """`input_ids` and `labels` of the pairs that are kept, in their order."""
        return {name: column.rows() for name, column in self.columns(pairs).items()}

    def columns(self, pairs: Sequence[dict[str, Any]]) -> dict[str, TokenColumn]:
        """The same, as numbers behind each other."""
        if not pairs:
            return dict.fromkeys(("input_ids", "labels"), TokenColumn.of([]))
        texts = [with_prefix(pair[self.source_lang] or "", self.source_prefix) for pair in pairs]
        targets = [pair[self.target_lang] or "" for pair in pairs]
        if (encode := self._words) is not None:
            made = {"input_ids": encode(texts), "labels": encode(targets)}
        else:
            ids = self.tokenizer(texts, **_IDS_ALONE).input_ids
            rows = {"input_ids": ids, "labels": encode_targets(self.tokenizer, targets)}
            made = {name: TokenColumn.of(ids) for name, ids in rows.items()}
        is_kept = self._are_kept(**made)
        if is_kept.all():
            return made
        return {name: column.taken(is_kept.nonzero()[0]) for name, column in made.items()}

    def table(self, pairs: Sequence[dict[str, Any]]) -> "pyarrow.Table":
        """The same, as `datasets` keeps it: lists of Python's numbers would take it long."""
        import pyarrow

        columns = self.columns(pairs)
        lists = {name: pyarrow.array(column.tokens) for name, column in columns.items()}
        for name, column in columns.items():
            starts = pyarrow.array(np.concatenate([[0], column.ends]), "int32")
            lists[name] = pyarrow.ListArray.from_arrays(starts, lists[name])
        return pyarrow.table(lists)

    def _are_kept(self, input_ids: TokenColumn, labels: TokenColumn) -> np.ndarray:
        source, target = input_ids.lengths(), labels.lengths()
        is_kept = (self._length_of_nothing < source) & (source <= self.max_source_length)
        is_kept &= (1 < target) & (target <= self.max_target_length)
        if self.max_canvas_length is not None:
            is_kept &= needed_positions(target, labels.tokens) <= self.max_canvas_length
        return is_kept

    @cached_property
    def _words(self) -> WordIds | None:
        """What looks up words, for a tokenizer of ours; one for both sides."""
        if not are_those_of_words(self.tokenizer, _empty_tokenizer("bpe")):
            return None
        return WordIds(self._pieces_of, self.tokenizer.eos_token_id)

    def _pieces_of(self, words: list[str]) -> list[list[int]]:
        return self.tokenizer(words, add_special_tokens=False, **_IDS_ALONE).input_ids

    @cached_property
    def _length_of_nothing(self) -> int:
        return len(self.tokenizer(self.source_prefix).input_ids)

    @property
    def limits(self) -> str:
        """The lengths, as messages say them."""
        lengths = (f"max_source_length={self.max_source_length}",)
        return ", ".join((*lengths, f"max_target_length={self.max_target_length}"))

    def fingerprint(self, dataset: Any) -> str | None:
        """A name for what this makes of `dataset`, the same in each process; None for Python's own
        tokenizers, of which `datasets` makes one."""
        empty = self._length_of_nothing  # a first call sets what the state below says
        if not hasattr(self.tokenizer, "backend_tokenizer"):
            return None
        state = [getattr(self.tokenizer, name, None) for name in LANGUAGES.values()]
        state += [self.tokenizer.backend_tokenizer.to_str(), repr(self.tokenizer), empty]
        state += [value for name, value in vars(self).items() if name in _PAIR_SETTINGS.split()]
        text = json.dumps([1, dataset._fingerprint, *state])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def tokenize_translations(
    dataset: "Dataset",
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_lang: str,
    target_lang: str,
    max_source_length: int,
    max_target_length: int,
    num_workers: int | None = None,
) -> "Dataset":
    """Tokenize sentence pairs and drop those that are empty or too long.

    Nothing is truncated: half a sentence is not the translation of a whole one. How many pairs are
    dropped is logged. To score translations use the texts, of which none is dropped. The ids of a
    data set that lies in files are kept beside them, and found again by the next run.

    Args:
        dataset: a `datasets.Dataset` with the column `translation`, see `load_translations`.
        tokenizer: tokenizer that appends `</s>`, see `train_tokenizer`; to targets nothing else.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        max_source_length, max_target_length: longest sides kept, in tokens with `</s>`.
        num_workers: processes that tokenize; None for this one alone.

    Returns:
        A `datasets.Dataset` with `input_ids` and `labels`, lists of ids that end in `</s>`.

    Raises:
        TypeError, ValueError: an argument is wrong, something is missing, or no pair is left.

    Example:
        >>> from datasets import Dataset
        >>> pairs = Dataset.from_dict({"translation": [{"en": "good day", "de": "guten Tag"}]})
        >>> tokenizer = train_tokenizer(["good day", "guten Tag"] * 9, vocab_size=300)
        >>> tokenized = tokenize_translations(
        ...     pairs, tokenizer, source_lang="en", target_lang="de",
        ...     max_source_length=8, max_target_length=8,
        ... )
        >>> tokenizer.convert_ids_to_tokens(tokenized[0]["labels"])
        ['▁guten', '▁Tag', '</s>']
    """
    languages = {"source_lang": source_lang, "target_lang": target_lang}
    pair_tokenizer = PairTokenizer(
        tokenizer, source_lang, target_lang, max_source_length, max_target_length
    )
    require({"at least 1": "num_workers"}, {"num_workers": num_workers})
    if "translation" not in (columns := getattr(dataset, "column_names", None) or []):
        raise ValueError(f"`dataset` must be a Dataset with a column 'translation', got {columns}.")
    found = sorted(dataset[0]["translation"]) if len(dataset) else []
    for name, language in languages.items():
        if found and language not in found:
            raise ValueError(f"`{name}` must be one of `dataset`, {found}, got {language!r}.")
    return tokenize_pairs(dataset, pair_tokenizer, num_workers)


def tokenize_pairs(
    dataset: "Dataset", pair_tokenizer: PairTokenizer, num_workers: int | None = None
) -> "Dataset":
    """`tokenize_translations`, of a data set that was read by `load_translations`."""
    warn_of_tags(dataset[:100]["translation"], pair_tokenizer.tokenizer)
    from datasets import Features, List, Value

    tokens = List(Value("int32"))
    tokenized = dataset.map(
        pair_tokenizer.table,
        batched=True,
        input_columns="translation",
        remove_columns=dataset.column_names,
        features=Features({"input_ids": tokens, "labels": tokens}),
        num_proc=num_workers,
        new_fingerprint=pair_tokenizer.fingerprint(dataset),
        desc="Tokenizing",
    )
    num_dropped = len(dataset) - len(tokenized)
    if not len(tokenized):
        got = f"got {num_dropped} pairs, all empty or longer. Raise the limits."
        raise ValueError(f"`dataset` must have a pair within {pair_tokenizer.limits}, {got}")
    if num_dropped:
        dropped = f"{num_dropped} of {len(dataset)} sentence pairs"
        logger.warning(f"Dropped {dropped}: empty, or over {pair_tokenizer.limits}.")
    return tokenized


def warn_of_tags(pairs: Iterable[dict[str, Any]], tokenizer: Any) -> None:
    """Warn of extra special tokens that stand in texts, where they are spelt out."""
    extra = tokenizer.extra_special_tokens if tokenizer.split_special_tokens else []
    texts = [text or "" for pair in pairs for text in pair.values()]
    tags = [tag for tag in extra if any(tag in text for text in texts)]
    if any(tokenizer.tokenize(tag) != [tag] for tag in tags):
        logger.warning(f"`tokenizer` spells out {tags}. Add them by tokenizer.add_tokens instead.")
