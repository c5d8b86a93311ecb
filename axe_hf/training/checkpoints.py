"""Checkpoints: which one a run goes on from, whether it is whole, and whether the run fits it."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from safetensors import SafetensorError, safe_open
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..cmlm import CmlmConfig
from ..output import UNFINISHED
from .averaging import EMA_STATE_NAME

logger = logging.get_logger(__name__)

# What decides how training goes, besides the model's config; not when it ends.
_ARGUMENTS = ("seed", "data_seed", "per_device_train_batch_size", "max_tokens_per_batch", "bf16")
_ARGUMENTS += ("gradient_accumulation_steps", "train_sampling_strategy", "optim", "learning_rate")
_ARGUMENTS += ("lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2")
_ARGUMENTS += ("adam_epsilon", "max_grad_norm", "ema_decay", "masking", "length_multiplier")
_ARGUMENTS += ("length_jitter",)


def resolve_checkpoint(asked: str | Path | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint's folder, None for a new run; True or "last" is the last one in `output_dir`
    that is whole, or None in what a run left that was killed before there was one."""
    asked = str(asked or "false")
    if asked.lower() == "false":
        return None
    if asked.lower() not in ("true", "last"):
        if (flaw := flaw_of(asked)) is not None:
            hint = "For the newest in `output_dir`: 'last'"
            raise ValueError(f"`resume_from_checkpoint`: {flaw}. {hint}.")
        return asked
    found = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    numbered = {int(n): path for path in found if (n := path.name.split("-")[1]).isdecimal()}
    for _, folder in sorted(numbered.items(), reverse=True):
        if (flaw := flaw_of(folder)) is None:
            return str(folder)
        logger.warning(f"`resume_from_checkpoint`: {flaw}. Passed over.")
    if not Path(output_dir, UNFINISHED).exists():
        message = f"{output_dir} holds no checkpoint-* that is whole. To start a new run, leave it"
        raise ValueError(f"`resume_from_checkpoint`: {message} out.")
    logger.warning(f"{output_dir} holds no whole checkpoint of the run: it starts again.")
    return None


def flaw_of(checkpoint: str | Path) -> str | None:
    """What is missing or damaged in a checkpoint, of which the state is written last."""
    folder = Path(checkpoint)
    for pattern, name in ((TRAINER_STATE_NAME, TRAINER_STATE_NAME), ("*model[._]*", "weights")):
        if not any(folder.glob(pattern)):
            return f"{folder} holds no {name}"
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_bytes())
            elif file.suffix == ".safetensors":
                safe_open(file, "pt")
            elif file.suffix in (".pt", ".pth", ".bin") and ZipFile(file).testzip() is not None:
                raise BadZipFile("a wrong checksum")
        except (ValueError, SafetensorError, BadZipFile, OSError) as error:
            return f"{file} is damaged ({error})"
    return None


def recipe_of(trainer: Any) -> dict[str, Any]:
    """What a checkpoint keeps of its run, for `check_resumption`."""
    args, data = trainer.args.to_dict(), trainer.train_dataset
    recipe = {
        name: getattr(trainer.model.config, name, None) for name in CmlmConfig.__annotations__
    }
    recipe |= {name: args[name] for name in _ARGUMENTS if args[name] is not None}
    if hasattr(data, "__getitem__"):
        sample = repr([data[i] for i in range(0, len(data), max(1, len(data) // 64))])
        recipe["train_dataset"] = f"{len(data)} pairs (checksum {zlib.crc32(sample.encode())})"
    return recipe | {"world_size": trainer.args.world_size}


def check_resumption(checkpoint: str | Path, recipe: dict[str, Any], rng_state_name: str) -> None:
    """Warn of all that makes a resumed run another one than `checkpoint` is of, or refuse it."""
    folder = Path(checkpoint)
    state = json.loads((folder / TRAINER_STATE_NAME).read_bytes())
    before = state.get("stateful_callbacks", {}).get("AxeTrainer", {}).get("attributes", recipe)
    if "ema_decay" not in recipe and (folder / EMA_STATE_NAME).exists():
        text = f"{folder} is of a run with averaged weights. Set it to {before.get('ema_decay')}"
        raise ValueError(f"`ema_decay` is not set, but {text}.")
    for name in (OPTIMIZER_NAME, SCHEDULER_NAME, rng_state_name):
        if not (folder / name).exists():
            logger.warning(f"{folder} holds no {name}: the run will not go on as it would have.")
    for name in sorted(before.keys() | recipe.keys()):
        was, now = before.get(name), recipe.get(name)
        if was != now:
            logger.warning(
                f"`{name}` is {now}, but {was} in the run to resume: it becomes another."
            )


@contextmanager
def failures_named(folder: str | Path) -> Iterator[None]:
    """Let errors in writing into `folder` name it, and those of torch their likely reason."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        hint = "no space left on device? " if "inline_container" in str(error) else ""
        is_nameless = getattr(error, "errno", None) is not None and error.filename is None
        if not (hint or is_nameless or isinstance(error, SafetensorError)):
            raise
        raise OSError(f"{folder} could not be written: {hint}{error}") from error
