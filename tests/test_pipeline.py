import copy

import datasets
import numpy as np
import pytest
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
from axe_hf.hub import save_pretrained_with_code
from axe_hf.pipeline import CmlmTranslationPipeline, register_pipeline
from axe_hf.translation import translate, translate_with_scores

SENTENCES = ["A dog barks.", "The small dog sleeps in the house.", "", "Ein Hund bellt."]
SPECIAL = ("pad", "eos", "mask", "blank")


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


@pytest.mark.parametrize("text", ["", " \u200b"])
def test_an_empty_text_is_empty_beside_a_code_of_its_language(mbart_tokenizer, text):
    ids = {f"{name}_token_id": getattr(mbart_tokenizer, f"{name}_token_id") for name in SPECIAL}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    torch.manual_seed(0)
    config = CmlmConfig(vocab_size=len(mbart_tokenizer), **sizes, **ids)
    model = CmlmForConditionalGeneration(config).eval()
    translator = CmlmTranslationPipeline(model=model, tokenizer=mbart_tokenizer)
    assert texts(translator([text, "two"], batch_size=2, output_scores=True))[0] == ""
    assert translator(text) == [{"translation_text": ""}]


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


@pytest.mark.parametrize("task", ["translation", "cmlm-translation"])
def test_transformers_pipeline_knows_the_task_once_registered(model, tokenizer, tmp_path, task):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    register_pipeline()
    register_pipeline()
    expected = translate(model, tokenizer, SENTENCES, num_iterations=3)
    by_name = pipeline(task, model=str(tmp_path), device="cpu", num_iterations=3)
    assert type(by_name) is CmlmTranslationPipeline
    assert texts(by_name(SENTENCES)) == expected
    by_object = pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
    assert texts(by_object(SENTENCES, num_iterations=3)) == expected
    # What a pipeline saves is found by the same name, and asks for no remote code.
    by_name.save_pretrained(tmp_path / "saved")
    again = pipeline(task, model=str(tmp_path / "saved"), device="cpu", num_iterations=3)
    assert texts(again(SENTENCES)) == expected


def test_a_model_with_its_code_has_one_task_which_is_found_without_being_named(
    model, tokenizer, tmp_path
):
    folder = tmp_path / "with-code"
    save_pretrained_with_code(model, tokenizer, folder)
    expected = translate(model, tokenizer, SENTENCES)
    how = {"model": str(folder), "device": "cpu", "trust_remote_code": True}
    for translator in (pipeline(**how), pipeline("translation", **how)):
        assert type(translator).__name__ == "CmlmTranslationPipeline"
        assert texts(translator(SENTENCES)) == expected
    register_pipeline()  # and this package reads it without its code
    translator = pipeline("cmlm-translation", model=str(folder), device="cpu")
    assert type(translator) is CmlmTranslationPipeline
    assert texts(translator(SENTENCES)) == expected


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
        with pytest.raises(TypeError, match="`inputs` must be strings, got"):
            translator(wrong)
    with pytest.raises(ValueError, match="`num_beams`"):
        translator("A dog.", num_beams=5)
    with pytest.raises(TypeError, match="beams"):
        translator("A dog.", beams=5)
    with pytest.raises(TypeError, match="`model` must be a CmlmForConditionalGeneration, got str"):
        CmlmTranslationPipeline(model="my/model", tokenizer=tokenizer)
    with pytest.raises(TypeError, match="`tokenizer` must be a tokenizer .*, got NoneType"):
        CmlmTranslationPipeline(model=model)


def test_one_translation_comes_back_whatever_the_settings_say(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    expected = translator(["A dog barks.", "barks"])
    settings = model.generation_config
    settings.num_length_candidates = settings.num_return_sequences = 3
    settings.length_score_weight = 1e6
    assert translator(["A dog barks.", "barks"]) == expected
    assert translator(["A dog barks.", "barks"], batch_size=2) == expected
    with pytest.raises(ValueError, match="`num_return_sequences` is 4, but .* 3 length candidate"):
        translator("barks", num_return_sequences=4)


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


@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_translations_of_each_text_with_their_scores(model, tokenizer, batch_size):
    several = {"num_length_candidates": 4, "num_return_sequences": 2, "num_iterations": 2}
    expected = [
        [
            {"translation_text": best.text, "score": pytest.approx(best.score, abs=1e-5)}
            for best in found
        ]
        for found in translate_with_scores(model, tokenizer, SENTENCES, **several)
    ]
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, batch_size=batch_size)
    assert translator(SENTENCES, output_scores=True, **several) == expected
    assert translator(SENTENCES[0], return_dict_in_generate=True, **several) == expected[0]
    assert list(translator((text for text in SENTENCES), output_scores=True, **several)) == expected
    without = translator(SENTENCES[1], **several)
    assert without == [{"translation_text": best["translation_text"]} for best in expected[1]]
    set_so = CmlmTranslationPipeline(
        model=model, tokenizer=tokenizer, output_scores=True, **several
    )
    assert set_so(SENTENCES[0]) == expected[0]
    (one,) = set_so(SENTENCES[0], num_return_sequences=1)
    assert one == expected[0][0]
    assert set_so("", num_return_sequences=None) == [{"translation_text": "", "score": 0.0}]


def test_columns_of_data_sets_are_translated(model, tokenizer):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    expected = translator(SENTENCES)
    dataset = datasets.Dataset.from_dict({"en": SENTENCES})
    assert translator(dataset["en"]) == translator(np.array(SENTENCES)) == expected
    streams = [dataset.to_iterable_dataset()["en"], KeyDataset(dataset, "en"), iter(SENTENCES)]
    assert [list(translator(stream)) for stream in streams] == [expected] * 3
    for wrong in (dataset, {"en": "A dog."}, {"A dog."}):
        with pytest.raises(TypeError, match="`inputs` must be strings, got"):
            translator(wrong)


def test_truncation_says_what_becomes_of_a_long_text(model, tokenizer, caplog):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    long = "The small dog sleeps in the house. " * 9
    expected = translator(long)
    caplog.clear()
    for truncation in (True, "longest_first", "only_first"):
        assert translator(long, truncation=truncation) == expected
    assert not caplog.records
    for truncation in (False, "do_not_truncate"):
        assert translator(SENTENCES[0], truncation=truncation) == translator(SENTENCES[0])
        with pytest.raises(ValueError, match="over the max_source_length of 24, and `truncation`"):
            translator(long, truncation=truncation)


def test_arguments_of_the_old_translation_pipeline_are_taken(model, tokenizer, caplog):
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer)
    expected = translator(SENTENCES[1])
    for clean_up in (True, False):
        assert translator(SENTENCES[1], clean_up_tokenization_spaces=clean_up) == [
            {
                "translation_text": tokenizer.decode(
                    tokenizer(expected[0]["translation_text"]).input_ids,
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=clean_up,
                )
            }
        ]
    assert translator(SENTENCES[1], src_lang="en", tgt_lang="de") == expected
    assert "`src_lang` has no part" in caplog.text and "`tgt_lang` has no part" in caplog.text


def test_languages_must_be_those_of_the_tokenizer(model):
    tokenizer = train_tokenizer(SENTENCES * 5, vocab_size=300)
    tokenizer.init_kwargs |= {"src_lang": "en_XX", "tgt_lang": "de_DE"}  # as of a teacher's
    translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, src_lang="en_XX")
    assert translator("A dog.", tgt_lang="de_DE") == translator("A dog.")
    with pytest.raises(ValueError, match="`tgt_lang` is 'fr_XX', the tokenizer's is 'de_DE'"):
        translator("A dog.", tgt_lang="fr_XX")
    with pytest.raises(ValueError, match="`src_lang` is 'de_DE', the tokenizer's is 'en_XX'"):
        CmlmTranslationPipeline(model=model, tokenizer=tokenizer, src_lang="de_DE")
