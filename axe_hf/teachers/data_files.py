"""The last phase: filters, files of data, the data card and the summary."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from ..output import whole_folder, write_text
from .corpus import Corpus
from .data_card import CardDetails, data_card_text
from .distillation_settings import DistillationSettings
from .filters import lowest_score, reason_to_drop
from .work import SUMMARY, Work


@dataclass(frozen=True)
class Publication:
    """All that the files of a distillation are made of, but for the translations."""

    corpus: Corpus
    languages: tuple[str, str]
    settings: DistillationSettings
    teacher: dict[str, Any]

    def plan(self) -> dict[str, Any]:
        """All that the translations depend on, by name."""
        names = ("seed", "engine", "int8", "max_tokens_per_batch", "shard_size")
        chosen = {name: getattr(self.settings, name) for name in names}
        chosen |= dict(zip(("source_lang", "target_lang"), self.languages, strict=True))
        return {**self.teacher, **chosen, "sources": self.corpus.fingerprint()}


@dataclass(frozen=True)
class Published:
    """What was kept."""

    counts: dict[str, int]
    mean_score: float


def publish(work: Work, publication: Publication) -> Published:
    """Write all files from the shards, and take these away.

    Killed anywhere, it does the same again: the summary comes last, and the shards go only then.
    """
    settings, corpus = publication.settings, publication.corpus
    judged = [*_judged(work, publication)]
    lowest = lowest_score((s for _, s in judged if s is not None), settings.drop_lowest)
    counts = Counter({"invisible": corpus.num_read - len(corpus.sources)})
    scores = []
    for reason, score in judged:
        if score is not None and lowest is not None and score < lowest:
            reason, score = "low_score", None
        if score is not None:
            scores.append(score)
        elif reason is not None:
            counts[reason] += 1
    if not scores:
        dropped = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        problem = f"Nothing is left of {corpus.num_read} sentences: {dropped}"
        raise ValueError(f"{problem}. The same call with other filters translates nothing anew.")
    found = {name: count for name, count in counts.items() if count}
    made = Published(
        {"read": corpus.num_read, "kept": len(scores), **found},
        round(sum(scores) / len(scores), 4),
    )
    rows = _rows(work, publication, lowest)
    with whole_folder(work.output_dir) as folder:
        (folder / "data").mkdir()
        digest = _write_data(folder / "data", rows, len(scores), settings)
        packages = ["transformers", "torch"]
        packages += ["ctranslate2"] if settings.engine == "ctranslate2" else []
        details = CardDetails(
            name=work.output_dir.resolve().name,
            languages=publication.languages,
            data=corpus.names,
            teacher=publication.teacher,
            settings=settings,
            counts=made.counts,
            mean_score=made.mean_score,
            lowest_score=lowest,
            plan=publication.plan(),
            digest=digest,
            versions={package: version(package) for package in packages},
        )
        write_text(folder / "README.md", data_card_text(details))
        summary = json.dumps(details.summary(), indent=2, ensure_ascii=False)
        write_text(folder / SUMMARY, summary + "\n")
    work.finish()
    return made


def published(work: Work) -> Published:
    """What the summary of a finished distillation says."""
    summary = json.loads((work.output_dir / SUMMARY).read_text(encoding="utf-8"))
    return Published(summary["counts"], summary["mean_score"])


def _judged(work: Work, publication: Publication) -> Iterator[tuple[str | None, float | None]]:
    """Of each source why it is dropped, or its score."""
    for shard in range(work.num_shards):
        sources = publication.corpus.sources[work.rows(shard)]
        for source, said in zip(sources, work.said(shard), strict=True):
            reason = reason_to_drop(source, said, publication.settings)
            yield reason, None if reason or said is None else said.score


def _rows(work: Work, publication: Publication, lowest: float | None) -> Iterator[dict[str, Any]]:
    corpus, settings = publication.corpus, publication.settings
    for shard in range(work.num_shards):
        part = work.rows(shard)
        both = zip(corpus.sources[part], corpus.originals[part], work.said(shard), strict=True)
        for source, originals, said in both:
            if said is None or reason_to_drop(source, said, settings):
                continue
            if lowest is not None and said.score < lowest:
                continue
            pair = dict(zip(publication.languages, (source, said.text), strict=True))
            row: dict[str, Any] = {"translation": pair, "score": said.score}
            if settings.keep_original:
                row["references"] = list(dict.fromkeys([said.text, *originals]))
            yield row


def _write_data(
    folder: Path, rows: Iterator[dict[str, Any]], num_rows: int, settings: DistillationSettings
) -> str:
    """Write the rows in files; returns the SHA-256 of all their bytes."""
    digest = hashlib.sha256()
    num_files = -(-num_rows // settings.rows_per_file)
    for number in range(num_files):
        path = folder / f"train-{number:05}-of-{num_files:05}.{settings.format}"
        part = list(islice(rows, settings.rows_per_file))
        if settings.format == "jsonl":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
            write_text(path, "".join(lines))
        else:
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(part), path)
        digest.update(path.read_bytes())
    return digest.hexdigest()
