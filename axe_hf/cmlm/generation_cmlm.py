"""Mask-Predict decoding (Ghazvininejad et al., EMNLP 2019, section 3): its settings, its result, and `generate`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import ModelOutput

from .mask_predict import length_candidates, mask_predict

_OWN_FIELDS = {
    "num_iterations": 1,
    "num_length_candidates": 1,
    "length_multiplier": 1.0,
    "length_score_weight": 0.0,
    "collapse_repeats": False,
    "output_history": False,
}
_BASE_FIELDS = ("min_length", "max_length", "return_dict_in_generate")
# Seq2SeqTrainer and pipelines hand these to every `generate`.
_PASSED_BY_CALLERS = {"labels", "synced_gpus", "use_cache", "decoder_attention_mask"}
# Meaningless without a left-to-right order: the value that changes nothing, and what to use instead.
_AUTOREGRESSIVE = {
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
        collapse_repeats: keep one token of each run of equal tokens in the output.
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
        for name, default in _OWN_FIELDS.items():
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
        for name, (neutral, instead) in _AUTOREGRESSIVE.items():
            if getattr(self, name, None) not in (None, neutral):
                raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")
        for name in ("min_length", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must be >= 0, got {value}.")


@dataclass
class MaskPredictOutput(ModelOutput):
    """Result of `generate(..., return_dict_in_generate=True)`.

    Args:
        sequences: (batch, longest output) long; blanks and `</s>` removed, padded with `pad_token_id`.
        sequences_scores: (batch,) fp32, nats per canvas position: mean log-probability of the stored tokens
            (+ `length_score_weight` * log-probability of the length).
        token_scores: (batch, longest output) fp32, log-probability of each token kept, 0 at padding.
        lengths: (batch,) long, positions of the chosen canvas, `</s>` included.
        num_iterations: (batch,) long, decoder passes used.
        history: of every iteration, the canvas the decoder saw and the tokens and log-probabilities stored after it, each
            (iterations, batch, canvas), for the chosen candidate; None unless asked for.
    """

    sequences: torch.LongTensor | None = None
    sequences_scores: torch.FloatTensor | None = None
    token_scores: torch.FloatTensor | None = None
    lengths: torch.LongTensor | None = None
    num_iterations: torch.LongTensor | None = None
    history: dict[str, torch.Tensor] | None = None


class MaskPredictGenerationMixin:
    """Gives a CMLM `generate`. The name must hold "GenerationMixin": Transformers asks for it by name."""

    def adjust_generation_fn(
        self,
        generation_config,
        from_auto_class,
        from_pipeline,
        pretrained_model_name_or_path,
        *args,
        **kwargs,
    ):
        """Load `generation_config.json` as our class; Transformers calls this at the end of `from_pretrained`."""
        # What Transformers passes by position behind the path.
        names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")
        names += ("subfolder", "trust_remote_code")
        loading = dict(zip(names, args, strict=False)) | kwargs
        loading.pop("trust_remote_code", None)
        config_class = self.generation_config_class
        if generation_config is not None:
            self.generation_config = config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            try:
                self.generation_config = config_class.from_pretrained(
                    pretrained_model_name_or_path, **loading
                )
            except OSError:  # no such file: what `__init__` made from the model's config stands
                pass

    def _prepare_mask_predict_config(
        self, generation_config: GenerationConfig | None, overrides: dict[str, Any]
    ) -> MaskPredictGenerationConfig:
        settings = (generation_config or self.generation_config).to_dict()
        for name, value in overrides.items():
            if name in _OWN_FIELDS or name in _BASE_FIELDS:
                settings[name] = settings.get(name) if value is None else value
            elif name in _AUTOREGRESSIVE:
                neutral, instead = _AUTOREGRESSIVE[name]
                if value is not None and not (value == neutral and type(value) is type(neutral)):
                    raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")
            elif name not in _PASSED_BY_CALLERS and value is not None:
                raise TypeError(
                    f"generate() has no argument `{name}`. Mask-Predict takes "
                    f"{', '.join((*_OWN_FIELDS, *_BASE_FIELDS))}."
                )
        config = MaskPredictGenerationConfig(**settings)
        limit = self.config.max_target_length
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
        return config

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        encoder_outputs: ModelOutput | None = None,
        **overrides: Any,
    ) -> torch.LongTensor | MaskPredictOutput:
        """Translate a batch by Mask-Predict.

        Args:
            input_ids: (batch, source) long.
            attention_mask: (batch, source), 1 for tokens; by default where `input_ids` is not `<pad>`.
            generation_config: settings; the model's own by default.
            encoder_outputs: what `model.get_encoder()` returned, in place of `input_ids`.
            **overrides: single settings of `MaskPredictGenerationConfig`, for this call.

        Returns:
            `sequences`, (batch, longest output) long, or a `MaskPredictOutput` with `return_dict_in_generate=True`.

        Raises:
            ValueError, TypeError: an argument out of range, unknown, or made for autoregressive decoding.
        """
        config = self._prepare_mask_predict_config(generation_config, overrides)
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError(
                    "generate() needs `input_ids` (batch, source) or `encoder_outputs`."
                )
            if attention_mask is None:
                attention_mask = input_ids.ne(self.config.pad_token_id)
            encoder_outputs = self.model.encoder(input_ids=input_ids, attention_mask=attention_mask)
        lengths, length_log_probs = length_candidates(
            encoder_outputs.length_logits,
            num_candidates=config.num_length_candidates,
            length_multiplier=config.length_multiplier,
            min_length=config.min_length,
            max_length=config.max_length,
        )
        state = mask_predict(
            self,
            encoder_outputs.last_hidden_state,
            attention_mask,
            lengths,
            num_iterations=config.num_iterations,
            keep_history=config.output_history,
        )
        output = self._best_candidates(state, lengths, length_log_probs, config)
        return output if config.return_dict_in_generate else output.sequences

    def _best_candidates(self, state, lengths, length_log_probs, config) -> MaskPredictOutput:
        num_sentences, num_candidates = lengths.shape
        rows = torch.arange(num_sentences, device=lengths.device)
        scores = state.log_probs.view(num_sentences, num_candidates, -1).sum(dim=2) / lengths
        scores = scores + config.length_score_weight * length_log_probs  # (batch, candidates)
        best = scores.argmax(dim=1)
        chosen = rows * num_candidates + best  # rows of the (batch * candidates) canvases
        tokens, log_probs = state.tokens[chosen], state.log_probs[chosen]
        special = [self.config.pad_token_id, self.config.eos_token_id, self.config.blank_token_id]
        is_kept = ~torch.isin(tokens, torch.tensor(special, device=tokens.device))
        if config.collapse_repeats:
            is_kept[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
        order = (~is_kept).long().argsort(dim=1, stable=True)  # kept tokens first, in their order
        width = max(int(is_kept.sum(dim=1).max()), 1)
        is_kept = is_kept.gather(1, order)[:, :width]
        history = None
        if state.history is not None:
            history = {
                name: torch.stack([step[name][chosen] for step in state.history])
                for name in state.history[0]
            }
        return MaskPredictOutput(
            sequences=tokens.gather(1, order)[:, :width].masked_fill(
                ~is_kept, self.config.pad_token_id
            ),
            sequences_scores=scores[rows, best],
            token_scores=log_probs.gather(1, order)[:, :width].masked_fill(~is_kept, 0.0),
            lengths=lengths[rows, best],
            num_iterations=torch.full_like(best, config.num_iterations),
            history=history,
        )


__all__ = ["MaskPredictGenerationConfig", "MaskPredictGenerationMixin", "MaskPredictOutput"]
