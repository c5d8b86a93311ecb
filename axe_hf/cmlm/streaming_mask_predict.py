"""Shows a decoding while it goes on, by a streamer of Transformers."""

from typing import Any

import torch

from .canvas_cmlm import Canvases
from .configuration_cmlm import CmlmConfig
from .outputs_mask_predict import kept_tokens


class DraftStream:
    """Gives a streamer the best canvas after every pass as a draft, and the translation at the end.

    Args:
        streamer: such as Transformers' `TextDiffusionStreamer`; one without `put_draft` gets the translation only.
        config: for the ids.
        canvases: what is decoded, of one sentence.
        length_score_weight, collapse_repeats: as in `generate`. Another model's ranking is not known before the end.

    Raises:
        ValueError: more than one sentence.
    """

    def __init__(
        self,
        streamer: Any,
        config: CmlmConfig,
        canvases: Canvases,
        *,
        length_score_weight: float,
        collapse_repeats: bool,
    ):
        num_sentences = len(canvases.lengths)
        if num_sentences != 1:
            raise ValueError(
                f"`streamer` shows one sentence, got a batch of {num_sentences}. Call generate for each sentence."
            )
        self.streamer, self.config, self.canvases = streamer, config, canvases
        self.length_scores = length_score_weight * canvases.length_log_probs
        self.collapse_repeats = collapse_repeats
        # Streamers take what comes first for the prompt; here it is empty.
        streamer.put(torch.empty((1, 0), dtype=torch.long))

    def on_pass(
        self, tokens: torch.Tensor, log_probs: torch.Tensor, is_masked: torch.Tensor
    ) -> None:
        """Show the candidate that ranks highest, `<mask>` where it is predicted again."""
        if not hasattr(self.streamer, "put_draft"):
            return
        means = self.canvases.mean_log_probs(log_probs, self.config.mask_token_id)
        best = (means + self.length_scores).argmax()
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
