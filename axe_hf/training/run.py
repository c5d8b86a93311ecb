"""A whole training run: data, tokenizer, model, training, scores, and a folder to share."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging

from ..adapters import is_adapter, load_merged
from ..cmlm import CmlmConfig, CmlmForConditionalGeneration
from ..cmlm.configuration_cmlm import (
    SPECIAL_TOKEN_IDS,
    canvas_recipe,
    check_canvas_recipe,
    check_family,
)
from ..data import train_tokenizer
from ..data.tokenizer import check_tokenizer, load_tokenizer
from ..output import check_new_folder, only_writer, predictions_name, write_text
from ..pipeline import language_tags
from ..teachers import student_tokenizer
from ..teachers.warm_start import check_name
from .arguments import AxeTrainingArguments, DataArguments, ModelArguments
from .checkpoints import resolve_checkpoint
from .checks import check_model_and_tokenizer
from .directions import (
    DIRECTION,
    add_tags,
    check_directions,
    direction_name,
    settle_prefix,
    teach_directions,
)
from .loading import (
    TrainingPairs,
    check_stream,
    load_pairs,
    load_scored,
    scoring_set,
    texts_of,
    training_set,
)
from .model_card import teachers_of
from .precision import choose_attention
from .trainer import AxeTrainer

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

    All is done that the data allow, or, where one of `do_train`, `do_eval` and `do_predict` is set,
    only what they say. The last writes generated_predictions.txt, a line for each test sentence.

    The folder gets the model, its generation settings and tokenizer, README.md (the model card),
    `*_results.json` with the scores, `trainer_state.json` with the log of the whole run, and the
    checkpoints.

    Args:
        model_args, data_args: The model; the data and the tokenizer.
        training_args: The training; `resume_from_checkpoint` may be a folder, or "last".

    Returns:
        A `TrainingResult`: `trainer`, `model`, `tokenizer` and `metrics`.

    Raises:
        FileExistsError: `output_dir` holds something, and a new run is to be trained.
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
    splits = _splits_of(data_args, training_args)
    if "train" in splits:
        check_stream(data_args, training_args)
    asked, output_dir = training_args.resume_from_checkpoint, str(training_args.output_dir)
    is_new = str(asked or "false").lower() == "false"
    _check_parts(model_args, training_args, splits, is_new)
    checkpoint = resolve_checkpoint(asked, output_dir)
    if checkpoint is None:
        _check_model(model_args, training_args)
    if "train" in splits and is_new:
        advice = 'Choose another one, or go on in it by `resume_from_checkpoint="last"`.'
        check_new_folder(output_dir, "output_dir", advice)
    with only_writer(output_dir) if training_args.should_save else nullcontext():
        return _run(model_args, _named_splits(data_args, splits), training_args, checkpoint, splits)


def _splits_of(data_args: DataArguments, training_args: AxeTrainingArguments) -> set[str]:
    """Which of train, validation and test a run is about: what is asked, or else all that is given.

    What a data set on the Hub has is not known here: of it, what is asked counts as given.
    """
    asks = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}
    hub, files = data_args.dataset_name, {s: getattr(data_args, f"{s}_file") for s in asks}
    asked = {split for split, name in asks.items() if getattr(training_args, name)}
    for split in asked:
        if files[split] is None and hub is None:
            text = f"there is neither `{split}_file` nor `dataset_name`"
            also = " (or `eval_strategy`)" if split == "validation" else ""
            raise ValueError(f"`{asks[split]}`{also} is set, but {text}.")
    if asked:
        return asked
    if files["train"] is None and hub is None:
        advice = "Give `train_file` or `dataset_name`, or ask for `do_eval` or `do_predict`"
        raise ValueError(f"There is nothing to train on. {advice}.")
    given = (data_args.validation_split, data_args.test_split)
    named = {s for s, name in zip(("validation", "test"), given, strict=True) if name is not None}
    return {"train"} | named | {split for split, file in files.items() if file is not None}


def _named_splits(data_args: DataArguments, splits: set[str]) -> DataArguments:
    """`data_args` with the splits of a data set on the Hub that were asked for, not named."""
    names: dict[str, Any] = {}
    for split in splits & {"validation", "test"} if data_args.dataset_name is not None else ():
        if getattr(data_args, f"{split}_split") is None and not getattr(data_args, f"{split}_file"):
            names[f"{split}_split"] = split
    return replace(data_args, **names)


def _check_parts(model_args, training_args, splits: set[str], is_new: bool) -> None:
    """Refuse parts of a run that lack what they need."""
    if "train" not in splits and model_args.model_name_or_path is None:
        raise ValueError("`do_eval`, `do_predict`: give the model by `model_name_or_path`.")
    if "train" not in splits and not is_new:
        raise ValueError("`resume_from_checkpoint` goes on training: add `do_train`.")
    if "train" not in splits and model_args.use_peft:
        raise ValueError("`use_peft` trains an adapter: add `do_train`, or leave it out.")
    strategy = IntervalStrategy(training_args.eval_strategy).value
    if "train" in splits and strategy != "no" and "validation" not in splits:
        problem = "there is neither `validation_file` nor `validation_split`"
        raise ValueError(f"`eval_strategy` is {strategy!r}, but {problem}.")
    if training_args.do_predict and training_args.batch_eval_metrics:
        raise ValueError("`do_predict` writes translations: `batch_eval_metrics` must be False.")
    if model_args.use_peft and find_spec("peft") is None:
        raise ImportError('`use_peft` needs PEFT: python -m pip install "axe-hf[peft]".')


def _check_model(model_args: ModelArguments, training_args: AxeTrainingArguments) -> None:
    """Refuse, before any work, a new model that cannot be."""
    if model_args.model_name_or_path is not None:
        return
    given = model_args.given()
    if model_args.init_from is not None:
        with _by_names_of_settings():
            check_name(model_args.init_from)
        # Sizes are checked against the teacher's.
        given = {name: value for name, value in given.items() if name in _CHANGEABLE}
    config = CmlmConfig(**given, **canvas_recipe(training_args))
    check_canvas_recipe(canvas_recipe(config), config.training_loss)
    check_family(config, config.masking)


def _run(
    model_args, data_args, training_args, checkpoint: str | None, splits: set[str]
) -> TrainingResult:
    pairs, data_seed = None, training_args.data_seed
    # One process of a machine reads and writes the cache, the others find it.
    with training_args.main_process_first(desc="reading"):
        if "train" in splits:
            pairs = load_pairs(data_args, training_args.seed if data_seed is None else data_seed)
        raw = load_scored(data_args, splits)
    training_args = _for_splits(training_args, data_args, splits)
    set_seed(training_args.seed)
    tokenizer = _make_tokenizer(model_args, data_args, checkpoint, pairs)
    check_tokenizer(tokenizer)
    model = _make_model(model_args, data_args, checkpoint, tokenizer)
    _settle_directions(model, tokenizer, model_args, data_args, "train" in splits)
    settle_prefix(model.config, data_args.source_prefix, is_trained="train" in splits)
    check_model_and_tokenizer(model, tokenizer)
    if model_args.attn_implementation is None:
        choose_attention(model, training_args)
    else:
        model.set_attn_implementation(model_args.attn_implementation)
    config, train_dataset = model.config, None
    if pairs is not None:
        with training_args.main_process_first(desc="tokenizing"):
            train_dataset = training_set(pairs, tokenizer, config, data_args)
    needed = (tokenizer, config, data_args)
    scored = {split: scoring_set(sets, *needed) for split, sets in raw.items()}
    if model_args.use_peft:
        model = _adapted(model, model_args)
    sets: dict[str, Any] = {"train_dataset": train_dataset}
    sets["eval_dataset"] = scored.get("validation")
    trainer = AxeTrainer(model, training_args, processing_class=tokenizer, **sets)
    metrics: dict[str, Any] = {}
    if "train" in splits:
        trainer.tell_card(**_about(model_args, data_args))
        metrics = _train(trainer, checkpoint)
    scores = {}
    for split, dataset in scored.items():
        prefix = "eval" if split == "validation" else split
        results = _score(trainer, dataset, prefix)
        trainer.save_metrics(prefix, results)
        metrics |= results
        scores[split] = {n.removeprefix(f"{prefix}_"): value for n, value in results.items()}
    if "train" in splits:
        trainer.save_state()
        _write_card(trainer, model_args, data_args, scores)
    return TrainingResult(trainer, trainer.model, tokenizer, metrics)


def _train(trainer: AxeTrainer, checkpoint: str | None) -> dict[str, Any]:
    """Train and save; the metrics."""
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    if hasattr(trainer.train_dataset, "__len__"):  # a stream has none
        metrics["train_samples"] = len(trainer.train_dataset)
    trainer.save_model(_internal_call=True)  # which is pushed when it is scored
    trainer.save_state()
    trainer.save_metrics("train", metrics)
    return metrics


def _for_splits(training_args, data_args, splits: set[str]) -> AxeTrainingArguments:
    """The arguments for these splits: how BLEU counts words, and no evaluation of no training."""
    training_args = copy(training_args)
    if training_args.predict_with_generate and splits != {"train"}:
        from ..evaluation import TranslationMetric, default_tokenize

        for _, target_lang in data_args.language_pairs:
            tokenize = training_args.bleu_tokenize or default_tokenize(target_lang)
            TranslationMetric(tokenize=tokenize)  # what is missing shows now, not after hours
        if len(data_args.language_pairs) == 1:  # several may have one each
            training_args.bleu_tokenize = tokenize
    if "train" not in splits:
        training_args.eval_strategy = IntervalStrategy.NO
    return training_args


def _score(trainer: AxeTrainer, dataset: "Dataset", prefix: str) -> dict[str, Any]:
    """Metrics of a split; where predictions are asked of the test data, they are written, too."""
    args, counted = trainer.args, {f"{prefix}_samples": len(dataset)}
    if prefix != "test" or not args.do_predict:
        return trainer.evaluate(dataset, metric_key_prefix=prefix) | counted
    if not args.predict_with_generate or args.prediction_loss_only:
        logger.warning("`do_predict`: nothing is translated, only the loss of the test data found.")
        return trainer.evaluate(dataset, metric_key_prefix=prefix) | counted
    output = trainer.predict(dataset, metric_key_prefix=prefix)
    trainer.log(output.metrics)
    if trainer.is_world_process_zero():
        lines = [" ".join(text.splitlines()) for text in trainer.texts_of(output.predictions)]
        is_several = DIRECTION in dataset.column_names
        directions = dataset[DIRECTION] if is_several else [None] * len(lines)
        for name in dict.fromkeys(directions):
            rows = zip(lines, directions, strict=True)
            own = "".join(f"{line}\n" for line, direction in rows if direction == name)
            write_text(Path(args.output_dir, predictions_name(name)), own)
    return output.metrics | counted


def _about(model_args, data_args) -> dict[str, Any]:
    """What the card tells of a run, but for its results."""
    files = [file.strip() for one in data_args.train_files for file in one.split(",")]
    names = {"validation": data_args.validation_file, "test": data_args.test_file}
    scored = {split: given for split, given in names.items() if given is not None}
    return {
        "source_lang": data_args.source_lang,
        "target_lang": data_args.target_lang,
        "dataset": data_args.dataset_name or _named(files),
        "evaluated_on": {split: _named(given) for split, given in scored.items()},
        "teachers": teachers_of([data_args.dataset_name] if data_args.dataset_name else files),
        "base_model": model_args.model_name_or_path or model_args.init_from,
        "is_warm_started": model_args.init_from is not None,
        "license": model_args.license,
    }


def _named(files: str | list[str]) -> str:
    """Files as they may stand in a card: nobody else has our folders."""
    parts = [
        file for one in ([files] if isinstance(files, str) else files) for file in one.split(",")
    ]
    return " and ".join(Path(part.strip()).name for part in parts)


def _write_card(trainer: AxeTrainer, model_args, data_args, scores: dict[str, Any]) -> None:
    scored = {split: values for split, values in scores.items() if "bleu" in values}
    trainer.create_model_card(**_about(model_args, data_args), scores=scored)
    if trainer.args.push_to_hub:  # not before: the card has the scores
        trainer.push_to_hub()


def _make_tokenizer(
    model_args: ModelArguments,
    data_args: DataArguments,
    checkpoint: str | None,
    pairs: "TrainingPairs | None",
) -> PreTrainedTokenizerBase:
    name = checkpoint or data_args.tokenizer_name_or_path or model_args.model_name_or_path
    name = name or model_args.init_from
    options = ("vocab_size", "tokenizer_algorithm")
    given = {n: getattr(data_args, n) for n in options if getattr(data_args, n) is not None}
    if name is not None:
        for option in given if checkpoint is None else ():
            raise ValueError(f"`{option}` is for a tokenizer to train, but {name} has one.")
        is_models = name == model_args.model_name_or_path
        revision = {"revision": model_args.model_revision} if is_models else {}
        advice = "Give another by `tokenizer_name_or_path`."
        tokenizer = load_tokenizer(name, advice, **revision)
        if checkpoint is not None or model_args.model_name_or_path is not None:
            return tokenizer
        if model_args.init_from is not None:
            return _extended(tokenizer, model_args, data_args)
        return _with_tags(tokenizer, data_args)
    assert pairs is not None  # who only scores has a model, and so a tokenizer
    texts = texts_of(pairs, data_args)
    settings: dict[str, Any] = {n.removeprefix("tokenizer_"): value for n, value in given.items()}
    return _with_tags(train_tokenizer(texts, **settings), data_args)


def _with_tags(tokenizer: Any, data_args: DataArguments) -> Any:
    """A new model's tokenizer with the tags of several target languages."""
    directions = [name for pair in data_args.language_pairs if (name := direction_name(*pair))]
    add_tags(tokenizer, language_tags(CmlmConfig(directions=directions)))
    return tokenizer


def _settle_directions(
    model: Any, tokenizer: Any, model_args, data_args: DataArguments, is_trained: bool
) -> None:
    """Let the model know what it is trained for; an adapter has no room for new symbols."""
    if not is_trained:
        return check_directions(model.config, data_args.language_pairs)
    num_rows = model.config.vocab_size
    teach_directions(model, tokenizer, data_args.language_pairs)
    if model_args.use_peft and model.config.vocab_size > num_rows:
        problem = "an adapter has no room for the tags of several target languages"
        raise ValueError(f"`use_peft`: {problem}. Train the whole model for them first.")


def _extended(tokenizer: Any, model_args: ModelArguments, data_args: DataArguments) -> Any:
    """A teacher's tokenizer as its student has it, in the languages of the data."""
    codes, knows_languages = {}, getattr(tokenizer, "src_lang", None) is not None
    if knows_languages and len(data_args.language_pairs) > 1:
        problem = f"{model_args.init_from} marks its languages, and a student keeps one of each"
        advice = "Start with one direction, or from a teacher that does not, such as Marian"
        raise ValueError(f"`directions`: {problem}. {advice}.")
    for side in ("source_lang", "target_lang"):
        code = getattr(model_args, f"teacher_{side}")
        codes[side] = getattr(data_args, side) if code is None and knows_languages else code
    with _by_names_of_settings():
        return student_tokenizer(tokenizer, **codes)


def _make_model(
    model_args: ModelArguments, data_args: DataArguments, checkpoint: str | None, tokenizer: Any
) -> CmlmForConditionalGeneration:
    given = model_args.given()
    # A checkpoint of an adapter holds nothing else.
    name = (None if model_args.use_peft else checkpoint) or model_args.model_name_or_path
    if name is None:
        lengths = ("max_source_length", "max_target_length")
        given |= {n: getattr(data_args, n) for n in lengths if getattr(data_args, n) is not None}
        if model_args.init_from is not None:
            return _warm_started(model_args, given, tokenizer)
        given |= {token: getattr(tokenizer, token, None) for token in SPECIAL_TOKEN_IDS}
        return CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **given))
    load = partial(CmlmForConditionalGeneration.from_pretrained, name)
    if name == model_args.model_name_or_path:
        revision = model_args.model_revision or "main"
        load = partial(load, revision=revision)
        if is_adapter(name, revision=revision):
            load = partial(_merged, name, revision, model_args)
        else:
            _check_kind(name, revision)
    elif is_adapter(name):
        raise ValueError(f"`resume_from_checkpoint`: {name} is of an adapter. Add `use_peft`.")
    model = load()
    for setting, value in given.items():
        present = getattr(model.config, setting)
        if value == present:
            continue
        is_resumed = checkpoint is not None and not model_args.use_peft
        if is_resumed or setting not in _CHANGEABLE:
            built = "the run to resume has" if is_resumed else f"{name} was built with"
            raise ValueError(f"`{setting}` is {value!r}, but {built} {present!r}. Leave it out.")
        setattr(model.config, setting, value)
    if given.keys() & _CHANGEABLE and name != checkpoint:
        model = load(config=model.config)  # layers read their dropout when they are made
    return model


def _merged(name: str, revision: str, model_args, config: Any = None) -> Any:
    """An adapter and its base as one model to go on from."""
    if model_args.use_peft:
        reason = "a new adapter would know its base alone"
        advice = "Save what axe_hf.load_merged gives as a model of its own, and give that"
        raise ValueError(f"`use_peft`: {name} is an adapter, and {reason}. {advice}.")
    model, _ = load_merged(name, revision=revision)
    if config is None:
        return model
    whole = CmlmForConditionalGeneration(config).to(model.dtype)  # with another dropout
    whole.load_state_dict(model.state_dict())
    whole.generation_config = model.generation_config
    return whole


def _check_kind(name: str, revision: str) -> None:
    """Say of a teacher that it is one, in place of a CMLM to fine-tune."""
    try:
        kind = PreTrainedConfig.get_config_dict(name, revision=revision)[0].get("model_type")
    except OSError:  # an adapter, or nothing: `from_pretrained` knows
        return
    if kind not in (None, "cmlm"):
        hint = "To start from its weights, give it by `init_from` in place of it"
        raise ValueError(f"`model_name_or_path` must be a CMLM, {name} is a {kind!r}. {hint}.")


def _adapted(model: CmlmForConditionalGeneration, model_args: ModelArguments) -> Any:
    """The model with a new adapter (LoRA), which is all that trains."""
    from peft import LoraConfig, get_peft_model

    modules = model_args.lora_target_modules or ["q_proj", "v_proj"]
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=model_args.lora_r,
        lora_alpha=model_args.lora_alpha,
        lora_dropout=model_args.lora_dropout,
        target_modules=modules[0] if modules == ["all-linear"] else modules,
    )
    return get_peft_model(model, config)


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
