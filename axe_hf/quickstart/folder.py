"""The folder of the quick start: whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .recipe import LOSSES

RESULTS_FILE = "results.json"
PICTURES = ("losses.png", "alignment.png", "decoding.png")
# What a quick start writes, and so what another one may replace.
CONTENTS = ("data", *LOSSES, *PICTURES, RESULTS_FILE)


def check_output_dir(output_dir: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something.

    Args:
        output_dir: the folder; it need not exist.
        overwrite: allow one that holds something.

    Raises:
        FileExistsError: `output_dir` is a file, or holds something.
    """
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"`output_dir` must be a folder, {output_dir} is a file.")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(
            f"`output_dir` must be a new or an empty folder, {output_dir} holds something. Choose "
            "another one, or replace the quick start in it by --overwrite."
        )


@contextmanager
def all_or_nothing(output_dir: str | Path) -> Iterator[Path]:
    """A folder to work in, whose contents move into `output_dir` if all goes well and vanish if not."""
    output_dir = Path(output_dir)
    is_new = not output_dir.exists()
    output_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=output_dir))
    try:
        yield scratch
        _move_contents(scratch, output_dir)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new and not any(output_dir.iterdir()):
            output_dir.rmdir()


def _move_contents(scratch: Path, output_dir: Path) -> None:
    # The results go first and come last: a folder that has them is complete.
    for name in reversed(CONTENTS):
        old = output_dir / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in CONTENTS:
        if (scratch / name).exists():
            (scratch / name).replace(output_dir / name)
