"""One clause of the phrasebook: its pieces, and how English says it."""

from dataclasses import dataclass, replace

from inflection import EnglishVerb, NounPhrase, Pronoun

AUXILIARY_DO = {"p": ("did", "did"), "h": ("do", "does"), "s": ("do", "does")}


@dataclass(frozen=True)
class Phrase:
    """An adverbial; German alternatives ending in `*` cannot open a sentence."""

    english: str
    german: tuple[str, ...]
    tenses: str = ""


@dataclass(frozen=True)
class Subject:
    """Who acts, with the possessives that agree; `person` is "1s", "2s", "3s", "1p" or "3p"."""

    english: str
    german: tuple[str, ...]
    person: str
    possessive: str
    german_possessive: str
    kind: str = ""

    @property
    def pronoun(self) -> "Subject":
        """The pronoun that stands for the subject when it is named again."""
        if self.person[0] != "3" or self.german[0] in ("er", "sie", "es"):
            return self
        if self.person == "3p":
            return Subject("they", ("sie",), "3p", "their", "ihr")
        if self.possessive == "his":
            return Subject("he", ("er",), "3s", "his", "sein")
        return Subject("she", ("sie",), "3s", "her", "ihr")

    def addressed(self, is_formal: bool) -> "Subject":
        """Turn "you" into Sie, where it is formal."""
        if self.english == "you" and is_formal:
            return replace(self, german=("Sie",), person="3p", german_possessive="Ihr")
        return self


@dataclass(frozen=True)
class Predicate:
    """What is done: the verbs of both languages, as (verb, complement) in German."""

    verb: EnglishVerb
    german: tuple[tuple[str, str], ...]
    preposition: tuple[str, str] | None = None  # of the object, with its case
    takes_dative: bool = False


@dataclass(frozen=True)
class Clause:
    """A subject and a predicate with all that goes with them.

    `tense` is "p" (past), "c" (what was going on), "f" (future), "h" (habit), "n" (now), "s" (a
    lasting state) or "i" (imperative).
    """

    subject: Subject
    predicate: Predicate
    tense: str
    modal: str | None = None
    time: Phrase | None = None
    object: NounPhrase | Pronoun | None = None
    recipient: NounPhrase | None = None
    company: NounPhrase | None = None
    place: Phrase | None = None
    goal: Phrase | None = None
    vehicle: Phrase | None = None
    is_negated: bool = False
    is_liked: bool = False
    is_polite: bool = False

    @property
    def has_definite_object(self) -> bool:
        """Whether the clause has an object that `nicht` follows."""
        return bool(self.object and self.object.is_definite and not self.predicate.preposition)

    @property
    def has_prepositional_object(self) -> bool:
        """Whether the object hangs on a preposition."""
        return bool(self.object and self.predicate.preposition)


def english(clause: Clause, asked: str | None = None, is_question: bool = False) -> str:
    """Write the clause in English; `asked` is the question word of a wh-question."""
    auxiliary, verb = _english_verb(clause, is_question)
    subject = "" if asked == "who" else clause.subject.english
    adverb = clause.time if clause.time and "m" in clause.time.tenses else None
    negation = "not" if clause.is_negated else ""
    head = [auxiliary, subject, negation] if is_question else [subject, auxiliary, negation]
    if auxiliary == "can" and negation and not is_question:
        head = [subject, "cannot"]
    please = "please" if clause.is_polite else ""
    is_split = isinstance(clause.object, Pronoun) and verb.endswith(" up")  # "pick us up"
    verb = verb.removesuffix(" up") if is_split else verb
    words = [asked or "", *head, please, adverb.english if adverb else "", verb]
    if clause.recipient:
        words.append(clause.recipient.english(clause.subject.possessive))
    if clause.object:
        with_any = clause.is_negated and clause.tense in "pf"
        words.append(clause.object.english(clause.subject.possessive, with_any))
    words.append("up" if is_split else "")
    for phrase in (clause.place, clause.goal):
        words.append(phrase.english if phrase else "")
    if clause.company:
        words.append("with " + clause.company.english(clause.subject.possessive))
    if clause.vehicle:
        words.append(clause.vehicle.english)
    if clause.time and not adverb:
        words.append(clause.time.english)
    return " ".join(word for word in words if word)


def _english_verb(clause: Clause, is_question: bool) -> tuple[str, str]:
    """The auxiliary, or "", and the rest of the verb."""
    verb, rest, tense = clause.predicate.verb, clause.predicate.verb.rest, clause.tense
    is_singular = clause.subject.person == "3s"
    base = f"{verb.base} {rest}".strip()
    if clause.is_liked:
        verb, rest, base = EnglishVerb("like", "liked", ""), "to " + base, "like to " + base
    if clause.modal in ("can", "should", "would like to"):
        if clause.modal == "can":
            return ("could" if tense == "p" else "can"), base
        return clause.modal.split()[0], f"{clause.modal} {base}".split(" ", 1)[1]
    if clause.modal:
        head, past = ("have", "had") if clause.modal == "have to" else ("want", "wanted")
        verb, rest, base = EnglishVerb(head, past, ""), "to " + base, f"{head} to {base}"
        tense = "p" if tense == "p" else "h"
    if verb.base == "be" and tense != "f":
        return _form_of_be(clause.subject.person, tense in "pc"), rest
    if tense == "f":
        return "will", base
    if tense in "nc":
        form_of_be = _form_of_be(clause.subject.person, tense == "c")
        return form_of_be, f"{verb.progressive} {rest}".strip()
    if tense == "i":
        return "", base
    if is_question or clause.is_negated:
        return AUXILIARY_DO[tense][is_singular], base
    finite = verb.past if tense == "p" else verb.present(is_singular)
    return "", f"{finite} {rest}".strip()


def _form_of_be(person: str, is_past: bool) -> str:
    if is_past:
        return "was" if person in ("1s", "3s") else "were"
    return {"1s": "am", "3s": "is"}.get(person, "are")
