"""Where the time of a training step goes, and what trainer, batches, compilation and bf16 change.

    python examples/benchmarks/training.py                               # ten minutes on two cores
    python examples/benchmarks/training.py --parts profile loop          # some of the parts
    python examples/benchmarks/training.py --size base --parts profile   # of the papers' size
    python examples/benchmarks/training.py --quick                       # seconds, a tiny model

Parts: `profile`, what data, encoder, decoder, loss, backward pass and optimizer take, for three
losses; `loop`, `AxeTrainer` beside a bare PyTorch loop over the same batches from the same weights,
which ends at the same weights; `batches`, batches by a token budget beside as many of a fixed
number of random sentences; `compile`, training with `torch_compile` and without; `precision`,
float32 and bf16 by both kinds of attention. Data: the phrasebook that comes with the package, or
`--train-file`.

Wall-clock milliseconds a step, medians of all rounds but the first steps of each (`--warm-up`).
What is compared takes turns, and a ratio is of seconds a token in the same turn, by the clock and
(`cpu_ratio`) by the CPU time of the process, which other programs disturb less; `loop` takes turns
step by step, in two processes. Tokens are those of sources and targets, without padding. Writes
results/training_cpu.csv; a part that is run again takes the place of its rows.
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measuring import RESULTS, environment, markdown_table, quantiles, write_csv
from training_runs import (
    LOSSES,
    SIZES,
    Profile,
    Run,
    Setting,
    by_loop,
    by_trainer,
    in_turn,
    load_rows,
)
from transformers import logging

PARTS = ("profile", "loop", "batches", "compile", "precision")
pairs = partial(zip, strict=True)


def row(part: str, name: str, setting: Setting, milliseconds: list[float], **more) -> dict:
    """A line of the table."""
    median, low, high = quantiles(milliseconds)
    size = next(name for name, size in SIZES.items() if size == setting.size)
    line = {"part": part, "data": setting.data, "size": size, "loss": setting.loss, "setting": name}
    line |= {"ms": f"{median:.4g}", "ms_p20": f"{low:.4g}", "ms_p80": f"{high:.4g}"}
    empty = dict.fromkeys(("tokens_per_second", "ratio", "cpu_ratio", "note"), "")
    return line | empty | more


def profile(setting: Setting, rounds: int, warm_up: int) -> list[dict]:
    """The parts of a step of the bare loop, and of what they are a share of: all of it."""
    lines = []
    for loss in LOSSES:
        one = setting.with_loss(loss)
        watched = Profile(setting.device)
        run = by_loop(one, watched)
        for _ in range(rounds - 1):
            run = by_loop(one, watched)
        steps = watched.steps_after(warm_up)
        whole = [1e3 * sum(step.values()) for step in steps]
        for name in steps[0]:
            times = [1e3 * step[name] for step in steps]
            share = sum(times) / sum(whole)
            lines.append(row("profile", name, one, times, ratio=f"{share:.3f}"))
        speed = f"{run.after(warm_up).tokens_per_second():.0f}"
        lines.append(row("profile", "whole step", one, whole, tokens_per_second=speed, ratio="1"))
    return lines


def compared(
    part: str, setting: Setting, ways: dict[str, Callable[[], Run]], rounds: int, warm_up: int
) -> list[dict]:
    """A row each for ways to train, the first of which is the base of the ratios of time."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, train in ways.items():
            runs[name].append(train().after(warm_up))
    base, lines = runs[next(iter(ways))], []
    for name, own in runs.items():
        # By the token: the steps of two kinds of batches hold different numbers.
        ratios = [b.tokens_per_second() / a.tokens_per_second() for a, b in pairs(own, base)]
        cpu = [b.tokens_per_cpu_second() / a.tokens_per_cpu_second() for a, b in pairs(own, base)]
        speed = statistics.median(run.tokens_per_second() for run in own)
        more = {"tokens_per_second": f"{speed:.0f}", "ratio": f"{statistics.median(ratios):.3f}"}
        more |= {"cpu_ratio": f"{statistics.median(cpu):.3f}"}
        more |= {"note": f"{min(ratios):.3f} to {max(ratios):.3f}"}
        times = [1e3 * each for run in own for each in run.seconds]
        lines.append(row(part, name, setting, times, **more))
    return lines


def loop(setting: Setting, rounds: int, warm_up: int) -> list[dict]:
    """The ratio is that of two steps on one batch, one directly behind the other: the median."""
    both = [[run.after(warm_up) for run in in_turn(setting)] for _ in range(rounds)]
    lines = []
    for name, own in zip(("bare loop", "AxeTrainer"), zip(*both, strict=True), strict=True):
        found = {}
        for clock in ("seconds", "cpu_seconds"):
            found[clock] = [
                a / b
                for run, (base, _) in pairs(own, both)
                for a, b in pairs(getattr(run, clock), getattr(base, clock))
            ]
        median, low, high = quantiles(found["seconds"])
        speed = statistics.median(run.tokens_per_second() for run in own)
        more = {"tokens_per_second": f"{speed:.0f}", "ratio": f"{median:.3f}"}
        more |= {"cpu_ratio": f"{statistics.median(found['cpu_seconds']):.3f}"}
        more |= {"note": f"{low:.3f} to {high:.3f} in {len(found['seconds'])} pairs of steps"}
        times = [1e3 * each for run in own for each in run.seconds]
        lines.append(row("loop", name, setting, times, **more))
    return lines


def batches(setting: Setting, rounds: int, warm_up: int) -> list[dict]:
    num_sentences = round(len(setting.rows) / len(setting.sampler()))
    fixed = {"per_device_train_batch_size": num_sentences}
    ways = {
        "token budget": lambda: by_trainer(setting),
        f"{num_sentences} random sentences": lambda: by_trainer(setting, **fixed),
    }
    lines = compared("batches", setting, ways, rounds, warm_up)
    for line, train in zip(lines, ways.values(), strict=True):
        run = train()
        padding = 1 - sum(run.tokens) / sum(run.positions)
        line["note"] += f"; {padding:.1%} padding"
    return lines


def compilation(setting: Setting, rounds: int, warm_up: int) -> list[dict]:
    """With `torch_compile` and without: one run each, the first half of it to warm up."""
    compiled: list[Run] = []

    def train_compiled() -> Run:
        torch.compiler.reset()
        compiled.append(by_trainer(setting, torch_compile=True))
        return compiled[0]

    ways = {"not compiled": lambda: by_trainer(setting), "torch_compile": train_compiled}
    lines = compared("compile", setting, ways, 1, max(warm_up, setting.num_steps // 2))
    seconds = compiled[0].seconds
    slow = [each for each in seconds if each > 5 * statistics.median(seconds)]
    lines[-1]["note"] = f"{len(slow)} steps took {sum(slow):.0f} s to compile"
    return lines


def precision(setting: Setting, rounds: int, warm_up: int) -> list[dict]:
    ways = {
        f"{name}, {attention}": lambda attention=attention, options=options: by_trainer(
            setting, attention, **options
        )
        for name, options in (("float32", {}), ("bf16", {"bf16": True}))
        for attention in ("sdpa", "eager")
    }
    return compared("precision", setting, ways, rounds, warm_up)


MEASURES = dict(zip(PARTS, (profile, loop, batches, compilation, precision), strict=True))


def merged(path: Path, rows: list[dict]) -> list[dict]:
    """The rows of the file that were not measured anew, and those that were."""
    keys = ("part", "data", "size", "loss")
    anew = {tuple(each[key] for key in keys) for each in rows}
    if not path.exists():
        return rows
    with path.open(encoding="utf-8", newline="") as file:
        next(file)  # the environment
        old = list(csv.DictReader(file))
    return [each for each in old if tuple(each[key] for key in keys) not in anew] + rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--loss", choices=LOSSES, default="AXE")
    parser.add_argument("--train-file", help="sentence pairs; by default the phrasebook's")
    parser.add_argument("--source-lang", default="en")
    parser.add_argument("--target-lang", default="de")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch, on a CPU")
    parser.add_argument("--steps", type=int, help="of a round; by default as many as suit the size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, help="steps of a round not to count; a fifth")
    parser.add_argument("--quick", action="store_true", help="a tiny model, for a test")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = SIZES["tiny" if options.quick else options.size]
    num_steps = options.steps or size.num_steps
    warm_up = num_steps // 5 if options.warm_up is None else options.warm_up
    languages = {"source_lang": options.source_lang, "target_lang": options.target_lang}
    data = load_rows(options.train_file, size, num_steps, **languages)
    setting = Setting(size, options.loss, *data, options.device, num_steps)
    where = environment(options.device)
    print(where)
    rows: list[dict] = []
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / f"training_{options.device}.csv"
    for part in options.parts:
        print(f"... {part}", flush=True)
        rows += MEASURES[part](setting, options.rounds, warm_up)
        write_csv(path, merged(path, rows), where)  # what is done stays if the rest is not
    print(markdown_table(list(rows[0]), [tuple(each.values()) for each in rows]))


if __name__ == "__main__":
    main()
