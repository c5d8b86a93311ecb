"""Checks of the source and of the other model that `generate` is given."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput

from .rescoring_checks_cmlm import check_rescorer


def check_source(
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    encoder_outputs: ModelOutput | None,
) -> None:
    """There is a source, in ids or encoded, and the mask (batch, source) fits it, with padding behind each sentence."""
    if encoder_outputs is not None:
        states = getattr(encoder_outputs, "last_hidden_state", None)
        if not torch.is_tensor(states) or states.numel() == 0:
            raise ValueError(
                "`encoder_outputs` must be what `model.get_encoder()` returns, of at least one sentence, got "
                f"{type(encoder_outputs).__name__}."
            )
        shape = states.shape[:2]
    elif input_ids is None:
        raise ValueError("generate() needs `input_ids` (batch, source) or `encoder_outputs`.")
    elif input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(
            f"`input_ids` must be (batch, source) with at least one token, got {tuple(input_ids.shape)}."
        )
    else:
        shape = input_ids.shape
    if attention_mask is None:
        return
    if attention_mask.shape != shape:
        raise ValueError(
            f"`attention_mask` must be (batch, source) = {tuple(shape)}, got {tuple(attention_mask.shape)}."
        )
    is_late = (attention_mask[:, 0] == 0) & attention_mask.any(dim=1)
    if is_late.any():
        raise ValueError(
            f"`attention_mask` has padding in front of sentence {int(is_late.nonzero()[0])}, but positions count from "
            'the left. Set tokenizer.padding_side = "right".'
        )


def check_rescoring(rescore_with: Any, tokenizer: Any, input_ids: torch.Tensor | None) -> None:
    """The other model is one that can rank, and there are texts for it."""
    check_rescorer(rescore_with)
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or input_ids is None:
        raise ValueError(
            "`rescore_with` needs `tokenizer`, this model's own, and `input_ids`: the other model reads the texts. "
            "Call generate(input_ids, rescore_with=(model, its_tokenizer), tokenizer=tokenizer)."
        )
