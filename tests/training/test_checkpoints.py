"""Which checkpoint a run goes on from, whether it is whole, and whether the run fits it."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from axe_hf.output import UNFINISHED
from axe_hf.training.checkpoints import check_resumption, flaw_of, resolve_checkpoint

SETTINGS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 3e-3}


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def remove(path):
    path.unlink()


def remove_all(path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()


@pytest.fixture(scope="module")
def finished(dataset, tokenizer, tmp_path_factory):
    """The folder of a run with the checkpoints 2, 4 and 6."""
    from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration

    folder = tmp_path_factory.mktemp("finished") / "run"
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "max_source_length": 12, "max_target_length": 12}
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    args = AxeTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **SETTINGS)
    AxeTrainer(model, args, train_dataset=dataset, processing_class=tokenizer).train()
    return folder


@pytest.fixture
def run_folder(finished, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


DAMAGES = [
    (remove_all, "trainer_state.json", "holds no trainer_state.json"),
    (remove, "trainer_state.json", "holds no trainer_state.json"),
    (halve, "trainer_state.json", "trainer_state.json is damaged"),
    (empty, "config.json", "config.json is damaged"),
    (remove, "model.safetensors", "holds no weights"),
    (halve, "model.safetensors", "model.safetensors is damaged"),
    (empty, "model.safetensors", "model.safetensors is damaged"),
    (halve, "optimizer.pt", "optimizer.pt is damaged"),
    (flip, "optimizer.pt", "optimizer.pt is damaged"),
    (empty, "scheduler.pt", "scheduler.pt is damaged"),
    (halve, "rng_state.pth", "rng_state.pth is damaged"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_the_newest_whole_checkpoint_is_taken_and_the_broken_one_named(
    run_folder, caplog, damage, name, message
):
    damage(run_folder / "checkpoint-6" / name)
    assert resolve_checkpoint("last", str(run_folder)) == str(run_folder / "checkpoint-4")
    assert message in caplog.text and "checkpoint-6" in caplog.text
    with pytest.raises(ValueError, match=f"`resume_from_checkpoint`: .*{message}"):
        resolve_checkpoint(str(run_folder / "checkpoint-6"), str(run_folder))
    halve(run_folder / "checkpoint-4" / "optimizer.pt")
    assert resolve_checkpoint(True, run_folder) == str(run_folder / "checkpoint-2")


def test_whole_checkpoints_are_taken_by_their_number_without_a_word(finished, caplog):
    assert resolve_checkpoint("last", finished) == str(finished / "checkpoint-6")
    assert resolve_checkpoint(finished / "checkpoint-2", finished).endswith("checkpoint-2")
    assert [flaw_of(finished / f"checkpoint-{n}") for n in (2, 4, 6)] == [None] * 3
    for nothing in (None, False, "false", ""):
        assert resolve_checkpoint(nothing, finished) is None
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["checkpoint-6-old", "checkpoint-60-6"])
def test_a_copy_by_another_name_is_not_the_newest_checkpoint(run_folder, name):
    (run_folder / "checkpoint-6").rename(run_folder / name)
    assert resolve_checkpoint("last", run_folder) == str(run_folder / "checkpoint-4")


def test_what_a_killed_run_left_without_a_checkpoint_starts_again(run_folder, tmp_path, caplog):
    for step in (2, 4, 6):
        remove(run_folder / f"checkpoint-{step}" / "trainer_state.json")
    with pytest.raises(ValueError, match="run holds no checkpoint-.* leave it out"):
        resolve_checkpoint("last", run_folder)
    (run_folder / UNFINISHED).write_text("")
    assert resolve_checkpoint("last", run_folder) is None
    assert "it starts again" in caplog.text
    (tmp_path / "other" / "checkpoint-best").mkdir(parents=True)
    for name in ("nowhere", "other"):
        with pytest.raises(ValueError, match=f"{name} holds no checkpoint-"):
            resolve_checkpoint("last", tmp_path / name)


def test_a_resume_at_the_end_trains_no_step_more(make_trainer, make_model):
    for extra in ({"max_steps": 5}, {"max_steps": 8}, {"max_steps": -1, "num_train_epochs": 1}):
        settings = SETTINGS | {"save_strategy": "epoch"} | extra
        whole = make_trainer(make_model(dropout=0.2), **settings)
        whole.train()
        steps = whole.state.global_step
        again = make_trainer(make_model(dropout=0.2), **settings)
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == steps
        weights = (dict(trainer.model.named_parameters()) for trainer in (again, whole))
        torch.testing.assert_close(*weights, rtol=0, atol=0)
        folder = Path(whole.args.output_dir)
        assert [path.name for path in folder.glob("checkpoint-*")] == [f"checkpoint-{steps}"]
        shutil.rmtree(folder)


def test_a_resume_when_the_minutes_are_over_trains_no_step_more(make_trainer):
    settings = SETTINGS | {"train_minutes": 1e-4, "max_steps": -1}
    first = make_trainer(**settings)
    first.train()
    again = make_trainer(**settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == first.state.global_step > 0


class TestAnotherRun:
    """A run that is resumed with other settings, other data, or from less than it needs."""

    @pytest.fixture(autouse=True)
    def in_place(self, finished, tmp_path):
        shutil.copytree(finished, tmp_path / "run")

    @pytest.fixture
    def resume(self, make_trainer, make_model, caplog):
        def start(model=None, **settings):
            sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "dropout": 0.3}
            model = make_model(encoder_attention_heads=8, decoder_attention_heads=8, **sizes)
            model.config.axe_delta = settings.pop("axe_delta", model.config.axe_delta)
            defaults = SETTINGS | {"per_device_train_batch_size": 64}
            make_trainer(model, **defaults | settings).train(resume_from_checkpoint=True)
            return [r.getMessage() for r in caplog.records if r.name.startswith("axe_hf")]

        return start

    def test_the_same_run_is_resumed_without_a_word(self, resume):
        assert resume() == []
        assert resume(max_steps=7, save_steps=3, logging_steps=1) == []

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"seed": 7}, "`seed` is 7, but was 42"),
            ({"data_seed": 7}, "`data_seed` is 7, but was None"),
            ({"masking": "full"}, "`masking` is full, but was uniform"),
            ({"learning_rate": 1e-3}, "`learning_rate` is 0.001, but was 0.003: 0.003 stays, by"),
            ({"weight_decay": 0.5}, "`weight_decay` is 0.5, but was 0.01: 0.01 stays, by"),
            ({"per_device_train_batch_size": 8}, "`per_device_train_batch_size` is 8, but was 64"),
            ({"max_tokens_per_batch": 99}, "`max_tokens_per_batch` is 99, but was None"),
            ({"axe_delta": 2.5}, "`axe_delta` is 2.5, but was "),
        ],
    )
    def test_other_settings_are_named(self, resume, settings, message):
        (warning,) = resume(**settings)
        assert message in warning

    def test_another_share_of_drafts_is_named(self, resume):
        warnings = resume(masking="full", draft_share=0.5)
        assert [warning.split(":")[0] for warning in warnings] == [
            "`draft_share` is 0.5, but was 0.0",
            "`masking` is full, but was uniform",
        ]

    def test_other_data_is_named(self, resume, dataset):
        other = dataset.select([1, 0, *range(2, 60)])
        for data, expected in ((dataset.select(range(50)), "50 pairs"), (other, "60 pairs")):
            warnings = resume(train_dataset=data)
            assert f"`train_dataset` is {expected}" in warnings[-1]
            assert "but was 60 pairs" in warnings[-1]

    @pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
    def test_a_missing_state_is_named(self, resume, tmp_path, name):
        remove(tmp_path / "run" / "checkpoint-6" / name)
        (warning,) = resume()
        assert f"checkpoint-6 holds no {name}" in warning


def test_averaged_weights_are_not_resumed_without_their_average(make_trainer):
    settings = SETTINGS | {"max_steps": 2}
    make_trainer(ema_decay=0.9, **settings).train()
    with pytest.raises(ValueError, match="`ema_decay` is not set, but .*Set it to 0.9"):
        make_trainer(**settings).train(resume_from_checkpoint=True)
    state = Path(make_trainer().args.output_dir, "checkpoint-2", "trainer_state.json")
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["AxeTrainer"]  # a checkpoint of an older version
    state.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="`ema_decay` is not set, but .*Set it to what it was"):
        make_trainer(**settings).train(resume_from_checkpoint=str(state.parent))


@pytest.mark.parametrize("before", [None, 0.5])
def test_an_average_that_is_asked_for_late_is_resumed(make_trainer, make_model, before):
    settings = SETTINGS | {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(make_model(), ema_decay=0.1, **settings)
    whole.train()
    resumed = make_trainer(make_model(), ema_decay=before, **settings)
    resumed.args.ema_decay = 0.1
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    weights = (dict(trainer.model.named_parameters()) for trainer in (resumed, whole))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    "extra",
    [
        {"save_steps": 3},  # a checkpoint within an epoch of 8 steps
        {"save_steps": 8, "max_tokens_per_batch": 50},
        {"save_steps": 3, "eval_strategy": "steps", "eval_steps": 2},
    ],
)
def test_persistent_workers_resume_bit_by_bit(make_trainer, make_model, dataset, tmp_path, extra):
    settings = SETTINGS | {"max_steps": 18, "predict_with_generate": False} | extra
    settings |= {"save_total_limit": None}
    settings |= {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    weights = []
    for output, checkpoint in (
        ("a", None),
        ("b", tmp_path / "a" / f"checkpoint-{extra['save_steps']}"),
    ):
        model = make_model(dropout=0.2)
        trainer = make_trainer(model, output_dir=str(tmp_path / output), **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        weights.append(dict(model.named_parameters()))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_full_disk_is_named_with_its_path(make_trainer, tmp_path, name, monkeypatch):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-2" / name).symlink_to("/dev/full")
    monkeypatch.setattr("pathlib.Path.unlink", lambda *args, **kwargs: None)
    with pytest.raises(OSError, match="(?i)run/checkpoint-2 could not .*no space left on device"):
        make_trainer(**SETTINGS).train()


def test_a_full_disk_in_the_last_save_is_named_with_its_path(make_trainer, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    trainer = make_trainer()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        with pytest.raises(OSError, match="model could not be written: .*File too large"):
            trainer.save_model(str(tmp_path / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_is_written_again_is_not_whole_until_it_is(
    make_trainer, make_model, tmp_path, monkeypatch
):
    make_trainer(**SETTINGS).train()
    again = make_trainer(**SETTINGS)
    monkeypatch.setattr(again, "_save_rng_state", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resolve_checkpoint("last", tmp_path / "run").endswith("checkpoint-6")
    assert flaw_of(tmp_path / "run" / "checkpoint-4").endswith("holds no trainer_state.json")


all_kills = pytest.mark.skipif("AXE_HF_ALL_KILLS" not in os.environ, reason="takes minutes")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks its runs")
@pytest.mark.parametrize("numbers", [["3"], pytest.param([], marks=all_kills)])
def test_a_killed_run_is_resumed_bit_by_bit(run_script, numbers):
    code, printed = run_script(Path(__file__).with_name("kills.py"), *numbers)
    assert code == 0, printed
    assert "kills resumed, bit-identical" in printed


@pytest.fixture
def told_of(tmp_path, caplog):
    """What is said when a run of one recipe goes on from a checkpoint of another."""

    def tell(before, recipe):
        state = {"stateful_callbacks": {"AxeTrainer": {"attributes": before}}}
        (tmp_path / "trainer_state.json").write_text(json.dumps(state))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (tmp_path / name).touch()
        caplog.clear()
        check_resumption(tmp_path, recipe)
        return caplog.text

    return tell


FIXED = {"world_size": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 8}
BUDGET = FIXED | {"max_tokens_per_batch": 99}


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (FIXED, {"world_size": 1, "gradient_accumulation_steps": 2}),
        (FIXED, {"world_size": 1, "per_device_train_batch_size": 16}),
        (BUDGET, {"world_size": 1, "gradient_accumulation_steps": 2}),
    ],
)
def test_steps_that_are_only_cut_otherwise_are_no_other_run(told_of, before, changes):
    said = told_of(before, before | changes)
    assert "A step is shared out otherwise (`world_size` 1, was 2, `" in said
    assert "another one" not in said


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (FIXED, {"world_size": 1}),
        (BUDGET, {"world_size": 1, "per_device_train_batch_size": 16}),
        (FIXED | {"train_dataset": "a stream of 1 files"}, {"per_device_train_batch_size": 4}),
    ],
)
def test_steps_of_other_sentences_are_another_run(told_of, before, changes):
    recipe = before | changes
    if "train_dataset" in before:
        recipe["gradient_accumulation_steps"] = 2
    said = told_of(before, recipe)
    assert "the run goes on as another one" in said and "shared out otherwise" not in said


def test_tied_weights_are_not_missed_in_a_checkpoint(make_trainer, caplog):
    make_trainer(**SETTINGS).train()
    trainer = make_trainer(**SETTINGS | {"max_steps": 8})
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    trainer.train(resume_from_checkpoint=True)
    assert "missing keys" not in caplog.text
    names = ["lm_head.weight", "model.shared.weight"]
    loaded = torch.nn.modules.module._IncompatibleKeys(names, [])
    trainer._issue_warnings_after_load(loaded)
    logger.removeHandler(caplog.handler)
    assert "missing keys in the checkpoint model loaded: ['model.shared.weight']" in caplog.text
