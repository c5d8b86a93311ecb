"""Sentences of set situations: in the shop, at the station, at the table, the weather, health."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import drawing
from clauses import Clause, english
from german import Weighted, fill, german
from inflection import NounPhrase, adjectives, nouns
from sentences import Source, make_source

GOODS = ("coat", "dress", "shirt", "jacket", "shoes", "bag", "bike", "watch", "sofa", "lamp")
GOODS += ("umbrella", "table", "room", "flowers", "phone", "computer", "car", "flat", "book")
SIGHTS = ("station", "post office", "bakery", "supermarket", "hotel", "cinema", "restaurant")
NEARBY = ("bakery", "supermarket", "restaurant", "cinema", "post office", "hotel")
MEALS = ("soup", "salad", "pizza", "piece of cake", "fish")
DRINKS = ("cup of coffee", "cup of tea", "glass of water", "glass of juice", "glass of wine")
LYING = ("book", "newspaper", "letter", "key", "phone", "photos", "bill", "postcard")
SURFACES = ("on the table", "on the chair", "on the bed")
CITIES = ("to Berlin", "to Hamburg", "to Munich", "to Vienna")
DAYS = ("tomorrow", "on Monday", "on Friday", "on Saturday")
# What can be said of things: how they can be, besides the adjectives they carry.
QUALITIES = {
    "soup": ("good", "cold"),
    "cake": ("good",),
    "film": ("long", "good", "beautiful"),
    "book": ("long", "good"),
    "hotel": ("expensive", "beautiful", "big"),
    "restaurant": ("expensive",),
    "coat": ("expensive", "cheap"),
    "dress": ("beautiful", "expensive"),
    "shoes": ("expensive", "comfortable"),
    "flat": ("expensive", "beautiful"),
    "car": ("expensive", "comfortable"),
    "watch": ("beautiful",),
    "room": ("small", "big", "warm", "cold"),
    "sofa": ("expensive", "big"),
}
COLOURS = ("red", "blue", "black")
FACTS = (*COLOURS, "new", "old", "fresh")  # nobody "thinks" these
TOO_MUCH = ("long", "expensive", "big", "small", "old", "hot", "warm", "cold")
DEGREES = {"": ("",), "very": ("sehr",), "too": ("zu",), "really": ("wirklich",)}
PAINS = {
    "head": ("Kopf", "Kopfschmerzen"),
    "back": ("Rücken", "Rückenschmerzen"),
}
DATIVES = {"I": "mir", "you": "dir", "he": "ihm", "she": "ihr"}


def _thing(rng: Random, names: tuple[str, ...], article: str, adjective_share: float = 0.5):
    noun = nouns()[rng.choice(names)]
    has_adjective = noun.adjectives and rng.random() < adjective_share
    return NounPhrase(noun, article, rng.choice(noun.adjectives) if has_adjective else None)


def _is_plural(thing: NounPhrase) -> bool:
    return thing.noun.german[0][0] == "p"


def _scene(text: str, mark: str, *templates: tuple[tuple[str, ...], dict, float]) -> Source:
    def write() -> Iterator[Weighted]:
        for roles, texts, weight in templates:
            listed = {
                role: (words,) if isinstance(words, str) else words for role, words in texts.items()
            }
            yield from fill(roles, listed, weight)

    return make_source(text, mark, write)


def draw_price(rng: Random) -> Source:
    """Draw "How much does the red dress cost?"."""
    thing = _thing(rng, GOODS, "t", 0.8)
    is_plural = _is_plural(thing)
    texts = {
        "asked": ("wie viel", "was"),
        "finite": "kosten" if is_plural else "kostet",
        "subject": thing.german("nominative"),
    }
    text = f"how much {'do' if is_plural else 'does'} {thing.english()} cost"
    return _scene(text, "?", (("asked", "finite", "subject"), texts, 1.0))


def draw_way(rng: Random) -> Source:
    """Draw "Excuse me, where is the station?" or "Can you tell me where the station is?"."""
    thing = _thing(rng, SIGHTS, "t", 0.0)
    texts = {
        "excuse": ("Entschuldigung", "Entschuldigen Sie"),
        "comma": ",",
        "asked": "wo",
        "finite": "ist",
        "subject": thing.german("nominative"),
    }
    if rng.random() < 0.5:
        roles = ("excuse", "comma", "asked", "finite", "subject")
        found = texts | {"finite": "finde", "subject": "ich", "object": thing.german("accusative")}
        text = f"excuse me, where is {thing.english()}"
        return _scene(text, "?", (roles, texts, 1.0), ((*roles, "object"), found, 0.5))
    texts["excuse"] = ("kannst du mir sagen", "können Sie mir sagen")
    roles = ("excuse", "comma", "asked", "subject", "finite")
    return _scene(f"can you tell me where {thing.english()} is", "?", (roles, texts, 1.0))


def draw_nearby(rng: Random) -> Source:
    """Draw "Is there a good restaurant nearby?"."""
    thing = _thing(rng, NEARBY, "a")
    texts = {
        "finite": "gibt",
        "subject": "es",
        "place": ("hier in der Nähe", "in der Nähe"),
        "object": thing.german("accusative"),
    }
    nominative = {"finite": "ist", "place": "hier in der Nähe"}
    nominative["subject"] = thing.german("nominative")
    return _scene(
        f"is there {thing.english()} nearby",
        "?",
        (("finite", "subject", "place", "object"), texts, 1.0),
        (("finite", "place", "subject"), nominative, 0.4),
    )


def draw_order(rng: Random) -> Source:
    """Draw "I would like a cup of tea and a piece of cake, please."."""
    first, second = _thing(rng, MEALS, "a", 0.2), _thing(rng, DRINKS, "a", 0.2)
    is_one = rng.random() < 0.6
    texts = {
        "subject": "ich" if is_one else "wir",
        "finite": "möchte" if is_one else "möchten",
        "please": "bitte",
        "object": first.german("accusative")[0] + " und " + second.german("accusative")[0],
        "comma": ",",
    }
    gladly = texts | {"finite": "hätte" if is_one else "hätten", "gern": ("gern", "gerne")}
    return _scene(
        f"{'I' if is_one else 'we'} would like {first.english()} and {second.english()}, please",
        ".",
        (("subject", "finite", "please", "object"), texts, 1.0),
        (("subject", "finite", "gern", "object"), gladly, 0.6),
        (("subject", "finite", "please", "gern", "object"), gladly, 0.4),
    )


def draw_departure(rng: Random) -> Source:
    """Draw "The train to Berlin leaves at eight." or the question for its time."""
    vehicle, german_vehicle = rng.choice((("train", "der Zug"), ("bus", "der Bus")))
    goal = drawing.places()[rng.choice(CITIES)]
    texts = {
        "subject": f"{german_vehicle} {goal.german[0]}",
        "finite": "fährt",
        "tail": ("ab", ""),
        "asked": ("wann", "um wie viel Uhr"),
    }
    if rng.random() < 0.3:
        text = f"when does the {vehicle} {goal.english} leave"
        return _scene(text, "?", (("asked", "finite", "subject", "tail"), texts, 1.0))
    clock = rng.choice(drawing.times("Kf"))
    texts |= {"clock": clock.german, "tail": "ab"}
    text = f"the {vehicle} {goal.english} leaves {clock.english}"
    roles, fronted = ["subject", "finite", "clock", "tail"], ["clock", "finite", "subject", "tail"]
    if rng.random() < 0.5:
        day = rng.choice([time for time in drawing.times("f") if time.english in DAYS])
        texts["time"], text = day.german, text.replace("leaves", f"leaves {day.english}")
        roles[2:2], fronted = ["time"], ["time", "finite", "subject", "clock", "tail"]
    return _scene(text, ".", (tuple(roles), texts, 1.0), (tuple(fronted), texts, 0.6))


def draw_weather(rng: Random) -> Source:
    """Draw "It will be cold tomorrow."."""
    names = [name for name, (fixed, _) in drawing.states().items() if fixed]
    name = rng.choice(names)
    subject, predicate = drawing.states()[name]
    tense = rng.choice("pf")
    time = rng.choice(drawing.times(tense))
    text_predicate = predicate
    if tense == "f" and predicate.verb.base == "be":
        complement = predicate.german[0][1]
        predicate = replace(predicate, german=(("werden", complement), ("sein", complement)))
    clause = Clause(subject, predicate, tense, time=time)
    is_question = rng.random() < 0.3

    def write() -> Iterator[Weighted]:
        yield from german(clause, "first" if is_question else "second")

    text = english(replace(clause, predicate=text_predicate), is_question=is_question)
    return make_source(text, "?" if is_question else ".", write)


def draw_quality(rng: Random) -> Source:
    """Draw "The film was too long." or "I think that the film is too long."."""
    name = rng.choice(tuple(QUALITIES))
    thing = NounPhrase(nouns()[name], "t")
    quality = rng.choice((*thing.noun.adjectives, *QUALITIES[name]))
    degree = "" if quality in COLOURS else rng.choice(tuple(DEGREES))
    if degree == "too" and quality not in TOO_MUCH:
        degree = "very"
    is_past, is_plural = rng.random() < 0.5, _is_plural(thing)
    english_be = {(0, 0): "is", (0, 1): "are", (1, 0): "was", (1, 1): "were"}[is_past, is_plural]
    be = {(0, 0): "ist", (0, 1): "sind", (1, 0): "war", (1, 1): "waren"}[is_past, is_plural]
    texts = {
        "subject": thing.german("nominative"),
        "finite": be,
        "degree": DEGREES[degree],
        "complement": adjectives()[quality],
    }
    text = f"{thing.english()} {english_be} {degree} {quality}".replace("  ", " ")
    roles = ("subject", "finite", "degree", "complement")
    if is_past or quality in FACTS or rng.random() < 0.4:
        templates = [(roles, texts, 1.0)]
        if is_past:
            perfect = texts | {"finite": "sind" if is_plural else "ist", "tail": "gewesen"}
            templates.append(((*roles, "tail"), perfect, 0.3))
        return _scene(text, ".", *templates)
    thought = texts | {"opening": ("ich finde", "ich denke"), "comma": ",", "conjunction": "dass"}
    found = texts | {"subject": "ich", "finite": "finde", "object": thing.german("accusative")}
    return _scene(
        f"I think that {text}",
        ".",
        (("subject", "finite", "object", "degree", "complement"), found, 1.0),
        (
            ("opening", "comma", "conjunction", "subject", "degree", "complement", "finite"),
            thought,
            0.8,
        ),
        (("opening", "comma", *roles), thought, 0.5),
    )


def draw_position(rng: Random) -> Source:
    """Draw "The key is on the table." or "Is my key on the table?"."""
    thing = _thing(rng, LYING, "t", 0.0)
    owners = [subject for subject in drawing.subjects() if " " not in subject.german[0]]
    owner = rng.choice([subject for subject in owners if subject.english not in ("you", "they")])
    if rng.random() < 0.7:
        thing = replace(thing, article="p")
    is_plural = _is_plural(thing)
    place = drawing.places()[rng.choice(SURFACES)]
    texts = {
        "subject": thing.german("nominative", owner.german_possessive),
        "finite": ("liegen", "sind") if is_plural else ("liegt", "ist"),
        "place": place.german,
    }
    name, be = thing.english(owner.possessive), "are" if is_plural else "is"
    if rng.random() < 0.4:
        text, mark, roles = f"{be} {name} {place.english}", "?", ("finite", "subject", "place")
        return _scene(text, mark, (roles, texts, 1.0))
    roles = ("subject", "finite", "place")
    fronted = (("place", "finite", "subject"), texts, 0.5)
    return _scene(f"{name} {be} {place.english}", ".", (roles, texts, 1.0), fronted)


def draw_pain(rng: Random) -> Source:
    """Draw "My head hurts."."""
    part = rng.choice(tuple(PAINS))
    noun, pains = PAINS[part]
    names = [subject for subject in drawing.subjects() if subject.english in DATIVES]
    subject = rng.choice([subject for subject in names if subject.english != "you"])
    has_today = rng.random() < 0.5
    texts = {
        "subject": f"{subject.german_possessive} {noun}",
        "finite": "tut",
        "time": "heute" if has_today else "",
        "complement": "weh",
    }
    dative = texts | {"dative": DATIVES[subject.english], "subject": f"der {noun}"}
    have = "habe" if subject.english == "I" else "hat"
    having = texts | {"subject": subject.german, "finite": have, "object": pains}
    return _scene(
        f"{subject.possessive} {part} {'hurts today' if has_today else 'hurts'}",
        ".",
        (("subject", "finite", "time", "complement"), texts, 1.0),
        (("dative", "finite", "time", "subject", "complement"), dative, 0.6),
        (("subject", "finite", "time", "object"), having, 0.6),
    )


# Each scene with how often it is drawn.
SCENES = (
    (draw_price, 3),
    (draw_way, 1),
    (draw_nearby, 1),
    (draw_order, 4),
    (draw_departure, 2),
    (draw_weather, 3),
    (draw_quality, 4),
    (draw_position, 3),
    (draw_pain, 1),
)


def draw_scene(rng: Random) -> Source:
    """Draw a sentence of any set situation."""
    draw = rng.choices([scene for scene, _ in SCENES], [weight for _, weight in SCENES])[0]
    return draw(rng)
