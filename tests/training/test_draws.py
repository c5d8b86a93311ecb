"""AxeTrainer trains each sentence on the canvas of its epoch and row, however batches are cut."""

import pytest
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import IterableDataset

from axe_hf import AxeTrainer, AxeTrainingArguments, DataCollatorForCmlm
from axe_hf.data.draws import DRAW

JITTERED = {"masking": "full", "length_multiplier": 1.5, "length_jitter": 0.3}
CUTS = {
    "by fives": {"per_device_train_batch_size": 5},
    "budget": {"max_tokens_per_batch": 40},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "workers": {"dataloader_num_workers": 2},
    "lasting workers": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
}
NUM_PAIRS = 24  # in an epoch
slow = pytest.mark.slow


def unpadded(batch):
    """Source, target and canvas of each sentence."""
    canvas, labels = batch["decoder_input_ids"], batch["labels"]
    parts = zip(batch["input_ids"].tolist(), labels.tolist(), canvas.tolist(), strict=True)
    return [tuple(tuple(t for t in part if t > 0) for part in sentence) for sentence in parts]


class RecordingTrainer(AxeTrainer):
    """Keeps what each step trains on."""

    def __init__(self, *args, **kwargs):
        self.trained = []
        super().__init__(*args, **kwargs)

    def training_step(self, model, inputs, *args, **kwargs):
        self.trained += unpadded(inputs)
        return super().training_step(model, inputs, *args, **kwargs)


@pytest.fixture
def few(dataset):
    """A quarter of the pairs."""
    return dataset.select(range(NUM_PAIRS))


@pytest.fixture
def train(make_model, few, tokenizer, tmp_path):
    """Trains two epochs; what was trained on, in order."""

    def run(
        train_dataset=few, data_collator=None, resume_from=None, kind=RecordingTrainer, **settings
    ):
        defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "use_cpu": True}
        defaults |= {"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
        args = AxeTrainingArguments(str(tmp_path), **defaults | settings)
        model = make_model(encoder_layers=1)
        how = {"train_dataset": train_dataset, "processing_class": tokenizer}
        trainer = kind(model, args, data_collator, **how)
        trainer.train(resume_from)
        return trainer.trained

    return run


@slow
@pytest.mark.parametrize("recipe", [{"masking": "uniform"}, JITTERED], ids=["masks", "jitter"])
def test_the_canvases_of_an_epoch_are_the_same_however_it_is_cut(train, few, recipe):
    def epochs_of(trained):
        return sorted(trained[:NUM_PAIRS]), sorted(trained[NUM_PAIRS:])

    first, second = expected = epochs_of(train(**recipe))
    assert first != second
    for cut in CUTS.values():
        assert epochs_of(train(**recipe, **cut)) == expected
    assert epochs_of(train([dict(row) for row in few], **recipe)) == expected


@pytest.mark.parametrize(
    "cut", ["by fives", "budget", "by length", pytest.param("lasting workers", marks=slow)]
)
@pytest.mark.parametrize("is_within", [True, False])
def test_a_resumed_run_sees_the_canvases_of_the_unbroken_one(train, tmp_path, cut, is_within):
    """From within its second epoch, and from its end."""
    settings = CUTS[cut] | {"masking": "uniform", "num_train_epochs": 3, "save_strategy": "epoch"}
    if is_within:
        settings |= {"save_strategy": "steps", "save_steps": 8}
    whole = train(**settings)
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    after = train(**settings, resume_from=str(tmp_path / f"checkpoint-{steps[-2]}"))
    assert 0 < len(after) < 2 * NUM_PAIRS and after == whole[-len(after) :]
    assert is_within or len(after) == NUM_PAIRS


class ShareOfTwo(RecordingTrainer):
    """Trains on what the first of two processes would get."""

    def get_train_dataloader(self):
        loader = super().get_train_dataloader().base_dataloader
        return prepare_data_loader(loader, num_processes=2, process_index=0)


@pytest.mark.parametrize("cut", ["by fives", "budget", "by length"])
def test_so_does_one_of_two_processes(train, tmp_path, cut):
    settings = CUTS[cut] | {"masking": "uniform", "num_train_epochs": 3, "kind": ShareOfTwo}
    settings |= {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 100}
    whole = train(**settings)
    num_steps = len([*tmp_path.glob("checkpoint-*")])
    after = train(**settings, resume_from=str(tmp_path / f"checkpoint-{num_steps * 2 // 3 - 1}"))
    assert len(whole) // 3 < len(after) < len(whole) and after == whole[-len(after) :]


def test_without_skipping_a_resumed_run_begins_its_epoch_again(train, tmp_path):
    whole = train(masking="uniform", save_strategy="steps", save_steps=8)
    checkpoint = str(tmp_path / "checkpoint-8")
    again = train(masking="uniform", ignore_data_skip=True, resume_from=checkpoint)
    assert again == whole[NUM_PAIRS : NUM_PAIRS + len(again)] and len(again) == 16


def test_a_resumed_run_may_be_cut_otherwise(train, tmp_path):
    whole = train(masking="uniform", save_strategy="steps", save_steps=8)
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    checkpoint = str(tmp_path / "checkpoint-8")
    assert train(masking="uniform", **cut, resume_from=checkpoint) == whole[32:]


def test_a_collator_of_the_user_gets_the_rows_and_none_of_another_kind_does(train, tokenizer):
    mine = DataCollatorForCmlm(tokenizer, seed=5)
    expected = sorted(train(data_collator=mine, num_train_epochs=1))
    found = train(data_collator=mine, per_device_train_batch_size=5, num_train_epochs=1)
    assert sorted(found) == expected
    seen = set()

    def collate(features):
        seen.update(*features)
        return mine(features)

    train(data_collator=collate, max_steps=1)
    train(data_collator=collate, max_steps=1, max_tokens_per_batch=60)
    assert seen and DRAW not in seen


def test_equal_pairs_have_canvases_of_their_own(train, dataset):
    pair = max(range(60), key=lambda i: len(dataset[i]["labels"]))
    found = train(dataset.select([pair] * 40), masking="uniform", max_steps=10)
    assert len({canvas for _, _, canvas in found}) > 10


def test_a_stream_has_no_rows_and_trains(train, few):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([dict(row) for row in few])

    assert len(train(Stream(), masking="uniform", max_steps=6)) == NUM_PAIRS


def test_the_loss_in_the_log_is_added_up_exactly(make_model, make_trainer):
    """Transformers adds it up in float32."""
    losses = {}
    for steps in (1, 4):
        trainer = make_trainer(make_model().double(), logging_steps=steps)
        trainer.train()
        losses[steps] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[4] == pytest.approx([sum(losses[1]) / 4], rel=1e-14)
