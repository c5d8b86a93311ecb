"""How the loss behaves in autograd, autocast and torch.compile."""

import pytest
import torch
from torch.nn import functional as F

from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import axe_loss

OPTIONS = {"blank_token_id": 0, "delta": 3.0}


@pytest.fixture
def case():
    """Logits (3, 7, 11) and labels (3, 5)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 11, (3, 5), generator=generator)
    return torch.randn(3, 7, 11, generator=generator), labels


def gradient(logits, labels, **options):
    leaf = logits.clone().requires_grad_()
    axe_loss(leaf * 1, labels, **OPTIONS, **options).backward()
    return leaf.grad


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_in_place_is_the_same_and_uses_the_logits_memory(case, dtype, label_smoothing):
    logits, labels = case[0].to(dtype), case[1]
    plain = gradient(logits, labels, label_smoothing=label_smoothing)
    inner = logits.clone().requires_grad_() * 1
    seen = []
    inner.register_hook(lambda grad: seen.append((grad.data_ptr(), grad.clone())))
    axe_loss(
        inner, labels, inplace_backward=True, label_smoothing=label_smoothing, **OPTIONS
    ).backward()
    assert seen[0][0] == inner.data_ptr()
    assert torch.equal(seen[0][1], plain)


def test_many_blocks_equal_one(case, monkeypatch):
    from axe_hf.cmlm import path_axe

    logits, labels = case
    whole = gradient(logits, labels)
    monkeypatch.setattr(path_axe, "BLOCK_BYTES_CPU", 2 * 11 * 4)
    assert torch.equal(gradient(logits, labels), whole)


def test_logits_need_not_be_contiguous(case):
    logits, labels = case
    turned = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    assert torch.equal(gradient(turned, labels), gradient(logits, labels))


def test_second_derivative_is_refused(case):
    logits, labels = case
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(axe_loss(logits, labels, **OPTIONS), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivative only"):
        grad.sum().backward()
    weight = torch.randn(9, 11, requires_grad=True)
    loss = linear_axe_loss(logits, weight, labels.clamp(max=8), **OPTIONS)
    (grad,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivative only"):
        grad.sum().backward()


def test_no_graph_is_kept_without_gradient(case):
    logits, labels = case
    assert not axe_loss(logits, labels, **OPTIONS).requires_grad
    with torch.no_grad():
        assert not axe_loss(logits.requires_grad_(), labels, **OPTIONS).requires_grad


def test_autocast_changes_neither_value_nor_dtype(case):
    logits, labels = case
    expected = axe_loss(logits.bfloat16(), labels, **OPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = axe_loss(logits.bfloat16(), labels, **OPTIONS)
        grad = gradient(logits, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    assert torch.equal(grad, gradient(logits, labels))


@pytest.mark.parametrize("function", ["plain", "fused"])
def test_compiled_without_graph_breaks_it_is_the_same(case, function):
    logits, labels = case
    weight = torch.eye(11)

    def loss(logits, labels):
        if function == "fused":
            return linear_axe_loss(logits, weight, labels, **OPTIONS)
        return axe_loss(logits * 2, labels, label_smoothing=0.1, **OPTIONS)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for length in (7, 6, 5):
        leaves = [logits[:, :length].clone().requires_grad_() for _ in range(2)]
        values = [run(leaf, labels) for run, leaf in zip((compiled, loss), leaves, strict=True)]
        for value in values:
            value.backward()
        torch.testing.assert_close(values[0], values[1])
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_large_delta_and_equal_length_is_cross_entropy():
    """With identity alignment the gradient is cross entropy's, entry by entry."""
    labels = torch.tensor([[1, 2, 3, 4]])
    logits = (3.0 * F.one_hot(labels, 6)).requires_grad_()
    axe_loss(logits, labels, **OPTIONS).backward()
    ours, logits.grad = logits.grad, None
    F.cross_entropy(logits[0], labels[0]).backward()
    torch.testing.assert_close(ours, logits.grad)
