"""The picture of an AXE alignment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmForConditionalGeneration, axe_loss
from ..history import readable_tokens
from ..rescoring import evaluation_mode
from .figure import TEXT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Costs from here on look alike: a probability of e^-8 is as good as none.
_MAX_COST = 8.0
_PATH, _BLANK_PATH = "#d94801", "#238b45"


def plot_alignment(
    logits_or_model: torch.Tensor | CmlmForConditionalGeneration,
    labels: torch.Tensor | Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    input_ids: torch.Tensor | Sequence[int] | None = None,
    decoder_input_ids: torch.Tensor | Sequence[int] | None = None,
    delta: float | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw which prediction AXE trains to say which target token.

    The heat map holds -log P of each target token (rows) and of the blank (last row, "ε") at each
    canvas position (columns, labelled by the most probable token there). On top lies the cheapest path.

    Args:
        logits_or_model: (canvas, vocab) float, the model's output for one sentence without its padding; or the
            model, a `CmlmForConditionalGeneration`, which then predicts them without dropout.
        labels: (target,) long, the whole target; entries of -100 are left out.
        tokenizer: the tokenizer of the model; it knows the blank.
        input_ids: (source,) long, the source sentence; for a model only, which needs it.
        decoder_input_ids: (canvas,) long, the canvas; for a model only. Tokens in it are observed: they stand for
            the target's at their position. By default fully masked, as long as the target times the
            `length_multiplier` of `model.generation_config`.
        delta: price of skipping a target; needed with logits, `model.config.axe_delta` by default with a model.
        title: above the picture; none by default.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: neither logits nor a CMLM, or an argument that is missing or not for it.
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

    With a model: `plot_alignment(model, target, tokenizer, input_ids=tokenizer(source).input_ids)`.
    """
    blank = getattr(tokenizer, "blank_token_id", None)
    if blank is None:
        raise ValueError("`tokenizer` has no `blank_token_id`; use one made by train_tokenizer.")
    logits, labels, is_observed, delta = _one_sentence(
        logits_or_model, labels, input_ids, decoder_input_ids, delta
    )
    options = {"blank_token_id": blank, "delta": delta, "observed_mask": is_observed}
    logits = logits.detach().float()
    alignment = axe_loss(logits[None], labels[None], return_alignment=True, **options).alignment
    return _draw(logits, labels, alignment, tokenizer, blank, title)


def _one_sentence(logits_or_model, labels, input_ids, decoder_input_ids, delta) -> tuple:
    """Returns logits (canvas, vocab), labels (target,), observed (1, canvas) or None, and delta."""
    is_model = isinstance(logits_or_model, CmlmForConditionalGeneration)
    if not is_model and not isinstance(logits_or_model, torch.Tensor):
        raise TypeError(
            "`logits_or_model` must be logits (canvas, vocab) or a CmlmForConditionalGeneration, got "
            f"{type(logits_or_model).__name__}."
        )
    labels = torch.as_tensor(labels, device=logits_or_model.device)
    labels = labels[labels != -100] if labels.dim() == 1 else labels
    is_observed = None
    if is_model:
        if input_ids is None:
            raise TypeError(
                "`input_ids` are missing: a model needs the source, tokenizer(sentence).input_ids."
            )
        delta = logits_or_model.config.axe_delta if delta is None else delta
        if labels.dim() == 1 and labels.numel():
            logits, is_observed = _predict(logits_or_model, labels, input_ids, decoder_input_ids)
            return logits, labels, is_observed, delta
        raise ValueError(f"`labels` must be (target,) and hold a token, got {tuple(labels.shape)}.")
    if input_ids is not None or decoder_input_ids is not None:
        raise TypeError("`input_ids` and `decoder_input_ids` are for a model; logits were given.")
    if delta is None:
        raise TypeError("`delta` is missing: logits come without one. Pass model.config.axe_delta.")
    if logits_or_model.dim() != 2 or labels.dim() != 1 or not labels.numel():
        raise ValueError(
            "`logits_or_model` must be (canvas, vocab) and `labels` (target,), those of one sentence, got "
            f"{tuple(logits_or_model.shape)} and {tuple(labels.shape)}. Index the batch: outputs.logits[0]."
        )
    return logits_or_model, labels, None, delta


@torch.no_grad()
def _predict(model, labels, input_ids, decoder_input_ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits (canvas, vocab) of a model and which positions of the canvas are observed (1, canvas)."""
    if decoder_input_ids is None:
        multiplier = model.generation_config.length_multiplier
        canvas = model.prepare_decoder_input_ids_from_labels(labels[None], multiplier)[0]
    else:
        canvas = torch.as_tensor(decoder_input_ids, device=model.device)
    source = torch.as_tensor(input_ids, device=model.device)
    for name, tokens in (("input_ids", source), ("decoder_input_ids", canvas)):
        if tokens.dim() != 1 or not tokens.numel():
            raise ValueError(
                f"`{name}` must be those of one sentence, one-dimensional and not empty, got {tuple(tokens.shape)}."
            )
    is_observed = canvas != model.config.mask_token_id
    if is_observed.any() and (
        canvas.shape != labels.shape or not canvas[is_observed].equal(labels[is_observed])
    ):
        raise ValueError(
            "`decoder_input_ids` may show tokens of the target only, each at its own position: got a canvas of "
            f"{len(canvas)} positions, {int(is_observed.sum())} of them observed, for {len(labels)} labels."
        )
    with evaluation_mode(model):
        logits = model(input_ids=source[None], decoder_input_ids=canvas[None]).logits[0]
    return logits, is_observed[None]


def _draw(logits, labels, alignment, tokenizer, blank: int, title: str | None) -> "Figure":
    costs = -logits.log_softmax(dim=1)[:, [*labels.tolist(), blank]].T.cpu()  # (target + 1, canvas)
    num_rows, num_positions = costs.shape
    figure = new_figure(max(2.6 + 0.42 * num_positions, 5.5), 1.9 + 0.32 * num_rows)
    axes = figure.add_subplot()
    image = axes.imshow(costs.numpy(), cmap="Blues_r", vmin=0, vmax=_MAX_COST, aspect="auto")
    axes.axhline(num_rows - 1.5, color="white", linewidth=3)
    _draw_path(axes, alignment, num_rows - 1)
    predicted = readable_tokens(tokenizer, logits.argmax(dim=1))
    predicted = [f"{token}  {j}" for j, token in enumerate(predicted, start=1)]
    axes.set_xticks(range(num_positions), predicted, rotation=90, **TEXT)
    axes.set_yticks(range(num_rows), [*readable_tokens(tokenizer, labels), "ε (blank)"], **TEXT)
    axes.set_xlabel("canvas position and its most probable token")
    axes.set_ylabel("target")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="−log P (nats)", extend="max", pad=0.02)
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    if title:
        figure.suptitle(title, **TEXT)
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
