"""`axe-hf evaluate`: its scores, and how each failure looks."""

import json
import shutil
from math import nan

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def pairs(toy_pairs, tmp_path):
    """A file of sentence pairs, each with two references."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"translation": {"en": en, "de": de}, "references": [de, "etwas anderes"]}
        for en, de in toy_pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_model_is_scored_on_all_references_of_its_data(axe_hf, model, pairs, tmp_path):
    output = tmp_path / "scores.json"
    languages = ("--source-lang", "en", "--target-lang", "de")
    options = ("--num-iterations", "2", "--output", output)
    code, out, _ = axe_hf("evaluate", model, *languages, pairs, *options)
    assert code == 0
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert scores["bleu_signature"].startswith("nrefs:2|case:mixed")
    assert scores["bleu_signature"] in out and scores["chrf_signature"] in out
    assert "repetition rate" in out and "length ratio" in out and "sentences/s" in out
    assert scores["num_sentences"] == 4 and scores["sentences_per_second"] > 0
    assert scores["decoding"]["num_iterations"] == 2
    assert scores["decoding"]["num_length_candidates"] == 1
    assert scores["decoding"]["collapse_repeats"] is False


@pytest.mark.parametrize(
    ("option", "is_collapsed"), [((), True), (("--no-collapse-repeats",), False)]
)
def test_scores_tell_whether_runs_were_collapsed(
    axe_hf, model, pairs, tmp_path, option, is_collapsed
):
    folder, output = tmp_path / "model", tmp_path / "scores.json"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text()) | {"allow_repetition": True}
    (folder / "config.json").write_text(json.dumps(config))
    languages = ("--source-lang", "en", "--target-lang", "de")
    code, _, _ = axe_hf("evaluate", folder, *languages, pairs, "--output", output, *option)
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert code == 0 and scores["decoding"]["collapse_repeats"] is is_collapsed


def test_a_model_is_scored_in_int8_and_with_candidates_ranked_by_another(
    axe_hf, model, rescorer, pairs, tmp_path
):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from axe_hf import TranslationMetric, load_translations, quantize_int8, translate

    loaded, tokenizer = (
        auto_class.from_pretrained(model) for auto_class in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    pair = (AutoModelForSeq2SeqLM.from_pretrained(rescorer), tokenizer)
    rows = load_translations(str(pairs), source_lang="en", target_lang="de")
    sources = [row["en"] for row in rows["translation"]]
    settings = {"num_length_candidates": 12, "length_score_weight": 0.0, "num_iterations": 2}
    options = ["--source-lang", "en", "--target-lang", "de", "--output", tmp_path / "scores.json"]
    options += [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    found = {}
    for is_int8, asked in ((False, None), (True, None), (True, pair)):
        extra = [*["--int8"] * is_int8, *(["--rescore-with", rescorer] if asked else [])]
        code, _, err = axe_hf("evaluate", model, pairs, *options, *extra, "--overwrite")
        assert code == 0, err
        scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
        assert scores["int8"] == is_int8
        assert scores["rescore_with"] == (str(rescorer) if asked else None)
        runs = quantize_int8(loaded) if is_int8 else loaded
        translations = translate(runs, tokenizer, sources, **settings, rescore_with=asked)
        metric = TranslationMetric()
        references = list(rows["references"])
        expected = metric.compute(predictions=translations, references=references)
        assert {name: scores[name] for name in expected} == expected
        found[is_int8, asked is not None] = translations
    assert found[True, True] != found[True, False], "the test should see another choice"


def test_translations_are_scored_against_text_files(axe_hf, tmp_path):
    files = {"found": ["a b c d e", "f g h i"], "first": ["a b c d e", "x"]}
    files["second"] = ["", "f g h i"]
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    found, first, second = (tmp_path / name for name in files)
    code, out, _ = axe_hf("evaluate", "--translations", found, "--references", first, second)
    assert code == 0 and "BLEU               100.00  nrefs:var" in out
    assert "sentences/s" not in out


def test_wrong_usage(fails, model, pairs, tmp_path):
    line = fails(2, "evaluate")
    assert "required: MODEL, DATA, --source-lang, --target-lang" in line
    assert "required: DATA" in fails(2, "evaluate", model)
    assert "required: --references" in fails(2, "evaluate", "--translations", "a")
    options = ("--translations", "a", "--references", "b")
    assert "not both" in fails(2, "evaluate", model, *options)
    for extra in ("--int8", "--rescore-with nowhere", "--device cpu", "--no-early-stop"):
        line = fails(2, "evaluate", *options, *extra.split())
        name = extra.split()[0].replace("no-", "")
        assert f"{name}: for a MODEL only, and --translations need none" in line
    line = fails(2, "evaluate", *options, "--int8", "--rescore-with", "nowhere")
    assert "--int8, --rescore-with: for a MODEL only" in line
    languages = ("--source-lang", "en", "--target-lang", "de")
    line = fails(2, "evaluate", model, pairs, *languages, "--int8", "--device", "cuda")
    assert "leave out --device cuda, or --int8" in line


def test_data_that_cannot_be_scored(fails, model, pairs, tmp_path):
    languages = ("--source-lang", "en", "--target-lang", "fr")
    line = fails(1, "evaluate", model, pairs, *languages)
    assert f"{pairs}, line 1: must have the language 'fr'" in line
    (tmp_path / "one").write_text("a\n")
    (tmp_path / "two").write_text("a\nb\n")
    options = ("--translations", tmp_path / "one", "--references", tmp_path / "two")
    assert f"{tmp_path / 'two'} must have as many lines as" in fails(1, "evaluate", *options)
    output = tmp_path / "scores.json"
    output.write_text("mine")
    line = fails(1, "evaluate", model, pairs, *languages, "--output", output)
    assert "exists already" in line and output.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value"), [("model.encoder.embed_tokens.weight", None), ("lm_head.weight", nan)]
)
def test_a_model_with_missing_weights_or_none_that_are_numbers_has_no_score(
    axe_hf, model, pairs, tmp_path, name, value
):
    folder = tmp_path / "spoilt"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop(name) if value is None else weights[name].fill_(value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    languages = ("--source-lang", "en", "--target-lang", "de")
    code, out, err = axe_hf("evaluate", folder, *languages, pairs)
    assert (code, out) == (1, "")
    complaint = f"lacks the weights {name}" if value is None else "hold NaN or infinity"
    assert complaint in err.splitlines()[-1]


@pytest.fixture
def folder(toy_pairs, tmp_path):
    """Makes a folder with a data set of these splits, each of another size."""
    import datasets

    datasets.disable_progress_bars()

    def make(*splits):
        path = tmp_path / "_".join(splits)
        path.mkdir()
        for number, split in enumerate(splits, start=1):
            rows = [{"translation": {"en": en, "de": de}} for en, de in toy_pairs[:number]]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (path / f"{split}.jsonl").write_text(text, encoding="utf-8")
        return path

    yield make
    datasets.enable_progress_bars()


def test_a_data_set_is_scored_on_test_else_validation_and_never_silently_on_train(
    axe_hf, fails, model, folder
):
    languages = ("--source-lang", "en", "--target-lang", "de")
    for splits, taken in (
        (("train", "validation", "test"), "test"),
        (("train", "validation"), "validation"),
    ):
        code, out, _ = axe_hf("evaluate", model, folder(*splits), *languages)
        number = splits.index(taken) + 1
        assert code == 0 and f"sentences        {number:8}  of the split {taken}" in out
    only = folder("train")
    line = fails(1, "evaluate", model, only, *languages)
    assert "no split test or validation in ['train']; name `split`" in line
    code, out, _ = axe_hf("evaluate", model, only, *languages, "--split", "train")
    assert code == 0 and "1  of the split train" in out
    assert "Unknown split" in fails(1, "evaluate", model, only, *languages, "--split", "dev")


def test_a_split_is_of_a_data_set(fails, axe_hf, model, pairs):
    languages = ("--source-lang", "en", "--target-lang", "de")
    line = fails(1, "evaluate", model, pairs, *languages, "--split", "test")
    assert "`split` must be None for files, got 'test'" in line
    options = ("--translations", "a", "--references", "b")
    assert "--split: for a MODEL only" in fails(2, "evaluate", *options, "--split", "test")
    _, out, _ = axe_hf("evaluate", model, pairs, *languages)
    assert "of the split" not in out


def test_bleu_is_that_of_the_target_language_or_of_tokenize(axe_hf, fails, model, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"translation": {"en": "one", "zh": "一", "th_TH": "หนึ่ง"}}) + "\n")
    for language, tokenize in (("zh", "zh"), ("th_TH", "char")):
        languages = ("--source-lang", "en", "--target-lang", language)
        _, out, _ = axe_hf("evaluate", model, path, *languages)
        assert f"|tok:{tokenize}|" in out
        _, out, _ = axe_hf("evaluate", model, path, *languages, "--tokenize", "intl")
        assert "|tok:intl|" in out
    line = fails(1, "evaluate", model, path, *languages, "--tokenize", "14a")
    assert "`tokenize` must be one of 13a, char" in line


def test_texts_are_scored_by_the_tokenizer_of_their_language(axe_hf, tmp_path):
    (tmp_path / "found").write_text("我们今天回家吃饭。\n")
    (tmp_path / "right").write_text("我们今天回家吃肉。\n")
    files = ("--translations", tmp_path / "found", "--references", tmp_path / "right")
    for options in (("--target-lang", "zh"), ("--tokenize", "char")):
        _, out, _ = axe_hf("evaluate", *files, *options)
        assert "BLEU                 0.00" not in out and f"|tok:{options[1]}|" in out
    _, out, _ = axe_hf("evaluate", *files)
    assert "BLEU                 0.00" in out  # with a warning
