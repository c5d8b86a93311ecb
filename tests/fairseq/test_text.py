"""Text through dictionary, BPE codes and Moses: every id is what the original's tools give.

They are subword-nmt's `apply_bpe` and a look-up in the dictionary, a line at a time.
"""

import gzip
import io
import json
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe
from transformers import AutoTokenizer

from axe_hf import FairseqTokenizer, MosesSettings, import_fairseq
from axe_hf.fairseq.dictionary import joined_dictionary, read_codes, read_dictionary, tokenizer_of

EOS, UNK = 2, 3


def learned_codes(texts, version, num_merges=300):
    """A file of codes as subword-nmt writes it; 0.1 has none of its header."""
    out = io.StringIO()
    with io.StringIO("\n".join(texts)) as lines:
        learn_bpe(lines, out, num_merges)
    codes = out.getvalue()
    if version == "0.1":
        # There the end is a symbol of its own, which other merges build upon.
        merges = codes.splitlines()[1:]
        ends = dict.fromkeys(m.split()[1] for m in merges if m.endswith("</w>"))
        letters = [end for end in ends if len(end) == len("</w>") + 1]
        codes = "".join(f"{end[0]} </w>\n" for end in letters) + "\n".join(merges) + "\n"
    return codes


class Tools:
    """Codes and a dictionary as users have them, and what the tools of old make of text."""

    def __init__(self, folder, texts, version, threshold=2):
        folder.mkdir(parents=True)
        self.codes, self.dictionary = folder / "codes", folder / "dict.txt"
        self.codes.write_text(learned_codes(texts, version), encoding="utf-8")
        with open(self.codes, encoding="utf-8") as file:
            self.bpe = BPE(file)
        counts = Counter(piece for text in texts for piece in self.pieces(text))
        kept = [piece for piece, n in counts.most_common() if n >= threshold]
        lines = [f"{piece} {counts[piece]}\n" for piece in kept] + ["madeupword0000 0\n"]
        self.dictionary.write_text("".join(lines), encoding="utf-8")
        self.ids = {piece: i for i, piece in enumerate([*kept, "madeupword0000"], start=5)}

    def pieces(self, text):
        return self.bpe.process_line(" ".join(text.split())).split()

    def encoded(self, text):
        return [*(self.ids.get(piece, UNK) for piece in self.pieces(text)), EOS]

    def tokenizer(self, moses=None):
        symbols = joined_dictionary(self.dictionary, self.dictionary)
        return tokenizer_of(symbols, read_codes(self.codes), moses)


@pytest.fixture(scope="module", params=["0.1", "0.2"])
def tools(request, sentences, tmp_path_factory):
    place = tmp_path_factory.mktemp("text") / "tools"
    return Tools(place, sentences["en"][:150] + sentences["de"][:150], request.param)


def test_real_sentences_keep_every_id(tools, sentences):
    tokenizer = tools.tokenizer()
    texts = sentences["en"] + sentences["de"]
    expected = [tools.encoded(text) for text in texts]
    assert tokenizer(texts).input_ids == expected
    assert any(UNK in ids for ids in expected) and len({len(ids) for ids in expected}) > 5


def test_sentences_of_another_corpus_keep_every_id(translation_data, tools):
    texts = []
    with gzip.open(translation_data / "tatoeba.validation.jsonl.gz", "rt", encoding="utf-8") as f:
        for line in f:
            texts += json.loads(line)["translation"].values()
    tokenizer = tools.tokenizer()
    assert tokenizer(texts).input_ids == [tools.encoded(text) for text in texts]


@pytest.fixture(scope="module")
def made(sentences, tmp_path_factory):
    """Tools and tokenizer of both versions, for thousands of texts."""
    place = tmp_path_factory.mktemp("made")
    texts = sentences["en"][:150] + sentences["de"][:150]
    known = [Tools(place / version, texts, version) for version in ("0.1", "0.2")]
    return [(tools, tools.tokenizer()) for tools in known]


WORDS = ["@@", "@-@", "</w>", "<s>a", "the", "thethe", "eeee", "ein", "straße", "w@@", "&apos;"]


@given(st.lists(st.text() | st.sampled_from(WORDS) | st.text("ehtnirsd", min_size=1), max_size=8))
def test_made_up_texts_keep_every_id(made, words):
    # White space of all kinds divides words, and what spells a symbol is not that symbol.
    text = " ".join(words).encode("utf-8", "ignore").decode()
    for tools, tokenizer in made:
        expected = tools.encoded(text)
        assert tokenizer(text).input_ids == expected, text.split()


def test_ids_become_text_again(tools, sentences):
    tokenizer, known = tools.tokenizer(), 0
    for text in sentences["en"] + sentences["de"]:
        ids = tokenizer(text).input_ids
        if UNK not in ids:
            known += 1
            assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(text.split())
    assert known > 50
    pieces = ["lo@@", "w", "we@@"]
    tokenizer = tokenizer_of(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *pieces], None, None)
    assert tokenizer.decode([5, 6, 7], skip_special_tokens=True) == "low we"
    assert tokenizer.decode([1, 0, 5, 3, 6, 2], skip_special_tokens=True) == "low"


def test_a_dictionary_of_whole_words(tmp_path):
    (tmp_path / "dict.txt").write_text("the 9\ndog 3\n. 2\nmadeupword0000 0\n", encoding="utf-8")
    symbols = read_dictionary(tmp_path / "dict.txt")
    assert symbols == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "the",
        "dog",
        ".",
        "madeupword0000",
    ]
    tokenizer = tokenizer_of(symbols, None, None)
    assert len(tokenizer) == 9
    assert tokenizer("the  dog\tbarks .").input_ids == [5, 6, UNK, 7, EOS]
    assert tokenizer("").input_ids == [EOS] == tokenizer(" \n ").input_ids
    assert tokenizer("madeupword0000").input_ids == [8, EOS]
    assert tokenizer("the dog", "dog").input_ids == [5, 6, EOS, 6, EOS]
    names = ("blank_token_id", "pad_token_id", "eos_token_id", "unk_token_id", "mask_token_id")
    assert [getattr(tokenizer, name) for name in names] == [0, 1, 2, 3, 4]


def test_no_text_spells_a_symbol():
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "<mask>x"]
    tokenizer = tokenizer_of(symbols, None, None)
    ids = tokenizer("<mask> a </s> <s> <pad> <unk> <mask>x").input_ids
    assert ids == [UNK, 5, UNK, UNK, UNK, UNK, 6, EOS]


def test_of_lines_that_stand_twice_the_last_counts(tmp_path):
    """As the original looks them up; ids are places in the file, so that no row moves."""
    lines = ["a 5", "b 4 #fairseq:overwrite", "a 3 #fairseq:overwrite", "<unk> 2", "a 1", "c d 0"]
    (tmp_path / "dict.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    symbols = read_dictionary(tmp_path / "dict.txt")
    assert symbols[5:] == ["a", "b", "a", "<unk>", "a", "c d"]
    tokenizer = tokenizer_of(symbols, None, None)
    assert len(tokenizer) == 11 and sorted(tokenizer.get_vocab().values()) == list(range(11))
    assert tokenizer("a b <unk>").input_ids == [9, 6, UNK, EOS] and tokenizer.unk_token_id == UNK
    assert tokenizer.decode([5, 7, 9, 6]) == "a a a b"


WRONG_DICTIONARIES = {
    "no count": ("the 9\ndog\n", "line 2: must be a symbol, a space and a count, got 'dog'"),
    "a word for a count": ("the nine\n", "line 1: must be a symbol"),
    "an empty line": ("the 9\n\ndog 2\n", "line 2: must be a symbol"),
    "sentencepiece": ("▁the 9\n▁dog 3\ns 3\n", "sentencepiece model, such as '▁the'"),
    "another encoding": ("größe 3\n".encode("latin-1"), "must be UTF-8"),
}


@pytest.mark.parametrize("name", WRONG_DICTIONARIES)
def test_wrong_dictionaries_are_refused(tmp_path, name):
    content, words = WRONG_DICTIONARIES[name]
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_dictionary(tmp_path / "dict.txt")


def test_dictionaries_that_differ_are_refused(tmp_path):
    for name, words in {"en": "a 5\nb 4\n", "de": "a 5\nc 4\n", "fr": "a 5\n"}.items():
        (tmp_path / name).write_text(words)
    with pytest.raises(ValueError, match=r"id 6 is 'b' in .*en and 'c' in .*de\. .*joined"):
        joined_dictionary(tmp_path / "en", tmp_path / "de")
    with pytest.raises(ValueError, match=r"id 6 is nothing in .*fr and 'b' in .*en"):
        joined_dictionary(tmp_path / "fr", tmp_path / "en")


WRONG_CODES = {
    "three columns": ("t h 5\n", "line 1: must be two symbols and a space, got 't h 5'"),
    "one column": ("#version: 0.2\nt h\nth\n", "line 3: must be two symbols"),
    "another version": ("#version: 0.3\nt h\n", "must be 0.1 or 0.2, got 0.3"),
    "nothing": ("", "it holds no merges"),
    "a dictionary": ("the 9\ndog 3\n", "it holds counts, as a dictionary does, and no merges"),
    "a header alone": ("#version: 0.2\n", "it holds no merges"),
}


@pytest.mark.parametrize("name", WRONG_CODES)
def test_wrong_codes_are_refused(tmp_path, name):
    content, words = WRONG_CODES[name]
    (tmp_path / "codes").write_text(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_codes(tmp_path / "codes")


RAW = [
    "Mr. O'Neil's well-known dog costs $3.50, doesn't it?",
    "She said: \"It's 5 o'clock & late <here>.\"",
    "",
    "Über den Häusern – die U-Bahn!",
]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggressive_dash_splits": True},
        {"escape": False},
        {"normalize_punctuation": True, "lowercase": True},
    ],
)
def test_raw_text_is_prepared_by_moses_as_asked(tools, changes):
    sacremoses = pytest.importorskip("sacremoses")
    settings = MosesSettings("en", "de", **changes)
    tokenizer = tools.tokenizer(settings)
    for is_target, language in ((False, "en"), (True, "de")):
        moses = sacremoses.MosesTokenizer(language)
        for text in RAW:
            cleaned = text
            if settings.normalize_punctuation:
                cleaned = sacremoses.MosesPunctNormalizer(language).normalize(text)
            how = {"aggressive_dash_splits": settings.aggressive_dash_splits}
            words = moses.tokenize(cleaned, escape=settings.escape, return_str=True, **how)
            expected = tools.encoded(words.lower() if settings.lowercase else words)
            given = {"text_target" if is_target else "text": text}
            assert tokenizer(**given).input_ids == expected
    assert tokenizer(RAW[0]).input_ids == tokenizer([RAW[0]]).input_ids[0]  # source again


def test_translations_are_detokenised():
    pytest.importorskip("sacremoses")
    words = ["Die", "U", "@-@", "Ba@@", "hn", "&apos;", "s", ",", "&quot;", "!"]
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *words]
    tokenizer = tokenizer_of(symbols, None, MosesSettings("en", "de", aggressive_dash_splits=True))
    ids = [*range(5, 10), 14, EOS, 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Die U-Bahn!"
    assert tokenizer.batch_decode([ids, [EOS]], skip_special_tokens=True) == ["Die U-Bahn!", ""]


def test_it_is_saved_with_all_that_it_does(tools, tmp_path):
    pytest.importorskip("sacremoses")
    tokenizer = tools.tokenizer(MosesSettings("en", "de", aggressive_dash_splits=True))
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is FairseqTokenizer and again.moses_settings == tokenizer.moses_settings
    assert again(RAW).input_ids == tokenizer(RAW).input_ids
    assert again(text_target=RAW).input_ids == tokenizer(text_target=RAW).input_ids
    ids = again(RAW[0]).input_ids
    assert again.decode(ids) == tokenizer.decode(ids)
    again.save_pretrained(tmp_path / "third")
    third = AutoTokenizer.from_pretrained(tmp_path / "third")
    assert third(RAW).input_ids == tokenizer(RAW).input_ids


def test_what_names_a_cache_knows_how_text_is_made(tools):
    """`repr` is a part of the name under which the ids of a data set are kept."""
    moses = MosesSettings("en", "de")
    assert repr(tools.tokenizer(moses)) == repr(tools.tokenizer(moses))
    assert repr(tools.tokenizer(moses)) != repr(tools.tokenizer())
    whole_words = tokenizer_of(read_dictionary(tools.dictionary), None, None)
    assert repr(tools.tokenizer()) != repr(whole_words)


def test_pieces_are_taken_as_they_are(tools):
    tokenizer, pieces = tools.tokenizer(), tools.pieces("the dog")
    expected = tools.encoded("the dog")
    assert tokenizer(pieces, is_split_into_words=True).input_ids == expected


WITHOUT_US = """
import os, sys
sys.path[:] = [path for path in sys.path if not os.path.isdir(path + "/axe_hf")]
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
assert "axe_hf" not in sys.modules
print(type(tokenizer).__name__, tokenizer(sys.argv[2]).input_ids)
"""


@pytest.mark.slow
def test_the_tokenizer_travels_with_its_code(original, tmp_path):
    """Where axe_hf is not installed, `trust_remote_code=True` brings the class along."""
    files, _ = original.write(tmp_path)
    (tmp_path / "codes").write_text("#version: 0.2\nw e\nwe s\nwes t</w>\nl o\n")
    out, codes = tmp_path / "model", tmp_path / "codes"
    folder = import_fairseq(**files, output_dir=out, moses=None, bpe_codes=codes)
    expected = AutoTokenizer.from_pretrained(folder)("a dog low west").input_ids
    command = [sys.executable, "-c", WITHOUT_US, str(folder), "a dog low west"]
    environment = {"HF_HOME": str(tmp_path / "hf"), "PATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.stdout.strip() == f"FairseqTokenizer {expected}", done.stderr


MARKS = {
    "Moses's escapes": (["&apos;"], None, None, "no Moses was asked for"),
    "hyphens": (["@-@", "&apos;"], None, MosesSettings("en", "de"), "aggressive_dash_splits"),
    "no escapes": (["a"], None, MosesSettings("en", "de"), "which Moses writes with escape"),
    "pieces": (["a@@"], None, None, "no BPE codes were given"),
}


@pytest.mark.parametrize("name", MARKS)
def test_marks_of_another_preparation_are_told(name, monkeypatch):
    from axe_hf.fairseq import dictionary

    words, codes, moses, told = MARKS[name]
    found = []
    monkeypatch.setattr(dictionary.logger, "warning", found.append)
    dictionary.warn_of_text(words, codes, moses)
    assert len(found) == 1 and told in found[0]


def test_without_sacremoses_the_extra_is_named(original, tmp_path, monkeypatch):
    from axe_hf.fairseq import tokenization_fairseq

    monkeypatch.setitem(sys.modules, "sacremoses", None)
    tokenization_fairseq._moses.cache_clear()
    files, _ = original.write(tmp_path)
    with pytest.raises(ImportError, match=r"sacremoses is missing.*axe-hf\[moses\]"):
        import_fairseq(**files, output_dir=tmp_path / "out", moses=MosesSettings("en", "de"))
    assert not (tmp_path / "out").exists()
    assert torch.is_grad_enabled()
