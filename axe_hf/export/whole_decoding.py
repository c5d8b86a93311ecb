"""Mask-Predict, from the source to the tokens, as one module that `torch.export` and `torch.onnx.export` take."""

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from ..cmlm import CmlmForConditionalGeneration, MaskPredictGenerationConfig
from ..cmlm.canvas_cmlm import length_candidates, masked_canvas
from ..cmlm.configuration_mask_predict import SETTINGS, num_masked_again
from ..cmlm.settings_mask_predict import settings_of_call
from .parts import check_model, example_source


class ExportableMaskPredict(nn.Module):
    """Source in, translation out: encoder, length, and all T iterations of Mask-Predict as one graph.

    It decodes as `model.generate` does with one length candidate (Ghazvininejad et al., "Mask-Predict", EMNLP 2019,
    section 3), on canvases of one static width, `max_length`: the smaller it is, the faster. The arithmetic is the
    same up to rounding, so the tokens are too, except where two candidates are equal but for rounding. Each
    iteration holds logits (batch, positions predicted, vocab) at once, in fp32.

    Args:
        model: a `CmlmForConditionalGeneration` in evaluation mode, with attention "sdpa" or "eager".
        **overrides: settings of `MaskPredictGenerationConfig` in place of those of `model.generation_config`:
            `num_iterations`, `schedule`, `length_multiplier`, `min_length`, `max_length`, `suppress_tokens`. The
            graph holds them fixed.

    Inputs: `input_ids` and `attention_mask`, both (batch, source) long; 1 in the mask where there is a token, which
    every sentence must have.

    Outputs: `tokens` (batch, max_length) long, the canvas with its blanks and `</s>`, `<pad>` behind each length;
    `log_probs` (batch, max_length) fp32 (fp64 of a model in fp64), in nats, 0 behind each length; `lengths` (batch,)
    long. The translation is `tokens` without `<pad>`, blanks and `</s>`: decode with `skip_special_tokens=True`.

    Raises:
        TypeError, ValueError: as `ExportableEncoder` and `generate`; or a setting that the graph does not follow,
            such as several length candidates.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, ExportableMaskPredict
    >>> model = CmlmForConditionalGeneration(
    ...     CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
    ...                decoder_ffn_dim=32, max_target_length=20)
    ... ).eval()
    >>> decode = ExportableMaskPredict(model, num_iterations=2, max_length=6)
    >>> source = torch.tensor([[7, 8, 9, 1]])
    >>> tokens, log_probs, lengths = decode(source, torch.ones_like(source))
    >>> tokens.shape, log_probs.shape, lengths.shape
    (torch.Size([1, 6]), torch.Size([1, 6]), torch.Size([1]))

    ```
    """

    output_names = ("tokens", "log_probs", "lengths")

    def __init__(self, model: CmlmForConditionalGeneration, **overrides: Any):
        super().__init__()
        check_model(model)
        settings = _followed_settings(model, overrides)
        fixed = sorted(s.name for s in SETTINGS.values() if s.in_graph == "fixed")
        self.settings = {name: getattr(settings, name) for name in fixed}
        self.encoder, self.decoder = model.model.encoder, model.model.decoder
        self.lm_head, self.width = model.lm_head, settings.max_length
        self.config = model.config
        # Tables, since neither may depend on a tensor's value: each class's canvas length, for each iteration
        # t = 1 .. T-1 and canvas length the number of positions masked again, and what is never predicted.
        constants = {
            "canvas_lengths": _canvas_lengths(model.config.max_target_length, settings),
            "num_masked": _num_masked(settings, self.width),
            "is_never": torch.zeros(model.config.vocab_size, dtype=torch.bool),
        }
        never = [self.config.pad_token_id, self.config.mask_token_id]
        constants["is_never"][[*never, *(settings.suppress_tokens or ())]] = True
        for name, value in constants.items():
            self.register_buffer(name, value.to(model.device), persistent=False)
        self.most_masked = self.num_masked.amax(dim=1).tolist()  # what the widest canvas masks
        self.eval()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See the class."""
        source = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        best_class = source.length_logits.log_softmax(dim=-1)[:, 1:].argmax(dim=1)
        lengths = self.canvas_lengths[best_class]  # (batch,)
        is_inside = torch.arange(self.width, device=lengths.device) < lengths[:, None]
        states = source.last_hidden_state
        key_values = self.decoder.project_source(states)
        like_canvas = states.new_zeros(1).expand(*is_inside.shape, 1)
        masks = self.decoder.attention_masks(is_inside, attention_mask, like_canvas, states)

        def predict(canvas, query_positions=None):
            hidden_states = self.decoder(
                input_ids=canvas,
                masks=masks,
                source_key_values=key_values,
                query_positions=query_positions,
            ).last_hidden_state
            return self._choose(self.lm_head(hidden_states))  # logits (batch, positions, vocab)

        tokens, log_probs = predict(masked_canvas(lengths, self.width, self.config))
        tokens = tokens.masked_fill(~is_inside, self.config.pad_token_id)
        log_probs = log_probs.masked_fill(~is_inside, 0.0)
        for num_masked, most_masked in zip(self.num_masked, self.most_masked, strict=True):
            order = least_probable_first(log_probs.masked_fill(~is_inside, torch.inf))
            order = order[:, :most_masked]  # (batch, most_masked)
            ranks = torch.arange(most_masked, device=order.device)
            is_masked = ranks < num_masked[lengths][:, None]
            kept_tokens, kept_log_probs = tokens.gather(1, order), log_probs.gather(1, order)
            masked = kept_tokens.masked_fill(is_masked, self.config.mask_token_id)
            new_tokens, new_log_probs = predict(tokens.scatter(1, order, masked), order)
            new_tokens = torch.where(is_masked, new_tokens, kept_tokens)
            new_log_probs = torch.where(is_masked, new_log_probs, kept_log_probs)
            tokens = tokens.scatter(1, order, new_tokens)
            log_probs = log_probs.scatter(1, order, new_log_probs)
        return tokens, log_probs, lengths

    def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits.masked_fill(self.is_never, -torch.inf)
        largest, tokens = logits.max(dim=-1, keepdim=True)
        # log P is -log(sum of exp(logit - largest)), which keeps more digits than largest - logsumexp.
        log_probs = -(logits - largest).exp().sum(dim=-1).log()
        return tokens[..., 0], log_probs

    def example_inputs(self) -> dict[str, tuple[torch.Tensor, dict[int, Dim]]]:
        """Each input's value for tracing, and the axes that stay free."""
        return example_source(self.encoder)


def _followed_settings(
    model: CmlmForConditionalGeneration, overrides: dict[str, Any]
) -> MaskPredictGenerationConfig:
    """The settings of a decoding, once it is sure that the graph follows all of them."""
    settings = settings_of_call(model.config, model.generation_config, overrides)
    for setting in SETTINGS.values():
        value = getattr(settings, setting.name)
        neutral = 1 if setting.kind is int else setting.default
        if setting.in_graph == "impossible" and value not in (None, False, neutral):
            raise ValueError(
                f"`{setting.name}` is {value!r}, which the graph of Mask-Predict does not follow. Export "
                f"with `{setting.name}={neutral!r}`, or decode with model.generate."
            )
    return settings


def _canvas_lengths(num_classes: int, settings: MaskPredictGenerationConfig) -> torch.Tensor:
    """(num_classes,) long: the canvas length where class i + 1 of the length head is the most probable."""
    certain = torch.full((num_classes, num_classes + 1), -1e4)
    certain[:, 1:].fill_diagonal_(0.0)
    lengths, _ = length_candidates(
        certain,
        num_candidates=1,
        length_multiplier=settings.length_multiplier,
        min_length=settings.min_length,
        max_length=settings.max_length,
    )
    return lengths[:, 0]


def _num_masked(settings: MaskPredictGenerationConfig, width: int) -> torch.Tensor:
    """(T - 1, width + 1) long: positions masked before pass t + 1 on a canvas of each length."""
    total = settings.num_iterations
    rows = [
        [num_masked_again(settings.schedule, length, t, total) for length in range(width + 1)]
        for t in range(1, total)
    ]
    return torch.tensor(rows, dtype=torch.long).reshape(total - 1, width + 1)


def least_probable_first(log_probs: torch.Tensor) -> torch.Tensor:
    """Positions (batch, width) by rising value of `log_probs` (batch, width), the earlier first among equals.

    A stable argsort by counting who comes before, since ONNX has no stable sort.
    """
    positions = torch.arange(log_probs.shape[1], device=log_probs.device)
    others, own = log_probs[:, None, :], log_probs[:, :, None]
    is_earlier = positions[None, :] < positions[:, None]  # (width, width)
    ranks = ((others < own) | ((others == own) & is_earlier)).sum(dim=2)  # (batch, width)
    return torch.zeros_like(ranks).scatter(1, ranks, positions.expand_as(ranks))


__all__ = ["ExportableMaskPredict"]
