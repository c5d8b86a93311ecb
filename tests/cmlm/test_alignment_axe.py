"""The alignment against brute force over all monotonic paths, with ties, and its edges."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axe_hf.cmlm.alignment_axe import align_axe

ALIGN, SKIP_PREDICTION, SKIP_TARGET = range(3)


@functools.cache
def all_paths(target: int, canvas: int) -> list[tuple]:
    """All paths from the start to cell (target, canvas), those that end in the preferred step
    first."""
    if target == canvas == 0:
        return [()]
    paths = []
    if target and canvas:
        paths += [(*p, (ALIGN, target, canvas)) for p in all_paths(target - 1, canvas - 1)]
    if canvas:
        paths += [(*p, (SKIP_PREDICTION, target, canvas)) for p in all_paths(target, canvas - 1)]
    if target:
        paths += [(*p, (SKIP_TARGET, target, canvas)) for p in all_paths(target - 1, canvas)]
    return paths


@functools.cache
def path_features(target: int, canvas: int) -> np.ndarray:
    """How often each path pays each cost: align (target, canvas), blank (canvas), skip (target,
    canvas)."""
    rows = []
    for path in all_paths(target, canvas):
        align, blank = np.zeros((target, canvas)), np.zeros(canvas)
        skip = np.zeros((target, canvas))
        for step, i, j in path:
            if step == ALIGN:
                align[i - 1, j - 1] += 1
            elif step == SKIP_PREDICTION:
                blank[j - 1] += 1
            else:
                skip[i - 1, max(j - 1, 0)] += 1
        rows.append(np.concatenate([align.ravel(), blank, skip.ravel()]))
    return np.stack(rows)


def brute_force(target_costs, blank_costs, delta):
    """The cheapest path, the most preferred of the cheapest: (cost, positions, is_aligned)."""
    target, canvas = target_costs.shape
    flat = target_costs.numpy().ravel()
    prices = np.concatenate([flat, blank_costs.numpy(), delta * flat])
    costs = path_features(target, canvas) @ prices
    best = int(costs.argmin())  # the first of equals
    steps = [step for step in all_paths(target, canvas)[best] if step[0] != SKIP_PREDICTION]
    positions = [max(j - 1, 0) for _, _, j in steps]
    return costs[best], positions, [step == ALIGN for step, _, _ in steps]


@pytest.mark.parametrize("delta", [0, 0.5, 1, 3, 5])
@pytest.mark.parametrize("target", range(6))
def test_alignment_equals_brute_force_ties_included(target, delta):
    for canvas in range(1, 6):
        generator = torch.Generator().manual_seed(100 * target + canvas)
        # small integers: nearly every table is full of ties, and every sum is exact
        costs = torch.randint(0, 4, (12, target, canvas), generator=generator).double()
        blanks = torch.randint(0, 4, (12, canvas), generator=generator).double()
        alignment = align_axe(costs, blanks, delta=delta)
        for sentence in range(12):
            cost, positions, is_aligned = brute_force(costs[sentence], blanks[sentence], delta)
            assert alignment.cost[sentence] == cost
            assert alignment.target_to_position[sentence].tolist() == positions
            assert alignment.is_aligned[sentence].tolist() == is_aligned


def test_a_shifted_sentence_is_aligned_where_its_tokens_are():
    costs = torch.full((1, 3, 5), 9.0)
    for target, position in enumerate([1, 2, 4]):
        costs[0, target, position] = 0.5
    blanks = torch.tensor([[0.25, 9.0, 9.0, 0.25, 9.0]])
    alignment = align_axe(costs, blanks, delta=3.0)
    assert alignment.target_to_position.tolist() == [[1, 2, 4]]
    assert alignment.position_to_target.tolist() == [[-1, 0, 1, -1, 2]]
    assert alignment.num_skipped_predictions.tolist() == [2]
    assert alignment.num_skipped_targets.tolist() == [0]
    assert alignment.cost.tolist() == [2.0]


def test_more_targets_than_positions_are_skipped_at_a_position():
    costs = torch.tensor([[[8.0, 9.0], [0.5, 9.0], [8.0, 9.0], [9.0, 0.5]]])
    alignment = align_axe(costs, torch.full((1, 2), 50.0), delta=0.5)
    assert alignment.target_to_position.tolist() == [[0, 0, 0, 1]]
    assert alignment.is_aligned.tolist() == [[False, True, False, True]]
    assert alignment.num_skipped_targets.tolist() == [2]
    assert alignment.cost.tolist() == [9.0]


def test_padding_is_minus_one_and_counts_nothing():
    costs = torch.rand(2, 4, 5)
    alignment = align_axe(
        costs,
        torch.rand(2, 5),
        delta=2.0,
        target_lengths=torch.tensor([2, 0]),
        canvas_lengths=torch.tensor([3, 0]),
    )
    assert (alignment.target_to_position[0, 2:] == -1).all()
    assert (alignment.position_to_target[0, 3:] == -1).all()
    assert (alignment.target_to_position[1] == -1).all()
    assert alignment.cost[1] == 0
    assert alignment.num_skipped_predictions[1] == 0
    used = alignment.is_aligned[0].sum() + alignment.num_skipped_predictions[0]
    assert used == 3


def test_an_empty_target_skips_every_prediction():
    blanks = torch.rand(3, 4)
    alignment = align_axe(torch.zeros(3, 0, 4), blanks, delta=1.0)
    torch.testing.assert_close(alignment.cost, blanks.sum(1))
    assert alignment.num_skipped_predictions.tolist() == [4, 4, 4]


def test_an_empty_canvas_with_empty_targets_costs_nothing():
    lengths = torch.zeros(2, dtype=torch.long)
    alignment = align_axe(
        torch.zeros(2, 3, 0), torch.zeros(2, 0), delta=1.0, target_lengths=lengths
    )
    assert alignment.cost.tolist() == [0.0, 0.0]


def test_observed_positions_split_the_alignment():
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        length = 7
        costs = torch.randint(0, 4, (1, length, length), generator=generator).double()
        blanks = torch.randint(0, 4, (1, length), generator=generator).double()
        observed = torch.rand(1, length, generator=generator) < 0.4
        alignment = align_axe(costs, blanks, delta=2.0, observed_mask=observed)
        expected, positions, is_aligned, start = 0.0, [], [], 0
        for stop in [*observed[0].nonzero()[:, 0].tolist(), length]:
            if stop > start:
                part = slice(start, stop)
                cost, places, aligned = brute_force(costs[0, part, part], blanks[0, part], 2.0)
                expected += cost
                positions += [start + place for place in places]
                is_aligned += aligned
            if stop < length:
                positions.append(stop)
                is_aligned.append(True)
            start = stop + 1
        assert alignment.cost.item() == expected
        assert alignment.target_to_position[0].tolist() == positions
        assert alignment.is_aligned[0].tolist() == is_aligned


def test_infinite_costs_are_avoided_where_they_can_be():
    costs = torch.tensor([[[torch.inf, 1.0, torch.inf]]])
    blanks = torch.tensor([[2.0, torch.inf, 2.0]])
    alignment = align_axe(costs, blanks, delta=0.0)
    assert alignment.target_to_position.tolist() == [[1]]
    assert alignment.cost.tolist() == [5.0]


def test_a_huge_blank_cost_does_not_blur_the_path():
    """The frame subtracts the blanks' costs, here a million times what decides."""
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(4, 5, 5, generator=generator)
    blanks = torch.full((4, 5), 1e5)
    alignment = align_axe(costs, blanks, delta=3.0)
    for sentence in range(4):
        cost, positions, _ = brute_force(costs[sentence].double(), blanks[sentence].double(), 3.0)
        assert alignment.target_to_position[sentence].tolist() == positions
        assert alignment.cost[sentence].item() == pytest.approx(cost, rel=1e-6)


@settings(max_examples=60)
@given(
    target=st.integers(0, 9),
    canvas=st.integers(1, 9),
    delta=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_every_alignment_is_a_monotonic_path(target, canvas, delta, seed):
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(3, target, canvas, generator=generator)
    alignment = align_axe(costs, torch.rand(3, canvas, generator=generator), delta=delta)
    for positions, aligned, back in zip(
        alignment.target_to_position,
        alignment.is_aligned,
        alignment.position_to_target,
        strict=True,
    ):
        assert (positions.diff() >= 0).all()
        taken = positions[aligned]
        assert taken.unique().numel() == taken.numel()
        for number in range(target):
            if aligned[number]:
                assert back[positions[number]] == number
    assert (alignment.num_skipped_targets + alignment.is_aligned.sum(1) == target).all()
    assert (alignment.num_skipped_predictions + alignment.is_aligned.sum(1) == canvas).all()
