"""Mask-Predict, vectorised over sentences and their canvases: loop, decoder pass, tokens, canvases.

Iterations t = 1 .. T-1 mask some positions again, by default floor(length * (1 - t/T)), at least
one: those of lowest stored log-probability, the earlier first among equals. Only these get a new
token. The same in plain loops: `axe_hf/reference.py`. Source: Ghazvininejad et al., EMNLP 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional as F
from transformers.generation.configuration_utils import CompileConfig

from .configuration_cmlm import CmlmConfig, MaskPredictGenerationConfig, needs_room
from .configuration_mask_predict import num_masked_again
from .fused_loss_axe import is_plain_linear
from .loss_axe import IGNORE_INDEX


@dataclass(frozen=True)
class CanvasState:
    """What stands on the canvases."""

    tokens: torch.Tensor  # (canvases, canvas) long; `<pad>` behind a canvas's end
    log_probs: torch.Tensor  # (canvases, canvas) nats; 0 where nothing was predicted
    num_iterations: torch.Tensor  # (canvases,) long, passes made
    # For each pass the canvas the decoder saw, and tokens and log-probabilities after.
    history: list[dict[str, torch.Tensor]] | None


# Told after each pass: tokens, log-probabilities and what is masked next, all (canvases, canvas).
OnPass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


def mask_predict(
    decoder_pass: DecoderPass,
    canvas: torch.Tensor,
    settings: MaskPredictGenerationConfig,
    predictor: TokenPredictor,
    on_pass: OnPass | None = None,
    is_synced: bool = False,
) -> CanvasState:
    """Fill every canvas in.

    `canvas` (canvases, canvas) long has `<mask>` where a token is to be predicted, observed tokens,
    and `<pad>` behind the end; those of one sentence stand together. Without `early_stop` and
    `confidence_threshold` the loop reads no tensor on the host, so a device never waits. Processes
    that must all make the same passes, on batches of one size, say so by `is_synced`.
    """
    # Sentences that are done stay, unchanged, where shapes are static.
    loop = _Loop(decoder_pass, canvas, settings, predictor, settings.compile or is_synced)
    for t in range(1, settings.num_iterations + 1):
        loop.predict(t)
        if t < settings.num_iterations:
            loop.mask_again(t)
        if on_pass is not None:
            on_pass(loop.tokens, loop.log_probs, loop.masked_next(t))
        if loop.is_all_done and not is_synced:
            break
    return CanvasState(loop.tokens, loop.log_probs, loop.num_passes, loop.history)


class _Loop:
    """What stands on the canvases between two passes, and the rows of those still in the batch."""

    def __init__(self, decoder_pass: DecoderPass, canvas, settings, predictor, is_batch_kept):
        self.decoder_pass, self.settings, self.predictor = decoder_pass, settings, predictor
        self.is_batch_kept = is_batch_kept
        self.mask_token_id = decoder_pass.model.config.mask_token_id
        self.is_open = canvas == self.mask_token_id  # (canvases, canvas)
        dtype = torch.promote_types(decoder_pass.model.dtype, torch.float32)
        self.tokens = canvas
        self.log_probs = torch.zeros(canvas.shape, dtype=dtype, device=canvas.device)
        self.num_passes = torch.zeros(len(canvas), dtype=torch.long, device=canvas.device)
        self.history: list[dict[str, torch.Tensor]] | None = [] if settings.output_history else None
        self.rows = torch.arange(len(canvas), device=canvas.device)  # (rows,)
        self.rows_on_host = list(range(len(canvas)))
        self.is_done = torch.zeros_like(self.rows, dtype=torch.bool)  # (rows,)
        self.is_changed = ~self.is_done  # (rows,), by the last pass
        self.is_all_done = False
        # Positions that each pass predicts, on the host and on the device: (T, canvases).
        num_open = self.is_open.sum(dim=1).tolist()
        self.counts = [num_open]
        schedule, total = settings.schedule, settings.num_iterations
        for t in range(1, total):
            again = {n: min(n, num_masked_again(schedule, n, t, total)) for n in set(num_open)}
            self.counts.append([again[n] for n in num_open])
        self.counts_on_device = torch.tensor(self.counts, device=canvas.device)
        # What the next pass predicts: (rows, canvas), or (rows, queries) at the positions `order`.
        self.is_masked: torch.Tensor = self.is_open
        self.order: Any = None

    def predict(self, t: int) -> None:
        """Pass t: new tokens where the canvas is masked."""
        before, width = self.tokens[self.rows], self.tokens.shape[1]
        canvas = before.masked_fill(self._masked_positions(), self.mask_token_id)
        states = self.decoder_pass(canvas, self.order).flatten(0, 1)
        positions = self.order
        if positions is None:
            positions = torch.arange(width, device=before.device).expand_as(before)

        # Masked positions first, without asking the device how many: the schedule knows, but for a
        # threshold.
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
        if self.settings.early_stop:
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
        threshold = self.settings.confidence_threshold
        if threshold is not None:
            is_masked &= log_probs[:, :most] < math.log(threshold)
        self.is_masked, self.order = is_masked, order[:, :most]
        if self.settings.early_stop or threshold is not None:
            self._finish(t)
        if not self.decoder_pass.answers_some_positions or most == self.tokens.shape[1]:
            self.is_masked, self.order = self._masked_positions(), None

    def _finish(self, t: int) -> None:
        """A sentence in which nothing changes or is masked again is done and leaves the batch."""
        is_done = self.is_done | ~self.is_masked.any(dim=1)
        if self.settings.early_stop and t > 1:
            is_done |= ~self.is_changed
        is_sentence_done = is_done.view(self.decoder_pass.num_sentences, -1).all(dim=1)
        num_candidates = len(is_done) // len(is_sentence_done)
        self.is_done = is_sentence_done.repeat_interleave(num_candidates, dim=0)
        self.is_masked = self.is_masked & ~self.is_done[:, None]
        self.is_all_done = bool(is_sentence_done.all())
        if self.is_batch_kept or self.is_all_done or not is_sentence_done.any():
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
        if t == self.settings.num_iterations or self.is_all_done:
            return nothing
        return nothing.index_copy(0, self.rows, self._masked_positions())


def _replaced(table: torch.Tensor, where, values, is_valid: torch.Tensor) -> torch.Tensor:
    """`table` (canvases, canvas) with `values` at the flat indices `where`, if they are valid."""
    flat = table.flatten()
    return flat.index_copy(0, where, torch.where(is_valid, values, flat[where])).view_as(table)


# With `compile` lengths are rounded up to a multiple of this, so that few shapes are compiled.
STATIC_LENGTH_STEP = 16


@dataclass(eq=False)
class DecoderPass:
    """The decoder of `model`, ready to read one canvas after the other for the same sources.

    What does not change between the passes is computed once: the encoder's states, each layer's
    keys and values of them, shared by all canvases of a sentence, and the masks.
    """

    model: Any
    source_states: torch.Tensor  # (sentences, source, d_model)
    source_mask: torch.Tensor | None  # (sentences, source), 1 for tokens; None where all are
    is_inside: torch.Tensor  # (canvases, canvas) bool, before the end; those of a sentence together
    compile_config: CompileConfig | None = None  # None does not compile
    key_values: Any = None  # of `source_states` in each layer, where they are known

    def __post_init__(self) -> None:
        decoder = self._decoder = self.model.model.decoder
        if self.compile_config is not None:
            states, mask = self.source_states, self.source_mask
            if mask is None:
                mask = states.new_ones(states.shape[:2], dtype=torch.bool)
            missing = -states.shape[1] % STATIC_LENGTH_STEP
            self.source_states = F.pad(states, (0, 0, 0, missing))
            self.source_mask = F.pad(mask.bool(), (0, missing))
            self._decoder = compiled_decoder(self.model, self.compile_config)
        self.num_sentences = len(self.source_states)
        self.key_values = self.key_values or decoder.project_source(self.source_states)
        # What a mask is made for: only shape (rows, length, 1), type and device are read.
        element = self.source_states.new_empty(1)
        like_canvas = element.expand(*self.is_inside.shape, 1)
        like_source = element.expand(*self.source_states.shape[:2], 1)
        self._masks = decoder.attention_masks(
            self.is_inside, self.source_mask, like_canvas, like_source
        )
        # Flash attention with padding takes queries for the last keys: it gets them all.
        attention = self.model.config._attn_implementation
        self.answers_some_positions = self.compile_config is None and attention in ("eager", "sdpa")

    def __call__(
        self, canvas: torch.Tensor, query_positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States of `canvas` (canvases, canvas), or at `query_positions` (canvases, queries)."""
        known = {"masks": self._masks, "source_key_values": self.key_values}
        output = self._decoder(input_ids=canvas, query_positions=query_positions, **known)
        return output.last_hidden_state

    def keep(self, sentences: torch.Tensor) -> DecoderPass:
        """The same for some of the sentences, (kept,) long; nothing is projected again."""
        return replace(
            self,
            source_states=self.source_states[sentences],
            source_mask=None if self.source_mask is None else self.source_mask[sentences],
            is_inside=self.is_inside[self.canvases_of(sentences)],
            key_values=tuple(type(x)(*(part[sentences] for part in x)) for x in self.key_values),
        )

    def canvases_of(self, sentences: torch.Tensor) -> torch.Tensor:
        """Rows of the canvases of `sentences` (kept,) long: (kept * candidates,) long."""
        num_candidates = len(self.is_inside) // self.num_sentences
        first = sentences[:, None] * num_candidates
        return (first + torch.arange(num_candidates, device=sentences.device)).flatten()


def static_length(length: int, limit: int) -> int:
    """`length` rounded up to a shape that is compiled, at most `limit`."""
    return min(-(-length // STATIC_LENGTH_STEP) * STATIC_LENGTH_STEP, limit)


def compiled_decoder(model: Any, compile_config: CompileConfig) -> Any:
    """The compiled decoder; it is kept on the model, and compiled anew when the settings change."""
    settings = compile_config.to_dict()
    known_settings, decoder = model.__dict__.get("_compiled_decoder", (None, None))
    # A copy of the model that shares its weights brings that of its original along.
    if known_settings != settings or decoder._orig_mod is not model.model.decoder:
        decoder = torch.compile(model.model.decoder, **settings)
        # Not as a submodule: it shares the decoder's weights.
        model.__dict__["_compiled_decoder"] = (settings, decoder)
    return decoder


# Largest (positions, columns of the vocabulary) block of logits held at once: 64 MiB in fp32. On a
# CPU 8 MiB, so that it is still in a core's cache when its maximum and sum are taken.
MAX_LOGITS_ELEMENTS = 2**24
MAX_LOGITS_ELEMENTS_CPU = 2**21
MAX_COLUMNS_CPU = 4096


@dataclass(frozen=True)
class TokenChoice:
    """How a token is chosen: the most probable, or drawn from the logits over `temperature` > 0."""

    never: tuple[int, ...]  # ids that are not predicted
    temperature: float | None = None
    generator: torch.Generator | None = None  # None draws by PyTorch's own


@dataclass(frozen=True)
class _Columns:
    """A part of the vocabulary: ids from `start`, with their weights; `never` is not predicted."""

    start: int
    weight: torch.Tensor | None  # None where the head has to be called
    bias: torch.Tensor | None
    never: torch.Tensor | None


@dataclass
class TokenPredictor:
    """Token and log-probability at decoder states; made once for all passes of a decoding.

    On a CPU an `lm_head` that is a plain `nn.Linear` is read a part of the vocabulary at a time.
    Any other is called once a pass with `is_called_once`, whatever the number of positions and the
    memory: for processes that share its weights and must call it equally often.
    """

    lm_head: Any
    vocab_size: int
    choice: TokenChoice
    is_called_once: bool = False
    _columns: list[_Columns] = field(default_factory=list, init=False)

    @torch.no_grad()
    def __call__(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (positions,) long and their log-probabilities (positions,) in nats.

        These are of the distribution without `choice.never` and before the temperature, in float32
        or the wider type of `states` (positions, d_model).
        """
        if not self._columns:
            self._columns = self._parts_of_vocabulary(states)
        blocks = map(self._predict, states.split(self._num_rows(states)))
        tokens, log_probs = zip(*blocks, strict=True)
        return torch.cat(tokens), torch.cat(log_probs)

    def _num_rows(self, states: torch.Tensor) -> int:
        """Positions whose logits are held at once."""
        weight = self._columns[0].weight
        if weight is None and self.is_called_once:
            return max(1, len(states))
        limits = [MAX_LOGITS_ELEMENTS, MAX_LOGITS_ELEMENTS_CPU]
        budget = min(limits) if states.device.type == "cpu" else MAX_LOGITS_ELEMENTS
        return max(1, budget // (self.vocab_size if weight is None else len(weight)))

    def _parts_of_vocabulary(self, states: torch.Tensor) -> list[_Columns]:
        head, device = self.lm_head, states.device
        is_split = device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        is_split &= is_plain_linear(head, device)
        size = min(MAX_COLUMNS_CPU, MAX_LOGITS_ELEMENTS) if is_split else self.vocab_size
        parts = []
        for start in range(0, self.vocab_size, size):
            stop = min(start + size, self.vocab_size)
            never = [i - start for i in self.choice.never if start <= i < stop]
            weight = head.weight[start:stop] if is_split else None
            bias = head.bias[start:stop] if is_split and head.bias is not None else None
            ids = torch.tensor(never, device=device) if never else None
            parts.append(_Columns(start, weight, bias, ids))
        return parts

    def _predict(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Best token and running sum of exp(logit - largest), part by part of the vocabulary."""
        temperature = self.choice.temperature
        largest = total = best = token = chosen = states.new_empty(0)  # set by the first part
        for start, logits in self._logits(states):  # (rows, columns)
            new_largest, new_token = logits.max(dim=1)
            new_best = new_chosen = new_largest
            if temperature is not None:
                new_best, new_token = self._drawn(logits, temperature)
                new_chosen = logits.gather(1, new_token[:, None])[:, 0]
            if start == 0:
                best, token, chosen = new_best, new_token, new_chosen
            else:
                is_better = new_best > best  # on a tie the earlier token wins
                best = torch.where(is_better, new_best, best)
                token = torch.where(is_better, new_token + start, token)
                chosen = torch.where(is_better, new_chosen, chosen)
                new_largest = torch.maximum(largest, new_largest)
            # Of a part that is never predicted the largest is -inf, and -inf - -inf is no number.
            shift = new_largest.clamp(min=torch.finfo(logits.dtype).min)
            new_total = logits.sub_(shift[:, None]).exp_().sum(dim=1)
            total = new_total if start == 0 else total * (largest - shift).exp() + new_total
            largest = new_largest
        # Without the largest logit in the logarithm: more digits are right than by logsumexp.
        return token, (chosen - largest) - total.log()

    def _logits(self, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """First id and logits of each part of the vocabulary; they may be overwritten."""
        dtype = torch.promote_types(states.dtype, torch.float32)
        for part in self._columns:
            if part.weight is None:
                # A copy, since a hook of the head's may have kept its output.
                logits = self.lm_head(states).to(dtype, copy=True)
            else:
                logits = F.linear(states, part.weight, part.bias).to(dtype)
            if part.never is not None:
                logits.index_fill_(1, part.never, -torch.inf)
            yield part.start, logits

    def _drawn(self, logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest of logits / temperature with Gumbel noise, and its index, both (rows,)."""
        noise = torch.empty_like(logits).exponential_(generator=self.choice.generator).log_()
        return (logits / temperature).sub_(noise).max(dim=1)


@dataclass(frozen=True)
class Canvases:
    """What is decoded for a batch."""

    tokens: torch.Tensor  # (batch * candidates, canvas) long, masked; those of a sentence together
    lengths: torch.Tensor  # (batch, candidates) long, positions of each canvas
    length_log_probs: torch.Tensor  # (batch, candidates) nats; 0 where the length was given

    def mean_log_probs(self, log_probs: torch.Tensor, mask_token_id: int) -> torch.Tensor:
        """Mean of `log_probs` (canvases, canvas) over what was predicted, (batch, candidates)."""
        num_predicted = (self.tokens == mask_token_id).sum(dim=1).clamp(min=1)
        return (log_probs.sum(dim=1) / num_predicted).view(self.lengths.shape)


def is_first_of_run(tokens: torch.Tensor) -> torch.Tensor:
    """Where a run of equal `tokens` (canvases, canvas) begins, (canvases, canvas) bool."""
    is_other = tokens[:, 1:] != tokens[:, :-1]
    return torch.cat([torch.ones_like(tokens[:, :1], dtype=torch.bool), is_other], dim=1)


def masked_canvas(lengths: torch.Tensor, width: int, config: CmlmConfig) -> torch.Tensor:
    """`<mask>` at `lengths` (...) positions each, `<pad>` behind: (..., width) long."""
    is_masked = torch.arange(width, device=lengths.device) < lengths[..., None]
    canvas = torch.full_like(is_masked, config.pad_token_id, dtype=torch.long)
    return canvas.masked_fill_(is_masked, config.mask_token_id)


def needed_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions (batch,) that say all of `labels` (batch, target), -100 behind the end: a token
    each, and a blank between equal neighbours, which would be collapsed."""
    is_token = labels != IGNORE_INDEX
    is_repeat = (labels[:, 1:] == labels[:, :-1]) & is_token[:, 1:]
    return is_token.sum(dim=1) + is_repeat.sum(dim=1)


def no_room(needed: int, limit: int) -> str:
    """What to say of a target that no canvas is long enough for."""
    problem = f"{needed} positions, one between equal neighbours too, but a canvas has {limit}"
    return f"{problem} at most. Leave it out, or build a model by --max-target-length {needed}."


def masked_canvas_of_labels(
    labels: torch.Tensor, length_multiplier: float, config: CmlmConfig
) -> torch.Tensor:
    """A fully masked canvas (batch, canvas) for each target of `labels` (batch, target)."""
    limit = config.max_target_length
    num_tokens = (labels != IGNORE_INDEX).sum(dim=1)
    lengths = (num_tokens * length_multiplier).round().long()
    width = min(max(1, round(labels.shape[1] * length_multiplier)), limit)
    if needs_room(config):
        lengths = torch.maximum(lengths, needed := needed_positions(labels))
        if len(labels) and (most := int(needed.max())) > limit:
            row = int(needed.argmax())
            raise ValueError(f"`labels` of sentence {row} need {no_room(most, limit)}")
        width = max(width, min(int(lengths.max()), limit)) if len(labels) else width
    return masked_canvas(lengths.clamp(1, limit), width, config).to(labels.dtype)


def possible_lengths(num_classes: int, settings: MaskPredictGenerationConfig) -> list[int]:
    """The canvas length that each class 1 .. `num_classes` of the length head leads to."""
    predicted = (round(n * settings.length_multiplier) for n in range(1, num_classes + 1))
    return [min(max(n, settings.min_length), settings.max_length) for n in predicted]


def length_candidates(
    length_logits: torch.Tensor, settings: MaskPredictGenerationConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable canvas lengths, without duplicates, and their log-probabilities in nats.

    Both are (batch, candidates), best first and the shorter first among equals; there are fewer
    than `num_length_candidates` where the bounds leave fewer. Class 0 of `length_logits` (batch,
    classes) fp32 is never chosen.
    """
    log_probs = length_logits.log_softmax(dim=-1)[:, 1:]
    # On the host: in doubles, and their number is known without waiting for a device.
    lengths_of_classes = possible_lengths(log_probs.shape[1], settings)
    canvas_lengths = torch.tensor(lengths_of_classes, device=log_probs.device)  # (classes,)
    # A length that several classes lead to counts once, with the best of their probabilities.
    best = log_probs.new_full((log_probs.shape[0], settings.max_length + 1), -torch.inf)
    best = best.scatter_reduce(1, canvas_lengths.expand_as(log_probs), log_probs, "amax")
    best, lengths = best.sort(dim=1, descending=True, stable=True)
    num_candidates = min(settings.num_length_candidates, len(set(lengths_of_classes)))
    return lengths[:, :num_candidates], best[:, :num_candidates]
