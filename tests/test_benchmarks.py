"""The benchmarks run on small sizes, and what they compare with is what it claims to be."""

import argparse
import csv
import gzip
import importlib.util
import json
import os
import runpy
import sys

import pytest
import torch

from axe_hf import axe_loss


@pytest.fixture
def run_benchmark(benchmarks, monkeypatch, capsys):
    def run(*argv, program="loss.py"):
        path = benchmarks / program
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, argv)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_benchmark_measures_and_leaves_a_table_and_a_picture(run_benchmark, tmp_path):
    from loss_cases import FAMILY

    printed = run_benchmark("--quick", "--repeats", 2, "--output-dir", tmp_path)
    environment, *lines = (tmp_path / "loss_cpu.csv").read_text(encoding="utf-8").splitlines()
    assert torch.__version__ in environment and "1 thread" in environment
    rows = list(csv.DictReader(lines))
    losses = {row["loss"] for row in rows}
    assert {"AXE", "AXE, in place", "CTC", "fused AXE"} <= losses
    assert "alignment alone, no gradient" in losses
    assert {f"{name}AXE, {how}" for name in ("", "fused ") for how in FAMILY} <= losses
    assert {"float32", "bfloat16", "float16"} <= {row["case"].split()[5].strip(",") for row in rows}
    for row in rows:
        assert float(row["ms"]) > 0
        assert float(row["ratio_p20"]) <= float(row["ratio"]) <= float(row["ratio_p80"])
        assert row["ratio"] == "1" or "cross entropy" not in row["loss"]
        assert f"| {row['case']} | {row['loss']} | {row['ms']} |" in printed
    assert (tmp_path / "loss_cpu.png").read_bytes().startswith(b"\x89PNG")


def test_data_is_measured_streamed_and_whole(benchmarks, run_benchmark, tmp_path, monkeypatch):
    import streaming

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("axe_hf.data.reading.MOST_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(streaming, "NUM_FILES", 2)
    streaming.write_pairs(tmp_path, 2000)
    names = ("part-0.jsonl", "part-1.jsonl")
    assert [len((tmp_path / "pairs" / n).read_text().splitlines()) for n in names] == [1000, 1000]
    for way in streaming.WAYS:
        options = ("--way", way, "--folder", tmp_path, "--pairs", 2000, "--max-tokens", 500)
        printed = run_benchmark(*options, program="streaming.py")
        rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        moments = [row["moment"] for row in rows]
        if way == "stages":
            assert len(rows) == 5 and all(0 < row["cpu_seconds"] < 60 for row in rows)
            continue
        assert moments[:2] == ["before reading", "first batch"]
        assert "middle" in way or (moments[-1] == "end" and 1900 < rows[-1]["pairs"] <= 2000)
        assert all(row["rss_mib"] > 100 for row in rows)


def test_another_allocator_needs_a_new_process(run_benchmark, monkeypatch, tmp_path):
    class Replaced(Exception):
        """Stands for a process that is gone."""

    def replace(program, argv, environment):
        raise Replaced(program, argv, environment)

    monkeypatch.setattr(os, "execve", replace)
    argv = ["--quick", "--allocator", "retain", "--output-dir", str(tmp_path)]
    with pytest.raises(Replaced) as replaced:
        run_benchmark(*argv)
    program, given, environment = replaced.value.args
    assert program == sys.executable and given[2:] == argv
    assert environment["MALLOC_MMAP_MAX_"] == "0"
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "20000000000"


def test_the_alignment_that_is_measured_is_that_of_the_loss(benchmarks):
    from loss_cases import AXE, Case, alignment_alone, inputs_of

    logits, labels = inputs_of(Case(4, 9, 30), "cpu")
    expected = axe_loss(logits, labels, return_alignment=True, **AXE).alignment
    found = alignment_alone(logits, labels)()
    assert found.target_to_position.equal(expected.target_to_position)
    torch.testing.assert_close(found.cost, expected.cost)


@pytest.mark.parametrize(("canvas", "target"), [(5, 3), (3, 5), (4, 4), (1, 2)])
def test_what_plain_autograd_makes_of_axe_is_axe(benchmarks, canvas, target):
    from loss_cases import AXE, axe_by_diagonals

    torch.manual_seed(canvas)
    logits = torch.randn(6, canvas, 9, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(1, 9, (6, target))
    plain, fast = axe_by_diagonals(logits, labels), axe_loss(logits, labels, reduction="sum", **AXE)
    torch.testing.assert_close(plain, fast)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (plain, fast)]
    torch.testing.assert_close(*gradients)


@pytest.fixture
def decoding_rows(run_benchmark, tmp_path):
    def rows(*argv):
        """What is measured on tiny models, and what was printed."""
        argv = ["--quick", "--threads", 1, "--output-dir", tmp_path, *argv]
        threads = torch.get_num_threads()
        try:
            printed = run_benchmark(*argv, program="decoding.py")
        finally:
            torch.set_num_threads(threads)
        environment, *lines = (tmp_path / "decoding_cpu.csv").read_text("utf-8").splitlines()
        assert torch.__version__ in environment and "thread" in environment
        assert (tmp_path / "decoding_cpu.png").read_bytes().startswith(b"\x89PNG")
        return list(csv.DictReader(lines)), printed

    return rows


@pytest.mark.slow
def test_the_benchmark_of_decoding_measures_every_system_against_its_baseline(decoding_rows):
    rows, printed = decoding_rows("--engines", "transformers", "ours", "loop", "--batch-sizes", 3)
    measured = {
        (row["layers"], row["num_iterations"], row["canvas"], row["precision"])
        for row in rows
        if row["engine"] == "ours" and row["num_candidates"] == "1"
    }
    kinds = [(T, canvas) for T in ("1", "4") for canvas in ("1", "1.4", "2")] + [("10", "1")]
    expected = {("2-2", *kind, precision) for kind in kinds for precision in ("float32", "int8")}
    assert {each for each in measured if each[0] == "2-2"} == expected
    assert {layers for layers, *_ in measured} == {"2-2", "3-1", "4-1"}
    for row in rows:
        assert float(row["wall_ms"]) > 0 and float(row["sentences_per_second"]) > 0
        assert float(row["speedup_p20"]) <= float(row["speedup"]) <= float(row["speedup_p80"])
        assert row["precision"] in row["baseline"] and row["rounds"] == "2"
        assert f" | {row['wall_ms']} | {row['cpu_ms']} |" in printed
    alone = [row["speedup"] for row in rows if row["search"] == "greedy"]
    assert alone == ["1", "1"]


@pytest.mark.slow
def test_the_benchmark_of_decoding_measures_other_engines(decoding_rows):
    pytest.importorskip("ctranslate2")
    argv = ["--num-iterations", 1, "--canvases", 1, "--batch-sizes", 3, "--rounds", 1]
    argv += ["--layers", "2-2", "4-1"]
    more = ["torchao"] if importlib.util.find_spec("torchao") else []
    rows, _ = decoding_rows("--engines", "ctranslate2", "ours", *more, *argv)
    measured = {(row["engine"], row["precision"]) for row in rows if row["layers"] == "2-2"}
    engines = ("CTranslate2", "ours")
    expected = {(name, precision) for name in engines for precision in ("float32", "int8")}
    assert measured == expected | {(name, "int8") for name in more}
    assert {row["baseline"] for row in rows} == {
        f"CTranslate2 2-2 {precision}, greedy" for precision in ("float32", "int8")
    }
    deep = [row for row in rows if row["layers"] == "4-1" and row["search"] == "greedy"]
    assert [row["speedup_own_depth"] for row in deep] == ["1", "1"]


@pytest.mark.slow
def test_the_graphs_that_are_measured_return_what_generate_returns(benchmarks, tmp_path):
    pytest.importorskip("onnxruntime")
    from decoding_cases import QUICK, make_sources
    from decoding_engines import Grid, of_onnx_runtime, of_ours

    fixed = {"device": "cpu", "threads": 1, "is_compiled": False, "folder": tmp_path}
    grid = Grid(QUICK, ("float32",), layers=("2-2",), canvases=(2,), num_iterations=(1,), **fixed)
    sources = make_sources(QUICK, 3, "cpu")
    ours = {system.search: system for system in of_ours(grid)}
    for system in of_onnx_runtime(grid):
        assert (system.engine, system.precision) == ("ONNX Runtime", "float32")
        found = system.decode(sources, torch.ones_like(sources))
        assert found.equal(ours[system.search].decode(sources, torch.ones_like(sources)))


@pytest.mark.parametrize("batch", [1, 4])
def test_mask_predict_as_written_returns_what_generate_returns(benchmarks, batch):
    from decoding_cases import QUICK, make_loop_systems, make_sources

    sources = make_sources(QUICK, batch, "cpu")
    as_written, *others = make_loop_systems(QUICK, "float32", "cpu")
    mask = torch.ones_like(sources)
    expected = as_written.decode(sources, mask)
    assert others and all(other.decode(sources, mask).equal(expected) for other in others)


def test_marian_decodes_exactly_as_many_tokens_as_the_canvas_has(benchmarks):
    from decoding_cases import QUICK, autoregressive, make_marian, make_sources

    torch.manual_seed(0)
    sources = make_sources(QUICK, 3, "cpu")
    model = make_marian(QUICK, 2, 1)
    for num_beams in (1, 5):
        tokens = autoregressive(model, num_beams, QUICK.length, sources, torch.ones_like(sources))
        assert tokens.shape == (3, 1 + QUICK.length)


@pytest.fixture
def small_model(tmp_path):
    """A model that knows nothing, sentences for it, and the size of its vocabulary."""
    from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer

    sentences = ["one two", "three four", "eins zwei", "drei vier"]
    tokenizer = train_tokenizer(sentences * 5, vocab_size=300)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_target_length": 12}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "test.tsv").write_text("one two\teins zwei\nthree four\tdrei vier\n")
    return tmp_path / "model", tmp_path / "test.tsv", len(tokenizer)


def test_the_benchmark_of_the_ranking_appends_to_a_table(
    benchmarks, small_model, monkeypatch, capsys, tmp_path
):
    model, data, _ = small_model
    argv = ["ranking.py", model, data, "--source-lang", "en"]
    argv += ["--target-lang", "de", "--weights", "0", "0.1", "--output", tmp_path / "table.csv"]
    for name in ("first", "second"):
        monkeypatch.setattr(sys, "argv", [*map(str, argv), "--name", name])
        runpy.run_path(str(benchmarks / "ranking.py"), run_name="__main__")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    settings = [
        (r["num_iterations"], r["num_length_candidates"], r["length_score_weight"]) for r in rows
    ]
    one_model = [(t, *k) for t in ("1", "4") for k in (("1", ""), ("5", "0.0"), ("5", "0.1"))]
    assert settings == one_model * 2
    assert {row["model"] for row in rows} == {"first", "second"}
    assert all(torch.__version__ in row["environment"] for row in rows)
    assert rows[0]["bleu_signature"] in capsys.readouterr().out


def save_teacher(folder, vocab_size, start):
    """A random Marian whose padding a tied projection has trained, too, and who never says it."""
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(start)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": start}
    ids |= {"forced_eos_token_id": None, "vocab_size": vocab_size}
    model = MarianMTModel(MarianConfig(init_std=0.5, scale_embedding=True, **sizes, **ids))
    with torch.no_grad():
        model.model.shared.weight[0].normal_(std=0.5)
        model.final_logits_bias[0, 0] = -100.0
    model.save_pretrained(folder)


@pytest.mark.parametrize("start", [0, 1])
def test_ctranslate2_translates_as_the_model_does_that_it_is_made_of(benchmarks, tmp_path, start):
    pytest.importorskip("ctranslate2")
    from trade_off import systems, translate_all

    save_teacher(tmp_path / "teacher", 40, start)
    given = argparse.Namespace(ours=[], autoregressive=str(tmp_path / "teacher"), threads=1)
    sources, found = [[5, 7, 9, 1], [6, 1], [30, 20, 10, 8, 1]], {}
    for system in systems(given, tmp_path):
        rows = translate_all(system, sources)
        found[system.name] = [[i for i in row if i > 1][:40] for row in rows]
    assert found["CTranslate2, greedy"] == found["Transformers, greedy"]


@pytest.mark.slow
def test_the_benchmark_of_the_trade_off_leaves_a_table_and_a_picture(
    run_benchmark, small_model, tmp_path
):
    pytest.importorskip("ctranslate2")
    model, data, vocab_size = small_model
    save_teacher(tmp_path / "teacher", vocab_size, 0)
    argv = [data, "--source-lang", "en", "--target-lang", "de", "--threads", 1]
    argv += ["--autoregressive", tmp_path / "teacher", "--ours", f"tiny={model}"]
    argv += ["--rounds", 1, "--num-alone", 1]
    run_benchmark(*argv, "--output", tmp_path / "out", program="trade_off.py")
    environment, *lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert torch.__version__ in environment
    rows = list(csv.DictReader(lines))
    assert len(rows) == 20  # ours 12, Transformers 4, CTranslate2 4
    ways = {row["system"] for row in rows if row["system"].startswith("tiny, T=4")}
    kinds = ("", ", 5 lengths", ", 5 rescored")
    assert ways == {f"tiny, T=4{kind}{int8}" for kind in kinds for int8 in ("", ", int8")}
    for row in rows:
        assert float(row["ms_alone"]) > 0 and 0 <= float(row["chrf"]) <= 100
        assert float(row["sentences_per_second_batch_64"]) > 0
        assert row["bleu_signature"].startswith("nrefs:1|")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_decoding_beside_a_busy_process_is_timed_in_processes_of_their_own(run_benchmark):
    printed = run_benchmark("--in-this-process", "--repeats", 1, program="busy.py")
    times = json.loads(printed)
    assert list(times) == ["1", "4", "16", "64"] and min(map(min, times.values())) > 0


@pytest.fixture
def small_recipes(benchmarks, monkeypatch, tmp_path):
    """A tiny dataset for recipes.py, of a size to match, and a plan with all kinds of training."""
    import recipes_data
    import recipes_plans as plans

    digits = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
    pairs = [{"en": f"{a} {b}", "de": f"{digits[a]} {digits[b]}"} for a in digits for b in digits]
    for split, rows in (("train", pairs), ("validation", pairs[:3]), ("test", pairs[3:6])):
        with gzip.open(tmp_path / f"tatoeba_short.{split}.jsonl.gz", "wt", encoding="utf-8") as f:
            f.writelines(json.dumps({"translation": pair}) + "\n" for pair in rows)
    size = recipes_data.Size(300, 16, 1, 20, ((20, 5),), 3)
    monkeypatch.setitem(recipes_data.SIZES, "tatoeba_short", size)

    def rounds(seed):
        named = [recipe for recipes in plans.passes(seed) for recipe in recipes]
        in_passes = [recipe for recipe in named if recipe.arm in ("GLAT", "SMART")]
        first = [recipe for recipe in named if recipe.arm == "Imputer in the second half"]
        axe_first = plans.after_axe(plans.cold("CTC after 30 % AXE", plans.CTC, seed), 0.3)
        return [plans.losses(seed)[0][3::4], [*in_passes, *first, axe_first]]

    monkeypatch.setitem(plans.PLANS, "passes", plans.Plan(rounds, plans.DECODINGS[:3]))
    # what it says of the whole process would hold in later tests
    monkeypatch.setattr("transformers.logging.set_verbosity_error", lambda: None)
    return ("--dataset", "tatoeba_short", "--plan", "passes", "--data-dir", tmp_path)


def test_the_benchmark_of_recipes_trains_teachers_and_students(
    run_benchmark, small_recipes, tmp_path
):
    output = tmp_path / "recipes.csv"
    argv = [*small_recipes, "--steps", 3, "--limit-rows", 24, "--output", output]
    printed = run_benchmark(*argv, program="recipes.py")
    environment, *lines = output.read_text(encoding="utf-8").splitlines()
    assert torch.__version__ in environment and "3 steps" in environment
    rows = list(csv.DictReader(lines))
    assert [row["num_beams"] for row in rows[:3]] == ["1", "1", "5"]
    students = rows[3:]
    assert {row["loss"] for row in students} == {
        "cross entropy",
        "AXE",
        "CTC",
        "sum with repetition, delta 3",
    }
    assert {(row["start"], row["targets"]) for row in students} == {
        ("cold", "raw"),
        ("warm", "distilled"),
    }
    how = [(row["num_iterations"], row["num_length_candidates"]) for row in students]
    assert how == [("1", "1"), ("1", "5"), ("4", "1")] * 8
    for row in rows:
        assert 0 <= float(row["bleu"]) <= 100 and row["bleu_signature"].startswith("nrefs:1|")
    assert "24 pairs" in printed and printed.count("nats per target token") == 3
