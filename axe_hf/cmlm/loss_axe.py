"""Aligned Cross Entropy (AXE): for models that predict all tokens at once and may shift them.

Source: Ghazvininejad et al., Aligned Cross Entropy for Non-Autoregressive Machine Translation, ICML
2020. The paper's recursion is in `axe_hf/reference.py`; `back_ends_axe.py` chooses who computes,
`path_axe.py` computes value and gradient along the path, `alignment_axe.py` finds it,
`family_axe.py` weighs all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .alignment_axe import AxeAlignment, AxeOptions, AxeTargets
from .back_ends_axe import differentiable_along_path
from .path_axe import PathLoss

# Of labels that are not to be scored, as in `torch.nn.functional.cross_entropy`.
IGNORE_INDEX = -100
REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class AxeOutput:
    """What `axe_loss` returns with `return_alignment=True`.

    Args:
        loss: The reduced loss, or `(batch,)` with `reduction="none"`; nats.
        alignment: The alignment it was computed along, the best one at a temperature; without
            gradient.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]])  # says 1, then blank
        >>> how = {"blank_token_id": 2, "delta": 4.0, "return_alignment": True}
        >>> axe_loss(logits, torch.tensor([[1]]), **how).alignment.target_to_position
        tensor([[0]])
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
    observed_tokens: Tensor | None = None,
    label_smoothing: float = 0.0,
    allow_repetition: bool = False,
    temperature: float = 0.0,
    reduction: str = "mean",
    num_items_in_batch: int | Tensor | None = None,
    return_alignment: bool = False,
    inplace_backward: bool = False,
    implementation: str = "auto",
) -> Tensor | AxeOutput:
    """Cross entropy along the cheapest monotonic alignment of predictions and target tokens.

    A prediction either says a target token (align) or should say blank (skip prediction); a target
    token that no prediction says costs `delta * -log P_j(token)` at the position it is skipped at
    (skip target). The alignment is held fixed in the gradient. With label smoothing `s` each use of
    position j costs `(1 - s) * -log P_j(token) + s * mean over the vocabulary of -log P_j`; the
    path is chosen without it.

    The family around it, ours: with `allow_repetition` the position behind one that says a token
    may say it again (repeat), which decoding collapses; hence something else must stand between two
    equal targets. With a `temperature` t over 0 the loss is the soft minimum over all alignments,
    `-t log sum exp(-cost / t)` (as in soft-DTW, Cuturi and Blondel, ICML 2017, section 2), and its
    gradient that of their posterior mixture. With repetition, t = 1 and infinite `delta` it is CTC
    (Graves et al., ICML 2006, sections 3.1 and 4). A sentence without any alignment costs infinity
    and has a gradient of zero.

    Args:
        logits: `(batch, canvas, vocab)`, float; computed on in float32 (float64 stays), without a
            copy of them.
        labels: `(batch, target)`, long: the whole target of each sentence, `</s>` included; -100
            behind its end.
        blank_token_id: Id of the blank, a symbol of its own that is never a label.
        delta: Price of skipping a target, at least 0. With 1 or less a model can collapse to
            blanks. Infinite: no target is skipped.
        canvas_lengths: `(batch,)`, long. Predictions per sentence. Default: the whole canvas.
        observed_mask: `(batch, canvas)`, bool. True where the canvas already shows target number j
            at position j; such a pair adds nothing and splits the alignment. Sentences that have
            one need as many targets as positions. Default: none.
        observed_tokens: `(batch, canvas)`, long, for canvases of any length, with repetition or a
            temperature: position j, where `observed_mask` is True, says this token (a target's or
            the blank) for nothing, and nothing else; a sentence where it is neither has no
            alignment. Default: none.
        label_smoothing: In [0, 1). Default 0.
        allow_repetition: Default: False, the paper's.
        temperature: Of the soft minimum, in nats. Default: 0, the best alignment, the paper's.
        reduction: `"mean"` divides the sum by the number of targets scored (not padding, nor shown
            by `observed_mask` alone; at least 1) or by `num_items_in_batch`; `"sum"`; `"none"`
            gives `(batch,)`.
        num_items_in_batch: Divisor of `"mean"`, int or scalar tensor: targets in all micro-batches.
        return_alignment: Return `AxeOutput(loss, alignment)` in place of the loss. At a temperature
            the alignment is the best one all the same, and is looked for separately.
        inplace_backward: Write the gradient over the logits, which saves a tensor of their size.
            The logits must not be a leaf and nothing else may need them, neither a backward pass
            nor the caller afterwards.
        implementation: `"torch"`; `"triton"`, kernels with the same values; or `"auto"`, Triton for
            the paper's AXE on an NVIDIA GPU and PyTorch otherwise.

    Returns:
        The loss in nats, float32 or the logits' wider type; or `AxeOutput`.

    Raises:
        ValueError: On values or shapes that do not fit. On a GPU the checks that read tensors are
            left out, as they would make the host wait.
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
    options = AxeOptions(
        *(blank_token_id, delta, label_smoothing, allow_repetition, temperature),
        with_alignment=return_alignment,
    )
    check_options(options, reduction, num_items_in_batch)
    check_logits(logits, inplace_backward)
    check_derivatives(logits)
    targets = checked_targets(
        *(logits.shape, labels, options, canvas_lengths, observed_mask, observed_tokens)
    )
    result = logits_path_loss(logits, targets, options, implementation, inplace_backward)
    loss = reduce_loss(result.loss, reduction, targets, num_items_in_batch)
    return AxeOutput(loss, result.alignment) if return_alignment else loss  # type: ignore[arg-type]


def logits_path_loss(
    logits: Tensor,
    targets: AxeTargets,
    options: AxeOptions,
    implementation: str = "auto",
    inplace_backward: bool = False,
) -> PathLoss:
    """The loss `(batch,)` of checked arguments, with what `AxeOptions` ask for beside it."""
    result = differentiable_along_path(logits, targets, options, implementation, inplace_backward)
    check_log_probs(result.path.blank_log_prob, targets.canvas_lengths)
    return result


def checked_targets(
    shape: tuple[int, ...],
    labels: Tensor,
    options: AxeOptions,
    canvas_lengths: Tensor | None,
    observed_mask: Tensor | None,
    observed_tokens: Tensor | None = None,
) -> AxeTargets:
    """The arguments of `axe_loss` in one, with the blank in the place of padding."""
    blank: int = options.blank_token_id  # type: ignore[assignment]
    own_mask = observed_mask if observed_tokens is None else None
    check_tensors(shape, labels, blank, canvas_lengths, own_mask)
    if observed_tokens is not None:
        check_observed_tokens(shape, options, observed_mask, observed_tokens)
    is_padding = labels == IGNORE_INDEX
    tokens = labels.long().masked_fill(is_padding, blank)
    lengths = (~is_padding).sum(1)
    return AxeTargets(tokens, lengths, canvas_lengths, observed_mask, observed_tokens)


def reduce_loss(
    loss: Tensor, reduction: str, targets: AxeTargets, num_items_in_batch: int | Tensor | None
) -> Tensor:
    """Sums the loss `(batch,)`, or what was summed before, and divides it as `reduction` says."""
    if reduction == "none":
        return loss
    loss = loss.sum()
    if reduction == "sum":
        return loss
    if num_items_in_batch is None:
        num_items_in_batch = targets.num_scored().clamp(min=1)
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device).reshape(())
    return loss / num_items_in_batch


class AlignedCrossEntropyLoss(nn.Module):
    """`axe_loss` as a module.

    Args:
        blank_token_id, delta, label_smoothing, allow_repetition, temperature, reduction,
            inplace_backward, implementation: As in `axe_loss`.

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
        allow_repetition: bool = False,
        temperature: float = 0.0,
        reduction: str = "mean",
        inplace_backward: bool = False,
        implementation: str = "auto",
    ):
        super().__init__()
        self.blank_token_id, self.delta = blank_token_id, delta
        self.label_smoothing, self.reduction = label_smoothing, reduction
        self.allow_repetition, self.temperature = allow_repetition, temperature
        self.inplace_backward, self.implementation = inplace_backward, implementation

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        canvas_lengths: Tensor | None = None,
        observed_mask: Tensor | None = None,
        observed_tokens: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        return_alignment: bool = False,
    ) -> Tensor | AxeOutput:
        """Computes the loss; the arguments are those of `axe_loss`."""
        return axe_loss(
            logits,
            labels,
            canvas_lengths=canvas_lengths,
            observed_mask=observed_mask,
            observed_tokens=observed_tokens,
            num_items_in_batch=num_items_in_batch,
            return_alignment=return_alignment,
            blank_token_id=self.blank_token_id,
            delta=self.delta,
            label_smoothing=self.label_smoothing,
            allow_repetition=self.allow_repetition,
            temperature=self.temperature,
            reduction=self.reduction,
            inplace_backward=self.inplace_backward,
            implementation=self.implementation,
        )

    def extra_repr(self) -> str:
        names = ("blank_token_id", "delta", "allow_repetition", "temperature", "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


# The checks at the door: what without them would be wrong in silence, or fail at another line.
_RESIZE = "Call model.resize_token_embeddings(...)."


def check_options(
    options: AxeOptions, reduction: str, num_items_in_batch: int | Tensor | None
) -> None:
    """Refuses options out of range."""
    items = num_items_in_batch
    is_unread = isinstance(items, Tensor) and not is_readable(items)
    is_scalar = isinstance(items, int | float) or isinstance(items, Tensor) and items.numel() == 1
    if type(options.blank_token_id) is not int:
        advice = "of a token of its own, e.g. tokenizer.convert_tokens_to_ids('<blank>')."
        got = f"got {options.blank_token_id!r}. It is the id {advice}"
        raise TypeError(f"`blank_token_id` must be an int, {got}")
    for name in ("delta", "label_smoothing", "temperature"):
        if not isinstance(getattr(options, name), int | float):
            raise TypeError(f"`{name}` must be a number, got {getattr(options, name)!r}.")
    if not isinstance(options.allow_repetition, bool):
        raise TypeError(f"`allow_repetition` must be a bool, got {options.allow_repetition!r}.")
    if not options.delta >= 0:
        raise ValueError(f"`delta` must be a number of at least 0, got {options.delta}.")
    if not 0 <= options.temperature < float("inf"):
        expected = "a finite number of at least 0"
        raise ValueError(f"`temperature` must be {expected}, got {options.temperature}.")
    if not 0 <= options.label_smoothing < 1:
        raise ValueError(f"`label_smoothing` must be in [0, 1), got {options.label_smoothing}.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
    if items is not None and not (is_scalar and (is_unread or items > 0)):
        expected = "the number of targets to divide by, an int or a scalar tensor"
        raise ValueError(f"`num_items_in_batch` must be {expected}, got {items!r}.")


def check_logits(logits: Tensor, inplace_backward: bool) -> None:
    """Refuses logits that are no batch, or that may not be written over."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"`logits` must be a floating point tensor, got {kind}.")
    if logits.dim() != 3:
        raise ValueError(f"`logits` must be (batch, canvas, vocab), got {tuple(logits.shape)}.")
    if inplace_backward and logits.requires_grad and logits.is_leaf:
        problem = "`inplace_backward=True` overwrites `logits`, which is a leaf tensor"
        advice = "Pass the output of a layer, or leave `inplace_backward` off."
        raise ValueError(f"{problem} (its gradient would share its memory). {advice}")


def check_derivatives(*tensors: Tensor | None) -> None:
    """Refuses derivatives that are not there, which could be lost in silence."""
    if torch.compiler.is_compiling():
        return
    is_dual = any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)
    if is_dual or torch._C._are_functorch_transforms_active():
        inside = "inside torch.func (vmap, grad, jvp ...) or forward-mode differentiation"
        problem = f"The losses of axe_hf know reverse mode only, but were called {inside}"
        advice = "Call them on the whole batch, with .backward() or torch.autograd.grad."
        raise RuntimeError(f"{problem}. {advice}")


def check_tensors(
    shape: tuple[int, ...],
    labels: Tensor,
    blank: int,
    lengths: Tensor | None,
    observed: Tensor | None,
) -> None:
    """Refuses types and shapes that do not fit the logits' `shape` and, on the CPU, such values."""
    batch, canvas, vocab = shape
    check_ids("labels", labels, vocab, (batch, None))
    if lengths is not None:
        check_kind("canvas_lengths", lengths, (batch,), "batch,")
    if observed is not None:
        check_kind("observed_mask", observed, (batch, canvas), is_mask=True)
    if not 0 <= blank < vocab:
        expected = f"in [0, {vocab}), the vocabulary of the logits"
        advice = "Was the blank added to the tokenizer after the model was built? " + _RESIZE
        raise ValueError(f"`blank_token_id` must be {expected}, got {blank}. {advice}")
    if not is_readable(labels):
        return
    is_padding = labels == IGNORE_INDEX
    targets = (~is_padding).sum(1)
    lengths = torch.full_like(targets, canvas) if lengths is None else lengths
    wrong = {
        f"`labels` must not hold the blank ({blank}), got {{labels}} at {{at}}. It is what a model "
        "says between tokens; give it an id of its own.": labels == blank,
        "`labels` must hold the whole target, with -100 behind its end only, got -100 at {at}. "
        "What is not to be scored because the canvas shows it belongs into `observed_mask`.": (
            is_padding[:, :-1] & ~is_padding[:, 1:]
        ),
        f"`canvas_lengths` must be in [0, {canvas}], got {{lengths}} at {{at}}.": (
            (lengths < 0) | (lengths > canvas)
        ),
        "`labels` of sentence {at[0]} hold {targets} tokens, but its canvas has no position to say "
        "them. Give every sentence with a target a canvas of at least one position.": (
            (lengths == 0) & (targets > 0)
        ),
    }
    if observed is not None:
        is_behind = torch.arange(canvas) >= lengths[:, None]
        wrong |= {
            "`observed_mask` has observed positions in sentence {at[0]}, which needs as many "
            "targets as positions then, got {targets} targets and {lengths} positions.": (
                observed.any(1) & (targets != lengths)
            ),
            "`observed_mask` must be False behind the canvas's end, got True at position {at[1]} "
            "of sentence {at[0]}.": observed & is_behind,
        }
    refuse(wrong, labels=labels, targets=targets, lengths=lengths)


def check_observed_tokens(
    shape: tuple[int, ...], options: AxeOptions, observed_mask: Tensor | None, tokens: Tensor
) -> None:
    """Refuses observed tokens that fit no logits of that `shape`, or that nothing says where."""
    batch, canvas, vocab = shape
    check_kind("observed_tokens", tokens, (batch, canvas))
    if observed_mask is None:
        raise ValueError("`observed_tokens` need `observed_mask`, which says where they are.")
    check_kind("observed_mask", observed_mask, (batch, canvas), is_mask=True)
    check_ids("observed_tokens", tokens.masked_fill(~observed_mask, 0), vocab)
    if not options.allow_repetition and options.temperature == 0:
        advice = "Set `allow_repetition` or a `temperature`, or leave them out."
        raise ValueError(f"`observed_tokens` are not for the paper's AXE. {advice}")


def check_kind(
    name: str, value: Tensor, shape: tuple, names: str = "batch, canvas", is_mask: bool = False
) -> None:
    """Refuses what is no tensor of integers (or bools) of that shape; None is any length."""
    dtype, sizes = getattr(value, "dtype", type(value).__name__), getattr(value, "shape", ())
    is_integer = isinstance(value, Tensor) and not value.is_floating_point()
    if not is_integer or (dtype == torch.bool) != is_mask:
        integers = "token ids" if name.endswith("_ids") else "integers"
        kind = "bool" if is_mask else f"a tensor of {integers} (torch.long)"
        raise TypeError(f"`{name}` must be {kind}, got {dtype}.")
    if len(sizes) != len(shape) or any(n not in (None, m) for n, m in zip(shape, sizes)):  # noqa: B905
        expected = str(shape).replace("None", "any")
        raise ValueError(f"`{name}` must be ({names}) = {expected}, got {tuple(sizes)}.")


def check_ids(name: str, ids: Tensor, vocab: int, shape: tuple = (None, None)) -> None:
    """Refuses what is no batch of ids of the vocabulary; `labels` may be -100, or none at all."""
    check_kind(name, ids, shape, "batch, target" if name == "labels" else "batch, length")
    if name != "labels" and not ids.numel():
        raise ValueError(f"`{name}` must hold at least one token, got {tuple(ids.shape)}.")
    if not is_readable(ids):
        return
    is_wrong, expected = (ids < 0) | (ids >= vocab), f"ids in [0, {vocab})"
    if name == "labels":
        is_wrong, expected = is_wrong & (ids != IGNORE_INDEX), f"in [0, {vocab}) or {IGNORE_INDEX}"
    advice = "Was the tokenizer extended after the model was built? " + _RESIZE
    refuse({f"`{name}` must be {expected}, got {{ids}} at {{at}}. {advice}": is_wrong}, ids=ids)


def check_log_probs(log_probs: Tensor, canvas_lengths: Tensor | None) -> None:
    """Refuses logits that were NaN, of which one log-probability `(batch, canvas)` a row tells."""
    if not is_readable(log_probs):
        return
    is_nan = log_probs.isnan()
    if canvas_lengths is not None:
        is_nan &= torch.arange(log_probs.shape[1]) < canvas_lengths[:, None]
    message = (
        "`logits` hold NaN or +inf, or nothing but -inf, at sentence {at[0]}, position {at[1]}. "
        "Has training diverged? Try a smaller learning rate or clip the gradient."
    )
    refuse({message: is_nan})


def refuse(wrong: dict[str, Tensor], **values: Tensor) -> None:
    """Raises the first message of something wrong, with the place `at` and the `values` there."""
    for message, is_wrong in wrong.items():
        if is_wrong.any():
            at = is_wrong.nonzero()[0].tolist()
            there = {n: v[tuple(at[: v.dim()])] for n, v in values.items() if v.dim() <= len(at)}
            raise ValueError(message.format(at=at, **{n: v.item() for n, v in there.items()}))


def is_readable(tensor: Tensor) -> bool:
    """Whether reading it keeps nobody waiting: not on another device, nor under torch.compile."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
