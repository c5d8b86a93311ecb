"""Short trainings of one small model in float64, whose steps are cut into batches in several ways.

`ranks.py` runs those of two processes; the tests run those of one, and compare.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers.utils import logging

from axe_hf import (
    AxeTrainer,
    AxeTrainingArguments,
    CmlmConfig,
    CmlmForConditionalGeneration,
    MaxTokensBatchSampler,
    train_tokenizer,
)

torch.set_num_threads(1)
logging.disable_progress_bar()

WORDS = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf"]
TOKENIZER = train_tokenizer([" ".join(WORDS)] * 50, vocab_size=300)
NUM_STEPS = 20
# What a step logs in float64.
EXACT = (
    "loss",
    "token_loss",
    "length_loss",
    "skipped_target_rate",
    "skipped_prediction_rate",
    "grad_norm",
)


def sentence_pairs(number: int, seed: int) -> list[dict[str, list[int]]]:
    """Pairs of 1 to 8 words each, target and source of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> list[int]:
        length = int(torch.randint(1, 9, (), generator=generator))
        words = torch.randint(len(WORDS), (length,), generator=generator).tolist()
        return TOKENIZER(" ".join(WORDS[i] for i in words)).input_ids

    return [{"input_ids": draw(), "labels": draw()} for _ in range(number)]


class CutSampler(MaxTokensBatchSampler):
    """The library's batches of a token budget, each cut into `parts`, so that steps stay equal."""

    parts = 1

    def __init__(self, *args: Any, num_replicas: int, accumulation: int):
        # Those of one process that does not accumulate: its own steps are what is cut.
        super().__init__(*args)

    def __len__(self) -> int:
        return super().__len__() * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            assert len(batch) >= self.parts, "the test's budget is too small to cut its batches"
            yield from (batch[part :: self.parts] for part in range(self.parts))


@dataclass(frozen=True)
class Recipe:
    """What is trained: settings of the model and arguments; `num_pairs` make an epoch."""

    arguments: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    num_pairs: int = 40


@dataclass(frozen=True)
class Cut:
    """How the sentences of a step are cut into batches."""

    num_processes: int
    accumulation: int
    batch_size: int = 8  # of one process; without a part where a budget of tokens makes batches
    parts: int = 1  # of each batch of a token budget

    @property
    def name(self) -> str:
        pieces = f" in {self.parts} pieces" if self.parts > 1 else ""
        return f"{self.num_processes} x {self.accumulation} x {self.batch_size}{pieces}"


STRETCHED = {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2}
BUDGET = {"max_tokens_per_batch": 56}
CTC = {"allow_repetition": True, "axe_temperature": 1.0, "axe_delta": inf}
SMOOTHED = {"label_smoothing": 0.1, "fused_loss": "always"}
EIGHT = [Cut(1, 1, 8), Cut(1, 8, 1), Cut(2, 1, 4), Cut(2, 2, 2)]
RECIPES: dict[str, tuple[Recipe, list[Cut]]] = {
    "stretched AXE": (Recipe(STRETCHED, SMOOTHED), EIGHT),
    "uniform masks, an epoch's last step of five sentences": (
        Recipe({"masking": "uniform"}, num_pairs=45),
        [Cut(1, 1, 8), Cut(1, 8, 1), Cut(2, 1, 4), Cut(2, 2, 2)],
    ),
    "CTC": (
        Recipe({"masking": "full", "length_multiplier": 2.0, "length_jitter": 0.2}, CTC),
        EIGHT,
    ),
    "cross entropy of uniform masks, in order of length, with workers": (
        Recipe(
            {"masking": "uniform", "train_sampling_strategy": "group_by_length"}
            | {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
            {"training_loss": "cross_entropy", "label_smoothing": 0.1},
        ),
        [Cut(1, 2, 4), Cut(2, 1, 4)],
    ),
    "token budget, each batch cut": (
        Recipe(STRETCHED | BUDGET),
        [Cut(1, 1), Cut(1, 4, parts=4), Cut(2, 1, parts=2), Cut(2, 2, parts=4)],
    ),
    "token budget": (
        Recipe({"masking": "uniform"} | BUDGET, num_pairs=43),
        [Cut(1, 4), Cut(2, 2)],
    ),
}


def file_of(name: str, cut: Cut) -> str:
    """Where two processes save what came out of the recipe `name`."""
    return f"{list(RECIPES).index(name)}-{cut.name}.pt"


def make_model(**config: Any) -> CmlmForConditionalGeneration:
    """The model that all start from, in float64, without dropout."""
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.2}
    sizes |= {"max_source_length": 24, "max_target_length": 24, "vocab_size": len(TOKENIZER)}
    torch.manual_seed(0)
    return CmlmForConditionalGeneration(CmlmConfig(**sizes | config)).double()


def shard_on_cpu() -> None:
    """Let accelerate take this CPU for a GPU: only so does it shard.

    Nothing else differs from a run on GPUs: the sharding is accelerate's and PyTorch's own.
    """
    AcceleratorState._reset_state()
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def make_trainer(
    folder: str, recipe: Recipe, cut: Cut, callbacks: Any = None, **arguments: Any
) -> AxeTrainer:
    """A trainer of `recipe`; keywords are arguments, too."""
    given = {"output_dir": folder, "max_steps": NUM_STEPS, "save_strategy": "no", "use_cpu": True}
    given |= {"logging_steps": 1, "disable_tqdm": True, "learning_rate": 3e-3}
    given |= {"per_device_train_batch_size": cut.batch_size, "per_device_eval_batch_size": 2}
    given |= {"gradient_accumulation_steps": cut.accumulation, "num_iterations": 4}
    given |= recipe.arguments
    args = AxeTrainingArguments(**given | arguments)
    if args.fsdp:
        shard_on_cpu()
    return AxeTrainer(
        make_model(**recipe.config),
        args,
        train_dataset=sentence_pairs(recipe.num_pairs, seed=0),
        eval_dataset=sentence_pairs(7, seed=1),
        processing_class=TOKENIZER,
        callbacks=callbacks,
    )


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the weights, also of those that are spread over processes."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return {n: getattr(w, "full_tensor", lambda w=w: w)().clone() for n, w in weights.items()}


def record_of(recipe: Recipe, cut: Cut, folder: str) -> dict[str, Any]:
    """Train; the log of each step, the weights at the end, the scores of seven sentences."""
    sampler = CutSampler if cut.parts > 1 else MaxTokensBatchSampler
    with mock.patch("axe_hf.training.dataloaders.MaxTokensBatchSampler", sampler):
        CutSampler.parts = cut.parts
        trainer = make_trainer(folder, recipe, cut)
        trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    scores = trainer.evaluate()
    return {"steps": steps, "weights": whole_weights(trainer.model), "scores": scores}


def timed_record_of(folder: Path) -> list[dict[str, Any]]:
    """Train two processes for a budget of time, and on from the middle of it; log and weights."""
    recipe, records = Recipe(STRETCHED | {"lr_scheduler_type": "cosine"}), []
    budget = {"max_steps": -1, "train_minutes": 0.03, "save_strategy": "steps", "save_steps": 2}
    budget |= {"save_total_limit": None}
    for name, resumed in (("whole", None), ("resumed", str(folder / "whole" / "checkpoint-2"))):
        trainer = make_trainer(str(folder / name), recipe, Cut(2, 1, 4), **budget)
        trainer.train(resume_from_checkpoint=resumed)
        steps = [log for log in trainer.state.log_history if "loss" in log]
        told = {"steps": steps, "minutes": trainer.elapsed_minutes}
        records.append(told | {"weights": whole_weights(trainer.model)})
    return records


def without_times(scores: dict[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation that do not hang on how long it took."""
    others = ("time", "second", "epoch", "signature")
    return {name: value for name, value in scores.items() if not any(o in name for o in others)}
