"""What training by the recipes of the papers costs: operations, memory, hours; on paper.

    python examples/benchmarks/cost.py              # a minute on two cores
    python examples/benchmarks/cost.py --measure    # and tokens a second on this machine: 3 minutes

Operations are those of matrix products, two for each multiplication with its addition, which is how
`torch.utils.flop_counter` counts; a test holds each formula to it. Memory kept for the backward
pass is measured: the tensors that autograd saves in bf16 autocast, growth by the sentence, without
dropout, whose masks of one byte are added. Hours are those that the processors would take if they
did the given share of their peak on nothing but that; nobody has run this. Writes results/cost.csv.

Assumed, and changed by options: sentences of 30 tokens on both sides and no padding (a batch by
tokens has a few per cent of it); 80 GB of memory, of which a tenth stays free; an H100's 989e12
operations a second in bf16 without sparsity. Weights, gradients and Adam's two moments are float32,
16 bytes a parameter, and autocast keeps a copy of the weights of 2 bytes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
import yaml
from measuring import RESULTS, environment, markdown_table, write_csv

from axe_hf import CmlmConfig, CmlmForConditionalGeneration

RECIPES = Path(__file__).parents[1] / "recipes"
# How many GPUs the recipe is for: their number times its batch is the batch of its paper.
NUM_GPUS = {"wmt14_en_de": 8, "wmt16_en_ro": 8, "iwslt14_de_en": 1}
PEAK, FREE_SHARE = 989e12, 0.1
UTILISATIONS = (0.1, 0.2, 0.35)  # layers this narrow seldom reach more
CHUNK_BYTES = 2**28  # of logits, that the fused loss makes at a time on a GPU
PARTS = ("encoder", "decoder", "vocabulary", "length head")


@dataclass(frozen=True)
class Shape:
    """Sentences of a batch, and their positions."""

    batch: int
    source: int
    target: int
    canvas: int

    @property
    def budget(self) -> int:
        """What `max_tokens_per_batch` counts."""
        return self.batch * max(self.source, self.target)


def forward_flops(config: CmlmConfig, shape: Shape) -> dict[str, int]:
    """Operations of a forward pass, by part."""
    width, rows = config.d_model, shape.batch
    # Mask-Predict's length vector stands before the source.
    source, canvas = shape.source + 1, shape.canvas

    def attention(queries: int, keys: int, projected_keys: int) -> int:
        projections = 2 * width**2 * (2 * queries + 2 * projected_keys)
        return projections + 4 * queries * keys * width

    def layer(positions: int, ffn_dim: int) -> int:
        return attention(positions, positions, positions) + 4 * positions * width * ffn_dim

    over_source = attention(canvas, shape.source, shape.source)
    decoder_layer = layer(canvas, config.decoder_ffn_dim) + over_source
    parts = (
        config.encoder_layers * layer(source, config.encoder_ffn_dim),
        config.decoder_layers * decoder_layer,
        2 * canvas * width * config.vocab_size,
        2 * width * (config.max_target_length + 1),
    )
    return {name: rows * flops for name, flops in zip(PARTS, parts, strict=True)}


def training_flops(config: CmlmConfig, shape: Shape, checkpointing: bool = False) -> int:
    """Operations of a step: the backward pass has two products for each of the forward pass.

    The fused loss has as many as the other. With gradient checkpointing the layers are computed
    once more.
    """
    forward = forward_flops(config, shape)
    again = forward["encoder"] + forward["decoder"] if checkpointing else 0
    return 3 * sum(forward.values()) + again


def num_dropouts(config: CmlmConfig, shape: Shape) -> dict[str, int]:
    """Numbers that dropout decides over, in a sentence: at the embeddings and behind each block."""
    layers = {"encoder": 1 + 2 * config.encoder_layers, "decoder": 1 + 3 * config.decoder_layers}
    positions = {"encoder": shape.source + 1, "decoder": shape.canvas}
    return {side: layers[side] * positions[side] * config.d_model for side in layers}


def saved_bytes(run: Callable[[], object], model: torch.nn.Module) -> int:
    """Memory of what autograd saves in `run`, each storage once, the weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address comes twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def activation_bytes(config: CmlmConfig, shape: Shape) -> dict[str, float]:
    """Bytes that encoder and decoder keep of a sentence for the backward pass in bf16."""
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(replace_config(config, dropout=0.0)).train()
    encoder, decoder = model.model.encoder, model.model.decoder
    measured: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for batch in (1, 2):
        tokens = torch.randint(5, config.vocab_size, (batch, shape.source))
        canvas = torch.full((batch, shape.canvas), config.mask_token_id)
        states = torch.randn(batch, shape.source, config.d_model, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            runs = {
                "encoder": lambda tokens=tokens: encoder(tokens),
                "decoder": lambda canvas=canvas, states=states: decoder(
                    canvas, encoder_hidden_states=states
                ),
            }
            for side, run in runs.items():
                measured[side].append(saved_bytes(run, model))
    masks = num_dropouts(config, shape)
    return {side: two - one + masks[side] for side, (one, two) in measured.items()}


def replace_config(config: CmlmConfig, **changes) -> CmlmConfig:
    return CmlmConfig(**{**config.to_diff_dict(), **changes})


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step that do not grow with the batch, and of one sentence."""

    fixed: float
    a_sentence: float

    def largest_batch(self, memory: float, shape: Shape) -> int:
        """The largest token budget that fits, as `max_tokens_per_batch` counts."""
        free = memory * (1 - FREE_SHARE) - self.fixed
        return int(free / self.a_sentence) * max(shape.source, shape.target)


def memory_of(
    config: CmlmConfig,
    shape: Shape,
    activations: dict[str, float],
    num_parameters: int,
    is_fused: bool,
    checkpointing: bool,
) -> Memory:
    """Memory of a step, by how the loss is computed and whether layers keep their activations."""
    width = config.d_model
    fixed, a_sentence = 18.0 * num_parameters, float(sum(activations.values()))
    if checkpointing:  # a state for each layer; of one layer at a time all
        layers = (config.encoder_layers, config.decoder_layers)
        states = layers[0] * (shape.source + 1) + layers[1] * shape.canvas
        one_layer = max(a / n for a, n in zip(activations.values(), layers, strict=True))
        a_sentence = 4.0 * states * width + one_layer
    if is_fused:  # a chunk of logits, and the gradients of weight (float32) and states
        fixed += CHUNK_BYTES + 4 * config.vocab_size * width
        a_sentence += 4 * shape.canvas * width
    else:  # logits and their gradient
        a_sentence += 2 * 2 * shape.canvas * config.vocab_size
    return Memory(fixed, a_sentence)


@dataclass(frozen=True)
class Recipe:
    """A recipe's model and run."""

    name: str
    config: CmlmConfig
    shape: Shape  # of one sentence
    num_gpus: int
    tokens_a_step: int  # of all GPUs, as `max_tokens_per_batch` counts
    num_steps: int

    @classmethod
    def read(cls, name: str, length: int) -> "Recipe":
        settings = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        known = {key: value for key, value in settings.items() if hasattr(CmlmConfig, key)}
        config = CmlmConfig(**known)
        shape = Shape(1, length, length, round(length * config.length_multiplier))
        accumulated = settings.get("gradient_accumulation_steps", 1)
        tokens = NUM_GPUS[name] * settings["max_tokens_per_batch"] * accumulated
        return cls(name, config, shape, NUM_GPUS[name], tokens, settings["max_steps"])

    def num_parameters(self) -> int:
        with torch.device("meta"):
            return CmlmForConditionalGeneration(self.config).num_parameters()

    def flops(self, checkpointing: bool = False) -> float:
        """Of the whole run."""
        sentences = self.tokens_a_step / self.shape.budget * self.num_steps
        return training_flops(self.config, self.shape, checkpointing) * sentences

    def hours(self, utilisation: float, checkpointing: bool = False) -> float:
        return self.flops(checkpointing) / (self.num_gpus * PEAK * utilisation) / 3600


def operations(recipe: Recipe) -> list[dict]:
    """Millions of operations for each token of the target."""
    forward, lines = forward_flops(recipe.config, recipe.shape), []
    for part, flops in [*forward.items(), ("all", sum(forward.values()))]:
        a_token = flops / recipe.shape.target / 1e6
        share = f"{flops / sum(forward.values()):.1%}"
        values = {"forward": f"{a_token:.1f}", "backward": f"{2 * a_token:.1f}", "share": share}
        lines.append({"recipe": recipe.name, "part": part, **values})
    return lines


def memory_rows(recipe: Recipe, memory: float) -> list[dict]:
    """kB a token of the budget, and the largest budgets, for four ways to compute."""
    config, shape = recipe.config, recipe.shape
    activations, lines = activation_bytes(config, shape), []
    for is_fused in (False, True):
        for checkpointing in (False, True):
            how = (activations, recipe.num_parameters(), is_fused, checkpointing)
            found = memory_of(config, shape, *how)
            extra = training_flops(config, shape, checkpointing) / training_flops(config, shape)
            lines.append(
                {
                    "recipe": recipe.name,
                    "loss": "fused" if is_fused else "of logits",
                    "gradient checkpointing": "yes" if checkpointing else "no",
                    "fixed, GB": f"{found.fixed / 1e9:.2f}",
                    "kB a token": f"{found.a_sentence / shape.budget / 1e3:.1f}",
                    "largest max_tokens_per_batch": f"{found.largest_batch(memory, shape)}",
                    "operations, ratio": f"{extra:.2f}",
                }
            )
    parts = {side: f"{n / shape.budget / 1e3:.1f}" for side, n in activations.items()}
    print(f"{recipe.name}: activations a token, kB: {parts}", flush=True)
    return lines


def hours(recipe: Recipe) -> dict:
    """The whole run."""
    line = {"recipe": recipe.name, "parameters, million": f"{recipe.num_parameters() / 1e6:.1f}"}
    line |= {"tokens a step": str(recipe.tokens_a_step), "steps": str(recipe.num_steps)}
    line |= {"operations, 1e18": f"{recipe.flops() / 1e18:.2f}", "H100s": str(recipe.num_gpus)}
    return line | {f"hours at {u:.0%}": f"{recipe.hours(u):.1f}" for u in UTILISATIONS}


def measure(recipe: Recipe, batch: int, rounds: int) -> dict:
    """Tokens and operations a second of training steps on this machine, in float32."""
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(recipe.config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    shape = replace(recipe.shape, batch=batch)
    ids = {"input_ids": shape.source, "labels": shape.target}
    inputs = {
        name: torch.randint(5, recipe.config.vocab_size, (batch, length))
        for name, length in ids.items()
    }
    times = []
    for _ in range(1 + rounds):  # the first one warms up
        start = perf_counter()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(perf_counter() - start)
    taken = sorted(times[1:])[rounds // 2]
    line = {"recipe": recipe.name, "tokens a step": str(shape.budget), "s a step": f"{taken:.2f}"}
    line["target tokens a second"] = f"{batch * shape.target / taken:.0f}"
    done = training_flops(recipe.config, shape) / taken
    return line | {"operations a second, 1e9": f"{done / 1e9:.0f}"}


def long_rows(table: str, lines: list[dict]) -> list[dict]:
    """A row for each value, so that one file holds all tables."""
    keys = ("recipe", "part", "loss", "gradient checkpointing")
    return [
        {
            "table": table,
            "case": ", ".join(line[key] for key in keys if key in line),
            "quantity": name,
            "value": value,
        }
        for line in lines
        for name, value in line.items()
        if name not in keys
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", nargs="+", choices=NUM_GPUS, default=list(NUM_GPUS))
    parser.add_argument("--length", type=int, default=30, help="tokens of a sentence")
    parser.add_argument("--memory", type=float, default=80, help="of a GPU, in GB")
    parser.add_argument("--measure", action="store_true", help="also train here, some steps")
    parser.add_argument("--batch", type=int, default=16, help="sentences of a measured step")
    parser.add_argument("--rounds", type=int, default=3, help="steps that are measured")
    parser.add_argument("--output-dir", type=Path, default=RESULTS)
    options = parser.parse_args()
    recipes = [Recipe.read(name, options.length) for name in options.recipes]
    tables = {
        "operations": [line for recipe in recipes for line in operations(recipe)],
        "memory": [
            line for recipe in recipes for line in memory_rows(recipe, options.memory * 1e9)
        ],
        "hours": [hours(recipe) for recipe in recipes],
    }
    if options.measure:
        tables["measured"] = [measure(each, options.batch, options.rounds) for each in recipes]
    titles = {"operations": "Millions of operations a target token", "memory": "Memory on one GPU"}
    titles |= {"hours": "Whole runs, on paper", "measured": "Measured here, float32"}
    for name, lines in tables.items():
        print(f"\n{titles[name]}:\n")
        print(markdown_table(list(lines[0]), [tuple(line.values()) for line in lines]))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = [row for name, lines in tables.items() for row in long_rows(name, lines)]
    write_csv(options.output_dir / "cost.csv", rows, environment("cpu"))


if __name__ == "__main__":
    main()
