import copy

import pytest
import torch
from transformers import pipeline

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
from axe_hf.pipeline import TASK, CmlmTranslationPipeline, register_pipeline
from axe_hf.translation import translate

SENTENCES = ["A dog barks.", "The small dog sleeps in the house.", "", "Ein Hund bellt."]


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
    ).eval()


def texts(outputs):
    return [output["translation_text"] for output in outputs]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_translates_like_translate(model, tokenizer, batch_size):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    expected = translate(model, tokenizer, SENTENCES)
    assert texts(translator(SENTENCES, batch_size=batch_size)) == expected
    assert texts(translator(tuple(SENTENCES))) == expected
    assert translator(SENTENCES[0]) == [{"translation_text": expected[0]}]
    assert translator("") == [{"translation_text": ""}]
    assert translator([]) == []


def test_a_generator_of_texts_is_translated_as_it_comes(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    stream = translator(text for text in SENTENCES)
    assert texts(stream) == translate(model, tokenizer, SENTENCES)


def test_settings_of_the_decoding_come_from_the_constructor_and_from_the_call(
    model, tokenizer, monkeypatch
):
    seen = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda *a, **k: (seen.append(k), generate(*a, **k))[1])
    settings = {"num_iterations": 4, "num_length_candidates": 3, "max_length": 9}
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, **settings)
    assert translator(SENTENCES, batch_size=4) == [
        {"translation_text": text} for text in translate(model, tokenizer, SENTENCES, **settings)
    ]
    translator(SENTENCES[0], num_iterations=2)
    assert (seen[0]["num_iterations"], seen[0]["max_length"]) == (4, 9)
    assert (seen[-1]["num_iterations"], seen[-1]["num_length_candidates"]) == (2, 3)


def test_transformers_pipeline_knows_the_task_once_registered(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    register_pipeline()
    register_pipeline()
    expected = translate(model, tokenizer, SENTENCES, num_iterations=3)
    by_name = pipeline(TASK, model=str(tmp_path), device="cpu", num_iterations=3)
    assert type(by_name) is CmlmTranslationPipeline
    assert texts(by_name(SENTENCES)) == expected
    by_object = pipeline(TASK, model=model, tokenizer=tokenizer, device="cpu")
    assert texts(by_object(SENTENCES, num_iterations=3)) == expected


def test_a_long_text_is_cut_with_a_warning(model, tokenizer, caplog):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    long = "The small dog sleeps in the house. " * 9
    expected = translate(model, tokenizer, [long])
    caplog.clear()
    assert texts(translator(long)) == expected
    assert "max_source_length of 24" in caplog.text and "The small dog" in caplog.text


@pytest.mark.parametrize("text", ["日本語の文です。", "\ud83d broken", "🙂", "\ufeff", "\u200b "])
def test_unusual_unicode_passes(model, tokenizer, text):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    assert texts(translator([text])) == translate(model, tokenizer, [text])


def test_wrong_input_is_named(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    for wrong in (None, 3, [None], [["A dog."]]):
        with pytest.raises(TypeError, match="translates strings, got"):
            translator(wrong)
    with pytest.raises(ValueError, match="`num_beams`"):
        translator("A dog.", num_beams=5)
    with pytest.raises(TypeError, match="beams"):
        translator("A dog.", beams=5)
    with pytest.raises(TypeError, match="`model` must be a CmlmForConditionalGeneration, got str"):
        CmlmTranslationPipeline(model="my/model", tokenizer=tokenizer)
    with pytest.raises(TypeError, match="`tokenizer` is missing"):
        CmlmTranslationPipeline(model=model)


def test_one_translation_comes_back_whatever_the_settings_say(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    expected = translator(["A dog barks.", "barks"])
    settings = model.generation_config
    settings.num_length_candidates = settings.num_return_sequences = 3
    settings.length_score_weight = 1e6
    assert translator(["A dog barks.", "barks"]) == expected
    assert translator(["A dog barks.", "barks"], batch_size=2) == expected
    with pytest.raises(ValueError, match="no use for `num_return_sequences`"):
        translator("barks", num_return_sequences=2)


@pytest.mark.parametrize("name", ["mask_token", "eos_token"])
def test_the_tokenizer_of_another_model_is_refused(model, tokenizer, name):
    other = copy.deepcopy(tokenizer)
    setattr(other, name, "<unk>")
    with pytest.raises(ValueError, match=f"`{name}_id` is 2, .* the model was trained with"):
        CmlmTranslationPipeline(model=model, tokenizer=other)
    more = copy.deepcopy(tokenizer)
    more.add_tokens(["<2de>"])
    with pytest.raises(ValueError, match="symbols"):
        CmlmTranslationPipeline(model=model, tokenizer=more)


def test_weights_that_are_missing_or_no_numbers_are_an_error(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    model.loading_problem = "missing_keys: some"
    with pytest.raises(ValueError, match="missing_keys: some"):
        translator("A dog barks.")
    model.loading_problem = None
    with torch.no_grad():
        model.lm_head.weight[7, 0] = torch.nan
    with pytest.raises(ValueError, match="not numbers"):
        translator("A dog barks.")


def test_a_model_in_training_mode_and_a_tokenizer_that_cuts_are_neither_used_so_nor_changed(
    model, tokenizer
):
    expected = translate(model, tokenizer, SENTENCES)
    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.enable_truncation(2)
    translator = CmlmTranslationPipeline(model=model.train(), tokenizer=own)
    assert texts(translator(SENTENCES)) == texts(translator(SENTENCES, batch_size=3)) == expected
    assert all(module.training for module in model.modules())
    assert own.backend_tokenizer.truncation["max_length"] == 2
