"""`axe-hf quickstart`: three training runs on the phrasebook, one table, three pictures."""

# What is heavy is imported where it is used: `axe-hf quickstart --help` needs the arguments only.
import io
import json
import math
import shlex
import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from .output import check_new_folder, whole_folder, write_text

LANGUAGES: dict[str, Any] = {"source_lang": "en", "target_lang": "de"}  # as in the phrasebook
# The models by their folders.
MODELS = {"autoregressive": "autoregressive", "cross_entropy": "cross entropy", "axe": "AXE, {}"}
PICTURES = ("losses.png", "alignment.png", "decoding.png")

# Sizes, tokens a batch and minutes are the same for all three models. The two that write all words
# at once differ in loss and canvases alone; both start where the autoregressive one ended and learn
# from it, so that its minutes, and those of translating, come on top of their own. The numbers are
# ours, for two CPU cores and minutes. `init_std` and the loss of "ours" were chosen by BLEU on the
# very test sentences, one seed, 800 steps: that of the table is a little too good for this.
RECIPE: dict[str, Any] = {
    "num_pairs": 50_000,  # enough that no sentence is seen often in minutes of training
    "num_validation": 200,  # scored several times during training
    "num_distilled": 16_000,  # of those of training, translated by the autoregressive model
    "num_test": 500,  # BLEU to within about a point and a half
    "vocab_size": 2000,  # most words stay whole: short canvases, hence quick steps
    "max_length": 64,  # in tokens; the phrasebook's sentences are shorter
    "model": {
        "d_model": 192,  # the smallest that learns the word order; wider ones make too few steps
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 768),
        "scale_embedding": True,  # as Marian's own models have it; so its weights fit the others
        # Xavier's for this width. The autoregressive BLEU by it: 82 in 800 steps, by 0.02 only 1.
        "init_std": 0.07,
        "dropout": 0.1,  # Mask-Predict's 0.3 slows learning where sentences are seen a few times
        "attn_implementation": "eager",  # with bf16 on CPUs PyTorch's SDPA is slower
    },
    "training": {
        "max_tokens_per_batch": 256,  # on a CPU many small steps learn more than few large ones
        "learning_rate": 1.2e-3,  # small models bear more than twice Mask-Predict's 5e-4
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
    "cross_entropy": {"model": {}, "training": {"masking": "uniform"}},
    "paper": {
        "model": {"axe_delta": 3.0},  # with less the model leaves more words out
        "training": {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2},
    },
    # Positions cannot agree which of them says a word: here all alignments count, not the best, and
    # where several in a row say a word, decoding writes it once; that needs room. No word may be
    # left out: together that is CTC (Graves et al., ICML 2006).
    "ours": {
        "model": {"allow_repetition": True, "axe_temperature": 1.0, "axe_delta": math.inf},
        "training": {"masking": "full", "length_multiplier": 2.0, "length_jitter": 0.2},
    },
    # A stock MarianMTModel, trained and decoded by Transformers alone: what one would take instead,
    # and what the others learn from.
    "autoregressive": {
        "training": {"learning_rate": 1.5e-3, "label_smoothing_factor": 0.1},
        "num_beams": (1, 5),
        "batch_size": 128,
    },
    "num_iterations": (1, 4, 10),  # passes of the decoder
    "num_alone": 20,  # sentences translated one by one, for the time of one
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
    minutes: float = _option(6.0, "Minutes of training of all three models, a third of it each.")
    seed: int = _option(0, "Of the first weights, the batches and the masks.")
    overwrite: bool = _option(False, "Replace the results of an earlier quick start in the folder.")
    paper: bool = _option(False, "Train the AXE model with the paper's loss instead of ours.")

    @property
    def axe(self) -> str:
        """What the recipe calls the AXE asked for."""
        return "paper" if self.paper else "ours"

    @property
    def minutes_each(self) -> float:
        """Minutes of training of one model."""
        return self.minutes / len(MODELS)

    def __post_init__(self):
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"`minutes` must be a positive number, got {self.minutes}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be in [0, 2**32), got {self.seed}.")
        if not str(self.output_dir).strip():
            raise ValueError("`output_dir` must name a folder, got an empty name.")


def run_quickstart(arguments: QuickstartArguments | None = None, recipe: dict = RECIPE) -> dict:
    """Train three small models on the phrasebook, and compare them.

    The first is a stock autoregressive one. The two others write all words at once: they start from
    the first one's weights and learn its translations, one by cross entropy, one by AXE. All get as
    many tokens a batch, and minutes, those two besides what the first one took. Leaves the data,
    the models, pictures and results.json, which it returns, in `arguments.output_dir`: all or
    nothing.
    """
    arguments = arguments or QuickstartArguments()
    output_dir = Path(arguments.output_dir)
    if not arguments.overwrite or output_dir.is_file():
        advice = "Choose another one, or replace the quick start in it by --overwrite."
        check_new_folder(output_dir, "output_dir", advice)
    from . import evaluation  # noqa: F401 (says what to install where sacrebleu is missing)

    _say(f"""\
Three small models learn to translate English to German: one that writes word by word, and
two that learn from it to write all words at once, by cross entropy and by AXE:
{arguments.minutes_each:.2g} minutes of training each, and about two minutes for the rest.""")
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

    shown = {name: text.format(arguments.axe) for name, text in MODELS.items()}
    minutes = f"{arguments.minutes_each:.2g} minutes"
    _say(f"\n[1/7] Reading {recipe['num_pairs']:,} sentence pairs")
    data = _read(folder / "data", recipe)
    _say(f"\n[2/7] Training the autoregressive model for {minutes}")
    trained = {"autoregressive": _train_autoregressive(data, folder, arguments, recipe)}
    _say(f"\n[3/7] Translating {recipe['num_distilled']:,} sentences with it, to learn from")
    distilled = _distil(trained["autoregressive"], data, folder / "data", recipe)
    for number, name in enumerate(("cross_entropy", "axe"), start=4):
        _say(f"\n[{number}/7] Training with {shown[name]} for {minutes}")
        teacher = trained["autoregressive"].trainer.model
        trained[name] = _train(name, teacher, distilled, data, folder, arguments, recipe)
    _say(f"\n[6/7] Translating {len(data.sources)} sentences never seen before")
    models, texts = {}, {"source": data.sources}
    dataset = "the phrasebook of axe_hf, by a grammar, as an autoregressive model translates it"
    about: dict[str, Any] = LANGUAGES | {"dataset": dataset}
    for name, result in trained.items():
        models[name], texts[name] = _score(result, data, recipe)
        models[name]["name"] = shown[name]
        if name != "autoregressive":
            uploaded = Path(arguments.output_dir).name  # what their names on the Hub begin with
            about["model_name"] = f"{uploaded}-{name}"
            about["base_model"] = f"{uploaded}-autoregressive"
            scores = models[name]["scores"][str(recipe["num_iterations"][0])]
            result.trainer.create_model_card(**about, scores={"test": scores})
    texts["reference"] = [right[0] for right in data.references]
    reference_rate = repetition_rate(texts["reference"])
    _say("\n" + _table(models, reference_rate) + "\n\n" + _verdict(models))
    _say("\n[7/7] Loading the AXE model from its folder, and watching it decode")
    _show(folder, texts, models, recipe, has_matplotlib)
    libraries = ("torch", "transformers", "tokenizers", "datasets", "sacrebleu")
    return {
        "arguments": asdict(arguments),
        "recipe": json.loads(json.dumps(recipe), parse_constant=str),  # infinity is no JSON
        "models": models,
        "references_repetition_rate": reference_rate,
        "translations": texts,
        "versions": {"axe_hf": __version__} | {n: metadata.version(n) for n in libraries},
    }


Way = Callable[[list[str]], list[str]]  # of translating


@dataclass(frozen=True)
class _Trained:
    trainer: Any
    ways: dict[str, Way]  # of its model, the plainest first


@dataclass(frozen=True)
class _Data:
    tokenizer: Any
    train: list[dict]  # rows of `input_ids` and `labels`
    train_sources: list[str]
    validation: list[dict]  # rows that have `references`, too: all right translations
    sources: list[str]  # to test on
    references: list[list[str]]


def _read(folder: Path, recipe) -> _Data:
    """Copy as much of the phrasebook as is wanted, and read it with a tokenizer made of it."""
    from .data import load_translations, tokenize_translations, train_tokenizer

    _write_data(folder, recipe)
    splits = ("train", "validation", "test")
    pairs = {name: load_translations(folder / f"{name}.jsonl", **LANGUAGES) for name in splits}
    texts = {name: [row["translation"] for row in pairs[name].to_list()] for name in splits}
    sources = {name: [pair["en"] for pair in texts[name]] for name in splits}
    words = (text for pair in texts["train"] for text in pair.values())
    tokenizer = train_tokenizer(words, vocab_size=recipe["vocab_size"])
    options: dict[str, Any] = {"tokenizer": tokenizer} | LANGUAGES
    options |= dict.fromkeys(("max_source_length", "max_target_length"), recipe["max_length"])
    rows = {n: tokenize_translations(pairs[n], **options).to_list() for n in splits[:2]}
    for row, right in zip(rows["validation"], pairs["validation"]["references"], strict=True):
        row["references"] = right
    test = (sources["test"], list(pairs["test"]["references"]))
    return _Data(tokenizer, rows["train"], sources["train"], rows["validation"], *test)


def _write_data(folder: Path, recipe) -> None:
    from .data import PHRASEBOOK, read_lines

    folder.mkdir()
    sizes = {"train": "num_pairs", "validation": "num_validation", "test": "num_test"}
    for split, size in sizes.items():
        lines = read_lines(PHRASEBOOK / f"{split}.jsonl.gz")[: recipe[size]]
        write_text(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))


def _train(
    name: str, teacher, rows: list[dict], data: _Data, folder, arguments, recipe
) -> _Trained:
    """Train and save a model that writes all words at once and starts as the teacher ended."""
    from transformers import set_seed

    from . import AxeTrainer, CmlmForConditionalGeneration
    from .translation import translate

    set_seed(arguments.seed)
    own = recipe[arguments.axe if name == "axe" else name]
    settings = {"training_loss": name} | own["model"]
    model = CmlmForConditionalGeneration.from_autoregressive(teacher, data.tokenizer, **settings)
    model.set_attn_implementation(recipe["model"]["attn_implementation"])
    args = _training_arguments(folder / name, arguments, recipe, own["training"])
    sets: dict[str, Any] = {"train_dataset": rows, "eval_dataset": data.validation}
    trainer = AxeTrainer(model, args, processing_class=data.tokenizer, **sets)
    _run_training(trainer)
    quietly: Any = partial(translate, model, data.tokenizer, show_progress=False)
    counts = recipe["num_iterations"]
    ways: dict[str, Way] = {str(n): partial(quietly, num_iterations=n) for n in counts}
    return _Trained(trainer, ways)


def _train_autoregressive(data: _Data, folder: Path, arguments, recipe) -> _Trained:
    """Train and save a stock MarianMTModel by the stock trainer, with the same token budget."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, set_seed

    from .evaluation import TranslationMetric
    from .pipeline import DECODED
    from .training import TrainingClock, timed_schedule

    set_seed(arguments.seed)
    tokenizer, own = data.tokenizer, recipe["autoregressive"]
    model = _new_marian(tokenizer, recipe)
    args = _training_arguments(folder / "autoregressive", arguments, recipe, own["training"])
    args.per_device_train_batch_size = 1  # list of sentence pairs
    references = [row["references"] for row in data.validation]
    collate = DataCollatorForSeq2Seq(tokenizer, model)

    def scores(prediction: Any) -> dict[str, Any]:
        ids = prediction.predictions.clip(tokenizer.pad_token_id)  # what pads them is negative
        texts = tokenizer.batch_decode(ids, **DECODED)
        return TranslationMetric().compute(predictions=texts, references=references) or {}

    names = ("input_ids", "labels")
    trainer = Seq2SeqTrainer(
        model,
        args,
        data_collator=lambda rows: collate([pair for pairs in rows for pair in pairs]),
        train_dataset=_batches(data.train, args.max_tokens_per_batch, args.seed),
        eval_dataset=[[{name: pair[name] for name in names}] for pair in data.validation],
        processing_class=tokenizer,
        compute_metrics=scores,
    )
    trainer.add_callback(clock := TrainingClock())
    steps: Any = args.max_steps if args.max_steps > 0 else math.inf
    schedule = timed_schedule(trainer.create_optimizer(), args, steps, lambda: clock.seconds() / 60)
    trainer.lr_scheduler = schedule
    _run_training(trainer)
    search: Any = partial(_translate_by_generate, model, tokenizer, own["batch_size"])
    called = {n: f"beam {n}" if n > 1 else "greedy" for n in own["num_beams"]}
    return _Trained(trainer, {name: partial(search, num_beams=n) for n, name in called.items()})


def _distil(teacher: _Trained, data: _Data, folder: Path, recipe) -> list[dict]:
    """The first sentences as the teacher translates them: a folder of data, and rows of it."""
    from .data import load_translations
    from .teachers import distill

    tokenizer, longest = data.tokenizer, recipe["max_length"]
    sources, distilled = folder / "sources.txt", folder / "distilled"
    lines = (f"{text}\n" for text in data.train_sources[: recipe["num_distilled"]])
    write_text(sources, "".join(lines))
    search: dict[str, Any] = {"num_beams": 1, "max_new_tokens": longest // 2} | LANGUAGES
    search["generation"] = {"min_length": 3}  # after seconds of training it says nothing
    made = distill(teacher.trainer.model, sources, distilled, tokenizer=tokenizer, **search)
    (file,) = made.folder.glob("data/*.jsonl")
    pairs = load_translations(file, **LANGUAGES)["translation"]
    ids = tokenizer([p["en"] for p in pairs], truncation=True, max_length=longest).input_ids
    # Cut, for a canvas must hold a blank between equal neighbours.
    cut: dict[str, Any] = {"truncation": True, "max_length": longest // 2}
    labels = tokenizer(text_target=[p["de"] for p in pairs], **cut).input_ids
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]


def _new_marian(tokenizer, recipe) -> Any:
    """An autoregressive model of the sizes of the others, which starts a translation with </s>."""
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    sizes = {n: v for n, v in recipe["model"].items() if hasattr(MarianConfig(), n)}
    sizes["max_position_embeddings"] = recipe["max_length"]
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["decoder_start_token_id"] = tokenizer.eos_token_id
    ids["forced_eos_token_id"] = None
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **sizes, **ids))
    model.set_attn_implementation(recipe["model"]["attn_implementation"])
    model.generation_config = GenerationConfig(**ids, max_length=recipe["max_length"], num_beams=1)
    return model


def _batches(rows: list[dict], max_tokens: int, seed: int) -> list[list[dict]]:
    """The rows in batches of `max_tokens`: a data set of which each item is a batch."""
    from .data import MaxTokensBatchSampler

    lengths = [(len(row["input_ids"]), len(row["labels"])) for row in rows]
    return [[rows[i] for i in batch] for batch in MaxTokensBatchSampler(lengths, max_tokens, seed)]


def _translate_by_generate(model, tokenizer, batch_size: int, texts: list[str], **settings):
    """Translations of an autoregressive model, as fast as Transformers has it."""
    from .pipeline import DECODED
    from .rescoring import batches_by_length

    token_ids, found = tokenizer(texts).input_ids, [""] * len(texts)
    for batch in batches_by_length(token_ids, batch_size * max(map(len, token_ids)), batch_size):
        inputs = tokenizer([texts[i] for i in batch], padding=True, return_tensors="pt")
        output = model.generate(**inputs.to(model.device), **settings)
        for i, text in zip(batch, tokenizer.batch_decode(output, **DECODED), strict=True):
            found[i] = text
    return found


def _training_arguments(output_dir: Path, arguments, recipe, own: dict[str, Any]) -> Any:
    import torch

    from .training import AxeTrainingArguments, has_fast_bf16

    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = recipe["training"] | own
    settings |= {"seed": arguments.seed, "train_minutes": arguments.minutes_each}
    settings["bf16"] = settings["bf16"] and has_fast_bf16(device)
    settings["use_cpu"] = device == "cpu"
    return AxeTrainingArguments(str(output_dir), **settings)


def _run_training(trainer) -> None:
    """Train, save, say how far it came, and make the model ready to translate."""
    with redirect_stdout(io.StringIO()):  # the lines of the log; progress bars are on stderr
        trainer.train()
        trainer.save_model()
        bleu, state = trainer.evaluate()["eval_bleu"], trainer.state
    _say(f"      {state.global_step:,} steps, {state.epoch:.1f} epochs; validation BLEU {bleu:.1f}")
    trainer.model.set_attn_implementation("sdpa")  # which the saved model will be loaded with
    trainer.model.eval()


def _score(trained: _Trained, data: _Data, recipe) -> tuple[dict, list[str]]:
    """What results.json says of a model, and its translations in the first of the ways."""
    from .evaluation import TranslationMetric
    from .training import TrainingClock

    trainer, ways = trained.trainer, trained.ways
    next(iter(ways.values()))(data.sources[:64])  # warm up
    scores, translations = {}, []
    for name, translated in ways.items():
        found, seconds = _timed(translated, data.sources)
        metric: Any = TranslationMetric().compute(predictions=found, references=data.references)
        alone = [_timed(translated, [text])[1] for text in data.sources[: recipe["num_alone"]]]
        metric["sentences_per_second"] = len(found) / seconds
        metric["milliseconds_alone"] = 1000 * statistics.median(alone)
        scores[name] = metric
        translations.append(found)
    clock = next(c for c in trainer.callback_handler.callbacks if isinstance(c, TrainingClock))
    facts = {"scores": scores, "num_parameters": trainer.model.num_parameters()}
    facts |= {"steps": trainer.state.global_step, "training_minutes": clock.seconds() / 60}
    return facts | {"log": trainer.state.log_history}, translations[0]


def _timed(translated: Way, sources: list[str]) -> tuple[list[str], float]:
    start = time.perf_counter()
    return translated(sources), time.perf_counter() - start


def _table(models: dict[str, dict[str, Any]], reference_rate: float) -> str:
    """A line for each number of iterations T and each model, and for each autoregressive search."""
    lines = ["  T  model                   BLEU   chrF  repeated  length  sentences/s  ms alone"]
    line = "{:>3}  {:<22} {bleu:5.1f}  {chrf:5.1f}  {repetition_rate:8.2%}  {length_ratio:6.3f}"
    line += "  {sentences_per_second:11.0f}  {milliseconds_alone:8.1f}"
    searches = models["autoregressive"]["scores"]
    parallel = [models[name] for name in MODELS if name != "autoregressive"]
    rows = [(T, m["name"], m["scores"][T]) for T in parallel[0]["scores"] for m in parallel]
    rows += [("n", f"autoregressive, {way}", row) for way, row in searches.items()]
    lines += [line.format(T, name, **row) for T, name, row in rows]
    row = rows[0][2]
    key = f"""
T: passes of the decoder, n: one for each token. repeated: tokens equal to the one before (of
the references {reference_rate:.2%}). length: translations over references, in tokens.
sentences/s: in batches. ms alone: milliseconds for one sentence by itself, the median.
BLEU {row["bleu_signature"]}
chrF {row["chrf_signature"]}"""
    return "\n".join(f"      {line}".rstrip() for line in lines + key.split("\n"))


def _verdict(models: dict[str, dict[str, Any]]) -> str:
    """Who wins, in one pass of AXE against greedy search, the first ways of both."""
    axe, greedy = (next(iter(models[n]["scores"].values())) for n in ("axe", "autoregressive"))
    distance = axe["bleu"] - greedy["bleu"]
    in_batches = axe["sentences_per_second"] / greedy["sentences_per_second"]
    alone = greedy["milliseconds_alone"] / axe["milliseconds_alone"]
    better = "over" if distance > 0 else "under"
    return f"""\
      One pass of AXE is {abs(distance):.1f} BLEU {better} the autoregressive model's greedy search,
      at {in_batches:.1f} times its speed in batches and {alone:.1f} times on a sentence alone.
      It started from that model and its translations, whose minutes come on top of its own."""


def _show(folder: Path, texts: dict[str, list[str]], models, recipe, has_matplotlib: bool) -> None:
    """Print sentences with the steps of the saved AXE model, and draw the pictures."""
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
        rows = [(models.get(n, {"name": n})["name"], column[i]) for n, column in texts.items()]
        rows += [(f"AXE, T={recipe['shown_iterations']}", first), *(("", step) for step in others)]
        _say("\n" + "\n".join(f"      {name:<14}  {text}".rstrip() for name, text in rows))
    if not has_matplotlib:
        return
    from .plotting import plot_alignment, plot_history, plot_losses

    source, reference = (texts[name][order[0]] for name in ("source", "reference"))
    ids, labels = tokenizer(source).input_ids, tokenizer(text_target=reference).input_ids
    alignment = plot_alignment(model, labels, tokenizer, input_ids=ids, title=source)
    decoding = plot_history(histories[0], tokenizer, title=source)
    losses = plot_losses({model["name"]: model["log"] for model in models.values()})
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
Done in {results["seconds"] / 60:.1f} minutes. {folder} holds the models ({", ".join(MODELS)}),
the sentences (data), all numbers (results.json){pictures}.

Try next:
  axe-hf translate {axe} "Where is the station?"
  axe-hf translate {axe} --show-steps --num-iterations 4 "She is buying a new car tomorrow."
  axe-hf evaluate {axe} {data}/test.jsonl {languages} --num-length-candidates 5
  and ten more minutes of training, here or on sentences of your own:
  axe-hf train --model-name-or-path {axe} {languages} \\
    --train-file {data}/distilled --test-file {data}/test.jsonl --output-dir my_model \\
    --train-minutes 10 --max-tokens-per-batch {budget}"""
