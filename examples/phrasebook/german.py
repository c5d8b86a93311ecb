"""One clause of the phrasebook in German: every tense, synonym and order that is right."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from clauses import Clause, Subject
from inflection import GermanVerb, Pronoun, german_verb

# How much rarer each further alternative is than the one before it.
SECOND_CHOICE = 0.6
RANKS = tuple(SECOND_CHOICE**rank for rank in range(5))
MODALS = {
    "have to": "müssen",
    "want to": "wollen",
    "can": "können",
    "should": "sollten",
    "would like to": "möchten",
}
# These say the past with the preterite alone.
PRETERITE_ONLY = ("sein", "haben", "müssen", "können", "wollen")

Part = tuple[str, str]  # (role, text)
Weighted = tuple[tuple[Part, ...], float]


@dataclass(frozen=True)
class VerbForms:
    """A German verb in one tense: its finite part and its tail, verb-second and verb-final."""

    finite: str
    tail: str
    final_finite: str
    final_tail: str
    style: str
    adverbs: tuple[str, ...] = ("",)
    weight: float = 1.0


def verb_forms(clause: Clause, subject: Subject, verb: GermanVerb, is_spoken: bool):
    """List the tenses in which German says the clause; `is_spoken` leaves the preterite out."""
    person, infinitive = subject.person, verb.full_infinitive
    gern = ("gern", "gerne") if clause.is_liked else ("",)

    def helped(helper: str, tail: str, style: str, weight: float = 1.0, adverbs=gern, past=False):
        name = german_verb(helper)
        finite = name.past(person) if past else name.present(person)
        return VerbForms(finite, tail, finite, tail, style, adverbs, weight)

    def simple(finite: str, style: str, weight: float = 1.0):
        return VerbForms(finite, verb.prefix, verb.prefix + finite, "", style, gern, weight)

    if clause.modal:
        is_past = clause.tense == "p"
        forms = [helped(MODALS[clause.modal], infinitive, "modal", past=is_past)]
        if clause.modal == "would like to":
            wish = helped("würden", infinitive, "wish", SECOND_CHOICE, ("gern", "gerne"))
            forms.append(wish)
        return forms
    if clause.tense == "i":
        return [simple(verb.imperative if person == "2s" else verb.infinitive, "imperative")]
    if clause.tense in "pc":
        if verb.infinitive in PRETERITE_ONLY:
            return [simple(verb.past(person), "preterite")]
        perfect = helped(verb.auxiliary, verb.full_participle, "perfect")
        if is_spoken or person == "2s":
            return [perfect]
        return [perfect, simple(verb.past(person), "preterite", SECOND_CHOICE)]
    forms = [simple(verb.present(person), "present")]
    if clause.tense == "f":
        forms.append(helped("werden", infinitive, "future", SECOND_CHOICE))
    return forms


def middle_orders(clause: Clause) -> list[tuple[str, ...]]:
    """List the orders of what stands between the subject and the end of the clause."""
    manner = ("company", "vehicle")
    when = ("please", "time", "gern")
    if clause.has_prepositional_object:
        orders = [(*when, "not", *manner, "place", "object")]
    elif isinstance(clause.object, Pronoun):
        orders = [("object", *when, "not", *manner, "place")]
    elif clause.has_definite_object:
        orders = [(*when, *manner, "object", "not", "place")]
        if clause.predicate.takes_dative:
            pass  # "in der Küche meiner Mutter" would be her kitchen
        elif clause.place:
            orders.append((*when, *manner, "place", "object", "not"))
        elif not clause.company and (clause.is_polite or clause.time and clause.tense in "pf"):
            orders.append(("object", *when, "not"))
    elif clause.object:
        orders = [(*when, *manner, "place", "object")]
        # "Klavier spielen" and the like stay together.
        if clause.place and not clause.is_negated and not clause.object.noun.is_name:
            orders.append((*when, *manner, "object", "place"))
    else:
        orders = [(*when, "not", *manner, "place")]
    if clause.recipient:
        orders = [("recipient", *orders[0]), (*when, "recipient", *orders[0][len(when) :])]
    return [(*order, "goal") for order in orders]


def german(
    clause: Clause,
    order: str,
    *,
    is_formal: bool = False,
    asked: tuple[str, ...] = (),
    style: str | None = None,
    may_open_with_time: bool = True,
) -> Iterator[Weighted]:
    """Write the clause in German, in every right way.

    `order` is "second" (a statement; with `asked`, a wh-question), "first" (a yes-no question, an
    imperative, or a main clause behind its subordinate clause) or "final" (a subordinate clause).
    `style` keeps to one tense where the clause offers it.
    """
    subject = clause.subject.addressed(is_formal)
    if is_formal and isinstance(clause.object, Pronoun) and clause.object.text == "you":
        clause = replace(clause, object=Pronoun("you", "Sie", "Ihnen"))
    roles = _role_texts(clause, subject)
    if asked:
        roles["asked"] = asked
    is_spoken = bool(asked) or (order == "first" and style is None)
    for number, (name, complement) in enumerate(clause.predicate.german):
        if clause.is_negated and complement.startswith("ein"):
            continue
        forms = verb_forms(clause, subject, german_verb(name), is_spoken)
        if style and any(form.style == style for form in forms):
            forms = [form for form in forms if form.style == style]
        for form in forms:
            weight = form.weight * SECOND_CHOICE**number
            texts = roles | {
                "complement": (complement,),
                "gern": form.adverbs,
                "finite": (form.final_finite if order == "final" else form.finite,),
                "tail": (form.final_tail if order == "final" else form.tail,),
            }
            for rank, template in enumerate(_templates(clause, order, bool(asked))):
                if template[0] == "time" and not may_open_with_time:
                    continue
                yield from fill(template, texts, weight * SECOND_CHOICE**rank)


def _role_texts(clause: Clause, subject: Subject) -> dict[str, tuple[str, ...]]:
    possessive, predicate = subject.german_possessive, clause.predicate
    has_kein = clause.is_negated and clause.object and not clause.object.is_definite
    texts = {"subject": subject.german}
    if clause.tense == "i" and subject.person == "2s":
        del texts["subject"]
    if clause.object:
        case = "dative" if predicate.takes_dative else "accusative"
        preposition = ""
        if predicate.preposition:
            preposition, case = predicate.preposition[0] + " ", predicate.preposition[1]
        written = clause.object.german(case, possessive, bool(has_kein))
        texts["object"] = tuple(preposition + text for text in written)
    if clause.recipient:
        texts["recipient"] = clause.recipient.german("dative", possessive)
    if clause.company:
        texts["company"] = tuple(
            "mit " + text for text in clause.company.german("dative", possessive)
        )
    for role in ("place", "goal", "vehicle", "time"):
        phrase = getattr(clause, role)
        if phrase:
            texts[role] = phrase.german
    if clause.is_polite:
        texts["please"] = ("bitte",)
    if clause.is_negated and not has_kein:
        texts["not"] = ("nicht",)
    return texts


def _templates(clause: Clause, order: str, is_wh: bool) -> list[tuple[str, ...]]:
    middles = [(*middle, "complement", "tail") for middle in middle_orders(clause)]
    if order == "final":
        return [("subject", *middle, "finite") for middle in middles]
    if order == "first":
        templates = [("finite", "subject", *middle) for middle in middles]
        if clause.tense == "i":
            short = tuple(role for role in middles[0] if role != "please")
            templates.append(("please", "finite", "subject", *short))
        return templates
    if is_wh:
        return [("asked", "finite", "subject", *middle) for middle in middles]
    templates = [("subject", "finite", *middle) for middle in middles]
    if clause.time:
        for middle in middles:
            rest = tuple(role for role in middle if role != "time")
            template = ("time", "finite", "subject", *rest)
            if template not in templates:
                templates.append(template)
    return templates


def fill(template: tuple[str, ...], texts: dict, weight: float) -> Iterator[Weighted]:
    """Write a template of roles with every choice among each role's texts.

    Later texts weigh less, roles without a text fall away, and a text ending in `*` does not open
    the sentence.
    """
    slots, weights = [], []
    for role in template:
        options = texts.get(role, ())
        if role == "time":
            opens = role == template[0]
            options = [text.rstrip("*") for text in options if not (opens and text[-1:] == "*")]
        if options != ("",) and role in texts:
            slots.append([(role, text) for text in options])
            weights.append(RANKS[: len(options)])
    may_be_empty = any(not text for slot in slots for _, text in slot)
    for chosen, shares in zip(product(*slots), product(*weights), strict=True):
        if may_be_empty:
            chosen = tuple([part for part in chosen if part[1]])
        yield chosen, weight * prod(shares)
