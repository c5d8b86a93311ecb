"""Training on a `TranslationStream`: its batches with their state, and the state in checkpoints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ..data.streaming import StreamBatch
from ..output import write_text
from .arguments import AxeTrainingArguments

logger = logging.get_logger(__name__)

STREAM_STATE = "stream_state"  # beside the tensors of a batch


@dataclass(frozen=True)
class StreamCollator:
    """Gives a batch of a stream, collated, the state from which the next one is made."""

    collator: Any

    def __call__(self, batch: StreamBatch) -> dict[str, Any]:
        if batch.state is None:  # in place of one passed over
            return {}
        return {**self.collator(batch.rows), STREAM_STATE: json.dumps(batch.state)}


def save_stream_states(
    checkpoint: str | Path, states: dict[int, dict[str, Any]], args: AxeTrainingArguments
) -> None:
    """Write where each worker of this process stands."""
    own = [states.get(worker, {}) for worker in range(max(1, args.dataloader_num_workers))]
    text = json.dumps({"world_size": args.world_size, "workers": own})
    write_text(_file_of(checkpoint, args.process_index), text)


def stream_states(checkpoint: str | Path, args: AxeTrainingArguments) -> list[dict[str, Any]]:
    """Where each worker of this process goes on; all where the first stood, if they are others."""
    num_workers = max(1, args.dataloader_num_workers)
    file = _file_of(checkpoint, args.process_index)
    saved = json.loads(file.read_bytes()) if file.exists() else {}
    if saved.get("world_size") == args.world_size and len(saved["workers"]) == num_workers:
        return saved["workers"]
    first = _file_of(checkpoint, 0)
    if not first.exists():
        logger.warning(f"{checkpoint} holds no {first.name}: the data are read from the beginning.")
        return [{}] * num_workers
    saved = json.loads(first.read_bytes())
    was = f"{saved['world_size']} processes with {len(saved['workers'])} readers each"
    now = f"{args.world_size} with {num_workers}"
    place = "All go on where the first one stood: some pairs come twice or not at all"
    logger.warning(f"`train_dataset` was read by {was}, and now by {now}. {place}.")
    state = saved["workers"][0]
    # What `datasets` says of its own state holds for one division of its files alone.
    places = [{"epoch": p["epoch"]} if "state" in p else p for p in state["positions"]]
    return [{"window": state["window"], "positions": places}] * num_workers


def num_batches_of(checkpoint: str | Path, args: AxeTrainingArguments) -> int:
    """Batches of this process before `checkpoint`, which Transformers' loop passes over."""
    state = json.loads(Path(checkpoint, TRAINER_STATE_NAME).read_bytes())
    return state["global_step"] * args.gradient_accumulation_steps


def _file_of(checkpoint: str | Path, process: int) -> Path:
    return Path(checkpoint, f"stream_state_{process}.json")
