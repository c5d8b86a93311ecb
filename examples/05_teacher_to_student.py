"""From sentence pairs to a model that translates many times faster, and by how much it is worse.

What it does: trains a small autoregressive teacher (a stock MarianMTModel), lets it translate its
training data, trains students that write all words at once, by two losses, from random weights
(cold) or the teacher's (warm), on the data as it is (raw) or as the teacher says it (distilled),
and compares all. For a teacher of the Hub: `axe-hf distill`, then `axe-hf train --init-from`.
Takes an hour on two CPU cores with this command: nine models, 5,000 steps each.

    python examples/05_teacher_to_student.py --output_dir road --max_steps 5000 \
        --per_device_train_batch_size 24 --learning_rate 1.2e-3 --save_strategy no \
        --train_file tatoeba_short.train.jsonl.gz --test_file tatoeba_short.test.jsonl.gz
Every field of `AxeTrainingArguments` is an option, and so are the fields of `Road` below.
Expected output: a table of BLEU, chrF, repetition and speed, in road/table.md, too; all numbers are
in road/results.json, and road/trade_off.png is a picture of BLEU over speed.
"""

import copy
import itertools
import json
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import transformers
from matplotlib.figure import Figure

import axe_hf
from axe_hf.data import PHRASEBOOK

CTC = {"allow_repetition": True, "axe_temperature": 1.0, "axe_delta": float("inf")}
STRETCHED = {"masking": "full", "length_multiplier": 2.0, "length_jitter": 0.2}
# What each is to the model, and to its training.
LOSSES = {"CTC": (CTC, STRETCHED), "cross entropy": ({"training_loss": "cross_entropy"}, {})}


@dataclass
class Road:
    train_file: str = str(PHRASEBOOK / "train.jsonl.gz")  # what load_translations reads
    test_file: str = str(PHRASEBOOK / "test.jsonl.gz")
    source_lang: str = "en"
    target_lang: str = "de"
    max_train_pairs: int | None = None  # train on the first so many only
    losses: list[str] = field(default_factory=lambda: [*LOSSES])
    starts: list[str] = field(default_factory=lambda: ["cold", "warm"])
    targets: list[str] = field(default_factory=lambda: ["raw", "distilled"])
    d_model: int = 192
    vocab_size: int = 2000


parser = transformers.HfArgumentParser((Road, axe_hf.AxeTrainingArguments))
road, args = parser.parse_args_into_dataclasses()
languages = {"source_lang": road.source_lang, "target_lang": road.target_lang}
folder = Path(args.output_dir)


def train(make_trainer, model, name: str, data, **own) -> None:
    """Train and save a model; `own` are arguments of this run."""
    run = copy.copy(args)
    vars(run).update(output_dir=str(folder / name), **own)
    trainer = make_trainer(model, run, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    model.eval()


# 1. Sentence pairs, and a tokenizer that teacher and students share.
pairs = axe_hf.load_translations(road.train_file, **languages)
pairs = pairs.select(range(len(pairs))[: road.max_train_pairs])
texts = (text for pair in pairs["translation"] for text in pair.values())
tokenizer = axe_hf.train_tokenizer(texts, vocab_size=road.vocab_size)
limits = {"max_source_length": 128, "max_target_length": 64}  # of 128 positions: room for blanks
tokenize = partial(axe_hf.tokenize_translations, tokenizer=tokenizer, **languages, **limits)
rows = {"raw": tokenize(pairs)}

# 2. The teacher, by the stock trainer.
transformers.set_seed(args.seed)
stack = {"layers": 2, "attention_heads": 4, "ffn_dim": 4 * road.d_model}
sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in stack.items()}
sizes |= {"d_model": road.d_model, "init_std": road.d_model**-0.5, "scale_embedding": True}
start_and_end = dict.fromkeys(("decoder_start_token_id", "eos_token_id"), tokenizer.eos_token_id)
ids = {"pad_token_id": tokenizer.pad_token_id, "forced_eos_token_id": None} | start_and_end
sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
teacher = transformers.MarianMTModel(transformers.MarianConfig(**sizes, **ids))
teacher.generation_config.update(max_length=60, num_beams=1)
collate = transformers.DataCollatorForSeq2Seq(tokenizer, teacher)
stock = partial(transformers.Seq2SeqTrainer, data_collator=collate)
train(stock, teacher, "teacher", rows["raw"], label_smoothing_factor=0.1)

# 3. Its translations of the training data, by greedy search (Kim and Rush 2016).
pairs.to_json(folder / "pairs.jsonl")
made = axe_hf.distill(folder / "teacher", folder / "pairs.jsonl", folder / "distilled", **languages)
(file,) = made.folder.glob("data/*.jsonl")
rows["distilled"] = tokenize(axe_hf.load_translations(file, **languages))

# 4. The students.
ways = {}  # of translating
for loss, start, target in itertools.product(road.losses, road.starts, road.targets):
    transformers.set_seed(args.seed)
    (settings, canvases), name = LOSSES[loss], f"{loss}, {start}, {target}"
    cmlm = axe_hf.CmlmForConditionalGeneration
    student = cmlm.from_autoregressive(teacher, tokenizer, **settings)
    student = student if start == "warm" else cmlm(student.config)  # with random weights
    train(axe_hf.AxeTrainer, student, name, rows[target], **canvases)
    for T in (1, 4):
        settings = {"num_iterations": T, "show_progress": False}
        ways[f"{name}, T={T}"] = partial(axe_hf.translate, student, tokenizer, **settings)


# 5. All of them on the test sentences, in batches and one by one.
def search(texts: list[str], num_beams: int) -> list[str]:
    """Translations of the teacher."""
    order, found = sorted(texts, key=len), {}
    for first in range(0, len(order), 64):
        part = order[first : first + 64]
        inputs = tokenizer(part, padding=True, return_tensors="pt").to(teacher.device)
        output = teacher.generate(**inputs, num_beams=num_beams)
        found |= zip(part, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True)
    return [found[text] for text in texts]


def seconds(translated, texts: list[str]) -> float:
    start = time.perf_counter()
    translated(texts)
    return time.perf_counter() - start


ways |= {f"teacher, {beams} beams": partial(search, num_beams=beams) for beams in (1, 5)}
test, results = axe_hf.load_translations(road.test_file, **languages), {}
sources = [pair[road.source_lang] for pair in test["translation"]]
references = [[pair[road.target_lang]] for pair in test["translation"]]
references = list(test["references"]) if "references" in test.column_names else references
for name, way in ways.items():
    metric = axe_hf.TranslationMetric()
    results[name] = metric.compute(predictions=way(sources), references=references)
    results[name]["sentences/s"] = len(sources) / seconds(way, sources)
    alone = statistics.median(seconds(way, [text]) for text in sources[:30])
    results[name]["ms alone"] = 1000 * alone

# 6. A table, the numbers and a picture.
columns = ("bleu", "chrf", "repetition_rate", "sentences/s", "ms alone")
lines = [("model", *columns), ("---",) * 6]
lines += [(name, *(f"{found[c]:.3g}" for c in columns)) for name, found in results.items()]
table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
print(table + results[name]["bleu_signature"])
(folder / "table.md").write_text(table)
(folder / "results.json").write_text(json.dumps(results, indent=2))
figure = Figure(layout="constrained")
axes = figure.add_subplot(xscale="log", xlabel="sentences a second, alone", ylabel="BLEU")
for name, found in results.items():
    point = (1000 / found["ms alone"], found["bleu"])
    axes.scatter(*point)
    axes.annotate(name, point, fontsize=6)
figure.savefig(folder / "trade_off.png", dpi=150)
