"""English and German word forms for the phrasebook: noun phrases and verbs."""

from dataclasses import dataclass
from functools import cache

from words import ADJECTIVES, NOUNS, STRONG_VERBS

# For each case and gender: the definite article, the ending of ein, kein and mein, and the
# adjective's ending after the definite article, after an ein-word, and with no article.
ENDINGS = {
    ("nominative", "m"): ("der", "", "e", "er", "er"),
    ("nominative", "f"): ("die", "e", "e", "e", "e"),
    ("nominative", "n"): ("das", "", "e", "es", "es"),
    ("nominative", "p"): ("die", "e", "en", "en", "e"),
    ("accusative", "m"): ("den", "en", "en", "en", "en"),
    ("accusative", "f"): ("die", "e", "e", "e", "e"),
    ("accusative", "n"): ("das", "", "e", "es", "es"),
    ("accusative", "p"): ("die", "e", "en", "en", "e"),
    ("dative", "m"): ("dem", "em", "en", "en", "em"),
    ("dative", "f"): ("der", "er", "en", "en", "er"),
    ("dative", "n"): ("dem", "em", "en", "en", "em"),
    ("dative", "p"): ("den", "en", "en", "en", "en"),
}
DOUBLED_BEFORE_ING = ("get", "swim", "put", "sit")
# ich, du, er, and wir/sie/Sie, where the present follows no rule.
IRREGULAR_PRESENT = {
    "sein": ("bin", "bist", "ist", "sind"),
    "werden": ("werde", "wirst", "wird", "werden"),
}


def rows(table: str) -> list[list[str]]:
    """Split a table into rows of stripped columns; an indented line continues the one above."""
    lines = table.replace("\n   ", " ").strip().splitlines()
    return [[column.strip() for column in line.split(";")] for line in lines]


def alternatives(column: str) -> tuple[str, ...]:
    """Split a column at its commas."""
    return tuple(item.strip() for item in column.split(",") if item.strip())


@dataclass(frozen=True)
class Noun:
    """A noun with its German equivalents as (gender, noun) pairs and its fitting adjectives."""

    english: str
    german: tuple[tuple[str, str], ...]
    adjectives: tuple[str, ...]
    is_bare: bool
    is_name: bool


@cache
def nouns() -> dict[str, Noun]:
    """Read the table of nouns, by their English."""
    table = {}
    for english, german, *rest in rows(NOUNS):
        name = english.rstrip("~!")
        pairs = tuple(tuple(item.split(" ", 1)) for item in alternatives(german))
        is_bare, is_name = english[-1] in "~!", english.endswith("!")
        table[name] = Noun(name, pairs, alternatives(rest[0] if rest else ""), is_bare, is_name)
    return table


@cache
def adjectives() -> dict[str, tuple[str, ...]]:
    """Read the table of adjectives, by their English."""
    return {english: alternatives(german) for english, german in rows(ADJECTIVES)}


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its article ("a", "t" for the, "p" for a possessive) and adjective, if any."""

    noun: Noun
    article: str
    adjective: str | None = None

    @property
    def is_definite(self) -> bool:
        """Whether the phrase names one thing both speakers know."""
        return self.article in "tp"

    def english(self, possessive: str = "my", with_any: bool = False) -> str:
        """Write the phrase in English."""
        words = [self.adjective, self.noun.english] if self.adjective else [self.noun.english]
        if self.is_definite:
            words.insert(0, possessive if self.article == "p" else "the")
        elif not self.noun.is_bare:
            words.insert(0, "an" if words[0][0] in "aeiou" else "a")
        elif with_any and not self.noun.is_name:
            words.insert(0, "any")
        return " ".join(words)

    def german(self, case: str, possessive: str = "mein", negated: bool = False) -> tuple[str, ...]:
        """Write the phrase in German, once for each synonym."""
        styles = adjectives()[self.adjective] if self.adjective else (None,)
        return tuple(
            self._decline(case, possessive, negated, gender, noun, adjective)
            for gender, noun in self.noun.german
            for adjective in styles
        )

    def _decline(self, case, possessive, negated, gender, noun, adjective) -> str:
        bare_noun = noun.rstrip("~")
        the, ein, weak, mixed, strong = ENDINGS[case, gender]
        if self.article == "t":
            words, ending = [the], weak
        elif self.article == "p":
            words, ending = [possessive + ein], mixed
        elif negated:
            words, ending = ["kein" + ein], mixed
        elif gender == "p" or self.noun.is_bare or noun != bare_noun:
            words, ending = [], strong
        else:
            words, ending = ["ein" + ein], mixed
        if adjective:
            stem = "teur" if adjective == "teuer" else adjective
            words.append(stem + ending)
        is_dative_plural = (case, gender) == ("dative", "p")
        adds_n = is_dative_plural and bare_noun[-1] not in "ns"
        return " ".join([*words, bare_noun + ("n" if adds_n else "")])


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun as an object, with its accusative and dative."""

    text: str
    accusative: str
    dative: str
    article: str = "t"
    is_definite: bool = True

    def english(self, possessive: str = "my", with_any: bool = False) -> str:
        """Write the pronoun in English."""
        return self.text

    def german(self, case: str, possessive: str = "mein", negated: bool = False) -> tuple[str, ...]:
        """Write the pronoun in German; "you" is formal where the possessive is."""
        return (self.dative if case == "dative" else self.accusative,)


@dataclass(frozen=True)
class GermanVerb:
    """A German verb: its separable prefix (or "") and its principal parts."""

    prefix: str
    infinitive: str
    third_person: str
    preterite: str
    participle: str
    auxiliary: str

    @property
    def full_infinitive(self) -> str:
        """The infinitive with its prefix."""
        return self.prefix + self.infinitive

    @property
    def full_participle(self) -> str:
        """The past participle with its prefix."""
        return self.prefix + self.participle

    @property
    def imperative(self) -> str:
        """The imperative said to a friend, without the prefix."""
        if "e" in self.infinitive[:-2] and "i" in self.third_person and "ie" not in self.infinitive:
            return self.third_person[:-1]
        stem = self.infinitive[:-2]
        return stem + ("e" if stem.endswith(("t", "d", "fn", "ier")) else "")

    def present(self, person: str) -> str:
        """The present of one person ("1s", "2s", "3s", "1p" or "3p"), without the prefix."""
        if self.infinitive in IRREGULAR_PRESENT:
            first, second, third, plural = IRREGULAR_PRESENT[self.infinitive]
        else:
            third, plural = self.third_person, self.infinitive
            is_modal = not third.endswith("t")
            first = third if is_modal else self.infinitive[:-1]
            stem = third if is_modal else third[:-1]
            second = stem + ("t" if stem[-1] in "sßzx" else "st")
        return {"1s": first, "2s": second, "3s": third}.get(person, plural)

    def past(self, person: str) -> str:
        """The preterite of one person, without the prefix."""
        plural = self.preterite + ("n" if self.preterite.endswith("e") else "en")
        return {"1s": self.preterite, "2s": self.preterite + "st", "3s": self.preterite}.get(
            person, plural
        )


@cache
def german_verb(name: str) -> GermanVerb:
    """Build a verb from its infinitive, written `prefix|verb` when the prefix separates."""
    prefix, _, infinitive = name.rpartition("|")
    strong = {row[0]: row[1:] for row in rows(STRONG_VERBS)}
    if infinitive in strong:
        third, preterite, participle = strong[infinitive]
    else:
        stem = infinitive[:-2]
        third = stem + ("et" if stem.endswith(("t", "d", "fn", "gn")) else "t")
        preterite = third + "e"
        starts_unstressed = stem.startswith(("be", "ver", "er")) or stem.endswith("ier")
        participle = third if starts_unstressed else "ge" + third
    auxiliary = "sein" if participle.endswith("+") else "haben"
    return GermanVerb(prefix, infinitive, third, preterite, participle.rstrip("+"), auxiliary)


@dataclass(frozen=True)
class EnglishVerb:
    """An English verb: its base, its past and the words that always follow it."""

    base: str
    past: str
    rest: str

    @property
    def progressive(self) -> str:
        """The -ing form."""
        if self.base in DOUBLED_BEFORE_ING:
            return self.base + self.base[-1] + "ing"
        drops_e = self.base.endswith("e") and not self.base.endswith(("ee", "be"))
        return (self.base[:-1] if drops_e else self.base) + "ing"

    def present(self, is_third_singular: bool) -> str:
        """The simple present."""
        if not is_third_singular:
            return self.base
        if self.base == "have":
            return "has"
        if self.base.endswith(("s", "sh", "ch", "x", "o")):
            return self.base + "es"
        if self.base.endswith("y") and self.base[-2] not in "aeiou":
            return self.base[:-1] + "ies"
        return self.base + "s"


@cache
def english_verb(text: str) -> EnglishVerb:
    """Build a verb from `base/past rest`, the past left out where it is regular."""
    head, _, rest = text.partition(" ")
    base, _, past = head.partition("/")
    if not past and base.endswith("y") and base[-2] not in "aeiou":
        past = base[:-1] + "ied"
    return EnglishVerb(base, past or base + ("d" if base.endswith("e") else "ed"), rest)
