"""The settings of Mask-Predict decoding, in one table, and its schedules.

To add a setting, add a line to `SETTINGS`: the class `MaskPredictGenerationConfig`, its docstring
and checks, the command line and the exports read it there. This file imports neither torch nor
transformers, so that a command's help is quick.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

SCHEDULES = ("linear", "cosine")


def num_masked_again(schedule: str, length: int, t: int, num_iterations: int) -> int:
    """Positions masked before pass t + 1, for t in 1 .. num_iterations - 1; at least one.

    `"linear"` is Mask-Predict's (Ghazvininejad et al. 2019, section 3.1), floor(length *
    (1 - t/T)), in whole numbers, since a rounded quotient can be just below a whole one. `"cosine"`
    is floor(length * cos(pi t / 2T)) (Chang et al., "MaskGIT", CVPR 2022, section 3.2): more at
    first, fewer at the end.

    Args:
        schedule: `"linear"` or `"cosine"`.
        length: positions of the canvas that are to be predicted.
        t: passes done.
        num_iterations: T.

    Example:
        >>> from axe_hf.cmlm.configuration_mask_predict import num_masked_again
        >>> [num_masked_again("linear", 10, t, 4) for t in (1, 2, 3)]
        [7, 5, 2]
        >>> [num_masked_again("cosine", 10, t, 4) for t in (1, 2, 3)]
        [9, 7, 3]
    """
    if schedule == "linear":
        return max(1, length * (num_iterations - t) // num_iterations)
    return max(1, math.floor(length * math.cos(math.pi * t / (2 * num_iterations))))


@dataclass(frozen=True)
class Setting:
    """One setting of the decoding.

    Args:
        name: as `generate` takes it.
        default: None also means that None is a value of it.
        kind: its type, but for None.
        help: what it does, one sentence or two.
        rules: what a value must be, names in `_RANGES`; the first that is broken is reported.
        advice: what to do instead, at the end of the complaint.
        is_own: False for a setting that Transformers' `GenerationConfig` has too.
        is_option: whether the command line offers it.
        is_reset_by_none: None in a call of `generate` sets it to None; otherwise None leaves what
            is saved, as Trainers pass None for "not given".
        in_graph: an exported graph has it "fixed", is "indifferent" to it, or cannot hold it.
    """

    name: str
    default: Any
    kind: type
    help: str
    rules: tuple[str, ...] = ()
    advice: str = ""
    is_own: bool = True
    is_option: bool = True
    is_reset_by_none: bool = False
    in_graph: Literal["fixed", "indifferent", "impossible"] = "impossible"

    def check(self, value: Any) -> None:
        """Raise ValueError for a value out of range."""
        if value is None and self.default is None:
            return
        for expected in self.rules:
            kind, is_kept = _RANGES[expected]
            if not (_is_of_kind(value, kind) and is_kept(value)):
                complaint = f"`{self.name}` must be {expected}, got {value!r}. {self.advice}"
                raise ValueError(complaint.rstrip())


def _is_of_kind(value: Any, kind: Any) -> bool:
    """No bool is a number here, nor are NaN and infinity, but where the kind is `_OR_INFINITE`."""
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return False
    if kind is _OR_INFINITE and value == math.inf:
        return True
    return kind is str or -math.inf < value < math.inf  # an int may be too long for isfinite


_OR_INFINITE = (Real,)


_SCHEDULE = f"one of {', '.join(SCHEDULES)}"
# What a value may have to be, in words that follow "must be": its type, and what more of it.
_RANGES: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "a finite number": (Real, lambda value: True),
    "positive": (Real, lambda value: value > 0),
    "> 0": (Real, lambda value: value > 0),
    ">= 0": (Real, lambda value: value >= 0),
    ">= 0 or infinite": (_OR_INFINITE, lambda value: value >= 0),
    "in [0, 1)": (Real, lambda value: 0 <= value < 1),
    "in [0, 1]": (Real, lambda value: 0 <= value <= 1),
    "between 0 and 1 or None": (Real, lambda value: 0 < value < 1),
    "a probability in (0, 1] or None": (Real, lambda value: 0 < value <= 1),
    "an integer": (int, lambda value: True),
    "an integer >= 1": (int, lambda value: value >= 1),
    "a whole number": (Integral, lambda value: True),
    "at least 0": (Integral, lambda value: value >= 0),
    "at least 1": (Integral, lambda value: value >= 1),
    "at least 2, a word and </s>": (Integral, lambda value: value >= 2),
    "-1 or at least 1": (Integral, lambda value: value == -1 or value >= 1),
    "in [0, 2**32)": (Integral, lambda value: 0 <= value < 2**32),
    # More passes than a canvas has positions change next to nothing; a typo's would never end.
    "at most 1000": (Integral, lambda value: value <= 1000),
    "at most 10000000": (Integral, lambda value: value <= 10**7),
    "True or False": (bool, lambda value: True),
    "True, False or None": (bool, lambda value: True),
    _SCHEDULE: (str, lambda value: value in SCHEDULES),
}


def require(ranges: Mapping[str, str], values: Mapping[str, Any], optional: bool = True) -> None:
    """Raise ValueError for a value out of range; `ranges` has the names, spaces between, of each.

    None is a value that was not given, as long as they are `optional`.
    """
    for expected, names in ranges.items():
        kind, is_kept = _RANGES[expected]
        for name in (n for n in names.split() if not optional or values.get(n) is not None):
            is_of_kind = _is_of_kind(value := values[name], kind)
            if not (is_of_kind and is_kept(value)):
                words = {Real: " (finite)", _OR_INFINITE: ""}
                also = "" if is_of_kind else words.get(kind, " (whole)")
                raise ValueError(f"`{name}` must be {expected}{also}, got {value!r}.")


# A table is read by its rows.
# fmt: off
_SETTINGS = (
    Setting("num_iterations", 1, int,
            "T >= 1, passes of the decoder: one full prediction and T - 1 refinements.",
            ("an integer >= 1", "at most 1000"),
            "One pass over the canvas is `num_iterations=1`.", in_graph="fixed"),
    Setting("num_length_candidates", 1, int,
            "k >= 1, canvases of different length decoded per sentence; the best-scored is kept.",
            ("an integer >= 1",)),
    Setting("length_multiplier", None, float,
            "factor > 0 on the predicted length (lambda of the AXE paper); by default that of the "
            "model's configuration, with which it was trained.",
            ("a finite number", "> 0"), in_graph="fixed"),
    Setting("length_score_weight", 0.1, float,
            "weight of the length's log-probability, added to the mean log-probability of the "
            "tokens, when candidates are ranked. 0 is Mask-Predict's ranking, which prefers short "
            "canvases; 0.1 is ours, chosen on the validation data of the README's table.",
            ("a finite number",), in_graph="indifferent"),
    Setting("schedule", "linear", str,
            'how many positions are masked again: "linear" (Mask-Predict\'s) or "cosine" '
            "(MaskGIT's).",
            (_SCHEDULE,), in_graph="fixed"),
    Setting("confidence_threshold", None, float,
            "mask only tokens less probable than this, in (0, 1], again, and at most what the "
            "schedule says; a sentence without such tokens is done. None masks what the schedule "
            "says.",
            ("a probability in (0, 1] or None",), is_reset_by_none=True),
    Setting("early_stop", False, bool,
            "a sentence of which an iteration changes no token is done and leaves the batch.",
            ("True or False",)),
    Setting("collapse_repeats", None, bool,
            "keep one token of each run of equal tokens on the canvas; a blank between two keeps "
            "both. By default the `allow_repetition` of the model's configuration, with which it "
            "was trained.",
            ("True, False or None",), in_graph="fixed"),
    # No option, as it changes what `generate` returns; `translate --show-steps` shows it.
    Setting("output_history", False, bool, "keep canvas and predictions of every iteration.",
            ("True or False",), is_option=False, in_graph="indifferent"),
    Setting("compile", False, bool,
            "run the decoder through `torch.compile`, on lengths rounded up to static shapes "
            "(`compile_config` says how; on a GPU with CUDA graphs by default). Worth it for many "
            "batches: each new shape is compiled once.",
            ("True or False",), in_graph="indifferent"),
    Setting("use_onednn", None, bool,
            "compute linear layers in float32 on a CPU by oneDNN in place of the BLAS that PyTorch "
            "was built with; up to rounding the result is the same. None does so on AMD "
            "processors, where decoding took 0.55 to 0.8 of the time.",
            ("True, False or None",), is_reset_by_none=True, in_graph="indifferent"),
    Setting("min_length", None, int,
            "shortest canvas in positions, `</s>` included; 1 by default.",
            ("an integer", ">= 0"), is_own=False, in_graph="fixed"),
    Setting("max_length", None, int,
            "longest canvas in positions, `</s>` included; the model's limit by default.",
            ("an integer", ">= 0"), is_own=False, in_graph="fixed"),
    Setting("do_sample", None, bool,
            "draw tokens from the softmax of the logits over `temperature` instead of taking the "
            "most probable; scores and re-masking go by the untempered probability.",
            ("True, False or None",), is_own=False),
    Setting("temperature", None, float,
            "what the logits are divided by where tokens are drawn, > 0; 1.0 by default.",
            ("> 0",), "The most probable tokens are what do_sample=False takes.",
            is_own=False, is_reset_by_none=True, in_graph="indifferent"),
    Setting("suppress_tokens", None, list,
            "ids that are never predicted, besides `<pad>` and `<mask>`.",
            is_own=False, is_option=False, is_reset_by_none=True, in_graph="fixed"),
    Setting("num_return_sequences", None, int,
            "the best so many candidates of each sentence, best first, not over "
            "`num_length_candidates`; 1 by default.",
            ("an integer >= 1",), is_own=False, is_option=False, is_reset_by_none=True),
    Setting("output_scores", None, bool,
            "accepted as elsewhere; a `MaskPredictOutput` always holds `token_scores`.",
            ("True, False or None",), is_own=False, is_option=False, in_graph="indifferent"),
    Setting("return_dict_in_generate", None, bool,
            "return a `MaskPredictOutput` in place of the token ids.",
            ("True, False or None",), is_own=False, is_option=False, in_graph="indifferent"),
    Setting("compile_config", None, object,  # Transformers' CompileConfig
            "how `compile` compiles, a `CompileConfig`; Transformers never saves it.",
            is_own=False, is_option=False, is_reset_by_none=True, in_graph="indifferent"),
)
# fmt: on
SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _SETTINGS}

_BY_CANVAS = "`decoder_input_ids`, a canvas that shows what must stand"
# Meaningless without an order from left to right: the value that changes nothing, what to use.
AUTOREGRESSIVE = {
    "num_beams": (1, "`num_length_candidates`"),
    "early_stopping": (False, "`early_stop`"),
    "max_new_tokens": (None, "`max_length`, which bounds the canvas"),
    "min_new_tokens": (None, "`min_length`, which bounds the canvas"),
    "past_key_values": (None, "`encoder_outputs`, which is all that can be kept between calls"),
    "length_penalty": (1.0, "`length_multiplier` or `length_score_weight`"),
    "no_repeat_ngram_size": (0, "`collapse_repeats`, or more iterations, which mend most of it"),
    "bad_words_ids": (None, "`suppress_tokens`"),
    "prefix_allowed_tokens_fn": (None, _BY_CANVAS),
    "force_words_ids": (None, _BY_CANVAS),
    "assistant_model": (None, "`axe_hf.translate(..., rescore_with=...)`, by another model"),
}


def check_autoregressive(name: str, value: Any) -> None:
    """Refuse a setting of left-to-right generation, unless its value changes nothing."""
    neutral, instead = AUTOREGRESSIVE[name]
    is_neutral = value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
    if value is not None and not is_neutral:
        raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")
