import copy
import math
from collections import Counter

import pytest
import torch

from axe_hf.data import DataCollatorForCmlm

PAD, EOS, UNK, MASK, BLANK = range(5)


def targets_of(batch):
    """The target under canvas and labels: each position is in exactly one of the two."""
    return torch.where(batch["labels"] == -100, batch["decoder_input_ids"], batch["labels"])


def test_masked_and_observed_positions_together_give_the_target_back(tokenizer, random_features):
    features = random_features(50)
    batch = DataCollatorForCmlm(tokenizer)(features)
    canvas, labels = batch["decoder_input_ids"], batch["labels"]
    for row, feature in enumerate(features):
        length = len(feature["labels"])
        assert targets_of(batch)[row, :length].tolist() == feature["labels"]
        assert (canvas[row, length:] == PAD).all()
        assert (labels[row, length:] == -100).all()
        assert ((canvas[row, :length] == MASK) == (labels[row, :length] != -100)).all()


def test_source_is_padded_and_its_attention_mask_follows_the_lengths(tokenizer, random_features):
    features = random_features(7)
    batch = DataCollatorForCmlm(tokenizer)(features)
    for row, feature in enumerate(features):
        length = len(feature["input_ids"])
        assert batch["input_ids"][row, :length].tolist() == feature["input_ids"]
        assert (batch["input_ids"][row, length:] == PAD).all()
        assert batch["attention_mask"][row].sum() == length
        assert batch["attention_mask"][row, :length].all()
    assert all(tensor.dtype == torch.long for tensor in batch.values())


def test_pad_tokens_inside_a_source_stay_attended(tokenizer):
    # The mask follows the lengths: an id that happens to be <pad> is not dropped on the quiet.
    batch = DataCollatorForCmlm(tokenizer)([{"input_ids": [140, PAD, EOS], "labels": [150, EOS]}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1]]


def test_full_masking_masks_everything_and_scores_everything(tokenizer, random_features):
    features = random_features(9)
    batch = DataCollatorForCmlm(tokenizer, masking="full")(features)
    for row, feature in enumerate(features):
        length = len(feature["labels"])
        assert (batch["decoder_input_ids"][row, :length] == MASK).all()
        assert batch["labels"][row, :length].tolist() == feature["labels"]


def test_evaluation_twin_masks_fully_and_leaves_the_original_alone(tokenizer):
    collator = DataCollatorForCmlm(tokenizer, seed=3, pad_to_multiple_of=8)
    twin = collator.for_evaluation()
    assert (twin.masking, twin.seed, twin.pad_to_multiple_of) == ("full", 3, 8)
    assert collator.masking == "uniform"


@pytest.mark.parametrize("length", [1, 2, 5])
def test_number_of_masks_is_uniform_from_one_to_all(tokenizer, length):
    # 2000 rows of one length: every count within 5 standard deviations of 2000 / length.
    labels = [*range(140, 139 + length), EOS]
    batch = DataCollatorForCmlm(tokenizer)([{"input_ids": [EOS], "labels": labels}] * 2000)
    counts = Counter((batch["decoder_input_ids"] == MASK).sum(dim=1).tolist())
    assert set(counts) == set(range(1, length + 1))
    share = 1 / length
    for count in counts.values():
        assert abs(count - 2000 * share) <= 5 * math.sqrt(2000 * share * (1 - share))


def test_every_position_is_masked_equally_often_in_ragged_batches(tokenizer):
    # A position is masked with probability (N + 1) / 2N; 2000 rows each of N = 3 and N = 6.
    rows = [[140, 141, EOS], [140, 141, 142, 143, 144, EOS]]
    features = [{"input_ids": [EOS], "labels": row} for row in rows] * 2000
    is_masked = DataCollatorForCmlm(tokenizer)(features)["decoder_input_ids"] == MASK
    for row in (0, 1):
        length = len(rows[row])
        expected = (length + 1) / (2 * length)
        shares = is_masked[row::2, :length].double().mean(dim=0)
        assert (shares - expected).abs().max() < 0.06


def test_end_of_sentence_is_masked_and_predicted_like_any_token(tokenizer):
    features = [{"input_ids": [EOS], "labels": [140, EOS]}] * 200
    labels = DataCollatorForCmlm(tokenizer)(features)["labels"]
    assert (labels[:, 1] == EOS).any()
    assert (labels[:, 1] == -100).any()


def test_same_batch_gets_the_same_masks_from_any_collator_with_the_seed(tokenizer, random_features):
    features = random_features(20)
    torch.manual_seed(1)
    first = DataCollatorForCmlm(tokenizer, seed=4)(features)
    torch.manual_seed(2)
    other = DataCollatorForCmlm(tokenizer, seed=4)
    other(random_features(3, seed=9))  # batches in between leave no trace
    for name, tensor in other(copy.deepcopy(features)).items():
        assert torch.equal(tensor, first[name])


def test_global_random_state_is_not_touched(tokenizer, random_features):
    before = torch.get_rng_state()
    DataCollatorForCmlm(tokenizer)(random_features(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_change_with_the_seed_the_order_and_the_company(tokenizer, random_features):
    features = random_features(40)

    def canvas(rows, seed=0):
        return DataCollatorForCmlm(tokenizer, seed=seed)(rows)["decoder_input_ids"]

    first = canvas(features)
    assert not torch.equal(first, canvas(features, seed=1))
    assert not torch.equal(first, canvas(features, seed=-1))
    assert not torch.equal(first, canvas(features[::-1]).flip(0))
    assert not torch.equal(first[:-1], canvas(features[:-1])[:, : first.shape[1]])


def test_padding_to_a_multiple_widens_and_changes_no_mask(tokenizer, random_features):
    features = random_features(20, longest=13)
    plain = DataCollatorForCmlm(tokenizer)(features)
    wide = DataCollatorForCmlm(tokenizer, pad_to_multiple_of=8)(features)
    fillers = {"input_ids": PAD, "attention_mask": 0, "decoder_input_ids": PAD, "labels": -100}
    for name, filler in fillers.items():
        width = plain[name].shape[1]
        assert wide[name].shape[1] == math.ceil(width / 8) * 8
        assert torch.equal(wide[name][:, :width], plain[name])
        assert (wide[name][:, width:] == filler).all()


def test_lists_tensors_and_extra_columns_give_the_same_batch(tokenizer, random_features):
    features = random_features(6)
    extended = [
        {name: torch.tensor(ids) for name, ids in row.items()} | {"translation": {}, "idx": 3}
        for row in features
    ]
    collator = DataCollatorForCmlm(tokenizer)
    plain, other = collator(features), collator(extended)
    assert set(plain) == {"input_ids", "attention_mask", "decoder_input_ids", "labels"}
    for name, tensor in plain.items():
        assert torch.equal(tensor, other[name])


def test_workers_give_the_same_batches_as_the_main_process(tokenizer, random_features):
    features = random_features(24)
    collator = DataCollatorForCmlm(tokenizer)

    def batches(num_workers):
        loader = torch.utils.data.DataLoader(
            features, batch_size=5, collate_fn=collator, num_workers=num_workers
        )
        return list(loader)

    for alone, shared in zip(batches(0), batches(2), strict=True):
        for name, tensor in alone.items():
            assert torch.equal(tensor, shared[name])


def test_stock_trainer_takes_the_collator(tokenizer, tmp_path, random_features):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    class Canvas(torch.nn.Module):
        """Scores the canvas with one embedding: just enough of a model for Trainer."""

        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(320, 4)

        def forward(self, input_ids, attention_mask, decoder_input_ids, labels):
            logits = self.embed(decoder_input_ids) @ self.embed.weight.T
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return {"loss": loss, "logits": logits}

    rows = [row | {"note": "not for the model"} for row in random_features(12)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, save_strategy="no", report_to="none"
    )
    trainer = Trainer(
        Canvas(),
        arguments,
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForCmlm(tokenizer),
    )
    assert trainer.train().global_step == 2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "`features`.*none"),
        ([{"input_ids": [EOS]}], "feature 0 must have 'labels', got only .'input_ids'."),
        ([{"labels": [EOS]}], "feature 0 must have 'input_ids'.*tokenize_translations"),
        ([{"input_ids": [EOS], "labels": []}], "'labels' of feature 0 must not be empty"),
        ([{"input_ids": [], "labels": [EOS]}], "'input_ids' of feature 0 must not be empty"),
        ([{"input_ids": [EOS], "labels": [MASK, EOS]}], "feature 0.*mask_token, got id 3"),
        ([{"input_ids": [EOS], "labels": [150, BLANK]}], "feature 0.*blank_token, got id 4"),
        (
            [{"input_ids": [EOS], "labels": [150, PAD]}],
            "feature 0.*pad_token, got id 0.*without padding",
        ),
        ([{"input_ids": [EOS], "labels": [150, -100]}], "feature 0.*got -100; -100 is added here"),
    ],
)
def test_bad_features_are_an_error_that_names_row_and_column(tokenizer, features, message):
    with pytest.raises(ValueError, match=message):
        DataCollatorForCmlm(tokenizer)(features)


def test_bad_arguments_are_an_error_that_names_them(tokenizer):
    with pytest.raises(ValueError, match="`masking` must be 'uniform' or 'full', got 'half'"):
        DataCollatorForCmlm(tokenizer, masking="half")
    with pytest.raises(ValueError, match="`pad_to_multiple_of`"):
        DataCollatorForCmlm(tokenizer, pad_to_multiple_of=0)


def test_tokenizer_without_a_blank_is_refused_until_it_is_loaded_with_one(tokenizer, tmp_path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", mask_token="<mask>"
    )
    with pytest.raises(ValueError, match="blank_token.*extra_special_tokens"):
        DataCollatorForCmlm(bare)
    bare.save_pretrained(tmp_path)
    mended = AutoTokenizer.from_pretrained(
        tmp_path, extra_special_tokens={"blank_token": "<nothing>"}
    )
    assert mended.blank_token_id == len(tokenizer)
    DataCollatorForCmlm(mended)


@pytest.mark.parametrize("multiplier", [0.5, 1.25, 2.0])
def test_length_multiplier_stretches_the_canvas_and_leaves_the_labels(
    tokenizer, multiplier, random_features
):
    features = random_features(6)
    batch = DataCollatorForCmlm(tokenizer, masking="full", length_multiplier=multiplier)(features)
    expected = [max(1, round(len(row["labels"]) * multiplier)) for row in features]
    assert (batch["decoder_input_ids"] == tokenizer.mask_token_id).sum(1).tolist() == expected
    assert batch["decoder_input_ids"].shape[1] == max(expected)
    plain = DataCollatorForCmlm(tokenizer, masking="full")(features)
    assert torch.equal(batch["labels"], plain["labels"])


def test_a_seed_is_computed_only_where_something_is_drawn(tokenizer, monkeypatch, random_features):
    computed = []
    monkeypatch.setattr(
        "axe_hf.data.collator._generator", lambda content: computed.append(1) or torch.Generator()
    )
    features = random_features(6)
    for multiplier in (1, 1.5, 2):
        DataCollatorForCmlm(tokenizer, masking="full", length_multiplier=multiplier)(features)
    assert not computed
    DataCollatorForCmlm(tokenizer, masking="full", length_jitter=0.1)(features)
    DataCollatorForCmlm(tokenizer)(features)
    assert len(computed) == 2


def test_stretched_canvas_stays_within_its_limit_and_multiple(tokenizer, random_features):
    collator = DataCollatorForCmlm(
        tokenizer,
        masking="full",
        length_multiplier=3.0,
        max_canvas_length=10,
        pad_to_multiple_of=8,
    )
    canvas = collator(random_features(6))["decoder_input_ids"]
    assert canvas.shape[1] == 16
    assert (canvas == tokenizer.mask_token_id).sum(1).max() == 10


def test_length_multiplier_needs_full_masks(tokenizer):
    with pytest.raises(
        ValueError, match="`length_multiplier` is 1.25 and .* but where tokens are obs"
    ):
        DataCollatorForCmlm(tokenizer, length_multiplier=1.25)
    with pytest.raises(ValueError, match="`length_multiplier` must be > 0, got 0"):
        DataCollatorForCmlm(tokenizer, masking="full", length_multiplier=0)


def test_jitter_draws_lengths_around_the_multiplier_from_the_batch_alone(tokenizer):
    features = [{"input_ids": [EOS], "labels": [150] * 39 + [EOS]}] * 200
    collator = DataCollatorForCmlm(
        tokenizer, masking="full", length_multiplier=1.25, length_jitter=0.2
    )
    canvas = collator(features)["decoder_input_ids"]
    lengths = (canvas == tokenizer.mask_token_id).sum(1)
    assert lengths.min() >= 40 and lengths.max() <= 60
    assert len(lengths.unique()) > 15 and abs(lengths.double().mean() - 50) < 1.5
    assert torch.equal(canvas, collator(features)["decoder_input_ids"])
    without = (collator.for_evaluation()(features)["decoder_input_ids"] == 3).sum(1)
    assert without.tolist() == [50] * 200


REPEATING = [[150] * 7, [150, 151, 151, 151, 152], [150, 151], [], [150, 150, 151, 151]]
NEEDED = [14, 8, 3, 1, 7]


@pytest.mark.parametrize("recipe", [{}, {"length_jitter": 0.9}, {"length_multiplier": 0.5}])
@pytest.mark.parametrize("is_evaluation", [False, True])
def test_with_repetition_every_canvas_has_room_for_its_target(tokenizer, recipe, is_evaluation):
    features = [{"input_ids": [EOS], "labels": [*ids, EOS]} for ids in REPEATING] * 9
    plain = DataCollatorForCmlm(tokenizer, masking="full", **recipe)
    roomy = DataCollatorForCmlm(tokenizer, masking="full", allow_repetition=True, **recipe)
    if is_evaluation:
        plain, roomy = plain.for_evaluation(), roomy.for_evaluation()
    before, after = (c(features)["decoder_input_ids"] for c in (plain, roomy))
    before, after = ((canvas == MASK).sum(dim=1).tolist() for canvas in (before, after))
    assert after == [max(pair) for pair in zip(before, NEEDED * 9, strict=True)]
    assert after != before
    assert roomy(features)["labels"].equal(plain(features)["labels"])


def test_a_canvas_with_room_is_as_wide_as_a_multiple_says(tokenizer):
    features = [{"input_ids": [EOS], "labels": [*ids, EOS]} for ids in REPEATING]
    how = {"masking": "full", "allow_repetition": True, "pad_to_multiple_of": 8}
    canvas = DataCollatorForCmlm(tokenizer, **how)(features)["decoder_input_ids"]
    assert canvas.shape == (5, 16) and (canvas == MASK).sum(dim=1).tolist() == NEEDED


@pytest.mark.parametrize(("limit", "row"), [(13, 0), (7, 1)])
def test_a_target_that_no_canvas_has_room_for_is_named(tokenizer, limit, row):
    features = [{"input_ids": [EOS], "labels": [*ids, EOS]} for ids in REPEATING[row:]]
    how = {"masking": "full", "allow_repetition": True, "length_multiplier": 2.0}
    problem = f"'labels' of feature 0 need {NEEDED[row]} positions.*has {limit} at most"
    with pytest.raises(ValueError, match=f"{problem}.*--max-target-length {NEEDED[row]}"):
        DataCollatorForCmlm(tokenizer, max_canvas_length=limit, **how)(features)
    DataCollatorForCmlm(tokenizer, max_canvas_length=NEEDED[row], **how)(features)


def test_masks_that_show_tokens_are_what_they_were_with_repetition(tokenizer, random_features):
    features = random_features(9)
    found = DataCollatorForCmlm(tokenizer, allow_repetition=True)(features)
    for name, tensor in DataCollatorForCmlm(tokenizer)(features).items():
        assert found[name].equal(tensor)


@pytest.mark.parametrize("name", ["input_ids", "labels"])
@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([140.0, EOS], "140.0"),
        (torch.tensor([140.5, 1.0]), "140.5"),
        ([140, -100, EOS], "-100"),
        ([-1], "-1"),
        (["140", EOS], "140"),
        ([True, EOS], "True"),
        ([[140], EOS], "140"),
        ([None, EOS], "None"),
    ],
)
def test_what_is_no_token_id_is_refused(tokenizer, name, ids, found):
    feature = {"input_ids": [140, EOS], "labels": [150, EOS]} | {name: ids}
    with pytest.raises(ValueError, match=f"'{name}' of feature 1 must be token ids, got .*{found}"):
        DataCollatorForCmlm(tokenizer)([{"input_ids": [140, EOS], "labels": [150, EOS]}, feature])


@pytest.mark.parametrize("padding", [[PAD], [PAD, PAD, PAD]])
def test_labels_that_were_padded_are_refused(tokenizer, padding):
    for ids in ([150, EOS, *padding], torch.tensor([150, EOS, *padding])):
        with pytest.raises(ValueError, match="'labels' of feature 0 must hold no pad_token, got"):
            DataCollatorForCmlm(tokenizer)([{"input_ids": [140, EOS], "labels": ids}])


@pytest.mark.parametrize("ids", [[140, EOS, PAD], [PAD, PAD, 140, EOS]])
def test_sources_that_were_padded_are_refused(tokenizer, ids):
    collator = DataCollatorForCmlm(tokenizer)
    for call in (collator, collator.pad_sources):
        with pytest.raises(ValueError, match="'input_ids' of feature 0 must not be padded, got"):
            call([{"input_ids": ids, "labels": [150, EOS]}])


@pytest.mark.parametrize("name", ["max_canvas_length", "pad_to_multiple_of"])
@pytest.mark.parametrize("value", [0, -3, 1.5, math.nan, math.inf])
def test_sizes_of_a_collator_are_whole_numbers_from_one(tokenizer, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1.*, got {value}"):
        DataCollatorForCmlm(tokenizer, **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_shares_and_multipliers_of_a_collator_are_finite(tokenizer, value):
    for name in ("length_multiplier", "length_jitter"):
        with pytest.raises(ValueError, match=f"`{name}` must be .*, got {value}"):
            DataCollatorForCmlm(tokenizer, masking="full", **{name: value})
