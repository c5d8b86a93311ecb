"""The README.md that goes with a trained model."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.trainer_utils import has_length

from ..cmlm import CmlmConfig
from .freezing import frozen

_TAGS = ("axe_hf", "cmlm", "mask-predict", "non-autoregressive", "translation")
_TEMPLATE = Path(__file__).parents[1] / "templates" / "model_card.md"
_SHOWN_GENERATION = ["num_iterations", "num_length_candidates", "length_multiplier"]
_SHOWN_GENERATION += ["length_score_weight", "collapse_repeats"]


@dataclass(frozen=True)
class ModelCardDetails:
    """What a model card tells."""

    model_name: str  # for the title and the code to load it
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
    is_local = details.base_model is not None and Path(details.base_model).exists()
    data = ModelCardData(
        language=[code for code in (details.source_lang, details.target_lang) if code] or None,
        license=details.license,
        library_name="peft" if details.adapter else "transformers",
        pipeline_tag="translation",
        tags=list(_TAGS),
        base_model=None if is_local else details.base_model,
        model_name=details.model_name if details.scores else None,
        eval_results=_eval_results(details) or None,
    )
    fields = {"template_path": str(_TEMPLATE), "details": details, "config": details.config}
    fields["loss"] = loss_in_words(details.config)
    return str(ModelCard.from_template(data, **fields))


def _eval_results(details: ModelCardDetails) -> list[EvalResult]:
    dataset = details.dataset or "unknown"
    return [
        EvalResult(
            task_type="translation",
            task_name=f"Translation {details.source_lang or '?'}-{details.target_lang or '?'}",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            metric_type=metric,
            metric_name=scores.get(f"{metric}_signature", metric),
            metric_value=round(scores[metric], 2),
        )
        for split, scores in details.scores.items()
        for metric in ("bleu", "chrf")
        if metric in scores
    ]


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
        "config": model.config,
        "num_parameters": model.num_parameters(),
        "training": _training_settings(trainer),
        "generation": {name: decoding[name] for name in _SHOWN_GENERATION if name in decoding},
    }
    for adapter in getattr(model, "peft_config", {}).values():
        found |= {"base_model": adapter.base_model_name_or_path, "adapter": adapter.peft_type.value}
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
