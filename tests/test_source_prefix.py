"""A prefix of sources that a model was trained with: saved, inherited, put there by everybody."""

import json
import runpy
import sys

import pytest
import torch
from datasets import Dataset
from starlette.testclient import TestClient
from transformers import AutoTokenizer, MarianConfig, MarianMTModel, pipeline

from axe_hf import (
    AxeTrainingArguments,
    CmlmConfig,
    CmlmForConditionalGeneration,
    DataArguments,
    ModelArguments,
    export_model,
    load_exported,
    register_pipeline,
    run_training,
    train_tokenizer,
    translate,
)
from axe_hf.demo import explain
from axe_hf.pipeline import source_ids
from axe_hf.serving import ServedModel, create_app
from axe_hf.training.loading import PairSet, scoring_set, training_set

WORDS = ["one", "two", "three", "four", "eins", "zwei", "drei", "vier", "say"]
TEXTS = ["one two", "three", "", "four one two", "say"]
PREFIX = "say: "


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer([f"{a} {b}:" for a in WORDS for b in WORDS], vocab_size=300)
    tokenizer.add_tokens([">>de<<", ">>fr<<"])
    return tokenizer


@pytest.fixture(params=[None, ["en-de", "en-fr"]], ids=["one target", "several"])
def pair(request, tokenizer):
    """The same weights with a prefix and without, and what to say of the target language."""
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {
        "max_source_length": 24,
        "max_target_length": 12,
        "init_std": 0.5,
        "tie_word_embeddings": False,
    }
    made = []
    for prefix in (PREFIX, None):
        torch.manual_seed(0)
        config = CmlmConfig(vocab_size=len(tokenizer), **sizes, directions=request.param)
        config.source_prefix = prefix
        made.append(CmlmForConditionalGeneration(config).eval())
    return *made, {"target_lang": "fr"} if request.param else {}


def test_everybody_puts_the_prefix_there(pair, tokenizer):
    prefixed, plain, target = pair
    given = [PREFIX + text if text else "" for text in TEXTS]
    expected = translate(plain, tokenizer, given, **target)
    assert len({*expected}) > 2 and expected[2] == ""
    assert translate(plain, tokenizer, TEXTS, **target) != expected
    assert translate(prefixed, tokenizer, TEXTS, **target) == expected
    assert translate(prefixed, tokenizer, given, **target) == expected  # not twice
    register_pipeline()
    translator = pipeline("translation", model=prefixed, tokenizer=tokenizer, device="cpu")
    lang = {"tgt_lang": "fr"} if target else {}
    assert [out["translation_text"] for out in translator(TEXTS, **lang)] == expected
    assert explain(prefixed, tokenizer, TEXTS[0], **target).candidates[0].text == expected[0]
    directions = None if target else ["en-fr"]
    with TestClient(create_app([ServedModel(prefixed, tokenizer, directions, "m")])) as client:
        for text, translation in zip(TEXTS, expected, strict=True):
            asked = {"q": text, "source": "en", "target": "fr"}
            if text:
                found = client.post("/translate", json=asked).json()["translatedText"]
                assert found.strip() == translation.strip()


@pytest.mark.slow
def test_graphs_put_the_prefix_there_too(pair, tokenizer, monkeypatch, tmp_path, capsys):
    prefixed, _, target = pair
    expected = translate(prefixed, tokenizer, TEXTS, **target)
    export_model(prefixed, tmp_path / "graphs", tokenizer=tokenizer)
    graphs = load_exported(tmp_path / "graphs")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "graphs")
    assert translate(graphs, loaded, TEXTS, **target) == expected
    tag = ">>fr<< " if target else ""
    words = [tag + text if text else " " for text in TEXTS]
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "graphs"), *words])
    capsys.readouterr()
    runpy.run_path("examples/onnx_translate.py", run_name="__main__")
    assert capsys.readouterr().out.split("\n")[:-1] == expected


@pytest.mark.parametrize("text", [" ", "\u200b", "\x00"])
def test_nothing_said_behind_the_prefix_is_nothing(pair, tokenizer, text):
    prefixed, _, target = pair
    said, nothing = source_ids(["say", text], tokenizer, prefixed.config, **target)
    assert said and nothing == []  # though each word of the first is one of the prefix


def test_another_model_that_chooses_reads_no_prefix(pair, tokenizer, monkeypatch):
    prefixed, _, target = pair
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(tokenizer)}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(1)
    teacher = (MarianMTModel(MarianConfig(**sizes, **ids)), tokenizer)
    read = []
    from axe_hf import rescoring

    score = rescoring.autoregressive_scores
    monkeypatch.setattr(
        rescoring,
        "autoregressive_scores",
        lambda model, tok, sources, *args: (
            read.extend(sources) or score(model, tok, sources, *args)
        ),
    )
    chosen = {"rescore_with": teacher, "num_length_candidates": 3}
    translate(prefixed, tokenizer, TEXTS, **target, **chosen)
    assert sorted(read) == sorted(filter(None, TEXTS))


def test_a_run_saves_it_and_the_next_ones_go_by_it(tmp_path, caplog, monkeypatch):
    from transformers.utils import logging

    monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
    rows = [{"translation": {"en": a, "de": b}} for a in WORDS[:4] for b in WORDS[4:8]]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = str(tmp_path / "data.jsonl")
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}

    def run(name, model=None, prefix=None, **more):
        is_new = model is None
        made = ModelArguments(**sizes) if is_new else ModelArguments(str(tmp_path / model))
        files = {"train_file": file, "test_file": file}
        data = DataArguments(
            "en", "de", **files, source_prefix=prefix, vocab_size=300 if is_new else None
        )
        quick = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "seed": 1}
        args = AxeTrainingArguments(str(tmp_path / name), **quick | more)
        caplog.clear()
        result = run_training(made, data, args)
        config = json.loads((tmp_path / name / "config.json").read_text()) if more == {} else {}
        told = [r.getMessage() for r in caplog.records if "`source_prefix`" in r.getMessage()]
        return config.get("source_prefix"), told, result

    saved, told, _ = run("first", prefix=PREFIX)
    assert (saved, told) == (PREFIX, [])
    saved, told, inherited = run("second", "first")
    assert (saved, told) == (PREFIX, [])
    first = inherited.trainer.train_dataset[0]["input_ids"]
    assert inherited.tokenizer.decode(first, skip_special_tokens=True) == "say: one"
    saved, told, _ = run("third", "first", "now: ")
    assert saved == "now: "
    assert told == ["`source_prefix` is 'now: ' from now on; the model had 'say: '."]
    _, told, other = run("other", "first", "", do_predict=True)
    assert told == ["`source_prefix` is '' in this run; the model was trained with 'say: '."]
    assert other.model.config.source_prefix is None


@pytest.mark.parametrize("directions", [None, ["en-de", "en-fr"]])
def test_training_and_scoring_read_a_text_as_translating_does(directions, tokenizer):
    config = CmlmConfig(vocab_size=len(tokenizer), directions=directions, source_prefix=PREFIX)
    target = "fr" if directions else "de"
    texts = ["one two", "say: one two", "say:", "four say: one"]
    texts += [">>fr<< one two", ">>fr<< say: one two"] if directions else []
    pairs = Dataset.from_list([{"translation": {"en": text, target: "eins"}} for text in texts])
    data_args = DataArguments("en", target, train_file="train.tsv")
    sets = [PairSet(pairs, [("en", target)])]
    expected = source_ids(texts, tokenizer, config, target if directions else None)
    for made in (training_set, scoring_set):
        assert made(sets, tokenizer, config, data_args)["input_ids"][:] == expected
