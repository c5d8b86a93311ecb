"""Samples the phrasebook's sentences into training, validation and test rows.

Most English sentences have several right German translations, which differ in words and in order.
That is what makes non-autoregressive training hard, and what Aligned Cross Entropy is for.
"""

import hashlib
from dataclasses import dataclass
from random import Random

import compounds
import scenes
import sentences
from sentences import Source, render

# Each kind of sentence with how often it is drawn.
KINDS = (
    (sentences.draw_statement, 30),
    (sentences.draw_question, 13),
    (sentences.draw_wh_question, 10),
    (sentences.draw_liking, 5),
    (sentences.draw_imperative, 4),
    (compounds.draw_because, 9),
    (compounds.draw_condition, 8),
    (compounds.draw_report, 8),
    (compounds.draw_indirect_question, 5),
    (scenes.draw_scene, 8),
)
# Each meaning belongs to one split: of HELD_OUT_SHARES parts, one to validation and one to test.
HELD_OUT_SHARES = 16
MAX_TRANSLATIONS_PER_SOURCE = 4
MIN_WORDS, MAX_WORDS = 4, 14  # of the English
MAX_PAIRS = 200_000
MAX_HELD_OUT = 5_000
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Phrasebook:
    """The rows of each split; see `make_phrasebook`."""

    train: list[dict]
    validation: list[dict]
    test: list[dict]


def split_of(meaning: str) -> str:
    """Say which split a meaning belongs to, whatever the seed."""
    number = int.from_bytes(hashlib.sha256(meaning.encode()).digest()[:4], "big")
    return {0: "validation", 1: "test"}.get(number % HELD_OUT_SHARES, "train")


def make_phrasebook(
    num_pairs: int = 50_000, *, num_validation: int = 200, num_test: int = 500, seed: int = 0
) -> Phrasebook:
    """Write a corpus of everyday English sentences with right German translations.

    A training source comes with up to four of its translations, rows one behind the other.
    No English or German sentence of validation or test occurs in training, for any two seeds.

    Args:
        num_pairs: Training rows, all distinct, 0 to 200,000. Default 50,000.
        num_validation: Validation rows, one a source, 0 to 5,000. Default 200.
        num_test: Test rows, one a source, 0 to 5,000. Default 500.
        seed: The same seed gives the same rows. Default 0.

    Returns:
        `Phrasebook` with `train`, `validation` and `test`, lists of rows
        `{"translation": {"en": str, "de": str}}`; a validation or test row also has
        `"references"`, all right translations, the row's own first.

    Raises:
        ValueError: A number is negative or more than the phrasebook can give.

    Example:
        >>> from corpus import make_phrasebook
        >>> book = make_phrasebook(6, num_validation=2, num_test=2, seed=1)
        >>> len(book.train), sorted(book.test[0]), sorted(book.test[0]["translation"])
        (6, ['references', 'translation'], ['de', 'en'])
        >>> book.test[0]["translation"]["de"] == book.test[0]["references"][0]
        True
    """
    wanted = {"train": num_pairs, "validation": num_validation, "test": num_test}
    _check_counts(num_pairs=num_pairs, num_validation=num_validation, num_test=num_test)
    rng = Random(seed)
    found: dict[str, list[dict]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    while any(len(found[split]) < wanted[split] for split in SPLITS):
        source = draw_source(rng)
        split = split_of(source.meaning)
        if source.english in seen or len(found[split]) >= wanted[split]:
            continue
        seen.add(source.english)
        if split == "train":
            rows = _training_rows(rng, source)
        else:
            rows = [_reference_row(rng, source)]
        found[split].extend(rows[: wanted[split] - len(found[split])])
    return Phrasebook(**found)


def draw_source(rng: Random) -> Source:
    """Draw a sentence of any kind."""
    draw = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    source = draw(rng)
    while not MIN_WORDS <= source.english.count(" ") + 1 <= MAX_WORDS:
        source = draw(rng)
    return source


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        limit = MAX_PAIRS if name == "num_pairs" else MAX_HELD_OUT
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"`{name}` must be an int, got {count!r}.")
        if not 0 <= count <= limit:
            raise ValueError(
                f"`{name}` must be between 0 and {limit:,}, which is what the phrasebook can "
                f"give, got {count:,}. Ask for fewer, or bring a corpus of your own."
            )


def _drawn_translations(rng: Random, source: Source, count: int) -> list[str]:
    """Draw up to `count` translations, the likelier ones more often, none twice."""
    variants = list(source.write_german())
    weights = [weight for _, weight in variants]
    chosen = rng.choices(variants, weights, k=count)
    return list(dict.fromkeys(render(parts, source.english[-1]) for parts, _ in chosen))


def _training_rows(rng: Random, source: Source) -> list[dict]:
    count = rng.randint(1, MAX_TRANSLATIONS_PER_SOURCE)
    drawn = _drawn_translations(rng, source, count)
    return [{"translation": {"en": source.english, "de": german}} for german in drawn]


def _reference_row(rng: Random, source: Source) -> dict:
    chosen = _drawn_translations(rng, source, 1)[0]
    others = [german for german in source.translations() if german != chosen]
    return {
        "translation": {"en": source.english, "de": chosen},
        "references": [chosen, *others],
    }
