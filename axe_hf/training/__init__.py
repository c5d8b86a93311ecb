"""The trainer and its arguments, averages of weights, the model card, and a whole run in a call."""

from ..output import PREDICTIONS_NAME
from .arguments import AxeTrainingArguments, DataArguments, ModelArguments
from .averaging import EmaCallback, average_checkpoints
from .best import choose_checkpoints
from .model_card import ModelCardDetails, model_card_text
from .precision import has_fast_bf16
from .run import TrainingResult, run_training
from .script_arguments import ScriptArguments
from .time_budget import TrainingClock, timed_schedule
from .trainer import AxeTrainer

__all__ = [
    "PREDICTIONS_NAME",
    "AxeTrainer",
    "AxeTrainingArguments",
    "DataArguments",
    "EmaCallback",
    "ModelArguments",
    "ModelCardDetails",
    "ScriptArguments",
    "TrainingClock",
    "TrainingResult",
    "average_checkpoints",
    "choose_checkpoints",
    "has_fast_bf16",
    "model_card_text",
    "run_training",
    "timed_schedule",
]
