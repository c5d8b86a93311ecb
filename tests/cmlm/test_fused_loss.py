"""Training without logits: which passes do, that it changes no value, and who gets logits all the
same."""

import pytest
import torch
from torch import nn

from axe_hf import CmlmConfig
from axe_hf.cmlm import fused_loss_axe
from axe_hf.cmlm.loss_cmlm import is_loss_fused

EOS, MASK, PAD = 1, 3, 0
TARGETS = torch.tensor([[7, 8, 9, EOS], [11, EOS, -100, -100], [5, -100, 6, EOS]])
CANVASES = torch.tensor([[MASK] * 4, [MASK, MASK, PAD, PAD], [MASK, 12, MASK, MASK]])


@pytest.fixture
def train(make_model, make_sources):
    """Outputs and gradients of a training pass without dropout, on padded and partly observed
    canvases."""

    def pass_of(**changes):
        changes = {"dropout": 0.0, "label_smoothing": 0.1} | changes
        model = make_model(**changes).train()
        batch = make_sources([5, 3, 4]) | {"labels": TARGETS, "decoder_input_ids": CANVASES}
        outputs = model(**batch, num_items_in_batch=7)
        outputs.loss.backward()
        return outputs, {name: p.grad for name, p in model.named_parameters()}

    return pass_of


@pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])
@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_the_fused_loss_is_the_plain_loss_with_its_gradients(
    train, tie_word_embeddings, training_loss
):
    changes = {"tie_word_embeddings": tie_word_embeddings, "init_std": 0.1}
    changes["training_loss"] = training_loss
    fused, fused_gradients = train(fused_loss="always", **changes)
    plain, plain_gradients = train(fused_loss="never", **changes)
    assert fused.logits is None and plain.logits.shape == (3, 4, 24)
    names = set(plain) - {"logits"}
    assert set(fused) == names
    for name in names:
        torch.testing.assert_close(fused[name], plain[name])
    torch.testing.assert_close(fused_gradients, plain_gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])
def test_auto_keeps_the_logits_of_a_small_batch_and_fuses_a_large_one(
    train, monkeypatch, training_loss
):
    assert CmlmConfig().fused_loss == "auto"
    assert train(training_loss=training_loss)[0].logits is not None
    size = 3 * 4 * 24 * 4  # sentences, positions, vocabulary, bytes
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", size)
    assert train(training_loss=training_loss)[0].logits is not None
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", size - 1)
    assert train(training_loss=training_loss)[0].logits is None


def test_who_evaluates_or_gives_no_labels_gets_logits(make_model, make_sources):
    model, sources = make_model(fused_loss="always"), make_sources([5, 3, 4])
    evaluated = model.eval()(**sources, labels=TARGETS, decoder_input_ids=CANVASES)
    unlabelled = model.train()(**sources, decoder_input_ids=CANVASES)
    assert evaluated.logits.shape == unlabelled.logits.shape == (3, 4, 24)


class Adapter(nn.Linear):
    """An output projection that is more than its weight."""


def test_an_output_projection_that_must_be_called_is_called(monkeypatch):
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", 1)
    states = torch.zeros(2, 3, 4)
    assert is_loss_fused(states, nn.Linear(4, 24), CmlmConfig())
    assert not is_loss_fused(states, Adapter(4, 24), CmlmConfig())
    assert not is_loss_fused(states, nn.Linear(4, 24, device="meta"), CmlmConfig())
    with pytest.raises(
        ValueError, match='`config.fused_loss` is "always", but `lm_head` is Adapter'
    ):
        is_loss_fused(states, Adapter(4, 24), CmlmConfig(fused_loss="always"))


def test_an_unknown_choice_is_refused():
    with pytest.raises(Exception, match="fused_loss"):
        CmlmConfig(fused_loss="sometimes")


def test_the_choice_travels_with_the_configuration(tmp_path):
    CmlmConfig(fused_loss="never").save_pretrained(tmp_path)
    assert CmlmConfig.from_pretrained(tmp_path).fused_loss == "never"
