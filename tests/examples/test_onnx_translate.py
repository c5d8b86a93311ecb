"""examples/onnx_translate.py gives the translations of `axe-hf translate`, and needs no PyTorch."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    export_model,
    load_exported,
    train_tokenizer,
    translate,
)

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ENGLISH = ["one two", "three four", "two three", "four one two", "one one", "three four one two"]
GERMAN = [
    "eins zwei",
    "drei vier",
    "zwei drei",
    "vier eins zwei",
    "eins eins",
    "drei vier eins zwei",
]
# Of each length, one over the limit of 16 tokens, and what says nothing or little.
TEXTS = [*ENGLISH, "", " \t", "\u200b", "one", "zwei " * 40, "naïve 漢字 😀", "<mask> </s>", "..."]
# As PYTHONPATH would do, these are found by no import.
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "axe_hf")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def run_alone(repository):
    """Runs the program where PyTorch, Transformers and we cannot be imported."""

    def run(folder, *texts, stdin=None):
        program = repository / "examples" / "onnx_translate.py"
        command = [sys.executable, "-c", ALONE, str(program), str(folder), *texts]
        piped = {"capture_output": True, "text": True, "encoding": "utf-8"}
        done = subprocess.run(command, check=False, input=stdin, **piped)
        return done.returncode, done.stdout.split("\n")[:-1], done.stderr

    return run


@pytest.fixture
def equals_translate(run_alone):
    """Compares a folder's translations, once its settings are changed, by both."""

    def check(folder, **generation):
        file = folder / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | generation))
        code, printed, complaint = run_alone(folder, stdin="\n".join(TEXTS) + "\n")
        assert code == 0, complaint
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        expected = translate(load_exported(folder), tokenizer, TEXTS, batch_size=1)
        assert printed == expected
        return expected

    return check


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((ENGLISH + GERMAN) * 5, vocab_size=300)


@pytest.fixture(scope="module")
def make_model(tokenizer):
    def make(**changes):
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "tie_word_embeddings": False}
        limits = {"max_source_length": 16, "max_target_length": 24}
        torch.manual_seed(1)
        config = CmlmConfig(vocab_size=len(tokenizer), **sizes | limits | changes)
        return CmlmForConditionalGeneration(config).eval()

    return make


@pytest.fixture
def folder(make_model, tokenizer, tmp_path):
    """What the program reads of a folder before it loads a graph."""
    model = make_model()
    model.config.save_pretrained(tmp_path)
    model.generation_config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_folders_that_it_cannot_follow_are_refused(folder, run_alone):
    file = folder / "generation_config.json"
    saved = json.loads(file.read_text())
    for settings in ({"early_stop": True}, {"confidence_threshold": 0.5}, {"schedule": "cosine"}):
        file.write_text(json.dumps(saved | settings))
        code, printed, complaint = run_alone(folder, "one")
        assert (code, printed) == (1, []) and "Export it without" in complaint
    (folder / "tokenizer.json").unlink()
    code, printed, complaint = run_alone(folder, "one")
    assert (code, printed) == (1, []) and "has no tokenizer.json" in complaint


@pytest.mark.slow
def test_a_model_trained_by_axe_is_decoded_alike(make_model, tokenizer, equals_translate, tmp_path):
    """In float32: T passes, several lengths, their weight, bounds, ids that are never said."""
    model, folder = make_model(length_multiplier=1.3), tmp_path / "exported"
    tokenizer(["one"], truncation=True, max_length=3, padding="max_length")  # its state is not kept
    export_model(model, folder, tokenizer=tokenizer)
    once = equals_translate(folder)
    assert len({*once}) > 5 and once[TEXTS.index("\u200b")] == ""
    refined = equals_translate(folder, num_iterations=4)
    assert refined != once
    assert equals_translate(folder, num_length_candidates=5) != refined
    equals_translate(folder, num_iterations=10, length_score_weight=0.0)
    equals_translate(folder, num_length_candidates=40, min_length=3, max_length=7)
    said = tokenizer(once[0]).input_ids[0]
    without = equals_translate(
        folder, num_iterations=1, num_length_candidates=1, suppress_tokens=[said]
    )
    assert without[0] != once[0]


@pytest.mark.slow
def test_repeats_int8_and_languages_are_decoded_alike(
    make_model, tokenizer, equals_translate, run_alone, tmp_path
):
    recipe = {"allow_repetition": True, "axe_delta": math.inf, "length_multiplier": 2.0}
    folder = tmp_path / "exported"
    export_model(make_model(**recipe), folder, tokenizer=tokenizer, int8=True)
    equals_translate(folder)
    equals_translate(folder, num_iterations=3, num_length_candidates=4)
    assert equals_translate(folder, collapse_repeats=False) != equals_translate(
        folder, collapse_repeats=True
    )
    several = tmp_path / "several"
    shutil.copytree(folder, several)
    config = json.loads((folder / "config.json").read_text())
    config["directions"] = ["en-de", "en:fr-CA"]
    (several / "config.json").write_text(json.dumps(config))
    code, _, complaint = run_alone(several, "one two")
    assert code == 1 and "['>>de<<', '>>fr-CA<<']" in complaint
    tagged = [">>de<< one two", ">>fr-CA<< one two"]
    assert run_alone(several, *tagged)[:2] == run_alone(folder, *tagged)[:2]
    # Where nothing is said no language is asked for, and a tag alone says nothing.
    code, printed, complaint = run_alone(several, stdin="\n>>de<<\n>>de<< one two\n")
    assert (code, printed[:2]) == (0, ["", ""]) and printed[2], complaint


@pytest.mark.slow
def test_what_a_model_has_learned_comes_out(make_model, tokenizer, equals_translate, tmp_path):
    recipe = {"allow_repetition": True, "axe_delta": math.inf, "axe_temperature": 1.0}
    model = make_model(length_multiplier=2.0, init_std=0.1, dropout=0.0, **recipe).train()
    inputs = tokenizer(ENGLISH, padding=True, return_tensors="pt")
    labels = tokenizer(text_target=GERMAN, padding=True, return_tensors="pt").input_ids
    labels = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
    canvas = model.prepare_decoder_input_ids_from_labels(labels, 2.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        model(**inputs, labels=labels, decoder_input_ids=canvas).loss.backward()
        optimizer.step(), optimizer.zero_grad()
    for int8 in (False, True):
        folder = tmp_path / f"int8_{int8}"
        export_model(model.eval(), folder, tokenizer=tokenizer, int8=int8)
        assert equals_translate(folder)[: len(GERMAN)] == GERMAN
