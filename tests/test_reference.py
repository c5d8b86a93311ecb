"""The alignment family against all sequences of moves, and against PyTorch's CTC.

Every claim is held against the definition in loops, the fast loss and the fused one alike.
"""

import functools
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from axe_hf import axe_loss, linear_axe_loss
from axe_hf.reference import axe_loss_definition

BLANK, VOCAB = 0, 4
ALIGN, REPEAT, SKIP_PREDICTION, SKIP_TARGET = range(4)  # in the order of ties
CTC = {"delta": math.inf, "allow_repetition": True, "temperature": 1.0, "blank_token_id": BLANK}


def fast(logits, labels, **options):
    return axe_loss(logits, labels, reduction="none", **options)


def fused(logits, labels, **options):
    """The hidden states are the logits, and the output embedding changes nothing."""
    weight = torch.eye(logits.shape[-1], dtype=logits.dtype)
    return linear_axe_loss(logits, weight, labels, reduction="none", **options)


every_loss = pytest.mark.parametrize("loss", [axe_loss_definition, fast, fused])
FAMILY = list(itertools.product([False, True], [0.0, 0.7], [2.0, math.inf]))
whole_family = pytest.mark.parametrize(("repetition", "temperature", "delta"), FAMILY)


def options_of(repetition, temperature, delta):
    options = {"allow_repetition": repetition, "temperature": temperature, "delta": delta}
    return options | {"blank_token_id": BLANK}


@functools.cache
def all_sequences(tokens, canvas, repetition, skips_targets, said_before):
    """All sequences of moves, ties in order.

    Returns:
        How often each uses a position for a token, `(sequences, canvas, vocab)`: by saying it and
        by skipping it.
    """
    names = (said_before, *tokens)

    def onwards(i, j, is_said):
        if (i, j) == (len(tokens), canvas):
            yield ()
        moves = []
        if i < len(tokens) and j < canvas:
            is_collapsed = repetition and is_said and names[i] == names[i + 1]
            if not is_collapsed:
                moves.append((ALIGN, j, names[i + 1], (i + 1, j + 1, True)))
        if repetition and is_said and j < canvas:
            moves.append((REPEAT, j, names[i], (i, j + 1, True)))
        if j < canvas:
            moves.append((SKIP_PREDICTION, j, BLANK, (i, j + 1, False)))
        if i < len(tokens) and skips_targets:
            moves.append((SKIP_TARGET, max(j - 1, 0), names[i + 1], (i + 1, j, False)))
        for *move, state in moves:
            for rest in onwards(*state):
                yield (move, *rest)

    # the last move decides first
    found = sorted(onwards(0, 0, said_before is not None), key=lambda s: [m[0] for m in s[::-1]])
    said, skipped = torch.zeros(2, len(found), canvas, VOCAB, dtype=torch.float64)
    for number, sequence in enumerate(found):
        for kind, position, token in sequence:
            (skipped if kind == SKIP_TARGET else said)[number, position, token] += 1
    return said, skipped


def of_part(costs, tokens, options, said_before=None):
    """Soft minimum over all sequences of moves, and the mean use `(canvas, vocab)`."""
    repetition, t, delta = (options[k] for k in ("allow_repetition", "temperature", "delta"))
    skips = delta < math.inf
    said, skipped = all_sequences(tuple(tokens), len(costs), repetition, skips, said_before)
    uses = said + delta * skipped if skips else said
    each = torch.where(uses > 0, uses * costs, 0.0).sum((1, 2)).tolist()
    best = min(each, default=math.inf)
    if best == math.inf:
        return best, torch.zeros_like(costs)
    if t == 0:
        return best, uses[each.index(best)]
    weights = torch.tensor([math.exp((best - cost) / t) for cost in each], dtype=torch.float64)
    return best - t * math.log(weights.sum()), torch.einsum("s,sjv", weights / weights.sum(), uses)


def brute_force(logits, labels, **options):
    """The loss `(batch,)` over all sequences of moves, and the gradient of its sum."""
    s, observed = options.get("label_smoothing", 0.0), options.get("observed_mask")
    losses, gradient = [], torch.zeros_like(logits)
    for b, row in enumerate(labels.tolist()):
        tokens = [token for token in row if token >= 0]
        lengths = options.get("canvas_lengths")
        length = logits.shape[1] if lengths is None else int(lengths[b])
        costs = -logits[b, :length].log_softmax(-1)
        prices = costs.clone()
        shown = [] if observed is None else [j for j in range(length) if observed[b, j]]
        splits = shown
        if options.get("observed_tokens") is not None:
            for j in shown:
                prices[j] = math.inf
                prices[j, options["observed_tokens"][b, j]] = 0.0
            splits = []
        value, uses = 0.0, torch.zeros_like(costs)
        for before, stop in zip([-1, *splits], [*splits, length], strict=True):
            part = slice(before + 1, stop)
            said = tokens[before] if before >= 0 else None
            part_tokens = tokens[part] if splits else tokens
            part_value, uses[part] = of_part(prices[part], part_tokens, options, said)
            value += part_value
        uses[shown] = 0.0
        if value < math.inf:
            used = uses.sum(-1, keepdim=True)
            value = (1 - s) * value + s * float((used[:, 0] * costs.mean(-1)).sum() if s else 0.0)
            told = (1 - s) * uses + s * used / logits.shape[-1]
            gradient[b, :length] = used * costs.neg().exp() - told
        losses.append(value)
    return torch.tensor(losses, dtype=logits.dtype), gradient


def value_and_gradient(loss, logits, labels, options):
    """The loss of each sentence and the gradient of the finite ones' sum."""
    logits = logits.detach().clone().requires_grad_()
    each = loss(logits, labels, **options)
    # by 0, not left out: what has no alignment must not hurt the others, in a sum either
    (each.sum() + 0 * logits.nan_to_num(0, 0, 0).sum()).backward()
    return each.detach(), logits.grad


def random_logits(generator, *shape):
    return 2 * torch.randn(*shape, VOCAB, generator=generator, dtype=torch.float64)


def whole_costs(generator, *shape):
    """Logits of which every cost but the last token's is a whole number, exactly: ties abound."""
    logits = -torch.randint(40, 43, (*shape, VOCAB), generator=generator).double()
    logits[..., -1] = 0.0
    return logits


def ragged(generator, batch=4, canvas=5, target=4, vocab=VOCAB):
    """Logits, labels and canvas lengths of several sentences."""
    logits = 2 * torch.randn(batch, canvas, vocab, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, vocab - 1, (batch, target), generator=generator)
    lengths = torch.randint(1, canvas + 1, (batch,), generator=generator)
    target_lengths = torch.randint(0, target + 1, (batch,), generator=generator)
    labels[torch.arange(target) >= target_lengths[:, None]] = -100
    return logits, labels, lengths


@every_loss
def test_a_target_that_two_positions_say_by_hand(loss):
    # of the four tokens each is as probable: blank a, a blank, and with repetition a a
    logits, labels = torch.zeros(1, 2, 4), torch.tensor([[1]])
    for repetition, num_ways in ((False, 2), (True, 3)):
        options = options_of(repetition, 1.0, math.inf)
        expected = -torch.tensor([num_ways / 16]).log()
        torch.testing.assert_close(loss(logits, labels, **options), expected)


@every_loss
def test_equal_neighbours_need_something_between_them(loss):
    sure = 30.0 * F.one_hot(torch.tensor([[1, 1], [1, 1]]), 4).double()
    labels = torch.tensor([[1, 1], [1, -100]])
    options = options_of(True, 0.0, math.inf)
    apart, run = loss(sure, labels, **options)
    assert apart == math.inf and run == pytest.approx(0.0, abs=1e-9)
    assert loss(sure, labels, **options | {"allow_repetition": False})[0] < 1e-9
    with_blank = 30.0 * F.one_hot(torch.tensor([[1, BLANK, 1]]), 4).double()
    assert loss(with_blank, labels[:1], **options) < 1e-9


@every_loss
@whole_family
def test_all_sequences_of_moves(loss, repetition, temperature, delta):
    generator = torch.Generator().manual_seed(0)
    options = options_of(repetition, temperature, delta)
    for n, m in itertools.product(range(6), range(1, 6)):
        is_even = (n + m) % 2 == 0
        logits = (random_logits if is_even else whole_costs)(generator, 2, m)
        labels = torch.randint(1, 3, (2, n), generator=generator)
        labels[0] = 1  # equal neighbours only
        options["label_smoothing"] = 0.2 if n % 2 else 0.0
        options["delta"] = delta if delta == math.inf else [0.0, 0.5, 2.0][(n + m // 2) % 3]
        expected = brute_force(logits, labels, **options)
        found = value_and_gradient(loss, logits, labels, options)
        torch.testing.assert_close(found, expected, msg=lambda text, n=n, m=m: f"{n}, {m}: {text}")


@every_loss
def test_ties_go_to_align_repeat_skip_prediction_skip_target(loss):
    generator = torch.Generator().manual_seed(1)
    for number in range(48):
        n, m = torch.randint(1, 6, (2,), generator=generator).tolist()
        options = options_of(True, 0.0, [0.0, 0.5, 1.0, 2.0][number % 4])
        labels = torch.randint(1, 3, (1, n), generator=generator)
        logits = whole_costs(generator, 1, m)
        expected = brute_force(logits, labels, **options)
        found = value_and_gradient(loss, logits, labels, options)
        torch.testing.assert_close(found, expected)


@every_loss
def test_ctc_of_pytorch(loss):
    generator = torch.Generator().manual_seed(2)
    for number in range(12):
        sizes = {"canvas": 3 + 2 * number, "target": 1 + number, "vocab": 5 + number % 2}
        logits, labels, lengths = ragged(generator, **sizes)
        leaf = logits.clone().requires_grad_()
        log_probs = leaf.log_softmax(-1).transpose(0, 1)
        each = (log_probs, labels.clamp(min=0), lengths, (labels >= 0).sum(1))
        expected = F.ctc_loss(*each, blank=BLANK, reduction="none")
        F.ctc_loss(*each, blank=BLANK, reduction="sum", zero_infinity=True).backward()
        found = value_and_gradient(loss, logits, labels, CTC | {"canvas_lengths": lengths})
        torch.testing.assert_close(found, (expected.detach(), leaf.grad))


@every_loss
@pytest.mark.parametrize("repetition", [False, True])
def test_it_is_a_distribution_over_targets(loss, repetition):
    # what a canvas says is one target: whatever it is, one of them is said
    generator = torch.Generator().manual_seed(3)
    for m in range(1, 5):
        targets = [t for n in range(m + 1) for t in itertools.product((1, 2, 3), repeat=n)]
        labels = torch.tensor([[*t, *[-100] * (m - len(t))] for t in targets])
        logits = random_logits(generator, 1, m).expand(len(targets), -1, -1)
        options = CTC | {"allow_repetition": repetition}
        total = loss(logits, labels, **options).neg().exp().sum()
        assert total.item() == pytest.approx(1.0, abs=1e-12)


@every_loss
@pytest.mark.parametrize("repetition", [False, True])
@pytest.mark.parametrize("delta", [2.0, math.inf])
def test_a_temperature_near_0_is_the_best_path(loss, repetition, delta):
    logits, labels, lengths = ragged(torch.Generator().manual_seed(4), batch=6)
    options = options_of(repetition, 0.0, delta) | {"canvas_lengths": lengths}
    best = value_and_gradient(loss, logits, labels, options)
    near = value_and_gradient(loss, logits, labels, options | {"temperature": 1e-3})
    torch.testing.assert_close(near, best, atol=1e-2, rtol=0)
    # the warmer, the more paths lower it
    losses = [loss(logits, labels, **options | {"temperature": t}) for t in (0.0, 0.1, 1.0, 5.0)]
    assert all((warm <= cold + 1e-12).all() for cold, warm in itertools.pairwise(losses))


@every_loss
@whole_family
def test_what_changes_nothing(loss, repetition, temperature, delta):
    generator = torch.Generator().manual_seed(5)
    logits, labels, lengths = ragged(generator, batch=5)
    options = options_of(repetition, temperature, delta) | {"canvas_lengths": lengths}
    options["label_smoothing"] = 0.1
    value, gradient = value_and_gradient(loss, logits, labels, options)
    assert value.isfinite().any() and gradient.isfinite().all()
    torch.testing.assert_close(gradient.sum(-1), torch.zeros_like(gradient[..., 0]))

    order = torch.randperm(VOCAB, generator=generator)  # the new id of each token
    renamed = torch.where(labels < 0, labels, order[labels.clamp(min=0)])
    names = options | {"blank_token_id": int(order[BLANK])}
    moved = value_and_gradient(loss, logits[..., order.argsort()], renamed, names)
    torch.testing.assert_close(moved, (value, gradient[..., order.argsort()]))

    shifted = logits + torch.randn(5, 5, 1, generator=generator, dtype=torch.float64)
    moved = value_and_gradient(loss, shifted, labels, options)
    torch.testing.assert_close(moved, (value, gradient))

    sentences = torch.tensor([3, 0, 4, 2, 1])
    moved = options | {"canvas_lengths": lengths[sentences]}
    moved = value_and_gradient(loss, logits[sentences], labels[sentences], moved)
    torch.testing.assert_close(moved, (value[sentences], gradient[sentences]))

    wide, long = F.pad(logits, (0, 0, 0, 3), value=7.0), F.pad(labels, (0, 2), value=-100)
    padded_value, padded_gradient = value_and_gradient(loss, wide, long, options)
    torch.testing.assert_close((padded_value, padded_gradient[:, :5]), (value, gradient))
    assert (padded_gradient[:, 5:] == 0).all()

    # positions behind, which say blank for sure
    surely = torch.zeros(5, 8, VOCAB, dtype=torch.float64)
    surely[..., BLANK] = 200.0
    is_own = torch.arange(8) < lengths[:, None]
    surely = torch.where(is_own[..., None], wide, surely)
    unsmoothed = options | {"label_smoothing": 0.0}
    value, gradient = value_and_gradient(loss, logits, labels, unsmoothed)
    moved = unsmoothed | {"canvas_lengths": lengths + 3}
    more, more_gradient = value_and_gradient(loss, surely, labels, moved)
    is_possible = value.isfinite()  # more room may make possible what was not
    torch.testing.assert_close(more[is_possible], value[is_possible])
    torch.testing.assert_close(more_gradient[is_possible, :5], gradient[is_possible])


@every_loss
@pytest.mark.parametrize(("repetition", "temperature"), [(True, 0.0), (False, 0.7), (True, 1.0)])
def test_read_backwards_it_costs_the_same(loss, repetition, temperature):
    generator = torch.Generator().manual_seed(6)
    logits, labels = random_logits(generator, 4, 6), torch.randint(1, 3, (4, 3))
    options = options_of(repetition, temperature, math.inf)
    backwards = loss(logits.flip(1), labels.flip(1), **options)
    torch.testing.assert_close(backwards, loss(logits, labels, **options))


@every_loss
@whole_family
def test_gradients_equal_finite_differences(loss, repetition, temperature, delta):
    logits = random_logits(torch.Generator().manual_seed(7), 2, 4).requires_grad_()
    labels = torch.tensor([[1, 1, 2], [2, -100, -100]])
    options = options_of(repetition, temperature, delta)
    options["canvas_lengths"] = torch.tensor([4, 3])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, **options), logits, fast_mode=True)


@every_loss
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("repetition", [False, True])
def test_no_alignment_is_infinite_and_without_a_gradient(loss, repetition, temperature):
    generator = torch.Generator().manual_seed(8)
    logits, labels = random_logits(generator, 3, 3), torch.tensor([[1, 2, 1, 2], [1, 2, 2, -100]])
    labels = torch.cat([labels, torch.tensor([[1, 2, -100, -100]])])
    options = options_of(repetition, temperature, math.inf)
    value, gradient = value_and_gradient(loss, logits, labels, options)
    assert value.isinf().tolist() == [True, repetition, False]
    assert (gradient[value.isinf()] == 0).all()
    assert (gradient[2] != 0).any() and gradient.isfinite().all()


@pytest.mark.parametrize("loss", [axe_loss_definition, fast])
def test_unused_tokens_of_no_probability(loss):
    generator = torch.Generator().manual_seed(9)
    logits, labels, lengths = ragged(generator)
    logits[..., -1] = -math.inf
    logits[:, 0, 1] = -math.inf  # and a label that the first position cannot say
    for repetition, temperature, delta in [*FAMILY, (True, 0.0, 0.0), (False, 0.7, 0.0)]:
        if (repetition, temperature, delta) == (False, 0.0, 2.0):
            continue  # the paper's, where a path of infinite cost is one
        options = options_of(repetition, temperature, delta) | {"canvas_lengths": lengths}
        expected = brute_force(logits, labels, **options)
        torch.testing.assert_close(value_and_gradient(loss, logits, labels, options), expected)


@every_loss
@whole_family
def test_observed_positions_split_the_sentence(loss, repetition, temperature, delta):
    generator = torch.Generator().manual_seed(10)
    options = options_of(repetition, temperature, delta) | {"label_smoothing": 0.1}
    for number in range(6):
        labels = torch.randint(1, 3, (3, 5), generator=generator)
        lengths = torch.randint(1, 6, (3,), generator=generator)
        is_behind = torch.arange(5) >= lengths[:, None]
        labels[is_behind] = -100
        observed = torch.rand(3, 5, generator=generator) < 0.4
        options |= {"observed_mask": observed & ~is_behind, "canvas_lengths": lengths}
        logits = (whole_costs if number % 2 else random_logits)(generator, 3, 5)
        expected = brute_force(logits, labels, **options)
        found = value_and_gradient(loss, logits, labels, options)
        torch.testing.assert_close(found, expected)


@every_loss
@whole_family
def test_observed_tokens_are_said_for_sure(loss, repetition, temperature, delta):
    generator = torch.Generator().manual_seed(11)
    options = options_of(repetition, temperature, delta)
    logits, labels, lengths = ragged(generator, batch=8, canvas=5, target=3)
    is_behind = torch.arange(5) >= lengths[:, None]
    options |= {"canvas_lengths": lengths, "label_smoothing": 0.1}
    options["observed_mask"] = (torch.rand(8, 5, generator=generator) < 0.3) & ~is_behind
    options["observed_tokens"] = torch.randint(0, 3, (8, 5), generator=generator)
    if not repetition and temperature == 0:
        with pytest.raises(ValueError, match="observed_tokens"):
            loss(logits, labels, **options)
        return
    value, gradient = value_and_gradient(loss, logits, labels, options)
    torch.testing.assert_close((value, gradient), brute_force(logits, labels, **options))
    assert (gradient[options["observed_mask"]] == 0).all()
    assert delta == math.inf or value.isfinite().any()
