"""Shards: sentences that are translated together, and saved together or not at all."""

import json
import random
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..output import UNFINISHED, check_new_folder, only_writer, whole_folder, write_text
from ..rescoring import batches_by_length
from .engines import Engine, Said
from .processes import Processes

# Of a finished distillation, and the last file to be put in its place.
SUMMARY = "distillation.json"
_PLAN = "plan.json"
_SECONDS_BETWEEN_LINES = 60


@dataclass(frozen=True)
class Work:
    """What is left behind in `output_dir` until all is done: the plan, and a file for each shard.

    The folder appears with its plan, and vanishes beginning with it. The plan is in the summary,
    too: by that a folder of the same without one is known to be done.
    """

    output_dir: Path
    num_sources: int
    shard_size: int

    @property
    def folder(self) -> Path:
        return _folder_in(self.output_dir)

    @property
    def cache(self) -> Path:
        """Where an engine may keep the teacher as it wants it."""
        return self.folder / "teacher"

    @property
    def num_shards(self) -> int:
        return -(-self.num_sources // self.shard_size)

    def file(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:06}.jsonl"

    def rows(self, shard: int) -> slice:
        """Which sources are in a shard."""
        return slice(shard * self.shard_size, (shard + 1) * self.shard_size)

    def num_done(self) -> int:
        """How many sources have been translated by now, by all processes."""
        done = [self.rows(s) for s in range(self.num_shards) if self.file(s).exists()]
        return sum(min(rows.stop, self.num_sources) - rows.start for rows in done)

    @staticmethod
    def enter(output_dir: Path, stack: ExitStack, overwrite: bool) -> None:
        """Keep others out of the folder, unless it holds something else."""
        work, summary = _folder_in(output_dir), output_dir / SUMMARY
        if not work.exists() and not (overwrite and summary.is_file()):
            advice = "Choose another one."
            if summary.is_file():
                advice = "It is a finished distillation: choose another one, or `overwrite` it."
            check_new_folder(output_dir, "output_dir", advice)
        stack.enter_context(only_writer(output_dir))

    def begin(self, plan: dict[str, Any], overwrite: bool) -> list[int] | None:
        """The shards that are to be translated, after the folder is there with its plan.

        None if all is done, but that the folder was not taken away.
        """
        plan = json.loads(json.dumps(plan))
        file, summary = self.folder / _PLAN, self.output_dir / SUMMARY
        if file.exists():
            given = json.loads(file.read_text(encoding="utf-8"))
            if plan == given:
                return [s for s in range(self.num_shards) if not self.file(s).exists()]
            if not overwrite:
                raise ValueError(_difference(self.output_dir, given, plan))
        elif self.folder.exists() and _is_of(summary, plan):
            self.finish()
            return None
        shutil.rmtree(self.folder, ignore_errors=True)
        with whole_folder(self.folder) as folder:
            write_text(folder / _PLAN, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
        return list(range(self.num_shards))

    def said(self, shard: int) -> list[Said | None]:
        """What is in the file of a shard: None for a source that was too long."""
        # At \n alone: the translations may hold what str.splitlines cuts at, too.
        lines = self.file(shard).read_text(encoding="utf-8").rstrip("\n").split("\n")
        return [None if line == "null" else Said(**json.loads(line)) for line in lines]

    def finish(self) -> None:
        """Take the folder away, the plan first."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder)


def _folder_in(output_dir: Path) -> Path:
    return output_dir / f"{UNFINISHED}-distillation"  # `check_new_folder` takes no notice of it


def _is_of(summary: Path, plan: dict[str, Any]) -> bool:
    """Whether it tells of a finished distillation by this plan."""
    return summary.is_file() and json.loads(summary.read_text(encoding="utf-8"))["plan"] == plan


def _difference(output_dir: Path, given: dict[str, Any], plan: dict[str, Any]) -> str:
    names = [name for name in {**given, **plan} if given.get(name) != plan.get(name)]
    told = []
    for name in names:
        before, now = given.get(name), plan.get(name)
        is_digest = isinstance(now, str) and len(now) == 64
        told.append(f"`{name}`" + ("" if is_digest else f" ({before!r} there, now {now!r})"))
    problem = f"{output_dir} holds an unfinished distillation with another {', '.join(told)}"
    return f"`output_dir`: {problem}. Go on as it began, choose another one, or `overwrite` it."


class _Progress:
    """A bar on a terminal; else a line of the log now and then."""

    def __init__(self, work: Work, is_main: bool):
        self.work, self.start, self.num_own = work, time.monotonic(), 0
        self.num_before = self.num_done = work.num_done()
        self.next_line = self.start + _SECONDS_BETWEEN_LINES
        self.is_log = is_main and not sys.stderr.isatty()
        counts = {"total": work.num_sources, "initial": self.num_done, "unit": " sentences"}
        disable = not is_main or self.is_log
        self.bar = tqdm(desc="Translating", disable=disable, mininterval=1, **counts)

    def add(self, num_sentences: int, *, is_saved: bool = False) -> None:
        """Sentences that were translated here; those of other processes count when saved."""
        self.num_own += num_sentences
        done = self.num_done + num_sentences
        self.num_done = max(done, self.work.num_done()) if is_saved else done
        self.bar.update(self.num_done - self.bar.n)
        if self.is_log and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            speed = (self.num_done - self.num_before) / (time.monotonic() - self.start)
            left = (self.work.num_sources - self.num_done) / max(speed, 1e-9) / 60
            of = f"{self.num_done:,} of {self.work.num_sources:,} sentences"
            text = f"Translated {of}, {speed:,.1f} a second, {left:,.0f} minutes left"
            print(text, file=sys.stderr, flush=True)

    def end(self) -> float:
        """Sentences a second of this process."""
        self.bar.close()
        return self.num_own / (time.monotonic() - self.start)


def translate_shards(
    work: Work, sources: list[str], engine: Engine, processes: Processes, pending: list[int]
) -> float:
    """Translate this process's share of the pending shards; returns its sentences a second."""
    progress = _Progress(work, processes.is_main)
    for shard in pending[processes.rank :: processes.count]:
        said = _translate(sources[work.rows(shard)], engine, shard, progress)
        lines = [json.dumps(each and asdict(each), ensure_ascii=False) for each in said]
        try:
            write_text(work.file(shard), "\n".join(lines) + "\n")
        except OSError as error:
            kept = f"The shards before are whole, in {work.folder}: make room, and call it again"
            raise type(error)(error.errno, f"{error.strerror}. {kept}.") from error
        progress.add(0, is_saved=True)
    return progress.end()


def _translate(
    sources: list[str], engine: Engine, shard: int, progress: _Progress
) -> list[Said | None]:
    """The translations of a shard, in its order; equal sources are translated once."""
    different = list(dict.fromkeys(sources))
    count = dict.fromkeys(different, 0)
    for source in sources:
        count[source] += 1
    token_ids = engine.teacher.encode(different)  # none where there are too many
    found: dict[str, Said | None] = dict.fromkeys(different)
    seed = random.Random(f"{engine.settings.seed}, shard {shard}").getrandbits(63)
    with engine.sampling(seed):
        for batch in batches_by_length(token_ids, engine.settings.max_tokens_per_batch):
            texts = [different[i] for i in batch]
            said = engine.translate(texts, [token_ids[i] for i in batch])
            found |= zip(texts, said, strict=True)
            progress.add(sum(count[text] for text in texts))
    progress.add(sum(count[text] for text, said in found.items() if said is None))
    return [found[source] for source in sources]
