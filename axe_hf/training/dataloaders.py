"""The batches of an `AxeTrainer`: the same sentences in a step, whoever shares it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers.trainer_utils import seed_worker

from ..data import DataCollatorForCmlm, MaxTokensBatchSampler
from ..data.batching import EvenBatches
from ..data.draws import NumberedRows
from ..data.lengths import pair_lengths
from ..data.streaming import StreamBatches
from .arguments import AxeTrainingArguments
from .streams import StreamCollator


def loader_by_tokens(
    dataset: Any, collator: Callable | None, args: AxeTrainingArguments, seed: int
) -> DataLoader:
    """Batches of `args.max_tokens_per_batch` tokens, for accelerate to share out."""
    sampler = MaxTokensBatchSampler(
        pair_lengths(dataset),
        args.max_tokens_per_batch or 0,
        seed,
        num_replicas=args.world_size,
        accumulation=args.gradient_accumulation_steps,
    )
    if hasattr(dataset, "column_names"):
        dataset = dataset.select_columns(["input_ids", "labels"])
    options = {"batch_sampler": sampler, "collate_fn": collator}
    return DataLoader(numbered(dataset, collator), **options, **_options_of_workers(args))


def loader_in_even_batches(
    rows: Any, order: Any, batch_size: int, collator: Callable, args: AxeTrainingArguments
) -> DataLoader:
    """Batches of so many sentences, the last ones of an epoch shared out, not filled up."""
    shares = (args.world_size, args.gradient_accumulation_steps, args.dataloader_drop_last)
    seeds = {"num_workers": args.dataloader_num_workers, "rank": args.process_index}
    return DataLoader(
        rows,
        batch_sampler=EvenBatches(order, batch_size, *shares),
        collate_fn=collator,
        worker_init_fn=partial(seed_worker, **seeds),
        **_options_of_workers(args),
    )


def loader_of_stream(
    batches: StreamBatches, collator: Any, args: AxeTrainingArguments, device: torch.device
) -> DataLoader:
    """The batches of this process, on its device, with where the next ones begin."""
    options: dict[str, Any] = {"batch_size": None, "collate_fn": StreamCollator(collator)}
    loader = DataLoader(batches, **options, **_options_of_workers(args))
    # Not `accelerator.prepare`, which would divide among processes what is their own already.
    own: dict[str, Any] = {"num_processes": 1, "process_index": 0, "put_on_device": True}
    return prepare_data_loader(loader, device, dispatch_batches=False, **own)


def numbered(dataset: Any, collator: Any) -> Any:
    """`dataset` with the number of each row, by which our collator draws its canvas alone."""
    return NumberedRows(dataset) if isinstance(collator, DataCollatorForCmlm) else dataset


def _options_of_workers(args: AxeTrainingArguments) -> dict[str, Any]:
    names = ["num_workers", "pin_memory", "persistent_workers", "prefetch_factor"]
    names += ["multiprocessing_context", "in_order"]
    return {name: getattr(args, f"dataloader_{name}") for name in names}


def with_own_seeds(loader: Any, args: AxeTrainingArguments) -> DataLoader:
    """The loader that accelerate made, whose workers, if they stay, take no random number."""
    if args.dataloader_persistent_workers:
        # Their seed would shift dropout: it is drawn once a run, and once more after a resume.
        loader.base_dataloader.generator = torch.Generator()
    return loader


def tell_epoch(loader: DataLoader, epoch: int) -> None:
    """Tell all that makes batches; accelerate reaches the rows and, after a resume with several
    processes, the order of batches only in some cases."""
    sampler: Any = loader.batch_sampler
    while hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler
    parts: list[Any] = [loader.dataset, sampler, getattr(sampler, "sampler", None)]
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
