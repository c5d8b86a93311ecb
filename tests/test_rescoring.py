import copy
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoModel,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    FSMTConfig,
    FSMTForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from axe_hf import train_tokenizer, translate, translate_with_scores
from axe_hf.pipeline import valid_unicode
from axe_hf.rescoring import autoregressive_scores, check_rescorer, generate_rescored

TEXTS = ["A dog barks.", "The small dog sleeps in the house.", "Ein Hund bellt.", "Das Haus."]
SOURCES = ["A dog barks.", "", "The small dog sleeps in the house.", "A dog barks."]
CANDIDATES = [
    ["Ein Hund bellt.", "Ein Ein bellt bellt bellt.", ""],
    ["Das Haus.", "", "Hund"],
    ["Der kleine Hund schläft im Haus, 日本 🙂.", "Haus", "Haus"],
    ["Hund", "Ein Hund bellt.", "\udcff <mask></s>"],
]
SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 60,
    "init_std": 0.5,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer like Marian's and T5's: `</s>` behind the text."""
    return train_tokenizer(TEXTS * 5, vocab_size=300)


def make_marian(vocab_size, **changes):
    return MarianMTModel(MarianConfig(vocab_size=vocab_size, **(SIZES | changes)))


def make_t5(vocab_size):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=vocab_size, decoder_start_token_id=0, **sizes)
    return T5ForConditionalGeneration(config)


def make_bert2bert(vocab_size):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    part = BertConfig(vocab_size=vocab_size, intermediate_size=32, initializer_range=0.5, **sizes)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(part, part)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return EncoderDecoderModel(config)


def make_fsmt(vocab_size):
    sizes = {"src_vocab_size": vocab_size, "tgt_vocab_size": vocab_size, "langs": ["en", "de"]}
    return FSMTForConditionalGeneration(FSMTConfig(**sizes, **SIZES))


def make_nllb_moe(vocab_size):
    experts = {"num_experts": 2, "encoder_sparse_step": 1, "expert_capacity": 1000}
    return NllbMoeForConditionalGeneration(NllbMoeConfig(vocab_size=vocab_size, **experts, **SIZES))


MODELS = {
    "Marian": make_marian,
    "BART": lambda size: BartForConditionalGeneration(BartConfig(vocab_size=size, **SIZES)),
    "T5": make_t5,
    # No prepare_decoder_input_ids_from_labels, and positions that come from where padding is not.
    "M2M-100": lambda size: M2M100ForConditionalGeneration(M2M100Config(vocab_size=size, **SIZES)),
    # The decoder starts with the last token of the target.
    "mBART": lambda size: MBartForConditionalGeneration(MBartConfig(vocab_size=size, **SIZES)),
    "BERT2BERT": make_bert2bert,
    "FSMT": make_fsmt,  # leaves out its causal mask where it gets no source tokens
    "NLLB-MoE": make_nllb_moe,  # reads fields of its own in the encoder's outputs
}


@pytest.fixture(params=MODELS)
def model(request, tokenizer):
    torch.manual_seed(0)
    return MODELS[request.param](len(tokenizer)).train()


@pytest.fixture
def marian(tokenizer):
    torch.manual_seed(0)
    return make_marian(len(tokenizer))


def score_alone(model, tokenizer, source, candidate, num_before=0, num_after=0):
    """The definition: one sentence, one candidate, token by token."""
    source, candidate = (text.replace("\udcff", "\ufffd") for text in (source, candidate))
    labels = tokenizer(text_target=candidate).input_ids
    inputs = tokenizer(source, return_tensors="pt")
    inputs["decoder_input_ids"] = torch.tensor(
        [[model.config.decoder_start_token_id, *labels[:-1]]]
    )
    with torch.no_grad():
        logits = model.eval()(**inputs, use_cache=False).logits[0]  # (target, vocab)
    scored = range(num_before, len(labels) - num_after)
    return sum(logits[t].double().log_softmax(0)[labels[t]].item() for t in scored) / len(scored)


def scores_alone(model, tokenizer, sources, candidates, *place):
    pairs = zip(sources, candidates, strict=True)
    rows = [[score_alone(model, tokenizer, x, y, *place) for y in row] for x, row in pairs]
    return torch.tensor(rows)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_scores_are_those_of_each_pair_alone(model, tokenizer):
    found = autoregressive_scores(model, tokenizer, SOURCES, CANDIDATES)
    assert found.dtype == torch.float32 and found.device.type == "cpu" and not found.requires_grad
    assert_close(found, scores_alone(model, tokenizer, SOURCES, CANDIDATES))


@pytest.mark.parametrize(
    ("around", "place"), [("<unk> $A </s>", (1, 0)), ("$A </s> <unk>", (0, 1))]
)
@pytest.mark.parametrize("name", ["BART", "M2M-100"])
def test_a_language_around_every_target_is_not_scored(around, place, name):
    """As M2M-100 has it in front, and the first mBART behind; here it is "<unk>"."""
    tokenizer = train_tokenizer(TEXTS * 5, vocab_size=280)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[("<unk>", 2), ("</s>", 1)]
    )
    torch.manual_seed(0)
    model = MODELS[name](len(tokenizer))
    found = autoregressive_scores(model, tokenizer, SOURCES, CANDIDATES)
    assert_close(found, scores_alone(model, tokenizer, SOURCES, CANDIDATES, *place))


def test_an_end_token_that_the_tokenizer_does_not_write_is_added(marian, tokenizer):
    without = train_tokenizer(TEXTS * 5, vocab_size=300)
    expected = autoregressive_scores(marian, without, ["dog"], [["Hund", ""]])
    without.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    without.split_special_tokens = False  # to write the source's end by hand
    assert without("dog</s>").input_ids == tokenizer("dog").input_ids
    found = autoregressive_scores(marian, without, ["dog</s>"], [["Hund", ""]])
    assert_close(found, expected)
    assert autoregressive_scores(marian, without, [""], [[""]]).isfinite().all()
    without.eos_token = None
    with pytest.raises(ValueError, match="no end token.*`eos_token`"):
        autoregressive_scores(marian, without, ["dog"], [["Hund"]])


@pytest.mark.parametrize("budget", [1, 300 * 7, 300 * 40, 2**30])
def test_the_size_of_the_parts_changes_nothing(model, tokenizer, budget):
    expected = autoregressive_scores(model, tokenizer, SOURCES, CANDIDATES)
    found = autoregressive_scores(model, tokenizer, SOURCES, CANDIDATES, max_logits_elements=budget)
    assert_close(found, expected)


def test_neither_order_nor_company_changes_a_score(model, tokenizer):
    expected = autoregressive_scores(model, tokenizer, SOURCES, CANDIDATES)
    backwards = [row[::-1] for row in CANDIDATES[::-1]]
    found = autoregressive_scores(model, tokenizer, SOURCES[::-1], backwards)
    assert_close(found.flip(0, 1), expected)
    for i, row in enumerate(CANDIDATES):
        assert_close(
            autoregressive_scores(model, tokenizer, SOURCES[i : i + 1], [row])[0], expected[i]
        )


def test_each_source_is_encoded_once_and_each_pair_decoded_once(marian, tokenizer):
    encoded, logits = [], []
    marian.get_encoder().register_forward_hook(
        lambda m, a, output: encoded.append(output[0].shape[0])
    )
    marian.lm_head.register_forward_hook(lambda m, a, output: logits.append(output.shape))
    autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES)
    assert encoded == [3]  # SOURCES has one twice
    assert sum(rows for rows, _, _ in logits) == 10  # CANDIDATES has two pairs twice
    logits.clear()
    budget = 20 * len(tokenizer)
    autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES, max_logits_elements=budget)
    assert sum(rows for rows, _, _ in logits) == 10 and len(logits) > 1
    assert all(shape.numel() <= budget or shape[0] == 1 for shape in logits)


def test_a_rescorer_finds_the_candidate_it_was_made_to_prefer(marian, tokenizer):
    """Trained on three pairs, with a tokenizer of its own for texts of another."""
    pairs = dict(zip(TEXTS[:2], TEXTS[2:], strict=True)) | {"Haus": "house"}
    inputs = tokenizer(list(pairs), padding=True, return_tensors="pt")
    labels = tokenizer(
        text_target=list(pairs.values()), padding=True, return_tensors="pt"
    ).input_ids
    inputs["labels"] = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
    model = make_marian(len(tokenizer), init_std=0.02)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    other = train_tokenizer(["Hunde bellen im kleinen Haus"] * 5, vocab_size=260)
    candidates = [
        [other.decode(other(text).input_ids, skip_special_tokens=True) for text in row]
        for row in (
            ["Ein Ein bellt.", "Das Haus.", "Ein Hund bellt.", ""],
            ["Ein Hund bellt.", "", "Das", "Das Haus."],
            ["house", "house house", "", "Das Haus."],
        )
    ]
    scores = autoregressive_scores(model, tokenizer, list(pairs), candidates)
    assert scores.argmax(dim=1).tolist() == [2, 3, 0]


@pytest.mark.parametrize("name", ["Marian", "BART"])
def test_texts_that_are_too_long_are_cut_with_one_warning_a_side(name, tokenizer, caplog):
    model = MODELS[name](len(tokenizer))
    long = "dog barks in the house. " * 30
    with caplog.at_level(logging.WARNING, logger="axe_hf"):
        found = autoregressive_scores(model, tokenizer, [long, "dog"], [["Hund"], [long]])
    sources, candidates = (record.message for record in caplog.records)
    assert "1 of 2 different sources are longer than the 60 tokens" in sources
    assert "1 of 2 different candidates are longer than the 60 tokens" in candidates
    ids = tokenizer(long).input_ids
    cut = torch.tensor([[*ids[:59], tokenizer.eos_token_id]])
    hund = tokenizer("Hund", return_tensors="pt").input_ids
    assert_close(found[0, 0], -model.eval()(cut, labels=hund).loss.detach())
    dog = tokenizer("dog", return_tensors="pt").input_ids
    assert_close(found[1, 0], -model(dog, labels=cut).loss.detach())


def test_separate_vocabularies_of_source_and_target_are_kept_apart(tokenizer):
    class Marian(type(tokenizer)):
        def _switch_to_target_mode(self):
            self.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="<blank> $A </s>", special_tokens=[("<blank>", 4), ("</s>", 1)]
            )

        def _switch_to_input_mode(self):
            self.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", 1)]
            )

    torch.manual_seed(0)
    model = make_marian(len(tokenizer))
    two = Marian(
        tokenizer_object=train_tokenizer(TEXTS * 5, vocab_size=300).backend_tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
    )
    found = autoregressive_scores(model, two, SOURCES, CANDIDATES)
    assert_close(found, scores_alone(model, two, SOURCES, CANDIDATES, 1))


def test_the_model_runs_in_evaluation_mode_and_is_put_back(marian, tokenizer):
    marian.train()
    marian.get_encoder().eval()
    before = {name: module.training for name, module in marian.named_modules()}
    scores = [autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES) for _ in range(2)]
    assert scores[0].equal(scores[1])  # no dropout
    assert {name: module.training for name, module in marian.named_modules()} == before


def test_threads_score_alike_with_a_model_in_training_mode_and_one_tokenizer(marian, tokenizer):
    expected = autoregressive_scores(marian.eval(), tokenizer, SOURCES, CANDIDATES)
    marian.train()
    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.enable_truncation(2)

    def score(_):
        return autoregressive_scores(marian, own, SOURCES, CANDIDATES)

    with ThreadPoolExecutor(4) as pool:
        assert all(scores.equal(expected) for scores in pool.map(score, range(8)))
    assert all(module.training for module in marian.modules())
    assert own.backend_tokenizer.truncation["max_length"] == 2


def test_a_model_in_half_precision_gives_scores_in_fp32(marian, tokenizer):
    expected = autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES)
    found = autoregressive_scores(marian.bfloat16(), tokenizer, SOURCES, CANDIDATES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.2, rtol=0.1)


def test_the_start_of_the_decoder_may_stand_in_the_generation_config(marian, tokenizer):
    expected = autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES)
    marian.config.__dict__["decoder_start_token_id"] = None
    marian.generation_config.decoder_start_token_id = 1
    assert_close(autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES), expected)
    marian.generation_config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="MarianMTModel does not say .*decoder_start_token_id"):
        autoregressive_scores(marian, tokenizer, SOURCES, CANDIDATES)


# What is refused


@pytest.fixture(scope="module")
def tiny_marian():
    names = (
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
    )
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, **dict.fromkeys(names, 1)}
    return MarianMTModel(MarianConfig(vocab_size=40, d_model=16, **sizes, **ids))


def test_a_tokenizer_of_another_model_is_noticed(tiny_marian, tokenizer):
    with pytest.raises(ValueError, match="source token .* has 40 entries. Do model and tokenizer"):
        autoregressive_scores(tiny_marian, tokenizer, ["dog"], [["Hund"]])


def test_wrong_rescorers_are_named(tiny_marian, tokenizer, make_model):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    wrong = {
        "pair .*, got str": "my/model",
        "pair .*, got MarianMTModel": tiny_marian,
        "pair .*, got tuple of 1": (tiny_marian,),
        "model must be a model of Transformers, got str": ("my/model", tokenizer),
        "encoder-decoder, got GPT2LMHeadModel": (GPT2LMHeadModel(GPT2Config(**sizes)), tokenizer),
        "head .*, got MarianModel.* not AutoModel": (
            AutoModel.from_config(tiny_marian.config),
            tokenizer,
        ),
        "autoregressive, got CmlmForConditionalGeneration": (make_model(), tokenizer),
        "tokenizer of Transformers, got NoneType": (tiny_marian, None),
        "tokenizer of Transformers, got str": (tiny_marian, "my/tokenizer"),
    }
    for complaint, rescorer in wrong.items():
        with pytest.raises(TypeError, match=complaint):
            check_rescorer(rescorer)
    check_rescorer([tiny_marian, tokenizer])


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
def test_wrong_texts_are_named(tiny_marian, tokenizer, sources, candidates, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        autoregressive_scores(tiny_marian, tokenizer, sources, candidates)


@pytest.mark.parametrize("budget", [0, 1.5])
def test_a_wrong_budget_is_named(tiny_marian, tokenizer, budget):
    with pytest.raises(ValueError, match="`max_logits_elements` must be an integer >= 1"):
        autoregressive_scores(tiny_marian, tokenizer, ["a"], [["b"]], max_logits_elements=budget)


def test_lone_surrogates_become_replacement_characters_and_the_rest_stays():
    assert valid_unicode("a\udcff\ud83d b") == "a\ufffd\ufffd b"
    for text in ("", "日本 🙂👩\u200d👩", "\U0010ffff\x00\ufeff", "e\u0301"):
        assert valid_unicode(text) == text


def test_nothing_to_score_gives_nothing(tiny_marian, tokenizer):
    assert autoregressive_scores(tiny_marian, tokenizer, [], []).shape == (0, 0)
    assert autoregressive_scores(tiny_marian, tokenizer, ["dog"], [[]]).shape == (1, 0)


def test_scores_that_are_no_numbers_are_refused(tiny_marian, tokenizer):
    broken = MarianMTModel(MarianConfig(**(tiny_marian.config.to_dict() | {"vocab_size": 300})))
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match="not numbers in torch.float32"):
        autoregressive_scores(broken, tokenizer, ["dog"], [["Hund"]])


# Another model chooses


@pytest.fixture(scope="module")
def rescorer():
    """An autoregressive model with a tokenizer of its own."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a dog barks", "ein hund bellt laut", "cat"] * 5, vocab_size=280)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "pad_token_id": 0, "eos_token_id": 1}
    config = MarianConfig(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes)
    return MarianMTModel(config).eval(), tokenizer


def test_another_model_chooses_among_the_candidates(make_model, rescorer):
    texts = ["a dog barks", "cats", "ein hund"]
    tokenizer = train_tokenizer([*texts, "Hund und Katze"] * 5, vocab_size=300)
    model = make_model(seed=9, vocab_size=len(tokenizer), tie_word_embeddings=False)
    sources = tokenizer(texts, return_tensors="pt", padding=True)
    sources = {name: sources[name] for name in ("input_ids", "attention_mask")}
    decoding = {"num_length_candidates": 6, "num_iterations": 2}
    full = {"num_return_sequences": 6, "return_dict_in_generate": True}
    every = model.generate(**sources, **decoding, **full)
    candidates = tokenizer.batch_decode(every.sequences, skip_special_tokens=True)
    scores = autoregressive_scores(
        *rescorer, texts, [candidates[row : row + 6] for row in (0, 6, 12)]
    )
    best = scores.argmax(dim=1)
    assert best.any(), "the test should see another choice"
    output = generate_rescored(
        model, tokenizer, rescorer, **sources, **decoding, output_history=True
    )
    torch.testing.assert_close(output.ranking_scores, scores.max(dim=1).values)
    found = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
    assert found == [candidates[6 * row + int(best[row])] for row in range(3)]
    chosen = torch.arange(3) * 6 + best
    assert output.sequences_scores.equal(every.sequences_scores[chosen])
    assert output.lengths.equal(every.lengths[chosen])
    assert output.history["tokens"].shape[:2] == (2, 3)
    assert translate(model, tokenizer, texts, **decoding, rescore_with=rescorer) == found
    # Several of them, best first by the other model.
    ranked = translate_with_scores(
        model, tokenizer, texts, **decoding, rescore_with=rescorer, num_return_sequences=4
    )
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :4]
    assert [[best.text for best in row] for row in ranked] == [
        [candidates[6 * i + k] for k in row] for i, row in enumerate(order.tolist())
    ]
    expected = scores.gather(1, order)
    found_scores = torch.tensor([[best.score for best in row] for row in ranked])
    torch.testing.assert_close(found_scores, expected)
    with pytest.raises(ValueError, match="`num_return_sequences` is 7, but .* 6 length candidate"):
        generate_rescored(model, tokenizer, rescorer, **sources, **decoding, num_return_sequences=7)
    # Lengths that were given are all candidates, whatever `num_length_candidates` says.
    lengths = torch.tensor([[3, 5, 7], [2, 9, 4], [6, 1, 8]])
    given = generate_rescored(model, tokenizer, rescorer, **sources, target_lengths=lengths)
    every = model.generate(
        **sources, target_lengths=lengths, num_return_sequences=3, return_dict_in_generate=True
    )
    texts_of = tokenizer.batch_decode(every.sequences, skip_special_tokens=True)
    scores = autoregressive_scores(*rescorer, texts, [texts_of[i : i + 3] for i in (0, 3, 6)])
    torch.testing.assert_close(given.ranking_scores, scores.max(dim=1).values)
    with pytest.raises(TypeError, match="no argument `streamer`"):
        generate_rescored(model, tokenizer, rescorer, **sources, streamer=object())
    # Bounds that leave fewer lengths than candidates are asked for.
    bounds = {"num_length_candidates": 30, "num_iterations": 2, "min_length": 3, "max_length": 5}
    few = generate_rescored(model, tokenizer, rescorer, **sources, **bounds)
    assert len(few.lengths) == 3 and few.lengths.min() >= 3 and few.lengths.max() <= 5
    assert len(translate(model, tokenizer, texts, **bounds, rescore_with=rescorer)) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_the_n_best_by_another_model_are_different_ones(make_model, rescorer, seed):
    texts = ["a dog barks", "cats", "ein hund"]
    tokenizer = train_tokenizer([*texts, "Hund und Katze"] * 5, vocab_size=300)
    model = make_model(seed=seed, vocab_size=len(tokenizer), allow_repetition=True)
    how = {"num_length_candidates": 8, "rescore_with": rescorer}
    num_repeated = 0
    for row in translate_with_scores(model, tokenizer, texts, **how, num_return_sequences=8):
        found = [best.text for best in row]
        scores, num_distinct = [best.score for best in row], len(set(found))
        assert len(set(found[:num_distinct])) == num_distinct
        assert scores[:num_distinct] == sorted(scores[:num_distinct], reverse=True)
        num_repeated += 8 - num_distinct
    assert num_repeated


@pytest.mark.parametrize("length_score_weight", [0.0, 5.0])
def test_among_equal_scores_the_most_probable_length_wins(
    make_model, tokenizer, length_score_weight
):
    torch.manual_seed(0)
    indifferent = make_marian(len(tokenizer), init_std=0.0)
    model = make_model(seed=9, vocab_size=len(tokenizer), tie_word_embeddings=False)
    sources = tokenizer(["A dog barks.", "Das Haus."], return_tensors="pt", padding=True)
    sources = {name: sources[name] for name in ("input_ids", "attention_mask")}
    output = generate_rescored(
        model,
        tokenizer,
        (indifferent.eval(), tokenizer),
        **sources,
        num_length_candidates=6,
        length_score_weight=length_score_weight,
    )
    length_logits = model.get_encoder()(**sources).length_logits
    assert output.lengths.tolist() == length_logits.argmax(dim=1).tolist()


def test_both_models_in_training_mode_choose_as_in_evaluation_mode(make_model, rescorer):
    texts = ["a dog barks", "cats", "ein hund"]
    tokenizer = train_tokenizer([*texts, "Hund und Katze"] * 5, vocab_size=300)
    model = make_model(seed=9, vocab_size=len(tokenizer), tie_word_embeddings=False)
    sources = tokenizer(texts, return_tensors="pt", padding=True)
    sources = {name: sources[name] for name in ("input_ids", "attention_mask")}
    marian, its_tokenizer = copy.deepcopy(rescorer[0]), rescorer[1]
    settings = {"num_length_candidates": 4, "num_iterations": 2}
    expected = generate_rescored(model, tokenizer, (marian, its_tokenizer), **sources, **settings)
    pair = (marian.train(), its_tokenizer)
    found = generate_rescored(model.train(), tokenizer, pair, **sources, **settings)
    assert found.sequences.equal(expected.sequences)
    torch.testing.assert_close(found.ranking_scores, expected.ranking_scores)
    assert all(module.training for each in (model, marian) for module in each.modules())
