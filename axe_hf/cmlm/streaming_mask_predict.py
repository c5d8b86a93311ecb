"""Shows a decoding while it goes on, by a streamer of Transformers."""

from typing import Any

import torch

from .configuration_cmlm import CmlmConfig
from .outputs_mask_predict import kept_tokens


class DraftStream:
    """Gives a streamer the best canvas after every pass as a draft, and the translation at the end.

    Args:
        streamer: such as Transformers' `TextDiffusionStreamer`; one without `put_draft` gets the translation only.
        config: for the ids.
        lengths: (1, candidates) long, positions of the canvases.
        collapse_repeats: as in `generate`.

    Raises:
        ValueError: more than one sentence.
    """

    def __init__(
        self, streamer: Any, config: CmlmConfig, lengths: torch.Tensor, collapse_repeats: bool
    ):
        if len(lengths) != 1:
            raise ValueError(
                f"`streamer` shows one sentence, got a batch of {len(lengths)}. Call generate for each sentence."
            )
        self.streamer, self.config = streamer, config
        self.lengths, self.collapse_repeats = lengths[0], collapse_repeats
        # Streamers take what comes first for the prompt; here it is empty.
        streamer.put(torch.empty((1, 0), dtype=torch.long))

    def on_pass(
        self, tokens: torch.Tensor, log_probs: torch.Tensor, is_masked: torch.Tensor
    ) -> None:
        """Show the candidate of the highest mean log-probability, `<mask>` where it is predicted again."""
        if not hasattr(self.streamer, "put_draft"):
            return
        best = (log_probs.sum(dim=1) / self.lengths).argmax()
        draft = tokens[best].masked_fill(is_masked[best], self.config.mask_token_id)[None]
        draft, _ = kept_tokens(
            draft, log_probs[best][None], self.config, collapse_repeats=self.collapse_repeats
        )
        self.streamer.put_draft(draft.cpu())

    def end(self, sequence: torch.Tensor) -> None:
        """Show the translation (1, length)."""
        is_token = sequence[0] != self.config.pad_token_id
        self.streamer.put(sequence[:, is_token].cpu())
        self.streamer.end()
