"""oneDNN in place of the BLAS: the same results up to rounding, and only where it fits."""

import pytest
import torch
from torch.nn import functional as F

from axe_hf.cmlm import generation_cmlm
from axe_hf.kernels import onednn
from axe_hf.kernels.onednn import MIN_ROWS, OneDnnLinear

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


ONEDNN = "_linear_pointwise"  # PyTorch's operator


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Names of the operators that ran, and the shapes that oneDNN met."""

    def __enter__(self):
        self.names, self.shapes = [], set()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__.split(".")[0])
        if self.names[-1] == ONEDNN:
            self.shapes.add(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


def uses_onednn(function):
    with torch.no_grad(), OneDnnLinear(), Calls() as calls:
        result = function()
    return ONEDNN in calls.names, result


@needs_onednn
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(MIN_ROWS, 8), (2, MIN_ROWS, 8), (3, 2, MIN_ROWS, 8)])
def test_a_linear_layer_gives_the_same_up_to_rounding(shape, has_bias):
    torch.manual_seed(0)
    layer, states = torch.nn.Linear(8, 33, bias=has_bias), torch.randn(shape)
    is_used, found = uses_onednn(lambda: layer(states))
    assert is_used
    exact = F.linear(
        states.double(), layer.weight.double(), layer.bias.double() if has_bias else None
    )
    torch.testing.assert_close(found, exact.float(), atol=1e-6, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("num_rows", [17, 100, 129, 1000])
def test_a_number_of_rows_between_two_steps_changes_nothing(num_rows):
    torch.manual_seed(0)
    layer, states = torch.nn.Linear(8, 33), torch.randn(num_rows, 8)
    is_used, found = uses_onednn(lambda: layer(states))
    assert is_used and found.shape == (num_rows, 33)
    exact = F.linear(states.double(), layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(found, exact.float(), atol=1e-6, rtol=1e-5)


@needs_onednn
def test_memory_is_bounded_by_few_shapes():
    """oneDNN keeps what it made for each shape; it meets at most eight between 2^k and 2^(k+1)."""
    weight = torch.randn(5, 8)
    with torch.no_grad(), OneDnnLinear(), Calls() as calls:
        for num_rows in range(MIN_ROWS, 1216):
            F.linear(torch.randn(num_rows, 8), weight)
    assert 0 < len(calls.shapes) <= 8 * 7
    assert all(rows <= 1.125 * 1216 for rows, _ in calls.shapes)


@needs_onednn
def test_transposed_views_are_as_good():
    torch.manual_seed(0)
    states = torch.randn(8, MIN_ROWS, 2).transpose(0, 2)  # (2, rows, 8)
    weight = torch.randn(8, 33).t()
    assert not states.is_contiguous() and not weight.is_contiguous()
    is_used, found = uses_onednn(lambda: F.linear(states, weight))
    assert is_used
    exact = F.linear(states.double(), weight.double())
    torch.testing.assert_close(found, exact.float(), atol=1e-5, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize(
    "states",
    [
        torch.randn(MIN_ROWS - 1, 8),
        torch.randn(0, 8),
        torch.randn(64, 8, dtype=torch.float64),
        torch.randn(64, 8, dtype=torch.bfloat16),
    ],
    ids=["few rows", "no rows", "float64", "bfloat16"],
)
def test_what_does_not_fit_is_left_to_pytorch(states):
    layer = torch.nn.Linear(8, 5).to(states.dtype)
    is_used, found = uses_onednn(lambda: layer(states))
    assert not is_used
    assert found.equal(layer(states))


@needs_onednn
def test_gradients_are_never_lost():
    layer = torch.nn.Linear(8, 5)
    with OneDnnLinear():
        layer(torch.randn(64, 8)).sum().backward()
    assert layer.weight.grad is not None


@needs_onednn
@pytest.mark.parametrize("num_iterations", [1, 4])
def test_decoding_is_the_same_with_and_without(make_model, make_sources, num_iterations):
    for seed in range(10):
        model = make_model(seed=seed, tie_word_embeddings=False)
        decoding = make_sources([9, 3, 20, 1], seed=seed)
        decoding |= {"num_iterations": num_iterations, "num_length_candidates": 3}
        results = []
        for use_onednn in (True, False):
            with Calls() as calls:
                results.append(
                    model.generate(**decoding, use_onednn=use_onednn, return_dict_in_generate=True)
                )
            assert (ONEDNN in calls.names) == use_onednn
        assert results[0].sequences.equal(results[1].sequences)
        torch.testing.assert_close(results[0].sequences_scores, results[1].sequences_scores)


@needs_onednn
def test_autocast_is_left_to_pytorch(make_model, make_sources):
    model, sources = make_model(), make_sources([20, 20])
    with torch.autocast("cpu", torch.bfloat16):
        plain = model.generate(**sources, use_onednn=False)
        assert model.generate(**sources, use_onednn=True).equal(plain)


@needs_onednn
def test_it_is_refused_for_other_types_than_float32(make_model, make_sources):
    with pytest.raises(ValueError, match="the model is in torch.bfloat16 on cpu"):
        make_model().bfloat16().generate(**make_sources([20]), use_onednn=True)
    with Calls() as calls:
        make_model().bfloat16().generate(**make_sources([20, 20]))
    assert ONEDNN not in calls.names


@pytest.mark.parametrize("is_amd", [True, False])
def test_by_default_the_processor_decides(make_model, make_sources, monkeypatch, is_amd):
    monkeypatch.setattr(onednn, "is_amd_processor", lambda: is_amd)
    with Calls() as calls:
        make_model().generate(**make_sources([20, 20]))
    assert (ONEDNN in calls.names) == (is_amd and torch.backends.mkldnn.is_available())


def test_asking_for_what_is_not_there_is_an_error(make_model, make_sources, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    make_model().generate(**make_sources([20]))
    with pytest.raises(ValueError, match="built without oneDNN"):
        make_model().generate(**make_sources([20]), use_onednn=True)
    with pytest.raises(ValueError, match="`use_onednn` must be True, False or None"):
        make_model().generate(**make_sources([20]), use_onednn="yes")


def test_the_code_of_a_checkpoint_without_the_package_decodes_plainly(
    make_model, make_sources, monkeypatch
):
    monkeypatch.setattr(generation_cmlm, "linear_on_cpu", None)
    with Calls() as calls:
        make_model().generate(**make_sources([20, 20]))
    assert ONEDNN not in calls.names
    with pytest.raises(ValueError, match="`use_onednn=True` needs the axe_hf package"):
        make_model().generate(**make_sources([20]), use_onednn=True)


def test_what_another_machine_has_saved_is_passed_over(make_model, make_sources, monkeypatch):
    monkeypatch.setattr(generation_cmlm, "linear_on_cpu", None)
    model, sources = make_model(), make_sources([20, 20])
    expected = model.generate(**sources)
    model.generation_config.use_onednn = True
    assert torch.equal(model.generate(**sources), expected)
