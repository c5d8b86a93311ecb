"""What a step of recipes.py computes: teachers, students, and students trained for several passes.

Every function runs in a CUDA graph: no size and no branch depends on what a tensor holds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from recipes_data import BLANK, MASK, PAD
from recipes_plans import Loss, Passes, Recipe
from torch import Tensor, nn
from torch.nn import functional as F

from axe_hf import axe_loss

if torch.cuda.is_available():
    from recipes_kernel import family_loss

Predict = Callable[[Tensor], Tensor]
IGNORED = -100


@dataclass(frozen=True)
class Step:
    """What comes out of one batch.

    Attributes:
        loss: Scalar to differentiate, a mean per target token.
        nats: Scalar, the sum of the loss itself, without that of the lengths.
        num_tokens: Scalar, target tokens scored.
    """

    loss: Tensor
    nats: Tensor
    num_tokens: Tensor


@dataclass(frozen=True)
class Sentences:
    """Targets `(batch, target)` and canvas `(batch, canvas)` of a batch, with their lengths."""

    targets: Tensor
    lengths: Tensor
    canvas: Tensor
    canvas_lengths: Tensor

    @property
    def labels(self) -> Tensor:
        return self.targets.masked_fill(self.targets == PAD, IGNORED)

    @property
    def is_inside(self) -> Tensor:
        place = torch.arange(self.canvas.shape[1], device=self.canvas.device)
        return place < self.canvas_lengths[:, None]


def compute_step(
    model: nn.Module, recipe: Recipe, stage: int, sources: Tensor, targets: Tensor
) -> Step:
    """The loss of a batch of sources and targets, both `(batch, width)`."""
    loss, passes = recipe.stages[stage]
    if recipe.is_teacher:
        return teacher_step(model, sources, targets)
    return student_step(model, loss, passes, sources, targets)


def teacher_step(model: nn.Module, sources: Tensor, targets: Tensor) -> Step:
    shifted = F.pad(targets[:, :-1], (1, 0), value=PAD)
    logits = model(
        input_ids=sources, attention_mask=sources.ne(PAD).long(), decoder_input_ids=shifted
    ).logits
    labels = targets.masked_fill(targets == PAD, IGNORED).flatten()
    logits = logits.float().flatten(0, 1)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    num_tokens = targets.ne(PAD).sum()
    return Step(loss / num_tokens, loss.detach(), num_tokens)


def student_step(
    model: nn.Module, loss: Loss, passes: Passes | None, sources: Tensor, targets: Tensor
) -> Step:
    lengths = targets.ne(PAD).sum(1)
    make_canvas = masked_targets if loss.kind == "cross entropy" else empty_canvas
    sentences = Sentences(targets, lengths, *make_canvas(targets, lengths, loss))
    encoded = model.model.encoder(input_ids=sources, attention_mask=sources.ne(PAD))

    def predict(canvas: Tensor) -> Tensor:
        states = model.model.decoder(
            input_ids=canvas,
            attention_mask=canvas.ne(PAD),
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=sources.ne(PAD),
        ).last_hidden_state
        return model.lm_head(states)  # (batch, canvas, vocab)

    length_loss = F.cross_entropy(encoded.length_logits, lengths, reduction="sum")
    num_tokens = lengths.sum()
    if loss.kind == "cross entropy":
        num_tokens = sentences.canvas.eq(MASK).sum()
    result, nats = sentence_loss(predict, sentences, loss, passes)
    return Step((result + 0.1 * length_loss) / num_tokens, nats.detach(), num_tokens)


def masked_targets(targets: Tensor, lengths: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The targets with 1 to all words masked, as many as drawn, as in Mask-Predict."""
    is_target, (batch, width) = targets.ne(PAD), targets.shape
    keys = torch.rand(batch, width, device=targets.device).masked_fill(~is_target, 2.0)
    share = torch.rand(batch, device=targets.device)
    num_masked = 1 + (share * lengths).long().clamp(max=width - 1)
    is_masked = (keys.argsort(1).argsort(1) < num_masked[:, None]) & is_target
    return targets.masked_fill(is_masked, MASK), lengths


def empty_canvas(targets: Tensor, lengths: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Masks only, of a length that is drawn, but holds the targets with blanks between equals."""
    is_target, device = targets.ne(PAD), targets.device
    widest = min(512, math.ceil(targets.shape[1] * loss.canvas * (1 + loss.jitter)) + 2)
    repeats = ((targets[:, 1:] == targets[:, :-1]) & is_target[:, 1:]).sum(1)
    factor = 1 + loss.jitter * (2 * torch.rand(len(targets), device=device) - 1)
    drawn = (lengths * loss.canvas * factor).round().long()
    canvas_lengths = torch.maximum(drawn, lengths + repeats).clamp(max=widest)
    is_inside = torch.arange(widest, device=device) < canvas_lengths[:, None]
    return torch.where(is_inside, MASK, PAD).long(), canvas_lengths


def sentence_loss(
    predict: Predict, sentences: Sentences, loss: Loss, passes: Passes | None
) -> tuple[Tensor, Tensor]:
    """Sums over the batch: what to differentiate, and the loss in nats."""
    canvas = sentences.canvas
    if loss.kind == "cross entropy":
        labels = sentences.targets.masked_fill(canvas != MASK, IGNORED).flatten()
        logits = predict(canvas).float().flatten(0, 1)
        value = F.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=loss.label_smoothing
        )
        return value, value
    if loss.kind == "AXE":
        value = axe_loss(
            predict(canvas),
            sentences.labels,
            blank_token_id=BLANK,
            delta=loss.delta,
            canvas_lengths=sentences.canvas_lengths,
            label_smoothing=loss.label_smoothing,
            reduction="sum",
            implementation="torch",
        )
        return value, value
    observed = {}
    if passes is not None:
        canvas, observed = shown_tokens(predict, sentences, loss, passes)
    return sum_over_alignments(predict(canvas), sentences, loss, **observed)


def sum_over_alignments(
    logits: Tensor, sentences: Sentences, loss: Loss, **observed: Tensor
) -> tuple[Tensor, Tensor]:
    """The family at a temperature: by the kernel on a GPU, by `axe_loss` elsewhere."""
    options = family_options(loss) | {
        "temperature": loss.temperature,
        "label_smoothing": loss.label_smoothing,
    }
    lengths = sentences.canvas_lengths
    if logits.is_cuda:
        targets = sentences.targets.masked_fill(sentences.targets == PAD, BLANK)
        arguments = (targets, sentences.lengths, lengths)
        result, nats, _, _ = family_loss(logits, *arguments, **options, **observed)
        return result, nats
    options |= {"canvas_lengths": lengths, "reduction": "sum"}
    value = axe_loss(logits, sentences.labels, **options, **observed)
    return value, value


def family_options(loss: Loss) -> dict:
    return {
        "blank_token_id": BLANK,
        "delta": loss.delta,
        "allow_repetition": loss.allow_repetition,
    }


@torch.no_grad()
def shown_tokens(
    predict: Predict, sentences: Sentences, loss: Loss, passes: Passes
) -> tuple[Tensor, dict[str, Tensor]]:
    """The canvas of the pass to train, and what in it need not be predicted."""
    canvas, is_inside = sentences.canvas, sentences.is_inside
    (batch, width), device = canvas.shape, canvas.device
    logits = predict(canvas)
    logits[..., PAD] = -1e4  # one by one: a list of ids would be copied from the host
    logits[..., MASK] = -1e4
    draft = logits.argmax(-1)
    truth = draft if passes.kind == "SMART" else likeliest_alignment(logits, sentences, loss)
    sees_only_masks = torch.rand(batch, 1, device=device) < passes.full
    if passes.kind == "GLAT":
        num_wrong = ((draft != truth) & is_inside).sum(1, keepdim=True)
        share = passes.ratio * num_wrong / sentences.canvas_lengths[:, None]
        is_shown = torch.rand(batch, width, device=device) < share
    else:
        share = torch.rand(batch, 1, device=device)
        is_shown = torch.rand(batch, width, device=device) < share
        is_shown &= ~sees_only_masks
    is_shown &= is_inside
    shown = torch.where(is_shown, truth, canvas)
    if passes.kind == "SMART":
        return shown, {}
    return shown, {"observed_mask": is_shown, "observed_tokens": truth}


def likeliest_alignment(logits: Tensor, sentences: Sentences, loss: Loss) -> Tensor:
    """What each position should say, `(batch, canvas)`: a target, or the blank.

    On a GPU that which it says in most alignments at temperature 0.1, elsewhere in the best one.
    """
    if logits.is_cuda:
        targets = sentences.targets.masked_fill(sentences.targets == PAD, BLANK)
        arguments = (logits, targets, sentences.lengths, sentences.canvas_lengths)
        _, _, gamma, blank = family_loss(*arguments, **family_options(loss), temperature=0.1)
        target = torch.cat([blank[:, None], gamma], 1).argmax(1) - 1
    else:
        options = {"canvas_lengths": sentences.canvas_lengths, "return_alignment": True}
        result = axe_loss(logits, sentences.labels, **family_options(loss), **options)
        target = result.alignment.position_to_target
    said = sentences.targets.gather(1, target.clamp(min=0))
    return torch.where(target < 0, BLANK, said)
