"""The parts of the loss between two lines of the log, summed over batches and processes."""

from typing import Any

import torch

from ..cmlm.family_axe import exact_dtype
from ..cmlm.loss_axe import IGNORE_INDEX

LOGGED_RATES = ("token_loss", "length_loss", "skipped_target_rate", "skipped_prediction_rate")


class RunningLosses:
    """Adds up losses, skips and counts on `device`, without waiting for it, until they are read."""

    _COUNTS = ("num_labels", "num_tokens", "num_sentences", "num_aligned_labels")
    _SUMS = ("token_loss", "length_loss", "num_skipped_targets", "num_skipped_predictions")

    def __init__(self, device: torch.device):
        num_sums = len(self._SUMS + self._COUNTS)
        self._sums = torch.zeros(num_sums, dtype=exact_dtype(device), device=device)

    def add(self, outputs: Any, inputs: dict[str, torch.Tensor]) -> None:
        """Add a batch: what the model returned for `input_ids`, `attention_mask` and `labels`."""
        source = inputs.get("attention_mask", inputs["input_ids"])
        num_labels = (inputs["labels"] != IGNORE_INDEX).sum()
        nothing = num_labels.new_zeros(())
        summed = [getattr(outputs, name) for name in self._SUMS]
        counts = [num_labels, num_labels + source.count_nonzero(), nothing + len(source)]
        counts += [nothing if outputs.num_skipped_targets is None else num_labels]
        values = [*(nothing if value is None else value.sum() for value in summed), *counts]
        self._sums += torch.stack([value.to(self._sums) for value in values])

    def read(self, accelerator: Any, length_loss_weight: float) -> dict[str, float]:
        """The sums of all processes as rates per label, `length_loss` per sentence; start again."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, reduction="sum")
        total = dict(zip(self._SUMS + self._COUNTS, sums.tolist(), strict=True))
        num_labels, num_sentences = max(total["num_labels"], 1), max(total["num_sentences"], 1)
        rates = {
            "loss": (total["token_loss"] + length_loss_weight * total["length_loss"]) / num_labels,
            "token_loss": total["token_loss"] / num_labels,
            "length_loss": total["length_loss"] / num_sentences,
        }
        if num_aligned := total["num_aligned_labels"]:  # the rest trained by cross entropy
            rates["skipped_target_rate"] = total["num_skipped_targets"] / num_aligned
            rates["skipped_prediction_rate"] = total["num_skipped_predictions"] / num_aligned
        return rates | {name: total[name] for name in self._COUNTS}
