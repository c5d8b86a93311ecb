"""Learning from an autoregressive model: its tokenizer, its weights, its translations."""

from .distillation import DistillationResult, distill
from .distillation_settings import DistillationSettings
from .filters import told_counts
from .tokenizers import add_cmlm_symbols, student_tokenizer

__all__ = [
    "DistillationResult",
    "DistillationSettings",
    "add_cmlm_symbols",
    "distill",
    "student_tokenizer",
    "told_counts",
]
