"""Settings of a training run: `AxeTrainingArguments` for the trainer."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import Seq2SeqTrainingArguments

from ..data.collator import check_canvas_options, is_canvas_stretched

# Passes over the data that nobody waits for: a run with `train_minutes` ends by its clock.
UNLIMITED_EPOCHS = 1_000_000

_TIMED_SCHEDULES = ("linear", "cosine")


@dataclass
class AxeTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the defaults and the few settings a CMLM needs.

    The recipe of Mask-Predict (EMNLP 2019, section 4.1; in brackets) where a default follows or leaves it: learning
    rate 5e-4 (5e-4), warm-up 5 % of the run (10,000 of 300,000 steps), linear decay (inverse square root; ours,
    because it ends a short run at a rate of 0: `lr_scheduler_type="inverse_sqrt"` has theirs), Adam's epsilon 1e-6 and
    second moment 0.999 (the same), weight decay 0.01 (0.01). Dropout and label smoothing live in `CmlmConfig`. The
    batches there hold about 128,000 tokens; on a CPU, small batches of 500 to 2,000 tokens learn more per minute.

    Args:
        max_tokens_per_batch (default None): tokens in one batch of one device, padding included (rows times the longer
            of the two sides), instead of `per_device_train_batch_size` sentences.
        masking (default "uniform"): canvases in training: "uniform" hides 1 to N tokens, as Mask-Predict trains;
            "full" hides all, for models that decode in one pass. A `data_collator` given to the trainer overrides it.
        length_multiplier (default 1.0): canvas positions per target token in training, with `masking="full"` and AXE;
            also put into `model.generation_config`, since a model wants canvases like those it was trained on. Over 1
            it leaves room for blanks, without which AXE hardly differs from cross entropy on a full mask.
        length_jitter (default 0): share by which the canvas of every sentence is drawn longer or shorter in training,
            with the same two conditions; it prepares a model for lengths that are predicted wrongly.
        train_minutes (default None): wall-clock budget of the training loop in minutes, evaluation and saving not
            counted. The learning rate follows max(step / max_steps, elapsed / budget), and training ends with it.
        ema_decay (default None): decay of an exponential moving average of the weights, for instance 0.999, which is
            what gets evaluated and saved.
        num_train_epochs (default None): 3, or as many as `train_minutes` has room for.
        label_smoothing_factor (default 0): if positive, replaces `model.config.label_smoothing`; AXE has a smoothing
            of its own, and Transformers' position-wise one is never used.
        others: as in `Seq2SeqTrainingArguments`.

    Raises:
        ValueError: a value out of its range, or settings that exclude each other.

    Example:

    ```python
    >>> from axe_hf import AxeTrainingArguments
    >>> args = AxeTrainingArguments("runs/en-de", max_tokens_per_batch=4096, train_minutes=10)
    >>> args.learning_rate, args.predict_with_generate
    (0.0005, True)

    ```
    """

    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Tokens in one batch of one device, padding included, instead of per_device_train_batch_size "
            "sentences. On a CPU 500 to 2000 learn most per minute; a large GPU takes 8192 and more."
        },
    )
    masking: Literal["uniform", "full"] = field(
        default="uniform",
        metadata={
            "help": "Training canvases: 'uniform' hides 1 to N tokens of each target (Mask-Predict), 'full' hides all "
            "(for decoding in one pass)."
        },
    )
    length_multiplier: float = field(
        default=1.0,
        metadata={
            "help": "Canvas positions per target token, in training (with masking=full) and afterwards in decoding. Over "
            "1 it leaves room for blanks: 1.4 serves AXE well."
        },
    )
    length_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Share by which each canvas is drawn longer or shorter in training (masking=full), against wrongly "
            "predicted lengths: 0.2 serves AXE well."
        },
    )
    train_minutes: float | None = field(
        default=None,
        metadata={
            "help": "Time budget of the training loop in minutes, evaluation and saving not counted. The learning rate "
            "is scheduled on it. Resuming continues the same budget."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an exponential moving average of the weights with this decay, e.g. 0.999."
        },
    )

    num_train_epochs: float | None = field(
        default=None,
        metadata={
            "help": "Passes over the training data; 3 if not given, or as many as train_minutes allows."
        },
    )
    per_device_train_batch_size: int = field(
        default=64,
        metadata={"help": "Sentences in one batch of one device; see max_tokens_per_batch."},
    )
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Sentences in one batch of one device in evaluation."}
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Highest learning rate."})
    warmup_steps: float = field(
        default=0.05,
        metadata={"help": "Steps of linear warm-up, or below 1 their share of the whole run."},
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW."})
    label_smoothing_factor: float = field(
        default=0.0,
        metadata={"help": "If positive, replaces label_smoothing in the model's config."},
    )
    predict_with_generate: bool = field(
        default=True,
        metadata={
            "help": "Translate the evaluation data and score the translations (needs sacrebleu)."
        },
    )
    logging_steps: float = field(
        default=100, metadata={"help": "Log every so many steps, or below 1 this share of the run."}
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Leave losses that are nan or infinite out of the log. Off: they show."},
    )
    save_total_limit: int | None = field(
        default=5, metadata={"help": "Checkpoints to keep; the oldest is deleted first."}
    )
    report_to: None | str | list[str] = field(
        default="none",
        metadata={"help": "Where to send logs besides the terminal, e.g. tensorboard or wandb."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Every parameter of a CMLM is used in every step."},
    )

    def __post_init__(self):
        is_epochs_given = self.num_train_epochs is not None
        if not is_epochs_given:
            self.num_train_epochs = 3.0 if self.train_minutes is None else float(UNLIMITED_EPOCHS)
        super().__post_init__()
        self._check_ranges()
        if self.train_minutes is not None:
            self._check_time_budget()
        if self.device.type == "cpu":  # nothing to copy to; PyTorch warns about it
            self.dataloader_pin_memory = False

    def _check_ranges(self):
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(
                f"`max_tokens_per_batch` must be at least 1, got {self.max_tokens_per_batch}. Leave it out to batch "
                "by sentences."
            )
        check_canvas_options(self.masking, self.length_multiplier, self.length_jitter)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(
                f"`ema_decay` must be between 0 and 1, got {self.ema_decay}. Leave it out for no average."
            )
        if not 0 <= self.label_smoothing_factor < 1:
            raise ValueError(
                f"`label_smoothing_factor` must be in [0, 1), got {self.label_smoothing_factor}."
            )

    @property
    def is_canvas_stretched(self) -> bool:
        """Whether training canvases differ in length from their targets."""
        return is_canvas_stretched(self.length_multiplier, self.length_jitter)

    def _check_time_budget(self):
        if not self.train_minutes > 0:
            raise ValueError(f"`train_minutes` must be positive, got {self.train_minutes}.")
        if self.lr_scheduler_type.value not in _TIMED_SCHEDULES:
            raise ValueError(
                f"`lr_scheduler_type` must be one of {_TIMED_SCHEDULES} with `train_minutes`, got "
                f"{self.lr_scheduler_type.value!r}."
            )
        if self.world_size > 1:
            raise ValueError(
                f"`train_minutes` needs a single process, got {self.world_size}: their clocks would end training at "
                "different steps. Use `max_steps` instead."
            )
        for name in ("logging_steps", "eval_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and 0 < value < 1 and self.max_steps < 0:
                raise ValueError(
                    f"`{name}` must be a number of steps with `train_minutes`, got the share {value}: the number of "
                    "steps of the run is not known beforehand."
                )
