import json
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback

from axe_hf.training.time_budget import timed_factor


class Time(TrainerCallback):
    """A clock for tests: a step takes one second."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.now += 1


class TestTimeBudget:
    @pytest.fixture
    def clock(self, monkeypatch):
        clock = Time()
        monkeypatch.setattr("axe_hf.training.time_budget.time", clock)
        return clock

    def test_training_ends_on_time_and_the_learning_rate_with_it(self, make_trainer, clock):
        trainer = make_trainer(
            callbacks=[clock],
            max_steps=-1,
            train_minutes=20 / 60,
            logging_steps=1,
            learning_rate=1.0,
            warmup_steps=0.2,
        )
        trainer.train()
        assert trainer.state.global_step == 20
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        # Each step is made at the rate of the time at which the one before it ended.
        rates = [0, 0.25, 0.5, 0.75] + [(20 - step) / 16 for step in range(4, 20)]
        assert [entry["learning_rate"] for entry in logs] == pytest.approx(rates)
        minutes = [entry["elapsed_minutes"] for entry in logs]
        assert minutes == pytest.approx([step / 60 for step in range(1, 21)])
        num_tokens = sum(
            len(row["input_ids"]) + len(row["labels"]) for row in trainer.train_dataset
        )
        speeds = [entry["tokens_per_second"] for entry in logs]
        assert sum(speeds) == pytest.approx(20 / 8 * num_tokens, rel=0.2)

    def test_evaluation_and_saving_cost_nothing_of_it(self, make_trainer, clock, monkeypatch):
        trainer = make_trainer(
            callbacks=[clock],
            max_steps=-1,
            train_minutes=10 / 60,
            eval_strategy="steps",
            eval_steps=4,
            save_strategy="steps",
            save_steps=3,
            predict_with_generate=False,
        )

        def slowly(function):
            def call(*args, **kwargs):
                clock.now += 100
                return function(*args, **kwargs)

            return call

        for name in ("evaluate", "save_model"):
            monkeypatch.setattr(trainer, name, slowly(getattr(trainer, name)))
        trainer.train()
        assert trainer.state.global_step == 10
        steps = [e["step"] for e in trainer.state.log_history if "eval_loss" in e]
        assert steps == [4, 8, 10]  # and once more at the end, as with `max_steps`
        assert clock.now == 10 + 3 * 100 + 4 * 100

    def test_a_resumed_run_gets_what_is_left_of_it(self, make_trainer, clock):
        settings = {"max_steps": -1, "save_strategy": "steps", "save_steps": 5}
        make_trainer(callbacks=[clock], train_minutes=8 / 60, **settings).train()
        clock.now += 1000
        second = make_trainer(callbacks=[clock], train_minutes=12 / 60, **settings)
        second.train(resume_from_checkpoint=True)
        assert second.state.global_step == 12
        assert second.elapsed_minutes == pytest.approx(12 / 60)

    def test_the_real_clock_ends_training_too(self, make_trainer):
        trainer = make_trainer(max_steps=-1, train_minutes=0.5 / 60)
        start = time.perf_counter()
        trainer.train()
        assert 0.5 <= time.perf_counter() - start < 60
        assert trainer.state.epoch < trainer.args.num_train_epochs

    @pytest.mark.parametrize(
        ("name", "share"), [("cross_entropy_first", 0.25), ("align_first", 0.6)]
    )
    def test_the_first_loss_ends_by_the_same_clock(
        self, make_trainer, make_model, record_losses, clock, name, share
    ):
        model = make_model(axe_temperature=1.0)
        losses = record_losses(model)
        how = {"max_steps": -1, "save_strategy": "steps", "save_steps": 6, "callbacks": [clock]}
        how |= {"train_minutes": 20 / 60, name: share}
        trainer = make_trainer(model, **how)
        trainer.train()
        assert [loss["axe_temperature"] for loss in losses] == [0] * int(20 * share) + [1] * int(
            20 - 20 * share
        )
        first, losses[:] = list(losses), []
        trainer = make_trainer(model, **how)
        trainer.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-6")
        assert losses == first[6:]

    def test_max_steps_may_come_first(self, make_trainer):
        trainer = make_trainer(max_steps=6, train_minutes=99, logging_steps=1, warmup_steps=0)
        trainer.train()
        assert trainer.state.global_step == 6
        rates = [e["learning_rate"] for e in trainer.state.log_history if "loss" in e]
        assert rates == pytest.approx([5e-4 * (1 - step / 6) for step in range(6)], rel=1e-3)

    def test_progress_bar_shows_an_estimate(self, make_trainer, clock, capfd):
        make_trainer(
            callbacks=[clock],
            max_steps=-1,
            train_minutes=9 / 60,
            logging_steps=3,
            disable_tqdm=False,
        ).train()
        assert "9/9" in capfd.readouterr().err

    @pytest.mark.parametrize("shape", ["linear", "cosine"])
    def test_schedule_rises_from_zero_and_falls_to_zero(self, shape):
        factors = [timed_factor(i / 100, i, 0.1, shape) for i in range(101)]
        assert factors[0] == 0 and factors[10] == pytest.approx(1) and factors[100] == 0
        assert factors[:11] == sorted(factors[:11])
        assert factors[10:] == sorted(factors[10:], reverse=True)
        assert timed_factor(0.5, 5, 10, shape) == pytest.approx(0.25)
        assert timed_factor(1.7, 5, 0, shape) == 0

    def test_time_spent_is_part_of_the_state(self, make_trainer):
        settings = {"max_steps": 10, "save_strategy": "steps", "save_steps": 4}
        first = make_trainer(**settings)
        first.train()
        second = make_trainer(**settings)
        second.train(resume_from_checkpoint=f"{first.args.output_dir}/checkpoint-8")
        state = json.loads(
            (Path(first.args.output_dir, "checkpoint-8", "trainer_state.json")).read_text()
        )
        saved = state["stateful_callbacks"]["TrainingClock"]["attributes"]["elapsed_seconds"]
        assert second.elapsed_minutes > saved / 60 > 0
