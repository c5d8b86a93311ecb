"""What an `AxeTrainer` cannot train with, found before it begins."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..data import DataCollatorForCmlm
from ..data.collator import check_room
from ..data.lengths import rows_of, target_sizes
from ..data.tokenizer import check_tokenizer

logger = logging.get_logger(__name__)


def check_model_and_tokenizer(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise where training would fail later, or worse, would not."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", None) != "cmlm" or not hasattr(model, "lm_head"):
        kind = type(model).__name__
        raise TypeError(f"`model` must be a CmlmForConditionalGeneration, got {kind}.")
    check_tokenizer(tokenizer)
    config.check_tokenizer(tokenizer)


def check_average(trainer: Any) -> None:
    """Refuse an average of checkpoints that do not hold the whole model."""
    if trainer.args.average_best and hasattr(trainer.model, "get_base_model"):
        problem = "`average_best`: checkpoints hold an adapter in this run"
        raise ValueError(f"{problem}, whose weights are factors of a product. Leave it out.")


def check_labels(trainer: Any) -> None:
    """Refuse training data whose first labels do not end in `</s>`; no stream is read."""
    data, end = trainer.train_dataset, trainer.processing_class.eos_token_id
    row = next(rows_of(data), {}) if hasattr(data, "__len__") else {}
    labels = row.get("labels") if isinstance(row, Mapping) else None
    if labels is not None and end not in (last := [*labels][-1:]):
        wrong = f"`train_dataset`: 'labels' must end in </s>, id {end}, got {last} in row 0"
        raise ValueError(f"{wrong}. Make them with axe_hf.data.tokenize_translations.")


def check_canvases(trainer: Any) -> None:
    """Refuse targets that no canvas holds, tell of canvases cut short; no stream is read."""
    if not isinstance(trainer.data_collator, DataCollatorForCmlm):
        return
    config, collator = trainer.model.config, trainer.data_collator
    limit, multiplier = collator.max_canvas_length, collator.length_multiplier
    sets = {"train_dataset": trainer.train_dataset, "eval_dataset": trainer.eval_dataset}
    for name, data in sets.items():
        row = next(rows_of(data), {}) if hasattr(data, "__len__") else {}
        if "labels" not in row or not (collator.allow_repetition or multiplier > 1):
            continue
        lengths, needed = target_sizes(data)
        if collator.allow_repetition:
            check_room(needed, limit, f"`{name}`, row")
        wanted = (lengths * multiplier).round()
        if num_cut := int((wanted > limit).sum()):
            problem = f"{num_cut} of {len(wanted)} targets get a canvas of {limit} positions"
            needs = f"`length_multiplier` {multiplier} asks for up to {wanted.max():.0f}"
            logger.warning(
                f"`{name}`: {problem}, where {needs}. Is --max-target-length too small? "
                f"The model's is {config.max_target_length}."
            )
