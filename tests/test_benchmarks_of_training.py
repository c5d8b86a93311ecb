"""The benchmarks of training and its cost: what they count and compare is what they say."""

import csv
import runpy
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from axe_hf import CmlmConfig, CmlmForConditionalGeneration


@pytest.fixture
def run_benchmark(benchmarks, monkeypatch, capsys, tmp_path):
    """Runs a benchmark: the rows of the table that it leaves, and what it printed."""

    def run(program, table, *argv):
        argv = [str(benchmarks / program), *map(str, argv), "--output-dir", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", argv)
        threads = torch.get_num_threads()
        try:
            runpy.run_path(argv[0], run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        environment, *lines = (tmp_path / table).read_text(encoding="utf-8").splitlines()
        assert torch.__version__ in environment
        return list(csv.DictReader(lines)), capsys.readouterr().out

    return run


LOSSES = {
    "AXE": {},
    "fused AXE": {"fused_loss": "always"},
    "CTC": {"axe_delta": float("inf"), "allow_repetition": True, "axe_temperature": 1.0},
    "cross entropy": {"training_loss": "cross_entropy"},
}


def odd_model(**changes):
    """Sizes of which no two are equal, so that none can stand for another."""
    sizes = {"vocab_size": 37, "d_model": 12, "encoder_layers": 2, "decoder_layers": 3}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 3, "encoder_ffn_dim": 20}
    sizes |= {"decoder_ffn_dim": 28, "max_source_length": 30, "max_target_length": 40}
    config = CmlmConfig(**sizes, **changes)
    # The counter knows no attention of the CPU but the eager one.
    config._attn_implementation = "eager"
    return CmlmForConditionalGeneration(config).train()


def counted(run):
    """Operations by the name of the module, all under "Global"."""
    product = {torch.ops.aten.addmm_: lambda own, a, b, **_: 2 * a[0] * a[1] * b[1]}
    counter = FlopCounterMode(display=False, custom_mapping=product)
    with counter:
        run()
    return {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_operations_on_paper_are_those_that_are_counted(benchmarks, loss, checkpointing):
    from cost import Shape, forward_flops, training_flops

    model, shape = odd_model(**LOSSES[loss]), Shape(batch=5, source=7, target=6, canvas=9)
    if loss == "cross entropy":
        shape = replace(shape, canvas=shape.target)
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = {"input_ids": torch.randint(5, 37, (5, 7)), "labels": torch.randint(5, 37, (5, 6))}
    inputs["decoder_input_ids"] = torch.full((5, shape.canvas), model.config.mask_token_id)
    found = counted(lambda: model(**inputs).loss.backward())
    assert found["Global"] == training_flops(model.config, shape, checkpointing)
    if not checkpointing and loss != "fused AXE":
        parts, name = forward_flops(model.config, shape), "CmlmForConditionalGeneration"
        with torch.no_grad():
            found = counted(lambda: model(**inputs))
        assert found[f"{name}.model.encoder"] == parts["encoder"] + parts["length head"]
        assert found[f"{name}.model.decoder"] == parts["decoder"]
        assert found[f"{name}.lm_head"] == parts["vocabulary"]


def test_activations_are_what_autograd_keeps_of_a_sentence(benchmarks):
    from cost import saved_bytes

    model = odd_model(tie_word_embeddings=False)
    layer = model.model.encoder.layers[0].fc1
    kept = [saved_bytes(lambda n=n: layer(torch.randn(n, 12)).relu(), model) for n in (4, 8)]
    # The input (12 numbers a row) for the weight's gradient, the result (20) for relu's.
    assert kept == [4 * 4 * (12 + 20), 8 * 4 * (12 + 20)]


def test_the_benchmark_of_cost_tells_what_each_way_to_train_needs(run_benchmark):
    argv = ["--recipes", "iwslt14_de_en", "--length", 8, "--measure", "--batch", 2, "--rounds", 1]
    rows, printed = run_benchmark("cost.py", "cost.csv", *argv)
    found = {(row["table"], row["case"], row["quantity"]): row["value"] for row in rows}
    name = "iwslt14_de_en"
    budgets = [
        int(found["memory", f"{name}, {loss}, {layers}", "largest max_tokens_per_batch"])
        for loss in ("of logits", "fused")
        for layers in ("no", "yes")
    ]
    assert budgets[0] < budgets[1] < budgets[3] and budgets[0] < budgets[2] < budgets[3]
    # 37 million parameters, 6 operations each for a token, is the rule of thumb.
    operations = float(found["hours", name, "operations, 1e18"]) * 1e18
    assert operations / (6 * 37e6 * 4096 * 100_000) == pytest.approx(1, abs=0.3)
    hours = [float(found["hours", name, f"hours at {u}"]) for u in ("10%", "20%", "35%")]
    assert hours == sorted(hours, reverse=True)
    assert float(found["measured", name, "target tokens a second"]) > 0
    assert f"| {name} | of logits | no |" in printed


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    """Sentences of two to nine words."""
    names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    texts = (" ".join(names[i % 7 : i % 7 + 2 + i // 7 % 8]) for i in range(200))
    path.write_text("".join(f"{text}\t{text.upper()}\n" for text in texts))
    return path


@pytest.mark.parametrize("loss", ["AXE", "CTC", "cross entropy"])
def test_the_trainer_and_the_bare_loop_end_at_the_same_weights(benchmarks, pairs_file, loss):
    from training_runs import SIZES, Setting, by_loop, by_trainer, load_rows

    data = load_rows(pairs_file, SIZES["tiny"], 3, source_lang="en", target_lang="de")
    setting = Setting(SIZES["tiny"], loss, *data, "cpu", 3)
    start, runs = setting.model(), [by_trainer(setting), by_loop(setting)]
    weights = [dict(run.model.named_parameters()) for run in runs]
    for name, before in start.named_parameters():
        assert weights[0][name].equal(weights[1][name])
        assert not before.equal(weights[0][name])
    assert runs[0].after(0).tokens == runs[1].after(0).tokens


@pytest.mark.slow
def test_the_benchmark_of_training_measures_every_part_against_its_baseline(
    run_benchmark, pairs_file
):
    argv = ["--quick", "--steps", 3, "--rounds", 1, "--threads", 1, "--train-file", pairs_file]
    parts = ["profile", "loop", "batches", "precision"]
    rows, printed = run_benchmark("training.py", "training_cpu.csv", *argv, "--parts", *parts)
    named = {(row["part"], row["loss"], row["setting"]): row for row in rows}
    steps = ["data", "encoder", "decoder", "loss", "backward pass", "optimizer"]
    for loss in ("AXE", "CTC", "cross entropy"):
        shares = [float(named["profile", loss, step]["ratio"]) for step in steps]
        assert min(shares) > 0 and sum(shares) == pytest.approx(1, abs=0.01)
    for part, base in (("loop", "bare loop"), ("batches", "token budget")):
        assert named[part, "AXE", base]["ratio"] == "1.000"
    kinds = [f"{kind}, {how}" for kind in ("float32", "bf16") for how in ("sdpa", "eager")]
    assert [name for part, _, name in named if part == "precision"] == kinds
    notes = [row["note"] for (part, *_), row in named.items() if part == "batches"]
    padding = [float(note.split("; ")[1].removesuffix("% padding")) for note in notes]
    assert padding[0] < padding[1]
    assert all(float(row["ms"]) > 0 for row in rows) and "| loop | pairs |" in printed


def test_a_part_that_is_measured_anew_takes_the_place_of_its_rows(benchmarks, tmp_path):
    from measuring import write_csv
    from training import merged

    def rows(part, *settings, size="small"):
        same = {"part": part, "data": "x", "size": size, "loss": "AXE"}
        return [{**same, "setting": setting} for setting in settings]

    path = tmp_path / "table.csv"
    write_csv(path, rows("loop", "old") + rows("batches", "a") + rows("loop", "b", size="base"), "")
    left = merged(path, rows("loop", "new", "newer"))
    assert [row["setting"] for row in left] == ["a", "b", "new", "newer"]
