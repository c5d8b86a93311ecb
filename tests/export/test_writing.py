"""The ONNX files, run by onnxruntime."""

import json
import sys

import pytest
import torch
from transformers import AutoTokenizer

from axe_hf import ExportableMaskPredict, export_onnx, train_tokenizer
from axe_hf.export import writing

onnxruntime = pytest.importorskip("onnxruntime")
NAMES = ("encoder", "decoder_step", "mask_predict")
SETTINGS = {"num_iterations": 3, "length_multiplier": 1.2, "max_length": 16}


def run(path, **inputs):
    """The outputs of an ONNX file as tensors, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def paths(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    return export_onnx(model, folder, tokenizer=tokenizer, **SETTINGS)


@pytest.mark.slow
def test_mask_predict_in_onnxruntime_is_generate(model, paths, batches, assert_equals_generate):
    for input_ids, attention_mask in batches:
        outputs = run(paths["mask_predict"], input_ids=input_ids, attention_mask=attention_mask)
        assert list(outputs) == ["tokens", "log_probs", "lengths"]
        assert_equals_generate(model, (input_ids, attention_mask), outputs.values(), **SETTINGS)


@pytest.mark.slow
def test_encoder_and_decoder_step_in_onnxruntime_are_the_model(model, paths, batches):
    for canvas_length, (input_ids, attention_mask) in enumerate(batches, start=1):
        canvas = torch.full((len(input_ids), canvas_length), model.config.mask_token_id)
        canvas[0, canvas_length // 2 + 1 :] = model.config.pad_token_id
        encoded = run(paths["encoder"], input_ids=input_ids, attention_mask=attention_mask)
        length_logits = encoded.pop("length_logits")
        inputs = {"decoder_input_ids": canvas, "attention_mask": attention_mask, **encoded}
        logits = run(paths["decoder_step"], **inputs)["logits"]
        with torch.no_grad():
            expected = model(input_ids, attention_mask, decoder_input_ids=canvas)
        torch.testing.assert_close(logits, expected.logits, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(length_logits, expected.length_logits, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_files_tell_their_axes_and_settings_and_no_path(paths, repository):
    session = onnxruntime.InferenceSession(paths["mask_predict"])
    shapes = {value.name: value.shape for value in session.get_inputs() + session.get_outputs()}
    width = shapes["tokens"][1]  # a name, since it is that of the batch's longest canvas
    assert isinstance(width, str) and width not in ("batch", "source")
    assert shapes == {
        "input_ids": ["batch", "source"],
        "attention_mask": ["batch", "source"],
        "tokens": ["batch", width],
        "log_probs": ["batch", width],
        "lengths": ["batch"],
    }
    metadata = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(metadata[name]) for name in SETTINGS} == SETTINGS
    step = onnxruntime.InferenceSession(paths["decoder_step"])
    assert step.get_inputs()[0].shape == ["batch", "canvas"]
    for path in paths.values():
        assert str(repository).encode() not in path.read_bytes()


@pytest.mark.slow
def test_the_tokenizer_lies_beside_the_files_and_nothing_else(paths, tokenizer):
    folder = paths["encoder"].parent
    assert [paths[name] for name in NAMES] == [folder / f"{name}.onnx" for name in NAMES]
    found = {path.name for path in folder.iterdir()} - {f"{name}.onnx" for name in NAMES}
    assert found == {"tokenizer.json", "tokenizer_config.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()


@pytest.mark.slow
def test_a_file_collapses_runs_and_eager_attention_is_exported_too(
    make_model, make_batch, tmp_path
):
    model = make_model(seed=2, attention="eager", allow_repetition=True)
    batch, file = make_batch((6, 8)), tmp_path / "mask_predict.onnx"
    writing.write_onnx(ExportableMaskPredict(model, length_multiplier=2.0), file)
    inputs = dict(zip(("input_ids", "attention_mask"), batch, strict=True))
    tokens = run(file, **inputs)["tokens"]
    special = torch.tensor([model.config.pad_token_id, 1, model.config.blank_token_id])
    for row, output in zip(tokens, model.generate(*batch, length_multiplier=2.0), strict=True):
        assert row[~torch.isin(row, special)].tolist() == output[output != 0].tolist()
    metadata = onnxruntime.InferenceSession(file).get_modelmeta()
    assert metadata.custom_metadata_map["collapse_repeats"] == "true"


@pytest.fixture
def write_quickly(monkeypatch):
    """In place of an export, which takes seconds."""
    monkeypatch.setattr(writing, "write_onnx", lambda module, file: file.write_text("new"))


def test_files_are_not_overwritten_unasked(model, tokenizer, tmp_path, write_quickly):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "encoder.onnx").write_text("old")
    with pytest.raises(FileExistsError, match=r"holds encoder\.onnx already.*overwrite=True"):
        export_onnx(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "encoder.onnx"}
    assert (tmp_path / "encoder.onnx").read_text() == "old"
    export_onnx(model, tmp_path, overwrite=True)
    assert (tmp_path / "encoder.onnx").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "tokenizer.json").write_text("another's")
    with pytest.raises(FileExistsError, match=r"holds tokenizer\.json already"):
        export_onnx(model, tmp_path / "onnx", tokenizer=tokenizer)
    with pytest.raises(FileExistsError, match=r"mine\.txt is a file"):
        export_onnx(model, tmp_path / "mine.txt", overwrite=True)


def test_a_failed_export_leaves_nothing_behind(model, tokenizer, tmp_path, monkeypatch):
    def write(module, file):
        if file.stem == "mask_predict":
            raise RuntimeError("no space left")
        file.write_text("new")

    monkeypatch.setattr(writing, "write_onnx", write)
    with pytest.raises(RuntimeError, match="no space left"):
        export_onnx(model, tmp_path / "onnx", tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(ValueError, match="num_length_candidates"):
        export_onnx(model, tmp_path / "onnx", num_length_candidates=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages_are_named(model, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[onnx\]"'):
        export_onnx(model, tmp_path / "onnx")
