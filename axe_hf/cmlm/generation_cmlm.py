"""Mask-Predict decoding (Ghazvininejad et al., EMNLP 2019, section 3): its result and `generate`."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import ModelOutput

from .configuration_mask_predict import (
    AUTOREGRESSIVE,
    BASE_FIELDS,
    OWN_FIELDS,
    MaskPredictGenerationConfig,
)
from .mask_predict import length_candidates, mask_predict

# Seq2SeqTrainer and pipelines hand these to every `generate`.
_PASSED_BY_CALLERS = {"labels", "synced_gpus", "use_cache", "decoder_attention_mask"}


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

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
    >>> model = CmlmForConditionalGeneration(
    ...     CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
    ...                decoder_ffn_dim=32, max_target_length=20)
    ... ).eval()
    >>> output = model.generate(
    ...     torch.tensor([[7, 8, 9, 1]]), num_iterations=3, output_history=True, return_dict_in_generate=True
    ... )
    >>> output.num_iterations.tolist(), len(output.history["canvas"])
    ([3], 3)

    ```
    """

    sequences: torch.LongTensor | None = None
    sequences_scores: torch.FloatTensor | None = None
    token_scores: torch.FloatTensor | None = None
    lengths: torch.LongTensor | None = None
    num_iterations: torch.LongTensor | None = None
    history: dict[str, torch.Tensor] | None = None


class MaskPredictGenerationMixin:
    """Gives a CMLM `generate`. The name must hold "GenerationMixin": Transformers asks for it by name.

    Example:

    ```python
    >>> from axe_hf import CmlmForConditionalGeneration, MaskPredictGenerationMixin
    >>> issubclass(CmlmForConditionalGeneration, MaskPredictGenerationMixin)
    True

    ```
    """

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
            if name in OWN_FIELDS or name in BASE_FIELDS:
                settings[name] = settings.get(name) if value is None else value
            elif name in AUTOREGRESSIVE:
                neutral, instead = AUTOREGRESSIVE[name]
                if value is not None and not (value == neutral and type(value) is type(neutral)):
                    raise ValueError(f"`{name}` has no meaning for Mask-Predict; use {instead}.")
            elif name not in _PASSED_BY_CALLERS and value is not None:
                raise TypeError(
                    f"generate() has no argument `{name}`. Mask-Predict takes "
                    f"{', '.join((*OWN_FIELDS, *BASE_FIELDS))}."
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
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError(
                    "generate() needs `input_ids` (batch, source) or `encoder_outputs`."
                )
            if input_ids.dim() != 2 or input_ids.numel() == 0:
                raise ValueError(
                    f"`input_ids` must be (batch, source) with at least one token, got {tuple(input_ids.shape)}."
                )
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
