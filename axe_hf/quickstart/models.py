"""Trains one of the two models of the quick start."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)

from .. import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration
from .recipe import LOSSES, SOURCE_LANG, TARGET_LANG, QuickstartRecipe


@dataclass(frozen=True)
class TrainedModel:
    """One of the two models, and what became of its training.

    Args:
        trainer: the trainer, with the log in `trainer.state.log_history`.
        facts: numbers for results.json.
    """

    trainer: AxeTrainer
    facts: dict[str, Any]


class _MinutesBar(TrainerCallback):
    """A progress bar in seconds of training, with the last loss and BLEU behind it."""

    def __init__(self, trainer: AxeTrainer, description: str):
        self._trainer = trainer
        self._bar = tqdm(
            total=60 * trainer.args.train_minutes,
            desc=description,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s{postfix}",
        )
        self._shown: dict[str, str] = {}

    def on_step_end(self, args, state, control, **kwargs):
        self._bar.update(min(60 * self._trainer.elapsed_minutes, self._bar.total) - self._bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key, name in (("loss", "loss"), ("eval_bleu", "BLEU")):
            if key in (logs or {}):
                self._shown[name] = f"{name} {logs[key]:.2f}"
        self._bar.set_postfix_str(", ".join(self._shown.values()), refresh=False)

    def close(self):
        self._bar.close()


def has_fast_bf16() -> bool:
    """Whether bf16 is computed by hardware: emulated, it is several times slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.13
    return any(capabilities.get(name, False) for name in names)


def train_model(
    training_loss: str,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset,
    *,
    output_dir: Path,
    minutes: float,
    seed: int,
    recipe: QuickstartRecipe,
) -> TrainedModel:
    """Train a new model and save it, its tokenizer, its decoding settings and its card.

    Args:
        training_loss: "cross_entropy" or "axe". All else is equal, the canvases aside.
        tokenizer: the tokenizer of both models.
        train, validation: tokenized; validation with the column `references`.
        output_dir: where the model goes.
        minutes: wall-clock time of the training.
        seed: of the weights, the batches and the masks.
        recipe: everything else.
    """
    set_seed(seed)
    tokens = ("pad_token_id", "eos_token_id", "mask_token_id", "blank_token_id")
    config = CmlmConfig(
        vocab_size=len(tokenizer),
        **{name: getattr(tokenizer, name) for name in tokens},
        **recipe.config_settings(training_loss),
    )
    model = CmlmForConditionalGeneration(config)
    model.set_attn_implementation(recipe.attn_implementation)
    settings = recipe.training_settings(training_loss, minutes)
    settings["use_cpu"] = not torch.cuda.is_available()
    settings["bf16"] = settings["bf16"] and has_fast_bf16()
    trainer = AxeTrainer(
        model,
        AxeTrainingArguments(str(output_dir), seed=seed, **settings),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    bar = _MinutesBar(trainer, f"Training with {LOSSES[training_loss]}")
    trainer.add_callback(bar)
    try:
        metrics = trainer.train().metrics
    finally:
        bar.close()
    # For decoding; PyTorch's attention is what the saved model will be loaded with.
    model.set_attn_implementation("sdpa")
    model.eval()
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return TrainedModel(trainer, _facts(trainer, metrics))


def write_card(trained: TrainedModel, test_scores: dict[str, Any], model_name: str) -> None:
    """Write the model card, with the scores on the test sentences."""
    trained.trainer.create_model_card(
        model_name=model_name,
        source_lang=SOURCE_LANG,
        target_lang=TARGET_LANG,
        dataset="the phrasebook of axe_hf, written by a grammar",
        scores={"test": test_scores},
    )


def _facts(trainer: AxeTrainer, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_parameters": trainer.model.num_parameters(),
        "training_minutes": trainer.elapsed_minutes,
        "wall_clock_minutes": metrics["train_runtime"] / 60,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "bf16": trainer.args.bf16,
        "masking": trainer.args.masking,
        "log": trainer.state.log_history,
    }
