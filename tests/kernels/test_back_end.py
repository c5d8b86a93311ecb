"""The losses give the same whichever back end computes them."""

import pytest
import torch

from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import axe_loss

OPTIONS = {"blank_token_id": 0, "delta": 3.0, "label_smoothing": 0.1}


def make_inputs(device):
    """Logits (3, 6, 19), decoder states (3, 6, 8), weight (19, 8), labels (3, 4)."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 6, 19), (3, 6, 8), (19, 8))
    labels = torch.randint(1, 19, (3, 4), generator=generator)
    labels[1, 2:] = -100
    floats = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    return *floats, labels.to(device)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("inplace_backward", [False, True])
def test_axe_loss_is_the_same(device, reduction, inplace_backward):
    logits, _, _, labels = make_inputs(device)
    found = []
    for implementation in ("torch", "triton"):
        leaf = logits.clone().requires_grad_()
        output = axe_loss(
            leaf * 1,
            labels,
            reduction=reduction,
            implementation=implementation,
            inplace_backward=inplace_backward,
            return_alignment=True,
            **OPTIONS,
        )
        output.loss.sum().backward()
        found.append((output.loss.detach(), leaf.grad, *vars(output.alignment).values()))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_axe_loss_is_the_same(device, reduction):
    _, states, weight, labels = make_inputs(device)
    found = []
    for implementation in ("torch", "triton"):
        leaves = (states.clone().requires_grad_(), weight.clone().requires_grad_())
        options = {"reduction": reduction, "implementation": implementation, **OPTIONS}
        loss = linear_axe_loss(*leaves, labels, **options)
        loss.sum().backward()
        found.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(found[1], found[0])


def test_the_kernels_run_under_compile(device):
    logits, _, _, labels = make_inputs(device)

    def loss(logits):
        return axe_loss(logits, labels, implementation="triton", **OPTIONS)

    grads = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaf = logits.clone().requires_grad_()
        function(leaf).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0])


def test_an_unknown_back_end_is_refused():
    with pytest.raises(ValueError, match="`implementation` must be one of auto, torch, triton"):
        axe_loss(torch.zeros(1, 1, 3), torch.ones(1, 1).long(), implementation="cuda", **OPTIONS)
