"""What an export writes: its files, what is in them, and what it refuses."""

import json
import sys

import pytest
import torch
from transformers import AutoTokenizer

from axe_hf import CmlmConfig, export_onnx, train_tokenizer
from axe_hf.export import writing

onnxruntime = pytest.importorskip("onnxruntime")
SETTINGS = {"num_iterations": 2, "length_multiplier": 1.2, "max_length": 16}
GRAPHS = ("encoder", "decoder", "head", "mask_predict")


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(decoder_layers=1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def paths(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    how = {"tokenizer": tokenizer, "model_card": "# Hello", "one_graph": True}
    return export_onnx(model, folder, **how, **SETTINGS)


@pytest.mark.slow
def test_mask_predict_in_onnxruntime_is_generate(model, paths, batches, assert_equals_generate):
    session = onnxruntime.InferenceSession(paths["mask_predict"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["tokens", "log_probs", "lengths"]
    for input_ids, attention_mask in batches:
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        outputs = map(torch.from_numpy, session.run(names, inputs))
        assert_equals_generate(model, (input_ids, attention_mask), outputs, **SETTINGS)


@pytest.mark.slow
def test_the_files_tell_their_axes_and_settings_and_no_path(paths, repository):
    session = onnxruntime.InferenceSession(paths["mask_predict"])
    shapes = {value.name: value.shape for value in session.get_inputs() + session.get_outputs()}
    assert shapes == {
        "input_ids": ["batch", "source"],
        "attention_mask": ["batch", "source"],
        "tokens": ["batch", 16],
        "log_probs": ["batch", 16],
        "lengths": ["batch"],
    }
    metadata = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(metadata[name]) for name in SETTINGS} == SETTINGS
    step = onnxruntime.InferenceSession(paths["decoder"])
    assert step.get_inputs()[0].shape == ["batch", "candidates", "canvas"]
    for path in paths.values():
        assert str(repository).encode() not in path.read_bytes()


@pytest.mark.slow
def test_the_folder_holds_what_the_model_needs_and_nothing_else(model, paths, tokenizer):
    folder = paths["encoder"].parent
    assert [paths[name] for name in GRAPHS] == [folder / f"{name}.onnx" for name in GRAPHS]
    found = {path.name for path in folder.iterdir()} - {f"{name}.onnx" for name in GRAPHS}
    expected = {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"}
    assert found == expected | {"README.md", writing.WEIGHTS, writing.MANIFEST}
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    assert CmlmConfig.from_pretrained(folder).vocab_size == model.config.vocab_size
    assert json.loads((folder / writing.MANIFEST).read_text())["int8"] is False


@pytest.mark.slow
def test_each_weight_is_stored_once(model, paths):
    folder = paths["encoder"].parent
    weights = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    whole = sum(tensor.nbytes for tensor in weights.values() if tensor.nbytes >= writing.FEW)
    pages = writing.PAGE * len(weights)
    assert whole <= (folder / writing.WEIGHTS).stat().st_size <= whole + pages


@pytest.fixture
def write_quickly(monkeypatch):
    """In place of an export, which takes seconds."""

    class Program:
        def __init__(self, module):
            self.module = module

    def save(self, program, path):
        path.write_text("new")

    monkeypatch.setattr(writing, "_onnx_program", Program)
    monkeypatch.setattr(writing._Weights, "save", save)


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


def test_a_failed_export_leaves_nothing_behind(
    model, tokenizer, tmp_path, monkeypatch, write_quickly
):
    def save(self, program, path):
        if path.stem == "head":
            raise RuntimeError("no space left")
        path.write_text("new")

    monkeypatch.setattr(writing._Weights, "save", save)
    with pytest.raises(RuntimeError, match="no space left"):
        export_onnx(model, tmp_path / "onnx", tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_length_candidates": 2, "one_graph": True}, "num_length_candidates"),
        ({"num_iterations": 0}, "`num_iterations` must be"),
        ({"compile": True}, "`compile` says how PyTorch computes"),
        ({"use_onednn": True}, "`use_onednn` says how PyTorch computes"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_before_anything_is_written(model, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path / "onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_exported_are_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match=r"float32, got torch.bfloat16.*model\.float\(\)"):
        export_onnx(make_model().bfloat16(), tmp_path / "onnx")
    model = make_model()
    model.loading_problem = "missing_keys: lm_head.weight"
    with pytest.raises(ValueError, match="missing_keys: lm_head.weight"):
        export_onnx(model, tmp_path / "onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages_are_named(model, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[onnx\]"'):
        export_onnx(model, tmp_path / "onnx")
