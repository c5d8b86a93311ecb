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
    linear_axe_loss,
)

if TYPE_CHECKING:
    from .data import (
        DataCollatorForCmlm,
        MaxTokensBatchSampler,
        load_translations,
        make_phrasebook,
        tokenize_translations,
        train_tokenizer,
        write_phrasebook,
    )
    from .evaluation import TranslationMetric
    from .export import (
        ExportableDecoderStep,
        ExportableEncoder,
        ExportableMaskPredict,
        export_onnx,
        export_program,
    )
    from .history import format_history
    from .hub import push_to_hub_with_code, save_pretrained_with_code
    from .pipeline import CmlmTranslationPipeline, register_pipeline
    from .plotting import plot_alignment, plot_history, plot_losses
    from .quantization import quantize_int8
    from .reference import axe_loss_definition
    from .training import (
        AxeTrainer,
        AxeTrainingArguments,
        DataArguments,
        EmaCallback,
        ModelArguments,
        average_checkpoints,
        run_training,
    )
    from .translation import translate

__version__ = "0.1.0"

# Their modules import datasets, evaluate or the Trainer: found on first use, so that `import axe_hf` stays cheap.
_LAZY = {
    "data": (
        "DataCollatorForCmlm",
        "MaxTokensBatchSampler",
        "load_translations",
        "make_phrasebook",
        "tokenize_translations",
        "train_tokenizer",
        "write_phrasebook",
    ),
    "evaluation": ("TranslationMetric",),
    "export": (
        "ExportableDecoderStep",
        "ExportableEncoder",
        "ExportableMaskPredict",
        "export_onnx",
        "export_program",
    ),
    "history": ("format_history",),
    "hub": ("push_to_hub_with_code", "save_pretrained_with_code"),
    "pipeline": ("CmlmTranslationPipeline", "register_pipeline"),
    "plotting": ("plot_alignment", "plot_history", "plot_losses"),
    "quantization": ("quantize_int8",),
    "reference": ("axe_loss_definition",),
    "training": (
        "AxeTrainer",
        "AxeTrainingArguments",
        "DataArguments",
        "EmaCallback",
        "ModelArguments",
        "average_checkpoints",
        "run_training",
    ),
    "translation": ("translate",),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

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
    "CmlmTranslationPipeline",
    "DataArguments",
    "DataCollatorForCmlm",
    "EmaCallback",
    "ExportableDecoderStep",
    "ExportableEncoder",
    "ExportableMaskPredict",
    "MaskPredictGenerationConfig",
    "MaskPredictGenerationMixin",
    "MaskPredictOutput",
    "MaxTokensBatchSampler",
    "ModelArguments",
    "TranslationMetric",
    "average_checkpoints",
    "axe_loss",
    "axe_loss_definition",
    "export_onnx",
    "export_program",
    "format_history",
    "linear_axe_loss",
    "load_translations",
    "make_phrasebook",
    "plot_alignment",
    "plot_history",
    "plot_losses",
    "push_to_hub_with_code",
    "quantize_int8",
    "register_pipeline",
    "run_training",
    "save_pretrained_with_code",
    "tokenize_translations",
    "train_tokenizer",
    "translate",
    "write_phrasebook",
]

AutoConfig.register("cmlm", CmlmConfig, exist_ok=True)
AutoModel.register(CmlmConfig, CmlmModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(CmlmConfig, CmlmForConditionalGeneration, exist_ok=True)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
