"""The Mask-Predict loop, vectorised over sentences and their canvases.

Iterations t = 1 .. T-1 mask some positions again, by default floor(length * (1 - t/T)), at least one: those of lowest
stored log-probability, the earlier position first among equals. Only masked positions get a new token.
Source: Ghazvininejad et al., "Mask-Predict", EMNLP 2019, section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .configuration_mask_predict import num_masked_again
from .decoder_pass import DecoderPass
from .token_prediction import TokenPredictor


@dataclass(frozen=True)
class Refinement:
    """How a canvas is filled in; the fields are those of `MaskPredictGenerationConfig`.

    Args:
        is_batch_kept: sentences that are done stay in the batch, unchanged: for static shapes.
        is_every_pass_made: T passes, though all be done: for processes that must make equally many.
    """

    num_iterations: int = 1
    schedule: str = "linear"
    confidence_threshold: float | None = None
    early_stop: bool = False
    keep_history: bool = False
    is_batch_kept: bool = False
    is_every_pass_made: bool = False

    @property
    def may_finish_early(self) -> bool:
        return self.early_stop or self.confidence_threshold is not None


@dataclass(frozen=True)
class CanvasState:
    """What stands on the canvases.

    Args:
        tokens: (canvases, canvas) long; `<pad>` behind a canvas's end.
        log_probs: (canvases, canvas) nats; 0 where nothing was predicted: observed positions, behind the end.
        num_iterations: (canvases,) long, passes made.
        history: for each pass the canvas the decoder saw, and the tokens and log-probabilities after it.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    num_iterations: torch.Tensor
    history: list[dict[str, torch.Tensor]] | None = None


# Told after each pass: tokens and log-probabilities, and what the next pass will mask, all (canvases, canvas).
OnPass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


def mask_predict(
    decoder_pass: DecoderPass,
    canvas: torch.Tensor,
    refinement: Refinement,
    predictor: TokenPredictor,
    on_pass: OnPass | None = None,
) -> CanvasState:
    """Fill every canvas in.

    Without `early_stop` and `confidence_threshold` the loop reads no tensor on the host, so a device never waits.

    Args:
        decoder_pass: the decoder, with the sources that the canvases belong to.
        canvas: (canvases, canvas) long: `<mask>` where a token is to be predicted, observed tokens, `<pad>` behind
            the end; those of one sentence together.
        refinement: how often, and what is masked again.
        predictor: chooses the tokens.
        on_pass: called after each pass.

    Returns:
        `CanvasState`.
    """
    loop = _Loop(decoder_pass, canvas, refinement, predictor)
    for t in range(1, refinement.num_iterations + 1):
        loop.predict(t)
        if t < refinement.num_iterations:
            loop.mask_again(t)
        if on_pass is not None:
            on_pass(loop.tokens, loop.log_probs, loop.masked_next(t))
        if loop.is_all_done and not refinement.is_every_pass_made:
            break
    return CanvasState(loop.tokens, loop.log_probs, loop.num_passes, loop.history)


class _Loop:
    """What stands on the canvases between two passes, and which of them, the rows, are still in the batch."""

    def __init__(
        self,
        decoder_pass: DecoderPass,
        canvas: torch.Tensor,
        refinement: Refinement,
        predictor: TokenPredictor,
    ):
        self.decoder_pass, self.refinement, self.predictor = decoder_pass, refinement, predictor
        self.mask_token_id = decoder_pass.config.mask_token_id
        self.is_open = canvas == self.mask_token_id  # (canvases, canvas)
        dtype = torch.promote_types(decoder_pass.model.dtype, torch.float32)
        self.tokens = canvas
        self.log_probs = torch.zeros(canvas.shape, dtype=dtype, device=canvas.device)
        self.num_passes = torch.zeros(len(canvas), dtype=torch.long, device=canvas.device)
        self.history = [] if refinement.keep_history else None
        self.rows = torch.arange(len(canvas), device=canvas.device)  # (rows,)
        self.rows_on_host = list(range(len(canvas)))
        self.is_done = torch.zeros_like(self.rows, dtype=torch.bool)  # (rows,)
        self.is_changed = ~self.is_done  # (rows,), by the last pass
        self.is_all_done = False
        # Positions that each pass predicts, on the host and on the device: (T, canvases).
        self.counts = self._counts(self.is_open.sum(dim=1).tolist())
        self.counts_on_device = torch.tensor(self.counts, device=canvas.device)
        # What the next pass predicts: `is_masked` (rows, canvas), or (rows, queries) at the positions `order`.
        self.is_masked: torch.Tensor = self.is_open
        self.order: torch.Tensor | None = None

    def _counts(self, num_open: list[int]) -> list[list[int]]:
        schedule, total = self.refinement.schedule, self.refinement.num_iterations
        counts = [num_open]
        for t in range(1, total):
            again = {n: min(n, num_masked_again(schedule, n, t, total)) for n in set(num_open)}
            counts.append([again[n] for n in num_open])
        return counts

    def predict(self, t: int) -> None:
        """Pass t: new tokens where the canvas is masked."""
        before, width = self.tokens[self.rows], self.tokens.shape[1]
        canvas = before.masked_fill(self._masked_positions(), self.mask_token_id)
        states = self.decoder_pass(canvas, self.order).flatten(0, 1)
        positions = self.order
        if positions is None:
            positions = torch.arange(width, device=before.device).expand_as(before)

        # Masked positions first, without asking the device how many: the schedule knows, but for a threshold.
        is_masked = self.is_masked.flatten()
        num_chosen = sum(self.counts[t - 1][row] for row in self.rows_on_host)
        chosen = is_masked.to(torch.uint8).argsort(descending=True, stable=True)[:num_chosen]
        tokens, log_probs = self.predictor(states[chosen])
        where = (self.rows[:, None] * width + positions).flatten()[chosen]
        if self.history is not None:
            self.history.append({"canvas": self.tokens.index_copy(0, self.rows, canvas)})
        self.tokens = _replaced(self.tokens, where, tokens, is_masked[chosen])
        self.log_probs = _replaced(self.log_probs, where, log_probs, is_masked[chosen])
        self.num_passes = self.num_passes.index_add(0, self.rows, (~self.is_done).long())
        if self.refinement.early_stop:
            self.is_changed = (self.tokens[self.rows] != before).any(dim=1)
        if self.history is not None:
            self.history[-1] |= {"tokens": self.tokens, "log_probs": self.log_probs}

    def mask_again(self, t: int) -> None:
        """Choose what pass t + 1 predicts; with an early end, find out which sentences are done."""
        counts = self.counts_on_device[t][self.rows, None]  # (rows, 1)
        most = max(1, *(self.counts[t][row] for row in self.rows_on_host))
        log_probs = self.log_probs[self.rows].masked_fill(~self.is_open[self.rows], torch.inf)
        log_probs, order = log_probs.sort(dim=1, stable=True)
        is_masked = torch.arange(most, device=order.device) < counts  # (rows, most)
        if self.refinement.confidence_threshold is not None:
            is_masked &= log_probs[:, :most] < math.log(self.refinement.confidence_threshold)
        self.is_masked, self.order = is_masked, order[:, :most]
        if self.refinement.may_finish_early:
            self._finish(t)
        if not self.decoder_pass.answers_some_positions or most == self.tokens.shape[1]:
            self.is_masked, self.order = self._masked_positions(), None

    def _finish(self, t: int) -> None:
        """A sentence of which nothing changes, or nothing is masked again, is done and leaves the batch."""
        is_done = self.is_done | ~self.is_masked.any(dim=1)
        if self.refinement.early_stop and t > 1:
            is_done |= ~self.is_changed
        is_sentence_done = is_done.view(self.decoder_pass.num_sentences, -1).all(dim=1)
        self.is_done = is_sentence_done.repeat_interleave(
            len(is_done) // len(is_sentence_done), dim=0
        )
        self.is_masked = self.is_masked & ~self.is_done[:, None]
        self.is_all_done = bool(is_sentence_done.all())
        if self.refinement.is_batch_kept or self.is_all_done or not is_sentence_done.any():
            return
        sentences = (~is_sentence_done).nonzero()[:, 0]
        canvases = self.decoder_pass.canvases_of(sentences)
        self.decoder_pass = self.decoder_pass.keep(sentences)
        self.rows, self.is_done = self.rows[canvases], self.is_done[canvases]
        self.is_masked, self.order = self.is_masked[canvases], self.order[canvases]
        self.rows_on_host = self.rows.tolist()

    def _masked_positions(self) -> torch.Tensor:
        """What the next pass predicts, (rows, canvas) bool."""
        if self.order is None:
            return self.is_masked
        nothing = torch.zeros_like(self.is_open[self.rows])
        return nothing.scatter(1, self.order, self.is_masked)

    def masked_next(self, t: int) -> torch.Tensor:
        """What pass t + 1 predicts, (canvases, canvas) bool; nothing after the last."""
        nothing = torch.zeros_like(self.is_open)
        if t == self.refinement.num_iterations or self.is_all_done:
            return nothing
        return nothing.index_copy(0, self.rows, self._masked_positions())


def _replaced(
    table: torch.Tensor, where: torch.Tensor, values: torch.Tensor, is_valid: torch.Tensor
) -> torch.Tensor:
    """`table` (canvases, canvas) with `values` at the flat indices `where`, those that are valid."""
    flat = table.flatten()
    values = torch.where(is_valid, values, flat[where])
    return flat.index_copy(0, where, values).view_as(table)
