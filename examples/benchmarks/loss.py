"""What AXE and its family cost beside cross entropy and CTC, forward and backward: time and memory.

    python examples/benchmarks/loss.py                     # forty minutes on one core, 6 GiB
    python examples/benchmarks/loss.py --quick             # seconds, small sizes
    python examples/benchmarks/loss.py --allocator retain  # the C library keeps freed memory
    python examples/benchmarks/loss.py --device cuda

Time is CPU time of the process on one thread (on a GPU: time until it is done), extra memory the
peak above what is held before the forward pass, in a second run. The losses take turns, and a ratio
is against cross entropy in the same turn: median, 20th and 80th percentile of all turns. Writes a
table in Markdown, a CSV and a PNG. Losses of logits are compared with `F.cross_entropy`, losses of
hidden states with the projection to logits and `F.cross_entropy`. The alignment alone starts from
costs that were gathered before. "CTC" is `F.ctc_loss`; "AXE, soft" sums over all alignments, "AXE,
soft, repetition" lets tokens repeat besides, and "AXE, CTC" skips no target besides, which is CTC.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from loss_cases import ALIGNMENT, CASES, QUICK_CASES, Case, alignment_alone, inputs_of, losses_of
from measuring import RESULTS, environment, markdown_table, quantiles, seconds, write_csv
from torch import Tensor

MIB = 2**20
# The first is what a fresh process has. With the second glibc gives nothing back to the system: see
# `--allocator`.
ALLOCATORS = {
    "default": {},
    "retain": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"},
}


def run_once(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    loss(*inputs).backward()


def fresh(inputs: tuple[Tensor, ...], name: str) -> tuple[Tensor, ...]:
    """The inputs without gradients; a copy for the loss that writes over them."""
    *tensors, labels = inputs
    tensors = [tensor.clone() if "in place" in name else tensor.detach() for tensor in tensors]
    return *(tensor.requires_grad_() for tensor in tensors), labels


def extra_mib(function: Callable[[], None], device: str) -> float | None:
    """Peak memory above what is held before, MiB; None where the system does not tell (not
    Linux)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        function()
        return None

    def kib(field: str) -> int:
        return int(status.read_text().split(field + ":")[1].split()[0])

    # What the C library holds back of freed memory would hide as much of what is allocated next.
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    reset.write_text("5")  # sets the peak, VmHWM, to the present size
    before = kib("VmRSS")
    function()
    return (kib("VmHWM") - before) / 1024


def measure(case: Case, repeats: int, device: str, allocator: str) -> list[dict]:
    """One row a loss: milliseconds, MiB and ratios."""
    inputs, losses = inputs_of(case, device), losses_of(case, device)
    align = alignment_alone(*inputs) if case.hidden is None else None
    names = [*losses, ALIGNMENT] if align else list(losses)

    def prepared(name: str) -> Callable[[], None]:
        return align if name == ALIGNMENT else partial(run_once, losses[name], fresh(inputs, name))

    memory, times = {}, {name: [] for name in names}
    for name in names:
        prepared(name)()  # loads code, which is not to count
        memory[name] = extra_mib(prepared(name), device)
    for _ in range(repeats):
        for name in names:
            run = prepared(name)
            times[name].append(seconds(run, device))
            del run
    rows = []
    for name in names:
        ratios = [one / base for one, base in zip(times[name], times[case.baseline], strict=True)]
        row = {"case": str(case), "loss": name, "allocator": allocator, "repeats": repeats}
        for label, values in (("ms", [1e3 * one for one in times[name]]), ("ratio", ratios)):
            middle, low, high = (f"{value:.4g}" for value in quantiles(values))
            row |= {label: middle, f"{label}_p20": low, f"{label}_p80": high}
        # In a process that keeps freed memory the peak says nothing.
        extra = memory[name] if allocator == "default" else None
        base = memory[case.baseline]
        row["extra_mib"] = "" if extra is None else f"{extra:.1f}"
        row["extra_ratio"] = f"{extra / base:.3f}" if extra is not None and base else ""
        rows.append(row)
    return rows


def markdown(rows: list[dict]) -> str:
    headings = ["batch x length x vocabulary", "loss", "time, ms", "time, ratio (p20 to p80)"]
    headings += ["extra memory, MiB", "ratio"]
    lines = []
    for row in rows:
        ratio = f"{row['ratio']} ({row['ratio_p20']} to {row['ratio_p80']})"
        cells = (row["case"], row["loss"], row["ms"], ratio, row["extra_mib"], row["extra_ratio"])
        lines.append(cells)
    return markdown_table(headings, lines)


def plot(path: Path, rows: list[dict], environment: str) -> None:
    """Bars of both ratios, one group a case; cross entropy is the line at 1."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"No picture: matplotlib is missing. `pip install matplotlib` for {path.name}.")
        return
    rows = [row for row in rows if row["ratio"] != "1"]
    names = [f"{row['loss']}  [{row['case']}]" for row in rows]
    figure = Figure(figsize=(11, 0.6 + 0.24 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, key, title in zip(
        panels, ("ratio", "extra_ratio"), ("time", "extra memory"), strict=True
    ):
        panel.barh(names, [float(row[key] or "nan") for row in rows], color="#4477aa")
        panel.axvline(1, color="#cc3311")
        panel.set_title(f"{title}, cross entropy = 1", fontsize=9)
        panel.tick_params(labelsize=7)
    panels[0].invert_yaxis()
    figure.supxlabel(environment, fontsize=6)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each loss (default 5)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--allocator", choices=list(ALLOCATORS), default="default")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = ALLOCATORS[options.allocator]
    if any(os.environ.get(name) != value for name, value in settings.items()):
        # The C library reads them when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)
    torch.set_num_threads(1)
    where = environment(options.device)
    print(f"{where}, {options.allocator} allocator")
    kind = options.device if options.allocator == "default" else f"{options.device}_retain"
    options.output_dir.mkdir(parents=True, exist_ok=True)
    stem = options.output_dir / f"loss_{kind}"
    rows = []
    for case in QUICK_CASES if options.quick else CASES:
        print(f"... {case}", flush=True)
        rows += measure(case, options.repeats, options.device, options.allocator)
        write_csv(stem.with_suffix(".csv"), rows, where)  # what is done stays if the rest is not
    plot(stem.with_suffix(".png"), rows, where)
    print(markdown(rows))


if __name__ == "__main__":
    main()
