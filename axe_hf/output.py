"""What leaves the program: files and folders that appear whole or not at all, text for a screen."""

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Controls but tab and line feed, changes of the direction of writing, lone surrogates.
_COMMANDS = r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


def check_new_folder(path: str | Path, argument: str, advice: str = "Choose another one.") -> Path:
    """Refuse a folder that holds something.

    Args:
        path: the folder; it need not exist.
        argument: what the user calls it, for the error.
        advice: what to do instead, for the error.

    Returns:
        `path`, as a `Path`.

    Raises:
        FileExistsError: `path` is a file, or a folder that holds something.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"`{argument}` must be a folder, {path} is a file.")
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(
            f"`{argument}` must be a new or an empty folder, {path} holds something. {advice}"
        )
    return path


@contextmanager
def whole_folder(directory: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes `directory` in one step if all goes well, else vanishes.

    Where `directory` holds something, its files of the same names are replaced, one by one.
    """
    directory = Path(directory)
    # Beside the final place, hence on its file system, so that a move is one step.
    scratch = directory.parent / f".unfinished-{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if not directory.exists() or not any(directory.iterdir()):
            if directory.exists():  # empty, and in the way on Windows
                directory.rmdir()
            scratch.replace(directory)
            return
        for new in sorted(scratch.iterdir()):
            old = directory / new.name
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            new.replace(old)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file that appears whole or not at all; the mode of an old one is kept."""
    file = Path(path).resolve()  # behind a link, the file that it names
    unfinished = file.with_name(f".unfinished-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as new:  # x: never what a link there names
            if file.exists():
                shutil.copymode(file, unfinished)
            new.write(text.encode("utf-8"))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def printable(text: str) -> str:
    """`text` with escapes in place of what could command a terminal, or hide in it.

    >>> print(printable("\\x1b[31mred\\x07"))
    \\x1b[31mred\\x07
    """
    return re.sub(_COMMANDS, lambda match: ascii(match[0])[1:-1], text)
