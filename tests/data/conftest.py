"""What the tests of collating and of its draws share."""

import pytest
import torch

from axe_hf.data import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    """A small one; some files have others of this name."""
    texts = ["the cat sleeps on the mat .", "die Katze schläft auf der Matte ."] * 5
    return train_tokenizer(texts, vocab_size=320)


@pytest.fixture(scope="session")
def random_features():
    """Makes so many rows of random ids, each side of at most `longest` with its `</s>`."""

    def make(num_rows, longest=9, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def ids():
            length = int(torch.randint(0, longest, (), generator=generator))
            return [*torch.randint(130, 300, (length,), generator=generator).tolist(), 1]

        return [{"input_ids": ids(), "labels": ids()} for _ in range(num_rows)]

    return make
