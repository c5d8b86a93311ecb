"""Configuration of the conditional masked language model (CMLM)."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

# The symbols that are no words, as configuration and tokenizer both call them.
SPECIAL_TOKEN_IDS = ("pad_token_id", "eos_token_id", "mask_token_id", "blank_token_id")


@strict
class CmlmConfig(PreTrainedConfig):
    r"""Architecture and training loss of a CMLM; the defaults are Mask-Predict's base model.

    Source: Ghazvininejad et al., "Mask-Predict" (EMNLP 2019), section 4.1 for the sizes; the AXE loss is
    Ghazvininejad et al., "Aligned Cross Entropy" (ICML 2020), section 3. `axe_delta` is ours, chosen by experiment.

    Args:
        vocab_size: number of symbols, shared by source and target, special tokens included.
        d_model: width of every hidden state.
        encoder_layers, decoder_layers: depth of each side; a deep encoder with a shallow decoder decodes faster.
        encoder_attention_heads, decoder_attention_heads: heads of each side; both must divide `d_model`.
        encoder_ffn_dim, decoder_ffn_dim: inner width of the feed-forward blocks.
        activation_function: any name in `transformers.activations.ACT2FN`.
        dropout, attention_dropout, activation_dropout: after each block, on the attention weights, inside the
            feed-forward block.
        normalize_before: layer normalisation before each block (pre-norm, with one more at the end of each
            stack) instead of after it.
        position_embedding_type: `"learned"` or `"sinusoidal"`.
        scale_embedding: multiply the token embeddings by sqrt(d_model).
        layernorm_embedding: layer normalisation after token plus position embedding.
        layer_norm_eps: epsilon of every layer normalisation.
        init_std: standard deviation of the normal initialisation.
        max_source_length: longest source in tokens, `</s>` included.
        max_target_length: longest canvas in positions, `</s>` included; also the longest length the length head knows.
        tie_word_embeddings: one matrix for source, target and output embeddings.
        pad_token_id, eos_token_id, mask_token_id, blank_token_id: ids of the special tokens; the defaults are those
            of `axe_hf.train_tokenizer`. The blank is AXE's epsilon, a symbol of its own.
        training_loss: `"axe"`, or `"cross_entropy"` for the position-wise loss of Mask-Predict.
        axe_delta: penalty factor (>= 0) of leaving a target token without a prediction of its own. With 1 a model
            learns to leave out too much (BLEU 23 where 1.5 and 2 reach 33, in the experiment of the README).
        label_smoothing: share of the loss, in [0, 1), given to the uniform distribution over the vocabulary.
        length_loss_weight: weight of the length head's negative log-likelihood, per sentence.
        fused_loss: when `forward` computes the loss, AXE or cross entropy, from the decoder's states and the output
            embedding, a few sentences at a time, with the same value and in less memory; `outputs.logits` is then
            None. `"auto"` (default): in training, given labels, where the logits would be larger than 48 MiB on a
            CPU, 256 MiB on a GPU; `"always"`: in training, given labels; `"never"`. Evaluation always has logits.

    Raises:
        StrictDataclassClassValidationError: sizes that do not fit together or special tokens that collide.

    Example:

    ```python
    >>> from axe_hf import CmlmConfig
    >>> config = CmlmConfig(vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1)
    >>> config.training_loss, config.hidden_size
    ('axe', 32)

    ```
    """

    model_type = "cmlm"
    keys_to_ignore_at_inference = [
        "length_logits",
        "encoder_last_hidden_state",
        "token_loss",
        "length_loss",
        "num_skipped_targets",
        "num_skipped_predictions",
    ]
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
        "max_position_embeddings": "max_target_length",
    }

    vocab_size: int = 32000
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "gelu"
    dropout: float | int = 0.3
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    normalize_before: bool = False
    position_embedding_type: Literal["learned", "sinusoidal"] = "learned"
    scale_embedding: bool = False
    layernorm_embedding: bool = False
    layer_norm_eps: float = 1e-12
    init_std: float | int = 0.02
    max_source_length: int = 1024
    max_target_length: int = 1024
    is_encoder_decoder: bool = True
    use_cache: bool = False
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    mask_token_id: int = 3
    blank_token_id: int = 4
    # Never fed to the decoder (a canvas has no start symbol); scripts written for autoregressive models ask for it.
    decoder_start_token_id: int | None = 1
    training_loss: Literal["axe", "cross_entropy"] = "axe"
    axe_delta: float | int = 2.0
    label_smoothing: float | int = 0.0
    length_loss_weight: float | int = 0.1
    fused_loss: Literal["auto", "always", "never"] = "auto"

    def validate_sizes(self):
        """Sizes are positive, the heads divide the width, the activation exists."""
        sizes = ("vocab_size", "d_model", "encoder_ffn_dim", "decoder_ffn_dim")
        sizes += ("encoder_layers", "decoder_layers", "max_source_length", "max_target_length")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.d_model % heads:
                raise ValueError(
                    f"`{name}` must divide `d_model`, got {heads} heads for a width of {self.d_model}."
                )
        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"`activation_function` must be a name in `transformers.activations.ACT2FN`, such as "
                f'"gelu" or "relu", got "{self.activation_function}".'
            )

    def validate_special_tokens(self):
        """Pad, end, mask and blank are four different symbols of the vocabulary."""
        ids = {name: getattr(self, name) for name in SPECIAL_TOKEN_IDS}
        for name, token_id in ids.items():
            if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                raise ValueError(
                    f"`{name}` must be one token id in [0, {self.vocab_size}), got {token_id}. Set it and "
                    "`vocab_size` from the tokenizer."
                )
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"pad, end, mask and blank must be four different tokens, got {ids}.")

    def validate_loss(self):
        """Loss settings are in range."""
        if self.axe_delta < 0:
            raise ValueError(f"`axe_delta` must be >= 0, got {self.axe_delta}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}.")
        if self.length_loss_weight < 0:
            raise ValueError(f"`length_loss_weight` must be >= 0, got {self.length_loss_weight}.")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")


__all__ = ["CmlmConfig"]
