import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axe_hf.data import MaxTokensBatchSampler
from axe_hf.data.batching import EvenBatches, OrderByLength, _divided, batch_bounds


def random_lengths(num_examples=301, longest=37, seed=0):
    return np.random.default_rng(seed).integers(1, longest + 1, size=(num_examples, 2))


def cost(batch, lengths):
    return len(batch) * max(lengths[index].max() for index in batch)


def flat(batches):
    return [index for batch in batches for index in batch]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40),
    max_tokens=st.integers(9, 60),
    epoch=st.integers(0, 3),
)
def test_every_example_comes_once_and_no_batch_is_over_the_budget(lengths, max_tokens, epoch):
    sampler = MaxTokensBatchSampler(lengths, max_tokens, seed=5)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert all(cost(batch, np.array(lengths)) <= max_tokens for batch in batches)
    assert len(sampler) == len(batches)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=60), budget=st.integers(90, 400))
def test_batches_of_sorted_sizes_end_where_the_next_row_would_not_fit(sizes, budget):
    sizes, expected, start = sorted(sizes), [], 0
    for end, size in enumerate(sizes):
        if (end + 1 - start) * size > budget:
            expected.append((start, end))
            start = end
    expected.append((start, len(sizes)))
    assert batch_bounds(np.array(sizes, np.uint8), budget) == expected


def test_an_example_takes_a_byte_for_its_size_and_is_where_it_was_with_eight():
    lengths = random_lengths(2000)
    sampler = MaxTokensBatchSampler(lengths, max_tokens=100, seed=3)
    assert sampler.sizes.dtype == np.uint8
    generator, sizes = np.random.default_rng([3, 0, 0]), lengths.max(axis=1)
    shuffled = generator.permutation(len(sizes))
    order = shuffled[np.argsort(sizes[shuffled], kind="stable")]
    bounds = batch_bounds(np.sort(sizes), 100)
    expected = [order[slice(*bounds[i])].tolist() for i in generator.permutation(len(bounds))]
    assert list(sampler) == expected


def test_number_of_batches_is_the_same_in_every_epoch():
    sampler = MaxTokensBatchSampler(random_lengths(), max_tokens=100)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)


def test_order_and_make_up_of_batches_change_with_the_epoch_and_the_seed():
    lengths = random_lengths()

    def batches(seed, epoch):
        sampler = MaxTokensBatchSampler(lengths, max_tokens=200, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    first = batches(seed=0, epoch=0)
    for other in (batches(seed=0, epoch=1), batches(seed=1, epoch=0), batches(seed=-1, epoch=0)):
        assert other != first
        assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in first}


def test_same_seed_and_epoch_give_the_same_batches_again():
    lengths = random_lengths()
    sampler = MaxTokensBatchSampler(lengths, max_tokens=200, seed=3)
    sampler.set_epoch(4)
    once, again = list(sampler), list(sampler)
    resumed = MaxTokensBatchSampler(lengths, max_tokens=200, seed=3)
    resumed.set_epoch(4)
    assert once == again == list(resumed)


def test_batches_hold_sentences_of_similar_length():
    lengths = random_lengths(num_examples=2000)
    batches = list(MaxTokensBatchSampler(lengths, max_tokens=400))
    used = sum(int(lengths[batch].max(axis=1).sum()) for batch in batches)
    assert used / sum(cost(batch, lengths) for batch in batches) > 0.95


def test_one_size_per_example_is_as_good_as_a_pair():
    lengths = random_lengths()
    pairs = MaxTokensBatchSampler(lengths, max_tokens=90)
    sizes = MaxTokensBatchSampler(lengths.max(axis=1).tolist(), max_tokens=90)
    assert list(pairs) == list(sizes)


@pytest.mark.parametrize("num_replicas", [2, 3, 7])
def test_number_of_batches_is_a_multiple_of_the_replicas(num_replicas):
    lengths = random_lengths()
    sampler = MaxTokensBatchSampler(lengths, max_tokens=100, num_replicas=num_replicas)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert len(batches) % num_replicas == 0
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert all(cost(batch, lengths) <= 100 for batch in batches)


@pytest.mark.parametrize(("max_tokens", "in_step"), [(100, 4), (100, 6), (60, 12), (300, 12)])
def test_the_batches_of_a_step_are_the_same_for_processes_and_accumulation(max_tokens, in_step):
    lengths = random_lengths(num_examples=123)
    expected = list(MaxTokensBatchSampler(lengths, max_tokens, num_replicas=in_step))
    assert sorted(flat(expected)) == list(range(123))
    for processes in (1, 2, in_step // 2):
        cut = {"num_replicas": processes, "accumulation": in_step // processes}
        assert list(MaxTokensBatchSampler(lengths, max_tokens, **cut)) == expected


def test_where_examples_are_too_few_for_whole_steps_only_the_processes_get_equally_many():
    for lengths in ([3] * 5, [3, 4, 5]):
        sampler = MaxTokensBatchSampler(lengths, 10, num_replicas=2, accumulation=5)
        assert sorted(flat(sampler)) == list(range(len(lengths))) and len(sampler) in (2, 4)


def test_batches_are_halved_from_the_largest_the_first_of_equal_ones_first():
    bounds = [(0, 9), (9, 18), (18, 20)]
    assert _divided(bounds, 1) == _divided(bounds, 3) == bounds
    assert _divided(bounds, 5) == [(0, 4), (4, 9), (9, 13), (13, 18), (18, 20)]
    assert _divided(bounds, 7) == [(0, 4), (4, 6), (6, 9), (9, 13), (13, 15), (15, 18), (18, 20)]
    assert _divided(bounds, 21) is None


def test_an_order_by_length_brings_like_sentences_together_and_hangs_on_seed_and_epoch():
    lengths = random_lengths()[:, 0].tolist()
    order = OrderByLength(lengths, num_in_step=8, seed=-(2**70))
    first = list(order)
    assert sorted(first) == list(range(len(lengths))) and len(order) == len(lengths)
    torch.manual_seed(3)  # which Transformers' own order hangs on
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    steps = [[lengths[i] for i in first[start : start + 8]] for start in range(0, 296, 8)]
    assert np.mean([max(step) - min(step) for step in steps]) < 6  # at random 28


@pytest.mark.parametrize("num_examples", [45, 47, 40, 6, 33])
@pytest.mark.parametrize("cut", [(4, 2, 1), (2, 2, 2), (2, 4, 1), (1, 2, 4), (1, 8, 1)])
def test_even_batches_make_the_same_steps_however_they_are_cut(num_examples, cut):
    from accelerate.data_loader import BatchSamplerShard

    size, processes, accumulation = cut
    batches = EvenBatches(range(num_examples), size, processes, accumulation, drop_last=False)
    shares = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
    num_steps = -(-num_examples // 8)
    assert len(batches) == len(list(batches)) == sum(map(len, shares))
    for step in range(num_steps):
        own = slice(step * accumulation, (step + 1) * accumulation)
        rows = sorted(flat(flat(share[own] for share in shares)))
        expected = [*range(num_examples)][8 * step : 8 * step + 8]
        num_batches = sum(len(share[own]) for share in shares)
        assert rows == expected or num_batches > len(expected)  # then it is filled up
        assert {*rows} >= {*expected} and len(rows) == max(num_batches, len(expected))
        assert all(0 < len(batch) <= size for share in shares for batch in share)


def test_even_batches_leave_out_what_makes_no_batch_for_every_process():
    batches = EvenBatches(range(45), 4, 2, 1, drop_last=True)
    assert len(batches) == len(list(batches)) == 10 and flat(batches) == list(range(40))
    assert list(EvenBatches(range(7), 4, 2, 1, drop_last=True)) == []


def test_accelerate_shares_the_batches_among_processes_without_repeating_one():
    from accelerate.data_loader import prepare_data_loader

    lengths = random_lengths()
    seen = []
    for process_index in range(2):
        sampler = MaxTokensBatchSampler(lengths, max_tokens=100, num_replicas=2)
        loader = torch.utils.data.DataLoader(torch.arange(len(lengths)), batch_sampler=sampler)
        shard = prepare_data_loader(loader, num_processes=2, process_index=process_index)
        shard.set_epoch(3)
        assert sampler.epoch == 3
        assert len(shard.batch_sampler) == len(sampler) // 2
        seen += flat(shard.batch_sampler)
    assert sorted(seen) == list(range(len(lengths)))


def test_data_loader_with_workers_gives_the_same_batches():
    lengths = random_lengths(num_examples=50)
    sampler = MaxTokensBatchSampler(lengths, max_tokens=100)
    loader = torch.utils.data.DataLoader(
        torch.arange(50), batch_sampler=sampler, num_workers=2, collate_fn=torch.stack
    )
    assert [batch.tolist() for batch in loader] == list(sampler)


def test_batch_size_is_none_so_that_accelerate_expects_batches_of_any_size():
    sampler = MaxTokensBatchSampler([1, 2], max_tokens=4)
    assert sampler.batch_size is None
    assert sampler.drop_last is False


def test_example_over_the_budget_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="`max_tokens`.* got 10, but example 2 has 11 tokens"):
        MaxTokensBatchSampler([(3, 4), (10, 1), (5, 11)], max_tokens=10)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "no example"),
        ([(1, 2, 3)], "shape"),
        ([(1, 2), (3,)], "different sizes"),
        ([1.5, 2.0], "float64"),
        ([(3, 4), (0, 2)], "index 1"),
        ([3, -1], "index 1"),
    ],
)
def test_malformed_lengths_are_an_error(lengths, message):
    with pytest.raises(ValueError, match=f"`lengths`.*{message}"):
        MaxTokensBatchSampler(lengths, max_tokens=10)


def test_too_few_examples_for_the_replicas_are_an_error():
    with pytest.raises(ValueError, match="num_replicas"):
        MaxTokensBatchSampler([2], max_tokens=10, num_replicas=2)
    with pytest.raises(ValueError, match="num_replicas"):
        MaxTokensBatchSampler([2], max_tokens=10, num_replicas=0)


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), 0, -5, 20.5])
def test_a_budget_that_is_no_whole_number_from_one_is_refused(budget):
    with pytest.raises(ValueError, match=f"`max_tokens` must be at least 1.*, got {budget}"):
        MaxTokensBatchSampler([(3, 4), (2, 2)], max_tokens=budget)
