"""Sequence-level knowledge distillation: a teacher's translations take the place of the targets.

Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016 (https://arxiv.org/abs/1606.07947).
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .corpus import read_corpus
from .data_files import Publication, publish, published
from .distillation_settings import DistillationSettings
from .engines import make_engine
from .processes import Processes
from .teacher import check_vocabulary, load_teacher
from .work import Work, translate_shards


@dataclass(frozen=True)
class DistillationResult:
    """What `distill` made."""

    folder: Path
    counts: dict[str, int]  # read, kept, and why the others were dropped
    mean_score: float  # of what was kept: mean log-probability by the teacher, nats per token
    sentences_per_second: float | None  # of this call in this process; None if all was there
    is_main_process: bool  # the one of several that wrote the files, and should print


def distill(
    teacher: str | Path | PreTrainedModel,
    data: Any,
    output_dir: str | Path,
    *,
    source_lang: str,
    target_lang: str,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    **settings: Any,
) -> DistillationResult:
    """Let a teacher translate the sources of `data`, and write the pairs to train a student on.

    Sequence-level knowledge distillation (Kim and Rush 2016, https://arxiv.org/abs/1606.07947):
    students that write all words at once learn a teacher's translations far better than human ones.
    The folder gets `data/train-*`, whose rows are `{"translation": {source_lang: ..., target_lang:
    ...}, "score": ...}`, README.md (a data card) and distillation.json (settings, counts);
    `axe-hf train --train-file`, `load_translations` and `datasets.load_dataset` read it.

    The score is the mean log-probability of the translation by the teacher, nats per token, its end
    included: that of the text, read once more (`axe_hf.rescoring`), hence the same thing whatever
    the search and its penalties were.

    Sentences are translated in shards, which appear in the folder whole or not at all. A call that
    was stopped, killed or ran out of disk is gone on with by the same call; the files end the same,
    byte by byte, also for any number of processes (`accelerate launch`, `torchrun`) with as many
    threads each.

    Args:
        teacher: any encoder-decoder of Transformers: a folder, a name on the Hub, or a loaded
            model, which runs where it is and is left as it is.
        data: what `load_translations` reads, one plain text file of sources alone, or a list of
            several of these, which are joined. Sources without a visible character are left out.
        output_dir: a new or an empty folder, or one of the same distillation, unfinished.
        source_lang, target_lang: keys of the two sides in the data, and in what is written.
        tokenizer: that of the teacher, or its name; needed for a loaded model.
        **settings: fields of `DistillationSettings`, such as `num_beams`.

    Returns:
        A `DistillationResult`: `folder`, `counts`, `mean_score` and `sentences_per_second`.

    Raises:
        FileExistsError: `output_dir` holds something else, or is finished.
        BlockingIOError: another process is writing into it.
        ValueError: settings, a teacher or data that cannot be, or not those of the distillation
            that `output_dir` holds unfinished, or filters that leave nothing.
        ImportError: the engine is not installed.

    Example:
        >>> import axe_hf
        >>> result = axe_hf.distill(  # doctest: +SKIP
        ...     "Helsinki-NLP/opus-mt-en-de", "news.en", "data/en-de", source_lang="en",
        ...     target_lang="de", num_beams=4, drop_copies=True,
        ... )
        >>> result.counts["kept"]  # doctest: +SKIP
    """
    chosen, folder = DistillationSettings(**settings), Path(output_dir)
    languages = (source_lang, target_lang)
    corpus = read_corpus(data, languages, needs_originals=chosen.keep_original)
    with ExitStack() as stack:
        processes = stack.enter_context(Processes.launched(chosen.device))
        processes.from_main(lambda: Work.enter(folder, stack, chosen.overwrite))
        work = Work(folder, len(corpus.sources), chosen.shard_size)
        loaded = load_teacher(teacher, tokenizer, languages, chosen, processes.device)
        check_vocabulary(loaded, corpus.sources)
        details = Publication(corpus, languages, chosen, loaded.describe(chosen))
        pending = processes.from_main(lambda: work.begin(details.plan(), chosen.overwrite))
        speed = None
        if pending:
            engine = make_engine(loaded, chosen, work.cache, processes)
            speed = translate_shards(work, corpus.sources, engine, processes, pending)
        processes.wait()
        is_done = pending is None
        made = processes.from_main(lambda: published(work) if is_done else publish(work, details))
        kept = (made.counts, made.mean_score, speed)
        return DistillationResult(folder, *kept, processes.is_main)
