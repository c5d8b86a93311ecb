"""Cross entropy of every label at its own position, the baseline: the path of AXE in which nothing is skipped.

The values are those of `torch.nn.functional.cross_entropy`; what is saved are its three tensors of the logits' size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .autograd_axe import AlongPath
from .input_checks_axe import check_derivatives, check_labels, check_projection
from .linear_path_axe import linear_along_path
from .path_axe import AxePath, gather_log_probs, smooth


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sums the cross entropy of all labels; no float32 copy of the logits is made.

    Args:
        logits: `(batch, canvas, vocab)`, float; computed on in float32 (float64 stays).
        labels: `(batch, canvas)`, long; -100 where nothing is scored.
        label_smoothing: Share of the uniform distribution in the target distribution, in [0, 1). Default 0.

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
    _check(labels, *logits.shape, logits.device)
    if torch.compiler.is_compiling():  # compiled, it makes no copies either
        return F.cross_entropy(
            logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
            labels.flatten().long(),
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    loss, path = _own_position_path(logits, labels, label_smoothing)
    if torch.is_grad_enabled() and logits.requires_grad:
        loss = AlongPath.apply(logits, loss, (None, label_smoothing, False), AxePath, *path)
    return loss.sum()


def linear_cross_entropy(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The same as `cross_entropy(F.linear(hidden_states, weight, bias), labels, ...)`, without those logits.

    Args:
        hidden_states: `(batch, canvas, hidden)`, float.
        weight: `(vocab, hidden)`, float: the output embedding.
        labels: `(batch, canvas)`, long; -100 where nothing is scored.
        bias: `(vocab,)`, float. Default: none.
        label_smoothing: In [0, 1). Default 0.

    Returns:
        A scalar in nats, float32 or the logits' wider type.

    Raises:
        ValueError: Labels that are not in the vocabulary, or not one a position.

    Example:
        >>> import torch
        >>> hidden_states, weight = torch.zeros(1, 2, 8), torch.randn(4, 8)
        >>> linear_cross_entropy(hidden_states, weight, torch.tensor([[1, 2]])).exp().round()
        tensor(16.)
    """
    if torch.compiler.is_compiling():
        return cross_entropy(F.linear(hidden_states, weight, bias), labels, label_smoothing)
    check_projection(hidden_states, weight, bias)
    check_derivatives(hidden_states, weight, bias)
    _check(labels, *hidden_states.shape[:2], len(weight), hidden_states.device)

    def align(logits, chunk):
        loss, path = _own_position_path(logits, labels[chunk], label_smoothing)
        return loss, (), path

    (loss,) = linear_along_path(
        hidden_states, weight, bias, align, None, label_smoothing, is_summed=True
    )
    return loss


def _check(labels: Tensor, batch: int, canvas: int, vocab: int, device: torch.device) -> None:
    if labels.shape != (batch, canvas):
        raise ValueError(
            f"Cross entropy needs one label a canvas position: `labels` are {tuple(labels.shape)}, the canvas is "
            f'{(batch, canvas)}. Give equal lengths or set `config.training_loss = "axe"`.'
        )
    check_labels(labels, vocab, device)


@torch.no_grad()
def _own_position_path(
    logits: Tensor, labels: Tensor, label_smoothing: float
) -> tuple[Tensor, AxePath]:
    """Returns the loss per sentence `(batch,)` and the path, neither with a gradient."""
    is_scored = labels != -100
    tokens = labels.long().masked_fill(~is_scored, 0)
    log_probs, mean_log_probs = gather_log_probs(logits, tokens[:, :, None], label_smoothing > 0)
    log_probs = log_probs[:, :, 0]
    # where, not a product with 0: a cost may be infinite
    cost = torch.where(is_scored, -log_probs, 0).sum(1)
    weight = is_scored.to(log_probs.dtype)
    position = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    path = AxePath(tokens, position, weight, log_probs, None, None, uses=weight)
    return smooth(cost, weight, mean_log_probs, label_smoothing), path
