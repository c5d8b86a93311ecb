"""A trainer's uploads to the Hub: what goes along, to which branch, and which of them failed."""

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ..output import KEPT_BACK, is_shared

logger = logging.get_logger(__name__)


def check_push(model: Any) -> None:
    """Refuse, before there is a repository, to push what others could not load."""
    for adapter in getattr(model, "peft_config", {}).values():
        check_base(adapter.base_model_name_or_path, "push_to_hub")


def check_base(name: str | None, argument: str) -> None:
    """Refuse to share an adapter to a model that others cannot find by its name."""
    if not name or Path(name).exists():
        problem = f"the adapter's base is {name}, a folder that others do not have"
        advice = (
            "Push that first and train on its name, or push what model.merge_and_unload() gives"
        )
        raise ValueError(f"`{argument}`: {problem}. {advice}.")


def make_branch(trainer: Any, branch: str | None, token: str | None = None) -> None:
    """Make a branch of the trainer's repository where there is none; None is the main one."""
    if branch is not None and not branch.startswith("refs/"):
        api = HfApi(token=token or trainer.args.hub_token)
        api.create_branch(trainer.hub_model_id, branch=branch, exist_ok=True)


def upload(trainer: Any, folder: str, title: str | None, **how: Any) -> Any:
    """Upload the trainer's folder, or a checkpoint with all that a resumed run needs."""
    is_checkpoint = folder != trainer.args.output_dir
    how["ignore_patterns"] = ["training_args.bin"] if is_checkpoint else KEPT_BACK
    own = {"repo_id": trainer.hub_model_id, "folder_path": folder}
    return HfApi().upload_folder(**own, commit_message=title, **how)


def upload_from_checkpoint(trainer: Any, checkpoint: str) -> None:
    """Push what a checkpoint holds of the model, code too, and the checkpoint if asked to."""
    args, strategy = trainer.args, trainer.args.hub_strategy
    if not trainer.is_world_process_zero() or strategy == HubStrategy.END:
        return
    running = pushes_in_progress(trainer)
    if running and not args.hub_always_push:
        return
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    for file in filter(is_shared, Path(checkpoint).iterdir()):
        shutil.copyfile(file, Path(args.output_dir, file.name))
    trainer.create_model_card()
    title, how = f"Training in progress, step {trainer.state.global_step}", dict[str, Any]()
    how |= {"token": args.hub_token, "revision": args.hub_revision, "run_as_future": True}
    jobs = [upload(trainer, args.output_dir, title, **how)]
    if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        is_last = strategy == HubStrategy.CHECKPOINT
        how["path_in_repo"] = "last-checkpoint" if is_last else Path(checkpoint).name
        jobs.append(upload(trainer, checkpoint, f"{title}, checkpoint", **how))
    trainer.push_in_progress = PushInProgress([*running, *jobs])


def pushes_in_progress(trainer: Any) -> list[Any]:
    """Those beside training, and a warning of each that failed: the base class has none."""
    push = getattr(trainer, "push_in_progress", None)
    jobs = [] if push is None else push.jobs
    for job in jobs:
        if job.done() and (error := job.exception()) is not None:
            problem = " ".join(str(error).split())
            logger.warning(f"A push failed: {problem:.300} The next one uploads it all.")
    trainer.push_in_progress = PushInProgress([job for job in jobs if not job.done()])
    return trainer.push_in_progress.jobs
