"""Read sentence pairs from files and from the Hugging Face hub."""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers.utils import logging

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

# The corpus that comes with the package, "en" and "de": train.jsonl.gz, validation.jsonl.gz and
# test.jsonl.gz, the last two with all right translations. examples/phrasebook wrote it.
PHRASEBOOK = Path(__file__).with_name("phrasebook")

_PAIR_FORMATS = (".jsonl", ".json", ".tsv")
# Of existing files, what nobody wants read line by line.
_NO_TEXT = (".csv", ".htm", ".html", ".tmx", ".xml")
_Languages: TypeAlias = tuple[str, str]  # source and target
# What else than languages tables have for headings, and the side that it names.
_HEADINGS = {"source": 0, "src": 0, "target": 1, "tgt": 1, "trg": 1}
_HEADINGS |= dict.fromkeys(("text", "sentence", "translation", "reference", "id", "score"), 2)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # as csv and pandas write texts
_HALF = re.compile(r"[\ud800-\udfff]")  # of a character, as JSON can spell it


def load_translations(
    source: str | Path | tuple[str | Path, str | Path],
    *,
    source_lang: str,
    target_lang: str,
    split: str | tuple[str, ...] | None = None,
) -> "Dataset":
    """Read sentence pairs into a `datasets.Dataset` with the column `translation`.

    | `source` | what is read |
    |---|---|
    | `"pairs.jsonl"` | a line each: `{"translation": {"en": "...", "de": "..."}}` |
    | `"pairs.json"` | such lines, or one list of such objects |
    | `"pairs.tsv"` | source, tab, target; headings (en, de; English, German) set the order |
    | `"train.en,train.de"` or a 2-tuple | two plain text files, line by line |
    | `"owner/name"`, `"owner/name:config"` or a folder | through `datasets.load_dataset` |

    Files may be gzipped (`.gz`) and must be UTF-8. Two plain text files are the source and the
    target in this order, unless their suffixes are the two language codes, which then decide.
    Pairs with both sides empty, such as the borders of documents, are left out and counted.

    Args:
        source: what to read.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        split: split of a hub data set, "train" if None, or several, of which the first that is
            there is read; files have no splits.

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
    languages = _two_languages(source_lang, target_lang)
    paths = _paths(source)
    if paths is None:
        return _load_from_hub(str(source), languages, split)
    if split is not None and not isinstance(split, tuple):
        got = f"got {split!r} for {source}"
        raise ValueError(f"`split` must be None for files, {got}. Give that split's own file.")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"`source` must name an existing file, got {path}.")
    if len(paths) == 2:
        rows = _read_text_pair(paths, languages)
    elif _bare_suffix(paths[0]) == ".tsv":
        rows = _read_tsv(paths[0], languages)
    else:
        rows = _read_json(paths[0])
    checked = ((place, _checked(row, languages, place)) for place, row in rows)
    return _to_dataset(checked, source)


@dataclass(frozen=True)
class Sources:
    """What is to be translated: sentences, and the right translations that each has, or none."""

    texts: list[str]
    translations: list[list[str]]


def load_sources(
    source: str | Path | tuple[str | Path, str | Path], *, source_lang: str, target_lang: str
) -> Sources:
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
    _two_languages(source_lang, target_lang)
    path = Path(source) if isinstance(source, str | Path) else Path()
    if path.is_file() and _bare_suffix(path) not in (*_PAIR_FORMATS, *_NO_TEXT):
        lines = read_lines(path)
        return Sources(lines, [[] for _ in lines])
    pairs = load_translations(source, source_lang=source_lang, target_lang=target_lang)
    texts = [pair[source_lang] for pair in pairs["translation"]]
    targets = [[pair[target_lang]] for pair in pairs["translation"]]
    if "references" in pairs.column_names:
        both = zip(targets, pairs["references"], strict=True)
        targets = [list(dict.fromkeys(target + references)) for target, references in both]
    return Sources(texts, targets)


def _two_languages(source_lang: str, target_lang: str) -> _Languages:
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
            return _decoded_lines(file, path)
    if sys.stdin.isatty():
        print("Type sentences, one a line; end with Ctrl-D.", file=sys.stderr, flush=True)
    return _decoded_lines(sys.stdin.buffer, "standard input")


def _paths(source: str | Path | tuple[str | Path, str | Path]) -> list[Path] | None:
    """The file or files that `source` names, None for a hub data set or a folder."""
    if isinstance(source, (tuple, list)):
        if len(source) != 2 or not all(isinstance(part, (str, Path)) for part in source):
            raise ValueError(f"`source` must be a pair of text files, got {len(source)}: {source}.")
        return [Path(part) for part in source]
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise ValueError(f"`source` must be a path, two paths or a data set name, got {source!r}.")
    path, parts = Path(source), str(source).split(",")
    if not path.exists() and len(parts) == 2:
        return [Path(part.strip()) for part in parts]
    if path.is_dir():
        return None
    if path.exists() and _bare_suffix(path) not in _PAIR_FORMATS:
        expected = "end in .jsonl, .json or .tsv, or be two text files"
        raise ValueError(f"`source` must {expected}, got {source}.")
    # A name that looks like a file is a misspelt file, not a data set to ask the hub for.
    is_file = path.suffix == ".gz" or _bare_suffix(path) in (*_PAIR_FORMATS, ".txt")
    return [path] if is_file else None


def _bare_suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _decoded_lines(file: Iterable[bytes], name: str | Path) -> list[str]:
    lines: list[str] = []
    try:
        # Split at \n alone: str.splitlines would also cut at U+2028 and its like.
        for line in file:
            lines.append(line.decode().rstrip("\r\n").replace("\ufeff", ""))
    except UnicodeDecodeError as error:
        place, byte = f"{name}, line {len(lines) + 1}", f"byte 0x{error.object[error.start]:02x}"
        tool = "gunzip" if line.startswith(b"\x1f\x8b") else "iconv"
        raise ValueError(f"{place}: must be UTF-8, got {byte}. Convert it with {tool}.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        got = f"failed behind line {len(lines)} ({error})"
        raise ValueError(f"{name}: must be a complete gzip file, {got}.") from error
    return lines


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows, each behind the place where it stands; so do the other readers."""
    lines = read_lines(path)
    first = next((line for line in lines if line.strip()), "")
    if _bare_suffix(path) == ".json" and first.lstrip().startswith("["):
        rows = _parse("\n".join(lines), str(path))
        yield from ((f"{path}, item {number}", row) for number, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _parse(line, place)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also of long numbers and deep nesting
        raise ValueError(f"{place}: must be valid JSON, got {text[:60]!r} ({error}).") from error


def _read_tsv(path: Path, languages: _Languages) -> Iterator[tuple[str, Any]]:
    order, cells = languages, list[str]()
    for number, line in enumerate(read_lines(path), start=1):
        place, columns = f"{path}, line {number}", line.split("\t") if line.strip() else ["", ""]
        if len(columns) != 2:
            expected = f"2 columns, {order[0]} and {order[1]}, with a tab between"
            raise ValueError(f"{place}: must have {expected}, got {len(columns)}: {line[:60]!r}.")
        sides = [_heading(cell, languages) for cell in columns]
        if sides in ([0, 1], [1, 0]):  # in later lines too: files that were joined
            order = languages if sides == [0, 1] else languages[::-1]
            continue
        if not cells and (sides == [2, 2] or {0, 1} & {*sides}):
            heading = "\t".join(languages)
            logger.warning(f"{place}: {line!r} is read as a pair. For a heading put {heading!r}.")
        cells += filter(None, columns)
        yield place, {"translation": dict(zip(order, columns, strict=True))}
    quoted = [cell for cell in cells if _QUOTED.fullmatch(cell)]
    if len(quoted) < len(cells):  # then `"Yes."` may well be a quotation
        quoted = [cell for cell in quoted if '""' in cell[1:-1]]
    if quoted:
        found = f"{len(quoted)} of {len(cells)} texts are in the quotes of a CSV file"
        advice = "They stay in; without them: quoting=csv.QUOTE_NONE"
        logger.warning(f"{path}: {found}, such as {quoted[0][:60]!r}. {advice}.")


def _heading(cell: str, languages: _Languages) -> int | None:
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


def _read_text_pair(paths: list[Path], languages: _Languages) -> Iterator[tuple[str, Any]]:
    if tuple(_bare_suffix(path).lstrip(".") for path in paths) == languages[::-1]:
        paths = paths[::-1]
    sources, targets = map(read_lines, paths)
    if len(sources) != len(targets):
        counts = f"{len(sources)} and {len(targets)}"
        raise ValueError(f"{paths[0]} and {paths[1]} must be equally long, got {counts} lines.")
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), start=1):
        place = f"{paths[1] if source.strip() else paths[0]}, line {number}"
        yield place, {"translation": dict(zip(languages, (source, target), strict=True))}


def _checked(row: Any, languages: _Languages, place: str) -> dict[str, Any]:
    pair: Any = row.get("translation") if isinstance(row, dict) else None
    has_pair = isinstance(pair, dict)
    if not has_pair:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
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
    checked, references = {"translation": pair}, row.get("references", ["..."])
    is_list = isinstance(references, list) and references
    if not is_list or not all(isinstance(text, str) and text.strip() for text in references):
        raise ValueError(f"{place}: 'references' must be a list of sentences, got {references!r}.")
    if half := next(filter(_HALF.search, filter(None, [*pair.values(), *references])), None):
        raise ValueError(f"{place}: must be valid Unicode, got {half!r}.")
    return checked | ({"references": references} if "references" in row else {})


def _to_dataset(checked: Iterable[tuple[str, dict[str, Any]]], source: Any) -> "Dataset":
    from datasets import Dataset

    rows, halves, num_empty = list[dict[str, Any]](), [], 0
    for place, row in checked:
        empty = [item for item in row["translation"].items() if not (item[1] or "").strip()]
        if len(empty) == 1:
            halves.append("{}: the side {!r} must be a sentence, got {!r}".format(place, *empty[0]))
        num_empty += len(empty) == 2
        rows += [] if empty else [row]
    if halves:
        more = f"; and {len(halves) - 5} more" if len(halves) > 5 else ""
        raise ValueError(f"{'; '.join(halves[:5])}{more}. Remove the pair, or each of them.")
    _warn_of_empty(num_empty, source)
    if not rows:
        raise ValueError(f"{source}: must hold at least one sentence pair, got none.")
    count = sum("references" in row for row in rows)
    names = ["translation", "references"] if count == len(rows) else ["translation"]
    if 0 < count < len(rows):
        found = f"only {count} of {len(rows)} rows have 'references'"
        logger.warning(f"{source}: {found}; the column is left out.")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in names})


def _warn_of_empty(count: int, source: Any) -> None:
    if count:
        logger.warning(f"{source}: left out {count} pairs of which both sides are empty.")


def _load_from_hub(name: str, languages: _Languages, split: Any) -> "Dataset":
    from datasets import load_dataset

    # "owner/name:config", but never the colon of a Windows path such as C:\data
    name, _, config = (name, "", "") if Path(name).is_dir() else name.partition(":")
    one = "train" if split is None else None if isinstance(split, tuple) else split
    try:
        dataset: Any = load_dataset(name, config or None, split=one)
    except Exception as error:
        message = f"`source` must be a file or a data set that datasets can load, got {name!r}: "
        raise ValueError(f"{message}{type(error).__name__}: {error}") from error
    if one is None:
        if not (there := [each for each in split if each in dataset]):
            wants = " or ".join(split)
            raise ValueError(f"{name}: no split {wants} in {[*dataset]}; name `split`.")
        dataset = dataset[there[0]]
    if "translation" not in dataset.column_names:
        raise ValueError(f"{name}: must have the column 'translation', got {dataset.column_names}.")
    _check_languages(languages, dataset[0]["translation"] if len(dataset) else (), name)

    def is_said(pairs: list[dict[str, Any]]) -> list[bool]:
        return [any((pair[side] or "").strip() for side in languages) for pair in pairs]

    kept = dataset.filter(is_said, batched=True, input_columns="translation")
    _warn_of_empty(len(dataset) - len(kept), name)
    return kept


def _check_languages(languages: _Languages, found: Iterable[str], place: str) -> None:
    for language in languages:
        if language not in found:
            wants = f"must have the language {language!r}, got {sorted(found)}"
            raise ValueError(f"{place}: {wants}. Check source_lang and target_lang.")
