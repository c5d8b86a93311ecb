"""Sentences of two clauses: reasons, conditions, reports and indirect questions."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

import drawing
from clauses import Clause, Subject, english
from german import SECOND_CHOICE, Part, Weighted, german
from inflection import Pronoun
from sentences import WHY, Source, draw_for_question_word, make_source, registers

STYLES = {"p": ("perfect", "preterite"), "f": ("present", "future")}
# English; German; the tenses that follow; whether German may drop its conjunction.
THAT = (
    ("I think", ("ich glaube", "ich denke"), "pfns", True),
    ("I hope", ("ich hoffe",), "f", True),
    ("I know", ("ich weiß",), "pfns", False),
    ("my mother says", ("meine Mutter sagt",), "pfns", True),
    ("my brother says", ("mein Bruder sagt",), "pfns", True),
)
WHETHER = (
    ("I do not know", ("ich weiß nicht",), ("ich weiß nicht",)),
    ("do you know", ("weißt du",), ("wissen Sie",)),
    ("can you tell me", ("kannst du mir sagen",), ("können Sie mir sagen",)),
)
DUTIES = ("have to", "should")  # no good with a condition
GOOD_WEATHER = ("the sun > shine", "the weather > be nice", "it > be warm")
BAD_WEATHER = ("it > rain", "it > snow", "it > be cold", "the weather > be bad")
# Flag of the main clause, whether it is negated, and what gives its reason.
REASONS = (
    ("S", False, BAD_WEATHER),
    ("A", False, (*GOOD_WEATHER, "have time")),
    ("A", True, (*BAD_WEATHER, "be ill", "be tired", "have no time", "have to work")),
    ("H", False, ("be hungry",)),
    ("T", False, ("be thirsty",)),
    ("U", False, ("be tired", "be ill")),
    ("F", True, ("be ill", "have no time", "have to work", "be tired")),
)
CONDITIONS = (
    ("S", BAD_WEATHER),
    ("S", BAD_WEATHER),
    ("A", (*GOOD_WEATHER, "have time")),
    ("A", (*GOOD_WEATHER, "have time")),
    ("F", ("have time",)),
    ("F", ("have time",)),
    ("H", ("be hungry",)),
    ("T", ("be thirsty",)),
)


def _state(name: str, subject: Subject, tense: str) -> Clause:
    fixed, predicate = drawing.states()[name]
    can_go_on = name in ("it > rain", "it > snow", "the sun > shine")
    if can_go_on:
        tense = {"p": "c", "n": "n", "f": "s", "h": "s"}[tense]
    else:
        tense = "p" if tense == "p" else "s"
    return Clause(fixed or subject.pronoun, predicate, tense)


def draw_because(rng: Random) -> Source:
    """Draw a statement with its reason: "..., because it is raining"."""
    flag, is_negated, names = rng.choice(REASONS)
    main = drawing.draw_clause(rng, flag, "pn", may_negate=False)
    main = replace(main, company=None, place=None, vehicle=None, modal=None)
    main = replace(main, is_negated=is_negated)
    if main.tense == "n":
        main = replace(main, time=next(t for t in drawing.times("n") if t.english == "today"))
    elif rng.random() < 0.5:
        main = replace(main, time=None)
    elif flag in "HTU" and "K" not in main.time.tenses:
        main = replace(main, time=drawing.draw_time(rng, "q", "p"))
    reason = _state(rng.choice(names), main.subject, main.tense)

    def write() -> Iterator[Weighted]:
        for options in _manners(main):
            for conjunction, weight in (("weil", 1.0), ("da", 0.3)):
                yield from _joined(main, reason, conjunction, weight, options)
            for first, second in product(
                german(main, "second", **options), german(reason, "second", **options)
            ):
                yield _pair(first, ("conjunction", "denn"), second, 0.5)

    return make_source(f"{english(main)} because {english(reason)}", ".", write)


def draw_condition(rng: Random) -> Source:
    """Draw a condition: "If it rains tomorrow, ...", "When it rains, ..."."""
    flag, names = rng.choice(CONDITIONS)
    main = drawing.draw_clause(rng, flag, "h" if flag in "HT" else "fh", ("you",), False)
    is_habit = main.tense == "h"
    main = replace(main, time=None, company=None if main.goal else main.company)
    if main.modal in DUTIES:
        main = replace(main, modal=None)
    if flag in "HTS":
        main = replace(main, place=None)
    side = _state(rng.choice(names), main.subject, main.tense)
    if not is_habit:
        days = [time for time in drawing.times("f") if time.english not in drawing.NEVER_NEGATED]
        side = replace(side, time=rng.choice(days))
    conjunctions = (("wenn", 1.0),) if is_habit else (("wenn", 1.0), ("falls", 0.4))

    def write() -> Iterator[Weighted]:
        for options in _manners(main):
            for conjunction, weight in conjunctions:
                yield from _joined(main, side, conjunction, weight, options)

    first, second = _named_once(side, main)
    word = "when" if is_habit else "if"
    return make_source(f"{word} {english(first)}, {english(second)}", ".", write)


def _manners(main: Clause) -> Iterator[dict]:
    """List the ways to say both clauses alike: informal or formal, in one tense."""
    styles = (None,) if main.modal else STYLES.get(main.tense, (None,))
    for is_formal, style in product(registers(main), styles):
        if style != "preterite" or main.subject.addressed(is_formal).person != "2s":
            yield {"is_formal": is_formal, "style": style, "may_open_with_time": False}


def _named_once(first: Clause, second: Clause) -> tuple[Clause, Clause]:
    """Name a shared subject in the clause that comes first, and not again."""
    if first.subject == second.subject.pronoun:
        first = replace(first, subject=second.subject)
        second = replace(second, subject=second.subject.pronoun)
    return first, second


def _pair(first: Weighted, link: Part, second: Weighted, weight: float) -> Weighted:
    parts = (*first[0], ("mark", ","), link, *second[0])
    return parts, first[1] * second[1] * weight


def _joined(main: Clause, side: Clause, conjunction: str, weight: float, options: dict):
    """A main clause with a subordinate one, behind it and before it."""
    link = ("conjunction", conjunction)
    for first, second in product(
        german(main, "second", **options), german(side, "final", **options)
    ):
        yield _pair(first, link, second, weight)
    named, again = _named_once(side, main)
    for (side_parts, side_weight), (main_parts, main_weight) in product(
        german(named, "final", **options), german(again, "first", **options)
    ):
        parts = (link, *side_parts, ("mark", ","), *main_parts)
        yield parts, side_weight * main_weight * weight * SECOND_CHOICE


def draw_report(rng: Random) -> Source:
    """Draw what somebody thinks or says: "I think that ..."."""
    opening, german_openings, tenses, may_drop = rng.choice(THAT)
    without = ("I",) if opening.startswith("I ") else ("I", "she", "he", "my mother", "my brother")
    clause = drawing.draw_clause(rng, "", tenses, without)
    has_odd_modal = opening == "I hope" and clause.modal != "can"
    clause = replace(clause, company=None, modal=None if has_odd_modal else clause.modal)

    def write() -> Iterator[Weighted]:
        for is_formal, (rank, words) in product(registers(clause), enumerate(german_openings)):
            weight = SECOND_CHOICE**rank
            head = ((("opening", words), ("mark", ",")), weight)
            for parts, share in german(clause, "final", is_formal=is_formal):
                yield (*head[0], ("conjunction", "dass"), *parts), share * weight
            if may_drop:
                options = {"is_formal": is_formal, "may_open_with_time": False}
                for parts, share in german(clause, "second", **options):
                    yield (*head[0], *parts), share * weight * SECOND_CHOICE

    return make_source(f"{opening} that {english(clause)}", ".", write)


def draw_indirect_question(rng: Random) -> Source:
    """Draw an indirect question: "Do you know whether ...?"."""
    opening, *german_openings = rng.choice(WHETHER)
    asked, words = rng.choice((("whether", ("ob",)), ("when", ("wann",)), ("why", WHY)))
    if asked == "whether":
        clause = drawing.draw_clause(rng, "", "pfns", ("I", "you", "we"), may_negate=False)
    else:
        while True:
            clause = draw_for_question_word(rng, asked)
            if clause.subject.english not in ("I", "you"):
                break
    clause = replace(clause, company=None)
    if isinstance(clause.object, Pronoun) and clause.object.text == "you":
        clause = replace(clause, object=drawing.OBJECT_PRONOUNS[0])
    mark = "." if opening.startswith("I") else "?"

    def write() -> Iterator[Weighted]:
        for is_formal in registers(always=mark == "?"):
            for rank, word in enumerate(words):
                spoken = german(clause, "final", is_formal=is_formal, style="perfect")
                for parts, weight in spoken:
                    head = (("opening", german_openings[is_formal][0]), ("mark", ","))
                    yield (*head, ("conjunction", word), *parts), weight * SECOND_CHOICE**rank

    return make_source(f"{opening} {asked} {english(clause)}", mark, write)
