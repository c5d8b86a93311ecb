"""examples/run_translation.py on real sentences: from scratch, fine-tuned, in two processes."""

import gzip
import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest
import yaml

SIZES = {f"{side}_layers": 1 for side in ("encoder", "decoder")}
SIZES |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
SIZES |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
SIZES |= {"d_model": 32, "vocab_size": 400, "max_source_length": 32, "max_target_length": 32}


@pytest.fixture(scope="module")
def settings(translation_data, tmp_path_factory):
    """A run on the first of the short sentences, with nothing left to chance but the start."""
    folder = tmp_path_factory.mktemp("run_translation")
    found = {}
    for split, number in {"train": 384, "validation": 24, "test": 24}.items():
        with gzip.open(translation_data / f"tatoeba_short.{split}.jsonl.gz", "rt") as rows:
            lines = [row for row, _ in zip(rows, range(number), strict=False)]
        found[f"{split}_file"] = str(folder / f"{split}.json")
        (folder / f"{split}.json").write_text("".join(lines))
    found |= SIZES | {"source_lang": "en", "target_lang": "de", "masking": "full", "dropout": 0.0}
    found |= {"do_train": True, "do_eval": True, "do_predict": True, "max_steps": 24}
    found |= {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "use_cpu": True}
    found |= {"eval_strategy": "steps", "eval_steps": 12, "save_steps": 12, "disable_tqdm": True}
    found |= {"logging_steps": 12}  # what is not logged is of one process in `train_loss`
    return found | {"metric_for_best_model": "bleu", "keep_best": 2, "report_to": ["none"]}


@pytest.fixture(scope="module")
def run(repository):
    """Runs the script in this process."""

    def start(*argv):
        program, before = str(repository / "examples" / "run_translation.py"), sys.argv
        sys.argv = [program, *map(str, argv)]
        try:
            runpy.run_path(program, run_name="__main__")
        finally:
            sys.argv = before

    return start


@pytest.fixture(scope="module")
def scratch(run, settings, tmp_path_factory):
    """The file of arguments and what it made: a model from random weights, its predictions."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "args.json").write_text(json.dumps(settings))
    run(folder / "args.json", "--output_dir", folder / "out", "--num_beams", "2")
    return folder


def results_of(folder):
    return json.loads((folder / "all_results.json").read_text())


def predictions_of(folder):
    return (folder / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()


def test_a_file_of_arguments_trains_scores_and_predicts(scratch):
    results = results_of(scratch / "out")
    assert {"train_loss", "eval_bleu", "test_bleu", "test_chrf"} <= results.keys()
    assert results["train_samples"] == 384 and results["eval_samples"] == 24
    predicted = json.loads((scratch / "out" / "predict_results.json").read_text())
    assert predicted["predict_samples"] == 24
    assert {
        n.replace("predict_", "test_"): v for n, v in predicted.items()
    }.items() <= results.items()
    assert len(predictions_of(scratch / "out")) == 24
    state = json.loads((scratch / "out" / "trainer_state.json").read_text())
    losses = [logs["eval_loss"] for logs in state["log_history"] if "eval_loss" in logs]
    assert losses[1] < losses[0] - 0.1
    decoding = json.loads((scratch / "out" / "generation_config.json").read_text())
    assert decoding["num_length_candidates"] == 2
    assert {path.name for path in (scratch / "out").glob("checkpoint-*")} == {
        "checkpoint-12",
        "checkpoint-24",
    }


def test_fine_tuning_by_yaml_and_options_that_win(run, settings, scratch, tmp_path):
    tuned = {n: v for n, v in settings.items() if n not in SIZES and n != "dropout"}
    tuned |= {"model_name_or_path": str(scratch / "out"), "max_steps": 99, "do_predict": False}
    tuned |= {"lr_scheduler_kwargs": {}, "output_dir": str(tmp_path / "out")}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(tuned))
    lora = ["--use_peft", "--lora_r", "2", "--lora_target_modules", "q_proj", "v_proj"]
    run(tmp_path / "args.yaml", "--max_steps", "12", "--learning_rate", "0.05", *lora)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["global_step"] == 12
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    before, after = results_of(scratch / "out"), results_of(tmp_path / "out")
    assert after["eval_loss"] < before["eval_loss"] and "test_bleu" not in after


def test_predicting_alone_needs_no_training_data(run, settings, scratch, tmp_path):
    names = ("source_lang", "target_lang", "test_file")
    words = [word for name in names for word in (f"--{name}", settings[name])]
    words += ["--do_predict", "--use_cpu", "--disable_tqdm", "true"]
    model = ("--model_name_or_path", scratch / "out", "--output_dir", tmp_path / "out")
    run(*words, *model)
    assert predictions_of(tmp_path / "out") == predictions_of(scratch / "out")
    bleu = results_of(scratch / "out")["test_bleu"]
    assert results_of(tmp_path / "out")["test_bleu"] == pytest.approx(bleu)


def test_an_output_folder_with_a_checkpoint_is_gone_on_in(run, scratch, tmp_path, capsys):
    shutil.copytree(scratch / "out", tmp_path / "out")
    asked = json.loads((scratch / "args.json").read_text())
    asked |= {"resume_from_checkpoint": None, "source_prefix": None}  # as to_json_string has it
    (tmp_path / "args.json").write_text(json.dumps(asked))
    words = [tmp_path / "args.json", "--output_dir", tmp_path / "out", "--num_beams", "2"]
    shutil.rmtree(tmp_path / "out" / "checkpoint-24")
    run(*words)
    assert "checkpoint-12 is there: going on from it." in capsys.readouterr().out
    assert predictions_of(tmp_path / "out") == predictions_of(scratch / "out")
    with pytest.raises(SystemExit) as stop:
        run(*words, "--overwrite_output_dir")
    assert stop.value.code == 2
    assert "remove the folder, choose another one, or go on in it" in capsys.readouterr().err


def test_a_prediction_without_translations_is_a_loss(run, settings, scratch, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    names = ("source_lang", "target_lang", "test_file")
    words = [word for name in names for word in (f"--{name}", settings[name])]
    words += ["--do_predict", "--use_cpu", "--predict_with_generate", "false"]
    words += ["--token", "hf_abc", "--overwrite_output_dir", "--use_auth_token"]
    run(*words, "--model_name_or_path", scratch / "out", "--output_dir", tmp_path / "out")
    before, results = results_of(scratch / "out"), results_of(tmp_path / "out")
    assert results["predict_loss"] == pytest.approx(before["test_loss"], rel=1e-5)
    assert "predict_bleu" not in results
    assert not (tmp_path / "out" / "generated_predictions.txt").exists()
    assert os.environ.pop("HF_TOKEN") == "hf_abc"


@pytest.mark.parametrize("name", ["wmt14_en_de", "wmt16_en_ro", "iwslt14_de_en", "small_cpu"])
def test_each_recipe_is_understood_as_far_as_the_data(run, repository, tmp_path, name):
    words = [repository / "examples" / "recipes" / f"{name}.yaml", "--source_lang", "en"]
    words += ["--target_lang", "de", "--output_dir", tmp_path / "out", "--use_cpu"]
    words += [word for part in ("train", "validation") for word in (f"--{part}_file", "gone.tsv")]
    with pytest.raises(SystemExit, match="error: `train_file`: .* got gone.tsv"):
        run(*words)


@pytest.mark.slow
def test_the_same_file_gives_the_same_scores_in_two_processes(repository, scratch, tmp_path):
    words = ["--output_dir", tmp_path / "out", "--num_beams", "2"]
    words += ["--per_device_train_batch_size", "8", "--ddp_backend", "gloo"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    program = [repository / "examples" / "run_translation.py", scratch / "args.json"]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, launch + program + words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    one, two = results_of(scratch / "out"), results_of(tmp_path / "out")
    for name in ("train_loss", "eval_loss", "eval_bleu", "test_loss", "test_bleu", "test_chrf"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    assert predictions_of(tmp_path / "out") == predictions_of(scratch / "out")


def test_what_is_wrong_is_said_in_one_line(run, settings, tmp_path, capsys):
    output = ("--output_dir", tmp_path / "out", "--use_cpu")
    languages = ("--source_lang", "en", "--target_lang", "de", *output)
    for words, message in (
        (("--forced_bos_token", "de_DE"), "error: `forced_bos_token` of run_translation.py is not"),
        (("--no_such_option", "1"), "--no_such_option"),
        (("--train_file_weights", "1", "2", "3"), "one for each source, got 3 for 2."),
        ((), "error: Give either `train_file` or `dataset_name`"),
    ):
        files = ("--train_file", "t.json", "u.csv") if words else ()
        with pytest.raises(SystemExit) as stop:
            run(*languages, *files, *words)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit, match="`train_file`: .*nowhere.json"):
        run(*languages, "--train_file", tmp_path / "nowhere.json")
    for text, message in (
        ('{"max_steps": ', "Expecting value: line 1"),
        ('["source_prefix"]', "must hold settings by name, each with a value."),
    ):
        (tmp_path / "args.json").write_text(text)
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "args.json", *languages)
        assert stop.value.code == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"run_translation.py: error: {tmp_path / 'args.json'}: {message}")
