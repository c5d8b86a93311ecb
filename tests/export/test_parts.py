"""The parts that `load_exported` decodes by, through `torch.export` at other sizes."""

import pytest
import torch

from axe_hf import export_program
from axe_hf.export.parts import ExportableCanvas, ExportableHead, ExportableSource


def test_the_source_as_a_program(make_model, batches):
    model = make_model()
    encode = export_program(ExportableSource(model)).module()
    for batch in batches:
        with torch.no_grad():
            expected = model.model.encoder(*batch)
            layers = model.model.decoder.project_source(expected.last_hidden_state)
            key_values, length_logits = encode(*batch)
        parts = [part for layer in layers for part in layer]
        torch.testing.assert_close([*key_values.unbind(1)], parts, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(length_logits, expected.length_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_pass_over_canvases_as_a_program(make_model, batches):
    """Several canvases of a sentence, some of their positions."""
    model = make_model()
    encode, head = ExportableSource(model), ExportableHead(model)
    decode = export_program(ExportableCanvas(model)).module()
    several = [batch for batch in batches if len(batch[0]) > 1]
    for num_candidates, (input_ids, attention_mask) in enumerate(several, start=2):
        width = num_candidates + 2
        shape = (len(input_ids), num_candidates, width)
        canvas = torch.full(shape, model.config.mask_token_id)
        canvas[0, 0, width // 2 :] = model.config.pad_token_id
        positions = torch.stack([torch.arange(width)[[0, -1]]] * num_candidates)
        positions = positions.expand(len(input_ids), -1, -1)
        with torch.no_grad():
            key_values, _ = encode(input_ids, attention_mask)
            states = decode(canvas, positions, key_values, attention_mask)
            repeated = [
                each.repeat_interleave(num_candidates, 0) for each in (input_ids, attention_mask)
            ]
            expected = model(*repeated, decoder_input_ids=canvas.flatten(0, 1)).logits
            logits = head(states.flatten(0, 1))
        torch.testing.assert_close(logits, expected[:, [0, -1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [ExportableSource, ExportableCanvas, ExportableHead])
def test_models_that_cannot_be_exported_are_refused(make_model, kind):
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        kind(make_model().train())
