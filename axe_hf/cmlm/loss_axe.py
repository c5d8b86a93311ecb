"""Aligned Cross Entropy (AXE): cross entropy for models that predict all tokens at once and may shift them.

Source: Ghazvininejad et al., Aligned Cross Entropy for Non-Autoregressive Machine Translation, ICML 2020.
The alignment is in `alignment_axe.py`, the recursion as the paper writes it in `definition_axe.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .alignment_axe import AxeAlignment
from .autograd_axe import AlongPath
from .back_end_axe import along_path
from .compiled_axe import compiled_axe_along_path
from .input_checks_axe import (
    check_derivatives,
    check_implementation,
    check_log_probs,
    check_logits,
    check_options,
    check_tensors,
)

IGNORE_INDEX = -100


@dataclass(frozen=True)
class AxeOutput:
    """What `axe_loss` returns with `return_alignment=True`.

    Args:
        loss: The reduced loss, or `(batch,)` with `reduction="none"`; nats.
        alignment: The alignment it was computed along, without gradient.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]])  # says 1, then 2
        >>> options = {"blank_token_id": 2, "delta": 4.0, "return_alignment": True}
        >>> output = axe_loss(logits, torch.tensor([[1]]), **options)
        >>> output.alignment.target_to_position, output.alignment.num_skipped_predictions
        (tensor([[0]]), tensor([1]))
    """

    loss: Tensor
    alignment: AxeAlignment


def axe_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    blank_token_id: int,
    delta: float,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    num_items_in_batch: int | Tensor | None = None,
    return_alignment: bool = False,
    inplace_backward: bool = False,
    implementation: str = "auto",
) -> Tensor | AxeOutput:
    """Cross entropy along the cheapest monotonic alignment of predictions and target tokens.

    A prediction either says a target token (align) or should say blank (skip prediction); a target token that no
    prediction says costs `delta * -log P_j(token)` at the position it is skipped at (skip target). The alignment
    is held fixed in the gradient. With label smoothing `s` each use of position j costs
    `(1 - s) * -log P_j(token) + s * mean over the vocabulary of -log P_j`; the path is chosen without it.

    Args:
        logits: `(batch, canvas, vocab)`, float; computed on in float32 (float64 stays), without a copy of them.
        labels: `(batch, target)`, long: the whole target of each sentence, `</s>` included; -100 behind its end.
        blank_token_id: Id of the blank, a symbol of its own that is never a label.
        delta: Price of skipping a target, at least 0. With 1 or less a model can collapse to blanks.
        canvas_lengths: `(batch,)`, long. Number of predictions per sentence. Default: the whole canvas.
        observed_mask: `(batch, canvas)`, bool. True where the canvas already shows target number j at position j;
            such a pair adds nothing and splits the alignment. Sentences that have one need as many targets as
            positions. Default: none.
        label_smoothing: In [0, 1). Default 0.
        reduction: `"mean"` divides the sum by the number of targets scored (not observed, not padding; at
            least 1) or by `num_items_in_batch`; `"sum"`; `"none"` gives `(batch,)`.
        num_items_in_batch: Divisor of `"mean"`, int or scalar tensor: number of targets in all micro-batches.
        return_alignment: Return `AxeOutput(loss, alignment)` in place of the loss.
        inplace_backward: Write the gradient over the logits, which saves a tensor of their size. The logits must
            not be a leaf and nothing else may need them, neither a backward pass nor the caller afterwards.
        implementation: `"torch"`; `"triton"`, kernels for a GPU with the same values; or `"auto"`, the kernels for
            logits on a GPU where Triton is installed, else PyTorch.

    Returns:
        The loss in nats, float32 or the logits' wider type; or `AxeOutput`.

    Raises:
        ValueError: On values or shapes that do not fit. On a GPU the checks that read tensors are left out, as
            they would make the host wait.
        TypeError: On wrong types.
        ImportError: With `implementation="triton"` where Triton is not installed.

    Example:
        >>> import torch
        >>> shifted = torch.tensor([[3, 1, 2]])  # blank, then the target 1 2
        >>> logits = torch.nn.functional.one_hot(shifted, 4) * 20.0
        >>> labels = torch.tensor([[1, 2]])
        >>> round(axe_loss(logits, labels, blank_token_id=3, delta=4.0).item(), 4)
        0.0
    """
    check_options(blank_token_id, delta, label_smoothing, reduction, num_items_in_batch)
    check_implementation(implementation)
    check_logits(logits)
    check_derivatives(logits)
    check_tensors(
        *logits.shape, logits.device, labels, blank_token_id, canvas_lengths, observed_mask
    )
    if inplace_backward and logits.requires_grad and logits.is_leaf:
        raise ValueError(
            "`inplace_backward=True` overwrites `logits`, which is a leaf tensor (its gradient would share its "
            "memory). Pass the output of a layer, or leave `inplace_backward` off."
        )
    targets = (*split_labels(labels, blank_token_id), canvas_lengths, observed_mask)
    options = (blank_token_id, delta, label_smoothing)
    loss, alignment = loss_per_sentence(implementation, logits, targets, options, inplace_backward)
    loss = reduce_loss(loss, reduction, targets, num_items_in_batch)
    return AxeOutput(loss, alignment) if return_alignment else loss


def split_labels(labels: Tensor, blank_token_id: int) -> tuple[Tensor, Tensor]:
    """Returns the tokens, with the blank in the place of padding, and the number of them `(batch,)`."""
    is_padding = labels == IGNORE_INDEX
    return labels.long().masked_fill(is_padding, blank_token_id), (~is_padding).sum(1)


def loss_per_sentence(
    implementation: str, logits: Tensor, targets: tuple, options: tuple, inplace_backward: bool
) -> tuple[Tensor, AxeAlignment]:
    """Returns the loss `(batch,)` and the alignment; what it is given was checked.

    Args:
        implementation: As in `axe_loss`.
        logits: `(batch, canvas, vocab)`.
        targets: Tokens and target lengths, as `split_labels` returns them; canvas lengths, observed mask or None.
        options: Blank token id, delta, label smoothing.
        inplace_backward: As in `axe_loss`.
    """
    align = compiled_axe_along_path if torch.compiler.is_compiling() else along_path
    loss, alignment, path = align(implementation, logits, *targets, *options)
    check_log_probs(path.blank_log_prob, targets[2])
    if torch.is_grad_enabled() and logits.requires_grad:
        blank_token_id, _, label_smoothing = options
        settings = (blank_token_id, label_smoothing, inplace_backward)
        loss = AlongPath.apply(logits, loss, settings, type(path), *path)
    return loss, alignment


def reduce_loss(
    loss: Tensor, reduction: str, targets: tuple, num_items_in_batch: int | Tensor | None
) -> Tensor:
    """Sums the loss, or what was summed up before, and divides it as `reduction` says.

    Args:
        loss: `(batch,)` or, for `"sum"` and `"mean"`, a scalar too.
        reduction: As in `axe_loss`.
        targets: As in `loss_per_sentence`.
        num_items_in_batch: As in `axe_loss`.
    """
    if reduction == "none":
        return loss
    loss = loss.sum()
    if reduction == "sum":
        return loss
    if num_items_in_batch is None:
        _, target_lengths, _, observed_mask = targets
        num_items_in_batch = target_lengths.sum()
        if observed_mask is not None:
            num_items_in_batch = num_items_in_batch - observed_mask.sum()
        num_items_in_batch = num_items_in_batch.clamp(min=1)
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device).reshape(())
    return loss / num_items_in_batch


class AlignedCrossEntropyLoss(nn.Module):
    """`axe_loss` as a module; the arguments are those of the function.

    Args:
        blank_token_id: Id of the blank.
        delta: Price of skipping a target.
        label_smoothing: In [0, 1). Default 0.
        reduction: `"mean"`, `"sum"` or `"none"`. Default `"mean"`.
        inplace_backward: Write the gradient over the logits. Default False.
        implementation: `"auto"`, `"torch"` or `"triton"`, as in `axe_loss`. Default `"auto"`.

    Example:
        >>> import torch
        >>> loss_function = AlignedCrossEntropyLoss(blank_token_id=3, delta=4.0)
        >>> logits = torch.zeros(2, 5, 7, requires_grad=True)
        >>> loss_function(logits, torch.tensor([[1, 2, 0], [1, -100, -100]])).backward()
    """

    def __init__(
        self,
        *,
        blank_token_id: int,
        delta: float,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        inplace_backward: bool = False,
        implementation: str = "auto",
    ):
        super().__init__()
        self.blank_token_id = blank_token_id
        self.delta = delta
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.inplace_backward = inplace_backward
        self.implementation = implementation

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        canvas_lengths: Tensor | None = None,
        observed_mask: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        return_alignment: bool = False,
    ) -> Tensor | AxeOutput:
        """Computes the loss; see `axe_loss`."""
        return axe_loss(
            logits,
            labels,
            blank_token_id=self.blank_token_id,
            delta=self.delta,
            canvas_lengths=canvas_lengths,
            observed_mask=observed_mask,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            num_items_in_batch=num_items_in_batch,
            return_alignment=return_alignment,
            inplace_backward=self.inplace_backward,
            implementation=self.implementation,
        )

    def extra_repr(self) -> str:
        return f"blank_token_id={self.blank_token_id}, delta={self.delta}, reduction={self.reduction!r}"
