"""What the quick start prints: the table of scores, example sentences, and what to try next."""

import shlex
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..history import format_history
from .folder import PICTURES, RESULTS_FILE
from .recipe import LOSSES, SOURCE_LANG, TARGET_LANG, QuickstartRecipe
from .scoring import TestSet

_MARGIN = "      "


def format_scores(scores: dict[str, dict[str, dict[str, Any]]], reference_rate: float) -> str:
    """The table: for each number of iterations T, both models.

    Args:
        scores: by model and number of iterations, as `score` returns them.
        reference_rate: repetition rate of the references, between 0 and 1.
    """
    titles = ("T", "trained with", "BLEU", "chrF", "repeated", "length", "sentences/s")
    layout = "{:>3}  {:<13}  {:>5}  {:>5}  {:>8}  {:>6}  {:>11}"
    lines = [layout.format(*titles)]
    for num_iterations in next(iter(scores.values())):
        for name, of_model in scores.items():
            row = of_model[num_iterations]
            values = (
                f"{row['bleu']:.1f}",
                f"{row['chrf']:.1f}",
                f"{row['repetition_rate']:.2%}",
                f"{row['length_ratio']:.3f}",
                f"{row['sentences_per_second']:.0f}",
            )
            lines.append(layout.format(num_iterations, LOSSES[name], *values))
    row = next(iter(next(iter(scores.values())).values()))
    lines += [
        "",
        "T: passes of the decoder. repeated: tokens equal to the one before (of the references",
        f"{reference_rate:.2%}). length: translations over references, in tokens.",
        f"BLEU {row['bleu_signature']}",
        f"chrF {row['chrf_signature']}",
    ]
    return "\n".join(_MARGIN + line if line else "" for line in lines)


def format_sentence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    test: TestSet,
    translations: dict[str, list[str]],
    number: int,
    recipe: QuickstartRecipe,
) -> str:
    """One test sentence, both translations, one reference, and the steps of the given model.

    Args:
        model, tokenizer: the AXE model.
        test: the test sentences.
        translations: of all of them, by model.
        number: which sentence.
        recipe: the number of iterations to show.
    """
    sides = {"source": test.sources[number]}
    sides |= {LOSSES[name]: found[number] for name, found in translations.items()}
    sides["reference"] = test.references[number][0]
    lines = [f"{_MARGIN}{name:<13}  {text}" for name, text in sides.items()]
    output = decoding_history(model, tokenizer, test.sources[number], recipe.shown_iterations)
    steps = format_history(output, tokenizer, width=90).splitlines()
    title = f"AXE, T={recipe.shown_iterations}"
    lines += [f"{_MARGIN}{title if i == 0 else '':<13}  {step}" for i, step in enumerate(steps)]
    return "\n".join(line.rstrip() for line in lines)


def decoding_history(model, tokenizer, source: str, num_iterations: int):
    """What `generate` did to one sentence, as `format_history` and `plot_history` take it."""
    inputs = tokenizer([source], return_tensors="pt").to(model.device)
    return model.generate(
        **inputs, num_iterations=num_iterations, output_history=True, return_dict_in_generate=True
    )


def format_what_next(results: dict[str, Any], output_dir: str | Path) -> str:
    """Where everything is, and commands to go on with."""
    folder = Path(output_dir)
    axe, data = (shlex.quote(str(folder / name)) for name in ("axe", "data"))
    languages = f"--source-lang {SOURCE_LANG} --target-lang {TARGET_LANG}"
    recipe = results["recipe"]
    canvases = f"--masking {recipe['axe_masking']}"
    if recipe["axe_length_multiplier"] != 1:
        canvases += f" --length-multiplier {recipe['axe_length_multiplier']}"
    if recipe["axe_length_jitter"]:
        canvases += f" --length-jitter {recipe['axe_length_jitter']}"
    pictures = [name for name in PICTURES if (folder / name).exists()]
    contents = {
        f"{folder}/axe": "the model trained with AXE, its tokenizer and model card",
        f"{folder}/cross_entropy": "the other one",
        f"{folder}/data": "the sentences",
        f"{folder}/{RESULTS_FILE}": "all numbers, translations and versions",
    }
    contents |= {f"{folder}/{name}": "picture" for name in pictures}
    width = max(map(len, contents))
    seconds = results["seconds"]["total"]
    lines = ["", f"Done in {seconds / 60:.1f} minutes."]
    lines += [f"  {name:<{width}}  {what}" for name, what in contents.items()]
    lines += [
        "",
        "Try next:",
        f'  axe-hf translate {axe} "Where is the station?"',
        f'  axe-hf translate {axe} --show-steps --num-iterations 4 "She is buying a new car tomorrow."',
        f"  axe-hf evaluate {axe} {data}/test.jsonl {languages} --num-length-candidates 5",
        "  and ten more minutes of training, here or on sentences of your own:",
        f"  axe-hf train --model-name-or-path {axe} {languages} \\",
        f"    --train-file {data}/train.jsonl --test-file {data}/test.jsonl --output-dir my_model \\",
        f"    --train-minutes 10 --max-tokens-per-batch {recipe['max_tokens_per_batch']} {canvases}",
    ]
    return "\n".join(lines)
