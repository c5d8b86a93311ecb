"""`axe-hf average`: which checkpoints are taken, what comes out, and how each failure looks."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

SCORES = {10: (5.0, 3.0), 20: (9.0, 2.0), 100: (7.0, 1.0)}  # BLEU, loss


@pytest.fixture(scope="module")
def finished_run(model, tmp_path_factory):
    """The folder of a run with three checkpoints, whose weights differ by their steps."""
    folder = tmp_path_factory.mktemp("average") / "run"
    log, saved = [], AutoModelForSeq2SeqLM.from_pretrained(model)
    for step, (bleu, loss) in SCORES.items():
        log.append({"step": step, "eval_bleu": bleu, "eval_loss": loss, "epoch": 1.0})
        for weight in saved.parameters():
            weight.data.fill_(step)
        checkpoint = folder / f"checkpoint-{step}"
        saved.save_pretrained(checkpoint)
        AutoTokenizer.from_pretrained(model).save_pretrained(checkpoint)
        state = {"global_step": step, "log_history": log}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize(
    ("choice", "steps"),
    [
        ((), (10, 20, 100)),
        (("--best", 2), (20, 100)),
        (("--best", 1, "--metric", "loss"), (100,)),
        (("--last", 2), (20, 100)),
    ],
)
def test_the_mean_of_the_chosen_ones_is_written(axe_hf, finished_run, tmp_path, choice, steps):
    out = tmp_path / "mean"
    code, printed, _ = axe_hf("average", finished_run, *choice, "--output-dir", out)
    assert code == 0 and f"Saved the mean of these {len(steps)} in {out}" in printed
    named = [int(line.split("checkpoint-")[1].split()[0]) for line in printed.splitlines()[:-2]]
    assert sorted(named) == list(steps)
    for weight in load_file(out / "model.safetensors").values():
        torch.testing.assert_close(weight, torch.full_like(weight, sum(steps) / len(steps)))
    assert axe_hf("translate", out, "one two")[0] == 0


def test_the_best_come_first_with_their_scores(axe_hf, finished_run, tmp_path):
    folders = [finished_run / f"checkpoint-{step}" for step in (10, 20, 100)]
    _, printed, _ = axe_hf("average", *folders, "--best", 2, "--output-dir", tmp_path / "mean")
    assert printed.startswith(f"{folders[1]}  bleu 9.00\n{folders[2]}  bleu 7.00\n")


def test_a_checkpoint_that_is_not_whole_is_passed_over(
    axe_hf, fails, finished_run, tmp_path, caplog
):
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "checkpoint-100" / "trainer_state.json").unlink()
    code, printed, _ = axe_hf("average", tmp_path / "run", "--output-dir", tmp_path / "mean")
    assert code == 0 and "mean of these 2" in printed
    line = fails(1, "average", tmp_path / "run", "--last", 3, "--output-dir", tmp_path / "no")
    assert "`last` must be from 1 to 2, the number of checkpoints that are whole, got 3" in line


def test_wrong_usage_and_failures(fails, finished_run, model, tmp_path):
    out = ("--output-dir", tmp_path / "mean")
    assert "required: --output-dir" in fails(2, "average", finished_run)
    assert "required: CHECKPOINTS" in fails(2, "average", *out)
    assert "either --best or --last" in fails(2, "average", "r", "--best", 1, "--last", 1, *out)
    for choice in (("--last", 1), ()):
        line = fails(2, "average", "r", *choice, "--metric", "chrf", *out)
        assert "--metric says what --best means: add --best" in line
    assert "--best: must be a whole number" in fails(2, "average", "r", "--best", 0, *out)
    assert "There is no folder nowhere" in fails(1, "average", "nowhere", *out)
    line = fails(1, "average", finished_run, "--best", 1, "--metric", "chrf", *out)
    assert "checkpoint-10 was not evaluated by 'chrf' at its step, but has bleu, loss" in line
    line = fails(1, "average", model, "--best", 1, *out)
    assert "holds no trainer_state.json" in line
    line = fails(1, "average", finished_run, finished_run / "checkpoint-10", *out)
    assert "given twice" in line
    (tmp_path / "empty").mkdir()
    assert "holds no model" in fails(1, "average", tmp_path / "empty", *out)
    assert "must be a new or an empty folder" in fails(
        1, "average", finished_run, "--output-dir", model
    )
    assert not (tmp_path / "mean").exists()


def test_adapters_are_not_averaged(fails, tmp_path):
    for step in (1, 2):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        state = {"global_step": step, "log_history": []}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        save_file({"weight": torch.zeros(1)}, folder / "adapter_model.safetensors")
    line = fails(1, "average", tmp_path / "run", "--last", "2", "--output-dir", tmp_path / "mean")
    assert "checkpoint-1 is an adapter" in line and "axe_hf.load_merged" in line
    assert not (tmp_path / "mean").exists()
