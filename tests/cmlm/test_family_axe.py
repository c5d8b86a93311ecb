"""The alignment family in the losses and the model; `tests/test_reference.py` holds its values."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from axe_hf.cmlm import family_axe, fused_loss_axe, path_axe
from axe_hf.cmlm.alignment_axe import align_axe
from axe_hf.cmlm.family_axe import Moves, ctc_posterior, posterior_of
from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import AlignedCrossEntropyLoss, axe_loss

BLANK = 0
FAMILY = {
    "repetition": {"allow_repetition": True},
    "all alignments": {"temperature": 0.5},
    "both": {"allow_repetition": True, "temperature": 1.0, "label_smoothing": 0.1},
    "no skipped target": {"delta": math.inf},
    "CTC": {"allow_repetition": True, "temperature": 1.0, "delta": math.inf},
}
every_member = pytest.mark.parametrize(
    "options",
    [{"blank_token_id": BLANK, "delta": 2.0} | each for each in FAMILY.values()],
    ids=FAMILY,
)


@pytest.fixture
def case():
    """Logits (5, 9, 11) and labels (5, 4) of ragged sentences with equal neighbours."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 11, (5, 4), generator=generator)
    labels[0, 1], labels[1, 2:], labels[2, :] = labels[0, 0], -100, -100
    return 2 * torch.randn(5, 9, 11, generator=generator), labels, torch.tensor([9, 3, 1, 9, 7])


def gradient(logits, labels, lengths, **options):
    leaf = logits.clone().requires_grad_()
    axe_loss(leaf * 1, labels, canvas_lengths=lengths, **options).backward()
    return leaf.grad


@every_member
def test_chunks_and_blocks_change_nothing(case, options, monkeypatch):
    whole = gradient(*case, **options)
    for size in (1, 2 * 4 * 9):
        monkeypatch.setattr(family_axe, "MAX_FAMILY_CELLS_CPU", size)
        torch.testing.assert_close(gradient(*case, **options), whole, rtol=0, atol=1e-7)
    monkeypatch.setattr(path_axe, "BLOCK_BYTES_CPU", 2 * 11 * 4)
    torch.testing.assert_close(gradient(*case, **options), whole, rtol=0, atol=1e-7)


@every_member
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gradient_is_rounded_once_in_place_or_not(case, options, dtype):
    logits, *rest = case
    logits = logits.to(dtype)
    expected = gradient(logits.float(), *rest, **options).to(dtype)
    assert torch.equal(gradient(logits, *rest, **options), expected)
    assert torch.equal(gradient(logits, *rest, inplace_backward=True, **options), expected)


@every_member
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_fused_it_is_the_same(case, options, reduction, monkeypatch):
    monkeypatch.setattr(fused_loss_axe, "CHUNK_BYTES_CPU", 2 * 9 * 11 * 8)
    states, labels, lengths = case
    weight, bias = torch.eye(11, dtype=torch.float64) + 0.1, torch.randn(11, dtype=torch.float64)
    options = options | {"reduction": reduction, "canvas_lengths": lengths}
    results = []
    for fused in (True, False):
        leaves = [x.double().requires_grad_() for x in (states, weight.clone(), bias.clone())]
        if fused:
            loss = linear_axe_loss(*leaves[:2], labels, bias=leaves[2], **options)
        else:
            loss = axe_loss(F.linear(*leaves), labels, **options)
        (loss * torch.arange(-2.0, 3) if reduction == "none" else -1.7 * loss).sum().backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*results)


@every_member
@pytest.mark.parametrize("return_alignment", [False, True])
def test_compiled_without_graph_breaks_it_is_the_same(case, options, return_alignment):
    logits, labels, lengths = case

    def loss(logits, labels):
        how = options | {"canvas_lengths": lengths, "return_alignment": return_alignment}
        output = axe_loss(logits * 2, labels, **how)
        return (output.loss, output.alignment.cost) if return_alignment else (output,)

    torch._dynamo.reset()  # which counts the members as versions of one function
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    values = [run(leaf, labels) for run, leaf in zip((compiled, loss), leaves, strict=True)]
    for value in values:
        value[0].backward()
    torch.testing.assert_close(*values)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@every_member
def test_extreme_logits_give_no_nan(case, options):
    logits, labels, lengths = case
    extremes = torch.where(logits > 0, 1e4, -1e4)
    improbable, shifted = logits.clone(), logits + 1e4
    improbable[:, ::2, 1:6] = -math.inf
    options = options | {"canvas_lengths": lengths, "reduction": "none", "label_smoothing": 0.0}
    for logits in (extremes, improbable, shifted):
        leaf = logits.clone().requires_grad_()
        loss = axe_loss(leaf, labels, **options)
        loss.sum().backward()
        assert not loss.isnan().any() and leaf.grad.isfinite().all()
        assert (leaf.grad[loss.isinf()] == 0).all()


@every_member
def test_a_canvas_without_positions_costs_nothing(options):
    logits = torch.zeros(2, 0, 5, requires_grad=True)
    loss = axe_loss(logits, torch.full((2, 3), -100), **options, return_alignment=True)
    loss.loss.backward()
    assert loss.loss == 0 and loss.alignment.position_to_target.shape == (2, 0)


@every_member
def test_it_needs_no_more_than_one_tensor_of_the_logits_size(options, allocations_of):
    leaf = torch.randn(8, 16, 20_000, requires_grad=True)
    labels, size = torch.randint(1, 20_000, (8, 16)), leaf.untyped_storage().nbytes()
    with allocations_of(leaf) as allocations:
        axe_loss(leaf, labels, **options).backward()
    assert sum(each >= size / 2 for each in allocations.sizes) == 1
    assert sum(each for each in allocations.sizes if each < size / 2) < size


def test_the_alignment_tells_runs_and_what_stands_between_them():
    said = torch.tensor([[3, 3, BLANK, 3, 1], [BLANK, 2, 2, 2, BLANK]])
    logits, labels = 20.0 * F.one_hot(said, 5), torch.tensor([[3, 3, 1], [2, 4, -100]])
    options = {"blank_token_id": BLANK, "delta": 0.5, "allow_repetition": True}
    for temperature in (0.0, 0.5):  # the best in either case
        options |= {"temperature": temperature, "return_alignment": True, "reduction": "none"}
        output = axe_loss(logits, labels, **options)
        found = output.alignment
        assert found.position_to_target.tolist() == [[0, 0, -1, 1, 2], [-1, 0, 0, 0, -1]]
        assert found.target_to_position.tolist() == [[0, 3, 4], [1, 3, -1]]
        assert found.is_aligned.tolist() == [[True, True, True], [True, False, False]]
        assert found.num_skipped_targets.tolist() == [0, 1]
        assert found.num_skipped_predictions.tolist() == [1, 2]
        assert (output.loss <= found.cost).all()  # equal in the best alone
        assert temperature > 0 or output.loss.equal(found.cost)


@every_member
def test_the_best_alignment_is_that_of_the_costs(case, options):
    logits, labels, lengths = case
    costs = -logits.double().log_softmax(-1)
    tokens = labels.clamp(min=BLANK)
    target_costs = costs.gather(2, tokens[:, None].expand(-1, 9, -1)).transpose(1, 2)
    how = {"delta": options["delta"], "allow_repetition": options.get("allow_repetition", False)}
    how |= {"target_lengths": (labels >= 0).sum(1), "canvas_lengths": lengths}
    found = align_axe(target_costs, costs[..., BLANK], tokens=tokens, **how)
    options = options | {"canvas_lengths": lengths, "return_alignment": True}
    expected = axe_loss(logits.double(), labels, **options).alignment
    torch.testing.assert_close(vars(found), vars(expected))
    if how["allow_repetition"]:
        with pytest.raises(ValueError, match="`allow_repetition` needs `tokens`"):
            align_axe(target_costs, costs[..., BLANK], **how)


@pytest.mark.parametrize("allow_repetition", [False, True])
def test_posteriors_are_the_derivatives_of_the_value(allow_repetition):
    generator = torch.Generator().manual_seed(0)
    say = -torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    blank = -torch.rand(2, 5, generator=generator, dtype=torch.float64)
    tokens, lengths = torch.tensor([[1, 1, 2], [2, 1, 1]]), torch.tensor([3, 2])
    moves = Moves(say, blank, 1.7, allow_repetition, tokens, lengths, lengths + 2, None)
    found = posterior_of(moves, is_best=False)
    used = found.says + 1.7 * found.skip_target
    # every position says a target or is skipped
    told = found.says.sum(1) + found.skip_prediction
    torch.testing.assert_close(told, (torch.arange(5) < lengths[:, None] + 2).double())
    for name, posterior in (("say", used), ("skip_prediction", found.skip_prediction)):
        for index in torch.ones_like(posterior).nonzero().tolist():
            values = []
            for step in (-1e-5, 1e-5):
                weights = getattr(moves, name).clone()
                weights[tuple(index)] += step
                values.append(posterior_of(replace(moves, **{name: weights}), is_best=False).value)
            slope = (values[1] - values[0]).sum() / 2e-5
            torch.testing.assert_close(posterior[tuple(index)], slope, atol=1e-8, rtol=0)


def test_a_skipped_target_is_counted_where_it_is_paid():
    # two targets, one position: one of them must be skipped, before or behind the other
    labels, logits = torch.tensor([[1, 2]]), torch.zeros(1, 1, 4, dtype=torch.float64)
    moves = Moves(
        *(logits[:, :, 1:3].transpose(1, 2), logits[:, :, 0], 2.0, False, labels),
        *(torch.tensor([2]), torch.tensor([1]), None),
    )
    found = posterior_of(moves, is_best=False)
    # say 1 or 2 or blank (in three places), the rest skipped: one way, one, three
    torch.testing.assert_close(found.value, torch.tensor([5.0], dtype=torch.float64).log())
    torch.testing.assert_close(found.skip_target.sum((1, 2)), torch.tensor([1 + 3 / 5]).double())


CTC_CASES = {  # target, canvas, vocabulary, temperature
    "short": (4, 9, 4, 1.0),
    "long": (40, 100, 300, 0.1),
    "one": (1, 1, 3, 2.0),
}


@pytest.mark.parametrize("sizes", CTC_CASES.values(), ids=CTC_CASES)
def test_the_ctc_of_pytorch_has_the_same_posterior(sizes):
    (target, canvas, vocab, temperature), batch = sizes, 12
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(batch, canvas, vocab, generator=generator).double().log_softmax(2)
    weights[0, 0, 1:], weights[1, -1, :2] = -math.inf, -math.inf
    weights[2, 0] = torch.tensor([0.0] + [-math.inf] * (vocab - 1))  # shown: the blank
    tokens = torch.randint(1, vocab, (batch, target), generator=generator)
    tokens[3:6] = 1  # of which each must be told from the next
    lengths = torch.randint(0, target + 1, (batch,), generator=generator)
    canvases = torch.randint(0, canvas + 1, (batch,), generator=generator)
    lengths[2:4], canvases[2:4], canvases[4] = 1, canvas, target - 1
    say = weights.gather(2, tokens[:, None].expand(-1, canvas, -1)).transpose(1, 2) / temperature
    blank = weights[:, :, 0] / temperature
    moves = Moves(say, blank, math.inf, True, tokens, lengths, canvases, None)
    found, expected = ctc_posterior(moves), posterior_of(moves, is_best=False)
    says = [F.one_hot(tokens).double().mT @ each.says for each in (found, expected)]  # by token
    pairs = zip(found._replace(says=says[0]), expected._replace(says=says[1]), strict=True)
    for pair in pairs:
        torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)
    assert target == 1 or 0 < found.value.isinf().sum() < batch
    huge = replace(moves, say=1e6 * say, skip_prediction=1e6 * blank)
    assert ctc_posterior(huge) is None  # and the fronts serve


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_behind_the_door_the_ctc_of_pytorch_is_the_same(case, smoothing, monkeypatch):
    logits, labels, lengths = case
    options = FAMILY["CTC"] | {"blank_token_id": BLANK, "label_smoothing": smoothing}
    options |= {"canvas_lengths": lengths, "observed_tokens": torch.zeros(5, 9, dtype=torch.long)}
    options |= {"observed_mask": torch.arange(9) == torch.tensor([[2]] * 5)}

    def run(loss):
        leaf = logits.clone().requires_grad_()
        values = loss(leaf, labels, reduction="none", **options)
        values.sum().backward()
        with torch.inference_mode():
            torch.testing.assert_close(axe_loss(leaf, labels, reduction="none", **options), values)
        return values.detach(), leaf.grad

    expected, served = run(axe_loss), []
    monkeypatch.setattr(family_axe, "is_for_ctc", lambda moves: served.append(moves) or True)
    torch.testing.assert_close(run(axe_loss), expected)
    torch._dynamo.reset()
    compiled = torch.compile(axe_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled), expected)
    assert len(served) == 4


TARGETS = torch.tensor([[7, 7, 9, 1], [11, 1, -100, -100]])
MASK, PAD = 3, 0
STRETCHED = torch.full((2, 7), MASK)
STRETCHED[1, 5:] = PAD
SHOWN = torch.tensor([[MASK, 7, MASK, MASK, MASK, 9, MASK], [MASK, 4, MASK, MASK, MASK, PAD, PAD]])


@pytest.mark.parametrize("member", FAMILY)
@pytest.mark.parametrize("canvas", [STRETCHED, SHOWN], ids=["masked", "shown"])
def test_the_model_trains_on_its_member_with_logits_or_without(
    make_model, make_sources, member, canvas
):
    how = {"delta": 2.0, "label_smoothing": 0.0} | FAMILY[member]
    changes = {"label_smoothing": how["label_smoothing"]}
    changes |= {"axe_temperature": how.get("temperature", 0.0), "dropout": 0.0, "init_std": 0.1}
    changes |= {"allow_repetition": how.get("allow_repetition", False)}
    batch = make_sources([5, 3]) | {"labels": TARGETS, "decoder_input_ids": canvas}
    found = []
    for fused_loss in ("always", "never"):
        model = make_model(fused_loss=fused_loss, **changes).train()
        model.config.axe_delta = how["delta"]
        outputs = model(**batch)
        outputs.loss.backward()
        skips = (outputs.num_skipped_targets, outputs.num_skipped_predictions)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        found.append((outputs.loss, outputs.token_loss, skips, gradients))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)

    how |= {"blank_token_id": model.config.blank_token_id, "reduction": "sum"}
    how |= {"canvas_lengths": (canvas != PAD).sum(1), "return_alignment": True}
    if member != "no skipped target":  # for which a canvas of another length shows nothing
        how |= {"observed_mask": (canvas != MASK) & (canvas != PAD), "observed_tokens": canvas}
    expected = axe_loss(outputs.logits, TARGETS, **how)
    torch.testing.assert_close(outputs.token_loss, expected.loss.detach())
    length = (canvas != PAD).sum(1) if how.get("temperature") else None
    if length is None:
        names = ("num_skipped_targets", "num_skipped_predictions")
        assert all(getattr(expected.alignment, name).equal(outputs[name]) for name in names)
    else:  # expected numbers
        assert (outputs.num_skipped_predictions > 0).all()
        assert (outputs.num_skipped_predictions < length).all()
        assert ((outputs.num_skipped_targets > 0) == (how["delta"] < math.inf)).all()


def test_the_module_passes_everything_on(case):
    logits, labels, lengths = case
    options = {"blank_token_id": BLANK, "delta": math.inf, "temperature": 0.5}
    options |= {"allow_repetition": True}
    shown = {"observed_mask": torch.arange(9) == torch.tensor([[4]] * 5)}
    shown |= {"observed_tokens": torch.zeros(5, 9, dtype=torch.long), "canvas_lengths": lengths}
    module = AlignedCrossEntropyLoss(**options)
    assert module(logits, labels, **shown).equal(axe_loss(logits, labels, **options, **shown))
    assert "allow_repetition=True, temperature=0.5" in repr(module)
