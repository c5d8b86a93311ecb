"""Learning from an autoregressive model."""

from .distillation import DistillationResult, distill
from .distillation_settings import DistillationSettings
from .filters import told_counts

__all__ = ["DistillationResult", "DistillationSettings", "distill", "told_counts"]
