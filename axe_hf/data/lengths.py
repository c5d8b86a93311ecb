"""How long the examples of a data set are, of which only a part is in memory at a time."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

_ROWS_OF_TABLE = 100_000


def pair_lengths(dataset: Any) -> np.ndarray:
    """Source and target length of every example, in tokens: `(num_examples, 2)`."""
    if not hasattr(dataset, "__len__"):
        needs = "needs a `train_dataset` with a length, or a `TranslationStream`"
        raise ValueError(f"`max_tokens_per_batch` {needs}, got {type(dataset).__name__}.")
    columns = getattr(dataset, "column_names", None) or next(rows_of(dataset), {})
    if missing := sorted({"input_ids", "labels"} - {*columns}):
        raise ValueError(f"`train_dataset` lacks the columns {missing}; use tokenize_translations.")
    if not hasattr(dataset, "column_names"):
        rows = [(len(row["input_ids"]), len(row["labels"])) for row in rows_of(dataset)]
        return np.array(rows, np.int32)
    lengths: np.ndarray = np.empty((len(dataset), 2), np.int32)
    start = 0
    for table in _tables_of(dataset, ["input_ids", "labels"]):
        end = start + len(table)
        for side, name in enumerate(("input_ids", "labels")):
            lengths[start:end, side] = table[name].combine_chunks().value_lengths()
        start = end
    return lengths


def _tables_of(dataset: Any, columns: list[str]) -> Iterator[Any]:
    """A `datasets.Dataset` as Arrow tables of some rows: row by row takes seconds for 100,000, and
    the tokens of all may be more than memory holds."""
    return dataset.select_columns(columns).with_format("arrow").iter(_ROWS_OF_TABLE)


def rows_of(dataset: Any) -> Iterator[dict[str, Any]]:
    """The rows of a data set, of torch's too, which has no iterator; of several sets none."""
    dataset = () if dataset is None or isinstance(dataset, dict) else dataset
    is_iterable = hasattr(dataset, "__iter__")
    return iter(dataset) if is_iterable else (dataset[i] for i in range(len(dataset)))


def target_sizes(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each target, and positions that say them all, one between equal neighbours too."""
    is_table = hasattr(dataset, "select_columns") and "labels" in dataset.column_names
    if is_table and dataset.format["type"] != "custom":  # what a transform makes is in no table
        columns = (table["labels"].combine_chunks() for table in _tables_of(dataset, ["labels"]))
        parts = [
            _sizes_of(rows.value_lengths().to_numpy(), rows.flatten().to_numpy())
            for rows in columns
        ]
    else:
        targets = [[int(token) for token in row["labels"]] for row in rows_of(dataset)]
        parts = [_sizes_of(np.array([*map(len, targets)]), np.array([*chain(*targets)]))]
    lengths, needed = zip(*parts, strict=True)
    return np.concatenate(lengths), np.concatenate(needed)


def _sizes_of(lengths: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return lengths, needed_positions(lengths, tokens)


def needed_positions(lengths: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Positions that say each of some targets, whose tokens stand one behind the other."""
    row_of_token: np.ndarray = np.repeat(np.arange(len(lengths)), lengths)
    is_repeat = (tokens[1:] == tokens[:-1]) & (row_of_token[1:] == row_of_token[:-1])
    return lengths + np.bincount(row_of_token[1:][is_repeat], minlength=len(lengths))
