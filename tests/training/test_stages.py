"""Losses that come before the model's own: `cross_entropy_first` and `align_first`."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import TrainerCallback

from axe_hf import AxeTrainingArguments, CmlmConfig

CTC = {"allow_repetition": True, "axe_temperature": 1.0, "axe_delta": math.inf}
OWN = {"training_loss": "axe", **CTC}
PAPER = {"allow_repetition": False, "axe_temperature": 0.0, "axe_delta": 3.0}
ALIGNED, AT_POSITIONS = ({"training_loss": name, **PAPER} for name in ("axe", "cross_entropy"))
STRETCHED = {"masking": "full", "length_multiplier": 1.5, "length_jitter": 0.2}


@pytest.fixture
def make_stretched(make_model):
    """Makes models of the family that are trained on stretched canvases."""

    def make(**config):
        return make_model(max_target_length=24, **{"axe_temperature": 1.0} | STRETCHED | config)

    return make


def weights_of(trainer):
    return dict(trainer.model.named_parameters())


@pytest.mark.parametrize(
    ("cross_entropy", "aligned", "expected"),
    [
        (0.0, 0.0, [OWN] * 10),
        (0.3, 0.0, [AT_POSITIONS] * 3 + [OWN] * 7),
        (0.25, 0.0, [AT_POSITIONS] * 3 + [OWN] * 7),
        (1.0, 0.0, [AT_POSITIONS] * 10),
        (0.0, 0.5, [ALIGNED] * 5 + [OWN] * 5),
        (0.25, 0.25, [AT_POSITIONS] * 3 + [ALIGNED] * 2 + [OWN] * 5),
        (0.5, 0.5, [AT_POSITIONS] * 5 + [ALIGNED] * 5),
    ],
)
def test_cross_entropy_comes_first_then_the_papers_axe_then_the_models_own_loss(
    make_trainer, make_stretched, record_losses, cross_entropy, aligned, expected
):
    model = make_stretched(**CTC)
    losses = record_losses(model)
    shares = {"cross_entropy_first": cross_entropy, "align_first": aligned}
    make_trainer(model, max_steps=10, **shares).train()
    assert losses == expected
    assert OWN.items() <= vars(model.config).items()


def test_a_finite_delta_stays_in_the_papers_axe(make_trainer, make_stretched, record_losses):
    model = make_stretched(axe_delta=1.5)
    losses = record_losses(model)
    make_trainer(model, align_first=1.0).train()
    assert losses == [ALIGNED | {"axe_delta": 1.5}] * 4


class Gradients(TrainerCallback):
    """The gradients of each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


@pytest.mark.parametrize("fused", ["never", "always"])
def test_it_is_the_cross_entropy_of_canvases_of_the_targets_own_length(
    make_trainer, make_stretched, dataset, fused
):
    """Also where canvases are stretched and drawn: the first gradient, written out."""
    kept = Gradients()
    model = make_stretched(**CTC, fused_loss=fused)
    settings = {"max_steps": 1, "per_device_train_batch_size": 60, "max_grad_norm": 0.0}
    make_trainer(model, callbacks=[kept], cross_entropy_first=1.0, **settings).train()

    model = make_stretched(**CTC).train()
    total, num_labels = 0.0, 0
    for row in dataset:
        source, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        canvas = torch.full_like(labels, model.config.mask_token_id)
        outputs = model(input_ids=source, decoder_input_ids=canvas)
        total = total + F.cross_entropy(outputs.logits[0], labels[0], reduction="sum")
        length = torch.tensor([labels.shape[1]])
        total = total + 0.1 * F.cross_entropy(outputs.length_logits, length)
        num_labels += labels.shape[1]
    (total / num_labels).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(kept.steps[0][name], weight.grad, rtol=1e-4, atol=1e-6)


def test_a_run_of_it_alone_is_one_of_a_cross_entropy_model(make_trainer, make_model):
    """With uniform masks, whose canvases show tokens and stay as they are; and with full ones."""
    for masking in ("uniform", "full"):
        first = make_trainer(make_model(), masking=masking, cross_entropy_first=1.0)
        first.train()
        other = make_trainer(make_model(training_loss="cross_entropy"), masking=masking)
        other.train()
        torch.testing.assert_close(weights_of(first), weights_of(other), rtol=0, atol=0)


def test_batches_without_canvases_get_those_of_the_targets_own_length(
    make_trainer, make_model, tokenizer
):
    def collate(rows):
        ids = tokenizer.pad([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt")
        labels = [torch.tensor(row["labels"]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        return {**ids, "labels": padded}

    model = make_model(length_multiplier=2.0)  # of decoding
    trainer = make_trainer(model, cross_entropy_first=1.0, eval_dataset=None)
    trainer.data_collator = collate
    trainer.train()
    assert 0 < trainer.state.log_history[-1]["train_loss"] < 20


def test_no_step_of_it_has_drafts(make_trainer, make_stretched):
    model, seen = make_stretched(), []
    compute = model.loss_function
    model.loss_function = lambda config, is_draft, **given: (
        seen.append((config.training_loss, is_draft))
        or compute(config=config, is_draft=is_draft, **given)
    )
    make_trainer(model, cross_entropy_first=0.5, draft_share=1.0).train()
    assert seen == [("cross_entropy", False)] * 2 + [("axe", True)] * 2


def test_rates_of_skipping_are_of_the_labels_that_were_aligned(make_trainer, make_stretched):
    def logs_of(**settings):
        how = {"logging_steps": 2, "learning_rate": 0.0, "lr_scheduler_type": "constant"}
        trainer = make_trainer(make_stretched(axe_delta=0.1), **how | settings)
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    own = [entry["skipped_target_rate"] for entry in logs_of()]
    assert min(own) > 0.2  # at so small a delta
    first, mixed = logs_of(cross_entropy_first=0.75)
    assert "skipped_target_rate" not in first
    assert mixed["skipped_target_rate"] == pytest.approx(own[1], abs=0.15)


@pytest.mark.parametrize("name", ["cross_entropy_first", "align_first"])
class TestEither:
    def test_evaluation_and_checkpoints_go_by_the_models_own_loss(
        self, make_trainer, make_stretched, name
    ):
        model, seen = make_stretched(**CTC), []
        compute = model.loss_function
        model.loss_function = lambda config, **given: (
            seen.append((model.training, config.axe_temperature)) or compute(config=config, **given)
        )
        how = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
        trainer = make_trainer(model, save_steps=2, **how, **{name: 1.0})
        trainer.train()
        assert set(seen) == {(True, 0.0), (False, 1.0)}
        saved = CmlmConfig.from_pretrained(f"{trainer.args.output_dir}/checkpoint-2")
        assert OWN.items() <= vars(saved).items()

    @pytest.mark.parametrize("step", [2, 6])
    def test_a_resumed_run_changes_at_the_same_step_and_ends_bit_by_bit_alike(
        self, make_trainer, make_stretched, tmp_path, name, step
    ):
        how = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, name: 0.5}
        whole = make_trainer(make_stretched(dropout=0.2), output_dir=str(tmp_path / "a"), **how)
        whole.train()
        resumed = make_trainer(make_stretched(dropout=0.2), output_dir=str(tmp_path / "b"), **how)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
        torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)

    def test_an_error_in_the_loss_leaves_the_configuration_as_it_was(
        self, make_trainer, make_stretched, name
    ):
        model = make_stretched(**CTC)
        model.loss_function = lambda **given: 1 / 0
        with pytest.raises(ZeroDivisionError):
            make_trainer(model, **{name: 0.5}).train()
        assert OWN.items() <= vars(model.config).items()

    def test_a_model_of_cross_entropy_has_no_use_for_it(self, make_trainer, make_model, name):
        with pytest.raises(ValueError, match=f"`{name}` is 0.5, but cross entropy"):
            make_trainer(make_model(training_loss="cross_entropy"), **{name: 0.5})

    @pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
    def test_a_share_that_cannot_be_is_refused(self, name, share):
        with pytest.raises(ValueError, match=f"`{name}` must be in"):
            AxeTrainingArguments("run", **{name: share})

    def test_it_is_told_by_checkpoint_and_card(self, make_trainer, make_stretched, caplog, name):
        how = {"save_strategy": "steps", "save_steps": 2}
        trainer = make_trainer(make_stretched(), **how, **{name: 0.5})
        trainer.train()
        trainer.create_model_card()
        assert "first | 0.5 |" in (card := Path(trainer.args.output_dir, "README.md").read_text())
        assert ("cross entropy, first" in card) == (name == "cross_entropy_first")
        make_trainer(make_stretched(), **how).train(resume_from_checkpoint=True)
        assert f"`{name}` is 0.0, but was 0.5" in caplog.text

    def test_a_checkpoint_of_before_there_was_such_a_thing_is_resumed_without_a_word(
        self, make_trainer, make_stretched, caplog, name
    ):
        how = {"save_strategy": "steps", "save_steps": 2}
        trainer = make_trainer(make_stretched(), **how)
        trainer.train()
        path = Path(trainer.args.output_dir, "checkpoint-2", "trainer_state.json")
        state = json.loads(path.read_text())
        del state["stateful_callbacks"]["AxeTrainer"]["attributes"][name]
        path.write_text(json.dumps(state))
        make_trainer(make_stretched(), **how).train(resume_from_checkpoint=str(path.parent))
        assert "but was" not in caplog.text


def test_both_together_are_no_more_than_the_run():
    with pytest.raises(ValueError, match="`cross_entropy_first` and `align_first` .* make 1.1"):
        AxeTrainingArguments("run", cross_entropy_first=0.6, align_first=0.5)
    AxeTrainingArguments("run", cross_entropy_first=0.7, align_first=0.3)
