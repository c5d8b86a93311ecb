"""What the weights of the model are, where they go and what arithmetic they live in."""

import math

import pytest
import torch
from safetensors.torch import load_file

from axe_hf import CmlmForConditionalGeneration, CmlmModel

PAD = 0


# Weights


def test_mask_predicts_initialisation(make_model):
    model = make_model(init_std=0.02, d_model=64, vocab_size=500)
    assert model.model.shared.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (model.model.shared.weight[PAD] == 0).all()
    attention = model.model.decoder.layers[0].encoder_attn
    assert attention.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (attention.q_proj.bias == 0).all()
    assert (model.model.encoder.layers[0].final_layer_norm.weight == 1).all()
    assert model.lm_head.bias is None


def test_tied_embeddings_are_one_tensor_and_untied_ones_three(make_model):
    for tie, num_tensors in ((True, 1), (False, 3)):
        model = make_model(tie_word_embeddings=tie)
        inner = model.model
        embeddings = (inner.encoder.embed_tokens, inner.decoder.embed_tokens, model.lm_head)
        assert len({module.weight.data_ptr() for module in embeddings}) == num_tensors
        assert not tie or model.lm_head.weight is inner.shared.weight


def test_sinusoids_are_sines_then_cosines_and_fixed(make_model, tmp_path):
    model = make_model(position_embedding_type="sinusoidal")
    positions = model.model.encoder.embed_positions.weight
    assert not positions.requires_grad
    assert positions[0].tolist() == [0.0] * 8 + [1.0] * 8
    assert positions[5, 1].item() == pytest.approx(math.sin(5 * 10000 ** (-2 / 16)), abs=1e-6)
    assert positions[5, 9].item() == pytest.approx(math.cos(5 * 10000 ** (-2 / 16)), abs=1e-6)
    model.save_pretrained(tmp_path)
    loaded = CmlmForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.model.encoder.embed_positions.weight.equal(positions)


@torch.no_grad()
def test_save_and_load_give_the_same_logits(make_model, make_batch, architecture, tmp_path):
    model, batch = make_model(**architecture), make_batch()
    model.save_pretrained(tmp_path)
    loaded, info = CmlmForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected, found = model(**batch), loaded.eval()(**batch)
    assert found.logits.equal(expected.logits)
    assert found.length_logits.equal(expected.length_logits)
    base = CmlmModel.from_pretrained(tmp_path).eval()(**batch)
    assert base.encoder_last_hidden_state.equal(expected.encoder_last_hidden_state)


def test_a_checkpoint_holds_tied_weights_once(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    names = [name for name in load_file(tmp_path / "model.safetensors") if "embed_tokens" in name]
    assert names == []


@pytest.mark.parametrize("tie", [True, False])
def test_the_vocabulary_can_grow(make_model, make_batch, tie):
    model, batch = make_model(tie_word_embeddings=tie), make_batch()
    with torch.no_grad():
        before = model(**batch).logits
    model.resize_token_embeddings(29, mean_resizing=False)
    assert model.config.vocab_size == 29
    logits = model(**batch).logits
    assert logits.shape[-1] == 29
    torch.testing.assert_close(logits[..., :24], before)
    model(**batch, labels=batch["decoder_input_ids"].clamp(min=5)).loss.backward()
    model.generate(batch["input_ids"])


# Arithmetic


def test_every_weight_gets_a_gradient(make_model, make_batch, architecture):
    model, batch = make_model(**architecture).train(), make_batch()
    model(**batch, labels=torch.randint(5, 24, (3, 6))).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


# The name that Transformers 5.23 wants in its place is not in the oldest version we support.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(make_model, make_batch, use_reentrant):
    gradients = []
    for checkpointing in (False, True):
        model, batch = make_model(dropout=0.0).train(), make_batch()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model(**batch, labels=torch.full((3, 6), 9)).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])
def test_bfloat16_is_close_to_float32(make_model, make_batch, training_loss):
    model = make_model(training_loss=training_loss, init_std=0.1)
    batch = make_batch()
    batch["labels"] = batch["decoder_input_ids"].clamp(min=5)
    expected = model(**batch)
    half = model.to(torch.bfloat16)
    outputs = half(**batch)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.length_logits.dtype == torch.float32 and outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=0.05, atol=0.0)
    outputs.loss.backward()
    assert half.lm_head.weight.grad.isfinite().all()
    half.generate(batch["input_ids"], num_iterations=3)


def test_autocast_is_close_to_float32(make_model, make_batch):
    model, batch = make_model(init_std=0.1), make_batch()
    batch["labels"] = batch["decoder_input_ids"].clamp(min=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**batch)
    assert outputs.length_logits.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, model(**batch).loss, rtol=0.05, atol=0.0)


@torch.no_grad()
def test_the_forward_pass_compiles_into_one_graph(make_model, make_batch):
    model, batch = make_model(), make_batch()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, found = model(**batch), compiled(**batch)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.length_logits, expected.length_logits)
