"""BLEU over speed: models of ours beside an autoregressive model, in Transformers and CTranslate2.

    python examples/benchmarks/trade_off.py test.jsonl.gz --source-lang en --target-lang de \
        --autoregressive teacher --ours "CTC=student" "AXE=axe" --output trade_off

Needs the extra "benchmark" (`pip install -e ".[benchmark]"`); takes minutes on two cores. Every
system translates the whole test set, sentences sorted by length, in batches of 1 and of 64; the
systems take turns, wall clock, the best of two turns. Prints the environment and a table, and
writes trade_off.csv and trade_off.png. The autoregressive model is a `MarianMTModel` saved with the
tokenizer of ours, such as the quick start's.
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ctranslate2
import torch
from decoding_engines import convert
from matplotlib.figure import Figure
from measuring import environment, markdown_table, write_csv
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, MarianMTModel

from axe_hf import TranslationMetric, quantize_int8
from axe_hf.data import load_translations

BATCH_SIZES = (1, 64)


@dataclass
class System:
    """One point of the picture for each batch size."""

    name: str
    family: str  # of one colour
    translate: Callable[[list[list[int]]], list[list[int]]]  # ids of a batch to ids
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by batch size
    score: dict = field(default_factory=dict)


def through_generate(model, settings: dict, batch: list[list[int]]) -> list[list[int]]:
    """Ours and Transformers' own."""
    rows = [torch.tensor(ids) for ids in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    return model.generate(ids, attention_mask=(ids != 0).long(), **settings).tolist()


def through_ctranslate2(translator, names: list[str], beams: int, batch) -> list[list[int]]:
    texts = [[names[i] for i in ids] for ids in batch]
    found = translator.translate_batch(texts, beam_size=beams, max_decoding_length=64)
    numbers = {name: i for i, name in enumerate(names)}
    return [[numbers[name] for name in result.hypotheses[0]] for result in found]


def padding_last(model: MarianMTModel) -> MarianMTModel:
    """The same with `<pad>` behind all other tokens, where CTranslate2 looks for it.

    CTranslate2 starts with zeros in place of an embedding: what the model starts with is added to
    the first position of the decoder, where nothing else ever stands.
    """
    config = copy.deepcopy(model.config)
    last = config.vocab_size - 1
    config.pad_token_id = config.decoder_start_token_id = last
    config.eos_token_id -= 1
    moved = MarianMTModel(config)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = weights["model.decoder.embed_tokens.weight"][model.config.decoder_start_token_id]
    weights["model.decoder.embed_positions.weight"][0] += start * model.model.decoder.embed_scale
    for name, tensor in weights.items():
        if tensor.shape[0] == config.vocab_size:
            weights[name] = tensor.roll(-1, dims=0)
        elif name == "final_logits_bias":
            weights[name] = tensor.roll(-1, dims=1)
    moved.load_state_dict(weights)
    moved._keys_to_ignore_on_save = set()  # the positions, which a Marian usually computes anew
    moved.generation_config = GenerationConfig.from_model_config(config)
    return moved


def systems(args, folder: Path) -> list[System]:
    found = []
    for given in args.ours:
        name, path = given.split("=", 1)
        model = AutoModelForSeq2SeqLM.from_pretrained(path).eval()
        for kind, own in (("", model), (", int8", quantize_int8(model))):
            for lengths in (1, 5):
                how = {"num_iterations": 1, "num_length_candidates": lengths}
                label = f"{name}{kind}" + (", 5 lengths" if lengths > 1 else "")
                found.append(System(label, name, partial(through_generate, own, how)))
    model = AutoModelForSeq2SeqLM.from_pretrained(args.autoregressive).eval()
    names = ["<pad>", "</s>", "<unk>"]  # as `train_tokenizer` numbers them
    names += [f"t{i}" for i in range(len(names), model.config.vocab_size)]
    convert(padding_last(model), [*names[1:], names[0]], folder / "ctranslate2")
    for beams, label in ((1, "greedy"), (5, "beam 5")):
        how = {"num_beams": beams, "max_length": 64, "do_sample": False}
        name = f"Transformers, {label}"
        found.append(System(name, "autoregressive", partial(through_generate, model, how)))
        for kind in ("float32", "int8"):
            translator = ctranslate2.Translator(
                str(folder / "ctranslate2"), compute_type=kind, intra_threads=args.threads
            )
            decode = partial(through_ctranslate2, translator, names, beams)
            label_of = f"CTranslate2, {label}" + (", int8" if kind == "int8" else "")
            found.append(System(label_of, "CTranslate2", decode))
    return found


def measure(system: System, sources: list[list[int]], batch_size: int) -> list[list[int]]:
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: list[list[int]] = [[] for _ in sources]
    start = time.perf_counter()
    for first in range(0, len(order), batch_size):
        part = order[first : first + batch_size]
        for i, ids in zip(part, system.translate([sources[i] for i in part]), strict=True):
            found[i] = ids
    system.seconds.setdefault(batch_size, []).append(time.perf_counter() - start)
    return found


def draw(found: list[System], number: int, path: Path) -> None:
    colours = dict.fromkeys(system.family for system in found)
    colours = {name: f"C{i}" for i, name in enumerate(colours)}
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots(1, len(BATCH_SIZES), sharey=True)
    for axis, batch_size in zip(axes, BATCH_SIZES, strict=True):
        for system in found:
            speed = number / min(system.seconds[batch_size])
            axis.scatter(speed, system.score["bleu"], color=colours[system.family])
            text = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
            axis.annotate(system.name, (speed, system.score["bleu"]), **text)
        axis.set(xscale="log", xlabel="sentences a second", title=f"batches of {batch_size}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("BLEU")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test_file")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--autoregressive", required=True, help="folder of the MarianMTModel")
    parser.add_argument("--ours", nargs="+", required=True, help="name=folder of each CMLM")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="trade_off", help="of .csv and .png")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = environment("cpu")
    print(where)
    pairs = load_translations(
        args.test_file, source_lang=args.source_lang, target_lang=args.target_lang
    )
    tokenizer = AutoTokenizer.from_pretrained(args.ours[0].split("=", 1)[1])
    texts = [pair[args.source_lang] for pair in pairs["translation"]]
    references = [[pair[args.target_lang]] for pair in pairs["translation"]]
    if "references" in pairs.column_names:  # all right translations
        references = list(pairs["references"])
    sources = tokenizer(texts).input_ids
    with tempfile.TemporaryDirectory() as folder:
        found = systems(args, Path(folder))
        for turn in range(2):
            for batch_size in BATCH_SIZES:
                for system in found:
                    ids = measure(system, sources, batch_size)
                    translations = tokenizer.batch_decode(ids, skip_special_tokens=True)
                    metric = TranslationMetric().compute
                    system.score = metric(predictions=translations, references=references)
            print(f"turn {turn + 1} of 2 done", file=sys.stderr)
    rows = []
    for system in found:
        row = {"system": system.name, "bleu": f"{system.score['bleu']:.2f}"}
        for n in BATCH_SIZES:
            speed = len(sources) / min(system.seconds[n])
            row[f"sentences_per_second_batch_{n}"] = f"{speed:.1f}"
        rows.append(row | {"bleu_signature": system.score["bleu_signature"]})
    write_csv(Path(f"{args.output}.csv"), rows, where)
    print(markdown_table(list(rows[0]), [tuple(row.values()) for row in rows]))
    draw(found, len(sources), Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
