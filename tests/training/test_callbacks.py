import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from axe_hf import CmlmForConditionalGeneration
from axe_hf.training import EmaCallback
from axe_hf.training.schedule import timed_factor


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class TestResume:
    def settings(self):
        return {"max_steps": 10, "save_strategy": "steps", "save_steps": 4, "learning_rate": 3e-3}

    @pytest.mark.parametrize(
        "extra", [{}, {"ema_decay": 0.9, "max_tokens_per_batch": 50}], ids=["plain", "ema, tokens"]
    )
    def test_a_resumed_run_ends_bit_by_bit_as_an_unbroken_one(
        self, make_trainer, make_model, tmp_path, extra
    ):
        settings = self.settings() | extra
        whole = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "a"), **settings)
        whole.train()
        resumed = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "b"), **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
        assert resumed.state.global_step == 10
        assert_equal_weights(weights_of(whole.model), weights_of(resumed.model))

    def test_true_takes_the_last_checkpoint(self, make_trainer, make_model):
        make_trainer(**self.settings() | {"max_steps": 5}).train()
        trainer = make_trainer(**self.settings())
        trainer.train(resume_from_checkpoint=True)
        assert trainer.state.global_step == 10

    def test_time_spent_is_part_of_the_state(self, make_trainer):
        first = make_trainer(**self.settings())
        first.train()
        second = make_trainer(**self.settings())
        second.train(resume_from_checkpoint=f"{first.args.output_dir}/checkpoint-8")
        state = json.loads(
            (Path(first.args.output_dir, "checkpoint-8", "trainer_state.json")).read_text()
        )
        saved = state["stateful_callbacks"]["TrainingClock"]["attributes"]["elapsed_seconds"]
        assert second.elapsed_minutes > saved / 60 > 0


class TestAverageOfWeights:
    def test_equals_a_computation_by_hand(self):
        model = torch.nn.Linear(2, 2)
        ema = EmaCallback(0.5)
        ema.start(model)
        expected = model.weight.detach().clone()
        for step in range(1, 20):
            with torch.no_grad():
                model.weight += torch.randn(2, 2)
            ema.update()
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * model.weight.detach()
        present = model.weight.detach().clone()
        with ema.applied():
            torch.testing.assert_close(model.weight.detach(), expected)
        assert torch.equal(model.weight.detach(), present)

    def test_average_of_bfloat16_weights_is_kept_in_fp32(self):
        model = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
        torch.nn.init.ones_(model.weight)
        ema = EmaCallback(0.999)
        ema.start(model)
        ema.num_updates = 100_000  # past the short memory of the beginning
        torch.nn.init.constant_(model.weight, 1.01)
        for _ in range(3):
            ema.update()
        # bfloat16 could not move by a thousandth of a hundredth.
        assert 1 < ema._averages[0].item() < 1.001

    def test_the_average_is_what_is_evaluated_and_saved_but_not_what_is_trained(
        self, make_trainer, make_model, tmp_path
    ):
        settings = {"max_steps": 6, "learning_rate": 3e-3, "eval_strategy": "steps"}
        settings |= {"save_strategy": "steps", "save_steps": 3, "eval_steps": 3}
        plain = make_trainer(output_dir=str(tmp_path / "plain"), **settings)
        plain.train()
        trainer = make_trainer(output_dir=str(tmp_path / "ema"), ema_decay=0.9, **settings)
        trainer.train()
        for step in (3, 6):
            folder = tmp_path / "ema" / f"checkpoint-{step}"
            state = load_file(folder / "ema_state.safetensors")
            saved = load_file(folder / "model.safetensors")
            trained = load_file(tmp_path / "plain" / f"checkpoint-{step}" / "model.safetensors")
            for name, weight in trained.items():
                assert torch.equal(state[f"weights.{name}"], weight), name
                assert torch.equal(state[f"averages.{name}"], saved[name]), name
        reloaded = CmlmForConditionalGeneration.from_pretrained(folder)
        assert_equal_weights(weights_of(reloaded), weights_of(trainer.model))
        evaluated = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
        assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluated[-1], rel=1e-6)
        assert evaluated[-1] != pytest.approx(plain.evaluate()["eval_loss"], rel=1e-3)

    def test_the_best_model_is_not_overwritten_at_the_end(self, make_trainer):
        settings = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "ema_decay": 0.9}
        settings |= {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
        trainer = make_trainer(learning_rate=3e-3, **settings)
        trainer.train()
        assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-6)

    def test_resuming_from_a_run_without_average_is_an_error(self, make_trainer):
        make_trainer(save_strategy="steps", save_steps=2).train()
        with pytest.raises(FileNotFoundError, match="holds no ema_state.safetensors"):
            make_trainer(ema_decay=0.9).train(resume_from_checkpoint=True)


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
        monkeypatch.setattr("axe_hf.training.callbacks.time", clock)
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
