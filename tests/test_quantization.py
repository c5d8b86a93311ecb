"""int8 on a CPU: nearly the same decoding, from a copy."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, TorchAoConfig

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, quantize_int8
from axe_hf.quantization import Int8Linear


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "init_std": 0.3}
    sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_target_length": 20}
    return CmlmForConditionalGeneration(CmlmConfig(vocab_size=100, **sizes))


def test_decoding_in_int8_is_close_and_the_model_itself_untouched(model):
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = torch.randint(5, 100, (4, 9))
    decoding = {"target_lengths": torch.tensor([9, 4, 12, 7]), "return_dict_in_generate": True}
    quantized = quantize_int8(model)
    assert not any(type(module) is torch.nn.Linear for module in quantized.modules())
    for num_iterations in (1, 4):
        exact = model.generate(source, num_iterations=num_iterations, **decoding)
        found = quantized.generate(source, num_iterations=num_iterations, **decoding)
        assert found.lengths.equal(exact.lengths)
        torch.testing.assert_close(
            found.sequences_scores, exact.sequences_scores, atol=0.15, rtol=0
        )
        assert not found.sequences_scores.equal(exact.sequences_scores), "not in int8"
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())


def test_a_model_in_training_gives_a_copy_that_decodes(model):
    source = torch.randint(5, 100, (4, 9))
    decoding = {"num_iterations": 3, "return_dict_in_generate": True}
    quantized = quantize_int8(model.train())
    assert model.training and not any(module.training for module in quantized.modules())
    found = quantized.generate(source, **decoding)
    expected = quantize_int8(model.eval()).generate(source, **decoding)
    assert found.sequences.equal(expected.sequences)  # without dropout, that is
    assert found.sequences_scores.equal(expected.sequences_scores)


def test_each_output_has_a_scale_of_its_own():
    torch.manual_seed(0)
    weight = torch.randn(7, 64) * torch.logspace(-4, 2, 7)[:, None]
    layer, states = Int8Linear(weight, None), torch.randn(5, 64)
    exact = states @ weight.T
    error = (layer(states) - exact).abs().amax(dim=0) / exact.abs().amax(dim=0)
    assert (error < 0.05).all()
    assert copy.deepcopy(layer)(states).equal(layer(states))


def test_projections_side_by_side_are_those_one_by_one(model):
    states, attention = torch.randn(3, 9, 32), model.eval().model.encoder.layers[0].self_attn
    fused = quantize_int8(model).model.encoder.layers[0].self_attn
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    with torch.no_grad():
        expected = [Int8Linear(layer.weight, layer.bias)(states) for layer in layers]
    queries, (keys, values) = fused.project(states)
    again = (fused.project_queries(states), *fused.project_key_values(states))
    for wanted, *found in zip(expected, (queries, keys, values), again, strict=True):
        for each in found:
            assert each.transpose(1, 2).flatten(2).equal(wanted)


def test_an_adapter_in_the_attention_is_not_lost(model):
    class Adapter(torch.nn.Linear):
        def forward(self, states):
            return super().forward(states) + 1

    adapter = model.model.encoder.layers[0].self_attn.k_proj = Adapter(32, 32)
    found = quantize_int8(model).model.encoder.layers[0].self_attn
    states = torch.randn(3, 9, 32)
    assert found.k_proj(states).equal(adapter(states))
    assert found.project(states)[1].keys.equal(found._split_heads(adapter(states)))


def test_what_cannot_be_quantized_is_refused(model):
    with pytest.raises(TypeError, match="must be a CmlmForConditionalGeneration, got Linear"):
        quantize_int8(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="float32 on a CPU, got torch.bfloat16"):
        quantize_int8(model.bfloat16())


@pytest.fixture
def torchao_config():
    """For `from_pretrained`: linear layers in int8, but for the output projection."""
    quantization = pytest.importorskip("torchao.quantization")
    return TorchAoConfig(quantization.Int8DynamicActivationInt8WeightConfig())


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_a_checkpoint_in_the_int8_of_torchao_is_saved_and_loaded(
    model, torchao_config, tie_word_embeddings, tmp_path
):
    model = CmlmForConditionalGeneration(
        CmlmConfig(**model.config.to_dict() | {"tie_word_embeddings": tie_word_embeddings})
    ).eval()
    model.save_pretrained(tmp_path / "float32")
    first = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "float32", quantization_config=torchao_config
    )
    first.save_pretrained(tmp_path / "int8")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "int8")
    source = torch.randint(5, 100, (4, 9))
    decoding = {"target_lengths": torch.tensor([9, 4, 12, 7]), "num_iterations": 3}
    decoding |= {"return_dict_in_generate": True}
    exact, *found = (each.generate(source, **decoding) for each in (model, first, again))
    for each, loaded in zip(found, (first, again), strict=True):
        assert loaded.loading_problem is None
        assert type(loaded.model.decoder.layers[0].fc1.weight) is not torch.nn.Parameter
        is_tied = loaded.lm_head.weight is loaded.model.decoder.embed_tokens.weight
        assert is_tied is tie_word_embeddings
        assert each.sequences.equal(found[0].sequences)
        assert each.sequences_scores.equal(found[0].sequences_scores)
        torch.testing.assert_close(each.sequences_scores, exact.sequences_scores, atol=0.3, rtol=0)
    assert not exact.sequences_scores.equal(found[0].sequences_scores), "not in int8"


def test_a_checkpoint_that_torchao_made_is_checked_and_not_quantized_again(
    model, torchao_config, tmp_path
):
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.weight[3, 2] = torch.nan
    model.save_pretrained(tmp_path)
    load = AutoModelForSeq2SeqLM.from_pretrained
    loaded = load(tmp_path, quantization_config=torchao_config)
    assert "NaN or infinity: model.decoder.layers.0.fc1.weight" in loaded.loading_problem
    with pytest.raises(ValueError, match="quantized already.*without `quantization_config`"):
        quantize_int8(loaded)
