"""Pictures: an AXE alignment, a Mask-Predict decoding, loss curves. They need matplotlib.

Each function returns a `matplotlib.figure.Figure` that belongs to no window: save it by
`figure.savefig("name.png")`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from .cmlm import CmlmForConditionalGeneration, MaskPredictOutput, axe_loss
from .cmlm.loss_axe import IGNORE_INDEX
from .history import display_width, history_rows, readable_tokens
from .pipeline import in_evaluation_mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Costs from here on look alike: a probability of e^-8 is as good as none.
_MAX_COST = 8.0
_PATH, _BLANK, _REPEAT = "#d94801", "#238b45", "#fd8d3c"
_GREY, _DARK_GREY = "#e4e4e4", "#8a8a8a"
# Dollar signs are text here, not formulas.
_TEXT: dict[str, Any] = {"parse_math": False}


def plot_alignment(
    logits_or_model: torch.Tensor | CmlmForConditionalGeneration,
    labels: torch.Tensor | Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    input_ids: torch.Tensor | Sequence[int] | None = None,
    decoder_input_ids: torch.Tensor | Sequence[int] | None = None,
    delta: float | None = None,
    allow_repetition: bool | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw which prediction AXE trains to say which target token, by the best alignment.

    The heat map holds -log P of each target token (rows) and of the blank (last row, "ε") at each
    canvas position (columns, labelled by their most probable token); on it, the cheapest path.

    Args:
        logits_or_model: `(canvas, vocab)` float, the output for one sentence without its padding;
            or the model, which then predicts it without dropout.
        labels: `(target,)` long, the whole target; entries of -100 are left out.
        tokenizer: the tokenizer of the model; it knows the blank.
        input_ids: `(source,)` long, the source sentence; for a model only, which needs it.
        decoder_input_ids: `(canvas,)` long, the canvas; for a model only. Tokens in it are
            observed: they stand for the target's at their position. By default fully masked, as
            long as the target times the `length_multiplier` of `model.generation_config`.
        delta: price of skipping a target; with a model `model.config.axe_delta` by default.
        allow_repetition: whether several positions may say one token; with a model, by default,
            `model.config.allow_repetition`.
        title: above the picture.

    Raises:
        TypeError: neither logits nor a CMLM, or an argument that is missing or not for it.
        ValueError: shapes that are not those of one sentence, a tokenizer without a blank, or a
            canvas too short for the target, of which nothing may be skipped.

    Example:
        >>> import torch
        >>> from axe_hf import plot_alignment, train_tokenizer
        >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
        >>> logits, target = torch.zeros(3, len(tokenizer)), tokenizer("A dog").input_ids
        >>> plot_alignment(logits, target, tokenizer, delta=4.0).axes[0].get_ylabel()
        'target'
    """
    if getattr(tokenizer, "blank_token_id", None) is None:
        raise ValueError("`tokenizer` has no `blank_token_id`; use one made by train_tokenizer.")
    if not isinstance(logits_or_model, (torch.Tensor, CmlmForConditionalGeneration)):
        kind = type(logits_or_model).__name__
        raise TypeError(f"`logits_or_model` must be logits (canvas, vocab) or a CMLM, got {kind}.")
    labels = torch.as_tensor(labels, device=logits_or_model.device)
    labels = labels[labels != IGNORE_INDEX] if labels.dim() == 1 else labels
    logits: Any = logits_or_model
    is_observed = None
    if isinstance(logits_or_model, CmlmForConditionalGeneration):
        config = logits_or_model.config
        delta = config.axe_delta if delta is None else delta
        if allow_repetition is None:
            allow_repetition = config.allow_repetition
        logits, is_observed = _predict(logits_or_model, labels, input_ids, decoder_input_ids)
    elif input_ids is not None or decoder_input_ids is not None:
        raise TypeError("`input_ids` and `decoder_input_ids` are for a model; logits were given.")
    elif delta is None:
        raise TypeError("`delta` is missing: logits come without one. Pass model.config.axe_delta.")
    if logits.dim() != 2 or labels.dim() != 1 or not labels.numel():
        got = f"{tuple(logits.shape)} and {tuple(labels.shape)}. Of a batch: outputs.logits[0]."
        expected = "`logits_or_model` must be (canvas, vocab) and `labels` (target,)"
        raise ValueError(f"{expected}, got {got}")
    logits, options = logits.detach().float(), {"delta": delta, "observed_mask": is_observed}
    options |= {"blank_token_id": tokenizer.blank_token_id, "return_alignment": True}
    if allow_repetition:
        options["allow_repetition"] = True
    axe: Any = axe_loss(logits[None], labels[None], **options)
    if (axe.alignment.target_to_position < 0).any():
        problem = f"{len(labels)} target tokens find no place on {len(logits)} positions"
        raise ValueError(f"`logits_or_model`: {problem}. Take a longer canvas, or a finite delta.")
    return _draw_alignment(logits, labels, axe.alignment, tokenizer, title)


@torch.no_grad()
def _predict(model, labels, input_ids, decoder_input_ids) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (canvas, vocab) of a model and which canvas positions are observed (1, canvas)."""
    if input_ids is None:
        raise TypeError("`input_ids` are missing: pass the source, tokenizer(sentence).input_ids.")
    if labels.dim() != 1 or not labels.numel():
        raise ValueError(f"`labels` must be (target,) and hold a token, got {tuple(labels.shape)}.")
    if decoder_input_ids is None:
        multiplier = model.generation_config.length_multiplier
        canvas = model.prepare_decoder_input_ids_from_labels(labels[None], multiplier)[0]
    else:
        canvas = torch.as_tensor(decoder_input_ids, device=model.device)
    source = torch.as_tensor(input_ids, device=model.device)
    for name, tokens in (("input_ids", source), ("decoder_input_ids", canvas)):
        if tokens.dim() != 1 or not tokens.numel():
            got = tuple(tokens.shape)
            raise ValueError(f"`{name}` must be those of one sentence, and not empty, got {got}.")
    is_observed = canvas != model.config.mask_token_id
    is_aligned = canvas.shape == labels.shape and not (is_observed & (canvas != labels)).any()
    if is_observed.any() and not is_aligned:
        raise ValueError("`decoder_input_ids` may show tokens of the target at their places only.")
    inputs = {"input_ids": source[None], "decoder_input_ids": canvas[None]}
    logits = in_evaluation_mode(model)(**inputs).logits[0]
    return logits, is_observed[None]


def _draw_alignment(logits, labels, alignment, tokenizer, title) -> "Figure":
    rows = [*labels.tolist(), tokenizer.blank_token_id]
    costs = -logits.log_softmax(dim=1)[:, rows].T.cpu()  # (target + 1, canvas)
    num_rows, num_positions = costs.shape
    figure = _new_figure(max(2.6 + 0.42 * num_positions, 5.5), 1.9 + 0.32 * num_rows, title)
    axes = figure.add_subplot()
    image = axes.imshow(costs.numpy(), cmap="Blues_r", vmin=0, vmax=_MAX_COST, aspect="auto")
    axes.axhline(num_rows - 1.5, color="white", linewidth=3)
    positions = alignment.target_to_position[0].cpu().numpy()
    axes.plot(positions, range(num_rows - 1), color=_PATH, linewidth=1.5, alpha=0.8)
    is_said = alignment.is_aligned[0].cpu().numpy()
    said = alignment.position_to_target[0].cpu().numpy()  # (canvas,), -1 where nothing is
    blanks = (said < 0).nonzero()[0]
    again = ((said >= 0) & (positions[said] != range(num_positions))).nonzero()[0]
    marks = (
        ("align", positions[is_said], is_said.nonzero()[0], "o", _PATH),
        ("repeat", again, said[again], "D", _REPEAT),
        ("skip target", positions[~is_said], (~is_said).nonzero()[0], "X", "black"),
        ("skip prediction (should be blank)", blanks, [num_rows - 1] * len(blanks), "s", _BLANK),
    )
    look: dict[str, Any] = {"edgecolors": "white", "s": 45, "zorder": 3}
    for label, columns, heights, marker, color in marks:
        if len(columns):
            axes.scatter(columns, heights, label=label, marker=marker, color=color, **look)
    tokens = readable_tokens(tokenizer, logits.argmax(dim=1))
    predicted = [f"{token}  {j}" for j, token in enumerate(tokens, start=1)]
    axes.set_xticks(range(num_positions), predicted, rotation=90, **_TEXT)
    axes.set_yticks(range(num_rows), [*readable_tokens(tokenizer, labels), "ε (blank)"], **_TEXT)
    axes.set(xlabel="canvas position and its most probable token", ylabel="target")
    _finish(figure, axes, image, label="−log P (nats)", extend="max")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def plot_history(
    output: MaskPredictOutput,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sentence: int = 0,
    title: str | None = None,
) -> "Figure":
    """Draw how Mask-Predict filled one canvas: a row for each iteration, coloured by confidence.

    Grey cells hold what the next iteration masks and predicts again; tokens that
    `decoder_input_ids` gave stand in every row, coloured as sure.

    Args:
        output: what `generate(..., output_history=True, return_dict_in_generate=True)` returned.
        tokenizer, title: as in `plot_alignment`.
        sentence: which sentence of the batch.

    Raises:
        ValueError: `output` holds no history, or has no such sentence.

    Example:
        >>> import torch
        >>> from axe_hf import MaskPredictOutput, plot_history, train_tokenizer
        >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
        >>> tokens = torch.tensor([[tokenizer("A dog").input_ids]])  # (iterations, batch, canvas)
        >>> history = {"canvas": tokens * 0 + 3, "tokens": tokens, "log_probs": tokens * -0.01}
        >>> output = MaskPredictOutput(lengths=torch.tensor([tokens.shape[2]]), history=history)
        >>> plot_history(output, tokenizer).axes[0].get_ylabel()
        'iteration'
    """
    standing, log_probs = history_rows(output, tokenizer, sentence)
    length = len(standing[0])
    history: Any = output.history  # there is one, or `history_rows` would have said so
    rows = [readable_tokens(tokenizer, step[sentence, :length]) for step in history["tokens"]]
    widths = [0.25 + 0.1 * max(map(display_width, column)) for column in zip(*rows, strict=True)]
    starts = [sum(widths[:j]) for j in range(length + 1)]  # inches
    figure = _new_figure(max(starts[-1] + 1.9, 4.5), 1.2 + 0.36 * len(rows), title)
    axes = figure.add_subplot()
    from matplotlib.cm import ScalarMappable

    scale: Any = ScalarMappable(cmap="YlGn")
    scale.set_clim(0, 1)
    cell: dict[str, Any] = {"height": 1, "edgecolor": "white", "linewidth": 2}
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
    for t, row in enumerate(rows, start=1):  # without the canvas at the start
        for j, token in enumerate(row):
            probability, is_masked = math.exp(log_probs[t][j]), standing[t][j] == "_"
            face = _GREY if is_masked else scale.to_rgba(probability)
            color = _DARK_GREY if is_masked else "white" if probability > 0.6 else "black"
            axes.barh(t, widths[j], left=starts[j], color=face, **cell)
            axes.text(starts[j] + widths[j] / 2, t, token, color=color, **middle, **_TEXT)
    grey = "grey: masked and predicted again" if len(rows) > 1 else ""
    axes.set(xlim=(0, starts[-1]), ylim=(len(rows) + 0.5, 0.5), xticks=[])
    axes.set(xlabel=grey, ylabel="iteration", yticks=range(1, len(rows) + 1))
    _finish(figure, axes, scale, label="probability", ticks=[0, 0.5, 1])
    return figure


def plot_losses(
    log_histories: Mapping[str, Iterable[Mapping[str, Any]]], *, title: str | None = None
) -> "Figure":
    """Draw the losses of one or several training runs, and their BLEU where it was measured.

    Losses are thin in training and thick in evaluation.

    Args:
        log_histories: the name of each run and its `trainer.state.log_history`, or the same list
            as read from `trainer_state.json`.
        title: as in `plot_alignment`.

    Raises:
        TypeError, ValueError: `log_histories` is not a mapping, or holds no loss.

    Example:
        >>> from axe_hf import plot_losses
        >>> history = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.0}]
        >>> plot_losses({"AXE": history}).axes[0].get_xlabel()
        'step'
    """
    if not isinstance(log_histories, Mapping):
        kind = type(log_histories).__name__
        raise TypeError(f"`log_histories` must map names to log histories, got {kind}.")
    runs = {name: list(history) for name, history in log_histories.items()}
    keys = {key for run in runs.values() for entry in run for key in entry}
    if not keys & {"loss", "eval_loss"}:
        raise ValueError(f"`log_histories` of {list(runs)} hold no `loss` and no `eval_loss`.")
    panels = {"loss (nats per target token)": {"loss": ", training", "eval_loss": ", evaluation"}}
    if "eval_bleu" in keys:
        panels["BLEU"] = {"eval_bleu": ""}
    figure = _new_figure(5.2 * len(panels) + 0.6, 3.6, title)
    subplots = figure.subplots(1, len(panels), squeeze=False)[0]
    thick = {"linewidth": 2.2, "marker": "o", "markersize": 4}
    for axes, (label, curves) in zip(subplots, panels.items(), strict=True):
        for number, (name, run) in enumerate(runs.items()):
            for key, stage in curves.items():
                points = [(entry["step"], entry[key]) for entry in run if key in entry]
                if points:
                    look: dict[str, Any] = {"color": f"C{number}", "label": name + stage}
                    look |= {"linewidth": 1.0, "alpha": 0.5} if key == "loss" else thick
                    axes.plot(*zip(*points, strict=True), **look)
        axes.set(xlabel="step", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _new_figure(width: float, height: float, title: str | None) -> "Figure":
    """An empty figure of that size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = 'Pictures need matplotlib. Install it: python -m pip install "axe-hf[plot]".'
        raise ImportError(message) from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    if title:
        figure.suptitle(title, **_TEXT)
    return figure


def _finish(figure: "Figure", axes, colors, **bar: Any) -> None:
    """No frame, and a bar that explains the colours."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(colors, ax=axes, pad=0.02, **bar).outline.set_visible(False)
