"""The cross entropy of the baseline is `F.cross_entropy`, with and without logits, and makes no
copies."""

import pytest
import torch
from torch.nn import functional as F

from axe_hf.cmlm import fused_loss_axe
from axe_hf.cmlm.loss_cmlm import cross_entropy, linear_cross_entropy

BATCH, LENGTH, HIDDEN, VOCAB = 5, 6, 8, 23
smoothings = pytest.mark.parametrize("label_smoothing", [0.0, 0.1])


@pytest.fixture
def inputs():
    """Hidden states, weight, bias and labels; -100 anywhere, in the whole of sentence 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((BATCH, LENGTH, HIDDEN), (VOCAB, HIDDEN), (VOCAB,))
    floats = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    labels = torch.randint(0, VOCAB, (BATCH, LENGTH), generator=generator)
    labels[torch.rand(BATCH, LENGTH, generator=generator) < 0.3] = -100
    labels[3] = -100
    return *floats, labels


@pytest.fixture
def sentences_per_chunk(request, monkeypatch):
    size = request.param * LENGTH * VOCAB * 8
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", size)


def reference(logits, labels, label_smoothing):
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    options = {"reduction": "sum", "label_smoothing": label_smoothing}
    return F.cross_entropy(wide.flatten(0, 1), labels.flatten(), **options)


def value_and_gradients(function, *tensors):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    loss = function(*leaves)
    (-1.7 * loss).backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


@smoothings
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_torchs_cross_entropy(inputs, dtype, label_smoothing):
    hidden_states, weight, bias, labels = inputs
    logits = F.linear(hidden_states, weight, bias).to(dtype)
    ours, expected = (
        value_and_gradients(lambda x, f=function: f(x, labels, label_smoothing), logits)
        for function in (cross_entropy, reference)
    )
    assert ours[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ours[1].dtype == dtype
    torch.testing.assert_close(ours, expected)


@smoothings
@pytest.mark.parametrize("sentences_per_chunk", [1, 2, 100], indirect=True)
@pytest.mark.usefixtures("sentences_per_chunk")
@pytest.mark.parametrize("has_bias", [False, True])
def test_without_logits_it_is_the_same(inputs, has_bias, label_smoothing):
    hidden_states, weight, bias, labels = inputs
    tensors = (hidden_states, weight, bias)[: 2 + has_bias]
    ours = value_and_gradients(
        lambda h, w, b=None: linear_cross_entropy(
            h, w, labels, bias=b, label_smoothing=label_smoothing
        ),
        *tensors,
    )
    expected = value_and_gradients(
        lambda h, w, b=None: reference(F.linear(h, w, b), labels, label_smoothing), *tensors
    )
    torch.testing.assert_close(ours, expected)


@smoothings
def test_gradients_equal_finite_differences(inputs, label_smoothing):
    hidden_states, weight, bias, labels = (tensor[:2] for tensor in inputs)
    weight, bias = (tensor.requires_grad_() for tensor in inputs[1:3])
    logits = F.linear(hidden_states, weight, bias).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, label_smoothing), logits)

    def fused(h, w, b):
        return linear_cross_entropy(h, w, labels, bias=b, label_smoothing=label_smoothing)

    assert torch.autograd.gradcheck(fused, (hidden_states.requires_grad_(), weight, bias))


@pytest.mark.parametrize("batch", [0, BATCH])
def test_with_nothing_to_score_it_is_zero(inputs, batch):
    hidden_states, weight = inputs[0][:batch], inputs[1]
    labels = torch.full((batch, LENGTH), -100)
    for ours in (
        value_and_gradients(lambda x: cross_entropy(x, labels, 0.1), hidden_states @ weight.T),
        value_and_gradients(lambda h, w: linear_cross_entropy(h, w, labels), hidden_states, weight),
    ):
        assert all((tensor == 0).all() for tensor in ours)


def test_a_label_of_probability_zero_costs_infinity(inputs):
    logits, labels = torch.zeros(1, 2, VOCAB), torch.tensor([[3, -100]])
    logits[0, :, 3] = -torch.inf
    assert cross_entropy(logits, labels) == torch.inf
    assert cross_entropy(logits, labels.masked_fill(labels == 3, 4)).isfinite()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_compiled_without_graph_breaks_it_is_the_same(inputs, dtype):
    hidden_states, weight, _, labels = inputs
    labels = labels.to(dtype)

    def loss(h, w):
        return cross_entropy(h @ w.T, labels, 0.1) + linear_cross_entropy(h, w, labels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = [value_and_gradients(function, hidden_states, weight) for function in (compiled, loss)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_tensor_of_the_logits_size_is_made_and_in_their_dtype(allocations_of, dtype):
    logits = torch.randn(8, 16, 40_000, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 40_000, (8, 16))
    with allocations_of(logits) as allocations:
        cross_entropy(logits, labels).backward()
    large = [size for size in allocations.sizes if size >= 8 * 16 * 40_000]
    assert large == [logits.untyped_storage().nbytes()]


def test_without_logits_they_are_never_held(allocations_of, monkeypatch):
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", 2**20)
    hidden_states = torch.randn(16, 12, 4, requires_grad=True)
    weight = torch.randn(20_000, 4, requires_grad=True)
    labels = torch.randint(0, 20_000, (16, 12))
    with allocations_of() as allocations:
        linear_cross_entropy(hidden_states, weight, labels).backward()
    assert max(allocations.sizes) < 16 * 12 * 20_000 * 4 / 6


def test_wrong_labels_are_named(inputs):
    hidden_states, weight, _, labels = inputs
    logits = hidden_states @ weight.T
    labels[1, 2] = VOCAB
    message = rf"`labels` must be in \[0, {VOCAB}\) or -100, got {VOCAB} at \[1, 2\].*resize_token"
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, labels)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(hidden_states, weight, labels)
    with pytest.raises(ValueError, match=r"`labels` are \(5, 5\), the canvas is \(5, 6\)"):
        linear_cross_entropy(hidden_states, weight, labels[:, 1:])
    with pytest.raises(TypeError, match="`labels` must be a tensor of integers"):
        cross_entropy(logits, labels.double())
