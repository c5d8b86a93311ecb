"""`AxeTrainer`: Transformers' sequence-to-sequence trainer for conditional masked language models."""

from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Seq2SeqTrainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalPrediction

from ..cmlm.generation_cmlm import ONE_SEQUENCE_EACH
from ..cmlm.loss_cmlm import whole_target
from ..cmlm.outputs_cmlm import CmlmEncoderOutput
from .arguments import AxeTrainingArguments
from .batches import collator_of, references_of, token_budget_loader
from .callbacks import BudgetProgressCallback, EmaCallback, TrainingClock
from .checkpoints import resolve_checkpoint
from .checks import check_model_and_tokenizer, honour_arguments
from .model_card import details_of_training, write_model_card
from .running_losses import RunningLosses
from .schedule import timed_schedule
from .scoring import score_translations

_LOGGED_RATES = ("token_loss", "length_loss", "skipped_target_rate", "skipped_prediction_rate")


class AxeTrainer(Seq2SeqTrainer):
    """Train a CMLM; the loss and its settings are those of `model.config`.

    Loss: (token loss + `length_loss_weight` * length loss) / number of labels, all summed over every micro-batch of a
    step, so that gradient accumulation gives the gradients of the whole batch.

    Logged besides Transformers' values: `token_loss` (nats per label), `length_loss` (nats per sentence), for AXE
    `skipped_target_rate` and `skipped_prediction_rate` (per label), `tokens_per_second` (source tokens and labels) and
    `elapsed_minutes` of training. Evaluation has the same, on fully masked canvases and so free of chance, and the
    scores of translations made with `model.generation_config`.

    Args:
        model: a `CmlmForConditionalGeneration`.
        args: `AxeTrainingArguments`.
        data_collator: by default a `DataCollatorForCmlm` with `args.masking`.
        train_dataset, eval_dataset: with columns `input_ids` and `labels`, as `tokenize_translations` makes them.
            A column `references` (list of str) is what translations are scored against; without it the labels are.
        processing_class: the tokenizer.
        compute_metrics: by default `TranslationMetric` on detokenized text.
        **kwargs: as in `transformers.Trainer`: `callbacks`, `optimizers`, `model_init` ...

    Raises:
        TypeError, ValueError: model, tokenizer and arguments do not fit together.

    Example:

    ```python
    >>> from tempfile import TemporaryDirectory
    >>> from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
    >>> tokenizer = train_tokenizer(["one two", "eins zwei"] * 9, vocab_size=300)
    >>> model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1,
    ...     decoder_layers=1, max_source_length=20, max_target_length=20))
    >>> pair = tokenizer("one two", text_target="eins zwei")
    >>> with TemporaryDirectory() as folder:
    ...     args = AxeTrainingArguments(folder, max_steps=2, save_strategy="no")
    ...     trainer = AxeTrainer(model, args, train_dataset=[dict(pair)] * 4, processing_class=tokenizer)
    ...     trainer.train().global_step  # doctest: +ELLIPSIS
    {'train_runtime': ...}
    2

    ```
    """

    def __init__(
        self,
        model=None,
        args: AxeTrainingArguments | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        **kwargs: Any,
    ):
        args = AxeTrainingArguments("tmp_trainer") if args is None else args
        if not isinstance(args, AxeTrainingArguments):
            raise TypeError(f"`args` must be AxeTrainingArguments, got {type(args).__name__}.")
        if processing_class is None:
            processing_class = getattr(data_collator, "tokenizer", None)
        if processing_class is None:
            raise ValueError("`processing_class` is missing: AxeTrainer needs the tokenizer.")
        if model is not None:
            check_model_and_tokenizer(model, processing_class)
        if data_collator is None:
            data_collator = collator_of(args, processing_class, getattr(model, "config", None))
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs
        )
        honour_arguments(self.model, args)
        # Made by the base class; it would put a position-wise loss in AXE's place.
        self.label_smoother = None
        if self.compute_metrics is None and args.predict_with_generate:
            if args.eval_strategy != "no":
                from ..evaluation import TranslationMetric  # noqa: F401 (missing sacrebleu shows here, not hours later)
            self.compute_metrics = self._score_translations
        self._references: list[list[str]] | None = None
        self._train_losses = RunningLosses(args.device)
        self._eval_losses = RunningLosses(args.device)
        self._num_parameters: int | None = None
        self._add_callbacks(args)

    def call_model_init(self, trial=None):
        """A new model of `model_init`, which gets the settings of `args` that live in a model."""
        return honour_arguments(super().call_model_init(trial), self.args)

    def _add_callbacks(self, args: AxeTrainingArguments) -> None:
        self._ema = None
        if args.ema_decay is not None:
            self._ema = EmaCallback(args.ema_decay)
            self.add_callback(self._ema)
        if args.train_minutes is not None and self.pop_callback(ProgressCallback) is not None:
            self.add_callback(BudgetProgressCallback)
        self.add_callback(TrainingClock)  # last: it sees what the others decided

    @property
    def _clock(self) -> TrainingClock:
        # Looked up each time: `restore_callback_states_from_checkpoint` replaces it.
        return next(c for c in self.callback_handler.callbacks if isinstance(c, TrainingClock))

    @property
    def elapsed_minutes(self) -> float:
        """Minutes of training so far, evaluation and saving left out, those before a resume included."""
        return self._clock.seconds() / 60

    def _averaged_weights(self):
        return nullcontext() if self._ema is None else self._ema.applied()

    # Training

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """Train, or go on from a checkpoint: a folder, or True for the last one in `args.output_dir`."""
        checkpoint = resolve_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if self._ema is not None:
            self._ema.resume_from = checkpoint
        self._train_losses = RunningLosses(self.args.device)
        if self.args.world_size > 1 and self.model_wrapped is self.model:
            # An evaluation before training marks the bare model as prepared; accelerate would then leave it unwrapped,
            # and each process would train on its own.
            self.model._is_accelerate_prepared = False
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Batches of `per_device_train_batch_size` sentences, or of `max_tokens_per_batch` tokens."""
        if self.args.max_tokens_per_batch is None or self.train_dataset is None:
            return super().get_train_dataloader()
        loader = token_budget_loader(self.train_dataset, self.data_collator, self.args)
        self._sentences_per_batch = len(self.train_dataset) / len(loader.batch_sampler)
        return self.accelerator.prepare(loader)

    def get_total_train_batch_size(self, args) -> int:
        """Sentences in one step, all devices together; with `max_tokens_per_batch` their average."""
        total = super().get_total_train_batch_size(args)
        if args.max_tokens_per_batch is None:
            return total
        return round(total / self._train_batch_size * self._sentences_per_batch)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """The learning-rate schedule: Transformers', or with `train_minutes` one that follows the clock."""
        if self.args.train_minutes is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = timed_schedule(
            self.optimizer if optimizer is None else optimizer,
            self.args,
            num_training_steps,
            elapsed_minutes=lambda: self.elapsed_minutes,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model, inputs, return_outputs: bool = False, num_items_in_batch=None
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """The model's own loss; its parts are added up for the log."""
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if model.training and self.compute_loss_func is None:
            self._train_losses.add(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The base class's estimate, with the parameters counted once."""
        if self._num_parameters is None:
            self._num_parameters = self.model.num_parameters(exclude_embeddings=True)
        return 6 * inputs["input_ids"].numel() * self._num_parameters

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, the speed and the time to a training log."""
        if "loss" in logs:
            rates = self._train_losses.read(self.accelerator, self.model.config.length_loss_weight)
            if rates["num_labels"]:
                logs |= {name: rates[name] for name in _LOGGED_RATES if name in rates}
                logs["tokens_per_second"] = rates["num_tokens"] / max(self._clock.lap(), 1e-9)
            logs["elapsed_minutes"] = self.elapsed_minutes
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model and tokenizer; of averaged weights, the average."""
        with self._averaged_weights():
            super().save_model(output_dir, _internal_call)
        if _internal_call and self._ema is not None and self.args.should_save:
            self._ema.save(output_dir or self.args.output_dir)

    # Evaluation

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval", **gen_kwargs):
        """Loss, skip rates and translation scores of a data set; every sentence counts once."""
        self._references = references_of(self._named_dataset(eval_dataset))
        with self._averaged_weights():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)

    def predict(self, test_dataset, ignore_keys=None, metric_key_prefix="test", **gen_kwargs):
        """Translations (token ids padded with -100) and metrics of a data set."""
        self._references = references_of(test_dataset)
        with self._averaged_weights():
            return super().predict(test_dataset, ignore_keys, metric_key_prefix, **gen_kwargs)

    def _named_dataset(self, eval_dataset):
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return self.eval_dataset[dataset] if isinstance(dataset, str) else dataset

    def _get_eval_sampler(self, eval_dataset):
        # In order always: the references are.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        """The base class's loop, without the sentences that fill up the last batch of several processes."""
        self.gather_function = self.accelerator.gather_for_metrics
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        rates = self._eval_losses.read(self.accelerator, self.model.config.length_loss_weight)
        if rates["num_labels"]:
            for name in ("loss", *_LOGGED_RATES):
                if name in rates:
                    output.metrics[f"{metric_key_prefix}_{name}"] = rates[name]
        return output

    @torch.no_grad()
    def prediction_step(
        self, model, inputs, prediction_loss_only: bool, ignore_keys=None, **gen_kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss on the fully masked canvas and, with `predict_with_generate`, a translation from one encoder pass."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        loss, encoder_outputs = None, None
        if labels is not None:
            labels, _ = whole_target(labels, inputs.get("decoder_input_ids"), self.model.config)
            canvas = self.model.prepare_decoder_input_ids_from_labels(
                labels, self.args.length_multiplier
            )
            with self.compute_loss_context_manager():
                outputs = model(**batch, decoder_input_ids=canvas, labels=labels)
            self._add_eval_losses(outputs, batch | {"labels": labels, "decoder_input_ids": canvas})
            loss = outputs.loss.detach()
            encoder_outputs = CmlmEncoderOutput(
                last_hidden_state=outputs.encoder_last_hidden_state,
                length_logits=outputs.length_logits,
            )
        if prediction_loss_only:
            return loss, None, None
        if not self.args.predict_with_generate:
            return loss, outputs.logits if labels is not None else None, labels
        is_sharded = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self.model)
        gen_kwargs = gen_kwargs or getattr(self, "_gen_kwargs", {})
        gen_kwargs = {"synced_gpus": is_sharded} | gen_kwargs | ONE_SEQUENCE_EACH
        tokens = self.model.generate(**batch, encoder_outputs=encoder_outputs, **gen_kwargs)
        return loss, tokens, labels

    def _add_eval_losses(self, outputs: ModelOutput, batch: dict[str, torch.Tensor]) -> None:
        state, num_rows = self.accelerator.gradient_state, len(batch["labels"])
        num_own = num_rows
        if state.end_of_dataloader and state.remainder > 0:
            # With several processes the last batch is filled up with sentences that were already counted.
            num_own = state.remainder - num_rows * self.accelerator.process_index
        if 0 < num_own < num_rows:
            batch = {name: tensor[:num_own] for name, tensor in batch.items()}
            outputs = self.model(**batch)
        if num_own > 0:
            self._eval_losses.add(outputs, batch)

    def _score_translations(self, prediction: EvalPrediction) -> dict[str, float | str]:
        return score_translations(prediction, self.processing_class, self._references)

    def create_model_card(self, **details: Any) -> None:
        """Write README.md into `args.output_dir`.

        Args:
            **details: fields of `ModelCardDetails`, such as `source_lang`, `target_lang`, `dataset`, `license`.
        """
        if self.is_world_process_zero():
            write_model_card(self.args.output_dir, details_of_training(self, **details))
