"""Canvases: how long they are, and what stands on them before anything is predicted."""

from dataclasses import dataclass

import torch

from .configuration_cmlm import CmlmConfig


@dataclass(frozen=True)
class Canvases:
    """What is decoded for a batch.

    Args:
        tokens: (batch * candidates, canvas) long, masked; those of one sentence together.
        lengths: (batch, candidates) long, positions of each canvas.
        length_log_probs: (batch, candidates) nats; 0 where the length was given.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    length_log_probs: torch.Tensor

    def check_number(self, num_returned: int) -> None:
        """Refuse to return more candidates than there are."""
        num_candidates = self.lengths.shape[1]
        if num_returned > num_candidates:
            raise ValueError(
                f"`num_return_sequences` is {num_returned}, but a sentence has {num_candidates} length candidate(s). "
                "Raise `num_length_candidates`, or widen `min_length` and `max_length`."
            )

    def mean_log_probs(self, log_probs: torch.Tensor, mask_token_id: int) -> torch.Tensor:
        """Mean of `log_probs` (canvases, canvas) where something was predicted, (batch, candidates); else 0."""
        num_predicted = (self.tokens == mask_token_id).sum(dim=1).clamp(min=1)
        return (log_probs.sum(dim=1) / num_predicted).view(self.lengths.shape)


def masked_canvas(lengths: torch.Tensor, width: int, config: CmlmConfig) -> torch.Tensor:
    """`<mask>` at `lengths` (...) positions each, `<pad>` behind: (..., width) long."""
    is_masked = torch.arange(width, device=lengths.device) < lengths[..., None]
    canvas = torch.full_like(is_masked, config.pad_token_id, dtype=torch.long)
    return canvas.masked_fill_(is_masked, config.mask_token_id)


def masked_canvas_of_labels(
    labels: torch.Tensor, length_multiplier: float, config: CmlmConfig
) -> torch.Tensor:
    """A fully masked canvas (batch, canvas) for the targets `labels` (batch, target), -100 behind a target's end."""
    limit = config.max_target_length
    lengths = ((labels != -100).sum(dim=1) * length_multiplier).round().long().clamp(1, limit)
    width = min(max(1, round(labels.shape[1] * length_multiplier)), limit)
    return masked_canvas(lengths, width, config).to(labels.dtype)


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
    # On the host, where it is done in doubles and their number is known without waiting for a device.
    classes = range(1, log_probs.shape[1] + 1)
    scaled = [min(max(round(n * length_multiplier), min_length), max_length) for n in classes]
    canvas_lengths = torch.tensor(scaled, device=log_probs.device)  # (classes,)
    # A canvas length that several classes lead to counts once, with the best of their probabilities.
    best = log_probs.new_full((log_probs.shape[0], max_length + 1), -torch.inf)
    best = best.scatter_reduce(1, canvas_lengths.expand_as(log_probs), log_probs, "amax")
    best, lengths = best.sort(dim=1, descending=True, stable=True)
    num_candidates = min(num_candidates, len(set(scaled)))
    return lengths[:, :num_candidates], best[:, :num_candidates]


def check_target_lengths(
    target_lengths: torch.Tensor, num_sentences: int, limit: int
) -> torch.Tensor:
    """`target_lengths` (batch,) or (batch, candidates) as (batch, candidates) long.

    Raises:
        TypeError, ValueError: not integers, another batch, or lengths that no canvas has.
    """
    if not torch.is_tensor(target_lengths):
        target_lengths = torch.as_tensor(target_lengths)
    if target_lengths.is_floating_point() or target_lengths.dtype == torch.bool:
        raise TypeError(f"`target_lengths` must be integers, got {target_lengths.dtype}.")
    if target_lengths.dim() not in (1, 2) or target_lengths.shape[0] != num_sentences:
        raise ValueError(
            f"`target_lengths` must be (batch,) or (batch, candidates) with a batch of {num_sentences}, got "
            f"{tuple(target_lengths.shape)}."
        )
    lengths = target_lengths.long().reshape(num_sentences, -1)
    if not lengths.numel() or int(lengths.min()) < 1 or int(lengths.max()) > limit:
        raise ValueError(
            f"`target_lengths` must be in [1, {limit}], positions of a canvas, `</s>` included; got "
            f"{lengths.flatten().tolist()[:20]}."
        )
    return lengths


def check_canvas(canvas: torch.Tensor, num_sentences: int, config: CmlmConfig) -> torch.Tensor:
    """`decoder_input_ids` (batch, canvas) for infilling, once it is found to be a canvas.

    Raises:
        TypeError, ValueError: not integers, another batch, too wide, unknown tokens, or `<pad>` in front of a token.
    """
    if not torch.is_tensor(canvas) or canvas.is_floating_point() or canvas.dtype == torch.bool:
        kind = canvas.dtype if torch.is_tensor(canvas) else type(canvas).__name__
        raise TypeError(f"`decoder_input_ids` must be a tensor of token ids, got {kind}.")
    if canvas.dim() != 2 or canvas.shape[0] != num_sentences or not canvas.shape[1]:
        raise ValueError(
            f"`decoder_input_ids` must be (batch, canvas) with a batch of {num_sentences} and at least one position, "
            f"got {tuple(canvas.shape)}."
        )
    if canvas.shape[1] > config.max_target_length:
        raise ValueError(
            f"`decoder_input_ids` have {canvas.shape[1]} positions but `config.max_target_length` is "
            f"{config.max_target_length}."
        )
    is_padding = canvas == config.pad_token_id
    problems = {
        f"hold ids in [0, {config.vocab_size})": (canvas < 0) | (canvas >= config.vocab_size),
        "hold <pad> behind the canvas's end only": is_padding[:, :-1] & ~is_padding[:, 1:],
        "show at least one position of each sentence": is_padding[:, :1],
    }
    for expected, is_wrong in problems.items():
        if is_wrong.any():
            row, column = is_wrong.nonzero()[0].tolist()
            raise ValueError(
                f"`decoder_input_ids` must {expected}, got {int(canvas[row, column])} at [{row}, {column}]. Put "
                f"<mask> ({config.mask_token_id}) where a token is to be predicted."
            )
    return canvas.long()
