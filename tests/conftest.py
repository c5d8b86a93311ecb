import os
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, and none refused for the time that a busy machine took.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# A test that would reach for a hub is wrong; offline it fails at once. transformers reads this
# when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def few_threads():
    """Two threads for every test: on small tensors more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def translation_data():
    """The folder of the tatoeba files; tests that need them are skipped where it is not."""
    folder = Path(os.environ.get("AXE_HF_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("set AXE_HF_DATA to a folder with the tatoeba files to run this test")
    return folder
