"""Import of users' own checkpoints: Mask-Predict's, as its program on fairseq wrote them."""

from .importing import import_fairseq
from .tokenization_fairseq import FairseqTokenizer, MosesSettings

__all__ = ["FairseqTokenizer", "MosesSettings", "import_fairseq"]
