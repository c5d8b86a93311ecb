"""The test sentences of the quick start, and the scores of a model on them."""

import time
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from ..evaluation import TranslationMetric, repetition_rate
from ..translation import translate
from .recipe import SOURCE_LANG, QuickstartRecipe


@dataclass(frozen=True)
class TestSet:
    """Unseen sentences with all their right translations.

    Args:
        sources: English sentences.
        references: the German translations of each, the phrasebook's first choice in front.
    """

    sources: list[str]
    references: list[list[str]]

    @classmethod
    def from_rows(cls, rows: Dataset) -> "TestSet":
        """From rows of `make_phrasebook`."""
        sources = [pair[SOURCE_LANG] for pair in rows["translation"]]
        return cls(sources, [list(references) for references in rows["references"]])

    def repetition_rate(self) -> float:
        """That of the references' first choices, for comparison."""
        return repetition_rate([references[0] for references in self.references])

    def examples(self, count: int) -> list[int]:
        """Numbers of the first sentences that are long enough to be of interest."""
        lengths = [len(source.split()) for source in self.sources]
        order = sorted(range(len(lengths)), key=lambda i: (not 8 <= lengths[i] <= 12, i))
        return order[:count]


def translate_test_set(
    model,
    tokenizer,
    test: TestSet,
    recipe: QuickstartRecipe,
    *,
    num_iterations: int | None = None,
    limit: int | None = None,
) -> list[str]:
    """The first `limit` test sentences, all if None, with the recipe's first number of iterations if None."""
    return translate(
        model,
        tokenizer,
        test.sources[:limit],
        batch_size=recipe.batch_size,
        num_iterations=num_iterations or recipe.num_iterations[0],
        show_progress=False,
    )


def score(model, tokenizer, test: TestSet, recipe: QuickstartRecipe) -> tuple[dict, list[str]]:
    """Scores by the number of iterations, and the translations in one.

    Returns:
        `{"1": {"bleu": ..., "bleu_signature": ..., ..., "sentences_per_second": ...}, ...}` and the
        translations with the first number of iterations of the recipe.
    """
    translate_test_set(model, tokenizer, test, recipe, limit=recipe.batch_size)  # warm up
    scores: dict[str, dict[str, Any]] = {}
    first: list[str] = []
    for num_iterations in tqdm(recipe.num_iterations, desc="Translating", leave=False):
        start = time.perf_counter()
        translations = translate_test_set(
            model, tokenizer, test, recipe, num_iterations=num_iterations
        )
        seconds = time.perf_counter() - start
        found = TranslationMetric().compute(predictions=translations, references=test.references)
        scores[str(num_iterations)] = {
            **found,
            "sentences_per_second": len(translations) / seconds,
        }
        first = first or translations
    return scores, first
