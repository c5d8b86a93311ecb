"""Transformers' own exporters take one forward pass of the model, with free sizes."""

import pytest
import torch
from transformers import exporters

# Before them an export returns a bare program, which is called in another way.
pytestmark = pytest.mark.skipif(
    not hasattr(exporters, "ExportedModel"), reason="this version has no ExportedModel"
)
pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("Dynamo", 1e-6), ("Onnx", 2e-5)],
)
def test_a_forward_pass_of_the_stock_exporters_is_the_models(
    make_model, make_batch, tmp_path, kind, tolerance
):
    model = make_model(decoder_layers=1)
    exporter = getattr(exporters, f"{kind}Exporter")()
    settings = getattr(exporters, f"{kind}Config")(dynamic=True)

    def inputs(shape, canvas_length):
        input_ids, attention_mask = make_batch(shape)
        canvas = torch.full((shape[0], canvas_length), model.config.mask_token_id)
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        return dict(zip(names, (input_ids, attention_mask, canvas), strict=True))

    exported = exporter.export(model, inputs((3, 7), 5), settings)
    exported.save_pretrained(tmp_path)
    loaded = exporters.ExportedModel.from_pretrained(tmp_path)
    for shape, canvas_length in (((3, 7), 5), ((1, 4), 3), ((5, 9), 11)):
        batch = inputs(shape, canvas_length)
        with torch.no_grad():
            expected, outputs = model(**batch), loaded(**batch)
        for name in ("logits", "length_logits"):
            difference = (outputs[name] - expected[name]).abs().max()
            assert difference < tolerance, name
