"""`axe_loss`: values and gradients against the definition, its invariants, and every bad input."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from axe_hf.cmlm.loss_axe import AlignedCrossEntropyLoss, axe_loss
from axe_hf.reference import axe_loss_definition

BLANK = 0


def random_case(generator, max_length=8, dtype=torch.float64, is_observed=False, vocab=11):
    """Logits, labels and options of three ragged sentences."""
    canvas, target = torch.randint(1, max_length + 1, (2,), generator=generator).tolist()
    target = canvas if is_observed else target - 1
    labels = torch.randint(1, vocab, (3, target), generator=generator)
    canvas_lengths = torch.randint(1, canvas + 1, (3,), generator=generator)
    target_lengths = torch.randint(0, target + 1, (3,), generator=generator)
    observed_mask = None
    if is_observed:
        target_lengths = canvas_lengths
        observed_mask = torch.rand(3, canvas, generator=generator) < 0.4
        observed_mask &= torch.arange(canvas) < canvas_lengths[:, None]
    labels[torch.arange(target) >= target_lengths[:, None]] = -100
    logits = 3 * torch.randn(3, canvas, vocab, generator=generator, dtype=torch.float64)
    options = {
        "canvas_lengths": canvas_lengths,
        "observed_mask": observed_mask,
        "delta": [0.0, 0.5, 1.0, 3.0, 5.0][int(torch.randint(0, 5, (), generator=generator))],
        "label_smoothing": [0.0, 0.1][int(torch.randint(0, 2, (), generator=generator))],
        "blank_token_id": BLANK,
    }
    return logits.to(dtype), labels, options


def value_and_gradient(function, logits, labels, options, weights=1.0):
    """The loss and, of the sum of the loss times the weights, the gradient."""
    logits = logits.clone().requires_grad_()
    loss = function(logits, labels, **options)
    ((loss * weights).sum() + 0 * logits.nan_to_num().sum()).backward()
    return loss.detach(), logits.grad


def test_a_sentence_that_starts_one_position_late_costs_almost_nothing():
    logits = 20.0 * F.one_hot(torch.tensor([[BLANK, 3, 1, 2]]), 5)
    labels = torch.tensor([[3, 1, 2]])
    output = axe_loss(
        logits, labels, blank_token_id=BLANK, delta=4.0, reduction="sum", return_alignment=True
    )
    assert output.loss.item() == pytest.approx(0.0, abs=1e-5)
    assert output.alignment.target_to_position.tolist() == [[1, 2, 3]]


def test_skipped_target_and_blank_are_priced_by_hand():
    # uniform over 4 tokens: every step costs log 4, a skipped target delta times as much
    logits = torch.zeros(2, 2, 4)
    labels = torch.tensor([[1, 2, 3], [1, -100, -100]])
    loss = axe_loss(logits, labels, blank_token_id=BLANK, delta=3.0, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([2 + 3.0, 2.0]) * torch.log(torch.tensor(4.0)))


@pytest.mark.parametrize("is_observed", [False, True])
def test_values_and_gradients_equal_the_definition(is_observed):
    generator = torch.Generator().manual_seed(int(is_observed))
    for _ in range(60):
        logits, labels, options = random_case(generator, is_observed=is_observed)
        weights = torch.randn(3, generator=generator, dtype=torch.float64)
        expected = value_and_gradient(axe_loss_definition, logits, labels, options, weights)
        options["reduction"] = "none"
        torch.testing.assert_close(
            value_and_gradient(axe_loss, logits, labels, options, weights), expected
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("canvas", "target"),
    [
        (60, 1),
        (1, 60),
        (30, 37),
        (41, 25),
        (120, 113),
        (150, 200),
        (200, 190),
    ],
)
def test_long_ragged_sentences_equal_the_definition(canvas, target):
    generator = torch.Generator().manual_seed(canvas)
    logits = 2 * torch.randn(3, canvas, 30, generator=generator)
    labels = torch.randint(1, 30, (3, target), generator=generator)
    labels[1] = -100  # no target at all
    labels[2, max(1, target // 3) :] = -100
    lengths = torch.tensor([canvas, max(1, canvas // 5), max(1, canvas // 4)])
    options = {"blank_token_id": BLANK, "delta": 2.0, "canvas_lengths": lengths}
    options["label_smoothing"] = 0.1
    loss = axe_loss(logits, labels, reduction="none", **options)
    expected = axe_loss_definition(logits.double(), labels, **options)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [30, 110])
def test_long_observed_sentences_equal_the_definition(length):
    generator = torch.Generator().manual_seed(length)
    logits = 2 * torch.randn(2, length, 30, generator=generator)
    labels = torch.randint(1, 30, (2, length), generator=generator)
    lengths = torch.tensor([length, length - 9])
    labels[1, -9:] = -100
    observed = torch.rand(2, length, generator=generator) < 0.15
    observed &= labels != -100
    options = {"blank_token_id": BLANK, "delta": 2.0}
    options |= {"canvas_lengths": lengths, "observed_mask": observed}
    loss = axe_loss(logits, labels, reduction="none", **options)
    expected = axe_loss_definition(logits.double(), labels, **options)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0, 3.0])
def test_gradient_equals_finite_differences(delta, label_smoothing):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 1, 1, 1, 2, 2], [3, 4, 2, 1, -100, -100], [-100] * 6])
    observed = torch.zeros(3, 4, dtype=torch.bool)
    observed[1, 2] = True
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda x, reduction=reduction: axe_loss(
                x,
                labels,
                blank_token_id=BLANK,
                delta=delta,
                observed_mask=observed,
                label_smoothing=label_smoothing,
                reduction=reduction,
            ),
            logits,
        )


def test_reductions():
    generator = torch.Generator().manual_seed(0)
    logits, labels, options = random_case(generator, is_observed=True)
    each = axe_loss(logits, labels, reduction="none", **options)
    total = axe_loss(logits, labels, reduction="sum", **options)
    num_scored = ((labels != -100) & ~options["observed_mask"]).sum()
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(axe_loss(logits, labels, **options), total / num_scored)
    for divisor in (17, torch.tensor(17)):
        mean = axe_loss(logits, labels, num_items_in_batch=divisor, **options)
        torch.testing.assert_close(mean, total / 17)


def test_module_equals_function():
    generator = torch.Generator().manual_seed(1)
    logits, labels, options = random_case(generator)
    tensors = {name: options.pop(name) for name in ("canvas_lengths", "observed_mask")}
    module = AlignedCrossEntropyLoss(**options)
    assert module(logits, labels, **tensors) == axe_loss(logits, labels, **options, **tensors)
    assert "delta" in repr(module)


def test_observed_tokens_neither_cost_nor_get_a_gradient():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    observed = torch.tensor([[False, True, False]])
    labels = torch.tensor([[1, 2, 3]])
    loss = axe_loss(logits, labels, blank_token_id=BLANK, delta=9.0, observed_mask=observed)
    loss.backward()
    assert (logits.grad[0, 1] == 0).all()
    expected = F.cross_entropy(logits[0, [0, 2]], labels[0, [0, 2]])
    torch.testing.assert_close(loss, expected)


def test_order_of_the_batch_and_width_of_the_padding_change_nothing():
    generator = torch.Generator().manual_seed(2)
    logits, labels, options = random_case(generator, dtype=torch.float32)
    order = torch.tensor([2, 0, 1])
    each = axe_loss(logits, labels, reduction="none", **options)
    moved = options | {"canvas_lengths": options["canvas_lengths"][order]}
    assert torch.equal(
        axe_loss(logits[order], labels[order], reduction="none", **moved), each[order]
    )
    found = [value_and_gradient(axe_loss, logits, labels, options)[1]]
    found.append(value_and_gradient(axe_loss, logits[order], labels[order], moved)[1])
    assert torch.equal(found[1], found[0][order])
    wide = F.pad(logits, (0, 0, 0, 3), value=torch.nan)
    padded = axe_loss(wide, F.pad(labels, (0, 4), value=-100), reduction="none", **options)
    assert torch.equal(padded, each)


@settings(max_examples=40)
@given(length=st.integers(1, 12), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_axe_is_at_most_cross_entropy_and_grows_with_delta(length, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, length, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, 9, (2, length), generator=generator)
    losses = [
        axe_loss(logits, labels, blank_token_id=BLANK, delta=delta) for delta in (0, 0.5, 1, 3, 1e3)
    ]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(losses))
    assert losses[-1] <= F.cross_entropy(logits.flatten(0, 1), labels.flatten()) + 1e-12


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_rows_of_the_gradient_sum_to_zero(seed):
    logits, labels, options = random_case(torch.Generator().manual_seed(seed))
    _, grad = value_and_gradient(axe_loss, logits, labels, options)
    torch.testing.assert_close(grad.sum(-1), torch.zeros_like(grad[..., 0]), rtol=0, atol=1e-12)


def test_a_sure_model_is_aligned_in_order():
    labels = torch.randint(1, 9, (4, 10), generator=torch.Generator().manual_seed(0))
    output = axe_loss(
        30.0 * F.one_hot(labels, 9), labels, blank_token_id=BLANK, delta=2.0, return_alignment=True
    )
    assert torch.equal(output.alignment.target_to_position, torch.arange(10).expand(4, -1))
    assert output.alignment.num_skipped_targets.sum() == 0


def test_float32_is_within_a_millionth_of_float64():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(8, 20, 2000, generator=generator)
    labels = torch.randint(1, 2000, (8, 20), generator=generator)
    single = axe_loss(logits, labels, blank_token_id=BLANK, delta=3.0)
    double = axe_loss(logits.double(), labels, blank_token_id=BLANK, delta=3.0)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_no_worse_than_the_naive_way(dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 50, (4, 9), generator=generator)
    logits = torch.randn(4, 9, 50, generator=generator) + 6 * F.one_hot(labels, 50)
    logits = logits.to(dtype)
    options = {"blank_token_id": BLANK, "delta": 3.0}
    ours = value_and_gradient(axe_loss, logits, labels, options)
    naive, exact = (
        value_and_gradient(axe_loss_definition, logits.to(wide), labels, options, 1 / 36)
        for wide in (torch.float32, torch.float64)
    )
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == dtype
    naive_loss, exact_loss = naive[0].sum() / 36, exact[0].sum() / 36
    assert (ours[0] - exact_loss).abs() <= (naive_loss - exact_loss).abs() + 1e-6 * exact_loss
    error = (ours[1].double() - exact[1]).abs()
    assert (error <= (naive[1].to(dtype).double() - exact[1]).abs() + 1e-7).all()


@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
def test_extreme_logits(offset):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 12, generator=generator)
    logits[:, :, BLANK] -= 100  # a blank of probability e^-100
    logits[:, :, 10:] = -torch.inf  # unused entries of the vocabulary
    logits[0, 0, 3] = 1e4
    logits = logits + offset
    labels = torch.randint(1, 10, (2, 5), generator=generator)
    options = {"blank_token_id": BLANK, "delta": 3.0}
    expected, expected_grad = value_and_gradient(
        axe_loss_definition, logits.double(), labels, options
    )
    loss, grad = value_and_gradient(axe_loss, logits, labels, options | {"reduction": "none"})
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-5, atol=1e-5)


def test_sentences_without_targets_or_canvas():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.tensor([[-100, -100], [-100, -100]])
    lengths = torch.tensor([3, 0])
    loss = axe_loss(
        logits, labels, blank_token_id=BLANK, delta=1.0, canvas_lengths=lengths, reduction="none"
    )
    torch.testing.assert_close(loss[0], -logits[0].log_softmax(-1)[:, BLANK].sum())
    assert loss[1] == 0
    loss.sum().backward()
    assert (logits.grad[1] == 0).all()
    empty = axe_loss(logits[:, :0], labels, blank_token_id=BLANK, delta=1.0, reduction="none")
    assert empty.tolist() == [0.0, 0.0]
