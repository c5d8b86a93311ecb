"""How fast Mask-Predict decodes beside autoregressive Marian models of the same size.

    python examples/benchmarks/decoding.py                    # estimated: 15 minutes on two idle
    cores, 3 GiB python examples/benchmarks/decoding.py --quick            # seconds, tiny models
    python examples/benchmarks/decoding.py --dtype bfloat16
    python examples/benchmarks/decoding.py --device cuda

Sources and translations have 32 tokens, the weights are random. CMLM and Marian have 6 + 6 layers
of width 512 and 32000 tokens; "Marian 12-1" has 12 encoder layers and one decoder layer (Kasai et
al., "Deep Encoder, Shallow Decoder", ICLR 2021). Marian decodes with its key-value cache, exactly
32 new tokens: the end-of-sentence token is switched off in place of a minimum length, which would
cost time. One length candidate has 32 positions, five have 30 to 34. int8 is `quantize_dynamic` of
every linear layer, and is compared with int8.

The systems take turns; a speed-up is against greedy Marian of the same batch, precision and turn:
median, 20th and 80th percentile of all turns. It is in CPU time of the process (on a GPU: time
until it is done), which depends less on what else the machine does; latency and sentences per
second are by the clock. Threads that wait for work spin and count as busy:
`OMP_WAIT_POLICY=PASSIVE` makes them sleep, which on a shared machine is the better measure. At
batch 4, T = 10 and 5 candidates, the CMLM is compared with a Mask-Predict loop as one would write
it down, once both have returned the same tokens. Writes a table in Markdown, a CSV and a PNG.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path

import torch
import transformers
from decoding_cases import (
    BEAM,
    FULL,
    NUM_ITERATIONS,
    QUICK,
    Size,
    System,
    make_loop_systems,
    make_sources,
    make_systems,
)
from measuring import RESULTS, environment, markdown_table, quantiles, seconds, write_csv
from torch import Tensor

LOOP_BATCH = 4


def take_turns(
    systems: list[System], sources: Tensor, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """For every system (cost, wall) of each turn, seconds; the first turn warms up and does not
    count."""
    mask = torch.ones_like(sources)
    times = {str(system): [] for system in systems}
    for turn in range(repeats + 1):
        for system in systems:
            start = time.perf_counter()
            cost = seconds(partial(system.decode, sources, mask), sources.device.type)
            wall = time.perf_counter() - start
            print(f"    turn {turn}: {system}, {1e3 * wall:.0f} ms", flush=True)
            if turn > 0:
                times[str(system)].append((cost, wall))
    return times


def measure(systems: list[System], sources: Tensor, repeats: int) -> list[dict]:
    """One row a system."""
    batch = len(sources)
    times = take_turns(systems, sources, repeats)
    by_name = {(system.name, system.precision): times[str(system)] for system in systems}
    rows = []
    for system in systems:
        own = times[str(system)]
        row = {"batch": batch, "system": system.name, "precision": system.precision}
        row |= {"num_iterations": system.num_iterations or ""}
        row |= {"num_candidates": system.num_candidates or "", "repeats": repeats}
        middle, low, high = quantiles([1e3 * cost for cost, _ in own])
        row |= {"ms": middle, "ms_p20": low, "ms_p80": high}
        middle, low, high = quantiles([1e3 * wall for _, wall in own])
        row |= {"latency_ms": middle, "latency_ms_p20": low, "latency_ms_p80": high}
        row["sentences_per_second"] = 1e3 * batch / middle
        base = by_name[system.baseline, system.precision]
        row["baseline"] = system.baseline
        pairs = list(zip(base, own, strict=True))
        middle, low, high = quantiles([one[0] / other[0] for one, other in pairs])
        row |= {"speedup": middle, "speedup_p20": low, "speedup_p80": high}
        row["latency_speedup"] = quantiles([one[1] / other[1] for one, other in pairs])[0]
        beam = by_name.get((BEAM, system.precision), [])
        ratios = [one[0] / other[0] for one, other in zip(beam, own, strict=False)]
        row["speedup_over_beam"] = quantiles(ratios)[0] if ratios else ""
        rows.append({k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()})
    return rows


def measure_loop(size: Size, options: argparse.Namespace) -> list[dict]:
    """Ours beside the loop as written; where rounding is fine enough, only if their tokens are the
    same."""
    systems = make_loop_systems(size, options.dtype, options.device)
    sources = make_sources(size, LOOP_BATCH, options.device)
    tokens = [system.decode(sources, torch.ones_like(sources)) for system in systems]
    if options.dtype == "float32" and not all(tokens[0].equal(other) for other in tokens[1:]):
        raise RuntimeError("`generate` and Mask-Predict as written return different tokens.")
    return measure(systems, sources, options.repeats)


def label(row: dict) -> str:
    """The system in a cell of a table."""
    name = row["system"]
    if row["num_iterations"]:
        name += f", T={row['num_iterations']}, k={row['num_candidates']}"
    return name if row["precision"] == "float32" else f"{name}, {row['precision']}"


def markdown(rows: list[dict]) -> str:
    headings = ["batch", "system", "time, ms", "latency, ms", "sentences/s"]
    headings += ["times faster (p20 to p80)", "by the clock", "than beam 5"]
    lines = []
    for row in rows:
        cells = [row["batch"], label(row), row["ms"], row["latency_ms"]]
        cells += [row["sentences_per_second"]]
        cells += [f"{row['speedup']} ({row['speedup_p20']} to {row['speedup_p80']})"]
        lines.append((*cells, row["latency_speedup"], row["speedup_over_beam"]))
    return markdown_table(headings, lines)


SPEEDUP = ("speedup", "speedup_p20", "speedup_p80")
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
# Label, colour, line; and which rows: system, number of candidates, whether int8.
CURVES = [
    ("CMLM, 1 length", "#4477aa", "-", ("CMLM", "1", False)),
    ("CMLM, 5 lengths", "#66ccee", "-", ("CMLM", "5", False)),
    ("CMLM int8, 1 length (over Marian int8)", "#4477aa", ":", ("CMLM", "1", True)),
    ("Marian 12-1, greedy", "#228833", "--", ("Marian 12-1, greedy", "", False)),
    ("Marian 6-6, beam 5", "#ccbb44", "--", (BEAM, "", False)),
]


def plot(path: Path, rows: list[dict], environment: str) -> None:
    """Speed-up over greedy by batch size, one panel a T; what has no T is in every panel."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"No picture: matplotlib is missing. `pip install matplotlib` for {path.name}.")
        return
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(NUM_ITERATIONS), sharey=True)
    batches = sorted({int(row["batch"]) for row in rows})
    for panel, num_iterations in zip(panels, NUM_ITERATIONS, strict=True):
        panel.axhline(1, color="#bbbbbb", linewidth=1, label="Marian 6-6, greedy = 1")
        for name, colour, line, wanted in CURVES:
            points = [
                (batches.index(int(row["batch"])), *(float(row[key]) for key in SPEEDUP))
                for row in rows
                if (row["system"], row["num_candidates"], row["precision"] == "int8") == wanted
                and row["num_iterations"] in ("", str(num_iterations))
            ]
            if not points:
                continue
            x, middle, low, high = zip(*points, strict=True)
            panel.plot(x, middle, line, color=colour, marker="o", markersize=4, label=name)
            panel.vlines(x, low, high, color=colour, linewidth=1)
        panel.set_title(f"T = {num_iterations}", fontsize=10)
        panel.set_yscale("log")
        panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
        panel.grid(axis="y", color="#eeeeee")
        panel.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        panel.set_xlabel("sentences in a batch", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("times faster than Marian 6-6, greedy", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel(environment, fontsize=6)
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, for a test")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each system (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 1 16 64")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="also the CMLM with compile=True")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ([1, 3] if options.quick else [1, 16, 64])
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    size = QUICK if options.quick else FULL
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    where = f"{environment(options.device)}, transformers {transformers.__version__}"
    where += f", {options.dtype}, OMP_WAIT_POLICY {waiting}"
    print(where)
    suffix = "" if options.dtype == "float32" else f"_{options.dtype}"
    options.output_dir.mkdir(parents=True, exist_ok=True)
    stem = options.output_dir / f"decoding_{options.device}{suffix}"
    print(f"... the loop as written, batch {LOOP_BATCH}", flush=True)
    loop_rows = measure_loop(size, options)
    write_csv(stem.with_suffix(".csv"), loop_rows, where)
    with_int8 = options.device == "cpu" and options.dtype == "float32"
    systems = make_systems(size, options.dtype, options.device, with_int8, options.compile)
    rows = []
    for batch in options.batch_sizes:
        print(f"... batch {batch}", flush=True)
        sources = make_sources(size, batch, options.device)
        rows += measure(systems, sources, options.repeats)
        # What is done stays if the rest is not.
        write_csv(stem.with_suffix(".csv"), rows + loop_rows, where)
    plot(stem.with_suffix(".png"), rows, where)
    print(markdown(rows + loop_rows))


if __name__ == "__main__":
    main()
