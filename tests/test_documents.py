"""Documents: every sentence once, and nothing else of a text touched."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axe_hf.documents import Document, split_document

TEXT = """\
A title

  Dr. Smith came in.  He sat down, e.g. on a chair.\t
\t"Who is it?" she said.\r
\r
The end, without a line break"""
ALPHABET = [*"aB.!?。… \t\n\r\"'(1-", "\r\n", "\n\n", "Dr. ", "\u2028", "\x0b", "\x85", "\u3000"]
ALPHABET += ["\ufeff", "\u200b", "\ud800", "\udfff", "\0", "e\u0301", "🙂", "日本"]


@given(st.lists(st.sampled_from(ALPHABET), max_size=30).map("".join), st.booleans())
def test_the_sentences_themselves_give_the_text_back(text, split_sentences):
    document = split_document(text, "en", split_sentences=split_sentences)
    assert document.joined(document.sentences) == text


@given(st.text(), st.sampled_from(["en", "zh_CN", "de", "nonsense", "", None]))
def test_any_text_in_any_language_comes_back(text, language):
    document = split_document(text, language)
    assert document.joined(document.sentences) == text
    assert all(sentence and sentence == sentence.strip() for sentence in document.sentences)
    assert not any(map(str.strip, document.between))
    assert len(document.between) == len(document.sentences) + 1
    assert not any(len(sentence.splitlines()) > 1 for sentence in document.sentences)


def test_a_text_is_split_into_its_sentences():
    assert split_document(TEXT, "en").sentences == [
        "A title",
        "Dr. Smith came in.",
        "He sat down, e.g. on a chair.",
        '"Who is it?" she said.',
        "The end, without a line break",
    ]


def test_lines_stay_whole_where_no_sentences_are_asked_for():
    sentences = split_document(TEXT, split_sentences=False).sentences
    assert sentences[1] == "Dr. Smith came in.  He sat down, e.g. on a chair."
    assert len(sentences) == 4


def test_lines_indentation_and_blank_lines_stay_where_they_are():
    document = split_document(TEXT, "en")
    translated = document.joined([str(number) for number in range(5)])
    assert translated == "0\n\n  1  2\t\n\t3\r\n\r\n4"


@pytest.mark.parametrize("text", ["", "\n", " \r\n\r\n\t"])
def test_a_text_that_says_nothing_has_no_sentences(text):
    assert split_document(text) == Document([], [text])


@pytest.mark.parametrize(("language", "number"), [("de", 1), ("de_AT", 1), ("en", 2)])
def test_each_language_has_abbreviations_of_its_own(language, number):
    assert len(split_document("Er kam am 3. Mai.", language).sentences) == number


def test_a_script_without_spaces_gets_them_and_loses_them():
    chinese, english = "你好。再见！\n走吧。", "Hello. Good-bye!\nLet's go."
    there = split_document(chinese, "zh").joined(["Hello.", "Good-bye!", "Let's go."])
    back = split_document(english, "en").joined(["你好。", "再见！", "走吧。"])
    assert (there, back) == (english, chinese)


def test_an_emoji_at_the_end_is_no_script_without_spaces():
    document = split_document("Well done. Go on.", "en")
    assert document.joined(["Gut 🙂", "Weiter."]) == "Gut 🙂 Weiter."


@pytest.mark.parametrize("translations", [[], ["one"], ["one", "two", "three"]])
def test_too_few_and_too_many_translations_are_refused(translations):
    with pytest.raises(ValueError, match=f"got {len(translations)} for 2 sentences"):
        split_document("One. Two.").joined(translations)


def test_without_sentencex_lines_can_be_taken_and_sentences_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    assert split_document("One. Two.\n", split_sentences=False).sentences == ["One. Two."]
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[documents\]"'):
        split_document("One. Two.\n")
