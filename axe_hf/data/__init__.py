"""From text to batches: tokenizer training, reading, masking and batching; and a built-in corpus."""

from .batching import MaxTokensBatchSampler
from .collator import DataCollatorForCmlm
from .preprocessing import tokenize_translations
from .reading import PHRASEBOOK, load_translations, read_lines
from .tokenizer import train_tokenizer

__all__ = [
    "PHRASEBOOK",
    "DataCollatorForCmlm",
    "MaxTokensBatchSampler",
    "load_translations",
    "read_lines",
    "tokenize_translations",
    "train_tokenizer",
]
