"""What leaves the program: files and folders that appear whole or not at all, text for a screen."""

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

# Controls but tab and line feed, changes of the direction of writing, lone surrogates.
_COMMANDS = r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
# In a folder that a process is writing into, or was when it was killed. Uploads skip names in "_".
UNFINISHED = "_unfinished"
_SCRATCH = ".unfinished-"
PREDICTIONS_NAME = "generated_predictions.txt"  # as in Transformers' run_translation.py
# What stays at home when a run's folder is shared: other checkpoints, states to resume by, settings
# with paths and tokens in them, translations of the test data.
KEPT_BACK = ["_*", ".*", "checkpoint-*", "*.pt", "*.pth", "training_args.bin"]
KEPT_BACK += [PREDICTIONS_NAME.replace(".", "*.")]  # of several directions one each
_held: set[Path] = set()


def predictions_name(direction: str | None = None) -> str:
    """The file of a run's translations of the test data, of several directions one each.

    >>> predictions_name(), predictions_name("zh-CN:en")
    ('generated_predictions.txt', 'generated_predictions.zh-CN-en.txt')
    """
    part = "" if direction is None else f".{direction.replace(':', '-')}"  # no colon on Windows
    return PREDICTIONS_NAME.replace(".", f"{part}.")


def is_shared(path: Path) -> bool:
    """Whether it is a file that others get when the folder it is in is uploaded."""
    return path.is_file() and not any(fnmatch(path.name, pattern) for pattern in KEPT_BACK)


def check_new_folder(path: str | Path, argument: str, advice: str = "Choose another one.") -> Path:
    """`path` as a `Path`, or FileExistsError if it is a file or holds something.

    `argument` is what the user calls it, `advice` what to do instead.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"`{argument}` must be a folder, {path} is a file.")
    if path.is_dir() and _holds_something(path):
        raise FileExistsError(
            f"`{argument}` must be a new or an empty folder, {path} holds something. {advice}"
        )
    return path


def _holds_something(folder: Path) -> bool:
    """Whether there is more in it than a killed process left of `only_writer`, `whole_folder`."""
    return any(not path.name.startswith((UNFINISHED, _SCRATCH)) for path in folder.iterdir())


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder, made if need be, or BlockingIOError if one is in it.

    It locks the file `UNFINISHED` in it. The lock ends with the process (on Windows there is none),
    the file stays after a kill or a failure where all else in the folder was made since, too.
    """
    folder, is_done = Path(folder).resolve(), False
    lock = folder / UNFINISHED
    made = [p for p in (folder, *folder.parents) if p.name.startswith(_SCRATCH) or not p.exists()]
    if lock in _held:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    is_ours = lock.exists() or not _holds_something(folder)
    with lock.open("ab") as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"Another process is writing into {folder}. Wait for it, or choose another one."
            raise BlockingIOError(text) from error
        except (ImportError, OSError):  # Windows, which removes no open file; no locks there
            file.close()
        _held.add(lock)
        try:
            yield
            is_done = True
        finally:
            _held.remove(lock)
            if is_done or not (is_ours and _holds_something(folder)):
                lock.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for path in made:
                    path.rmdir()


@contextmanager
def whole_folder(directory: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes `directory` in one step if all goes well, else vanishes.

    Where `directory` exists, its files of the same names are replaced, one by one.
    """
    directory = Path(directory)
    is_new = not directory.is_dir()
    # Beside the final place or inside, hence on its file system, so that a move is one step.
    place = (directory.parent if is_new else directory) / f"{_SCRATCH}{directory.name}"
    with only_writer(place):
        scratch = place / "whole"
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir()
        try:
            yield scratch
            if is_new:
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
