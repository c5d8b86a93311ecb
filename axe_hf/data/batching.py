"""Batches of as many sentence pairs as a token budget holds."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler

from ..cmlm.configuration_mask_predict import require

Lengths = Sequence[tuple[int, int]] | Sequence[int] | np.ndarray


class MaxTokensBatchSampler:
    """Group examples of similar length into batches that fill a token budget.

    A batch costs rows * max(longest source, longest target) tokens, padding included. This is how
    fairseq counts, so published budgets carry over. Every example comes once an epoch. Those of
    equal length are shuffled among each other, and so are the batches. The number of batches hangs
    on the lengths alone, the order on (seed, epoch): a resumed run sees the same.

    In every process an example takes 1 or 2 bytes for its size and 4 for its place in the order,
    and 21 more for seconds at the start of an epoch (measured on 10 million): 0.6 GB and 2.1 GB
    more for 100 million pairs. Where that is too much, use a `TranslationStream`.

    Args:
        lengths: Per example the source and target length, `(num_examples, 2)`, or one size each,
            `(num_examples,)`; whole numbers from 1.
        max_tokens: Budget of one batch, in tokens.
        seed: Seed of the order.
        num_replicas: Number of processes. The batches with the most rows are halved until each gets
            equally many.
        accumulation: Batches of each process in a step. Where the examples allow, batches are
            halved until every step has so many: then the batches of a step, those of all processes
            together, are the same whenever `num_replicas * accumulation` is.

    Raises:
        ValueError: A wrong `lengths`, an example over the budget, fewer examples than replicas.

    Example:
        >>> sampler = MaxTokensBatchSampler([(3, 4), (9, 8), (4, 2), (5, 5)], max_tokens=10)
        >>> len(sampler), sorted(sorted(batch) for batch in sampler)
        (3, [[0, 2], [1], [3]])
    """

    batch_size = None  # tells accelerate that it varies
    drop_last = False

    def __init__(
        self,
        lengths: Lengths,
        max_tokens: int,
        seed: int = 0,
        num_replicas: int = 1,
        accumulation: int = 1,
    ):
        counts = {"max_tokens": max_tokens, "num_replicas": num_replicas}
        counts["accumulation"] = accumulation
        require({"at least 1": " ".join(counts)}, counts, optional=False)
        self.sizes = _sizes(lengths)
        self.seed, self.epoch = seed, 0
        longest = int(self.sizes.argmax())
        if self.sizes[longest] > max_tokens:
            got = f"{max_tokens}, but example {longest} has {self.sizes[longest]} tokens"
            advice = "Drop it by max_source_length."
            raise ValueError(f"`max_tokens` must hold every example, got {got}. {advice}")
        bounds = batch_bounds(np.sort(self.sizes), max_tokens)
        divided = _divided(bounds, num_replicas * accumulation) or _divided(bounds, num_replicas)
        if divided is None:
            expected = f"`num_replicas` must divide {len(self.sizes)} examples"
            raise ValueError(f"{expected}, got {num_replicas}.")
        self._bounds = np.array(divided)

    @property
    def sampler(self) -> "MaxTokensBatchSampler":
        """Itself: accelerate passes the epoch to `batch_sampler.sampler` in distributed runs."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass by the number of its epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[list[int]]:
        generator = _generator(self.seed, self.epoch)
        order = generator.permutation(np.arange(len(self.sizes), dtype=np.int32))
        order = order[np.argsort(self.sizes[order], kind="stable")]
        for index in generator.permutation(len(self._bounds)):
            start, end = self._bounds[index]
            yield order[start:end].tolist()


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([abs(seed), int(seed < 0), epoch])


def _sizes(lengths: Lengths) -> np.ndarray:
    expected = "`lengths` must hold a (source, target) pair or one size per example"
    try:
        sizes = np.asarray(lengths)
    except ValueError as error:
        raise ValueError(f"{expected}, got rows of different sizes.") from error
    if sizes.size == 0:
        raise ValueError(f"{expected}, got no example at all.")
    if not sizes.ndim or sizes.shape[1:] not in ((), (2,)) or sizes.dtype.kind not in "iu":
        raise ValueError(f"{expected}, got shape {sizes.shape} of {sizes.dtype}.")
    if sizes.min() < 1:
        index = int(np.argwhere(sizes < 1)[0][0])
        raise ValueError(f"{expected}, at least 1 each, got {sizes[index]} at index {index}.")
    sizes = sizes.max(axis=1) if sizes.ndim == 2 else sizes
    return sizes.astype(np.min_scalar_type(sizes.max()))  # one or two bytes each


def batch_bounds(sorted_sizes: np.ndarray, max_tokens: int) -> list[tuple[int, int]]:
    """Start and end of the batches in the sorted order, as many rows as the budget holds."""
    bounds, start = [], 0
    while start < len(sorted_sizes):
        # Rows behind are no shorter than the first: so many, and no more, may fit.
        most = max_tokens // int(sorted_sizes[start])
        sizes = sorted_sizes[start : start + most]
        costs = sizes * np.arange(1, len(sizes) + 1)
        end = start + int(np.searchsorted(costs, max_tokens, side="right"))
        bounds.append((start, end))
        start = end
    return bounds


def _divided(bounds: list[tuple[int, int]], number: int) -> list[tuple[int, int]] | None:
    """`bounds`, the largest halved until `number` divides them; None where examples are too few."""
    largest_first = [(start - end, start) for start, end in bounds]
    heapq.heapify(largest_first)
    while len(largest_first) % number:
        size, start = heapq.heappop(largest_first)
        if size > -2:
            return None
        half = -size // 2
        for part in ((-half, start), (size + half, start + half)):
            heapq.heappush(largest_first, part)
    return sorted((start, start - size) for size, start in largest_first)


class OrderByLength(Sampler[int]):
    """Transformers' order that brings sentences of like length together, of (seed, epoch) alone.

    Args:
        lengths: of each example.
        num_in_step: examples in a step of all processes, which are of like length.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], num_in_step: int, seed: int):
        self.lengths, self.num_in_step, self.seed, self.epoch = lengths, num_in_step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices  # loads what trains

        seed = _generator(self.seed, self.epoch).integers(2**63)
        generator = torch.Generator().manual_seed(int(seed))
        return iter(get_length_grouped_indices(self.lengths, self.num_in_step, generator=generator))


class EvenBatches(BatchSampler):
    """Sentences in batches, those of an epoch's last step shared out evenly among the processes.

    Without it accelerate fills the last batches up with sentences that were trained on already. So
    does this only where there are fewer sentences than batches.

    Args:
        sampler: the order of the sentences.
        size: sentences in a batch.
        num_replicas: number of processes.
        accumulation: batches of each process in a step.
        drop_last: leave out the last sentences that do not make a batch for every process.
    """

    def __init__(
        self, sampler: Any, size: int, num_replicas: int, accumulation: int, drop_last: bool
    ):
        self.sampler, self.size, self.num_replicas = sampler, size, num_replicas
        self.accumulation, self.is_dropped = accumulation, drop_last
        # Tells accelerate that batches vary, and that their number is right.
        self.batch_size, self.drop_last = None, False  # type: ignore[assignment]

    def __len__(self) -> int:
        num_rounds, rest = divmod(len(self.sampler), self.size * self.num_replicas)
        return (num_rounds + (rest > 0 and not self.is_dropped)) * self.num_replicas

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        if self.is_dropped:
            order = order[: len(self) * self.size]
        in_step = self.size * self.num_replicas * self.accumulation
        num_whole = len(order) // in_step * in_step
        for start in range(0, num_whole, self.size):
            yield order[start : start + self.size]
        num_batches = len(self) - num_whole // self.size
        last = order[num_whole:]
        last += islice(cycle(order), max(0, num_batches - len(last)))
        for number in range(num_batches):
            yield last[number::num_batches]
