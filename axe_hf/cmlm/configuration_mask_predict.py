"""Settings of Mask-Predict decoding."""

import math
from difflib import get_close_matches
from functools import cache
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from .schedule_mask_predict import SCHEDULES

logger = logging.get_logger(__name__)

OWN_FIELDS = {
    "num_iterations": 1,
    "num_length_candidates": 1,
    "length_multiplier": 1.0,
    "length_score_weight": 0.1,
    "schedule": "linear",
    "confidence_threshold": None,
    "early_stop": False,
    "collapse_repeats": False,
    "output_history": False,
    "compile": False,
    "use_onednn": None,
}
BASE_FIELDS = (
    "min_length",
    "max_length",
    "suppress_tokens",
    "do_sample",
    "temperature",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "compile_config",
)
# Meaningless without a left-to-right order: the value that changes nothing, and what to use instead.
AUTOREGRESSIVE = {
    "num_beams": (1, "`num_length_candidates`"),
    "early_stopping": (False, "`early_stop`"),
    "max_new_tokens": (None, "`max_length`, which bounds the canvas"),
    "min_new_tokens": (None, "`min_length`, which bounds the canvas"),
    "past_key_values": (None, "`encoder_outputs`, which is all that can be kept between calls"),
    "length_penalty": (1.0, "`length_multiplier` or `length_score_weight`"),
    "no_repeat_ngram_size": (
        0,
        "`collapse_repeats`, or more iterations, which mend most repetitions",
    ),
    "bad_words_ids": (None, "`suppress_tokens`"),
    "prefix_allowed_tokens_fn": (None, "`decoder_input_ids`, a canvas that shows what must stand"),
    "force_words_ids": (None, "`decoder_input_ids`, a canvas that shows what must stand"),
    "assistant_model": (None, "`rescore_with`, which ranks candidates by another model"),
}

# What else may be set: ids, what other classes write into every configuration, what changes nothing here.
_INDIFFERENT = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"}
_INDIFFERENT |= {"use_cache", "transformers_version", "output_attentions", "output_hidden_states"}
_INDIFFERENT |= {"output_logits", "disable_compile"}


@cache
def _base_fields() -> frozenset[str]:
    """The settings that Transformers knows."""
    return frozenset(vars(GenerationConfig()))


def check_autoregressive(name: str, value: Any) -> None:
    """Refuse a setting that only left-to-right generation has, unless its value changes nothing."""
    neutral, instead = AUTOREGRESSIVE[name]
    is_neutral = value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
    if value is not None and not is_neutral:
        raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")


class MaskPredictGenerationConfig(GenerationConfig):
    """Settings of Mask-Predict; saved as `generation_config.json` (but for `compile_config`, as Transformers has it), every
    one can be overridden in `generate`.

    Args:
        num_iterations: T >= 1, passes of the decoder: one full prediction and T - 1 refinements.
        num_length_candidates: k >= 1, canvases of different length decoded per sentence; the best-scored is kept.
        length_multiplier: factor > 0 on the predicted length (lambda of the AXE paper).
        length_score_weight: weight of the length's log-probability, added to the mean log-probability of the tokens, when
            candidates are ranked. 0 is Mask-Predict's ranking, which prefers short canvases; 0.1 is ours, chosen on the
            validation data of the README's table.
        schedule: how many positions are masked again: "linear" (Mask-Predict's) or "cosine" (MaskGIT's).
        confidence_threshold: mask only tokens less probable than this, in (0, 1], again, and at most what the schedule
            says; a sentence without such tokens is done. None masks what the schedule says.
        early_stop: a sentence of which an iteration changes no token is done and leaves the batch.
        collapse_repeats: keep one token of each run of equal tokens on the canvas; a blank between two keeps both.
        do_sample, temperature: draw tokens from the softmax of the logits over `temperature` (1.0) instead of taking the
            most probable; scores and re-masking go by the untempered probability.
        suppress_tokens: ids that are never predicted, besides `<pad>` and `<mask>`.
        num_return_sequences: the best so many candidates of each sentence, best first, not over `num_length_candidates`.
        min_length, max_length: bounds of the canvas in positions, `</s>` included; the model's limit by default.
        output_history: keep canvas and predictions of every iteration.
        output_scores: accepted as elsewhere; a `MaskPredictOutput` always holds `token_scores`.
        return_dict_in_generate: return a `MaskPredictOutput` in place of the token ids.
        compile: run the decoder through `torch.compile`, on lengths rounded up to static shapes (`compile_config` says how;
            on a GPU with CUDA graphs by default). Worth it for many batches: each new shape is compiled once.
        use_onednn: compute linear layers in float32 on a CPU by oneDNN in place of the BLAS that PyTorch was built with; up
            to rounding the result is the same. None does so on AMD processors, where decoding took 0.55 to 0.8 of the time.
        pad_token_id, eos_token_id, ... : as in `GenerationConfig`.

    Raises:
        ValueError: a value out of its range.

    Example:

    ```python
    >>> from axe_hf import MaskPredictGenerationConfig
    >>> MaskPredictGenerationConfig(num_iterations=4).num_length_candidates
    1
    >>> MaskPredictGenerationConfig(num_iterations=0)
    Traceback (most recent call last):
    ...
    ValueError: `num_iterations` must be an integer >= 1, got 0. One pass over the canvas is `num_iterations=1`.

    ```
    """

    def __init__(self, **kwargs: Any):
        for name, default in OWN_FIELDS.items():
            setattr(self, name, kwargs.pop(name, default))
        # `_from_model_config` makes the base class drop fields it does not know on the next load.
        kwargs.pop("_from_model_config", None)
        super().__init__(**kwargs)
        self._from_model_config = False

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        """None: Seq2SeqTrainer writes these into the model's own settings, and the base class's are autoregressive."""
        return {}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """Read saved settings; those that this version does not know are left out with a warning."""
        known = {*OWN_FIELDS, *_base_fields(), *_INDIFFERENT, "return_unused_kwargs"}

        def unknown_in(settings: dict[str, Any]) -> dict[str, Any]:
            return {n: settings[n] for n in settings if n not in known and not n.startswith("_")}

        unknown, unused = unknown_in(config_dict), unknown_in(kwargs)
        if unknown:
            logger.warning(
                f"The saved generation settings hold {', '.join(unknown)}, which this version of the code does not "
                "know and leaves out."
            )
        config_dict = {name: config_dict[name] for name in config_dict if name not in unknown}
        kwargs = {name: kwargs[name] for name in kwargs if name not in unused}
        result = super().from_dict(config_dict, **kwargs)
        return (result[0], result[1] | unused) if isinstance(result, tuple) else result

    @classmethod
    def from_model_config(cls, model_config) -> "MaskPredictGenerationConfig":
        """Fresh settings with the special tokens and the length limit of a `CmlmConfig`."""
        values = model_config if isinstance(model_config, dict) else model_config.to_dict()
        names = {
            "pad_token_id": "pad_token_id",
            "eos_token_id": "eos_token_id",
            "max_target_length": "max_length",
        }
        return cls(
            **{field: values[name] for name, field in names.items() if values.get(name) is not None}
        )

    def validate(self, *args, **kwargs):
        """Check every field; called by Transformers at each construction and update."""
        # Several results need neither beams nor sampling here, which the base class asks for.
        num_returned, self.num_return_sequences = self.num_return_sequences, None
        try:
            super().validate(*args, **kwargs)
        finally:
            self.num_return_sequences = num_returned
        self._validate_counts()
        for name in ("length_multiplier", "length_score_weight"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"`{name}` must be a finite number, got {getattr(self, name)!r}.")
        if self.length_multiplier <= 0:
            raise ValueError(f"`length_multiplier` must be > 0, got {self.length_multiplier!r}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"`schedule` must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}."
            )
        threshold = self.confidence_threshold
        if threshold is not None and not (_is_number(threshold) and 0 < threshold <= 1):
            raise ValueError(
                f"`confidence_threshold` must be a probability in (0, 1] or None, got {threshold!r}."
            )
        choices = {
            n: (True, False) for n, default in OWN_FIELDS.items() if isinstance(default, bool)
        }
        choices["use_onednn"] = (True, False, None)
        for name, allowed in choices.items():
            if not any(getattr(self, name) is choice for choice in allowed):
                *others, last = map(str, allowed)
                raise ValueError(
                    f"`{name}` must be {', '.join(others)} or {last}, got {getattr(self, name)!r}."
                )
        if self.temperature is not None and not (
            _is_number(self.temperature) and self.temperature > 0
        ):
            raise ValueError(
                f"`temperature` must be > 0, got {self.temperature!r}. The most probable tokens are what "
                "do_sample=False takes."
            )
        self._validate_names()

    def _validate_names(self) -> None:
        """Nothing is set that would be ignored."""
        known = _base_fields()
        defaults = GenerationConfig._get_default_generation_params()
        for name, value in vars(self).items():
            is_own = name in OWN_FIELDS or name in BASE_FIELDS or name in _INDIFFERENT
            if is_own or name.startswith("_") or value is None or value == defaults.get(name):
                continue
            if name in AUTOREGRESSIVE:
                check_autoregressive(name, value)
            elif name in known and value is not False:
                raise ValueError(
                    f"`{name}` has no meaning for Mask-Predict, got {value!r}. Leave it out."
                )
            elif name not in known:
                near = ", ".join(f"`{n}`" for n in get_close_matches(name, [*OWN_FIELDS, *known]))
                raise ValueError(
                    f"There is no setting `{name}`." + (f" Is it {near}?" if near else "")
                )

    def _validate_counts(self) -> None:
        for name, advice in {
            "num_iterations": " One pass over the canvas is `num_iterations=1`.",
            "num_length_candidates": "",
            "num_return_sequences": "",
        }.items():
            value = getattr(self, name)
            if value is None and name == "num_return_sequences":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be an integer >= 1, got {value!r}.{advice}")
        for name in ("min_length", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must be >= 0, got {value}.")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


__all__ = ["MaskPredictGenerationConfig"]
