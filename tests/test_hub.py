import json
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub import CommitInfo, HfApi, RepoUrl
from transformers import AutoConfig, AutoModelForSeq2SeqLM, Trainer, TrainingArguments

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, CmlmModel, train_tokenizer
from axe_hf.hub import push_to_hub_with_code, save_pretrained_with_code
from axe_hf.translation import translate

SENTENCES = ["A dog barks.", "Ein Hund bellt."]
CODE = {"configuration_cmlm.py", "modeling_cmlm.py", "generation_cmlm.py", "loss_axe.py"}
CHECKPOINT = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES * 5, vocab_size=300)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    model = CmlmForConditionalGeneration(
        CmlmConfig(vocab_size=len(tokenizer), encoder_ffn_dim=32, max_target_length=12, **sizes)
    ).eval()
    model.generation_config.num_iterations = 3
    return model


STRANGER = """
import importlib.util, json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline
assert importlib.util.find_spec("axe_hf") is None, "the test wants a Python without axe_hf"
folder = sys.argv[1]
trust = {"trust_remote_code": True}
assert type(AutoConfig.from_pretrained(folder, **trust)).__name__ == "CmlmConfig"
assert type(AutoModel.from_pretrained(folder, **trust)).__name__ == "CmlmModel"
model = AutoModelForSeq2SeqLM.from_pretrained(folder, **trust).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
inputs = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")
sequences = model.generate(**inputs, num_length_candidates=2)
loss = model(**inputs, labels=inputs["input_ids"]).loss  # the loss travels too
translator = pipeline("translation", model=folder, device="cpu", **trust)
translations = translator(json.loads(sys.argv[2]), num_length_candidates=2)
again = folder + "-again"  # saved again, the code is copied along, and what is not is not named
model.save_pretrained(again)
tokenizer.save_pretrained(again)
assert "custom_pipelines" not in json.load(open(again + "/config.json"))
assert type(AutoModel.from_pretrained(again, **trust)).__name__ == "CmlmModel"
reloaded = AutoModelForSeq2SeqLM.from_pretrained(again, **trust).eval()
assert reloaded.generate(**inputs, num_length_candidates=2).equal(sequences)
assert "axe_hf" not in sys.modules
print(json.dumps([sequences.tolist(), loss.item(), [t["translation_text"] for t in translations]]))
"""


def test_a_python_without_the_package_loads_and_translates_the_same(model, tokenizer, tmp_path):
    save_pretrained_with_code(model, tokenizer, tmp_path / "model")
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    # Isolated mode leaves out PYTHONPATH and the working directory; this also hides an installed
    # package.
    hide = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
        "sys.path[:] = [p for p in sys.path if not __import__('os').path.isdir(p + '/axe_hf')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", hide + STRANGER, tmp_path / "model", json.dumps(SENTENCES)],
        env=os.environ
        | {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "m")},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout  # it was not asked whether to trust it
    sequences, loss, translations = json.loads(done.stdout.splitlines()[-1])
    assert sequences == model.generate(**inputs, num_length_candidates=2).tolist()
    assert loss == pytest.approx(model(**inputs, labels=inputs["input_ids"]).loss.item(), rel=1e-5)
    assert translations == translate(model, tokenizer, SENTENCES, num_length_candidates=2)


def trainer_of(model, folder):
    return Trainer(model, TrainingArguments(folder, report_to=[], use_cpu=True))


@pytest.mark.parametrize(
    "save",
    [
        lambda model, folder: model.save_pretrained(folder),
        lambda model, folder: trainer_of(model, folder).save_model(),
        lambda model, folder: CmlmModel.from_pretrained(model.config.name_or_path).save_pretrained(
            folder
        ),
    ],
    ids=["model", "trainer", "another class"],
)
def test_a_model_from_a_folder_with_code_is_saved_without_keys_that_lead_nowhere(
    model, tokenizer, tmp_path, save
):
    save_pretrained_with_code(model, tokenizer, tmp_path / "with code")
    before = (tmp_path / "with code" / "config.json").read_text()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "with code")
    assert loaded.config.auto_map
    save(loaded, str(tmp_path / "saved"))
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not {"auto_map", "custom_pipelines"} & saved.keys()
    AutoConfig.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    # Where the code is, the keys stay.
    loaded.save_pretrained(tmp_path / "with code")
    assert (tmp_path / "with code" / "config.json").read_text() == before


def test_the_folder_holds_checkpoint_and_code(model, tokenizer, tmp_path):
    save_pretrained_with_code(model, tokenizer, tmp_path / "new" / "model", model_card="# Ours\n")
    names = set(os.listdir(tmp_path / "new" / "model"))
    assert CODE | CHECKPOINT | {"README.md"} <= names
    assert os.listdir(tmp_path / "new") == ["model"]
    config = json.loads((tmp_path / "new" / "model" / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    assert (tmp_path / "new" / "model" / "README.md").read_text() == "# Ours\n"


def test_with_the_package_its_own_classes_are_used(model, tokenizer, tmp_path):
    save_pretrained_with_code(model, tokenizer, tmp_path / "model")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert type(loaded) is CmlmForConditionalGeneration
    assert loaded.generation_config.num_iterations == 3


def test_later_saves_of_the_same_model_carry_no_code(model, tokenizer, tmp_path):
    save_pretrained_with_code(model, tokenizer, tmp_path / "with")
    model.save_pretrained(tmp_path / "without")
    assert not [name for name in os.listdir(tmp_path / "without") if name.endswith(".py")]
    assert "auto_map" not in json.loads((tmp_path / "without" / "config.json").read_text())


def test_an_empty_folder_is_taken_and_a_full_one_refused(model, tokenizer, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_pretrained_with_code(model, tokenizer, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="`directory` must be a new or an empty folder"):
        save_pretrained_with_code(model, tokenizer, folder)
    with pytest.raises(FileExistsError, match="config.json"):
        save_pretrained_with_code(model, tokenizer, folder / "config.json")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_save_that_fails_leaves_nothing_behind(model, tokenizer, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained_with_code(model, tokenizer, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_wrong_types_are_named(model, tokenizer, tmp_path):
    with pytest.raises(
        TypeError, match="`model` must be .*CmlmForConditionalGeneration, got .*str"
    ):
        save_pretrained_with_code("model", tokenizer, tmp_path / "model")
    with pytest.raises(TypeError, match="`tokenizer` must be a tokenizer .*, got NoneType"):
        push_to_hub_with_code(model, None, "me/model")


@pytest.fixture
def hub(monkeypatch):
    """The Hub as far as this test goes: what was asked of it, and the files it got."""
    calls = {}

    def create_repo(self, repo_id, **kwargs):
        calls["token"], calls["create"] = self.token, (repo_id, kwargs)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, commit_message, revision, create_pr):
        calls["upload"], calls["where"] = (repo_id, commit_message), (revision, create_pr)
        calls["folder"], calls["files"] = folder_path, set(os.listdir(folder_path))
        url = f"https://huggingface.co/{repo_id}"
        pull_request = f"{url}/discussions/3" if create_pr else None
        return CommitInfo(f"{url}/commit/abc", commit_message, "", "abc", pr_url=pull_request)

    def create_branch(self, repo_id, *, branch, exist_ok):
        calls["branch"] = (repo_id, branch, exist_ok)

    monkeypatch.setattr(HfApi, "create_branch", create_branch)
    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return calls


def test_pushing_uploads_the_same_files_in_one_commit(model, tokenizer, hub, tmp_path):
    save_pretrained_with_code(model, tokenizer, tmp_path / "model", model_card="# Ours\n")
    url = push_to_hub_with_code(
        model, tokenizer, "me/model", private=True, token="hf_secret", model_card="# Ours\n"
    )
    assert url == "https://huggingface.co/me/model"
    assert hub["create"] == ("me/model", {"private": True, "exist_ok": True})
    assert hub["upload"] == ("me/model", "Upload model, tokenizer and code")
    assert hub["files"] == set(os.listdir(tmp_path / "model"))
    assert hub["token"] == "hf_secret"
    assert not os.path.exists(hub["folder"])
    assert hub["where"] == (None, False) and "branch" not in hub


@pytest.mark.parametrize("revision", ["v2", "feature/axe"])
def test_a_push_to_a_branch_makes_it_where_there_is_none(model, tokenizer, hub, revision):
    url = push_to_hub_with_code(model, tokenizer, "me/model", revision=revision)
    assert url == "https://huggingface.co/me/model"
    assert hub["branch"] == ("me/model", revision, True)
    assert hub["where"] == (revision, False)


@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_pull_request_is_opened_to_the_branch_and_its_address_returned(
    model, tokenizer, hub, revision
):
    url = push_to_hub_with_code(model, tokenizer, "me/model", revision=revision, create_pr=True)
    assert url == "https://huggingface.co/me/model/discussions/3"
    assert hub["where"] == (revision, True) and "branch" not in hub


def test_a_push_to_a_pull_request_makes_no_branch(model, tokenizer, hub):
    push_to_hub_with_code(model, tokenizer, "me/model", revision="refs/pr/3")
    assert hub["where"] == ("refs/pr/3", False) and "branch" not in hub


def test_a_push_that_the_hub_refuses_leaves_nothing_behind(model, tokenizer, hub, monkeypatch):
    def refuse(self, *, folder_path, **kwargs):
        hub["folder"] = folder_path
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "upload_folder", refuse)
    with pytest.raises(ConnectionError, match="no network"):
        push_to_hub_with_code(model, tokenizer, "me/model")
    assert not os.path.exists(hub["folder"])
