"""Settings of Mask-Predict decoding."""

import math
from typing import Any

from transformers import GenerationConfig

OWN_FIELDS = {
    "num_iterations": 1,
    "num_length_candidates": 1,
    "length_multiplier": 1.0,
    "length_score_weight": 0.0,
    "collapse_repeats": False,
    "output_history": False,
}
BASE_FIELDS = ("min_length", "max_length", "return_dict_in_generate")
# Meaningless without a left-to-right order: the value that changes nothing, and what to use instead.
AUTOREGRESSIVE = {
    "num_beams": (1, "`num_length_candidates`"),
    "max_new_tokens": (None, "`max_length`, which bounds the canvas"),
    "past_key_values": (None, "`encoder_outputs`, which is all that can be kept between calls"),
    "do_sample": (False, "nothing: decoding is deterministic"),
    "length_penalty": (1.0, "`length_multiplier` or `length_score_weight`"),
}


class MaskPredictGenerationConfig(GenerationConfig):
    """Settings of Mask-Predict; saved as `generation_config.json`, every one can be overridden in `generate`.

    Args:
        num_iterations: T >= 1, passes of the decoder: one full prediction and T - 1 refinements.
        num_length_candidates: k >= 1, canvases of different length decoded per sentence; the best-scored is kept.
        length_multiplier: factor > 0 on the predicted length (lambda of the AXE paper).
        length_score_weight: weight of the length's log-probability in a candidate's score; 0 is Mask-Predict's ranking.
        min_length, max_length: bounds of the canvas in positions, `</s>` included; the model's limit by default.
        collapse_repeats: keep one token of each run of equal tokens on the canvas; a blank between two keeps both.
        output_history: keep canvas and predictions of every iteration.
        return_dict_in_generate: return a `MaskPredictOutput` in place of the token ids.
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
        super().validate(*args, **kwargs)
        hint = {
            "num_iterations": "One pass over the canvas is `num_iterations=1`.",
            "num_length_candidates": "",
        }
        for name, advice in hint.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"`{name}` must be an integer >= 1, got {value!r}. {advice}".rstrip()
                )
        for name in ("length_multiplier", "length_score_weight"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
        if self.length_multiplier <= 0:
            raise ValueError(f"`length_multiplier` must be > 0, got {self.length_multiplier!r}.")
        for name, (neutral, instead) in AUTOREGRESSIVE.items():
            if getattr(self, name, None) not in (None, neutral):
                raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")
        for name in ("min_length", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must be >= 0, got {value}.")


__all__ = ["MaskPredictGenerationConfig"]
