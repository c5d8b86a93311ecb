"""The pictures of the quick start. Needs matplotlib."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..cmlm import axe_loss
from ..plotting import plot_alignment, plot_history, plot_losses
from .folder import PICTURES
from .recipe import QuickstartRecipe
from .report import decoding_history
from .scoring import TestSet

_NUM_CANDIDATES = 100  # test sentences looked at for one whose alignment shows something
_MAX_POSITIONS = 16  # of the reference; longer ones make an unreadable picture


def save_pictures(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    test: TestSet,
    logs: dict[str, list[dict[str, Any]]],
    recipe: QuickstartRecipe,
) -> None:
    """Draw the losses of both models, an alignment and a decoding of the AXE model.

    Args:
        folder: where the pictures go.
        model, tokenizer: the AXE model.
        test: its sentences.
        logs: log history by model.
        recipe: number of iterations to show.
    """
    example = test.sources[test.examples(1)[0]]
    source, target = _most_shifted(model, tokenizer, test)
    input_ids = tokenizer(source).input_ids
    output = decoding_history(model, tokenizer, example, recipe.shown_iterations)
    figures = (
        plot_losses(logs),
        plot_alignment(model, target, tokenizer, input_ids=input_ids, title=source),
        plot_history(output, tokenizer, title=example),
    )
    for name, figure in zip(PICTURES, figures, strict=True):
        figure.savefig(folder / name)


@torch.no_grad()
def _most_shifted(model, tokenizer, test: TestSet) -> tuple[str, list[int]]:
    """The test sentence of which AXE aligns the most words with a position that is not their own.

    Returns:
        The sentence, and the token ids of its reference.
    """
    best: tuple[int, str, list[int]] | None = None
    for source, references in zip(test.sources[:_NUM_CANDIDATES], test.references, strict=False):
        labels = tokenizer(references[0]).input_ids
        inputs = tokenizer([source], return_tensors="pt").to(model.device)
        target = torch.tensor([labels], device=model.device)
        canvas = model.prepare_decoder_input_ids_from_labels(
            target, model.generation_config.length_multiplier
        )
        logits = model(**inputs, decoder_input_ids=canvas).logits
        alignment = axe_loss(
            logits,
            target,
            blank_token_id=model.config.blank_token_id,
            delta=model.config.axe_delta,
            return_alignment=True,
        ).alignment
        positions = torch.arange(len(labels), device=model.device)
        is_shifted = alignment.is_aligned[0] & (alignment.target_to_position[0] != positions)
        num_shifted = int(is_shifted.sum()) if len(labels) <= _MAX_POSITIONS else -1
        if best is None or num_shifted > best[0]:
            best = num_shifted, source, labels
    return best[1:]
