"""The Mask-Predict loop, vectorised over sentences and length candidates.

Iterations t = 1 .. T-1 mask floor(length * (1 - t/T)) positions again, at least one: those of lowest stored
log-probability, the earlier position first among equals. Only masked positions get a new token.
"""

from dataclasses import dataclass

import torch

# Largest (positions, vocab) tensor of scores held at once, in elements: 64 MiB in fp32.
MAX_LOGITS_ELEMENTS = 2**24


@dataclass(frozen=True)
class CanvasState:
    """Stored tokens and their log-probabilities, both (canvases, canvas); 0 nats and `<pad>` behind a canvas's end."""

    tokens: torch.Tensor
    log_probs: torch.Tensor
    history: list[dict[str, torch.Tensor]] | None = None


def length_candidates(
    length_logits: torch.Tensor,
    *,
    num_candidates: int,
    length_multiplier: float,
    min_length: int,
    max_length: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable canvas lengths, without duplicates.

    Args:
        length_logits: (batch, classes) fp32; class 0 is never chosen.
        num_candidates: how many per sentence; fewer are returned where the bounds leave fewer.
        length_multiplier: factor on a predicted length before it is rounded and brought within the bounds.
        min_length, max_length: bounds of the canvas in positions.

    Returns:
        lengths (batch, candidates) long, best first, and their log-probabilities (batch, candidates) in nats.
    """
    log_probs = length_logits.log_softmax(dim=-1)[:, 1:]
    classes = torch.arange(1, log_probs.shape[1] + 1, device=log_probs.device)
    canvas_lengths = (
        (classes * length_multiplier).round().long().clamp(min_length, max_length)
    )  # (classes,)
    # A canvas length that several classes lead to counts once, with the best of their probabilities.
    best = log_probs.new_full((log_probs.shape[0], max_length + 1), -torch.inf)
    best = best.scatter_reduce(1, canvas_lengths.expand_as(log_probs), log_probs, "amax")
    num_distinct = int(canvas_lengths.unique().numel())
    best, lengths = best.sort(dim=1, descending=True, stable=True)
    num_candidates = min(num_candidates, num_distinct)
    return lengths[:, :num_candidates], best[:, :num_candidates]


def _predict(model, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Most probable token and its log-probability at each of `hidden_states` (canvases, positions, d_model)."""
    flat = hidden_states.flatten(0, 1)
    never = torch.tensor(
        [model.config.pad_token_id, model.config.mask_token_id], device=flat.device
    )
    tokens, log_probs = [], []
    for chunk in flat.split(max(1, MAX_LOGITS_ELEMENTS // model.config.vocab_size)):
        logits = model.lm_head(chunk).float().index_fill(1, never, -torch.inf)  # (positions, vocab)
        best, token = logits.max(dim=1)
        tokens.append(token)
        log_probs.append(best - logits.logsumexp(dim=1))
    shape = hidden_states.shape[:2]
    return torch.cat(tokens).view(shape), torch.cat(log_probs).view(shape)


def mask_predict(
    model,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor | None,
    lengths: torch.Tensor,
    *,
    num_iterations: int,
    keep_history: bool = False,
) -> CanvasState:
    """Decode every canvas.

    Args:
        model: a `CmlmForConditionalGeneration`.
        encoder_hidden_states: (batch, source, d_model).
        encoder_attention_mask: (batch, source), 1 for tokens.
        lengths: (batch, candidates) long, positions of each canvas.
        num_iterations: T, decoder passes.
        keep_history: keep each iteration's canvas, tokens and log-probabilities.

    Returns:
        `CanvasState` of (batch * candidates) canvases, those of one sentence together.
    """
    pad, mask = model.config.pad_token_id, model.config.mask_token_id
    lengths = lengths.reshape(-1, 1)  # (canvases, 1)
    canvas_length = int(lengths.max())
    positions = torch.arange(canvas_length, device=lengths.device)
    is_padding = positions >= lengths  # (canvases, canvas)
    source_key_values = model.model.decoder.project_source(encoder_hidden_states)

    def decode(canvas: torch.Tensor) -> torch.Tensor:
        return model.model.decoder(
            input_ids=canvas,
            attention_mask=~is_padding,
            encoder_attention_mask=encoder_attention_mask,
            source_key_values=source_key_values,
        ).last_hidden_state

    canvas = torch.full_like(is_padding, mask, dtype=torch.long).masked_fill(is_padding, pad)
    tokens, log_probs = _predict(model, decode(canvas))
    tokens, log_probs = tokens.masked_fill(is_padding, pad), log_probs.masked_fill(is_padding, 0.0)
    history = (
        [{"canvas": canvas, "tokens": tokens, "log_probs": log_probs}] if keep_history else None
    )
    for t in range(1, num_iterations):
        num_masked = (lengths * (num_iterations - t) // num_iterations).clamp(
            min=1
        )  # (canvases, 1)
        most_masked = max(1, canvas_length * (num_iterations - t) // num_iterations)
        order = log_probs.masked_fill(is_padding, torch.inf).argsort(dim=1, stable=True)[
            :, :most_masked
        ]
        is_masked = (
            torch.arange(most_masked, device=order.device) < num_masked
        )  # (canvases, most_masked)
        old_tokens, old_log_probs = tokens.gather(1, order), log_probs.gather(1, order)
        canvas = tokens.scatter(1, order, old_tokens.masked_fill(is_masked, mask))
        hidden = decode(canvas)
        masked_hidden = hidden.gather(1, order[:, :, None].expand(-1, -1, hidden.shape[-1]))
        new_tokens, new_log_probs = _predict(model, masked_hidden)
        tokens = tokens.scatter(1, order, torch.where(is_masked, new_tokens, old_tokens))
        log_probs = log_probs.scatter(
            1, order, torch.where(is_masked, new_log_probs, old_log_probs)
        )
        if history is not None:
            history.append({"canvas": canvas, "tokens": tokens, "log_probs": log_probs})
    return CanvasState(tokens, log_probs, history)
