"""The alignment kernel takes the very path that PyTorch takes."""

import pytest
import torch

from axe_hf.cmlm.alignment_axe import AxeTargets, align_axe


def integer_costs(batch, target, canvas, seed):
    """Small integers: nearly every table is full of ties, and every sum is exact."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randint(0, 4, (batch, target, canvas), generator=generator)
    return costs.float(), torch.randint(0, 4, (batch, canvas), generator=generator).float()


def aligned(device, costs, blanks, delta, **options):
    """The kernel's alignment, a dictionary."""
    from axe_hf.kernels import align_log_probs

    lengths = options.pop("target_lengths", torch.full((len(costs),), costs.shape[1]))
    options = {name: tensor.to(device) for name, tensor in options.items()}
    targets = AxeTargets(None, lengths.to(device), **options)
    return align_log_probs(-costs.to(device), -blanks.to(device), targets, delta)


def assert_same_path(device, costs, blanks, delta, **options):
    """Compares all fields of the alignment."""
    fields = aligned(device, costs, blanks, delta, **options)
    expected = align_axe(costs, blanks, delta=delta, **options)
    assert list(fields) == list(vars(expected))
    for name, field in fields.items():
        value, field = getattr(expected, name), field.cpu()
        assert field.dtype == value.dtype and field.shape == value.shape, name
        assert torch.equal(field, value), f"{name}:\n{field}\ninstead of\n{value}"


@pytest.mark.parametrize("delta", [0, 0.5, 1, 3])
@pytest.mark.parametrize("target, canvas", [(5, 7), (7, 4), (6, 6), (3, 1), (0, 5)])
def test_ties_go_the_same_way(device, target, canvas, delta):
    assert_same_path(device, *integer_costs(3, target, canvas, seed=target), delta)


def test_ragged_lengths(device):
    costs, blanks = integer_costs(6, 6, 9, seed=1)
    target_lengths = torch.tensor([6, 0, 4, 1, 6, 3])
    canvas_lengths = torch.tensor([9, 5, 1, 9, 3, 6])
    lengths = {"target_lengths": target_lengths, "canvas_lengths": canvas_lengths}
    assert_same_path(device, costs, blanks, 1.0, **lengths)


@pytest.mark.parametrize("seed", range(3))
def test_observed_positions_split_the_path(device, seed):
    costs, blanks = integer_costs(4, 8, 8, seed=seed)
    lengths = torch.tensor([8, 5, 8, 1])
    observed = torch.rand(4, 8, generator=torch.Generator().manual_seed(seed)) < 0.4
    observed &= torch.arange(8) < lengths[:, None]
    options = {"target_lengths": lengths, "canvas_lengths": lengths, "observed_mask": observed}
    assert_same_path(device, costs, blanks, 0.5, **options)


@pytest.mark.parametrize("is_observed", [False, True])
def test_canvas_and_target_beyond_one_block(device, monkeypatch, is_observed):
    from axe_hf.kernels import alignment

    monkeypatch.setattr(alignment, "MAX_BLOCK", 16)
    monkeypatch.setattr(alignment, "MAX_BLOCK_TARGET", 16)
    costs, blanks = integer_costs(2, 35, 35, seed=2)
    lengths = torch.tensor([35, 18])
    options = {"target_lengths": lengths, "canvas_lengths": lengths}
    if is_observed:
        observed = torch.rand(2, 35, generator=torch.Generator().manual_seed(2)) < 0.1
        observed[0, 15:17] = True  # on either side of a block's end
        options["observed_mask"] = observed & (torch.arange(35) < lengths[:, None])
    assert_same_path(device, costs, blanks, 1.0, **options)


@pytest.mark.parametrize("delta", [0.3, 3.0])
def test_rounding_is_the_same_too(device, delta):
    generator = torch.Generator().manual_seed(3)
    costs = torch.rand(2, 12, 14, generator=generator)
    blanks = torch.rand(2, 14, generator=generator)
    expected = align_axe(costs, blanks, delta=delta)
    fields = aligned(device, costs, blanks, delta)
    assert torch.equal(fields["target_to_position"].cpu(), expected.target_to_position)
    torch.testing.assert_close(fields["cost"].cpu(), expected.cost)


def test_infinite_costs_are_avoided(device):
    costs = torch.tensor([[[torch.inf, 1.0, torch.inf], [torch.inf, torch.inf, 2.0]]])
    assert_same_path(device, costs, torch.tensor([[1.0, torch.inf, torch.inf]]), 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a GPU: hours in the interpreter")
@pytest.mark.parametrize("canvas", [64, 300, 1024, 2048])
def test_long_sentences(device, canvas):
    costs, blanks = integer_costs(3, canvas, canvas, seed=canvas)
    lengths = torch.tensor([canvas, canvas // 2, canvas - 1])
    options = {"target_lengths": lengths, "canvas_lengths": lengths.flip(0)}
    assert_same_path(device, costs, blanks, 1.0, **options)
