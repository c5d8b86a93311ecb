"""The recipes: each number has a source, each command in their README is understood, each file
trains."""

import importlib
import json
import os
import re
import subprocess

import pytest
import yaml

from axe_hf.commands.train import parse, run

OF_PAPERS = ("wmt14_en_de", "wmt16_en_ro", "iwslt14_de_en")
SOURCE = re.compile(r" (MP 4\.1|MP code|AXE 4\.1|AXE 3|fairseq|ours)\b")
# Neither numbers nor choices.
BARE = re.compile(r"(source_lang|target_lang|eval_strategy): \w+$")
NEEDED = ("--train-file", "train.tsv", "--output-dir", "run", "--use-cpu")
# What stands for the programs of the README: each writes its arguments, a line a call.
SHELL = r"""
write() { printf '%s\x1f' "$@" >>calls; echo >>calls; }
axe-hf() { write "$@"; }
accelerate() { while [[ $1 != axe_hf ]]; do shift; done; shift; write "$@"; }
sacrebleu() { :; }
bash() { :; }
"""


@pytest.fixture
def recipes(repository):
    return repository / "examples" / "recipes"


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_number_of_a_recipe_names_its_source(recipes, name):
    text = (recipes / f"{name}.yaml").read_text(encoding="utf-8")
    settings = [line for line in text.splitlines() if re.match(r"\w+:", line)]
    assert len(settings) == len(yaml.safe_load(text))
    for line in settings:
        setting, _, reason = line.partition("#")
        assert SOURCE.match(reason) or BARE.match(setting), line


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_is_the_model_and_the_optimizer_of_its_source(recipes, name):
    model, _, training = parse([str(recipes / f"{name}.yaml"), *NEEDED]).arguments()
    assert (model.d_model, model.encoder_layers, model.decoder_layers) == (512, 6, 6)
    assert (model.encoder_ffn_dim, model.encoder_attention_heads) == (
        (1024, 4) if name.startswith("iwslt") else (2048, 8)
    )
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-6)
    tokens = training.max_tokens_per_batch * training.gradient_accumulation_steps
    assert tokens * 8 == 2**17 or name.startswith("iwslt")
    assert training.lr_scheduler_type == "inverse_sqrt" and training.warmup_steps == 10_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sentence pairs that the tiny models below can be trained and evaluated on."""
    folder = tmp_path_factory.mktemp("data")
    digits = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
    pairs = [
        {"en": f"{a} {b}", "de": f"{digits[a]} {digits[b]}", "ro": f"{b} {a}"}
        for a in digits
        for b in digits
    ]
    lines = [json.dumps({"translation": pair}) + "\n" for pair in pairs]
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "validation.jsonl").write_text("".join(lines[:4]))
    return folder


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_trains_evaluates_and_saves_at_a_small_size(recipes, files, tmp_path, name):
    sizes = {"d_model": 16, "vocab_size": 300, "max_tokens_per_batch": 64}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    short = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "dataloader_num_workers": 0}
    paths = {"output_dir": tmp_path / "run"}
    paths |= {f"{part}_file": files / f"{part}.jsonl" for part in ("train", "validation")}
    options = {**sizes, **short, **paths, "use_cpu": True, "disable_tqdm": True}
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    run(parse([str(recipes / f"{name}.yaml"), *argv]))
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["eval_bleu"] >= 0 and results["eval_loss"] > 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["length_multiplier"], config["axe_delta"], config["masking"]) == (1.4, 3, "full")
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_metric"] == pytest.approx(results["eval_loss"])  # `axe-hf average --best`


@pytest.fixture(scope="module")
def calls(repository, tmp_path_factory):
    """What the README would call, by command: lists of arguments."""
    folder = tmp_path_factory.mktemp("readme")
    text = (repository / "examples" / "recipes" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    script = SHELL + "\n".join(blocks)
    subprocess.run(["bash", "-euc", script], cwd=folder, check=True, env=dict(os.environ))
    found = {}
    for line in (folder / "calls").read_text(encoding="utf-8").splitlines():
        command, *argv = line.removesuffix("\x1f").split("\x1f")
        found.setdefault(command, []).append(argv)
    return found


@pytest.mark.parametrize("command", ["train", "distill", "average", "evaluate"])
def test_the_commands_of_the_readme_are_understood(calls, repository, monkeypatch, command):
    assert set(calls) == {"train", "distill", "average", "evaluate"}
    monkeypatch.chdir(repository)
    module = importlib.import_module(f"axe_hf.commands.{command}")
    for argv in calls[command]:
        if command == "train":  # whose arguments refuse what excludes each other
            module.parse([*argv, "--use-cpu"]).arguments()
        else:
            module.parse(argv)


def test_the_other_losses_of_the_readme_go_with_a_recipe(recipes):
    text = (recipes / "README.md").read_text(encoding="utf-8")
    for name in ("MASK_PREDICT", "CTC"):
        options = re.search(rf'^{name}="(.*)"$', text, flags=re.MULTILINE)[1].split()
        parse([str(recipes / "wmt14_en_de.yaml"), *NEEDED, *options]).arguments()
