"""The two halves of the AXE loss on a GPU: the loss in two launches, its gradient in one.

    logits ──statistics──> log-probabilities ──alignment──> loss, alignment, path
    logits, path ──gradient──> gradient by the logits

Nothing here makes the host wait for the device. `targets` and `options` are the `AxeTargets` and
`AxeOptions` of `axe_hf.cmlm`, which the kernels do not import.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

# A constant, as torch.compile cannot look into the search for a module.
HAS_TRITON = importlib.util.find_spec("triton") is not None


class TritonPath(NamedTuple):
    """What the gradient kernel needs to know of the path."""

    tokens: Tensor  # (batch, target) long: the target tokens, the blank at padding
    target_to_position: Tensor  # (batch, target) long: where it is aligned or skipped; -1: padding
    token_weight: Tensor  # (batch, target): 1 if aligned, delta if skipped, 0 if not scored
    token_log_prob: Tensor  # (batch, target): log P_position(token)
    is_blank: Tensor  # (batch, canvas) bool: True where the label is the blank
    blank_log_prob: Tensor  # (batch, canvas): log P_j(blank)
    row_max: Tensor  # (batch, canvas): the largest logit of the position
    row_log_sum: Tensor  # (batch, canvas): the logarithm of the sum of exp(logit - row_max)


def is_triton_available() -> bool:
    """Returns whether Triton is installed, without importing it."""
    return HAS_TRITON


@torch.no_grad()
def axe_along_path(
    logits: Tensor, targets, options
) -> tuple[Tensor, dict[str, Tensor], TritonPath]:
    """Returns the loss per sentence, the fields of `AxeAlignment` by name, and the path."""
    _require_triton()
    from .alignment import align
    from .statistics import row_statistics

    parts = vars(targets).items()
    parts = {name: None if part is None else part.contiguous() for name, part in parts}
    targets = type(targets)(**parts)
    statistics = row_statistics(logits.detach(), targets, options)
    aligned = align(statistics, targets, options)
    path = TritonPath(
        tokens=targets.tokens,
        target_to_position=aligned.alignment["target_to_position"],
        token_weight=aligned.token_weight,
        token_log_prob=aligned.token_log_prob,
        is_blank=aligned.is_blank,
        blank_log_prob=statistics.blank_log_prob,
        row_max=statistics.row_max,
        row_log_sum=statistics.row_log_sum,
    )
    return aligned.loss, aligned.alignment, path


@torch.no_grad()
def align_log_probs(
    token_log_probs: Tensor, blank_log_prob: Tensor, targets, delta: float
) -> dict[str, Tensor]:
    """Returns the fields of `AxeAlignment` by name: the alignment alone, as `align_axe` finds it.

    Args:
        token_log_probs: `(batch, target, canvas)`, float. `log P_j(Y_i)`.
        blank_log_prob: `(batch, canvas)`, float. `log P_j(blank)`.
        targets: `AxeTargets`; the tokens are not read.
        delta: Factor on the cost of a skipped target.
    """
    _require_triton()
    from .alignment import align
    from .statistics import RowStatistics

    log_probs = (token_log_probs.contiguous(), blank_log_prob.contiguous())
    options = SimpleNamespace(delta=delta, label_smoothing=0.0)
    return align(RowStatistics(*log_probs, None, None, None), targets, options).alignment


@torch.no_grad()
def path_gradient(
    logits: Tensor, path: TritonPath, grad_loss: Tensor, options, inplace: bool
) -> Tensor:
    """As `axe_hf.cmlm.path_axe.path_gradient`, for the path of `axe_along_path`."""
    _require_triton()
    from .gradient import write_gradient

    return write_gradient(logits.detach(), path, grad_loss, options, inplace)


def _require_triton() -> None:
    if not is_triton_available():
        raise ImportError(
            "The Triton kernels of axe_hf were asked for, but Triton is not installed. Run "
            "`pip install triton` (Linux), or leave the choice to implementation='auto'."
        )
