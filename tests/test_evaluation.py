import logging
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import sacrebleu

from axe_hf.evaluation import TranslationMetric, default_tokenize, repetition_rate

PREDICTIONS = [
    "The small house is on the hill.",
    "We go go home today.",
    "She has not seen the new film yet.",
]
REFERENCES = [
    "The little house stands on the hill.",
    "Today we are going home.",
    "She has not yet seen the new film.",
]
MORE_REFERENCES = [
    [REFERENCES[0], "The small house is on that hill.", "On the hill is the small house."],
    [REFERENCES[1]],
    [REFERENCES[2], "She hasn't seen the new film yet."],
]


def test_bleu_and_chrf_are_sacrebleus_with_its_signatures():
    scores = TranslationMetric().compute(predictions=PREDICTIONS, references=REFERENCES)
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    expected_bleu = bleu.corpus_score(PREDICTIONS, [REFERENCES])
    expected_chrf = chrf.corpus_score(PREDICTIONS, [REFERENCES])
    assert scores["bleu"] == expected_bleu.score
    assert scores["bleu_signature"] == str(bleu.get_signature())
    assert scores["chrf"] == expected_chrf.score
    assert scores["chrf_signature"] == str(chrf.get_signature())
    assert scores["brevity_penalty"] == expected_bleu.bp
    assert scores["length_ratio"] == expected_bleu.sys_len / expected_bleu.ref_len


def test_ragged_references_score_as_sentence_by_sentence_statistics():
    """The corpus statistics, summed by hand: matched n-grams over all references of a sentence."""
    scores = TranslationMetric().compute(predictions=PREDICTIONS, references=MORE_REFERENCES)
    correct, total, lengths = [0] * 4, [0] * 4, [0, 0]
    for prediction, row in zip(PREDICTIONS, MORE_REFERENCES, strict=True):
        score = sacrebleu.BLEU(effective_order=True).sentence_score(prediction, row)
        correct = [a + b for a, b in zip(correct, score.counts, strict=True)]
        total = [a + b for a, b in zip(total, score.totals, strict=True)]
        lengths = [lengths[0] + score.sys_len, lengths[1] + score.ref_len]
    expected = sacrebleu.BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp")
    assert scores["bleu"] == pytest.approx(expected.score, abs=1e-9)
    assert scores["bleu_signature"].startswith("nrefs:var|")


def test_the_signature_counts_references_only_where_every_sentence_has_as_many():
    two = [[reference, reference.lower()] for reference in REFERENCES]
    scores = TranslationMetric().compute(predictions=PREDICTIONS, references=two)
    assert scores["bleu_signature"].startswith("nrefs:2|")
    assert scores["chrf_signature"].startswith("nrefs:2|")


def test_none_and_blank_strings_beside_a_reference_are_no_references():
    padded = [[REFERENCES[0], None], [REFERENCES[1], ""], [None, REFERENCES[2], " "]]
    metric = TranslationMetric()
    assert metric.compute(predictions=PREDICTIONS, references=padded) == metric.compute(
        predictions=PREDICTIONS, references=REFERENCES
    )


def test_an_empty_translation_and_an_empty_only_reference_are_scored():
    scores = TranslationMetric().compute(predictions=["", "a b"], references=["a b", ""])
    assert scores["bleu"] == 0.0
    assert scores["length_error"] == 2.0


@pytest.mark.parametrize(
    "texts, rate",
    [
        (["a b c", "c d"], 0.0),
        (["a a a"], 2 / 3),
        (["the house house."], 1 / 4),
        (["no , no"], 0.0),
        (["Das das"], 0.0),
        (["ja ja", "", "nein"], 1 / 3),
        ([], 0.0),
        ([""], 0.0),
    ],
)
def test_repetition_rate_is_the_share_of_tokens_equal_to_their_predecessor(texts, rate):
    assert repetition_rate(texts) == pytest.approx(rate)


def test_repetition_rate_works_for_text_without_spaces():
    assert repetition_rate(["我我去"], tokenize="zh") == pytest.approx(1 / 3)
    assert repetition_rate(["我我去"]) == 0.0


def test_length_error_takes_the_closest_reference():
    scores = TranslationMetric().compute(
        predictions=["a b c", "a b c d"], references=[["a", "a b c d"], ["a b c d e f"]]
    )
    assert scores["length_error"] == 1.5


def test_batches_and_single_sentences_add_up_to_the_whole():
    metric = TranslationMetric()
    whole = metric.compute(predictions=PREDICTIONS, references=MORE_REFERENCES)
    metric.add_batch(predictions=PREDICTIONS[:1], references=MORE_REFERENCES[:1])
    metric.add(prediction=PREDICTIONS[1], reference=REFERENCES[1])
    assert metric.compute(predictions=PREDICTIONS[2:], references=MORE_REFERENCES[2:]) == whole


def test_compute_forgets_what_it_scored():
    metric = TranslationMetric()
    metric.add_batch(predictions=["nothing alike"], references=REFERENCES[:1])
    metric.compute()
    scores = metric.compute(predictions=REFERENCES, references=REFERENCES)
    assert scores["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("keep_in_memory", [True, False])
def test_two_metrics_at_work_at_once_do_not_meet(tmp_path, keep_in_memory):
    settings = {"cache_dir": str(tmp_path), "keep_in_memory": keep_in_memory}
    one, other = TranslationMetric(**settings), TranslationMetric(**settings)
    one.add_batch(predictions=PREDICTIONS, references=PREDICTIONS)
    other.add_batch(predictions=["x"], references=["y"])
    assert one.compute()["bleu"] == pytest.approx(100)
    assert other.compute()["bleu"] == 0.0
    assert not list(tmp_path.rglob("*.arrow"))


def test_the_tokenizer_can_be_chosen_and_is_signed():
    metric = TranslationMetric(tokenize="char")
    scores = metric.compute(predictions=["abcd"], references=["abcd"])
    assert scores["bleu"] == pytest.approx(100)
    assert "tok:char" in scores["bleu_signature"]


def test_processes_share_the_work_even_one_without_a_sentence(tmp_path):
    # Threads stand in for processes: all that the metrics share is a folder and its file locks.
    shares = [["the small house", "a b c d e"], ["we go home today"], []]

    def score(process_id):
        metric = TranslationMetric(
            num_process=3, process_id=process_id, experiment_id="three", cache_dir=str(tmp_path)
        )
        texts = shares[process_id]
        if texts:
            metric.add_batch(predictions=texts, references=[text + " now" for text in texts])
        return metric.compute()

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(score, range(3))
    texts = [text for share in shares for text in share]
    assert others == [None, None]
    assert first == TranslationMetric().compute(
        predictions=texts, references=[text + " now" for text in texts]
    )


def test_sacrebleus_warning_about_tokenized_text_is_heard(caplog):
    with caplog.at_level(logging.WARNING, logger="sacrebleu"):
        TranslationMetric().compute(predictions=["a b ."] * 100, references=["a b."] * 100)
    assert "forgot to detokenize" in caplog.text


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, ValueError, "nothing to score"),
        ({"predictions": [], "references": []}, ValueError, "nothing to score"),
        ({"predictions": ["a"]}, ValueError, "`references` is missing"),
        ({"references": ["a"]}, ValueError, "`predictions` is missing"),
        ({"predictions": ["a", "b"], "references": ["a"]}, ValueError, "2 pred.* 1 ref.* one list"),
        ({"predictions": "a", "references": ["a"]}, TypeError, "`predictions` must be a list"),
        ({"predictions": ["a"], "references": "a"}, TypeError, "`references` must be a list"),
        ({"predictions": [[4, 5]], "references": ["a"]}, TypeError, r"got list at \[0\]"),
        ({"predictions": ["a"], "references": [3]}, TypeError, r"`references\[0\]` must be a list"),
        ({"predictions": ["a"], "references": [["a", 3]]}, TypeError, r"got int at \[1\]"),
        ({"predictions": ["a"], "references": [[]]}, ValueError, r"`references\[0\]` has no ref"),
        ({"predictions": ["a"], "references": [[None]]}, ValueError, "has no reference"),
        ({"predictions": ["a"], "references": [None]}, ValueError, "has no reference"),
    ],
)
def test_bad_input_is_named_and_adds_nothing(arguments, error, message):
    metric = TranslationMetric()
    with pytest.raises(error, match=message):
        metric.compute(**arguments)
    assert len(metric) == 0
    assert metric.compute(predictions=["a b c d"], references=["a b c d"])["chrf"] == 100


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="`tokenize` must be one of .*13a"):
        TranslationMetric(tokenize="14a")
    with pytest.raises(ValueError, match="`tokenize` must be one of"):
        repetition_rate(["a"], tokenize="14a")
    with pytest.raises(TypeError, match="`texts` must hold strings"):
        repetition_rate([["a"]])
    with pytest.raises(ValueError, match="`experiment_id` is missing.* Pass one name"):
        TranslationMetric(num_process=2, process_id=0)


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        ("zh zh_CN zh-Hans zho_Hans cmn ZH", "zh"),
        ("th tha_Thai th_TH km khm_Khmr lo my my_MM bo", "char"),
        ("de en ro_RO ko vi", "13a"),
    ],
)
def test_the_tokenizer_of_bleu_is_that_of_the_language(languages, expected):
    assert {default_tokenize(language) for language in languages.split()} == {expected}


@pytest.mark.parametrize("installed", [True, False])
def test_japanese_takes_mecab_where_it_is_installed(monkeypatch, installed):
    monkeypatch.setattr("axe_hf.evaluation.find_spec", lambda name: installed or None)
    expected = "ja-mecab" if installed else "char"
    assert {default_tokenize(language) for language in ("ja_XX", "jpn")} == {expected}


@pytest.mark.parametrize(
    ("language", "text", "right"),
    [("zh", "我们今天回家吃饭。", "我们今天回家吃肉。"), ("th", "ฉันกินข้าวที่บ้าน", "ฉันกินข้าวที่นี่")],
)
def test_near_right_output_without_spaces_is_not_scored_0(language, text, right):
    given = {"predictions": [text], "references": [right]}
    scores = TranslationMetric(tokenize=default_tokenize(language)).compute(**given)
    assert scores["bleu"] > 40 and scores["length_ratio"] > 0.5
    assert f"tok:{default_tokenize(language)}|" in scores["bleu_signature"]
    assert TranslationMetric().compute(**given)["bleu"] == 0


def test_a_tokenizer_that_is_not_installed_is_named():
    for name, library in (("ja-mecab", "MeCab"), ("ko-mecab", "mecab_ko")):
        if find_spec(library) is None:
            with pytest.raises(
                ValueError, match=f"(?s)`tokenize` '{name}' cannot be used.*install"
            ):
                TranslationMetric(tokenize=name)
