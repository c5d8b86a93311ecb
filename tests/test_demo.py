"""What the page shows: found by functions that need no Gradio, drawn as HTML; and its refusals."""

import math
import re
import sys
from html.parser import HTMLParser

import pytest
import torch

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    axe_loss,
    create_demo,
    demo,
    train_tokenizer,
    translate,
)
from axe_hf.translation import translate_with_scores

TEXTS = ["A dog barks.", "Ein Hund bellt.", "Where is the station?", "Wo ist der Bahnhof?"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 5, vocab_size=300)


@pytest.fixture(scope="module")
def make_model(tokenizer):
    def make(seed=0, **changes):
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "tie_word_embeddings": False}
        limits = {"max_source_length": 20, "max_target_length": 24}
        torch.manual_seed(seed)
        config = CmlmConfig(vocab_size=len(tokenizer), **sizes | limits | changes)
        return CmlmForConditionalGeneration(config).eval()

    return make


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def collapsing_model(make_model):
    """As CTC: positions may repeat, and no token is left out."""
    return make_model(1, allow_repetition=True, axe_delta=math.inf, length_multiplier=1.5)


class _Page(HTMLParser):
    """Tags and text of HTML that must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_explained_translation_is_that_of_translate(model, collapsing_model, tokenizer):
    for shown in (model, collapsing_model):
        for decoding in ({}, {"num_iterations": 4, "num_length_candidates": 3}):
            found = demo.explain(shown, tokenizer, TEXTS[0], **decoding)
            assert [found.candidates[0].text] == translate(shown, tokenizer, TEXTS[:1], **decoding)
            assert len(found.passes) == decoding.get("num_iterations", 1)
            assert found.milliseconds > 0
    several = {"num_length_candidates": 4, "num_iterations": 2}
    found = demo.explain(model, tokenizer, TEXTS[2], **several)
    (expected,) = translate_with_scores(
        model, tokenizer, TEXTS[2:3], num_return_sequences=4, **several
    )
    assert [candidate.text for candidate in found.candidates] == [best.text for best in expected]
    assert [candidate.ranking for candidate in found.candidates] == pytest.approx(
        [best.score for best in expected]
    )


def test_more_candidates_than_there_are_lengths_are_no_error(make_model, tokenizer):
    model = make_model(max_target_length=3)
    found = demo.explain(model, tokenizer, TEXTS[0], num_length_candidates=10)
    assert sorted(candidate.length for candidate in found.candidates) == [1, 2, 3]


def test_passes_say_what_was_masked_again_and_what_changed(model, tokenizer):
    found = demo.explain(model, tokenizer, TEXTS[0], num_iterations=5)
    length = found.candidates[0].length
    assert all(len(cells) == length for cells in found.passes)
    num_masked = [sum(cell.is_masked for cell in cells) for cells in found.passes]
    assert num_masked == [max(1, length * (5 - t) // 5) for t in range(1, 5)] + [0]
    for before, after in zip(found.passes, found.passes[1:], strict=False):
        for old, new in zip(before, after, strict=True):
            assert new.is_new == (old.token != new.token)
            assert old.is_masked or (old.token, old.probability) == (new.token, new.probability)
    assert not any(cell.is_new for cell in found.passes[0])
    kept = [cell.token for cell in found.passes[-1] if cell.token not in ("ε", "</s>")]
    assert [cell.token for cell in found.tokens] == kept


@pytest.mark.parametrize("name", ["model", "collapsing_model"])
def test_each_position_and_each_token_of_the_reference_has_its_mark(name, tokenizer, request):
    model = request.getfixturevalue(name)
    found = demo.align(model, tokenizer, TEXTS[0], TEXTS[1])
    num_targets, canvas = len(found.target) - 1, len(found.predicted)
    assert canvas == max(num_targets, round(num_targets * model.config.length_multiplier))
    columns = [column for (_, column), mark in found.marks.items() if mark != "skip target"]
    assert sorted(columns) == list(range(canvas))
    rows = [row for (row, _), mark in found.marks.items() if mark in ("align", "skip target")]
    assert sorted(rows) == list(range(num_targets))
    blanks = {row for (row, _), mark in found.marks.items() if mark == "skip prediction"}
    assert blanks <= {num_targets}
    marks = {*found.marks.values()}
    assert ("repeat" in marks) <= model.config.allow_repetition
    assert "skip target" not in marks or model.config.axe_delta < math.inf


def test_the_alignment_costs_what_the_loss_of_the_model_says(model, tokenizer):
    found = demo.align(model, tokenizer, TEXTS[0], TEXTS[1])
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    labels = tokenizer(text_target=TEXTS[1], return_tensors="pt").input_ids
    canvas = model.prepare_decoder_input_ids_from_labels(labels, 1.0)
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=canvas).logits
    options = {"blank_token_id": model.config.blank_token_id, "delta": model.config.axe_delta}
    assert found.nats_per_token == pytest.approx(float(axe_loss(logits, labels, **options)), 1e-5)
    probabilities = logits.softmax(dim=2)[0, :, labels[0]].T
    assert torch.tensor(found.probabilities[:-1]).allclose(probabilities, atol=1e-5)


def test_texts_that_cannot_be_translated_are_refused_in_words(model, make_model, tokenizer):
    for text in ("", " \u200b\n"):
        with pytest.raises(ValueError, match=r"nothing to translate\. Type a sentence\."):
            demo.explain(model, tokenizer, text)
    with pytest.raises(ValueError, match=r"has 31 tokens, and this model reads 20"):
        demo.explain(model, tokenizer, "dog " * 30)
    with pytest.raises(ValueError, match="has 1000000 characters"):
        demo.explain(model, tokenizer, "x" * 10**6)
    with pytest.raises(ValueError, match="reference has 51 tokens, and this model writes 24"):
        demo.align(model, tokenizer, TEXTS[0], "dog " * 50)
    with pytest.raises(ValueError, match="reference has 1000000 characters"):
        demo.align(model, tokenizer, TEXTS[0], "x" * 10**6)
    two = make_model(directions=["en-de", "en-fr"])
    with pytest.raises(ValueError, match="target_lang"):
        demo.explain(two, tokenizer, TEXTS[0])
    assert demo.explain(two, tokenizer, TEXTS[0], target_lang="fr").passes


def test_an_autoregressive_model_is_timed_by_its_greedy_search(tokenizer):
    from transformers import MarianConfig, MarianMTModel

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = MarianConfig(
        vocab_size=len(tokenizer), max_position_embeddings=12, init_std=0.5, **sizes, **ids
    )
    marian = MarianMTModel(config).train()
    found = demo.word_by_word((marian, tokenizer), TEXTS[0])
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    expected = marian.eval().generate(**inputs, max_length=12, num_beams=1, do_sample=False)
    assert found.text == tokenizer.decode(expected[0], skip_special_tokens=True)
    assert found.num_passes == expected.shape[1] - 1 and found.milliseconds > 0
    assert "word by word" in demo.draw_speed(demo_of("x"), found)


def demo_of(text):
    """What is drawn where a model said this, in two passes."""
    cell = demo.Cell(text, 0.5, False, True)
    candidate = demo.Candidate(text, 3, -0.1, -0.2, -0.21)
    return demo.Explanation([candidate], [cell], [[cell], [cell]], 1.0)


EVIL = "</span></td><script>alert(1)</script>\" onmouseover='x' ${value} {{value}} \u202e"


def test_what_a_model_says_is_text_and_never_html():
    found, other = demo_of(EVIL), demo.WordByWord(EVIL, 3, 2.0)
    map_ = demo.Alignment([EVIL, "ε"], [EVIL], [[0.5], [0.5]], {(0, 0): "align"}, 1.0)
    drawn = [demo.draw_translation(found), demo.draw_speed(found, other), demo.draw_passes(found)]
    drawn += [demo.draw_candidates(found), demo.draw_alignment(map_)]
    drawn += [demo.draw_error("Translation", ValueError(EVIL))]
    for html in drawn:
        page = _Page(html)
        assert "script" not in page.tags and "<script>alert(1)</script>" in page.text
        assert not re.search(r"[${}]|\u202e", html)
        assert html.count("onmouseover='") == 0


def test_panels_show_the_numbers_that_were_found(model, tokenizer):
    found = demo.explain(model, tokenizer, TEXTS[0], num_iterations=3, num_length_candidates=2)
    passes = _Page(demo.draw_passes(found))
    assert passes.tags.count("tr") == 3 and "predicted again" in passes.text
    assert passes.tags.count("td") == 3 * found.candidates[0].length
    said = _Page(demo.draw_translation(found)).text
    assert f"{found.tokens[0].probability:.2f}" in said
    lengths = _Page(demo.draw_candidates(found))
    assert lengths.tags.count("tr") == 3 and f"{found.candidates[1].ranking:.3f}" in lengths.text
    assert "3 passes" in demo.draw_speed(found, None)
    found = demo.align(model, tokenizer, TEXTS[0], TEXTS[1])
    rows = _Page(demo.draw_alignment(found)).tags.count("tr")
    assert rows == len(found.target) + 1
    assert "Type a reference" in demo.draw_alignment(None)


def test_a_missing_gradio_is_named_with_its_extra(model, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with pytest.raises(ImportError, match=r'pip install "axe-hf\[demo\]"'):
        create_demo(model, tokenizer)
