import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children")
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(teacher, pairs_file, tmp_path):
    shutil.copytree(teacher, tmp_path / "teacher")
    shutil.copy(pairs_file, tmp_path / "pairs.jsonl")
    script = [sys.executable, str(Path(__file__).with_name("kills.py")), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all ended alike" in done.stdout
