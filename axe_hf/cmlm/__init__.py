"""What travels with a checkpoint: configuration, model, decoding and loss."""

from .configuration_cmlm import CmlmConfig, MaskPredictGenerationConfig
from .fused_loss_axe import linear_axe_loss
from .generation_cmlm import MaskPredictGenerationMixin, MaskPredictOutput
from .loss_axe import AlignedCrossEntropyLoss, AxeOutput, axe_loss
from .modeling_cmlm import (
    CmlmForConditionalGeneration,
    CmlmModel,
    CmlmPreTrainedModel,
    CmlmSeq2SeqLMOutput,
)

__all__ = [
    "AlignedCrossEntropyLoss",
    "AxeOutput",
    "CmlmConfig",
    "CmlmForConditionalGeneration",
    "CmlmModel",
    "CmlmPreTrainedModel",
    "CmlmSeq2SeqLMOutput",
    "MaskPredictGenerationConfig",
    "MaskPredictGenerationMixin",
    "MaskPredictOutput",
    "axe_loss",
    "linear_axe_loss",
]
