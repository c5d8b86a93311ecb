"""What encoder, decoder and whole models share: weights, loading, and the embeddings in front of a stack."""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .configuration_cmlm import CmlmConfig
from .positions_cmlm import CmlmSinusoidalPositionalEmbedding


class CmlmPreTrainedModel(PreTrainedModel):
    """Weights initialisation and loading, shared by every CMLM class.

    Example:

    ```python
    >>> from axe_hf import CmlmForConditionalGeneration, CmlmPreTrainedModel
    >>> issubclass(CmlmForConditionalGeneration, CmlmPreTrainedModel)
    True

    ```
    """

    config: CmlmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CmlmEncoderLayer", "CmlmDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, CmlmSinusoidalPositionalEmbedding):
            init.copy_(module.weight, module.create_weight())

    def _resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of=None, *args):
        embeddings = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, *args)
        decoder = getattr(self.base_model, "decoder", None)
        if decoder is not None and not self.config.tie_word_embeddings:
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, embeddings.num_embeddings, None, *args
            )
        return embeddings


class CmlmStack(CmlmPreTrainedModel):
    """Embeddings and the end of a stack, shared by encoder and decoder."""

    def __init__(self, config: CmlmConfig, max_length: int, max_length_name: str):
        super().__init__(config)
        self.max_length, self.max_length_name = max_length, max_length_name
        self.embed_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        if config.position_embedding_type == "sinusoidal":
            self.embed_positions = CmlmSinusoidalPositionalEmbedding(max_length, config.d_model)
        else:
            self.embed_positions = nn.Embedding(max_length, config.d_model)
        norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.layernorm_embedding = norm if config.layernorm_embedding else nn.Identity()
        norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.layer_norm = norm if config.normalize_before else nn.Identity()
        self.gradient_checkpointing = False

    def _embed(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, name: str
    ) -> torch.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                f"Give either `{name}` or the embeddings in its place, not both and not neither."
            )
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)  # (batch, length, d_model)
        length = inputs_embeds.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"`{name}` has {length} positions but `config.{self.max_length_name}` is {self.max_length}. "
                "Truncate the text, or train a model with a larger limit."
            )
        positions = torch.arange(length, device=inputs_embeds.device)
        return inputs_embeds * self.embed_scale + self.embed_positions(positions)
