"""Learning from an autoregressive model: its tokenizer, its weights, its translations."""

from .tokenizers import add_cmlm_symbols as add_cmlm_symbols
from .tokenizers import student_tokenizer as student_tokenizer
