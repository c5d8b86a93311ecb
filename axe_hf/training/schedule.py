"""The learning rate of a run that ends by time."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .arguments import AxeTrainingArguments


def timed_factor(progress: float, step: int, warmup_steps: float, shape: str) -> float:
    """Share of the highest learning rate: up from 0 in a line, then down to 0 at the end.

    Args:
        progress: how much of the run is over, in steps or in time, whichever is more; 0 to 1.
        step: steps made.
        warmup_steps: length of the warm-up in steps, or below 1 as a share of the run.
        shape: of the way down, "linear" or "cosine".

    Returns:
        Between 0 and 1.

    Example:

    ```python
    >>> from axe_hf.training.schedule import timed_factor
    >>> [timed_factor(progress, 7, 0.2, "linear") for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]

    ```
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


def timed_schedule(
    optimizer: Optimizer,
    args: AxeTrainingArguments,
    num_training_steps: int,
    elapsed_minutes: Callable[[], float],
) -> LambdaLR:
    """A schedule over `args.train_minutes` or `num_training_steps`, whichever is over first."""

    def factor(step: int) -> float:
        progress = max(step / num_training_steps, elapsed_minutes() / args.train_minutes)
        return timed_factor(progress, step, args.warmup_steps, args.lr_scheduler_type.value)

    return LambdaLR(optimizer, factor)
