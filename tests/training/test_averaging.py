"""The moving average of the weights in training, and the mean of several checkpoints."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer

from axe_hf import CmlmForConditionalGeneration
from axe_hf.training import EmaCallback, average_checkpoints


class TestMovingAverage:
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

    def test_average_of_float64_weights_is_kept_in_fp64(self, tmp_path):
        model = torch.nn.Linear(1, 1, bias=False).double()
        torch.nn.init.constant_(model.weight, 1 / 3)
        ema = EmaCallback(0.999)
        ema.start(model)
        ema.num_updates = 100_000
        torch.nn.init.constant_(model.weight, 1 / 3 + 1e-9)
        ema.update()
        ema.save(tmp_path)
        for moved in (ema, EmaCallback(0.999)):
            if moved is not ema:
                moved.load(model, tmp_path)
            with moved.applied():
                assert model.weight.item() - 1 / 3 == pytest.approx(1e-12, rel=1e-3)

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
        torch.testing.assert_close(
            dict(reloaded.named_parameters()),
            dict(trainer.model.named_parameters()),
            rtol=0,
            atol=0,
        )
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


@pytest.fixture
def checkpoints(make_model, tokenizer, tmp_path):
    folders = []
    for number in range(3):
        model = make_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape)
        folders.append(tmp_path / f"checkpoint-{number}")
        model.save_pretrained(folders[-1])
    tokenizer.save_pretrained(folders[0])
    return folders


def test_every_weight_is_the_mean(checkpoints):
    average = average_checkpoints(checkpoints)
    models = [CmlmForConditionalGeneration.from_pretrained(folder) for folder in checkpoints]
    weights = [dict(model.named_parameters()) for model in models]
    for name, parameter in average.named_parameters():
        mean = torch.stack([w[name] for w in weights]).mean(dim=0)
        torch.testing.assert_close(parameter, mean, msg=name)
    assert average.lm_head.weight is average.model.shared.weight


def test_means_of_float64_are_taken_in_float64(make_model, tmp_path):
    model, names = make_model().double(), ("first", "second")
    for name, shift in zip(names, (0.0, 2e-10), strict=True):
        for weight in model.parameters():
            torch.nn.init.constant_(weight, 1 / 3 + shift)
        model.save_pretrained(tmp_path / name)
    average = average_checkpoints([tmp_path / name for name in names])
    for weight in average.parameters():
        assert (weight - (1 / 3 + 1e-10)).abs().max() < 1e-15


def test_it_is_saved_like_any_model_with_tied_weights_once(checkpoints, tmp_path):
    average = average_checkpoints(checkpoints, tmp_path / "average")
    with safe_open(tmp_path / "average" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {name for name, _ in average.named_parameters()}
    assert "lm_head.weight" not in names
    reloaded = CmlmForConditionalGeneration.from_pretrained(tmp_path / "average")
    torch.testing.assert_close(reloaded.model.shared.weight, average.model.shared.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "average").blank_token_id == 4


def test_a_result_that_fails_halfway_leaves_no_folder(checkpoints, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("axe_hf.training.averaging.AutoTokenizer.from_pretrained", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="disk full"):
        average_checkpoints(checkpoints, tmp_path / "average")
    assert sorted(tmp_path.iterdir()) == before


def test_bad_input(checkpoints, make_model, tmp_path):
    with pytest.raises(ValueError, match="`checkpoints` must be a list of folders"):
        average_checkpoints([])
    with pytest.raises(ValueError, match="`checkpoints` must be a list of folders"):
        average_checkpoints(str(checkpoints[0]))
    with pytest.raises(ValueError, match="nowhere holds no model"):
        average_checkpoints([checkpoints[0], tmp_path / "nowhere"])
    with pytest.raises(FileExistsError, match="`output_dir` must be a new or an empty folder"):
        average_checkpoints(checkpoints, checkpoints[0])
    make_model(d_model=16).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="must be of one model: .* has shape"):
        average_checkpoints([checkpoints[0], tmp_path / "other"])
