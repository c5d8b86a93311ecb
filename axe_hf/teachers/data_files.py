"""What a distillation leaves: filtered files of data, the data card and the summary."""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..output import whole_folder, write_text
from .corpus import Corpus
from .distillation_settings import DistillationSettings
from .filters import lowest_score, reason_to_drop, told_counts
from .work import SUMMARY, Work

_TEMPLATE = Path(__file__).parents[1] / "templates" / "data_card.md"
_TAGS = ["axe_hf", "knowledge-distillation", "machine-translation", "synthetic"]
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
_SIZES |= {10**7: "1M<n<10M", 10**8: "10M<n<100M"}
# Not of the data: where and how fast it was made, what stood in its place.
_UNTOLD = ("overwrite", "device")


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


# The card


@dataclass(frozen=True)
class CardDetails:
    """What a data card tells."""

    name: str  # of the folder
    languages: tuple[str, str]
    data: list[str]
    teacher: dict[str, Any]  # as `Teacher.describe` tells of it
    settings: DistillationSettings
    counts: dict[str, int]
    mean_score: float
    lowest_score: float | None  # below which nothing was kept
    plan: dict[str, Any]  # all that the translations depend on
    digest: str  # SHA-256 of the data
    versions: dict[str, str]

    def command(self) -> str:
        """The command that does the same."""
        languages = zip(("--source-lang", "--target-lang"), self.languages, strict=True)
        words = ["axe-hf", "distill", self.teacher["teacher"], *self.data]
        words += [word for pair in languages for word in pair]
        for field in fields(self.settings):
            value = getattr(self.settings, field.name)
            if field.name in _UNTOLD or value == field.default:
                continue
            words.append(f"--{field.name.replace('_', '-')}")
            if value is not True:
                words.append(json.dumps(value) if isinstance(value, dict) else str(value))
        return shlex.join([*words, "--output-dir", self.name])

    def summary(self) -> dict[str, Any]:
        """All of it, for programs."""
        settings = {n: v for n, v in asdict(self.settings).items() if n not in _UNTOLD}
        names = ("data", "counts", "mean_score", "lowest_score", "versions", "plan")
        own = {name: getattr(self, name) for name in names}
        sides = dict(zip(("source_lang", "target_lang"), self.languages, strict=True))
        return {**sides, **own, "settings": settings, "command": self.command()}


def data_card_text(details: CardDetails) -> str:
    """The card in Markdown, with the Hub's metadata on top."""
    kind, kept = details.settings.format, details.counts["kept"]
    sizes = (text for most, text in _SIZES.items() if kept < most)
    config: dict[str, Any] = {"config_name": "default"}
    config["data_files"] = [{"split": "train", "path": f"data/train-*.{kind}"}]
    # `load_dataset` keeps what it read by the folder's last name and this entry: without a digest
    # it would take two folders of one name, or one that was overwritten, for the same.
    config["description"] = f"SHA-256 {details.digest}"
    data = DatasetCardData(
        language=list(details.languages),
        license=details.settings.license,
        task_categories=["translation"],
        annotations_creators=["machine-generated"],
        size_categories=[next(sizes, "n>100M")],
        tags=_TAGS,
        configs=[config],
    )
    teacher = details.teacher
    told = {"teacher": teacher["teacher"], "revision": teacher["commit"] or teacher["revision"]}
    told |= {name: teacher[name] for name in ("architecture", "num_parameters", "dtype")}
    told |= {"languages of the teacher": " to ".join(filter(None, teacher["languages"]))}
    told |= {name: teacher[name] for name in ("source_prefix", "generation", "max_source_length")}
    names = ("engine", "int8", "seed", "shard_size", "max_tokens_per_batch")
    told |= {name: getattr(details.settings, name) for name in names} | details.versions
    table = {name.replace("_", " "): _code(value) for name, value in told.items() if value}
    return str(
        DatasetCard.from_template(
            data,
            template_path=str(_TEMPLATE),
            name=_code(details.name),
            source=_code(details.languages[0]),
            target=_code(details.languages[1]),
            teacher=_code(teacher["teacher"]),
            data=" and ".join(map(_code, details.data)),
            license=details.settings.license and _code(details.settings.license),
            command=details.command(),
            kept=kept,
            counts=told_counts(details.counts),
            mean_score=details.mean_score,
            lowest_score=details.lowest_score,
            has_references=details.settings.keep_original,
            table=table,
        )
    )


def _code(value: Any) -> str:
    """Whatever users named, as code: neither Markdown nor HTML, nor the end of a table's cell."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "`" + " ".join(text.replace("`", "'").replace("|", "¦").split()) + "`"
