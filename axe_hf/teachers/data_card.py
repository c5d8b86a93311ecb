"""The README.md that goes with distilled data, and the summary beside it."""

import json
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from .distillation_settings import DistillationSettings
from .filters import told_counts

_TEMPLATE = Path(__file__).parents[1] / "templates" / "data_card.md"
_TAGS = ["axe_hf", "knowledge-distillation", "machine-translation", "synthetic"]
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
_SIZES |= {10**7: "1M<n<10M", 10**8: "10M<n<100M"}
# Not of the data: where and how fast it was made, what stood in its place.
_UNTOLD = ("overwrite", "device")


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
