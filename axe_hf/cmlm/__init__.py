"""What travels with a checkpoint: configuration, model, decoding and loss."""

from importlib import import_module
from typing import Any

# Found on first use: the settings of decoding can be read without loading PyTorch.
_MODULE_OF = {
    "AlignedCrossEntropyLoss": "loss_axe",
    "AxeOptions": "alignment_axe",
    "AxeOutput": "loss_axe",
    "AxeTargets": "alignment_axe",
    "CmlmConfig": "configuration_cmlm",
    "CmlmForConditionalGeneration": "modeling_cmlm",
    "CmlmModel": "modeling_cmlm",
    "CmlmPreTrainedModel": "modeling_cmlm",
    "CmlmSeq2SeqLMOutput": "modeling_cmlm",
    "MaskPredictGenerationConfig": "configuration_cmlm",
    "MaskPredictGenerationMixin": "generation_cmlm",
    "MaskPredictOutput": "generation_cmlm",
    "axe_loss": "loss_axe",
    "linear_axe_loss": "fused_loss_axe",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
