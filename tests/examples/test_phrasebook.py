"""The phrasebook: right German, many translations a source, splits that never meet."""

import gzip
import sys
from pathlib import Path
from random import Random

import pytest

from axe_hf.data import PHRASEBOOK, load_translations

# As for a program that is started from there.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "phrasebook"))
from clauses import Clause, Subject, english
from corpus import MAX_PAIRS, draw_source, make_phrasebook, split_of
from drawing import entries, places, subjects, times
from german import german
from inflection import NounPhrase, german_verb, nouns
from sentences import render
from write_phrasebook import json_lines, main

sys.path.pop(0)

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def book():
    return make_phrasebook()  # what the package holds


@pytest.fixture(scope="module")
def sources():
    rng = Random(7)
    return [draw_source(rng) for _ in range(5_000)]


def subject(name: str) -> Subject:
    return next(one for one in subjects() if one.english == name)


def predicate(german_name: str):
    return next(one.predicate for one in entries() if one.predicate.german[0][0] == german_name)


def time(name: str):
    return next(one for tense in "pfhn" for one in times(tense) if one.english == name)


def written(clause: Clause, order: str, mark: str = ".", **options) -> set[str]:
    return {render(parts, mark) for parts, _ in german(clause, order, **options)}


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    small = {"num_pairs": 200, "num_validation": 20, "num_test": 20}
    assert make_phrasebook(**small, seed=3) == make_phrasebook(**small, seed=3)
    assert make_phrasebook(**small, seed=3) != make_phrasebook(**small, seed=4)


@pytest.mark.slow
def test_it_gives_fifty_thousand_distinct_pairs(book):
    pairs = {(row["translation"]["en"], row["translation"]["de"]) for row in book.train}
    assert len(pairs) == len(book.train) == 50_000
    assert len({en for en, _ in pairs}) > 20_000


@pytest.mark.slow
def test_no_sentence_of_one_split_occurs_in_another(book):
    english_of, german_of = {}, {}
    for split in SPLITS:
        rows = getattr(book, split)
        english_of[split] = {row["translation"]["en"] for row in rows}
        german_of[split] = {
            text for row in rows for text in row.get("references", [row["translation"]["de"]])
        }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not english_of[one] & english_of[other]
        assert not german_of[one] & german_of[other]


def test_sources_that_share_a_sentence_have_the_same_meaning_and_split(sources):
    owners: dict[str, str] = {}
    for source in sources:
        for sentence in (source.english, *source.translations()):
            assert split_of(owners.setdefault(sentence, source.meaning)) == split_of(source.meaning)
            assert owners[sentence] == source.meaning, sentence


@pytest.mark.slow
def test_references_open_with_the_translation_and_hold_all_right_ones_once(book):
    counts = []
    for row in book.validation + book.test:
        assert row["references"][0] == row["translation"]["de"]
        assert len(set(row["references"])) == len(row["references"])
        counts.append(len(row["references"]))
    assert sum(counts) / len(counts) >= 3
    assert sum(count == 1 for count in counts) / len(counts) < 0.1


@pytest.mark.slow
def test_training_repeats_sources_with_other_translations(book):
    translations: dict[str, set[str]] = {}
    for row in book.train:
        translations.setdefault(row["translation"]["en"], set()).add(row["translation"]["de"])
    assert sum(len(texts) > 1 for texts in translations.values()) / len(translations) > 0.4


@pytest.mark.slow
def test_the_vocabulary_is_small_and_the_sentences_are_short(book):
    for language, limit in (("en", 500), ("de", 900)):
        texts = [row["translation"][language] for row in book.train]
        words = {word.strip(".,?").lower() for text in texts for word in text.split()}
        assert len(words) < limit
        assert all(3 <= len(text.split()) <= 18 for text in texts)


def clauses_of(parts):
    """Split the parts of a sentence at its commas."""
    clauses, current = [], []
    for role, text in parts:
        if text == ",":
            clauses.append(current)
            current = []
        else:
            current.append((role, text))
    return [*clauses, current]


def test_a_clause_behind_a_subordinating_conjunction_ends_in_its_finite_verb(sources):
    conjunctions = ("weil", "da", "wenn", "falls", "dass", "ob")
    seen = set()
    for source in sources:
        for parts, _ in source.write_german():
            for clause in clauses_of(parts):
                if clause[0][0] == "conjunction" and clause[0][1] in conjunctions:
                    seen.add(clause[0][1])
                    assert clause[-1][0] == "finite", render(parts, ".")
    assert seen == set(conjunctions)


def test_the_finite_verb_is_first_or_second_in_every_statement(sources):
    for source in sources:
        if not source.english.endswith("."):
            continue
        for parts, _ in source.write_german():
            first = clauses_of(parts)[0]
            if first[0][0] in ("opening", "conjunction"):
                continue
            roles = [role for role, _ in first]
            is_request = source.english.startswith("Please")
            assert roles.index("finite") <= 1
            assert is_request or roles[1] == "finite", render(parts, ".")


def test_a_main_clause_behind_its_subordinate_clause_begins_with_the_finite_verb(sources):
    for source in sources:
        for parts, _ in source.write_german():
            clauses = clauses_of(parts)
            if len(clauses) == 2 and clauses[0][0][0] == "conjunction":
                assert clauses[1][0][0] == "finite", render(parts, ".")


def test_a_separable_prefix_ends_a_main_clause_and_joins_the_verb_in_a_subordinate_one():
    phone = Clause(
        subject("she"), predicate("an|rufen"), "h", object=NounPhrase(nouns()["boss"], "p")
    )
    assert written(phone, "second") == {"Sie ruft ihren Chef an."}
    assert written(phone, "final") == {"Sie ihren Chef anruft."}


def test_time_moves_to_the_front_and_past_comes_in_two_tenses():
    clause = Clause(
        subject("we"), predicate("fahren"), "p", time=time("yesterday"), goal=places()["to Berlin"]
    )
    assert english(clause) == "we went to Berlin yesterday"
    assert written(clause, "second") == {
        "Wir sind gestern nach Berlin gefahren.",
        "Gestern sind wir nach Berlin gefahren.",
        "Wir fuhren gestern nach Berlin.",
        "Gestern fuhren wir nach Berlin.",
    }
    assert written(clause, "first", "?") == {"Sind wir gestern nach Berlin gefahren?"}


def test_kein_negates_what_is_indefinite_and_nicht_follows_what_is_definite():
    buy = Clause(
        subject("he"),
        predicate("kaufen"),
        "p",
        time=time("yesterday"),
        object=NounPhrase(nouns()["coat"], "a", "warm"),
        is_negated=True,
    )
    assert english(buy) == "he did not buy a warm coat yesterday"
    assert "Er hat gestern keinen warmen Mantel gekauft." in written(buy, "second")
    sell = Clause(
        subject("he"),
        predicate("verkaufen"),
        "p",
        object=NounPhrase(nouns()["house"], "p"),
        is_negated=True,
    )
    assert "Er hat sein Haus nicht verkauft." in written(sell, "second")
    fly = Clause(
        subject("I"), predicate("fliegen"), "f", goal=places()["to Spain"], is_negated=True
    )
    assert written(fly, "second", style="present") == {"Ich fliege nicht nach Spanien."}


def test_you_is_du_and_sie_with_possessives_that_agree():
    clause = Clause(
        subject("you"), predicate("verkaufen"), "s", object=NounPhrase(nouns()["flat"], "p")
    )
    assert written(clause, "first", "?") == {"Verkaufst du deine Wohnung?"}
    assert written(clause, "first", "?", is_formal=True) == {"Verkaufen Sie Ihre Wohnung?"}


@pytest.mark.parametrize(
    ("case", "article", "expected"),
    [
        ("nominative", "t", "der neue Mantel"),
        ("accusative", "t", "den neuen Mantel"),
        ("dative", "t", "dem neuen Mantel"),
        ("nominative", "a", "ein neuer Mantel"),
        ("accusative", "a", "einen neuen Mantel"),
        ("dative", "p", "unserem neuen Mantel"),
    ],
)
def test_articles_and_adjectives_follow_case(case, article, expected):
    phrase = NounPhrase(nouns()["coat"], article, "new")
    assert phrase.german(case, "unser") == (expected,)


def test_plurals_and_mass_nouns_take_strong_endings_and_the_dative_plural_an_n():
    assert NounPhrase(nouns()["shoes"], "a", "black").german("accusative") == ("schwarze Schuhe",)
    assert NounPhrase(nouns()["coffee"], "a", "hot").german("accusative") == ("heißen Kaffee",)
    assert NounPhrase(nouns()["friends"], "p").german("dative", "unser") == ("unseren Freunden",)


@pytest.mark.parametrize(
    ("verb", "second", "third", "participle", "auxiliary"),
    [
        ("lesen", "liest", "liest", "gelesen", "haben"),
        ("arbeiten", "arbeitest", "arbeitet", "gearbeitet", "haben"),
        ("reparieren", "reparierst", "repariert", "repariert", "haben"),
        ("besuchen", "besuchst", "besucht", "besucht", "haben"),
        ("ein|laden", "lädst", "lädt", "eingeladen", "haben"),
        ("auf|stehen", "stehst", "steht", "aufgestanden", "sein"),
    ],
)
def test_verbs_take_their_forms(verb, second, third, participle, auxiliary):
    forms = german_verb(verb)
    assert (forms.present("2s"), forms.present("3s")) == (second, third)
    assert (forms.full_participle, forms.auxiliary) == (participle, auxiliary)


@pytest.mark.slow
def test_the_files_of_the_package_are_what_the_grammar_writes(book):
    for split in SPLITS:
        with gzip.open(PHRASEBOOK / f"{split}.jsonl.gz") as file:
            assert file.read() == json_lines(getattr(book, split)), split
    assert (len(book.validation), len(book.test)) == (200, 500)


def test_written_files_are_read_like_any_others_and_leave_nothing_else(tmp_path, monkeypatch):
    sizes = ["--num-pairs", "30", "--num-validation", "5", "--num-test", "5", "--seed", "2"]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        monkeypatch.setattr("sys.argv", ["write_phrasebook.py", str(folder), *sizes])
        main()
    book = make_phrasebook(30, num_validation=5, num_test=5, seed=2)
    names = [f"{split}.jsonl.gz" for split in SPLITS]
    for split, name in zip(SPLITS, names, strict=True):
        rows = load_translations(first / name, source_lang="en", target_lang="de")
        assert rows.to_list() == getattr(book, split)
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert {path.name for path in first.iterdir()} == set(names)


def test_what_cannot_be_given_is_refused_by_name():
    with pytest.raises(ValueError, match="`num_pairs` must be between 0 and"):
        make_phrasebook(MAX_PAIRS + 1)
    with pytest.raises(ValueError, match="`num_test` must be between 0 and"):
        make_phrasebook(10, num_test=-1)
    with pytest.raises(TypeError, match="`num_validation` must be an int"):
        make_phrasebook(10, num_validation=2.5)
