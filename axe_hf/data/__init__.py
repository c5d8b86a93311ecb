"""From text to batches: tokenizer training, reading, masking, batching, and a built-in corpus."""

from .batching import MaxTokensBatchSampler
from .collator import DataCollatorForCmlm
from .preprocessing import tokenize_translations
from .reading import load_translations
from .tokenizer import train_tokenizer

__all__ = [
    "DataCollatorForCmlm",
    "MaxTokensBatchSampler",
    "load_translations",
    "make_phrasebook",
    "tokenize_translations",
    "train_tokenizer",
    "write_phrasebook",
]


def __getattr__(name: str):
    # The grammar is large and only the quick start needs it.
    if name in ("make_phrasebook", "write_phrasebook"):
        from . import phrasebook

        return getattr(phrasebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
