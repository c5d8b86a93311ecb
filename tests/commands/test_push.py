"""`axe-hf push`, by the real client to a Hub on this machine."""

import pytest
from huggingface_hub import ModelCard

WHOLE = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "modeling_cmlm.py"}


@pytest.mark.parametrize("private", ["--private", "--no-private"])
def test_a_model_is_pushed_as_the_options_say(axe_hf, model, hub, monkeypatch, private):
    monkeypatch.delenv("HF_TOKEN")
    options = ("--license", "cc-by-4.0", "--token", hub.TOKEN, "--commit-message", "Mine", private)
    code, out, err = axe_hf("push", model, "me/model", *options)
    assert (code, out) == (0, f"{hub.url}/me/model\n"), err
    assert WHOLE <= hub.files("me/model").keys()
    assert hub.repositories["me/model"].titles[-1] == "Mine"
    assert hub.repositories["me/model"].is_private == (private == "--private")
    assert ModelCard(hub.files("me/model")["README.md"].decode()).data.license == "cc-by-4.0"
    monkeypatch.setenv("HF_TOKEN", hub.READ_TOKEN)
    code, out, err = axe_hf("translate", "me/model", "one two")
    assert code == 0 and out.count("\n") == 1, err


def test_an_imported_model_is_pushed_with_the_code_of_its_tokenizer(
    axe_hf, original, hub, tmp_path
):
    original.write(tmp_path, ["a", "the", "dog", "bar@@", "ks", "."])
    dictionaries = ("--dict-source", tmp_path / "dict.txt", "--dict-target", tmp_path / "dict.txt")
    more = ("--no-moses", "--source-lang", "en", "--target-lang", "de")
    folder, checkpoint = tmp_path / "model", tmp_path / "checkpoint_best.pt"
    argv = ("import-fairseq", checkpoint, *dictionaries, "--output-dir", folder, *more)
    assert axe_hf(*argv)[0] == 0
    code, _, err = axe_hf("push", folder, "me/old")
    assert code == 0, err
    files = hub.files("me/old")
    assert WHOLE | {"tokenization_fairseq.py"} <= files.keys()
    card = files["README.md"].decode()
    assert 'from_pretrained("me/old")' in card and 'axe-hf translate "me/old"' in card
    code, out, _ = axe_hf("translate", "me/old", "the dog barks .")
    assert (code, out) == (0, axe_hf("translate", folder, "the dog barks .")[1])


def test_branches_and_pull_requests_are_written_to(axe_hf, model, hub):
    code, out, err = axe_hf("push", model, "model", "--revision", "v2")
    assert (code, out) == (0, f"{hub.url}/me/model\n"), err
    code, out, err = axe_hf("push", model, "model", "--create-pr")
    assert (code, out) == (0, f"{hub.url}/me/model/discussions/1\n"), err
    for revision in ("v2", "refs/pr/1"):
        assert WHOLE <= hub.files("me/model", revision).keys()
    assert hub.files("me/model").keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("step", "status", "told"), [("create", 403, "403 Forbidden"), ("commit", "drop", "disconnect")]
)
def test_what_the_hub_refuses_is_told_in_a_line_and_can_be_repeated(
    axe_hf, model, hub, step, status, told
):
    hub.fail(step, status)
    code, out, err = axe_hf("push", model, "me/model")
    assert (code, out) == (1, "") and told in err.splitlines()[-1]
    assert axe_hf("push", model, "me/model")[0] == 0


@pytest.mark.parametrize("argv", [(), ("model",), ("model", "me/model", "more")])
def test_wrong_arguments_are_told(axe_hf, argv, hub):
    code, _, err = axe_hf("push", *argv)
    assert code == 2 and "axe-hf push --help" in err
    assert hub.requests == []


def test_a_folder_that_is_not_there_is_named(axe_hf, hub, tmp_path):
    code, _, err = axe_hf("push", tmp_path / "nowhere", "me/model")
    assert code == 1 and "there is no" in err and "nowhere" in err
    code, _, err = axe_hf("push", tmp_path, "me/model")
    assert code == 1 and "holds no model" in err and hub.requests == []
