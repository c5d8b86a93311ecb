"""The data of a run: sentence pairs as its arguments name them, and what trains on them."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers.utils import logging

from ..cmlm.configuration_cmlm import needs_room
from ..data import (
    PairStream,
    PairTokenizer,
    TranslationStream,
    load_translations,
)
from ..data.lengths import target_sizes
from ..data.mixing import mix
from ..data.tokenizer import tokenize_pairs
from .arguments import AxeTrainingArguments, DataArguments

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

# What a tokenizer is trained on at most: pairs at even distances, or the first of a stream.
MOST_PAIRS_FOR_TOKENIZER = 500_000
# What is trained on before it is tokenized: the sources with weights one by one.
TrainingPairs: TypeAlias = "PairStream | list[Dataset]"


def load_pairs(data_args: DataArguments, seed: int) -> TrainingPairs:
    """The sentence pairs to train on."""
    languages = {"source_lang": data_args.source_lang, "target_lang": data_args.target_lang}
    is_hub = data_args.train_file is None
    source: Any = data_args.dataset_name if is_hub else data_args.train_file
    weights, split = data_args.train_file_weights, "train" if is_hub else None
    try:
        if data_args.streaming:
            return PairStream(source, **languages, weights=weights, split=split, seed=seed)
        sources = [source] if weights is None else data_args.train_files
        sets = [load_translations(one, **languages, split=split) for one in sources]
    except (FileNotFoundError, ValueError) as error:
        argument = "dataset_name" if is_hub else "train_file"
        raise type(error)(f"`{argument}`: {error}") from error
    return [_first(one, data_args.max_train_samples) for one in sets]


def load_scored(data_args: DataArguments, splits: set[str]) -> "dict[str, Dataset]":
    """The sentence pairs of validation and test, as far as they are among `splits`."""
    loaded = {}
    languages = {"source_lang": data_args.source_lang, "target_lang": data_args.target_lang}
    limits = {"validation": data_args.max_eval_samples, "test": data_args.max_predict_samples}
    for split, limit in limits.items():
        hub_split = getattr(data_args, f"{split}_split")
        argument = f"{split}_file" if hub_split is None else "dataset_name"
        if split not in splits:
            continue
        source = getattr(data_args, argument)
        try:
            found = load_translations(source, **languages, split=hub_split)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"`{argument}`: {error}") from error
        loaded[split] = _first(found, limit)
    return loaded


def texts_of(pairs: TrainingPairs, data_args: DataArguments) -> Iterator[str]:
    """The sentences of both sides that a tokenizer is trained on."""
    languages, prefix = (data_args.source_lang, data_args.target_lang), data_args.source_prefix
    rows: Iterator[dict[str, str]]
    if isinstance(pairs, PairStream):
        rows = pairs.first(MOST_PAIRS_FOR_TOKENIZER)
        logger.warning(f"The tokenizer learns the first {MOST_PAIRS_FOR_TOKENIZER} pairs at most.")
    else:
        step = max(1, -(-sum(map(len, pairs)) // MOST_PAIRS_FOR_TOKENIZER))
        if step > 1:
            logger.warning(f"The tokenizer learns one in {step} pairs.")
        parts = (one.select(range(0, len(one), step)) if step > 1 else one for one in pairs)
        rows = (row["translation"] for part in parts for row in part)
    texts = (row[language] for row in rows for language in languages)
    return chain(filter(None, texts), [prefix] if prefix else [])


def training_set(
    pairs: TrainingPairs, tokenizer: Any, config: Any, data_args: DataArguments
) -> "TranslationStream | Dataset":
    """The pairs in tokens, less those that are too long for the model or its canvases."""
    settings: dict[str, Any] = {}
    for name in ("max_source_length", "max_target_length"):
        most = getattr(config, name)
        settings[name] = getattr(data_args, name) or most
        if settings[name] > most:
            raise ValueError(f"`{name}` is {settings[name]}, over the model's limit of {most}.")
    settings |= {"source_lang": data_args.source_lang, "target_lang": data_args.target_lang}
    settings["source_prefix"] = data_args.source_prefix or ""
    if isinstance(pairs, PairStream):
        room = config.max_target_length if needs_room(config) else None
        tokenize = PairTokenizer(tokenizer, **settings, max_canvas_length=room)
        size = {"shuffle_buffer": data_args.shuffle_buffer} if data_args.shuffle_buffer else {}
        return TranslationStream(pairs, tokenize, **size)
    tokenize = PairTokenizer(tokenizer, **settings)
    sets = [tokenize_pairs(one, tokenize, data_args.preprocessing_num_workers) for one in pairs]
    if needs_room(config):
        sets = [_with_room(one, config.max_target_length) for one in sets]
    return mix(sets, data_args.train_file_weights)


def check_stream(data_args: DataArguments, training_args: AxeTrainingArguments) -> None:
    """Refuse, before any work, a stream that nothing would end, or that divides itself."""
    if data_args.streaming and training_args.max_steps <= 0:
        got = f"got {training_args.max_steps}"
        raise ValueError(f"`max_steps` must be set with `streaming`, which has no end, {got}.")
    is_hub, number = data_args.dataset_name is not None, training_args.dataloader_num_workers
    if data_args.streaming and is_hub and number:
        reason = "`datasets` divides a stream among workers by itself. Leave it out"
        raise ValueError(f"`dataloader_num_workers` is {number}, but {reason}.")


def _first(dataset: "Dataset", limit: int | None) -> "Dataset":
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))


def _with_room(dataset: "Dataset", limit: int) -> "Dataset":
    """The pairs whose targets a canvas of `limit` positions can hold."""
    _, needed = target_sizes(dataset)
    kept = (needed <= limit).nonzero()[0]
    if num_dropped := len(dataset) - len(kept):
        dropped = f"{num_dropped} of {len(dataset)} sentence pairs"
        reason = f"with a blank between equal neighbours over max_target_length={limit}"
        logger.warning(f"Dropped {dropped}: {reason}.")
    return dataset.select(kept) if num_dropped else dataset
