"""Training on drafts of the model's own, `draft_share`."""

import pytest
import torch

from axe_hf import CmlmConfig, DataCollatorForCmlm
from axe_hf.cmlm.loss_cmlm import CmlmForConditionalGenerationLoss
from axe_hf.training.stages import show_drafts

REPEATING = {"allow_repetition": True, "axe_temperature": 1.0}
PAPER = {"allow_repetition": False, "axe_temperature": 0.0}


@pytest.fixture
def rows(dataset):
    return [{name: row[name] for name in ("input_ids", "labels")} for row in list(dataset)[:12]]


@pytest.fixture
def train(make_model, make_trainer):
    def run(config=REPEATING, **given):
        settings = {"max_steps": 3, "masking": "full", "length_multiplier": 1.5, "logging_steps": 1}
        model = make_model(max_target_length=24, **config)
        trainer = make_trainer(model, eval_dataset=None, **settings | given)
        trainer.train()
        return trainer

    return run


def a_batch(trainer, rows):
    return trainer.data_collator(rows[:3])


def test_a_draft_is_what_the_model_says_and_only_where_it_was_masked(train, rows, tokenizer):
    trainer = train(draft_share=0.5)
    model, batch = trainer.model.eval(), a_batch(trainer, rows)
    seen = torch.zeros_like(batch["decoder_input_ids"], dtype=torch.bool)
    with torch.no_grad():
        logits = model(**{n: v for n, v in batch.items() if n != "labels"}).logits
    logits[..., [tokenizer.pad_token_id, tokenizer.mask_token_id]] = -torch.inf
    for seed in range(40):
        torch.manual_seed(seed)
        canvas = show_drafts(model, batch, 1.0, tokenizer)
        is_shown = canvas != batch["decoder_input_ids"]
        assert (
            canvas == torch.where(is_shown, logits.argmax(-1), batch["decoder_input_ids"])
        ).all()
        seen |= is_shown
    assert (seen == (batch["decoder_input_ids"] == tokenizer.mask_token_id)).all()


def test_its_share_is_that_of_the_sentences(train, rows, tokenizer):
    trainer = train(draft_share=0.25)
    batch = trainer.data_collator(rows[:1] * 400)
    torch.manual_seed(0)
    canvas = show_drafts(trainer.model.eval(), batch, 0.25, tokenizer)
    number = (canvas != batch["decoder_input_ids"]).any(1).sum()
    assert 60 < number <= 115  # of some that were chosen, nothing was drawn


@pytest.mark.parametrize("loss", (REPEATING, PAPER))
def test_all_of_a_draft_is_scored_whatever_it_shows(tokenizer, rows, loss):
    config = CmlmConfig(vocab_size=len(tokenizer), d_model=16, length_loss_weight=0, **loss)
    for multiplier in (1.0, 2.0):  # one as long as the target, one stretched
        collator = DataCollatorForCmlm(tokenizer, masking="full", length_multiplier=multiplier)
        batch = collator(rows[:3])
        canvas, labels = batch["decoder_input_ids"], batch["labels"]
        logits = torch.randn(*canvas.shape, len(tokenizer))
        draft = canvas.masked_fill(canvas == tokenizer.mask_token_id, 7)
        how = {"length_logits": None, "labels": labels, "config": config}
        masked = CmlmForConditionalGenerationLoss(logits, canvas=canvas, **how)
        drafted = CmlmForConditionalGenerationLoss(logits, canvas=draft, is_draft=True, **how)
        assert drafted.loss == masked.loss


def test_it_trains_with_a_first_part_by_the_best_path(train):
    trainer = train(draft_share=1.0, align_first=0.5, max_steps=4)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4 and all(0 < loss < 100 for loss in losses)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"draft_share": 1.5}, "`draft_share` must be in"),
        ({"draft_share": -0.1}, "`draft_share` must be in"),
        (
            {"draft_share": 0.5, "masking": "uniform"},
            "`draft_share` is 0.5 and `masking` 'uniform'",
        ),
    ],
)
def test_a_share_that_cannot_be_is_refused(train, given, problem):
    given = {"length_multiplier": 1.0} | given
    with pytest.raises(ValueError, match=problem):
        train(PAPER, **given)


def test_cross_entropy_has_no_drafts(train):
    with pytest.raises(ValueError, match="cross entropy aligns nothing"):
        train(PAPER | {"training_loss": "cross_entropy"}, draft_share=0.5, length_multiplier=1.0)
