"""The kernels compile for a GPU, on a machine that has none."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_every_kernel_compiles_for_an_h100(repository, tmp_path):
    path = os.pathsep.join([str(repository), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("compile_ahead.py")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compiled = Counter(line.split(":")[0] for line in done.stdout.splitlines())
    names = ("statistics_kernel", "alignment_kernel", "gradient_kernel")
    assert compiled == {name: 4 for name in names}, done.stdout
