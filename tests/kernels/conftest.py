"""Runs the kernels on a GPU, or where there is none under Triton's interpreter (when Triton is
installed).

The interpreter is chosen when a kernel is defined, hence here, before any test runs.
"""

import importlib.util
import os
import sys

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNEL_MODULES = ("alignment", "gradient", "statistics")


def load_kernels() -> str | None:
    """Imports the kernels and returns None, or the reason why they cannot run."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    before = os.environ.get("TRITON_INTERPRET")
    if DEVICE == "cpu":
        if "triton" in sys.modules:
            return "Triton was imported before its interpreter was chosen; run tests/kernels alone"
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        for name in KERNEL_MODULES:
            importlib.import_module(f"axe_hf.kernels.{name}")
    finally:
        if before is None:
            os.environ.pop("TRITON_INTERPRET", None)
        else:
            os.environ["TRITON_INTERPRET"] = before
    return None


WHY_NOT = load_kernels()


@pytest.fixture
def device(monkeypatch) -> str:
    """Where the kernels run; the test is skipped where they cannot."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    if DEVICE == "cpu":  # parts of Triton are imported at the first launch
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return DEVICE
