"""`config.hide_length_token`: the source tokens do not see the vector that predicts the length."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from axe_hf import ExportableEncoder, export_program, quantize_int8

PAD = 0
both_attentions = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
either_norm = pytest.mark.parametrize("normalize_before", [False, True])


@pytest.fixture
def make_hiding(make_model):
    """Models that hide the length, with layer normalisations that differ."""

    def make(**changes):
        model = make_model(**{"hide_length_token": True, "layernorm_embedding": True} | changes)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.normal_(module.weight, 1.0, 0.3)
                torch.nn.init.normal_(module.bias, 0.0, 0.3)
        return model

    return make


def by_one_mask(encoder, input_ids, attention_mask):
    """States of length and tokens, by a mask over all pairs of positions."""
    source = encoder.embed_tokens(input_ids) * encoder.embed_scale
    source = source + encoder.embed_positions(torch.arange(input_ids.shape[1]))
    length = encoder.embed_lengths.weight[0].expand(len(source), 1, -1)
    states = encoder.layernorm_embedding(torch.cat([length, source], dim=1))
    is_key = F.pad(attention_mask.bool(), (1, 0), value=True)[:, None, None]
    is_key = is_key.expand(-1, 1, states.shape[1], -1).clone()  # (batch, 1, queries, keys)
    is_key[:, :, 1:, 0] = False
    mask = torch.zeros(is_key.shape, dtype=states.dtype)
    mask = mask.masked_fill(~is_key, torch.finfo(states.dtype).min)
    for layer in encoder.layers:
        states = layer(states, mask)
    return encoder.layer_norm(states)


@either_norm
@both_attentions
@pytest.mark.parametrize("padded", [True, False])
@torch.no_grad()
def test_it_is_a_mask_between_length_and_tokens(
    make_hiding, make_batch, attn_implementation, normalize_before, padded
):
    options = {"attn_implementation": attn_implementation, "normalize_before": normalize_before}
    model, batch = make_hiding(**options).double(), make_batch(padded)
    encoder, source = model.get_encoder(), (batch["input_ids"], batch["attention_mask"])
    expected, found = by_one_mask(encoder, *source), encoder(*source)
    is_token = source[1].bool()
    torch.testing.assert_close(found.last_hidden_state[is_token], expected[:, 1:][is_token])
    lengths = encoder._length_logits(expected[:, 0])
    torch.testing.assert_close(found.length_logits, lengths)


@torch.no_grad()
def test_another_length_vector_changes_lengths_and_no_token(make_hiding, make_batch):
    model, batch = make_hiding(), make_batch()
    before = model(**batch)
    model.model.encoder.embed_lengths.weight[0] *= -3
    after = model(**batch)
    assert after.encoder_last_hidden_state.equal(before.encoder_last_hidden_state)
    assert after.logits.equal(before.logits)
    assert not torch.allclose(after.length_logits, before.length_logits)


@torch.no_grad()
def test_attentions_have_the_places_of_the_length_too(make_hiding, make_batch):
    model, batch = make_hiding(attn_implementation="eager"), make_batch()
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    width = 1 + batch["input_ids"].shape[1]
    for weights in outputs.encoder_attentions:
        assert weights.shape[2:] == (width, width)
        assert (weights[:, :, 1:, 0] == 0).all() and (weights[:, :, 0, 0] > 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert [states.shape[1] for states in outputs.encoder_hidden_states] == [
        width,
        width,
        width - 1,
    ]


@torch.no_grad()
def test_a_source_of_nothing_but_padding_gives_numbers(make_hiding, make_batch):
    for attention in ("eager", "sdpa"):
        model, batch = make_hiding(attn_implementation=attention), make_batch()
        batch["attention_mask"][1] = 0
        outputs = model(**batch)
        assert (
            outputs.encoder_last_hidden_state.isfinite().all() and outputs.logits.isfinite().all()
        )
        assert outputs.length_logits.isfinite().all()


@torch.no_grad()
def test_embeddings_stand_in_for_ids(make_hiding, make_batch):
    model, batch = make_hiding(scale_embedding=True), make_batch()
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    expected = model.get_encoder()(batch["input_ids"], batch["attention_mask"])
    found = model.get_encoder()(inputs_embeds=embeddings, attention_mask=batch["attention_mask"])
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(found.length_logits, expected.length_logits)


# Other ways to compute


def loss_and_gradients(model, batch, labels):
    model.zero_grad()
    loss = model(**batch, labels=labels).loss
    loss.backward()
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def labels(make_sources):
    labels = make_sources([5, 8, 2], seed=3)["input_ids"]
    return labels.masked_fill(labels == PAD, -100)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_gradient_checkpointing_changes_nothing(
    make_hiding, make_batch, labels, is_frozen, use_reentrant
):
    model, batch = make_hiding(dropout=0.0, tie_word_embeddings=False).train(), make_batch()
    if is_frozen:
        freeze_encoder(model)
    expected = loss_and_gradients(model, batch, labels)
    how = {"use_reentrant": use_reentrant}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    torch.testing.assert_close(loss_and_gradients(model, batch, labels), expected)


@pytest.mark.slow
def test_compiled_and_frozen_it_is_the_same(make_hiding, make_batch, labels):
    model, batch = make_hiding(dropout=0.0, tie_word_embeddings=False).train(), make_batch()
    freeze_encoder(model)
    loss, expected = loss_and_gradients(model, batch, labels)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    model.zero_grad()
    found = compiled(**batch, labels=labels).loss
    found.backward()
    torch.testing.assert_close(found, loss)
    lengths = "model.encoder.embed_lengths.weight"
    torch.testing.assert_close(model.get_parameter(lengths).grad, expected[lengths])


@torch.no_grad()
def test_a_program_for_one_token_and_many(make_hiding, make_sources):
    model = make_hiding()
    program = export_program(ExportableEncoder(model)).module()
    for lengths in ([1, 1, 1], [9, 4, 6], [3]):
        source = make_sources(lengths)
        expected = model.get_encoder()(**source)
        states, length_logits = program(*source.values())
        torch.testing.assert_close(states, expected.last_hidden_state)
        torch.testing.assert_close(length_logits, expected.length_logits)


@torch.no_grad()
def test_in_int8_tokens_do_not_see_the_length_either(make_hiding, make_batch):
    batch = make_batch()
    quantized = quantize_int8(make_hiding(attn_implementation="eager"))
    weights = quantized(**batch, output_attentions=True).encoder_attentions
    assert all((each[:, :, 1:, 0] == 0).all() for each in weights)


# A frozen encoder


def freeze_encoder(model):
    """All of the encoder but what the length head learns by."""
    for parameter in model.model.encoder.parameters():
        parameter.requires_grad_(False)
    model.model.encoder.embed_lengths.weight.requires_grad_(True)


@either_norm
@both_attentions
@pytest.mark.parametrize("padded", [True, False])
def test_a_frozen_encoder_computes_and_learns_the_same(
    make_hiding, make_batch, labels, attn_implementation, normalize_before, padded
):
    options = {"attn_implementation": attn_implementation, "normalize_before": normalize_before}
    options |= {"dropout": 0.0, "tie_word_embeddings": False}
    model, batch = make_hiding(**options).double().train(), make_batch(padded)
    loss, expected = loss_and_gradients(model, batch, labels)
    freeze_encoder(model)
    found_loss, found = loss_and_gradients(model, batch, labels)
    torch.testing.assert_close(found_loss, loss)
    assert set(found) == {
        name
        for name in expected
        if not name.startswith("model.encoder.") or "embed_lengths" in name
    }
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)
    states = model.get_encoder()(batch["input_ids"], batch["attention_mask"])
    assert not states.last_hidden_state.requires_grad and states.length_logits.requires_grad


def test_a_frozen_encoder_has_no_backward_pass_of_its_tokens(make_hiding, make_sources):
    model = make_hiding(tie_word_embeddings=False, dropout=0.0, encoder_ffn_dim=64).train()
    source, encoder = make_sources([30, 30, 30]), model.get_encoder()

    def count(backward):
        with FlopCounterMode(display=False) as counter:
            outputs = encoder(**source)
            if backward:
                (
                    outputs.last_hidden_state.sum() + outputs.length_logits.logsumexp(1).sum()
                ).backward()
        return counter.get_total_flops()

    with torch.no_grad():
        forward = count(False)
    whole = count(True)
    freeze_encoder(model)
    assert whole > 2.5 * forward
    assert count(True) < 1.5 * forward


def test_what_reaches_the_embeddings_gets_its_gradient(make_hiding, make_batch, labels):
    """Tied, they are the decoder's, too, and not frozen with the encoder's layers."""
    model, batch = make_hiding(dropout=0.0).double().train(), make_batch()
    _, expected = loss_and_gradients(model, batch, labels)
    for parameter in model.model.encoder.layers.parameters():
        parameter.requires_grad_(False)
    _, found = loss_and_gradients(model, batch, labels)
    name = "model.shared.weight"
    torch.testing.assert_close(found[name], expected[name])
    freeze_encoder(model)  # and with them the embeddings
    inputs = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()
    given = {**batch, "input_ids": None, "inputs_embeds": inputs}
    model(**given, labels=labels).loss.backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
