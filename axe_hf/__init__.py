"""Non-autoregressive machine translation on Transformers: CMLM, Aligned Cross Entropy, Mask-Predict."""

from importlib import import_module
from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .cmlm import (
    AlignedCrossEntropyLoss,
    AxeOutput,
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    CmlmPreTrainedModel,
    CmlmSeq2SeqLMOutput,
    MaskPredictGenerationConfig,
    MaskPredictGenerationMixin,
    MaskPredictOutput,
    axe_loss,
)

if TYPE_CHECKING:
    from .data import (
        DataCollatorForCmlm,
        MaxTokensBatchSampler,
        load_translations,
        tokenize_translations,
        train_tokenizer,
    )
    from .evaluation import TranslationMetric
    from .training import AxeTrainer, AxeTrainingArguments

__version__ = "0.1.0"

# Names whose modules import datasets, evaluate or the Trainer: found on first use, so that `import axe_hf` stays cheap.
_LAZY = {
    "AxeTrainer": "training",
    "AxeTrainingArguments": "training",
    "DataCollatorForCmlm": "data",
    "MaxTokensBatchSampler": "data",
    "TranslationMetric": "evaluation",
    "load_translations": "data",
    "tokenize_translations": "data",
    "train_tokenizer": "data",
}

__all__ = [
    "AlignedCrossEntropyLoss",
    "AxeOutput",
    "AxeTrainer",
    "AxeTrainingArguments",
    "CmlmConfig",
    "CmlmForConditionalGeneration",
    "CmlmModel",
    "CmlmPreTrainedModel",
    "CmlmSeq2SeqLMOutput",
    "DataCollatorForCmlm",
    "MaskPredictGenerationConfig",
    "MaskPredictGenerationMixin",
    "MaskPredictOutput",
    "MaxTokensBatchSampler",
    "TranslationMetric",
    "axe_loss",
    "load_translations",
    "tokenize_translations",
    "train_tokenizer",
]

AutoConfig.register("cmlm", CmlmConfig, exist_ok=True)
AutoModel.register(CmlmConfig, CmlmModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(CmlmConfig, CmlmForConditionalGeneration, exist_ok=True)


def __getattr__(name: str):
    if name in _LAZY:
        value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
