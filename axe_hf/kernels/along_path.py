"""The two halves of the AXE loss on a GPU: the loss along the best path in two launches, its gradient in one.

    logits ──statistics──> log-probabilities of the targets and the blank ──alignment──> loss, alignment, path
    logits, path ──gradient──> gradient by the logits

Nothing here makes the host wait for the device.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor

# A constant, as torch.compile cannot look into the search for a module.
HAS_TRITON = importlib.util.find_spec("triton") is not None


class TritonPath(NamedTuple):
    """What the gradient kernel needs to know of the path; the batch comes first in every tensor.

    Args:
        tokens: `(batch, target)`, long. The target tokens, the blank at padding.
        target_to_position: `(batch, target)`, long. Where a token is aligned or skipped; -1 at padding.
        token_weight: `(batch, target)`, float. 1 if aligned, delta if skipped, 0 if not scored.
        token_log_prob: `(batch, target)`, float. `log P_position(token)`.
        is_blank: `(batch, canvas)`, bool. True where the label is the blank.
        blank_log_prob: `(batch, canvas)`, float. `log P_j(blank)`.
        row_max: `(batch, canvas)`, float. The largest logit of the position.
        row_log_sum: `(batch, canvas)`, float. The logarithm of the sum of `exp(logit - row_max)`.
    """

    tokens: Tensor
    target_to_position: Tensor
    token_weight: Tensor
    token_log_prob: Tensor
    is_blank: Tensor
    blank_log_prob: Tensor
    row_max: Tensor
    row_log_sum: Tensor


def is_triton_available() -> bool:
    """Returns whether Triton is installed, without importing it."""
    return HAS_TRITON


@torch.no_grad()
def axe_along_path(
    logits: Tensor,
    tokens: Tensor,
    target_lengths: Tensor,
    canvas_lengths: Tensor | None,
    observed_mask: Tensor | None,
    blank_token_id: int,
    delta: float,
    label_smoothing: float,
) -> tuple[Tensor, tuple[Tensor, ...], TritonPath]:
    """Aligns and returns the loss per sentence, the fields of `AxeAlignment` in their order, and the path.

    Args:
        logits: `(batch, canvas, vocab)`, float.
        tokens: `(batch, target)`, long. The target tokens, the blank at padding.
        target_lengths: `(batch,)`, long.
        canvas_lengths: `(batch,)`, long, or None for the whole canvas.
        observed_mask: `(batch, canvas)`, bool, or None for none.
        blank_token_id: Id of the blank.
        delta: Factor on the cost of a skipped target.
        label_smoothing: Share of the uniform distribution in the target distribution.

    Returns:
        The loss `(batch,)`; target_to_position, is_aligned, position_to_target, num_skipped_targets,
        num_skipped_predictions and cost; a `TritonPath`. None carries a gradient.

    Raises:
        ImportError: Without Triton.
    """
    _require_triton()
    from .alignment import align
    from .statistics import row_statistics

    logits, tokens = logits.detach(), tokens.contiguous()
    target_lengths = target_lengths.contiguous()
    if canvas_lengths is not None:
        canvas_lengths = canvas_lengths.contiguous()
    if observed_mask is not None:
        observed_mask = observed_mask.contiguous()
    statistics = row_statistics(
        logits, tokens, target_lengths, canvas_lengths, blank_token_id, label_smoothing > 0
    )
    lengths = (target_lengths, canvas_lengths, observed_mask)
    loss, alignment, labels = align(statistics, *lengths, delta, label_smoothing)
    token_weight, token_log_prob, is_blank = labels
    path = TritonPath(
        tokens,
        alignment[0],
        token_weight,
        token_log_prob,
        is_blank,
        statistics.blank_log_prob,
        statistics.row_max,
        statistics.row_log_sum,
    )
    return loss, alignment, path


@torch.no_grad()
def align_log_probs(
    token_log_probs: Tensor,
    blank_log_prob: Tensor,
    target_lengths: Tensor,
    canvas_lengths: Tensor | None,
    observed_mask: Tensor | None,
    delta: float,
) -> tuple[Tensor, ...]:
    """Returns the fields of `AxeAlignment` in their order: the alignment alone, as `align_axe` finds it.

    Args:
        token_log_probs: `(batch, target, canvas)`, float. `log P_j(Y_i)`.
        blank_log_prob: `(batch, canvas)`, float. `log P_j(blank)`.
        target_lengths: `(batch,)`, long.
        canvas_lengths: `(batch,)`, long, or None for the whole canvas.
        observed_mask: `(batch, canvas)`, bool, or None for none.
        delta: Factor on the cost of a skipped target.

    Raises:
        ImportError: Without Triton.
    """
    _require_triton()
    from .alignment import align
    from .statistics import RowStatistics

    statistics = RowStatistics(
        token_log_probs.contiguous(), blank_log_prob.contiguous(), None, None, None
    )
    return align(statistics, target_lengths, canvas_lengths, observed_mask, delta, 0.0)[1]


@torch.no_grad()
def path_gradient(
    logits: Tensor,
    path: TritonPath,
    grad_loss: Tensor,
    blank_token_id: int,
    label_smoothing: float,
    inplace: bool,
) -> Tensor:
    """Returns the gradient by the logits of a loss along a path, in the logits' dtype.

    Args:
        logits: `(batch, canvas, vocab)`.
        path: As `axe_along_path` returned it.
        grad_loss: `(batch,)`. Gradient by the loss of each sentence.
        blank_token_id: Id of the blank.
        label_smoothing: As in the forward pass.
        inplace: Write the gradient over the logits.

    Raises:
        ImportError: Without Triton.
    """
    _require_triton()
    from .gradient import write_gradient

    return write_gradient(
        logits.detach(), path, grad_loss, blank_token_id, label_smoothing, inplace
    )


def _require_triton() -> None:
    if not is_triton_available():
        raise ImportError(
            "The Triton kernels of axe_hf were asked for, but Triton is not installed. Run `pip install triton` "
            "(Linux), or leave the choice to implementation='auto'."
        )
