"""`axe-hf distill`: options, what it prints, and that `axe-hf train` takes what it writes."""

import json
from dataclasses import fields

import pytest

from axe_hf.commands.distill import declared_settings, parse
from axe_hf.teachers import DistillationSettings


@pytest.fixture
def words(rescorer, toy_pairs, tmp_path):
    """The words of a command that takes a moment."""
    lines = [f"{english}\t{german}\n" for english, german in toy_pairs] * 3
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    languages = "--source-lang en --target-lang de --max-new-tokens 6"
    out = tmp_path / "data"
    return [rescorer, tmp_path / "pairs.tsv", *languages.split(), "--output-dir", out]


def test_it_writes_data_that_train_takes(axe_hf, words, tmp_path):
    code, out, err = axe_hf("distill", *words)
    assert code == 0, err
    folder = tmp_path / "data"
    assert "12  sentences read\n12  sentence pairs kept\nMean score -" in out
    assert f"Saved the sentence pairs in {folder}.\nTry: axe-hf train --source-lang en" in out
    assert f"--train-file {folder} --init-from " in out
    sizes = "--d-model 16 --encoder-layers 1 --decoder-layers 1 --vocab-size 300 --max-steps 1"
    options = [*words[2:6], "--train-file", folder, "--output-dir", tmp_path / "student"]
    assert axe_hf("train", *options, *sizes.split(), "--use-cpu")[0] == 0


def test_the_same_command_replaces_nothing_unless_asked_to(axe_hf, fails, words, tmp_path):
    assert axe_hf("distill", *words)[0] == 0
    assert "`output_dir` must be a new or an empty folder" in fails(1, "distill", *words)
    assert axe_hf("distill", *words, "--overwrite", "--license", "mit")[0] == 0
    assert "license: mit" in (tmp_path / "data" / "README.md").read_text("utf-8")


def test_options_are_the_fields_of_the_settings():
    declared = declared_settings()
    assert list(declared) == [field.name for field in fields(DistillationSettings)]
    for field in fields(DistillationSettings):
        assert declared[field.name].help and declared[field.name].default == field.default


def test_every_setting_is_shown(axe_hf):
    _, shown, _ = axe_hf("distill", "--help")
    for name in (*declared_settings(), "tokenizer", "source_lang", "output_dir"):
        assert f"  --{name.replace('_', '-')} " in shown, name


def test_options_may_stand_anywhere():
    line = "--num-beams 4 teacher a.txt b.txt --source-lang en --output-dir o --target_lang de"
    options = parse([*line.split(), "--keep-original", "--generation", '{"top_k": 5}'])
    assert (options.teacher, options.data) == ("teacher", ["a.txt", "b.txt"])
    expected = {"num_beams": 4, "keep_original": True, "generation": {"top_k": 5}}
    assert options.settings == expected


def test_ctrl_c_says_how_to_go_on(axe_hf, words, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("axe_hf.teachers.work._translate", stop)
    code, _, err = axe_hf("distill", *words)
    assert code == 130
    assert "Go on by the same command: axe-hf distill " in err and str(words[1]) in err
    monkeypatch.undo()
    assert axe_hf("distill", *words)[0] == 0
    assert len((tmp_path / "data" / "distillation.json").read_text("utf-8")) > 0
    (file,) = (tmp_path / "data").glob("data/*")
    assert len([json.loads(line) for line in file.read_text("utf-8").splitlines()]) == 12
