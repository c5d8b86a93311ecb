"""Scores for translations: BLEU and chrF with their sacreBLEU signatures, repetition, length.

sacreBLEU tokenizes by itself, so every text here is plain, detokenized text.
"""

import uuid
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import pairwise, zip_longest
from typing import Any

import datasets
import evaluate

from .languages import base_language

try:
    from sacrebleu.metrics import BLEU, CHRF
except ImportError as error:
    message = 'Scores need sacrebleu. Install it: python -m pip install "axe-hf[eval]".'
    raise ImportError(message) from error

References = Sequence[str] | Sequence[Sequence[str | None]]

# Chinese, Cantonese, Classical Chinese; Thai, Lao, Tibetan, Dzongkha, Burmese, Khmer.
_CHINESE = {"zh", "zho", "cmn", "yue", "lzh"}
_OTHERS = {"th", "tha", "lo", "lao", "bo", "bod", "dz", "dzo", "my", "mya", "km", "khm"}


def default_tokenize(target_lang: str | None) -> str:
    """sacreBLEU's tokenizer for a language: without spaces between words 13a sees one long word.

    >>> [default_tokenize(language) for language in ("de", "zh_CN", "tha_Thai")]
    ['13a', 'zh', 'char']
    """
    language = base_language(target_lang)
    if language in ("ja", "jpn"):
        return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
    return "zh" if language in _CHINESE else "char" if language in _OTHERS else "13a"


def repetition_rate(texts: Iterable[str], *, tokenize: str = "13a") -> float:
    """Share of tokens that equal the token before them, the typical fault of one-pass decoding.

    The tokens are BLEU's (`tokenize` is a tokenizer of sacreBLEU's), all of them in the
    denominator. Human text is not at zero ("..." is three equal tokens): compare with the rate of
    the references.

    >>> repetition_rate(["we see the house house."])
    0.16666666666666666
    """
    bleu = _bleu(tokenize)
    rows = [_tokens(text, bleu) for text in _check_texts("texts", texts)]
    num_repeated = sum(token == previous for row in rows for previous, token in pairwise(row))
    return num_repeated / max(sum(map(len, rows)), 1)


class TranslationMetric(evaluate.Metric):
    r"""BLEU, chrF, repetition rate and length of translations, as a metric of `evaluate`.

    It needs no network. Give everything to `compute`, or collect with `add_batch` and `add` first.
    With several processes each adds its share and calls `compute`: process 0 returns the scores of
    the whole, the others `None`.

    Args:
        tokenize: BLEU's tokenizer, a name of sacreBLEU's: "13a", "zh", "ja-mecab", "char" ...
        num_process: Number of processes that share the work.
        experiment_id: With several processes: a name that all of them give and no other run gives.
        **kwargs: Passed to `evaluate.Metric`: `process_id` (from 0), `timeout`, `keep_in_memory`,
            or `cache_dir`, through which several processes exchange texts ...

    Raises:
        ValueError: sacreBLEU has no such tokenizer, or several processes have no `experiment_id`.

    Example:
        >>> from axe_hf.evaluation import TranslationMetric
        >>> texts, references = ["The house house is small."], [["The house is small."]]
        >>> scores = TranslationMetric().compute(predictions=texts, references=references)
        >>> round(scores["bleu"], 1), round(scores["repetition_rate"], 2)
        (57.7, 0.17)
        >>> scores["bleu_signature"].split("|version")[0]
        'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp'
    """

    def __init__(
        self,
        *,
        tokenize: str = "13a",
        num_process: int = 1,
        experiment_id: str | None = None,
        **kwargs: Any,
    ):
        # The scorers are built first: a wrong name must fail before the base class makes folders.
        self._tokenize, self._bleu, self._chrf = tokenize, _bleu(tokenize), CHRF()
        if num_process > 1 and experiment_id is None:
            message = "`experiment_id` is missing, by which processes find each other"
            raise ValueError(f"{message}. Pass one name, new for this run, in all of them.")
        kwargs = {"keep_in_memory": num_process == 1, "num_process": num_process} | kwargs
        super().__init__(experiment_id=experiment_id or uuid.uuid4().hex, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="BLEU and chrF by sacreBLEU, repetition rate, length ratio and error.",
            citation="Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018.",
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
            reference_urls=["https://aclanthology.org/W18-6319"],
        )

    def add(self, *, prediction: str, reference: str | Sequence[str | None]) -> None:
        """Adds one translation with its reference or references: one row of `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Sequence[str], references: References) -> None:
        """Adds translations with their references; a batch that is refused adds nothing.

        Args:
            predictions: Detokenized translations.
            references: One string each, or one list each. The lists may differ in length; `None`,
                and a blank string beside another reference, stand for "no reference here".

        Raises:
            TypeError: Something that should be a string is not.
            ValueError: The two differ in number, or a translation has no reference.
        """
        predictions = _check_texts("predictions", predictions)
        references = [
            _check_reference_row(f"references[{number}]", row)
            for number, row in enumerate(_check_list("references", references))
        ]
        if len(predictions) != len(references):
            got = f"{len(predictions)} predictions and {len(references)} references"
            advice = "Several references of one prediction go into one list."
            raise ValueError(f"`predictions` and `references` must pair up, got {got}. {advice}")
        super().add_batch(predictions=predictions, references=references)

    def compute(
        self, *, predictions: Sequence[str] | None = None, references: References | None = None
    ) -> dict[str, float | str] | None:
        """Scores what was added, together with what is given here, and forgets it.

        Args:
            predictions, references: As in `add_batch`; both or none.

        Returns:
            `bleu` and `chrf` (0 to 100), `bleu_signature`, `chrf_signature`, `brevity_penalty` (0
            to 1), `length_ratio` (translations over references, in tokens), `length_error` (mean
            absolute difference, tokens per sentence), `repetition_rate` (0 to 1). Of several
            references the two lengths take the closest, as BLEU's brevity penalty does.

        Raises:
            TypeError, ValueError: As in `add_batch`; there is nothing to score.
        """
        if (predictions is None) != (references is None):
            missing = "predictions" if predictions is None else "references"
            raise ValueError(f"`{missing}` is missing: give both or, after `add_batch`, none.")
        if predictions is None or references is None:
            predictions = references = ()  # for the processes that wait for a file
        self.add_batch(predictions=predictions, references=references)
        if self.num_process == 1:
            _check_not_empty(len(self))
        return super().compute()

    def _compute(
        self, *, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float | str]:
        _check_not_empty(len(predictions))
        predictions, references = list(predictions), list(references)
        # sacreBLEU wants one list per reference number; it leaves out None and signs "nrefs:var".
        streams = [list(stream) for stream in zip_longest(*references)]
        length_errors = []
        for text, row in zip(predictions, references, strict=True):
            length, *wanted = (len(_tokens(each, self._bleu)) for each in (text, *row))
            length_errors.append(min(abs(length - other) for other in wanted))
        bleu = self._bleu.corpus_score(predictions, streams)
        chrf = self._chrf.corpus_score(predictions, streams)
        return {
            "bleu": bleu.score,
            "bleu_signature": str(self._bleu.get_signature()),
            "chrf": chrf.score,
            "chrf_signature": str(self._chrf.get_signature()),
            "brevity_penalty": bleu.bp,
            "length_ratio": bleu.ratio,
            "length_error": sum(length_errors) / len(predictions),
            "repetition_rate": repetition_rate(predictions, tokenize=self._tokenize),
        }


def _bleu(tokenize: str) -> BLEU:
    if not isinstance(tokenize, str) or tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise ValueError(f"`tokenize` must be one of {known}; got {tokenize!r}.")
    try:
        return BLEU(tokenize=tokenize)
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"`tokenize` {tokenize!r} cannot be used: {error}") from error


def _tokens(text: str, bleu: BLEU) -> list[str]:
    return bleu.tokenizer(text.rstrip()).split()


def _check_list(name: str, value: Iterable) -> list:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"`{name}` must be a list of sentences, got {type(value).__name__}.")
    return list(value)


def _check_texts(name: str, texts: Iterable[str]) -> list[str]:
    texts = _check_list(name, texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"`{name}` must hold strings, got {type(text).__name__} at [{row}].")
        if text.encode(errors="ignore").decode() != text:  # half a character, from broken UTF-8
            raise ValueError(f"`{name}` must hold valid Unicode, got {text[:60]!r} at [{row}].")
    return texts


def _check_reference_row(name: str, row: str | Sequence[str | None]) -> list[str]:
    if isinstance(row, str):
        return [row]
    given = [text for text in _check_list(name, () if row is None else row) if text is not None]
    if not given:
        raise ValueError(f"`{name}` has no reference; leave that sentence out.")
    # A blank string beside real ones is a missing reference: scored as a reference of length 0 it
    # would switch off the brevity penalty for short translations.
    return [text for text in _check_texts(name, given) if text.strip()] or given[:1]


def _check_not_empty(num_predictions: int) -> None:
    if num_predictions == 0:
        raise ValueError("There is nothing to score: `predictions` is empty and none was added.")
