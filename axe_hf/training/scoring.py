"""Scores of the translations that an evaluation made."""

from collections.abc import Sequence

import numpy as np
from transformers import EvalPrediction, PreTrainedTokenizerBase


def score_translations(
    prediction: EvalPrediction,
    tokenizer: PreTrainedTokenizerBase,
    references: Sequence[Sequence[str]] | None,
) -> dict[str, float | str]:
    """BLEU and the other scores of `TranslationMetric`, on detokenized text.

    Args:
        prediction: token ids of translations and labels, both padded with -100.
        tokenizer: decodes them.
        references: right translations for each; the labels where it is None.
    """
    from ..evaluation import TranslationMetric

    if references is None:
        references = _decode(prediction.label_ids, tokenizer)
    return TranslationMetric().compute(
        predictions=_decode(prediction.predictions, tokenizer), references=references
    )


def _decode(token_ids: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    token_ids = np.where(token_ids == -100, tokenizer.pad_token_id, token_ids)
    return tokenizer.batch_decode(token_ids, skip_special_tokens=True)
