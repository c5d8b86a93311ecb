"""Arguments of a training run. The docstrings explain each, and nothing else does: the fields' help
(for an `HfArgumentParser`) and the options of `axe-hf train` are taken from there."""

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from transformers import Seq2SeqTrainingArguments

from ..cmlm.configuration_cmlm import CmlmConfig
from ..data.collator import check_canvas_options, is_canvas_stretched
from ..declarations import argument_texts

_T = TypeVar("_T")
_CONFIG_DEFAULTS = {f.name: f.default for f in fields(CmlmConfig)}


def _with_help(kind: type[_T]) -> type[_T]:
    """Put what the docstring says of each field, or `CmlmConfig`'s, where parsers look for it."""
    texts = {
        name: f"{text}. Default: {_CONFIG_DEFAULTS[name]}"
        for name, text in argument_texts(CmlmConfig.__doc__).items()
    } | argument_texts(kind.__doc__)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in kind.__annotations__:
            field.metadata = MappingProxyType({"help": texts[field.name]})
    return kind


@_with_help
@dataclass
class AxeTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the defaults and the few settings a CMLM needs.

    The recipe of Mask-Predict (EMNLP 2019, section 4.1; in brackets): learning rate 5e-4 (5e-4),
    warm-up 5 % of the run (10,000 of 300,000 steps), linear decay (inverse square root; ours,
    because it ends a short run at a rate of 0: `lr_scheduler_type="inverse_sqrt"` has theirs),
    Adam's epsilon 1e-6 and second moment 0.999 (the same), weight decay 0.01 (0.01). Dropout and
    label smoothing live in `CmlmConfig`. The batches there hold about 128,000 tokens.

    Args:
        max_tokens_per_batch (default None): tokens in one batch of one device, padding included
            (rows times the longer of the two sides), instead of `per_device_train_batch_size`
            sentences. On a CPU 500 to 2000 learn most per minute; a large GPU takes 8192 and more.
        masking (default "uniform"): canvases in training: "uniform" hides 1 to N tokens of each
            target, as Mask-Predict trains; "full" hides all, for models that decode in one pass. A
            `data_collator` given to the trainer overrides it.
        length_multiplier (default 1.0): canvas positions per target token in training, with
            `masking="full"` and AXE; also put into `model.generation_config`, since a model wants
            canvases like those it was trained on. Over 1 it leaves room for blanks, without which
            AXE hardly differs from cross entropy on a full mask: 1.4 serves AXE well.
        length_jitter (default 0): share by which each canvas is drawn longer or shorter, under the
            same two conditions, to prepare for lengths predicted wrongly: 0.2 serves AXE well.
        train_minutes (default None): wall-clock budget of the training loop in minutes, evaluation
            and saving not counted. The learning rate follows max(step / max_steps, elapsed /
            budget), and training ends with it. Resuming continues the same budget.
        ema_decay (default None): decay of an exponential moving average of the weights, for
            instance 0.999, which is what gets evaluated and saved.
        num_train_epochs (default None): passes over the training data; 3, or as many as
            `train_minutes` has room for.
        per_device_train_batch_size (default 64): sentences in one batch of one device, where
            `max_tokens_per_batch` is not given.
        per_device_eval_batch_size (default 64): sentences in one batch of one device in evaluation.
        learning_rate (default 5e-4): highest learning rate.
        warmup_steps (default 0.05): steps of linear warm-up; below 1, their share of the whole run.
        weight_decay (default 0.01): weight decay of AdamW.
        adam_epsilon (default 1e-6): epsilon of AdamW.
        label_smoothing_factor (default 0): if positive, replaces `label_smoothing` in the model's
            config (AXE smooths in its own way; Transformers' position-wise one is never used).
        predict_with_generate (default True): translate the evaluation data and score the
            translations (needs sacrebleu).
        logging_steps (default 100): log every so many steps, or below 1 this share of the run.
        logging_nan_inf_filter (default False): leave losses that are nan or infinite out of logs.
        save_total_limit (default 5): checkpoints to keep; the oldest is deleted first.
        report_to (default "none"): where to log besides the terminal, such as tensorboard or wandb.
        ddp_find_unused_parameters (default False): as in `DistributedDataParallel`; every parameter
            of a CMLM is used in every step.
        others: as in `Seq2SeqTrainingArguments`.

    Raises:
        ValueError: a value out of its range, or settings that exclude each other.

    Example:
        >>> from axe_hf import AxeTrainingArguments
        >>> args = AxeTrainingArguments("runs/en-de", max_tokens_per_batch=4096, train_minutes=10)
        >>> args.learning_rate, args.predict_with_generate
        (0.0005, True)
    """

    max_tokens_per_batch: int | None = None
    masking: Literal["uniform", "full"] = "uniform"
    length_multiplier: float = 1.0
    length_jitter: float = 0.0
    train_minutes: float | None = None
    ema_decay: float | None = None

    num_train_epochs: float | None = None  # type: ignore[assignment]
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_steps: float = 0.05
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-6
    label_smoothing_factor: float = 0.0
    predict_with_generate: bool = True
    logging_steps: float = 100
    logging_nan_inf_filter: bool = False
    save_total_limit: int | None = 5
    report_to: None | str | list[str] = "none"
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self):
        if self.num_train_epochs is None:  # a run with `train_minutes` ends by its clock
            self.num_train_epochs = 3.0 if self.train_minutes is None else 1e6
        super().__post_init__()
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(
                f"`max_tokens_per_batch` must be at least 1, got {self.max_tokens_per_batch}."
            )
        check_canvas_options(self.masking, self.length_multiplier, self.length_jitter)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be between 0 and 1 or None, got {self.ema_decay}.")
        if not 0 <= self.label_smoothing_factor < 1:
            raise ValueError(
                f"`label_smoothing_factor` must be in [0, 1), got {self.label_smoothing_factor}."
            )
        if self.train_minutes is not None:
            self._check_time_budget()
        if self.device.type == "cpu":  # nothing to copy to; PyTorch warns about it
            self.dataloader_pin_memory = False

    @property
    def is_canvas_stretched(self) -> bool:
        """Whether training canvases differ in length from their targets."""
        return is_canvas_stretched(self.length_multiplier, self.length_jitter)

    def _check_time_budget(self):
        if not self.train_minutes > 0:
            raise ValueError(f"`train_minutes` must be positive, got {self.train_minutes}.")
        schedule = self.lr_scheduler_type.value
        if schedule not in ("linear", "cosine"):
            raise ValueError(
                "`lr_scheduler_type` must be one of linear and cosine with `train_minutes`, got "
                f"{schedule!r}."
            )
        if self.world_size > 1:  # their clocks would end training at different steps
            raise ValueError(
                f"`train_minutes` needs a single process, got {self.world_size}. Use `max_steps`."
            )
        for name in ("logging_steps", "eval_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and 0 < value < 1 and self.max_steps < 0:
                raise ValueError(
                    f"`{name}` must be a number of steps with `train_minutes`, got {value}: the "
                    "length of the run, of which it is a share, is not known beforehand."
                )


@_with_help
@dataclass
class DataArguments:
    """Sentence pairs to train, validate and test on, and the tokenizer.

    Args:
        source_lang: code of the source language as the data has it, such as en.
        target_lang: code of the target language as the data has it, such as de.
        train_file (default None): pairs to train on, as `load_translations` reads them: JSON lines
            {"translation": {"en": ..., "de": ...}}, TSV, or two text files joined by a comma,
            train.en,train.de; .gz too.
        validation_file (default None): pairs to evaluate on while training, in the same forms.
        test_file (default None): pairs to score once at the end, in the same forms.
        dataset_name (default None): owner/name or owner/name:config on the Hub, in place of files.
        validation_split (default None): split of `dataset_name` to evaluate on, such as validation.
        test_split (default None): split of `dataset_name` to score at the end, such as test.
        max_source_length (default None): longest source in tokens; longer pairs are left out of
            training, and a new model is built for this length. Without it the model's own limit.
        max_target_length (default None): longest target in tokens, with the same effect.
        tokenizer_name_or_path (default None): a tokenizer to use; else that of the model to
            fine-tune, or one that is trained on the training data.
        vocab_size (default None): symbols of a tokenizer to train, as in `train_tokenizer`.
        tokenizer_algorithm (default None): kind of a tokenizer to train, as in `train_tokenizer`.

    Raises:
        ValueError: settings that exclude each other, or a length below 2.

    Example:
        >>> from axe_hf import DataArguments
        >>> DataArguments("en", "de", train_file="train.tsv", vocab_size=4000).target_lang
        'de'
    """

    source_lang: str
    target_lang: str
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    dataset_name: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    max_source_length: int | None = None
    max_target_length: int | None = None
    tokenizer_name_or_path: str | None = None
    vocab_size: int | None = None
    tokenizer_algorithm: Literal["bpe", "unigram"] | None = None

    def __post_init__(self):
        file, dataset = self.train_file, self.dataset_name
        if (file is None) == (dataset is None):
            raise ValueError(
                f"Give either `train_file` or `dataset_name`, got {file!r} and {dataset!r}."
            )
        for part in ("validation", "test"):
            split, file = getattr(self, f"{part}_split"), getattr(self, f"{part}_file")
            if split is not None and dataset is None:
                raise ValueError(
                    f"`{part}_split` is a split of `dataset_name`, which is missing. With files "
                    f"use `{part}_file`."
                )
            if split is not None and file is not None:
                raise ValueError(f"Give `{part}_split` or a file, not both: {split!r}, {file!r}.")
        for name in ("vocab_size", "tokenizer_algorithm"):
            if self.tokenizer_name_or_path is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` is for a tokenizer to train: `tokenizer_name_or_path` must be None."
                )
        for name in ("max_source_length", "max_target_length"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"`{name}` must be at least 2, a word and </s>, got {value}.")


@_with_help
@dataclass
class ModelArguments:
    """The model: one to fine-tune, or the sizes of a new one; and its loss.

    Args:
        model_name_or_path (default None): a CMLM to fine-tune, a folder or a name on the Hub. Its
            architecture stays; dropout and loss can be set anew. If not given, a new one.
        attn_implementation (default None): how attention is computed in this run, as in
            `from_pretrained`: eager, sdpa (what None means) or flash_attention_2; not saved with
            the model. On a CPU with bf16, eager is several times faster.
        others (default None): in place of `CmlmConfig`'s defaults, or of the fine-tuned model's.

    Example:
        >>> from axe_hf import ModelArguments
        >>> ModelArguments(d_model=256, axe_delta=1.5).given() == {"d_model": 256, "axe_delta": 1.5}
        True
    """

    model_name_or_path: str | None = None
    attn_implementation: str | None = None
    # Fields of CmlmConfig. None stands for "not given".
    d_model: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    encoder_attention_heads: int | None = None
    decoder_attention_heads: int | None = None
    encoder_ffn_dim: int | None = None
    decoder_ffn_dim: int | None = None
    activation_function: str | None = None
    normalize_before: bool | None = None
    position_embedding_type: Literal["learned", "sinusoidal"] | None = None
    scale_embedding: bool | None = None
    layernorm_embedding: bool | None = None
    tie_word_embeddings: bool | None = None
    dropout: float | None = None
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    training_loss: Literal["axe", "cross_entropy"] | None = None
    axe_delta: float | None = None
    label_smoothing: float | None = None
    length_loss_weight: float | None = None

    def given(self) -> dict[str, Any]:
        """The fields of `CmlmConfig` that were set, by name."""
        names = _CONFIG_DEFAULTS.keys() & {f.name for f in fields(self)}
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
