"""Lines as they come: those of a pipe that stays open, of a file, of any number."""

import select
import time
from collections.abc import Iterator
from io import BufferedIOBase, UnsupportedOperation

from .formats import decoded_lines

_BYTES_AT_ONCE = 2**16  # what a pipe holds


def arriving_lines(
    file: BufferedIOBase,
    name: str,
    most: int,
    *,
    window_seconds: float = 0.05,
    quiet_seconds: float = 0.01,
) -> Iterator[list[str]]:
    """The lines of a UTF-8 stream, those together that come together, each as soon as it is whole.

    Lists are given out in order, none of them empty; memory does not grow with the number of lines.
    Where a stream cannot be asked whether more has come (pipes of Windows), a list is what one
    reading finds.

    Args:
        file: a binary stream with `read1`, such as `sys.stdin.buffer`, that nobody else reads.
        name: what errors call it.
        most: lines after which a list is given out though more are there; it may have those, too,
            that came together with the last one.
        window_seconds: how long a line waits for others, at most.
        quiet_seconds: after how long a silence it no longer waits.

    Raises:
        ValueError: a line is not UTF-8, by its number, after all lines before it were given out.

    Example:
        >>> import io
        >>> from axe_hf.data import arriving_lines
        >>> list(arriving_lines(io.BytesIO(b"one\\ntwo"), "standard input", 10))
        [['one', 'two']]
    """
    number, rest, is_open = 0, b"", True
    while is_open:
        raw, deadline = list[bytes](), 0.0
        while is_open and len(raw) < most:
            wait = min(quiet_seconds, deadline - time.monotonic()) if raw else None
            if wait is not None and (wait < 0 or not _is_ready(file, wait)):
                break
            data = file.read1(_BYTES_AT_ONCE)
            is_open = bool(data)
            *whole, rest = (rest + data).split(b"\n")
            if whole and not raw:
                deadline = time.monotonic() + window_seconds
            raw += whole
        if not is_open and rest:
            raw.append(rest)
        lines, error = list[str](), None
        try:
            for line in decoded_lines(iter(raw), name, number):
                lines.append(line.text)
        except ValueError as wrong:
            error = wrong
        number += len(raw)
        if lines:
            yield lines
        if error is not None:
            raise error


def _is_ready(file: BufferedIOBase, seconds: float) -> bool:
    """Whether more can be read within so long."""
    try:
        return bool(select.select([file.fileno()], [], [], seconds)[0])
    except UnsupportedOperation:  # bytes in memory
        return True
    except (OSError, ValueError):  # Windows asks sockets alone
        return False
