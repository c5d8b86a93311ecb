"""Sentences of one clause: statements, questions and requests, in English and all right German."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import drawing
from clauses import Clause, Subject, english
from german import Part, Weighted, german
from inflection import NounPhrase, Pronoun

WHO = Subject("who", ("wer",), "3s", "their", "sein")
WHY = ("warum", "wieso")
BEYOND_WHY = ("have", "lose", "find", "forget")  # nobody does these for a reason


@dataclass(frozen=True)
class Source:
    """An English sentence, what it means, and its German translations, made when asked for.

    `meaning` is one and the same for all sources that could share a translation: the order of the
    English does not count, nor does "you" against "they" (both can be "Sie").
    """

    english: str
    meaning: str
    write_german: Callable[[], Iterator[Weighted]]

    def translations(self) -> dict[str, float]:
        """List the German translations with their weights, in a fixed order."""
        found: dict[str, float] = {}
        for parts, weight in self.write_german():
            sentence = render(parts, self.english[-1])
            found[sentence] = found.get(sentence, 0.0) + weight
        return found


def render(parts: tuple[Part, ...], mark: str) -> str:
    """Join the parts of a sentence, commas close to the word before, and close it with its mark."""
    text = " ".join([text for _, text in parts]).replace(" ,", ",")
    return text[0].upper() + text[1:] + mark


def make_source(text: str, mark: str, write_german, fronted: str | None = None) -> Source:
    """Make a source of an English text, its closing mark and what writes its German.

    `fronted` is the text to show where English opens with the time; it means the same.
    """
    words = ["they" if word in ("you", "You") else word for word in text.split()]
    words = ["their" if word == "your" else word for word in words]
    shown = fronted or text
    sentence = shown[0].upper() + shown[1:] + mark
    return Source(sentence, " ".join(words) + mark, write_german)


def registers(*clauses: Clause, always: bool = False) -> tuple[bool, ...]:
    """List whether the listener is du (False), Sie (True), or not in the sentence (False only)."""
    is_addressed = always or any(
        clause.subject.english == "you"
        or (isinstance(clause.object, Pronoun) and clause.object.text == "you")
        for clause in clauses
    )
    return (False, True) if is_addressed else (False,)


def draw_statement(rng: Random) -> Source:
    """Draw a statement: "Tomorrow I will ..."."""
    clause = drawing.draw_clause(rng)
    while clause.subject.english == "you" and clause.tense == "f" and not clause.modal:
        clause = drawing.draw_clause(rng)  # nobody tells others what they will do
    time = clause.time
    fronted = None
    if time and "m" not in time.tenses and rng.random() < 0.3:
        fronted = f"{time.english} {english(replace(clause, time=None))}"

    def write() -> Iterator[Weighted]:
        for is_formal in registers(clause):
            yield from german(clause, "second", is_formal=is_formal)

    return make_source(english(clause), ".", write, fronted)


def draw_liking(rng: Random) -> Source:
    """Draw a statement or question with "like to"."""
    clause = drawing.draw_clause(rng, "l", "h", may_negate=False)
    time = clause.time
    if not time or "m" in time.tenses or "every" in time.english or rng.random() < 0.4:
        time = None
    while not time and clause.object and not clause.object.is_definite:
        if clause.object.noun.is_bare:
            break
        clause = drawing.draw_clause(rng, "l", "h", may_negate=False)
    clause = replace(clause, time=time, is_liked=True)
    return _statement_or_question(rng, clause)


def _statement_or_question(rng: Random, clause: Clause) -> Source:
    is_question = clause.subject.person not in ("1s", "1p") and rng.random() < 0.4
    order = "first" if is_question else "second"

    def write() -> Iterator[Weighted]:
        for is_formal in registers(clause):
            yield from german(clause, order, is_formal=is_formal)

    return make_source(english(clause, is_question=is_question), "?" if is_question else ".", write)


def _draw_asked(rng: Random, flag: str = "", tenses: str = "pfhns", may_negate=False) -> Clause:
    clause = drawing.draw_clause(rng, flag, tenses, ("I", "we", "you"), may_negate)
    is_you = rng.random() < 0.4 and clause.modal != "should"
    if is_you and not (isinstance(clause.object, Pronoun) and clause.object.text == "you"):
        you = next(subject for subject in drawing.subjects() if subject.english == "you")
        clause = replace(clause, subject=you)
    return clause


def draw_question(rng: Random) -> Source:
    """Draw a yes-no question, a request among them: "Can you please ...?"."""
    if rng.random() < 0.15:
        clause = replace(_draw_order(rng), tense="f", modal="can")
    else:
        clause = _draw_asked(rng)

    def write() -> Iterator[Weighted]:
        for is_formal in registers(clause):
            yield from german(clause, "first", is_formal=is_formal)

    return make_source(english(clause, is_question=True), "?", write)


def draw_wh_question(rng: Random) -> Source:
    """Draw a question with when, where, why, what or who."""
    asked = rng.choice(("when", "where", "why", "what", "who"))
    is_who = asked == "who"
    words = {"when": ("wann",), "where": ("wo",), "why": WHY, "what": ("was",)}.get(asked, ())
    clause = draw_for_question_word(rng, asked)

    def write() -> Iterator[Weighted]:
        for is_formal in registers(clause):
            options = {"is_formal": is_formal, "asked": words, "may_open_with_time": False}
            yield from german(clause, "second", **options)

    return make_source(english(clause, asked, is_question=not is_who), "?", write)


def draw_for_question_word(rng: Random, asked: str) -> Clause:
    while True:
        flag, tenses = "w" if asked == "what" else "", "pn" if asked == "why" else "pfh"
        clause = _draw_asked(rng, flag, tenses, may_negate=asked == "why")
        noun, verb = clause.object, clause.predicate.verb.base
        is_habit, keeps_time = clause.tense == "h", rng.random() < 0.6
        if asked == "when" and not is_habit and verb not in ("eat", "drink"):
            if isinstance(noun, NounPhrase):
                clause = replace(clause, place=None, object=replace(noun, adjective=None))
            return replace(clause, time=None)
        has_place = clause.place and verb != "arrive"
        if asked == "where" and has_place and not (noun and " of " in noun.english()):
            if isinstance(noun, NounPhrase) and noun.article == "a" and not noun.noun.is_name:
                is_meal_or_book = verb in ("eat", "drink", "read")
                if is_meal_or_book or is_habit and not noun.noun.is_bare:
                    continue
                noun = noun if is_habit else replace(noun, article="t")
            # Without its time, the German present could mean a habit as well as the future.
            keeps_time = keeps_time or clause.tense == "f"
            time = clause.time if keeps_time and not is_habit else None
            return replace(clause, place=None, object=noun, time=time, company=None)
        if asked == "why" and verb not in BEYOND_WHY:
            return clause
        if asked == "what" and not is_habit:
            return replace(clause, object=None)
        is_possessive = isinstance(noun, NounPhrase) and noun.article == "p"
        if asked == "who" and not (is_possessive or clause.company or clause.recipient):
            return replace(clause, subject=WHO)


def _draw_order(rng: Random) -> Clause:
    """What somebody is asked to do."""
    while True:
        clause = drawing.draw_clause(rng, "i", "p", may_negate=False)
        you = next(subject for subject in drawing.subjects() if subject.english == "you")
        noun = clause.object
        is_odd = isinstance(noun, NounPhrase) and noun.article == "p"
        if not is_odd and not (isinstance(noun, Pronoun) and noun.text == "you"):
            break
    can_wait = any(
        clause.predicate == entry.predicate and "f" in entry.flags for entry in drawing.entries("i")
    )
    time = drawing.draw_time(rng, "q", "f") if can_wait and rng.random() < 0.5 else None
    return replace(clause, subject=you, tense="i", modal=None, time=time, is_polite=True)


def draw_imperative(rng: Random) -> Source:
    """Draw a request: "Please ..."."""
    clause = _draw_order(rng)

    def write() -> Iterator[Weighted]:
        for is_formal in (False, True):
            yield from german(clause, "first", is_formal=is_formal, style="imperative")

    nobody = replace(clause.subject, english="")
    return make_source(english(replace(clause, subject=nobody)), ".", write)
