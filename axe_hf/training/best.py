"""The checkpoints that evaluated best: which they are, those that stay, and when to stop."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from .checkpoints import checkpoints_in, flaw_of

logger = logging.get_logger(__name__)


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


def scores_of(log_history: Iterable[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """What each evaluation in the log of a run found of a metric, such as bleu, by step.

    >>> scores_of([{"step": 2, "loss": 1.5}, {"step": 2, "eval_bleu": 20.0}], "bleu")
    {2: 20.0}
    """
    name = f"eval_{metric.removeprefix('eval_')}"
    found = {logs["step"]: logs.get(name) for logs in log_history if name in logs}
    return {step: score for step, score in found.items() if isinstance(score, int | float)}


def is_best_high(metric: str) -> bool:
    """Whether more of a metric is better: a loss, an error or a rate is best where it is low.

    >>> is_best_high("bleu"), is_best_high("eval_loss"), is_best_high("repetition_rate")
    (True, False, False)
    """
    return not metric.endswith(("loss", "error", "rate"))


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


def choose_checkpoints(
    folders: Sequence[str | Path],
    *,
    best: int | None = None,
    last: int | None = None,
    metric: str = "bleu",
) -> dict[Path, float | None]:
    """Checkpoints to average: the best or the last of runs, or all.

    Args:
        folders: Folders of runs, which stand for all checkpoint-* in them that are whole, or of
            checkpoints.
        best (default None): Take so many that evaluated best by `metric`, the best first.
        last (default None): Take so many with the most steps, in their order.
        metric (default "bleu"): A number that evaluation found; see `is_best_high`.

    Returns:
        The chosen folders, with what `metric` says of each if `best` is asked, else None.

    Raises:
        ValueError: There are not so many, one was not evaluated, or one was given twice.
        FileNotFoundError: There is no such folder.

    Example:
        >>> from axe_hf.training import average_checkpoints, choose_checkpoints
        >>> five = choose_checkpoints(["runs/en-de"], best=5)  # doctest: +SKIP
        >>> model = average_checkpoints([*five], "runs/en-de-best5")  # doctest: +SKIP
    """
    if best is not None and last is not None:
        raise ValueError(f"Give either `best` or `last`, got {best} and {last}.")
    found = _whole_checkpoints(folders)
    for name, number in (("best", best), ("last", last)):
        if number is not None and not 1 <= number <= len(found):
            most = f"from 1 to {len(found)}, the number of checkpoints that are whole"
            raise ValueError(f"`{name}` must be {most}, got {number}.")
    if best is not None:
        scores = {path: _score_of(path, metric) for path in found}
        chosen = best_of(scores, best, is_best_high(metric))
        return {path: scores[path] for path in chosen}
    if last is not None:
        found = sorted(found, key=lambda path: _state_of(path)["global_step"])[-last:]
    return dict.fromkeys(found)


def _whole_checkpoints(folders: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder} with checkpoints.")
        inside = checkpoints_in(folder)
        flaws = {path: flaw_of(path) for path in inside.values()}
        found += [path for path, flaw in flaws.items() if flaw is None] if inside else [folder]
        for flaw in filter(None, flaws.values()):
            logger.warning(f"{flaw}. Passed over.")
    if len({path.resolve() for path in found}) < len(found):
        raise ValueError(f"A checkpoint was given twice in {', '.join(map(str, folders))}.")
    return found


def _score_of(checkpoint: Path, metric: str) -> float:
    """What the evaluation at a checkpoint found, or ValueError, which names what it has."""
    state = _state_of(checkpoint)
    step, log = state["global_step"], state["log_history"]
    if (score := scores_of(log, metric).get(step)) is not None:
        return score
    names = {name for logs in log if logs["step"] == step for name in logs}
    known = sorted(name.removeprefix("eval_") for name in names if name.startswith("eval_"))
    has = f"but has {', '.join(known)}" if known else "nor by anything else (see --eval-strategy)"
    raise ValueError(f"{checkpoint} was not evaluated by {metric!r} at its step, {has}.")


def _state_of(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / TRAINER_STATE_NAME
    if not file.is_file():
        raise ValueError(f"{checkpoint} holds no {TRAINER_STATE_NAME}, which says what it is of.")
    return json.loads(file.read_bytes())
