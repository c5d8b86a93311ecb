"""Encoder and decoder as modules that `torch.export` and `torch.onnx.export` take."""

import torch
from torch import nn
from torch.export import Dim

from ..cmlm import CmlmForConditionalGeneration


class ExportableEncoder(nn.Module):
    """The encoder with its length head, as `torch.export` and `torch.onnx.export` take it.

    Args:
        model: a `CmlmForConditionalGeneration` in evaluation mode, with attention "sdpa" or "eager".

    Inputs: `input_ids` and `attention_mask`, both (batch, source) long; 1 in the mask where there is a token, which
    every sentence must have.

    Outputs: `encoder_hidden_states` (batch, source, d_model) and `length_logits` (batch, max_target_length + 1) fp32.

    Raises:
        TypeError, ValueError: `model` is something else, is in training, or has an attention that no graph can hold.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, ExportableEncoder
    >>> model = CmlmForConditionalGeneration(
    ...     CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
    ...                decoder_ffn_dim=32, max_target_length=20)
    ... ).eval()
    >>> source = torch.tensor([[7, 8, 9, 1]])
    >>> states, length_logits = ExportableEncoder(model)(source, torch.ones_like(source))
    >>> states.shape, length_logits.shape
    (torch.Size([1, 4, 16]), torch.Size([1, 21]))

    ```
    """

    output_names = ("encoder_hidden_states", "length_logits")

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__()
        check_model(model)
        self.encoder = model.model.encoder
        self.eval()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return outputs.last_hidden_state, outputs.length_logits

    def example_inputs(self) -> dict[str, tuple[torch.Tensor, dict[int, Dim]]]:
        """Each input's value for tracing, and the axes that stay free."""
        return example_source(self.encoder)


class ExportableDecoderStep(nn.Module):
    """One pass of the decoder with the output projection: a loop around it can decode in any way.

    Args:
        model: a `CmlmForConditionalGeneration` in evaluation mode, with attention "sdpa" or "eager".

    Inputs: `decoder_input_ids`, the canvas (batch, canvas) long, `<pad>` behind its end; `encoder_hidden_states`
    (batch, source, d_model); `attention_mask` (batch, source) long.

    Output: `logits` (batch, canvas, vocab), `<pad>` and `<mask>` not excluded.

    Raises:
        TypeError, ValueError: as `ExportableEncoder`.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
    >>> from axe_hf import ExportableDecoderStep, ExportableEncoder
    >>> model = CmlmForConditionalGeneration(
    ...     CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
    ...                decoder_ffn_dim=32, max_target_length=20)
    ... ).eval()
    >>> source, canvas = torch.tensor([[7, 8, 9, 1]]), torch.full((1, 3), model.config.mask_token_id)
    >>> states, _ = ExportableEncoder(model)(source, torch.ones_like(source))
    >>> ExportableDecoderStep(model)(canvas, states, torch.ones_like(source)).shape
    torch.Size([1, 3, 50])

    ```
    """

    output_names = ("logits",)

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__()
        check_model(model)
        self.decoder, self.lm_head = model.model.decoder, model.lm_head
        self.eval()

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        """See the class."""
        outputs = self.decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=attention_mask,
        )
        return self.lm_head(outputs.last_hidden_state)

    def example_inputs(self) -> dict[str, tuple[torch.Tensor, dict[int, Dim]]]:
        """Each input's value for tracing, and the axes that stay free."""
        weight, config = self.lm_head.weight, self.decoder.config
        mask, axes = example_source(self.decoder)["attention_mask"]
        canvas = torch.full((2, min(4, config.max_target_length)), config.mask_token_id)
        canvas_axis = Dim("canvas", min=1, max=config.max_target_length)
        return {
            "decoder_input_ids": (canvas.to(weight.device), {0: axes[0], 1: canvas_axis}),
            "encoder_hidden_states": (weight.new_zeros(*mask.shape, config.d_model), axes),
            "attention_mask": (mask, axes),
        }


def check_model(model: CmlmForConditionalGeneration) -> None:
    """Raise where no graph can be made of `model`."""
    if not isinstance(model, CmlmForConditionalGeneration):
        raise TypeError(
            "`model` must be axe_hf's CmlmForConditionalGeneration, got "
            f"{type(model).__module__}.{type(model).__name__}. `import axe_hf` before loading it."
        )
    if model.training:
        raise ValueError(
            "`model` is in training mode, and its dropout would stay in the graph. Call model.eval()."
        )
    attention = model.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        raise ValueError(
            f"`model` has attention {attention!r}, which no graph holds. Call "
            'model.set_attn_implementation("sdpa").'
        )


def example_source(stack: nn.Module) -> dict[str, tuple[torch.Tensor, dict[int, Dim]]]:
    """Inputs of a module whose config and device are those of `stack`."""
    # Sizes of 0 and 1 would be taken for fixed ones. The values do not matter.
    config, device = stack.config, stack.device
    axes = {0: Dim("batch", min=1), 1: Dim("source", min=1, max=config.max_source_length)}
    mask = torch.ones(2, min(5, config.max_source_length), dtype=torch.long, device=device)
    return {"input_ids": (mask * config.eos_token_id, axes), "attention_mask": (mask, axes)}


__all__ = ["ExportableDecoderStep", "ExportableEncoder"]
