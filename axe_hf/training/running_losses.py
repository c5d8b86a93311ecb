"""Sums of the losses over many batches, read once per log."""

import torch
from transformers.modeling_outputs import ModelOutput


class RunningLosses:
    """Adds up losses, skips and counts on the device, without waiting for it.

    Args:
        device: where the model runs.
    """

    _NAMES = (
        "token_loss",
        "length_loss",
        "num_skipped_targets",
        "num_skipped_predictions",
        "num_labels",
        "num_tokens",
        "num_sentences",
    )

    def __init__(self, device: torch.device):
        self._sums = torch.zeros(len(self._NAMES), dtype=torch.float64, device=device)
        self._has_skips = False

    def add(self, outputs: ModelOutput, inputs: dict[str, torch.Tensor]) -> None:
        """Add one batch: what the model returned, and what it was given (`labels`, `input_ids`, `attention_mask`)."""
        labels = inputs["labels"]
        source = inputs.get("attention_mask", inputs["input_ids"])
        num_labels = (labels != -100).sum()
        nothing = num_labels.new_zeros(())
        skips = [outputs.num_skipped_targets, outputs.num_skipped_predictions]
        self._has_skips = skips[0] is not None
        values = [
            outputs.token_loss.sum(),
            outputs.length_loss.sum(),
            *(nothing if skip is None else skip.sum() for skip in skips),
            num_labels,
            num_labels + source.count_nonzero(),
            nothing + len(labels),
        ]
        self._sums += torch.stack([value.to(self._sums) for value in values])

    def read(self, accelerator, length_loss_weight: float) -> dict[str, float]:
        """The sums of all processes as rates, and start again.

        Args:
            accelerator: adds up the processes.
            length_loss_weight: as in the model's config.

        Returns:
            `loss` and `token_loss` in nats per label, `length_loss` in nats per sentence, the two skip rates per label
            (AXE only), and the plain counts `num_labels`, `num_tokens` (source tokens and labels), `num_sentences`.
        """
        sums = self._sums
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, reduction="sum")
        total = dict(zip(self._NAMES, sums.tolist(), strict=True))
        self._sums = torch.zeros_like(self._sums)
        num_labels, num_sentences = max(total["num_labels"], 1), max(total["num_sentences"], 1)
        rates = {
            "loss": (total["token_loss"] + length_loss_weight * total["length_loss"]) / num_labels,
            "token_loss": total["token_loss"] / num_labels,
            "length_loss": total["length_loss"] / num_sentences,
        }
        if self._has_skips:
            rates["skipped_target_rate"] = total["num_skipped_targets"] / num_labels
            rates["skipped_prediction_rate"] = total["num_skipped_predictions"] / num_labels
        counts = ("num_labels", "num_tokens", "num_sentences")
        return rates | {name: total[name] for name in counts}
