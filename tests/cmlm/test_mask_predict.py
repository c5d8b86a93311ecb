from itertools import product

import pytest
import torch

from axe_hf import MaskPredictGenerationConfig
from axe_hf.cmlm import mask_predict
from axe_hf.cmlm.mask_predict import length_candidates

PAD, EOS, UNK, MASK, BLANK = range(5)


def without_specials(tokens):
    return [int(token) for token in tokens if token not in (PAD, EOS, BLANK)]


def without_padding(rows):
    return [[int(token) for token in row if token != PAD] for row in rows]


MODELS = [
    {},
    {"normalize_before": True, "tie_word_embeddings": False},
    {"position_embedding_type": "sinusoidal", "scale_embedding": True},
    {"layernorm_embedding": True, "decoder_layers": 1, "max_target_length": 60},
]
# Few tokens, so that blanks and ends come up often.
FEW = {"vocab_size": 10}


def assert_same(output, row, canvas):
    """The row of the output is what the reference left on its canvas."""
    assert without_padding(output.sequences)[row] == without_specials(canvas.tokens)
    assert int(output.lengths[row]) == len(canvas.tokens)
    assert float(output.sequences_scores[row]) == pytest.approx(canvas.score, abs=2e-5)


@pytest.mark.parametrize("num_iterations", [1, 2, 4, 10])
@pytest.mark.parametrize("seed", range(len(MODELS)))
def test_generate_equals_mask_predict_sentence_by_sentence(
    make_model,
    make_sources,
    decode_by_reference,
    most_probable_lengths,
    seed,
    num_iterations,
):
    # In float64, where no decision hangs on rounding.
    model = make_model(seed=seed, **FEW, **MODELS[seed]).double()
    sources = make_sources([1, 7, 2, 13, 40], seed=seed, **FEW)
    decoded = []
    for source in without_padding(sources["input_ids"]):
        lengths, length_scores = most_probable_lengths(model, source, 5)
        canvases = [[MASK] * length for length in lengths]
        canvases, _ = decode_by_reference(model, source, canvases, num_iterations)
        decoded.append(list(zip(canvases, length_scores, strict=True)))
    for num_candidates, weight in product((1, 3, 5), (0.0, 0.3)):
        output = model.generate(
            **sources,
            num_iterations=num_iterations,
            num_length_candidates=num_candidates,
            length_score_weight=weight,
            return_dict_in_generate=True,
        )
        for row, candidates in enumerate(decoded):
            canvas, _ = max(
                candidates[:num_candidates],
                key=lambda pair: pair[0].score + weight * pair[1],
            )
            assert_same(output, row, canvas)


@pytest.mark.slow
@pytest.mark.parametrize("num_iterations", [1, 2, 4, 10])
def test_generate_equals_the_reference_in_float32_for_200_models(
    make_model, make_sources, decode_by_reference, most_probable_lengths, num_iterations
):
    for seed in range(50):
        seed = 50 * num_iterations + seed
        num_candidates = (1, 3, 5)[seed % 3]
        # Tied embeddings without training say the same token nearly everywhere.
        sizes = {"max_source_length": 60, "max_target_length": 60}
        model = make_model(seed=seed, tie_word_embeddings=seed % 4 == 0, **sizes)
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 61, (3,), generator=generator).tolist()
        sources = make_sources(lengths, seed=seed)
        output = model.generate(
            **sources,
            num_iterations=num_iterations,
            num_length_candidates=num_candidates,
            length_score_weight=0.0,
            return_dict_in_generate=True,
        )
        for row, source in enumerate(without_padding(sources["input_ids"])):
            lengths, _ = most_probable_lengths(model, source, num_candidates)
            canvases = [[MASK] * length for length in lengths]
            canvases, _ = decode_by_reference(model, source, canvases, num_iterations)
            assert_same(output, row, max(canvases, key=lambda canvas: canvas.score))


DECODINGS = [
    {"num_iterations": 1},
    {"num_iterations": 4, "num_length_candidates": 3},
    {"num_iterations": 5, "num_length_candidates": 2, "length_multiplier": 1.3},
]


@pytest.mark.parametrize("decoding", DECODINGS)
def test_the_batch_around_a_sentence_does_not_change_its_translation(
    make_model, make_sources, decoding
):
    model = make_model(seed=3).double()
    sources = make_sources([4, 11, 1, 25, 8, 8], seed=3)
    together = without_padding(model.generate(**sources, **decoding))
    backwards = {name: tensor.flip(0) for name, tensor in sources.items()}
    assert without_padding(model.generate(**backwards, **decoding))[::-1] == together
    for row, source in enumerate(without_padding(sources["input_ids"])):
        alone = model.generate(torch.tensor([source]), **decoding)
        assert without_padding(alone) == [together[row]]


@pytest.mark.parametrize("decoding", DECODINGS)
def test_padding_of_the_source_does_not_change_the_translation(make_model, make_sources, decoding):
    model = make_model(seed=4).double()
    sources = make_sources([4, 11, 1], seed=4)
    wide = {name: torch.nn.functional.pad(tensor, (0, 20)) for name, tensor in sources.items()}
    assert model.generate(**wide, **decoding).equal(model.generate(**sources, **decoding))


def test_the_attention_mask_defaults_to_what_is_not_padding(make_model, make_sources):
    model = make_model(seed=5)
    sources = make_sources([4, 11, 1], seed=5)
    assert model.generate(sources["input_ids"]).equal(model.generate(**sources))


def test_encoder_outputs_stand_in_for_the_source(make_model, make_sources):
    model = make_model(seed=6)
    sources = make_sources([4, 11, 1], seed=6)
    encoder_outputs = model.get_encoder()(**sources)
    expected = model.generate(**sources, num_iterations=3)
    mask = sources["attention_mask"]
    found = model.generate(encoder_outputs=encoder_outputs, attention_mask=mask, num_iterations=3)
    assert found.equal(expected)


def test_the_vocabulary_may_be_scored_in_chunks(make_model, make_sources, monkeypatch):
    model = make_model(seed=7).double()
    sources = make_sources([4, 11, 1, 9], seed=7)
    decoding = {"num_iterations": 4, "num_length_candidates": 3}
    expected = model.generate(**sources, **decoding)
    monkeypatch.setattr(mask_predict, "MAX_LOGITS_ELEMENTS", 50)
    assert model.generate(**sources, **decoding).equal(expected)


def test_nothing_is_cut_off_behind_an_end(make_model, make_sources):
    model = make_model(seed=1, **FEW)
    sources = make_sources([9] * 40, seed=1, **FEW)
    output = model.generate(
        **sources, num_iterations=4, output_history=True, return_dict_in_generate=True
    )
    canvases = output.history["tokens"][-1].tolist()
    assert any(EOS in row and without_specials(row[row.index(EOS) :]) for row in canvases)
    for row, canvas in zip(without_padding(output.sequences), canvases, strict=True):
        assert row == without_specials(canvas)


def test_the_history_tells_what_was_masked_when(make_model, make_sources):
    model, num_iterations = make_model(seed=2), 5
    output = model.generate(
        **make_sources([6, 20, 2], seed=2),
        num_iterations=num_iterations,
        num_length_candidates=3,
        output_history=True,
        return_dict_in_generate=True,
    )
    canvas, tokens, log_probs = (output.history[n] for n in ("canvas", "tokens", "log_probs"))
    assert canvas.shape == tokens.shape == log_probs.shape
    assert canvas.shape[:2] == (num_iterations, 3) and canvas.shape[2] >= output.lengths.max()
    for row, length in enumerate(output.lengths.tolist()):
        assert (canvas[:, row, length:] == PAD).all() and (tokens[:, row, length:] == PAD).all()
        assert (canvas[0, row, :length] == MASK).all()
        for t in range(1, num_iterations):
            is_masked = canvas[t, row] == MASK
            expected = max(1, length * (num_iterations - t) // num_iterations)
            assert int(is_masked.sum()) == expected
            before, after = (log_probs[s, row, :length] for s in (t - 1, t))
            assert (
                before[is_masked[:length]].max()
                <= before.masked_fill(is_masked[:length], torch.inf).min()
            )
            for stored in (tokens, log_probs):
                assert stored[t, row][~is_masked].equal(stored[t - 1, row][~is_masked])
            assert after.max() <= 0
    means = log_probs[-1].sum(dim=1) / output.lengths
    torch.testing.assert_close(means, output.sequences_scores)


LENGTH_LOG_PROBS = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.05, 0.02]]).log()  # classes 0 to 5


def candidates(**settings):
    defaults = {"num_length_candidates": 3, "min_length": 1, "max_length": 5}
    defaults["length_multiplier"] = 1.0
    config = MaskPredictGenerationConfig(**(defaults | settings))
    lengths, log_probs = length_candidates(LENGTH_LOG_PROBS, config)
    return lengths.tolist()[0], log_probs.exp()[0]


def test_length_candidates_are_the_most_probable_without_class_zero():
    lengths, probabilities = candidates()
    assert lengths == [2, 3, 1]
    expected = torch.tensor([0.5, 0.3, 0.1]) / LENGTH_LOG_PROBS.exp().sum()
    torch.testing.assert_close(probabilities, expected)


def test_length_candidates_are_scaled_and_rounded():
    assert candidates(length_multiplier=1.3)[0] == [3, 4, 1]


def test_length_candidates_hold_no_duplicate():
    assert candidates(length_multiplier=0.4, num_length_candidates=5)[0] == [1, 2]
    assert candidates(max_length=2, num_length_candidates=5)[0] == [2, 1]
    assert candidates(min_length=4, num_length_candidates=5)[0] == [4, 5]


def test_length_candidates_of_canvases_twice_as_long_as_what_is_predicted():
    twice = {"length_multiplier": 2.0, "num_length_candidates": 5}
    assert candidates(**twice, max_length=12)[0] == [4, 6, 2, 8, 10]
    # What is over the bounds, or under them, comes together at them, with the best probability.
    lengths, probabilities = candidates(**twice, max_length=5)
    assert lengths == [4, 5, 2]
    expected = torch.tensor([0.5, 0.3, 0.1]) / LENGTH_LOG_PROBS.exp().sum()
    torch.testing.assert_close(probabilities, expected)
    assert candidates(**twice, min_length=5, max_length=7)[0] == [5, 6, 7]


@pytest.mark.parametrize("decoding", [{"num_iterations": 4}, {"confidence_threshold": 0.5}])
def test_collapsing_changes_nothing_on_the_canvas(make_model, make_sources, decoding):
    model, sources = make_model(seed=2), make_sources([9, 4, 6, 8])
    how = {"num_iterations": 6, "num_length_candidates": 3, "length_multiplier": 2.0} | decoding
    how |= {"output_history": True, "return_dict_in_generate": True}
    plain, collapsed = (
        model.generate(**sources, **how, collapse_repeats=value) for value in (False, True)
    )
    assert not collapsed.sequences.equal(plain.sequences)
    for name in ("lengths", "num_iterations", "sequences_scores", "ranking_scores"):
        assert collapsed[name].equal(plain[name])
    for name, steps in plain.history.items():
        assert collapsed.history[name].equal(steps)


def test_fewer_lengths_than_candidates_give_fewer_candidates():
    assert sorted(candidates(num_length_candidates=99)[0]) == [1, 2, 3, 4, 5]


def test_one_position_is_masked_again_even_if_a_share_of_the_canvas_is_less(
    make_model, make_sources
):
    output = make_model().generate(
        **make_sources([4]),
        num_iterations=10,
        min_length=1,
        max_length=1,
        output_history=True,
        return_dict_in_generate=True,
    )
    assert (output.history["canvas"] == MASK).all() and output.lengths.tolist() == [1]


def test_among_equally_probable_tokens_the_earlier_is_masked_first(make_model, make_sources):
    model = make_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    output = model.generate(
        **make_sources([4, 9]),
        num_iterations=4,
        min_length=7,
        max_length=7,
        output_history=True,
        return_dict_in_generate=True,
    )
    is_masked = output.history["canvas"] == MASK  # (iterations, batch, canvas)
    for t, num_masked in enumerate([7, 5, 3, 1]):
        expected = [position < num_masked for position in range(7)]
        assert is_masked[t].tolist() == [expected] * 2
