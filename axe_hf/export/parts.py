"""Encoder, decoder and output projection as the loop of `load_exported` calls them.

Unlike the public modules, they read the source once for all passes, decode several canvases of a
sentence, and compute only the positions that are asked for.
"""

import torch
from torch.export import Dim

from ..cmlm import CmlmForConditionalGeneration
from ..cmlm.modeling_cmlm import KeyValues
from .modules import Exportable, Inputs, Tensors, example_source


class ExportableSource(Exportable):
    """The encoder with its length head, and what the decoder reads of the source.

    Args:
        model: in evaluation mode, with attention "sdpa" or "eager".

    Inputs: `input_ids` and `attention_mask`, both (batch, source) long; 1 in the mask where there
    is a token, which every sentence must have.

    Outputs: `source_key_values` (batch, 2 * decoder layers, heads, source, head_dim), what the
    decoder's attention reads of the source: keys, then values of the first layer, then of the
    second ...; and `length_logits` (batch, max_target_length + 1) fp32.
    """

    output_names = ("source_key_values", "length_logits")

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__(model)
        self.encoder, self.decoder = model.model.encoder, model.model.decoder
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Tensors:
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        layers = self.decoder.project_source(outputs.last_hidden_state)
        return torch.stack([part for layer in layers for part in layer], 1), outputs.length_logits

    def example_inputs(self) -> Inputs:
        return example_source(self.encoder)


class ExportableCanvas(Exportable):
    """One pass of the decoder, up to the states that `ExportableHead` takes.

    Args:
        model: as in `ExportableSource`.

    Inputs: `canvas` (batch, candidates, canvas) long, `<pad>` behind a canvas's end;
    `query_positions` (batch, candidates, queries) long, those positions whose states are asked for;
    `source_key_values` of `ExportableSource`; `attention_mask` (batch, source) long.

    Output: `states` (batch, candidates, queries, d_model).

    As a program of `torch.export` it takes two or more sentences, and canvases of each: PyTorch
    guards against one, which the ONNX graph takes as well.
    """

    output_names = ("states",)

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__(model)
        self.decoder, self.pad_token_id = model.model.decoder, model.config.pad_token_id
        self.eval()

    def forward(
        self,
        canvas: torch.Tensor,
        query_positions: torch.Tensor,
        source_key_values: torch.Tensor,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        tokens, positions = canvas.flatten(0, 1), query_positions.flatten(0, 1)
        parts = source_key_values.unbind(1)  # each (batch, heads, source, head_dim)
        element = source_key_values.new_zeros(1)
        masks = self.decoder.attention_masks(
            tokens != self.pad_token_id,
            attention_mask,
            element.expand(*tokens.shape, 1),
            element.expand(*attention_mask.shape, 1),
        )
        outputs = self.decoder(
            input_ids=tokens,
            query_positions=positions,
            masks=masks,
            source_key_values=tuple(map(KeyValues, parts[::2], parts[1::2])),
        )
        states = outputs.last_hidden_state  # (batch * candidates, queries, d_model)
        return states.unflatten(0, canvas.shape[:2])

    def example_inputs(self) -> Inputs:
        config = self.decoder.config
        mask, axes = example_source(self.decoder)["attention_mask"]
        heads = config.decoder_attention_heads
        shape = (len(mask), 2 * config.decoder_layers, heads, mask.shape[1])
        key_values = torch.zeros(*shape, config.d_model // heads, device=mask.device)
        width = min(4, config.max_target_length)
        canvas = mask.new_full((len(mask), 3, width), config.mask_token_id)
        limit = config.max_target_length
        batch = {0: axes[0], 1: Dim("candidates", min=1)}
        return {
            "canvas": (canvas, batch | {2: Dim("canvas", min=1, max=limit)}),
            "query_positions": (canvas[..., 1:] * 0, batch | {2: Dim("queries", min=1, max=limit)}),
            "source_key_values": (key_values.to(self.decoder.dtype), {0: axes[0], 3: axes[1]}),
            "attention_mask": (mask, axes),
        }


class ExportableHead(Exportable):
    """The output projection: `states` (positions, d_model) to `logits` (positions, vocab).

    `<pad>` and `<mask>` are not excluded.

    Args:
        model: as in `ExportableSource`.
    """

    output_names = ("logits",)

    def __init__(self, model: CmlmForConditionalGeneration):
        super().__init__(model)
        self.lm_head, self.d_model = model.lm_head, model.config.d_model
        self.like_states = {"dtype": model.dtype, "device": model.device}
        self.eval()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.lm_head(states)

    def example_inputs(self) -> Inputs:
        states = torch.zeros(3, self.d_model, **self.like_states)
        return {"states": (states, {0: Dim("positions", min=1)})}
