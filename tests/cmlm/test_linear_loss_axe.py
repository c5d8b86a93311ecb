"""The fused loss equals `axe_loss` on projected states; both use the memory they promise."""

import pytest
import torch
from torch.nn import functional as F

from axe_hf.cmlm import fused_loss_axe
from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import axe_loss

BATCH, LENGTH, HIDDEN, VOCAB = 5, 6, 16, 40


@pytest.fixture
def inputs():
    """Hidden states, weight, bias, labels and options of five ragged, partly observed sentences."""
    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(BATCH, LENGTH, HIDDEN, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator, dtype=torch.float64)
    bias = torch.randn(VOCAB, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([6, 1, 4, 6, 3])
    labels = torch.randint(1, VOCAB, (BATCH, LENGTH), generator=generator)
    labels[torch.arange(LENGTH) >= lengths[:, None]] = -100
    observed_mask = (torch.rand(BATCH, LENGTH, generator=generator) < 0.3) & (labels != -100)
    options = {"blank_token_id": 0, "delta": 3.0, "label_smoothing": 0.1}
    options |= {"canvas_lengths": lengths, "observed_mask": observed_mask}
    return hidden_states, weight, bias, labels, options


@pytest.fixture(params=[1, 2, 100])
def sentences_per_chunk(request, monkeypatch):
    """Chunks of one sentence, of two with a rest, and one chunk."""
    size = request.param * LENGTH * VOCAB * 8
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", size)


def results(function, tensors, factor):
    tensors = [None if tensor is None else tensor.clone().requires_grad_() for tensor in tensors]
    loss = function(*tensors)
    (loss * factor).sum().backward()
    return [loss.detach(), *(tensor.grad for tensor in tensors if tensor is not None)]


@pytest.mark.usefixtures("sentences_per_chunk")
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_fused_loss_equals_loss_of_projection(inputs, reduction, has_bias):
    hidden_states, weight, bias, labels, options = inputs
    tensors = (hidden_states, weight, bias if has_bias else None)
    # negative and zero gradients from above included
    factor = torch.arange(-2, 3) if reduction == "none" else -1.7
    fused = results(
        lambda h, w, b: linear_axe_loss(h, w, labels, bias=b, reduction=reduction, **options),
        tensors,
        factor,
    )
    plain = results(
        lambda h, w, b: axe_loss(F.linear(h, w, b), labels, reduction=reduction, **options),
        tensors,
        factor,
    )
    torch.testing.assert_close(fused, plain)


@pytest.mark.usefixtures("sentences_per_chunk")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_retained_graph_gives_the_same_gradient_twice(inputs, reduction):
    hidden_states, weight, _, labels, options = inputs
    weight.requires_grad_()
    loss = linear_axe_loss(hidden_states, weight, labels, reduction=reduction, **options).sum()
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(2 * loss, weight)
    torch.testing.assert_close(second, 2 * first)


def test_alignment_is_that_of_the_plain_loss(inputs):
    hidden_states, weight, bias, labels, options = inputs
    fused = linear_axe_loss(
        hidden_states, weight, labels, bias=bias, return_alignment=True, **options
    )
    plain = axe_loss(
        F.linear(hidden_states, weight, bias), labels, return_alignment=True, **options
    )
    for name, value in vars(plain.alignment).items():
        torch.testing.assert_close(getattr(fused.alignment, name), value)


def test_low_precision_and_autocast_equal_the_plain_loss(inputs):
    hidden_states, weight, _, labels, options = inputs
    hidden_states, weight = hidden_states.float(), weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        fused = results(
            lambda h, w: linear_axe_loss(h, w, labels, **options), (hidden_states, weight), 1.0
        )
        plain = results(
            lambda h, w: axe_loss(F.linear(h, w), labels, **options), (hidden_states, weight), 1.0
        )
    assert [tensor.dtype for tensor in fused] == [torch.float32] * 3
    torch.testing.assert_close(fused, plain, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inplace", [False, True])
def test_one_tensor_of_the_logits_size_at_most(allocations_of, dtype, inplace):
    leaf = torch.randn(8, 16, 40_000, dtype=dtype, requires_grad=True)
    labels = torch.randint(1, 40_000, (8, 16))
    size = leaf.untyped_storage().nbytes()
    logits = leaf.view_as(leaf)
    with allocations_of(leaf) as allocations:
        loss = axe_loss(logits, labels, blank_token_id=0, delta=2.0, inplace_backward=inplace)
        torch.autograd.grad(loss, logits)
    assert sum(each >= size / 2 for each in allocations.sizes) == (0 if inplace else 1)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_fused_loss_never_holds_the_logits(allocations_of, reduction, monkeypatch):
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", 2**20)
    hidden_states = torch.randn(16, 12, 4, requires_grad=True)
    weight = torch.randn(20_000, 4, requires_grad=True)
    labels = torch.randint(1, 20_000, (16, 12))
    with allocations_of() as allocations:
        linear_axe_loss(
            hidden_states, weight, labels, blank_token_id=0, delta=2.0, reduction=reduction
        ).sum().backward()
    assert max(allocations.sizes) < 16 * 12 * 20_000 * 4 / 6
