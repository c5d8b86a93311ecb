"""BLEU over speed: models of ours beside an autoregressive model, in Transformers and CTranslate2.

    python examples/benchmarks/trade_off.py test.jsonl.gz --source-lang en --target-lang de \
        --autoregressive teacher --ours "CTC=student" "AXE=axe" --output trade_off

Needs the extra "benchmark" (`pip install -e ".[benchmark]"`); takes a quarter of an hour on two
cores. Ours: one pass and four, one length, five, and five of which the autoregressive model
chooses; everything in float32 and in int8. A folder that `axe-hf export` wrote is ours, too: one
pass and four, in the precision that it has. Every system translates the whole test set, sentences
sorted by length, in batches of 64, and the first sentences one by one; the systems take turns, wall
clock, the best turn in batches, the median of all turns alone. Prints the environment and a table,
and writes trade_off.csv and trade_off.png. The autoregressive model is a `MarianMTModel` saved with
the tokenizer of ours, such as that of the quick start or of examples/05_teacher_to_student.py.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ctranslate2
import torch
from decoding_cases import marian_in_int8
from decoding_engines import convert
from matplotlib.figure import Figure
from measuring import environment, markdown_table, write_csv
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, MarianMTModel

from axe_hf import TranslationMetric, quantize_int8
from axe_hf.data import load_translations
from axe_hf.export import is_exported, load_exported
from axe_hf.rescoring import generate_rescored

BATCH_SIZE = 64


@dataclass
class System:
    """One point in each half of the picture."""

    name: str
    family: str  # of one colour
    translate: Callable[[list[list[int]]], list[list[int]]]  # ids of a batch to ids
    in_batches: list[float] = field(default_factory=list)  # seconds for all sentences, by turn
    alone: list[float] = field(default_factory=list)  # seconds for a sentence, all turns
    score: dict = field(default_factory=dict)


def through_generate(generate: Callable, settings: dict, batch: list[list[int]]) -> list[list[int]]:
    """Ours and Transformers' own."""
    rows = [torch.tensor(ids) for ids in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    found = generate(input_ids=ids, attention_mask=(ids != 0).long(), **settings)
    return getattr(found, "sequences", found).tolist()


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


def ours(name: str, path: str, teachers: dict) -> Iterator[System]:
    """Each number of passes and of lengths, in each precision; `teachers` are by precision."""
    if is_exported(path):
        generate = load_exported(path).generate
        for T in (1, 4):
            decode = partial(through_generate, generate, {"num_iterations": T})
            yield System(f"{name}, T={T}", name, decode)
        return
    model = AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    for precision, own in (("float32", model), ("int8", quantize_int8(model))):
        chosen = partial(generate_rescored, own, tokenizer, (teachers[precision], tokenizer))
        for T in (1, 4):
            for lengths, label, generate in (
                (1, "", own.generate),
                (5, ", 5 lengths", own.generate),
                (5, ", 5 rescored", chosen),
            ):
                how = {"num_iterations": T, "num_length_candidates": lengths}
                label = f"{name}, T={T}{label}" + (", int8" if precision == "int8" else "")
                yield System(label, name, partial(through_generate, generate, how))


def systems(args, folder: Path) -> list[System]:
    model = AutoModelForSeq2SeqLM.from_pretrained(args.autoregressive).eval()
    teachers = {"float32": model, "int8": marian_in_int8(model)}
    found = []
    for given in args.ours:
        found += ours(*given.split("=", 1), teachers)
    names = ["<pad>", "</s>", "<unk>"]  # as `train_tokenizer` numbers them
    names += [f"t{i}" for i in range(len(names), model.config.vocab_size)]
    convert(padding_last(model), [*names[1:], names[0]], folder / "ctranslate2")
    for kind, teacher in teachers.items():
        settings = {"compute_type": kind, "intra_threads": args.threads}
        translator = ctranslate2.Translator(str(folder / "ctranslate2"), **settings)
        for beams, search in ((1, "greedy"), (5, "beam 5")):
            label = search + (", int8" if kind == "int8" else "")
            how = {"num_beams": beams, "max_length": 64, "do_sample": False}
            decode = partial(through_generate, teacher.generate, how)
            found.append(System(f"Transformers, {label}", "autoregressive", decode))
            decode = partial(through_ctranslate2, translator, names, beams)
            found.append(System(f"CTranslate2, {label}", "CTranslate2", decode))
    return found


def translate_all(system: System, sources: list[list[int]]) -> list[list[int]]:
    """In batches of sentences of similar length, on the clock."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: list[list[int]] = [[] for _ in sources]
    start = time.perf_counter()
    for first in range(0, len(order), BATCH_SIZE):
        part = order[first : first + BATCH_SIZE]
        for i, ids in zip(part, system.translate([sources[i] for i in part]), strict=True):
            found[i] = ids
    system.in_batches.append(time.perf_counter() - start)
    return found


def translate_alone(system: System, sources: list[list[int]]) -> None:
    for source in sources:
        start = time.perf_counter()
        system.translate([source])
        system.alone.append(time.perf_counter() - start)


def row_of(system: System, number: int) -> dict[str, str]:
    """What the table says of a system that translated so many sentences."""
    names = {"bleu": 2, "chrf": 2, "repetition_rate": 4, "length_ratio": 3}
    scores = {name: f"{system.score[name]:.{digits}f}" for name, digits in names.items()}
    return {
        "system": system.name,
        **scores,
        f"sentences_per_second_batch_{BATCH_SIZE}": f"{number / min(system.in_batches):.1f}",
        "ms_alone": f"{1000 * statistics.median(system.alone):.2f}",
        "bleu_signature": system.score["bleu_signature"],
    }


def draw(found: list[System], number: int, path: Path) -> None:
    colours = dict.fromkeys(system.family for system in found)
    colours = {name: f"C{i}" for i, name in enumerate(colours)}
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("a sentence alone", f"batches of {BATCH_SIZE}")
    for axis, title in zip(axes, titles, strict=True):
        for system in found:
            speed = number / min(system.in_batches)
            if axis is axes[0]:
                speed = 1 / statistics.median(system.alone)
            axis.scatter(speed, system.score["bleu"], color=colours[system.family])
            text = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
            axis.annotate(system.name, (speed, system.score["bleu"]), **text)
        axis.set(xscale="log", xlabel="sentences a second", title=title)
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
    parser.add_argument("--rounds", type=int, default=2, help="turns of each system")
    parser.add_argument("--num-alone", type=int, default=100, help="sentences one by one")
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
        for turn in range(args.rounds):
            for system in found:
                ids = translate_all(system, sources)
                translate_alone(system, sources[: args.num_alone])
                translations = tokenizer.batch_decode(ids, skip_special_tokens=True)
                metric = TranslationMetric().compute
                system.score = metric(predictions=translations, references=references)
            print(f"turn {turn + 1} of {args.rounds} done", file=sys.stderr)
    rows = [row_of(system, len(sources)) for system in found]
    write_csv(Path(f"{args.output}.csv"), rows, where)
    print(markdown_table(list(rows[0]), [tuple(row.values()) for row in rows]))
    draw(found, len(sources), Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
