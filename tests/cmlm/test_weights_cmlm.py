"""What the weights of the model are, where they go and what arithmetic they live in."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from axe_hf import CmlmForConditionalGeneration, CmlmModel, quantize_int8

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


# Broken checkpoints

MATRIX = "model.encoder.layers.0.fc1.weight"
BIAS = "model.decoder.layers.1.encoder_attn.q_proj.bias"


def save_changed(model, folder, change):
    """Saves the model, its weights by name changed in place by `change`."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without(name):
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(MATRIX), f"missing_keys: {MATRIX}"),
        (without(BIAS), f"missing_keys: {BIAS}"),
        (
            lambda w: w.update({MATRIX.replace("0", "2"): w[MATRIX].clone()}),
            "unexpected_keys: model.encoder.layers.2",
        ),
        (lambda w: w.update(extra=torch.ones(2)), "unexpected_keys: extra"),
    ],
    ids=["a matrix is missing", "a bias is missing", "a layer too many", "a strange one"],
)
def test_a_checkpoint_whose_weights_are_not_the_models_is_not_decoded_until_it_is_trained(
    make_model, make_batch, tmp_path, change, problem
):
    source = make_batch()["input_ids"]
    loaded = CmlmForConditionalGeneration.from_pretrained(
        save_changed(make_model(), tmp_path, change)
    )
    for model in (loaded, quantize_int8(loaded)):
        with pytest.raises(ValueError, match=f"not those of a checkpoint: {problem}"):
            model.generate(source)
    loaded(**make_batch())  # it can be used otherwise
    loaded.train().eval().generate(source)


@pytest.mark.parametrize("name", [MATRIX, BIAS])
def test_weights_of_another_shape_that_one_asked_to_ignore_are_not_decoded(
    make_model, make_batch, tmp_path, name
):
    folder = save_changed(
        make_model(), tmp_path, lambda w: w.update({name: w[name][:8].contiguous()})
    )
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        CmlmForConditionalGeneration.from_pretrained(folder)
    model, info = CmlmForConditionalGeneration.from_pretrained(
        folder, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert info["mismatched_keys"]
    with pytest.raises(ValueError, match=f"mismatched_keys: .*{name}"):
        model.generate(make_batch()["input_ids"])


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.int8, "torch.int8"), (torch.int64, "torch.int64")]
)
def test_integer_weights_are_refused(make_model, tmp_path, dtype, kind):
    folder = save_changed(make_model(), tmp_path, lambda w: w.update({BIAS: w[BIAS].to(dtype)}))
    with pytest.raises(ValueError, match=f"model.safetensors: {BIAS} must be floating .* {kind}"):
        CmlmForConditionalGeneration.from_pretrained(folder)


def test_a_checkpoint_without_a_head_of_its_own_is_whole_where_the_embeddings_are_tied(
    make_model, make_batch, tmp_path
):
    make_model().model.save_pretrained(tmp_path / "tied")
    source = make_batch()["input_ids"]
    CmlmForConditionalGeneration.from_pretrained(tmp_path / "tied").generate(source)
    make_model(tie_word_embeddings=False).model.save_pretrained(tmp_path / "untied")
    with pytest.raises(ValueError, match=r"missing_keys: lm_head\.weight"):
        CmlmForConditionalGeneration.from_pretrained(tmp_path / "untied").generate(source)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name", [MATRIX, "model.encoder.embed_lengths.weight", "model.shared.weight"]
)
def test_weights_that_are_no_numbers_are_not_decoded_in_silence(
    make_model, make_batch, name, value
):
    model = make_model()
    with torch.no_grad():
        model.get_parameter(name)[-1, -1] = value
    with pytest.raises(ValueError, match="not numbers in torch.float32: its weights hold NaN or"):
        model.generate(make_batch()["input_ids"], num_iterations=2)


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


@pytest.mark.slow
@torch.no_grad()
def test_the_forward_pass_compiles_into_one_graph(make_model, make_batch):
    model, batch = make_model(), make_batch()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, found = model(**batch), compiled(**batch)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.length_logits, expected.length_logits)


def test_sinusoids_stay_fixed_after_loading(make_model, tmp_path):
    model = make_model(position_embedding_type="sinusoidal")
    model.save_pretrained(tmp_path)
    for loaded in (type(model).from_pretrained(tmp_path), CmlmModel.from_pretrained(tmp_path)):
        fixed = {name for name, p in loaded.named_parameters() if not p.requires_grad}
        assert {name.split(".")[-2] for name in fixed} == {"embed_positions"} and len(fixed) == 2
