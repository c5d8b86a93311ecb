"""FSDP2 on two processes: each holds a part, and all that comes out is as from one process.

Accelerate's and PyTorch's own sharding, over gloo; `runs.shard_on_cpu` says what lets it run here.
"""

import pytest
import runs
import sharded
import torch
from safetensors.torch import load_file

from axe_hf import CmlmForConditionalGeneration

TOLERANCE = 1e-12
UNBROKEN = [name for name, training in sharded.TRAININGS.items() if training.resumed is None]
RESUMED = [name for name, training in sharded.TRAININGS.items() if training.resumed is not None]


@pytest.fixture(scope="module")
def folder(two_processes):
    """What two processes saved, each for itself and together."""
    return two_processes("sharded")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds in the same training; each is done once."""
    known, place = {}, tmp_path_factory.mktemp("alone")

    def of(name):
        training = sharded.TRAININGS[name]
        # All that one process goes by.
        what = str((training.arguments, training.config, training.is_adapted))
        if what not in known:
            known[what] = sharded.record_of(place, name, sharded.ALONE)
        return known[what]

    return of


def test_each_process_holds_half_of_weights_gradients_and_optimizer_state(of_each, alone):
    whole = alone("plain")["bytes"]
    for found in of_each("plain"):
        for name, size in found["bytes"].items():
            assert 0.49 < size / whole[name] < 0.52, name
    for found in of_each("not sharded"):
        assert found["bytes"]["weights"] == whole["weights"]


@pytest.mark.parametrize("name", UNBROKEN)
def test_steps_evaluations_and_weights_are_those_of_one_process(of_each, alone, name):
    expected, (found, _) = alone(name), of_each(name)
    assert len(found["logs"]) == len(expected["logs"])
    for log, other in zip(found["logs"], expected["logs"], strict=True):
        exact = [name for name in runs.EXACT if name in other]  # cross entropy skips nothing
        names = exact if "loss" in log else runs.without_times(other)
        assert {k: log[k] for k in names} == pytest.approx(
            {k: other[k] for k in names}, rel=0, abs=TOLERANCE
        )
    for moment in ("before", "after"):
        scores = runs.without_times(expected[moment])
        assert runs.without_times(found[moment]) == pytest.approx(scores, rel=0, abs=TOLERANCE)
    for weight, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][weight], value, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", UNBROKEN)
def test_what_was_frozen_for_the_run_alone_is_not_afterwards(of_each, name):
    assert all(found["is_trained_as_before"] for found in of_each(name))


@pytest.mark.parametrize("name", [n for n in UNBROKEN if not sharded.TRAININGS[n].is_adapted])
def test_the_model_is_saved_whole_and_loads_in_one_process(folder, of_each, name):
    saved = load_file(folder / name / "model.safetensors")
    model = CmlmForConditionalGeneration.from_pretrained(folder / name)
    assert set(saved) == {weight for weight, _ in model.named_parameters()}
    assert model.config.architectures == ["CmlmForConditionalGeneration"]
    for weight, value in of_each(name)[0]["weights"].items():
        assert torch.equal(saved[weight], value)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_bit_by_bit_as_the_unbroken_one(folder, name):
    first = folder / sharded.TRAININGS[name].resumed
    files = [run / "model.safetensors" for run in (folder / name, first)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (folder / name / "checkpoint-4").exists()


def test_the_best_of_averaged_models_is_the_average_of_its_checkpoint(folder):
    best = folder / "averaged, the best"
    found, kept = (load_file(f / "model.safetensors") for f in (best, best / "checkpoint-4"))
    last = load_file(best / "checkpoint-8" / "model.safetensors")
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    assert any(not torch.equal(found[name], last[name]) for name in last)


@pytest.mark.parametrize("name", ["adapted", "adapted, not sharded"])
def test_an_adapter_is_saved_whole(folder, of_each, name):
    weights = of_each(name)[0]["weights"]
    saved = load_file(folder / name / "adapter_model.safetensors")
    assert len(saved) == sum("lora" in weight for weight in weights)
    for weight, value in saved.items():
        assert torch.equal(weights[weight.replace(".weight", ".default.weight")], value)


def test_all_processes_make_the_same_passes_where_weights_are_sharded(of_each):
    """Otherwise they would wait for each other; where nothing is sharded, each stops when done."""
    first, second = (each["num_decoder_calls"] for each in of_each("not sharded"))
    assert first != second
    for name in (n for n, t in sharded.TRAININGS.items() if t.fsdp_config is not None):
        first, second = (each["num_decoder_calls"] for each in of_each(name))
        assert first == second
