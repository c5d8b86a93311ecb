"""How fast Mask-Predict decodes beside autoregressive models of the same size.

    python examples/benchmarks/decoding.py            # about 15 minutes, two idle cores, 6 GiB
    python examples/benchmarks/decoding.py --quick    # seconds, tiny models
    python examples/benchmarks/decoding.py --engines ctranslate2 ours --threads 2 --batch-sizes 1
    python examples/benchmarks/decoding.py --engines transformers ours --dtypes bfloat16
    python examples/benchmarks/decoding.py --engines transformers ours --device cuda

CTranslate2, ONNX Runtime and torchao come with the extra: `pip install -e ".[benchmark]"`. Sources
and translations have 32 tokens, the weights are random, the width is 512, the vocabulary 32,000.
Engines: CTranslate2 (Marian, greedy and 5 beams) and Transformers (Marian, greedy, int8 by
`quantize_dynamic`), both with their key-value cache and exactly 32 new tokens; ours, on canvases of
1, 1.4 and 2 times the translation, one length candidate (five once: 30 to 34 positions), in int8 by
`quantize_int8`; ours in ONNX Runtime, as `export_model` writes and `load_exported` decodes; ours in
the int8 of torchao. 6-6, 9-3 and 12-1 are encoder and decoder layers: for a shallow decoder see
Kasai et al., "Deep Encoder, Shallow Decoder", ICLR 2021.

All take turns in one process; a system that takes less than a second is warmed up in every turn and
then called again and again for 0.3 seconds. Before each turn the threads of the one before have 50
ms to stop spinning. A speed-up is against CTranslate2 (where that is left out: Transformers),
greedy, 6-6, of the same batch, threads, precision and turn: median, 20th and 80th percentile of
all turns; "own depth" is against greedy CTranslate2 with the same layers. Times are by the clock,
with CPU time of the whole process beside it (on a GPU: time until it is done). At batch 4, T = 10
and 5 candidates ours is compared with a Mask-Predict loop as one would write it down, once both
have returned the same tokens. Writes a table in Markdown, a CSV and a PNG.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from decoding_cases import FULL, LOOP, MARIAN, QUICK, System, make_loop_systems, make_sources
from decoding_engines import CTRANSLATE2, ENGINES, ONNX_RUNTIME, Grid
from measuring import RESULTS, Spent, environment, markdown_table, quantiles, spent, write_csv
from torch import Tensor

LOOP_BATCH = 4
# What would take longest is left out: sentences * T * candidates * canvas over that of 64 * T = 4.
# Of beam search: sentences * beams over 16 * 5.
MOST_CANVASES, MOST_BEAMS = 256, 80
REST, LONG, LEAST = 0.05, 1.0, 0.3  # seconds: between turns, of a call, of the calls of a turn


def turn(decode: Callable[[], object], device: str, least: float) -> Spent:
    """What a call takes."""
    time.sleep(REST)
    first = spent(decode, device)
    if first.wall > LONG:
        return first
    calls = [spent(decode, device)]
    while sum(call.wall for call in calls) < least:
        calls.append(spent(decode, device))
    return Spent(*(quantiles(list(times))[0] for times in zip(*calls, strict=True)))


Times = dict[str, list[Spent]]  # of each turn, by the name of the system


def take_turns(systems: list[System], sources: Tensor, times: Times, least: float) -> None:
    mask = torch.ones_like(sources)
    for system in systems:
        decode = partial(system.decode, sources, mask)
        times.setdefault(str(system), []).append(turn(decode, sources.device.type, least))


def ratios(base: list[Spent], own: list[Spent], part: str) -> list[float]:
    return [getattr(one, part) / getattr(other, part) for one, other in zip(base, own, strict=True)]


def rows_of(systems: list[System], times: Times, batch: int, threads: int) -> list[dict]:
    """One row a system."""
    rows = []
    for system in systems:
        own = times[str(system)]
        row = {"batch": batch, "threads": threads, "engine": system.engine}
        row |= {"layers": system.layers, "precision": system.precision, "search": system.search}
        for name in ("num_iterations", "num_candidates", "canvas", "beams"):
            value = getattr(system, name)
            row[name] = "" if value is None else f"{value:g}"
        row["rounds"] = len(own)
        for part in Spent._fields:
            middle, low, high = quantiles([1e3 * getattr(each, part) for each in own])
            row |= {f"{part}_ms": middle, f"{part}_ms_p20": low, f"{part}_ms_p80": high}
        row["sentences_per_second"] = 1e3 * batch / row["wall_ms"]
        base = baseline(system, systems)
        row["baseline"] = str(base)
        middle, low, high = quantiles(ratios(times[str(base)], own, "wall"))
        row |= {"speedup": middle, "speedup_p20": low, "speedup_p80": high}
        row["speedup_cpu"] = quantiles(ratios(times[str(base)], own, "cpu"))[0]
        same = find(systems, CTRANSLATE2, system.layers, system.precision)
        row["speedup_own_depth"] = (
            quantiles(ratios(times[str(same)], own, "wall"))[0] if same else ""
        )
        rows.append({k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()})
    return rows


def find(systems: list[System], engine: str, layers: str, precision: str) -> System | None:
    """The greedy system of these."""
    wanted = (engine, layers, precision, 1)
    found = (s for s in systems if (s.engine, s.layers, s.precision, s.beams) == wanted)
    return next(found, None)


def baseline(system: System, systems: list[System]) -> System:
    """Greedy, of as many decoder as encoder layers; of the loop itself; or else the first."""
    if systems[0].engine == LOOP:
        return systems[0]
    layers = systems[0].layers
    found = (find(systems, engine, layers, system.precision) for engine in (CTRANSLATE2, MARIAN))
    alike = (each for each in systems if each.precision == system.precision)
    return next(filter(None, found), None) or next(alike)


def check_loop(systems: list[System], sources: Tensor) -> None:
    """All return the same tokens, where rounding is fine enough for it."""
    tokens = [system.decode(sources, torch.ones_like(sources)) for system in systems]
    exact = systems[0].precision == "float32"
    if exact and not all(tokens[0].equal(other) for other in tokens[1:]):
        raise RuntimeError("`generate` and Mask-Predict as written return different tokens.")


def markdown(rows: list[dict]) -> str:
    headings = ["threads", "batch", "engine", "layers", "precision", "search", "ms", "CPU ms"]
    headings += ["sentences/s", "times faster (p20 to p80)", "in CPU time", "own depth"]
    plain = ("threads", "batch", "engine", "layers", "precision", "search", "wall_ms", "cpu_ms")
    lines = []
    for row in rows:
        cells = [row[name] for name in plain] + [row["sentences_per_second"]]
        cells += [f"{row['speedup']} ({row['speedup_p20']} to {row['speedup_p80']})"]
        lines.append((*cells, row["speedup_cpu"], row["speedup_own_depth"]))
    return markdown_table(headings, lines)


TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
# Label, colour, line, and which rows; the canvas is the shortest or the longest.
CURVES = [
    ("6-6, canvas as long", "#4477aa", "-", {"engine": "ours", "layers": 0, "canvas": 0}),
    ("6-6, longest canvas", "#4477aa", "--", {"engine": "ours", "layers": 0, "canvas": -1}),
    ("12-1, longest canvas", "#228833", "--", {"engine": "ours", "layers": -1, "canvas": -1}),
    ("ONNX Runtime, 6-6", "#66ccee", ":", {"engine": ONNX_RUNTIME, "layers": 0, "canvas": 0}),
    ("CTranslate2 12-1, greedy", "#ccbb44", "-", {"engine": CTRANSLATE2, "layers": -1}),
]


def plot(path: Path, rows: list[dict], where: str) -> None:
    """Speed-up over greedy CTranslate2 in int8 by batch size, one panel a T, most threads."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"No picture: matplotlib is missing. `pip install matplotlib` for {path.name}.")
        return
    precision = "int8" if any(row["precision"] == "int8" for row in rows) else rows[0]["precision"]
    threads = max(rows, key=lambda row: int(row["threads"]))["threads"]
    rows = [row for row in rows if (row["precision"], row["threads"]) == (precision, threads)]
    rows = [row for row in rows if row["num_candidates"] in ("", "1") and row["beams"] in ("", "1")]
    passes = sorted({row["num_iterations"] for row in rows} - {""}, key=int) or [""]
    batches = sorted({int(row["batch"]) for row in rows})
    order = {
        "layers": list(dict.fromkeys(row["layers"] for row in rows)),
        "canvas": sorted({row["canvas"] for row in rows} - {""}, key=float) or [""],
    }
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(passes), sharey=True, squeeze=False)[0]
    base = rows[0]["baseline"]
    for panel, T in zip(panels, passes, strict=True):
        panel.axhline(1, color="#bbbbbb", linewidth=1, label=f"{base} = 1")
        for name, colour, line, wanted in CURVES:
            want = {key: order[key][v] if key in order else v for key, v in wanted.items()}
            points = [
                (batches.index(int(row["batch"])), float(row["speedup"]))
                for row in rows
                if row["num_iterations"] in ("", T) and all(row[k] == v for k, v in want.items())
            ]
            panel.plot(*zip(*points, strict=True) if points else ([], []), line, color=colour)
            panel.plot([], [], line, color=colour, label=name)
            panel.lines[-2].set_marker("o")
        decorate(panel, f"T = {T}", batches)
    panels[0].set_ylabel(f"times faster, {precision}, {threads} thread(s)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel(where, fontsize=6)
    figure.savefig(path, dpi=110)


def decorate(panel, title: str, batches: list[int]) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_yscale("log")
    panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    panel.minorticks_off()
    panel.grid(axis="y", color="#eeeeee")
    panel.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    panel.set_xlabel("sentences in a batch", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, for a test")
    parser.add_argument("--engines", nargs="+", choices=[*ENGINES, "loop"], help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 1 16 64")
    parser.add_argument("--layers", nargs="+", help="default: 6-6 9-3 12-1")
    parser.add_argument("--canvases", type=float, nargs="+", default=[1, 1.4, 2])
    parser.add_argument("--num-iterations", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each system (default 2)")
    parser.add_argument("--compile", action="store_true", help="ours with compile=True as well")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.engines = options.engines or [*ENGINES, "loop"]
    options.batch_sizes = options.batch_sizes or ([1, 3] if options.quick else [1, 16, 64])
    on_cpu = options.device == "cpu"
    options.dtypes = options.dtypes or (["float32", "int8"] if on_cpu else ["float32"])
    return options


def measure(options: argparse.Namespace, grid: Grid) -> list[dict]:
    """Rows of all batch sizes, and of the loop where it is asked for."""
    systems = [s for name, make in ENGINES.items() if name in options.engines for s in make(grid)]
    groups = []
    for batch in options.batch_sizes if systems else ():
        taken = [s for s in systems if batch * s.canvases <= MOST_CANVASES]
        taken = [s for s in taken if s.beams in (None, 1) or batch * s.beams <= MOST_BEAMS]
        groups.append((batch, taken, make_sources(grid.size, batch, grid.device)))
    if "loop" in options.engines:
        dtype = next(name for name in options.dtypes if name != "int8")
        taken = make_loop_systems(grid.size, dtype, grid.device)
        groups.append((LOOP_BATCH, taken, make_sources(grid.size, LOOP_BATCH, grid.device)))
        check_loop(*groups[-1][1:])
    times: list[Times] = [{} for _ in groups]
    start = time.perf_counter()
    for i in range(options.rounds):
        for (_, taken, sources), found in zip(groups, times, strict=True):
            take_turns(taken, sources, found, 0 if options.quick else LEAST)
        passed = time.perf_counter() - start
        print(f"... {grid.threads} thread(s), round {i + 1}: {passed:.0f} s", flush=True)
    return [
        row
        for (batch, taken, _), found in zip(groups, times, strict=True)
        for row in rows_of(taken, found, batch, grid.threads)
    ]


def main() -> None:
    options = parse()
    size = QUICK if options.quick else FULL
    where = f"{environment(options.device)}, transformers {version('transformers')}"
    for name in ("ctranslate2", "onnxruntime", "torchao"):
        where += f", {name} {version(name)}" if name in options.engines else ""
    where += f", OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'default')}"
    print(where)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    suffix = "_bfloat16" if "bfloat16" in options.dtypes else ""
    stem = options.output_dir / f"decoding_{options.device}{suffix}"
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            torch.set_num_threads(threads)
            grid = Grid(
                size=size,
                precisions=tuple(options.dtypes),
                device=options.device,
                threads=threads,
                layers=tuple(options.layers or size.depths()),
                canvases=tuple(options.canvases),
                num_iterations=tuple(options.num_iterations),
                is_compiled=options.compile,
                folder=Path(folder),
            )
            rows += measure(options, grid)
            write_csv(stem.with_suffix(".csv"), rows, where)  # what is done stays
    plot(stem.with_suffix(".png"), rows, where)
    print(markdown(rows))


if __name__ == "__main__":
    main()
