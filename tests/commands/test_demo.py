"""`axe-hf demo`: what it refuses; what it serves is in tests/test_demo_in_browser.py."""

import pytest


def test_wrong_arguments_are_refused_before_a_model_is_loaded(fails, model, tmp_path):
    assert "MODEL" in fails(2, "demo")
    for port in ("0", "65536", "http"):
        assert "must be in [1, 65535]" in fails(2, "demo", model, "--port", port)
    assert "`num_iterations`" in fails(2, "demo", model, "--num-iterations", "0")
    assert "--int8 multiplies on a CPU" in fails(2, "demo", model, "--int8", "--device", "cuda")
    (tmp_path / "three.tsv").write_text("one\teins\tun\n")
    assert "more than one tab" in fails(2, "demo", model, "--examples", tmp_path / "three.tsv")
    assert "no such file" in fails(1, "demo", model, "--examples", tmp_path / "none").lower()


def test_models_that_cannot_be_shown_are_refused(fails, model, rescorer, tmp_path):
    assert "MODEL: " in fails(1, "demo", tmp_path / "none")
    assert "must be a CMLM" in fails(1, "demo", rescorer)
    assert "--teacher: there is no folder" in fails(1, "demo", model, "--teacher", tmp_path / "no")
    pytest.importorskip("gradio")
    assert "be autoregressive" in fails(1, "demo", model, "--teacher", model)
