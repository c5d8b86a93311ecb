"""The checkpoints that evaluated best: which they are, those that stay, and when to stop."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback
from transformers.trainer import TRAINER_STATE_NAME


class EarlyStopping(EarlyStoppingCallback):
    """Transformers', whose count goes on in a resumed run; an evaluation after it does not count.

    Example:
        >>> from axe_hf.training.best import EarlyStopping
        >>> EarlyStopping(early_stopping_patience=3).early_stopping_patience_counter
        0
    """

    is_training = False

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        # Transformers saves the states of callbacks always, but restores them on request only.
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        attributes = saved["attributes"] if isinstance(saved, dict) else {}
        count = attributes.get("early_stopping_patience_counter", 0)
        self.is_training, self.early_stopping_patience_counter = True, count
        control.should_training_stop |= count >= self.early_stopping_patience

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if self.is_training:
            super().on_evaluate(args, state, control, metrics, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        self.is_training = False


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """The checkpoints that a run left in its folder, by step, the first one first."""
    found = Path(folder).glob("checkpoint-*")
    numbered = {int(n): path for path in found if (n := path.name.partition("-")[2]).isdecimal()}
    return dict(sorted(numbered.items()))


def scores_of(log_history: Iterable[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """What each evaluation in the log of a run found of a metric, such as bleu, by step.

    >>> scores_of([{"step": 2, "loss": 1.5}, {"step": 2, "eval_bleu": 20.0}], "bleu")
    {2: 20.0}
    """
    name = f"eval_{metric.removeprefix('eval_')}"
    return {logs["step"]: logs[name] for logs in log_history if name in logs}


def score_of(checkpoint: str | Path, metric: str) -> float:
    """What the evaluation at a checkpoint found, or ValueError, which names what it has."""
    state = _state_of(checkpoint)
    step, log = state["global_step"], state["log_history"]
    if (score := scores_of(log, metric).get(step)) is not None:
        return score
    names = {name for logs in log if logs["step"] == step for name in logs}
    known = sorted(name.removeprefix("eval_") for name in names if name.startswith("eval_"))
    has = f"but has {', '.join(known)}" if known else "nor by anything else (see --eval-strategy)"
    raise ValueError(f"{checkpoint} was not evaluated by {metric!r} at its step, {has}.")


def step_of(checkpoint: str | Path) -> int:
    """After how many steps a checkpoint was saved."""
    return _state_of(checkpoint)["global_step"]


def _state_of(checkpoint: str | Path) -> dict[str, Any]:
    file = Path(checkpoint) / TRAINER_STATE_NAME
    if not file.is_file():
        raise ValueError(f"{checkpoint} holds no {TRAINER_STATE_NAME}, which says what it is of.")
    return json.loads(file.read_bytes())


def is_greater_better(metric: str) -> bool:
    """Whether a metric is a score, by its name: as Transformers decides, a loss alone is not."""
    return not metric.endswith("loss")


def best_of(scores: Mapping[Any, float], number: int, greater_is_better: bool) -> list[Any]:
    """The keys of the best `number` scores, the best first; of equals the earlier, NaN last.

    >>> best_of({10: 1.5, 20: 3.0, 30: 3.0, 40: float("nan")}, 2, greater_is_better=True)
    [20, 30]
    """
    sign = -1 if greater_is_better else 1
    costs = {key: math.inf if math.isnan(s) else sign * s for key, s in scores.items()}
    return sorted(costs, key=lambda key: costs[key])[:number]


def best_checkpoints(folder: str | Path, scores: Mapping[int, float], args: Any) -> list[Path]:
    """Those of a run's checkpoints that `args.keep_best` means, the best first."""
    found = checkpoints_in(folder)
    scored = {step: score for step, score in scores.items() if step in found}
    best = best_of(scored, args.keep_best, args.greater_is_better)
    return [found[step] for step in best]


def remove_others(folder: str | Path, kept: Iterable[Path]) -> None:
    """Delete all checkpoints of a run but these."""
    for path in set(checkpoints_in(folder).values()) - {*kept}:
        shutil.rmtree(path, ignore_errors=True)
