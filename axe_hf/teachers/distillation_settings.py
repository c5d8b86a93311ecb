"""The settings of a distillation, from which the options of `axe-hf distill` are made."""

from dataclasses import dataclass
from typing import Any, Literal

from ..cmlm.configuration_mask_predict import require

_RANGES = {
    "at least 1": "num_beams max_new_tokens max_tokens_per_batch max_source_length shard_size "
    "rows_per_file max_ngram",
    "a finite number": "length_penalty",
    "in [0, 2**32)": "seed",
    "positive": "max_length_ratio",
    "in [0, 1)": "drop_lowest",
}


@dataclass(frozen=True)
class DistillationSettings:
    """How a teacher translates, and what is kept of it.

    Args:
        num_beams (default None): beams of the search; 1 is greedy. None is as the teacher was
            saved, and so it is for all of its settings.
        max_new_tokens (default None): longest translation, in tokens. None is as the teacher was
            saved, or 256 where it does not say, within what its decoder can take.
        length_penalty (default None): exponent of the length in the ranking of beams; more is for
            longer translations.
        generation (default None): any other settings of Transformers' `GenerationConfig`, by name,
            such as `{"do_sample": true, "top_k": 10}`. They end up in the data card.
        seed (default 0): of sampling; each shard has numbers of its own.
        teacher_source_lang, teacher_target_lang (default None): the teacher's own code of the
            language, where it knows several: eng_Latn, en_XX, or deu for Marian's `>>deu<<`. None
            is the data's code, if the teacher knows it.
        source_prefix (default ""): what the teacher wants in front of each sentence, such as
            "translate English to German: ". It is not written into the data.
        revision (default None): branch, tag or commit of a teacher on the Hub.
        engine (default "transformers"): what runs the teacher. ctranslate2 is an extra and several
            times faster; greedy search gives the same texts but for rounding, beam search ends
            by other rules.
        dtype (default None): type that the teacher computes in. None is float32, or for a loaded
            model its own.
        int8 (default False): multiply in int8, on a CPU; with ctranslate2 on a GPU, too.
        device (default None): cpu, cuda, cuda:1 ...; None is a GPU if there is one, in each of
            several processes its own.
        max_tokens_per_batch (default 4096): source tokens translated at once, padding included;
            beams multiply the memory they need.
        max_source_length (default None): longer sources, in tokens, are left out, since a part of
            them is no source for the whole translation. None is what the teacher can read.
        shard_size (default 2000): sentences between two savings, sorted by length among each other.
        keep_original (default False): write the column references: the distilled translation, and
            behind it the right ones of the data.
        drop_copies (default False): drop translations that are the source again, but for case and
            spaces.
        drop_unfinished (default False): drop translations that `max_new_tokens` cut.
        max_length_ratio (default None): drop translations that have more tokens than this times
            the source's, or fewer than the source's divided by it.
        max_ngram (default None): drop translations that say so many words in a row twice, if the
            source does not, either; in languages without spaces letters in place of words.
        drop_lowest (default 0): share, in [0, 1), of what the other filters left to drop: those of
            the lowest scores.
        format (default "jsonl"): kind of the files of data.
        rows_per_file (default 500000): most sentence pairs of a file.
        license (default None): identifier for the data card, such as cc-by-4.0: that of the
            sources, and of what the teacher's licence allows.
        overwrite (default False): replace a distillation in the folder, or begin anew one that is
            not finished.

    Raises:
        TypeError: `generation` is no dict.
        ValueError: a value out of its range.

    Example:
        >>> from axe_hf.teachers import DistillationSettings
        >>> DistillationSettings(num_beams=4).engine
        'transformers'
    """

    num_beams: int | None = None
    max_new_tokens: int | None = None
    length_penalty: float | None = None
    generation: dict[str, Any] | None = None
    seed: int = 0
    teacher_source_lang: str | None = None
    teacher_target_lang: str | None = None
    source_prefix: str = ""
    revision: str | None = None
    engine: Literal["transformers", "ctranslate2"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    int8: bool = False
    device: str | None = None
    max_tokens_per_batch: int = 4096
    max_source_length: int | None = None
    shard_size: int = 2000
    keep_original: bool = False
    drop_copies: bool = False
    drop_unfinished: bool = False
    max_length_ratio: float | None = None
    max_ngram: int | None = None
    drop_lowest: float = 0.0
    format: Literal["jsonl", "parquet"] = "jsonl"
    rows_per_file: int = 500_000
    license: str | None = None
    overwrite: bool = False

    def __post_init__(self):
        require(_RANGES, vars(self))
        kinds = {"engine": ("transformers", "ctranslate2"), "format": ("jsonl", "parquet")}
        kinds["dtype"] = (None, "float32", "bfloat16", "float16")
        for name, known in kinds.items():
            if getattr(self, name) not in known:
                shown = ", ".join(map(repr, filter(None, known)))
                raise ValueError(f"`{name}` must be one of {shown}, got {getattr(self, name)!r}.")
        if self.max_length_ratio is not None and self.max_length_ratio < 1:
            raise ValueError(f"`max_length_ratio` must be from 1, got {self.max_length_ratio}.")
        if not isinstance(self.generation, dict | None):
            kind = type(self.generation).__name__
            raise TypeError(f"`generation` must be a dict of settings by their names, got {kind}.")
        given = {"num_beams", "max_new_tokens", "length_penalty"} & {*(self.generation or {})}
        for name in sorted(given):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` is given twice, by itself and in `generation`.")
        if self.int8 and self.dtype not in (None, "float32"):
            raise ValueError(f"`int8` takes the place of `dtype`, got {self.dtype!r}, too.")

    def asked_generation(self) -> dict[str, Any]:
        """The settings of the search that were given, by their names in Transformers."""
        names = ("num_beams", "max_new_tokens", "length_penalty")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return own | (self.generation or {})
