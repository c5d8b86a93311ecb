"""What `axe_hf.kernels` does where Triton is not."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["triton"] = None  # importing it fails
from axe_hf import kernels
import torch
try:
    kernels.axe_along_path(torch.zeros(1, 1, 3), None, None)
except ImportError as error:
    print(error)
"""


def test_without_triton_the_package_imports_and_a_call_says_what_to_do(repository):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Triton is not installed. Run `pip install triton`" in done.stdout
