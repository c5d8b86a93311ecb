import pytest
import torch
from transformers.utils import logging

PAD, EOS, UNK, MASK, BLANK = range(5)

both_attentions = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])


# Attention


@pytest.mark.parametrize("padded", [True, False])
@both_attentions
@torch.no_grad()
def test_the_first_position_sees_the_last_one(
    make_model, make_batch, architecture, attn_implementation, padded
):
    model, batch = (
        make_model(attn_implementation=attn_implementation, **architecture),
        make_batch(padded),
    )
    ends = (batch["decoder_input_ids"] != PAD).sum(dim=1) - 1
    changed = batch["decoder_input_ids"].scatter(1, ends[:, None], 20)
    before = model(**batch).logits[:, 0]
    after = model(**batch | {"decoder_input_ids": changed}).logits[:, 0]
    assert ((before - after).abs().amax(dim=1) > 1e-3).all()


@pytest.mark.parametrize("padded", [True, False])
@both_attentions
@torch.no_grad()
def test_the_first_source_token_sees_the_last_one(
    make_model, make_batch, attn_implementation, padded
):
    model, batch = make_model(attn_implementation=attn_implementation), make_batch(padded)
    ends = batch["attention_mask"].sum(dim=1) - 1
    changed = batch["input_ids"].scatter(1, ends[:, None], 20)
    before, after = model(**batch), model(**batch | {"input_ids": changed})
    states = [outputs.encoder_last_hidden_state[:, 0] for outputs in (before, after)]
    assert ((states[0] - states[1]).abs().amax(dim=1) > 1e-3).all()
    lengths = [outputs.length_logits[:, 1:] for outputs in (before, after)]
    assert ((lengths[0] - lengths[1]).abs().amax(dim=1) > 1e-3).all()


@pytest.mark.parametrize("padded", [True, False])
@torch.no_grad()
def test_eager_and_sdpa_attention_agree(make_model, make_batch, architecture, padded):
    batch = make_batch(padded)
    eager = make_model(attn_implementation="eager", **architecture).double()(**batch)
    sdpa = make_model(attn_implementation="sdpa", **architecture).double()(**batch)
    is_token = batch["decoder_input_ids"] != PAD
    torch.testing.assert_close(eager.logits[is_token], sdpa.logits[is_token])
    torch.testing.assert_close(eager.length_logits, sdpa.length_logits)


@both_attentions
@torch.no_grad()
def test_padding_of_source_and_canvas_changes_nothing(
    make_model, make_batch, architecture, attn_implementation
):
    model = make_model(attn_implementation=attn_implementation, **architecture).double()
    batch = make_batch()
    outputs = model(**batch)
    for row in range(3):
        source = batch["input_ids"][row]
        canvas = batch["decoder_input_ids"][row]
        alone = model(
            input_ids=source[source != PAD][None], decoder_input_ids=canvas[canvas != PAD][None]
        )
        length = alone.logits.shape[1]
        torch.testing.assert_close(outputs.logits[row, :length], alone.logits[0])
        torch.testing.assert_close(outputs.length_logits[row], alone.length_logits[0])


@torch.no_grad()
def test_what_lies_under_a_mask_of_zero_changes_nothing(make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch["decoder_attention_mask"] = (batch["decoder_input_ids"] != PAD).long()
    filled = {
        name: tensor.masked_fill(tensor == PAD, 11) if name.endswith("ids") else tensor
        for name, tensor in batch.items()
    }
    is_token = batch["decoder_attention_mask"].bool()
    expected, found = model(**batch), model(**filled)
    torch.testing.assert_close(found.logits[is_token], expected.logits[is_token])
    torch.testing.assert_close(found.length_logits, expected.length_logits)


# Ways to call it


@torch.no_grad()
def test_encoder_outputs_stand_in_for_the_source(make_model, make_batch):
    model, batch = make_model(), make_batch()
    expected = model(**batch)
    encoder_outputs = model.get_encoder()(batch.pop("input_ids"), batch["attention_mask"])
    for given in (encoder_outputs, encoder_outputs.to_tuple()[:1]):
        found = model(encoder_outputs=given, **batch)
        torch.testing.assert_close(found.logits, expected.logits)


@torch.no_grad()
def test_embeddings_stand_in_for_ids(make_model, make_batch, architecture):
    model, batch = make_model(**architecture), make_batch(padded=False)
    expected = model(**batch)
    encoder, decoder = model.model.encoder.embed_tokens, model.model.decoder.embed_tokens
    found = model(
        inputs_embeds=encoder(batch["input_ids"]),
        decoder_inputs_embeds=decoder(batch["decoder_input_ids"]),
    )
    torch.testing.assert_close(found.logits, expected.logits)


@torch.no_grad()
def test_projected_sources_stand_in_for_encoder_states(make_model, make_batch):
    model, batch = make_model(), make_batch()
    decoder, canvas = model.model.decoder, batch["decoder_input_ids"]
    states = model.get_encoder()(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    rest = {"encoder_attention_mask": batch["attention_mask"]}
    expected = decoder(canvas, encoder_hidden_states=states, **rest)
    found = decoder(canvas, source_key_values=decoder.project_source(states), **rest)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)


@both_attentions
@torch.no_grad()
def test_canvases_of_one_source_stand_side_by_side(make_model, make_batch, attn_implementation):
    model, batch = make_model(attn_implementation=attn_implementation).double(), make_batch()
    decoder, canvas = model.model.decoder, batch["decoder_input_ids"]
    states = model.get_encoder()(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"]
    canvases = canvas.repeat_interleave(2, dim=0)
    canvases[1::2, 1] = 13
    shared = decoder(canvases, encoder_hidden_states=states, encoder_attention_mask=mask)
    repeated = decoder(
        canvases,
        encoder_hidden_states=states.repeat_interleave(2, dim=0),
        encoder_attention_mask=mask.repeat_interleave(2, dim=0),
    )
    is_token = canvases != PAD
    expected = repeated.last_hidden_state[is_token]
    torch.testing.assert_close(shared.last_hidden_state[is_token], expected)


@both_attentions
@torch.no_grad()
def test_hidden_states_and_attentions_on_request(make_model, make_batch, attn_implementation):
    model = make_model(attn_implementation=attn_implementation, encoder_layers=3)
    batch = make_batch()
    wants_attention = attn_implementation == "eager"
    outputs = model(**batch, output_hidden_states=True, output_attentions=wants_attention)
    source, canvas = batch["input_ids"].shape[1], batch["decoder_input_ids"].shape[1]
    # The length vector stands in front of the source inside the encoder only.
    inside = [(3, source + 1, 16)] * 3
    assert [s.shape for s in outputs.encoder_hidden_states] == [*inside, (3, source, 16)]
    assert [s.shape for s in outputs.decoder_hidden_states] == [(3, canvas, 16)] * 3
    assert outputs.encoder_last_hidden_state.shape == (3, source, 16)
    if wants_attention:
        assert [a.shape for a in outputs.encoder_attentions] == [(3, 2, source + 1, source + 1)] * 3
        assert [a.shape for a in outputs.decoder_attentions] == [(3, 4, canvas, canvas)] * 2
        assert [a.shape for a in outputs.cross_attentions] == [(3, 4, canvas, source)] * 2
        assert outputs.cross_attentions[0].sum(-1).allclose(torch.ones(3, 4, canvas))
        is_padding = batch["attention_mask"] == 0
        assert (outputs.cross_attentions[1].transpose(1, 3)[is_padding] == 0).all()
    plain = model(**batch)
    assert plain.encoder_hidden_states is None and plain.cross_attentions is None


@torch.no_grad()
def test_a_tuple_on_request(make_model, make_batch):
    model, batch = make_model(), make_batch()
    assert model(**batch, return_dict=False)[0].equal(model(**batch).logits)


@torch.no_grad()
def test_dropout_works_in_training_only(make_model, make_batch):
    model, batch = make_model(attention_dropout=0.2, activation_dropout=0.2), make_batch()
    assert model(**batch).logits.equal(model(**batch).logits)
    model.train()
    assert not model(**batch).logits.equal(model(**batch).logits)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"input_ids": torch.full((1, 41), 7)}, "`input_ids` has 41 .*max_source_length` is 40"),
        ({"decoder_input_ids": torch.full((1, 31), 3)}, "31 .*max_target_length` is 30"),
        ({"decoder_input_ids": None}, "`decoder_input_ids`"),
        ({"inputs_embeds": torch.zeros(1, 4, 16)}, "either `input_ids` or the embeddings"),
        ({"attention_mask": torch.ones(1, 4, 4)}, r"`attention_mask` must be .*\(1, 4, 4\)"),
        ({"labels": torch.full((1, 31), 7)}, "31.*max_target_length.*30"),
    ],
)
def test_wrong_input_is_named(make_model, wrong, complaint):
    right = {"input_ids": torch.full((1, 4), 7), "decoder_input_ids": torch.full((1, 3), MASK)}
    with pytest.raises(ValueError, match=complaint):
        make_model()(**right | wrong)


# What is refused, and what is warned about


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attention_mask", (0, 1)),
        ("attention_mask", (0, -1)),
        ("attention_mask", (-1, 0)),
        ("decoder_attention_mask", (0, 1)),
        ("decoder_attention_mask", (0, -2)),
        ("decoder_attention_mask", (1, 0)),
    ],
)
def test_a_mask_of_another_shape_than_its_ids_is_refused(make_model, make_batch, name, shape):
    model, batch = make_model(), make_batch()
    ids = batch["input_ids" if name == "attention_mask" else "decoder_input_ids"]
    mask = torch.ones([size + more for size, more in zip(ids.shape, shape, strict=True)])
    with pytest.raises(ValueError, match=rf"`{name}` must be a tensor \({len(ids)}, .*, got"):
        model(**batch | {name: mask.long()})
    with pytest.raises(ValueError, match=f"`{name}` must be a tensor .*list"):
        model(**batch | {name: mask.tolist()})


def test_the_source_mask_must_fit_the_encoder_states_too(make_model, make_batch):
    model, batch = make_model(), make_batch()
    source = {name: batch.pop(name) for name in ("input_ids", "attention_mask")}
    encoder_outputs = model.get_encoder()(**source)
    model(**batch, encoder_outputs=encoder_outputs, attention_mask=source["attention_mask"])
    for mask in (source["attention_mask"][:, 1:], source["attention_mask"][None]):
        with pytest.raises(ValueError, match="`attention_mask` must be a tensor"):
            model(**batch, encoder_outputs=encoder_outputs, attention_mask=mask)
        with pytest.raises(ValueError, match="`attention_mask` must be a tensor"):
            model.get_encoder()(source["input_ids"], attention_mask=mask)


@pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])
@pytest.mark.parametrize("fused_loss", ["always", "never"])
def test_labels_padded_by_pad_are_refused(make_model, make_batch, training_loss, fused_loss):
    model = make_model(training_loss=training_loss, fused_loss=fused_loss).train()
    batch = make_batch()
    labels = torch.full_like(batch["decoder_input_ids"], 9)
    batch["decoder_input_ids"] = torch.full_like(labels, MASK)
    assert model(**batch, labels=labels).loss > 0
    labels[1, -2:] = PAD
    with pytest.raises(ValueError, match=r"`labels` must hold -100 .* not <pad> \(0 at \[1, "):
        model(**batch, labels=labels)


@pytest.mark.parametrize("canvas", ["decoder_input_ids", "decoder_inputs_embeds"])
def test_training_on_a_canvas_without_labels_is_warned_about_once(
    make_model, make_batch, caplog, monkeypatch, canvas
):
    monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
    logging.get_logger().warning_once.cache_clear()
    model, batch = make_model().train(), make_batch()
    if canvas == "decoder_inputs_embeds":
        ids = batch.pop("decoder_input_ids")
        batch["decoder_inputs_embeds"] = model.get_input_embeddings()(ids).detach()
    with torch.no_grad():
        model(**batch)
    model.eval()(**batch)
    assert not caplog.records
    model.train()
    for _ in range(2):
        model(**batch)
    (record,) = caplog.records
    assert "labels" in record.message and "`config.label_smoothing`" in record.message


@pytest.mark.parametrize("multiplier", [1.5, 2.0])
def test_a_canvas_made_of_labels_is_that_of_the_recipe(make_model, multiplier):
    model = make_model(masking="full", length_multiplier=multiplier)
    labels = torch.tensor([[7, 8, 9, 1], [7, 1, -100, -100]])
    for canvas in (
        model.prepare_decoder_input_ids_from_labels(labels),
        model.prepare_decoder_input_ids_from_labels(labels=labels, length_multiplier=multiplier),
    ):
        assert (canvas == MASK).sum(1).tolist() == [4 * multiplier, 2 * multiplier]
    plain = model.prepare_decoder_input_ids_from_labels(labels, 1.0)
    assert (plain == MASK).sum(1).tolist() == [4, 2]


@pytest.mark.parametrize("family", [{"allow_repetition": True}, {"axe_delta": float("inf")}])
@pytest.mark.parametrize("multiplier", [0.5, 1.0, 1.5])
def test_a_canvas_made_of_labels_has_room_for_all_of_them(make_model, family, multiplier):
    model = make_model(masking="full", length_multiplier=multiplier, **family)
    labels = torch.tensor([[7, 7, 7, 7, 1], [7, 8, 8, 1, -100], [1, -100, -100, -100, -100]])
    canvas = model.prepare_decoder_input_ids_from_labels(labels)
    expected = [8, 6, 2] if multiplier == 1.5 else [8, 5, 1]
    assert (canvas == MASK).sum(1).tolist() == expected
    assert canvas.shape[1] == 8
    labels = torch.tensor([[8] * 5 + [1] + [-100] * 16, [7] * 16 + [1] + [-100] * 5])
    with pytest.raises(ValueError, match="`labels` of sentence 1 need 32 positions.* has 30 at"):
        model.prepare_decoder_input_ids_from_labels(labels)
