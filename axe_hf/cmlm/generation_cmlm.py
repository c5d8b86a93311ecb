"""Mask-Predict decoding (Ghazvininejad et al., EMNLP 2019, section 3): `generate`."""

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.configuration_utils import CompileConfig
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import ModelOutput

from .canvas_cmlm import (
    Canvases,
    check_canvas,
    check_target_lengths,
    length_candidates,
    masked_canvas,
)
from .configuration_cmlm import MaskPredictGenerationConfig
from .decoder_pass import DecoderPass, static_length
from .input_checks_generation import check_rescoring, check_source
from .linear_cpu import linear_on_cpu
from .mask_predict import Refinement, mask_predict
from .outputs_mask_predict import MaskPredictOutput, kept_tokens
from .rescoring_cmlm import autoregressive_scores
from .settings_mask_predict import settings_of_call
from .streaming_mask_predict import DraftStream
from .token_prediction import TokenChoice, TokenPredictor


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

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        encoder_outputs: ModelOutput | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        target_lengths: torch.LongTensor | None = None,
        generator: torch.Generator | None = None,
        streamer: BaseStreamer | None = None,
        rescore_with: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **overrides: Any,
    ) -> torch.LongTensor | MaskPredictOutput:
        """Translate a batch by Mask-Predict.

        Args:
            input_ids: (batch, source) long.
            attention_mask: (batch, source), 1 for tokens; by default where `input_ids` is not `<pad>`.
            generation_config: settings; the model's own by default.
            encoder_outputs: what `model.get_encoder()` returned, in place of `input_ids`.
            decoder_input_ids: (batch, canvas) long, a partly filled canvas: `<mask>` is predicted, other tokens stay as
                they are, `<pad>` stands behind the end. Shares and means count the masked positions. Ignored beside
                `labels`, where a Trainer hands over a whole training batch.
            target_lengths: (batch,) or (batch, candidates) long, positions of the canvases, `</s>` included, in place of
                the length head's and of `num_length_candidates`.
            generator: randomness of `do_sample`.
            streamer: shows the decoding of a single sentence; `put_draft` gets each pass's canvas, if there is one.
            rescore_with: an autoregressive encoder-decoder and its tokenizer, which rank the candidates
                (Gu et al., ICLR 2018, "noisy parallel decoding"); needs `tokenizer` and `input_ids`.
            tokenizer: this model's tokenizer; read for `rescore_with` only.
            **overrides: single settings of `MaskPredictGenerationConfig`, for this call.

        Returns:
            `sequences`, (batch * num_return_sequences, longest output) long, or a `MaskPredictOutput` with
            `return_dict_in_generate=True`.

        Raises:
            ValueError, TypeError: an argument out of range, unknown, or made for autoregressive decoding.
        """
        config = settings_of_call(
            self.config, generation_config or self.generation_config, overrides
        )
        if rescore_with is not None:
            check_rescoring(rescore_with, tokenizer, input_ids)
        if generator is not None and not config.do_sample:
            raise ValueError(
                "`generator` changes nothing unless tokens are drawn: add do_sample=True."
            )
        if overrides.get("labels") is not None:
            decoder_input_ids = None
        is_synced = bool(overrides.get("synced_gpus"))
        use_onednn = False if config.compile else config.use_onednn
        with linear_on_cpu(use_onednn, self.device, self.dtype):
            source = self._encoded(input_ids, attention_mask, encoder_outputs)
            canvases = self._canvases(source[0], config, decoder_input_ids, target_lengths)
            canvases.check_number(config.num_return_sequences or 1)
            stream = None
            if streamer is not None:
                stream = DraftStream(
                    streamer,
                    self.config,
                    canvases,
                    length_score_weight=config.length_score_weight,
                    collapse_repeats=config.collapse_repeats,
                )
            state = mask_predict(
                self._decoder_pass(source, canvases, config),
                canvases.tokens,
                _refinement(config, is_synced),
                self._token_predictor(config, generator, is_synced),
                None if stream is None else stream.on_pass,
            )
        means = canvases.mean_log_probs(state.log_probs, self.config.mask_token_id)
        if rescore_with is None:
            ranking = means + config.length_score_weight * canvases.length_log_probs
        else:
            ranking = self._rescored(state, canvases, config, input_ids, rescore_with, tokenizer)
        output = self._best(state, canvases.lengths, means, ranking, config)
        if stream is not None:
            stream.end(output.sequences[:1])
        return output if config.return_dict_in_generate else output.sequences

    def _encoded(
        self, input_ids, attention_mask, encoder_outputs
    ) -> tuple[ModelOutput, torch.Tensor | None]:
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        check_source(input_ids, attention_mask, encoder_outputs)
        if encoder_outputs is not None:
            return encoder_outputs, attention_mask
        encoder_outputs = self.model.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return encoder_outputs, attention_mask

    def _canvases(self, encoder_outputs, config, decoder_input_ids, target_lengths) -> Canvases:
        """The canvases to fill in: given, of given lengths, or of the most probable ones."""
        num_sentences = len(encoder_outputs.last_hidden_state)
        device = encoder_outputs.last_hidden_state.device
        if decoder_input_ids is not None:
            if target_lengths is not None or config.num_length_candidates > 1:
                raise ValueError(
                    "`decoder_input_ids` is the one canvas of each sentence: leave `target_lengths` out and set "
                    "`num_length_candidates` to 1."
                )
            tokens = check_canvas(decoder_input_ids, num_sentences, self.config).to(device)
            lengths = (tokens != self.config.pad_token_id).sum(dim=1, keepdim=True)
            return Canvases(tokens, lengths, torch.zeros_like(lengths, dtype=torch.float32))
        if target_lengths is not None:
            lengths = check_target_lengths(target_lengths, num_sentences, config.max_length)
            lengths = lengths.to(device)
            log_probs = torch.zeros_like(lengths, dtype=torch.float32)
        else:
            if getattr(encoder_outputs, "length_logits", None) is None:
                raise ValueError(
                    "`encoder_outputs` hold no `length_logits`. Pass what `model.get_encoder()` returns, or give "
                    "`target_lengths`."
                )
            lengths, log_probs = length_candidates(
                encoder_outputs.length_logits,
                num_candidates=config.num_length_candidates,
                length_multiplier=config.length_multiplier,
                min_length=config.min_length,
                max_length=config.max_length,
            )
        width = int(lengths.max())
        if config.compile:
            width = static_length(width, self.config.max_target_length)
        return Canvases(masked_canvas(lengths.flatten(), width, self.config), lengths, log_probs)

    def _decoder_pass(self, source, canvases, config) -> DecoderPass:
        encoder_outputs, attention_mask = source
        is_inside = canvases.tokens != self.config.pad_token_id
        compile_config = (config.compile_config or CompileConfig()) if config.compile else None
        states = encoder_outputs.last_hidden_state
        return DecoderPass(self, states, attention_mask, is_inside, compile_config)

    def _token_predictor(self, config, generator, is_synced) -> TokenPredictor:
        never = {self.config.pad_token_id, self.config.mask_token_id}
        temperature = (config.temperature or 1.0) if config.do_sample else None
        never |= set(config.suppress_tokens or ())
        choice = TokenChoice(tuple(sorted(never)), temperature, generator)
        return TokenPredictor(
            self.lm_head, self.config.vocab_size, choice, is_called_once=is_synced
        )

    def _rescored(
        self, state, canvases, config, input_ids, rescore_with, tokenizer
    ) -> torch.Tensor:
        """Mean log-probability of each candidate by another model, (batch, candidates)."""
        tokens, _ = self._words(state.tokens, state.log_probs, config)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        num_candidates = canvases.lengths.shape[1]
        candidates = [
            texts[row : row + num_candidates] for row in range(0, len(texts), num_candidates)
        ]
        sources = tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        scores = autoregressive_scores(*rescore_with, sources, candidates)
        return scores.to(state.log_probs.device)

    def _best(self, state, lengths, means, ranking, config) -> MaskPredictOutput:
        """The `num_return_sequences` candidates of each sentence that rank highest."""
        num_sentences, num_candidates = ranking.shape
        num_returned = config.num_return_sequences or 1
        best = ranking.argsort(dim=1, descending=True, stable=True)[:, :num_returned]
        first = torch.arange(num_sentences, device=best.device)[:, None] * num_candidates
        rows = (first + best).flatten()  # of the canvases
        sequences, token_scores = self._words(state.tokens[rows], state.log_probs[rows], config)
        history = None
        if state.history is not None:
            history = {
                name: torch.stack([step[name][rows] for step in state.history])
                for name in state.history[0]
            }
        return MaskPredictOutput(
            sequences=sequences,
            sequences_scores=means.flatten()[rows],
            ranking_scores=ranking.flatten()[rows],
            token_scores=token_scores,
            lengths=lengths.flatten()[rows],
            num_iterations=state.num_iterations[rows],
            history=history,
        )

    def _words(self, tokens, log_probs, config) -> tuple[torch.Tensor, torch.Tensor]:
        return kept_tokens(tokens, log_probs, self.config, collapse_repeats=config.collapse_repeats)


def _refinement(config: MaskPredictGenerationConfig, is_synced: bool) -> Refinement:
    return Refinement(
        num_iterations=config.num_iterations,
        schedule=config.schedule,
        confidence_threshold=config.confidence_threshold,
        early_stop=config.early_stop,
        keep_history=config.output_history,
        is_batch_kept=config.compile or is_synced,
        # With sharded weights (FSDP, ZeRO-3) each process waits for the others in every pass.
        is_every_pass_made=is_synced,
    )


__all__ = ["MaskPredictGenerationConfig", "MaskPredictGenerationMixin", "MaskPredictOutput"]
