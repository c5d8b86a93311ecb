"""Random numbers of one sentence, whichever batch, process or worker it comes to.

They hang on a seed, the epoch and the sentence's row in the training set. So the sentences of a
step may be cut into batches in any way, and each is trained on the same canvas.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

DRAW = "canvas_draw"  # the column with epoch and row

# SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014,
# figure 16): a whole batch in a few operations, the same on every machine and in every version of
# NumPy. A `np.random.Philox` for each sentence takes seventy times as long.
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)


class NumberedRows(Dataset):
    """A training set whose rows say in the column `DRAW` which epoch and row they are.

    The epoch is in shared memory, so that workers which outlive an epoch see the next one.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data comes next, from 0."""
        self._epoch.fill_(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._numbered(self.dataset[index], index)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        take = getattr(self.dataset, "__getitems__", None)
        rows = [self.dataset[i] for i in indices] if take is None else take(indices)
        return [self._numbered(row, i) for row, i in zip(rows, indices, strict=True)]

    def _numbered(self, row: Any, index: int) -> Any:
        is_feature = isinstance(row, Mapping)  # else the collator says what is wrong with it
        return {**row, DRAW: (int(self._epoch), int(index))} if is_feature else row


def uniform_numbers(seed: int, draws: Sequence[tuple[int, int]], number: int) -> torch.Tensor:
    """Independent numbers in [0, 1), float64 `(sentences, number)`.

    Args:
        seed: any integer.
        draws: epoch and row of each sentence, on which alone its numbers hang; the first ones are
            the same whatever `number` is.
        number: how many for each sentence.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    state = np.frombuffer(digest, "<u8")  # (1,)
    for part in np.array(draws, np.int64).T.astype(np.uint64):  # epochs, then rows
        state = _mixed(state + (part + np.uint64(1)) * _GOLDEN_GAMMA)  # (sentences,)
    steps = np.arange(1, number + 1, dtype=np.uint64) * _GOLDEN_GAMMA
    bits = _mixed(state[:, None] + steps)  # (sentences, number)
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Each of 64 bits hangs on all of `bits`; no two become equal."""
    for shift, factor in _MIX:
        bits = (bits ^ (bits >> shift)) * factor
    return bits ^ (bits >> _LAST_SHIFT)
