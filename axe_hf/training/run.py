"""A whole training run: data, tokenizer, model, training, scores, and a folder that can be shared."""

import inspect
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from ..cmlm import CmlmConfig, CmlmForConditionalGeneration
from ..data import load_translations, tokenize_translations, train_tokenizer
from .arguments import AxeTrainingArguments, DataArguments, ModelArguments
from .checkpoints import resolve_checkpoint
from .checks import check_model_and_tokenizer
from .trainer import AxeTrainer

if TYPE_CHECKING:
    from datasets import Dataset

# What a model to fine-tune may change; everything else is the shape of its weights, or of its hidden states.
_CHANGEABLE = {
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "training_loss",
    "axe_delta",
    "label_smoothing",
    "length_loss_weight",
}


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves in memory; `output_dir` holds the same on disk.

    Args:
        trainer: the trainer; `trainer.state.log_history` has the curves.
        model: the trained model, averaged if `ema_decay` was set.
        tokenizer: its tokenizer.
        metrics: all results by name: `train_*`, `eval_*` of the validation data, `test_*` of the test data.
    """

    trainer: AxeTrainer
    model: CmlmForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]


def run_training(
    model_args: ModelArguments, data_args: DataArguments, training_args: AxeTrainingArguments
) -> TrainingResult:
    """Train a translation model from files, score it, and save everything in `training_args.output_dir`.

    The folder gets the model, its generation settings and tokenizer, README.md (the model card), `*_results.json` with
    the scores, `trainer_state.json` with the log of the whole run, and the checkpoints.

    Args:
        model_args: the model.
        data_args: the data and the tokenizer.
        training_args: the training; `resume_from_checkpoint` may be a folder, or "last".

    Returns:
        A `TrainingResult`.

    Raises:
        FileExistsError: `output_dir` holds something and nothing is to be resumed.
        ValueError: settings that do not fit together, or data that cannot be read, with file and line.

    Example:

    ```python
    >>> from axe_hf import AxeTrainingArguments
    >>> from axe_hf.training import DataArguments, ModelArguments, run_training
    >>> result = run_training(
    ...     ModelArguments(d_model=256, encoder_layers=3, decoder_layers=3),
    ...     DataArguments("en", "de", train_file="train.en,train.de", test_file="test.en,test.de"),
    ...     AxeTrainingArguments("runs/en-de", max_tokens_per_batch=1000, train_minutes=10),
    ... )  # doctest: +SKIP
    >>> result.metrics["test_bleu"]  # doctest: +SKIP

    ```
    """
    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    _check_output_dir(training_args.output_dir, is_resuming=checkpoint is not None)
    raw = _load(data_args)
    if training_args.predict_with_generate and len(raw) > 1:
        from .. import evaluation  # noqa: F401 (missing sacrebleu shows here, not after hours)
    set_seed(training_args.seed)
    tokenizer = _make_tokenizer(model_args, data_args, checkpoint, raw["train"])
    model = _make_model(model_args, data_args, checkpoint, tokenizer)
    check_model_and_tokenizer(model, tokenizer)
    if model_args.attn_implementation is not None:
        model.set_attn_implementation(model_args.attn_implementation)
    datasets = {"train": _tokenize_for_training(raw["train"], tokenizer, model.config, data_args)}
    for split in raw.keys() - {"train"}:
        datasets[split] = _tokenize_for_scoring(raw[split], tokenizer, model.config, data_args)
    trainer = AxeTrainer(
        model,
        training_args,
        train_dataset=datasets["train"],
        eval_dataset=datasets.get("validation"),
        processing_class=tokenizer,
    )
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", metrics)
    scores = {}
    for split, prefix in (("validation", "eval"), ("test", "test")):
        if split in datasets:
            scores[split] = _score(trainer, datasets[split], prefix, metrics)
    trainer.save_state()
    trainer.create_model_card(
        source_lang=data_args.source_lang,
        target_lang=data_args.target_lang,
        dataset=_describe_data(data_args),
        base_model=model_args.model_name_or_path,
        scores={split: values for split, values in scores.items() if "bleu" in values},
    )
    return TrainingResult(trainer, trainer.model, tokenizer, metrics)


def _score(trainer: AxeTrainer, dataset: "Dataset", prefix: str, metrics: dict) -> dict[str, Any]:
    """Evaluate, save the results, add them to `metrics`, and return them without their prefix."""
    results = trainer.evaluate(dataset, metric_key_prefix=prefix)
    trainer.save_metrics(prefix, results)
    metrics |= results
    return {name.removeprefix(f"{prefix}_"): value for name, value in results.items()}


def _check_output_dir(output_dir: str, *, is_resuming: bool) -> None:
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"`output_dir` must be a folder, {output_dir} is a file.")
    if not is_resuming and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(
            f"`output_dir` must be a new or an empty folder, {output_dir} holds something. Choose another one, or go "
            'on with the run in it by `resume_from_checkpoint="last"`.'
        )


def _load(data_args: DataArguments) -> "dict[str, Dataset]":
    """The sentence pairs by split: train, and validation and test where they are given."""
    wanted = {"train_file": (data_args.train_file, None)}
    wanted["validation_file"] = (data_args.validation_file, None)
    wanted["test_file"] = (data_args.test_file, None)
    if data_args.dataset_name is not None:
        wanted["train_file"] = (data_args.dataset_name, "train")
        for split in ("validation", "test"):
            name = getattr(data_args, f"{split}_split")
            if name is not None:
                wanted[f"{split}_file"] = (data_args.dataset_name, name)
    loaded = {}
    for argument, (source, split) in wanted.items():
        if source is None:
            continue
        try:
            loaded[argument.removesuffix("_file")] = load_translations(
                source,
                source_lang=data_args.source_lang,
                target_lang=data_args.target_lang,
                split=split,
            )
        except (FileNotFoundError, ValueError) as error:
            name = argument if split is None else "dataset_name"
            raise type(error)(f"`{name}`: {error}") from error
    return loaded


def _make_tokenizer(
    model_args: ModelArguments, data_args: DataArguments, checkpoint: str | None, train: "Dataset"
) -> PreTrainedTokenizerBase:
    name = checkpoint or data_args.tokenizer_name_or_path or model_args.model_name_or_path
    if name is not None:
        for option in ("vocab_size", "tokenizer_algorithm"):
            if checkpoint is None and getattr(data_args, option) is not None:
                raise ValueError(
                    f"`{option}` is for a tokenizer to train, but {name} brings its own. Leave it out."
                )
        return AutoTokenizer.from_pretrained(name)
    defaults = inspect.signature(train_tokenizer).parameters
    texts = chain.from_iterable(
        (pair[data_args.source_lang], pair[data_args.target_lang]) for pair in train["translation"]
    )
    return train_tokenizer(
        (text for text in texts if text),
        vocab_size=data_args.vocab_size or defaults["vocab_size"].default,
        algorithm=data_args.tokenizer_algorithm or defaults["algorithm"].default,
    )


def _make_model(
    model_args: ModelArguments,
    data_args: DataArguments,
    checkpoint: str | None,
    tokenizer: PreTrainedTokenizerBase,
) -> CmlmForConditionalGeneration:
    given = model_args.given()
    name = checkpoint or model_args.model_name_or_path
    if name is None:
        lengths = ("max_source_length", "max_target_length")
        given |= {n: getattr(data_args, n) for n in lengths if getattr(data_args, n) is not None}
        tokens = ("pad_token_id", "eos_token_id", "mask_token_id", "blank_token_id")
        given |= {token: getattr(tokenizer, token, None) for token in tokens}
        return CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **given))
    model = CmlmForConditionalGeneration.from_pretrained(name)
    for setting, value in given.items():
        present = getattr(model.config, setting)
        if value == present:
            continue
        if checkpoint is not None:
            raise ValueError(
                f"`{setting}` is {value!r}, but the run to resume has {present!r}. Resume with the same settings."
            )
        if setting not in _CHANGEABLE:
            raise ValueError(
                f"`{setting}` is {value!r}, but {name} was built with {present!r}, which cannot change. Leave it out."
            )
        setattr(model.config, setting, value)
    if given.keys() & _CHANGEABLE and checkpoint is None:
        # Layers read their dropout when they are made.
        model = CmlmForConditionalGeneration.from_pretrained(name, config=model.config)
    return model


def _limits(config: CmlmConfig, data_args: DataArguments) -> dict[str, int]:
    limits = {}
    for name in ("max_source_length", "max_target_length"):
        limits[name] = getattr(data_args, name) or getattr(config, name)
        if limits[name] > getattr(config, name):
            raise ValueError(
                f"`{name}` is {limits[name]}, over the model's limit of {getattr(config, name)}. Ask for at most that."
            )
    return limits


def _tokenize_for_training(dataset, tokenizer, config, data_args) -> "Dataset":
    return tokenize_translations(
        dataset,
        tokenizer,
        source_lang=data_args.source_lang,
        target_lang=data_args.target_lang,
        **_limits(config, data_args),
    )


def _tokenize_for_scoring(dataset, tokenizer, config, data_args) -> "Dataset":
    """Every pair, cut at the model's limits rather than left out, with the whole texts as references."""

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sources = [pair[data_args.source_lang] or "" for pair in batch["translation"]]
        targets = [pair[data_args.target_lang] or "" for pair in batch["translation"]]
        cut = {"truncation": True, "verbose": False}
        return {
            "input_ids": tokenizer(sources, max_length=config.max_source_length, **cut).input_ids,
            "labels": tokenizer(targets, max_length=config.max_target_length, **cut).input_ids,
            "references": batch.get("references") or [[target] for target in targets],
        }

    return dataset.map(
        tokenize, batched=True, remove_columns=dataset.column_names, desc="Tokenizing"
    )


def _describe_data(data_args: DataArguments) -> str:
    if data_args.dataset_name is not None:
        return data_args.dataset_name
    return " and ".join(Path(part.strip()).name for part in data_args.train_file.split(","))
