"""The training loss of a CMLM: AXE or cross entropy over the canvas, plus the length head's loss.

Cross entropy, the baseline, is the path of AXE in which nothing is skipped. Its values are those of
`torch.nn.functional.cross_entropy`; what is saved are its three tensors of the logits' size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .alignment_axe import AxeOptions, AxeTargets
from .back_ends_axe import TORCH, with_gradient
from .configuration_cmlm import CmlmConfig
from .fused_loss_axe import (
    Projection,
    check_projection,
    is_fusing_worthwhile,
    is_plain_linear,
    linear_along_path,
    linear_path_loss,
)
from .loss_axe import (
    IGNORE_INDEX,
    check_derivatives,
    check_ids,
    check_options,
    checked_targets,
    is_readable,
    logits_path_loss,
    refuse,
)
from .path_axe import AxePath, PathLoss, gather_log_probs, smooth


@dataclass(frozen=True)
class CmlmLosses:
    """Loss of one batch and its parts; the fields are those of `CmlmSeq2SeqLMOutput`, nats."""

    loss: Tensor
    token_loss: Tensor
    length_loss: Tensor
    num_skipped_targets: Tensor | None = None
    num_skipped_predictions: Tensor | None = None


def CmlmForConditionalGenerationLoss(
    logits: Tensor | None,
    length_logits: Tensor | None,
    labels: Tensor,
    canvas: Tensor | None,
    config: CmlmConfig,
    num_items_in_batch: int | Tensor | None = None,
    hidden_states: Tensor | None = None,
    lm_head: Any = None,
    is_draft: bool = False,
) -> CmlmLosses:
    """(token loss + `length_loss_weight` * length loss, both summed) / number of labels.

    Dividing both by the number of labels is Mask-Predict's normalisation; it makes gradient
    accumulation and data parallelism exact when `num_items_in_batch` counts the labels of all of
    them.

    Args:
        logits: `(batch, canvas, vocab)`; None: the loss is made of `hidden_states` and `lm_head`.
        length_logits: `(batch, max_target_length + 1)`, fp32 or float64; None if
            `length_loss_weight` is 0.
        labels: `(batch, target)`, long; -100 at padding and, on a canvas of the same shape, at
            observed positions.
        canvas: `(batch, canvas)`, long, the decoder's input; None: every position is predicted. In
            another shape than the labels' what it shows is said for nothing with repetition or a
            temperature, and scored otherwise.
        config: The settings of the loss.
        num_items_in_batch: What to divide by. Default: the number of labels that are not -100.
        hidden_states: `(batch, canvas, hidden)`, what `lm_head` makes the logits of.
        lm_head: The output projection, of which weight and bias are read.
        is_draft: Whether what the canvas shows is a draft, that need not be right: `labels` then
            are whole, and every position is predicted and scored.
    """
    options = AxeOptions(
        *(config.blank_token_id, config.axe_delta, config.label_smoothing),
        *(config.allow_repetition, config.axe_temperature),
        with_alignment=False,
    )
    check_options(options, "sum", num_items_in_batch)
    if (length := labels.shape[1]) > (limit := config.max_target_length):
        problem = f"`labels` have {length} positions but `config.max_target_length` is {limit}"
        advice = "Truncate the targets, or train a model with a larger limit."
        raise ValueError(f"{problem}. {advice}")
    if is_readable(labels):
        message = "`labels` must hold -100 where there is no token, not <pad> ({labels} at {at})."
        refuse({message: labels == config.pad_token_id}, labels=labels)
    target, is_observed = whole_target(labels, None if is_draft else canvas, config)
    skips: dict[str, Tensor] = {}
    if config.training_loss == "axe":
        if logits is not None:
            check_derivatives(logits)
            shape, path_loss = logits.shape, partial(logits_path_loss, logits)
        else:
            check_projection(hidden_states, lm_head.weight, lm_head.bias)
            projection = Projection(hidden_states, lm_head.weight, lm_head.bias)
            shape, path_loss = projection.shape, partial(linear_path_loss, projection)
        what = (target, canvas, is_observed, is_draft)
        result = path_loss(_targets(shape, *what, config, options), options)
        token_loss = result.loss.sum()
        names = ("num_skipped_targets", "num_skipped_predictions")
        skips = {name: getattr(result.alignment, name) for name in names}
    elif logits is not None:
        token_loss = cross_entropy(logits, labels, config.label_smoothing)
    else:
        token_loss = linear_cross_entropy(
            *(hidden_states, lm_head.weight, labels),
            bias=lm_head.bias,
            label_smoothing=config.label_smoothing,
        )
    total, length_loss = token_loss, token_loss.new_zeros(())
    if config.length_loss_weight > 0:
        target_lengths = (target != IGNORE_INDEX).sum(dim=1)
        length_loss = length_nll(length_logits, target_lengths).sum()
        total = total + config.length_loss_weight * length_loss
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORE_INDEX).sum().clamp(min=1)
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return CmlmLosses(
        total / num_items_in_batch, token_loss.detach(), length_loss.detach(), **skips
    )


def _targets(
    shape: tuple[int, ...],
    target: Tensor,
    canvas: Tensor | None,
    is_observed: Tensor | None,
    is_draft: bool,
    config: CmlmConfig,
    options: AxeOptions,
) -> AxeTargets:
    """What AXE and its family read of target and canvas; `is_observed` is of `whole_target`."""
    if canvas is None:
        return checked_targets(shape, target, options, None, None)
    observed_tokens = None
    if (
        is_observed is None
        and not is_draft
        and (options.allow_repetition or options.temperature > 0)
    ):
        is_observed, observed_tokens = _is_token(canvas, config), canvas
    canvas_lengths = (canvas != config.pad_token_id).sum(dim=1)
    return checked_targets(shape, target, options, canvas_lengths, is_observed, observed_tokens)


def whole_target(
    labels: Tensor, canvas: Tensor | None, config: CmlmConfig
) -> tuple[Tensor, Tensor | None]:
    """The labels `(batch, target)` without the -100 of observed positions, and which these are.

    The second is `(batch, canvas)`, bool, or None where the canvas `(batch, canvas)` differs from
    the labels in shape, or is not given, so that no position shows the target of its number.
    """
    if canvas is None or canvas.shape != labels.shape:
        return labels, None
    is_observed = (labels == IGNORE_INDEX) & _is_token(canvas, config)
    return torch.where(is_observed, canvas, labels), is_observed


def _is_token(canvas: Tensor, config: CmlmConfig) -> Tensor:
    return (canvas != config.mask_token_id) & (canvas != config.pad_token_id)


def is_loss_fused(hidden_states: Tensor, lm_head: nn.Module, config: CmlmConfig) -> bool:
    """Whether `config.fused_loss` asks for the loss of `(batch, canvas, hidden)` without logits.

    An `lm_head` that is more than `nn.Linear` on the states' device (an adapter, quantized or
    sharded weights, a hook) has to be called: `"auto"` calls it, `"always"` raises ValueError.
    """
    if config.fused_loss == "never":
        return False
    is_plain = is_plain_linear(lm_head, hidden_states.device)
    if config.fused_loss == "auto":
        return is_plain and is_fusing_worthwhile(hidden_states, lm_head.weight)
    if not is_plain:
        found = f"{type(lm_head).__name__} and not a plain nn.Linear on {hidden_states.device}"
        problem = f'`config.fused_loss` is "always", but `lm_head` is {found} without hooks'
        advice = 'its weight alone does not make the logits. Set it to "auto" or "never".'
        raise ValueError(f"{problem}, so {advice}")
    return True


def length_nll(length_logits: Tensor | None, target_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of each sentence's length `(batch,)`, in nats.

    Raises ValueError where there are no `length_logits` `(batch, lengths)`, fp32 or float64.
    """
    if length_logits is None:
        problem = "`encoder_outputs` hold no `length_logits`, which the length loss needs"
        advice = "`model.get_encoder()` returns, or set `config.length_loss_weight = 0`."
        raise ValueError(f"{problem}. Pass what {advice}")
    # A fused loss would save nothing, these logits are small. Class 0: an empty target, no length.
    return F.cross_entropy(length_logits, target_lengths, reduction="none", ignore_index=0)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sums the cross entropy of every label at its own position.

    No float32 copy of the logits is made.

    Args:
        logits: `(batch, canvas, vocab)`, float; computed on in float32 (float64 stays).
        labels: `(batch, canvas)`, long; -100 where nothing is scored.
        label_smoothing: Share of the uniform distribution in the target distribution, in [0, 1).

    Returns:
        A scalar in nats, float32 or the logits' wider type.

    Raises:
        ValueError: Labels that are not in the vocabulary, or not one a position.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 3, 4), torch.tensor([[1, 2, -100]])).exp().round()
        tensor(16.)
    """
    check_derivatives(logits)
    _check(labels, logits.shape)
    if torch.compiler.is_compiling():  # compiled, it makes no copies either
        return F.cross_entropy(
            logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
            labels.flatten().long(),
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    options = AxeOptions(None, label_smoothing=label_smoothing)
    result = _own_position_path(logits, labels, options)
    return with_gradient(logits, result, options, TORCH).loss.sum()


def linear_cross_entropy(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`cross_entropy(F.linear(hidden_states, weight, bias), labels, ...)`, in less memory.

    Args:
        hidden_states, weight, bias: As in `linear_axe_loss`.
        labels, label_smoothing: As in `cross_entropy`.

    Example:
        >>> import torch
        >>> hidden_states, weight = torch.zeros(1, 2, 8), torch.randn(4, 8)
        >>> linear_cross_entropy(hidden_states, weight, torch.tensor([[1, 2]])).exp().round()
        tensor(16.)
    """
    if torch.compiler.is_compiling():
        return cross_entropy(F.linear(hidden_states, weight, bias), labels, label_smoothing)
    check_projection(hidden_states, weight, bias)
    _check(labels, (*hidden_states.shape[:2], len(weight)))
    options = AxeOptions(None, label_smoothing=label_smoothing)
    return linear_along_path(
        Projection(hidden_states, weight, bias),
        lambda logits, chunk: _own_position_path(logits, labels[chunk], options),
        options,
        TORCH,
        is_summed=True,
    ).loss


def _check(labels: Tensor, shape: tuple[int, ...]) -> None:
    batch, canvas, vocab = shape
    if labels.shape != (batch, canvas):
        got = f"`labels` are {tuple(labels.shape)}, the canvas is {(batch, canvas)}"
        advice = 'Give equal lengths or set `config.training_loss = "axe"`.'
        raise ValueError(f"Cross entropy needs one label a canvas position: {got}. {advice}")
    check_ids("labels", labels, vocab)


@torch.no_grad()
def _own_position_path(logits: Tensor, labels: Tensor, options: AxeOptions) -> PathLoss:
    is_scored = labels != IGNORE_INDEX
    tokens = labels.long().masked_fill(~is_scored, 0)
    with_mean = options.label_smoothing > 0
    log_probs, mean_log_probs = gather_log_probs(logits, tokens[:, :, None], with_mean)
    log_probs = log_probs[:, :, 0]
    # where, not a product with 0: a cost may be infinite
    cost = torch.where(is_scored, -log_probs, 0).sum(1)
    weight = is_scored.to(log_probs.dtype)
    position = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    path = AxePath(tokens, position, weight, log_probs, None, None, uses=weight)
    return PathLoss(smooth(cost, weight, mean_log_probs, options.label_smoothing), None, path)
