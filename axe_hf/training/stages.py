"""What a run trains by as it goes on: losses that may come before the model's own, and drafts."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmConfig
from ..cmlm.mask_predict import masked_canvas_of_labels
from .arguments import AxeTrainingArguments

# Of the paper's AXE as the first loss, in the place of an infinite delta.
FIRST_DELTA = 3.0


def first_loss(args: AxeTrainingArguments, progress: float) -> str | None:
    """The `training_loss` that stands in for the model's own at `progress`, from 0 to 1; or None.

    Cross entropy comes first, then the paper's AXE, then the model's own.

    >>> args = AxeTrainingArguments("runs", cross_entropy_first=0.2, align_first=0.3)
    >>> [first_loss(args, progress) for progress in (0.1, 0.4, 0.5)]
    ['cross_entropy', 'axe', None]
    """
    if progress < args.cross_entropy_first:
        return "cross_entropy"
    return "axe" if progress < args.cross_entropy_first + args.align_first else None


@contextmanager
def trained_by(config: CmlmConfig, training_loss: str) -> Iterator[None]:
    """Inside, `config` has this loss, as its paper has it: whichever of AXE's family it is of."""
    names = ("training_loss", "allow_repetition", "axe_temperature", "axe_delta")
    own = {name: getattr(config, name) for name in names}
    config.training_loss = training_loss
    config.allow_repetition, config.axe_temperature = False, 0.0
    config.axe_delta = FIRST_DELTA if own["axe_delta"] == math.inf else own["axe_delta"]
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(config, name, value)


def with_own_positions(inputs: dict[str, Any], config: CmlmConfig) -> dict[str, Any]:
    """`inputs` with a position for each label, which cross entropy needs.

    A fully masked canvas, that may be stretched, becomes one of the target's own length; one that
    shows tokens has a position for each of them.
    """
    if config.masking != "full" and "decoder_input_ids" in inputs:
        return inputs
    return {**inputs, "decoder_input_ids": masked_canvas_of_labels(inputs["labels"], 1.0, config)}


@torch.no_grad()
def show_drafts(
    model: Any, inputs: dict[str, Any], share: float, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """The canvases of `inputs`, a `share` of which show parts of what `model` now says on them.

    How large a part is drawn for each, uniformly. `model` may be wrapped, hence its whole logits.
    """
    canvas = inputs["decoder_input_ids"]  # (batch, canvas)
    texts = {name: value for name, value in inputs.items() if name != "labels"}
    logits = model(**texts).logits
    logits[..., [tokenizer.pad_token_id, tokenizer.mask_token_id]] = -torch.inf
    drawn = torch.rand(len(canvas), 2, 1, device=canvas.device)
    is_shown = torch.rand(canvas.shape, device=canvas.device) < drawn[:, 0]
    is_shown &= (drawn[:, 1] < share) & (canvas == tokenizer.mask_token_id)
    return torch.where(is_shown, logits.argmax(dim=-1), canvas)


def check_stages(args: AxeTrainingArguments, training_loss: str, masking: str) -> None:
    """Refuse parts of a run that its loss or its canvases have no room for."""
    reasons = dict.fromkeys(("align_first", "draft_share"), "aligns nothing")
    reasons["cross_entropy_first"] = "is what this model trains by from first to last"
    for name, reason in reasons.items():
        if training_loss != "axe" and (share := getattr(args, name)):
            raise ValueError(f"`{name}` is {share}, but cross entropy {reason}. Leave it out.")
    if (share := args.draft_share) and masking != "full":
        reason = "a draft is made of a fully masked canvas. Add masking='full'"
        raise ValueError(f"`draft_share` is {share} and `masking` {masking!r}, but {reason}.")
