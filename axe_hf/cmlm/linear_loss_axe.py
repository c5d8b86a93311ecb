"""AXE from decoder states and the output embedding: the logits of the whole batch never exist at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .alignment_axe import AxeAlignment
from .back_end_axe import along_path
from .input_checks_axe import (
    check_derivatives,
    check_implementation,
    check_log_probs,
    check_options,
    check_projection,
    check_tensors,
)
from .linear_path_axe import linear_along_path
from .loss_axe import AxeOutput, loss_per_sentence, reduce_loss, split_labels


def linear_axe_loss(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    blank_token_id: int,
    delta: float,
    canvas_lengths: Tensor | None = None,
    observed_mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    num_items_in_batch: int | Tensor | None = None,
    return_alignment: bool = False,
    implementation: str = "auto",
) -> Tensor | AxeOutput:
    """The same as `axe_loss(F.linear(hidden_states, weight, bias), labels, ...)`, in a fraction of the memory.

    The projection runs over a few sentences at a time. With `reduction="mean"` or `"sum"` the gradients are formed
    in the forward pass, since there every sentence weighs the same, and scaled in the backward pass; with `"none"`
    the backward pass projects again, so any gradient may come from above. The gradients of weight and bias are
    summed up in float32. Under autocast the projection runs in its dtype, as `F.linear` does. Under `torch.compile`
    it is `axe_loss` on the projected states, which saves nothing.

    Args:
        hidden_states: `(batch, canvas, hidden)`, float.
        weight: `(vocab, hidden)`, float: the output embedding.
        labels: `(batch, target)`, long: the whole target of each sentence, `</s>` included; -100 behind its end.
        bias: `(vocab,)`, float. Default: none.
        blank_token_id: Id of the blank, a symbol of its own that is never a label.
        delta: Price of skipping a target, at least 0.
        canvas_lengths: `(batch,)`, long. Default: the whole canvas.
        observed_mask: `(batch, canvas)`, bool. Default: nothing observed.
        label_smoothing: In [0, 1). Default 0.
        reduction: `"mean"`, `"sum"` or `"none"`, as in `axe_loss`.
        num_items_in_batch: Divisor of `"mean"`, int or scalar tensor.
        return_alignment: Return `AxeOutput(loss, alignment)` in place of the loss.
        implementation: `"auto"`, `"torch"` or `"triton"`, as in `axe_loss`.

    Returns:
        The loss in nats, float32 or the logits' wider type; or `AxeOutput`.

    Raises:
        ValueError: On values or shapes that do not fit.
        TypeError: On wrong types.

    Example:
        >>> import torch
        >>> hidden_states, weight = torch.randn(2, 5, 8), torch.randn(7, 8, requires_grad=True)
        >>> labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
        >>> loss = linear_axe_loss(hidden_states, weight, labels, blank_token_id=0, delta=4.0)
        >>> loss.backward()
        >>> weight.grad.shape
        torch.Size([7, 8])
    """
    check_options(blank_token_id, delta, label_smoothing, reduction, num_items_in_batch)
    check_implementation(implementation)
    check_projection(hidden_states, weight, bias)
    batch, canvas, _ = hidden_states.shape
    check_derivatives(hidden_states, weight, bias)
    device = hidden_states.device
    check_tensors(
        batch, canvas, len(weight), device, labels, blank_token_id, canvas_lengths, observed_mask
    )
    targets = (*split_labels(labels, blank_token_id), canvas_lengths, observed_mask)
    options = (blank_token_id, delta, label_smoothing)
    if torch.compiler.is_compiling():
        logits = F.linear(hidden_states, weight, bias)
        loss, alignment = loss_per_sentence(implementation, logits, targets, options, False)
    else:

        def align(logits, chunk):
            chosen = (None if tensor is None else tensor[chunk] for tensor in targets)
            loss, alignment, path = along_path(implementation, logits, *chosen, *options)
            return loss, (*vars(alignment).values(), path.blank_log_prob), path

        loss, *fields, blank_log_prob = linear_along_path(
            *(hidden_states, weight, bias, align),
            *(blank_token_id, label_smoothing, reduction != "none"),
        )
        check_log_probs(blank_log_prob, canvas_lengths)
        alignment = AxeAlignment(*fields)
    loss = reduce_loss(loss, reduction, targets, num_items_in_batch)
    return AxeOutput(loss, alignment) if return_alignment else loss
