"""Do the model and the tokenizer fit together?"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPECIAL_TOKENS = ("pad_token_id", "eos_token_id", "mask_token_id", "blank_token_id")


def check_model_and_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise where training would fail later, or worse, would not.

    Raises:
        TypeError: `model` is no CMLM.
        ValueError: a special token differs between the two, or the tokenizer has more symbols than the model.
    """
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) != "cmlm" or not hasattr(model, "lm_head"):
        raise TypeError(
            f"`model` must be a CmlmForConditionalGeneration, got {type(model).__name__}."
        )
    for name in _SPECIAL_TOKENS:
        expected, got = getattr(config, name), getattr(tokenizer, name, None)
        if got != expected:
            raise ValueError(
                f"The tokenizer's `{name}` is {got}, the model's config has {expected}. Build the config from the "
                f"tokenizer, CmlmConfig({name}=tokenizer.{name}, ...), or give the tokenizer such a token."
            )
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} symbols, `config.vocab_size` is {config.vocab_size}. Build the model "
            "with vocab_size=len(tokenizer) or call model.resize_token_embeddings(len(tokenizer))."
        )
