"""The folder that `export_model` writes: its files, what is in them, and what it refuses."""

import json
import sys

import pytest
from transformers import AutoTokenizer

from axe_hf import CmlmConfig, export_model, train_tokenizer
from axe_hf.export import folder as folders

onnxruntime = pytest.importorskip("onnxruntime")
GRAPHS = ("encoder.onnx", "decoder.onnx", "head.onnx")


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(decoder_layers=1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(model, folder, tokenizer=tokenizer, model_card="# Hello", num_iterations=7)
    return folder


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
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    assert CmlmConfig.from_pretrained(folder).vocab_size == model.config.vocab_size
    assert json.loads((folder / "generation_config.json").read_text())["num_iterations"] == 7
    assert json.loads((folder / folders.MANIFEST).read_text())["int8"] is False


@pytest.mark.slow
def test_each_weight_is_stored_once(model, folder):
    weights = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    whole = sum(tensor.nbytes for tensor in weights.values() if tensor.nbytes >= folders.FEW)
    pages = folders.PAGE * len(weights)
    assert whole <= (folder / folders.WEIGHTS).stat().st_size <= whole + pages


@pytest.fixture
def write_quickly(monkeypatch):
    """In place of an export, which takes seconds."""

    class Program:
        def __init__(self, module):
            self.module = module

    def save(self, program, path):
        path.write_text("new")

    monkeypatch.setattr(folders, "onnx_program_of", Program)
    monkeypatch.setattr(folders._Weights, "save", save)


def test_files_are_not_overwritten_unasked(model, tokenizer, tmp_path, write_quickly):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "encoder.onnx").write_text("old")
    with pytest.raises(FileExistsError, match=r"holds encoder\.onnx already.*overwrite=True"):
        export_model(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "encoder.onnx"}
    assert (tmp_path / "encoder.onnx").read_text() == "old"
    export_model(model, tmp_path, overwrite=True)
    assert (tmp_path / "encoder.onnx").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "tokenizer.json").write_text("another's")
    with pytest.raises(FileExistsError, match=r"holds tokenizer\.json already"):
        export_model(model, tmp_path / "onnx", tokenizer=tokenizer)
    with pytest.raises(FileExistsError, match=r"mine\.txt is a file"):
        export_model(model, tmp_path / "mine.txt", overwrite=True)


def test_a_failed_export_leaves_nothing_behind(
    model, tokenizer, tmp_path, monkeypatch, write_quickly
):
    def save(self, program, path):
        if path.stem == "head":
            raise RuntimeError("no space left")
        path.write_text("new")

    monkeypatch.setattr(folders._Weights, "save", save)
    with pytest.raises(RuntimeError, match="no space left"):
        export_model(model, tmp_path / "onnx", tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_iterations": 0}, "`num_iterations` must be"),
        ({"compile": True}, "`compile` says how PyTorch computes"),
        ({"use_onednn": True}, "`use_onednn` says how PyTorch computes"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_before_anything_is_written(model, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        export_model(model, tmp_path / "onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_exported_are_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match=r"float32, got torch.bfloat16.*model\.float\(\)"):
        export_model(make_model().bfloat16(), tmp_path / "onnx")
    model = make_model()
    model.loading_problem = "missing_keys: lm_head.weight"
    with pytest.raises(ValueError, match="missing_keys: lm_head.weight"):
        export_model(model, tmp_path / "onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages_are_named(model, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[onnx\]"'):
        export_model(model, tmp_path / "onnx")
