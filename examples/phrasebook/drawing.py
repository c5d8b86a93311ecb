"""Draws clauses at random from the phrasebook's tables."""

from dataclasses import dataclass
from functools import cache
from random import Random

from circumstances import CLOCK_TIMES, PLACES, TIMES
from clauses import Clause, Phrase, Predicate, Subject
from inflection import NounPhrase, Pronoun, alternatives, english_verb, nouns, rows
from predicates import PREDICATES, STATES
from words import SUBJECTS

# For each tense, how often it is drawn, and the modal verbs' share among past and future.
TENSE_WEIGHTS = {"p": 0.34, "f": 0.32, "h": 0.16, "n": 0.12, "s": 0.2}
MODAL_SHARE = 0.3
PRONOUN_SHARE = 0.6
NEGATED_SHARE = 0.2
COMPANY = ("friends", "sister", "brother", "family")
VEHICLES = {"1": ("by train", "by car", "by bus"), "2": ("by bus", "by bike", "by car")}
RECIPIENTS = ("parents", "sister", "brother", "aunt", "grandmother", "friends", "uncle")
# Whom old people no longer have, and whom a couple does not share.
ELDERS = ("parents", "grandmother", "grandfather", "aunt", "uncle", "boss", "mother", "father")
MISSING = {"o": ELDERS, "m": (*ELDERS, "sister", "brother")}
# Times that say too little of somebody without a place: "Paul always reads books."
NEED_PLACE = ("always", "usually")
# Times that do not suit the predicates of a flag: what people do every day they do not do "soon".
UNFIT_TIMES = {
    "h": ("soon",),
    "S": ("soon",),
    "e": ("later", "last week", "next week"),
    "v": ("this morning", "tomorrow morning"),
}
# Times whose scope a negation would blur.
NEVER_NEGATED = ("soon", "later")
OBJECT_PRONOUNS = (
    Pronoun("me", "mich", "mir"),
    Pronoun("us", "uns", "uns"),
    Pronoun("you", "dich", "dir"),
)


@dataclass(frozen=True)
class Entry:
    """One line of the table of predicates."""

    predicate: Predicate
    objects: tuple[tuple[str, str], ...]
    places: tuple[str, ...]
    goals: tuple[str, ...]
    flags: str


def _predicate(english: str, german: str, preposition=None, takes_dative=False) -> Predicate:
    verbs = []
    for item in alternatives(german):
        verb, _, complement = item.partition(" [")
        verbs.append((verb, complement.rstrip("]")))
    return Predicate(english_verb(english), tuple(verbs), preposition, takes_dative)


@cache
def entries(flag: str = "") -> tuple[Entry, ...]:
    """List the lines of the table of predicates that carry a flag."""
    found = []
    for english, german, objects, places, goals, flags in rows(PREDICATES):
        preposition = None
        if objects.startswith("@"):
            word, _, objects = objects[1:].partition(" ")
            preposition = (word, "accusative" if word == "auf" else "dative")
        article, _, names = objects.partition(":")
        if flag in flags:
            predicate = _predicate(english, german, preposition, "P" in flags)
            pairs = tuple((article, name) for name in alternatives(names))
            found.append(Entry(predicate, pairs, alternatives(places), alternatives(goals), flags))
    return tuple(found)


@cache
def subjects() -> tuple[Subject, ...]:
    """List the subjects, pronouns first."""
    table = []
    for english, german, person, possessive, german_possessive, kind in rows(SUBJECTS):
        table.append(
            Subject(english, alternatives(german), person, possessive, german_possessive, kind)
        )
    return tuple(table)


@cache
def states() -> dict[str, tuple[Subject | None, Predicate]]:
    """Read the table of reasons and conditions: the fixed subject, if any, and the predicate."""
    fixed = {
        "it": Subject("it", ("es",), "3s", "its", "sein"),
        "the sun": Subject("the sun", ("die Sonne",), "3s", "its", "ihr"),
        "the weather": Subject("the weather", ("das Wetter",), "3s", "its", "sein"),
    }
    table = {}
    for english, german in rows(STATES):
        subject, _, verb = english.rpartition(" > ")
        predicate = _predicate(verb, german)
        name = english.replace("/shone", "").replace("/had", "")
        table[name] = (fixed.get(subject), predicate)
    return table


@cache
def times(tense: str) -> tuple[Phrase, ...]:
    """List the times that go with a tense ("K" and a tense: clock times)."""
    table = CLOCK_TIMES if tense[0] == "K" else TIMES
    phrases = (Phrase(line[0], alternatives(line[1]), line[2]) for line in rows(table))
    return tuple(phrase for phrase in phrases if tense[-1] in phrase.tenses)


@cache
def places() -> dict[str, Phrase]:
    """Read the table of places, goals and vehicles; `^` only tells goals from places."""
    return {
        english: Phrase(english.rstrip("^"), alternatives(german))
        for english, german in rows(PLACES)
    }


def draw_subject(rng: Random, has_children: bool = False, without: tuple[str, ...] = ()) -> Subject:
    """Draw who acts."""
    everyone = [
        subject
        for subject in subjects()
        if subject.english not in without and (has_children or subject.kind != "k")
    ]
    are_pronouns = rng.random() < PRONOUN_SHARE
    fitting = [subject for subject in everyone if (" " not in subject.german[0]) == are_pronouns]
    return rng.choice(fitting or everyone)


def _can_have(subject: Subject, name: str) -> bool:
    return not subject.english.endswith(name) and name not in MISSING.get(subject.kind, ())


def _can_act_on(subject: Subject, pair: tuple[str, str]) -> bool:
    article, name = pair
    return article != "p" or _can_have(subject, name)


def draw_object(rng: Random, entry: Entry, subject: Subject) -> NounPhrase | Pronoun:
    """Draw what or whom the subject acts on."""
    if "m" in entry.flags and rng.random() < 0.25:
        taken = {"1s": ("me", "us"), "1p": ("me", "us"), "2s": ("you",)}.get(subject.person, ())
        return rng.choice([word for word in OBJECT_PRONOUNS if word.text not in taken])
    article, name = rng.choice([pair for pair in entry.objects if _can_act_on(subject, pair)])
    noun, adjective = nouns()[name], None
    if article == "a" and noun.adjectives and rng.random() < 0.35:
        adjective = rng.choice(noun.adjectives)
        if adjective == "old" and entry.predicate.verb.base == "need":
            adjective = None
    return NounPhrase(noun, article, adjective)


def draw_clause(
    rng: Random,
    flag: str = "",
    tenses: str = "pfhns",
    without: tuple[str, ...] = (),
    may_negate: bool = True,
) -> Clause:
    """Draw a clause whose predicate carries a flag, in one of the tenses."""
    while True:
        entry = rng.choice(entries(flag))
        fitting = [tense for tense in tenses if tense in entry.flags]
        subject = draw_subject(rng, "k" in entry.flags, without)
        has_object = not entry.objects or any(_can_act_on(subject, pair) for pair in entry.objects)
        is_too_old = "y" in entry.flags and subject.kind == "o"
        if fitting and has_object and not is_too_old:
            break
    tense = rng.choices(fitting, [TENSE_WEIGHTS[tense] for tense in fitting])[0]
    pieces = {"modal": _draw_modal(rng, entry, tense)}
    if tense != "s":
        pieces["time"] = draw_time(rng, entry.flags, tense)
    if entry.objects:
        pieces["object"] = draw_object(rng, entry, subject)
    if "R" in entry.flags:
        pieces["recipient"] = _draw_relative(rng, RECIPIENTS, subject)
    pieces |= _draw_circumstances(rng, entry, subject, tense)
    while "place" not in pieces and "time" in pieces and pieces["time"].english in NEED_PLACE:
        pieces["time"] = draw_time(rng, entry.flags, tense)
    if may_negate and rng.random() < NEGATED_SHARE:
        pieces |= _negation(entry, tense, pieces)
    return Clause(subject, entry.predicate, tense, **pieces)


def draw_time(rng: Random, flags: str, tense: str) -> Phrase:
    """Draw a time that goes with a tense and with a predicate of these flags."""
    fitting = times(("K" if "K" in flags else "") + tense)
    if tense in "pf" and ("q" in flags or "b" in flags):
        fitting = [time for time in fitting if ("q" in time.tenses) == ("q" in flags)]
    unfit = [time for flag in flags for time in UNFIT_TIMES.get(flag, ())]
    return rng.choice([time for time in fitting if time.english not in unfit])


def _draw_modal(rng: Random, entry: Entry, tense: str) -> str | None:
    if tense not in "pf" or rng.random() > MODAL_SHARE:
        return None
    modals = []
    if "d" in entry.flags:
        modals += ["have to", "should"] if tense == "f" else ["have to"]
    if "j" in entry.flags:
        modals += ["want to", "would like to"] if tense == "f" else ["want to"]
    if "c" in entry.flags and tense == "f":
        modals.append("can")
    return rng.choice(modals) if modals else None


def _draw_relative(rng: Random, names: tuple[str, ...], subject: Subject) -> NounPhrase:
    fitting = [name for name in names if _can_have(subject, name)]
    return NounPhrase(nouns()[rng.choice(fitting)], "p")


def _draw_circumstances(rng: Random, entry: Entry, subject: Subject, tense: str) -> dict:
    pieces = {}
    if entry.goals:
        pieces["goal"] = places()[rng.choice(entry.goals)]
    for kind, names in VEHICLES.items():
        if kind in entry.flags and (kind == "2" or rng.random() < 0.4):
            pieces["vehicle"] = places()[rng.choice(names)]
    if entry.places and (tense == "s" or "L" in entry.flags or rng.random() < 0.4):
        pieces["place"] = places()[rng.choice(entry.places)]
    is_short = not ("place" in pieces or "vehicle" in pieces)
    if "C" in entry.flags and rng.random() < (0.35 if is_short else 0.12):
        pieces["company"] = _draw_relative(rng, COMPANY, subject)
    return pieces


def _negation(entry: Entry, tense: str, pieces: dict) -> dict:
    """What turns a clause into its negation, or nothing where that would be unclear."""
    what, when = pieces.get("object"), pieces.get("time")
    is_unclear = (
        "+" in entry.flags
        or "company" in pieces
        or pieces["modal"] == "would like to"
        or (when and when.english in NEVER_NEGATED)
        or (what and "place" in pieces)
        or (what and " of " in what.english())
        or (tense == "h" and not (what and not what.is_definite and what.noun.is_bare))
        or (isinstance(what, NounPhrase) and what.adjective)
    )
    if is_unclear:
        return {}
    # "I do not drink coffee every day" would deny the day, not the coffee.
    everyday = {"time": None, "place": None} if tense == "h" else {}
    return everyday | {"is_negated": True}
