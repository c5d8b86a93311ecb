"""What the benchmarks share: time, quantiles, a line that says where they ran, tables."""

import csv
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

RESULTS = Path(__file__).parent / "results"


def seconds(function: Callable[[], object], device: str) -> float:
    """CPU time of the process; on a GPU, time until it is done."""
    if device == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


class Spent(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float  # of all threads of the process; on a GPU, time until it is done


def spent(function: Callable[[], object], device: str) -> Spent:
    start = time.perf_counter()
    cpu = seconds(function, device)
    return Spent(time.perf_counter() - start, cpu)


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return statistics.median(values), fifths[0], fifths[3]


def environment(device: str) -> str:
    """Processor, versions, threads and commit in one line."""
    processor = platform.processor() or platform.machine()
    if device == "cuda":
        processor = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(git, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    commit = done.stdout.strip() or "unknown"
    software = f"torch {torch.__version__}, Python {platform.python_version()}, commit {commit}"
    return f"{processor}, {torch.get_num_threads()} thread(s), {software}"


def write_csv(path: Path, rows: list[dict], environment: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {environment}\n")
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(headings: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
