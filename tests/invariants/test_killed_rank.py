"""kill -9 of one of two processes that train: the other ends, too, and the run is resumed.

The command is the user's own: `axe-hf train` under torch.distributed.run, and under accelerate.
"""

import os
import shlex
import signal
import socket
import time

import pytest
import torch
from safetensors.torch import load_file
from zero import CONFIGURATIONS

from axe_hf.cli import main

WORDS = ["eins zwei", "drei vier fünf", "sechs", "sieben acht neun zehn elf", "zwölf eins"]
OPTIONS = shlex.split("""
--source-lang en --target-lang de --d-model 16 --encoder-layers 1 --decoder-layers 1
--encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-ffn-dim 32 --decoder-ffn-dim 32
--vocab-size 300 --max-source-length 16 --max-target-length 16 --dropout 0 --masking full
--length-multiplier 1.4 --length-jitter 0.2 --per-device-train-batch-size 4 --learning-rate 3e-3
--lr-scheduler-type constant --warmup-steps 0 --save-steps 10 --use-cpu --disable-tqdm""")
ACCELERATE = ["accelerate.commands.launch", "--config_file"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`axe-hf train` into a folder of its own; further options behind."""
    root = tmp_path_factory.mktemp("kills")
    pairs = [f"{i % 7} {text} {i % 3}\t{text} {i % 5}" for i in range(8) for text in WORDS]
    (root / "train.tsv").write_text("\n".join(pairs))

    def make(name, *options):
        data = ["--train-file", str(root / "train.tsv"), "--output-dir", str(root / name)]
        return root / name, ["train", *OPTIONS, *data, *options]

    return make


def weights_in(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(command, finish):
    """The folder of a run of two processes that nobody disturbs, started by accelerate."""
    folder, argv = command("whole", "--max-steps", "20")
    finish(*ACCELERATE, CONFIGURATIONS / "cpu.yaml", "-m", "axe_hf", *argv)
    return folder


@pytest.fixture(scope="module")
def killed(command, start, distributed):
    """The folder of a run whose second process is killed after the first checkpoint; what was
    printed until all had ended, and the seconds from the kill to the end."""
    folder, argv = command("killed", "--max-steps", "100000")
    with start(*distributed, "-m", "axe_hf", *argv) as launcher:
        wait_for(lambda: (folder / "checkpoint-10" / "trainer_state.json").exists())
        ranks = ranks_of(launcher.pid)
        os.kill(ranks["1"], signal.SIGKILL)
        moment = time.monotonic()
        printed, _ = launcher.communicate(timeout=90)
        seconds = time.monotonic() - moment
    assert launcher.returncode != 0
    assert not any(is_running(pid) for pid in ranks.values())
    return folder, printed, seconds


def wait_for(is_there, seconds=90):
    end = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < end, f"waited for {seconds} s"
        time.sleep(0.05)


def ranks_of(launcher):
    """The process of each rank, by the variable that a launcher gives it."""
    with open(f"/proc/{launcher}/task/{launcher}/children") as children:
        found = children.read().split()
    ranks = {}
    for pid in found:
        with open(f"/proc/{pid}/environ") as environ:
            variables = dict(line.partition("=")[::2] for line in environ.read().split("\0"))
        if "RANK" in variables:
            ranks[variables["RANK"]] = int(pid)
    return ranks


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_both_end_within_a_minute_and_it_is_said_which_was_killed(killed):
    _, printed, seconds = killed
    assert seconds < 60
    assert "Signal 9 (SIGKILL)" in printed
    assert "rank      : 1 (local_rank: 1)" in printed


def test_resumed_with_two_it_ends_bit_by_bit_as_the_unbroken_run(
    whole, killed, command, start, finish
):
    """The two on one machine each, as accelerate starts them; both machines are this one."""
    options = ["--max-steps", "20", "--resume-from-checkpoint", checkpoint_of(killed)]
    folder, argv = command("resumed", *options)
    of_both = [CONFIGURATIONS / "multi_node.yaml", "--num_processes", "2"]
    of_both += ["--main_process_port", free_port()]
    with start(*ACCELERATE, *of_both, "--machine_rank", "1", "-m", "axe_hf", *argv) as other:
        finish(*ACCELERATE, *of_both, "--machine_rank", "0", "-m", "axe_hf", *argv)
        printed, _ = other.communicate(timeout=60)
    assert other.returncode == 0, printed
    assert weights_in(folder) == weights_in(whole)


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (8, 1), (2, 4)])
def test_resumed_with_one_it_ends_as_the_unbroken_run_to_rounding(
    whole, killed, command, batch_size, accumulation
):
    """However it cuts the steps' sentences into batches: each has a canvas of its own. Without
    dropout, which each process draws by itself."""
    options = ["--max-steps", "20", "--resume-from-checkpoint", checkpoint_of(killed)]
    options += ["--per-device-train-batch-size", str(batch_size)]
    options += ["--gradient-accumulation-steps", str(accumulation)]
    folder, argv = command(f"alone-{batch_size}", *options)
    assert main(argv) == 0
    expected = load_file(whole / "model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)


def checkpoint_of(killed):
    """The first, which both runs have in common."""
    return str(killed[0] / "checkpoint-10")


def test_two_processes_that_do_not_find_each_other_are_refused(command, monkeypatch, capsys):
    """As a launcher starts them on a machine without a GPU, if nobody says --use-cpu."""
    if torch.accelerator.is_available():
        pytest.skip("here they find each other")
    _, argv = command("lost", "--max-steps", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([word for word in argv if word != "--use-cpu"]) == 2
    assert "started 2 processes, but each would train by itself" in capsys.readouterr().err
