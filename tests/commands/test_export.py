"""`axe-hf export`, and what the other commands do with the folder it made."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return tmp_path_factory.mktemp("export") / "int8"


@pytest.mark.slow
def test_a_model_is_exported_translated_with_and_scored(axe_hf, fails, model, folder, tmp_path):
    (model / "README.md").write_text("# A model")
    code, out, err = axe_hf("export", model, "--output-dir", folder, "--int8")
    (model / "README.md").unlink()
    assert code == 0, err
    assert "MiB  weights.onnx_data" in out and f"axe-hf translate {folder}" in out
    card = (folder / "README.md").read_text()
    assert card.startswith("# A model") and "in int8" in card
    code, out, err = axe_hf("translate", folder, "one two", "", "--num-iterations", "2")
    assert (code, out.count("\n")) == (0, 2), err
    (tmp_path / "test.tsv").write_text("one two\teins zwei\n")
    scores = tmp_path / "scores.json"
    languages = ("--source-lang", "en", "--target-lang", "de")
    code, _, err = axe_hf("evaluate", folder, tmp_path / "test.tsv", *languages, "--output", scores)
    assert code == 0, err
    assert json.loads(scores.read_text())["int8"] is True
    assert "Leave out --int8" in fails(1, "translate", folder, "one", "--int8")
    assert "Leave out --device" in fails(1, "translate", folder, "one", "--device", "cuda")
    error = fails(1, "export", folder, "--output-dir", tmp_path / "again")
    assert "is exported already" in error
    assert "holds something" in fails(1, "export", model, "--output-dir", folder)


def test_wrong_settings_are_refused(fails, model, tmp_path):
    folder = tmp_path / "new"
    assert "--output-dir" in fails(2, "export", model)
    error = fails(1, "export", model, "--output-dir", folder, "--compile")
    assert "`compile` says how PyTorch computes" in error
    assert "`num_length_candidates`" in fails(
        2, "export", model, "--output-dir", folder, "--num-length-candidates", "0"
    )
    assert not folder.exists()


@pytest.mark.parametrize(("is_int8", "relation"), [(True, "quantized"), (False, None)])
def test_the_card_of_graphs_names_the_model_on_the_hub_that_they_were_made_of(is_int8, relation):
    from axe_hf.commands.export import _card_of_graphs

    written = "---\ntags:\n- mine\n---\n# A model\n\n## Use\n\nload it\n\n## Scores\n\n1\n"
    card = ModelCard(_card_of_graphs(written, "me/model", Path("graphs"), is_int8))
    data = card.data
    assert (data.base_model, data.get("base_model_relation")) == ("me/model", relation)
    assert "load it" not in card.text and "# A model\n\n## Scores\n\n1\n" in card.text
    assert 'axe-hf translate "graphs" "..."' in card.text
    # A folder is of no use to others.
    data = ModelCard(_card_of_graphs(written, ".", Path("graphs"), is_int8)).data
    assert data.to_dict() == {"tags": ["mine"]}
