"""What `axe-hf serve` answers in a second, and how soon, to one client and to many at a time.

    python examples/benchmarks/serving.py MODEL=en-de DATA --source-lang en --target-lang de

About 3 minutes on two cores, 1 GiB. For each precision the server is started as a user would start
it, in a process of its own; this one plays the clients. Each has a connection of its own, sends one
sentence as JSON to /translate, waits for the answer, and sends its next one; together they send
every sentence of DATA, `--rounds` times. The server warms up on all of them once. Clients and
server share the cores, so that what the clients need (printed: CPU seconds of both processes) is
missing to the server. Latencies are from the first byte sent to the last received. "Speed-up" is
against one client. With `--check`, a translation must not depend on how many clients there are.
What stands behind " -- " are options for the server.
Prints a table in Markdown, and writes it as a CSV.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from measuring import RESULTS, environment, markdown_table, write_csv

from axe_hf import load_translations

PRECISIONS = {"float32": [], "int8": ["--int8"]}


class Server:
    """A running `axe-hf serve` and where it listens."""

    def __init__(self, model: str, options: list[str]):
        command = [sys.executable, "-m", "axe_hf", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if "startup complete" in line:
                break
        else:
            raise RuntimeError("".join(lines))
        url = next(json.loads(line)["url"] for line in lines if '"serving"' in line)
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        # Nobody reads the rest: what is not read would stop the server once the pipe is full.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def cpu_seconds(self) -> float:
        """Of all its threads so far; 0 where there is no /proc."""
        file = Path(f"/proc/{self.process.pid}/stat")
        if not file.exists():
            return 0.0
        fields = file.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            raise RuntimeError("The server did not end as it should.")
        self.drain.wait()


class Measured(NamedTuple):
    """What some clients saw."""

    seconds: float
    latencies: list[float]  # seconds, of each request
    answers: dict[str, str]
    server_cpu: float
    client_cpu: float


async def client(server: Server, requests, latencies: list[float], answers: dict) -> None:
    """Send what is left of `requests`, one after the other."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for text, body in requests:
        start = time.perf_counter()
        writer.write(body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        latencies.append(time.perf_counter() - start)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head!r} {answer!r}")
        answers[text] = answer
    writer.close()


def request(text: str, languages: tuple[str, str]) -> bytes:
    body = json.dumps({"q": text, "source": languages[0], "target": languages[1]}).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


def measure(server: Server, texts: list[str], languages, num_clients: int) -> Measured:
    latencies, answers = [], {}

    async def run() -> None:
        shared = ((text, request(text, languages)) for text in texts)
        await asyncio.gather(
            *(client(server, shared, latencies, answers) for _ in range(num_clients))
        )

    before, own = server.cpu_seconds(), time.process_time()
    start = time.perf_counter()
    asyncio.run(run())
    seconds = time.perf_counter() - start
    used = server.cpu_seconds() - before, time.process_time() - own
    return Measured(seconds, latencies, {t: json.loads(a) for t, a in answers.items()}, *used)


def rows_of(precision: str, found: dict[int, list[Measured]]) -> list[dict]:
    """One row for each number of clients: medians of the rounds, quantiles of all requests."""
    rows, base = [], None
    for num_clients, rounds in found.items():
        rates = [len(each.latencies) / each.seconds for each in rounds]
        rate = statistics.median(rates)
        base = base or rate
        latencies = [1e3 * value for each in rounds for value in each.latencies]
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        row = {"precision": precision, "clients": num_clients, "requests": len(latencies)}
        row |= {"requests_per_second": f"{rate:.1f}", "speedup": f"{rate / base:.2f}"}
        row |= {f"p{cut}_ms": f"{cuts[cut - 1]:.1f}" for cut in (50, 95, 99)}
        for part in ("server_cpu", "client_cpu"):
            each_ms = [1e3 * getattr(one, part) / len(one.latencies) for one in rounds]
            row[f"{part}_ms"] = f"{statistics.median(each_ms):.2f}"
        rows.append(row)
    return rows


def check(found: dict[int, list[Measured]]) -> None:
    """Every text has one translation, whoever asked at the same time."""
    first, *others = (each.answers for rounds in found.values() for each in rounds)
    for other in others:
        different = [text for text in first if first[text] != other[text]]
        if different:
            raise RuntimeError(f"{len(different)} of {len(first)} translations differ.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="as `axe-hf serve` takes it: my_model=en-de")
    parser.add_argument("data", help="sentence pairs, as `axe-hf evaluate` takes them")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="compare the translations")
    parser.add_argument("--name", default="serving_cpu", help="of the CSV")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    words = sys.argv[1:]  # argparse takes none behind "--" once there were other options
    end = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:end], argparse.Namespace(options=words[end + 1 :]))


def main() -> None:
    options = parse()
    languages = options.source_lang, options.target_lang
    names = dict(zip(("source_lang", "target_lang"), languages, strict=True))
    pairs = load_translations(options.data, **names)["translation"]
    texts = [pair[languages[0]] for pair in pairs]
    rows = []
    for precision in options.precisions:
        server = Server(options.model, PRECISIONS[precision] + options.options)
        try:
            measure(server, texts, languages, max(options.clients))
            found = {number: [] for number in options.clients}
            for _ in range(options.rounds):
                for number, rounds in found.items():
                    rounds.append(measure(server, texts, languages, number))
        finally:
            server.end()
        if options.check:
            check(found)
        rows += rows_of(precision, found)
    where = environment("cpu")
    print(markdown_table(list(rows[0]), [tuple(map(str, row.values())) for row in rows]), where)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"Most memory of a server: {peak / 1024:.0f} MiB")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_csv(options.output_dir / f"{options.name}.csv", rows, where)


if __name__ == "__main__":
    main()
