"""Which models recipes.py trains: the losses, the ways to train for several passes, the plans."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Loss:
    """What a model learns by.

    Attributes:
        kind: "autoregressive", "cross entropy" (uniform masks), "AXE", or "family": `axe_loss` at
            a temperature.
        delta: Price of a target that is left out, in the log-probability of saying it.
        canvas: Length of the canvas over the target's.
        jitter: The canvas is up to this share longer or shorter, at random.
        temperature: Of the soft minimum over alignments, in nats.
    """

    name: str
    kind: str
    delta: float = 3.0
    canvas: float = 1.0
    jitter: float = 0.0
    allow_repetition: bool = False
    temperature: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Passes:
    """What a model is shown in training, so that it can decode in several passes.

    Attributes:
        kind: "GLAT" shows tokens of the best alignment, as many as the model got wrong, times
            `ratio`; "Imputer" a random share of them, "SMART" a random share of the model's own
            draft, where everything is still to be predicted.
        full: Share of the sentences of "Imputer" and "SMART" that see masks only.
    """

    kind: str
    ratio: float = 0.5
    full: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """One model and its training.

    Attributes:
        stages: A loss and what is shown, one after the other; the last decides how to decode.
        switch: Share of the steps after which the second stage begins.
        is_warm: Whether it starts from the teacher's weights.
        is_distilled: Whether it learns the teacher's greedy translations, not the human ones.
    """

    arm: str
    stages: tuple[tuple[Loss, Passes | None], ...]
    seed: int
    is_warm: bool = False
    is_distilled: bool = False
    switch: float = 0.0
    learning_rate: float = 1e-3

    @property
    def loss(self) -> Loss:
        return self.stages[-1][0]

    @property
    def is_teacher(self) -> bool:
        return self.loss.kind == "autoregressive"

    def __str__(self) -> str:
        start, targets = self.start_and_targets
        return f"{self.arm}, {start}, {targets}, seed {self.seed}"

    @property
    def start_and_targets(self) -> tuple[str, str]:
        targets = "distilled" if self.is_distilled else "raw"
        return "warm" if self.is_warm else "cold", targets


@dataclass(frozen=True)
class Decoding:
    """One way to decode one split; the beams are the teacher's, the rest the students'."""

    split: str
    num_iterations: int = 1
    num_length_candidates: int = 1
    num_beams: int = 1


TEACHER_DECODINGS = (Decoding("test"), Decoding("validation"), Decoding("test", num_beams=5))
DECODINGS = (
    Decoding("test", 1),
    Decoding("test", 1, 5),
    Decoding("test", 4),
    Decoding("validation", 1),
    Decoding("validation", 1, 5),
)
MORE_DECODINGS = (
    *DECODINGS,
    Decoding("test", 2),
    Decoding("test", 10),
    Decoding("test", 4, 5),
    Decoding("test", 10, 5),
)

AUTOREGRESSIVE = Loss("autoregressive", "autoregressive")
CROSS_ENTROPY = Loss("cross entropy", "cross entropy")
AXE = Loss("AXE", "AXE", canvas=1.4, jitter=0.2)
CTC = Loss("CTC", "family", math.inf, 2.0, 0.2, allow_repetition=True, temperature=1.0)
SUM = replace(CTC, name="sum with repetition, delta 3", delta=3.0)
# The paper's AXE on the canvas of CTC, for the first steps.
AXE_FIRST = replace(CTC, name="AXE", kind="AXE", delta=3.0)


def teacher(seed: int) -> Recipe:
    return Recipe("teacher", ((AUTOREGRESSIVE, None),), seed)


def warm(arm: str, loss: Loss, seed: int, passes: Passes | None = None, **options) -> Recipe:
    """From the teacher's weights, on the teacher's translations."""
    return Recipe(arm, ((loss, passes),), seed, is_warm=True, is_distilled=True, **options)


def cold(arm: str, loss: Loss, seed: int, **options) -> Recipe:
    """From nothing, on human translations."""
    return Recipe(arm, ((loss, None),), seed, **options)


def after_axe(recipe: Recipe, switch: float) -> Recipe:
    return replace(recipe, stages=((AXE_FIRST, None), *recipe.stages), switch=switch)


def in_second_half(recipe: Recipe, passes: Passes) -> Recipe:
    return replace(recipe, stages=((recipe.loss, None), (recipe.loss, passes)), switch=0.5)


def losses(seed: int) -> list[list[Recipe]]:
    """Four losses, each with two starts and two kinds of targets."""
    cases = [(start, targets) for start in (False, True) for targets in (False, True)]
    return [
        [
            Recipe(loss.name, ((loss, None),), seed, *case)
            for loss in (CROSS_ENTROPY, AXE, CTC, SUM)
            for case in cases
        ]
    ]


def passes(seed: int) -> list[list[Recipe]]:
    """Training for several passes, all from a warm start on distilled targets."""
    plain = warm("", CTC, seed)
    return [
        [
            warm("GLAT", CTC, seed, Passes("GLAT")),
            in_second_half(replace(plain, arm="GLAT in the second half"), Passes("GLAT", 0.3)),
            warm("Imputer", CTC, seed, Passes("Imputer", full=0.3)),
            in_second_half(replace(plain, arm="Imputer in the second half"), Passes("Imputer")),
            warm("SMART", CTC, seed, Passes("SMART", full=0.3)),
            in_second_half(replace(plain, arm="SMART in the second half"), Passes("SMART")),
            warm("Imputer, 10 % full masks", CTC, seed, Passes("Imputer", full=0.1)),
            warm("Imputer, sum with repetition", SUM, seed, Passes("Imputer")),
        ]
    ]


def settings(seed: int) -> list[list[Recipe]]:
    """CTC's settings one by one; not run on a GPU to the end yet."""

    def changed(start: Callable, name: str, **changes) -> Recipe:
        return start(f"CTC, {name}", replace(CTC, **changes), seed)

    return [
        [
            changed(warm, "temperature 0.05", temperature=0.05),
            changed(warm, "temperature 0.3", temperature=0.3),
            changed(warm, "no repetition, delta 3", allow_repetition=False, delta=3.0),
            changed(warm, "delta 1", delta=1.0),
            *(changed(warm, f"canvas {canvas}", canvas=canvas) for canvas in (1.5, 3.0)),
            changed(warm, "no jitter", jitter=0.0),
            *(
                changed(start, "label smoothing 0.05", label_smoothing=0.05)
                for start in (warm, cold)
            ),
            *(warm(f"CTC, rate {rate}", CTC, seed, learning_rate=rate) for rate in (5e-4, 2e-3)),
            after_axe(warm("CTC after 30 % AXE", CTC, seed), 0.3),
            after_axe(cold("CTC after 10 % AXE", CTC, seed), 0.1),
            after_axe(cold("CTC after 30 % AXE", CTC, seed), 0.3),
            changed(cold, "canvas 3.0", canvas=3.0),
            cold("CTC, rate 0.002", CTC, seed, learning_rate=2e-3),
        ]
    ]


def large(seed: int) -> list[list[Recipe]]:
    """What the larger datasets have time for; the second round has not been run yet."""
    return [
        [
            warm("CTC", CTC, seed),
            warm("AXE", AXE, seed),
            cold("AXE", AXE, seed),
            after_axe(cold("CTC after 30 % AXE", CTC, seed), 0.3),
        ],
        [
            cold("CTC", CTC, seed),
            cold("cross entropy", CROSS_ENTROPY, seed),
            warm(SUM.name, SUM, seed),
            after_axe(warm("CTC after 30 % AXE", CTC, seed), 0.3),
            warm("cross entropy", CROSS_ENTROPY, seed),
        ],
    ]


@dataclass(frozen=True)
class Plan:
    """Rounds of models, those of a round trained side by side, and how they are decoded."""

    rounds: Callable[[int], Iterable[list[Recipe]]]
    decodings: tuple[Decoding, ...] = DECODINGS


PLANS = {
    "losses": Plan(losses),
    "passes": Plan(passes, MORE_DECODINGS),
    "settings": Plan(settings),
    "large": Plan(large),
}
