import copy
import io
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.generation.configuration_utils import CompileConfig
from transformers.pipelines.pt_utils import KeyDataset

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    MaskPredictOutput,
    quantize_int8,
    train_tokenizer,
)
from axe_hf.pipeline import CmlmTranslationPipeline
from axe_hf.rescoring import generate_rescored
from axe_hf.translation import Translation, translate, translate_with_scores

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


def test_columns_of_data_sets_are_translated(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    dataset = datasets.Dataset.from_dict({"en": SENTENCES})
    streamed = dataset.to_iterable_dataset()
    for column in (dataset["en"], streamed["en"], KeyDataset(dataset, "en")):
        assert translate(model, tokenizer, column) == expected
    with pytest.raises(TypeError, match="`texts` must hold strings, got dict"):
        translate(model, tokenizer, dataset)


def watch_batches(model, monkeypatch):
    shapes = []
    generate = model.generate
    monkeypatch.setattr(
        model,
        "generate",
        lambda **kw: (shapes.append(kw["input_ids"].shape), generate(**kw))[1],
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
    with pytest.raises(ValueError, match="has 600 symbols, .* the model was trained with"):
        translate(model, other, ["".join(map(chr, range(0x4E00, 0x4F00)))])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"max_tokens_per_batch": 1.5}, "`max_tokens_per_batch` must be at least 1.*, got 1.5"),
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


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_what_a_model_learnt_to_repeat_is_collapsed_by_all_that_translate(
    model, tokenizer, num_iterations
):
    how = {"num_iterations": num_iterations, "length_multiplier": 2.0}
    plain = one_by_one(model, tokenizer, SENTENCES, **how)
    expected = one_by_one(model, tokenizer, SENTENCES, **how, collapse_repeats=True)
    assert expected != plain
    model.config.allow_repetition = True
    assert translate(model, tokenizer, SENTENCES, **how) == expected
    assert translate(model, tokenizer, SENTENCES, **how, collapse_repeats=False) == plain
    found = CmlmTranslationPipeline(model, tokenizer)(SENTENCES, **how)
    assert [record["translation_text"] for record in found] == expected
    compiled = {"compile": True, "compile_config": CompileConfig(backend="eager")}
    assert translate(model, tokenizer, SENTENCES, **how, **compiled) == expected
    quantized = quantize_int8(model)
    exact = translate(quantized, tokenizer, SENTENCES, **how, collapse_repeats=True)
    assert translate(quantized, tokenizer, SENTENCES, **how) == exact
    assert exact != translate(quantized, tokenizer, SENTENCES, **how, collapse_repeats=False)


def test_the_n_best_are_different_translations_where_there_are_so_many(model, tokenizer):
    model.config.allow_repetition = True
    sentences, how = SENTENCES[:3], {"num_length_candidates": 8, "num_return_sequences": 8}
    every = translate_with_scores(model, tokenizer, sentences, **how)
    few = translate_with_scores(model, tokenizer, sentences, **how | {"num_return_sequences": 3})
    num_repeated = 0
    for best, row in zip(few, every, strict=True):
        texts = [found.text for found in row]
        num_distinct = len(set(texts))
        assert len(set(texts[:num_distinct])) == num_distinct
        assert best == row[:3]
        num_repeated += 8 - num_distinct
    assert num_repeated > 2


def test_several_translations_in_the_models_settings_give_one_of_each(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    settings = model.generation_config
    settings.num_length_candidates = settings.num_return_sequences = 3
    settings.length_score_weight = 1e6  # the first candidate is the one that stood alone
    assert translate(model, tokenizer, SENTENCES) == expected


def with_special_token(tokenizer, old, new):
    """The tokenizer in which another symbol plays the part of one of the special tokens."""
    other = copy.deepcopy(tokenizer)
    if old == "blank_token":
        other.add_special_tokens({"extra_special_tokens": {"blank_token": new}})
    else:
        setattr(other, old, new)
    return other


@pytest.mark.parametrize("name", ["mask_token", "pad_token", "eos_token"])
def test_a_tokenizer_with_another_special_token_is_refused(model, tokenizer, name):
    other = with_special_token(tokenizer, name, "<unk>")
    with pytest.raises(ValueError, match=f"`{name}_id` is 2, .* the model was trained with"):
        translate(model, other, SENTENCES)


def test_a_tokenizer_without_a_blank_or_with_more_symbols_is_refused(model, tokenizer):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    names = {"pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>"}
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **names)
    with pytest.raises(ValueError, match="`blank_token_id` is None, the model's config has 4"):
        translate(model, plain, SENTENCES)
    wider = copy.deepcopy(tokenizer)
    wider.add_tokens(["<2de>"])
    with pytest.raises(ValueError, match=r"has \d+ symbols.*resize_token_embeddings"):
        translate(model, wider, SENTENCES)
    model.resize_token_embeddings(len(wider))
    translate(model, wider, SENTENCES)


def test_weights_that_are_no_numbers_give_an_error_and_no_empty_lines(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not numbers"):
        translate(model, tokenizer, SENTENCES)


# Threads


def in_threads(function, num_threads=8):
    """What `function` returns in each of several threads at once."""
    start = threading.Barrier(num_threads)

    def run(_):
        start.wait()
        return function()

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(run, range(num_threads)))


def test_threads_translate_alike_with_a_model_in_training_mode(model, tokenizer):
    texts = SENTENCES * 10
    expected = translate(model.eval(), tokenizer, texts, num_iterations=3)
    model.train()
    settings = {"num_iterations": 3, "batch_size": 8}
    assert in_threads(lambda: translate(model, tokenizer, texts, **settings)) == [expected] * 8
    assert all(module.training for module in model.modules())


def test_a_training_loop_beside_keeps_its_dropout(model, tokenizer):
    """Nothing of the model is in another mode at any time, not even for a moment."""
    model.train()
    seen = []
    model.lm_head.register_forward_pre_hook(
        lambda *_: seen.extend(module.training for module in model.modules())
    )
    model.model.encoder.register_forward_hook(
        lambda *_: seen.extend(module.training for module in model.modules())
    )
    translate(model, tokenizer, SENTENCES)
    assert seen and all(seen)


def lora(model):
    settings = {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.5}
    return get_peft_model(model, LoraConfig(**settings, init_lora_weights=False))


def hooked(model):
    for module in model.modules():
        add_hook_to_module(module, ModelHook())
    return model


def with_a_compiled_part(model):
    model.model.encoder = torch.compile(model.model.encoder, backend="eager")
    return model


def compiled_in_place(model):
    model.model.encoder.compile(backend="eager")
    return model


SLOW = pytest.param(with_a_compiled_part, marks=pytest.mark.slow)


@pytest.mark.parametrize("wrap", [lora, hooked, SLOW, compiled_in_place])
def test_a_wrapped_model_in_training_mode_translates_as_in_evaluation_mode(model, tokenizer, wrap):
    wrapped = wrap(model)
    expected = translate(wrapped.eval(), tokenizer, SENTENCES, num_iterations=3)
    wrapped.train()
    for _ in range(2):
        assert translate(wrapped, tokenizer, SENTENCES, num_iterations=3) == expected
    assert all(module.training for module in wrapped.modules())


def test_a_compiled_decoder_is_that_of_the_mode(model, tokenizer):
    expected = translate(model.eval(), tokenizer, SENTENCES, num_iterations=2)
    settings = {"num_iterations": 2, "compile": True}
    settings["compile_config"] = CompileConfig(backend="eager", mode=None)
    assert translate(model, tokenizer, SENTENCES, **settings) == expected
    model.train()
    assert translate(model, tokenizer, SENTENCES, **settings) == expected


def state_of(tokenizer):
    backend = tokenizer.backend_tokenizer
    return json.loads(backend.to_str())["truncation"], backend.padding, vars(tokenizer).copy()


def test_the_tokenizer_is_left_as_another_thread_has_set_it(model, tokenizer):
    expected = translate(model, tokenizer, SENTENCES)
    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.enable_truncation(3)
    own.backend_tokenizer.enable_padding(length=20)
    before = state_of(own)
    assert translate(model, own, SENTENCES) == expected
    assert state_of(own) == before


def test_threads_share_a_tokenizer_that_one_of_them_cuts_and_pads_with(model, tokenizer):
    texts = SENTENCES * 10
    model.eval()
    expected = translate(model, tokenizer, texts, batch_size=8)
    stop = threading.Event()

    def cut_and_pad():
        settings = {"truncation": True, "max_length": 4, "padding": "max_length"}
        while not stop.is_set():
            assert all(len(ids) == 4 for ids in tokenizer(texts, **settings).input_ids)

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(cut_and_pad)
        try:
            found = in_threads(lambda: translate(model, tokenizer, texts, batch_size=8))
        finally:
            stop.set()
        beside.result()
    assert found == [expected] * 8


@pytest.mark.parametrize("tokens", [["<2de>"], ["two words", "ß"]])
def test_added_tokens_stay_whole(model, tokenizer, tokens):
    wider = copy.deepcopy(tokenizer)
    wider.add_tokens(tokens)
    model.resize_token_embeddings(len(wider))
    text = f"{tokens[0]} A house."
    ids = torch.tensor([wider(text).input_ids])
    assert len(tokenizer) in ids
    expected = wider.decode(model.eval().generate(ids)[0], skip_special_tokens=True)
    assert translate(model, wider, [text]) == [expected]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_translations_come_best_first_with_the_scores_of_generate(
    model, tokenizer, batch_size
):
    settings = {"num_length_candidates": 4, "num_return_sequences": 3, "num_iterations": 2}
    texts = ["A dog barks.", "", "A house.", "The small dog sleeps."]
    ranked = translate_with_scores(model, tokenizer, texts, batch_size=batch_size, **settings)
    assert ranked[1] == [Translation("", 0.0)] * 3
    for text, found in zip(texts, ranked, strict=True):
        scores = [translation.score for translation in found]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        if text:
            inputs = tokenizer(text, return_tensors="pt")
            output = model.eval().generate(**inputs, **settings, return_dict_in_generate=True)
            decoded = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            assert [translation.text for translation in found] == decoded
            assert scores == pytest.approx(output.ranking_scores.tolist(), abs=1e-5)
    best = translate(model, tokenizer, texts, num_length_candidates=4, num_iterations=2)
    assert [found[0].text for found in ranked] == best
    assert translate_with_scores(model, tokenizer, []) == []
    for one_each in ({}, {"num_return_sequences": None}, {"num_return_sequences": 1}):
        assert [len(found) for found in translate_with_scores(model, tokenizer, texts, **one_each)]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"num_return_sequences": 2}, "`num_return_sequences` is 2, but .* 1 length candidate"),
        ({"num_return_sequences": "2"}, "`num_return_sequences` must be an integer >= 1, got '2'"),
        ({"num_return_sequences": 0}, "`num_return_sequences` must be an integer >= 1, got 0"),
        ({"output_history": True}, "`output_history`.*model.generate"),
    ],
)
def test_wrong_numbers_of_translations_are_named(model, tokenizer, wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        translate_with_scores(model, tokenizer, SENTENCES, **wrong)


@pytest.mark.parametrize("text", ["zwei Öl", "fünf Größen"])
def test_a_translation_is_read_by_the_target_file_of_two(marian_tokenizer, monkeypatch, text):
    """Only the target's file knows bytes."""
    found = torch.tensor([marian_tokenizer(text_target=text).input_ids])
    ids = {f"{name}_token_id": getattr(marian_tokenizer, f"{name}_token_id") for name in SPECIAL}
    sizes = {"vocab_size": len(marian_tokenizer), "encoder_layers": 1, "decoder_layers": 1}
    model = CmlmForConditionalGeneration(CmlmConfig(d_model=16, **sizes, **ids)).eval()
    scores = dict.fromkeys(("length_log_probs", "ranking_scores"), torch.zeros(1))
    output = MaskPredictOutput(sequences=found, lengths=torch.tensor([found.shape[1]]), **scores)

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
