"""ZeRO-2 and ZeRO-3, as the configurations of accelerate have them, on two processes of a CPU."""

import os

import pytest
import runs
import torch
import zero
from safetensors.torch import load_file

from axe_hf import CmlmForConditionalGeneration

pytest.importorskip("deepspeed", reason="pip install -e '.[deepspeed]'")

# DeepSpeed adds gradients up in float32.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(two_processes):
    """What two processes saved, each for itself and together."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    return two_processes("zero")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds without DeepSpeed, and the weights it saved."""
    place = tmp_path_factory.mktemp("alone")
    record = zero.record_of(place, 2, zero.ALONE)
    return record, load_file(place / "zero2" / "model.safetensors")


@pytest.mark.parametrize("stage", zero.STAGES)
def test_each_process_holds_a_half(of_each, alone, stage):
    num_weights = alone[0]["num_weights"]
    for record in of_each(stage):
        assert record["is_deepspeed"]
        assert record["num_optimized"] / num_weights == pytest.approx(0.5, abs=0.02)
        share = record["num_own"] / num_weights
        assert share == pytest.approx({2: 1.0, 3: 0.5}[stage], abs=0.02)


@pytest.mark.parametrize("stage", zero.STAGES)
def test_steps_scores_and_weights_are_those_of_one_process(folder, of_each, alone, stage):
    expected, saved = alone
    found, names = of_each(stage)[0], ("token_loss", "length_loss", "skipped_prediction_rate")
    for step, other in zip(found["steps"], expected["steps"], strict=True):
        assert [step[n] for n in names] == pytest.approx([other[n] for n in names], abs=TOLERANCE)
    scores = runs.without_times(expected["scores"])
    assert runs.without_times(found["scores"]) == pytest.approx(scores, abs=TOLERANCE)
    CmlmForConditionalGeneration.from_pretrained(folder / f"zero{stage}")
    weights = load_file(folder / f"zero{stage}" / "model.safetensors")
    assert weights.keys() == saved.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight.double(), saved[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("stage", zero.STAGES)
def test_a_resumed_run_ends_bit_by_bit_as_the_unbroken_one(folder, stage):
    ends = (folder / f"zero{stage}{end}" / "model.safetensors" for end in ("", ", resumed"))
    first, second = (path.read_bytes() for path in ends)
    assert first == second
    assert not (folder / f"zero{stage}, resumed" / "checkpoint-4").exists()
