"""Pictures: an AXE alignment, a Mask-Predict decoding, loss curves. They need matplotlib (the extra `plot`).

Every function returns a `matplotlib.figure.Figure` that belongs to no window: save it by `figure.savefig("name.png")`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from .cmlm import MaskPredictOutput, axe_loss
from .history import display_width, history_rows, readable_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Costs from here on look alike: a probability of e^-8 is as good as none.
_MAX_COST = 8.0
_GREY, _DARK_GREY, _PATH, _BLANK_PATH = "#e4e4e4", "#8a8a8a", "#d94801", "#238b45"
# Dollar signs are text here, not formulas.
_TEXT = {"parse_math": False}


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Pictures need matplotlib. Install it: python -m pip install "axe-hf[plot]".'
        ) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def plot_alignment(
    logits: torch.Tensor,
    labels: torch.Tensor | Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    delta: float,
    title: str | None = None,
) -> "Figure":
    """Draw which prediction AXE trains to say which target token.

    The heat map holds -log P of each target token (rows) and of the blank (last row, "ε") at each
    canvas position (columns, labelled by the most probable token there). On top lies the cheapest path.

    Args:
        logits: (canvas, vocab) float, the model's output for one sentence without its padding.
        labels: (target,) long, the whole target; entries of -100 are left out.
        tokenizer: the tokenizer of the model; it knows the blank.
        delta: price of skipping a target, `model.config.axe_delta`.
        title: above the picture; none by default.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: shapes that are not those of one sentence, or a tokenizer without a blank.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import train_tokenizer
    >>> from axe_hf.plotting import plot_alignment
    >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
    >>> target = tokenizer("A dog barks.").input_ids
    >>> logits = torch.zeros(len(target), len(tokenizer))
    >>> plot_alignment(logits, target, tokenizer, delta=4.0).axes[0].get_xlabel()
    'canvas position and its most probable token'

    ```
    """
    labels = torch.as_tensor(labels, device=logits.device)
    labels = labels[labels != -100] if labels.dim() == 1 else labels
    if logits.dim() != 2 or labels.dim() != 1 or not labels.numel():
        raise ValueError(
            "`logits` must be (canvas, vocab) and `labels` (target,), those of one sentence, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}. Index the batch: outputs.logits[0]."
        )
    blank = getattr(tokenizer, "blank_token_id", None)
    if blank is None:
        raise ValueError("`tokenizer` has no `blank_token_id`; use one made by train_tokenizer.")
    logits = logits.detach().float()
    alignment = axe_loss(
        logits[None], labels[None], blank_token_id=blank, delta=delta, return_alignment=True
    ).alignment
    costs = -logits.log_softmax(dim=1)[:, [*labels.tolist(), blank]].T.cpu()  # (target + 1, canvas)
    num_rows, num_positions = costs.shape
    figure = _figure(max(2.6 + 0.42 * num_positions, 5.5), 1.9 + 0.32 * num_rows)
    axes = figure.add_subplot()
    image = axes.imshow(costs.numpy(), cmap="Blues_r", vmin=0, vmax=_MAX_COST, aspect="auto")
    axes.axhline(num_rows - 1.5, color="white", linewidth=3)
    _draw_path(axes, alignment, num_rows - 1)
    predicted = readable_tokens(tokenizer, logits.argmax(dim=1))
    predicted = [f"{token}  {j}" for j, token in enumerate(predicted, start=1)]
    axes.set_xticks(range(num_positions), predicted, rotation=90, **_TEXT)
    axes.set_yticks(range(num_rows), [*readable_tokens(tokenizer, labels), "ε (blank)"], **_TEXT)
    axes.set_xlabel("canvas position and its most probable token")
    axes.set_ylabel("target")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="−log P (nats)", extend="max", pad=0.02)
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    if title:
        figure.suptitle(title, **_TEXT)
    return figure


def _draw_path(axes, alignment, blank_row: int) -> None:
    positions = alignment.target_to_position[0].tolist()
    is_aligned = alignment.is_aligned[0].tolist()
    skipped_predictions = (alignment.position_to_target[0] < 0).nonzero()[:, 0].tolist()
    targets = list(range(len(positions)))
    axes.plot(positions, targets, color=_PATH, linewidth=1.5, alpha=0.8)
    marks = {
        "align": ([i for i in targets if is_aligned[i]], "o", _PATH),
        "skip target": ([i for i in targets if not is_aligned[i]], "X", "black"),
    }
    for label, (rows, marker, color) in marks.items():
        if rows:
            columns = [positions[i] for i in rows]
            _draw_marks(axes, columns, rows, marker=marker, color=color, label=label)
    if skipped_predictions:
        rows = [blank_row] * len(skipped_predictions)
        label = "skip prediction (should be blank)"
        _draw_marks(axes, skipped_predictions, rows, marker="s", color=_BLANK_PATH, label=label)


def _draw_marks(axes, columns, rows, *, marker, color, label) -> None:
    axes.scatter(
        columns, rows, marker=marker, color=color, label=label, s=45, edgecolors="white", zorder=3
    )


def plot_history(
    output: MaskPredictOutput,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sentence: int = 0,
    title: str | None = None,
) -> "Figure":
    """Draw how Mask-Predict filled one canvas: a row for each iteration, coloured by confidence.

    Grey cells hold what the next iteration masks and predicts again.

    Args:
        output: what `generate(..., output_history=True, return_dict_in_generate=True)` returned.
        tokenizer: the tokenizer of the model.
        sentence (default 0): which sentence of the batch.
        title: above the picture; none by default.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `output` holds no history, or has no such sentence.

    Example:

    ```python
    >>> import torch
    >>> from axe_hf import MaskPredictOutput, train_tokenizer
    >>> from axe_hf.plotting import plot_history
    >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
    >>> tokens = torch.tensor([[tokenizer("A dog barks.").input_ids]])  # (iterations, batch, canvas)
    >>> history = {"canvas": tokens * 0 + 3, "tokens": tokens, "log_probs": tokens * -0.01}
    >>> output = MaskPredictOutput(lengths=torch.tensor([tokens.shape[-1]]), history=history)
    >>> plot_history(output, tokenizer).axes[0].get_ylabel()
    'iteration'

    ```
    """
    standing, log_probs = history_rows(output, tokenizer, sentence)
    length = len(standing[0])
    rows = [
        readable_tokens(tokenizer, step[sentence, :length]) for step in output.history["tokens"]
    ]
    widths = [0.25 + 0.1 * max(map(display_width, column)) for column in zip(*rows, strict=True)]
    starts = [sum(widths[:j]) for j in range(length + 1)]  # inches
    figure = _figure(max(starts[-1] + 1.9, 4.5), 1.2 + 0.36 * len(rows))
    axes = figure.add_subplot()
    from matplotlib.cm import ScalarMappable

    scale = ScalarMappable(cmap="YlGn")
    scale.set_clim(0, 1)
    for t, row in enumerate(rows):
        for j, token in enumerate(row):
            probability = math.exp(log_probs[t][j])
            is_masked = standing[t][j] == "_"
            face = _GREY if is_masked else scale.to_rgba(probability)
            axes.barh(
                t, widths[j], left=starts[j], height=1, color=face, edgecolor="white", linewidth=2
            )
            color = _DARK_GREY if is_masked else "white" if probability > 0.6 else "black"
            middle = starts[j] + widths[j] / 2
            axes.text(middle, t, token, ha="center", va="center", color=color, fontsize=9, **_TEXT)
    axes.set_xlim(0, starts[-1])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), range(1, len(rows) + 1))
    axes.set_ylabel("iteration")
    axes.set_xlabel("grey: masked and predicted again" if len(rows) > 1 else "")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(scale, ax=axes, label="probability", pad=0.02, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    if title:
        figure.suptitle(title, **_TEXT)
    return figure


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
    figure = _figure(5.2 * len(panels) + 0.6, 3.6)
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
        figure.suptitle(title, **_TEXT)
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
