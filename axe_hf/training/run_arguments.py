"""What a whole training run needs besides `AxeTrainingArguments`: data, tokenizer and model."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..cmlm import CmlmConfig

_CONFIG_DEFAULTS = {config_field.name: config_field.default for config_field in fields(CmlmConfig)}


def _config_field(name: str, help: str) -> Any:
    # None stands for "not given": the default is the config's own, or that of the model to fine-tune.
    return field(default=None, metadata={"help": f"{help} Default: {_CONFIG_DEFAULTS[name]}."})


@dataclass
class DataArguments:
    """Sentence pairs to train, validate and test on, and the tokenizer.

    Args:
        source_lang, target_lang: language codes as the data has them, such as "en" and "de".
        train_file, validation_file, test_file: what `load_translations` reads: JSON lines, TSV, or two text files
            joined by a comma; `.gz` too.
        dataset_name: a data set on the Hub, `owner/name` or `owner/name:config`, in place of files.
        validation_split, test_split (default None): its splits to validate and test on.
        max_source_length, max_target_length (default: the model's limits): longer pairs are left out of training; a
            new model is built for these lengths.
        tokenizer_name_or_path (default None): a tokenizer to use; else that of the model to fine-tune, or one that is
            trained on the training data.
        vocab_size, tokenizer_algorithm (default: those of `train_tokenizer`): of a tokenizer to train.

    Raises:
        ValueError: settings that exclude each other, or a length below 2.

    Example:

    ```python
    >>> from axe_hf import DataArguments
    >>> DataArguments("en", "de", train_file="train.tsv", vocab_size=4000).target_lang
    'de'

    ```
    """

    source_lang: str = field(metadata={"help": "Code of the source language in the data, e.g. en."})
    target_lang: str = field(metadata={"help": "Code of the target language in the data, e.g. de."})
    train_file: str | None = field(
        default=None,
        metadata={
            "help": 'Training pairs: JSON lines {"translation": {"en": ..., "de": ...}}, TSV, or two text files '
            "'train.en,train.de'; .gz too."
        },
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "Pairs to evaluate on while training, in the same forms."}
    )
    test_file: str | None = field(
        default=None, metadata={"help": "Pairs to score once at the end, in the same forms."}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A data set on the Hub, owner/name or owner/name:config, instead of files."
        },
    )
    validation_split: str | None = field(
        default=None, metadata={"help": "Split of dataset_name to evaluate on, e.g. validation."}
    )
    test_split: str | None = field(
        default=None, metadata={"help": "Split of dataset_name to score at the end, e.g. test."}
    )
    max_source_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest source in tokens; longer pairs are left out of training. Default: "
            f"{_CONFIG_DEFAULTS['max_source_length']}, or the limit of the model to fine-tune."
        },
    )
    max_target_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest target in tokens; longer pairs are left out of training. Default: "
            f"{_CONFIG_DEFAULTS['max_target_length']}, or the limit of the model to fine-tune."
        },
    )
    tokenizer_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A tokenizer to use. If not given, one is trained on the training data."},
    )
    vocab_size: int | None = field(
        default=None, metadata={"help": "Symbols of the tokenizer to train. Default: 8000."}
    )
    tokenizer_algorithm: Literal["bpe", "unigram"] | None = field(
        default=None, metadata={"help": "Kind of the tokenizer to train. Default: bpe."}
    )

    def __post_init__(self):
        if (self.train_file is None) == (self.dataset_name is None):
            raise ValueError(
                f"Give either `train_file` or `dataset_name`, got {self.train_file!r} and {self.dataset_name!r}."
            )
        splits = {"validation_split": self.validation_split, "test_split": self.test_split}
        for name, split in splits.items():
            if split is not None and self.dataset_name is None:
                raise ValueError(
                    f"`{name}` is a split of `dataset_name`, which is missing. With files use "
                    f"`{name.removesuffix('_split')}_file`."
                )
            if split is not None and getattr(self, name.replace("_split", "_file")) is not None:
                raise ValueError(f"Give `{name}` or a file, not both, got {split!r} and a file.")
        if self.tokenizer_name_or_path is not None:
            for name in ("vocab_size", "tokenizer_algorithm"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"`{name}` is for a tokenizer to train, but `tokenizer_name_or_path` names one."
                    )
        for name in ("max_source_length", "max_target_length"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"`{name}` must be at least 2, a word and </s>, got {value}.")


@dataclass
class ModelArguments:
    """The model: one to fine-tune, or the sizes of a new one; and its loss. The names are those of `CmlmConfig`.

    Args:
        model_name_or_path (default None): a CMLM to fine-tune, a folder or a name on the Hub. Its architecture stays;
            dropout and loss can be set anew.
        attn_implementation (default None): how attention is computed in this run, as in `from_pretrained`.
        others (default None): replace the default of `CmlmConfig`, or what the model to fine-tune has.

    Example:

    ```python
    >>> from axe_hf import ModelArguments
    >>> ModelArguments(d_model=256, axe_delta=1.5).given() == {"d_model": 256, "axe_delta": 1.5}
    True

    ```
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A model to fine-tune: a folder or a name on the Hub. If not given, a new one."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "eager, sdpa or flash_attention_2; not saved with the model. On a CPU with --bf16, eager is several "
            "times faster than the default. Default: sdpa."
        },
    )
    d_model: int | None = _config_field("d_model", "Width of every hidden state.")
    encoder_layers: int | None = _config_field("encoder_layers", "Layers of the encoder.")
    decoder_layers: int | None = _config_field("decoder_layers", "Layers of the decoder.")
    encoder_attention_heads: int | None = _config_field(
        "encoder_attention_heads", "Attention heads of the encoder."
    )
    decoder_attention_heads: int | None = _config_field(
        "decoder_attention_heads", "Attention heads of the decoder."
    )
    encoder_ffn_dim: int | None = _config_field(
        "encoder_ffn_dim", "Feed-forward width of the encoder."
    )
    decoder_ffn_dim: int | None = _config_field(
        "decoder_ffn_dim", "Feed-forward width of the decoder."
    )
    activation_function: str | None = _config_field("activation_function", "Activation function.")
    normalize_before: bool | None = _config_field(
        "normalize_before", "Layer normalization before each block instead of after it."
    )
    position_embedding_type: Literal["learned", "sinusoidal"] | None = _config_field(
        "position_embedding_type", "Position embeddings."
    )
    scale_embedding: bool | None = _config_field(
        "scale_embedding", "Multiply embeddings by the square root of d_model."
    )
    layernorm_embedding: bool | None = _config_field(
        "layernorm_embedding", "Layer normalization after the embeddings."
    )
    tie_word_embeddings: bool | None = _config_field(
        "tie_word_embeddings", "One matrix for source, target and output embeddings."
    )
    dropout: float | None = _config_field("dropout", "Dropout after each block.")
    attention_dropout: float | None = _config_field(
        "attention_dropout", "Dropout on the attention weights."
    )
    activation_dropout: float | None = _config_field(
        "activation_dropout", "Dropout inside the feed-forward blocks."
    )
    training_loss: Literal["axe", "cross_entropy"] | None = _config_field(
        "training_loss", "Loss: aligned cross entropy, or cross entropy position by position."
    )
    axe_delta: float | None = _config_field(
        "axe_delta", "AXE's penalty factor for a target token without a prediction of its own."
    )
    label_smoothing: float | None = _config_field(
        "label_smoothing", "Share of the loss given to the uniform distribution."
    )
    length_loss_weight: float | None = _config_field(
        "length_loss_weight", "Weight of the length prediction's loss."
    )

    def given(self) -> dict[str, Any]:
        """The fields of `CmlmConfig` that were set, by name."""
        names = _CONFIG_DEFAULTS.keys() & {f.name for f in fields(self)}
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
