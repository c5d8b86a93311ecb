"""Checks of what users pass to the AXE loss: every error says what was expected, what came and what to do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

REDUCTIONS = ("mean", "sum", "none")
IMPLEMENTATIONS = ("auto", "torch", "triton")


def check_options(
    blank_token_id: int,
    delta: float,
    label_smoothing: float,
    reduction: str,
    num_items_in_batch: int | Tensor | None,
) -> None:
    """Checks the options that are not as long as the batch."""
    if isinstance(blank_token_id, bool) or not isinstance(blank_token_id, int):
        raise TypeError(
            f"`blank_token_id` must be an int, got {blank_token_id!r}. It is the id of a token of its own, "
            "e.g. tokenizer.convert_tokens_to_ids('<blank>')."
        )
    for name, value in (("delta", delta), ("label_smoothing", label_smoothing)):
        if not isinstance(value, int | float):
            raise TypeError(f"`{name}` must be a number, got {_describe(value)}.")
    if not 0 <= delta < float("inf"):
        raise ValueError(f"`delta` must be a finite number of at least 0, got {delta}.")
    _check_num_items(num_items_in_batch)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` must be in [0, 1), got {label_smoothing}.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")


def _check_num_items(num_items_in_batch: int | Tensor | None) -> None:
    is_wrong = False
    if isinstance(num_items_in_batch, Tensor):
        is_wrong = num_items_in_batch.numel() != 1
        if num_items_in_batch.device.type == "cpu" and not torch.compiler.is_compiling():
            is_wrong = is_wrong or not num_items_in_batch > 0
    elif num_items_in_batch is not None:
        is_wrong = not isinstance(num_items_in_batch, int | float) or not num_items_in_batch > 0
    if is_wrong:
        raise ValueError(
            "`num_items_in_batch` must be the number of targets to divide by, an int or a scalar tensor, got "
            f"{num_items_in_batch!r}."
        )


def check_derivatives(*tensors: Tensor | None) -> None:
    """Checks that no derivative is asked for that is not there, which could be lost in silence."""
    if torch.compiler.is_compiling():
        return
    is_dual = any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)
    if is_dual or torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "The losses of axe_hf know reverse mode only, but were called inside torch.func (vmap, grad, jvp ...) or "
            "forward-mode differentiation. Call them on the whole batch, with .backward() or torch.autograd.grad."
        )


def check_implementation(implementation: str) -> None:
    """Checks the choice of the back end."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}."
        )


def check_tensors(
    batch: int,
    canvas: int,
    vocab: int,
    device: torch.device,
    labels: Tensor,
    blank_token_id: int,
    canvas_lengths: Tensor | None,
    observed_mask: Tensor | None,
) -> None:
    """Checks shapes and types, and on the CPU the values: reading them would make the host wait for a GPU."""
    if not 0 <= blank_token_id < vocab:
        raise ValueError(
            f"`blank_token_id` must be in [0, {vocab}), the vocabulary of the logits, got {blank_token_id}. Was the "
            "blank added to the tokenizer after the model was built? Call model.resize_token_embeddings(...)."
        )
    _check_integers("labels", labels, device)
    if labels.dim() != 2 or labels.shape[0] != batch:
        raise ValueError(
            f"`labels` must be (batch, target) with the logits' batch of {batch}, got {tuple(labels.shape)}."
        )
    if canvas_lengths is not None:
        _check_integers("canvas_lengths", canvas_lengths, device)
        if canvas_lengths.shape != (batch,):
            raise ValueError(
                f"`canvas_lengths` must be (batch,) = ({batch},), got {tuple(canvas_lengths.shape)}."
            )
    if observed_mask is not None:
        if observed_mask.dtype != torch.bool:
            raise TypeError(
                f"`observed_mask` must be bool, True where the canvas shows a token, got {observed_mask.dtype}."
            )
        if observed_mask.shape != (batch, canvas):
            raise ValueError(
                f"`observed_mask` must be (batch, canvas) = ({batch}, {canvas}), got {tuple(observed_mask.shape)}."
            )
        _check_device("observed_mask", observed_mask, device)
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_label_values(labels, vocab, blank_token_id)
        _check_lengths(canvas, labels, canvas_lengths, observed_mask)


def check_logits(logits: Tensor) -> None:
    """Checks shape and type of the logits."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"`logits` must be a floating point tensor, got {_describe(logits)}.")
    if logits.dim() != 3:
        raise ValueError(f"`logits` must be (batch, canvas, vocab), got {tuple(logits.shape)}.")


def check_projection(hidden_states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Checks shapes and types of the decoder states and of what projects them to the vocabulary."""
    for name, value, shape in (
        ("hidden_states", hidden_states, "(batch, canvas, hidden)"),
        ("weight", weight, "(vocab, hidden)"),
        ("bias", bias, "(vocab,)"),
    ):
        if value is None and name == "bias":
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"`{name}` must be a floating point tensor, got {_describe(value)}.")
        if value.dim() != shape.count(",") + (name != "bias"):
            raise ValueError(f"`{name}` must be {shape}, got {tuple(value.shape)}.")
    if weight.shape[1] != hidden_states.shape[2] or (
        bias is not None and bias.shape[0] != weight.shape[0]
    ):
        raise ValueError(
            "`weight` must be (vocab, hidden) and `bias` (vocab,) to fit `hidden_states` (batch, canvas, hidden), got "
            f"{tuple(weight.shape)}, {None if bias is None else tuple(bias.shape)} and {tuple(hidden_states.shape)}."
        )


def check_one_dtype(hidden_states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Checks, after what autocast has cast, that nothing is left to be cast."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != hidden_states.dtype:
            raise TypeError(
                f"`{name}` must have the dtype of `hidden_states`, {hidden_states.dtype}, got {value.dtype}. Cast it, "
                "or use torch.autocast."
            )


def check_log_probs(log_probs: Tensor, canvas_lengths: Tensor | None) -> None:
    """Checks, on the CPU, that logits were no NaN: any log-probability `(batch, canvas)` of their row tells."""
    if log_probs.device.type != "cpu" or torch.compiler.is_compiling():
        return
    is_nan = log_probs.isnan()
    if canvas_lengths is not None:
        is_nan &= torch.arange(log_probs.shape[1]) < canvas_lengths[:, None]
    if is_nan.any():
        at = is_nan.nonzero()[0].tolist()
        raise ValueError(
            f"`logits` hold NaN or +inf, or nothing but -inf, at sentence {at[0]}, position {at[1]} (and "
            f"{int(is_nan.sum()) - 1} more). Has training diverged? Try a smaller learning rate or clip the gradient."
        )


def _check_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(
            f"`{name}` must be on the device of the logits, {device}, got {value.device}."
        )


def _check_integers(name: str, value: Tensor, device: torch.device) -> None:
    if not isinstance(value, Tensor) or value.is_floating_point() or value.dtype == torch.bool:
        raise TypeError(
            f"`{name}` must be a tensor of integers (torch.long), got {_describe(value)}."
        )
    _check_device(name, value, device)


def check_labels(labels: Tensor, vocab: int, device: torch.device) -> None:
    """Checks the type of labels and, on the CPU, that every one is in the vocabulary or -100."""
    _check_integers("labels", labels, device)
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        is_wrong = ((labels < 0) | (labels >= vocab)) & (labels != -100)
        advice = "Was the tokenizer extended after the model was built? Call model.resize_token_embeddings(...)."
        _reject_labels(labels, is_wrong, f"be in [0, {vocab}) or -100", advice)


def _check_label_values(labels: Tensor, vocab: int, blank_token_id: int) -> None:
    check_labels(labels, vocab, labels.device)
    _reject_labels(
        labels,
        labels == blank_token_id,
        f"not hold the blank ({blank_token_id})",
        "The blank is what a model says between tokens; give it an id of its own.",
    )
    is_padding = labels == -100
    _reject_labels(
        labels,
        is_padding[:, :-1] & ~is_padding[:, 1:],
        "hold the whole target, with -100 behind its end only",
        "Positions that are not to be scored because the canvas shows them belong into `observed_mask`.",
    )


def _reject_labels(labels: Tensor, is_wrong: Tensor, expected: str, advice: str) -> None:
    if is_wrong.any():
        at = is_wrong.nonzero()[0].tolist()
        raise ValueError(
            f"`labels` must {expected}, got {labels[tuple(at)].item()} at {at}. {advice}"
        )


def _check_lengths(
    canvas: int, labels: Tensor, canvas_lengths: Tensor | None, observed_mask: Tensor | None
) -> None:
    target_lengths = (labels != -100).sum(1)
    if canvas_lengths is None:
        canvas_lengths = torch.full_like(target_lengths, canvas)
    _reject(
        (canvas_lengths < 0) | (canvas_lengths > canvas),
        lambda b: (
            f"`canvas_lengths` must be in [0, {canvas}], got {canvas_lengths[b].item()} at [{b}]."
        ),
    )
    _reject(
        (canvas_lengths == 0) & (target_lengths > 0),
        lambda b: (
            f"`labels` of sentence {b} hold {target_lengths[b].item()} tokens, but its canvas has no position to "
            "say them. Give every sentence with a target a canvas of at least one position."
        ),
    )
    if observed_mask is None:
        return
    _reject(
        observed_mask.any(1) & (target_lengths != canvas_lengths),
        lambda b: (
            f"`observed_mask` has observed positions in sentence {b}, which needs as many targets as positions "
            f"then, got {target_lengths[b].item()} targets and {canvas_lengths[b].item()} positions."
        ),
    )
    behind = observed_mask & (torch.arange(canvas) >= canvas_lengths[:, None])
    _reject(
        behind.any(1),
        lambda b: (
            f"`observed_mask` must be False behind the canvas's end, got True behind position "
            f"{canvas_lengths[b].item()} of sentence {b}."
        ),
    )


def _reject(is_wrong: Tensor, message) -> None:
    if is_wrong.any():
        raise ValueError(message(int(is_wrong.nonzero()[0])))


def _describe(value) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    return f"{type(value).__name__} {value!r}"[:80]
