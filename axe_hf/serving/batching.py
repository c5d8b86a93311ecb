"""One model behind a queue: sentences of many requests are decoded together, in fair turns.

A thread of its own owns each model. What waits is taken a sentence of each request at a time, so
that a request of a thousand sentences delays one of a single sentence by a batch, not by itself.
"""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..history import history_rows
from ..pipeline import cut_source, in_evaluation_mode, own_tokenizer, source_ids
from ..translation import Translation, padded, translations_of
from . import Batching

logger = logging.getLogger("axe_hf.serving")

# Shorter sentences than this share a batch whatever their lengths.
SHORT = 16
# Two models at once would only wait for each other's cores.
_computing = threading.Lock()


class QueueFullError(Exception):
    """More sentences wait than the queue may hold; the message says how many."""


@dataclass(frozen=True)
class Decoding:
    """Settings that sentences must share to be decoded together, apart from the model's."""

    settings: tuple[tuple[str, Any], ...] = ()
    has_passes: bool = False


@dataclass(frozen=True)
class Pass:
    """A canvas behind a pass of the decoder, as a person reads it; the first one is the start."""

    tokens: list[str]  # (canvas,)
    log_probs: list[float]  # (canvas,) nats, 0 before the first pass


@dataclass(frozen=True)
class Answer:
    """What became of a sentence."""

    candidates: tuple[Translation, ...]  # best first
    is_cut: bool = False  # it was longer than the model's `max_source_length`
    passes: tuple[Pass, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What is told of each batch that was decoded."""

    num_sentences: int
    num_tokens: int  # padding included
    seconds: float


@dataclass(eq=False)
class _Job:
    """The sentences of one request."""

    texts: Sequence[str]
    decoding: Decoding
    future: "Future[list[Answer]]" = field(default_factory=Future)
    answers: list[Answer | None] = field(default_factory=list)
    waiting: "deque[_Sentence]" = field(default_factory=deque)

    def finish(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.finish_if_done()

    def finish_if_done(self) -> None:
        if not self.waiting and None not in self.answers:
            with suppress(InvalidStateError):  # nobody waits for it any more
                self.future.set_result(self.answers)  # type: ignore[arg-type]

    def fail(self, error: Exception) -> None:
        self.waiting.clear()
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class _Sentence:
    job: _Job
    index: int
    token_ids: list[int]
    is_cut: bool


class BatchedModel:
    """A model that decodes, in a thread of its own, what `submit` hands over from any other.

    Args:
        model, tokenizer: as `translate` takes them.
        defaults: settings of the decoding, in place of the model's own.
        batching: how sentences are put together.
        max_queue: sentences that may wait for others'.
        on_batch: called with each `Batch`, in the model's thread.

    Example:
        >>> served = BatchedModel(model, tokenizer)  # doctest: +SKIP
        >>> served.submit(["A dog barks."], Decoding()).result()  # doctest: +SKIP
        [Answer(candidates=(Translation(text='Ein Hund bellt.', score=-0.1),), is_cut=False, ...)]
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        defaults: Mapping[str, Any] | None = None,
        batching: Batching | None = None,
        max_queue: int = 1000,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ):
        model.config.check_tokenizer(tokenizer)
        self.model, self.tokenizer = in_evaluation_mode(model), own_tokenizer(tokenizer)
        self.defaults, self.batching = dict(defaults or {}), batching or Batching()
        self.on_batch = on_batch
        self.max_queue = max_queue
        self._changed = threading.Condition()
        self._inbox: deque[_Job] = deque()
        self._rotation: list[_Job] = []  # those whose turn is next come first
        self._is_stopping, self._has_several = False, False
        self._num_new = 0  # sentences in the inbox
        self._seconds_per_sentence = 0.01
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """Decode what waits, and end; a later `submit` begins anew."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._is_stopping = True
            self._changed.notify()
        if thread is not None:
            thread.join()

    def num_waiting(self) -> int:
        """Sentences that no batch holds yet."""
        with self._changed:
            return self._num_new + sum(len(job.waiting) for job in self._rotation)

    def seconds_to_wait(self) -> float:
        """About how long what waits now will take."""
        return self.num_waiting() * self._seconds_per_sentence

    def num_candidates(self, decoding: Decoding) -> int:
        """Canvases decoded for each sentence."""
        name = "num_length_candidates"
        saved = getattr(self.model.generation_config, name)
        return (self.defaults | dict(decoding.settings)).get(name) or saved or 1

    def submit(self, texts: Sequence[str], decoding: Decoding) -> "Future[list[Answer]]":
        """Sentences to translate; an answer for each. Cancelling takes out what still waits.

        Raises:
            QueueFullError: too many wait already.
        """
        job = _Job(texts, decoding, answers=[None] * len(texts))
        with self._changed:
            num_waiting = self._num_new + sum(len(other.waiting) for other in self._rotation)
            if num_waiting and num_waiting + len(texts) > self.max_queue:
                raise QueueFullError(f"{num_waiting} sentences wait already")
            self._inbox.append(job)
            self._num_new += len(texts)
            if self._thread is None:
                self._is_stopping = False
                self._thread = threading.Thread(target=self._run, name="axe_hf", daemon=True)
                self._thread.start()
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._drop(job) if future.cancelled() else None)
        return job.future

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if job in self._inbox:
                self._inbox.remove(job)
                self._num_new -= len(job.texts)
            job.waiting.clear()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._take_in()
                for batch in self._next_batches():
                    self._decode(batch)
            except Exception as error:  # noqa: BLE001 (a fault of ours; the thread lives on)
                log_failure("scheduling", error)
                with self._changed:
                    lost, self._rotation = self._rotation, []
                for job in lost:
                    job.fail(error)

    def _wait_for_work(self) -> bool:
        """Whether there is some; False at the end."""
        with self._changed:
            is_idle = not self._inbox and not self._rotation
            while not self._inbox and not self._rotation:
                if self._is_stopping:
                    return False
                self._changed.wait()
        if is_idle and self._has_several:
            self._wait_for_more()
        return True

    def _wait_for_more(self) -> None:
        """Until no more requests come, or the window ends, or a batch is full."""
        step = min(self.batching.window_ms / 3000, 0.001)
        end, before = time.monotonic() + self.batching.window_ms / 1000, -1
        while time.monotonic() < end and before < self._num_new < self.batching.max_sentences:
            before = self._num_new
            time.sleep(step)

    def _take_in(self) -> None:
        """Make tokens of what is new, all at once: it is cheaper by far."""
        with self._changed:
            jobs, self._num_new = [*self._inbox], 0
            self._inbox.clear()
        if not jobs:
            return
        try:
            self._queue(jobs)
        except Exception:  # noqa: BLE001 (one of them is at fault; it fails alone)
            for job in jobs:
                try:
                    self._queue([job])
                except Exception as error:  # noqa: BLE001
                    log_failure("tokenization", error)
                    job.fail(error)

    def _queue(self, jobs: list[_Job]) -> None:
        texts, config = [text for job in jobs for text in job.texts], self.model.config
        rows = iter(source_ids(texts, self.tokenizer, config))
        limit = config.max_source_length
        for job in jobs:
            waiting = []
            for index in range(len(job.texts)):
                if not (ids := next(rows)):
                    job.answers[index] = NOTHING
                    continue
                is_cut = len(ids) > limit
                ids = cut_source(ids, limit, self.tokenizer) if is_cut else ids
                waiting.append(_Sentence(job, index, ids, is_cut))
            with self._changed:
                if not job.future.cancelled():
                    job.waiting.extend(waiting)
                    self._rotation.append(job)
            job.finish_if_done()

    def _next_batches(self) -> list[list[_Sentence]]:
        """A sentence of each job in turn, of equal settings, until the limits are reached."""
        with self._changed:
            self._rotation = [job for job in self._rotation if job.waiting]
            if not self._rotation:
                return []
            decoding = self._rotation[0].decoding
            turns = deque(job for job in self._rotation if job.decoding == decoding)
            self._has_several = len(self._rotation) > 1
            chosen: list[_Sentence] = []
            num_candidates = self.num_candidates(decoding)
            room = self.batching.max_tokens / num_candidates
            while turns and len(chosen) < self.batching.max_sentences:
                job = turns.popleft()
                room -= len(job.waiting[0].token_ids)
                if chosen and room < 0:
                    break
                chosen.append(job.waiting.popleft())
                if job.waiting:
                    turns.append(job)
            served = {id(sentence.job) for sentence in chosen}
            self._rotation.sort(key=lambda job: id(job) in served)  # stable: served jobs go behind
        return [*self._of_similar_length(chosen, num_candidates)]

    def _of_similar_length(
        self, sentences: list[_Sentence], num_candidates: int
    ) -> Iterator[list[_Sentence]]:
        """Batches, longest sentences first: in each, none is over twice as long as another."""
        batch: list[_Sentence] = []
        for sentence in sorted(sentences, key=lambda sentence: -len(sentence.token_ids)):
            longest = len(batch[0].token_ids) if batch else 0
            is_too_short = 2 * len(sentence.token_ids) < longest and longest > SHORT
            num_tokens = longest * (len(batch) + 1) * num_candidates
            if batch and (is_too_short or num_tokens > self.batching.max_tokens):
                yield batch
                batch = []
            batch.append(sentence)
        if batch:
            yield batch

    def _decode(self, batch: list[_Sentence]) -> None:
        """Answer these; where it fails, each job's apart, so that only the faulty one fails."""
        batch = [sentence for sentence in batch if not sentence.job.future.done()]
        if not batch:
            return
        start = time.perf_counter()
        try:
            with _computing:
                answers = self._answers(batch)
        except Exception as error:  # noqa: BLE001
            jobs = {id(sentence.job): sentence.job for sentence in batch}
            if len(jobs) > 1:
                for job in jobs.values():
                    self._decode([sentence for sentence in batch if sentence.job is job])
            else:
                log_failure("decoding", error)
                batch[0].job.fail(error)
            return
        seconds = time.perf_counter() - start
        self._seconds_per_sentence += 0.2 * (seconds / len(batch) - self._seconds_per_sentence)
        num_tokens = len(batch) * max(len(sentence.token_ids) for sentence in batch)
        for sentence, answer in zip(batch, answers, strict=True):
            sentence.job.finish(sentence.index, answer)
        self.on_batch(Batch(len(batch), num_tokens, seconds))

    def _answers(self, batch: list[_Sentence]) -> list[Answer]:
        decoding = batch[0].job.decoding
        settings = self.defaults | dict(decoding.settings)
        num_returned = settings.setdefault("num_return_sequences", 1) or 1
        inputs = padded([sentence.token_ids for sentence in batch], self.tokenizer)
        inputs = inputs.to(self.model.device)
        settings |= {"return_dict_in_generate": True, "output_history": decoding.has_passes}
        output = self.model.generate(**inputs, **settings)
        found = translations_of(output, self.tokenizer)
        answers = []
        for i, sentence in enumerate(batch):
            first = i * num_returned
            passes: tuple[Pass, ...] = ()
            if decoding.has_passes:
                passes = tuple(map(Pass, *history_rows(output, self.tokenizer, first)))
            candidates = tuple(found[first : first + num_returned])
            answers.append(Answer(candidates, sentence.is_cut, passes))
        return answers


# Of a sentence in which nothing is said.
NOTHING = Answer((Translation("", 0.0),))


def log_failure(doing: str, error: Exception) -> None:
    """Say what failed and where; never the message, which may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno}" for frame in frames[-5:]]
    fields = {"doing": doing, "error": type(error).__name__, "where": where}
    logger.error("failed", extra={"fields": fields})
