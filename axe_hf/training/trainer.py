"""`AxeTrainer`: Transformers' sequence-to-sequence trainer for CMLMs, and what it needs."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import ModelOutput
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import (
    EvalLoopOutput,
    EvalPrediction,
    PredictionOutput,
    TrainOutput,
)
from transformers.utils import logging

from ..adapters import save_settings_of_adapter
from ..cmlm import CmlmConfig, CmlmForConditionalGeneration
from ..cmlm.configuration_cmlm import (
    canvas_recipe,
    check_canvas_recipe,
    check_family,
    needs_room,
)
from ..cmlm.family_axe import exact_dtype
from ..cmlm.generation_cmlm import ONE_SEQUENCE_EACH, settings_of_call
from ..cmlm.loss_axe import IGNORE_INDEX
from ..cmlm.loss_cmlm import whole_target
from ..cmlm.modeling_cmlm import CmlmEncoderOutput
from ..data import DataCollatorForCmlm, TranslationStream
from ..data.batching import OrderByLength
from ..data.formats import Share
from ..data.lengths import rows_of
from ..output import write_text
from ..pipeline import DECODED
from .arguments import AxeTrainingArguments
from .averaging import EmaCallback, average_checkpoints
from .best import EarlyStopping, best_checkpoints, remove_others, scores_of
from .checkpoints import (
    check_agreement,
    check_kind,
    check_resumption,
    failures_named,
    recipe_of,
    resolve_checkpoint,
)
from .checks import check_average, check_canvases, check_labels, check_model_and_tokenizer
from .compiling import compiled_body, take_compilation
from .dataloaders import (
    loader_by_tokens,
    loader_in_even_batches,
    loader_of_stream,
    numbered,
    tell_epoch,
    with_own_seeds,
)
from .directions import DIRECTION, MetricOfDirections
from .distributed import (
    check_sharding,
    embeddings_in_one_group,
    let_generate,
    models_are_whole,
    saves_shards,
    write_weights,
)
from .freezing import frozen
from .model_card import details_of_training, model_card_text
from .running_losses import LOGGED_RATES, RunningLosses
from .sharing import check_push, make_branch, pushes_in_progress, upload, upload_from_checkpoint
from .stages import check_stages, first_loss, show_drafts, trained_by, with_own_positions
from .streams import (
    STREAM_STATE,
    num_batches_of,
    save_stream_states,
    stream_states,
)
from .time_budget import BudgetProgressCallback, TrainingClock, progress_of_run, timed_schedule

logger = logging.get_logger(__name__)


class AxeTrainer(Seq2SeqTrainer):
    """Train a CMLM; the loss and its settings are those of `model.config`.

    Loss: (token loss + `length_loss_weight` * length loss) / number of labels, summed over all
    micro-batches of a step: gradient accumulation gives the gradients of the whole batch.

    A step is the same, to rounding, however many processes, micro-batches and workers share its
    sentences, or its batches of a token budget. So are its random canvases (`DataCollatorForCmlm`):
    each hangs on seed, epoch and row. Not so what each process draws for its batches, dropout and
    `draft_share`; nor the sentences of a stream, of `train_sampling_strategy="batch_rebalance"`,
    and of an epoch's last step if it has fewer than there are batches.

    Logged besides Transformers' values: `token_loss` (nats per label), `length_loss` (nats per
    sentence), for AXE `skipped_target_rate` and `skipped_prediction_rate` (per label; expected, at
    a temperature), `tokens_per_second` (source tokens and labels) and `elapsed_minutes` of
    training. Evaluation has the losses and rates, on fully masked canvases and so free of chance,
    and the scores of translations made with `model.generation_config`.

    Args:
        model, args: A `CmlmForConditionalGeneration` and its `AxeTrainingArguments`. What they say
            of masking, length multiplier and jitter is written into `model.config` and decoded by,
            `num_iterations` into `model.generation_config`; what they leave open stays as the model
            was trained.
        data_collator: By default a `DataCollatorForCmlm` that goes by `model.config`.
        train_dataset, eval_dataset: With columns `input_ids` and `labels`, as
            `tokenize_translations` makes them. Translations are scored against `references` (list
            of str) if the rows have them, else against the labels. `train_dataset` may be a
            `TranslationStream`, with `max_steps`: a checkpoint keeps where each process stood.
        processing_class: The tokenizer.
        **kwargs: As in `transformers.Trainer`; `compute_metrics` is by default `TranslationMetric`.

    Raises:
        TypeError, ValueError: Model, tokenizer and arguments do not fit together.

    Example:
        >>> import axe_hf, tempfile
        >>> tokenizer = axe_hf.train_tokenizer(["one two", "eins zwei"] * 9, vocab_size=300)
        >>> config = axe_hf.CmlmConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1)
        >>> model = axe_hf.CmlmForConditionalGeneration(config)
        >>> data = {"train_dataset": [dict(tokenizer("one two", text_target="eins zwei"))] * 4}
        >>> args = axe_hf.AxeTrainingArguments(tempfile.mkdtemp(), max_steps=2, save_strategy="no")
        >>> trainer = axe_hf.AxeTrainer(model, args, processing_class=tokenizer, **data)
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        2
    """

    model: CmlmForConditionalGeneration
    args: AxeTrainingArguments
    train_dataset: Any
    eval_dataset: Any
    processing_class: PreTrainedTokenizerBase
    compute_metrics: Any
    lr_scheduler: Any
    _tr_loss: torch.Tensor

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: AxeTrainingArguments | None = None,
        data_collator: Callable | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        args = AxeTrainingArguments("tmp_trainer") if args is None else args
        if not isinstance(args, AxeTrainingArguments):
            raise TypeError(f"`args` must be AxeTrainingArguments, got {type(args).__name__}.")
        processing_class = processing_class or getattr(data_collator, "tokenizer", None)
        if processing_class is None:
            raise ValueError("`processing_class` is missing: AxeTrainer needs the tokenizer.")
        if model is not None:
            check_model_and_tokenizer(model, processing_class)
            if args.push_to_hub:
                check_push(model)
        self.processing_class = processing_class  # `call_model_init` needs it
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs
        )
        check_sharding(self)
        self._compilation = take_compilation(self)
        self.label_smoother = None  # the base class's would put a position-wise loss in AXE's place
        if self.compute_metrics is None and args.predict_with_generate:
            self.compute_metrics = self._score_translations
        self._check_evaluation()
        check_average(self)
        check_labels(self)
        self._train_losses = RunningLosses(args.device)
        self._eval_losses = RunningLosses(args.device)
        self._ema: EmaCallback | None = None
        self.data_collator = data_collator
        self._made_collator: DataCollatorForCmlm | None = None
        self._body_compiled: Callable[[], AbstractContextManager[None]] = nullcontext
        self._checkpoint: str | None = None  # that the run in progress goes on from
        self._stream_states: dict[int, dict[str, Any]] = {}  # of each worker, behind its last batch
        self._card_details: dict[str, Any] = {}  # told so far
        self._honour_arguments()
        check_canvases(self)
        if args.train_minutes is not None and self.pop_callback(ProgressCallback) is not None:
            self.add_callback(BudgetProgressCallback)
        if (patience := args.early_stopping_patience) is not None:
            self.add_callback(EarlyStopping(patience, args.early_stopping_threshold))
        self.add_callback(TrainingClock)  # last: it sees what the others decided

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """A new model of `model_init`, checked as `model` is, with a config of its own."""
        model = super().call_model_init(trial)
        check_model_and_tokenizer(model, self.processing_class)
        # `model_init` may build all models on one config: what one was trained with is not for all.
        shared, config = model.config, copy.deepcopy(model.config)
        for module in model.modules():
            if vars(module).get("config") is shared:
                module.config = config
        if self.args.generation_config is not None:
            model.generation_config = self.load_generation_config(self.args.generation_config)
        return model

    def _honour_arguments(self) -> None:
        """Write what travels with a model into it, and make anew what hangs on it and `args`."""
        args, config, decoding = self.args, self.model.config, self.model.generation_config
        if hasattr(self.model, "get_base_model"):
            # The base class sets it in PEFT's wrapper, whose `generate` asks the model inside.
            self.model.get_base_model().generation_config = decoding
        if args.push_to_hub:
            config.carry_code()
        if args.label_smoothing_factor > 0:
            config.label_smoothing = args.label_smoothing_factor
        given, present = canvas_recipe(args), canvas_recipe(config)
        is_own = self.data_collator is not self._made_collator
        if is_own and isinstance(self.data_collator, DataCollatorForCmlm):
            own = canvas_recipe(self.data_collator)
            if own != own | given:
                raise ValueError(f"`data_collator` has {own}, but `args` {given}: leave one out.")
            given, longest = own, self.data_collator.max_canvas_length or config.max_target_length
            has_room = self.data_collator.allow_repetition or needs_room(config)
            self.data_collator = replace(
                self.data_collator, max_canvas_length=longest, allow_repetition=has_room
            )
        decoded, is_loaded = getattr(decoding, "length_multiplier", None), bool(config.name_or_path)
        recipe = present | given
        is_silent = is_loaded and present == canvas_recipe(CmlmConfig) and decoded not in (None, 1)
        if is_silent and config.training_loss == "axe" and given.get("masking") != "uniform":
            # Saved before there was a recipe: only so can it have been trained for this decoding.
            recipe = present | {"masking": "full", "length_multiplier": decoded} | given
        made = dict(recipe)
        if recipe["masking"] == "uniform" and not given:  # the multiplier is one of decoding alone
            made = recipe | {"length_multiplier": 1.0, "length_jitter": 0.0}
        check_canvas_recipe(made, config.training_loss)
        check_family(config, made["masking"])
        check_stages(args, config.training_loss, made["masking"])
        is_anew = decoded is not None and "length_multiplier" in given
        had = present | ({"length_multiplier": decoded} if is_anew else {})
        for name, value in recipe.items():
            if is_loaded and value != (was := had[name]):
                logger.warning(f"`{name}` is {value!r} from now on; the model had {was!r}.")
            setattr(config, name, value)
        self._honour_in_decoding(decoding, is_anew or decoded is None)
        if not is_own:
            made |= {"seed": self._data_seed, "max_canvas_length": config.max_target_length}
            made["allow_repetition"] = needs_room(config)
            collator = DataCollatorForCmlm(self.processing_class, **made)
            self.data_collator = self._made_collator = collator
        self._num_parameters = self.model.num_parameters(exclude_embeddings=True)
        if args.ema_decay != getattr(self._ema, "decay", None):
            self.remove_callback(EmaCallback)
            self._ema = None if args.ema_decay is None else EmaCallback(args.ema_decay)
            if self._ema is not None:
                self.add_callback(self._ema)

    def _honour_in_decoding(self, decoding: Any, takes_multiplier: bool) -> None:
        """Write what a model is trained for into the settings it is decoded by."""
        config = self.model.config
        if takes_multiplier:
            decoding.length_multiplier = config.length_multiplier
        if config.allow_repetition and getattr(decoding, "collapse_repeats", None) is False:
            text = "None from now on, which collapses; the model had False, of another loss"
            logger.warning(f"`collapse_repeats` of decoding is {text}.")
            decoding.collapse_repeats = None
        for name in ("num_iterations", "num_length_candidates"):
            if (value := getattr(self.args, name)) is not None:
                setattr(decoding, name, value)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    @property
    def _clock(self) -> TrainingClock:
        # Looked up each time: `restore_callback_states_from_checkpoint` replaces it.
        return next(c for c in self.callback_handler.callbacks if isinstance(c, TrainingClock))

    @property
    def elapsed_minutes(self) -> float:
        """Minutes of training so far, without evaluation and saving, with those before a resume."""
        return self._clock.seconds() / 60

    @property
    def _progress(self) -> float:
        """Share of the run that is done, from 0 to 1."""
        step, num_steps = self.state.global_step, max(self.state.max_steps, 1)
        return progress_of_run(self.args, step, num_steps, self.elapsed_minutes)

    @property
    def _is_sharded(self) -> bool:
        return self.is_fsdp_enabled or is_deepspeed_zero3_enabled()

    def _averaged_weights(self) -> AbstractContextManager:
        return nullcontext() if self._ema is None else self._ema.applied()

    # Training

    def hyperparameter_search(
        self, hp_space=None, compute_objective=None, n_trials=20, direction=None, *args, **kwargs
    ) -> Any:
        """The base class's. Without `compute_objective` it maximizes BLEU, or, where nothing is
        translated, minimizes the loss of evaluation; leave `direction` out then. Each trial starts
        from the arguments as they are now, and they are the same afterwards."""
        if compute_objective is None:
            is_scored = self.compute_metrics == self._score_translations
            is_scored &= not self.args.prediction_loss_only
            name, right = ("bleu", "maximize") if is_scored else ("loss", "minimize")
            if direction not in (None, right):
                raise ValueError(f"`direction` must be {right!r} for {name}, got {direction!r}.")
            sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else ()
            names = [f"eval_{part}_{name}" for part in sets] or [f"eval_{name}"]
            direction, compute_objective = right, lambda found: fmean(found[n] for n in names)
        before = self._args_of_all_trials = dict(vars(self.args))
        try:
            return super().hyperparameter_search(
                hp_space, compute_objective, n_trials, direction or "minimize", *args, **kwargs
            )
        finally:
            self.args.__dict__.update(before)

    def _hp_search_setup(self, trial: Any) -> None:
        # The base class calls this in each training, when the model is made.
        self.args.__dict__.update(self._args_of_all_trials if trial is not None else {})
        super()._hp_search_setup(trial)
        self._train_batch_size = self.args.train_batch_size  # not that of the last trial
        self.args.check()
        self._honour_arguments()
        if self._compilation is not None:  # the model may be a new one
            self._body_compiled = compiled_body(self.model, self._compilation)
        if self._ema is not None:
            self._ema.resume_from = self._checkpoint
        if parts := self.args.freeze:
            self._frozen_parts.enter_context(frozen(self.model, parts))
            num_trained = self.model.num_parameters(only_trainable=True)
            count = f"{num_trained:,} of {self.model.num_parameters():,} parameters train"
            logger.warning(f"`freeze`: {', '.join(parts)} as before this run, {count}.")

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or go on from a checkpoint: a folder, or True for the last in `output_dir`."""
        self._checkpoint = resolve_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if self.args.world_size > 1:
            check_agreement(self._checkpoint, recipe_of(self))
        if self._checkpoint is not None:
            check_kind(self._checkpoint, self)
            check_resumption(self._checkpoint, recipe_of(self))
        self._train_losses = RunningLosses(self.args.device)
        if self.args.world_size > 1 and self.model_wrapped is self.model:
            # An evaluation before training marks the bare model as prepared; accelerate would then
            # leave it unwrapped, and each process would train on its own.
            self.model._is_accelerate_prepared = False
        with ExitStack() as self._frozen_parts:
            return super().train(self._checkpoint, *args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[Any, DataLoader]:
        if not self.is_fsdp_enabled:
            return super()._prepare_for_training(*args, **kwargs)
        with embeddings_in_one_group(self.model):
            prepared = super()._prepare_for_training(*args, **kwargs)
        let_generate(self.model)
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # The base class trains at least one step, also of a run that is resumed at its end.
        is_over = self.elapsed_minutes >= (self.args.train_minutes or math.inf)
        is_over |= self.control.should_training_stop  # by the patience of an early end
        if is_over or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        tell_epoch(kwargs["train_dataloader"], kwargs["epoch"])
        # What `loss` in the log is added up in.
        self._tr_loss = self._tr_loss.to(exact_dtype(self._tr_loss.device))
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        self.state.stateful_callbacks["AxeTrainer"] = {"attributes": recipe_of(self)}
        if self.args.should_save:  # written last, it says that all the rest is there
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        with failures_named(folder):
            super()._save_checkpoint(model, trial)
        if self.args.keep_best is not None and self.args.should_save:
            remove_others(folder.parent, [folder, *self._best_checkpoints(folder.parent)])

    def _best_checkpoints(self, folder: str | Path) -> list[Path]:
        scores = scores_of(self.state.log_history, self.args.metric_for_best_model)
        return best_checkpoints(folder, scores, self.args)

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> TrainOutput:
        output = super()._finalize_training(trial, *args, **kwargs)
        if self.args.average_best:
            self.accelerator.wait_for_everyone()  # the last may be about to be written
            best = [self._best_checkpoints(self._get_output_dir(trial))]
            best = broadcast_object_list(best)[0]  # one process may see fewer of the first's files
            if best:
                with models_are_whole(self):
                    average = average_checkpoints(best)
                write_weights(self.model, dict(average.named_parameters()))
            names = ", ".join(path.name for path in best) or "nothing, since none was evaluated"
            if self.is_world_process_zero():
                logger.warning(f"`average_best`: the model is the average of {names}.")
        return output

    def get_train_dataloader(self) -> DataLoader:
        """Batches of `per_device_train_batch_size` sentences, or `max_tokens_per_batch` tokens."""
        args, dataset = self.args, self.train_dataset
        if isinstance(dataset, TranslationStream):
            return self._stream_dataloader(dataset)
        if args.max_tokens_per_batch is None or dataset is None:
            return super().get_train_dataloader()
        loader = loader_by_tokens(dataset, self.data_collator, args, self._data_seed)
        self._sentences_per_batch = len(dataset) / len(loader)
        return with_own_seeds(self.accelerator.prepare(loader), args)

    def _dataloader_of_rows(self, dataset, description, batch_size, sampler_fn, **kwargs):
        """The base class's, whose collator gets the numbers of rows, and whose last batches are not
        filled up with sentences that were trained on."""
        args, order = self.args, sampler_fn(dataset)  # by a column of lengths, where there is one
        if hasattr(dataset, "select_columns"):
            dataset = self._remove_unused_columns(dataset, description=description)
        rows = numbered(dataset, self.data_collator)
        is_divided = args.train_sampling_strategy == "batch_rebalance"  # by the order itself
        is_divided |= bool(self.accelerator.split_batches or self.accelerator.dispatch_batches)
        if args.world_size == 1 or is_divided:
            how = (description, batch_size, lambda _: order)
            return super()._get_dataloader(rows, *how, is_training=True, **kwargs)
        collator = self._get_collator_with_removed_columns(self.data_collator, description)
        return self.accelerator.prepare(
            loader_in_even_batches(rows, order, batch_size, collator, args)
        )

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """The base class's; its order by length is the same in all processes and after a resume."""
        sampler = super()._get_train_sampler(*args, **kwargs)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        num_in_step = sampler.batch_size * self.args.world_size
        return OrderByLength(sampler.lengths, num_in_step, self._data_seed)

    def _get_collator_with_removed_columns(self, data_collator: Callable, *args: Any, **kwargs):
        # Ours takes what it needs, the numbers of the rows too.
        if isinstance(data_collator, DataCollatorForCmlm):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, *args, **kwargs)

    def _stream_dataloader(self, stream: TranslationStream) -> DataLoader:
        """Batches of this process's share, from where the run to resume stood."""
        args, budget = self.args, self.args.max_tokens_per_batch
        checkpoint = None if args.ignore_data_skip else self._checkpoint
        sizes = stream.sizes_of_first(1000)  # also tells of wrong data before any work
        self._sentences_per_batch = max(1.0, (budget or 0) / sizes.mean())
        states = [] if checkpoint is None else stream_states(checkpoint, args)
        self._stream_states = dict(enumerate(states))  # a worker may be behind at the next save
        batches = stream.batches(
            budget,
            args.train_batch_size if budget is None else None,
            share=Share(args.process_index, args.world_size),
            states=states,
            num_passed=0 if checkpoint is None else num_batches_of(checkpoint, args),
        )
        loader = loader_of_stream(batches, self.data_collator, args, self.accelerator.device)
        return with_own_seeds(loader, args)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The base class's, which takes from the batches of a stream where the next begins."""
        samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for inputs in samples:
            if (state := inputs.pop(STREAM_STATE, None)) is not None:
                state = json.loads(state)
                self._stream_states[state.pop("worker")] = state
        return samples, num_items

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._stream_states:
            save_stream_states(output_dir, self._stream_states, self.args)

    def get_total_train_batch_size(self, args: AxeTrainingArguments) -> int:
        """Sentences in a step, all devices together; with `max_tokens_per_batch` their average."""
        total = super().get_total_train_batch_size(args)
        if args.max_tokens_per_batch is None:
            return total
        return round(total / self._train_batch_size * self._sentences_per_batch)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """The learning-rate schedule: Transformers', or by the clock with `train_minutes`."""
        if self.args.train_minutes is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = timed_schedule(
            optimizer, self.args, num_training_steps, lambda: self.elapsed_minutes
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model, inputs, return_outputs: bool = False, num_items_in_batch=None
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """The model's own loss, or one that comes first; its parts are added up for the log."""
        config, share = self.model.config, self.args.draft_share
        first = first_loss(self.args, self._progress) if model.training else None
        if model.training and first is None and share > 0:
            canvas = show_drafts(model, inputs, share, self.processing_class)
            inputs = {**inputs, "decoder_input_ids": canvas, "is_draft": True}
        with ExitStack() as stack:
            if model.training:
                stack.enter_context(self._body_compiled())
            if first is not None:
                stack.enter_context(trained_by(config, first))
            if first == "cross_entropy":
                inputs = with_own_positions(inputs, config)
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        if model.training and self.compute_loss_func is None:
            self._train_losses.add(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The base class's estimate, with the parameters counted once."""
        return 6 * inputs["input_ids"].numel() * self._num_parameters

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, the speed and the time to a training log."""
        if "loss" in logs:
            rates = self._train_losses.read(self.accelerator, self.model.config.length_loss_weight)
            if rates["num_labels"]:
                logs |= {name: rates[name] for name in LOGGED_RATES if name in rates}
                logs["tokens_per_second"] = rates["num_tokens"] / max(self._clock.lap(), 1e-9)
            logs["elapsed_minutes"] = self.elapsed_minutes
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model and tokenizer; of averaged weights, the average."""
        folder = output_dir or self.args.output_dir
        with failures_named(folder):
            with self._averaged_weights():
                super().save_model(folder, _internal_call)
                if self.is_fsdp_enabled and saves_shards(self.accelerator):
                    # The base class would leave no model that can be loaded.
                    self._save(folder, state_dict=self.accelerator.get_state_dict(self.model))
            is_checkpoint = _internal_call and Path(folder) != Path(self.args.output_dir)
            if is_checkpoint and self._ema is not None:
                self._ema.save(folder, self.args.should_save)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is not None:
            # Gathered from several processes each of the tied weights is a copy of its own.
            tied = getattr(self.model, "all_tied_weights_keys", ())
            state_dict = {name: w for name, w in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)
        if hasattr(self.model, "get_base_model") and self.args.should_save:  # FSDP calls all
            folder = output_dir or self.args.output_dir
            save_settings_of_adapter(self.model.get_base_model(), folder)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Tied weights are in no file but by one of their names.
        tied = getattr(self.model, "all_tied_weights_keys", None) or ()
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._ema is not None and self.is_fsdp_enabled:
            # What FSDP loads are the trained weights; elsewhere it is their average.
            self._ema.load(self.model, self.state.best_model_checkpoint)
            self._ema.apply()

    # Sharing

    def create_model_card(self, **details: Any) -> None:  # type: ignore[override]
        """Write README.md into `args.output_dir`; `details` are fields of `ModelCardDetails`, and
        count for every later card of this trainer, such as that of a push."""
        self.tell_card(**details)
        if self.is_world_process_zero():
            text = model_card_text(details_of_training(self, **self._card_details))
            write_text(Path(self.args.output_dir, "README.md"), text)

    def tell_card(self, **details: Any) -> None:
        """Keep fields of `ModelCardDetails` for every card of this trainer."""
        self._card_details |= {name: value for name, value in details.items() if value is not None}

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """The base class's, and the branch `hub_revision` where there is none."""
        super().init_hf_repo(token, private)
        if self.is_world_process_zero():
            make_branch(self, self.args.hub_revision, token)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        **details: Any,
    ) -> Any:
        """Upload model, code, tokenizer and card to the Hub, as one commit.

        Args:
            commit_message, blocking, token, private: as in `transformers.Trainer`.
            revision: the branch, made if there is none; `args.hub_revision` by default.
            create_pr (default False): open a pull request to that branch, which must be there then.
            **details: fields of `ModelCardDetails`, for the card.

        Returns:
            What the Hub says of the commit, or a future with it where it is not waited for; None in
            all processes but the first.
        """
        check_push(self.model)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        self.model.config.carry_code()
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**details)
        revision = revision or self.args.hub_revision
        if not create_pr:
            make_branch(self, revision, token)
        self._finish_current_push()
        how: dict[str, Any] = {"token": token, "revision": revision, "run_as_future": not blocking}
        return upload(self, self.args.output_dir, commit_message, create_pr=create_pr, **how)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        upload_from_checkpoint(self, checkpoint_folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        pushes_in_progress(self)

    # Evaluation

    def _check_evaluation(self) -> None:
        """Refuse now, not after hours, arguments that only an evaluation reads."""
        args = self.args
        given = {"max_length": args.generation_max_length, "num_beams": args.generation_num_beams}
        try:
            if args.predict_with_generate:
                settings_of_call(self.model.config, self.model.generation_config, given)
        except (TypeError, ValueError) as error:
            names = "`generation_config`, `generation_max_length`, `generation_num_beams`"
            raise type(error)(f"{names} of the arguments: {error}") from error
        if args.eval_strategy != "no" and not args.prediction_loss_only:
            self._start_scoring(())  # a library that is missing shows here, too
        self._check_metric()

    def _check_metric(self) -> None:
        """Refuse to choose the best by what this trainer's own evaluation does not find."""
        args, name = self.args, self.args.metric_for_best_model
        is_scored = self.compute_metrics == self._score_translations
        is_own = is_scored or self.compute_metrics is None
        if name is None or args.eval_strategy == "no" or not is_own or name.startswith("eval_"):
            return  # of several sets each has a name of its own
        found = {"loss", *LOGGED_RATES}
        if is_scored and not args.prediction_loss_only:
            scores = (self._metric.compute(predictions=["a"], references=["a"]) or {}).keys()
            found |= scores
            if DIRECTION in next(rows_of(self.eval_dataset), {}):
                directions = self.model.config.directions or ()
                found |= {f"{direction}_{score}" for direction in directions for score in scores}
        if name not in found:
            hint = "" if is_scored else " Translations are scored with `predict_with_generate`."
            known = ", ".join(sorted(n for n in found if not n.endswith("signature")))
            expected = f"one of {known}, or begin with eval_"
            raise ValueError(f"`metric_for_best_model` must be {expected}; got {name!r}.{hint}")

    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval", **gen_kwargs: Any
    ) -> dict[str, Any]:
        """Loss, skip rates and translation scores of a data set; every sentence counts once."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        named = isinstance(dataset, str)
        self._start_scoring(self.eval_dataset[dataset] if named else dataset)
        with self._averaged_weights():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)

    def predict(
        self, test_dataset, ignore_keys=None, metric_key_prefix="test", **gen_kwargs: Any
    ) -> PredictionOutput:
        """Translations (token ids padded with -100), and metrics if the data set has labels."""
        self._start_scoring(test_dataset)
        with self._averaged_weights():
            return super().predict(test_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)

    def _get_dataloader(self, dataset, description, *args, is_training=False, **kwargs):
        """The base class's, which evaluates all sentences and, in a test, needs no labels."""
        before = self.args.dataloader_drop_last, self.data_collator
        self.args.dataloader_drop_last &= is_training
        if description == "test" and "labels" not in next(rows_of(dataset), {}):
            self.data_collator = getattr(self.data_collator, "pad_sources", self.data_collator)
        try:
            is_of_rows = hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)
            if is_training and is_of_rows:
                loader = self._dataloader_of_rows(dataset, description, *args, **kwargs)
            else:
                kwargs["is_training"] = is_training
                loader = super()._get_dataloader(dataset, description, *args, **kwargs)
            return with_own_seeds(loader, self.args)
        finally:
            self.args.dataloader_drop_last, self.data_collator = before

    def _get_eval_sampler(self, eval_dataset):
        # In order always: the references are.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def evaluation_loop(self, *args: Any, metric_key_prefix="eval", **kwargs) -> EvalLoopOutput:
        """The base class's loop, less the sentences that only fill up processes' last batch."""
        self.gather_function = self.accelerator.gather_for_metrics
        if self.is_fsdp_enabled and not self.accelerator._models:
            # Before there is an optimizer FSDP2 has nothing to shard with; the base class would.
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        rates = self._eval_losses.read(self.accelerator, self.model.config.length_loss_weight)
        for name in ("loss", *LOGGED_RATES) if rates["num_labels"] else ():
            if name in rates:
                output.metrics[f"{metric_key_prefix}_{name}"] = rates[name]
        return output

    @torch.no_grad()
    def prediction_step(
        self, model, inputs, prediction_loss_only: bool, ignore_keys=None, **gen_kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss on the fully masked canvas and, from the same encoder pass, a translation."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        loss, encoder_outputs = None, None
        if labels is not None:
            labels, _ = whole_target(labels, inputs.get("decoder_input_ids"), self.model.config)
            canvas = self.model.prepare_decoder_input_ids_from_labels(labels)
            with_labels = batch | {"decoder_input_ids": canvas, "labels": labels}
            with self.compute_loss_context_manager():
                outputs = model(**with_labels)
            self._add_eval_losses(outputs, with_labels)
            loss = outputs.loss.detach()
            states = outputs.encoder_last_hidden_state
            encoder_outputs = CmlmEncoderOutput(states, length_logits=outputs.length_logits)
        if prediction_loss_only:
            return loss, None, None
        if not self.args.predict_with_generate:
            return loss, outputs.logits if labels is not None else None, labels
        gen_kwargs = gen_kwargs or getattr(self, "_gen_kwargs", {})
        gen_kwargs = {"synced_gpus": self._is_sharded} | gen_kwargs | ONE_SEQUENCE_EACH
        tokens = self.model.generate(**batch, encoder_outputs=encoder_outputs, **gen_kwargs)
        return loss, tokens, labels

    def _add_eval_losses(self, outputs: ModelOutput, batch: dict[str, torch.Tensor]) -> None:
        state = self.accelerator.gradient_state
        num_own = num_rows = len(batch["labels"])
        is_filled = state.end_of_dataloader and state.remainder > 0
        if is_filled:
            # With several processes the last batch is filled up with sentences counted before.
            num_own = state.remainder - num_rows * self.accelerator.process_index
        # With sharded weights a process that passes waits for all to do so.
        if 0 < num_own < num_rows or (is_filled and self._is_sharded):
            batch = {name: tensor[: max(1, num_own)] for name, tensor in batch.items()}
            outputs = self.model(**batch)
        if num_own > 0:
            self._eval_losses.add(outputs, batch)

    def _start_scoring(self, dataset: Any) -> None:
        """A new metric, and the references of `dataset`, if its rows have them."""
        if self.compute_metrics == self._score_translations:
            from ..evaluation import TranslationMetric

            self._metric: Any = TranslationMetric(tokenize=self.args.bleu_tokenize or "13a")
            columns, self._directions = next(rows_of(dataset), {}), None
            references = (row.get("references") for row in rows_of(dataset))
            self._references = references if "references" in columns else None
            if DIRECTION in columns:
                self._metric = MetricOfDirections(self.args.bleu_tokenize)
                self._directions = (row[DIRECTION] for row in rows_of(dataset))

    def texts_of(self, predictions: Any) -> Iterator[str]:
        """The texts of token ids padded with -100, as `predict` returns them, in one array or more.

        Example:
            >>> texts = list(trainer.texts_of(trainer.predict(data).predictions))  # doctest: +SKIP
        """
        arrays = predictions if isinstance(predictions, list) else [predictions]
        for ids in map(torch.as_tensor, arrays):
            ids = ids.masked_fill(ids == IGNORE_INDEX, self.processing_class.pad_token_id)
            yield from self.processing_class.batch_decode(ids, **DECODED)

    def _score_translations(
        self, prediction: EvalPrediction, compute_result: bool = True
    ) -> dict[str, float | str] | None:
        """Scores on detokenized text; the labels stand in for references that are not there."""
        texts = list(self.texts_of(prediction.predictions))
        right: Any = self._references or self.texts_of(prediction.label_ids)
        texts_and = {"predictions": texts, "references": list(islice(right, len(texts)))}
        if self._directions is not None:
            texts_and["directions"] = list(islice(self._directions, len(texts)))
        self._metric.add_batch(**texts_and)
        return self._metric.compute() if compute_result else {}
