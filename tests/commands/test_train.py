"""`axe-hf train`: options, files of options, and how each failure looks."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields

import pytest
import torch
import yaml
from safetensors.torch import save_file

from axe_hf import AxeTrainingArguments
from axe_hf.commands.options import UsageError
from axe_hf.commands.train import declared_arguments, parse
from axe_hf.training import DataArguments, ModelArguments, ScriptArguments
from axe_hf.training.checkpoints import resolve_checkpoint


@pytest.fixture
def settings(toy_pairs, tmp_path):
    """Options of a training that takes a moment."""
    pairs = "".join(f"{en}\t{de}\n" for en, de in toy_pairs) * 5
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    return {
        "source_lang": "en",
        "target_lang": "de",
        "train_file": str(tmp_path / "pairs.tsv"),
        "test_file": str(tmp_path / "pairs.tsv"),
        "output_dir": str(tmp_path / "out"),
        **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
        "d_model": 16,
        "max_source_length": 12,
        "max_target_length": 12,
        "vocab_size": 300,
        "max_steps": 1,
        "save_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
    }


def as_options(settings):
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def test_it_trains_a_model_that_translate_takes(axe_hf, settings, tmp_path):
    code, out, _ = axe_hf("train", *as_options(settings))
    assert code == 0
    assert f"Saved the model in {tmp_path / 'out'}" in out
    assert "On the test data: BLEU" in out and "nrefs:1|case:mixed" in out
    assert axe_hf("translate", tmp_path / "out", "one two")[0] == 0


@pytest.mark.slow
def test_a_log_holds_lines_and_no_progress_bars(settings, tmp_path):
    del settings["disable_tqdm"]
    settings |= {"max_steps": 6, "logging_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    settings |= {"validation_file": settings["train_file"]}
    out = tmp_path / "out"
    pair = ("--source-lang", "en", "--target-lang", "de")
    commands = [
        ["train", *as_options(settings)],
        ["translate", str(out), "--input", str(tmp_path / "pairs.tsv")],
        ["evaluate", str(out), settings["test_file"], *pair],
    ]
    program = f"from axe_hf.cli import main; print([main(argv) for argv in {commands!r}])"
    terminal = None
    if importlib.util.find_spec("pty"):  # the same on a terminal, in the same process
        import pty

        parent, terminal = pty.openpty()
        program += f"\nimport os, sys; sys.stderr.flush(), os.dup2({terminal}, 2)"
        program += f"\nprint(main({commands[1]!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=() if terminal is None else (terminal,),
    )
    assert "[0, 0, 0]" in done.stdout, done.stderr
    assert len(re.findall("^{'loss'", done.stdout, re.MULTILINE)) == 2
    assert not re.search(r"\r|\d%\||it/s|examples/s", done.stdout + done.stderr), done.stderr
    if terminal is not None:
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "0"
        os.close(terminal)
        assert b"\r" in os.read(parent, 10_000)
        os.close(parent)


@pytest.mark.parametrize(
    ("is_terminal", "given", "expected"),
    [(True, None, False), (False, None, True), (False, False, False), (True, True, True)],
)
def test_progress_bars_are_for_terminals_unless_asked_for(
    tmp_path, monkeypatch, is_terminal, given, expected
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    given = {} if given is None else {"disable_tqdm": given}
    assert AxeTrainingArguments(str(tmp_path), use_cpu=True, **given).disable_tqdm is expected


def test_a_file_and_options_mean_the_same_and_options_win(settings, tmp_path):
    settings |= {"learning_rate": "5e-3", "normalize_before": True, "label_names": ["labels"]}
    settings |= {"lr_scheduler_kwargs": {"num_cycles": 2}, "predict_with_generate": False}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    for name in ("run.json", "run.yaml"):
        options = parse([str(tmp_path / name), "--seed", "7", "--d_model", "32"])
        model, data, training = options.arguments()
        assert training.learning_rate == 5e-3 and training.seed == 7
        assert training.predict_with_generate is False
        assert training.label_names == ["labels"]
        assert training.lr_scheduler_kwargs == {"num_cycles": 2}
        assert model.given()["d_model"] == 32
        assert model.given()["normalize_before"] is True
        assert data.vocab_size == 300


def test_there_is_one_set_of_defaults(settings):
    folder = settings["output_dir"]
    options = f"--source-lang en --target-lang de --train-file x --output-dir {folder}".split()
    model, data, training = parse(options).arguments()
    assert data == DataArguments("en", "de", train_file="x")
    assert model == ModelArguments()
    assert training.to_dict() == AxeTrainingArguments(folder).to_dict()


def test_the_options_read_from_the_source_are_the_fields_of_the_dataclasses():
    kinds = (ModelArguments, DataArguments, AxeTrainingArguments, ScriptArguments)
    for declared, kind in zip(declared_arguments(), kinds, strict=True):
        fields_ = {field.name: field for field in fields(kind) if field.init}
        assert list(declared) == list(fields_)
        for name, field in fields_.items():
            assert declared[name].help, name
            found = declared[name].default
            assert kind is ModelArguments or found in (field.default, None), name
            is_missing = field.default is MISSING and field.default_factory is MISSING
            assert declared[name].is_required == (is_missing or name == "output_dir"), name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--bf16", {"bf16": True}),
        ("--bf16 false", {"bf16": False}),
        ("--no-predict-with-generate", {"predict_with_generate": False}),
        ("--no_predict_with_generate", {"predict_with_generate": False}),
        ("--tf32=no", {"tf32": False}),
        ("--warmup-steps 10", {"warmup_steps": 10.0}),
        ("--label-names a b", {"label_names": ["a", "b"]}),
        ("--report-to wandb", {"report_to": "wandb"}),
        ("--report_to wandb tensorboard", {"report_to": ["wandb", "tensorboard"]}),
        ('--liger-kernel-config={"rope":true}', {"liger_kernel_config": {"rope": True}}),
        ('--lr-scheduler-kwargs={"a":1}', {"lr_scheduler_kwargs": '{"a":1}'}),
        ("--lr-scheduler-type cosine", {"lr_scheduler_type": "cosine"}),
        ("--include-num-input-tokens-seen", None),
        ("--include-num-input-tokens-seen true", {"include_num_input_tokens_seen": True}),
        ("--include-num-input-tokens-seen all", {"include_num_input_tokens_seen": "all"}),
        ("--freeze encoder embeddings", {"freeze": ["encoder", "embeddings"]}),
        ("--freeze encoder", {"freeze": ["encoder"]}),
        ("--bf16 maybe", None),
        ("--liger-kernel-config [1]", None),
        ("stray", None),
    ],
)
def test_how_each_kind_of_option_is_written(words, expected, settings):
    needed = {name: settings[name] for name in ("source_lang", "target_lang", "output_dir")}
    argv = [*as_options(needed), *words.split()]
    if expected is None:
        with pytest.raises(UsageError):
            parse(argv)
    else:
        assert parse(argv).settings == needed | expected


def test_help_shows_what_matters_and_help_all_the_rest(axe_hf):
    _, short, _ = axe_hf("train", "--help")
    _, long, _ = axe_hf("train", "--help-all")
    assert short.index("--train-file") < short.index("--d-model") < short.index("--optim")
    for kind in (DataArguments, ModelArguments, AxeTrainingArguments, ScriptArguments):
        for field in fields(kind):
            flag = f"  --{field.name.replace('_', '-')} "
            assert flag in long
            assert (flag in short) != (kind is ScriptArguments) or kind is AxeTrainingArguments
    assert "--torch-compile " not in short and "--masking {uniform,full}" in short


def test_names_of_the_script_of_transformers_mean_ours(settings, caplog, monkeypatch):
    del settings["vocab_size"]
    settings |= {"num_beams": 4, "tokenizer_name": "tok", "val_max_target_length": 9}
    needless = ["trust_remote_code", "pad_to_max_length", "overwrite_cache", "use_auth_token"]
    settings |= dict.fromkeys([*needless, "overwrite_output_dir"], True) | {"token": "hf_secret"}
    monkeypatch.setenv("HF_TOKEN", "before")
    _, data, training = parse(as_options(settings)).arguments()
    assert data.tokenizer_name_or_path == "tok"
    assert (training.num_length_candidates, training.generation_max_length) == (4, 9)
    assert "no beams here; so many lengths are tried" in caplog.text
    for name in (*needless, "overwrite_output_dir"):
        assert f"`{name}` changes nothing" in caplog.text
    assert os.environ["HF_TOKEN"] == "hf_secret" and "hf_secret" not in caplog.text
    hub = {name: settings[name] for name in ("source_lang", "target_lang", "output_dir")}
    hub |= {"dataset_name": "wmt/wmt16", "dataset_config_name": "ro-en"}
    assert parse(as_options(hub)).arguments()[1].dataset_name == "wmt/wmt16:ro-en"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("forced_bos_token", "de_DE", "A canvas is filled at once"),
        ("cache_dir", "cache", "Set the environment variable HF_HOME"),
        ("config_name", "model", "sizes of a new one are settings"),
        ("ignore_pad_token_for_loss", "false", "Padding is never scored"),
        ("num_beams", "0", "`num_length_candidates` must be an integer >= 1"),
        ("tokenizer_name", "other", "another name of `tokenizer_name_or_path`, which is 'one'"),
        ("dataset_config_name", "ro-en", "goes with a `dataset_name` without a colon, got None"),
    ],
)
def test_names_of_the_script_that_mean_nothing_here_say_what_does(
    fails, settings, name, value, message
):
    del settings["vocab_size"]
    settings |= {"tokenizer_name_or_path": "one", name: value}
    assert message in fails(2, "train", *as_options(settings))


def test_a_folder_that_holds_something_is_not_written_over(fails, settings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("")
    line = fails(1, "train", *as_options(settings), "--overwrite-output-dir")
    assert "never writes over another: remove the folder" in line


@pytest.mark.parametrize("is_best_taken", [False, True])
def test_a_run_that_stops_early_says_why(axe_hf, settings, tmp_path, is_best_taken):
    more = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 9}
    more |= {"early_stopping_patience": 2, "learning_rate": 0.0, "predict_with_generate": False}
    more |= {"validation_file": settings["train_file"], "load_best_model_at_end": is_best_taken}
    code, out, _ = axe_hf("train", *as_options({**settings, **more}))
    assert code == 0
    assert "Training ended early, after step 3 of 9: 2 evaluations were no better than loss" in out
    assert ("The model is the last one; --load-best-model-at-end" in out) != is_best_taken


def test_null_in_json_is_what_is_not_given(tmp_path, settings):
    (tmp_path / "run.json").write_text(json.dumps(settings | {"freeze": None, "max_steps": 3}))
    assert parse([str(tmp_path / "run.json")]).settings == settings | {"max_steps": 3}
    (tmp_path / "run.json").write_text(json.dumps(settings | {"learning_rate": None}))
    with pytest.raises(UsageError, match="'learning_rate' has no value"):
        parse([str(tmp_path / "run.json")])


def test_predictions_are_asked_for_by_an_option(axe_hf, settings, tmp_path):
    code, out, _ = axe_hf("train", *as_options(settings), "--do-train", "--do-predict")
    assert code == 0 and f"test data into {tmp_path / 'out'}/generated_predictions.txt" in out
    assert len((tmp_path / "out" / "generated_predictions.txt").read_text().splitlines()) == 20
    only = {name: settings[name] for name in ("source_lang", "target_lang", "test_file")}
    only |= {"output_dir": tmp_path / "again", "model_name_or_path": tmp_path / "out"}
    code, out, _ = axe_hf("train", *as_options(only), "--do-predict", "--use-cpu")
    assert code == 0 and "Saved" not in out and "On the test data: BLEU" in out


def test_wrong_usage(fails, settings, tmp_path):
    line = fails(2, "train")
    assert "required: --source-lang, --target-lang, --output-dir" in line
    line = fails(2, "train", *as_options(settings), "--learning-rat", "1")
    assert "no option --learning-rat; did you mean --learning-rate?" in line
    line = fails(2, "train", *as_options(settings | {"learning_rate": "fast"}))
    assert "--learning-rate: invalid float value: 'fast'" in line
    line = fails(2, "train", *as_options(settings | {"masking": "some"}))
    assert "--masking: invalid choice: 'some'" in line
    line = fails(2, "train", *as_options(settings), "--max_tokens_per_batch", "0")
    assert "`max_tokens_per_batch` must be at least 1, got 0" in line
    line = fails(2, "train", *as_options(settings), "--optim", "magic")
    assert "magic is not a valid OptimizerNames, please select one of" in line
    line = fails(2, "train", *as_options(settings), "--train-sampling-strategy", "alphabetical")
    assert "--train-sampling-strategy: 'alphabetical' is none of 'random'" in line
    line = fails(2, "train", *as_options(settings), "--log-level", "loud")
    assert "--log-level: 'loud' is none of 'detail', 'debug'" in line
    assert "first argument must be" in fails(2, "train", "run.toml")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("length_multiplier", ("inf", "nan", "0", "-1.4")),
        ("length_jitter", ("nan", "1", "-0.1")),
        ("axe_delta", ("nan", "-1")),
        ("axe_temperature", ("nan", "-1", "inf")),
        ("align_first", ("nan", "-0.1", "1.5")),
        ("cross_entropy_first", ("nan", "-0.1", "1.5")),
        ("length_loss_weight", ("nan", "inf", "-0.1")),
        ("dropout", ("nan", "1")),
        ("label_smoothing", ("nan", "-1")),
        ("label_smoothing_factor", ("nan", "inf")),
        ("learning_rate", ("nan", "inf", "-1")),
        ("gradient_accumulation_steps", ("0", "-1")),
        ("max_tokens_per_batch", ("-5",)),
        ("per_device_eval_batch_size", ("0",)),
        ("train_minutes", ("nan", "inf", "0")),
        ("ema_decay", ("nan", "0", "1")),
        ("num_train_epochs", ("nan", "inf", "0")),
        ("max_steps", ("0", "-3")),
        ("save_steps", ("nan", "inf", "-1")),
        ("eval_steps", ("inf",)),
        ("warmup_steps", ("nan", "-1")),
        ("seed", ("-1",)),
        ("d_model", ("0", "-8")),
        ("encoder_attention_heads", ("0",)),
        ("vocab_size", ("0", "-300")),
        ("max_target_length", ("1", "-4")),
    ],
)
def test_numbers_that_make_no_sense_are_wrong_usage(fails, settings, tmp_path, name, values):
    for value in values:
        line = fails(2, "train", *as_options(settings | {"masking": "full", name: value}))
        assert f"`{name}` must be " in line and f", got {value}" in line.replace(".0", ""), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1.5"])
def test_numbers_of_a_file_that_make_no_sense_are_wrong_usage(fails, settings, tmp_path, text):
    for name in ("length_jitter", "ema_decay", "label_smoothing"):
        lines = yaml.safe_dump(settings | {"masking": "full"}) + f"{name}: {text}\n"
        (tmp_path / "run.yaml").write_text(lines)
        assert f"`{name}` must be " in fails(2, "train", tmp_path / "run.yaml")


@pytest.mark.parametrize("text", [".inf", "inf", "2.5"])
def test_delta_may_be_infinite_in_a_file_and_as_an_option(settings, tmp_path, text):
    family = f"axe_delta: {text}\nallow_repetition: yes\naxe_temperature: 1\nalign_first: 0.2\n"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings) + family)
    number = text.removeprefix(".")
    (tmp_path / "run.json").write_text(json.dumps(settings | {"axe_delta": float(number)}))
    options = ["--axe-delta", number, "--no-allow-repetition", "--num-iterations", "4"]
    for words in (["run.yaml"], ["run.json", "--allow-repetition"], ["run.yaml", *options]):
        words = [str(tmp_path / word) if word.startswith("run") else word for word in words]
        model, _, training = parse(words).arguments()
        assert model.axe_delta == float(number)
        assert model.allow_repetition is ("--num-iterations" not in words)
        assert training.num_iterations == (4 if "--num-iterations" in words else None)


def test_fine_tuning_by_default_changes_no_translation(axe_hf, settings, tmp_path):
    recipe = {"masking": "full", "length_multiplier": 1.6, "length_jitter": 0.1}
    assert axe_hf("train", *as_options(settings | recipe | {"seed": 1}))[0] == 0
    names = ("source_lang", "target_lang", "train_file", "test_file", "max_steps", "use_cpu")
    tuned = {name: settings[name] for name in names} | {"learning_rate": 1e-9}
    tuned |= {"model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "tuned"}
    assert axe_hf("train", *as_options(tuned))[0] == 0
    results = [
        json.loads((tmp_path / folder / "test_results.json").read_text())
        for folder in ("out", "tuned")
    ]
    assert results[0]["test_bleu"] == results[1]["test_bleu"]
    assert results[0]["test_length_ratio"] == results[1]["test_length_ratio"]
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert recipe.items() <= config.items()


@pytest.mark.parametrize("name", ["run.json", "run.yaml"])
@pytest.mark.parametrize("asked", [True, False, "last", "true"])
def test_a_file_may_ask_for_the_last_checkpoint_by_true(settings, tmp_path, name, asked):
    settings |= {"resume_from_checkpoint": asked}
    (tmp_path / name).write_text(json.dumps(settings))  # which YAML reads, too
    _, _, training = parse([str(tmp_path / name)]).arguments()
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-3" / "trainer_state.json").write_text("{}")
    save_file({"weight": torch.zeros(1)}, tmp_path / "out" / "checkpoint-3" / "model.safetensors")
    checkpoint = resolve_checkpoint(training.resume_from_checkpoint, training.output_dir)
    assert checkpoint == (str(tmp_path / "out" / "checkpoint-3") if asked else None)


def test_wrong_files_of_settings(fails, tmp_path):
    path = tmp_path / "run.yaml"
    assert f"{path}: No such file" in fails(2, "train", path)
    for text, message in (
        ("d_model: 8\nfoo: [1\n", f"{path}, line 3: must be YAML"),
        ("- 1\n", f"{path}: must hold settings by name, got list"),
        ("d_modl: 8\n", f"{path}: there is no setting 'd_modl'; did you mean 'd_model'?"),
        ("d_model:\n", f"{path}: 'd_model' has no value"),
        ("d_model: wide\n", f"{path}: 'd_model' must be a whole number, got 'wide'"),
        ("d_model: 8.5\n", f"{path}: 'd_model' must be a whole number, got 8.5"),
        ("d_model: true\n", f"{path}: 'd_model' must be a whole number, got True"),
        ("d_model: [8]\n", f"{path}: 'd_model' must be a whole number, got [8]"),
        ("dropout: {a: 1}\n", f"{path}: 'dropout' must be a number, got {{'a': 1}}"),
        ("bf16: maybe\n", f"{path}: 'bf16' must be true or false, got 'maybe'"),
        ("eval_strategy: no\n", f"{path}: 'eval_strategy' must be text, got False"),
        ("run_name: true\n", f"{path}: 'run_name' must be text, got True"),
        ("masking: some\n", f"{path}: 'masking' must be one of uniform, full, got 'some'"),
        ("d_model: 8\n", "required: --source-lang, --target-lang, --output-dir"),
    ):
        path.write_text(text)
        assert message in fails(2, "train", path)
    path = tmp_path / "run.json"
    path.write_text('{"d_model": 8,\n "seed" 1}')
    assert f"{path}, line 2: must be JSON" in fails(2, "train", path)


def test_failures_of_the_run_itself(fails, settings, tmp_path):
    line = fails(1, "train", *as_options(settings | {"train_file": "nowhere.tsv"}))
    assert "`train_file`" in line and "nowhere.tsv" in line
    (tmp_path / "broken.tsv").write_text("a\tb\na b\n")
    broken = settings | {"train_file": str(tmp_path / "broken.tsv")}
    assert "broken.tsv, line 2: must have 2 columns" in fails(1, "train", *as_options(broken))
    line = fails(1, "train", *as_options(settings | {"encoder_attention_heads": 3}))
    assert line.startswith("axe-hf train: error: `encoder_attention_heads` must divide")
    for name, size, most in (("encoder_layers", 10**9, 1000), ("d_model", 10**12, 10**7)):
        line = fails(2, "train", *as_options(settings | {name: size}))
        assert f"`{name}` must be at most {most}, got {size}" in line
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert "`output_dir` must be a new" in fails(1, "train", *as_options(settings))


def test_ctrl_c_says_how_to_go_on(axe_hf, settings, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("axe_hf.training.run_training", stop)
    options = as_options(settings)
    code, _, err = axe_hf("train", *options)
    assert code == 130 and "There was no checkpoint yet" in err
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    code, _, err = axe_hf("train", *options)
    command = err.split("Go on from the last checkpoint: ")[1].split()
    assert command == ["axe-hf", "train", *options, "--resume-from-checkpoint", "last"]
