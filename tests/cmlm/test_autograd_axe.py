"""The losses in the hands of autograd's other users: transforms, checkpoints, scalers, copies, and
odd inputs."""

import copy
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import AlignedCrossEntropyLoss, axe_loss
from axe_hf.cmlm.loss_cmlm import cross_entropy, linear_cross_entropy

OPTIONS = {"blank_token_id": 0, "delta": 3.0}
BOTH = OPTIONS | {"allow_repetition": True, "temperature": 1.0}
WEIGHT = torch.randn(11, 6, generator=torch.Generator().manual_seed(1))
# Each takes decoder states (batch, 5, 6) and labels (batch, 5).
LOSSES = {
    "axe": lambda h, y: axe_loss(h @ WEIGHT.T, y, **OPTIONS),
    "axe, in place": lambda h, y: axe_loss(h @ WEIGHT.T, y, inplace_backward=True, **OPTIONS),
    "axe, fused": lambda h, y: linear_axe_loss(h, WEIGHT, y, **OPTIONS),
    "axe, fused, per sentence": lambda h, y: linear_axe_loss(
        h, WEIGHT, y, reduction="none", **OPTIONS
    ).sum(),
    "repetition": lambda h, y: axe_loss(h @ WEIGHT.T, y, allow_repetition=True, **OPTIONS),
    "all alignments": lambda h, y: axe_loss(h @ WEIGHT.T, y, temperature=0.5, **OPTIONS),
    "both, fused": lambda h, y: linear_axe_loss(h, WEIGHT, y, **BOTH),
    "cross entropy": lambda h, y: cross_entropy(h @ WEIGHT.T, y),
    "cross entropy, fused": lambda h, y: linear_cross_entropy(h, WEIGHT, y),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def states():
    return torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.randint(1, 11, (3, 5), generator=torch.Generator().manual_seed(0))


def gradient(function, states):
    leaf = states.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


@every_loss
def test_a_loss_that_is_used_twice_gets_both_gradients(loss, states, labels):
    def used_twice(h):
        value = loss(h, labels)
        return value * value + 3 * value

    factor = 2 * loss(states, labels) + 3
    once = gradient(lambda h: loss(h, labels), states)
    torch.testing.assert_close(gradient(used_twice, states), factor * once)


@every_loss
def test_a_scaled_loss_has_a_scaled_gradient(loss, states, labels):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scaled = gradient(lambda h: scaler.scale(loss(h, labels)), states)
    torch.testing.assert_close(scaled, 2.0**16 * gradient(lambda h: loss(h, labels), states))


@every_loss
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_it_may_be_computed_again_in_the_backward_pass(loss, states, labels, use_reentrant):
    again = gradient(lambda h: checkpoint(loss, h, labels, use_reentrant=use_reentrant), states)
    torch.testing.assert_close(again, gradient(lambda h: loss(h, labels), states))


@every_loss
def test_an_empty_batch_costs_nothing_and_gives_no_gradient(loss, states, labels):
    weight = WEIGHT.clone().requires_grad_()
    value = loss(states[:0] @ (weight.T @ weight), labels[:0])
    value.backward()
    assert value == 0 and (weight.grad == 0).all()


@every_loss
def test_states_and_labels_of_any_layout_and_integer_type(loss, states, labels):
    expected = gradient(lambda h: loss(h, labels), states)
    turned = states.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    turned.requires_grad_()
    loss(turned, labels.T.contiguous().T.int()).backward()
    torch.testing.assert_close(turned.grad, expected)


@every_loss
def test_transforms_and_forward_mode_are_refused_and_not_answered_with_zero(loss, states, labels):
    def alone(h):
        return loss(h, labels)

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(states, states)
        with pytest.raises(RuntimeError, match="know reverse mode only"):
            alone(dual)
    for transformed in (
        lambda: torch.func.grad(alone)(states),
        lambda: torch.func.jvp(alone, (states,), (states,)),
        lambda: torch.vmap(lambda h, y: loss(h[None], y[None]))(states, labels),
    ):
        with pytest.raises(RuntimeError, match=r"inside torch.func \(vmap, grad, jvp"):
            transformed()


@every_loss
def test_a_batch_of_gradients_is_refused_by_its_name(loss, states, labels):
    leaf = states.clone().requires_grad_()
    batch = {"grad_outputs": torch.ones(3), "is_grads_batched": True}
    with pytest.raises(RuntimeError, match="one gradient at a time.*is_grads_batched=True"):
        torch.autograd.grad(loss(leaf, labels), leaf, **batch)
    with pytest.raises(RuntimeError, match="one gradient at a time.*is_grads_batched=True"):
        torch.autograd.functional.jacobian(lambda h: loss(h, labels), states, vectorize=True)


def test_logits_that_were_overwritten_are_noticed(states, labels):
    leaf = (states @ WEIGHT.T).requires_grad_()
    logits = leaf * 1
    loss = axe_loss(logits, labels, inplace_backward=True, **OPTIONS)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("padding", [0.0, torch.nan, -torch.inf])
def test_what_stands_in_the_padding_changes_no_gradient(states, labels, padding):
    logits = states @ WEIGHT.T
    lengths = torch.tensor([5, 3, 4])
    wide_labels = F.pad(labels, (0, 4), value=-100)
    losses = {
        axe_loss: {"canvas_lengths": lengths, "label_smoothing": 0.1, **OPTIONS},
        cross_entropy: {"label_smoothing": 0.1},
    }
    for loss, options in losses.items():
        plain = gradient(lambda x, f=loss, o=options: f(x, labels, **o), logits)
        wide = F.pad(logits, (0, 0, 0, 4), value=padding)
        padded = gradient(lambda x, f=loss, o=options: f(x, wide_labels, **o), wide)
        assert torch.equal(padded[:, :5], plain)
        assert (padded[:, 5:] == 0).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_module_and_output_can_be_copied(states, labels, copied):
    module = AlignedCrossEntropyLoss(label_smoothing=0.1, **OPTIONS)
    output = module(states @ WEIGHT.T, labels, return_alignment=True)
    again = copied(module)(states @ WEIGHT.T, labels, return_alignment=True)
    assert again.loss == output.loss == copied(output).loss
    assert copied(output).alignment.position_to_target.equal(output.alignment.position_to_target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_states_give_low_precision_gradients(states, labels, dtype):
    leaves = states.to(dtype).requires_grad_(), WEIGHT.to(dtype).requires_grad_()
    loss = linear_axe_loss(*leaves, labels, **OPTIONS)
    loss.backward()
    exact = states.to(dtype).double().requires_grad_(), WEIGHT.to(dtype).double().requires_grad_()
    expected = axe_loss(exact[0] @ exact[1].T, labels, **OPTIONS)
    expected.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=0)
    for leaf, wide in zip(leaves, exact, strict=True):
        assert leaf.grad.dtype == dtype
        torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=5e-2, atol=5e-3)


@every_loss
def test_no_step_makes_the_host_wait_for_another_device(loss, states, labels, monkeypatch):
    """Tensors on "meta" have no values: whatever reads one fails, as `.item()` would wait for a
    GPU."""
    monkeypatch.setitem(globals(), "WEIGHT", WEIGHT.to("meta"))
    states = states.to("meta").requires_grad_()
    loss(states, labels.to("meta")).backward()
    assert states.grad.shape == states.shape and states.grad.device.type == "meta"


def test_autocast_projects_in_its_dtype_and_gives_float32_gradients(states, labels):
    def fused(h):
        with torch.autocast("cpu", torch.bfloat16):
            return linear_cross_entropy(h, WEIGHT, labels, label_smoothing=0.1)

    def plain(h):
        logits = F.linear(h.bfloat16(), WEIGHT.bfloat16())
        return cross_entropy(logits, labels, 0.1)

    assert torch.equal(fused(states), plain(states))
    found = gradient(fused, states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, gradient(plain, states), rtol=2e-2, atol=2e-2)
