"""What is drawn for a sentence hangs on seed, epoch and row, and is drawn evenly."""

import hashlib
import math

import numpy as np
import pytest
import torch

from axe_hf.data import DataCollatorForCmlm
from axe_hf.data.draws import DRAW, NumberedRows, uniform_numbers

EOS, MASK = 1, 3
JITTERED = {"masking": "full", "length_multiplier": 1.5, "length_jitter": 0.3}


def numbered(features, epoch=0, rows=None):
    rows = range(len(features)) if rows is None else rows
    return [feature | {DRAW: (epoch, row)} for feature, row in zip(features, rows, strict=True)]


def canvases(collator, features):
    """Each sentence's canvas without its padding."""
    canvas = collator(features)["decoder_input_ids"]
    return [[token for token in row if token != 0] for row in canvas.tolist()]


def test_numbers_are_those_of_splitmix64():
    # The published ones of seed 1234567, of any implementation.
    from axe_hf.data.draws import _GOLDEN_GAMMA, _mixed

    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * _GOLDEN_GAMMA
    assert _mixed(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_numbers_are_uniform_and_know_nothing_of_each_other():
    for draws in ([(0, row) for row in range(20_000)], [(epoch, 7) for epoch in range(20_000)]):
        numbers = uniform_numbers(0, draws, 5)
        assert numbers.shape == (20_000, 5) and numbers.dtype == torch.float64
        assert 0 <= numbers.min() and numbers.max() < 1
        for column in numbers.T:  # 100 bins, chi squared has 99 degrees of freedom
            counts = torch.histc(column, 100, 0, 1)
            assert 50 < ((counts - 200) ** 2 / 200).sum() < 165
        with_next = torch.cat([numbers[:-1], numbers[1:]], dim=1)  # within a row and of neighbours
        others = torch.corrcoef(with_next.T) - torch.eye(10, dtype=torch.float64)
        assert others.abs().max() < 5 / math.sqrt(20_000)


def test_numbers_of_a_row_hang_on_no_other_row_and_not_on_how_many_are_drawn():
    draws = [(3, 5), (0, 2**40), (2**20, 0)]
    together = uniform_numbers(9, draws, 30)
    for row, draw in enumerate(draws):
        assert uniform_numbers(9, [draw], 4)[0].equal(together[row, :4])
    assert len(together.unique()) == 90


@pytest.mark.parametrize("recipe", [{}, JITTERED])
@pytest.mark.parametrize("seed", [0, -3, 2**70, -(2**70)])
def test_a_canvas_is_the_same_in_any_company_and_order(tokenizer, recipe, seed, random_features):
    features = numbered(random_features(23, longest=14), epoch=2)
    collator = DataCollatorForCmlm(tokenizer, seed=seed, **recipe)
    whole = canvases(collator, features)
    alone = [canvases(collator, [feature])[0] for feature in features]
    assert whole == alone == canvases(collator, features[::-1])[::-1]
    others = DataCollatorForCmlm(tokenizer, seed=seed + 1, **recipe)
    assert canvases(others, features) != whole


@pytest.mark.parametrize("recipe", [{}, JITTERED])
def test_equal_sentences_get_other_canvases_in_other_rows_and_epochs(tokenizer, recipe):
    one = {"input_ids": [EOS], "labels": [*range(140, 170), EOS]}
    collator = DataCollatorForCmlm(tokenizer, **recipe)
    by_row = canvases(collator, numbered([one] * 12))
    by_epoch = [canvases(collator, numbered([one], epoch))[0] for epoch in range(12)]
    assert by_row[0] == by_epoch[0]
    for found in (by_row, by_epoch):
        assert len({*map(tuple, found)}) > (5 if recipe else 10)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_number_and_every_set_of_masks_is_as_likely(tokenizer, length):
    labels = [*range(140, 139 + length), EOS]
    features = numbered([{"input_ids": [EOS], "labels": labels}] * 4000)
    is_masked = DataCollatorForCmlm(tokenizer)(features)["decoder_input_ids"] == MASK
    for number in range(1, length + 1):
        chosen = is_masked[is_masked.sum(dim=1) == number].tolist()
        share = 1 / length
        assert abs(len(chosen) - 4000 * share) <= 5 * math.sqrt(4000 * share * (1 - share))
        num_sets = math.comb(length, number)
        counts = np.unique(chosen, axis=0, return_counts=True)[1]
        assert len(counts) == num_sets
        expected, share = len(chosen) / num_sets, 1 / num_sets
        assert abs(counts - expected).max() <= 5 * math.sqrt(expected * (1 - share) + 1e-9)


def test_masks_of_ragged_batches_are_at_all_positions_equally_often(tokenizer):
    rows = [[140, 141, EOS], [140, 141, 142, 143, 144, EOS]]
    features = numbered([{"input_ids": [EOS], "labels": row} for row in rows] * 2000)
    is_masked = DataCollatorForCmlm(tokenizer)(features)["decoder_input_ids"] == MASK
    for row in (0, 1):
        length = len(rows[row])
        shares = is_masked[row::2, :length].double().mean(dim=0)
        assert (shares - (length + 1) / (2 * length)).abs().max() < 0.06


def test_jitter_draws_all_lengths_equally_often(tokenizer):
    features = numbered([{"input_ids": [EOS], "labels": [150] * 39 + [EOS]}] * 4100)
    how = {"masking": "full", "length_multiplier": 1.25, "length_jitter": 0.2}
    batch = DataCollatorForCmlm(tokenizer, **how)(features)
    lengths = (batch["decoder_input_ids"] == MASK).sum(dim=1)
    counts = torch.bincount(lengths)[40:61]  # 50 * 0.8 to 50 * 1.2; half as often at the ends
    assert counts.sum() == 4100
    assert abs(counts[1:-1].double() - 205).max() < 5 * math.sqrt(205)
    assert abs(counts[[0, -1]].double() - 102.5).max() < 5 * math.sqrt(102.5)


@pytest.mark.parametrize("recipe", [{}, JITTERED])
def test_padding_to_a_multiple_changes_no_canvas(tokenizer, recipe, random_features):
    features = numbered(random_features(20, longest=13))
    plain = DataCollatorForCmlm(tokenizer, **recipe)
    wide = DataCollatorForCmlm(tokenizer, pad_to_multiple_of=8, **recipe)
    assert wide(features)["decoder_input_ids"].shape[1] % 8 == 0
    assert canvases(plain, features) == canvases(wide, features)


def test_the_target_is_under_canvas_and_labels(tokenizer, random_features):
    features = numbered(random_features(50))
    batch = DataCollatorForCmlm(tokenizer)(features)
    canvas, labels = batch["decoder_input_ids"], batch["labels"]
    targets = torch.where(labels == -100, canvas, labels)
    for row, feature in enumerate(features):
        assert targets[row, : len(feature["labels"])].tolist() == feature["labels"]


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        ({}, "c81c7c897842a5cb"),
        ({"seed": -(2**70)}, "ee5f9b074f1fcc71"),
        (JITTERED, "386cde48ad61d102"),
        ({"masking": "full", "length_jitter": 0.3, "seed": 7}, "c7c219f079d96100"),
    ],
)
def test_without_numbers_the_draw_is_that_of_the_batch_as_ever(
    tokenizer, recipe, digest, random_features
):
    """Written down with the version before there were numbers; one row without is enough."""
    features = random_features(40)
    collator = DataCollatorForCmlm(tokenizer, **recipe)
    for mixed in (features, [*numbered(features[:39]), features[39]]):
        canvas = collator(mixed)["decoder_input_ids"].numpy()
        assert hashlib.sha256(canvas.tobytes()).hexdigest()[:16] == digest


class TestNumberedRows:
    def test_they_are_numbered_one_by_one_and_many_at_a_time(self, random_features):
        from datasets import Dataset

        features = random_features(7)
        for data in (features, tuple(features), Dataset.from_list(features)):
            rows = NumberedRows(data)
            rows.set_epoch(3)
            assert len(rows) == 7
            taken = rows.__getitems__([5, 0, 5])
            assert taken == numbered([features[i] for i in (5, 0, 5)], 3, (5, 0, 5))
            assert rows[5] == taken[0]

    @pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_workers_that_live_on_see_the_next_epoch(self, context, random_features):
        rows = NumberedRows(random_features(4))
        how = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": context}
        loader = torch.utils.data.DataLoader(rows, batch_size=3, collate_fn=list, **how)
        for epoch in (0, 5, 2):
            rows.set_epoch(epoch)
            found = [feature[DRAW] for batch in loader for feature in batch]
            assert found == [(epoch, row) for row in range(4)]

    def test_a_data_set_that_knows_epochs_is_told(self, random_features):
        class Epochs(list):
            def set_epoch(self, epoch):
                self.epoch = epoch

        data = Epochs(random_features(2))
        NumberedRows(data).set_epoch(4)
        assert data.epoch == 4

    def test_what_is_no_feature_is_left_for_the_collator_to_refuse(self, tokenizer):
        with pytest.raises(ValueError, match="feature 0 must have 'input_ids'"):
            DataCollatorForCmlm(tokenizer)([NumberedRows([[1, 2]])[0]])
        row = NumberedRows([{"labels": [EOS]}])[0]
        with pytest.raises(ValueError, match=r"got only \['labels'\]"):
            DataCollatorForCmlm(tokenizer)([row])
