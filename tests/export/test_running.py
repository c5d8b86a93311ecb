"""An exported folder: what it holds, and that it decodes as the model it was made of."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoTokenizer

from axe_hf import (
    CmlmConfig,
    CmlmTranslationPipeline,
    export_model,
    load_exported,
    train_tokenizer,
    translate,
    translate_with_scores,
)
from axe_hf.export import folder as folders

onnxruntime = pytest.importorskip("onnxruntime")
GRAPHS = ("encoder.onnx", "decoder.onnx", "head.onnx")
TEXTS = ["A dog barks.", "", "Dogs bark. A dog.", "A"]
SETTINGS = [
    {},
    {"num_iterations": 4},
    {"num_length_candidates": 5},
    {"num_iterations": 4, "num_length_candidates": 5, "num_return_sequences": 3},
    {"num_iterations": 6, "num_length_candidates": 2, "early_stop": True},
    {"num_iterations": 3, "confidence_threshold": 0.2, "schedule": "cosine"},
    {"num_iterations": 2, "length_multiplier": 2.0, "collapse_repeats": True},
    {"suppress_tokens": [7, 8], "max_length": 5, "output_history": True},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def model(make_model, tokenizer):
    # Untied, so that a position does not say what it reads.
    model = make_model(vocab_size=len(tokenizer), decoder_layers=2, tie_word_embeddings=False)
    model.generation_config.update(num_iterations=2)
    return model


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "float32"
    export_model(model, folder, tokenizer=tokenizer, model_card="# Hello", num_length_candidates=2)
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return load_exported(folder, num_threads=1)


@pytest.mark.slow
def test_the_graphs_tell_their_axes_and_no_path(folder, repository):
    decoder = onnxruntime.InferenceSession(folder / "decoder.onnx")
    assert decoder.get_inputs()[0].shape == ["batch", "candidates", "canvas"]
    for name in GRAPHS:
        assert str(repository).encode() not in (folder / name).read_bytes()


@pytest.mark.slow
def test_the_folder_holds_what_the_model_needs_and_nothing_else(model, folder, tokenizer):
    found = {path.name for path in folder.iterdir()} - {*GRAPHS}
    expected = {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"}
    assert found == expected | {"README.md", folders.WEIGHTS, folders.MANIFEST}
    assert [path.name for path in folder.parent.iterdir()] == ["float32"]
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    assert CmlmConfig.from_pretrained(folder).vocab_size == model.config.vocab_size
    assert json.loads((folder / "generation_config.json").read_text())["num_length_candidates"] == 2
    assert json.loads((folder / folders.MANIFEST).read_text())["int8"] is False


@pytest.mark.slow
def test_each_weight_is_stored_once(model, folder):
    weights = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    whole = sum(tensor.nbytes for tensor in weights.values() if tensor.nbytes >= folders.FEW)
    pages = folders.PAGE * len(weights)
    assert whole <= (folder / folders.WEIGHTS).stat().st_size <= whole + pages


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_exported_model_decodes_like_the_model(model, exported, batches, settings):
    settings = {"num_length_candidates": 1, **settings, "return_dict_in_generate": True}
    for batch in batches:
        expected = model.generate(*batch, **settings)
        found = exported.generate(*batch, **settings)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            values = value if isinstance(value, dict) else {name: value}
            others = found[name] if isinstance(value, dict) else {name: found[name]}
            torch.testing.assert_close(others, values, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_given_canvases_lengths_and_draws_are_followed(model, exported, batches):
    input_ids, attention_mask = batches[-1]
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    canvas = torch.full((len(input_ids), 6), model.config.mask_token_id)
    canvas[:, 2] = 11
    given = {"decoder_input_ids": canvas, "num_length_candidates": 1, "num_iterations": 3}
    for how in (given, {"target_lengths": torch.full((len(input_ids), 2), 5)}):
        assert exported.generate(**inputs, **how).equal(model.generate(**inputs, **how))
    inputs |= {"num_length_candidates": 1, "do_sample": True}
    drawn = [
        each.generate(**inputs, generator=torch.Generator().manual_seed(0))
        for each in (model, exported)
    ]
    assert drawn[0].equal(drawn[1])


@pytest.mark.slow
def test_what_an_encoder_returned_can_be_decoded_again(exported, batches):
    input_ids, attention_mask = batches[-1]
    outputs = exported.model.encoder(input_ids, attention_mask)
    found = exported.generate(encoder_outputs=outputs, attention_mask=attention_mask)
    assert found.equal(exported.generate(input_ids, attention_mask))


@pytest.mark.slow
def test_texts_are_translated_alike_by_several_threads_too(model, exported, tokenizer):
    assert exported.generation_config.num_length_candidates == 2
    expected = translate_with_scores(model, tokenizer, TEXTS, num_length_candidates=2)
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(translate_with_scores, exported, tokenizer, TEXTS) for _ in range(6)]
    for task in tasks:
        for found, wanted in zip(task.result(), expected, strict=True):
            assert found[0].text == wanted[0].text
            assert found[0].score == pytest.approx(wanted[0].score, abs=2e-5)
    (found,) = CmlmTranslationPipeline(model=exported, tokenizer=tokenizer)(TEXTS[0])
    assert found["translation_text"] == expected[0][0].text


@pytest.mark.slow
def test_a_folder_stands_alone_in_a_new_process(folder, exported, tokenizer):
    program = (
        "import sys; from axe_hf import load_exported, translate\n"
        "from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = load_exported(sys.argv[1])\n"
        f"print(translate(model, tokenizer, {TEXTS!r}))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(translate(exported, tokenizer, TEXTS))


@pytest.mark.slow
def test_what_graphs_cannot_do_is_refused(exported, batches, make_batch):
    for name in ("compile", "use_onednn"):
        with pytest.raises(ValueError, match=f"`{name}` says how PyTorch computes"):
            exported.generate(*batches[0], **{name: True})
    with pytest.raises(ValueError, match="`input_ids` has 21 positions but .* is 20"):
        exported.generate(*make_batch((2, 21)))
    with pytest.raises(TypeError, match="cannot be trained"):
        exported.train()


@pytest.mark.slow
def test_int8_is_small_and_close(make_model, make_batch, folder, tmp_path):
    model, batch = make_model(decoder_layers=1, d_model=64, vocab_size=900), make_batch((9, 12))
    export_model(model, tmp_path / "int8", int8=True)
    exported = load_exported(tmp_path / "int8")
    assert exported.is_int8
    how = {"num_iterations": 1, "return_dict_in_generate": True}
    how |= {"target_lengths": torch.arange(3, 12)}
    expected, found = model.generate(*batch, **how), exported.generate(*batch, **how)
    difference = (found.sequences_scores - expected.sequences_scores).abs().max()
    assert 0 < difference < 0.3, "nats per token; not in int8 if equal"
    size = sum(path.stat().st_size for path in (tmp_path / "int8").glob("weights*"))
    weights = {each.data_ptr(): each.numel() for each in model.state_dict().values()}
    assert size < 1.6 * sum(weights.values())  # bytes


@pytest.mark.slow
def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[onnx\]"'):
        load_exported(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no exported model.*axe-hf export"):
        load_exported(tmp_path)
    with pytest.raises(ValueError, match="nobody/nothing holds no exported model"):
        load_exported("nobody/nothing")
