"""From text to batches: tokenizer training, reading, masking, batching; and a built-in corpus."""

from .arriving import arriving_lines
from .batching import MaxTokensBatchSampler
from .collator import DataCollatorForCmlm
from .reading import PHRASEBOOK, load_translations, read_lines, read_text
from .streaming import PairStream, TranslationStream
from .tokenizer import PairTokenizer, tokenize_translations, train_tokenizer

__all__ = [
    "PHRASEBOOK",
    "DataCollatorForCmlm",
    "MaxTokensBatchSampler",
    "PairStream",
    "PairTokenizer",
    "TranslationStream",
    "arriving_lines",
    "load_translations",
    "read_lines",
    "read_text",
    "tokenize_translations",
    "train_tokenizer",
]
