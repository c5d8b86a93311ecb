"""Sharing: what is saved and pushed can be loaded, trained and pushed on by who has no axe_hf.

The client is the real `huggingface_hub`; the Hub is `hub_server.py`, on this machine.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    dynamic_module_utils,
)

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    push_folder_to_hub,
    push_to_hub_with_code,
    quantize_int8,
    save_pretrained_with_code,
    train_tokenizer,
    translate,
)
from axe_hf.cmlm.configuration_cmlm import CUSTOM_PIPELINES
from axe_hf.output import predictions_name
from axe_hf.pipeline import TASK

SENTENCES = ["A dog barks.", "Ein Hund bellt."]
CODE = {"configuration_cmlm.py", "modeling_cmlm.py", "generation_cmlm.py", "loss_axe.py"}
CODE |= {"pipeline.py"}
CHECKPOINT = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES * 5, vocab_size=300)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_length": 40}
    model = CmlmForConditionalGeneration(
        CmlmConfig(vocab_size=len(tokenizer), max_target_length=12, **sizes)
    ).eval()
    model.generation_config.num_iterations = 3
    return model


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    """A checkpoint without code or card, as `save_pretrained` writes it."""
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


# Who has no axe_hf


# Isolated mode leaves out PYTHONPATH and the working directory; this also hides an installed
# package.
HIDE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]
sys.path[:] = [p for p in sys.path if not __import__('os').path.isdir(p + '/axe_hf')]
import importlib.util
assert importlib.util.find_spec("axe_hf") is None, "the test wants a Python without axe_hf"
"""
# What is done in both Pythons with `name`, a folder or a name on the Hub.
USE = """
import json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, Trainer
from transformers import TrainingArguments, pipeline, set_seed

def use(name, sentences, folder, **trust):
    config = AutoConfig.from_pretrained(name, **trust)
    body = AutoModel.from_pretrained(name, **trust).eval()
    model = AutoModelForSeq2SeqLM.from_pretrained(name, **trust).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, **trust)
    assert [type(x).__name__ for x in (config, body)] == ["CmlmConfig", "CmlmModel"]
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    out = {"encoder": body.encoder(**inputs).last_hidden_state.tolist()}
    out["generated"] = model.generate(**inputs, num_length_candidates=2).tolist()
    out["loss"] = model(**inputs, labels=inputs["input_ids"]).loss.item()
    translator = pipeline("translation", model=name, device="cpu", **trust)
    out["pipeline"] = [t["translation_text"] for t in translator(sentences)]
    rows = [dict(tokenizer(text, text_target=text)) for text in sentences[:1]] * 2
    set_seed(0)
    args = TrainingArguments(folder, max_steps=1, learning_rate=0.01, use_cpu=True, report_to=[],
                             disable_tqdm=True, save_strategy="no")
    trainer = Trainer(model, args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    model.eval()
    out["trained"] = model(**inputs, labels=inputs["input_ids"]).loss.item()
    again = AutoModelForSeq2SeqLM.from_pretrained(folder, **trust).eval()
    out["saved"] = again(**inputs, labels=inputs["input_ids"]).loss.item()
    translator = pipeline("translation", model=folder, device="cpu", **trust)
    out["saved pipeline"] = [t["translation_text"] for t in translator(sentences)]
    return out, again, tokenizer
"""
STRANGER = """
name, sentences, folder, pushed_to = sys.argv[1:]
out, again, tokenizer = use(name, json.loads(sentences), folder, trust_remote_code=True)
if pushed_to:
    again.push_to_hub(pushed_to)
    tokenizer.push_to_hub(pushed_to)
assert "axe_hf" not in sys.modules
print(json.dumps(out))
"""


def run_stranger(name, folder, environment, pushed_to=""):
    """What `use` gives in a Python without axe_hf, and what else that printed."""
    command = [sys.executable, "-I", "-W", "ignore", "-c", HIDE + USE + STRANGER]
    done = subprocess.run(
        [*command, str(name), json.dumps(SENTENCES), str(folder), pushed_to],
        env=os.environ | {"OMP_NUM_THREADS": "2"} | environment,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout  # it was not asked whether to trust it
    return json.loads(done.stdout.splitlines()[-1])


def use_here(name, folder):
    program = folder.with_suffix(".py")
    program.write_text(USE)
    use = runpy.run_path(str(program))["use"]
    # The pipeline of a folder with code is that of its file; all else is the package's.
    out, again, _ = use(str(name), SENTENCES, str(folder), trust_remote_code=True)
    assert type(again) is CmlmForConditionalGeneration
    return out


@pytest.mark.slow
def test_who_has_no_package_loads_trains_saves_and_pushes_on_what_was_pushed(
    model, tokenizer, hub, tmp_path
):
    """Bit for bit the package's results; then without a net, from the cache that was filled."""
    push_to_hub_with_code(model, tokenizer, "me/model")
    save_pretrained_with_code(model, tokenizer, tmp_path / "local")
    home = hub.environment(tmp_path / "home")
    right = use_here(tmp_path / "local", tmp_path / "right")
    assert right["trained"] != right["loss"] and right["saved"] == right["trained"]
    assert run_stranger("me/model", tmp_path / "from the Hub", home, "me/again") == right
    assert CODE | CHECKPOINT <= {*os.listdir(tmp_path / "from the Hub")}
    assert CODE | CHECKPOINT <= hub.files("me/again").keys()
    for name in CODE:
        assert hub.files("me/again")[name] == hub.files("me/model")[name]
    # What the stranger pushed is a model like any other, for another stranger and for us.
    other = run_stranger("me/again", tmp_path / "twice", hub.environment(tmp_path / "other"))
    assert other["loss"] == right["trained"] and CODE <= {*os.listdir(tmp_path / "twice")}
    asked = len(hub.requests)
    offline = home | {"HF_HUB_OFFLINE": "1"}
    assert run_stranger("me/model", tmp_path / "offline", offline) == right
    assert CODE <= {*os.listdir(tmp_path / "offline")} and len(hub.requests) == asked


def test_a_copy_of_the_code_saves_all_of_it_though_its_folder_is_gone(
    model, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    save_pretrained_with_code(model, tokenizer, tmp_path / "model")
    name = "configuration_cmlm.CmlmConfig"
    kind = dynamic_module_utils.get_class_from_dynamic_module(name, tmp_path / "model")
    assert kind is not CmlmConfig
    config = kind.from_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    config.save_pretrained(tmp_path / "again")
    assert CODE <= {*os.listdir(tmp_path / "again")}


@pytest.mark.slow
def test_who_has_no_package_saves_code_and_pipeline_of_a_folder_that_is_gone(
    model, tokenizer, tmp_path
):
    save_pretrained_with_code(model, tokenizer, tmp_path / "model")
    program = """
import shutil
from transformers import AutoConfig, AutoModelForSeq2SeqLM
folder, config_alone, again = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
shutil.rmtree(folder)
config.save_pretrained(config_alone)
model.save_pretrained(again)
"""
    names = ("model", "config alone", "again")
    command = [sys.executable, "-I", "-c", HIDE + program, *(tmp_path / n for n in names)]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names[1:]:
        assert CODE <= {*os.listdir(tmp_path / name)}
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
        assert config["custom_pipelines"] == CUSTOM_PIPELINES


# Saving


def trainer_of(model, folder):
    return Trainer(model, TrainingArguments(folder, report_to=[], use_cpu=True))


@pytest.mark.parametrize(
    "save",
    [
        lambda model, folder: model.save_pretrained(folder),
        lambda model, folder: model.config.save_pretrained(folder),
        lambda model, folder: trainer_of(model, folder).save_model(),
        lambda model, folder: CmlmModel.from_pretrained(model.config.name_or_path).save_pretrained(
            folder
        ),
    ],
    ids=["model", "config", "trainer", "another class"],
)
def test_a_model_from_a_folder_with_code_is_saved_with_it(model, tokenizer, tmp_path, save):
    save_pretrained_with_code(model, tokenizer, tmp_path / "with code")
    before = (tmp_path / "with code" / "config.json").read_text()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "with code")
    save(loaded, str(tmp_path / "saved"))
    for name in os.listdir(tmp_path / "with code"):
        if name.endswith(".py"):
            saved = (tmp_path / "saved" / name).read_bytes()
            assert saved == (tmp_path / "with code" / name).read_bytes()
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["custom_pipelines"] == CUSTOM_PIPELINES and len(saved["auto_map"]) == 3
    AutoConfig.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    # Into the same folder, too.
    loaded.save_pretrained(tmp_path / "with code")
    assert (tmp_path / "with code" / "config.json").read_text() == before


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_a_key_for_code_that_cannot_be_found_is_left_out_and_said(
    model, tmp_path, caplog, monkeypatch, key
):
    from transformers.utils import logging

    monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
    model.config.carry_code()
    setattr(model.config, key, {"translation": {"impl": "gone.CmlmTranslationPipeline"}})
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not {"auto_map", "custom_pipelines"} & saved.keys()
    assert "gone.py: not found" in caplog.text and "need axe_hf" in caplog.text


def test_the_configuration_names_the_task_of_the_pipeline():
    assert CUSTOM_PIPELINES.keys() == {TASK}


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
    for share in (lambda m: m.save_pretrained(tmp_path / "int8"), lambda m: m.push_to_hub("me/m")):
        with pytest.raises(TypeError, match="save the model it was made of"):
            share(quantize_int8(model))


# Pushing


def plain(model, tokenizer, folder, *args, **how):
    return push_to_hub_with_code(model, tokenizer, *args, **how)


def of_folder(model, tokenizer, folder, *args, **how):
    return push_folder_to_hub(folder, *args, **how)


slowly = pytest.mark.slow
both_ways = pytest.mark.parametrize("push", [pytest.param(plain, marks=slowly), of_folder])


@both_ways
def test_a_push_holds_code_tokenizer_settings_and_card_in_one_commit(
    push, model, tokenizer, folder, hub
):
    url = push(model, tokenizer, folder, "me/model")
    assert url == f"{hub.url}/me/model"
    files = hub.files("me/model")
    assert CODE | CHECKPOINT | {"README.md"} <= files.keys()
    assert hub.repositories["me/model"].titles[1:] == ["Upload model, tokenizer and code"]
    config = json.loads(files["config.json"])
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    assert json.loads(files["generation_config.json"])["num_iterations"] == 3
    card = ModelCard(files["README.md"].decode())
    assert card.data.pipeline_tag == "translation" and card.data.license is None
    assert "How it was trained is not stated" in card.text and "none is stated" in card.text
    assert 'from_pretrained("me/model", trust_remote_code=True)' in card.text
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    loaded = AutoModelForSeq2SeqLM.from_pretrained("me/model")
    assert type(loaded) is CmlmForConditionalGeneration
    tokenizer = AutoTokenizer.from_pretrained("me/model")
    assert translate(loaded, tokenizer, SENTENCES) == translate(model, tokenizer, SENTENCES)


@both_ways
@pytest.mark.parametrize("revision", ["v2", "feature/axe"])
def test_a_push_to_a_branch_makes_it_where_there_is_none(
    push, model, tokenizer, folder, hub, revision
):
    for _ in range(2):
        push(model, tokenizer, folder, "me/model", revision=revision, commit_message="Mine")
    assert CODE <= hub.files("me/model", revision).keys()
    assert hub.files("me/model").keys() == {".gitattributes"}
    assert hub.repositories["me/model"].titles == ["initial commit", "Mine"]  # nothing new


@both_ways
@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_pull_request_is_opened_to_the_branch_and_its_address_returned(
    push, model, tokenizer, folder, hub, revision
):
    if revision is not None:
        push(model, tokenizer, folder, "me/model", revision=revision)
        model.config.dropout = 0.25
        model.save_pretrained(folder)
    how = {"revision": revision, "create_pr": True}
    url = push(model, tokenizer, folder, "me/model", **how)
    assert url == f"{hub.url}/me/model/discussions/1"
    assert hub.repositories["me/model"].pull_requests == [revision or "main"]
    assert CODE | CHECKPOINT <= hub.files("me/model", "refs/pr/1").keys()
    assert hub.files("me/model").keys() == {".gitattributes"}
    url = push(model, tokenizer, folder, "me/model", revision="refs/pr/1")
    assert url == f"{hub.url}/me/model"


@both_ways
@pytest.mark.parametrize("is_private", [True, False, None])
def test_a_private_repository_and_the_token_pass_through(
    push, model, tokenizer, folder, hub, monkeypatch, is_private
):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HfHubHTTPError, match="401"):
        push(model, tokenizer, folder, "me/model", token=False)
    with pytest.raises(HfHubHTTPError, match="403"):
        push(model, tokenizer, folder, "me/model", token=hub.READ_TOKEN)
    assert hub.repositories == {}
    push(model, tokenizer, folder, "me/model", token=hub.TOKEN, private=is_private)
    assert hub.repositories["me/model"].is_private == bool(is_private)


@pytest.mark.parametrize(
    ("step", "status", "times"),
    [
        pytest.param("create", 500, 1, marks=slowly),
        ("preupload", 403, 1),
        pytest.param("batch", 401, 1, marks=slowly),
        ("upload", 500, 6),
        pytest.param("upload", "drop", 6, marks=slowly),
        pytest.param("verify", 404, 1, marks=slowly),
        ("commit", 409, 1),
        pytest.param("commit", 500, 6, marks=slowly),
        ("commit", "drop", 6),
    ],
)
def test_a_push_that_fails_half_way_writes_nothing_and_the_next_succeeds(
    folder, hub, step, status, times
):
    hub.fail(step, status, times)
    with pytest.raises(Exception, match="on request|disconnected|409|404|401|uploading") as caught:
        push_folder_to_hub(folder, "me/model")
    if step != "create":
        assert hub.files("me/model").keys() == {".gitattributes"}, caught.value
    hub.failures.clear()
    push_folder_to_hub(folder, "me/model")
    assert CODE | CHECKPOINT | {"README.md"} <= hub.files("me/model").keys()
    assert len(hub.repositories["me/model"].titles) == 2


@pytest.mark.parametrize("revision", [None, "v2"])
def test_without_a_net_a_model_is_loaded_from_the_cache_that_it_filled(
    model, tokenizer, hub, monkeypatch, revision
):
    push_to_hub_with_code(model, tokenizer, "me/model", revision=revision)
    for is_offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        asked = len(hub.requests)
        loaded = AutoModelForSeq2SeqLM.from_pretrained("me/model", revision=revision)
        cached = AutoTokenizer.from_pretrained("me/model", revision=revision)
        assert translate(loaded, cached, SENTENCES) == translate(model, tokenizer, SENTENCES)
        assert loaded.generation_config.num_iterations == 3
        assert (len(hub.requests) == asked) == is_offline


def test_a_connection_that_is_lost_once_is_mended_by_the_client(model, tokenizer, hub):
    for step in ("preupload", "batch", "upload"):
        hub.fail(step, "drop")
    push_to_hub_with_code(model, tokenizer, "me/model")
    assert CODE | CHECKPOINT <= hub.files("me/model").keys()


def test_models_push_their_code_by_the_method_of_transformers(model, hub):
    model.push_to_hub("me/model", create_pr=True)
    assert CODE <= hub.files("me/model", "refs/pr/1").keys()
    assert not hasattr(model.config, "auto_map")  # later saves are as before


def test_the_card_of_a_folder_is_uploaded_with_the_name_it_has_there(folder, hub):
    card = '---\ntags: [mine]\n---\n# Mine\n\nX.from_pretrained("plain", y) "plain"\n'
    card += "- Licence: none is stated. The data may have one.\n"
    (folder / "README.md").write_text(card)
    push_folder_to_hub(folder, "me/model")
    pushed = hub.files("me/model")["README.md"].decode()
    assert pushed == card.replace('("plain"', '("me/model"')
    push_folder_to_hub(folder, "me/model", license="cc-by-4.0")
    changed = ModelCard(hub.files("me/model")["README.md"].decode())
    assert changed.data.license == "cc-by-4.0" and changed.data.tags == ["mine"]
    assert changed.text.endswith("- Licence: `cc-by-4.0`\n") and "none is" not in changed.text
    # Without one, that of the repository stays.
    (folder / "README.md").unlink()
    (folder / "more.txt").write_text("more")
    push_folder_to_hub(folder, "me/model")
    assert ModelCard(hub.files("me/model")["README.md"].decode()).data.tags == ["mine"]
    assert "more.txt" in hub.files("me/model")


def test_a_card_of_a_folder_that_was_copied_loads_what_was_pushed(folder, hub):
    (folder / "README.md").write_text('# first\n\nfrom_pretrained("first") from_pretrained("me/x")')
    push_folder_to_hub(folder, "me/model")
    pushed = hub.files("me/model")["README.md"].decode()
    assert pushed == '# first\n\nfrom_pretrained("me/model") from_pretrained("me/x")'


def test_what_is_of_no_use_to_others_stays_at_home(folder, hub):
    predictions = (predictions_name(), predictions_name("zh-CN:en"))
    for name in ("training_args.bin", "optimizer.pt", "_unfinished", *predictions):
        (folder / name).write_text("mine")
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "config.json").write_text("{}")
    push_folder_to_hub(folder, "me/model")
    names = hub.files("me/model").keys()
    assert not [
        n
        for n in names
        if n.startswith(("training_args", "opt", "gener", "_", "check"))
        and n != "generation_config.json"
        and not n.endswith(".py")
    ]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks the weights"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "lacks the tokenizer"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "marian"}'), "marian"),
    ],
)
def test_a_folder_that_others_could_not_use_is_refused_before_anything_is_asked(
    folder, hub, spoil, problem
):
    spoil(folder)
    with pytest.raises(ValueError, match=problem):
        push_folder_to_hub(folder, "me/model")
    assert hub.requests == []
    with pytest.raises(FileNotFoundError, match="must be the folder of a model"):
        push_folder_to_hub(folder / "nowhere", "me/model")


def test_adapters_are_pushed_where_their_base_can_be_found(folder, hub, tmp_path):
    peft = pytest.importorskip("peft")
    push_folder_to_hub(folder, "me/base")
    for base in (folder, "me/base"):
        model = CmlmForConditionalGeneration.from_pretrained(base)
        lora = {"task_type": "SEQ_2_SEQ_LM", "target_modules": ["q_proj"]}
        peft.get_peft_model(model, peft.LoraConfig(**lora)).save_pretrained(tmp_path / "adapter")
        if base == folder:
            with pytest.raises(ValueError, match="a folder that others do not have"):
                push_folder_to_hub(tmp_path / "adapter", "me/adapter")
    push_folder_to_hub(tmp_path / "adapter", "me/adapter")
    assert "adapter_model.safetensors" in hub.files("me/adapter")


@pytest.mark.slow
def test_an_exported_folder_is_pushed_as_it_is(model, tokenizer, hub, tmp_path):
    pytest.importorskip("onnxruntime")
    from axe_hf import export_model, load_exported

    export_model(model, tmp_path / "graphs", tokenizer=tokenizer, int8=True)
    push_folder_to_hub(tmp_path / "graphs", "me/graphs")
    files = hub.files("me/graphs")
    assert {*os.listdir(tmp_path / "graphs")} | {"README.md", ".gitattributes"} == files.keys()
    assert (
        b"load_exported(" in files["README.md"] and b"trust_remote_code" not in files["README.md"]
    )
    loaded = load_exported("me/graphs")
    right = translate(load_exported(tmp_path / "graphs"), tokenizer, SENTENCES)
    assert translate(loaded, AutoTokenizer.from_pretrained("me/graphs"), SENTENCES) == right
