"""Trainings by DeepSpeed on two processes of a CPU, as the configurations of accelerate have it."""

import os
from pathlib import Path
from typing import Any

import runs
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "examples" / "recipes" / "accelerate"
RECIPE = runs.Recipe(runs.STRETCHED, {"encoder_layers": 2, "decoder_layers": 2})
SPREAD, ALONE = runs.Cut(2, 1, 4), runs.Cut(1, 1, 8)
STAGES = (2, 3)


def set_environment(stage: int) -> None:
    """The variables that `accelerate launch --config_file zero2.yaml` starts processes with."""
    argv = ["--config_file", str(CONFIGURATIONS / f"zero{stage}.yaml"), "--num_processes", "2"]
    args, defaults, _ = _validate_launch_command(
        launch_command_parser().parse_args([*argv, "ranks.py"])
    )
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    _, variables = prepare_deepspeed_cmd_env(args)
    os.environ |= {name: value for name, value in variables.items() if "ACCELERATE" in name}


def record_of(folder: Path, stage: int, cut: runs.Cut, resumed: str | None = None) -> Any:
    """Train for eight steps with a checkpoint after the fourth, save and score."""
    name = f"zero{stage}" + (", resumed" if resumed else "")
    given = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    trainer = runs.make_trainer(str(folder / name), RECIPE, cut, **given)
    trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model()
    weights = list(trainer.model.parameters())
    record: dict[str, Any] = {
        "steps": [log for log in trainer.state.log_history if "loss" in log],
        "scores": trainer.evaluate(),
        "is_deepspeed": trainer.is_deepspeed_enabled,
        "num_weights": sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights),
        "num_own": sum(getattr(weight, "ds_tensor", weight).numel() for weight in weights),
    }
    if cut.num_processes > 1:
        states = trainer.optimizer.optimizer.state.values()
        record["num_optimized"] = sum(state["exp_avg"].numel() for state in states)
    return record


def main(folder: Path) -> None:
    """Both stages, each resumed once, of a process that is one of two."""
    import deepspeed

    # Only faster, and DeepSpeed would compile it for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for stage in STAGES:
        set_environment(stage)
        record = record_of(folder, stage, SPREAD)
        torch.save(record, folder / f"{stage}-{torch.distributed.get_rank()}.pt")
        record_of(folder, stage, SPREAD, str(folder / f"zero{stage}" / "checkpoint-4"))
