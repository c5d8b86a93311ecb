"""The quick start, from an empty folder to two models, their scores and their pictures."""

import importlib.util
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from .. import __version__, load_translations, tokenize_translations, train_tokenizer
from ..data import write_phrasebook
from .folder import RESULTS_FILE, all_or_nothing, check_output_dir
from .models import TrainedModel, train_model, write_card
from .recipe import LOSSES, SOURCE_LANG, TARGET_LANG, QuickstartArguments, QuickstartRecipe
from .report import format_scores, format_sentence, format_what_next
from .scoring import TestSet, score, translate_test_set

_say = partial(print, flush=True)


def run_quickstart(
    arguments: QuickstartArguments | None = None, recipe: QuickstartRecipe | None = None
) -> dict[str, Any]:
    """Train two small models on the phrasebook, by cross entropy and by AXE, and compare them.

    Both get the same sentences, the same batches, the same first weights and the same minutes. Prints
    what it does; leaves the data, both models, pictures and results.json in `arguments.output_dir`,
    which holds all of it or, if anything fails, nothing.

    Args:
        arguments: folder, minutes and seed; the defaults of `QuickstartArguments` if None.
        recipe: everything else; the defaults of `QuickstartRecipe` if None.

    Returns:
        What results.json holds.

    Raises:
        FileExistsError: the folder holds something, and `overwrite` is off.
        ImportError: sacrebleu, which scores the translations, is not installed.

    Example:

    ```python
    >>> from axe_hf.quickstart import QuickstartArguments, run_quickstart
    >>> results = run_quickstart(QuickstartArguments("my-first-models", minutes=4))  # doctest: +SKIP
    >>> results["models"]["axe"]["scores"]["1"]["bleu"]  # doctest: +SKIP

    ```
    """
    arguments = QuickstartArguments() if arguments is None else arguments
    recipe = QuickstartRecipe() if recipe is None else recipe
    check_output_dir(arguments.output_dir, overwrite=arguments.overwrite)
    has_matplotlib = _check_extras()
    _greet(arguments, has_matplotlib)
    with _own_progress_bars_only(), all_or_nothing(arguments.output_dir) as folder:
        results = _Run(arguments, recipe, folder, has_matplotlib).results()
        text = json.dumps(results, indent=2, ensure_ascii=False)
        (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
    _say(format_what_next(results, arguments.output_dir))
    return results


@contextmanager
def _own_progress_bars_only() -> Iterator[None]:
    """Without those of datasets and transformers, which come and go too quickly to be read."""
    were_on = datasets.is_progress_bar_enabled(), logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on[0]:
            datasets.enable_progress_bars()
        if were_on[1]:
            logging.enable_progress_bar()


def _check_extras() -> bool:
    """Whether matplotlib is there; without sacrebleu there would be nothing to compare."""
    from .. import evaluation  # noqa: F401 (says what to install)

    return importlib.util.find_spec("matplotlib") is not None


def _greet(arguments: QuickstartArguments, has_matplotlib: bool) -> None:
    device = "a GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU thread(s)"
    _say(
        "Two small translation models, English to German, one trained with cross entropy and one with\n"
        f"AXE: {arguments.minutes / 2:g} minutes of training each, on {device}, and about one minute for the rest."
    )
    if not has_matplotlib:
        _say(
            "\nNOTE: matplotlib is not installed, so there will be no pictures. For them, stop here and\n"
            'run: python -m pip install "axe-hf[plot]"'
        )


class _Run:
    """One run: its stages, and how long each took."""

    def __init__(self, arguments, recipe, folder: Path, has_matplotlib: bool):
        self.arguments, self.recipe, self.folder = arguments, recipe, folder
        self.has_matplotlib = has_matplotlib
        self.seconds: dict[str, float] = {}

    @contextmanager
    def _stage(self, name: str, text: str) -> Iterator[None]:
        _say(f"\n[{len(self.seconds) + 1}/6] {text}")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

    def results(self) -> dict[str, Any]:
        start = time.perf_counter()
        recipe = self.recipe
        with self._stage("data", f"Writing {recipe.num_pairs:,} sentence pairs and a vocabulary"):
            rows, tokenizer = self._make_data()
            test = TestSet.from_rows(rows["test"])
        datasets_ = self._tokenize(rows, tokenizer)
        trained = {name: self._train(name, tokenizer, datasets_) for name in LOSSES}
        with self._stage("scoring", f"Translating {len(test.sources)} sentences never seen before"):
            scores, translations = self._score(trained, test)
        with self._stage("reloading", "Loading the AXE model from its folder"):
            model, tokenizer = self._reload(trained["axe"], test, translations["axe"])
        with self._stage("pictures", "Watching it decode"):
            self._show(model, tokenizer, test, translations, trained)
        self.seconds["total"] = round(time.perf_counter() - start, 2)
        return {
            "arguments": asdict(self.arguments),
            "recipe": asdict(recipe),
            "models": {name: {"scores": scores[name], **trained[name].facts} for name in trained},
            "references_repetition_rate": test.repetition_rate(),
            "reloaded_model_translates_the_same": True,  # or it would not have come this far
            "translations": {
                "source": test.sources,
                "reference": [references[0] for references in test.references],
                **translations,
            },
            "seconds": self.seconds,
            "peak_memory_mib": _peak_memory_mib(),
            "versions": _versions(),
            "machine": _machine(),
        }

    def _make_data(self) -> tuple[dict[str, Dataset], PreTrainedTokenizerBase]:
        recipe = self.recipe
        paths = write_phrasebook(
            self.folder / "data",
            recipe.num_pairs,
            num_validation=recipe.num_validation,
            num_test=recipe.num_test,
            seed=self.arguments.seed,
        )
        languages = {"source_lang": SOURCE_LANG, "target_lang": TARGET_LANG}
        rows = {split: load_translations(path, **languages) for split, path in paths.items()}
        pair = rows["test"][0]["translation"]
        _say(f'      such as "{pair[SOURCE_LANG]}" and "{pair[TARGET_LANG]}"')
        texts = chain.from_iterable(pair.values() for pair in rows["train"]["translation"])
        return rows, train_tokenizer(texts, vocab_size=recipe.vocab_size)

    def _tokenize(self, rows: dict[str, Dataset], tokenizer) -> dict[str, Dataset]:
        lengths = ("max_source_length", "max_target_length")
        train = tokenize_translations(
            rows["train"],
            tokenizer,
            source_lang=SOURCE_LANG,
            target_lang=TARGET_LANG,
            **dict.fromkeys(lengths, self.recipe.max_length),
        )
        pairs = rows["validation"]["translation"]
        encoded = tokenizer(
            [pair[SOURCE_LANG] for pair in pairs],
            text_target=[pair[TARGET_LANG] for pair in pairs],
            truncation=True,
            max_length=self.recipe.max_length,
        )
        columns = {name: encoded[name] for name in ("input_ids", "labels")}
        references = {"references": rows["validation"]["references"]}
        return {"train": train, "validation": Dataset.from_dict(columns | references)}

    def _train(self, name: str, tokenizer, datasets_: dict[str, Dataset]) -> TrainedModel:
        minutes = self.arguments.minutes / 2
        with self._stage(name, f"Training with {LOSSES[name]} for {minutes:g} minutes"):
            return train_model(
                name,
                tokenizer,
                datasets_["train"],
                datasets_["validation"],
                output_dir=self.folder / name,
                minutes=minutes,
                seed=self.arguments.seed,
                recipe=self.recipe,
            )

    def _score(self, trained: dict[str, TrainedModel], test: TestSet) -> tuple[dict, dict]:
        scores, translations = {}, {}
        for name, model in trained.items():
            scores[name], translations[name] = score(
                model.trainer.model, model.trainer.processing_class, test, self.recipe
            )
            write_card(
                model,
                scores[name][str(self.recipe.num_iterations[0])],
                f"{Path(self.arguments.output_dir).name}-{name}",
            )
        _say("\n" + format_scores(scores, test.repetition_rate()))
        return scores, translations

    def _reload(self, trained: TrainedModel, test: TestSet, expected: list[str]):
        model = AutoModelForSeq2SeqLM.from_pretrained(self.folder / "axe").to(
            trained.trainer.args.device
        )
        tokenizer = AutoTokenizer.from_pretrained(self.folder / "axe")
        found = translate_test_set(model, tokenizer, test, self.recipe)
        num_different = sum(a != b for a, b in zip(found, expected, strict=True))
        if num_different:
            raise RuntimeError(
                f"The saved model translates {num_different} of {len(expected)} test sentences differently."
            )
        _say(f"      It gives the same {len(found)} translations.")
        return model, tokenizer

    def _show(self, model, tokenizer, test: TestSet, translations: dict, trained: dict) -> None:
        for number in test.examples(self.recipe.num_shown):
            _say()
            _say(format_sentence(model, tokenizer, test, translations, number, self.recipe))
        if self.has_matplotlib:
            from .pictures import save_pictures

            logs = {LOSSES[name]: t.trainer.state.log_history for name, t in trained.items()}
            save_pictures(self.folder, model, tokenizer, test, logs, self.recipe)


def _peak_memory_mib() -> float | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10), 1)  # macOS has bytes


def _versions() -> dict[str, str]:
    import sacrebleu
    import tokenizers

    modules = (torch, transformers, tokenizers, datasets, sacrebleu)
    versions = {module.__name__: module.__version__ for module in modules}
    return {"axe_hf": __version__, "python": platform.python_version(), **versions}


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
    }
