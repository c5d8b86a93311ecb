"""How candidates of different length are best ranked: BLEU by `length_score_weight`.

    python examples/benchmarks/ranking.py my_model test.jsonl.gz --source-lang en --target-lang de

Decodes with one length candidate and, for each weight of the length's log-probability, with
several; weight 0 is Mask-Predict's ranking by the mean log-probability of the tokens alone. About a
minute for 600 short sentences and a model of 2 + 2 layers on one core. Prints a table; `--output
FILE` appends it to a CSV, in which several models can stand.
"""

import argparse
import csv
from pathlib import Path

import torch
from measuring import environment
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import TranslationMetric, load_translations, translate

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("data", help="sentence pairs, as `axe-hf evaluate` takes them")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--name", help="of the model, in the table (default: its folder's)")
    parser.add_argument("--num-iterations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--num-length-candidates", type=int, default=5)
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--output", type=Path, help="CSV file to append to")
    options = parser.parse_args()
    torch.set_num_threads(1)

    # 1. The model and the sentences.
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    languages = (options.source_lang, options.target_lang)
    pairs = load_translations(options.data, source_lang=languages[0], target_lang=languages[1])[
        "translation"
    ]
    sources, references = ([pair[language] for pair in pairs] for language in languages)

    # 2. Every setting; the first of each T is one candidate.
    rows, metric, where = [], TranslationMetric(), environment("cpu")
    for num_iterations in options.num_iterations:
        for num_candidates, weight in (
            (1, 0.0),
            *((options.num_length_candidates, weight) for weight in options.weights),
        ):
            translations = translate(
                model,
                tokenizer,
                sources,
                num_iterations=num_iterations,
                num_length_candidates=num_candidates,
                length_score_weight=weight,
            )
            scores = metric.compute(
                predictions=translations, references=[[text] for text in references]
            )
            row = {
                "model": options.name or Path(options.model).name,
                "data": Path(options.data).name,
                "num_iterations": num_iterations,
                "num_length_candidates": num_candidates,
                "length_score_weight": weight if num_candidates > 1 else "",
                "bleu": f"{scores['bleu']:.2f}",
                "brevity_penalty": f"{scores['brevity_penalty']:.3f}",
                "bleu_signature": scores["bleu_signature"],
                "environment": where,
            }
            rows.append(row)
            print(*list(row.values())[:-2], sep="\t", flush=True)
    print(rows[0]["bleu_signature"], where, sep="\n")

    # 3. All of it, behind what other models left.
    if options.output is None:
        return
    is_new = not options.output.exists()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
