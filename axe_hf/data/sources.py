"""What a `source` of sentence pairs names: a file, two, many, or a data set for `datasets`."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

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
            raise FileNotFoundError(f"`source` must name an existing file, got {path}.")
    return shards


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
            raise ValueError(f"`source` must be, if several, {expected}; got {part!r}.")
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
