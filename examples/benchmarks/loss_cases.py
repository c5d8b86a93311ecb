"""The sizes and the losses that `loss.py` measures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from axe_hf import axe_loss, linear_axe_loss
from axe_hf.cmlm import alignment_axe

BLANK, DELTA = 0, 2.0
ALIGNMENT = "alignment alone, no gradient"
AXE = {"blank_token_id": BLANK, "delta": DELTA}
# All alignments in place of the best one; with repetition; and without skipping targets.
FAMILY = {
    "soft": AXE | {"temperature": 1.0},
    "soft, repetition": AXE | {"temperature": 1.0, "allow_repetition": True, "delta": 3.0},
    "CTC": AXE | {"temperature": 1.0, "allow_repetition": True, "delta": math.inf},
}


@dataclass(frozen=True)
class Case:
    """One size. A canvas is `stretch` times as long as its target; `hidden` is None where the
    losses start from logits."""

    batch: int
    length: int  # of the canvas
    vocab: int
    dtype: str = "float32"
    hidden: int | None = None
    stretch: int = 1

    @property
    def baseline(self) -> str:
        return "cross entropy" if self.hidden is None else "projection, cross entropy"

    @property
    def logits_mib(self) -> float:
        size = getattr(torch, self.dtype).itemsize
        return self.batch * self.length * self.vocab * size / 2**20

    def __str__(self) -> str:
        name = f"{self.batch} x {self.length} x {self.vocab} {self.dtype}"
        name += "" if self.hidden is None else f", hidden {self.hidden}"
        return name if self.stretch == 1 else f"{name}, {self.length // self.stretch} targets"


CASES = [
    Case(64, 64, 1000),
    Case(64, 128, 8000),
    Case(64, 64, 32000),
    Case(64, 64, 32000, "bfloat16"),
    Case(64, 64, 32000, "float16"),
    Case(64, 64, 32000, hidden=512),
    Case(64, 64, 32000, "bfloat16", hidden=512),
    Case(64, 128, 32000),
    Case(64, 128, 32000, "bfloat16"),
    Case(64, 128, 32000, hidden=512),
    Case(64, 128, 1000, stretch=2),
    Case(64, 64, 32000, stretch=2),
    Case(64, 128, 32000, stretch=2),
    Case(64, 64, 32000, hidden=512, stretch=2),
]
QUICK_CASES = [
    Case(8, 12, 500),
    Case(8, 12, 500, "bfloat16"),
    Case(8, 12, 500, "float16"),
    Case(8, 12, 500, hidden=32),
    Case(8, 12, 500, stretch=2),
    Case(8, 12, 500, hidden=32, stretch=2),
]


def axe_by_diagonals(logits: Tensor, labels: Tensor) -> Tensor:
    """AXE as one would write it down: the recursion on anti-diagonals, all sentences at once, under
    autograd.

    Args:
        logits: `(batch, canvas, vocab)`.
        labels: `(batch, target)` long, without padding.

    Returns:
        The sum over the batch, nats.
    """
    canvas, target = logits.shape[1], labels.shape[1]
    costs = -logits.log_softmax(-1)
    blank = costs[..., BLANK]  # (batch, canvas)
    costs = costs.gather(2, labels[:, None].expand(-1, canvas, -1))  # (batch, canvas, target)
    far = blank.new_tensor(1e9)
    i = torch.arange(target + 1, device=logits.device)
    start = torch.where(i == 0, 0.0, far)
    before_last = last = start.expand(len(labels), -1)  # (batch, target + 1)
    for diagonal in range(1, target + canvas + 1):
        j = diagonal - i
        cost = costs[:, (j - 1).clamp(0, canvas - 1), (i - 1).clamp(0)]
        ways = [
            torch.where((i > 0) & (j > 0), before_last.roll(1, 1) + cost, far),
            torch.where(j > 0, last + blank[:, (j - 1).clamp(0, canvas - 1)], far),
            torch.where(i > 0, last.roll(1, 1) + DELTA * cost, far),
        ]
        is_inside = (j >= 0) & (j <= canvas)
        before_last, last = last, torch.where(is_inside, torch.stack(ways).amin(0), far)
    return last[:, target].sum()


def ctc(logits: Tensor, labels: Tensor) -> Tensor:
    lengths = (torch.full((len(labels),), tensor.shape[1]) for tensor in (logits, labels))
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels, *lengths, blank=BLANK, zero_infinity=True)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the target as often as the canvas is longer."""
    labels = labels.repeat(1, logits.shape[1] // labels.shape[1])
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def alignment_alone(logits: Tensor, labels: Tensor) -> Callable[[], object]:
    """The dynamic programme and the way back on costs that were gathered before, in PyTorch;
    without the loss.

    Args:
        logits: `(batch, canvas, vocab)`.
        labels: `(batch, target)` long, without padding.

    Returns:
        What to measure.
    """
    log_normalizer = torch.stack([sentence.float().logsumexp(-1) for sentence in logits])
    columns = labels[:, None].expand(-1, logits.shape[1], -1)
    costs = log_normalizer[..., None] - logits.gather(2, columns)  # (batch, canvas, target)
    blank_costs = log_normalizer - logits[..., BLANK]
    return lambda: alignment_axe.align_axe(costs.transpose(1, 2), blank_costs, delta=DELTA)


def losses_of(case: Case, device: str) -> dict[str, Callable[..., Tensor]]:
    """The losses to compare, the baseline first; each takes the inputs of `inputs_of`."""
    if case.hidden is None:
        losses = {
            case.baseline: cross_entropy,
            "CTC": ctc,
            "AXE": lambda x, y: axe_loss(x, y, **AXE),
            # A view, since a leaf may not be overwritten.
            "AXE, in place": lambda x, y: axe_loss(x.view_as(x), y, inplace_backward=True, **AXE),
        }
        losses |= {f"AXE, {name}": partial(axe_loss, **how) for name, how in FAMILY.items()}
        if case.logits_mib <= 64:
            losses["AXE, plain autograd"] = axe_by_diagonals
        return losses
    weights = torch.linspace(0.5, 1.5, case.batch, device=device)
    losses = {
        case.baseline: lambda h, w, y: cross_entropy(F.linear(h, w), y),
        "projection, CTC": lambda h, w, y: ctc(F.linear(h, w), y),
        "projection, AXE": lambda h, w, y: axe_loss(F.linear(h, w), y, **AXE),
        "fused AXE": lambda h, w, y: linear_axe_loss(h, w, y, **AXE),
        "fused AXE, per sentence": lambda h, w, y: (
            linear_axe_loss(h, w, y, reduction="none", **AXE) @ weights
        ),
    }
    fused = {f"fused AXE, {name}": partial(linear_axe_loss, **how) for name, how in FAMILY.items()}
    return losses | fused


def inputs_of(case: Case, device: str) -> tuple[Tensor, ...]:
    """Labels, and what the losses read; the logits say label i at position `stretch` times i and 0
    to 2 late, to be worth aligning."""
    generator = torch.Generator(device).manual_seed(0)
    options = {"generator": generator, "device": device}
    dtype = getattr(torch, case.dtype)
    shape = (case.batch, case.length)
    labels = torch.randint(1, case.vocab, (case.batch, case.length // case.stretch), **options)
    if case.hidden is not None:
        states = torch.randn(*shape, case.hidden, dtype=dtype, **options)
        weight = torch.randn(case.vocab, case.hidden, dtype=dtype, **options) * 0.05
        return states, weight, labels
    logits = torch.randn(*shape, case.vocab, dtype=dtype, **options)
    logits[..., BLANK] += 4
    position = case.stretch * torch.arange(labels.shape[1], device=device)
    position = position + torch.randint(0, 3, (case.batch, 1), **options)  # (batch, target)
    sentence, target = (position < case.length).nonzero(as_tuple=True)
    logits[sentence, position[sentence, target], labels[sentence, target]] += 8
    return logits, labels
