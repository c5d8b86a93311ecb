"""What is refused before an autoregressive model rescores, and text that no tokenizer could read mended."""

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_rescorer(rescore_with: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer of `rescore_with`, or a TypeError that says what is wrong with them.

    Example:

    ```python
    >>> from axe_hf.cmlm.rescoring_checks_cmlm import check_rescorer
    >>> check_rescorer("my/model")
    Traceback (most recent call last):
    TypeError: `rescore_with` must be a pair (model, tokenizer), got str.

    ```
    """
    if not isinstance(rescore_with, tuple | list) or len(rescore_with) != 2:
        size = f" of {len(rescore_with)}" if isinstance(rescore_with, tuple | list) else ""
        raise TypeError(
            f"`rescore_with` must be a pair (model, tokenizer), got {type(rescore_with).__name__}{size}."
        )
    model, tokenizer = rescore_with
    name = type(model).__name__
    # Not isinstance: a PEFT model is none of Transformers' classes.
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise TypeError(
            f"The rescoring model must be a model of Transformers, got {name}. Load it by "
            "AutoModelForSeq2SeqLM.from_pretrained(...)."
        )
    if getattr(model.config, "model_type", None) == "cmlm":
        raise TypeError(
            f"The rescoring model must be autoregressive, got {name}, which predicts all tokens at "
            "once. Use an autoregressive translation model, such as Marian."
        )
    if not getattr(model.config, "is_encoder_decoder", False):
        raise TypeError(
            f"The rescoring model must be an encoder-decoder, got {name}, which has no encoder for the "
            "source. Use a translation model, such as Marian or NLLB, or rank the candidates of "
            "`num_return_sequences` by a prompt of your own."
        )
    head = getattr(model, "get_output_embeddings", None)
    if head is None or head() is None:
        raise TypeError(
            f"The rescoring model must have a head over the vocabulary, got {name}. Load it by "
            "AutoModelForSeq2SeqLM, not AutoModel."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            f"The rescoring tokenizer must be a tokenizer of Transformers, got "
            f"{type(tokenizer).__name__}. Load the one of {name} by AutoTokenizer.from_pretrained(...)."
        )
    return model, tokenizer


def valid_unicode(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which reading broken UTF-8 leaves behind.

    Example:

    ```python
    >>> from axe_hf.cmlm.rescoring_checks_cmlm import valid_unicode
    >>> ascii(valid_unicode("a" + chr(0xDCFF)))
    "'a\\\\ufffd'"

    ```
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def checked_texts(sources, candidates) -> tuple[list[str], list[list[str]]]:
    """Lists of valid Unicode, as many candidates for each source, or an error that says what is wrong."""
    for name, texts in {"sources": sources, "candidates": candidates}.items():
        if not isinstance(texts, list | tuple):
            raise TypeError(f"`{name}` must be a list, got {type(texts).__name__}.")
    if len(sources) != len(candidates):
        raise ValueError(
            f"`candidates` must have a list for each of the {len(sources)} `sources`, got "
            f"{len(candidates)} lists."
        )
    for i, row in enumerate(candidates):
        if not isinstance(row, list | tuple):
            raise TypeError(f"`candidates[{i}]` must be a list, got {type(row).__name__}.")
        if len(row) != len(candidates[0]):
            raise ValueError(
                f"Every source must have as many candidates, got {len(candidates[0])} for the first "
                f"and {len(row)} for sources[{i}]."
            )
        for text in (sources[i], *row):
            if not isinstance(text, str):
                raise TypeError(
                    f"`sources` and `candidates` must hold strings, got {type(text).__name__} at [{i}]."
                )
    rows = [[valid_unicode(text) for text in row] for row in candidates]
    return [valid_unicode(text) for text in sources], rows


def check_ids(token_ids: list[list[int]], vocab_size: int, side: str) -> None:
    """Refuse ids that the model has no embedding for; `side` is "source" or "target"."""
    largest = max(max(ids) for ids in token_ids)
    if largest >= vocab_size:
        raise ValueError(
            f"The rescoring tokenizer gave the {side} token {largest}, but the model's {side} "
            f"vocabulary has {vocab_size} entries. Do model and tokenizer belong together?"
        )


__all__ = ["check_ids", "check_rescorer", "checked_texts", "valid_unicode"]
