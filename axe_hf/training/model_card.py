"""The README.md that goes with a trained model: what happened, and nothing else."""

import json
import math
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from transformers.trainer_utils import has_length

from ..cmlm import CmlmConfig, MaskPredictGenerationConfig
from ..cmlm.configuration_cmlm import LANGUAGE_TAG, languages_of
from ..languages import hub_language
from ..teachers.work import SUMMARY
from .freezing import frozen

_TAGS = ("axe_hf", "cmlm", "mask-predict", "non-autoregressive", "translation")
_TEMPLATE = Path(__file__).parents[1] / "templates" / "model_card.md"
_SHOWN_GENERATION = ["num_iterations", "num_length_candidates", "length_multiplier"]
_SHOWN_GENERATION += ["length_score_weight", "collapse_repeats"]
# What the Hub's page offers to translate, where the source language is one of these.
_GREETINGS = {
    "de": "Guten Morgen. Wie geht es Ihnen?",
    "en": "Good morning. How are you?",
    "es": "Buenos días. ¿Cómo está usted?",
    "fr": "Bonjour. Comment allez-vous ?",
    "ro": "Bună dimineața. Ce mai faceți?",
}


@dataclass(frozen=True)
class ModelCardDetails:
    """What a model card tells."""

    model_name: str  # for the title
    config: CmlmConfig
    source_lang: str | None = None  # language codes, such as "en"
    target_lang: str | None = None
    dataset: str | None = None  # what it was trained on, in words or as a name on the Hub
    num_train_pairs: int | None = None
    base_model: str | None = None  # what it started from, None for a model trained from scratch
    is_warm_started: bool = False  # `base_model` is autoregressive, and gave its weights
    license: str | None = None  # an identifier, such as "apache-2.0"
    training: dict[str, Any] = field(default_factory=dict)  # setting to value, for the table
    generation: dict[str, Any] = field(default_factory=dict)  # setting to value, of Mask-Predict
    # Name of a data set, such as "test", to the scores of `TranslationMetric` on it.
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_parameters: int | None = None
    adapter: str | None = None  # what of PEFT was trained in place of the whole, such as "LORA"
    repo_id: str | None = None  # its name on the Hub, for the code to load it
    # Of what is in `scores`: the name of the data, if it is another than `dataset`.
    evaluated_on: dict[str, str] = field(default_factory=dict)
    # What wrote the targets of the training data, as `distill` tells of it.
    teachers: list[dict[str, Any]] = field(default_factory=list)
    hardware: str | None = None  # that the scores' speed was measured on
    is_origin_known: bool = True  # False: nobody told how the model came to be
    is_exported: bool = False  # the files are graphs, as `axe-hf export` writes them


def loss_in_words(config: CmlmConfig) -> str:
    """Which loss a model was trained with, as it follows "trained with".

    >>> print(loss_in_words(CmlmConfig(axe_temperature=1)))
    a relative of Aligned Cross Entropy (AXE): the sum over all alignments
    """
    if config.training_loss != "axe":
        return "cross entropy at every position"
    temperature, traits = config.axe_temperature, []
    soft = f"the soft minimum over all alignments, at temperature {temperature}"
    paths = {0: "the best alignment", 1: "the sum over all alignments"}.get(temperature, soft)
    if config.allow_repetition:
        traits += ["a token may be said by several positions in a row, which decoding collapses"]
    if config.axe_delta == math.inf:
        traits += ["no token may be left out"]
    if not temperature and not traits:
        about = "which forgives words that are right but a little out of place"
        return f"Aligned Cross Entropy (AXE), {about}"
    is_ctc = len(traits) == 2 and temperature == 1
    relative = "a relative of Aligned Cross Entropy (AXE)"
    name = "connectionist temporal classification (CTC)" if is_ctc else relative
    return f"{name}: {'; '.join([paths, *traits])}"


def model_card_text(details: ModelCardDetails) -> str:
    """The card in Markdown, with the Hub's metadata on top.

    >>> text = model_card_text(ModelCardDetails("en-de", CmlmConfig(), source_lang="en"))
    >>> "pipeline_tag: translation" in text
    True
    """
    base = details.base_model
    base = None if base is None or Path(base).exists() else base
    relation = "adapter" if details.adapter else "finetune"
    data = ModelCardData(
        language=_languages(details) or None,
        license=details.license,
        library_name="peft" if details.adapter else "transformers",
        pipeline_tag="translation",
        tags=list(_TAGS),
        base_model=base,
        base_model_relation=relation if base else None,
        datasets=[id_ for id_ in [_dataset_id(details.dataset)] if id_] or None,
        widget=_widget(details) or None,
        model_name=details.model_name if details.scores else None,
        eval_results=_eval_results(details) or None,
    )
    fields = {"template_path": str(_TEMPLATE), "details": details, "config": details.config}
    fields |= {"loss": loss_in_words(details.config), "directions": _directions(details)}
    targets = details.config.target_languages
    fields |= {"scored": _scored(details), "target": targets[0] if len(targets) > 1 else None}
    source = details.config.tagged("A sentence.", fields["target"])
    fields["example"] = json.dumps(source, ensure_ascii=False)
    return str(ModelCard.from_template(data, **fields))


def minimal_card_text(repo_id: str, config: CmlmConfig, folder: Path, is_exported: bool) -> str:
    """The card of a model of which only its folder is known."""
    decoding = MaskPredictGenerationConfig.from_pretrained(folder)
    shown = {n: value for n in _SHOWN_GENERATION if (value := getattr(decoding, n)) is not None}
    known: dict[str, Any] = {"is_origin_known": False, "is_exported": is_exported}
    known |= {"generation": shown, "repo_id": repo_id}
    return model_card_text(ModelCardDetails(repo_id.split("/")[-1], config, **known))


def teachers_of(data: Iterable[str]) -> list[dict[str, Any]]:
    """What `axe-hf distill` tells of those of these files, folders or names on the Hub it wrote."""
    found: list[dict[str, Any]] = []
    for name in data:
        path = Path(name)
        folders = [path, path.parent] if path.exists() else []
        folders += [path.parents[1]] if path.parent.name == "data" else []  # as `distill` lays it
        file = next((f / SUMMARY for f in folders if (f / SUMMARY).is_file()), None)
        if file is None and not path.exists() and _dataset_id(name):
            with suppress(OSError, ValueError, HfHubHTTPError):
                file = Path(hf_hub_download(_dataset_id(name), SUMMARY, repo_type="dataset"))
        if file is not None:
            with suppress(OSError, ValueError, KeyError):
                summary = json.loads(file.read_text(encoding="utf-8"))
                names = ("teacher", "commit", "engine", "int8", "generation")
                plan = {n: v for n in names if (v := summary["plan"].get(n))}
                found.append(plan | {"data": " and ".join(summary["data"])})
    return [told for i, told in enumerate(found) if told not in found[:i]]


def _dataset_id(name: str | None) -> str | None:
    """The id of a data set on the Hub, without its configuration; None for anything else."""
    base = (name or "").split(":")[0]
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists()
    return base if is_id else None


def _directions(details: ModelCardDetails) -> list[tuple[str, str]]:
    if details.config.directions:
        return [languages_of(direction) for direction in details.config.directions]
    given = (details.source_lang, details.target_lang)
    return [(given[0], given[1])] if given[0] and given[1] else []


def _languages(details: ModelCardDetails) -> list[str]:
    named = [code for pair in _directions(details) for code in pair]
    named = named or [code for code in (details.source_lang, details.target_lang) if code]
    return [*dict.fromkeys(code for name in named if (code := hub_language(name)))]


def _widget(details: ModelCardDetails) -> list[dict[str, str]]:
    tagged = len(details.config.target_languages) > 1
    return [
        {"text": f"{LANGUAGE_TAG.format(target)} {greeting}" if tagged else greeting}
        for source, target in _directions(details)
        if (greeting := _GREETINGS.get(hub_language(source) or "")) is not None
    ]


@dataclass(frozen=True)
class ScoredData:
    """The scores of one data set in one direction, as the card shows them."""

    split: str
    direction: str
    scores: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the row of a table."""
        return f"{self.split}, {self.direction}" if self.direction else self.split


def _scored(details: ModelCardDetails) -> list[ScoredData]:
    """Every data set, of several directions once for each: their mean is of no language."""
    found = list[ScoredData]()
    for split, scores in details.scores.items():
        several = [n for n in details.config.directions or () if f"{n}_bleu" in scores]
        for name in several:
            start = f"{name}_"
            own = {s.removeprefix(start): v for s, v in scores.items() if s.startswith(start)}
            found.append(ScoredData(split, name, own))
        if not several:
            found.append(ScoredData(split, "", scores))
    return found


def _eval_results(details: ModelCardDetails) -> list[EvalResult]:
    names = {split: details.evaluated_on.get(split, details.dataset) for split in details.scores}
    known = f"{details.source_lang or '?'}-{details.target_lang or '?'}"
    return [
        EvalResult(
            task_type="translation",
            task_name=f"Translation {one.direction or known}",
            dataset_type=names[one.split] or "unknown",
            dataset_name=names[one.split] or "unknown",
            dataset_config=one.direction or None,
            dataset_split=one.split,
            metric_type=metric,
            metric_name=one.scores.get(f"{metric}_signature", metric),
            metric_value=round(one.scores[metric], 2),
        )
        for one in _scored(details)
        for metric in ("bleu", "chrf")
        if metric in one.scores
    ]


def hardware_of(device: torch.device) -> str:
    """What a device is called, and how much of it works."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"model name\s*: (.*)", cpu)[1]  # type: ignore[index]
    return f"{' '.join(name.split())}, {torch.get_num_threads()} threads"


def details_of_training(trainer: Any, **details: Any) -> ModelCardDetails:
    """What a trainer knows about its model, completed by `details` (fields of the result)."""
    # What `push_to_hub` hands to the base class's card; ours is about one task and has its tags.
    for name in ("tags", "tasks", "dataset_tags", "dataset_args", "language"):
        details.pop(name, None)
    if "finetuned_from" in details:
        details["base_model"] = details.pop("finetuned_from")
    args, model = trainer.args, trainer.model
    decoding = vars(model.generation_config)
    if decoding.get("collapse_repeats", ...) is None:
        decoding = decoding | {"collapse_repeats": model.config.allow_repetition}
    found: dict[str, Any] = {
        "model_name": Path(args.hub_model_id or args.output_dir).resolve().name,
        "repo_id": trainer.hub_model_id or args.hub_model_id,
        "config": model.config,
        "num_parameters": model.num_parameters(),
        "training": _training_settings(trainer),
        "generation": {name: decoding[name] for name in _SHOWN_GENERATION if name in decoding},
        "hardware": f"{hardware_of(args.device)}, {args.per_device_eval_batch_size} at once",
    }
    for adapter in getattr(model, "peft_config", {}).values():
        found |= {"base_model": adapter.base_model_name_or_path, "adapter": adapter.peft_type.value}
        names = ("r", "lora_alpha", "lora_dropout", "target_modules")
        for name in (name for name in names if getattr(adapter, name, None) is not None):
            value = getattr(adapter, name)
            value = ", ".join(sorted(value)) if isinstance(value, set | list) else value
            found["training"][f"adapter: {name.replace('_', ' ')}"] = value
    for logs in trainer.state.log_history:  # the last evaluation counts
        if "eval_bleu" in logs:
            scores = {name.removeprefix("eval_"): value for name, value in logs.items()}
            found["scores"] = {"validation": scores}
    if hasattr(trainer.train_dataset, "__len__"):
        found["num_train_pairs"] = len(trainer.train_dataset)
    return ModelCardDetails(**found | details)


def _training_settings(trainer: Any) -> dict[str, Any]:
    args, state, config = trainer.args, trainer.state, trainer.model.config
    tokens, sentences = args.max_tokens_per_batch, args.per_device_train_batch_size
    batch = f"{tokens} tokens, padding included" if tokens else f"{sentences} sentences"
    with frozen(trainer.model, args.freeze):
        num_trained = trainer.model.num_parameters(only_trainable=True)
    return {
        "training loss": config.training_loss,
        "canvases in training": f"{config.masking} masking, {config.length_multiplier} positions "
        f"per token, jitter {config.length_jitter}",
        "steps": state.global_step,
        **({"share of cross entropy, first": share} if (share := args.cross_entropy_first) else {}),
        **({"share of the paper's AXE, first": share} if (share := args.align_first) else {}),
        **({"share of canvases with drafts": drafts} if (drafts := args.draft_share) else {}),
        **({"epochs": round(state.epoch or 0, 2)} if has_length(trainer.train_dataset) else {}),
        "minutes of training": round(trainer.elapsed_minutes, 1),
        "batch": f"{batch}, {args.world_size} device(s), "
        f"{args.gradient_accumulation_steps} accumulated",
        "optimizer": f"{args.optim.value}, betas ({args.adam_beta1}, {args.adam_beta2}), "
        f"eps {args.adam_epsilon}, weight decay {args.weight_decay}",
        "learning rate": f"{args.learning_rate}, {args.lr_scheduler_type.value}, "
        f"warm-up {args.warmup_steps}",
        "average of weights (EMA decay)": args.ema_decay or "none",
        **({"average of the best checkpoints": args.keep_best} if args.average_best else {}),
        **({"frozen": ", ".join(args.freeze)} if args.freeze else {}),
        "trainable parameters": f"{num_trained:,}",
        "seed": args.seed,
        "device": args.device.type,
    }
