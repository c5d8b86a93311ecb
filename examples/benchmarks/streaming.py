"""Memory, start and speed of the data of training: streamed, and read whole, by number of pairs.

    python examples/benchmarks/streaming.py    # 5 million pairs, 0.6 GB: half an hour, a core
    python examples/benchmarks/streaming.py --ways stages stream    # 10 minutes of it
    python examples/benchmarks/streaming.py --quick    # 20,000 pairs: a minute

Writes synthetic pairs into eight files once (`--folder`), then takes an epoch of them, without
training, each way in a process of its own:

- stages: the stream alone, by its stages: reading, tokens by words, batches, and the loader of an
  `AxeTrainer`, which pads and masks; and the tokenizer asked for whole texts, to compare with;
- stream: `TranslationStream` through that loader; and from a state in the middle of the data,
- whole: `load_translations` and `tokenize_translations`, whose Arrow files are written first,
- whole, cached: the same, with those files there.

Prints the seconds from the start of reading to the first batch, pairs a second (CPU time beside
it), the longest wait for a batch and its quantiles, and memory at intervals: RSS, and what of it is
the process's own (anonymous: without the pages of mapped files, which the system takes back when it
needs them). Last, on paper, what the sampler of data read whole holds for 100 million pairs.
Leaves `results/streaming_cpu.csv`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import RESULTS, environment, markdown_table, write_csv

LANGUAGES = {"source_lang": "en", "target_lang": "de"}
LIMITS = {"max_source_length": 64, "max_target_length": 64}
NUM_FILES, NUM_MOMENTS = 8, 10
WAYS = ("stages", "stream", "stream, from the middle", "whole", "whole, cached")
STAGES_PAIRS = 100_000  # that the way "stages" takes, at most
WAITS = {"wait_ms_50": 50, "wait_ms_99": 99, "wait_ms_most": 100}
SAMPLER_BYTES = {"held": 6, "for seconds": 21}  # a pair: `MaxTokensBatchSampler`, measured


def write_pairs(folder: Path, num_pairs: int) -> None:
    """`num_pairs` pairs of 3 to 12 words each side, of 30,000 words by Zipf's law, if not there."""
    if (folder / "done.txt").exists() and (folder / "done.txt").read_text() == str(num_pairs):
        return
    (folder / "pairs").mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz"])
    words = np.array(["".join(draw.choice(letters, draw.integers(2, 9))) for _ in range(30_000)])
    for number in range(NUM_FILES):
        with (folder / "pairs" / f"part-{number}.jsonl").open("w") as file:
            left = num_pairs // NUM_FILES
            while left > 0:
                count = min(left, 10_000)
                lengths = draw.integers(3, 13, (count, 2))
                drawn = words[np.minimum(draw.zipf(1.3, int(lengths.sum())), 30_000) - 1]
                texts = [" ".join(t) for t in np.split(drawn, lengths.ravel().cumsum()[:-1])]
                for source, target in zip(texts[::2], texts[1::2], strict=True):
                    row = {"translation": {"en": source, "de": target}}
                    file.write(json.dumps(row) + "\n")
                left -= count
    (folder / "done.txt").write_text(str(num_pairs))


def memory() -> dict[str, int]:
    """RSS and its anonymous part, MiB; where there is no /proc, the highest RSS so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"rss_mib": most // (2**20 if sys.platform == "darwin" else 2**10), "own_mib": 0}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    sizes = (int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "RssAnon"))
    return dict(zip(("rss_mib", "own_mib"), sizes, strict=True))


def measure(way: str, folder: Path, num_pairs: int, num_workers: int, max_tokens: int) -> None:
    """Take an epoch through the loader of a trainer; print a line of JSON for each moment."""
    from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration
    from axe_hf.data import (
        PairStream,
        PairTokenizer,
        TranslationStream,
        load_translations,
        tokenize_translations,
        train_tokenizer,
    )

    torch.set_num_threads(1)
    pairs = PairStream(folder / "pairs", **LANGUAGES)
    texts = [text for pair in pairs.first(20_000) for text in pair.values()]
    tokenizer = train_tokenizer(texts, vocab_size=8000)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, **LIMITS}
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    options = {"max_tokens_per_batch": max_tokens, "dataloader_num_workers": num_workers}
    args = AxeTrainingArguments(str(folder / "run"), max_steps=10**6, use_cpu=True, **options)

    cpu_before = 0.0

    def tell(moment: str, num_seen: int, seconds: float, waits: Sequence[float] = ()) -> None:
        found = {"way": way, "moment": moment, "pairs": num_seen, "seconds": round(seconds, 1)}
        found["cpu_seconds"] = round(time.process_time() - cpu_before, 1)
        for name, share in WAITS.items():  # of the batches since the last line
            found[name] = round(1000 * np.percentile(waits, share), 1) if waits else ""
        print(json.dumps(found | memory()), flush=True)

    tokenize = PairTokenizer(tokenizer, "en", "de", *LIMITS.values())
    if way == "stages":
        measure_stages(TranslationStream(pairs, tokenize), min(num_pairs, STAGES_PAIRS), max_tokens)
        return
    tell("before reading", 0, 0)
    start, num_seen, state, cpu_before = time.perf_counter(), 0, None, time.process_time()
    if way.startswith("stream"):
        data = TranslationStream(pairs, tokenize)
    else:
        read = load_translations(folder / "pairs", **LANGUAGES)
        data = tokenize_translations(read, tokenizer, **LANGUAGES, **LIMITS)
    if way == "stream, from the middle":
        state = json.loads((folder / "middle.json").read_text())
        loader = data.batches(max_tokens, states=[state])
        next(iter(loader))
        tell("first batch", 0, time.perf_counter() - start)
        return
    trainer = AxeTrainer(model, args, processing_class=tokenizer, train_dataset=data)
    waits, last = list[float](), None
    for batch in trainer.get_train_dataloader():
        if num_seen == 0:
            tell("first batch", 0, time.perf_counter() - start)
            begin, shown, cpu_before = time.perf_counter(), 0, time.process_time()
        else:
            waits.append(time.perf_counter() - last)
        num_seen += len(batch["labels"])
        if num_seen >= (shown + 1) * num_pairs / NUM_MOMENTS:
            shown += 1
            tell(f"{shown}/{NUM_MOMENTS}", num_seen, time.perf_counter() - begin, waits)
            waits.clear()
        if "stream_state" in batch:
            state = json.loads(batch["stream_state"])
            if shown == NUM_MOMENTS // 2 and not (folder / "middle.json").exists():
                (folder / "middle.json").write_text(json.dumps(state))
        if num_seen >= num_pairs or (state and state["positions"][0]["epoch"] > 0):
            break
        last = time.perf_counter()
    tell("end", num_seen, time.perf_counter() - begin)


def measure_stages(data, num_pairs: int, max_tokens: int) -> None:
    """Print a line of JSON for each stage of a stream: its CPU time, with those before it."""
    from axe_hf.data import DataCollatorForCmlm

    tokenize, some = data.tokenize, list(data.pairs.first(num_pairs))

    def whole_texts() -> None:
        for start in range(0, num_pairs, 1000):
            for side in LANGUAGES.values():
                texts = [pair[side] for pair in some[start : start + 1000]]
                [ids.ids for ids in tokenize.tokenizer.backend_tokenizer.encode_batch(texts)]

    def by_words() -> None:
        for start in range(0, num_pairs, 1000):
            tokenize.columns(some[start : start + 1000])

    def batches(collate=len) -> None:
        num_seen = 0
        for batch in data.batches(max_tokens):
            collate(batch.rows)
            if (num_seen := num_seen + len(batch.rows)) >= num_pairs:
                return

    stages = {
        "reading alone": lambda: sum(1 for _ in data.pairs.first(num_pairs)),
        "tokens alone": by_words,
        "tokens alone, of whole texts": whole_texts,
        "reading, tokens and batches": batches,
        "the same, padded and masked": lambda: batches(DataCollatorForCmlm(tokenize.tokenizer)),
    }
    for name, stage in stages.items():
        start, cpu = time.perf_counter(), time.process_time()
        stage()
        found = {"way": "stages", "moment": name, "pairs": num_pairs}
        found["seconds"] = round(time.perf_counter() - start, 2)
        found["cpu_seconds"] = round(time.process_time() - cpu, 2)
        print(json.dumps(found | dict.fromkeys(WAITS, "") | memory()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 pairs")
    parser.add_argument("--workers", type=int, default=0, help="dataloader_num_workers")
    parser.add_argument("--max-tokens", type=int, default=4096, help="budget of a batch")
    parser.add_argument("--folder", type=Path, help="for the pairs, which stay there")
    parser.add_argument("--output", type=Path, default=RESULTS / "streaming_cpu.csv")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="some of the ways")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    num_pairs = 20_000 if options.quick else options.pairs
    if options.way is not None:
        measure(options.way, options.folder, num_pairs, options.workers, options.max_tokens)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="axe-hf-streaming-"))

    # 1. The pairs.
    torch.set_num_threads(1)
    write_pairs(folder, num_pairs)
    if "stream" in options.ways:
        (folder / "middle.json").unlink(missing_ok=True)
    if "whole" in options.ways:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    size = sum(file.stat().st_size for file in (folder / "pairs").iterdir())
    where = environment("cpu")
    print(where, f"{num_pairs:,} pairs in {NUM_FILES} files, {size / 2**20:,.0f} MiB", sep="\n")

    # 2. Each way in a process of its own, with a cache of its own.
    rows = []
    for way in (way for way in WAYS if way in options.ways):
        command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
        command += ["--pairs", str(num_pairs), "--workers", str(options.workers)]
        command += ["--max-tokens", str(options.max_tokens)]
        own = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache")}
        own |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as child:
            for line in child.stdout:
                rows.append(json.loads(line))
                print(*rows[-1].values(), sep="\t", flush=True)
        if child.returncode:
            raise SystemExit(f"{way}: ended with {child.returncode}")

    # 3. The tables.
    of_stages = [row for row in rows if row["way"] == "stages"]
    if of_stages:
        names = [*of_stages[0]][1:5]
        print(markdown_table(names, [[str(row[name]) for name in names] for row in of_stages]))
    table = []
    for way in (way for way in WAYS[1:] if way in options.ways):
        own = [row for row in rows if row["way"] == way]
        before, first, after = own[0], own[1], own[2:]
        rates = [
            f"{after[-1]['pairs'] / max(after[-1][name], 0.1):,.0f}" if after else ""
            for name in ("seconds", "cpu_seconds")
        ]
        warm = [row["rss_mib"] for row in after] or [first["rss_mib"]]
        waits = [max(row[name] for row in after[:-1]) if after[:-1] else "" for name in WAITS]
        sizes = (before["rss_mib"], min(warm), max(warm), max(row["own_mib"] for row in own[1:]))
        cells = (way, first["seconds"], *rates, " / ".join(map(str, waits)), *sizes)
        table.append([*map(str, cells)])
    headings = ["way", "seconds to the first batch", "pairs/s", "pairs/s of CPU time"]
    headings += ["ms until the next batch: 50 %, 99 %, longest", "MiB before", "least", "most"]
    print(markdown_table([*headings, "of it own, at most"], table))
    for when, size in SAMPLER_BYTES.items():
        print(f"sampler of data read whole, 100 million pairs: {size / 10:.1f} GB {when}")
    write_csv(options.output, rows, where)


if __name__ == "__main__":
    main()
