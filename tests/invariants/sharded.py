"""Trainings under FSDP2, for two processes on a CPU, and the same for one."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import runs
import torch
from transformers import TrainerCallback

RECIPE = runs.Recipe(runs.STRETCHED, {"encoder_layers": 2, "decoder_layers": 2})
SHARDED, ALONE = runs.Cut(2, 1, 4), runs.Cut(1, 1, 8)
SHARDS = {"state_dict_type": "SHARDED_STATE_DICT"}


@dataclass(frozen=True)
class Training:
    """Eight steps with a checkpoint after the fourth."""

    arguments: dict[str, Any] = field(default_factory=dict)
    fsdp_config: dict[str, Any] | None = field(default_factory=dict)  # None: DDP, not sharded
    resumed: str | None = None  # the training whose checkpoint this goes on from
    config: dict[str, Any] = field(default_factory=dict)
    is_adapted: bool = False  # LoRA


AVERAGED = {"ema_decay": 0.9, "eval_strategy": "steps", "eval_steps": 2}
WORST = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
WORST |= {"greater_is_better": True, "eval_steps": 4}  # so that it is not the last
EVALUATED = {"eval_strategy": "steps", "eval_steps": 4}
TRAININGS = {
    # These first: accelerate's plugin sets variables of the environment that stay.
    "not sharded": Training(fsdp_config=None),
    "adapted, not sharded": Training({"gradient_checkpointing": True}, None, is_adapted=True),
    "plain": Training(),
    "plain, resumed": Training(resumed="plain"),
    "averaged": Training(AVERAGED, SHARDS),
    "averaged, resumed": Training(AVERAGED, SHARDS, resumed="averaged"),
    "averaged, the best": Training(AVERAGED | WORST),
    "a part frozen, the best averaged": Training(
        {"freeze": ["encoder"], "keep_best": 2, "average_best": True} | EVALUATED
    ),
    "nothing tied, cross entropy first": Training(
        {"gradient_checkpointing": True, "cross_entropy_first": 0.5},
        config={"tie_word_embeddings": False, "output_bias": True},
    ),
    "adapted": Training({"gradient_checkpointing": True}, is_adapted=True),
}


class Weighing(TrainerCallback):
    """Bytes of this process's weights, gradients and optimizer state in a step."""

    def __init__(self):
        self.bytes: dict[str, int] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.bytes["weights"] = bytes_of(model.parameters())
        self.bytes["gradients"] = bytes_of(
            weight.grad for weight in model.parameters() if weight.grad is not None
        )

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        states = (each for state in optimizer.state.values() for each in state.values())
        self.bytes["optimizer"] = bytes_of(each for each in states if each.dim())


def bytes_of(tensors: Any) -> int:
    """Bytes of all storage behind `tensors` in this process."""
    local = (getattr(tensor, "_local_tensor", tensor).untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in local}.values())


def record_of(folder: Path, name: str, cut: runs.Cut) -> dict[str, Any]:
    """Train and save; what each process held, the logs, scores of seven sentences and of five."""
    training, scale = TRAININGS[name], Weighing()
    given = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    if cut.num_processes > 1 and training.fsdp_config is not None:
        given |= {"fsdp": True, "fsdp_config": dict(training.fsdp_config)}
    given |= training.arguments
    recipe = replace(RECIPE, config=RECIPE.config | training.config)
    adapt = adapted if training.is_adapted else lambda model: model
    with mock.patch("runs.make_model", lambda made=runs.make_model, **c: adapt(made(**c))):
        trainer = runs.make_trainer(str(folder / name), recipe, cut, [scale], **given)
    calls: list[int] = []
    model = trainer.model.get_base_model() if training.is_adapted else trainer.model
    model.model.decoder.register_forward_hook(lambda *_: calls.append(1))
    trained = names_of_trained(trainer.model)
    before = trainer.evaluate()
    resumed = training.resumed and str(folder / training.resumed / "checkpoint-4")
    trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model()
    calls.clear()
    after = trainer.evaluate(runs.sentence_pairs(5, seed=2), metric_key_prefix="test")
    return {
        "logs": [log for log in trainer.state.log_history if "train_runtime" not in log],
        "before": before,
        "after": after,
        "weights": runs.whole_weights(trainer.model),
        "bytes": scale.bytes,
        "num_decoder_calls": len(calls),
        "is_trained_as_before": names_of_trained(trainer.model) == trained,
    }


def adapted(model: Any) -> Any:
    """The model in an adapter that starts the same in each process."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, config)


def names_of_trained(model: Any) -> set[str]:
    """The weights that ask for a gradient."""
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def main(folder: Path) -> None:
    """All trainings, one after the other, of a process that is one of two."""
    for name in TRAININGS:
        record = record_of(folder, name, SHARDED)
        torch.save(record, folder / f"{name}-{torch.distributed.get_rank()}.pt")
