"""Training by the clock: a budget of time, a progress bar and a schedule that follow it."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, ProgressCallback

from .arguments import AxeTrainingArguments


class TrainingClock(TrainerCallback, ExportableState):
    """Ends training after `train_minutes`, less evaluation and saving; a resumed run goes on.

    Several processes go by what the clock of the first of them said at the end of the last step:
    by clocks of their own they would learn at different rates, and not end together.
    """

    def __init__(self) -> None:
        self.elapsed_seconds = self._lap_start = 0.0
        self._running_since: float | None = None
        self._of_first: float | None = None

    def state(self) -> dict:
        return {"args": {}, "attributes": {"elapsed_seconds": self._own_seconds()}}

    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included; in all processes the same."""
        return self._own_seconds() if self._of_first is None else self._of_first

    def _own_seconds(self) -> float:
        if self._running_since is None:
            return self.elapsed_seconds
        return self.elapsed_seconds + time.perf_counter() - self._running_since

    def lap(self) -> float:
        """Seconds of training since the last call, or since training began or was resumed."""
        start, self._lap_start = self._lap_start, self._own_seconds()
        return self._lap_start - start

    def _pause(self, *args: Any, **kwargs: Any) -> None:
        self.elapsed_seconds, self._running_since = self._own_seconds(), None

    on_epoch_end = on_train_end = _pause

    def on_train_begin(self, args, state, control, **kwargs):
        self._running_since = self._of_first = None
        self.elapsed_seconds = 0.0
        if state.global_step > 0:
            # Transformers saves the states of callbacks always, but restores them on request only.
            saved = state.stateful_callbacks.get(type(self).__name__, self.state())
            self.elapsed_seconds = saved["attributes"]["elapsed_seconds"]
        self._lap_start = self.elapsed_seconds
        if args.world_size > 1 and args.train_minutes is not None:
            self._of_first = self.elapsed_seconds

    def on_step_begin(self, args, state, control, **kwargs):
        if self._running_since is None:
            self._running_since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if self._of_first is not None:
            told = torch.tensor(self._own_seconds(), device=args.device)
            torch.distributed.broadcast(told, src=0)
            self._of_first = told.item()
        if args.train_minutes is not None and self.seconds() >= 60 * args.train_minutes:
            control.should_training_stop = control.should_log = True  # as at `max_steps`
            control.should_evaluate |= args.eval_strategy == "steps"
            control.should_save |= args.save_strategy == "steps"
        if control.should_evaluate or control.should_save:
            self._pause()


class BudgetProgressCallback(ProgressCallback):
    """The usual progress bar for a run that ends by time: each log estimates its length anew."""

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


def timed_schedule(
    optimizer: Optimizer,
    args: AxeTrainingArguments,
    num_training_steps: int,
    elapsed_minutes: Callable[[], float],
) -> LambdaLR:
    """A schedule over `args.train_minutes` or `num_training_steps`, whichever is over first."""

    def factor(step: int) -> float:
        progress = progress_of_run(args, step, num_training_steps, elapsed_minutes())
        return timed_factor(progress, step, args.warmup_steps, args.lr_scheduler_type.value)

    return LambdaLR(optimizer, factor)


def progress_of_run(
    args: AxeTrainingArguments, step: int, num_training_steps: int, minutes: float
) -> float:
    """Share of a run that is done, from 0 to 1, by its steps or its budget of time."""
    return max(step / num_training_steps, minutes / (args.train_minutes or math.inf))


def timed_factor(progress: float, step: int, warmup_steps: float, shape: str) -> float:
    """Share of the highest learning rate: up from 0 in a line, then down, `shape`, to 0.

    `progress` goes from 0 to 1; `warmup_steps` below 1 are a share of the run.
    """
    progress = min(progress, 1.0)
    if warmup_steps >= 1:
        warmed, start = step / warmup_steps, 0.0
    else:
        warmed, start = progress / warmup_steps if warmup_steps > 0 else 1.0, warmup_steps
    remaining = min((1 - progress) / (1 - start), 1.0)
    if shape == "cosine":
        remaining = (1 - math.cos(math.pi * remaining)) / 2
    return min(warmed, 1.0) * remaining
