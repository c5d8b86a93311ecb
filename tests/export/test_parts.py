"""`torch.export` of every part: other sizes than those it was traced with, the same numbers."""

import pytest
import torch

from axe_hf import (
    ExportableDecoderStep,
    ExportableEncoder,
    ExportableMaskPredict,
    export_program,
)


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
