"""The picture of training runs."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .figure import TEXT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_losses(
    log_histories: Mapping[str, Iterable[Mapping[str, Any]]], *, title: str | None = None
) -> "Figure":
    """Draw the losses of one or several training runs, and their BLEU where it was measured.

    Args:
        log_histories: the name of each run and its `trainer.state.log_history`, or the same list as
            read from `trainer_state.json`.
        title: above the picture; none by default.

    Returns:
        A `matplotlib.figure.Figure`: losses by step, thin in training and thick in evaluation, and,
        beside it, BLEU by step if any run has it.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `log_histories` is not a mapping from names to lists.
        ValueError: there is no loss in it.

    Example:

    ```python
    >>> from axe_hf.plotting import plot_losses
    >>> history = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.0}, {"step": 20, "eval_loss": 4.2}]
    >>> len(plot_losses({"AXE": history}).axes[0].get_lines())
    2

    ```
    """
    if not isinstance(log_histories, Mapping):
        raise TypeError(
            "`log_histories` must map the name of each run to its log history, got "
            f'{type(log_histories).__name__}. Pass {{"AXE": trainer.state.log_history}}.'
        )
    runs = {name: list(history) for name, history in log_histories.items()}
    if not any("loss" in entry or "eval_loss" in entry for run in runs.values() for entry in run):
        raise ValueError(
            f"`log_histories` of {list(runs)} hold no `loss` and no `eval_loss`. Pass the lists of "
            "trainer.state.log_history after training."
        )
    panels = [("loss (nats per target token)", {"loss": 1.0, "eval_loss": 2.2})]
    if any("eval_bleu" in entry for run in runs.values() for entry in run):
        panels.append(("BLEU", {"eval_bleu": 2.2}))
    figure = new_figure(5.2 * len(panels) + 0.6, 3.6)
    for axes, (label, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        for number, (name, run) in enumerate(runs.items()):
            _draw_curves(axes, name, run, curves, f"C{number}")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title, **TEXT)
    return figure


def _draw_curves(axes, name: str, run: list, curves: dict[str, float], color: str) -> None:
    stages = {"loss": f"{name}, training", "eval_loss": f"{name}, evaluation", "eval_bleu": name}
    for key, line_width in curves.items():
        points = [(entry["step"], entry[key]) for entry in run if key in entry]
        if points:
            is_evaluation = key.startswith("eval")
            axes.plot(
                *zip(*points, strict=True),
                color=color,
                linewidth=line_width,
                alpha=1.0 if is_evaluation else 0.5,
                marker="o" if is_evaluation else None,
                markersize=4,
                label=stages[key],
            )
