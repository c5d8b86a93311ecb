"""What the CMLM classes return."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutput, ModelOutput, Seq2SeqModelOutput


@dataclass
class CmlmEncoderOutput(BaseModelOutput):
    """Encoder states of the source tokens, and the length head's scores.

    Args:
        last_hidden_state: (batch, source, d_model); the length vector's position is already dropped.
        hidden_states, attentions: one tensor a layer when asked for; in these the length position stands first,
            except in the last of `hidden_states`, which is `last_hidden_state`.
        length_logits: (batch, max_target_length + 1) fp32; class 0 is excluded.
    """

    length_logits: torch.FloatTensor | None = None


@dataclass
class CmlmSeq2SeqModelOutput(Seq2SeqModelOutput):
    """`Seq2SeqModelOutput` with `length_logits` (batch, max_target_length + 1)."""

    length_logits: torch.FloatTensor | None = None


@dataclass
class CmlmSeq2SeqLMOutput(ModelOutput):
    """What `CmlmForConditionalGeneration.forward` returns.

    Args:
        loss: scalar, nats per scored label: (token loss + `length_loss_weight` * length loss) / number of labels.
        logits: (batch, canvas, vocab); None where the loss was computed without them (`config.fused_loss`).
        length_logits: (batch, max_target_length + 1) fp32.
        token_loss, length_loss: scalars without gradient, nats summed over the batch.
        num_skipped_targets, num_skipped_predictions: (batch,) counts of the AXE alignment; None for cross entropy.
        decoder_hidden_states, decoder_attentions, cross_attentions, encoder_last_hidden_state,
            encoder_hidden_states, encoder_attentions: as in `Seq2SeqLMOutput`.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmSeq2SeqLMOutput
    >>> CmlmSeq2SeqLMOutput(loss=torch.tensor(2.5), logits=torch.zeros(1, 4, 9)).to_tuple()[0]
    tensor(2.5000)

    ```
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    length_logits: torch.FloatTensor | None = None
    token_loss: torch.FloatTensor | None = None
    length_loss: torch.FloatTensor | None = None
    num_skipped_targets: torch.LongTensor | None = None
    num_skipped_predictions: torch.LongTensor | None = None
    decoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    decoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None
    encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    encoder_attentions: tuple[torch.FloatTensor, ...] | None = None


__all__ = ["CmlmEncoderOutput", "CmlmSeq2SeqLMOutput", "CmlmSeq2SeqModelOutput"]
