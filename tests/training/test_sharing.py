"""A trainer's pushes, by the real client to a Hub on this machine."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from axe_hf import CmlmForConditionalGeneration, translate

WHOLE = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
WHOLE |= {"README.md", "modeling_cmlm.py", "pipeline.py"}


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
    return caplog


def settings(**changes):
    return {"push_to_hub": True, "hub_model_id": "me/model", "save_steps": 2} | changes


@pytest.mark.parametrize(
    ("strategy", "ema_decay"),
    [
        pytest.param("end", None, marks=pytest.mark.slow),
        pytest.param("every_save", 0.9, marks=pytest.mark.slow),
        ("checkpoint", 0.9),
        pytest.param("all_checkpoints", None, marks=pytest.mark.slow),
    ],
)
def test_every_strategy_brings_a_whole_model(make_trainer, hub, strategy, ema_decay):
    how = settings(hub_strategy=strategy, save_strategy="steps", hub_token=hub.TOKEN)
    how |= {"hub_private_repo": True, "hub_always_push": True, "ema_decay": ema_decay}
    trainer = make_trainer(**how)
    trainer.train()
    trainer._finish_current_push()
    names = hub.files("me/model").keys()
    assert strategy == "end" or WHOLE <= names
    trainer.save_model()  # which pushes
    files = hub.files("me/model")
    assert WHOLE <= files.keys() and hub.repositories["me/model"].is_private
    checkpoints = {Path(name).parts[0] for name in files if "/" in name}
    expected = {"checkpoint": {"last-checkpoint"}}
    expected["all_checkpoints"] = {"checkpoint-2", "checkpoint-4"}
    assert checkpoints == expected.get(strategy, set())
    for folder in checkpoints:
        held = {name.removeprefix(f"{folder}/") for name in files if name.startswith(folder)}
        assert {"trainer_state.json", "optimizer.pt"} | WHOLE - {"README.md"} <= held
    assert not any("training_args" in name for name in files)
    assert not any(hub.TOKEN.encode() in content for content in files.values())
    assert not any(name.endswith((".pt", ".pth")) for name in files if "/" not in name)
    loaded = AutoModelForSeq2SeqLM.from_pretrained("me/model")
    tokenizer = AutoTokenizer.from_pretrained("me/model")
    folder = trainer.args.output_dir
    right = translate(CmlmForConditionalGeneration.from_pretrained(folder), tokenizer, ["one two"])
    assert translate(loaded, tokenizer, ["one two"]) == right


def test_a_trainer_that_was_not_to_push_pushes_when_asked(make_trainer, hub):
    trainer = make_trainer(hub_model_id="me/model")
    trainer.save_model()
    assert hub.requests == [] and not list(Path(trainer.args.output_dir).glob("*.py"))
    trainer.push_to_hub(private=True, license="mit", source_lang="en", target_lang="de")
    assert WHOLE <= hub.files("me/model").keys() and hub.repositories["me/model"].is_private
    commit = trainer.push_to_hub("Better", revision="v2", license="apache-2.0")
    assert commit.commit_message == "Better"
    for revision, licence in (("main", "mit"), ("v2", "apache-2.0")):
        card = ModelCard(hub.files("me/model", revision)["README.md"].decode())
        assert card.data.license == licence and card.data.language == ["en", "de"]
        assert 'from_pretrained("me/model", trust_remote_code=True)' in card.text
    found = trainer.push_to_hub(create_pr=True, license="cc0-1.0", blocking=False).result()
    assert found.pr_url == f"{hub.url}/me/model/discussions/1"
    assert b"cc0-1.0" in hub.files("me/model", "refs/pr/1")["README.md"]


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["v2", "feature/axe"])
def test_a_run_pushes_to_the_branch_that_its_arguments_name(make_trainer, hub, branch):
    how = settings(hub_revision=branch, hub_strategy="every_save", save_strategy="steps")
    trainer = make_trainer(**how)
    trainer.train()
    trainer.push_to_hub()
    assert WHOLE <= hub.files("me/model", branch).keys()
    assert hub.files("me/model").keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("step", "status"), [pytest.param("upload", 403, marks=pytest.mark.slow), ("commit", "drop")]
)
def test_a_push_that_fails_beside_training_is_told_and_the_next_has_it_all(
    make_trainer, hub, warnings, step, status
):
    trainer = make_trainer(**settings(hub_strategy="every_save", save_strategy="steps"))
    hub.fail(step, status, times=9)
    trainer.train()
    trainer._finish_current_push()
    assert hub.files("me/model").keys() == {".gitattributes"}
    assert "A push failed" in warnings.text
    with pytest.raises(Exception, match="uploading|disconnected"):
        trainer.push_to_hub()
    hub.failures.clear()
    trainer.push_to_hub()
    assert WHOLE <= hub.files("me/model").keys()


@pytest.mark.parametrize(("step", "status"), [("create", 401), ("create", 500)])
def test_a_hub_that_refuses_is_known_before_training(make_trainer, hub, step, status):
    hub.fail(step, status)
    with pytest.raises(HfHubHTTPError, match=str(status)):
        make_trainer(**settings())


def test_an_adapter_whose_base_nobody_else_has_is_refused_before_there_is_a_repository(
    make_model, make_trainer, hub, tmp_path
):
    peft = pytest.importorskip("peft")
    make_model().save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"])
    model = CmlmForConditionalGeneration.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(model, lora)
    with pytest.raises(ValueError, match="a folder that others do not have"):
        make_trainer(adapted, **settings())
    assert hub.requests == []
    with pytest.raises(ValueError, match="a folder that others do not have"):
        make_trainer(adapted).push_to_hub()
    assert hub.requests == []
    make_model().push_to_hub("me/base")
    model = CmlmForConditionalGeneration.from_pretrained("me/base")
    make_trainer(peft.get_peft_model(model, lora), **settings()).push_to_hub()
    files = hub.files("me/model")
    assert "adapter_model.safetensors" in files
    card = ModelCard(files["README.md"].decode()).data.to_dict()
    assert card["base_model"] == "me/base" and card["base_model_relation"] == "adapter"
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/base"
