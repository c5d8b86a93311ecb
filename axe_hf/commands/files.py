"""Text files of the commands: lines in, and results out, whole or not at all."""

import os
import sys
from pathlib import Path
from typing import BinaryIO


def read_lines(path: str | None) -> list[str]:
    """The lines of a UTF-8 text file, or of standard input if `path` is None.

    Raises:
        ValueError: text that is not UTF-8, with file and line.
        OSError: the file cannot be read.
    """
    if path is not None:
        with open(path, "rb") as file:
            return _decode(file, path)
    if sys.stdin.isatty():
        print("Type sentences, one a line; end with Ctrl-D.", file=sys.stderr, flush=True)
    return _decode(sys.stdin.buffer, "standard input")


def _decode(file: BinaryIO, name: str) -> list[str]:
    lines = []
    # Split at \n alone: str.splitlines would also cut at U+2028 and its like.
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {number}: must be UTF-8, got byte 0x{line[error.start]:02x}. Convert "
                "the file, for example with iconv."
            ) from error
        lines.append(text.rstrip("\r\n"))
    return lines


def check_output(path: str | None, *, overwrite: bool) -> None:
    """Refuse, before any work, a file that cannot or should not be written.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it is no plain file.
        FileNotFoundError: its folder does not exist.
    """
    if path is None:
        return
    file = Path(path)
    if file.exists() and not file.is_file():
        raise FileExistsError(f"--output must name a plain file, {path} is something else.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"--output: {path} exists already. Replace it by --overwrite.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {file.parent}. Make it first.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise PermissionError(f"--output: no permission to write into {file.absolute().parent}.")


def write_text(path: str, text: str) -> None:
    """Write a file that appears whole or not at all."""
    file = Path(path).resolve()  # behind a link, the file that it names
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(text.encode("utf-8"))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
