"""Ids that are looked up word by word are those that the tokenizer makes of whole texts."""

import pickle
import random

import numpy as np
import pytest
from transformers import AutoTokenizer

from axe_hf.data import PairTokenizer, train_tokenizer
from axe_hf.data.encoding import TokenColumn, WordIds
from axe_hf.data.tokenizer import encode_targets
from axe_hf.training.directions import add_tags

LANGUAGES = {"source_lang": "en", "target_lang": "de"}
# White space, what folds to it or is dropped, marks that join what stands before them, and so on.
CHARACTERS = "aeonä X'’.…,½ßḮ̲ \t\n\r\0\x01\x0b\x1c\x85\xa0\u2003"
CHARACTERS += "\u2028\u200b\ufeff▁<>中한ं\u0300\u0301\u0338é😀"
WORDS = ["", "foo", " <mask> ", "<mask>", ">>de<<", " >>de<< ", "</s>", "  ", "▁ ", "it's"]


def texts(count, seed):
    draw = random.Random(seed)
    parts = [*CHARACTERS, *WORDS]
    return ["".join(draw.choices(parts, k=draw.choice([0, 1, 3, 9, 60]))) for _ in range(count)]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request, tmp_path_factory):
    """One that was saved and loaded, as in a run that goes on."""
    learnt = [*texts(150, 0), *["foo bar it's an X"] * 30]
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(learnt, vocab_size=500, algorithm=request.param).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def is_by_words(tokenizer):
    return PairTokenizer(tokenizer, *LANGUAGES.values(), 9, 9)._words is not None


@pytest.mark.parametrize("is_tagged", [False, True])
@pytest.mark.parametrize("spells", [True, False])
def test_ids_by_words_are_those_of_whole_texts(tokenizer, is_tagged, spells):
    tokenizer.split_special_tokens = spells
    prefix = ">>de<< " if is_tagged else "to German: "
    if is_tagged:
        add_tags(tokenizer, [">>de<<"])
    pair_tokenizer = PairTokenizer(tokenizer, "en", "de", 9999, 9999, source_prefix=prefix)
    encode = pair_tokenizer._words
    for seed in (1, 2):  # the second time most words are known
        some = texts(150, seed)
        expected = tokenizer([prefix + text for text in some]).input_ids
        assert encode([prefix + text for text in some]).rows() == expected
        assert encode(some).rows() == encode_targets(tokenizer, some)


def test_words_are_forgotten_and_learned_again(tokenizer, monkeypatch):
    monkeypatch.setattr("axe_hf.data.encoding._MOST_WORDS", 20)
    encode = PairTokenizer(tokenizer, *LANGUAGES.values(), 9, 9)._words
    for seed in (3, 4, 3):
        for text in texts(25, seed):
            assert encode([text, "foo"]).rows() == tokenizer([text, "foo"]).input_ids
    assert len(encode.known) + len(encode.older) < 100
    assert all(len(word) <= 40 for word in encode.known)


@pytest.mark.parametrize("others", [["b", "c d e"], ["b", "c d e f", "x" * 50]])
def test_what_another_thread_forgets_is_still_there(others, monkeypatch):
    monkeypatch.setattr("axe_hf.data.encoding._MOST_WORDS", 2)

    def encode(words):
        while others and "new" in words:  # as if another thread came in between
            word_ids([others.pop()])
        return [[len(word)] for word in words]

    word_ids = WordIds(encode, end=1)
    word_ids(["a"])
    assert word_ids(["a " + "x" * 50 + " new"]).rows() == [[1, 50, 3, 1]]


def test_tokenizers_that_look_further_than_a_word_are_asked_for_whole_texts():
    def make():
        return train_tokenizer(["one two", "eins zwei"] * 9, vocab_size=300)

    assert is_by_words(make())
    dropping, spaced, folding = make(), make(), make()
    dropping.backend_tokenizer.model.dropout = 0.5
    spaced.add_tokens(["one two"])
    folding.backend_tokenizer.pre_tokenizer = None
    for other in (dropping, spaced, folding):
        assert not is_by_words(other)
    pairs = [{"en": "one two", "de": "eins"}, {"en": "two", "de": "zwei zwei zwei zwei zwei"}]
    found = PairTokenizer(spaced, "en", "de", 5, 5)(pairs)
    whole = spaced("one two").input_ids
    assert found == {"input_ids": [whole], "labels": encode_targets(spaced, ["eins"])}


def test_a_tokenizer_that_knows_words_goes_into_another_process(tokenizer):
    pair_tokenizer = PairTokenizer(tokenizer, "en", "de", 99, 99)
    pairs = [{"en": "foo bar", "de": "it's an X"}]
    made = pair_tokenizer(pairs)
    assert (
        pickle.loads(pickle.dumps(pair_tokenizer))([*pairs, *pairs])["labels"] == made["labels"] * 2
    )


def test_rows_of_a_column_are_what_it_was_made_of_in_any_order():
    rows = [[5, 6], [], [7], [8, 9, 10], []]
    column = TokenColumn.of(rows)
    assert column.rows() == rows
    for order in ([3, 0, 4], [], [1, 1, 2]):
        assert column.taken(np.array(order, int)).rows() == [rows[i] for i in order]
    assert TokenColumn.joined([column, TokenColumn.of([]), column]).rows() == rows * 2
