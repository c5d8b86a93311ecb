"""Training on canvases that are longer than the target, and decoding with the same."""

import pytest
import torch

from axe_hf import AxeTrainingArguments


def test_the_model_is_decoded_with_the_multiplier_it_was_trained_with(make_trainer, make_model):
    trainer = make_trainer(make_model(), masking="full", length_multiplier=1.5)
    assert trainer.model.generation_config.length_multiplier == 1.5
    batch = next(iter(trainer.get_train_dataloader()))
    num_masks = (batch["decoder_input_ids"] == trainer.model.config.mask_token_id).sum(1)
    target_lengths = (batch["labels"] != -100).sum(1)
    assert torch.equal(num_masks, (target_lengths * 1.5).round().long().clamp(max=12))


def test_the_multiplier_is_saved_with_the_model(make_trainer, make_model, tmp_path):
    trainer = make_trainer(make_model(), masking="full", length_multiplier=1.5)
    trainer.save_model(tmp_path / "model")
    loaded = type(trainer.model).from_pretrained(tmp_path / "model")
    assert loaded.generation_config.length_multiplier == 1.5


def test_evaluation_loss_is_that_of_stretched_canvases(make_trainer, make_model):
    model = make_model()
    plain = make_trainer(model, masking="full").evaluate()["eval_token_loss"]
    stretched = make_trainer(model, masking="full", length_multiplier=1.5)
    assert stretched.evaluate()["eval_token_loss"] > plain


def test_jitter_reaches_the_canvases_of_training_only(make_trainer, make_model):
    trainer = make_trainer(make_model(), masking="full", length_jitter=0.5)
    batch = next(iter(trainer.get_train_dataloader()))
    num_masks = (batch["decoder_input_ids"] == trainer.model.config.mask_token_id).sum(1)
    assert (num_masks != (batch["labels"] != -100).sum(1)).any()
    plain = make_trainer(trainer.model, masking="full")
    assert trainer.evaluate()["eval_token_loss"] == plain.evaluate()["eval_token_loss"]


def test_it_is_refused_where_it_cannot_work(make_trainer, make_model, tmp_path):
    with pytest.raises(ValueError, match="`length_multiplier` is 1.5.*masking='full'"):
        AxeTrainingArguments(tmp_path, length_multiplier=1.5)
    with pytest.raises(ValueError, match="`length_jitter` 0.2, but.*masking='full'"):
        AxeTrainingArguments(tmp_path, length_jitter=0.2)
    with pytest.raises(ValueError, match="`length_jitter` must be in"):
        AxeTrainingArguments(tmp_path, masking="full", length_jitter=1.0)
    with pytest.raises(ValueError, match="`length_multiplier` must be > 0"):
        AxeTrainingArguments(tmp_path, masking="full", length_multiplier=0.0)
    with pytest.raises(ValueError, match="cross entropy needs a label at every position"):
        make_trainer(
            make_model(training_loss="cross_entropy"), masking="full", length_multiplier=1.5
        )


def test_going_on_with_another_multiplier_replaces_the_saved_one(make_trainer, make_model):
    model = make_trainer(make_model(), masking="full", length_multiplier=1.5).model
    assert make_trainer(model).model.generation_config.length_multiplier == 1.0
