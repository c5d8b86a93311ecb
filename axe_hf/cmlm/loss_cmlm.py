"""The training loss of a CMLM: AXE or cross entropy over the canvas, plus the length head's loss."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_cmlm import CmlmConfig
from .cross_entropy_cmlm import cross_entropy, linear_cross_entropy
from .linear_loss_axe import linear_axe_loss
from .linear_path_axe import is_fusing_worthwhile
from .loss_axe import AxeOutput, axe_loss
from .plain_linear import is_plain_linear


@dataclass(frozen=True)
class CmlmLosses:
    """Loss of one batch and its parts; the fields are those of `CmlmSeq2SeqLMOutput`, nats."""

    loss: torch.Tensor
    token_loss: torch.Tensor
    length_loss: torch.Tensor
    num_skipped_targets: torch.Tensor | None = None
    num_skipped_predictions: torch.Tensor | None = None


def whole_target(
    labels: torch.Tensor, canvas: torch.Tensor | None, config: CmlmConfig
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Undo the -100 of observed positions.

    Args:
        labels: (batch, target) long; -100 at padding and at observed positions.
        canvas: (batch, canvas) long, or None where the decoder was given embeddings.
        config: for the ids of mask and pad.

    Returns:
        The target tokens with -100 behind the end only (batch, target), and which canvas positions are observed
        (batch, canvas) bool, or None where canvas and labels differ in shape, so that nothing can be.
    """
    if canvas is None or canvas.shape != labels.shape:
        return labels, None
    is_observed = (
        (labels == -100) & (canvas != config.mask_token_id) & (canvas != config.pad_token_id)
    )
    return torch.where(is_observed, canvas, labels), is_observed


def length_nll(length_logits: torch.Tensor, target_lengths: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each sentence's length, (batch,) nats; `length_logits` (batch, lengths) fp32."""
    # These logits are small: a fused loss would save nothing. An empty target has no length: class 0 is excluded.
    return F.cross_entropy(length_logits, target_lengths, reduction="none", ignore_index=0)


def is_loss_fused(hidden_states: torch.Tensor, lm_head: nn.Module, config: CmlmConfig) -> bool:
    """Whether `config.fused_loss` asks for the training loss of these states without their logits.

    Args:
        hidden_states: (batch, canvas, hidden).
        lm_head: the output projection. One that is more than `nn.Linear` on the states' device (an adapter, quantized
            or sharded weights, a hook) has to be called: `"auto"` calls it.
        config: for `fused_loss`.

    Raises:
        ValueError: `"always"`, and an `lm_head` that has to be called.
    """
    if config.fused_loss == "never":
        return False
    is_plain = is_plain_linear(lm_head, hidden_states.device)
    if config.fused_loss == "auto":
        return is_plain and is_fusing_worthwhile(hidden_states, lm_head.weight)
    if not is_plain:
        raise ValueError(
            f'`config.fused_loss` is "always", but `lm_head` is {type(lm_head).__name__} and not a plain nn.Linear on '
            f'{hidden_states.device} without hooks, so its weight alone does not make the logits. Set it to "auto" or "never".'
        )
    return True


def _aligned_loss(
    logits: torch.Tensor | None,
    target: torch.Tensor,
    hidden_states: torch.Tensor | None,
    lm_head: nn.Linear | None,
    **options,
) -> AxeOutput:
    # The Triton kernels stay out of training until they have been measured on a GPU.
    options |= {"reduction": "sum", "return_alignment": True, "implementation": "torch"}
    if logits is not None:
        return axe_loss(logits, target, **options)
    return linear_axe_loss(hidden_states, lm_head.weight, target, bias=lm_head.bias, **options)


def _position_wise_loss(
    logits: torch.Tensor | None,
    labels: torch.Tensor,
    hidden_states: torch.Tensor | None,
    lm_head: nn.Linear | None,
    label_smoothing: float,
) -> torch.Tensor:
    if logits is not None:
        return cross_entropy(logits, labels, label_smoothing)
    options = {"bias": lm_head.bias, "label_smoothing": label_smoothing}
    return linear_cross_entropy(hidden_states, lm_head.weight, labels, **options)


def CmlmForConditionalGenerationLoss(
    logits: torch.Tensor | None,
    length_logits: torch.Tensor | None,
    labels: torch.Tensor,
    canvas: torch.Tensor | None,
    config: CmlmConfig,
    num_items_in_batch: int | torch.Tensor | None = None,
    hidden_states: torch.Tensor | None = None,
    lm_head: nn.Linear | None = None,
) -> CmlmLosses:
    """(token loss + `length_loss_weight` * length loss, both summed) / number of labels.

    Dividing both by the number of labels is Mask-Predict's normalisation; it makes gradient accumulation and data
    parallelism exact when `num_items_in_batch` counts the labels of all of them.

    Args:
        logits: (batch, canvas, vocab); None to compute the loss from `hidden_states` and `lm_head` without them.
        length_logits: (batch, max_target_length + 1) fp32; None is fine where `length_loss_weight` is 0.
        labels: (batch, target) long; -100 at padding and at observed positions.
        canvas: (batch, canvas) long, the decoder's input; None takes every position as one to predict.
        config: the settings of the loss.
        num_items_in_batch: what to divide by; the number of labels that are not -100 by default.
        hidden_states: (batch, canvas, hidden), what `lm_head` makes the logits of; read where `logits` is None.
        lm_head: the output projection, of which weight and bias are read.

    Returns:
        `CmlmLosses`.
    """
    if labels.shape[1] > config.max_target_length:
        raise ValueError(
            f"`labels` have {labels.shape[1]} positions but `config.max_target_length` is "
            f"{config.max_target_length}. Truncate the targets, or train a model with a larger limit."
        )
    target, is_observed = whole_target(labels, canvas, config)
    skips = {}
    if config.training_loss == "axe":
        canvas_lengths = None if canvas is None else (canvas != config.pad_token_id).sum(dim=1)
        output = _aligned_loss(
            logits,
            target,
            hidden_states,
            lm_head,
            blank_token_id=config.blank_token_id,
            delta=config.axe_delta,
            canvas_lengths=canvas_lengths,
            observed_mask=is_observed,
            label_smoothing=config.label_smoothing,
        )
        token_loss = output.loss
        skips = {
            "num_skipped_targets": output.alignment.num_skipped_targets,
            "num_skipped_predictions": output.alignment.num_skipped_predictions,
        }
    else:
        token_loss = _position_wise_loss(
            logits, labels, hidden_states, lm_head, config.label_smoothing
        )
    total, length_loss = token_loss, token_loss.new_zeros(())
    if config.length_loss_weight > 0:
        if length_logits is None:
            raise ValueError(
                "`encoder_outputs` hold no `length_logits`, which the length loss needs. Pass what `model.get_encoder()` "
                "returns, or set `config.length_loss_weight = 0`."
            )
        target_lengths = (target != -100).sum(dim=1)  # (batch,)
        length_loss = length_nll(length_logits, target_lengths).sum()
        total = total + config.length_loss_weight * length_loss
    if num_items_in_batch is None:
        num_items_in_batch = (labels != -100).sum().clamp(min=1)
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return CmlmLosses(
        total / num_items_in_batch, token_loss.detach(), length_loss.detach(), **skips
    )
