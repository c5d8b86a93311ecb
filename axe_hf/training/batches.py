"""Batches by a budget of tokens, and what else the trainer reads of a data set."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..cmlm import CmlmConfig
from ..data import DataCollatorForCmlm, MaxTokensBatchSampler
from .arguments import AxeTrainingArguments


def collator_of(
    args: AxeTrainingArguments, tokenizer: PreTrainedTokenizerBase, config: CmlmConfig | None
) -> DataCollatorForCmlm:
    """The collator that `args` ask for, with canvases within the limit of `config`."""
    return DataCollatorForCmlm(
        tokenizer,
        masking=args.masking,
        seed=args.seed if args.data_seed is None else args.data_seed,
        length_multiplier=args.length_multiplier,
        length_jitter=args.length_jitter,
        max_canvas_length=getattr(config, "max_target_length", None),
    )


def token_budget_loader(
    dataset: Any, collate_fn: Callable, args: AxeTrainingArguments
) -> DataLoader:
    """Batches of at most `args.max_tokens_per_batch` tokens, in an order that `args.data_seed` and the epoch fix."""
    sampler = MaxTokensBatchSampler(
        pair_lengths(dataset),
        max_tokens=args.max_tokens_per_batch,
        seed=args.seed if args.data_seed is None else args.data_seed,
        num_replicas=args.world_size,
    )
    if hasattr(dataset, "column_names"):
        dataset = dataset.select_columns(["input_ids", "labels"])
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )


def pair_lengths(dataset: Any) -> list[tuple[int, int]]:
    """Source and target length of every example, in tokens.

    Raises:
        ValueError: the data set has no length, or lacks a column.
    """
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            "`max_tokens_per_batch` needs a `train_dataset` with a length, got a stream. Use "
            "`per_device_train_batch_size` for streams."
        )
    if hasattr(dataset, "column_names"):
        missing = {"input_ids", "labels"} - set(dataset.column_names)
        if missing:
            raise ValueError(
                f"`train_dataset` lacks the columns {sorted(missing)}; tokenize it with "
                "axe_hf.data.tokenize_translations."
            )
        table = dataset.with_format("arrow")[:]  # a row at a time takes seconds for 100,000
        sides = (table[name].combine_chunks().value_lengths() for name in ("input_ids", "labels"))
        return list(zip(*(side.to_pylist() for side in sides), strict=True))
    return [(len(row["input_ids"]), len(row["labels"])) for row in dataset]


def references_of(dataset: Any) -> list[Sequence[str]] | None:
    """The column `references` of a data set, a list of right translations for every source, if it has one."""
    if "references" not in (getattr(dataset, "column_names", None) or ()):
        return None
    return list(dataset["references"])
