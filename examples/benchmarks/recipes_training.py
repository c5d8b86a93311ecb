"""How recipes.py trains many models at once: each step one CUDA graph, each model on a stream.

Small models leave most of a GPU idle, and their hundreds of kernels a step keep the host busy. A
graph launches a step at once, and streams let the steps of several models overlap. On a CPU the
same code runs step by step.
"""

import math
import time
from collections.abc import Sequence

import torch
from recipes_data import BLANK, DEVICE, EOS, MASK, PAD, Corpus, Size, padded, to_width
from recipes_losses import compute_step
from recipes_plans import Decoding, Recipe
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from axe_hf import CmlmConfig, CmlmForConditionalGeneration

HAS_GRAPHS = DEVICE == "cuda"
SENTENCES_AT_ONCE = 512  # in evaluation; distillation takes twice as many


def make_model(recipe: Recipe, size: Size, vocab_size: int) -> nn.Module:
    """A teacher, or a student; one with a warm start is built as its teacher is."""
    sizes = {f"{side}_layers": size.num_layers for side in ("encoder", "decoder")}
    sizes |= {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 4 * size.d_model for side in ("encoder", "decoder")}
    sizes |= {"d_model": size.d_model, "vocab_size": vocab_size, "dropout": 0.1}
    marian = {"scale_embedding": True, "activation_function": "gelu"}
    if recipe.is_teacher:
        config = MarianConfig(
            **sizes,
            **marian,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
            max_position_embeddings=512,
            attn_implementation="sdpa",
        )
        return MarianMTModel(config)
    if recipe.is_warm:
        sizes |= marian | {"position_embedding_type": "sinusoidal"}
    config = CmlmConfig(
        **sizes,
        max_source_length=512,
        max_target_length=512,
        layer_norm_eps=1e-5 if recipe.is_warm else 1e-12,
        training_loss="axe",
        length_multiplier=recipe.loss.canvas,
        attn_implementation="sdpa",
    )
    return CmlmForConditionalGeneration(config)


def learning_rates(peak: float, num_steps: int) -> Tensor:
    """Up in a line for a twentieth of the steps, then down in half a cosine."""
    step, num_warm = torch.arange(num_steps + 10), max(1, int(0.05 * num_steps))
    progress = ((step - num_warm) / (num_steps - num_warm)).clamp(0, 1)
    cosine = 0.5 * (1 + torch.cos(math.pi * progress))
    return (torch.where(step < num_warm, (step + 1) / num_warm, cosine) * peak).float()


class Arm:
    """One model in training.

    Args:
        targets: `(pairs, max_length)`, long. What it learns to say.
        weights: Of the teacher, for a warm start; those that fit are taken.
    """

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        num_steps: int,
        targets: Tensor,
        weights: dict[str, Tensor] | None = None,
    ):
        self.recipe, self.corpus, self.targets = recipe, corpus, targets
        self.num_steps = num_steps
        torch.manual_seed(recipe.seed)
        model = make_model(recipe, corpus.size, len(corpus.tokenizer))
        if recipe.is_warm:
            own = model.state_dict()
            fits = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
            model.load_state_dict(fits, strict=False)
        self.model = model.to(DEVICE).train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.rates = learning_rates(recipe.learning_rate, num_steps).to(DEVICE)
        # Tensors, so that a graph reads what they hold when it is replayed.
        self.rate = torch.tensor(recipe.learning_rate, device=DEVICE)
        self.counter = torch.zeros((), dtype=torch.long, device=DEVICE)
        self.sums = torch.zeros(2, device=DEVICE)  # nats, target tokens
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.rate if HAS_GRAPHS else recipe.learning_rate,
            betas=(0.9, 0.98 if recipe.is_teacher else 0.999),
            eps=1e-6,
            weight_decay=0.01,
            **({"fused": True, "capturable": True} if HAS_GRAPHS else {}),
        )
        self.stream = torch.cuda.Stream() if HAS_GRAPHS else None
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self.orders: list[Tensor] = []  # (steps, batch) each: rows of the corpus
        self.counters: list[Tensor] = []
        self.num_batches = [self._add_bucket(*bucket) for bucket in self._buckets()]

    def _buckets(self) -> list[tuple[Tensor, int]]:
        """The rows of each bucket, and its batch size."""
        lengths = [ids.ne(PAD).sum(1) for ids in (self.corpus.sources, self.targets)]
        longest, low, buckets = torch.maximum(*lengths).cpu(), 0, []
        for width, batch in self.corpus.size.buckets:
            rows = ((longest > low) & (longest <= width)).nonzero()[:, 0]
            buckets.append((rows, batch))
            low = width
        return buckets

    def _add_bucket(self, rows: Tensor, batch: int) -> float:
        """Shuffles the rows often enough for all steps; returns how many batches they make."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        num_rows = (self.num_steps + 8) * batch
        order = [torch.empty(0, dtype=torch.long)]
        while len(rows) and sum(map(len, order)) < num_rows:
            order.append(rows[torch.randperm(len(rows), generator=generator)])
        order = torch.cat(order)[:num_rows]
        self.orders.append(order.view(-1, batch).to(DEVICE))
        self.counters.append(torch.zeros((), dtype=torch.long, device=DEVICE))
        return len(rows) / batch

    def _compute(self, bucket: int, stage: int) -> None:
        """One step, all of it."""
        self.rate.copy_(self.rates.index_select(0, self.counter[None])[0])
        for parameter in self.parameters:
            parameter.grad = None
        rows = self.orders[bucket].index_select(0, self.counters[bucket][None])[0]
        width = self.corpus.size.buckets[bucket][0]
        sources, targets = self.corpus.sources[rows, :width], self.targets[rows, :width]
        step = compute_step(self.model, self.recipe, stage, sources, targets)
        step.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not HAS_GRAPHS:
            self.optimizer.param_groups[0]["lr"] = self.rate.item()
        self.optimizer.step()
        self.sums[0] += step.nats
        self.sums[1] += step.num_tokens
        self.counter += 1
        self.counters[bucket] += 1

    def capture(self) -> None:
        """Records a graph for each bucket and stage, and takes back what the trial steps did."""
        if not HAS_GRAPHS:
            return
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        stages = range(len(self.recipe.stages))
        cases = [(k, stage) for stage in stages for k, n in enumerate(self.num_batches) if n]
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for case in cases:
                for _ in range(2):
                    self._compute(*case)
        torch.cuda.current_stream().wait_stream(self.stream)
        torch.cuda.synchronize()
        pool = None
        for case in cases:
            self.graphs[case] = graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                self._compute(*case)
            pool = graph.pool()
        self.model.load_state_dict(weights)
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        for tensor in (*states, self.counter, self.sums, *self.counters):
            tensor.zero_()

    def step(self, bucket: int, number: int) -> None:
        """Trains on the next batch of a bucket."""
        is_second = len(self.recipe.stages) > 1 and number >= self.recipe.switch * self.num_steps
        if not HAS_GRAPHS:
            self._compute(bucket, int(is_second))
            return
        with torch.cuda.stream(self.stream):
            self.graphs[bucket, int(is_second)].replay()

    def nats_per_token(self) -> float:
        """Mean training loss since the last call."""
        nats, num_tokens = self.sums.tolist()
        self.sums.zero_()
        return nats / max(1, num_tokens)

    @torch.no_grad()
    def translate(
        self, sources: Tensor, how: Decoding, at_once: int = SENTENCES_AT_ONCE
    ) -> list[list[int]]:
        """Ids per sentence; many sentences of like length at once."""
        self.model.eval()
        lengths = sources.ne(PAD).sum(1)
        outputs = [[]] * len(sources)
        for part in lengths.argsort().split(at_once):
            ids = sources[part][:, : int(lengths[part].max())]
            inputs = {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}
            if self.recipe.is_teacher:
                found = self.model.generate(
                    **inputs,
                    max_length=min(512, 2 * ids.shape[1] + 10),
                    do_sample=False,
                    suppress_tokens=[MASK, BLANK],
                    num_beams=how.num_beams,
                )
            else:
                found = self.model.generate(
                    **inputs,
                    collapse_repeats=self.recipe.loss.allow_repetition,
                    num_iterations=how.num_iterations,
                    num_length_candidates=how.num_length_candidates,
                )
            for row, output in zip(part.tolist(), found.tolist(), strict=True):
                outputs[row] = output
        self.model.train()
        return outputs


def distil(teacher: Arm) -> Tensor:
    """The teacher's greedy translations of the training sources, in the shape of the targets."""
    corpus, limit = teacher.corpus, teacher.corpus.size.max_length
    rows = teacher.translate(corpus.sources, Decoding("train"), 2 * SENTENCES_AT_ONCE)
    words = [[token for token in row if token not in (PAD, EOS, MASK, BLANK)] for row in rows]
    return to_width(padded([row[: limit - 1] + [EOS] for row in words]), limit).to(DEVICE)


def train(arms: Sequence[Arm]) -> None:
    """All arms side by side, a bucket drawn for each step in proportion to its batches."""
    for arm in arms:
        arm.capture()
    num_steps, generator = arms[0].num_steps, torch.Generator().manual_seed(0)
    # the last arm's batches; a bucket that holds nothing for some arm is left out
    is_full = torch.tensor([arm.num_batches for arm in arms]).gt(0).all(0)
    weights = torch.tensor(arms[-1].num_batches) * is_full
    buckets = torch.multinomial(weights, num_steps, replacement=True, generator=generator)
    start = time.perf_counter()
    for number, bucket in enumerate(buckets.tolist()):
        for arm in arms:
            arm.step(bucket, number)
        if number + 1 in (50, 200, num_steps) or (number + 1) % 1000 == 0:
            if HAS_GRAPHS:
                torch.cuda.synchronize()
            milliseconds = (time.perf_counter() - start) / (number + 1) * 1000
            print(f"step {number + 1}, {milliseconds:.2f} ms a step of all; nats per target token:")
            for arm in arms:
                print(f"    {arm.nats_per_token():.2f}  {arm.recipe}", flush=True)
    if HAS_GRAPHS:
        torch.cuda.synchronize()
    for arm in arms:
        arm.graphs.clear()
