"""What is refused of training in several processes. tests/invariants has several processes."""

import pytest

from axe_hf import AxeTrainingArguments
from axe_hf.training import EmaCallback
from axe_hf.training.distributed import check_sharding, embeddings_in_one_group


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
