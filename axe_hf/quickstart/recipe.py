"""What the quick start trains, and how: every number of it, with its reason."""

import math
from dataclasses import dataclass, field
from typing import Any

SOURCE_LANG, TARGET_LANG = "en", "de"  # as the phrasebook names them

# The two models, by the folders they are saved in.
LOSSES = {"cross_entropy": "cross entropy", "axe": "AXE"}


@dataclass(frozen=True)
class QuickstartArguments:
    """What a user of the quick start chooses.

    Args:
        output_dir (default "axe_hf_quickstart"): where everything goes; a new or an empty folder.
        minutes (default 4.8): minutes of training for both models together, half of it each.
        seed (default 0): of the corpus, the first weights, the batches and the masks.
        overwrite (default False): replace the results of an earlier quick start in `output_dir`; other files there stay.

    Raises:
        ValueError: a value out of its range.

    Example:

    ```python
    >>> from axe_hf.quickstart import QuickstartArguments
    >>> QuickstartArguments(minutes=0)
    Traceback (most recent call last):
    ...
    ValueError: `minutes` must be a positive number, got 0.

    ```
    """

    output_dir: str = field(
        default="axe_hf_quickstart", metadata={"help": "Folder for models, pictures and results."}
    )
    minutes: float = field(
        default=4.8,
        metadata={"help": "Minutes of training for both models together, half of it each."},
    )
    seed: int = field(
        default=0, metadata={"help": "Of the corpus, the first weights, the batches and the masks."}
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace the results of an earlier quick start in the folder."},
    )

    def __post_init__(self):
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"`minutes` must be a positive number, got {self.minutes}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be in [0, 2**32), got {self.seed}.")
        if not str(self.output_dir).strip():
            raise ValueError("`output_dir` must name a folder, got an empty name.")


@dataclass(frozen=True)
class QuickstartRecipe:
    """Data, model and training of the quick start; all numbers are ours, for two CPU cores and minutes.

    Both models share everything but `training_loss` and, as each loss is best trained, the canvases.
    """

    # Data. Enough that no sentence is seen often in minutes of training.
    num_pairs: int = 50_000
    num_test: int = 500  # BLEU to within about a point and a half
    num_validation: int = 200  # scored several times during training
    # Most words stay whole: short canvases, hence quick steps.
    vocab_size: int = 2000
    max_length: int = 64  # the phrasebook's sentences are shorter

    # Model. The smallest that learns the phrasebook's word order; wider ones make too few steps.
    d_model: int = 192
    num_layers: int = 2  # on each side
    num_heads: int = 4
    ffn_dim: int = 768
    # Each sentence is seen a few times only: 0.3, Mask-Predict's, slows learning.
    dropout: float = 0.1
    # With less the model leaves words out, with 1 most of them; see the README's experiment.
    axe_delta: float = 3.0
    label_smoothing: float = 0.0  # blurs the alignment; pays only in long training

    # Training.
    max_tokens_per_batch: int = 256  # on a CPU many small steps learn more than few large ones
    learning_rate: float = 1.2e-3  # small models bear twice Mask-Predict's 5e-4
    warmup_steps: float = 0.05  # share of the run
    # The baseline needs partly masked canvases to refine in several iterations, as Mask-Predict trains.
    cross_entropy_masking: str = "uniform"
    # AXE is meant for one pass: every step trains on the canvas that decoding starts with.
    axe_masking: str = "full"
    # Room for blanks; without them AXE is cross entropy on a full mask.
    axe_length_multiplier: float = 1.4
    # Canvases of a fifth more or less: in decoding, lengths are guessed.
    axe_length_jitter: float = 0.2
    ema_decay: float | None = None  # costs time in every step; the rate falls to 0 anyway
    # On CPUs bf16 with plain attention is 1.4 times faster than fp32; PyTorch's SDPA in bf16 is slower.
    # Left off where the processor has no instructions for it.
    bf16: bool = True
    attn_implementation: str = "eager"
    optim: str = "adamw_torch_fused"  # one call for all weights
    logging_steps: int = 25
    eval_steps: int = 500  # points of the BLEU curve; not counted in the minutes

    # Scoring.
    num_iterations: tuple[int, ...] = (1, 4, 10)  # passes of the decoder
    batch_size: int = 64  # sentences decoded at once
    num_shown: int = 3  # test sentences printed
    shown_iterations: int = 4

    def config_settings(self, training_loss: str) -> dict[str, Any]:
        """Fields of `CmlmConfig` for one of the two models, the tokenizer's aside."""
        sides = ("encoder", "decoder")
        return {
            "d_model": self.d_model,
            **{f"{side}_layers": self.num_layers for side in sides},
            **{f"{side}_attention_heads": self.num_heads for side in sides},
            **{f"{side}_ffn_dim": self.ffn_dim for side in sides},
            "dropout": self.dropout,
            "max_source_length": self.max_length,
            "max_target_length": self.max_length,
            "training_loss": training_loss,
            "axe_delta": self.axe_delta,
            "label_smoothing": self.label_smoothing,
        }

    def training_settings(self, training_loss: str, minutes: float) -> dict[str, Any]:
        """Fields of `AxeTrainingArguments` for one of the two models."""
        is_axe = training_loss == "axe"
        return {
            "train_minutes": minutes,
            "masking": self.axe_masking if is_axe else self.cross_entropy_masking,
            "length_multiplier": self.axe_length_multiplier if is_axe else 1.0,
            "length_jitter": self.axe_length_jitter if is_axe else 0.0,
            "max_tokens_per_batch": self.max_tokens_per_batch,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "ema_decay": self.ema_decay,
            "bf16": self.bf16,
            "optim": self.optim,
            "logging_steps": self.logging_steps,
            "eval_strategy": "steps",
            "eval_steps": self.eval_steps,
            "per_device_eval_batch_size": self.batch_size,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
