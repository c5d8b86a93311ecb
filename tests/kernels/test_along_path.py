"""The kernels' loss, alignment and gradient against the PyTorch code and the two-loop
definition."""

from dataclasses import replace

import pytest
import torch

from axe_hf.cmlm.alignment_axe import AxeOptions, AxeTargets
from axe_hf.cmlm.path_axe import axe_along_path, path_gradient
from axe_hf.reference import axe_loss_definition

BLANK = 0
CASES = {
    "plain": {"shape": (2, 5, 7, 19)},
    "more targets than positions": {"shape": (2, 7, 3, 19), "delta": 0.5},
    "one position": {"shape": (2, 3, 1, 19)},
    "no target": {"shape": (2, 0, 4, 19)},
    "ragged": {"shape": (4, 6, 7, 19), "is_ragged": True, "delta": 1.0},
    "observed": {"shape": (3, 6, 6, 19), "is_observed": True},
    "ragged, observed": {"shape": (4, 7, 7, 19), "is_ragged": True, "is_observed": True},
    "few tokens, repeated": {"shape": (2, 9, 4, 4), "delta": 0.3},
    "two blocks of the vocabulary": {"shape": (1, 3, 4, 4099)},
}


def make_case(shape, delta=3.0, is_ragged=False, is_observed=False, dtype=torch.float32):
    """Returns logits, what is to be said, and delta."""
    batch, target, canvas, vocab = shape
    generator = torch.Generator().manual_seed(sum(shape))
    logits = (2 * torch.randn(batch, canvas, vocab, generator=generator)).to(dtype)
    tokens = torch.randint(1, vocab, (batch, target), generator=generator)
    target_lengths = torch.full((batch,), target)
    canvas_lengths = observed = None
    if is_ragged:
        canvas_lengths = torch.randint(1, canvas + 1, (batch,), generator=generator)
        target_lengths = torch.randint(0, target + 1, (batch,), generator=generator)
    if is_observed:
        target_lengths = target_lengths if canvas_lengths is None else canvas_lengths
        observed = torch.rand(batch, canvas, generator=generator) < 0.3
        observed &= torch.arange(canvas) < target_lengths[:, None]
    tokens = tokens.masked_fill(torch.arange(target) >= target_lengths[:, None], BLANK)
    return logits, AxeTargets(tokens, target_lengths, canvas_lengths, observed), delta


def to(device, targets):
    """The targets on another device."""
    parts = vars(targets).items()
    return AxeTargets(**{name: None if part is None else part.to(device) for name, part in parts})


def assert_same(device, case, smoothing, upstream, **tolerance):
    """Compares loss, alignment and gradient, in place too."""
    from axe_hf import kernels

    logits, targets, delta = case
    options = AxeOptions(BLANK, delta, smoothing)
    expected = axe_along_path(logits, targets, options)
    expected_grad = path_gradient(logits, expected.path, upstream, options, False)
    moved, upstream = logits.to(device, copy=True), upstream.to(device)
    loss, alignment, path = kernels.axe_along_path(moved, to(device, targets), options)
    torch.testing.assert_close(loss.cpu(), expected.loss)
    assert list(alignment) == list(vars(expected.alignment))
    for name, field in alignment.items():
        wanted = getattr(expected.alignment, name)
        torch.testing.assert_close(field.cpu(), wanted, msg=lambda m, name=name: f"{name}: {m}")
    grad = kernels.path_gradient(moved, path, upstream, options, False)
    assert grad.dtype == logits.dtype and torch.equal(moved.cpu(), logits)
    torch.testing.assert_close(grad.cpu(), expected_grad, **tolerance)
    over = kernels.path_gradient(moved, path, upstream, options, True)
    assert over.data_ptr() == moved.data_ptr() and torch.equal(over, grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_loss_alignment_and_gradient_are_those_of_pytorch(device, name, smoothing):
    case = make_case(**CASES[name])
    upstream = torch.randn(len(case[0]), generator=torch.Generator().manual_seed(0))
    assert_same(device, case, smoothing, upstream)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_logits(device, dtype):
    case = make_case((2, 5, 6, 19), dtype=dtype)
    tolerance = {} if dtype != torch.bfloat16 else {"rtol": 8e-3, "atol": 1e-5}  # one rounding
    assert_same(device, case, 0.1, torch.tensor([0.5, -2.0]).to(case[0].dtype), **tolerance)


def test_float64_is_exact_for_a_delta_that_float32_does_not_hold(device):
    from axe_hf import kernels

    case = make_case((2, 5, 3, 19), delta=0.3, dtype=torch.float64)
    options = {"blank_token_id": BLANK, "delta": 0.3, "label_smoothing": 0.1}
    logits, targets, _ = case
    expected = axe_loss_definition(logits, targets.tokens, **options)
    loss, *_ = kernels.axe_along_path(logits.to(device), to(device, targets), AxeOptions(**options))
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["few tokens, repeated", "ragged, observed"])
def test_value_and_gradient_are_those_of_the_definition(device, name):
    from axe_hf import kernels

    logits, targets, delta = make_case(**CASES[name], dtype=torch.float64)
    tokens, options = targets.tokens, AxeOptions(BLANK, delta, 0.1)
    is_padding = torch.arange(tokens.shape[1]) >= targets.target_lengths[:, None]
    leaf = logits.clone().requires_grad_()
    expected = axe_loss_definition(
        leaf,
        tokens.masked_fill(is_padding, -100),
        blank_token_id=BLANK,
        delta=delta,
        canvas_lengths=targets.canvas_lengths,
        observed_mask=targets.observed_mask,
        label_smoothing=0.1,
    )
    upstream = torch.randn(len(logits), generator=torch.Generator().manual_seed(1)).double()
    expected.backward(upstream)
    moved = logits.to(device)
    loss, _, path = kernels.axe_along_path(moved, to(device, targets), options)
    torch.testing.assert_close(loss.cpu(), expected.detach())
    grad = kernels.path_gradient(moved, path, upstream.to(device), options, False)
    torch.testing.assert_close(grad.cpu(), leaf.grad)


def test_a_gradient_that_was_expanded(device):
    case = make_case((3, 4, 5, 19))
    assert_same(device, case, 0.0, torch.tensor(0.25).expand(3))


def test_logits_need_not_be_contiguous(device):
    from axe_hf import kernels

    plain, targets, delta = make_case((3, 4, 5, 19))
    turned = plain.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    upstream, options = torch.ones(3, device=device), AxeOptions(BLANK, delta)
    grads = []
    for logits in (plain.to(device), turned.to(device)):
        _, _, path = kernels.axe_along_path(logits, to(device, targets), options)
        grads.append(kernels.path_gradient(logits, path, upstream, options, False))
    assert torch.equal(*grads)


def test_large_and_impossible_logits(device):
    logits, targets, delta = make_case((2, 4, 5, 19))
    logits = logits + 1e4
    logits[:, :, 17:] = -torch.inf  # not among the targets below
    targets = replace(targets, tokens=targets.tokens.clamp(max=16))
    assert_same(device, (logits, targets, delta), 0.0, torch.ones(2))


def test_a_sure_token_keeps_its_gradient_in_low_precision(device):
    from axe_hf import kernels

    logits = torch.zeros(1, 1, 19, dtype=torch.bfloat16)
    logits[0, 0, 5] = 10
    targets, options = AxeTargets(torch.tensor([[5]]), torch.tensor([1])), AxeOptions(BLANK, 3.0)
    moved, upstream = logits.to(device), torch.ones(1, device=device)
    _, _, path = kernels.axe_along_path(moved, to(device, targets), options)
    grad = kernels.path_gradient(moved, path, upstream, options, False)
    expected = logits.double().softmax(-1)[0, 0, 5].item() - 1
    assert grad[0, 0, 5].item() == pytest.approx(expected, rel=8e-3)


def test_logits_behind_the_canvas_are_never_read(device):
    from axe_hf import kernels

    logits, targets, delta = make_case((2, 3, 5, 19))
    targets = replace(targets, canvas_lengths=torch.tensor([3, 4]))
    logits[torch.arange(5) >= targets.canvas_lengths[:, None]] = torch.nan
    moved, options = logits.to(device), AxeOptions(BLANK, delta, 0.1)
    loss, _, path = kernels.axe_along_path(moved, to(device, targets), options)
    grad = kernels.path_gradient(moved, path, torch.ones(2, device=device), options, True)
    assert loss.isfinite().all() and grad.isfinite().all()


def test_nan_and_labels_out_of_range_show_in_the_loss(device):
    from axe_hf import kernels

    logits, targets, delta = make_case((3, 4, 5, 19))
    logits[0, 2] = torch.nan
    targets.tokens[1] = 19
    options, upstream = AxeOptions(BLANK, delta), torch.ones(3, device=device)
    loss, _, path = kernels.axe_along_path(logits.to(device), to(device, targets), options)
    assert loss.isnan().tolist() == [True, True, False]
    grad = kernels.path_gradient(logits.to(device), path, upstream, options, False)
    assert grad[2].isfinite().all()
