"""Sentence pairs of any number, read, shuffled and batched a window at a time while training goes.

A window is read, tokenized, shuffled, sorted by length and cut into batches, which are shuffled.
All of it hangs on the seed, the process and the place where the window begins: so a run that is
resumed reads that window again, and nothing before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat, zip_longest
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info
from transformers.utils import logging

from ..cmlm.configuration_mask_predict import require
from .batching import batch_bounds
from .encoding import TokenColumn
from .formats import Languages, Mark, Share, read_rows
from .mixing import check_weights
from .reading import check_hub_columns, checked_row, load_from_hub, two_languages
from .sources import Shard, Source, shards_of
from .tokenizer import PairTokenizer, warn_of_tags

logger = logging.get_logger(__name__)

# Where a reader stands, for JSON: {"epoch": 0, "shard": 2, "files": its names and sizes, "mark":
# where in them, see Row}.
Position = dict[str, Any]
_PAIRS_AT_ONCE = 1000  # that are tokenized


@dataclass(frozen=True)
class PairStream:
    """Sentence pairs of any number, read as they are needed, and from the start when they end.

    Args:
        source: what `load_translations` reads. Files of lines and Parquet take up reading where it
            broke off at once; `.gz` has to be unzipped up to there, and a `.json` that is one list
            is parsed whole. A hub data set streams by `datasets`, and goes on as that can.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        weights: if `source` is a list, how often its parts are drawn, in any unit: each pair comes
            from part k with probability weights[k] / sum(weights), and a part that ends starts
            over. None reads all of them as one: every pair once an epoch.
        split: split of a hub data set, "train" if None.
        seed: of the order of files, new in each epoch, and of the draws.

    Raises:
        FileNotFoundError, ValueError: as in `load_translations`; of a wrong row when it is read.

    Example:
        >>> from axe_hf.data import PHRASEBOOK, PairStream
        >>> stream = PairStream(PHRASEBOOK / "train.jsonl.gz", source_lang="en", target_lang="de")
        >>> [sorted(pair) for pair in stream.first(2)]
        [['de', 'en'], ['de', 'en']]
    """

    source: Source
    source_lang: str
    target_lang: str
    weights: Sequence[float] | None = None
    split: str | None = None
    seed: int = 0
    parts: "list[list[Shard] | None]" = field(init=False, repr=False)

    def __post_init__(self):
        two_languages(self.source_lang, self.target_lang)
        sources: Any = [self.source]
        if self.weights is not None:
            check_weights(self.weights, self.source)
            sources = self.source if isinstance(self.source, (list, tuple)) else sources
        object.__setattr__(self, "parts", [shards_of(source) for source in sources])
        for part, source in zip(self.parts, sources, strict=True):
            if part is None and self.weights is not None:
                raise ValueError(f"`source` must name files if there are `weights`, got {source}.")

    def readers(self, share: Share, positions: Sequence[Position] = ()) -> list[Any]:
        """Endless readers of the parts, for the rows of a process, from these positions on."""
        languages, readers = (self.source_lang, self.target_lang), list[Any]()
        starts = chain(positions, repeat({"epoch": 0}))
        for number, (shards, start) in enumerate(zip(self.parts, starts, strict=False)):
            if shards is None:
                name = str(self.source)
                readers.append(_HubReader(name, self.split or "train", languages, share, start))
            else:
                seed = (self.seed, number)
                readers.append(_FilesReader(shards, languages, share, seed, start))
        return readers

    def first(self, number: int) -> Iterator[dict[str, str]]:
        """At most so many pairs, in the stream's order, from the beginning, of all parts in turn;
        none twice."""
        in_turn = zip_longest(*self.readers(Share()))
        return islice(filter(None, chain.from_iterable(in_turn)), number)

    def draws(self, number: int, generator: np.random.Generator) -> np.ndarray:
        """Which part each of `number` pairs comes from."""
        if self.weights is None:
            return np.zeros(number, np.int8)
        shares = np.array(self.weights, float) / sum(self.weights)
        return generator.choice(len(shares), number, p=shares)

    @property
    def description(self) -> str:
        """What a checkpoint keeps of the data, to tell if they have changed."""
        if self.parts == [None]:
            return f"a stream of {self.source}"
        paths = [path for part in self.parts for shard in part or () for path in shard]
        size = sum(path.stat().st_size for path in paths)
        mixed = "" if self.weights is None else f" by weights {[*self.weights]}"
        return f"a stream of {len(paths)} files, {size} bytes{mixed}"


class _FilesReader:
    """Pairs of files, those of a process; `position` is behind the last one that it gave.

    An iteration goes on from there to the end of the epoch, the next one through the next epoch.
    """

    def __init__(self, shards, languages: Languages, share: Share, seed, position: Position):
        self.shards, self.languages, self.share, self.seed = shards, languages, share, seed
        self._began, self._last = position, None

    @property
    def position(self) -> Position:
        if self._last is None:
            return self._began
        return self._began | {"mark": self._last.behind}

    def __iter__(self) -> Iterator[dict[str, str]]:
        epoch = self.position["epoch"]
        # Not in the order of a sorted corpus; a single file stays as it is.
        generator = np.random.default_rng([*map(abs, self.seed), epoch])
        shards = [self.shards[index] for index in generator.permutation(len(self.shards))]
        first, mark = self._place_in(shards)
        is_empty = mark is None
        for number, shard in enumerate(shards[first:], start=first):
            place = {"epoch": epoch, "shard": number, "files": _names_and_sizes(shard)}
            for row in read_rows(shard, self.languages, mark, self.share):
                pair = checked_row(row, self.languages)["translation"]
                self._began, self._last = place, row
                yield pair
            is_empty, mark = is_empty and self._last is None, None
        if is_empty:
            raise _nothing_to_read(" and ".join(map(str, self.shards[0])), self.share)
        self._began, self._last = {"epoch": epoch + 1}, None

    def _place_in(self, shards: list[Shard]) -> tuple[int, Mark | None]:
        """The number of the shard to go on with, and where in it."""
        number, files = self.position.get("shard", 0), self.position.get("files")
        if files is None or files in map(_names_and_sizes, shards[number : number + 1]):
            return number, self.position.get("mark")
        # A place in what was another file is in the middle of a line.
        reading = f"epoch {self.position['epoch']} is read from its beginning"
        logger.warning(f"The files have changed since {files[0][0]} was read: {reading}.")
        return 0, None


def _names_and_sizes(shard: Shard) -> list[list[Any]]:
    return [[path.name, path.stat().st_size] for path in shard]


class _HubReader:
    """The same of a data set that `datasets` streams and divides among processes."""

    def __init__(self, name: str, split, languages: Languages, share: Share, position: Position):
        self.name, self.split, self.languages, self.share = name, split, languages, share
        self.position = position

    def __iter__(self) -> Iterator[dict[str, str]]:
        epoch, state = self.position["epoch"], self.position.get("state")
        data = self._load()
        if state is not None:
            data.load_state_dict(state)
        is_empty = state is None
        for row in data:
            if is_empty:
                check_hub_columns([*row], row.get("translation", ()), self.languages, self.name)
            is_empty = False
            self.position = {"epoch": epoch, "state": data.state_dict()}
            yield {language: row["translation"][language] for language in self.languages}
        if is_empty:
            raise _nothing_to_read(self.name, self.share)
        self.position = {"epoch": epoch + 1}

    def _load(self) -> Any:
        from datasets.distributed import split_dataset_by_node

        if get_worker_info() is not None:
            wrong = f"{self.name} is a stream of `datasets`, which divides itself among workers"
            raise ValueError(f"{wrong}. Set `dataloader_num_workers` to 0.")
        data = load_from_hub(self.name, self.split, streaming=True)
        return split_dataset_by_node(data, self.share.index, self.share.count)


def _nothing_to_read(name: str, share: Share) -> ValueError:
    one = f"process {share.index} of {share.count} gets none"
    return ValueError(f"{name}: must hold a sentence pair for each process, but {one}.")


def _endless(reader: Any) -> Iterator[dict[str, str]]:
    while True:
        yield from reader


class _Window(NamedTuple):
    """Pairs that are shuffled among each other, and where they and the next ones begin."""

    number: int
    columns: dict[str, TokenColumn]
    starts: list[Position]
    ends: list[Position]


@dataclass(frozen=True)
class TranslationStream:
    """A `PairStream` in tokens, as `AxeTrainer` trains on it.

    Args:
        pairs: the sentence pairs.
        tokenize: makes their tokens, and drops what is empty or too long; that is logged of the
            first window.
        shuffle_buffer: pairs in a window, within which they are shuffled and brought together by
            length. A process holds no more; it reads that many before its first batch, and again
            when it is resumed. With one part, a window ends with the epoch.

    Example:
        >>> from axe_hf.data import PHRASEBOOK, PairStream, PairTokenizer, TranslationStream
        >>> from axe_hf import train_tokenizer
        >>> languages = {"source_lang": "en", "target_lang": "de"}
        >>> pairs = PairStream(PHRASEBOOK / "train.jsonl.gz", **languages)
        >>> texts = [text for pair in pairs.first(500) for text in pair.values()]
        >>> limits = {"max_source_length": 32, "max_target_length": 32}
        >>> tokenize = PairTokenizer(train_tokenizer(texts, vocab_size=400), **languages, **limits)
        >>> stream = TranslationStream(pairs, tokenize, shuffle_buffer=1000)
        >>> batch = next(iter(stream.batches(max_tokens=256)))
        >>> max(len(row["labels"]) for row in batch.rows) * len(batch.rows) <= 256
        True
    """

    pairs: PairStream
    tokenize: PairTokenizer
    shuffle_buffer: int = 50_000

    def __post_init__(self):
        require({"at least 1": "shuffle_buffer"}, vars(self), optional=False)

    def batches(
        self, max_tokens: int | None = None, batch_size: int | None = None, **options: Any
    ) -> "StreamBatches":
        """Endless batches of so many tokens, padding included, or of so many pairs; `options` are
        the others of `StreamBatches`."""
        return StreamBatches(self, max_tokens, batch_size, **options)

    def sizes_of_first(self, number: int) -> np.ndarray:
        """The longer side of the pairs that are kept of the first `number`.

        Raises:
            ValueError: there is none, or a row is wrong.
        """
        some = list(self.pairs.first(number))
        warn_of_tags(some[:100], self.tokenize.tokenizer)
        sides = [column.lengths() for column in self.tokenize.columns(some).values()]
        if not len(sides[0]):
            expected = f"a pair within {self.tokenize.limits} among its first {len(some)}"
            raise ValueError(f"`train_dataset` must have {expected}, got none. Raise the limits.")
        return np.maximum(*sides)

    @property
    def description(self) -> str:
        """What a checkpoint keeps of the data, to tell if they have changed."""
        return f"{self.pairs.description}, in windows of {self.shuffle_buffer} pairs"

    def windows(self, share: Share, state: dict[str, Any]) -> Iterator[_Window | None]:
        """Endless windows of a process, from where `state` says; None for each part of one."""
        readers = self.pairs.readers(share, state.get("positions", ()))
        endless, epoch = [*map(_endless, readers)], iter(readers[0])
        number, epoch_of_last = state.get("window", 0), readers[0].position["epoch"]
        while True:
            starts = [reader.position for reader in readers]
            pairs: Iterator[dict[str, str]] = islice(epoch, self.shuffle_buffer)
            if len(readers) > 1:
                draws = self.pairs.draws(self.shuffle_buffer, self.generator(share, number, 0))
                pairs = (next(endless[part]) for part in draws.tolist())
            parts, num_read = list[dict[str, TokenColumn]](), 0
            while some := list(islice(pairs, _PAIRS_AT_ONCE)):
                num_read += len(some)
                parts.append(self.tokenize.columns(some))
                yield None
            columns = {
                name: TokenColumn.joined([part[name] for part in parts] or [TokenColumn.of([])])
                for name in ("input_ids", "labels")
            }
            ends = [reader.position for reader in readers]
            if starts[0]["epoch"] < ends[0]["epoch"]:
                epoch = iter(readers[0])
            num_kept = len(columns["labels"].ends)
            if number == 0 and share.index == 0 and num_kept < num_read:
                dropped = f"{num_read - num_kept} of the first {num_read} sentence pairs"
                reason = f"empty, or over {self.tokenize.limits}; so of those that follow"
                logger.warning(f"Dropped {dropped}: {reason}.")
            if num_kept:
                epoch_of_last = ends[0]["epoch"]
                yield _Window(number, columns, starts, ends)
            elif ends[0]["epoch"] > epoch_of_last + 1:
                expected = f"a pair within {self.tokenize.limits}"
                raise ValueError(f"`train_dataset` must have {expected}, got none in an epoch.")
            number += 1

    def generator(self, share: Share, window: int, purpose: int) -> np.random.Generator:
        """For the draws of a window: those of its parts, or of its order."""
        seed = self.pairs.seed
        words = [abs(seed), int(seed < 0), share.index, share.count, window, purpose]
        return np.random.default_rng(words)


class StreamBatch(NamedTuple):
    """A batch, and from where on the next one is made; none of both in place of one passed over."""

    rows: list[dict[str, list[int]]]
    state: dict[str, Any] | None


class StreamBatches(IterableDataset):
    """Endless batches of a `TranslationStream`, for the process that this is.

    For a `DataLoader` with `batch_size=None`; its workers divide the share of the process.

    Args:
        stream: the pairs in tokens.
        max_tokens: budget of one batch, as of `MaxTokensBatchSampler`.
        batch_size: pairs in a batch, in random order, in place of `max_tokens`.
        share: the process, among all.
        states: where each worker goes on, in their order; empty for the beginning.
        num_passed: batches that were made before `states`; as many empty ones come first, for
            loaders that pass over them.

    Raises:
        ValueError: neither or both of `max_tokens` and `batch_size`, or a budget that a pair
            within the limits of the stream may exceed.
    """

    def __init__(
        self,
        stream: TranslationStream,
        max_tokens: int | None = None,
        batch_size: int | None = None,
        *,
        share: Share | None = None,
        states: Sequence[dict[str, Any]] = (),
        num_passed: int = 0,
    ):
        sizes = {"max_tokens": max_tokens, "batch_size": batch_size}
        if (max_tokens is None) == (batch_size is None):
            raise ValueError(f"Give either `max_tokens` or `batch_size`, got {sizes}.")
        require({"at least 1": " ".join(sizes)}, sizes)
        tokenize = stream.tokenize
        longest = max(tokenize.max_source_length, tokenize.max_target_length)
        if max_tokens is not None and max_tokens < longest:  # found after hours otherwise
            got = f"{max_tokens}, but the stream may have {longest} tokens on a side"
            raise ValueError(f"`max_tokens` must hold every pair, got {got}. Lower the limits.")
        self.stream, self.max_tokens, self.batch_size = stream, max_tokens, batch_size
        self.share, self.states, self.num_passed = share or Share(), states, num_passed

    def __iter__(self) -> Iterator[StreamBatch]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        # Loaders take batches of their workers in turn.
        yield from repeat(StreamBatch([], None), len(range(worker, self.num_passed, num_workers)))
        index = self.share.index * num_workers + worker
        share = Share(index, self.share.count * num_workers)
        state = self.states[worker] if self.states else {}
        first, parts = state.get("batch", 0), self.stream.windows(share, state)
        num_parts = -(-self.stream.shuffle_buffer // _PAIRS_AT_ONCE)
        window = _next_window(parts)
        while True:
            batches = self._indices(window, share)
            here = {"worker": worker, "window": window.number, "positions": window.starts}
            behind = here | {"window": window.number + 1, "positions": window.ends, "batch": 0}
            coming, num_made = None, 0
            for number, indices in enumerate(batches[first:], start=first + 1):
                state = here | {"batch": number} if number < len(batches) else behind
                sides = (window.columns[name].taken(indices) for name in ("input_ids", "labels"))
                pairs = zip(*(side.rows() for side in sides), strict=True)
                rows = [{"input_ids": source, "labels": target} for source, target in pairs]
                yield StreamBatch(rows, state)
                # The next window is made meanwhile, so that no batch has to wait for all of it.
                while coming is None and num_made * len(batches) < number * num_parts:
                    coming, num_made = next(parts), num_made + 1
            window, first = coming or _next_window(parts), 0

    def _indices(self, window: _Window, share: Share) -> list[np.ndarray]:
        """The rows of each batch of a window, in the order in which they come."""
        generator = self.stream.generator(share, window.number, 1)
        sizes = np.maximum(*(column.lengths() for column in window.columns.values()))
        order = generator.permutation(len(sizes))
        if self.batch_size is not None:
            starts = range(0, len(sizes), self.batch_size)
            return [order[start : start + self.batch_size] for start in starts]
        order = order[np.argsort(sizes[order], kind="stable")]
        bounds = batch_bounds(sizes[order], self.max_tokens or 0)
        shuffled = generator.permutation(len(bounds)).tolist()
        return [order[slice(*bounds[index])] for index in shuffled]


def _next_window(parts: Iterator[_Window | None]) -> _Window:
    return next(window for window in parts if window is not None)
