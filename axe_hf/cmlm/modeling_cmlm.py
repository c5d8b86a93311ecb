"""The conditional masked language model (CMLM): encoder with a length head, bidirectional decoder.

Architecture: Ghazvininejad et al., "Mask-Predict: Parallel Decoding of Conditional Masked Language
Models" (EMNLP 2019).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithCrossAttentions,
    ModelOutput,
    Seq2SeqModelOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel, load_state_dict
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, cached_file, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_cmlm import (
    SETTINGS_OF_ADAPTER,
    SETTINGS_WITH_ADAPTER,
    CmlmConfig,
    MaskPredictGenerationConfig,
)
from .generation_cmlm import MaskPredictGenerationMixin
from .loss_axe import check_ids
from .loss_cmlm import CmlmForConditionalGenerationLoss, is_loss_fused
from .mask_predict import masked_canvas_of_labels

logger = logging.get_logger(__name__)

_WITHOUT_LABELS = (
    "In training a canvas came without labels: neither AXE nor the length head is trained by it. "
    "If a Trainer's `label_smoothing_factor` took them out, set `config.label_smoothing` instead."
)


class KeyValues(NamedTuple):
    """Of one source for one decoder layer, each `(batch, heads, source, head_dim)`."""

    keys: Tensor
    values: Tensor


class EncoderMasks(NamedTuple):
    """Masks of an encoder whose length position stands first and is hidden from the tokens."""

    tokens: Tensor | None  # of the tokens' attention to each other
    length: Tensor | None  # of the length position's attention to itself and all tokens


class AttentionMasks(NamedTuple):
    """Masks of the decoder's attention to the canvas and to the source; None: nothing is masked."""

    canvas: Tensor | None
    source: Tensor | None


@dataclass
class CmlmEncoderOutput(BaseModelOutput):
    """Encoder states of the source tokens, and the length head's scores.

    Args:
        last_hidden_state: (batch, source, d_model); the length vector's position is already
            dropped.
        hidden_states, attentions: one tensor a layer when asked for; in these the length position
            stands first, except in the last of `hidden_states`, which is `last_hidden_state`.
        length_logits: (batch, max_target_length + 1) fp32, or float64 of a float64 model; class 0
            is excluded.
    """

    length_logits: torch.FloatTensor | None = None


@dataclass
class CmlmSeq2SeqModelOutput(Seq2SeqModelOutput):
    """`Seq2SeqModelOutput` with `length_logits` (batch, max_target_length + 1)."""

    length_logits: torch.FloatTensor | None = None


@dataclass
class CmlmSeq2SeqLMOutput(ModelOutput):
    """What `CmlmForConditionalGeneration.forward` returns.

    Args:
        loss: scalar, nats per scored label, as `CmlmForConditionalGenerationLoss` defines it.
        logits: (batch, canvas, vocab); None where `config.fused_loss` made the loss without them.
        length_logits: (batch, max_target_length + 1) fp32, or float64 of a float64 model.
        token_loss, length_loss: scalars without gradient, nats summed over the batch.
        num_skipped_targets, num_skipped_predictions: (batch,) of the alignment, long; float, the
            expected numbers, with `config.axe_temperature` over 0; AXE only.
        others: as in `Seq2SeqLMOutput`.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmSeq2SeqLMOutput
        >>> CmlmSeq2SeqLMOutput(loss=torch.tensor(2.5), logits=torch.zeros(1, 4, 9)).to_tuple()[0]
        tensor(2.5000)
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    length_logits: torch.FloatTensor | None = None
    token_loss: torch.FloatTensor | None = None
    length_loss: torch.FloatTensor | None = None
    num_skipped_targets: Tensor | None = None
    num_skipped_predictions: Tensor | None = None
    decoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    decoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None
    encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    encoder_attentions: tuple[torch.FloatTensor, ...] | None = None


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[Tensor, Tensor]:
    """Softmax attention that also returns its weights (batch, heads, queries, keys)."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.softmax(weights, dim=-1)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class CmlmAttention(nn.Module):
    """Multi-head attention without causality, over its own input or over given keys and values."""

    def __init__(self, config: CmlmConfig, num_heads: int, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.d_model // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        # SDPA and flash attention read this when there is no mask, and take its absence for True.
        self.is_causal = False
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def _split_heads(self, states: Tensor) -> Tensor:
        states = states.view(*states.shape[:-1], -1, self.head_dim)
        return states.transpose(1, 2)  # (batch, heads, length, head_dim)

    def project_queries(self, states: Tensor) -> Tensor:
        """(batch, heads, length, head_dim) of `states` (batch, length, d_model)."""
        return self._split_heads(self.q_proj(states))

    def project_key_values(self, states: Tensor) -> KeyValues:
        """Keys and values of `states` (batch, length, d_model)."""
        keys, values = self.k_proj(states), self.v_proj(states)
        return KeyValues(self._split_heads(keys), self._split_heads(values))

    def project(self, states: Tensor) -> tuple[Tensor, KeyValues]:
        """Queries, keys and values of the same `states`."""
        return self.project_queries(states), self.project_key_values(states)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | EncoderMasks | None = None,
        key_values: KeyValues | None = None,
        is_over_source: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        if key_values is None:
            query, key_values = self.project(hidden_states)
        else:
            query = self.project_queries(hidden_states)
        if isinstance(attention_mask, EncoderMasks):
            output, weights = self._attend_in_two(query, key_values, attention_mask, **kwargs)
        else:
            what = (query, key_values, attention_mask, is_over_source)
            output, weights = self._attend(*what, **kwargs)
        return self.out_proj(output.reshape(hidden_states.shape).contiguous()), weights

    def _attend(
        self,
        query: Tensor,
        key_values: KeyValues,
        attention_mask: Tensor | None,
        has_other_keys: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        """(batch, queries, heads, head_dim), and the weights where attention gives them."""
        implementation = self.config._attn_implementation
        if has_other_keys and isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
            # Flash attention would take the padding of the keys for that of the queries too.
            implementation, attention_mask = "sdpa", attention_mask[:, None, None].bool()
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            implementation, eager_attention_forward
        )
        kwargs |= {"dropout": self.dropout if self.training else 0.0, "scaling": self.scaling}
        return attention_interface(self, query, *key_values, attention_mask, **kwargs)

    def _attend_in_two(
        self, query: Tensor, key_values: KeyValues, masks: EncoderMasks, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """As `_attend`, where the first position sees all, the others do not see the first.

        In two calls, and not by a mask over both: flash attention takes none, and other kernels are
        slower with one.
        """
        others = KeyValues(*(part[:, :, 1:] for part in key_values))
        first = self._attend(query[:, :, :1], key_values, masks.length, True, **kwargs)
        rest = self._attend(query[:, :, 1:], others, masks.tokens, **kwargs)
        (output, weights), (other_output, other_weights) = first, rest
        if weights is not None and other_weights is not None:
            weights = torch.cat([weights, F.pad(other_weights, (1, 0))], dim=2)
        return torch.cat([output, other_output], dim=1), weights


class CmlmLayer(GradientCheckpointingLayer):
    """What encoder and decoder layers share: residual blocks, normalised before or after."""

    def __init__(self, config: CmlmConfig, num_heads: int, ffn_dim: int, layer_idx: int):
        super().__init__()
        self.normalize_before = config.normalize_before
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation_fn = ACT2FN[config.activation_function]
        self.self_attn = CmlmAttention(config, num_heads, layer_idx)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)

    def _block_input(self, hidden_states: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(hidden_states) if self.normalize_before else hidden_states

    def _residual(self, hidden_states: Tensor, norm: nn.LayerNorm, block: Callable) -> Tensor:
        output = block(self._block_input(hidden_states, norm))
        if self.training:
            output = F.dropout(output, p=self.dropout)
        hidden_states = hidden_states + output
        return hidden_states if self.normalize_before else norm(hidden_states)

    def _feed_forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.activation_fn(self.fc1(hidden_states))
        if self.training:
            hidden_states = F.dropout(hidden_states, self.activation_dropout)
        return self.fc2(hidden_states)


class CmlmEncoderLayer(CmlmLayer):
    """Self-attention, then feed-forward."""

    def __init__(self, config: CmlmConfig, layer_idx: int):
        super().__init__(config, config.encoder_attention_heads, config.encoder_ffn_dim, layer_idx)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | EncoderMasks | None,
        others: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        """New states of `hidden_states` (batch, length, d_model), which read themselves and, where
        they are given, `others` (batch, any, d_model) behind them."""

        def attend(states: Tensor) -> Tensor:
            if others is None:
                return self.self_attn(states, attention_mask, **kwargs)[0]
            other_input = self._block_input(others, self.self_attn_layer_norm)
            parts = map(self.self_attn.project_key_values, (states, other_input))
            key_values = KeyValues(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)))
            return self.self_attn(states, attention_mask, key_values, True, **kwargs)[0]

        hidden_states = self._residual(hidden_states, self.self_attn_layer_norm, attend)
        return self._residual(hidden_states, self.final_layer_norm, self._feed_forward)


class CmlmDecoderLayer(CmlmLayer):
    """Self-attention over the canvas, attention over the source, then feed-forward."""

    def __init__(self, config: CmlmConfig, layer_idx: int):
        super().__init__(config, config.decoder_attention_heads, config.decoder_ffn_dim, layer_idx)
        self.encoder_attn = CmlmAttention(config, config.decoder_attention_heads, layer_idx)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)

    def project_source(self, encoder_hidden_states: Tensor) -> KeyValues:
        """Keys and values of cross-attention, outside of `forward`; FSDP gathers whole layers."""
        return self.encoder_attn.project_key_values(encoder_hidden_states)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None = None,
        key_values: KeyValues | None = None,
        query_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        if key_values is None:
            key_values = self.encoder_attn.project_key_values(encoder_hidden_states)
        num_sources = key_values.keys.shape[0]
        own_key_values = None
        if query_positions is not None:  # every position is a key, some are queries
            block_input = self._block_input(hidden_states, self.self_attn_layer_norm)
            own_key_values = self.self_attn.project_key_values(block_input)
            index = query_positions[:, :, None].expand(-1, -1, hidden_states.shape[-1])
            hidden_states = hidden_states.gather(1, index)  # (canvases, queries, d_model)

        def read_source(states: Tensor) -> Tensor:
            # Canvases of one source stand side by side as queries, so that no key is repeated:
            # (sources, canvases of each * canvas, d_model)
            queries = states.reshape(num_sources, -1, states.shape[-1])
            mask = _first_queries(encoder_attention_mask, queries.shape[1])
            output = self.encoder_attn(queries, mask, key_values, is_over_source=True, **kwargs)[0]
            return output.view(states.shape)

        def read_canvas(states: Tensor) -> Tensor:
            mask = _first_queries(attention_mask, states.shape[1])
            return self.self_attn(states, mask, own_key_values, **kwargs)[0]

        hidden_states = self._residual(hidden_states, self.self_attn_layer_norm, read_canvas)
        hidden_states = self._residual(hidden_states, self.encoder_attn_layer_norm, read_source)
        return self._residual(hidden_states, self.final_layer_norm, self._feed_forward)


def _first_queries(mask: Tensor | None, num_queries: int) -> Tensor | None:
    """The mask of fewer queries: without causality each query sees the same keys."""
    if isinstance(mask, Tensor) and mask.dim() == 4:
        return mask[:, :, :num_queries]
    return mask


def check_mask(name: str, mask: Tensor | None, states: Tensor) -> None:
    """Refuse a mask that is not (batch, length) for `states` (batch, length, any)."""
    found = getattr(mask, "shape", [type(mask).__name__])
    is_unread = mask is None or torch.compiler.is_compiling()
    if not is_unread and found != states.shape[:2]:
        expected = tuple(states.shape[:2])
        raise ValueError(f"`{name}` must be a tensor {expected}, got {tuple(found)}.")


class CmlmSinusoidalPositionalEmbedding(nn.Embedding):
    """Fixed sinusoids (Vaswani et al. 2017, section 3.5), first the sines, then the cosines."""

    def __init__(self, num_positions: int, embedding_dim: int):
        super().__init__(num_positions, embedding_dim, _freeze=True)

    def create_weight(self) -> Tensor:
        num_positions, dim = self.weight.shape
        num_sines = (dim + 1) // 2
        frequencies = torch.exp(torch.arange(num_sines) * (-2 * math.log(10000.0) / dim))
        angles = torch.arange(num_positions)[:, None] * frequencies  # (positions, sines)
        weight = torch.cat([angles.sin(), angles.cos()[:, : dim - num_sines]], dim=1)
        return weight.to(self.weight.dtype)


class CmlmPreTrainedModel(PreTrainedModel):
    """Weights initialisation and loading, shared by every CMLM class.

    Example:
        >>> from axe_hf import CmlmForConditionalGeneration, CmlmPreTrainedModel
        >>> issubclass(CmlmForConditionalGeneration, CmlmPreTrainedModel)
        True
    """

    config: CmlmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CmlmEncoderLayer", "CmlmDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    # Which weights were new or left over in loading; training, for which that is right, forgets it.
    loading_problem: str | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in Transformers, but `generate` will refuse a model with weights drawn or NaN."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        for module in model.modules():
            if isinstance(module, CmlmSinusoidalPositionalEmbedding):
                module.weight.requires_grad_(False)  # which loading forgets
        named = [(name, p) for name, p in model.named_parameters() if not p.is_meta]
        if getattr(model, "hf_quantizer", None) is not None:
            named = [(name, p.dequantize()) for name, p in named]
        broken = [name for name, p in named if not p.isfinite().all()]
        kinds = ("missing_keys", "mismatched_keys", "unexpected_keys")
        wrong = [f"{kind}: {', '.join(map(str, info[kind]))}" for kind in kinds if info.get(kind)]
        if broken:  # in attention's keys it may never reach the logits
            wrong.append(f"some hold NaN or infinity: {', '.join(broken)}")
        model.loading_problem = f"{'; '.join(wrong):.300}" if wrong else None
        return (model, info) if output_loading_info else model

    def load_adapter(self, peft_model_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers, whose `from_pretrained` of an adapter calls it; with its settings."""
        result = super().load_adapter(peft_model_id, *args, **kwargs)
        if peft_model_id is not None:
            given = (kwargs.get("adapter_kwargs") or {}) | kwargs
            names = ("revision", "token", "cache_dir", "local_files_only")
            where = {name: given[name] for name in names if given.get(name) is not None}
            self.take_settings_of_adapter(peft_model_id, **where)
        return result

    def take_settings_of_adapter(self, name: Any, **where: Any) -> None:
        """Go by what training wrote beside an adapter: how it decodes, and the canvas's recipe."""
        quiet = {"_raise_exceptions_for_missing_entries": False}
        file = cached_file(name, SETTINGS_OF_ADAPTER, **quiet, **where)
        if file is None:  # written by something else
            return
        with open(file, encoding="utf-8") as text:
            found = json.load(text)
        settings = {key: found[key] for key in SETTINGS_WITH_ADAPTER if key in found}
        CmlmConfig(**settings)  # which refuses what cannot be
        for key, value in settings.items():
            setattr(self.config, key, value)
        if hasattr(self, "generation_config_class"):
            self.generation_config = self.generation_config_class.from_pretrained(name, **where)

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        files = () if load_config.is_quantized else checkpoint_files or ()
        for file in files:
            for name, tensor in load_state_dict(file, map_location="meta").items():
                if name.endswith(("weight", "bias")) and not tensor.is_floating_point():
                    expected = f"{file}: {name} must be floating point, got {tensor.dtype}"
                    raise ValueError(f"{expected}. Take what it was quantized from.")
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers, with the code: others then load the model without this package."""
        with self.config.with_code():
            return super().push_to_hub(*args, **kwargs)

    def train(self, mode: bool = True):
        self.loading_problem = None if mode else self.loading_problem
        return super().train(mode)

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
        norm = partial(nn.LayerNorm, config.d_model, config.layer_norm_eps)
        self.layernorm_embedding = norm() if config.layernorm_embedding else nn.Identity()
        self.layer_norm = norm() if config.normalize_before else nn.Identity()
        self.gradient_checkpointing = False

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, name: str) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(f"Give either `{name}` or the embeddings in its place, and not both.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)  # (batch, length, d_model)
        if (length := inputs_embeds.shape[1]) > self.max_length:
            limit = f"`config.{self.max_length_name}` is {self.max_length}"
            advice = "Truncate the text, or train a model with a larger limit."
            raise ValueError(f"`{name}` has {length} positions but {limit}. {advice}")
        positions = torch.arange(length, device=inputs_embeds.device)
        return inputs_embeds * self.embed_scale + self.embed_positions(positions)

    def _begin(self, embeddings: Tensor) -> Tensor:
        """What the first layer reads."""
        return F.dropout(self.layernorm_embedding(embeddings), self.config.dropout, self.training)


class CmlmEncoder(CmlmStack):
    """Bidirectional encoder, the learned length vector in front (Mask-Predict, section 3.3)."""

    _can_record_outputs = {"hidden_states": CmlmEncoderLayer, "attentions": CmlmAttention}

    def __init__(self, config: CmlmConfig):
        super().__init__(config, config.max_source_length, "max_source_length")
        self.embed_lengths = nn.Embedding(config.max_target_length + 1, config.d_model)
        layers = (CmlmEncoderLayer(config, i) for i in range(config.encoder_layers))
        self.layers = nn.ModuleList(layers)
        self.post_init()

    def _length_vectors(self) -> Tensor:
        """`(max_target_length + 1, d_model)`, with what an adapter adds to them."""
        lengths, weight = self.embed_lengths, self.embed_lengths.weight
        if type(lengths) is nn.Embedding:
            return weight
        return lengths(torch.arange(len(weight), device=weight.device))

    def _length_logits(self, length_state: Tensor) -> Tensor:
        with torch.autocast(device_type=length_state.device.type, enabled=False):
            weight = self._length_vectors()
            dtype = torch.promote_types(weight.dtype, torch.float32)
            # (batch, max_target_length + 1)
            logits = length_state.to(dtype) @ weight.to(dtype).T
        is_class_zero = torch.arange(logits.shape[-1], device=logits.device) == 0
        return logits.masked_fill(is_class_zero, torch.finfo(logits.dtype).min)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CmlmEncoderOutput:
        """Encode `input_ids` (batch, source); `attention_mask` (batch, source) is 1 for tokens."""
        hidden_states = self._embed(input_ids, inputs_embeds, "input_ids")
        check_mask("attention_mask", attention_mask, hidden_states)
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        length_vector = self._length_vectors()[0].expand(hidden_states.shape[0], 1, -1)
        length_vector = length_vector.to(hidden_states.dtype)
        masks = self._masks(hidden_states, attention_mask)
        if isinstance(masks, EncoderMasks) and self._is_frozen_for(hidden_states, kwargs):
            return self._encode_frozen(hidden_states, length_vector, masks, **kwargs)
        hidden_states = self._begin(torch.cat([length_vector, hidden_states], dim=1))
        for layer in self.layers:
            hidden_states = layer(hidden_states, masks, **kwargs)
        hidden_states = self.layer_norm(hidden_states)
        return CmlmEncoderOutput(
            last_hidden_state=hidden_states[:, 1:],
            length_logits=self._length_logits(hidden_states[:, 0]),
        )

    def _masks(self, tokens: Tensor, attention_mask: Tensor | None) -> Tensor | EncoderMasks | None:
        """What the layers take for masks of the length position and `tokens` (batch, source, any).

        Of `tokens` shape and type are read.
        """
        make = partial(create_bidirectional_mask, config=self.config)
        batch, length, _ = tokens.shape
        states = tokens.new_zeros(1).expand(batch, 1 + length, 1)
        of_all = None if attention_mask is None else F.pad(attention_mask, (1, 0), value=1)
        if not self.config.hide_length_token:
            return make(inputs_embeds=states, attention_mask=of_all)
        options = {"attention_mask": of_all, "encoder_hidden_states": states}
        length_mask = make(inputs_embeds=states[:, :1], **options)
        return EncoderMasks(make(inputs_embeds=tokens, attention_mask=attention_mask), length_mask)

    def _is_frozen_for(self, embeddings: Tensor, kwargs: Any) -> bool:
        """Whether nothing but the lengths' vectors could get a gradient from this pass."""
        if not torch.is_grad_enabled() or embeddings.requires_grad:
            return False
        names = (f"output_{name}" for name in self._can_record_outputs)
        is_recorded = any(kwargs.get(n, getattr(self.config, n, False)) for n in names)
        own, weights = self.embed_lengths.weight, self.parameters()
        return not (is_recorded or any(w.requires_grad for w in weights if w is not own))

    def _encode_frozen(
        self, embeddings: Tensor, length_vector: Tensor, masks: EncoderMasks, **kwargs: Any
    ) -> CmlmEncoderOutput:
        """The same states, by a gradient through the length position alone.

        The tokens do not see it, so it passes through the layers by itself, after them.
        """
        layer_inputs = []
        with torch.no_grad():
            tokens = self._begin(embeddings)
            for layer in self.layers:
                layer_inputs.append(tokens)
                tokens = layer(tokens, masks.tokens, **kwargs)
            tokens = self.layer_norm(tokens)
        length_state = self._begin(length_vector)
        for layer, others in zip(self.layers, layer_inputs, strict=True):
            length_state = layer(length_state, masks.length, others, **kwargs)
        length_logits = self._length_logits(self.layer_norm(length_state)[:, 0])
        return CmlmEncoderOutput(last_hidden_state=tokens, length_logits=length_logits)


class CmlmDecoder(CmlmStack):
    """Bidirectional decoder over the canvas."""

    _can_record_outputs = {
        "hidden_states": CmlmDecoderLayer,
        "attentions": OutputRecorder(CmlmAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(CmlmAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: CmlmConfig):
        super().__init__(config, config.max_target_length, "max_target_length")
        layers = (CmlmDecoderLayer(config, i) for i in range(config.decoder_layers))
        self.layers = nn.ModuleList(layers)
        self.post_init()

    def project_source(self, encoder_hidden_states: Tensor) -> tuple[KeyValues, ...]:
        """Cross-attention keys and values of every layer, the same in all passes of a decoding."""
        return tuple(layer.project_source(encoder_hidden_states) for layer in self.layers)

    def attention_masks(
        self,
        is_canvas: Tensor | None,
        is_source: Tensor | None,
        canvas_states: Tensor,
        source_states: Tensor,
    ) -> AttentionMasks:
        """What the layers take for masks, the same in all passes of a decoding.

        `is_canvas` (canvases, canvas) and `is_source` (sources, source) are 0 behind the end, None
        where there is no such place; of the states (canvases, canvas, any), (sources, source, any)
        shape and type are read.
        """
        num_sources, width = source_states.shape[0], canvas_states.shape[-1]
        if (got := canvas_states.shape[0]) % num_sources:
            found = f"{got} do not fit {num_sources} texts"
            raise ValueError(f"`decoder_input_ids` or `labels`: {found}.")
        canvas_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=canvas_states, attention_mask=is_canvas
        )
        source_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=canvas_states.reshape(num_sources, -1, width),
            attention_mask=is_source,
            encoder_hidden_states=source_states,
        )
        return AttentionMasks(canvas_mask, source_mask)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        source_key_values: tuple[KeyValues, ...] | None = None,
        masks: AttentionMasks | None = None,
        query_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithCrossAttentions:
        """Read the canvases `input_ids` (sources * canvases of each, canvas).

        `source_key_values` (from `project_source`) and `masks` (from `attention_masks`) stand in
        for `encoder_hidden_states` and the attention masks. With `query_positions` (canvases,
        queries) the last layer answers for these positions only: its states are (canvases, queries,
        d_model).
        """
        hidden_states = self._begin(self._embed(input_ids, inputs_embeds, "decoder_input_ids"))
        if masks is None:
            check_mask("decoder_attention_mask", attention_mask, hidden_states)
            if attention_mask is None and input_ids is not None:
                attention_mask = input_ids.ne(self.config.pad_token_id)
            source_states = encoder_hidden_states
            if source_key_values is not None:  # keys (sources, heads, source, head_dim)
                source_states = source_key_values[0].keys[:, 0]
            check_mask("attention_mask", encoder_attention_mask, source_states)
            masks = self.attention_masks(
                attention_mask, encoder_attention_mask, hidden_states, source_states
            )
        for i, layer in enumerate(self.layers):
            is_last = i == len(self.layers) - 1
            hidden_states = layer(
                hidden_states,
                masks.canvas,
                encoder_hidden_states,  # positional, for gradient checkpointing
                encoder_attention_mask=masks.source,
                key_values=None if source_key_values is None else source_key_values[i],
                query_positions=query_positions if is_last else None,
                **kwargs,
            )
        return BaseModelOutputWithCrossAttentions(last_hidden_state=self.layer_norm(hidden_states))


class CmlmModel(CmlmPreTrainedModel):
    """Encoder and decoder without the output projection.

    Args:
        config: a `CmlmConfig`.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmModel
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1,
        ...                     max_source_length=20, max_target_length=20)
        >>> model = CmlmModel(config).eval()
        >>> source, canvas = torch.tensor([[7, 8, 9, 1]]), torch.full((1, 3), config.mask_token_id)
        >>> outputs = model(input_ids=source, decoder_input_ids=canvas)
        >>> outputs.last_hidden_state.shape, outputs.length_logits.shape
        (torch.Size([1, 3, 16]), torch.Size([1, 21]))
    """

    _tied_weights_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: CmlmConfig):
        super().__init__(config)
        if config.tie_word_embeddings:
            self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = CmlmEncoder(config)
        self.decoder = CmlmDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared if self.config.tie_word_embeddings else self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding):
        self.encoder.embed_tokens = value
        if self.config.tie_word_embeddings:
            self.shared = self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CmlmSeq2SeqModelOutput:
        """Run both; the arguments are as in `CmlmForConditionalGeneration.forward`."""
        for name, ids in {"input_ids": input_ids, "decoder_input_ids": decoder_input_ids}.items():
            if ids is not None:
                check_ids(name, ids, self.config.vocab_size)
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        if encoder_outputs is None:
            inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
            encoder_outputs = self.encoder(**inputs, attention_mask=attention_mask, **kwargs)
        elif not isinstance(encoder_outputs, ModelOutput):
            encoder_outputs = CmlmEncoderOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            **kwargs,
        )
        return CmlmSeq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
            length_logits=getattr(encoder_outputs, "length_logits", None),
        )


class CmlmForConditionalGeneration(CmlmPreTrainedModel, MaskPredictGenerationMixin):
    """CMLM with its output projection, its training loss and Mask-Predict decoding (`generate`).

    Args:
        config: a `CmlmConfig`; it also holds the choice and the settings of the loss.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> config = CmlmConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1,
        ...                     max_source_length=20, max_target_length=20)
        >>> model = CmlmForConditionalGeneration(config)
        >>> source, target = torch.tensor([[7, 8, 9, 1]]), torch.tensor([[17, 18, 1]])
        >>> model(input_ids=source, labels=target).loss.backward()  # AXE on a fully masked canvas
        >>> model.eval().generate(source, num_iterations=2).shape[0]
        1
    """

    _tied_weights_keys = {"lm_head.weight": "model.shared.weight"}
    generation_config_class = MaskPredictGenerationConfig

    def __init__(self, config: CmlmConfig):
        super().__init__(config)
        self.model = CmlmModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.output_bias)
        self.loss_function = CmlmForConditionalGenerationLoss
        self.post_init()

    @classmethod
    def from_autoregressive(
        cls,
        model_or_name: Any,
        tokenizer: Any = None,
        *,
        kept_layers: str = "spread",
        **config: Any,
    ) -> "CmlmForConditionalGeneration":
        """A CMLM that starts from the weights of an autoregressive encoder-decoder.

        Marian, BART, mBART, M2M100, NLLB, Pegasus, PLBart, Blenderbot. The encoder computes what
        the teacher's does, since the length vector is hidden from the tokens; the decoder keeps its
        weights and loses its causal mask. The vectors of the lengths and the blank, and the mask's
        where the teacher has none, are the mean of the token embeddings. Dtype, device and mode
        (training or evaluation) are the teacher's, which is not changed.

        Args:
            model_or_name: a loaded encoder-decoder, a folder, or a name on the Hub.
            tokenizer: the teacher's; it gets, in place, the symbols that a CMLM needs. Of a name by
                default its own: `axe_hf.student_tokenizer(name)` is what belongs to the model then.
                Without one mask and blank are two new ids behind the vocabulary.
            kept_layers: which layers stay where `encoder_layers` or `decoder_layers` are fewer than
                the teacher's: "spread" (by default; first and last among them), "first", "last".
            config: fields of `CmlmConfig` in place of the teacher's, such as `decoder_layers=3`;
                `mask_token_id` and `blank_token_id` if there is no tokenizer.

        Raises:
            TypeError: something that is no model or tokenizer; a field that does not exist.
            ValueError: a teacher that cannot be expressed, with what differs; a tokenizer that is
                not its own; a field that its weights fix.
            ImportError: axe_hf is not installed (a checkpoint brings its code along, not this).

        Example:
            >>> from transformers import MarianConfig, MarianMTModel
            >>> from axe_hf import CmlmForConditionalGeneration
            >>> sizes = {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 4,
            ...          "encoder_attention_heads": 2, "decoder_attention_heads": 2}
            >>> ids = {"pad_token_id": 49, "eos_token_id": 0, "decoder_start_token_id": 49}
            >>> teacher = MarianMTModel(MarianConfig(**sizes, **ids))
            >>> start = CmlmForConditionalGeneration.from_autoregressive
            >>> student = start(teacher, decoder_layers=2)
            >>> student.config.vocab_size, student.config.blank_token_id
            (52, 51)
        """
        try:
            from axe_hf.teachers.warm_start import warm_start
        except ImportError as error:
            needed = "`from_autoregressive` needs the package axe_hf, not only a checkpoint's code"
            raise ImportError(f"{needed}: python -m pip install axe-hf ({error})") from error
        return warm_start(cls, model_or_name, tokenizer, kept_layers, config)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: CmlmEncoderOutput | BaseModelOutput | tuple | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CmlmSeq2SeqLMOutput:
        """Predict every position of the canvas and, given labels, the training loss.

        Args:
            input_ids: (batch, source) long.
            attention_mask: (batch, source), 1 for tokens; by default where no `<pad>` is.
            decoder_input_ids: the canvas, (batch, canvas) long: `<mask>` to predict, tokens that
                are observed, `<pad>` behind its end; by default, given labels, a fully masked
                canvas of each target's length.
            decoder_attention_mask: (batch, canvas); by default where no `<pad>` is.
            encoder_outputs: a `CmlmEncoderOutput`, to encode a source once.
            inputs_embeds, decoder_inputs_embeds: (batch, length, d_model), in place of the ids.
            labels: (batch, target) long, the tokens to score; -100 for padding and for observed
                positions, on a canvas as long as the target. On one of another length labels are
                whole; with `config.allow_repetition` or `axe_temperature` what it shows, blanks or
                tokens of the target, is said for nothing, otherwise all of it is scored.
            num_items_in_batch: int or tensor, what to divide by in place of the labels' number.
            is_draft: bool, by default False; whether what the canvas shows is a draft that may be
                wrong: `labels` are whole then, and all of them are scored.

        Returns:
            `CmlmSeq2SeqLMOutput`; in training, `config.fused_loss` decides whether it holds logits.
        """
        if labels is not None:
            check_ids("labels", labels, self.config.vocab_size)
        has_canvas = decoder_input_ids is not None or decoder_inputs_embeds is not None
        if labels is not None and not has_canvas:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        is_silent = torch.compiler.is_compiling() or not torch.is_grad_enabled()
        if labels is None and has_canvas and self.training and not is_silent:
            logger.warning_once(_WITHOUT_LABELS)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        is_draft = kwargs.pop("is_draft", False)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            **kwargs,
        )
        results: dict = dict(outputs)
        hidden_states = results.pop("last_hidden_state")
        is_training = self.training and labels is not None
        is_fused = is_training and is_loss_fused(hidden_states, self.lm_head, self.config)
        logits = None if is_fused else self.lm_head(hidden_states)  # (batch, canvas, vocab)
        if labels is not None:
            losses = self.loss_function(
                logits=logits,
                length_logits=outputs.length_logits,
                labels=labels,
                canvas=decoder_input_ids,
                config=self.config,
                num_items_in_batch=num_items_in_batch,
                hidden_states=hidden_states,
                lm_head=self.lm_head,
                is_draft=is_draft,
            )
            results |= vars(losses)
        return CmlmSeq2SeqLMOutput(logits=logits, **results)

    def prepare_decoder_input_ids_from_labels(
        self, labels: torch.LongTensor, length_multiplier: float | None = None
    ) -> torch.LongTensor:
        """A fully masked canvas for each of the `labels` (batch, target), -100 behind the end.

        It has `length_multiplier` (by default that of `config`) positions per target token, at most
        `max_target_length` in all.
        """
        length_multiplier = length_multiplier or self.config.length_multiplier
        return masked_canvas_of_labels(labels, length_multiplier, self.config)


def check_class(model: Any) -> None:
    """Raise TypeError for what is not this very class, but of remote code, wrapped by PEFT ..."""
    if getattr(model, "_hf_peft_config_loaded", False):
        problem = "must be a whole model, and this one was loaded with an adapter"
        raise TypeError(f"`model` {problem}. Load them as one: axe_hf.load_merged(...).")
    if not isinstance(model, CmlmForConditionalGeneration):
        advice = "`import axe_hf`, and load it by AutoModelForSeq2SeqLM.from_pretrained(...)."
        if hasattr(model, "merge_and_unload"):  # PEFT's
            advice = "Merge its adapter first: model.merge_and_unload()."
        kind = f"{type(model).__name__} of {type(model).__module__}"
        raise TypeError(f"`model` must be a CmlmForConditionalGeneration, got {kind}. {advice}")
