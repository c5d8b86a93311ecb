"""What is refused of training in several processes. tests/invariants has several processes."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from axe_hf import AxeTrainingArguments
from axe_hf.training import EmaCallback
from axe_hf.training.checkpoints import check_agreement, check_kind
from axe_hf.training.distributed import (
    check_sharding,
    embeddings_in_one_group,
    whole,
    write_weights,
)


def test_processes_that_did_not_find_each_other_do_not_train_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"started 2 processes.*set `use_cpu` \(--use-cpu\)"):
        AxeTrainingArguments(str(tmp_path))


def test_fsdp_that_accelerate_leaves_out_on_a_cpu_is_refused(make_trainer, monkeypatch):
    trainer = make_trainer()
    check_sharding(trainer)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as accelerate's launcher does
    with pytest.raises(ValueError, match="accelerate shards nothing on 1 x cpu.*DDP"):
        check_sharding(trainer)


def test_the_first_fsdp_is_refused(make_trainer, monkeypatch):
    class Plugin:
        fsdp_version = 1

    trainer = make_trainer()
    trainer.is_fsdp_enabled = True
    monkeypatch.setitem(trainer.accelerator.state._shared_state, "fsdp_plugin", Plugin)
    with pytest.raises(ValueError, match="`fsdp_version` must be 2, got 1"):
        check_sharding(trainer)


def test_a_moving_average_of_weights_that_deepspeed_keeps_is_refused(make_trainer):
    trainer = make_trainer(ema_decay=0.9)
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="`ema_decay` needs the weights.*average_checkpoints"):
        check_sharding(trainer)


def test_the_embeddings_are_hidden_from_accelerate_only_while_it_prepares(make_model):
    model = make_model()
    with embeddings_in_one_group(model):
        assert model.get_input_embeddings() is None and model.get_output_embeddings() is None
    assert model.get_input_embeddings() is model.model.shared
    assert model.get_output_embeddings() is model.lm_head


def test_one_process_of_several_writes_the_average(make_model, tmp_path):
    ema = EmaCallback(0.9)
    ema.start(make_model())
    ema.save(tmp_path, is_writer=False)
    assert not list(tmp_path.iterdir())
    ema.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ema_state.safetensors"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fsdp_rounds_weights_alone_and_neither_losses_nor_sums_of_gradients(
    make_trainer, monkeypatch, dtype
):
    """As accelerate has it, 7.872 nats would be logged as 7.875."""
    plugin = SimpleNamespace(fsdp_version=2)
    plugin.mixed_precision_policy = MixedPrecisionPolicy(dtype, dtype, dtype)
    trainer = make_trainer()
    trainer.is_fsdp_enabled = True
    monkeypatch.setitem(trainer.accelerator.state._shared_state, "fsdp_plugin", plugin)
    check_sharding(trainer)
    policy = plugin.mixed_precision_policy
    assert policy == MixedPrecisionPolicy(dtype, torch.float32, None)


WRITTEN = {
    "one process, or of DDP": ["model.safetensors", "optimizer.pt"],
    "FSDP with FULL_STATE_DICT": ["model.safetensors", "pytorch_model_fsdp.bin", "optimizer.bin"],
    "FSDP with SHARDED_STATE_DICT": ["model.safetensors", "pytorch_model_fsdp_0/.metadata"],
    "DeepSpeed": [f"global_step4/zero_pp_rank_{i}_mp_rank_00_optim_states.pt" for i in (0, 1)],
}


def run_of(kind, world_size=2):
    """What a check asks of the trainer of a run."""
    plugin = SimpleNamespace(state_dict_type=f"StateDictType.{kind.split()[-1]}")
    return SimpleNamespace(
        is_fsdp_enabled=kind.startswith("FSDP"),
        is_deepspeed_enabled=kind == "DeepSpeed",
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)),
        args=SimpleNamespace(world_size=world_size),
    )


@pytest.mark.parametrize("now", WRITTEN)
@pytest.mark.parametrize("was", WRITTEN)
def test_a_run_goes_on_from_a_checkpoint_of_its_own_kind_alone(tmp_path, was, now):
    """Others failed for want of a file, in one of the processes, or lost the optimizer's state."""
    for name in WRITTEN[was]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if was == now:
        return check_kind(tmp_path, run_of(now))
    with pytest.raises(ValueError, match=f"is of {was}, and this run is one of {now}. Go on as"):
        check_kind(tmp_path, run_of(now))


@pytest.mark.parametrize("size", [1, 3])
def test_deepspeed_goes_on_with_as_many_processes(tmp_path, size):
    (tmp_path / "global_step4").mkdir()
    for name in WRITTEN["DeepSpeed"]:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"among 2 processes, not {size}. Go on as it was"):
        check_kind(tmp_path, run_of("DeepSpeed", size))


@pytest.mark.parametrize(
    "name, other", [("resume_from_checkpoint", "run/checkpoint-2"), ("train_dataset", "39 pairs")]
)
def test_processes_that_would_train_something_else_are_refused(monkeypatch, name, other):
    """As on machines that hold other files: they would wait for each other, or mix two runs."""
    recipe = {"seed": 1, "train_dataset": "40 pairs"}
    check_agreement(None, recipe)
    second = recipe | {"resume_from_checkpoint": None, name: other}
    monkeypatch.setattr("axe_hf.training.checkpoints.gather_object", lambda found: [*found, second])
    with pytest.raises(ValueError, match=f"`{name}` is .* in process 0 and {other} in process 1"):
        check_agreement(None, recipe)


def test_of_several_processes_the_first_alone_warns(tmp_path, monkeypatch):
    """All would say the same; errors are of each."""
    logger = logging.getLogger("axe_hf")
    monkeypatch.setattr(logger, "level", logger.level)
    AxeTrainingArguments(str(tmp_path), use_cpu=True)
    assert logger.isEnabledFor(logging.WARNING)
    second = property(lambda self: 1)
    monkeypatch.setattr(AxeTrainingArguments, "local_process_index", second)
    AxeTrainingArguments(str(tmp_path), use_cpu=True, log_level_replica="info")
    assert logger.isEnabledFor(logging.WARNING)
    AxeTrainingArguments(str(tmp_path), use_cpu=True)
    assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)
    logger.setLevel(logging.NOTSET)


def test_whole_weights_are_written_by_name(make_model):
    model = make_model()
    weights = {name: whole(w.detach()) + 1 for name, w in model.named_parameters()}
    write_weights(model, weights)
    assert all(torch.equal(w, weights[name]) for name, w in model.named_parameters())
