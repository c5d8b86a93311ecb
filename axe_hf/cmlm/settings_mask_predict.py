"""The settings of one call of `generate`: the model's own, overridden and checked against the model."""

from typing import Any

from transformers import GenerationConfig

from .configuration_cmlm import CmlmConfig, MaskPredictGenerationConfig
from .configuration_mask_predict import AUTOREGRESSIVE, SETTINGS, check_autoregressive

# Trainers and pipelines hand these to every `generate`.
_PASSED_BY_CALLERS = {"labels", "synced_gpus", "use_cache", "decoder_attention_mask"}
# Arguments of `generate` itself, named when an unknown one is refused.
_ARGUMENTS = ("encoder_outputs", "decoder_input_ids", "target_lengths", "generator", "streamer")
_ARGUMENTS += ("rescore_with", "tokenizer")


def settings_of_call(
    model_config: CmlmConfig, saved: GenerationConfig, overrides: dict[str, Any]
) -> MaskPredictGenerationConfig:
    """`saved` with `overrides`, complete and in range; neither is changed.

    Raises:
        ValueError: a value out of its range, or made for autoregressive decoding.
        TypeError: an argument that nobody knows.
    """
    settings = saved.to_dict()
    for name, value in overrides.items():
        if name in SETTINGS:
            if value is not None or SETTINGS[name].is_reset_by_none:
                settings[name] = value
        elif name in AUTOREGRESSIVE:
            check_autoregressive(name, value)
        elif name not in _PASSED_BY_CALLERS and value is not None:
            raise TypeError(
                f"generate() has no argument `{name}`. Mask-Predict takes "
                f"{', '.join((*SETTINGS, *_ARGUMENTS))}."
            )
    config = MaskPredictGenerationConfig(**settings)
    if config.compile and config.use_onednn:
        raise ValueError(
            "`use_onednn=True` has no part in what `compile=True` compiles: leave one of the two out."
        )
    _fit_lengths(config, model_config.max_target_length)
    _check_choice(config, model_config.vocab_size)
    return config


def _fit_lengths(config: MaskPredictGenerationConfig, limit: int) -> None:
    config.max_length = limit if config.max_length is None else config.max_length
    if config.max_length > limit:
        raise ValueError(
            f"`max_length` is {config.max_length} but the model's longest canvas is "
            f"`config.max_target_length` = {limit}. Ask for at most {limit}."
        )
    config.min_length = max(config.min_length or 1, 1)
    if config.min_length > config.max_length:
        raise ValueError(
            f"`min_length` {config.min_length} is over `max_length` {config.max_length}."
        )


def _check_choice(config: MaskPredictGenerationConfig, vocab_size: int) -> None:
    if config.temperature not in (None, 1, 1.0) and not config.do_sample:
        raise ValueError(
            f"`temperature` {config.temperature} changes nothing unless tokens are drawn: add do_sample=True."
        )
    suppressed = config.suppress_tokens
    if suppressed is None:
        return
    if not isinstance(suppressed, list | tuple) or not all(type(i) is int for i in suppressed):
        raise TypeError(f"`suppress_tokens` must be a list of token ids, got {suppressed!r:.80}.")
    wrong = [i for i in suppressed if not 0 <= i < vocab_size]
    if wrong or len(set(suppressed)) > vocab_size - 3:  # pad and mask are never predicted either
        raise ValueError(
            f"`suppress_tokens` must hold ids in [0, {vocab_size}) and leave some to predict, got "
            f"{wrong[:5] or f'{len(set(suppressed))} ids'}."
        )
