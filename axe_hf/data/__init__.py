"""From text to batches: tokenizer training, reading, masking, batching; and a built-in corpus."""

from .batching import MaxTokensBatchSampler
from .collator import DataCollatorForCmlm
from .reading import PHRASEBOOK, load_translations, read_lines
from .tokenizer import tokenize_translations, train_tokenizer

__all__ = [
    "PHRASEBOOK",
    "DataCollatorForCmlm",
    "MaxTokensBatchSampler",
    "load_translations",
    "read_lines",
    "tokenize_translations",
    "train_tokenizer",
]
