"""Trains by cross entropy, AXE, CTC and their relatives, cold and warm, raw and distilled.

    python examples/benchmarks/recipes.py --dataset tatoeba_short --plan losses --seeds 0 1 \\
        --data-dir my_data --output recipes.csv

What it does: trains an autoregressive teacher for each seed, translates the training sources by it,
trains the plan's models side by side (`recipes_plans.py`), and writes the BLEU of each on the test
and the validation data after each model, so that a run that is cut leaves what it had. The data are
`DATASET.{train,validation,test}.jsonl.gz` in --data-dir, a line each `{"translation": {"en": ...,
"de": ...}}`. Plans: losses (4 losses, cold and warm, raw and distilled), passes (GLAT, Imputer and
SMART), settings (those of CTC), large (a few models, for the larger datasets).

Needs the extra "eval", on a GPU "triton" too. Takes, on one NVIDIA H200 with four other such runs
beside it: 320 s for a seed of `losses`, 250 s for `passes`, 550 s for the first round of `large` on
tatoeba (set CUDA_DEVICE_MAX_CONNECTIONS=32). Without a GPU everything runs step by step: hours a
model; look with --limit-rows 50 --steps 3, which takes seconds.

Expected output: the environment, the training loss in nats per target token every 1,000 steps, and
a line for each BLEU, such as "59.46  0.970  CTC, warm, distilled, seed 0: test, T=1, 1 length(s)".
Two runs of a seed differ on a GPU, which adds in any order: the teacher's by half a point.
"""

import argparse
import platform
import time
from pathlib import Path

import torch
import transformers
from measuring import environment, write_csv
from recipes_data import DEVICE, SIZES, Corpus
from recipes_plans import PLANS, TEACHER_DECODINGS, Decoding, Recipe, teacher
from recipes_training import Arm, distil, train


def result_row(arm: Arm, how: Decoding) -> dict:
    """A row of the table: what was trained, how it was decoded, how good it is."""
    recipe = arm.recipe
    outputs = arm.translate(arm.corpus.held_out[how.split][0], how)
    bleu, length_ratio, signature = arm.corpus.bleu(how.split, outputs)
    start, targets = recipe.start_and_targets
    is_student = not recipe.is_teacher
    return {
        "arm": recipe.arm,
        "start": start,
        "targets": targets,
        "loss": recipe.loss.name,
        "canvas": f"{recipe.loss.canvas:g}" if is_student else "",
        "seed": recipe.seed,
        "split": how.split,
        "num_iterations": how.num_iterations if is_student else "",
        "num_length_candidates": how.num_length_candidates if is_student else "",
        "num_beams": "" if is_student else how.num_beams,
        "bleu": f"{bleu:.2f}",
        "length_ratio": f"{length_ratio:.3f}",
        "bleu_signature": signature,
    }


def describe(row: dict, recipe: Recipe) -> str:
    how = f"T={row['num_iterations']}, {row['num_length_candidates']} length(s)"
    if recipe.is_teacher:
        how = f"beam {row['num_beams']}"
    return f"{row['bleu']}  {row['length_ratio']}  {recipe}: {row['split']}, {how}"


class Run:
    """A plan on a dataset, and the table that it fills."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.corpus = Corpus(options.data_dir, options.dataset, options.limit_rows)
        self.num_steps = options.steps or self.corpus.size.num_steps
        self.rows: list[dict] = []
        software = f"transformers {transformers.__version__}"
        if DEVICE == "cuda":
            import triton

            software += f", triton {triton.__version__}, CUDA {torch.version.cuda}"
        size = f"{self.num_steps} steps, {self.corpus.size}"
        self.environment = f"{environment(DEVICE)}, {software}, {platform.system()}; {size}"

    def arm(self, recipe: Recipe, made: dict | None = None) -> Arm:
        targets, weights = self.corpus.targets, None
        if made is not None:
            distilled, weights = made[recipe.seed]
            targets = distilled if recipe.is_distilled else targets
        return Arm(recipe, self.corpus, self.num_steps, targets, weights)

    def train(self, arms: list[Arm], decodings: tuple[Decoding, ...]) -> None:
        """Trains, evaluates, and writes the table after each arm."""
        train(arms)
        plan = {"dataset": self.options.dataset, "plan": self.options.plan}
        for arm in arms:
            for how in decodings:
                row = result_row(arm, how)
                self.rows.append(plan | row)
                print(describe(row, arm.recipe), flush=True)
            write_csv(self.options.output, self.rows, self.environment)

    def teachers(self) -> dict[int, tuple]:
        """By seed: the translations of the training data, and the weights."""
        arms = [self.arm(teacher(seed)) for seed in self.options.seeds]
        self.train(arms, TEACHER_DECODINGS)
        made = {}
        for arm in arms:
            start = time.perf_counter()
            weights = {name: value.clone() for name, value in arm.model.state_dict().items()}
            made[arm.recipe.seed] = (distil(arm), weights)
            print(f"distilled in {time.perf_counter() - start:.1f} s", flush=True)
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=SIZES, required=True)
    parser.add_argument("--plan", choices=PLANS, required=True)
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--data-dir", type=Path, required=True, help="of DATASET.SPLIT.jsonl.gz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="default: 5000, or 8000 for the larger datasets")
    parser.add_argument("--limit-rows", type=int, help="of each file, for a look")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if DEVICE == "cuda":  # TF32; on a CPU the same line may mean emulated bfloat16, 50 times slower
        torch.set_float32_matmul_precision("high")

    # 1. The data, and where this runs.
    run = Run(options)
    print(run.environment, f"{len(run.corpus.sources)} pairs", sep="\n", flush=True)

    # 2. The teachers and their translations.
    made = run.teachers()

    # 3. The students, a round after the other.
    plan = PLANS[options.plan]
    for seed in options.seeds:
        for recipes in plan.rounds(seed):
            run.train([run.arm(recipe, made) for recipe in recipes], plan.decodings)
            if DEVICE == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
