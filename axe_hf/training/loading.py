"""The data of a run: sentence pairs as its arguments name them, and what trains on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers.utils import logging

from ..cmlm.configuration_cmlm import needs_room, with_prefix
from ..data import (
    PairStream,
    PairTokenizer,
    TranslationStream,
    load_translations,
)
from ..data.lengths import target_sizes
from ..data.mixing import mix
from ..data.tokenizer import encode_targets, tokenize_pairs
from .arguments import AxeTrainingArguments, DataArguments
from .directions import DIRECTION, direction_name, source_prefix

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

# What a tokenizer is trained on at most: pairs at even distances, or the first of a stream.
MOST_PAIRS_FOR_TOKENIZER = 500_000


@dataclass(frozen=True)
class PairSet:
    """The sentence pairs of a source in two languages."""

    pairs: "Dataset"
    directions: list[tuple[str, str]]  # one, or both
    number: int = 0  # of the source, among those with weights


# What is trained on before it is tokenized: the sources with weights one by one.
TrainingPairs: TypeAlias = "PairStream | list[PairSet]"


def load_pairs(data_args: DataArguments, seed: int) -> TrainingPairs:
    """The sentence pairs to train on."""
    is_hub = data_args.train_file is None
    source: Any = data_args.dataset_name if is_hub else data_args.train_file
    weights, split = data_args.train_file_weights, "train" if is_hub else None
    argument = "dataset_name" if is_hub else "train_file"
    if data_args.streaming:
        pair = data_args.language_pairs[0]  # of which there may be the other direction, too
        with _told_of(argument):
            limit = data_args.max_train_samples
            return PairStream(source, *pair, weights, split, seed=seed, max_pairs=limit)
    sources = [source] if weights is None else data_args.train_files
    return _load_sets(sources, split, data_args, argument, data_args.max_train_samples)


def load_scored(data_args: DataArguments, splits: set[str]) -> dict[str, list[PairSet]]:
    """The sentence pairs of validation and test, as far as they are among `splits`."""
    loaded = {}
    limits = {"validation": data_args.max_eval_samples, "test": data_args.max_predict_samples}
    for split, limit in limits.items():
        hub_split = getattr(data_args, f"{split}_split")
        argument = f"{split}_file" if hub_split is None else "dataset_name"
        if split in splits:
            sources = [getattr(data_args, argument)]
            loaded[split] = _load_sets(sources, hub_split, data_args, argument, limit)
    return loaded


def _load_sets(
    sources: Sequence[Any],
    split: str | None,
    data_args: DataArguments,
    argument: str,
    limit: int | None,
) -> list[PairSet]:
    """The pairs of each source and two languages, at most `limit`, without empty sets."""
    by_languages: dict[frozenset[str], list[tuple[str, str]]] = {}
    for pair in data_args.language_pairs:
        by_languages.setdefault(frozenset(pair), []).append(pair)
    all_languages = [*dict.fromkeys(chain.from_iterable(data_args.language_pairs))]
    # Rows of one direction must be of it; of several, each has the languages that it has.
    among = all_languages if len(data_args.language_pairs) > 1 else None
    sets, empty = list[PairSet](), {*data_args.language_pairs}
    with _told_of(argument):
        for number, source in enumerate(sources):
            for directions in by_languages.values():
                languages = dict(zip(("source_lang", "target_lang"), directions[0], strict=True))
                found: Any = load_translations(source, **languages, split=split, among=among)
                if len(found):
                    sets.append(PairSet(_first(found, limit), directions, number))
                    empty -= {*directions}
        if empty:
            wanted = ", ".join("-".join(pair) for pair in sorted(empty))
            raise ValueError(f"{sources}: must have rows of each direction, got none of {wanted}.")
    return sets


@contextmanager
def _told_of(argument: str) -> Iterator[None]:
    """Errors begin with the argument that is about what was read."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"`{argument}`: {error}") from error


def texts_of(pairs: TrainingPairs, data_args: DataArguments) -> Iterator[str]:
    """The sentences of both sides that a tokenizer is trained on."""
    prefix = data_args.source_prefix
    rows: Iterator[tuple[dict[str, str], tuple[str, str]]]
    if isinstance(pairs, PairStream):
        languages = data_args.language_pairs[0]
        rows = ((row, languages) for row in _first_for_tokenizer(pairs))
    else:
        step = max(1, -(-sum(len(one.pairs) for one in pairs) // MOST_PAIRS_FOR_TOKENIZER))
        if step > 1:
            logger.warning(f"The tokenizer learns one in {step} pairs.")
        rows = (
            (row["translation"], one.directions[0])
            for one in pairs
            for row in (one.pairs.select(range(0, len(one.pairs), step)) if step > 1 else one.pairs)
        )
    texts = (row[language] for row, languages in rows for language in languages)
    return chain(filter(None, texts), [prefix] if prefix else [])


def _first_for_tokenizer(pairs: PairStream) -> Iterator[dict[str, str]]:
    for number, pair in enumerate(pairs.first(MOST_PAIRS_FOR_TOKENIZER + 1)):
        if number == MOST_PAIRS_FOR_TOKENIZER:
            logger.warning(f"The tokenizer learns the first {number} pairs of the stream.")
            return
        yield pair


def training_set(
    pairs: TrainingPairs, tokenizer: Any, config: Any, data_args: DataArguments
) -> "TranslationStream | Dataset":
    """The pairs in tokens, less those that are too long for the model or its canvases."""
    limits: dict[str, Any] = {}
    for name in ("max_source_length", "max_target_length"):
        most = getattr(config, name)
        limits[name] = getattr(data_args, name) or most
        if limits[name] > most:
            raise ValueError(f"`{name}` is {limits[name]}, over the model's limit of {most}.")

    def tokenizer_of(languages: tuple[str, str], **more: Any) -> PairTokenizer:
        source, target = languages
        prefix = source_prefix(config, target)
        return PairTokenizer(tokenizer, source, target, source_prefix=prefix, **limits, **more)

    if isinstance(pairs, PairStream):
        room = config.max_target_length if needs_room(config) else None
        pair_tokenizers = [
            tokenizer_of(languages, max_canvas_length=room)
            for languages in data_args.language_pairs
        ]
        if (number := data_args.preprocessing_num_workers) is not None:
            note = "a stream is tokenized while training goes, by `dataloader_num_workers`"
            logger.warning(f"`preprocessing_num_workers` is {number}, but changes nothing: {note}.")
        size = {"shuffle_buffer": data_args.shuffle_buffer} if data_args.shuffle_buffer else {}
        return TranslationStream(pairs, pair_tokenizers, **size)
    sets: dict[int, list[Dataset]] = {}
    for one in pairs:
        for languages in one.directions:
            tokenize = tokenizer_of(languages)
            made = tokenize_pairs(one.pairs, tokenize, data_args.preprocessing_num_workers)
            if needs_room(config):
                made = _with_room(made, config.max_target_length)
            sets.setdefault(one.number, []).append(made)
    weights = data_args.train_file_weights
    if weights is not None:  # a source without a row of these directions is drawn never
        weights = [weights[number] for number in sets]
    return mix([mix(parts) for parts in sets.values()], weights)


def scoring_set(
    sets: list[PairSet], tokenizer: Any, config: Any, data_args: DataArguments
) -> "Dataset":
    """Every pair, cut at the model's limits, not left out, with the whole texts as references.

    Of several directions, each has a column that says which its rows are of.
    """
    parts, is_several = list[Any](), len(data_args.language_pairs) > 1
    for one in sets:
        if is_several and "references" in one.pairs.column_names:
            reason = "with several directions it is not said of which language they are"
            logger.warning(f"Left out 'references', since {reason}: the target sides are scored.")
        for languages in one.directions:
            prefix = source_prefix(config, languages[1])
            made = _tokenize_for_scoring(
                one.pairs, tokenizer, config, languages, prefix, has_references=not is_several
            )
            if is_several:
                made = made.add_column(DIRECTION, [direction_name(*languages)] * len(made))
            parts.append(made)
    return mix(parts)


def _tokenize_for_scoring(
    dataset: "Dataset",
    tokenizer: Any,
    config: Any,
    languages: tuple[str, str],
    prefix: str,
    *,
    has_references: bool,
) -> "Dataset":
    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = batch["translation"]
        sources = [with_prefix(pair[languages[0]] or "", prefix) for pair in pairs]
        targets = [pair[languages[1]] or "" for pair in pairs]
        cut = {"truncation": True, "max_length": config.max_source_length, "verbose": False}
        labels = encode_targets(tokenizer, targets, config.max_target_length)
        if needs_room(config):
            labels = [_cut_to_room(ids, config.max_target_length) for ids in labels]
        references = batch.get("references") if has_references else None
        return {
            "input_ids": tokenizer(sources, **cut).input_ids,
            "labels": labels,
            "references": references or [[target] for target in targets],
        }

    columns = dataset.column_names
    return dataset.map(tokenize, batched=True, remove_columns=columns, desc="Tokenizing")


def _cut_to_room(token_ids: list[int], limit: int) -> list[int]:
    """The beginning of a target that a canvas of `limit` positions holds, and `</s>`."""
    *pieces, end = token_ids
    is_repeat = [a == b for a, b in zip([None, *pieces], pieces, strict=False)]
    needed = accumulate(1 + again for again in is_repeat)
    return [*(token for token, n in zip(pieces, needed, strict=True) if n < limit), end]


def check_stream(data_args: DataArguments, training_args: AxeTrainingArguments) -> None:
    """Refuse, before any work, a stream that nothing would end."""
    if data_args.streaming and training_args.max_steps <= 0:
        got = f"got {training_args.max_steps}"
        raise ValueError(f"`max_steps` must be set with `streaming`, which has no end, {got}.")


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
