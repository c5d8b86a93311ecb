"""`torch_compile`: encoder and decoder run compiled, for batches of any shape, and train alike."""

import pytest
import torch
from torch._dynamo.utils import counters

from axe_hf.training.compiling import take_compilation

# Of the model and of the arguments.
LOSSES = {
    "AXE": ({}, {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2}),
    "CTC": (
        {"axe_delta": float("inf"), "allow_repetition": True, "axe_temperature": 1.0},
        {"masking": "full", "length_multiplier": 2.0},
    ),
    "cross entropy": ({"training_loss": "cross_entropy"}, {"masking": "uniform"}),
}


@pytest.fixture
def train(make_trainer):
    """Trains on ragged batches: the model, the losses of its steps, and the batches' shapes."""

    def run(model, **settings):
        settings |= {"max_steps": 12, "logging_steps": 1, "max_tokens_per_batch": 24}
        trainer, shapes = make_trainer(model, **settings), set()
        collate = trainer.data_collator

        def watched(rows):
            batch = collate(rows)
            shapes.add((batch["input_ids"].shape, batch["decoder_input_ids"].shape))
            return batch

        trainer.data_collator = watched
        trainer.train()
        logs = trainer.state.log_history
        return trainer.model, [line["loss"] for line in logs if "loss" in line], shapes

    return run


@pytest.mark.slow
def test_two_graphs_serve_all_shapes_and_all_losses_which_stay_the_same(train, make_model, caplog):
    torch.compiler.reset()
    counters.clear()
    for config, recipe in LOSSES.values():
        plain, expected, shapes = train(make_model(max_target_length=24, **config), **recipe)
        model, losses, _ = train(
            make_model(max_target_length=24, **config), **recipe, torch_compile_backend="eager"
        )
        assert len(shapes) >= 4 and losses == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(model.state_dict(), plain.state_dict())  # names, too
        assert "forward" not in vars(model.model)
    # PyTorch makes one more for batches of one sentence, if there are any.
    assert 1 <= counters["stats"]["unique_graphs"] <= 2 and not counters["graph_break"]
    assert "`torch_compile`: encoder and decoder are compiled by 'eager'" in caplog.text


def test_what_accelerate_is_told_to_compile_is_compiled_by_the_trainer(make_trainer, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER")  # as `accelerate launch` does
    trainer = make_trainer()
    assert take_compilation(trainer) == {"backend": "aot_eager", "dynamic": True}
    assert str(trainer.accelerator.state.dynamo_plugin.backend) == "NO"


def test_sharded_weights_are_refused(make_trainer):
    trainer = make_trainer(torch_compile_mode="max-autotune")
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="`torch_compile` does not go with FSDP or DeepSpeed"):
        take_compilation(trainer)
