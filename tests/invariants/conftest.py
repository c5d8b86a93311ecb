"""Two processes for real: what is started here is `torch.distributed.run`, over gloo."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE))  # for `runs` and `sharded`, which the processes import, too
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def distributed():
    """What starts two processes of the program, or `-m` module, behind it."""
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="session")
def start():
    """Starts a module of Python with arguments; a `Popen` whose output is text, ended at exit."""

    @contextmanager
    def run(*argv):
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", *map(str, argv)]
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment, **both) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()  # a launcher ends what it started, too

    return run


@pytest.fixture(scope="session")
def finish(start):
    """Runs a module to its end, which must come in five minutes and be a good one."""

    def run(*argv):
        with start(*argv) as process:
            printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed

    return run


@pytest.fixture(scope="module")
def two_processes(finish, distributed, tmp_path_factory):
    """Lets two processes run a part of `ranks.py`; the folder of what they saved."""

    def run(part):
        folder = tmp_path_factory.mktemp(part)
        finish(*distributed, HERE / "ranks.py", part, folder)
        return folder

    return run


@pytest.fixture(scope="module")
def of_each(folder):
    """What each of the two processes found in a part of what they did, from a file's `folder`."""
    import torch  # behind the number of threads that is set above

    return lambda name: [
        torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)
    ]
