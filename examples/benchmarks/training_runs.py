"""The runs that training.py compares: by `AxeTrainer`, and by a bare PyTorch loop."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import datasets
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

import axe_hf
from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration
from axe_hf.data import PHRASEBOOK, DataCollatorForCmlm, MaxTokensBatchSampler

# What both kinds of training do.
OPTIMIZER = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-6}
WEIGHT_DECAY, MAX_GRAD_NORM, SEED = 0.01, 1.0, 0


@dataclass(frozen=True)
class Size:
    """A model, the tokens of a batch, the steps of a round."""

    vocab_size: int
    d_model: int
    num_layers: int  # of each side
    num_heads: int
    max_tokens: int
    num_steps: int

    def config(self, **loss: Any) -> CmlmConfig:
        sizes = {"vocab_size": self.vocab_size, "d_model": self.d_model}
        for side in ("encoder", "decoder"):
            sizes[f"{side}_layers"] = self.num_layers
            sizes[f"{side}_attention_heads"] = self.num_heads
            sizes[f"{side}_ffn_dim"] = 4 * self.d_model
        return CmlmConfig(max_source_length=256, max_target_length=256, **sizes, **loss)


SIZES = {
    "tiny": Size(400, 16, 1, 2, 64, 6),
    "small": Size(2000, 192, 2, 4, 256, 100),  # of recipes/small_cpu.yaml
    "base": Size(32768, 512, 6, 8, 1024, 6),  # of recipes/wmt14_en_de.yaml
}
LOSSES = {
    "AXE": {"axe_delta": 3.0, "masking": "full", "length_multiplier": 1.4},
    "CTC": {"axe_delta": float("inf"), "allow_repetition": True, "axe_temperature": 1.0}
    | {"masking": "full", "length_multiplier": 2.0},
    "cross entropy": {"training_loss": "cross_entropy", "masking": "uniform"},
}


@dataclass(frozen=True)
class Setting:
    """What is the same in all runs that are compared."""

    size: Size
    loss: str
    data: str  # its name
    rows: Dataset  # tokenized sentence pairs
    tokenizer: Any
    device: str
    num_steps: int

    def with_loss(self, loss: str) -> "Setting":
        return replace(self, loss=loss)

    def model(self, attention: str = "sdpa") -> CmlmForConditionalGeneration:
        """The same weights each time."""
        torch.manual_seed(0)
        model = CmlmForConditionalGeneration(self.size.config(**LOSSES[self.loss]))
        model.set_attn_implementation(attention)
        return model.to(self.device)

    def collator(self) -> DataCollatorForCmlm:
        config = self.size.config(**LOSSES[self.loss])
        names = ("masking", "length_multiplier", "allow_repetition")
        options = {name: getattr(config, name) for name in names}
        return DataCollatorForCmlm(
            self.tokenizer, max_canvas_length=config.max_target_length, **options
        )

    def sampler(self) -> MaxTokensBatchSampler:
        columns = (self.rows["input_ids"], self.rows["labels"])
        lengths = [(len(source), len(target)) for source, target in zip(*columns, strict=True)]
        return MaxTokensBatchSampler(lengths, self.size.max_tokens, SEED)


def load_rows(
    train_file: str | None, size: Size, num_steps: int, *, source_lang: str, target_lang: str
) -> tuple[str, Dataset, Any]:
    """Name, tokenized rows (enough for the steps, drawn from the whole file) and tokenizer."""
    datasets.disable_progress_bars()
    languages = {"source_lang": source_lang, "target_lang": target_lang}
    name = "phrasebook" if train_file is None else Path(train_file).name.split(".")[0]
    source = PHRASEBOOK / "train.jsonl.gz" if train_file is None else train_file
    pairs = axe_hf.load_translations(source, **languages).shuffle(seed=0)
    # Sentences have five tokens and more.
    pairs = pairs.select(range(min(len(pairs), max(500, num_steps * size.max_tokens // 5))))
    texts = (text for pair in pairs["translation"] for text in pair.values())
    tokenizer = axe_hf.train_tokenizer(texts, vocab_size=min(size.vocab_size, 8000))
    limits = {"max_source_length": min(128, size.max_tokens), "max_target_length": 128}
    limits["max_target_length"] = limits["max_source_length"]
    return name, axe_hf.tokenize_translations(pairs, tokenizer, **languages, **limits), tokenizer


@dataclass
class Run:
    """Times, tokens and positions of the steps of one training, and the model at its end."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # of all threads of the process
    tokens: list[int] = field(default_factory=list)  # of source and target
    positions: list[int] = field(default_factory=list)  # with their padding
    model: Any = None
    turn: "Turn | None" = None  # if another process trains in between

    def count(self, features: list[dict[str, Any]]) -> None:
        """Count a batch of tokenized pairs."""
        lengths = [[len(row[name]) for row in features] for name in ("input_ids", "labels")]
        self.tokens.append(sum(map(sum, lengths)))
        self.positions.append(len(features) * sum(map(max, lengths)))

    def start(self, device: str) -> None:
        if self.turn is not None:
            self.turn.wait()
        self._last = Moment.now(device)

    def end_step(self, device: str) -> None:
        moment = Moment.now(device)
        self.seconds.append(moment.wall - self._last.wall)
        self.cpu_seconds.append(moment.cpu - self._last.cpu)
        if self.turn is not None:
            self.turn.pass_on()
        self._last = Moment.now(device)

    def after(self, warm_up: int) -> "Run":
        """The same without the first steps, and without batches that no step came to."""
        counted = slice(warm_up, len(self.seconds))
        lists = (self.seconds, self.cpu_seconds, self.tokens, self.positions)
        return Run(*(values[counted] for values in lists), model=self.model)

    def tokens_per_second(self) -> float:
        return sum(self.tokens) / sum(self.seconds)

    def tokens_per_cpu_second(self) -> float:
        return sum(self.tokens) / sum(self.cpu_seconds)


@dataclass
class Turn:
    """Lets two processes take their steps in turn: while one computes, the other sleeps."""

    mine: Any  # semaphores
    other: Any
    num_left: int  # steps

    def wait(self) -> None:
        if not self.mine.acquire(timeout=900):
            raise TimeoutError("the other process has ended in the middle of its training")

    def pass_on(self) -> None:
        self.other.release()
        self.num_left -= 1
        if self.num_left:
            self.wait()


@dataclass(frozen=True)
class Moment:
    """Two clocks, when all that was asked for is done."""

    wall: float
    cpu: float

    @classmethod
    def now(cls, device: str) -> "Moment":
        if device == "cuda":
            torch.cuda.synchronize()
        return cls(perf_counter(), process_time())


def by_trainer(
    setting: Setting, attention: str = "sdpa", turn: Turn | None = None, **training: Any
) -> Run:
    """Train by `AxeTrainer`, by a token budget unless its arguments `training` say otherwise."""
    run, collator = Run(turn=turn), setting.collator()

    class StepTimes(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            run.start(setting.device)

        def on_step_end(self, *args, **kwargs):
            run.end_step(setting.device)

    def collate(features):
        run.count(features)
        return collator(features)

    if "per_device_train_batch_size" not in training:
        training["max_tokens_per_batch"] = setting.size.max_tokens
    training |= {"max_steps": setting.num_steps, "seed": SEED, "lr_scheduler_type": "constant"}
    training |= {"warmup_steps": 0, "learning_rate": OPTIMIZER["lr"], "weight_decay": WEIGHT_DECAY}
    training |= {"max_grad_norm": MAX_GRAD_NORM, "optim": "adamw_torch_fused"}
    training |= {"adam_epsilon": OPTIMIZER["eps"], "adam_beta2": OPTIMIZER["betas"][1]}
    training |= {"save_strategy": "no", "use_cpu": setting.device == "cpu", "disable_tqdm": True}
    recipe = {name: LOSSES[setting.loss].get(name) for name in ("masking", "length_multiplier")}
    with tempfile.TemporaryDirectory() as folder:
        args = AxeTrainingArguments(folder, **training, **recipe)
        model = setting.model(attention)
        trainer = AxeTrainer(model, args, collate, setting.rows, None, setting.tokenizer)
        trainer.remove_callback(PrinterCallback)  # no lines between the tables
        trainer.add_callback(StepTimes)
        torch.manual_seed(1)
        trainer.train()
    run.model = model
    return run


class Profile:
    """Seconds of the parts of each step."""

    def __init__(self, device: str):
        self.device = device
        self.rounds: list[list[dict[str, float]]] = []

    def begin(self, model: CmlmForConditionalGeneration) -> None:
        """A new training, of which the forward passes of the model's halves are watched."""
        self.rounds.append([])
        for name in ("encoder", "decoder"):
            self._watch(getattr(model.model, name), name)

    def _watch(self, module: torch.nn.Module, name: str) -> None:
        started: list[float] = []
        module.register_forward_pre_hook(lambda *_: started.append(Moment.now(self.device).wall))
        module.register_forward_hook(
            lambda *_: self.add(name, Moment.now(self.device).wall - started.pop())
        )

    def add(self, name: str, seconds: float) -> None:
        self.rounds[-1][-1][name] = seconds

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done inside, but for what is watched there."""
        step, start = self.rounds[-1][-1], Moment.now(self.device).wall
        before = sum(step.values())
        yield
        inside = sum(step.values()) - before
        self.add(name, Moment.now(self.device).wall - start - inside)

    def steps_after(self, warm_up: int) -> list[dict[str, float]]:
        return [step for steps in self.rounds for step in steps[warm_up:]]


def by_loop(setting: Setting, profile: Profile | None = None, turn: Turn | None = None) -> Run:
    """Train by a loop as one would write it, on the batches and to the weights of `by_trainer`."""
    run, collator, model = Run(turn=turn), setting.collator(), setting.model()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, **OPTIMIZER, fused=True)

    def collate(features):
        run.count(features)
        return collator(features)

    rows = setting.rows.select_columns(["input_ids", "labels"])
    loader = DataLoader(rows, batch_sampler=setting.sampler(), collate_fn=collate)
    part = nullcontext
    if profile is not None:
        profile.begin(model)
        part = profile.part
    model.train()
    torch.manual_seed(1)
    batches = iter(loader)
    run.start(setting.device)
    for _ in range(setting.num_steps):
        if profile is not None:
            profile.rounds[-1].append({})
        with part("data"):
            batch = {name: ids.to(setting.device) for name, ids in next(batches).items()}
        with part("loss"):
            loss = model(**batch).loss
        with part("backward pass"):
            loss.backward()
        with part("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
        run.end_step(setting.device)
    run.model = model
    return run


def in_turn(setting: Setting) -> tuple[Run, Run]:
    """`by_loop` and `by_trainer`, each in a process of its own, a step of one after one of the
    other: what slows the machine down slows both down, and each pair of steps has one batch."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(2, mp_context=spawn) as pool:
        first, second = manager.Semaphore(1), manager.Semaphore(0)
        both = (("loop", first, second), ("trainer", second, first))
        threads, steps = torch.get_num_threads(), setting.num_steps
        runs = [
            pool.submit(_take_turns, name, setting, Turn(mine, other, steps), threads)
            for name, mine, other in both
        ]
        return runs[0].result(), runs[1].result()


def _take_turns(name: str, setting: Setting, turn: Turn, num_threads: int) -> Run:
    torch.set_num_threads(num_threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    run = by_loop(setting, turn=turn) if name == "loop" else by_trainer(setting, turn=turn)
    return replace(run, model=None, turn=None)
