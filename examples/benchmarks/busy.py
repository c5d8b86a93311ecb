"""Decoding beside a busy process: what OpenMP's waiting costs, and what helps.

    python examples/benchmarks/busy.py

PyTorch splits an operation among threads and waits for all of them; on Linux by turning in a loop
for a while. Where another process holds one of the cores, each such wait is one for the scheduler.
Each setting runs in a process of its own, as OpenMP reads its variables once; wall-clock time of
`generate` at T=1, quiet and beside a process that does nothing but turn on the last core. Two
minutes on two cores; writes results/busy_cpu.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from measuring import RESULTS, environment, markdown_table, quantiles, write_csv

from axe_hf import CmlmConfig, CmlmForConditionalGeneration

SETTINGS = {
    "as PyTorch comes": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
BATCH_SIZES = (1, 4, 16, 64)
LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 192}
LAYERS |= {"encoder_ffn_dim": 768, "decoder_ffn_dim": 768}


def milliseconds(repeats: int) -> dict[int, tuple[float, float, float]]:
    """Median, 20th and 80th percentile of a batch of each size, after three to warm up."""
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=8000, **LAYERS)).eval()
    taken = {}
    for size in BATCH_SIZES:
        batch = {"input_ids": torch.randint(5, 8000, (size, 10))}
        batch["target_lengths"] = torch.full((size,), 12)
        times = []
        for _ in range(3 + repeats):
            start = time.perf_counter()
            model.generate(**batch)
            times.append(1000 * (time.perf_counter() - start))
        taken[size] = quantiles(times[3:])
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        print(json.dumps(milliseconds(options.repeats)))
        return
    argv = [sys.executable, __file__, "--in-this-process", "--repeats", str(options.repeats)]
    turning = [sys.executable, "-c", "while True: pass"]
    rows = []
    for name, variables in SETTINGS.items():
        for neighbour in ("quiet", "busy"):
            other = subprocess.Popen(turning) if neighbour == "busy" else None
            try:
                if other is not None and hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(other.pid, {max(os.sched_getaffinity(0))})
                own = {**os.environ, **variables}
                done = subprocess.run(argv, env=own, check=True, stdout=subprocess.PIPE)
            finally:
                if other is not None:
                    other.kill()
                    other.wait()
            for size, (median, p20, p80) in json.loads(done.stdout).items():
                row = {"setting": name, "machine": neighbour, "batch": size, "ms": f"{median:.1f}"}
                rows.append(row | {"ms_p20": f"{p20:.1f}", "ms_p80": f"{p80:.1f}"})
                print(*rows[-1].values(), sep="\t", flush=True)
    write_csv(options.output_dir / "busy_cpu.csv", rows, environment("cpu"))
    cases = [(size, machine) for size in BATCH_SIZES for machine in ("quiet", "busy")]
    times = {(r["setting"], int(r["batch"]), r["machine"]): r["ms"] for r in rows}
    shown = [(name, *(times[name, size, machine] for size, machine in cases)) for name in SETTINGS]
    headings = [f"{size}, {machine}" for size, machine in cases]
    print(markdown_table(["ms by batch size", *headings], shown))


if __name__ == "__main__":
    main()
