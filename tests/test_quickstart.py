"""The quick start, with tiny models and seconds of training."""

import contextlib
import io
import json
import os
import shlex
import signal
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import quickstart
from axe_hf.data import load_translations
from axe_hf.quickstart import QuickstartArguments, run_quickstart

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SIZES |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
RECIPE = quickstart.RECIPE | {
    "num_pairs": 300,
    "num_distilled": 60,
    "num_test": 20,
    "num_validation": 8,
    "vocab_size": 500,
    "model": quickstart.RECIPE["model"] | SIZES,
    "training": quickstart.RECIPE["training"]
    | {"eval_steps": 20, "logging_steps": 5, "bf16": False},
    "autoregressive": quickstart.RECIPE["autoregressive"] | {"num_beams": (1, 2)},
    "num_iterations": (1, 3),
    "num_alone": 2,
    "num_shown": 2,
}


CANVAS = RECIPE["ours"]["training"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick start of two seconds: its folder, its results, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        results = run_quickstart(QuickstartArguments(str(folder), minutes=0.03, seed=3), RECIPE)
    return folder, results, printed.getvalue()


def test_it_leaves_models_pictures_data_and_results(finished):
    folder, results, _ = finished
    names = {"data", *quickstart.MODELS, "results.json"}
    names |= {"losses.png", "alignment.png", "decoding.png"}
    assert {path.name for path in folder.iterdir()} == names
    for picture in ("losses.png", "alignment.png", "decoding.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    written = (folder / "results.json").read_text(encoding="utf-8")
    assert json.loads(written, parse_constant=pytest.fail) == json.loads(json.dumps(results))
    card = (folder / "axe" / "README.md").read_text(encoding="utf-8")
    assert "trained with" in card and "Fine-tuned from `out-autoregressive`" in card


def test_the_results_hold_scores_versions_and_seconds(finished):
    _, results, _ = finished
    ways = {"cross_entropy": {"1", "3"}, "axe": {"1", "3"}, "autoregressive": {"greedy", "beam 2"}}
    assert quickstart.MODELS.keys() == ways.keys() == results["models"].keys()
    for name, model in results["models"].items():
        assert set(model["scores"]) == ways[name]
        for scores in model["scores"].values():
            assert 0 <= scores["bleu"] <= 100
            assert scores["sentences_per_second"] > 0 and scores["milliseconds_alone"] > 0
            assert scores["bleu_signature"].startswith("nrefs:var")
        assert model["steps"] > 0 and any("loss" in entry for entry in model["log"])
        assert any("eval_bleu" in entry for entry in model["log"])  # for the picture
        assert len(results["translations"][name]) == 20
    assert {"axe_hf", "torch", "transformers", "sacrebleu"} <= set(results["versions"])
    assert results["seconds"] >= 60 * results["models"]["axe"]["training_minutes"] > 0
    assert results["arguments"]["seed"] == 3 and results["recipe"]["num_pairs"] == 300


def test_both_parallel_models_are_trained_alike(finished):
    folder, results, _ = finished
    cross_entropy, axe = (results["models"][name] for name in ("cross_entropy", "axe"))
    assert cross_entropy["num_parameters"] == axe["num_parameters"]
    for model in (cross_entropy, axe):
        assert model["training_minutes"] >= 0.01  # a third of the whole, and the end of a step
    canvases = RECIPE["ours"]["training"].keys()
    others = {"output_dir", "logging_dir"}  # of each its own
    settings = []
    for name in ("cross_entropy", "axe"):
        args = torch.load(folder / name / "training_args.bin", weights_only=False).to_dict()
        settings.append({k: v for k, v in args.items() if k not in canvases | others})
    assert settings[0] == settings[1]
    names = ("cross_entropy", "axe")
    configs = [vars(AutoConfig.from_pretrained(folder / name)) for name in names]
    own = {"training_loss": "axe", **RECIPE["ours"]["model"], **CANVAS}
    differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert differing <= own.keys() | {"_name_or_path"} and own.items() <= configs[1].items()


def test_the_autoregressive_model_is_a_stock_one_of_their_size_trained_as_long(finished):
    folder, results, _ = finished
    config = json.loads((folder / "autoregressive" / "config.json").read_text())
    assert config["architectures"] == ["MarianMTModel"]
    assert all(config[name] == size for name, size in SIZES.items())
    assert len({(folder / name / "tokenizer.json").read_text() for name in quickstart.MODELS}) == 1
    model = results["models"]["autoregressive"]
    assert 0.01 <= model["training_minutes"] < 0.03
    assert abs(model["num_parameters"] / results["models"]["axe"]["num_parameters"] - 1) < 0.2
    rates = [entry["learning_rate"] for entry in model["log"] if "learning_rate" in entry]
    assert 0 <= rates[-1] < RECIPE["autoregressive"]["training"]["learning_rate"]  # by the clock


def test_the_others_learn_its_translations_of_the_first_sentences(finished):
    folder, _, _ = finished
    languages = {"source_lang": "en", "target_lang": "de"}
    (file,) = (folder / "data" / "distilled" / "data").iterdir()
    found = load_translations(file, **languages)["translation"]
    given = load_translations(folder / "data" / "train.jsonl", **languages)["translation"][:60]
    assert [pair["en"] for pair in found] == [pair["en"] for pair in given]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "autoregressive")
    tokenizer = AutoTokenizer.from_pretrained(folder / "autoregressive")
    sources, search = [pair["en"] for pair in given], {"min_length": 3, "max_new_tokens": 32}
    texts = quickstart._translate_by_generate(model, tokenizer, 7, sources, **search)
    assert [pair["de"] for pair in found] == [text.strip() for text in texts]


def test_its_batches_hold_all_sentences_and_no_more_tokens_than_the_others():
    rows = [{"input_ids": [1] * (1 + i % 7), "labels": [i] * (1 + i % 5)} for i in range(99)]
    batches = quickstart._batches(rows, 20, seed=0)
    assert sorted(row["labels"][0] for batch in batches for row in batch) == list(range(99))
    for batch in batches:
        longest = max(len(row[name]) for row in batch for name in row)
        assert len(batch) * longest <= 20


def test_the_saved_models_load_with_auto_classes(finished):
    folder, results, _ = finished
    for name in quickstart.MODELS:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder / name)
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        assert getattr(model.config, "training_loss", "autoregressive") == name
        assert len(tokenizer) == model.config.vocab_size
        assert model.num_parameters() == results["models"][name]["num_parameters"]
    texts = results["translations"]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "autoregressive")  # decodes greedily
    found = quickstart._translate_by_generate(model, tokenizer, 7, texts["source"])
    assert found == texts["autoregressive"]


def test_it_prints_the_scores_side_by_side_and_examples_with_steps(finished):
    _, _, printed = finished
    rows = [line.split() for line in printed.split("ms alone")[1].splitlines()]
    table = [row for row in rows if len(row) > 5 and row[0] in ("1", "3", "n")]
    assert [row[:2] for row in table[:4]] == [[t, m] for t in "13" for m in ("cross", "AXE,")]
    searches = [" ".join(row[:-6]) for row in table[4:6]]
    assert table[1][2] == "ours" and searches == [
        "n autoregressive, greedy",
        "n autoregressive, beam 2",
    ]
    for part in (
        "BLEU nrefs:var",
        "chrF nrefs:var",
        "source",
        "reference",
        "AXE, T=4",
        "times its speed",
    ):
        assert part in printed, part
    assert "It gives the same 20 translations." in printed


def test_the_commands_it_proposes_are_right(finished):
    from axe_hf.commands import evaluate, train, translate

    folder, _, printed = finished
    proposals = printed.split("Try next:")[1].replace("\\\n", " ").strip().splitlines()
    commands = [shlex.split(line) for line in proposals if "axe-hf" in line]
    assert [words[:2] for words in commands] == [
        ["axe-hf", name] for name in ("translate", "translate", "evaluate", "train")
    ]
    for words in commands:
        module = {"translate": translate, "evaluate": evaluate, "train": train}[words[1]]
        options = module.parse(words[2:])
        if module is evaluate:
            assert options.data == str(folder / "data" / "test.jsonl")
        if module is train:
            assert "masking" not in options.settings  # the model has it, and more
            saved = json.loads((folder / "axe" / "config.json").read_text(encoding="utf-8"))
            assert CANVAS.items() <= saved.items()
            assert options.settings["model_name_or_path"] == str(folder / "axe")


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="`output_dir` must be a new or an empty folder"):
        run_quickstart(QuickstartArguments(str(tmp_path)), RECIPE)
    with pytest.raises(FileExistsError, match="is a file"):
        run_quickstart(QuickstartArguments(str(tmp_path / "mine.txt")), RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


class TestFailure:
    """What happens when the run breaks off; here in its first or its last stage."""

    def test_a_new_folder_is_taken_away_again(self, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("axe_hf.quickstart._write_data", fail)
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(QuickstartArguments(str(tmp_path / "new")), RECIPE)
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_quick_start_survives(self, tmp_path, monkeypatch):
        (tmp_path / "results.json").write_text("earlier")
        (tmp_path / "axe").mkdir()
        monkeypatch.setattr("axe_hf.quickstart._write_data", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_quickstart(QuickstartArguments(str(tmp_path), overwrite=True), RECIPE)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["axe", "results.json"]
        assert (tmp_path / "results.json").read_text() == "earlier"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child")
@pytest.mark.parametrize("name", [".", "new"])
def test_one_that_was_killed_runs_again_without_help(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "axe_hf.quickstart._write_data", lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    )
    child = os.fork()
    if child == 0:
        run_quickstart(QuickstartArguments(name), RECIPE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(tmp_path.rglob("whole"))  # what it left
    monkeypatch.setattr("axe_hf.quickstart._write_data", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # it is not refused
        run_quickstart(QuickstartArguments(name), RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_is_said_at_the_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("axe_hf.quickstart._write_data", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_quickstart(QuickstartArguments(str(tmp_path / "out")), RECIPE)
    printed = capsys.readouterr().out
    assert 'pip install "axe-hf[plot]"' in printed.split("[1/7]")[0]


def test_overwriting_replaces_its_own_files_and_no_others(tmp_path, monkeypatch, capsys):
    for name in ("results.json", "decoding.png", "mine.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "axe").mkdir()
    (tmp_path / "axe" / "old.bin").write_text("old")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    recipe = RECIPE | {"num_iterations": (1,), "num_shown": 1}
    arguments = QuickstartArguments(str(tmp_path), minutes=0.01, overwrite=True, paper=True)
    results = run_quickstart(arguments, recipe)
    # Without matplotlib everything but the pictures is there, and none of another model stays.
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"data", *quickstart.MODELS, "results.json", "mine.txt"}
    assert not (tmp_path / "axe" / "old.bin").exists()
    assert (tmp_path / "mine.txt").read_text() == "old"
    assert json.loads((tmp_path / "results.json").read_text())["seconds"] == results["seconds"]
    printed = capsys.readouterr().out
    assert ".png" not in printed and "AXE, paper" in printed and "AXE, ours" not in printed
    saved = json.loads((tmp_path / "axe" / "config.json").read_text(encoding="utf-8"))
    assert (saved["axe_temperature"], saved["allow_repetition"]) == (0.0, False)
    assert RECIPE["paper"]["training"].items() <= saved.items()


def test_missing_sacrebleu_stops_it_before_any_work(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "axe_hf.evaluation", raising=False)
    monkeypatch.delattr("axe_hf.evaluation", raising=False)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r"axe-hf\[eval\]"):
        run_quickstart(QuickstartArguments(str(tmp_path / "out")), RECIPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": -1.0}, "`minutes` must be a positive number, got -1"),
        ({"minutes": float("nan")}, "`minutes` must be a positive number, got nan"),
        ({"seed": -1}, "`seed` must be in"),
        ({"output_dir": " "}, "`output_dir` must name a folder"),
    ],
)
def test_arguments_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        QuickstartArguments(**settings)


@pytest.mark.parametrize(("bleu", "said"), [(70.0, "1.5 BLEU under"), (73.0, "1.5 BLEU over")])
def test_the_winner_is_named_whoever_it_is(bleu, said):
    names = ("bleu", "sentences_per_second", "milliseconds_alone")
    scores = {"axe": (bleu, 600.0, 5.0), "autoregressive": (71.5, 200.0, 35.0)}
    models = {
        name: {"scores": {"first": dict(zip(names, values, strict=True))}}
        for name, values in scores.items()
    }
    text = " ".join(quickstart._verdict(models).split())
    assert said in text and "3.0 times its speed in batches and 7.0 times" in text
