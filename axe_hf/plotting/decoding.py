"""The picture of a Mask-Predict decoding."""

import math
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from ..cmlm import MaskPredictOutput
from ..history import display_width, history_rows, readable_tokens
from .figure import TEXT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY, _DARK_GREY = "#e4e4e4", "#8a8a8a"


def plot_history(
    output: MaskPredictOutput,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sentence: int = 0,
    title: str | None = None,
) -> "Figure":
    """Draw how Mask-Predict filled one canvas: a row for each iteration, coloured by confidence.

    Grey cells hold what the next iteration masks and predicts again; tokens that `decoder_input_ids`
    gave stand in every row, coloured as sure.

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
    # Without the canvas at the start: the picture begins with what iteration 1 predicts.
    standing, log_probs = (rows[1:] for rows in history_rows(output, tokenizer, sentence))
    length = len(standing[0])
    rows = [
        readable_tokens(tokenizer, step[sentence, :length]) for step in output.history["tokens"]
    ]
    widths = [0.25 + 0.1 * max(map(display_width, column)) for column in zip(*rows, strict=True)]
    starts = [sum(widths[:j]) for j in range(length + 1)]  # inches
    figure = new_figure(max(starts[-1] + 1.9, 4.5), 1.2 + 0.36 * len(rows))
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
            axes.text(middle, t, token, ha="center", va="center", color=color, fontsize=9, **TEXT)
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
        figure.suptitle(title, **TEXT)
    return figure
