import pytest
import torch
from torch.nn import functional as F

from axe_hf import axe_loss
from axe_hf.cmlm.loss_cmlm import length_nll, whole_target

PAD, EOS, UNK, MASK, BLANK = range(5)
both_losses = pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])

TARGETS = torch.tensor([[7, 8, 9, EOS], [11, EOS, -100, -100]])
CANVASES = torch.tensor([[MASK] * 4, [MASK, MASK, PAD, PAD]])


def lengths_nll(outputs, lengths):
    log_probs = outputs.length_logits[:, 1:].log_softmax(dim=1)  # class 0 is excluded
    return -sum(log_probs[row, length - 1] for row, length in enumerate(lengths))


def test_labels_alone_make_a_fully_masked_canvas(make_model, make_sources):
    model, sources = make_model(), make_sources([5, 3])
    alone = model(**sources, labels=TARGETS)
    with_canvas = model(**sources, labels=TARGETS, decoder_input_ids=CANVASES)
    assert alone.logits.equal(with_canvas.logits) and alone.loss.equal(with_canvas.loss)
    assert model.prepare_decoder_input_ids_from_labels(TARGETS).equal(CANVASES)


def test_the_axe_path_is_axe_loss_plus_the_length_loss(make_model, make_sources):
    model, sources = make_model(axe_delta=2.5, label_smoothing=0.1), make_sources([5, 3])
    outputs = model(**sources, labels=TARGETS)
    expected = axe_loss(
        outputs.logits,
        TARGETS,
        blank_token_id=BLANK,
        delta=2.5,
        canvas_lengths=torch.tensor([4, 2]),
        label_smoothing=0.1,
        reduction="sum",
        return_alignment=True,
    )
    length_loss = lengths_nll(outputs, [4, 2])
    torch.testing.assert_close(outputs.loss, (expected.loss + 0.1 * length_loss) / 6)
    torch.testing.assert_close(outputs.token_loss, expected.loss.detach())
    torch.testing.assert_close(outputs.length_loss, length_loss.detach())
    assert outputs.num_skipped_targets.equal(expected.alignment.num_skipped_targets)
    assert outputs.num_skipped_predictions.equal(expected.alignment.num_skipped_predictions)
    assert not outputs.token_loss.requires_grad and not outputs.length_loss.requires_grad


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_cross_entropy_path_is_cross_entropy_at_the_same_positions(
    make_model, make_sources, label_smoothing
):
    model = make_model(training_loss="cross_entropy", label_smoothing=label_smoothing)
    outputs = model(**make_sources([5, 3]), labels=TARGETS)
    cross_entropy = F.cross_entropy(
        outputs.logits.flatten(0, 1), TARGETS.flatten(), label_smoothing=label_smoothing
    )
    length_loss = lengths_nll(outputs, [4, 2])
    torch.testing.assert_close(outputs.loss, cross_entropy + 0.1 * length_loss / 6)
    assert outputs.num_skipped_targets is None


def test_cross_entropy_needs_one_label_a_position(make_model, make_sources):
    model = make_model(training_loss="cross_entropy")
    canvases = torch.full((2, 5), MASK)
    with pytest.raises(ValueError, match=r"`labels` are \(2, 4\), the canvas is \(2, 5\)"):
        model(**make_sources([5, 3]), labels=TARGETS, decoder_input_ids=canvases)


@pytest.mark.parametrize("canvas_length", [1, 3, 7])
def test_axe_takes_canvases_of_another_length_than_the_target(
    make_model, make_sources, canvas_length
):
    model = make_model()
    canvases = torch.full((2, canvas_length), MASK)
    outputs = model(**make_sources([5, 3]), labels=TARGETS, decoder_input_ids=canvases)
    expected = axe_loss(
        outputs.logits, TARGETS, blank_token_id=BLANK, delta=model.config.axe_delta, reduction="sum"
    )
    torch.testing.assert_close(outputs.token_loss, expected.detach())
    # Whatever the canvas, the length head learns the target's length.
    torch.testing.assert_close(outputs.length_loss, lengths_nll(outputs, [4, 2]).detach())


OBSERVED_CANVASES = torch.tensor([[7, MASK, 9, MASK], [MASK, EOS, PAD, PAD]])
OBSERVED_LABELS = torch.tensor([[-100, 8, -100, EOS], [11, -100, -100, -100]])


def test_observed_positions_are_put_back_into_the_target(make_config):
    target, is_observed = whole_target(OBSERVED_LABELS, OBSERVED_CANVASES, make_config())
    assert target.equal(TARGETS)
    assert is_observed.tolist() == [[True, False, True, False], [False, True, False, False]]


def test_a_canvas_of_another_shape_observes_nothing(make_config):
    for canvas in (None, torch.full((2, 9), MASK)):
        target, is_observed = whole_target(TARGETS, canvas, make_config())
        assert target.equal(TARGETS) and is_observed is None


def test_observed_positions_add_nothing_to_the_axe_loss(make_model, make_sources):
    model, sources = make_model(), make_sources([5, 3])
    outputs = model(**sources, labels=OBSERVED_LABELS, decoder_input_ids=OBSERVED_CANVASES)
    expected = axe_loss(
        outputs.logits,
        TARGETS,
        blank_token_id=BLANK,
        delta=model.config.axe_delta,
        canvas_lengths=torch.tensor([4, 2]),
        observed_mask=OBSERVED_LABELS.eq(-100) & TARGETS.ne(-100),
        reduction="sum",
    )
    torch.testing.assert_close(outputs.token_loss, expected.detach())
    # The length is that of the whole target, the divisor counts what is scored.
    length_loss = lengths_nll(outputs, [4, 2])
    torch.testing.assert_close(outputs.loss, (expected + 0.1 * length_loss) / 3)
    gradient = torch.autograd.grad(outputs.loss, outputs.logits)[0]
    assert (gradient[0, [0, 2]] == 0).all() and (gradient[1, 1:] == 0).all()
    assert (gradient[0, [1, 3]] != 0).any(dim=1).all() and (gradient[1, 0] != 0).any()


@both_losses
def test_num_items_in_batch_replaces_the_number_of_labels(make_model, make_sources, training_loss):
    model, sources = make_model(training_loss=training_loss), make_sources([5, 3])
    own = model(**sources, labels=TARGETS).loss
    for given in (12, torch.tensor(12)):
        scaled = model(**sources, labels=TARGETS, num_items_in_batch=given).loss
        torch.testing.assert_close(scaled, own / 2)


@both_losses
@pytest.mark.parametrize("num_parts", [4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    make_model, make_sources, training_loss, num_parts
):
    lengths = [5, 3, 9, 2, 7, 7, 1, 4]
    sources, targets = make_sources(lengths), make_sources(lengths[::-1], seed=1)["input_ids"]
    labels = targets.masked_fill(targets == PAD, -100)
    gradients = []
    for parts in (1, num_parts):
        model = make_model(training_loss=training_loss, init_std=0.1)
        for rows in torch.arange(8).chunk(parts):
            batch = {name: tensor[rows] for name, tensor in sources.items()}
            num_items = (labels != -100).sum()
            model(**batch, labels=labels[rows], num_items_in_batch=num_items).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def test_without_the_length_loss_the_length_head_gets_no_gradient(make_model, make_sources):
    model = make_model(length_loss_weight=0)
    outputs = model(**make_sources([5, 3]), labels=TARGETS)
    outputs.loss.backward()
    torch.testing.assert_close(outputs.loss.detach(), outputs.token_loss / 6)
    lengths = model.model.encoder.embed_lengths.weight.grad
    assert (lengths[1:] == 0).all()  # row 0 is read by the source's attention


def test_the_length_loss_wants_length_logits(make_model, make_sources):
    model, sources = make_model(), make_sources([5, 3])
    states = (model.get_encoder()(**sources).last_hidden_state,)
    with pytest.raises(ValueError, match="`encoder_outputs` hold no `length_logits`"):
        model(encoder_outputs=states, labels=TARGETS)
    model.config.length_loss_weight = 0
    assert model(encoder_outputs=states, labels=TARGETS).loss.isfinite()


def test_length_nll_by_hand():
    logits = torch.tensor([[-1e9, 2.0, 0.0], [-1e9, 0.0, 0.0]])
    expected = -torch.tensor([2.0, 0.0]).log_softmax(dim=0)[0], torch.tensor(2.0).log()
    torch.testing.assert_close(length_nll(logits, torch.tensor([1, 2])), torch.stack(expected))


@pytest.mark.parametrize("is_hidden", [False, True])
def test_in_a_float64_model_the_length_loss_has_every_digit(make_model, make_sources, is_hidden):
    model = make_model(hide_length_token=is_hidden, init_std=0.1).double()
    weight = model.model.encoder.embed_lengths.weight
    sources, labels = make_sources([5, 3]), TARGETS

    def length_loss(change=0.0):
        with torch.no_grad():
            weight[3, 0] += change
            outputs = model(**sources, labels=labels)
            weight[3, 0] -= change
        assert outputs.length_logits.dtype == torch.float64
        return outputs.length_loss.item()

    outputs = model(**sources, labels=labels, num_items_in_batch=1)
    outputs.loss.backward()
    step = 1e-5  # of a float32 value nothing would be left
    slope = (length_loss(step) - length_loss(-step)) / (2 * step)
    # Row 3 is read by the length head alone.
    found = weight.grad[3, 0].item() / model.config.length_loss_weight
    assert found == pytest.approx(slope, rel=1e-7)


def test_a_target_over_the_length_limit_is_refused(make_model, make_sources):
    labels, canvas = torch.full((1, 31), 7), torch.full((1, 30), MASK)
    with pytest.raises(ValueError, match="31.*max_target_length.*30"):
        make_model()(**make_sources([5]), labels=labels, decoder_input_ids=canvas)


@both_losses
def test_a_batch_with_nothing_to_score_has_a_finite_loss(make_model, make_sources, training_loss):
    canvas = torch.tensor([[7, 8, EOS]])
    labels = torch.full((1, 3), -100)
    model = make_model(training_loss=training_loss)
    outputs = model(**make_sources([5]), labels=labels, decoder_input_ids=canvas)
    outputs.loss.backward()
    assert outputs.loss.isfinite() and outputs.token_loss == 0


def test_a_model_can_learn_by_axe_what_it_is_shown(make_model, make_sources):
    model = make_model(dropout=0.0, init_std=0.1, d_model=32, encoder_ffn_dim=64).train()
    sources = make_sources([5, 3, 4])
    labels = torch.tensor([[7, 8, 9, EOS], [11, EOS, -100, -100], [12, 13, EOS, -100]])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**sources, labels=labels).loss.backward()
        optimizer.step()
    translations = model.eval().generate(**sources).tolist()
    assert translations == [[7, 8, 9], [11, PAD, PAD], [12, 13, PAD]]


def test_a_sentence_without_labels_adds_no_length_loss(make_model, make_sources):
    model, sources = make_model(), make_sources([5, 3])
    labels = torch.tensor([[7, 8, 9], [-100, -100, -100]])
    both = model.eval()(**sources, labels=labels)
    alone = model(**{name: rows[:1] for name, rows in sources.items()}, labels=labels[:1])
    assert torch.isfinite(both.loss)
    torch.testing.assert_close(both.length_loss, alone.length_loss)
