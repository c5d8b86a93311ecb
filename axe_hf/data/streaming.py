"""Sentence pairs of any number, read, shuffled and batched a window at a time while training goes.

A window is read, tokenized, shuffled, sorted by length and cut into batches, which are shuffled.
All of it hangs on the seed, the process and the place where the window begins: so a run that is
resumed reads that window again, and nothing before it.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info
from transformers.utils import logging

from ..cmlm.configuration_mask_predict import require
from .batching import batch_bounds
from .encoding import TokenColumn
from .formats import Languages, Mark, Row, Share, is_list, read_rows
from .mixing import check_weights
from .reading import check_hub_columns, checked_row, load_from_hub, two_languages
from .sources import Shard, Source, checksum, identity, shards_of
from .tokenizer import PairTokenizer, warn_of_tags

logger = logging.get_logger(__name__)

# Where a reader stands, for JSON: {"epoch": 0, "shard": 2, "files": see `identity`, "mark": where
# in them, see Row, "taken": pairs of the epoch so far, if only some are to be}.
Position = dict[str, Any]
_PAIRS_AT_ONCE = 1000  # that are tokenized


@dataclass(frozen=True)
class PairStream:
    """Sentence pairs of any number, read as they are needed, and from the start when they end.

    Args:
        source: what `load_translations` reads. Files of lines and Parquet take up reading where it
            broke off at once; `.gz` has to be unzipped up to there (100 MB a second or more), and a
            `.json` that is one list is parsed whole. A hub data set streams by `datasets`, and goes
            on as that can. Pairs with one empty side are left out, counted and logged.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        weights: if `source` is a list, how often its parts are drawn, in any unit: each pair comes
            from part k with probability weights[k] / sum(weights), and a part that ends starts
            over. None reads all of them as one: every pair once an epoch.
        split: split of a hub data set, "train" if None.
        seed: of the order of files, new in each epoch, and of the draws.
        max_pairs: read the first so many pairs only, the same in each epoch, of all processes
            together; with weights, of each part. Files come in their own order then, and each
            process parses the pairs of all.

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
    max_pairs: int | None = None
    parts: "list[list[Shard] | None]" = field(init=False, repr=False)

    def __post_init__(self):
        two_languages(self.source_lang, self.target_lang)
        require({"at least 1": "max_pairs"}, vars(self))
        sources: Any = [self.source]
        if self.weights is not None:
            check_weights(self.weights, self.source)
            sources = self.source if isinstance(self.source, (list, tuple)) else sources
        object.__setattr__(self, "parts", [shards_of(source) for source in sources])
        for part, source in zip(self.parts, sources, strict=True):
            if part is None and self.weights is not None:
                raise ValueError(f"`source` must name files if there are `weights`, got {source}.")
        for path in filter(is_list, self._paths):
            advice = "Write a line for each pair (.jsonl)"
            logger.warning(f"{path} is one list, and parsed whole, again in each epoch. {advice}.")

    def readers(self, share: Share, positions: Sequence[Position] = ()) -> list[Any]:
        """Endless readers of the parts, for the rows of a process, from these positions on."""
        languages, readers = (self.source_lang, self.target_lang), list[Any]()
        starts = chain(positions, repeat({"epoch": 0}))
        for number, (shards, start) in enumerate(zip(self.parts, starts, strict=False)):
            if shards is None:
                name = str(self.source)
                limit, split = self.max_pairs, self.split or "train"
                readers.append(_HubReader(name, split, languages, share, start, limit))
            else:
                seed = (self.seed, number)
                options = (languages, share, seed, start, self.max_pairs)
                readers.append(_FilesReader(shards, *options))
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
    def _paths(self) -> list[Path]:
        return [path for part in self.parts for shard in part or () for path in shard]

    @property
    def description(self) -> str:
        """What a checkpoint keeps of the data, to tell if they have changed."""
        if self.parts == [None]:
            return f"a stream of {self.source}"
        paths = self._paths
        size = sum(path.stat().st_size for path in paths)
        content = zlib.crc32(repr([checksum(path, 2) for path in paths]).encode())
        mixed = "" if self.weights is None else f" by weights {[*self.weights]}"
        if self.max_pairs is not None:
            mixed += f", of {self.max_pairs} pairs"
        return f"a stream of {len(paths)} files, {size} bytes (checksum {content}){mixed}"


class _FilesReader:
    """Pairs of files, those of a process; `position` is behind the last one that it gave.

    An iteration goes on from there to the end of the epoch, the next one through the next epoch.
    """

    def __init__(
        self,
        shards: list[Shard],
        languages: Languages,
        share: Share,
        seed: tuple[int, int],
        position: Position,
        limit: int | None = None,
    ):
        self.shards, self.languages, self.share, self.seed = shards, languages, share, seed
        self.limit, self.num_halves, self._taken = limit, 0, 0
        self._began = position
        self._last: Row | None = None  # of this process since

    @property
    def position(self) -> Position:
        if self._last is None:
            return self._began
        return self._began | {"mark": self._last.behind}

    def __iter__(self) -> Iterator[dict[str, str]]:
        epoch, shards = self.position["epoch"], self.shards
        if self.limit is None:  # not in the order of a sorted corpus; a single file stays as it is
            generator = np.random.default_rng([*map(abs, self.seed), epoch])
            shards = [shards[index] for index in generator.permutation(len(shards))]
        first, mark = self._place_in(shards)
        is_empty, self._taken = mark is None, self.position.get("taken", 0)
        for number, shard in enumerate(shards[first:], start=first):
            place = {"epoch": epoch, "shard": number, "files": [*map(identity, shard)]}
            for row, pair in self._own_of(shard, mark):
                self._began = place if self.limit is None else place | {"taken": self._taken}
                self._last = row
                yield pair
            is_empty, mark = is_empty and self._last is None, None
        if is_empty:
            raise _nothing_to_read(" and ".join(map(str, self.shards[0])), self.share)
        if self.num_halves:
            count = f"{self.num_halves} pairs of which one side is empty"
            logger.warning(f"Left out in epoch {epoch}: {count}.")
        self._began, self._last, self.num_halves = {"epoch": epoch + 1}, None, 0

    def _own_of(self, shard: Shard, mark: Mark | None) -> Iterator[tuple[Row, dict[str, str]]]:
        """Rows of this process and their pairs; with a limit, until all have so many."""
        share = self.share if self.limit is None else Share()
        for row in read_rows(shard, self.languages, mark, share) if self._is_wanted else ():
            pair = checked_row(row, self.languages)["translation"]
            empty = [side for side, text in pair.items() if not text or text.isspace()]
            if len(empty) == 1:
                self._count_half(row, empty[0])
            if self.limit is None:
                yield row, pair
            elif len(empty) < 2:  # data that are read whole have no others either
                self._taken += 1
                if self.share.has(self._taken):
                    yield row, pair
                if not self._is_wanted:
                    return

    @property
    def _is_wanted(self) -> bool:
        return self.limit is None or self._taken < self.limit

    def _count_half(self, row: Row, side: str) -> None:
        if not self.num_halves:
            others = "so is each other such pair; of data that are read whole it is an error"
            logger.warning(f"{row.place}: left out, since the side {side!r} is empty; {others}.")
        self.num_halves += 1

    def _place_in(self, shards: list[Shard]) -> tuple[int, Mark | None]:
        """The number of the shard to go on with, and where in it."""
        number, files = self.position.get("shard", 0), self.position.get("files")
        now = [[*map(identity, shard)] for shard in shards[number : number + 1]]
        if files is None or files in now:
            return number, self.position.get("mark")
        # A place in what was another file is in the middle of a line.
        reading = f"epoch {self.position['epoch']} is read from its beginning"
        logger.warning(f"The files have changed since {files[0][0]} was read: {reading}.")
        self._began, self._last = {"epoch": self.position["epoch"]}, None
        return 0, None


class _HubReader:
    """The same of a data set that `datasets` streams and divides among processes."""

    def __init__(
        self,
        name: str,
        split: str,
        languages: Languages,
        share: Share,
        position: Position,
        limit: int | None,
    ):
        self.name, self.split, self.languages, self.share = name, split, languages, share
        self.limit, self._began, self._data = limit, position, None

    @property
    def position(self) -> Position:
        return (
            self._began if self._data is None else self._began | {"state": self._data.state_dict()}
        )

    def __iter__(self) -> Iterator[dict[str, str]]:
        epoch, state = self._began["epoch"], self.position.get("state")
        data, taken = self._load(), self._began.get("taken", 0)
        if state is not None:
            data.load_state_dict(state)
        is_empty = is_first = state is None
        for columns in data.iter(batch_size=1):  # which workers do not divide once more
            if taken == self.limit:
                break
            row = {name: column[0] for name, column in columns.items()}
            if is_first:
                check_hub_columns([*row], row.get("translation", ()), self.languages, self.name)
            is_first = False
            pair = {language: row["translation"][language] for language in self.languages}
            if not any((text or "").strip() for text in pair.values()):
                continue  # data that are read whole have none either
            taken += 1
            if self.limit is None or self.share.has(taken):
                is_empty = False
                self._began, self._data = {"epoch": epoch, "taken": taken}, data
                yield pair
        if is_empty:
            raise _nothing_to_read(self.name, self.share)
        self._began, self._data = {"epoch": epoch + 1}, None

    def _load(self) -> Any:
        from datasets.distributed import split_dataset_by_node

        if get_worker_info() is not None:
            import fsspec.asyn

            fsspec.asyn.reset_lock()  # which a fork leaves as it was
        data = load_from_hub(self.name, self.split, streaming=True)
        if self.limit is not None:  # each process reads all, to count
            return data
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
            first window. Several, of equal limits, make an example each of every pair: one for
            each of two directions.
        shuffle_buffer: pairs in a window, within which they are shuffled and brought together by
            length. A process reads that many before its first batch, and again when it is resumed
            (and `AxeTrainer` the first 1,000 pairs, to check them and for the size of a batch). The
            next window is read piece by piece between the batches of one, so that none waits long;
            two are held at most. With one part, a window ends with the epoch.

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
    tokenize: PairTokenizer | Sequence[PairTokenizer]
    shuffle_buffer: int = 50_000

    def __post_init__(self):
        require({"at least 1": "shuffle_buffer"}, vars(self), optional=False)
        if len({one.limits for one in self.tokenizers}) != 1:
            limits = [one.limits for one in self.tokenizers]
            raise ValueError(f"`tokenize` must be one or several of equal limits, got {limits}.")

    @property
    def tokenizers(self) -> tuple[PairTokenizer, ...]:
        """Those of `tokenize`."""
        return (self.tokenize,) if isinstance(self.tokenize, PairTokenizer) else (*self.tokenize,)

    def columns(self, pairs: Sequence[dict[str, Any]]) -> dict[str, TokenColumn]:
        """`input_ids` and `labels` of pairs, by each tokenizer after the other."""
        made = [one.columns(pairs) for one in self.tokenizers]
        names = ("input_ids", "labels")
        return {name: TokenColumn.joined([columns[name] for columns in made]) for name in names}

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
        tokenize = self.tokenizers[0]
        warn_of_tags(some[:100], tokenize.tokenizer)
        sides = [column.lengths() for column in self.columns(some).values()]
        if not len(sides[0]):
            expected = f"a pair within {tokenize.limits} among its first {len(some)}"
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
        limits = self.tokenizers[0].limits
        while True:
            starts = [reader.position for reader in readers]
            pairs: Iterator[dict[str, str]] = islice(epoch, self.shuffle_buffer)
            if len(readers) > 1:
                draws = self.pairs.draws(self.shuffle_buffer, self.generator(share, number, 0))
                pairs = (next(endless[part]) for part in draws.tolist())
            parts, num_read = list[dict[str, TokenColumn]](), 0
            while some := list(islice(pairs, _PAIRS_AT_ONCE)):
                num_read += len(some) * len(self.tokenizers)
                parts.append(self.columns(some))
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
                reason = f"empty, or over {limits}; so of those that follow"
                logger.warning(f"Dropped {dropped}: {reason}.")
            if num_kept:
                epoch_of_last = ends[0]["epoch"]
                yield _Window(number, columns, starts, ends)
            elif ends[0]["epoch"] > epoch_of_last + 1:
                expected = f"a pair within {limits}"
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
        tokenize = stream.tokenizers[0]
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
