"""`axe-hf import-fairseq`: what it writes, and how each failure looks."""

import json

import pytest

PIECES = ["a", "the", "dog", "bar@@", "ks", ".", "&apos;", "@-@", "lo@@", "w"]


@pytest.fixture(scope="module")
def place(original, tmp_path_factory):
    """A folder with checkpoint, dictionary and BPE codes."""
    folder = tmp_path_factory.mktemp("original")
    original.write(folder, PIECES)
    (folder / "codes").write_text("#version: 0.2\nb a\nba r\nk s</w>\nl o\nt h\nth e</w>\n")
    (folder / "other.txt").write_text("a 1\n")
    return folder


@pytest.fixture
def argv(place, tmp_path):
    dictionaries = ("--dict-source", place / "dict.txt", "--dict-target", place / "dict.txt")
    out = ("--output-dir", tmp_path / "model")
    return ["import-fairseq", place / "checkpoint_best.pt", *dictionaries, *out]


def test_the_model_translates_raw_text(axe_hf, argv, place, tmp_path):
    pytest.importorskip("sacremoses")
    moses = ("--moses-source-lang", "en", "--moses-target-lang", "de", "--moses-aggressive-dashes")
    languages = ("--source-lang", "en", "--target-lang", "de")
    code, printed, err = axe_hf(*argv, "--bpe-codes", place / "codes", *moses, *languages)
    out = tmp_path / "model"
    assert code == 0, err
    assert f"Reading {place / 'checkpoint_best.pt'}, " in printed
    assert printed.endswith(f'Try: axe-hf translate {out} "..."\n')
    config = json.loads((out / "config.json").read_text())
    assert (
        config["directions"] == ["en-de"]
        and "license: cc-by-nc-4.0" in (out / "README.md").read_text()
    )
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["moses"] == {
        "source_lang": "en",
        "target_lang": "de",
        "aggressive_dash_splits": True,
        "escape": True,
        "normalize_punctuation": False,
        "lowercase": False,
    }
    code, printed, err = axe_hf("translate", out, "The dog's barks.", "")
    assert code == 0 and printed.count("\n") == 2, err


def test_words_that_are_split_already(axe_hf, argv, tmp_path):
    words = ("--no-moses", "--source-lang", "zh-CN", "--target-lang", "en", "--license", "mit")
    assert axe_hf(*argv, *words)[0] == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["directions"] == ["zh-CN:en"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license: mit" in card and "language:\n- zh\n- en\n" in card
    assert axe_hf("translate", tmp_path / "model", "a dog bar@@ ks .")[0] == 0


def test_the_card_names_languages_that_the_hub_knows(axe_hf, argv, tmp_path):
    words = ("--no-moses", "--source-lang", "source", "--target-lang", "de_AT")
    assert axe_hf(*argv, *words)[0] == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "language:\n- de\n" in card and "from `source` to `de_AT`" in card


WRONG_USAGE = {
    "no word of Moses": ([], "say how the texts were tokenised: --moses-source-lang"),
    "half a word": (["--moses-source-lang", "en"], "say how the texts were tokenised"),
    "both": (["--no-moses", "--moses-lowercase"], "either --no-moses or --moses-..."),
    "one language": (["--no-moses", "--source-lang", "en"], "both --source-lang and"),
    "an unknown option": (["--no-moses", "--moses"], "--moses"),
}


@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage(fails, argv, tmp_path, name):
    words, told = WRONG_USAGE[name]
    assert told in fails(2, *argv, *words)
    assert not (tmp_path / "model").exists()


def test_what_is_required(fails):
    told = fails(2, "import-fairseq", "x.pt", "--no-moses")
    assert "required: --dict-source, --dict-target, --output-dir" in told


def test_failures(fails, argv, place, tmp_path):
    def replaced(old, new):
        return [new if word == old else word for word in argv] + ["--no-moses"]

    none, checkpoint = tmp_path / "none", place / "checkpoint_best.pt"
    assert f"CHECKPOINT: there is no file {none}" in fails(1, *replaced(checkpoint, none))
    told = fails(1, *replaced(place / "dict.txt", none))
    assert f"--dict-source: there is no file {none}" in told
    assert "--bpe-codes: there is no" in fails(1, *argv, "--no-moses", "--bpe-codes", none)
    told = fails(1, *replaced(place / "dict.txt", place / "other.txt"))
    assert "encoder.embed_tokens.weight has shape (16, 16), not (6, 16)" in told
    told = fails(1, *replaced(checkpoint, place / "dict.txt"))
    assert "cannot be read as a checkpoint" in told
    told = fails(1, *argv, "--no-moses", "--bpe-codes", place / "dict.txt")
    assert "it holds counts, as a dictionary does" in told
    assert "--output-dir" in fails(1, *replaced(tmp_path / "model", place))
    told = fails(1, *argv, "--no-moses", "--source-lang", "e n", "--target-lang", "de")
    assert "two language codes" in told
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".unfinished*"))
