import io
import logging

import numpy as np
import pytest
import torch

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    MaskPredictOutput,
    train_tokenizer,
)
from axe_hf.pipeline import CmlmTranslationPipeline
from axe_hf.rescoring import generate_rescored
from axe_hf.translation import translate

SPECIAL = ("pad", "eos", "mask", "blank")
SENTENCES = ["A dog barks.", "The small dog sleeps in the house.", "A house.", "Ein Hund bellt."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES * 5, vocab_size=300)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    limits = {"max_source_length": 24, "max_target_length": 12}
    return CmlmForConditionalGeneration(
        CmlmConfig(vocab_size=len(tokenizer), encoder_ffn_dim=32, **sizes, **limits)
    )


def one_by_one(model, tokenizer, texts, **generation):
    """What `translate` promises, without batches."""
    model.eval()
    translations = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        sequences = model.generate(**inputs, **generation)
        translations.append(tokenizer.decode(sequences[0], skip_special_tokens=True))
    return translations


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_translations_come_in_the_order_of_the_texts(model, tokenizer, batch_size):
    expected = one_by_one(model, tokenizer, SENTENCES, num_iterations=3)
    assert len(set(expected)) > 1
    found = translate(model, tokenizer, SENTENCES, batch_size=batch_size, num_iterations=3)
    assert found == expected


def test_any_iterable_of_strings_will_do(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    assert translate(model, tokenizer, tuple(SENTENCES)) == expected
    assert translate(model, tokenizer, (text for text in SENTENCES)) == expected
    assert translate(model, tokenizer, np.array(SENTENCES)) == expected
    assert translate(model, tokenizer, io.StringIO("\n".join(SENTENCES))) == expected
    assert translate(model, tokenizer, SENTENCES, batch_size=np.int64(2)) == expected
    assert translate(model, tokenizer, []) == []


def watch_batches(model, monkeypatch):
    shapes = []
    generate = model.generate
    monkeypatch.setattr(
        model,
        "generate",
        lambda ids, *rest, **kw: (shapes.append(ids.shape), generate(ids, *rest, **kw))[1],
    )
    return shapes


def test_batches_hold_sentences_of_similar_length_within_both_limits(model, tokenizer, monkeypatch):
    shapes = watch_batches(model, monkeypatch)
    texts = ["house"] * 7 + ["The small dog sleeps in the house."] * 5
    translate(model, tokenizer, texts, batch_size=4, max_tokens_per_batch=1000)
    assert [rows for rows, _ in shapes] == [4, 4, 4]
    assert shapes[0][1] == shapes[1][1] > shapes[2][1]
    shapes.clear()
    translate(model, tokenizer, texts, batch_size=100, max_tokens_per_batch=20)
    assert sum(rows for rows, _ in shapes) == 12
    assert all(rows * width <= 20 or rows == 1 for rows, width in shapes)
    shapes.clear()
    translate(model, tokenizer, texts, max_tokens_per_batch=1)
    assert len(shapes) == 12


def test_empty_lines_have_empty_translations(model, tokenizer):
    texts = ["", "A dog barks.", "   ", "\n", "\x00", "A house."]
    expected = one_by_one(model, tokenizer, ["A dog barks.", "A house."])
    assert translate(model, tokenizer, texts) == ["", expected[0], "", "", "", expected[1]]
    assert translate(model, tokenizer, ["", ""]) == ["", ""]


@pytest.mark.parametrize("text", ["\ufeff", "\u200b\u200d", "\u00ad", "\x01\x7f", "\u00a0\u2003"])
def test_a_line_of_invisible_characters_is_an_empty_line(model, tokenizer, text):
    assert translate(model, tokenizer, [text, f" {text} " * 9]) == ["", ""]


def test_a_tokenizer_that_pads_on_the_left_translates_the_same(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    left = train_tokenizer(SENTENCES * 5, vocab_size=300)
    left.padding_side = "left"
    assert translate(model, left, SENTENCES) == expected
    assert left.padding_side == "left"


def test_special_tokens_that_the_tokenizer_reads_as_such_harm_no_neighbour(model, tokenizer):
    reading = train_tokenizer(SENTENCES * 5, vocab_size=300)
    reading.split_special_tokens = False
    typed = ["<mask>", "</s>", "<blank>", "<pad> dog", "A <mask> dog</s>"]
    translations = translate(model, reading, [*typed, "A house."])
    assert translations[-1] == one_by_one(model, tokenizer, ["A house."])[0]
    assert translations[1] == ""


def test_long_lines_are_cut_and_named_in_one_warning(model, tokenizer, caplog):
    long = "The small dog sleeps in the house. " * 9
    texts = ["A house.", long, "", long, "A dog barks."]
    with caplog.at_level(logging.WARNING, logger="axe_hf"):
        translations = translate(model, tokenizer, texts)
    [record] = caplog.records
    assert "2 of 5 texts" in record.message and "line 2, 4." in record.message
    assert "max_source_length of 24 tokens" in record.message
    ids = tokenizer(long).input_ids
    cut = torch.tensor([[*ids[:23], tokenizer.eos_token_id]])
    expected = tokenizer.decode(model.eval().generate(cut)[0], skip_special_tokens=True)
    assert translations[1] == translations[3] == expected


def test_a_text_that_just_fits_is_not_cut(model, tokenizer, caplog):
    text = "a" * 22  # with the word mark and the end
    text = text[: len(text) - (len(tokenizer(text).input_ids) - 24)]
    assert len(tokenizer(text).input_ids) == 24
    translate(model, tokenizer, [text])
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    [
        "日本語の文です。",
        "🙂👩‍👩‍👧‍👦🏳️‍🌈",
        "e\u0301 \u202eabc\u202c \ufeff \u00a0",
        "\ud83d broken \udcff",
        "\U0010ffff\u0378",
        "a\u0000b\tc\r\n",
        "<mask></s><blank><pad>",
        "</s>",
        "مرحبا \u202e שלום",
        "\ufeffA dog barks.",
        "e" + "\u0301" * 100_000,
        "\uffff\ue000",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_unusual_unicode_is_translated_like_the_rest(model, tokenizer, text):
    translations = translate(model, tokenizer, ["A house.", text])
    assert translations[0] == one_by_one(model, tokenizer, ["A house."])[0]
    assert isinstance(translations[1], str)
    translations[1].encode("utf-8")


def test_the_model_runs_in_evaluation_mode_and_is_put_back(model, tokenizer):
    model.train()
    model.model.encoder.eval()  # a part that was frozen
    before = {name: module.training for name, module in model.named_modules()}
    assert translate(model, tokenizer, SENTENCES) == translate(model, tokenizer, SENTENCES)
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(ValueError, match="num_iterations"):
        translate(model, tokenizer, SENTENCES, num_iterations=0)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_settings_of_the_model_that_return_more_than_tokens_do_no_harm(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    model.generation_config.return_dict_in_generate = True
    model.generation_config.output_history = True
    assert translate(model, tokenizer, SENTENCES) == expected


def test_progress_is_drawn_on_request_and_by_default_on_a_terminal_only(
    model, tokenizer, monkeypatch
):
    class Stream(io.StringIO):
        def __init__(self, is_terminal):
            super().__init__()
            self.isatty = lambda: is_terminal

    def shown(is_terminal, show_progress):
        stream = Stream(is_terminal)
        monkeypatch.setattr("sys.stderr", stream)
        translate(model, tokenizer, [*SENTENCES, ""], show_progress=show_progress)
        return stream.getvalue()

    assert "5/5" in shown(True, None) and "5/5" in shown(False, True)
    assert shown(False, None) == shown(True, False) == ""


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ("A dog barks.", r"`texts` must be a list of sentences, got str.*\[text\]"),
        (b"A dog barks.", "`texts` must be a list of sentences, got bytes"),
        (None, "`texts` must be a list of sentences, got NoneType"),
        (["A dog.", None], "`texts` must hold strings, got NoneType as number 2"),
        ([["A dog."]], "`texts` must hold strings, got list as number 1"),
        (np.array(["A dog.", None]), "`texts` must hold strings, got NoneType as number 2"),
        ({"input_ids": [[1]]}, "`texts` must be a list of sentences, got dict"),
        ({"A dog barks.", "A house."}, "`texts` must be a list of sentences, got set"),
    ],
)
def test_wrong_texts_are_named(model, tokenizer, texts, complaint):
    with pytest.raises(TypeError, match=complaint):
        translate(model, tokenizer, texts)


def test_wrong_models_and_tokenizers_are_named(model, tokenizer):
    with pytest.raises(TypeError, match="`model` must be a CmlmForConditionalGeneration, got str"):
        translate("my/model", tokenizer, SENTENCES)
    body = CmlmModel(model.config)
    with pytest.raises(TypeError, match="got CmlmModel. .*AutoModelForSeq2SeqLM"):
        translate(body, tokenizer, SENTENCES)
    with pytest.raises(TypeError, match="`tokenizer` must be a tokenizer .*, got str"):
        translate(model, "my/tokenizer", SENTENCES)
    other = train_tokenizer([chr(0x4E00 + i) for i in range(300)] * 5, vocab_size=600)
    with pytest.raises(ValueError, match="`tokenizer` gave token .* the model was trained with"):
        translate(model, other, ["".join(map(chr, range(0x4E00, 0x4F00)))])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1, got 0"),
        ({"max_tokens_per_batch": 1.5}, "`max_tokens_per_batch` must be an integer >= 1, got 1.5"),
        ({"num_beams": 5}, "`num_beams`"),
        ({"return_dict_in_generate": True}, "`return_dict_in_generate`.*model.generate"),
        ({"output_history": True}, "`output_history`.*model.generate"),
        ({"beams": 5}, "beams"),
        ({"num_return_sequences": 2}, "`num_return_sequences`.*model.generate"),
        ({"streamer": object()}, "`streamer` belongs to one batch.*model.generate"),
        ({"decoder_input_ids": torch.zeros(4, 3)}, "`decoder_input_ids` belongs to one batch"),
        ({"target_lengths": torch.ones(4)}, "`target_lengths` belongs to one batch"),
        ({"encoder_outputs": object()}, "`encoder_outputs` belongs to one batch"),
        ({"input_ids": torch.ones(4, 3)}, "`input_ids` belongs to one batch"),
        ({"rescore_with": "my/model"}, r"`rescore_with` must be a pair \(model, tokenizer\)"),
    ],
)
def test_wrong_settings_are_named(model, tokenizer, wrong, complaint):
    with pytest.raises((ValueError, TypeError), match=complaint):
        translate(model, tokenizer, SENTENCES, **wrong)


def test_several_translations_in_the_models_settings_give_one_of_each(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    settings = model.generation_config
    settings.num_length_candidates = settings.num_return_sequences = 3
    settings.length_score_weight = 1e6  # the first candidate is the one that stood alone
    assert translate(model, tokenizer, SENTENCES) == expected


@pytest.mark.parametrize("text", ["zwei Öl", "fünf Größen"])
def test_a_translation_is_read_by_the_target_file_of_two(marian_tokenizer, monkeypatch, text):
    """Only the target's file knows bytes."""
    found = torch.tensor([marian_tokenizer(text_target=text).input_ids])
    ids = {f"{name}_token_id": getattr(marian_tokenizer, f"{name}_token_id") for name in SPECIAL}
    sizes = {"vocab_size": len(marian_tokenizer), "encoder_layers": 1, "decoder_layers": 1}
    model = CmlmForConditionalGeneration(CmlmConfig(d_model=16, **sizes, **ids))
    output = MaskPredictOutput(sequences=found, lengths=torch.tensor([[found.shape[1]]]))
    output.length_log_probs = torch.zeros(1)

    def generate(*args, return_dict_in_generate=False, **kwargs):
        return output if return_dict_in_generate else found

    monkeypatch.setattr(model, "generate", generate)
    assert translate(model, marian_tokenizer, ["two"]) == [text]
    pipe = CmlmTranslationPipeline(model=model, tokenizer=marian_tokenizer)
    assert pipe("two") == [{"translation_text": text}]
    scored = []

    def score(model, tokenizer, sources, candidates):
        scored.append((sources, candidates))
        return torch.zeros(1, 1)

    monkeypatch.setattr("axe_hf.rescoring.autoregressive_scores", score)
    monkeypatch.setattr("axe_hf.rescoring.check_rescorer", lambda rescorer: None)
    generate_rescored(model, marian_tokenizer, (None, None), torch.tensor([[5, 1]]))
    assert scored[0][1] == [[text]]
