"""What a `source` of sentence pairs names: a file, two, many, or a data set for `datasets`."""

import glob
import re
import zlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

# One file of pairs, or two plain text files, of the source and of the target.
Shard: TypeAlias = tuple[Path, ...]
One: TypeAlias = str | Path | tuple[str | Path, str | Path]
Source: TypeAlias = One | Sequence[One]

PAIR_FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
# Words in the names of a folder's files by which `datasets` tells splits apart.
_SPLIT = re.compile(r"(^|[^a-z])(train|test|dev|eval|valid|validation)([^a-z]|$)")


def bare_suffix(path: Path) -> str:
    """The suffix without `.gz`: ".tsv" of pairs.tsv.gz."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def shards_of(source: Source) -> list[Shard] | None:
    """The files that `source` names, in order; None for what `datasets` has to load.

    Raises:
        FileNotFoundError: a file is not there, or a glob fits none.
        ValueError: what is no name of data.
    """
    shards = _shards(source)
    for path in (path for shard in shards or () for path in shard):
        if not path.is_file():
            of, near = ".", _near(path)
            if isinstance(source, (list, tuple)) and not _is_text_pair(source):
                of = f", one of {len(source)} sources; is it a stray word?"
            raise FileNotFoundError(f"`source` must name an existing file, got {path}{of}{near}")
    return shards


def _near(path: Path) -> str:
    """A hint at what is there, for a path that is not."""
    if not path.parent.is_dir():
        return ""
    there = [*path.parent.iterdir()]
    names = {other.name.partition(".")[0]: other for other in there}
    names |= {other.name: other for other in there}
    near = get_close_matches(path.name, names, 1, 0.75)
    return f" Did you mean {names[near[0]]}?" if near else ""


def _check_name(source: str) -> None:
    """Refuse a misspelt path, before the Hub is asked for a data set of that name."""
    path, near = Path(source), _near(Path(source))
    num_parts = len(path.parts)
    if ":" in source:  # a data set and its configuration
        return
    is_path = num_parts > 2 or path.is_absolute() or source.startswith((".", "~"))
    if is_path or near or (num_parts == 2 and path.parent.is_dir()):
        found = f"`source`: there is no file or folder {source}.{near}"
        hub = "" if is_path else f" If a data set of the Hub is meant: {source}:default."
        raise FileNotFoundError(found + hub)


def identity(path: Path) -> list[Any]:
    """What tells a file from another one, wherever it lies, and from what it was: name, size, and
    a checksum of some of its content."""
    return [path.name, path.stat().st_size, checksum(path, 16)]


def checksum(path: Path, num_blocks: int) -> int:
    """CRC-32 of so many blocks of 4 KiB, from the first to the last; at least 2."""
    last, found = max(0, path.stat().st_size - 4096), 0
    with path.open("rb") as file:
        for number in range(num_blocks):
            file.seek(last * number // (num_blocks - 1))
            found = zlib.crc32(file.read(4096), found)
    return found


def _shards(source: Source) -> list[Shard] | None:
    if isinstance(source, (list, tuple)):
        return _of_several(source)
    if not isinstance(source, (str, Path)) or not str(source).strip():
        expected = "a path, a glob, a data set's name, two text files or a list of such"
        raise ValueError(f"`source` must be {expected}, got {source!r}.")
    path, parts = Path(source), str(source).split(",")
    if not path.exists() and len(parts) == 2:
        return _text_pairs(parts[0].strip(), parts[1].strip())
    if path.is_dir():
        return _of_folder(path)
    paths = [path] if path.exists() else _matching(str(source))
    for found in paths:
        if found.exists() and bare_suffix(found) not in PAIR_FORMATS:
            expected = f"end in {', '.join(PAIR_FORMATS[:-1])} or .parquet, or be two text files"
            raise ValueError(f"`source` must {expected}, got {found}.")
    # A name that looks like a file is a misspelt file, not a data set to ask the hub for.
    is_file = path.suffix == ".gz" or bare_suffix(path) in (*PAIR_FORMATS, ".txt")
    if not is_file and paths == [path] and not path.exists():
        _check_name(str(source))
    return [(found,) for found in paths] if is_file or paths != [path] else None


def _of_several(source: Sequence[One]) -> list[Shard]:
    if _is_text_pair(source):
        return _text_pairs(*map(str, source))
    if not source:
        raise ValueError("`source` must name at least one file, got an empty list.")
    shards = list[Shard]()
    for part in source:
        if (found := _shards(part)) is None:
            expected = "each a file of pairs, a glob, a folder of such files or two text files"
            stray = "" if Path(str(part)).exists() else ", which is not there: is it a stray word?"
            got = f"got {part!r}{stray or '.'}"
            raise ValueError(f"`source` must be, if several, {expected}; {got}")
        shards += found
    return shards


def _is_text_pair(source: Sequence[One]) -> bool:
    """Whether these are two plain text files, as against two files of pairs."""
    names = [str(part) for part in source if isinstance(part, (str, Path))]
    if len(source) != 2 or len(names) != 2:
        return False
    is_plain = (bare_suffix(Path(name)) not in PAIR_FORMATS and "," not in name for name in names)
    return all(is_plain) and not any(Path(name).is_dir() for name in names)


def _text_pairs(sources: str, targets: str) -> list[Shard]:
    sides = _matching(sources), _matching(targets)
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0])} and {len(sides[1])}"
        raise ValueError(f"`source`: {sources} and {targets} must fit equally many, got {counts}.")
    return list(zip(*sides, strict=True))


def _matching(name: str) -> list[Path]:
    """The files that fit a glob, sorted; a name that is none stands for itself."""
    if Path(name).exists() or not glob.has_magic(name):
        return [Path(name)]
    if not (found := sorted(glob.glob(name, recursive=True))):
        raise FileNotFoundError(f"`source` must fit an existing file, got {name}.")
    return [Path(file) for file in found]


def _of_folder(folder: Path) -> list[Shard] | None:
    """The files of a folder that holds shards of one set, None where `datasets` knows better."""
    files = sorted(file for file in folder.iterdir() if not file.name.startswith((".", "_")))
    files = [file for file in files if file.name != "README.md"]
    are_shards = all(file.is_file() and bare_suffix(file) in PAIR_FORMATS for file in files)
    # `save_to_disk` leaves .json files beside its tables, splits are told apart by their names.
    if not files or not are_shards or any(_SPLIT.search(file.name.lower()) for file in files):
        return None
    return [(file,) for file in files]
