"""What Mask-Predict returns: the best canvases of each sentence, without what is no word."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import ModelOutput

from .configuration_cmlm import CmlmConfig

# Settings with which `generate` returns one row of token ids for each sentence, whatever is saved with the model.
ONE_SEQUENCE_EACH = {
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "output_history": False,
}


@dataclass
class MaskPredictOutput(ModelOutput):
    """Result of `generate(..., return_dict_in_generate=True)`; a row is a sentence, or with `num_return_sequences` = n
    the n best candidates of a sentence one after the other.

    Args:
        sequences: (rows, longest output) long; blanks and `</s>` removed, padded with `pad_token_id`.
        sequences_scores: (rows,) mean log-probability of the tokens predicted on the canvas, nats per token.
        ranking_scores: (rows,) what the candidates of a sentence were ranked by: `sequences_scores` +
            `length_score_weight` * log-probability of the length, or with `rescore_with` the mean log-probability by
            the other model; nats per token.
        token_scores: (rows, longest output), log-probability of each token kept; 0 at padding and for observed tokens.
        lengths: (rows,) long, positions of the canvas, `</s>` included.
        num_iterations: (rows,) long, decoder passes used.
        history: of every iteration, the canvas the decoder saw and the tokens and log-probabilities stored after it, each
            (iterations, rows, canvas); None unless asked for. A sentence that was done earlier stays as it was.

    Scores are float32, or float64 from a float64 model.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
    >>> model = CmlmForConditionalGeneration(
    ...     CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
    ...                decoder_ffn_dim=32, max_target_length=20)
    ... ).eval()
    >>> output = model.generate(
    ...     torch.tensor([[7, 8, 9, 1]]), num_iterations=3, output_history=True, return_dict_in_generate=True
    ... )
    >>> output.num_iterations.tolist(), len(output.history["canvas"])
    ([3], 3)

    ```
    """

    sequences: torch.LongTensor | None = None
    sequences_scores: torch.FloatTensor | None = None
    ranking_scores: torch.FloatTensor | None = None
    token_scores: torch.FloatTensor | None = None
    lengths: torch.LongTensor | None = None
    num_iterations: torch.LongTensor | None = None
    history: dict[str, torch.Tensor] | None = None


def kept_tokens(
    tokens: torch.Tensor,
    log_probs: torch.Tensor,
    config: CmlmConfig,
    *,
    collapse_repeats: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands on canvases without blanks, `</s>` and `<pad>`, moved to the front.

    Args:
        tokens, log_probs: (rows, canvas).
        config: for the ids.
        collapse_repeats: keep one of each run of equal tokens.

    Returns:
        The tokens (rows, longest output), `<pad>` behind, and their log-probabilities, 0 behind.
    """
    special = torch.tensor(
        [config.pad_token_id, config.eos_token_id, config.blank_token_id], device=tokens.device
    )
    is_kept = ~torch.isin(tokens, special)
    if collapse_repeats:
        is_kept[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
    order = (~is_kept).to(torch.uint8).argsort(dim=1, stable=True)  # kept tokens first
    width = max(int(is_kept.sum(dim=1).max()), 1) if len(tokens) else 1
    is_removed = ~is_kept.gather(1, order)[:, :width]
    return (
        tokens.gather(1, order)[:, :width].masked_fill(is_removed, config.pad_token_id),
        log_probs.gather(1, order)[:, :width].masked_fill(is_removed, 0.0),
    )
