"""Lines of text for the commands."""

import sys
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
