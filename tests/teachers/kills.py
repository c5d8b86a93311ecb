"""Kill `axe-hf distill` at awkward moments, start it again, and compare with an unbroken run.

    python tests/teachers/kills.py FOLDER      # with a teacher in FOLDER/teacher, and pairs.jsonl

Prints a line for each kill; exits with 1 unless every run ends as the unbroken one, byte by byte.
One process imports everything and forks a child for each run: this needs fork, hence no Windows.
"""

import os
import resource
import shlex
import signal
import socket
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import torch

import axe_hf.teachers.data_files
import axe_hf.teachers.distillation
import axe_hf.teachers.engines
import axe_hf.teachers.work
from axe_hf.cli import main

OPTIONS = shlex.split("""--source-lang en --target-lang de --shard-size 10 --max-tokens-per-batch 20
--rows-per-file 12 --keep-original --drop-lowest 0.1 --generation '{"do_sample": true}'""")
TEACHERS = axe_hf.teachers


def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner, name, number, what=kill):
    """Let `what` happen when `owner.name` is called the `number`-th time, before it is done."""
    original, calls = getattr(owner, name), []

    def count(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            what(*args)
        return original(*args, **kwargs)

    setattr(owner, name, count)


def write_half(path, text):
    path.with_name(".unfinished-half").write_text(text[:50])
    kill()


def fill_the_disk(*args):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def in_the_middle_of_moving():
    original = Path.replace

    def replace(path, target):
        if path.name == "distillation.json" and path.parent.name == "whole":
            kill()
        return original(path, target)

    Path.replace = replace


# write_text of a run: the plan, then each of the five shards; then the two data files of four.
MOMENTS = {
    "before the plan": partial(at_call, TEACHERS.distillation, "check_vocabulary", 1),
    "in the plan": partial(at_call, TEACHERS.work, "write_text", 1),
    "in the second shard": partial(at_call, TEACHERS.engines.TransformersEngine, "translate", 7),
    "writing a shard": partial(at_call, TEACHERS.work, "write_text", 4, write_half),
    "after the last shard": partial(at_call, TEACHERS.distillation, "publish", 1),
    "among the data": partial(at_call, TEACHERS.data_files, "write_text", 3, write_half),
    "moving all in its place": in_the_middle_of_moving,
    "removing the shards": partial(at_call, TEACHERS.work.shutil, "rmtree", 4),
    "disk full": partial(at_call, TEACHERS.work, "write_text", 4, fill_the_disk),
    "disk full at the end": partial(at_call, TEACHERS.data_files, "write_text", 2, fill_the_disk),
}


def start(root, folder, *, at=None, rank=0, world=1, port=0):
    """Start a run in a child; returns its number."""
    child = os.fork()
    if child:
        return child
    if world > 1:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
        os.environ |= {n: str(v) for n, v in zip(names, (rank, rank, world, port), strict=True)}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    # Of a file that must stay small the error would be that of the log.
    name = os.devnull if (at or "").startswith("disk full") else root / "log.txt"
    with open(name, "a") as log, redirect_stdout(log), redirect_stderr(log):
        if at is not None:
            MOMENTS[at]()
        code = main(words(folder))
        log.flush()
        os._exit(code)


def words(folder):
    return ["distill", "teacher", "pairs.jsonl", *OPTIONS, "--output-dir", str(folder)]


def end(*children):
    """How they ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def run(root, folder, world=1, **kwargs):
    """How the processes of a run ended."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks = range(world)
    return end(*(start(root, folder, rank=r, world=world, port=port, **kwargs) for r in ranks))


def files_in(folder):
    """The bytes of all files by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def has_whole_shards_only(folder):
    shards = [*folder.rglob("shard-*.jsonl")]
    is_whole = all(path.read_bytes().count(b"\n") in (10, 5) for path in shards)
    return bool(shards) and is_whole and not [*folder.rglob(".unfinished-*")]


def main_of_all(root):
    torch.set_num_threads(1)
    num_failures, whole = 0, root / "whole" / "out"
    os.chdir(root)
    if main(words(whole)) != 0:  # in this process, which then has imported all
        return 1
    expected = files_in(whole)
    print(sorted(expected))
    for number, at in enumerate(MOMENTS if len(sys.argv) < 3 else ()):
        began, folder = time.perf_counter(), root / f"killed-{number}" / "out"
        code = run(root, folder, at=at)
        is_full = at.startswith("disk full")
        is_right = code == [1] and has_whole_shards_only(folder) if is_full else code == [-9]
        is_right &= run(root, folder) == [0] and files_in(folder) == expected
        num_failures += report(at, is_right, began)
    began, folder = time.perf_counter(), root / "two" / "out"
    is_right = run(root, folder, world=2) == [0, 0] and files_in(folder) == expected
    num_failures += report("two processes", is_right, began)
    began, folder = time.perf_counter(), root / "two-killed" / "out"
    codes = run(root, folder, world=2, at="writing a shard")
    is_right = 0 not in codes and -9 in codes
    is_right &= run(root, folder) == [0] and files_in(folder) == expected
    num_failures += report("two processes, killed, then one", is_right, began)
    if num_failures:
        print((root / "log.txt").read_text()[-9000:])
    else:
        print("all ended alike")
    return int(num_failures > 0)


def report(what, is_right, began):
    seconds = time.perf_counter() - began
    print(f"{what}: {'equal' if is_right else 'WRONG'}, {seconds:.1f} s", flush=True)
    return not is_right


if __name__ == "__main__":
    sys.exit(main_of_all(Path(sys.argv[1]).resolve()))
