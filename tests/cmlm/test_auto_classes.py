import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    MaskPredictGenerationConfig,
    train_tokenizer,
)


@pytest.fixture
def checkpoint(make_model, tmp_path):
    """A folder with a model, its settings and its tokenizer."""
    tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.num_iterations = 3
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_auto_classes_find_ours(checkpoint):
    assert type(AutoConfig.from_pretrained(checkpoint)) is CmlmConfig
    assert type(AutoModel.from_pretrained(checkpoint)) is CmlmModel
    assert type(AutoModelForSeq2SeqLM.from_pretrained(checkpoint)) is CmlmForConditionalGeneration


def test_auto_classes_build_models_from_a_configuration(make_config):
    config = make_config()
    assert type(AutoConfig.for_model("cmlm", d_model=64)) is CmlmConfig
    assert type(AutoModel.from_config(config)) is CmlmModel
    assert type(AutoModelForSeq2SeqLM.from_config(config)) is CmlmForConditionalGeneration


@torch.no_grad()
def test_a_round_trip_keeps_tokens_and_translations(make_model, checkpoint, tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again").eval()
    tokenizer_again = AutoTokenizer.from_pretrained(tmp_path / "again")
    inputs = tokenizer(["A dog barks.", "A dog."], padding=True, return_tensors="pt")
    inputs_again = tokenizer_again(["A dog barks.", "A dog."], padding=True, return_tensors="pt")
    assert inputs_again["input_ids"].equal(inputs["input_ids"])
    assert tokenizer_again.blank_token_id == model.config.blank_token_id
    assert tokenizer_again.mask_token_id == model.config.mask_token_id
    assert again.generate(**inputs_again).equal(model.generate(**inputs))
    assert again.generation_config.num_iterations == 3


def test_the_body_is_the_body_of_the_translation_model(checkpoint):
    body = AutoModel.from_pretrained(checkpoint)
    whole = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
    for name, weight in body.state_dict().items():
        assert weight.equal(whole.model.state_dict()[name]), name


def test_settings_of_a_newer_version_are_left_out_when_a_model_is_loaded(
    make_model, make_sources, tmp_path
):
    model, sources = make_model(), make_sources([6])
    model.generation_config.num_iterations = 3
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(saved | {"of_tomorrow": 7}))
    loaded = CmlmForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.generation_config.num_iterations == 3
    assert loaded.generate(**sources).equal(model.generate(**sources))
    _, unused = MaskPredictGenerationConfig.from_pretrained(
        tmp_path, trust_remote_code=True, return_unused_kwargs=True
    )
    assert unused == {"trust_remote_code": True}


def test_names_of_unknown_settings_do_not_command_the_terminal(caplog):
    config = MaskPredictGenerationConfig.from_dict({"\x1b[31mred": 1, "\x9bbell\x07": 2})
    assert not set("\x1b\x9b\x07") & set(caplog.text) and "\\x1b[31mred" in caplog.text
    assert not hasattr(config, "\x1b[31mred")
