"""A corpus of everyday English-German sentences, written by a grammar, several translations each.

Most English sentences have several right German translations, which differ in words and in order.
That is what makes non-autoregressive training hard, and what Aligned Cross Entropy is for.
"""

from .corpus import Phrasebook, make_phrasebook, write_phrasebook

__all__ = ["Phrasebook", "make_phrasebook", "write_phrasebook"]
