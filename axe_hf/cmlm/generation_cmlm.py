"""`generate` of a CMLM: Mask-Predict (Ghazvininejad et al., EMNLP 2019, section 3)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import CompileConfig
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import ModelOutput
from transformers.utils import GENERATION_CONFIG_NAME, has_file, logging

from .configuration_cmlm import CmlmConfig, MaskPredictGenerationConfig
from .configuration_mask_predict import AUTOREGRESSIVE, SETTINGS, check_autoregressive
from .loss_axe import check_ids
from .mask_predict import (
    Canvases,
    CanvasState,
    DecoderPass,
    TokenChoice,
    TokenPredictor,
    is_first_of_run,
    length_candidates,
    mask_predict,
    masked_canvas,
    static_length,
)

try:
    from axe_hf.kernels.onednn import linear_on_cpu
except ImportError:  # the code of a checkpoint, where axe_hf is not installed
    linear_on_cpu = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)


class MaskPredictGenerationMixin:
    """Gives a CMLM `generate`. Transformers asks for "GenerationMixin" in the name.

    Example:
        >>> from axe_hf import CmlmForConditionalGeneration, MaskPredictGenerationMixin
        >>> issubclass(CmlmForConditionalGeneration, MaskPredictGenerationMixin)
        True
    """

    # What the class that it is mixed into has.
    config: CmlmConfig
    generation_config: Any
    loading_problem: str | None
    generation_config_class: type[MaskPredictGenerationConfig]
    model: Any
    lm_head: torch.nn.Module
    device: torch.device
    dtype: torch.dtype

    def adjust_generation_fn(
        self, generation_config, from_auto_class, from_pipeline, name_or_path, *args, **kwargs
    ):
        """Load `generation_config.json` as our class; `from_pretrained` calls this at its end."""
        # What Transformers passes by position behind the path.
        names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")
        names += ("subfolder", "trust_remote_code")
        loading = dict(zip(names, args, strict=False)) | kwargs
        loading.pop("trust_remote_code", None)
        config_class = self.generation_config_class
        if generation_config is not None:
            self.generation_config = config_class.from_dict(generation_config.to_dict())
        elif name_or_path is not None:
            name = os.path.join(loading.get("subfolder") or "", GENERATION_CONFIG_NAME)
            file = os.path.join(name_or_path, name)
            try:
                self.generation_config = config_class.from_pretrained(name_or_path, **loading)
            except Exception as error:
                place = {key: loading.get(key) for key in ("revision", "cache_dir")}
                is_cached = has_file(name_or_path, name, local_files_only=True, **place)
                if is_cached or os.path.lexists(file):
                    raise ValueError(f"{file}: {error} Mend the file, or remove it.") from error
                # No such file: what `__init__` made from the model's config stands.
        if self.generation_config.length_multiplier is None:
            self.generation_config.length_multiplier = self.config.length_multiplier

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Not here: there are no steps from token to token. PEFT asks only that the name exists."""
        raise NotImplementedError("Mask-Predict fills whole canvases: call model.generate(...).")

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        encoder_outputs: ModelOutput | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        target_lengths: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        streamer: BaseStreamer | None = None,
        **overrides: Any,
    ) -> torch.Tensor | MaskPredictOutput:
        """Translate a batch by Mask-Predict.

        Args:
            input_ids: (batch, source) long.
            attention_mask: (batch, source), 1 for tokens; by default where no `<pad>` stands.
            generation_config: settings; the model's own by default.
            encoder_outputs: what `model.get_encoder()` returned, in place of `input_ids`.
            decoder_input_ids: (batch, canvas) long, a partly filled canvas: `<mask>` is predicted,
                other tokens stay, `<pad>` stands behind the end. Shares and means count the masked
                positions. Ignored beside `labels`: a Trainer hands over a whole training batch.
            target_lengths: (batch,) or (batch, candidates) long, positions of the canvases, `</s>`
                included, in place of the length head's and of `num_length_candidates`.
            generator: randomness of `do_sample`.
            streamer: shows the decoding of a single sentence; its `put_draft` gets each canvas.
            **overrides: single settings of `MaskPredictGenerationConfig`, for this call.

        Returns:
            `sequences`, (batch * num_return_sequences, longest output) long, or a
            `MaskPredictOutput` with `return_dict_in_generate=True`.

        Raises:
            ValueError, TypeError: an argument out of range, unknown, or autoregressive.
        """
        if self.loading_problem is not None:
            problem = f"Weights are not those of a checkpoint: {self.loading_problem}"
            advice = "Load a whole one, train first, or set model.loading_problem = None."
            raise ValueError(f"{problem}. {advice}")
        saved = self.generation_config if generation_config is None else generation_config
        config = settings_of_call(self.config, saved, overrides)
        if generator is not None and not config.do_sample:
            raise ValueError("`generator` has no part unless tokens are drawn: add do_sample=True.")
        if overrides.get("labels") is not None:
            decoder_input_ids = None
        # With sharded weights (FSDP, ZeRO-3) each process waits for the others in every pass.
        is_synced = bool(overrides.get("synced_gpus"))
        if input_ids is not None:
            check_ids("input_ids", input_ids, self.config.vocab_size)
            if attention_mask is None:
                attention_mask = input_ids.ne(self.config.pad_token_id)
        check_source(input_ids, attention_mask, encoder_outputs)
        with _linear_layers(config, bool(overrides.get("use_onednn")), self.device, self.dtype):
            if encoder_outputs is None:
                inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
                encoder_outputs = self.model.encoder(**inputs)
            canvases = self._canvases(encoder_outputs, config, decoder_input_ids, target_lengths)
            stream = on_pass = None
            if streamer is not None:
                stream = DraftStream(streamer, self.config, canvases, config)
                on_pass = stream.on_pass
            states = encoder_outputs.last_hidden_state
            is_inside = canvases.tokens != self.config.pad_token_id
            compiled = (config.compile_config or CompileConfig()) if config.compile else None
            decoder_pass = DecoderPass(self, states, attention_mask, is_inside, compiled)
            predictor = self._token_predictor(config, generator, is_synced)
            state = mask_predict(
                decoder_pass, canvases.tokens, config, predictor, on_pass, is_synced
            )
        output: Any = self._best(state, canvases, config)
        if stream is not None:
            stream.end(output.sequences[:1])
        return output if config.return_dict_in_generate else output.sequences

    def _canvases(self, encoder_outputs, config, decoder_input_ids, target_lengths) -> Canvases:
        """The canvases to fill in: given, of given lengths, or of the most probable ones."""
        states = encoder_outputs.last_hidden_state
        tokens = log_probs = None
        if decoder_input_ids is not None:
            if target_lengths is not None or config.num_length_candidates > 1:
                advice = "leave out `target_lengths` and set `num_length_candidates` to 1."
                raise ValueError(
                    "`decoder_input_ids` is the one canvas of each sentence: " + advice
                )
            tokens = check_canvas(decoder_input_ids, len(states), self.config).to(states.device)
            lengths = (tokens != self.config.pad_token_id).sum(dim=1, keepdim=True)
        elif target_lengths is not None:
            lengths = check_target_lengths(target_lengths, len(states), config.max_length)
            lengths = lengths.to(states.device)
        elif getattr(encoder_outputs, "length_logits", None) is None:
            advice = "Pass what `model.get_encoder()` returns, or give `target_lengths`."
            raise ValueError(f"`encoder_outputs` hold no `length_logits`. {advice}")
        else:
            lengths, log_probs = length_candidates(encoder_outputs.length_logits, config)
        if (wanted := config.num_return_sequences or 1) > (found := lengths.shape[1]):
            problem = f"is {wanted}, but a sentence has {found} length candidate(s)"
            advice = "Raise `num_length_candidates`, or widen `min_length` and `max_length`."
            raise ValueError(f"`num_return_sequences` {problem}. {advice}")
        if tokens is None:
            width = int(lengths.max())
            if config.compile:
                width = static_length(width, self.config.max_target_length)
            tokens = masked_canvas(lengths.flatten(), width, self.config)
        if log_probs is None:
            log_probs = torch.zeros_like(lengths, dtype=torch.float32)
        return Canvases(tokens, lengths, log_probs)

    def _token_predictor(self, config, generator, is_synced) -> TokenPredictor:
        never: set[Any] = {self.config.pad_token_id, self.config.mask_token_id}
        never |= set(config.suppress_tokens or ())
        temperature = (config.temperature or 1.0) if config.do_sample else None
        choice = TokenChoice(tuple(never), temperature, generator)
        return TokenPredictor(self.lm_head, self.config.vocab_size, choice, is_synced)

    def _best(self, state: CanvasState, canvases: Canvases, config) -> MaskPredictOutput:
        """The `num_return_sequences` candidates of each sentence that rank highest."""
        means = canvases.mean_log_probs(state.log_probs, self.config.mask_token_id)
        ranking = means + config.length_score_weight * canvases.length_log_probs
        if ranking.isnan().any():
            problem = f"The model's log-probabilities are not numbers in {self.dtype}"
            advice = "Load it in torch.float32, or take another checkpoint."
            raise ValueError(f"{problem}: its weights hold NaN or infinity, or overflow. {advice}")
        num_returned, is_collapsed = config.num_return_sequences or 1, config.collapse_repeats
        best = ranking.argsort(dim=1, descending=True, stable=True)  # (batch, candidates)
        if num_returned > 1:
            every, _ = kept_tokens(state.tokens, state.log_probs, self.config, is_collapsed)
            best = distinct_first(best, every.view(*best.shape, -1))
        best = best[:, :num_returned]
        first = torch.arange(0, ranking.numel(), ranking.shape[1], device=best.device)
        rows = (first[:, None] + best).flatten()  # of the canvases
        sequences, token_scores = kept_tokens(
            state.tokens[rows], state.log_probs[rows], self.config, is_collapsed
        )
        history = None
        if steps := state.history:
            history = {name: torch.stack([step[name][rows] for step in steps]) for name in steps[0]}
        return MaskPredictOutput(
            sequences=sequences,
            sequences_scores=means.flatten()[rows],
            ranking_scores=ranking.flatten()[rows],
            token_scores=token_scores,
            lengths=canvases.lengths.flatten()[rows],
            num_iterations=state.num_iterations[rows],
            history=history,
            length_log_probs=canvases.length_log_probs.flatten()[rows],
        )


def _linear_layers(config, is_asked: bool, device, dtype) -> AbstractContextManager:
    """The context in which linear layers are computed as `use_onednn` says."""
    if linear_on_cpu is not None and not config.compile:
        return linear_on_cpu(config.use_onednn, device, dtype)
    if is_asked:
        advice = "`pip install axe_hf`, or leave it to None"
        raise ValueError(f"`use_onednn=True` needs the axe_hf package: {advice}.")
    if config.use_onednn and not config.compile:  # as the model was saved, elsewhere
        logger.warning_once("`use_onednn` changes nothing without the axe_hf package.")
    return nullcontext()


# With these `generate` returns a row of token ids for each sentence, whatever the model has saved.
ONE_SEQUENCE_EACH = {"num_return_sequences": 1}
ONE_SEQUENCE_EACH |= {"return_dict_in_generate": False, "output_history": False}


@dataclass
class MaskPredictOutput(ModelOutput):
    """Result of `generate(..., return_dict_in_generate=True)`.

    A row is a sentence, or with `num_return_sequences` = n the n best candidates of a sentence one
    after the other: different ones first, then those that say the same as a better one.

    Args:
        sequences: (rows, longest output) long; blanks and `</s>` removed, then `<pad>`.
        sequences_scores: (rows,) mean log-probability of what was predicted, nats per token.
        ranking_scores: (rows,) what the candidates of a sentence were ranked by: `sequences_scores`
            + `length_score_weight` * `length_log_probs`; nats per token.
        token_scores: (rows, longest output) nats of each token kept, of a collapsed run the
            largest; 0 at padding and if observed.
        lengths: (rows,) long, positions of the canvas, `</s>` included.
        num_iterations: (rows,) long, decoder passes used.
        history: `canvas` that each iteration saw, `tokens` and `log_probs` after it: (iterations,
            rows, canvas). None unless asked for. A sentence that was done stays as it was.
        length_log_probs: (rows,) of the canvas's length, nats; 0 where the length was given.

    Scores are float32, or float64 from a float64 model.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> decoding = {"output_history": True, "return_dict_in_generate": True}
        >>> output = model.generate(torch.tensor([[7, 8, 9, 1]]), num_iterations=3, **decoding)
        >>> output.num_iterations.tolist(), len(output.history["canvas"])
        ([3], 3)
    """

    sequences: torch.Tensor | None = None
    sequences_scores: torch.Tensor | None = None
    ranking_scores: torch.Tensor | None = None
    token_scores: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    num_iterations: torch.Tensor | None = None
    history: dict[str, torch.Tensor] | None = None
    length_log_probs: torch.Tensor | None = None


def kept_tokens(
    tokens: torch.Tensor, log_probs: torch.Tensor, config: CmlmConfig, collapse_repeats: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (rows, canvas) without blanks and `</s>`: (rows, longest output), then `<pad>` and 0.

    Of a run that is collapsed the largest log-probability stays: that one position says a token is
    enough to have it said. A token of a run that was given in part has 0, as any that was given.
    """
    special = [config.pad_token_id, config.eos_token_id, config.blank_token_id]
    is_kept = ~torch.isin(tokens, torch.tensor(special, device=tokens.device))
    if collapse_repeats:
        is_first = is_first_of_run(tokens)
        is_kept &= is_first
        run = is_first.cumsum(dim=1) - 1  # (rows, canvas), from 0
        best = torch.full_like(log_probs, -torch.inf).scatter_reduce(1, run, log_probs, "amax")
        log_probs = best.gather(1, run)
    order = (~is_kept).to(torch.uint8).argsort(dim=1, stable=True)  # kept tokens first
    width = max(int(is_kept.sum(dim=1).max()), 1) if len(tokens) else 1
    is_removed = ~is_kept.gather(1, order)[:, :width]
    return (
        tokens.gather(1, order)[:, :width].masked_fill(is_removed, config.pad_token_id),
        log_probs.gather(1, order)[:, :width].masked_fill(is_removed, 0.0),
    )


def distinct_first(order: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """`order` (batch, candidates), best first, with those behind that say what a better one says.

    `outputs` (batch, candidates, any) long are the candidates' own, in their own order.
    """
    ranked = outputs.gather(1, order[:, :, None].expand_as(outputs))
    is_same = (ranked[:, :, None] == ranked[:, None]).all(dim=3)  # (batch, candidates, candidates)
    is_again = is_same.tril(-1).any(dim=2)  # (batch, candidates)
    return order.gather(1, is_again.to(torch.uint8).argsort(dim=1, stable=True))


class DraftStream:
    """Shows a streamer each pass's best canvas, if it has `put_draft`, and the translation."""

    def __init__(self, streamer: Any, config: CmlmConfig, canvases: Canvases, settings: Any):
        if (batch := len(canvases.lengths)) != 1:
            raise ValueError(f"`streamer` shows one sentence, got a batch of {batch}.")
        self.streamer, self.config, self.canvases = streamer, config, canvases
        self.length_scores = settings.length_score_weight * canvases.length_log_probs
        self.collapse_repeats = settings.collapse_repeats
        # Streamers take what comes first for the prompt; here it is empty.
        streamer.put(torch.empty((1, 0), dtype=torch.long))

    def on_pass(self, tokens, log_probs, is_masked) -> None:
        """Show the candidate that ranks highest, `<mask>` where it is predicted again."""
        if not hasattr(self.streamer, "put_draft"):
            return
        means = self.canvases.mean_log_probs(log_probs, self.config.mask_token_id)
        best = (means + self.length_scores).argmax()
        draft = tokens[best].masked_fill(is_masked[best], self.config.mask_token_id)[None]
        draft, _ = kept_tokens(draft, log_probs[best][None], self.config, self.collapse_repeats)
        self.streamer.put_draft(draft.cpu())

    def end(self, sequence: torch.Tensor) -> None:
        """Show the translation (1, length)."""
        self.streamer.put(sequence[:, sequence[0] != self.config.pad_token_id].cpu())
        self.streamer.end()


# Trainers and pipelines hand these to every `generate`.
_PASSED_BY_CALLERS = {"labels", "synced_gpus", "use_cache", "decoder_attention_mask"}
# Arguments of `generate` itself, named when an unknown one is refused.
_ARGUMENTS = ("encoder_outputs", "decoder_input_ids", "target_lengths", "generator", "streamer")


def settings_of_call(
    model_config: CmlmConfig, saved: GenerationConfig, overrides: dict[str, Any]
) -> MaskPredictGenerationConfig:
    """`saved` with `overrides`, complete and in range, or an error; neither is changed."""
    if not isinstance(saved, GenerationConfig):
        raise TypeError(f"`generation_config` must be a GenerationConfig, got {saved!r:.60}.")
    settings = saved.to_dict()
    for name, value in overrides.items():
        if name in SETTINGS:
            if value is not None or SETTINGS[name].is_reset_by_none:
                settings[name] = value
        elif name in AUTOREGRESSIVE:
            check_autoregressive(name, value)
        elif name not in _PASSED_BY_CALLERS and value is not None:
            advice = f"Mask-Predict takes {', '.join((*SETTINGS, *_ARGUMENTS))}."
            if name in ("rescore_with", "tokenizer"):
                advice = "Another model ranks candidates in axe_hf.translate(rescore_with=...)."
            raise TypeError(f"generate() has no argument `{name}`. {advice}")
    config = MaskPredictGenerationConfig(**settings)
    if config.length_multiplier is None:
        config.length_multiplier = model_config.length_multiplier
    if config.collapse_repeats is None:
        config.collapse_repeats = model_config.allow_repetition
    if config.compile and config.use_onednn:
        raise ValueError("`use_onednn` has no part in `compile=True`: leave one of the two out.")
    if config.temperature not in (None, 1, 1.0) and not config.do_sample:
        raise ValueError("`temperature` has no part unless tokens are drawn: add do_sample=True.")
    _fit_lengths(config, model_config.max_target_length)
    _check_suppressed(config.suppress_tokens, model_config.vocab_size)
    return config


def _fit_lengths(config: MaskPredictGenerationConfig, limit: int) -> None:
    shortest = config.min_length = max(config.min_length or 1, 1)
    asked = limit if config.max_length is None else config.max_length
    longest = config.max_length = min(asked, limit)
    if asked > limit:
        text = f"`max_length` is {asked} but `config.max_target_length` = {limit}, which holds."
        logger.warning_once(text)
    if shortest > longest:
        raise ValueError(f"`min_length` {shortest} is over `max_length` {longest}.")


def _check_suppressed(ids: Any, vocab_size: int) -> None:
    if ids is None:
        return
    if not isinstance(ids, list | tuple) or not all(type(i) is int for i in ids):
        raise TypeError(f"`suppress_tokens` must be a list of token ids, got {ids!r:.80}.")
    wrong = [i for i in ids if not 0 <= i < vocab_size]
    if wrong or len(set(ids)) > vocab_size - 3:  # pad and mask are never predicted either
        expected = f"hold ids in [0, {vocab_size}) and leave some to predict"
        got = wrong[:5] or f"{len(set(ids))} ids"
        raise ValueError(f"`suppress_tokens` must {expected}, got {got}.")


def check_source(input_ids: Any, attention_mask: Any, encoder_outputs: Any) -> None:
    """There is a source, and its mask (batch, source) fits it and ends each sentence."""
    if encoder_outputs is not None:
        states: Any = getattr(encoder_outputs, "last_hidden_state", None)
        if not torch.is_tensor(states) or states.numel() == 0:
            expected = "what `model.get_encoder()` returns, of at least one sentence"
            got = type(encoder_outputs).__name__
            raise ValueError(f"`encoder_outputs` must be {expected}, got {got}.")
        shape = tuple(states.shape[:2])
    elif input_ids is None:
        raise ValueError("generate() needs `input_ids` (batch, source) or `encoder_outputs`.")
    else:
        shape = tuple(input_ids.shape)
    if attention_mask is None:
        return
    if (found := tuple(getattr(attention_mask, "shape", ["no tensor"]))) != shape:
        raise ValueError(f"`attention_mask` must be (batch, source) = {shape}, got {found}.")
    is_late = (attention_mask[:, 0] == 0) & attention_mask.any(dim=1)
    if is_late.any():
        problem = f"`attention_mask` has padding in front of sentence {int(is_late.nonzero()[0])}"
        advice = 'Set tokenizer.padding_side = "right".'
        raise ValueError(f"{problem}, but positions count from the left. {advice}")


def check_target_lengths(lengths: torch.Tensor, num_sentences: int, limit: int) -> torch.Tensor:
    """`target_lengths` (batch,) or (batch, candidates) as (batch, candidates) long, or an error."""
    try:
        lengths = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`target_lengths` must be integers, got {lengths!r:.80}.") from error
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"`target_lengths` must be integers, got {lengths.dtype}.")
    if lengths.dim() not in (1, 2) or lengths.shape[0] != num_sentences:
        expected = f"(batch,) or (batch, candidates) with a batch of {num_sentences}"
        raise ValueError(f"`target_lengths` must be {expected}, got {tuple(lengths.shape)}.")
    if not lengths.numel() or int(lengths.min()) < 1 or int(lengths.max()) > limit:
        found = lengths.flatten().tolist()[:20]
        raise ValueError(f"`target_lengths` must be in [1, {limit}], with `</s>`; got {found}.")
    return lengths.long().reshape(num_sentences, -1)


def check_canvas(canvas: torch.Tensor, num_sentences: int, config: CmlmConfig) -> torch.Tensor:
    """`decoder_input_ids` (batch, canvas) for infilling, once it is found to be a canvas."""
    check_ids("decoder_input_ids", canvas, config.vocab_size)
    if len(canvas) != num_sentences:
        got = f"{num_sentences}, got {len(canvas)} canvases"
        raise ValueError(f"`decoder_input_ids` must be (batch, canvas) with a batch of {got}.")
    if (width := canvas.shape[1]) > (limit := config.max_target_length):
        problem = f"`decoder_input_ids` have {width} positions"
        raise ValueError(f"{problem} but `max_target_length` is {limit}.")
    is_padding = canvas == config.pad_token_id
    problems = {
        f"hold ids in [0, {config.vocab_size})": (canvas < 0) | (canvas >= config.vocab_size),
        "hold <pad> behind the canvas's end only": is_padding[:, :-1] & ~is_padding[:, 1:],
        "show at least one position of each sentence": is_padding[:, :1],
    }
    for expected, is_wrong in problems.items():
        if is_wrong.any():
            row, column = is_wrong.nonzero()[0].tolist()
            got = f"{int(canvas[row, column])} at [{row}, {column}]"
            advice = f"Put <mask> ({config.mask_token_id}) where a token is to be predicted."
            raise ValueError(f"`decoder_input_ids` must {expected}, got {got}. {advice}")
    return canvas.long()
