"""Encoder, decoder step and whole decoding as modules that `torch.export` takes."""

from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from ..cmlm import CmlmForConditionalGeneration, MaskPredictGenerationConfig
from ..cmlm.configuration_mask_predict import SETTINGS, num_masked_again
from ..cmlm.generation_cmlm import settings_of_call
from ..cmlm.mask_predict import is_first_of_run, masked_canvas, possible_lengths
from ..cmlm.modeling_cmlm import check_class

Tensors = tuple[torch.Tensor, ...]
# Each input's value for tracing, and the axes that stay free.
Inputs = dict[str, tuple[torch.Tensor, dict[int, Dim]]]


class Exportable(nn.Module):
    """A part of a model, or all of it, that `export_program` takes.

    Args:
        model: in evaluation mode, with attention "sdpa" or "eager".
    """

    output_names: tuple[str, ...]

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__()
        check_model(model)

    def example_inputs(self) -> Inputs:
        raise NotImplementedError


class ExportableEncoder(Exportable):
    """The encoder with its length head, as `torch.export` and `torch.onnx.export` take it.

    Args:
        model: in evaluation mode, with attention "sdpa" or "eager".

    Inputs: `input_ids` and `attention_mask`, both (batch, source) long; 1 in the mask where there
    is a token, which every sentence must have.

    Outputs: `encoder_hidden_states` (batch, source, d_model) and `length_logits` (batch,
    max_target_length + 1) fp32.

    Raises:
        TypeError, ValueError: `model` is something else, in training, or has another attention.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, ExportableEncoder
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> source = torch.tensor([[7, 8, 9, 1]])
        >>> states, length_logits = ExportableEncoder(model)(source, torch.ones_like(source))
        >>> states.shape, length_logits.shape
        (torch.Size([1, 4, 16]), torch.Size([1, 1025]))
    """

    output_names = ("encoder_hidden_states", "length_logits")

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__(model)
        self.encoder = model.model.encoder
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Tensors:
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return outputs.last_hidden_state, outputs.length_logits

    def example_inputs(self) -> Inputs:
        return example_source(self.encoder)


class ExportableDecoderStep(Exportable):
    """One pass of the decoder with the output projection: a loop around it can decode in any way.

    Args:
        model: as in `ExportableEncoder`.

    Inputs: `decoder_input_ids`, the canvas (batch, canvas) long, `<pad>` behind its end;
    `encoder_hidden_states` (batch, source, d_model); `attention_mask` (batch, source) long.

    Output: `logits` (batch, canvas, vocab), `<pad>` and `<mask>` not excluded.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf import ExportableDecoderStep, ExportableEncoder
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> source, canvas = torch.tensor([[7, 8, 9, 1]]), torch.full((1, 3), config.mask_token_id)
        >>> states, _ = ExportableEncoder(model)(source, torch.ones_like(source))
        >>> ExportableDecoderStep(model)(canvas, states, torch.ones_like(source)).shape
        torch.Size([1, 3, 50])
    """

    output_names = ("logits",)

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__(model)
        self.decoder, self.lm_head = model.model.decoder, model.lm_head
        self.eval()

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        outputs = self.decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=attention_mask,
        )
        return self.lm_head(outputs.last_hidden_state)

    def example_inputs(self) -> Inputs:
        weight, config = self.lm_head.weight, self.decoder.config
        mask, axes = example_source(self.decoder)["attention_mask"]
        canvas = torch.full((2, min(4, config.max_target_length)), config.mask_token_id)
        canvas_axis = Dim("canvas", min=1, max=config.max_target_length)
        return {
            "decoder_input_ids": (canvas.to(weight.device), {0: axes[0], 1: canvas_axis}),
            "encoder_hidden_states": (weight.new_zeros(*mask.shape, config.d_model), axes),
            "attention_mask": (mask, axes),
        }


class ExportableMaskPredict(Exportable):
    """Source in, translation out: encoder, length and all T passes of Mask-Predict as one graph.

    It decodes as `model.generate` does with one length candidate (Ghazvininejad et al.,
    "Mask-Predict", EMNLP 2019, section 3), on canvases as wide as the longest of the batch, of two
    positions at least where `max_length` is more than one. Tokens are the same, except where two
    are equal but for rounding. Each iteration holds logits (batch, positions predicted, vocab) at
    once, in fp32.

    Args:
        model: as in `ExportableEncoder`.
        **overrides: settings of `MaskPredictGenerationConfig` in place of those of
            `model.generation_config`: `num_iterations`, `schedule`, `length_multiplier`,
            `min_length`, `max_length`, `suppress_tokens`, `collapse_repeats`. The graph holds them
            fixed.

    Inputs: as in `ExportableEncoder`.

    Outputs: `tokens` (batch, canvas) long, the canvas with its blanks and `</s>`, `<pad>` behind
    each length: decode with `skip_special_tokens=True`. With `collapse_repeats` blanks stand in
    place of all but the first of a run. `log_probs` (batch, canvas) fp32 (fp64 of a model in fp64),
    in nats, 0 behind each length, of every position as it was said; `lengths` (batch,) long.

    Raises:
        TypeError, ValueError: as `ExportableEncoder` and `generate`, or for a setting that the
            graph does not follow, such as several length candidates.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, ExportableMaskPredict
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> decode = ExportableMaskPredict(model, num_iterations=2, min_length=6, max_length=6)
        >>> source = torch.tensor([[7, 8, 9, 1]])
        >>> tokens, log_probs, lengths = decode(source, torch.ones_like(source))
        >>> tokens.shape, log_probs.shape, lengths.shape
        (torch.Size([1, 6]), torch.Size([1, 6]), torch.Size([1]))
    """

    output_names = ("tokens", "log_probs", "lengths")

    def __init__(self, model: CmlmForConditionalGeneration, **overrides: Any):
        super().__init__(model)
        settings = _followed_settings(model, overrides)
        fixed = sorted(s.name for s in SETTINGS.values() if s.in_graph == "fixed")
        self.settings = {name: getattr(settings, name) for name in fixed}
        self.encoder, self.decoder = model.model.encoder, model.model.decoder
        self.lm_head, self.width = model.lm_head, settings.max_length
        self.config = model.config
        # Tables, since a graph may not depend on a tensor's value: each class's canvas length, the
        # number of positions that each iteration masks again, and what is never predicted.
        lengths = possible_lengths(self.config.max_target_length, settings)
        is_never = torch.zeros(self.config.vocab_size, dtype=torch.bool)
        is_never[[self.config.pad_token_id, self.config.mask_token_id]] = True
        is_never[list(settings.suppress_tokens or ())] = True
        tables = {"canvas_lengths": torch.tensor(lengths), "is_never": is_never}
        tables["num_masked"] = _num_masked(settings, self.width)
        for name, value in tables.items():
            self.register_buffer(name, value.to(model.device), persistent=False)
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Tensors:
        source = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        best_class = source.length_logits.log_softmax(dim=-1)[:, 1:].argmax(dim=1)
        lengths = self.canvas_lengths[best_class]  # (batch,)
        width = _as_size(lengths, self.width)
        is_inside = torch.arange(width, device=lengths.device) < lengths[:, None]
        states = source.last_hidden_state
        key_values = self.decoder.project_source(states)
        like_canvas = states.new_zeros(1).expand(*is_inside.shape, 1)
        masks = self.decoder.attention_masks(is_inside, attention_mask, like_canvas, states)

        def predict(canvas, query_positions=None):
            known = {"masks": masks, "source_key_values": key_values}
            outputs = self.decoder(input_ids=canvas, query_positions=query_positions, **known)
            logits = self.lm_head(outputs.last_hidden_state)  # (batch, positions, vocab)
            return self._choose(logits)

        tokens, log_probs = predict(masked_canvas(lengths, width, self.config))
        tokens = tokens.masked_fill(~is_inside, self.config.pad_token_id)
        log_probs = log_probs.masked_fill(~is_inside, 0.0)
        for num_masked_by_length in self.num_masked:
            num_masked = num_masked_by_length[lengths]  # (batch,)
            most_masked = _as_size(num_masked, width)
            order = least_probable_first(log_probs.masked_fill(~is_inside, torch.inf))
            order = order[:, :most_masked]  # (batch, most_masked)
            is_masked = torch.arange(most_masked, device=order.device) < num_masked[:, None]
            kept_tokens, kept_log_probs = tokens.gather(1, order), log_probs.gather(1, order)
            masked = kept_tokens.masked_fill(is_masked, self.config.mask_token_id)
            new_tokens, new_log_probs = predict(tokens.scatter(1, order, masked), order)
            new_tokens = torch.where(is_masked, new_tokens, kept_tokens)
            new_log_probs = torch.where(is_masked, new_log_probs, kept_log_probs)
            tokens = tokens.scatter(1, order, new_tokens)
            log_probs = log_probs.scatter(1, order, new_log_probs)
        if self.settings["collapse_repeats"]:
            is_again = ~is_first_of_run(tokens) & is_inside
            tokens = tokens.masked_fill(is_again, self.config.blank_token_id)
        return tokens, log_probs, lengths

    def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits.masked_fill(self.is_never, -torch.inf)
        largest, tokens = logits.max(dim=-1, keepdim=True)
        # -log(sum of exp(logit - largest)) keeps more digits than largest - logsumexp.
        log_probs = -(logits - largest).exp().sum(dim=-1).log()
        return tokens[..., 0], log_probs

    def example_inputs(self) -> Inputs:
        return example_source(self.encoder)


def _as_size(counts: torch.Tensor, most: Any) -> Any:
    """The largest of `counts` (batch,) as a size that a graph leaves free, at most `most`.

    It is two at least, where there are two: Transformers' attention asks whether there is one
    query, and a graph must know the answer.
    """
    if isinstance(most, int) and most < 2:
        return most
    size: Any = counts.max().clamp(min=2).item()  # no number while it is traced
    torch._check(size >= 2)
    torch._check(size <= most)
    return size


def _followed_settings(model: Any, overrides: dict[str, Any]) -> MaskPredictGenerationConfig:
    """The settings of a decoding, once it is sure that the graph follows all of them."""
    settings = settings_of_call(model.config, model.generation_config, overrides)
    for setting in SETTINGS.values():
        value = getattr(settings, setting.name)
        neutral = {int: 1, bool: False}.get(setting.kind, setting.default)
        if setting.in_graph == "impossible" and value not in (None, neutral):
            problem = f"`{setting.name}` is {value!r}, which the graph does not follow"
            advice = f"Export with `{setting.name}={neutral!r}`, or decode with model.generate."
            raise ValueError(f"{problem}. {advice}")
    return settings


def _num_masked(settings: MaskPredictGenerationConfig, width: int) -> torch.Tensor:
    """(T - 1, width + 1) long: positions masked before pass t + 1 on a canvas of each length."""
    schedule, total, lengths = settings.schedule, settings.num_iterations, range(width + 1)
    rows = [[num_masked_again(schedule, n, t, total) for n in lengths] for t in range(1, total)]
    return torch.tensor(rows, dtype=torch.long).reshape(total - 1, width + 1)


def least_probable_first(log_probs: torch.Tensor) -> torch.Tensor:
    """Positions by rising `log_probs`, both (batch, width), the earlier first among equals.

    A stable argsort by counting who comes before, since ONNX has no stable sort.
    """
    positions = torch.arange(log_probs.shape[1], device=log_probs.device)
    others, own = log_probs[:, None, :], log_probs[:, :, None]
    is_earlier = positions[None, :] < positions[:, None]  # (width, width)
    ranks = ((others < own) | ((others == own) & is_earlier)).sum(dim=2)  # (batch, width)
    return torch.zeros_like(ranks).scatter(1, ranks, positions.expand_as(ranks))


def check_model(model: CmlmForConditionalGeneration) -> None:
    """Raise where no graph can be made of `model`."""
    check_class(model)
    if model.training:
        raise ValueError("`model` is in training mode, with dropout: call model.eval() before.")
    attention = model.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        advice = 'Call model.set_attn_implementation("sdpa").'
        raise ValueError(f"`model` has attention {attention!r}, which no graph holds. {advice}")


def example_source(stack: Any) -> Inputs:
    """Inputs of a module whose config and device are those of `stack`."""
    # Sizes of 0 and 1 would be taken for fixed ones. The values do not matter.
    config, device = stack.config, stack.device
    axes = {0: Dim("batch", min=1), 1: Dim("source", min=1, max=config.max_source_length)}
    mask = torch.ones(2, min(5, config.max_source_length), dtype=torch.long, device=device)
    return {"input_ids": (mask * config.eos_token_id, axes), "attention_mask": (mask, axes)}


def export_program(module: Exportable) -> ExportedProgram:
    """Trace a part of a model by `torch.export`, with free batch size and lengths.

    The program takes at least one sentence of at least one token; it refuses sources longer than
    the model's `max_source_length`, and canvases longer than `max_target_length`.

    Args:
        module: one of the three modules named `Exportable...`.

    Returns:
        The program: call `.module()`, or write it by `torch.export.save`.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf import ExportableEncoder, export_program
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> encoder = export_program(ExportableEncoder(model)).module()
        >>> source = torch.tensor([[7, 8, 9, 1], [8, 1, 0, 0], [7, 1, 0, 0]])
        >>> states, length_logits = encoder(source, source.ne(0).long())
        >>> states.shape
        torch.Size([3, 4, 16])
    """
    if not isinstance(module, Exportable):
        kinds = "ExportableEncoder, ExportableDecoderStep, ExportableMaskPredict"
        raise TypeError(f"`module` must be an {kinds}, got {type(module).__name__}.")
    inputs = module.example_inputs()
    axes = {name: free for name, (_, free) in inputs.items()}
    values = tuple(value for value, _ in inputs.values())
    with torch.no_grad():
        return torch.export.export(module, values, dynamic_shapes=axes)
