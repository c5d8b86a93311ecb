"""Do model, tokenizer and arguments fit together?"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .arguments import AxeTrainingArguments

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


def honour_arguments(model: PreTrainedModel, args: AxeTrainingArguments) -> PreTrainedModel:
    """Write the settings of `args` that travel with a model into it, and return it.

    Raises:
        ValueError: stretched canvases for a model that is trained with cross entropy.
    """
    if args.label_smoothing_factor > 0:
        model.config.label_smoothing = args.label_smoothing_factor
    if args.is_canvas_stretched and model.config.training_loss != "axe":
        raise ValueError(
            f"`length_multiplier` is {args.length_multiplier} and `length_jitter` {args.length_jitter}, but cross entropy "
            'needs a label at every position of the canvas. Set `training_loss="axe"` in the model\'s config, or leave '
            "them at 1.0 and 0.0."
        )
    model.generation_config.length_multiplier = args.length_multiplier
    return model
