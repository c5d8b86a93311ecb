"""The decoder, ready to read one canvas after the other for the same sources."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers.generation.configuration_utils import CompileConfig

# With `compile` lengths are rounded up to a multiple of this, so that few shapes are compiled.
STATIC_LENGTH_STEP = 16


class DecoderPass:
    """Calls the decoder; what does not change between the passes is computed once.

    These are the encoder's states, each layer's keys and values of them, shared by all canvases of a sentence, and the
    masks.

    Args:
        model: a `CmlmForConditionalGeneration`.
        source_states: (sentences, source, d_model).
        source_mask: (sentences, source), 1 for tokens; None where all are.
        is_inside: (canvases, canvas) bool, True before a canvas's end; those of one sentence together.
        compile_config: compile the decoder so; None does not compile.
    """

    def __init__(
        self,
        model: Any,
        source_states: torch.Tensor,
        source_mask: torch.Tensor | None,
        is_inside: torch.Tensor,
        compile_config: CompileConfig | None = None,
    ):
        self.model, self.config = model, model.config
        self.is_inside = is_inside
        self.num_sentences = len(source_states)
        self._decoder = model.model.decoder
        if compile_config is not None:
            source_states, source_mask = _padded(source_states, source_mask)
            self._decoder = compiled_decoder(model, compile_config)
        self.source_mask = source_mask
        self._source_states = source_states
        self._key_values = model.model.decoder.project_source(source_states)
        self._masks = self._make_masks()
        # Flash attention with padding takes queries for the last keys: it gets them all.
        attention = self.config._attn_implementation
        self.answers_some_positions = compile_config is None and attention in ("eager", "sdpa")

    def _make_masks(self) -> tuple:
        states = self._source_states

        def like(shape: torch.Size) -> torch.Tensor:
            """What a mask is made for: only shape (rows, length, 1), type and device are read."""
            return states.new_empty(1).expand(*shape, 1)

        return self.model.model.decoder.attention_masks(
            self.is_inside, self.source_mask, like(self.is_inside.shape), like(states.shape[:2])
        )

    def __call__(
        self, canvas: torch.Tensor, query_positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decoder states of `canvas` (canvases, canvas) or of the `query_positions` (canvases, queries) on it."""
        return self._decoder(
            input_ids=canvas,
            masks=self._masks,
            source_key_values=self._key_values,
            query_positions=query_positions,
        ).last_hidden_state

    def keep(self, sentences: torch.Tensor) -> DecoderPass:
        """The same for some of the sentences, (kept,) long; nothing is computed again."""
        kept = object.__new__(DecoderPass)
        kept.__dict__ |= self.__dict__
        canvases = self.canvases_of(sentences)
        kept.num_sentences = len(sentences)
        kept.is_inside = self.is_inside[canvases]
        kept._source_states = self._source_states[sentences]
        kept.source_mask = None if self.source_mask is None else self.source_mask[sentences]
        kept._key_values = tuple(
            type(pair)(*(tensor[sentences] for tensor in pair)) for pair in self._key_values
        )
        kept._masks = kept._make_masks()
        return kept

    def canvases_of(self, sentences: torch.Tensor) -> torch.Tensor:
        """Rows of the canvases of `sentences` (kept,) long: (kept * candidates,) long."""
        num_candidates = len(self.is_inside) // self.num_sentences
        first = sentences[:, None] * num_candidates
        return (first + torch.arange(num_candidates, device=sentences.device)).flatten()


def static_length(length: int, limit: int) -> int:
    """`length` rounded up to a shape that is compiled, at most `limit`."""
    return min(-(-length // STATIC_LENGTH_STEP) * STATIC_LENGTH_STEP, limit)


def compiled_decoder(model: Any, compile_config: CompileConfig) -> Any:
    """The compiled decoder; it is kept on the model, and compiled anew when the settings change."""
    settings = compile_config.to_dict()
    kept = model.__dict__.get("_compiled_decoder")
    if kept is None or kept[0] != settings:
        kept = (settings, torch.compile(model.model.decoder, **settings))
        model.__dict__["_compiled_decoder"] = kept  # no submodule: it shares the decoder's weights
    return kept[1]


def _padded(
    source_states: torch.Tensor, source_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    sentences, length, _ = source_states.shape
    if source_mask is None:
        source_mask = source_states.new_ones((sentences, length), dtype=torch.bool)
    missing = -length % STATIC_LENGTH_STEP
    return F.pad(source_states, (0, 0, 0, missing)), F.pad(source_mask.bool(), (0, missing))
