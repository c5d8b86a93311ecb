"""`axe-hf quickstart`: two training runs on the phrasebook, one table, three pictures."""

# What is heavy is imported where it is used: `axe-hf quickstart --help` needs the arguments only.
import io
import json
import math
import shlex
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from .output import check_new_folder, whole_folder, write_text

LANGUAGES: dict[str, Any] = {"source_lang": "en", "target_lang": "de"}  # as in the phrasebook
LOSSES = {"cross_entropy": "cross entropy", "axe": "AXE"}  # the two models, by their folders
PICTURES = ("losses.png", "alignment.png", "decoding.png")

# All but the canvases is the same for both. The numbers are ours, for two CPU cores and minutes.
RECIPE: dict[str, Any] = {
    "num_pairs": 50_000,  # enough that no sentence is seen often in minutes of training
    "num_validation": 200,  # scored several times during training
    "num_test": 500,  # BLEU to within about a point and a half
    "vocab_size": 2000,  # most words stay whole: short canvases, hence quick steps
    "max_length": 64,  # in tokens; the phrasebook's sentences are shorter
    "model": {
        "d_model": 192,  # the smallest that learns the word order; wider ones make too few steps
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 768),
        "dropout": 0.1,  # Mask-Predict's 0.3 slows learning where sentences are seen a few times
        "axe_delta": 3.0,  # with less the model leaves words out, with 1 most of them
        "label_smoothing": 0.0,  # blurs the alignment; pays only in long training
        "attn_implementation": "eager",  # with bf16 on CPUs PyTorch's SDPA is slower
    },
    "training": {
        "max_tokens_per_batch": 256,  # on a CPU many small steps learn more than few large ones
        "learning_rate": 1.2e-3,  # small models bear twice Mask-Predict's 5e-4
        "bf16": True,  # 1.4 times faster than fp32 on CPUs; left off where it would be emulated
        "optim": "adamw_torch_fused",  # one call for all weights
        "logging_steps": 25,
        "eval_strategy": "steps",
        "eval_steps": 500,  # points of the BLEU curve; not counted in the minutes
        "save_strategy": "no",
    },
    # The baseline needs partly masked canvases to refine in several passes, as Mask-Predict trains.
    # AXE is meant for one pass: each step trains on the canvas that decoding starts with. It is
    # longer, for blanks, without which AXE is cross entropy on a full mask; and by a fifth more or
    # less, because in decoding lengths are guessed.
    "canvases": {
        "cross_entropy": {"masking": "uniform"},
        "axe": {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2},
    },
    "num_iterations": (1, 4, 10),  # passes of the decoder
    "num_shown": 3,  # test sentences printed
    "shown_iterations": 4,
}
_say = partial(print, flush=True)


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class QuickstartArguments:
    """What a user of the quick start chooses."""

    output_dir: str = _option("axe_hf_quickstart", "Folder for models, pictures and results.")
    minutes: float = _option(4.8, "Minutes of training for both models together, half of it each.")
    seed: int = _option(0, "Of the first weights, the batches and the masks.")
    overwrite: bool = _option(False, "Replace the results of an earlier quick start in the folder.")

    def __post_init__(self):
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"`minutes` must be a positive number, got {self.minutes}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be in [0, 2**32), got {self.seed}.")
        if not str(self.output_dir).strip():
            raise ValueError("`output_dir` must name a folder, got an empty name.")


def run_quickstart(arguments: QuickstartArguments | None = None, recipe: dict = RECIPE) -> dict:
    """Train two small models on the phrasebook, by cross entropy and by AXE, and compare them.

    Both get the same sentences, batches, first weights and minutes. Leaves the data, both models,
    pictures and results.json, which it returns, in `arguments.output_dir`: all or nothing.
    """
    arguments = arguments or QuickstartArguments()
    output_dir = Path(arguments.output_dir)
    if not arguments.overwrite or output_dir.is_file():
        advice = "Choose another one, or replace the quick start in it by --overwrite."
        check_new_folder(output_dir, "output_dir", advice)
    from . import evaluation  # noqa: F401 (says what to install where sacrebleu is missing)

    _say("Two small models learn to translate English to German, by cross entropy and by AXE:")
    _say(f"{arguments.minutes / 2:g} minutes of training each, and about one minute for the rest.")
    has_matplotlib = util.find_spec("matplotlib") is not None
    if not has_matplotlib:
        _say('\nNo matplotlib, no pictures. For them: python -m pip install "axe-hf[plot]"')
    start = time.perf_counter()
    with whole_folder(output_dir) as folder:
        results = _run(arguments, recipe, folder, has_matplotlib)
        results["seconds"] = round(time.perf_counter() - start, 2)
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_text(folder / "results.json", text)
    for name in () if has_matplotlib else PICTURES:  # those of an earlier quick start
        (output_dir / name).unlink(missing_ok=True)
    _say(_what_next(results, output_dir))
    return results


def _run(arguments, recipe, folder: Path, has_matplotlib: bool) -> dict[str, Any]:
    from . import __version__
    from .evaluation import repetition_rate

    _say(f"\n[1/5] Reading {recipe['num_pairs']:,} sentence pairs")
    sources, references = _write_data(folder / "data", recipe)
    trained, models = {}, {}
    for number, (loss, name) in enumerate(LOSSES.items(), start=2):
        _say(f"\n[{number}/5] Training with {name} for {arguments.minutes / 2:g} minutes")
        trained[loss] = _train(loss, folder, arguments, recipe)
    _say(f"\n[4/5] Translating {len(sources)} sentences never seen before")
    texts = {"source": sources}
    about: dict[str, Any] = LANGUAGES | {"dataset": "the phrasebook of axe_hf, made by a grammar"}
    for loss, result in trained.items():
        models[loss], texts[loss] = _score(result, sources, references, recipe)
        about["model_name"] = f"{Path(arguments.output_dir).name}-{loss}"
        scores = models[loss]["scores"][str(recipe["num_iterations"][0])]
        result.trainer.create_model_card(**about, scores={"test": scores})
    texts["reference"] = [right[0] for right in references]
    reference_rate = repetition_rate(texts["reference"])
    _say("\n" + _table(models, reference_rate))
    _say("\n[5/5] Loading the AXE model from its folder, and watching it decode")
    _show(folder, texts, models if has_matplotlib else None, recipe)
    libraries = ("torch", "transformers", "tokenizers", "datasets", "sacrebleu")
    return {
        "arguments": asdict(arguments),
        "recipe": recipe,
        "models": models,
        "references_repetition_rate": reference_rate,
        "translations": texts,
        "versions": {"axe_hf": __version__} | {n: metadata.version(n) for n in libraries},
    }


def _write_data(folder: Path, recipe) -> tuple[list[str], list[list[str]]]:
    """Copy as much of the phrasebook as is wanted; returns the test's sources and references."""
    from .data import PHRASEBOOK, load_translations, read_lines

    folder.mkdir()
    sizes = {"train": "num_pairs", "validation": "num_validation", "test": "num_test"}
    for split, size in sizes.items():
        lines = read_lines(PHRASEBOOK / f"{split}.jsonl.gz")[: recipe[size]]
        write_text(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
    test = load_translations(folder / "test.jsonl", **LANGUAGES)
    return [pair["en"] for pair in test["translation"]], list(test["references"])


def _train(loss: Any, folder: Path, arguments, recipe) -> Any:
    """Train and save one model, a `TrainingResult`; both differ in loss and canvases alone."""
    import torch

    from .training import AxeTrainingArguments, DataArguments, ModelArguments, run_training

    first = folder / "cross_entropy"  # the second model takes its tokenizer
    data: dict[str, Any] = {"vocab_size": recipe["vocab_size"]}
    if first.exists():
        data = {"tokenizer_name_or_path": str(first)}
    data |= {f"{name}_file": f"{folder}/data/{name}.jsonl" for name in ("train", "validation")}
    data |= dict.fromkeys(("max_source_length", "max_target_length"), recipe["max_length"])
    settings = recipe["training"] | recipe["canvases"][loss]
    settings |= {"seed": arguments.seed, "train_minutes": arguments.minutes / 2}
    settings["bf16"] = settings["bf16"] and _has_fast_bf16()
    settings["use_cpu"] = not torch.cuda.is_available()
    training_args = AxeTrainingArguments(str(folder / loss), **settings)
    model_args = ModelArguments(training_loss=loss, **recipe["model"])
    data_args = DataArguments(**LANGUAGES, **data)
    with redirect_stdout(io.StringIO()):  # the lines of the log; progress bars are on stderr
        result = run_training(model_args, data_args, training_args)
    state, bleu = result.trainer.state, result.metrics["eval_bleu"]
    _say(f"      {state.global_step:,} steps, {state.epoch:.1f} epochs; validation BLEU {bleu:.1f}")
    result.model.set_attn_implementation("sdpa")  # which the saved model will be loaded with
    result.model.eval()
    return result


def _has_fast_bf16() -> bool:
    """Whether bf16 is computed by hardware: emulated, it is several times slower than fp32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.13
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16"))


def _score(result, sources, references, recipe) -> tuple[dict, list[str]]:
    """What results.json says of a model, and its translations with the first `num_iterations`."""
    from .evaluation import TranslationMetric
    from .translation import translate

    translated = partial(translate, result.model, result.tokenizer, show_progress=False)
    translated(sources[:64], num_iterations=1)  # warm up
    scores, translations = {}, []
    for count in recipe["num_iterations"]:
        start = time.perf_counter()
        found = translated(sources, num_iterations=count)
        speed = len(found) / (time.perf_counter() - start)
        metric: Any = TranslationMetric().compute(predictions=found, references=references)
        scores[str(count)] = metric | {"sentences_per_second": speed}
        translations.append(found)
    state = result.trainer.state
    facts = {"scores": scores, "num_parameters": result.model.num_parameters()}
    facts |= {"steps": state.global_step, "training_minutes": result.trainer.elapsed_minutes}
    return facts | {"log": state.log_history}, translations[0]


def _table(models: dict[str, dict[str, Any]], reference_rate: float) -> str:
    """For each number of iterations T, both models."""
    lines = ["  T  trained with    BLEU   chrF  repeated  length  sentences/s"]
    line = "{:>3}  {:<13}  {bleu:5.1f}  {chrf:5.1f}  {repetition_rate:8.2%}  {length_ratio:6.3f}"
    line += "  {sentences_per_second:11.0f}"
    for count in models["axe"]["scores"]:
        for loss, name in LOSSES.items():
            row = models[loss]["scores"][count]
            lines.append(line.format(count, name, **row))
    key = f"""
T: passes of the decoder. repeated: tokens equal to the one before (of the references
{reference_rate:.2%}). length: translations over references, in tokens.
BLEU {row["bleu_signature"]}
chrF {row["chrf_signature"]}"""
    return "\n".join(f"      {line}".rstrip() for line in lines + key.split("\n"))


def _show(folder: Path, texts: dict[str, list[str]], models: dict | None, recipe) -> None:
    """Print sentences with the steps of the saved AXE model; draw pictures if given `models`."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from .history import format_history
    from .translation import translate

    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "axe")
    tokenizer = AutoTokenizer.from_pretrained(folder / "axe")
    sources = texts["source"]
    settings: dict[str, Any] = {"num_iterations": recipe["num_iterations"][0]}
    if translate(model, tokenizer, sources, show_progress=False, **settings) != texts["axe"]:
        raise RuntimeError(f"The model in {folder / 'axe'} translates otherwise than when saved.")
    _say(f"      It gives the same {len(sources)} translations.")
    # Sentences that are long enough to be of interest first, if there are any.
    order = sorted(range(len(sources)), key=lambda i: not 8 <= len(sources[i].split()) <= 12)
    settings = {"output_history": True, "return_dict_in_generate": True}
    settings["num_iterations"] = recipe["shown_iterations"]
    histories = []
    for i in order[: recipe["num_shown"]]:
        inputs = tokenizer([sources[i]], return_tensors="pt").to(model.device)
        histories.append(model.generate(**inputs, **settings))
        first, *others = format_history(histories[-1], tokenizer, width=90).splitlines()
        rows = [(LOSSES.get(name, name), column[i]) for name, column in texts.items()]
        rows += [(f"AXE, T={recipe['shown_iterations']}", first), *(("", step) for step in others)]
        _say("\n" + "\n".join(f"      {name:<13}  {text}".rstrip() for name, text in rows))
    if models is None:
        return
    from .plotting import plot_alignment, plot_history, plot_losses

    source, reference = (texts[name][order[0]] for name in ("source", "reference"))
    ids, labels = tokenizer(source).input_ids, tokenizer(text_target=reference).input_ids
    alignment = plot_alignment(model, labels, tokenizer, input_ids=ids, title=source)
    decoding = plot_history(histories[0], tokenizer, title=source)
    losses = plot_losses({name: models[loss]["log"] for loss, name in LOSSES.items()})
    for name, figure in zip(PICTURES, (losses, alignment, decoding), strict=True):
        figure.savefig(folder / name)


def _what_next(results: dict[str, Any], folder: Path) -> str:
    """Where everything is, and commands to go on with."""
    axe, data = (shlex.quote(str(folder / name)) for name in ("axe", "data"))
    has_pictures = (folder / PICTURES[0]).exists()
    pictures = f", and the pictures {', '.join(PICTURES)}" if has_pictures else ""
    budget = results["recipe"]["training"]["max_tokens_per_batch"]
    languages = " ".join(f"--{name.replace('_', '-')} {code}" for name, code in LANGUAGES.items())
    return f"""
Done in {results["seconds"] / 60:.1f} minutes. {folder} holds both models with their cards
(axe, cross_entropy), the sentences (data), all numbers (results.json){pictures}.

Try next:
  axe-hf translate {axe} "Where is the station?"
  axe-hf translate {axe} --show-steps --num-iterations 4 "She is buying a new car tomorrow."
  axe-hf evaluate {axe} {data}/test.jsonl {languages} --num-length-candidates 5
  and ten more minutes of training, here or on sentences of your own:
  axe-hf train --model-name-or-path {axe} {languages} \\
    --train-file {data}/train.jsonl --test-file {data}/test.jsonl --output-dir my_model \\
    --train-minutes 10 --max-tokens-per-batch {budget}"""
