"""A whole training run: data, tokenizer, model, training, scores, and a folder to share."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase, set_seed
from transformers.utils import logging

from ..cmlm import CmlmConfig, CmlmForConditionalGeneration
from ..cmlm.configuration_cmlm import (
    SPECIAL_TOKEN_IDS,
    canvas_recipe,
    check_canvas_recipe,
    check_family,
    needs_room,
)
from ..data import train_tokenizer
from ..data.tokenizer import check_tokenizer, encode_targets, load_tokenizer
from ..output import check_new_folder, only_writer
from ..teachers import student_tokenizer
from ..teachers.warm_start import check_name
from .arguments import AxeTrainingArguments, DataArguments, ModelArguments
from .checkpoints import resolve_checkpoint
from .loading import TrainingPairs, check_stream, load_pairs, load_scored, texts_of, training_set
from .trainer import AxeTrainer, check_model_and_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

# What a model to fine-tune may change; all else is the shape of its weights or hidden states.
_CHANGEABLE = {"training_loss", "axe_delta", "label_smoothing", "length_loss_weight"}
_CHANGEABLE |= {"dropout", "attention_dropout", "activation_dropout"}
_CHANGEABLE |= {"allow_repetition", "axe_temperature"}


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves in memory; `output_dir` holds the same on disk."""

    trainer: AxeTrainer  # `trainer.state.log_history` has the curves
    model: CmlmForConditionalGeneration  # averaged if `ema_decay` was set
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]  # by name: `train_*`, `eval_*` of the validation data, `test_*`


def run_training(
    model_args: ModelArguments, data_args: DataArguments, training_args: AxeTrainingArguments
) -> TrainingResult:
    """Train a translation model, score it, and save everything in `training_args.output_dir`.

    The folder gets the model, its generation settings and tokenizer, README.md (the model card),
    `*_results.json` with the scores, `trainer_state.json` with the log of the whole run, and the
    checkpoints.

    Args:
        model_args, data_args: The model; the data and the tokenizer.
        training_args: The training; `resume_from_checkpoint` may be a folder, or "last".

    Returns:
        A `TrainingResult`: `trainer`, `model`, `tokenizer` and `metrics`.

    Raises:
        FileExistsError: `output_dir` holds something and nothing is to be resumed.
        BlockingIOError: Another process is training into `output_dir`.
        ValueError: Settings that do not fit together, or unreadable data, with file and line.

    Example:
        >>> from axe_hf import AxeTrainingArguments, DataArguments, ModelArguments, run_training
        >>> model_args = ModelArguments(d_model=256, encoder_layers=3, decoder_layers=3)
        >>> data_args = DataArguments("en", "de", train_file="train.tsv", test_file="test.tsv")
        >>> training_args = AxeTrainingArguments("runs/en-de", train_minutes=10)
        >>> result = run_training(model_args, data_args, training_args)  # doctest: +SKIP
        >>> result.metrics["test_bleu"]  # doctest: +SKIP
    """
    check_stream(data_args, training_args)
    asked, output_dir = training_args.resume_from_checkpoint, str(training_args.output_dir)
    checkpoint = resolve_checkpoint(asked, output_dir)
    if checkpoint is None and model_args.model_name_or_path is None:
        given = model_args.given()
        if model_args.init_from is not None:
            with _by_names_of_settings():
                check_name(model_args.init_from)
            # Sizes are checked against the teacher's.
            given = {name: value for name, value in given.items() if name in _CHANGEABLE}
        config = CmlmConfig(**given, **canvas_recipe(training_args))
        check_canvas_recipe(canvas_recipe(config), config.training_loss)  # before any work
        check_family(config, config.masking)
    if str(asked or "false").lower() == "false":
        advice = 'Choose another one, or go on in it by `resume_from_checkpoint="last"`.'
        check_new_folder(output_dir, "output_dir", advice)
    with only_writer(output_dir) if training_args.should_save else nullcontext():
        return _run(model_args, data_args, training_args, checkpoint)


def _run(model_args, data_args, training_args, checkpoint: str | None) -> TrainingResult:
    languages = {"source_lang": data_args.source_lang, "target_lang": data_args.target_lang}
    data_seed = training_args.data_seed
    # One process of a machine reads and writes the cache, the others find it.
    with training_args.main_process_first(desc="reading"):
        pairs = load_pairs(data_args, training_args.seed if data_seed is None else data_seed)
        raw = load_scored(data_args)
    if training_args.predict_with_generate and raw:
        from ..evaluation import TranslationMetric, default_tokenize

        tokenize = training_args.bleu_tokenize or default_tokenize(data_args.target_lang)
        TranslationMetric(tokenize=tokenize)  # what is missing shows now, not after hours
        training_args = copy(training_args)
        training_args.bleu_tokenize = tokenize
    set_seed(training_args.seed)
    tokenizer = _make_tokenizer(model_args, data_args, checkpoint, pairs)
    check_tokenizer(tokenizer)
    model = _make_model(model_args, data_args, checkpoint, tokenizer)
    check_model_and_tokenizer(model, tokenizer)
    if model_args.attn_implementation is not None:
        model.set_attn_implementation(model_args.attn_implementation)
    config = model.config
    with training_args.main_process_first(desc="tokenizing"):
        train_dataset = training_set(pairs, tokenizer, config, data_args)
    needed = (tokenizer, config, languages)
    scored = {split: _tokenize_for_scoring(data, *needed) for split, data in raw.items()}
    sets: dict[str, Any] = {
        "train_dataset": train_dataset,
        "eval_dataset": scored.get("validation"),
    }
    trainer = AxeTrainer(model, training_args, processing_class=tokenizer, **sets)
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", metrics)
    scores = {}
    for split, dataset in scored.items():
        prefix = "eval" if split == "validation" else split
        results = trainer.evaluate(dataset, metric_key_prefix=prefix)
        trainer.save_metrics(prefix, results)
        metrics |= results
        scores[split] = {n.removeprefix(f"{prefix}_"): value for n, value in results.items()}
    trainer.save_state()
    files = [file for one in data_args.train_files for file in one.split(",")]
    trainer.create_model_card(
        **languages,
        dataset=data_args.dataset_name or " and ".join(Path(f.strip()).name for f in files),
        base_model=model_args.model_name_or_path or model_args.init_from,
        is_warm_started=model_args.init_from is not None,
        scores={split: values for split, values in scores.items() if "bleu" in values},
    )
    return TrainingResult(trainer, trainer.model, tokenizer, metrics)


def _make_tokenizer(
    model_args: ModelArguments,
    data_args: DataArguments,
    checkpoint: str | None,
    pairs: TrainingPairs,
) -> PreTrainedTokenizerBase:
    name = checkpoint or data_args.tokenizer_name_or_path or model_args.model_name_or_path
    name = name or model_args.init_from
    options = ("vocab_size", "tokenizer_algorithm")
    given = {n: getattr(data_args, n) for n in options if getattr(data_args, n) is not None}
    if name is not None:
        for option in given if checkpoint is None else ():
            raise ValueError(f"`{option}` is for a tokenizer to train, but {name} has one.")
        tokenizer = load_tokenizer(name, "Give another by `tokenizer_name_or_path`.")
        is_teachers = model_args.init_from is not None and checkpoint is None
        return _extended(tokenizer, model_args, data_args) if is_teachers else tokenizer
    texts = texts_of(pairs, (data_args.source_lang, data_args.target_lang))
    settings: dict[str, Any] = {n.removeprefix("tokenizer_"): value for n, value in given.items()}
    return train_tokenizer(texts, **settings)


def _extended(tokenizer: Any, model_args: ModelArguments, data_args: DataArguments) -> Any:
    """A teacher's tokenizer as its student has it, in the languages of the data."""
    codes = {}
    for side in ("source_lang", "target_lang"):
        code = getattr(model_args, f"teacher_{side}")
        if code is None and getattr(tokenizer, "src_lang", None) is not None:
            code = getattr(data_args, side)
        codes[side] = code
    with _by_names_of_settings():
        return student_tokenizer(tokenizer, **codes)


def _make_model(
    model_args: ModelArguments, data_args: DataArguments, checkpoint: str | None, tokenizer: Any
) -> CmlmForConditionalGeneration:
    given = model_args.given()
    name = checkpoint or model_args.model_name_or_path
    if name is None:
        lengths = ("max_source_length", "max_target_length")
        given |= {n: getattr(data_args, n) for n in lengths if getattr(data_args, n) is not None}
        if model_args.init_from is not None:
            return _warm_started(model_args, given, tokenizer)
        given |= {token: getattr(tokenizer, token, None) for token in SPECIAL_TOKEN_IDS}
        return CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **given))
    model = CmlmForConditionalGeneration.from_pretrained(name)
    for setting, value in given.items():
        present = getattr(model.config, setting)
        if value == present:
            continue
        if checkpoint is not None or setting not in _CHANGEABLE:
            built = "the run to resume has" if checkpoint else f"{name} was built with"
            raise ValueError(f"`{setting}` is {value!r}, but {built} {present!r}. Leave it out.")
        setattr(model.config, setting, value)
    if given.keys() & _CHANGEABLE and checkpoint is None:
        # Layers read their dropout when they are made.
        model = CmlmForConditionalGeneration.from_pretrained(name, config=model.config)
    return model


def _warm_started(
    model_args: ModelArguments, given: dict[str, Any], tokenizer: Any
) -> CmlmForConditionalGeneration:
    """A model that starts from a teacher's weights; in float32, for the optimizer."""
    name, kept_layers = model_args.init_from, model_args.kept_layers or "spread"
    start = CmlmForConditionalGeneration.from_autoregressive
    with _by_names_of_settings():
        return start(name, tokenizer, kept_layers=kept_layers, **given).float()


@contextmanager
def _by_names_of_settings() -> Iterator[None]:
    """Errors about a teacher call what was given by its name in the settings of a run."""
    names = {"model_or_name": "init_from", "tokenizer": "tokenizer_name_or_path"}
    names |= {side: f"teacher_{side}" for side in ("source_lang", "target_lang")}
    try:
        yield
    except (OSError, ValueError) as error:
        problem = str(error)
        for name, setting in names.items():
            problem = problem.replace(f"`{name}`", f"`{setting}`")
        raise ValueError(problem) from error


def _cut_to_room(token_ids: list[int], limit: int) -> list[int]:
    """The beginning of a target that a canvas of `limit` positions holds, and `</s>`."""
    *pieces, end = token_ids
    is_repeat = [a == b for a, b in zip([None, *pieces], pieces, strict=False)]
    needed = accumulate(1 + again for again in is_repeat)
    return [*(token for token, n in zip(pieces, needed, strict=True) if n < limit), end]


def _tokenize_for_scoring(dataset: "Dataset", tokenizer, config, languages) -> "Dataset":
    """Every pair, cut at the model's limits, not left out, with the whole texts as references."""

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = batch["translation"]
        sources, targets = ([pair[lang] or "" for pair in pairs] for lang in languages.values())
        cut = {"truncation": True, "max_length": config.max_source_length, "verbose": False}
        labels = encode_targets(tokenizer, targets, config.max_target_length)
        if needs_room(config):
            labels = [_cut_to_room(ids, config.max_target_length) for ids in labels]
        return {
            "input_ids": tokenizer(sources, **cut).input_ids,
            "labels": labels,
            "references": batch.get("references") or [[target] for target in targets],
        }

    columns = dataset.column_names
    return dataset.map(tokenize, batched=True, remove_columns=columns, desc="Tokenizing")
