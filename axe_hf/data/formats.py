"""Rows of the files that sentence pairs come in, from any of them on, a few at a time in memory."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BufferedIOBase
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from transformers.utils import logging

from .sources import Shard, bare_suffix

logger = logging.get_logger(__name__)

Languages: TypeAlias = tuple[str, str]  # source and target
# Where a row begins, for JSON. A reader knows its own: a byte and the number of the line before,
# the columns of a table, or the number of rows before.
Mark: TypeAlias = dict[str, Any]

# What else than languages tables have for headings, and the side that it names.
_HEADINGS = {"source": 0, "src": 0, "target": 1, "tgt": 1, "trg": 1}
_HEADINGS |= dict.fromkeys(("text", "sentence", "translation", "reference", "id", "score"), 2)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # as csv and pandas write texts
_ROWS_AT_ONCE = 1000  # of a Parquet file
_from_json = json.JSONDecoder().decode


@dataclass(frozen=True)
class Share:
    """The rows of one process among several: one of each `count` that follow each other.

    Which one changes as if by chance: if each second line is empty, no process gets only those.
    """

    index: int = 0
    count: int = 1

    def has(self, number: int) -> bool:
        if self.count == 1:
            return True
        mixed = ((number - 1) // self.count * 0x9E3779B1) & 0xFFFFFFFF  # as MurmurHash3 ends
        mixed = (mixed ^ mixed >> 15) * 0x85EBCA6B >> 13
        return (number + mixed) % self.count == self.index


class Row(NamedTuple):
    """What stands in a file, unchecked."""

    path: Path
    kind: str  # what a file of this format is made of: "line", "item" or "row"
    number: int
    content: Any
    behind: Mark  # where the next row begins

    @property
    def place(self) -> str:
        """File and line, for errors."""
        return f"{self.path}, {self.kind} {self.number}"


class Line(NamedTuple):
    """A line of text."""

    number: int  # from 1
    text: str
    end: int  # bytes up to the next line, in what is unzipped


def read_rows(
    shard: Shard, languages: Languages, mark: Mark | None = None, share: Share | None = None
) -> Iterator[Row]:
    """Rows of a file, or of two text files; what is right is `{"translation": {...}}`.

    To begin at a `mark` costs nothing in files of lines and Parquet. A `.gz` is unzipped up to
    there, 100 MB a second or more; a `.json` that holds one list is read whole, always. Rows of
    other shares are passed over without being parsed: every process reads the bytes of all.
    """
    mark, share = mark or {}, share or Share()
    if len(shard) == 2:
        return _read_text_pair(shard, languages, mark, share)
    (path,) = shard
    readers: dict[str, Callable[..., Iterator[Row]]]
    readers = {".tsv": _read_tsv, ".csv": _read_csv, ".parquet": _read_parquet}
    return readers.get(bare_suffix(path), _read_json)(path, languages, mark, share)


def lines_of(
    path: Path, mark: Mark, name: str = "offset", share: Share | None = None
) -> Iterator[Line]:
    """The lines of a UTF-8 file, gzipped (`.gz`) or not, from `mark` on, of this share alone."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        yield from decoded_lines(file, path, mark.get("line", 0), mark.get(name, 0), share)


def decoded_lines(
    file: BinaryIO | BufferedIOBase | Iterator[bytes],
    name: str | Path,
    number: int = 0,
    offset: int = 0,
    share: Share | None = None,
) -> Iterator[Line]:
    """Lines that end in \\n or \\r\\n, without byte order marks, behind line `number`."""
    raw, others = b"", None if share is None or share.count == 1 else share
    try:
        if offset:
            file.seek(offset)  # type: ignore[union-attr]
        # Split at \n alone: str.splitlines would also cut at U+2028 and its like.
        for raw in file:
            number, offset = number + 1, offset + len(raw)
            if others is not None and not others.has(number):
                continue
            yield Line(number, raw.decode().rstrip("\r\n").replace("\ufeff", ""), offset)
    except UnicodeDecodeError as error:
        place, byte = f"{name}, line {number}", f"byte 0x{error.object[error.start]:02x}"
        tool = "gunzip" if raw.startswith(b"\x1f\x8b") else "iconv"
        raise ValueError(f"{place}: must be UTF-8, got {byte}. Convert it with {tool}.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        got = f"failed behind line {number} ({error})"
        raise ValueError(f"{name}: must be a complete gzip file, {got}.") from error


def _read_json(path: Path, languages: Languages, mark: Mark, share: Share) -> Iterator[Row]:
    if is_list(path):
        yield from _read_json_list(path, mark, share)
        return
    for number, text, end in lines_of(path, mark, share=share):
        if text and not text.isspace():
            content = _parse(text, path, number)
            yield Row(path, "line", number, content, {"line": number, "offset": end})


def is_list(path: Path) -> bool:
    """Whether a file is JSON, and one list instead of lines."""
    if bare_suffix(path) != ".json":
        return False
    texts = (line.text for line in lines_of(path, {}))
    return next(filter(str.strip, texts), "").lstrip().startswith("[")


def _read_json_list(path: Path, mark: Mark, share: Share) -> Iterator[Row]:
    items = _parse("\n".join(line.text for line in lines_of(path, {})), path)
    start = mark.get("row", 0)
    for number, item in enumerate(items[start:], start=start + 1):
        if share.has(number):
            yield Row(path, "item", number, item, {"row": number})


def _parse(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return _from_json(text)
    except (ValueError, RecursionError) as error:  # also of long numbers and deep nesting
        place = path if line is None else f"{path}, line {line}"
        raise ValueError(f"{place}: must be valid JSON, got {text[:60]!r} ({error}).") from error


def _read_text_pair(paths: Shard, languages: Languages, mark: Mark, share: Share) -> Iterator[Row]:
    if tuple(bare_suffix(path).lstrip(".") for path in paths) == languages[::-1]:
        paths = paths[::-1]
    sides = [lines_of(path, mark, f"offset_{side}") for side, path in enumerate(paths)]
    number = mark.get("line", 0)
    for source, target in zip_longest(*sides):
        if source is None or target is None:
            rest = [number + (line is not None) for line in (source, target)]
            counts = [count + sum(1 for _ in side) for count, side in zip(rest, sides, strict=True)]
            got = f"got {counts[0]} and {counts[1]} lines"
            raise ValueError(f"{paths[0]} and {paths[1]} must be equally long, {got}.")
        number += 1
        if share.has(number):
            behind = {"line": number, "offset_0": source.end, "offset_1": target.end}
            pair = dict(zip(languages, (source.text, target.text), strict=True))
            path = paths[1] if source.text.strip() else paths[0]  # for errors
            yield Row(path, "line", number, {"translation": pair}, behind)


def _read_tsv(path: Path, languages: Languages, mark: Mark, share: Share) -> Iterator[Row]:
    quotes, begins_like_heading = _Quotes(), _begins_like_heading(languages)

    def cells_of_lines() -> Iterator[tuple[Line, int, list[str]]]:
        num_for_all = 0 if mark else 2  # a heading and the first pair, and later headings
        for line in lines_of(path, mark):
            cells = line.text.split("\t") if line.text.strip() else []
            if share.has(line.number) or num_for_all or any(map(begins_like_heading, cells)):
                yield line, line.number, cells
            num_for_all -= bool(num_for_all and cells)

    for row in _read_table(path, languages, mark, share, cells_of_lines(), "tab"):
        quotes.count(row.content["translation"].values())
        yield row
    quotes.warn(path)


def _read_csv(path: Path, languages: Languages, mark: Mark, share: Share) -> Iterator[Row]:
    last = Line(mark.get("line", 0), "", mark.get("offset", 0))

    def texts() -> Iterator[str]:
        nonlocal last
        for last in lines_of(path, mark):
            yield f"{last.text}\n"

    def cells_of_rows() -> Iterator[tuple[Line, int, list[str]]]:
        rows, first = csv.reader(texts(), strict=True), last.number + 1
        try:
            for cells in rows:  # it takes no line before it needs it
                yield last, first, cells
                first = last.number + 1
        except csv.Error as error:
            wrong = f'{path}, line {first}: must be a row of a CSV file with texts in " quotes'
            raise ValueError(f"{wrong}, got {error}.") from error

    return _read_table(path, languages, mark, share, cells_of_rows(), "comma")


def _read_table(
    path: Path,
    languages: Languages,
    mark: Mark,
    share: Share,
    rows: Iterable[tuple[Line, int, list[str]]],
    separator: str,
) -> Iterator[Row]:
    """Rows of cells, by headings if there are any; else source and target."""
    columns, width = mark.get("columns", [0, 1]), mark.get("width", 2)
    begins_like_heading, is_first = _begins_like_heading(languages), not mark
    for line, number, cells in rows:
        if is_first or any(map(begins_like_heading, cells)):
            sides = [heading_of(cell, languages) for cell in cells]
            if sides.count(0) == sides.count(1) == 1:  # in later lines too: files that were joined
                columns, width = [sides.index(0), sides.index(1)], len(sides)
                continue
            if is_first and any(cells):
                is_first = False
                if sides == [2, 2] or {0, 1} & {*sides}:
                    row, heading = "\t".join(cells), "\t".join(languages)
                    note = f"{row!r} is read as a pair. For a heading put {heading!r}"
                    logger.warning(f"{path}, line {number}: {note}.")
        if cells and len(cells) != width:
            order = languages if columns[0] < columns[1] else languages[::-1]
            expected = f"{width} columns, {order[0]} and {order[1]}, with a {separator} between"
            got = f"{len(cells)}: {line.text[:60]!r}"
            hint = "" if width > 2 or len(cells) < 3 else ". Or put a heading that names them"
            raise ValueError(f"{path}, line {number}: must have {expected}, got {got}{hint}.")
        if share.has(line.number):
            source, target = (cells[columns[0]], cells[columns[1]]) if cells else ("", "")
            behind = {"line": line.number, "offset": line.end, "columns": columns, "width": width}
            pair = {languages[0]: source, languages[1]: target}
            yield Row(path, "line", number, {"translation": pair}, behind)


@cache
def _begins_like_heading(languages: Languages) -> Callable[[str], Any]:
    """Says at once of nearly all texts that they are no headings of source or target."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    bases = {re.split("[ _-]", text.strip().casefold())[0] for text in languages}
    codes = bases | {text.strip().casefold() for text in languages}
    names = {name for name, code in TO_LANGUAGE_CODE.items() if {name, code} & codes}
    words = codes | names | {word for word, side in _HEADINGS.items() if side < 2}
    any_word = "|".join(map(re.escape, sorted(words)))
    return re.compile(rf"[\s\"']*(?:{any_word})", re.IGNORECASE).match


def heading_of(cell: str, languages: Languages) -> int | None:
    """The side that a cell is a heading of; 2 if of something else, None if it may be a text."""
    if len(cell) > 20:
        return None
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    texts = [text.strip(" \"'").casefold() for text in (cell, *languages)]
    word, *codes = (re.sub("[ _-]+", "-", text) for text in texts)
    word = TO_LANGUAGE_CODE.get(word, word)
    base, *bases = (code.split("-")[0] for code in (word, *codes))
    if base in _HEADINGS:
        return _HEADINGS[base]
    if word not in codes and " " not in texts[0] and bases[0] != bases[1]:
        word, codes = base, bases  # "en" for "en-US", and the other way round
    is_code = word in LANGUAGES or re.fullmatch("[a-z]{3}", word)  # such as "deu"
    return codes.index(word) if word in codes else 2 if is_code else None


def named_languages(shard: Shard, among: Sequence[str]) -> set[str] | None:
    """Those of `among` that two files' names, or the headings of a table, say; None for rows that
    say it themselves."""
    if len(shard) == 2:
        return {bare_suffix(path).lstrip(".") for path in shard} & {*among}
    (path,) = shard
    if bare_suffix(path) == ".parquet":
        from pyarrow.parquet import read_schema

        cells = read_schema(path).names
        if "translation" in cells:
            return None
    elif bare_suffix(path) in (".tsv", ".csv"):
        first = next((line.text for line in lines_of(path, {}) if line.text.strip()), "")
        cells = first.split("\t") if bare_suffix(path) == ".tsv" else next(csv.reader([first]))
    else:
        return None
    # "source" is a heading, too, but of any language.
    named = [cell for cell in cells if heading_of(cell, ("?", "!")) not in (0, 1)]
    return {code for code in among if any(heading_of(cell, (code, "!")) == 0 for cell in named)}


class _Quotes:
    """Counts the texts of a TSV file that stand in the quotes of a CSV file."""

    def __init__(self) -> None:
        self.num_texts = 0
        self.num_quoted, self.quoted = 0, ""
        self.num_doubled, self.doubled = 0, ""  # those with "" inside

    def count(self, texts: Iterable[str]) -> None:
        for text in filter(None, texts):
            self.num_texts += 1
            if text[0] == '"' and _QUOTED.fullmatch(text):
                self.num_quoted, self.quoted = self.num_quoted + 1, self.quoted or text
                if '""' in text[1:-1]:
                    self.num_doubled, self.doubled = self.num_doubled + 1, self.doubled or text

    def warn(self, path: Path) -> None:
        number, example = self.num_quoted, self.quoted
        if number < self.num_texts:  # then `"Yes."` may well be a quotation
            number, example = self.num_doubled, self.doubled
        if number:
            found = f"{number} of {self.num_texts} texts are in the quotes of a CSV file"
            advice = "They stay in; without them: quoting=csv.QUOTE_NONE, or call it .csv"
            logger.warning(f"{path}: {found}, such as {example[:60]!r}. {advice}.")


def _read_parquet(path: Path, languages: Languages, mark: Mark, share: Share) -> Iterator[Row]:
    from pyarrow import ArrowException, array
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            columns = _columns_of(file.schema_arrow.names, languages, path)
            number = mark.get("row", 0)
            for table in _tables_from(file, number, columns):
                start, number = number, number + len(table)
                own = [i for i in range(len(table)) if share.has(start + i + 1)]
                for i, row in zip(own, table.take(array(own, "int64")).to_pylist(), strict=True):
                    if "translation" not in row:
                        sides = zip(languages, columns, strict=True)
                        row = {"translation": {language: row[name] for language, name in sides}}
                    yield Row(path, "row", start + i + 1, row, {"row": start + i + 1})
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: must be a Parquet file, got {error}.") from error


def _tables_from(file: Any, number: int, columns: list[str]) -> Iterator[Any]:
    """Tables of some rows each, from row `number` on, whose group is the first that is read."""
    groups = list[int]()
    for group in range(file.metadata.num_row_groups):
        if number < (size := file.metadata.row_group(group).num_rows):
            groups = [*range(group, file.metadata.num_row_groups)]
            break
        number -= size
    for table in file.iter_batches(_ROWS_AT_ONCE, groups, columns) if groups else ():
        if number < len(table):
            yield table.slice(number)
        number = max(0, number - len(table))


def _columns_of(names: list[str], languages: Languages, path: Path) -> list[str]:
    """Those of `names` that hold the pairs: "translation", or source and target."""
    if "translation" in names:
        return [name for name in ("translation", "references") if name in names]
    sides = [heading_of(name, languages) for name in names]
    if sides.count(0) == sides.count(1) == 1:
        return [names[sides.index(0)], names[sides.index(1)]]
    expected = f"the column 'translation', or {languages[0]!r} and {languages[1]!r}"
    raise ValueError(f"{path}: must have {expected}, got {names}.")
