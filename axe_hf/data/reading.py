"""Read sentence pairs from files and from the Hugging Face hub."""

import gzip
import hashlib
import json
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from .formats import Languages, Row, decoded_lines, named_languages, read_rows
from .sources import PAIR_FORMATS, Shard, Source, bare_suffix, shards_of

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

# The corpus that comes with the package, "en" and "de": train.jsonl.gz, validation.jsonl.gz and
# test.jsonl.gz, the last two with all right translations. examples/phrasebook wrote it.
PHRASEBOOK = Path(__file__).with_name("phrasebook")

# Files up to this size, together, are kept in memory; the pairs of larger ones in a file.
MOST_BYTES_IN_MEMORY = 16 * 2**20
_ROWS_AT_ONCE = 10_000
# Of existing files, what nobody wants read line by line.
_NO_TEXT = (".htm", ".html", ".tmx", ".xml")
_HALF = re.compile(r"[\ud800-\udfff]")  # of a character, as JSON can spell it


def load_translations(
    source: Source,
    *,
    source_lang: str,
    target_lang: str,
    split: str | tuple[str, ...] | None = None,
    among: Sequence[str] | None = None,
) -> "Dataset":
    """Read sentence pairs into a `datasets.Dataset` with the column `translation`.

    | `source` | what is read |
    |---|---|
    | `"pairs.jsonl"` | a line each: `{"translation": {"en": "...", "de": "..."}}` |
    | `"pairs.json"` | such lines, or one list of such objects |
    | `"pairs.tsv"`, `"pairs.csv"` | source and target; headings (en, de; English, German) set the
    order, and choose among more than two columns |
    | `"pairs.parquet"` | a column `translation`, or columns named as headings are |
    | `"train.en,train.de"` or a 2-tuple | two plain text files, line by line |
    | `"data/*.tsv"`, `"data/*.en,data/*.de"` | all that fit, sorted; of two, equally many |
    | a folder | its files, if all are of these formats and none is named after a split; else
    through `datasets.load_dataset` |
    | a list | several of all these, one after the other |
    | `"owner/name"` or `"owner/name:config"` | through `datasets.load_dataset` |

    Files must be UTF-8 and may be gzipped (`.gz`), but for Parquet. Two plain text files are the
    source and the target in this order, unless their suffixes are the two language codes, which
    then decide. Pairs with both sides empty, such as the borders of documents, are left out and
    counted. Of files over 16 MiB together the pairs go into an Arrow file in the cache of
    `datasets`, from which they are read as they are needed, and which serves until a file changes:
    memory does not grow with their number (except a `.json` that is one list: it is parsed whole).

    Args:
        source: what to read.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        split: split of a hub data set, "train" if None, or several, of which the first that is
            there is read; files have no splits.
        among: codes of all languages that rows may have: those without both of these two are left
            out and counted, and there may be none. Of more than two, files must name theirs: by
            keys, headings or suffixes.

    Returns:
        A `datasets.Dataset` with `translation`, `{source_lang: str, target_lang: str}`, and
        `references`, `list[str]` of right translations, if every object has them.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file and line that is not a sentence pair, or an argument.

    Example:
        >>> from axe_hf.data import PHRASEBOOK, load_translations
        >>> file = PHRASEBOOK / "test.jsonl.gz"
        >>> load_translations(file, source_lang="en", target_lang="de").column_names
        ['translation', 'references']
    """
    languages = two_languages(source_lang, target_lang)
    shards = shards_of(source)
    if shards is None:
        return _load_from_hub(str(source), languages, split, is_partial=among is not None)
    if split is not None and not isinstance(split, tuple):
        got = f"got {split!r} for {source}"
        raise ValueError(f"`split` must be None for files, {got}. Give that split's own file.")
    if among is not None:
        shards = [shard for shard in shards if _may_have(shard, languages, among)]
    pairs = _CheckedPairs(shards, languages, source, is_partial=among is not None)
    if sum(path.stat().st_size for shard in shards for path in shard) > MOST_BYTES_IN_MEMORY:
        return _in_file(pairs)
    return _in_memory(pairs)


def _may_have(shard: Shard, languages: Languages, among: Sequence[str]) -> bool:
    """Whether rows of files may be of these languages, as far as the files say."""
    named = named_languages(shard, among)
    if named == set() and len({*among}) > 2:
        names = " and ".join(map(str, shard))
        advice = "Name them by keys (JSON), by headings of a table or by the suffixes of two files"
        raise ValueError(f"{names} must say which of {[*among]} it holds. {advice}.")
    return not named or {*languages} <= named


@dataclass(frozen=True)
class Sources:
    """What is to be translated: sentences, and the right translations that each has, or none."""

    texts: list[str]
    translations: list[list[str]]


def load_sources(source: Source, *, source_lang: str, target_lang: str) -> Sources:
    """The source sides of what `load_translations` reads, or the lines of one plain text file.

    Args:
        source: a text file that exists (UTF-8, `.gz` or not), or as in `load_translations`.
        source_lang, target_lang: keys of the two sides.

    Raises:
        FileNotFoundError, ValueError: as in `load_translations`.

    Example:
        >>> from axe_hf.data import PHRASEBOOK
        >>> from axe_hf.data.reading import load_sources
        >>> file = PHRASEBOOK / "test.jsonl.gz"
        >>> found = load_sources(file, source_lang="en", target_lang="de")
        >>> len(found.texts) == len(found.translations)
        True
    """
    two_languages(source_lang, target_lang)
    path = Path(source) if isinstance(source, str | Path) else Path()
    if path.is_file() and bare_suffix(path) not in (*PAIR_FORMATS, *_NO_TEXT):
        lines = read_lines(path)
        return Sources(lines, [[] for _ in lines])
    pairs = load_translations(source, source_lang=source_lang, target_lang=target_lang)
    texts = [pair[source_lang] for pair in pairs["translation"]]
    targets = [[pair[target_lang]] for pair in pairs["translation"]]
    if "references" in pairs.column_names:
        both = zip(targets, pairs["references"], strict=True)
        targets = [list(dict.fromkeys(target + references)) for target, references in both]
    return Sources(texts, targets)


def two_languages(source_lang: str, target_lang: str) -> Languages:
    """Both, or ValueError: a pair with one key for both sides would lose one."""
    if source_lang == target_lang:
        raise ValueError(f"`source_lang` and `target_lang` must differ, got {source_lang!r} twice.")
    return source_lang, target_lang


def read_lines(path: str | Path | None) -> list[str]:
    """The lines of a UTF-8 file, gzipped (`.gz`) or not, or of standard input for None.

    Lines end in \\n or \\r\\n; byte order marks are dropped; errors name file and line.
    """
    if path is not None:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            return [line.text for line in decoded_lines(file, path)]
    if sys.stdin.isatty():
        print("Type sentences, one a line; end with Ctrl-D.", file=sys.stderr, flush=True)
    return [line.text for line in decoded_lines(sys.stdin.buffer, "standard input")]


def read_text(path: str | Path | None) -> str:
    """A UTF-8 file, gzipped (`.gz`) or not, or standard input for None, with all its line ends.

    A byte order mark in front is dropped; errors name file and line.
    """
    raw = list[bytes]()

    def kept(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            raw.append(line)
            yield line

    if path is None:
        deque(decoded_lines(kept(sys.stdin.buffer), "standard input"), maxlen=0)
    else:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            deque(decoded_lines(kept(file), path), maxlen=0)
    return str(b"".join(raw), "utf-8-sig")


def checked_row(row: Row, languages: Languages) -> dict[str, Any]:
    """The pair of a row, and its `references` if it has them; ValueError with file and line."""
    content = row.content
    try:  # nearly all are plainly right, which is soon told
        pair = content["translation"]
        source, target = pair[languages[0]], pair[languages[1]]
    except (KeyError, TypeError):
        return _closely_checked(row, languages)
    is_plain = type(source) is type(target) is str and "references" not in content
    if is_plain and not (_HALF.search(source) or _HALF.search(target)):
        return {"translation": {languages[0]: source, languages[1]: target}}
    return _closely_checked(row, languages)


def _closely_checked(row: Row, languages: Languages) -> dict[str, Any]:
    place, content = row.place, row.content
    pair: Any = content.get("translation") if isinstance(content, dict) else None
    has_pair = isinstance(pair, dict)
    if not has_pair:
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        form = dict.fromkeys(languages, "...")
        raise ValueError(f"{place}: must be {json.dumps({'translation': form})}, got {got}.")
    _check_languages(languages, pair, place)
    pair = {language: pair[language] for language in languages}
    for language, text in pair.items():
        if not (text is None or isinstance(text, str)):
            expected = f"the side {language!r} must be a sentence"
            raise ValueError(f"{place}: {expected}, got {text!r}. Remove the pair.")
    if not any((text or "").strip() for text in pair.values()):
        return {"translation": pair}  # to be left out, whatever else stands beside
    checked, references = {"translation": pair}, content.get("references", ["..."])
    is_list = isinstance(references, list) and references
    if not is_list or not all(isinstance(text, str) and text.strip() for text in references):
        raise ValueError(f"{place}: 'references' must be a list of sentences, got {references!r}.")
    if half := next(filter(_HALF.search, filter(None, [*pair.values(), *references])), None):
        raise ValueError(f"{place}: must be valid Unicode, got {half!r}.")
    return checked | ({"references": references} if "references" in content else {})


@dataclass
class _CheckedPairs:
    """The rows of files, of which none lacks a side, and how many of them there were."""

    shards: list[Shard]
    languages: Languages
    source: Any  # as it was given, for messages
    is_partial: bool = False  # rows that lack one of the languages are left out
    num_rows: int = 0
    num_with_references: int = 0
    num_empty: int = 0
    num_missing: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        halves, num_halves = list[str](), 0
        for row in (row for shard in self.shards for row in read_rows(shard, self.languages)):
            if self.is_partial and self._is_missing(row):
                self.num_missing += 1
                continue
            checked = checked_row(row, self.languages)
            sides = checked["translation"].items()
            empty = [item for item in sides if not (item[1] or "").strip()]
            if len(empty) == 1 and (num_halves := num_halves + 1) <= 5:
                expected = "the side {!r} must be a sentence, got {!r}".format(*empty[0])
                halves.append(f"{row.place}: {expected}")
            self.num_empty += len(empty) == 2
            if not empty:
                self.num_rows += 1
                self.num_with_references += "references" in checked
                yield checked
        if halves:
            more = f"; and {num_halves - 5} more" if num_halves > 5 else ""
            raise ValueError(f"{'; '.join(halves)}{more}. Remove the pair, or each of them.")
        if not self.num_rows and not self.is_partial:
            _warn_of_empty(self.num_empty, self.source)
            raise ValueError(f"{self.source}: must hold at least one sentence pair, got none.")
        self.warn()

    def _is_missing(self, row: Row) -> bool:
        """Whether it lacks a side; what is wrong in another way is told by `checked_row`."""
        pair = row.content.get("translation") if isinstance(row.content, dict) else None
        sides = [pair.get(side) for side in self.languages] if isinstance(pair, dict) else []
        return any(side is None or side == "" for side in sides)

    def warn(self) -> None:
        """Tell of what was left out."""
        _warn_of_empty(self.num_empty, self.source)
        if self.num_missing:
            wanted = " and ".join(self.languages)
            logger.warning(f"{self.source}: passed over {self.num_missing} rows without {wanted}.")
        if 0 < self.num_with_references < self.num_rows:
            found = f"only {self.num_with_references} of {self.num_rows} rows have 'references'"
            logger.warning(f"{self.source}: {found}; the column is left out.")

    @property
    def columns(self) -> list[str]:
        """Those that all rows had."""
        has_references = self.num_rows == self.num_with_references
        return ["translation", "references"] if has_references else ["translation"]


def _in_memory(pairs: _CheckedPairs) -> "Dataset":
    from datasets import Dataset

    rows = list(pairs)
    return Dataset.from_dict({name: [row[name] for row in rows] for name in pairs.columns})


def _in_file(pairs: _CheckedPairs) -> "Dataset":
    """The pairs in an Arrow file that is named after its sources, written if it is not there."""
    from datasets import Dataset, config

    source, files = pairs.source, [[_identity(path) for path in shard] for shard in pairs.shards]
    known = [1, pairs.languages, files, *(["partial"] if pairs.is_partial else [])]
    key = hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()
    folder = Path(config.HF_DATASETS_CACHE, "axe_hf", key)
    counts, table = folder / "counts.json", folder / "pairs.arrow"
    if counts.exists() and table.exists():
        logger.info(f"{source}: read from {folder}, where it was checked before.")
        pairs = replace(pairs, **json.loads(counts.read_bytes()))
        pairs.warn()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write_arrow(pairs, table)
        found = {name: n for name, n in vars(pairs).items() if name.startswith("num_")}
        _replace(counts, lambda file: file.write(json.dumps(found).encode()))
    return Dataset.from_file(str(table)).select_columns(pairs.columns)


def _identity(path: Path) -> list[Any]:
    """What tells a file from others, and from what it was before it changed."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def _write_arrow(pairs: _CheckedPairs, path: Path) -> None:
    import pyarrow

    sides = pyarrow.struct([(language, pyarrow.string()) for language in pairs.languages])
    references = pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema([("translation", sides), ("references", references)])

    def write(file: Any) -> None:
        rows = iter(pairs)
        with pyarrow.ipc.new_stream(file, schema) as writer:
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_batch(pyarrow.RecordBatch.from_pylist(some, schema))

    _replace(path, write)


def _replace(path: Path, write: Any) -> None:
    """Let `write` fill a file that is there whole or not at all, also beside other processes."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as file:
            write(file)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _warn_of_empty(count: int, source: Any) -> None:
    if count:
        logger.warning(f"{source}: left out {count} pairs of which both sides are empty.")


def _load_from_hub(
    name: str, languages: Languages, split: Any, *, is_partial: bool = False
) -> "Dataset":
    dataset = load_from_hub(name, None if isinstance(split, tuple) else split or "train")
    if isinstance(split, tuple):
        if not (there := [each for each in split if each in dataset]):
            wants = " or ".join(split)
            raise ValueError(f"{name}: no split {wants} in {[*dataset]}; name `split`.")
        dataset = dataset[there[0]]
    found = dataset[0].get("translation", ()) if len(dataset) else ()
    if is_partial and "translation" in dataset.column_names and not {*languages} <= {*found}:
        return dataset.select([])
    check_hub_columns(dataset.column_names, found, languages, name)
    enough = all if is_partial else any

    def is_said(pairs: list[dict[str, Any]]) -> list[bool]:
        return [enough((pair[side] or "").strip() for side in languages) for pair in pairs]

    kept = dataset.filter(is_said, batched=True, input_columns="translation")
    if not is_partial:
        _warn_of_empty(len(dataset) - len(kept), name)
    elif number := len(dataset) - len(kept):
        logger.warning(f"{name}: passed over {number} rows without {' and '.join(languages)}.")
    return kept


def load_from_hub(name: str, split: str | None, **options: Any) -> Any:
    """What `datasets` makes of "owner/name", "owner/name:config" or a folder."""
    from datasets import load_dataset

    # "owner/name:config", but never the colon of a Windows path such as C:\data
    name, _, config = (name, "", "") if Path(name).is_dir() else name.partition(":")
    try:
        return load_dataset(name, config or None, split=split, **options)
    except Exception as error:
        message = f"`source` must be a file or a data set that datasets can load, got {name!r}: "
        raise ValueError(f"{message}{type(error).__name__}: {error}") from error


def check_hub_columns(columns: list[str], found: Any, languages: Languages, name: str) -> None:
    """Raise for a data set without pairs of these languages; `found` are those of its first."""
    if "translation" not in columns:
        raise ValueError(f"{name}: must have the column 'translation', got {columns}.")
    _check_languages(languages, found, name)


def _check_languages(languages: Languages, found: Iterable[str], place: str) -> None:
    for language in languages:
        if language not in found:
            wants = f"must have the language {language!r}, got {sorted(found)}"
            raise ValueError(f"{place}: {wants}. Check source_lang and target_lang.")
