"""The benchmark of the loss runs on small sizes, and what it compares with is AXE."""

import csv
import os
import runpy
import sys

import pytest
import torch

from axe_hf import axe_loss


@pytest.fixture
def folder(repository, monkeypatch):
    folder = repository / "examples" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))  # as for a program that is started from there
    return folder


@pytest.fixture
def run_benchmark(folder, monkeypatch, capsys):
    def run(*argv):
        path = folder / "loss.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, argv)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_benchmark_measures_and_leaves_a_table_and_a_picture(run_benchmark, tmp_path):
    printed = run_benchmark("--quick", "--repeats", 2, "--output-dir", tmp_path)
    environment, *lines = (tmp_path / "loss_cpu.csv").read_text(encoding="utf-8").splitlines()
    assert torch.__version__ in environment and "1 thread" in environment
    rows = list(csv.DictReader(lines))
    losses = {row["loss"] for row in rows}
    assert {"AXE", "AXE, in place", "CTC", "fused AXE"} <= losses
    assert "alignment alone, no gradient" in losses
    assert {"float32", "bfloat16", "float16"} <= {row["case"].split()[5].strip(",") for row in rows}
    for row in rows:
        assert float(row["ms"]) > 0
        assert float(row["ratio_p20"]) <= float(row["ratio"]) <= float(row["ratio_p80"])
        assert row["ratio"] == "1" or "cross entropy" not in row["loss"]
        assert f"| {row['case']} | {row['loss']} | {row['ms']} |" in printed
    assert (tmp_path / "loss_cpu.png").read_bytes().startswith(b"\x89PNG")


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


def test_the_alignment_that_is_measured_is_that_of_the_loss(folder):
    from loss_cases import AXE, Case, alignment_alone, inputs_of

    logits, labels = inputs_of(Case(4, 9, 30), "cpu")
    expected = axe_loss(logits, labels, return_alignment=True, **AXE).alignment
    found = alignment_alone(logits, labels)()
    assert found.target_to_position.equal(expected.target_to_position)
    torch.testing.assert_close(found.cost, expected.cost)


@pytest.mark.parametrize(("canvas", "target"), [(5, 3), (3, 5), (4, 4), (1, 2)])
def test_what_plain_autograd_makes_of_axe_is_axe(folder, canvas, target):
    from loss_cases import AXE, axe_by_diagonals

    torch.manual_seed(canvas)
    logits = torch.randn(6, canvas, 9, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(1, 9, (6, target))
    plain, fast = axe_by_diagonals(logits, labels), axe_loss(logits, labels, reduction="sum", **AXE)
    torch.testing.assert_close(plain, fast)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (plain, fast)]
    torch.testing.assert_close(*gradients)
