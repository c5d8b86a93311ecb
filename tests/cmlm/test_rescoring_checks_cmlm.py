import pytest
import torch
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel

from axe_hf import train_tokenizer
from axe_hf.cmlm.rescoring_checks_cmlm import check_rescorer, valid_unicode
from axe_hf.cmlm.rescoring_cmlm import autoregressive_scores


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def marian():
    names = (
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
    )
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, **dict.fromkeys(names, 1)}
    return MarianMTModel(MarianConfig(vocab_size=40, d_model=16, **sizes, **ids))


def test_a_tokenizer_of_another_model_is_noticed(marian, tokenizer):
    with pytest.raises(ValueError, match="source token .* has 40 entries. Do model and tokenizer"):
        autoregressive_scores(marian, tokenizer, ["dog"], [["Hund"]])


def test_wrong_rescorers_are_named(marian, tokenizer, make_model):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    wrong = {
        "pair .*, got str": "my/model",
        "pair .*, got MarianMTModel": marian,
        "pair .*, got tuple of 1": (marian,),
        "model must be a model of Transformers, got str": ("my/model", tokenizer),
        "encoder-decoder, got GPT2LMHeadModel": (GPT2LMHeadModel(GPT2Config(**sizes)), tokenizer),
        "head .*, got MarianModel.* not AutoModel": (
            AutoModel.from_config(marian.config),
            tokenizer,
        ),
        "autoregressive, got CmlmForConditionalGeneration": (make_model(), tokenizer),
        "tokenizer of Transformers, got NoneType": (marian, None),
        "tokenizer of Transformers, got str": (marian, "my/tokenizer"),
    }
    for complaint, rescorer in wrong.items():
        with pytest.raises(TypeError, match=complaint):
            check_rescorer(rescorer)
    assert check_rescorer([marian, tokenizer]) == (marian, tokenizer)


@pytest.mark.parametrize(
    ("sources", "candidates", "complaint"),
    [
        (["a", "b"], [["c"]], "each of the 2 `sources`, got 1 lists"),
        (["a", "b"], [["c"], ["d", "e"]], r"got 1 for the first and 2 for sources\[1\]"),
        ("a", ["c"], "`sources` must be a list, got str"),
        (["a"], ["c"], r"`candidates\[0\]` must be a list, got str"),
        (["a"], [[None]], r"must hold strings, got NoneType at \[0\]"),
        ([b"a"], [["c"]], r"must hold strings, got bytes at \[0\]"),
    ],
)
def test_wrong_texts_are_named(marian, tokenizer, sources, candidates, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        autoregressive_scores(marian, tokenizer, sources, candidates)


@pytest.mark.parametrize("budget", [0, 1.5])
def test_a_wrong_budget_is_named(marian, tokenizer, budget):
    with pytest.raises(ValueError, match="`max_logits_elements` must be an integer >= 1"):
        autoregressive_scores(marian, tokenizer, ["a"], [["b"]], max_logits_elements=budget)


def test_lone_surrogates_become_replacement_characters_and_the_rest_stays():
    assert valid_unicode("a\udcff\ud83d b") == "a\ufffd\ufffd b"
    for text in ("", "日本 🙂👩\u200d👩", "\U0010ffff\x00\ufeff", "e\u0301"):
        assert valid_unicode(text) == text


def test_nothing_to_score_gives_nothing(marian, tokenizer):
    assert autoregressive_scores(marian, tokenizer, [], []).shape == (0, 0)
    assert autoregressive_scores(marian, tokenizer, ["dog"], [[]]).shape == (1, 0)


def test_scores_that_are_no_numbers_are_refused(marian, tokenizer):
    broken = MarianMTModel(MarianConfig(**(marian.config.to_dict() | {"vocab_size": 300})))
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match="not numbers in torch.float32"):
        autoregressive_scores(broken, tokenizer, ["dog"], [["Hund"]])
