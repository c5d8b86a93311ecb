import pytest
import torch

from axe_hf import CmlmConfig, CmlmForConditionalGeneration

# (batch, source): none is a size that a graph was traced with; a source may have 20 tokens.
SHAPES = [(1, 1), (1, 9), (3, 4), (7, 20)]


@pytest.fixture(scope="session")
def make_model():
    """Small random models; large weights, so that tokens, their probabilities and lengths differ
    much."""

    def make(seed=0, attention="sdpa", **settings):
        torch.manual_seed(seed)
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.5}
        sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        limits = {"max_source_length": 20, "max_target_length": 18}
        config = CmlmConfig(**{"vocab_size": 60, **sizes, **limits, **settings})
        model = CmlmForConditionalGeneration(config).eval()
        model.set_attn_implementation(attention)
        return model

    return make


@pytest.fixture(scope="session")
def make_batch():
    """`input_ids` and `attention_mask` (batch, source) with or without padding."""

    def make(shape, seed=0, is_padded=True):
        generator = torch.Generator().manual_seed(seed)
        input_ids = torch.randint(5, 60, shape, generator=generator)
        source_lengths = torch.full(shape[:1], shape[1])
        if is_padded:
            source_lengths = torch.randint(1, shape[1] + 1, shape[:1], generator=generator)
        attention_mask = (torch.arange(shape[1]) < source_lengths[:, None]).long()
        return input_ids * attention_mask, attention_mask

    return make


@pytest.fixture(scope="session")
def batches(make_batch):
    """Batches of all the shapes, padded and not."""
    return [make_batch(shape, is_padded=is_padded) for shape in SHAPES for is_padded in (0, 1)]


@pytest.fixture(scope="session")
def assert_equals_generate():
    """Compares what a graph of Mask-Predict returned with the canvas of `model.generate`."""

    def check(model, batch, outputs, **generation):
        tokens, log_probs, lengths = (torch.as_tensor(output) for output in outputs)
        kept = {"output_history": True, "return_dict_in_generate": True}
        expected = model.generate(*batch, **generation, **kept)
        assert lengths.tolist() == expected.lengths.tolist()
        width = expected.history["tokens"].shape[-1]
        assert tokens[:, :width].equal(expected.history["tokens"][-1])
        expected_log_probs = expected.history["log_probs"][-1]
        torch.testing.assert_close(log_probs[:, :width], expected_log_probs, atol=1e-5, rtol=0)
        assert tokens[:, width:].eq(model.config.pad_token_id).all()
        assert log_probs[:, width:].eq(0).all()

    return check
