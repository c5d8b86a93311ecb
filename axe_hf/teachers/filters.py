"""Which translations are not worth learning from."""

import re
from collections.abc import Iterable

from .distillation_settings import DistillationSettings
from .engines import Said

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Han: no spaces between words, so a letter is a word.
_LETTERS = r"\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_LETTERS}]|[^\W{_LETTERS}]+")

# Why a sentence was left out, in the order in which it is asked, and how a reader is told.
REASONS = {
    "invisible": "sources without a visible character",
    "too_long": "sources that are too long",
    "empty": "empty translations",
    "unfinished": "translations cut at the longest length",
    "copied": "translations that are the source",
    "length_ratio": "translations too long or too short for the source",
    "repeated": "translations that repeat themselves",
    "low_score": "translations of the lowest scores",
}


def told_counts(counts: dict[str, int]) -> dict[str, int]:
    """The counts of a distillation in words, in a reader's order."""
    left_out = {f"left out: {text}": counts[n] for n, text in REASONS.items() if n in counts}
    return {"sentences read": counts["read"], **left_out, "sentence pairs kept": counts["kept"]}


def reason_to_drop(source: str, said: Said | None, settings: DistillationSettings) -> str | None:
    """The first of `REASONS` that the filters in use find, but for the score."""
    if said is None:
        return "too_long"
    if not said.text.strip():
        return "empty"
    if settings.drop_unfinished and not said.is_finished:
        return "unfinished"
    if settings.drop_copies and _bare(said.text) == _bare(source):
        return "copied"
    if (most := settings.max_length_ratio) is not None:
        counts = sorted([max(said.num_source_tokens, 1), max(said.num_tokens, 1)])
        if counts[1] > most * counts[0]:
            return "length_ratio"
    if (n := settings.max_ngram) is not None and repeats(said.text, n) and not repeats(source, n):
        return "repeated"
    return None


def _bare(text: str) -> str:
    return " ".join(text.casefold().split())


def repeats(text: str, n: int) -> bool:
    """Whether some n words in a row are said again.

    >>> repeats("I see the dog, the dog", 2), repeats("I see the dog, a dog", 2)
    (True, False)
    >>> repeats("天天天", 2), repeats("天天", 2)
    (True, False)
    """
    words = _WORD.findall(text.casefold())
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len({*ngrams}) < len(ngrams)


def lowest_score(scores: Iterable[float], share: float) -> float | None:
    """The score below which the lowest `share` is, None if all are kept.

    Of equal scores all are kept, so that what is dropped is at most that share.

    >>> lowest_score([-3.0, -1.0, -2.0, -4.0], 0.25)
    -3.0
    """
    ordered = sorted(scores)
    num_dropped = int(share * len(ordered))
    return ordered[num_dropped] if num_dropped else None
