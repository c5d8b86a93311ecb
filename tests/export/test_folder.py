"""What `export_model` refuses; it writes all or nothing. What it writes is in test_running.py."""

import sys

import pytest

from axe_hf import export_model, train_tokenizer
from axe_hf.export import folder as folders

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(decoder_layers=1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


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
