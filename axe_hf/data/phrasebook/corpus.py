"""Samples the phrasebook's sentences into training, validation and test rows."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import compounds, scenes, sentences
from .sentences import Source, render

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
    num_pairs: int = 50_000, *, num_validation: int = 500, num_test: int = 500, seed: int = 0
) -> Phrasebook:
    """Write a corpus of everyday English sentences with right German translations.

    A training source comes with up to four of its translations, each in a row of its own.
    No English or German sentence of validation or test occurs in training, for any two seeds.

    Args:
        num_pairs: Training rows, all distinct, 0 to 200,000. Default 50,000.
        num_validation: Validation rows, one a source, 0 to 5,000. Default 500.
        num_test: Test rows, one a source, 0 to 5,000. Default 500.
        seed: The same seed gives the same rows. Default 0.

    Returns:
        `Phrasebook` with `train`, `validation` and `test`, lists of rows
        `{"translation": {"en": str, "de": str}}`; a validation or test row also has
        `"references"`, all right translations, the row's own first.

    Raises:
        ValueError: A number is negative or more than the phrasebook can give.

    Example:
        >>> from axe_hf.data.phrasebook import make_phrasebook
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
    rng.shuffle(found["train"])
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


def write_phrasebook(
    directory: str | os.PathLike,
    num_pairs: int = 50_000,
    *,
    num_validation: int = 500,
    num_test: int = 500,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `make_phrasebook`'s rows to train.jsonl, validation.jsonl and test.jsonl.

    Each file appears whole or not at all, and replaces one of the same name.

    Args:
        directory: Where the files go; it is made if it is not there.
        num_pairs: As in `make_phrasebook`. Default 50,000.
        num_validation: As in `make_phrasebook`. Default 500.
        num_test: As in `make_phrasebook`. Default 500.
        seed: As in `make_phrasebook`. Default 0.

    Returns:
        The path of each split's file, by the split's name.

    Raises:
        ValueError: `directory` cannot be written to, or as in `make_phrasebook`.

    Example:
        >>> import tempfile
        >>> from axe_hf.data.phrasebook import write_phrasebook
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     paths = write_phrasebook(directory, 6, num_validation=2, num_test=2)
        ...     print(sum(1 for line in paths["train"].open(encoding="utf-8")))
        6
    """
    book = make_phrasebook(num_pairs, num_validation=num_validation, num_test=num_test, seed=seed)
    directory = Path(directory)
    temporary: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            temporary.append(_write_temporary(directory, getattr(book, split)))
        paths = {split: directory / f"{split}.jsonl" for split in SPLITS}
        for path, finished in zip(temporary, paths.values(), strict=True):
            path.replace(finished)
    except OSError as error:
        raise ValueError(
            f"`directory` must be a folder that can be written to, got {str(directory)!r}: {error}"
        ) from error
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return paths


def _write_temporary(directory: Path, rows: list[dict]) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=directory, prefix=".phrasebook-", delete=False
    ) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Path(file.name)
