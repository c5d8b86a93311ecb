"""Callbacks of `AxeTrainer`: its clock, its progress bar, and the moving average of the weights."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, ProgressCallback

EMA_STATE_NAME = "ema_state.safetensors"


class TrainingClock(TrainerCallback, ExportableState):
    """Measures the time spent training, evaluation and saving left out, and ends training when `train_minutes` are up.

    The time is part of the trainer's state: a resumed run goes on where the checkpoint was saved.
    """

    def __init__(self):
        self.elapsed_seconds = 0.0
        self._running_since: float | None = None
        self._lap_start = 0.0

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"elapsed_seconds": self.seconds()}}

    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        if self._running_since is None:
            return self.elapsed_seconds
        return self.elapsed_seconds + time.perf_counter() - self._running_since

    def lap(self) -> float:
        """Seconds of training since the last call, or since training began or was resumed."""
        start, self._lap_start = self._lap_start, self.seconds()
        return self._lap_start - start

    def _pause(self):
        self.elapsed_seconds = self.seconds()
        self._running_since = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._running_since = None
        self.elapsed_seconds = 0.0
        if state.global_step > 0:
            # Transformers saves the states of callbacks always, but restores them on request only.
            saved = state.stateful_callbacks.get(type(self).__name__, self.state())
            self.elapsed_seconds = saved["attributes"]["elapsed_seconds"]
        self._lap_start = self.elapsed_seconds

    def on_step_begin(self, args, state, control, **kwargs):
        if self._running_since is None:
            self._running_since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if args.train_minutes is not None and self.seconds() >= 60 * args.train_minutes:
            # As Transformers does at `max_steps`.
            control.should_training_stop = control.should_log = True
            control.should_evaluate |= args.eval_strategy == "steps"
            control.should_save |= args.save_strategy == "steps"
        if control.should_evaluate or control.should_save:
            self._pause()
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        self._pause()

    def on_train_end(self, args, state, control, **kwargs):
        self._pause()


class BudgetProgressCallback(ProgressCallback):
    """The usual progress bar for a run that ends by time: its length is estimated at each log."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None and args.train_minutes is not None:
            self.training_bar.total = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        minutes = (logs or {}).get("elapsed_minutes")
        if self.training_bar is not None and args.train_minutes is not None and minutes:
            steps = round(state.global_step * args.train_minutes / minutes)
            self.training_bar.total = min(max(steps, state.global_step), state.max_steps)
        super().on_log(args, state, control, logs=logs, **kwargs)


class EmaCallback(TrainerCallback):
    """Exponential moving average of the trained weights, in fp32.

    After step t (from 1) the average moves by 1 - d towards the weights, with d = min(decay, (1 + t) / (10 + t)): the
    short memory at the beginning lets go of the random start. `AxeTrainer` evaluates and saves the average; during the
    steps the model holds the trained weights, after training the average. Checkpoints keep both.

    Args:
        decay: between 0 and 1, for instance 0.999.

    Raises:
        ValueError: `decay` out of range.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf.training import EmaCallback
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = model.weight.data.fill_(0.0)
    >>> ema = EmaCallback(0.9)
    >>> ema.start(model)
    >>> _ = model.weight.data.fill_(1.0)
    >>> ema.update()
    >>> with ema.applied():
    ...     round(model.weight.item(), 3)  # 0 moved by 1 - 2/11 towards 1
    0.818

    ```
    """

    def __init__(self, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"`decay` must be between 0 and 1, got {decay}.")
        self.decay = decay
        self.num_updates = 0
        self.resume_from: str | Path | None = None
        self._weights: dict[str, nn.Parameter] = {}
        self._averages: list[torch.Tensor] = []

    def start(self, model: nn.Module) -> None:
        """Begin an average at the model's present weights."""
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = [p.detach().float().clone() for p in self._weights.values()]
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [p.detach() for p in self._weights.values()]
        if any(weight.dtype != torch.float32 for weight in weights):
            weights = [weight.float() for weight in weights]
        torch._foreach_lerp_(self._averages, weights, 1 - decay)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for weight, value in zip(self._weights.values(), values, strict=True):
            weight.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside this context; outside of training it does anyway."""
        kept = [p.detach().clone() for p in self._weights.values()]
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(kept)

    def save(self, directory: str | Path) -> None:
        """Write average, trained weights and the count of updates into a checkpoint."""
        tensors = {f"weights.{name}": p.detach() for name, p in self._weights.items()}
        averages = zip(self._weights, self._averages, strict=True)
        tensors |= {f"averages.{name}": average for name, average in averages}
        tensors["num_updates"] = torch.tensor(self.num_updates)
        save_file(tensors, Path(directory) / EMA_STATE_NAME)

    def load(self, model: nn.Module, directory: str | Path) -> None:
        """Take up what `save` wrote, the trained weights into the model.

        Raises:
            FileNotFoundError: the checkpoint holds no average.
        """
        path = Path(directory) / EMA_STATE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"`ema_decay` is set, but {directory} holds no {EMA_STATE_NAME}. Resume with the settings it was "
                "trained with, or start a new run from it as `model_name_or_path`."
            )
        self.start(model)
        tensors = load_file(path)
        self.num_updates = int(tensors["num_updates"])
        for name, average in zip(self._weights, self._averages, strict=True):
            average.copy_(tensors[f"averages.{name}"])
        self._write([tensors[f"weights.{name}"] for name in self._weights])

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if self.resume_from is not None:
            self.load(model, self.resume_from)
        else:
            self.start(model)

    def on_step_end(self, args, state, control, **kwargs):
        self.update()

    def on_train_end(self, args, state, control, **kwargs):
        # The best checkpoint, if it was loaded, holds averaged weights already.
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            self._write(self._averages)
        self._weights, self._averages = {}, []
