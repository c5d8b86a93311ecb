"""The modules that are exported, as they are and through `torch.export` at other sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axe_hf import (
    ExportableDecoderStep,
    ExportableEncoder,
    ExportableMaskPredict,
    export_program,
)
from axe_hf.export.modules import least_probable_first


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request, make_model):
    return make_model(attention=request.param)


def test_the_encoder_as_a_program(model, batches):
    encode = export_program(ExportableEncoder(model)).module()
    for batch in batches:
        with torch.no_grad():
            expected = model.model.encoder(*batch)
            states, length_logits = encode(*batch)
        torch.testing.assert_close(states, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(length_logits, expected.length_logits, atol=1e-5, rtol=1e-5)


def test_a_decoder_step_as_a_program(model, batches):
    step = export_program(ExportableDecoderStep(model)).module()
    for canvas_length, batch in enumerate(batches, start=1):
        input_ids, attention_mask = batch
        canvas = torch.full((len(input_ids), canvas_length), model.config.mask_token_id)
        canvas[0, canvas_length // 2 + 1 :] = model.config.pad_token_id
        with torch.no_grad():
            expected = model(input_ids, attention_mask, decoder_input_ids=canvas)
            logits = step(canvas, expected.encoder_last_hidden_state, attention_mask)
        torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_mask_predict_as_a_program(model, batches, assert_equals_generate):
    decode = export_program(ExportableMaskPredict(model, num_iterations=4)).module()
    for batch in batches:
        assert_equals_generate(model, batch, decode(*batch), num_iterations=4)


def test_a_program_can_be_saved(make_model, batches, tmp_path):
    encode = ExportableEncoder(make_model())
    torch.export.save(export_program(encode), tmp_path / "encoder.pt2")
    loaded = torch.export.load(tmp_path / "encoder.pt2").module()
    torch.testing.assert_close(loaded(*batches[-1]), encode(*batches[-1]))


def test_a_source_that_is_too_long_is_refused(make_model, make_batch):
    encode = export_program(ExportableEncoder(make_model())).module()
    with pytest.raises(Exception, match="20"):
        encode(*make_batch((2, 21)))


@pytest.mark.parametrize("kind", [ExportableEncoder, ExportableDecoderStep, ExportableMaskPredict])
def test_models_that_cannot_be_exported_are_refused(make_model, kind):
    model = make_model()
    with pytest.raises(TypeError, match="CmlmForConditionalGeneration, got .*CmlmModel"):
        kind(model.model)
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        kind(model.train())
    model.eval().config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="attention 'flex_attention'.*sdpa"):
        kind(model)


def test_a_bare_model_is_not_taken_for_a_part(make_model):
    with pytest.raises(TypeError, match="ExportableEncoder, .* got CmlmForConditionalGeneration"):
        export_program(make_model())


# The module that holds a whole decoding, before it is exported


@pytest.mark.parametrize("num_iterations", [1, 2, 4, 10])
def test_it_decodes_like_generate(make_model, batches, assert_equals_generate, num_iterations):
    for seed, batch in enumerate(batches):
        model = make_model(seed)
        decode = ExportableMaskPredict(model, num_iterations=num_iterations)
        assert_equals_generate(model, batch, decode(*batch), num_iterations=num_iterations)


@pytest.mark.parametrize(
    "settings",
    [
        {"length_multiplier": 1.4},
        {"length_multiplier": 0.5},
        {"max_length": 5},
        {"min_length": 7, "max_length": 9},
        {"min_length": 3, "max_length": 3},
        {"length_multiplier": 2.5, "min_length": 2, "max_length": 17},
        {"max_length": 1},
        {"schedule": "cosine", "num_iterations": 5},
        {"suppress_tokens": [1, 4, *range(20, 50)]},
    ],
    ids=str,
)
def test_it_follows_the_settings(make_model, make_batch, assert_equals_generate, settings):
    settings = {"num_iterations": 3, **settings}
    for seed in range(5):
        model, batch = make_model(seed), make_batch((9, 7), seed)
        outputs = ExportableMaskPredict(model, **settings)(*batch)
        longest = int(outputs[2].max())
        assert outputs[0].shape == (9, max(longest, min(2, settings.get("max_length", 2))))
        assert_equals_generate(model, batch, outputs, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("is_exported", [False, True])
def test_a_graph_collapses_runs(make_model, make_batch, is_exported):
    num_collapsed = 0
    for seed in range(1 if is_exported else 5):
        model, batch = make_model(seed, allow_repetition=True), make_batch((9, 7), seed)
        decode = ExportableMaskPredict(model, num_iterations=2, length_multiplier=2.0)
        assert decode.settings["collapse_repeats"] is True
        decode = export_program(decode).module() if is_exported else decode
        tokens, log_probs, lengths = decode(*batch)
        how = {"num_iterations": 2, "length_multiplier": 2.0, "return_dict_in_generate": True}
        expected = model.generate(*batch, **how, output_history=True)
        canvases = expected.history["tokens"][-1]
        special = torch.tensor([model.config.pad_token_id, 1, model.config.blank_token_id])
        for row, canvas, output in zip(tokens, canvases, expected.sequences, strict=True):
            assert row[~torch.isin(row, special)].tolist() == output[output != 0].tolist()
            row = row[: len(canvas)]
            assert row[row != canvas].eq(model.config.blank_token_id).all()
            num_collapsed += int((row != canvas).sum())
        width = canvases.shape[1]
        torch.testing.assert_close(log_probs[:, :width], expected.history["log_probs"][-1])
        assert lengths.equal(expected.lengths)
    assert num_collapsed > 9


def test_a_graph_leaves_runs_where_the_call_says_so(make_model, make_batch, assert_equals_generate):
    model, batch = make_model(allow_repetition=True), make_batch((9, 7))
    how = {"num_iterations": 2, "collapse_repeats": False}
    assert_equals_generate(model, batch, ExportableMaskPredict(model, **how)(*batch), **how)


def test_settings_are_by_default_the_models_own(make_model, make_batch, assert_equals_generate):
    model, batch = make_model(), make_batch((4, 6))
    model.generation_config.update(num_iterations=5, length_multiplier=1.3, max_length=12)
    decode = ExportableMaskPredict(model)
    expected = {"num_iterations": 5, "length_multiplier": 1.3, "min_length": 1, "max_length": 12}
    assert decode.settings.items() >= expected.items()
    assert_equals_generate(model, batch, decode(*batch))
    assert ExportableMaskPredict(model, num_iterations=2).settings["num_iterations"] == 2


@pytest.mark.parametrize(
    "architecture",
    [
        {"normalize_before": True},
        {"position_embedding_type": "sinusoidal", "scale_embedding": True},
        {"tie_word_embeddings": False, "layernorm_embedding": True},
        {"attention": "eager"},
        {"hide_length_token": True, "output_bias": True},
    ],
    ids=str,
)
def test_every_architecture_decodes_alike(
    make_model, make_batch, assert_equals_generate, architecture
):
    model, batch = make_model(**architecture), make_batch((5, 8))
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    decode = ExportableMaskPredict(model, num_iterations=4)
    assert_equals_generate(model, batch, decode(*batch), num_iterations=4)


def test_pad_and_mask_are_never_predicted(make_model, make_batch):
    model = make_model(tie_word_embeddings=False)
    config = model.config
    with torch.no_grad():  # they have the largest logits wherever a state has a positive sum
        model.lm_head.weight[[config.pad_token_id, config.mask_token_id]] = 5.0
    tokens, log_probs, lengths = ExportableMaskPredict(model, num_iterations=3)(*make_batch((9, 5)))
    is_inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    assert not (tokens == config.mask_token_id).any()
    assert torch.equal(tokens != config.pad_token_id, is_inside)
    assert log_probs.isfinite().all()


@given(st.lists(st.lists(st.integers(-3, 0), min_size=6, max_size=6), min_size=1, max_size=4))
def test_ranking_is_a_stable_sort(values):
    log_probs = torch.tensor(values).float()
    log_probs[log_probs == 0] = torch.inf  # as behind a canvas's end
    assert least_probable_first(log_probs).equal(log_probs.argsort(dim=1, stable=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_length_candidates": 5}, "`num_length_candidates` is 5.*num_length_candidates=1"),
        ({"early_stop": True}, "`early_stop` is True"),
        ({"confidence_threshold": 0.9}, "`confidence_threshold` is 0.9"),
        ({"do_sample": True}, "`do_sample` is True.*`do_sample=False`"),
        ({"num_iterations": 0}, "`num_iterations` must be an integer >= 1"),
        ({"num_beams": 4}, "`num_beams` has no meaning"),
    ],
    ids=str,
)
def test_what_the_graph_does_not_do_is_refused(make_model, settings, message):
    with pytest.raises(ValueError, match=message):
        ExportableMaskPredict(make_model(), **settings)


def test_several_candidates_in_the_models_settings_are_refused_too(make_model):
    model = make_model()
    model.generation_config.num_length_candidates = 3
    with pytest.raises(ValueError, match="`num_length_candidates` is 3"):
        ExportableMaskPredict(model)
    ExportableMaskPredict(model, num_length_candidates=1)
    model.generation_config.do_sample = True
    with pytest.raises(ValueError, match="Export with `do_sample=False`"):
        ExportableMaskPredict(model, num_length_candidates=1)
    ExportableMaskPredict(model, num_length_candidates=1, do_sample=False)


def test_unknown_arguments_are_refused(make_model):
    with pytest.raises(TypeError, match="no argument `iterations`"):
        ExportableMaskPredict(make_model(), iterations=4)
