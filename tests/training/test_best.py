"""Which checkpoints are best, which of them stay, and when training ends early."""

import math

import pytest
import torch
from safetensors.torch import load_file

from axe_hf import AxeTrainingArguments
from axe_hf.training import choose_checkpoints
from axe_hf.training.best import best_of

EACH_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture
def make_scored(make_trainer):
    """Makes a trainer whose evaluations find these scores, one after the other."""

    def make(scores, **settings):
        trainer = make_trainer(**EACH_STEP | {"metric_for_best_model": "bleu"} | settings)
        left = iter(scores)
        trainer.compute_metrics = lambda prediction: {"bleu": next(left)}
        return trainer

    return make


def test_of_equals_the_earlier_is_better_and_nan_is_worst():
    scores = {1: math.nan, 2: 3.0, 3: 5.0, 4: 5.0}
    assert best_of(scores, 3, greater_is_better=True) == [3, 4, 2]
    assert best_of(scores, 9, greater_is_better=False) == [2, 3, 4, 1]


def test_the_best_checkpoints_and_the_last_are_kept(make_scored, tmp_path):
    trainer = make_scored([5.0, 9.0, 7.0, 1.0, 2.0], keep_best=2, max_steps=5)
    trainer.train()
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {"checkpoint-2", "checkpoint-3", "checkpoint-5"}
    chosen = choose_checkpoints([tmp_path / "run"], best=3)
    assert [(path.name[-1], score) for path, score in chosen.items()] == [
        ("2", 9.0),
        ("3", 7.0),
        ("5", 2.0),
    ]


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}])
def test_a_run_may_end_with_the_average_of_its_best(make_scored, tmp_path, settings):
    scores = [5.0, 9.0, 1.0, 2.0, 9.0]
    trainer = make_scored(scores, keep_best=2, average_best=True, max_steps=4, **settings)
    trainer.train()
    trainer.save_model()
    saved, first, second = (
        load_file(tmp_path / "run" / name / "model.safetensors")
        for name in ("", "checkpoint-1", "checkpoint-2")
    )
    assert any((first[name] != second[name]).any() for name in saved)
    for name, weight in saved.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)


def test_training_ends_when_patience_does_and_a_resumed_run_counts_on(make_scored, tmp_path):
    scores = [5.0, 9.0, 9.4, 7.0, 11.0, 12.0]
    how = {"early_stopping_patience": 2, "early_stopping_threshold": 0.5}
    whole = make_scored(scores, max_steps=9, **how)
    whole.train()
    assert whole.state.global_step == 4  # 9.4 is not better by more than 0.5
    resumed = make_scored(scores[3:], max_steps=9, **how)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.state.global_step == 4
    resumed.evaluate()  # after training an evaluation is no more part of it
    again = make_scored([], max_steps=9, **how)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert again.state.global_step == 4


def test_the_best_by_bleu_is_what_a_run_may_end_with(make_scored, tmp_path):
    trainer = make_scored([5.0, 9.0, 7.0], max_steps=3, load_best_model_at_end=True)
    trainer.train()
    best = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    weights = dict(trainer.model.named_parameters())
    assert all(best[name].equal(weights[name]) for name in best.keys() & weights.keys())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_strategy": "no", "keep_best": 2}, "`keep_best` is 2, but nothing is evaluated"),
        ({"eval_strategy": "no", "early_stopping_patience": 1}, "but nothing is evaluated while"),
        ({"early_stopping_threshold": 0.5}, "`early_stopping_patience` is not set"),
        ({"average_best": True}, "`average_best` is True, but `keep_best` is not set"),
        ({"keep_best": 2, "save_strategy": "epoch"}, "needs a score of each checkpoint"),
        ({"keep_best": 2, "eval_steps": 2, "save_steps": 3}, r"got steps \(2\) and steps \(3\)"),
        ({"keep_best": 2, "save_total_limit": 3}, "`save_total_limit` 3 both say"),
        (
            {"keep_best": 2, "average_best": True, "load_best_model_at_end": True},
            "a run ends with one",
        ),
        ({"keep_best": 0}, "`keep_best` must be at least 1"),
        ({"early_stopping_patience": -1}, "`early_stopping_patience` must be at least 1"),
    ],
)
def test_a_choice_of_the_best_that_nothing_decides_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        AxeTrainingArguments(str(tmp_path), use_cpu=True, **EACH_STEP | settings)


def test_a_shard_or_an_adapter_is_not_averaged(make_model, make_trainer):
    import peft

    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"])
    adapted = peft.get_peft_model(make_model(), config)
    with pytest.raises(ValueError, match="`average_best`: checkpoints hold an adapter"):
        make_trainer(adapted, keep_best=2, average_best=True, **EACH_STEP)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric_for_best_model": "blue"}, "bleu, .*; got 'blue'"),
        (
            {"metric_for_best_model": "bleu", "predict_with_generate": False},
            "got 'bleu'. Translations are scored with `predict_with_generate`",
        ),
    ],
)
def test_a_metric_that_nothing_finds_is_refused_before_training(make_trainer, settings, message):
    with pytest.raises(ValueError, match=f"`metric_for_best_model` must be one of .*{message}"):
        make_trainer(**EACH_STEP | settings)


@pytest.mark.parametrize(
    ("metric", "is_high"), [("bleu", True), ("loss", False), ("repetition_rate", False)]
)
def test_the_name_of_a_metric_says_which_end_is_best(tmp_path, metric, is_high):
    settings = EACH_STEP | {"keep_best": 2, "metric_for_best_model": metric}
    assert AxeTrainingArguments(str(tmp_path), **settings).greater_is_better is is_high
