"""A student with its teacher's tokenizer, shared and loaded where axe_hf is not installed."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MBartConfig

from axe_hf import (
    AxeTrainer,
    AxeTrainingArguments,
    CmlmForConditionalGeneration,
    CmlmTranslationPipeline,
    format_history,
    plot_history,
    push_to_hub_with_code,
    save_pretrained_with_code,
    student_tokenizer,
    tokenize_translations,
    translate,
    translate_with_scores,
)
from axe_hf.pipeline import DECODED
from axe_hf.training.checks import check_model_and_tokenizer

SETTINGS = {"num_iterations": 2, "num_length_candidates": 2}
CONFIGS = {"marian": MarianConfig, "mbart": MBartConfig}
SPELT = "A <mask> says </s> and <blank> in de_DE."


@pytest.fixture(scope="module")
def teachers(teachers_tokenizer):
    """Untrained ones, and their tokenizers."""
    made = {}
    for kind, config in CONFIGS.items():
        tokenizer = teachers_tokenizer(kind)
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
        for side in ("encoder", "decoder"):
            sizes |= {f"{side}_ffn_dim": 32, f"{side}_attention_heads": 2}
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        ids |= {"decoder_start_token_id": ids["pad_token_id"], "vocab_size": len(tokenizer)}
        torch.manual_seed(0)
        sizes |= {"max_position_embeddings": 64}
        made[kind] = AutoModelForSeq2SeqLM.from_config(config(**sizes, **ids)).eval(), tokenizer
    return made


@pytest.fixture(scope="module")
def students(teachers):
    made = {}
    for kind, (model, own) in teachers.items():
        tokenizer = student_tokenizer(own)
        student = CmlmForConditionalGeneration.from_autoregressive(model, tokenizer).eval()
        made[kind] = student, tokenizer
    return made


@pytest.fixture(params=sorted(CONFIGS))
def kind(request):
    return request.param


@pytest.fixture
def student(students, kind):
    return students[kind]


@pytest.fixture(scope="module")
def sources(sentences):
    return [*sentences["en"][:5], SPELT]


STRANGER = """
import importlib.util, json, pathlib, sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline
assert importlib.util.find_spec("axe_hf") is None, "the test wants a Python without axe_hf"
sources, settings = json.loads(sys.argv[2])
found = {}
for folder in pathlib.Path(sys.argv[1]).iterdir():
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert type(tokenizer).__module__.startswith("transformers.")
    pipe = pipeline("translation", model=str(folder), device="cpu", trust_remote_code=True)
    languages = {"src_lang": "en_XX", "tgt_lang": "de_DE"} if folder.name == "mbart" else {}
    found[folder.name] = {
        "ids": tokenizer(sources).input_ids,
        "texts": [t["translation_text"] for t in pipe(sources, **settings, **languages)],
        "symbols": [tokenizer.mask_token_id, tokenizer.blank_token_id, len(tokenizer)],
    }
assert "axe_hf" not in sys.modules
print(json.dumps(found))
"""
# Isolated mode leaves out PYTHONPATH and the working directory; this, an installed package.
HIDE = """
import os, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[:] = [path for path in sys.path if not os.path.isdir(path + "/axe_hf")]
"""


@pytest.mark.slow
def test_students_translate_the_same_where_the_package_is_not_installed(
    students, sources, hub, tmp_path
):
    """A slow tokenizer is loaded by its class of Transformers, whose configuration has all."""
    for kind, (model, tokenizer) in students.items():
        save_pretrained_with_code(model, tokenizer, tmp_path / "saved" / kind)
        push_to_hub_with_code(model, tokenizer, f"me/{kind}")
        files = {path.name: path.read_bytes() for path in (tmp_path / "saved" / kind).iterdir()}
        pushed = hub.files(f"me/{kind}")
        assert {*pushed} == {*files, "README.md", ".gitattributes"}
        assert {name: pushed[name] for name in files} == files
    told = json.dumps([sources, SETTINGS])
    home = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", HIDE + STRANGER, tmp_path / "saved", told],
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for kind, (model, tokenizer) in students.items():
        symbols = [tokenizer.mask_token_id, tokenizer.blank_token_id, len(tokenizer)]
        texts = translate(model, tokenizer, sources, **SETTINGS)
        assert len({*texts}) > 1
        ids = tokenizer(sources).input_ids
        assert found[kind] == {"ids": ids, "texts": texts, "symbols": symbols}


def test_it_translates_the_same_when_it_is_loaded_here(student, sources, tmp_path):
    model, tokenizer = student
    save_pretrained_with_code(model, tokenizer, tmp_path / "saved")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    check_model_and_tokenizer(loaded, again)
    expected = translate(model, tokenizer, sources, **SETTINGS)
    assert translate(loaded, again, sources, **SETTINGS) == expected
    pipe = CmlmTranslationPipeline(model=loaded, tokenizer=again)
    assert [found["translation_text"] for found in pipe(sources, **SETTINGS)] == expected


def test_a_source_that_is_cut_ends_as_every_source_does(student, sentences, monkeypatch):
    """mBART reads the language behind `</s>`: the encoder is to see it in a cut source, too."""
    model, tokenizer = student
    text = " ".join(sentences["en"][:10])
    limit, end = model.config.max_source_length, tokenizer("").input_ids
    expected = [*tokenizer(text).input_ids[: limit - len(end)], *end]
    seen = []
    encode = model.generate
    monkeypatch.setattr(model, "generate", lambda **inputs: seen.append(inputs) or encode(**inputs))
    translate(model, tokenizer, [text], **SETTINGS)
    CmlmTranslationPipeline(model=model, tokenizer=tokenizer)(text, **SETTINGS)
    assert [inputs["input_ids"].tolist() for inputs in seen] == [[expected]] * 2


def test_a_text_of_which_nothing_is_left_has_an_empty_translation(student):
    model, tokenizer = student
    assert translate(model, tokenizer, ["", " \u200b", "\ufeff"], **SETTINGS) == ["", "", ""]
    pipe = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    assert pipe("", **SETTINGS) == [{"translation_text": ""}]


def test_it_is_trained_rescored_and_drawn(student, kind, teachers, sentences, sources, tmp_path):
    model, tokenizer = copy.deepcopy(student[0]), student[1]
    pairs = [
        {"en": source, "de": target}
        for source, target in zip(sentences["en"][:8], sentences["de"][:8], strict=True)
    ]
    data = tokenize_translations(
        Dataset.from_dict({"translation": pairs}),
        tokenizer,
        source_lang="en",
        target_lang="de",
        max_source_length=60,
        max_target_length=60,
    )
    assert all(row["labels"][-1] == tokenizer.eos_token_id for row in data)
    read = tokenizer.decode(data[0]["labels"], **DECODED)
    assert read == sentences["de"][0].replace("-", "")  # which none of the models knows
    args = AxeTrainingArguments(
        str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=4,
        predict_with_generate=True,
        report_to=[],
        use_cpu=True,
    )
    trainer = AxeTrainer(
        model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )
    trainer.train()
    assert "eval_bleu" in trainer.evaluate()
    trainer.save_model(str(tmp_path / "model"))
    assert AutoTokenizer.from_pretrained(tmp_path / "model").blank_token_id == (
        tokenizer.blank_token_id
    )
    found = translate_with_scores(
        model,
        tokenizer,
        sources,
        rescore_with=teachers[kind],
        **SETTINGS | {"num_return_sequences": 2},
    )
    assert [len(several) for several in found] == [2] * len(sources)
    inputs = tokenizer([sources[0]], return_tensors="pt")
    output = model.generate(**inputs, **SETTINGS, output_history=True, return_dict_in_generate=True)
    assert "_" in format_history(output, tokenizer, color=False)
    assert plot_history(output, tokenizer).axes
