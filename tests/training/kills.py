"""Kill `axe-hf train` at awkward moments, resume it by `last`, and compare with an unbroken run.

    python tests/training/kills.py             # 8 settings x 5 moments: minutes on two cores
    python tests/training/kills.py 3           # the first 3 of a short list

Prints a line for each kill; exits with 1 unless every run ends as the unbroken one, bit by bit.
One process imports everything and forks a child for each run: this needs fork, hence no Windows.
"""

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import torch
import transformers.trainer

import axe_hf.training.run
from axe_hf import AxeTrainer
from axe_hf.cli import main

WORDS = ["eins zwei", "drei vier fünf", "sechs", "sieben acht neun zehn elf", "zwölf eins"]
OPTIONS = shlex.split("""
--source-lang en --target-lang de --d-model 16 --encoder-layers 1 --decoder-layers 1
--encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-ffn-dim 32 --decoder-ffn-dim 32
--vocab-size 300 --max-source-length 16 --max-target-length 16 --dropout 0.2 --max-steps 10
--per-device-train-batch-size 8 --per-device-eval-batch-size 4 --learning-rate 3e-3 --save-steps 4
--eval-strategy steps --eval-steps 4 --logging-steps 2 --use-cpu --disable-tqdm""")
SETTINGS = {
    "plain": "",
    "token budget": "--max-tokens-per-batch 60",
    "moving average": "--ema-decay 0.9",
    "accumulation": "--gradient-accumulation-steps 2",
    "stretched canvases": "--masking full --length-multiplier 1.4 --length-jitter 0.2",
    "workers": "--dataloader-num-workers 2 --dataloader-persistent-workers",
    "best of one": "--save-total-limit 1 --load-best-model-at-end",
    "bf16, adafactor": "--bf16 --optim adafactor",
}


def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(owner, name, number, before=None):
    """Let the process be killed when `owner.name` is called the `number`-th time."""
    original, calls = getattr(owner, name), []

    def count(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            if before is not None:
                before(original, *args, **kwargs)
            kill()
        return original(*args, **kwargs)

    setattr(owner, name, count)


def write_half(original, content, path):
    original(content, path)
    os.truncate(path, os.path.getsize(path) // 2)


def save_half(original, trainer, *args, **kwargs):
    original(trainer, *args, **kwargs)
    weights = Path(trainer.args.output_dir, "model.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)


class HalfSaved:
    """Saving of the whole model breaks off in the middle; checkpoints are saved by `_save`, too."""

    @staticmethod
    def install():
        original = AxeTrainer.save_model

        def save_model(trainer, output_dir=None, _internal_call=False):
            if output_dir is not None:  # a checkpoint's
                return original(trainer, output_dir, _internal_call)
            save_half(original, trainer)
            kill()

        AxeTrainer.save_model = save_model


# torch.save writes training_args, optimizer, scheduler and random numbers of each checkpoint.
SAVED = partial(kill_at_call, transformers.trainer.torch, "save")
MOMENTS = {
    "right after the start": partial(kill_at_call, axe_hf.training.run, "load_pairs", 1),
    "within a step": partial(kill_at_call, AxeTrainer, "training_step", 7),
    "in a checkpoint": partial(SAVED, 6, write_half),
    "in evaluation": partial(kill_at_call, AxeTrainer, "prediction_step", 5),
    "in the last save": HalfSaved.install,
}
SHORT = [
    ("moving average", "in a checkpoint"),
    ("token budget", "right after the start"),
    ("plain", "in the last save"),
]


def run(folder, name, *, at=None, resume=False):
    """Train in a child; returns how it ended, as `os.waitpid` says it."""
    argv = ["train", *OPTIONS, *SETTINGS[name].split(), "--output-dir", str(folder)]
    argv += [f"--{part}-file={folder.parent}/{part}.tsv" for part in ("train", "validation")]
    argv += ["--resume-from-checkpoint", "last"] if resume else []
    child = os.fork()
    if child == 0:
        log = os.open(folder.parent / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        if at is not None:
            MOMENTS[at]()
        os._exit(main(argv))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left_in(folder):
    """What has to be equal: the names of all files, and the bytes of the weights."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return names, (folder / "model.safetensors").read_bytes()


def main_of_all(cases):
    torch.set_num_threads(1)
    root, num_failures, whole = Path(tempfile.mkdtemp()), 0, {}
    pairs = [f"{i % 7} {text} {i % 3}\t{text} {i % 5}" for i in range(10) for text in WORDS]
    (root / "train.tsv").write_text("\n".join(pairs))
    (root / "validation.tsv").write_text("\n".join(pairs[:12]))
    for number, (name, at) in enumerate(cases):
        start = time.perf_counter()
        if name not in whole:
            assert run(root / f"whole-{name}", name) == 0, (root / "log.txt").read_text()
            whole[name] = left_in(root / f"whole-{name}")
        folder = root / f"killed-{number}"
        codes = run(folder, name, at=at), run(folder, name, resume=True)
        is_right = codes == (-signal.SIGKILL, 0) and left_in(folder) == whole[name]
        num_failures += not is_right
        seconds = time.perf_counter() - start
        print(
            f"{name}, {at}: {'equal' if is_right else f'WRONG {codes}'}, {seconds:.1f} s",
            flush=True,
        )
    print(f"{len(cases) - num_failures} of {len(cases)} kills resumed, bit-identical")
    if num_failures:
        print((root / "log.txt").read_text()[-5000:])
    shutil.rmtree(root)
    return int(num_failures > 0)


if __name__ == "__main__":
    every = [(name, at) for name in SETTINGS for at in MOMENTS]
    sys.exit(main_of_all(SHORT[: int(sys.argv[1])] if sys.argv[1:] else every))
