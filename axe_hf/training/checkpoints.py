"""Checkpoints: which one a run goes on from, whether it is whole, and whether the run fits it."""

import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from accelerate.utils import gather_object
from accelerate.utils.constants import FSDP_MODEL_NAME
from safetensors import SafetensorError, safe_open
from torch.utils.data import IterableDataset
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ..cmlm import CmlmConfig
from ..data import TranslationStream
from ..output import UNFINISHED
from .averaging import EMA_STATE_NAME
from .distributed import saves_shards

logger = logging.get_logger(__name__)

# What decides how training goes, besides the model's config; not when it ends.
_ARGUMENTS = (
    "seed data_seed per_device_train_batch_size gradient_accumulation_steps max_tokens_per_batch "
    "train_sampling_strategy optim bf16 learning_rate lr_scheduler_type warmup_steps weight_decay "
    "adam_epsilon adam_beta1 adam_beta2 max_grad_norm ema_decay "
    "cross_entropy_first align_first draft_share freeze"
)
# What older checkpoints do not say, and how it was.
_SINCE = {"allow_repetition": False, "axe_temperature": 0.0, "align_first": 0.0}
_SINCE |= {"draft_share": 0.0, "cross_entropy_first": 0.0}
_FULL, _SHARDED = (f"FSDP with {kind}_STATE_DICT" for kind in ("FULL", "SHARDED"))
_DEEPSPEED, _WHOLE = "DeepSpeed", "one process, or of DDP"
_OF_STEP = ("world_size", "gradient_accumulation_steps", "per_device_train_batch_size")
_OF_OPTIMIZER = {"learning_rate", "weight_decay", "adam_epsilon", "adam_beta1", "adam_beta2"}
_STATES = {"optimizer.pt": "*optim*", "scheduler.pt": "*scheduler*", "rng_state.pth": "rng_state*"}


def resolve_checkpoint(asked: str | Path | bool | None, output_dir: str | Path) -> str | None:
    """The checkpoint's folder, None for a new run; True or "last" is the last one in `output_dir`
    that is whole, or None in what a run left that was killed before there was one."""
    asked = str(asked or "false")
    if asked.lower() == "false":
        return None
    if asked.lower() not in ("true", "last"):
        if (flaw := flaw_of(asked)) is None:
            return asked
        raise ValueError(f"`resume_from_checkpoint`: {flaw}. 'last' takes the newest whole one.")
    for folder in reversed(checkpoints_in(output_dir).values()):
        if (flaw := flaw_of(folder)) is None:
            return str(folder)
        logger.warning(f"`resume_from_checkpoint`: {flaw}. Passed over.")
    missing = f"{output_dir} holds no checkpoint-* that is whole"
    if not Path(output_dir, UNFINISHED).exists():
        raise ValueError(f"`resume_from_checkpoint`: {missing}. To start a new run, leave it out.")
    logger.warning(f"{missing}: the run that broke off in it starts again.")
    return None


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """The checkpoints that a run left in its folder, by step, the first one first."""
    found = Path(folder).glob("checkpoint-*")
    numbered = {int(n): path for path in found if (n := path.name.partition("-")[2]).isdecimal()}
    return dict(sorted(numbered.items()))


def flaw_of(checkpoint: str | Path) -> str | None:
    """What is missing or damaged in a checkpoint, of which the state is written last."""
    folder = Path(checkpoint)
    # An adapter that has a name lies in a folder of that name.
    for pattern, name in ((TRAINER_STATE_NAME, TRAINER_STATE_NAME), ("**/*model[._]*", "weights")):
        if not any(folder.glob(pattern)):
            return f"{folder} holds no {name}"
    for file in sorted(folder.rglob("*.*")):
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
    args, config, data = trainer.args.to_dict(), trainer.model.config, trainer.train_dataset
    recipe = {name: getattr(config, name, None) for name in CmlmConfig.__annotations__}
    recipe |= {name: args[name] for name in _ARGUMENTS.split() if args[name] is not None}
    if hasattr(data, "__len__") and not isinstance(data, IterableDataset):
        sample = repr([data[i] for i in range(0, len(data), max(1, len(data) // 64))])
        recipe["train_dataset"] = f"{len(data)} pairs (checksum {zlib.crc32(sample.encode())})"
    elif isinstance(data, TranslationStream):
        recipe["train_dataset"] = data.description
    return recipe | {"world_size": trainer.args.world_size}


def check_agreement(checkpoint: str | None, recipe: dict[str, Any]) -> None:
    """Refuse processes that would not train the same, as where machines hold other files.

    They would wait for each other for ever, or add up gradients of other things.
    """
    each = gather_object([recipe | {"resume_from_checkpoint": checkpoint}])
    for rank, other in enumerate(each):
        for name in sorted(each[0].keys() | other.keys()):
            if (first := each[0].get(name)) != (found := other.get(name)):
                problem = f"`{name}` is {first} in process 0 and {found} in process {rank}"
                raise ValueError(f"{problem}. All need the same files and settings.")


def check_kind(checkpoint: str | Path, trainer: Any) -> None:
    """Refuse what a run cannot go on from, since it spreads its state over processes otherwise."""
    was, now = _kind_of(Path(checkpoint)), _WHOLE
    if trainer.is_fsdp_enabled:
        now = _FULL if not saves_shards(trainer.accelerator) else _SHARDED
    elif trainer.is_deepspeed_enabled:
        now = _DEEPSPEED
    advice = "Go on as it was trained, or start a new run from the model in that folder"
    if was != now:
        problem = f"{checkpoint} is of {was}, and this run is one of {now}"
        raise ValueError(f"`resume_from_checkpoint`: {problem}. {advice}.")
    size = trainer.args.world_size
    states = [*Path(checkpoint).glob("global_step*/*optim_states.pt")]
    if was == _DEEPSPEED and len(states) not in (0, size):
        problem = f"DeepSpeed divided {checkpoint} among {len(states)} processes, not {size}"
        raise ValueError(f"`resume_from_checkpoint`: {problem}. {advice}.")


def _kind_of(checkpoint: Path) -> str:
    """By what a checkpoint was written: FSDP, DeepSpeed, or none of them."""
    if any(checkpoint.glob(f"{FSDP_MODEL_NAME}*.bin")):
        return _FULL
    if any(checkpoint.glob(f"{FSDP_MODEL_NAME}_*/")):
        return _SHARDED
    return _DEEPSPEED if any(checkpoint.glob("global_step*/")) else _WHOLE


def check_resumption(checkpoint: str | Path, recipe: dict[str, Any]) -> None:
    """Warn of all that makes a resumed run another one than `checkpoint` is of, or refuse it."""
    folder = Path(checkpoint)
    state = json.loads((folder / TRAINER_STATE_NAME).read_bytes())
    before = state.get("stateful_callbacks", {}).get("AxeTrainer", {}).get("attributes", recipe)
    if "ema_decay" not in recipe and (folder / EMA_STATE_NAME).exists():
        decay = before.get("ema_decay", "what it was")  # which older checkpoints do not say
        text = f"{folder} is of a run with averaged weights. Set it to {decay}"
        raise ValueError(f"`ema_decay` is not set, but {text}.")
    parts, parts_now = (sorted({*(of.get("freeze") or ())}) for of in (before, recipe))
    if parts != parts_now:  # optimizer and average hold the state of the others alone
        problem = f"`freeze` is {parts_now}, but {folder} is of a run with {parts}"
        raise ValueError(f"{problem}. Set it so, or start a new run from the model in that folder.")
    for name, pattern in _STATES.items():
        if not any(folder.rglob(pattern)):
            logger.warning(f"{folder} holds no {name}: the run will not go on as it would have.")
    passed = {"freeze"}
    if _has_same_steps(before, recipe):
        passed |= {*_OF_STEP}
        if changed := [n for n in _OF_STEP if n in before and before[n] != recipe.get(n)]:
            cut = ", ".join(f"`{name}` {recipe.get(name)}, was {before[name]}" for name in changed)
            same = "its sentences are the same, and so is the run, but for dropout and drafts"
            logger.warning(f"A step is shared out otherwise ({cut}): {same}.")
    for name in sorted((before.keys() | recipe.keys()) - passed):
        if (was := before.get(name, _SINCE.get(name))) != (now := recipe.get(name)):
            is_kept = name in _OF_OPTIMIZER and any(folder.rglob(_STATES["optimizer.pt"]))
            result = f"{was} stays, by {folder}" if is_kept else "the run goes on as another one"
            logger.warning(f"`{name}` is {now}, but was {was}: {result}.")


def _has_same_steps(before: dict[str, Any], recipe: dict[str, Any]) -> bool:
    """Whether the steps of two runs have the same sentences, however processes share them."""
    is_stream = str(recipe.get("train_dataset")).startswith("a stream")
    if is_stream or recipe.get("train_sampling_strategy") == "batch_rebalance":
        return False
    is_by_tokens = recipe.get("max_tokens_per_batch") is not None
    names = _OF_STEP[:2] if is_by_tokens else _OF_STEP
    return math.prod(before.get(n) or 1 for n in names) == math.prod(recipe[n] for n in names)


@contextmanager
def failures_named(folder: str | Path) -> Iterator[None]:
    """Let errors in writing into `folder` name it, and those of torch their likely reason."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        hint = "no space left on device? " if re.search("container|iostream", str(error)) else ""
        is_nameless = isinstance(error, OSError) and not (error.errno is None or error.filename)
        if not hint and not is_nameless and not isinstance(error, SafetensorError):
            raise
        raise OSError(f"{folder} could not be written: {hint}{error}") from error
