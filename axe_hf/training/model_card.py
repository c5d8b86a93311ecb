"""The README.md that goes with a trained model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..cmlm import CmlmConfig

if TYPE_CHECKING:
    from .trainer import AxeTrainer

TAGS = ("axe_hf", "cmlm", "mask-predict", "non-autoregressive", "translation")

_TEMPLATE = Path(__file__).parents[1] / "templates" / "model_card.md"


@dataclass(frozen=True)
class ModelCardDetails:
    """What a model card tells.

    Args:
        model_name: name of the model, for the title and the code to load it.
        config: the model's config.
        source_lang, target_lang: language codes, such as "en".
        dataset: what it was trained on, in words or as a name on the Hub.
        num_train_pairs: sentence pairs it was trained on.
        base_model: what was fine-tuned, None for a model trained from scratch.
        license: identifier of the model's licence, such as "apache-2.0"; None leaves it to you.
        training: setting to value, for the table of the training set-up.
        generation: setting to value, of Mask-Predict.
        scores: name of a data set, such as "test", to the scores of `TranslationMetric` on it.
        num_parameters: number of weights.
    """

    model_name: str
    config: CmlmConfig
    source_lang: str | None = None
    target_lang: str | None = None
    dataset: str | None = None
    num_train_pairs: int | None = None
    base_model: str | None = None
    license: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_parameters: int | None = None


def model_card_text(details: ModelCardDetails) -> str:
    """The card in Markdown, with the Hub's metadata on top.

    Args:
        details: what to tell.

    Example:

    ```python
    >>> from axe_hf import CmlmConfig
    >>> from axe_hf.training import ModelCardDetails, model_card_text
    >>> details = ModelCardDetails("small-en-de", CmlmConfig(), source_lang="en", target_lang="de")
    >>> "pipeline_tag: translation" in model_card_text(details)
    True

    ```
    """
    languages = [code for code in (details.source_lang, details.target_lang) if code]
    is_local = details.base_model is not None and Path(details.base_model).exists()
    data = ModelCardData(
        language=languages or None,
        license=details.license,
        library_name="transformers",
        pipeline_tag="translation",
        tags=list(TAGS),
        base_model=None if is_local else details.base_model,
        model_name=details.model_name if details.scores else None,
        eval_results=_eval_results(details) or None,
    )
    return str(
        ModelCard.from_template(
            data, template_path=str(_TEMPLATE), details=details, config=details.config
        )
    )


def write_model_card(directory: str | Path, details: ModelCardDetails) -> Path:
    """Write the card to README.md in the folder of a saved model, and return its path."""
    path = Path(directory) / "README.md"
    path.write_text(model_card_text(details), encoding="utf-8")
    return path


def _eval_results(details: ModelCardDetails) -> list[EvalResult]:
    pair = f"{details.source_lang or '?'}-{details.target_lang or '?'}"
    dataset = details.dataset or "unknown"
    return [
        EvalResult(
            task_type="translation",
            task_name=f"Translation {pair}",
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


def details_of_training(trainer: "AxeTrainer", **details: Any) -> ModelCardDetails:
    """What a trainer knows about its model, completed by `details` (fields of `ModelCardDetails`).

    Raises:
        TypeError: `details` holds something that is no field of `ModelCardDetails`.
    """
    args, model, state = trainer.args, trainer.model, trainer.state
    # What `push_to_hub` hands to the base class's card; ours is about one task and says its tags itself.
    for name in ("tags", "tasks", "dataset_tags", "dataset_args", "language"):
        details.pop(name, None)
    if "finetuned_from" in details:
        details["base_model"] = details.pop("finetuned_from")
    batch = f"{args.per_device_train_batch_size} sentences"
    if args.max_tokens_per_batch is not None:
        batch = f"{args.max_tokens_per_batch} tokens, padding included"
    training = {
        "training loss": model.config.training_loss,
        "canvases in training": getattr(trainer.data_collator, "masking", "own collator"),
        "steps": state.global_step,
        "epochs": round(state.epoch or 0, 2),
        "minutes of training": round(trainer.elapsed_minutes, 1),
        "batch": f"{batch}, {args.world_size} device(s), {args.gradient_accumulation_steps} accumulated",
        "optimizer": f"{args.optim.value}, betas ({args.adam_beta1}, {args.adam_beta2}), eps {args.adam_epsilon}, "
        f"weight decay {args.weight_decay}",
        "learning rate": f"{args.learning_rate}, {args.lr_scheduler_type.value}, warm-up {args.warmup_steps}",
        "average of weights (EMA decay)": args.ema_decay or "none",
        "seed": args.seed,
        "device": args.device.type,
    }
    generation = model.generation_config
    names = (
        "num_iterations",
        "num_length_candidates",
        "length_multiplier",
        "length_score_weight",
        "collapse_repeats",
    )
    found = {
        "model_name": Path(args.hub_model_id or args.output_dir).resolve().name,
        "config": model.config,
        "num_parameters": model.num_parameters(),
        "training": training,
        "generation": {
            name: getattr(generation, name) for name in names if hasattr(generation, name)
        },
        "scores": _last_scores(state.log_history),
    }
    if hasattr(trainer.train_dataset, "__len__"):
        found["num_train_pairs"] = len(trainer.train_dataset)
    return ModelCardDetails(**found | details)


def _last_scores(log_history: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for logs in reversed(log_history):
        if "eval_bleu" in logs:
            scores = {name.removeprefix("eval_"): value for name, value in logs.items()}
            return {"validation": scores}
    return {}
