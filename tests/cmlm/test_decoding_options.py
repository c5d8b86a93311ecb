"""Schedules, early ends and canvases that are given, against the reference; what is refused."""

import pytest
import torch

from axe_hf.cmlm.configuration_mask_predict import num_masked_again

PAD, EOS, UNK, MASK, BLANK = range(5)
FULL = {"return_dict_in_generate": True}


def without_padding(rows):
    return [[int(token) for token in row if token != PAD] for row in rows]


def words(tokens):
    return [int(token) for token in tokens if token not in (PAD, EOS, BLANK)]


def sources_of(sources):
    return without_padding(sources["input_ids"])


# Schedules and early ends

ENDINGS = [
    {"schedule": "cosine"},
    {"threshold": 0.5},
    {"threshold": 0.9, "schedule": "cosine"},
    {"early_stop": True},
    {"early_stop": True, "threshold": 0.7},
    {"suppressed": (EOS, BLANK, 7, 8)},
]
NAMES = {"threshold": "confidence_threshold", "suppressed": "suppress_tokens"}


@pytest.mark.parametrize("num_iterations", [2, 3, 10])
@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_every_schedule_and_early_end_equals_the_reference(
    make_model,
    make_sources,
    decode_by_reference,
    most_probable_lengths,
    ending,
    num_iterations,
):
    num_passes = set()
    for seed in range(3):
        # Without training, tied embeddings are sure of one token everywhere; others are never sure.
        is_tied = seed % 2 == 0
        model = make_model(seed=seed, max_target_length=40, tie_word_embeddings=is_tied).double()
        sources = make_sources([1, 12, 3, 30, 7], seed=seed)
        settings = {NAMES.get(name, name): value for name, value in ending.items()}
        if "suppress_tokens" in settings:
            settings["suppress_tokens"] = list(settings["suppress_tokens"])
        output = model.generate(
            **sources,
            **settings,
            **FULL,
            num_iterations=num_iterations,
            num_length_candidates=3,
            length_score_weight=0.0,
            output_history=True,
        )
        for row, source in enumerate(sources_of(sources)):
            lengths, _ = most_probable_lengths(model, source, 3)
            canvases = [[MASK] * length for length in lengths]
            canvases, t = decode_by_reference(model, source, canvases, num_iterations, **ending)
            best = max(canvases, key=lambda canvas: canvas.score)
            assert without_padding(output.sequences)[row] == words(best.tokens)
            assert float(output.sequences_scores[row]) == pytest.approx(best.score, abs=1e-6)
            assert int(output.num_iterations[row]) == t
            left = output.history["tokens"][:, row, : len(best.tokens)]
            assert left[-1].tolist() == best.tokens
            assert (left[t - 1 :] == left[-1]).all(), "a sentence that is done stays as it is"
            num_passes.add(t)
    if "early_stop" in ending or "threshold" in ending:
        assert len(num_passes) > 1 or num_iterations == 2, "the test should see early ends"


@pytest.mark.parametrize(
    ("ending", "is_tied"), [({"early_stop": True}, False), ({"confidence_threshold": 0.6}, True)]
)
def test_processes_that_wait_for_each_other_make_all_passes_with_the_same_result(
    make_model, make_sources, ending, is_tied
):
    model = make_model(seed=1, tie_word_embeddings=is_tied).double()
    sources = make_sources([1, 12, 3, 30, 7], seed=1)
    passes = []
    model.model.decoder.register_forward_hook(lambda *_: passes.append(1))
    decoding = {"num_iterations": 10, "num_length_candidates": 2, **ending, **FULL}
    expected = model.generate(**sources, **decoding)
    assert expected.num_iterations.max() > expected.num_iterations.min()
    passes.clear()
    found = model.generate(**sources, **decoding, synced_gpus=True)
    assert len(passes) == 10
    assert found.sequences.equal(expected.sequences)
    assert found.num_iterations.equal(expected.num_iterations)


def test_the_linear_schedule_is_exact_where_a_rounded_quotient_is_not():
    for num_iterations in range(1, 40):
        for t in range(1, num_iterations):
            for length in range(1, 200):
                expected = max(1, (length * (num_iterations - t)) // num_iterations)
                assert num_masked_again("linear", length, t, num_iterations) == expected


def test_the_cosine_schedule_masks_more_at_first_and_less_at_the_end():
    cosine = [num_masked_again("cosine", 100, t, 10) for t in range(1, 10)]
    linear = [num_masked_again("linear", 100, t, 10) for t in range(1, 10)]
    assert cosine == sorted(cosine, reverse=True) and cosine[0] > linear[0]
    assert num_masked_again("cosine", 1, 9, 10) == 1


# Canvases that are given


def canvases_with_observed_tokens(model, num_sentences, width, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, 24, (num_sentences, width), generator=generator)
    is_masked = torch.rand(num_sentences, width, generator=generator) < 0.6
    lengths = torch.randint(1, width + 1, (num_sentences, 1), generator=generator)
    canvas = tokens.masked_fill(is_masked, MASK)
    return canvas.masked_fill(torch.arange(width) >= lengths, PAD)


@pytest.mark.parametrize("num_iterations", [1, 2, 5])
def test_infilling_equals_the_reference_and_leaves_observed_tokens_alone(
    make_model, make_sources, decode_by_reference, num_iterations
):
    for seed in range(4):
        model = make_model(seed=seed, tie_word_embeddings=False).double()
        sources = make_sources([4, 9, 2, 7], seed=seed)
        canvas = canvases_with_observed_tokens(model, 4, 12, seed)
        output = model.generate(
            **sources,
            **FULL,
            decoder_input_ids=canvas,
            num_iterations=num_iterations,
            output_history=True,
        )
        for row, source in enumerate(sources_of(sources)):
            given = without_padding(canvas)[row]
            [expected], _ = decode_by_reference(model, source, [given], num_iterations)
            final = output.history["tokens"][-1, row, : len(given)].tolist()
            assert final == expected.tokens
            assert [a for a, b in zip(final, given, strict=True) if b != MASK] == [
                token for token in given if token != MASK
            ]
            assert float(output.sequences_scores[row]) == pytest.approx(expected.score, abs=1e-6)
            assert int(output.lengths[row]) == len(given)


def test_a_canvas_without_a_mask_comes_back_as_it_is(make_model, make_sources):
    canvas = torch.tensor([[9, 8, 7, EOS], [6, EOS, PAD, PAD]])
    output = make_model().generate(
        **make_sources([3, 5]), decoder_input_ids=canvas, num_iterations=3, **FULL
    )
    assert output.sequences.tolist() == [[9, 8, 7], [6, PAD, PAD]]
    assert output.sequences_scores.tolist() == [0.0, 0.0]


def test_a_fully_masked_canvas_is_what_oracle_lengths_give(make_model, make_sources):
    model, sources = make_model(), make_sources([3, 9, 5])
    lengths = torch.tensor([4, 1, 11])
    canvas = torch.full((3, 11), MASK).masked_fill(torch.arange(11) >= lengths[:, None], PAD)
    by_canvas = model.generate(**sources, decoder_input_ids=canvas, num_iterations=4, **FULL)
    by_length = model.generate(**sources, target_lengths=lengths, num_iterations=4, **FULL)
    assert by_length.lengths.tolist() == lengths.tolist()
    assert by_canvas.sequences.equal(by_length.sequences)
    assert by_canvas.sequences_scores.equal(by_length.sequences_scores)


def test_several_oracle_lengths_are_candidates(make_model, make_sources):
    model, sources = make_model(seed=2), make_sources([3, 9])
    lengths = torch.tensor([[4, 6, 9], [2, 7, 3]])
    output = model.generate(**sources, target_lengths=lengths, **FULL)
    alone = [model.generate(**sources, target_lengths=column, **FULL) for column in lengths.t()]
    scores = torch.stack([result.sequences_scores for result in alone], dim=1)
    assert output.lengths.tolist() == lengths.gather(1, scores.argmax(1)[:, None])[:, 0].tolist()


def test_the_order_of_the_candidates_changes_nothing(make_model, make_sources):
    for seed in range(4):
        model = make_model(seed=seed, tie_word_embeddings=False).double()
        sources = make_sources([3, 9, 5], seed=seed)
        lengths = torch.tensor([[4, 6, 9, 1], [2, 7, 3, 12], [5, 8, 10, 6]])
        decoding = {"num_iterations": 3, "num_return_sequences": 4, **FULL}
        expected = model.generate(**sources, target_lengths=lengths, **decoding)
        assert len(set(expected.lengths[::4].tolist())) > 1
        for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
            found = model.generate(**sources, target_lengths=lengths[:, order], **decoding)
            assert found.lengths.equal(expected.lengths)
            assert found.sequences.equal(expected.sequences)
            for name in ("sequences_scores", "ranking_scores", "token_scores"):
                torch.testing.assert_close(found[name], expected[name])


def test_the_canvas_of_a_training_batch_is_ignored(make_model, make_sources):
    model, sources = make_model(), make_sources([3, 9])
    batch = {"labels": torch.tensor([[7, 8, 1], [9, 1, -100]])}
    batch["decoder_input_ids"] = torch.tensor([[MASK, 8, MASK, MASK], [MASK, MASK, PAD, PAD]])
    assert model.generate(**sources, **batch).equal(model.generate(**sources))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"decoder_input_ids": torch.ones(2, 3)}, "`decoder_input_ids` must be a tensor of token"),
        ({"decoder_input_ids": torch.full((3, 3), MASK)}, "batch of 2"),
        ({"decoder_input_ids": torch.full((2, 31), MASK)}, "31 positions .* 30"),
        ({"decoder_input_ids": torch.full((2, 3), 24)}, r"ids in \[0, 24\), got 24"),
        ({"decoder_input_ids": torch.tensor([[3, 0, 3], [3, 3, 3]])}, "behind the canvas's end"),
        ({"decoder_input_ids": torch.full((2, 3), PAD)}, "at least one position"),
        (
            {"decoder_input_ids": torch.full((2, 3), MASK), "num_length_candidates": 2},
            "one canvas of each sentence",
        ),
        (
            {"decoder_input_ids": torch.full((2, 3), MASK), "target_lengths": torch.tensor([3, 3])},
            "one canvas of each sentence",
        ),
        ({"target_lengths": torch.tensor([3.0, 4.0])}, "`target_lengths` must be integers"),
        ({"target_lengths": torch.tensor([3])}, "batch of 2"),
        ({"target_lengths": torch.tensor([0, 4])}, r"in \[1, 30\]"),
        ({"target_lengths": torch.tensor([31, 4])}, r"in \[1, 30\]"),
        ({"num_return_sequences": 2}, "`num_return_sequences` is 2, but .* 1 length candidate"),
        ({"num_return_sequences": 0}, "`num_return_sequences` must be an integer >= 1"),
        ({"schedule": "sine"}, "`schedule` must be one of linear, cosine, got 'sine'"),
        ({"confidence_threshold": 1.5}, "`confidence_threshold` must be a probability"),
        ({"confidence_threshold": 0.0}, "`confidence_threshold` must be a probability"),
        ({"temperature": 0.5}, "add do_sample=True"),
        ({"temperature": 0.0, "do_sample": True}, "`temperature` must be > 0"),
        ({"suppress_tokens": [99]}, r"`suppress_tokens` must hold ids in \[0, 24\)"),
        ({"suppress_tokens": ["the"]}, "`suppress_tokens` must be a list of token ids"),
        ({"suppress_tokens": list(range(24))}, "leave some to predict"),
        ({"no_repeat_ngram_size": 2}, "`collapse_repeats`"),
        ({"early_stopping": True}, "`early_stop`"),
        ({"bad_words_ids": [[7]]}, "`suppress_tokens`"),
        ({"rescore_with": (None, None)}, "no argument `rescore_with`.*axe_hf.translate"),
        ({"generator": torch.Generator()}, "add do_sample=True"),
        ({"early_stop": "no"}, "`early_stop` must be True or False, got 'no'"),
        ({"target_lengths": torch.tensor([5, 3]), "max_length": 4}, r"in \[1, 4\]"),
        ({"compile": True, "use_onednn": True}, "leave one of the two out"),
        (
            {"attention_mask": torch.ones(1, 9)},
            r"must be \(batch, source\) = \(2, 9\), got \(1, 9\)",
        ),
    ],
)
def test_wrong_arguments_are_refused_with_advice(make_model, make_sources, wrong, complaint):
    with pytest.raises((ValueError, TypeError), match=complaint):
        make_model().generate(**make_sources([3, 9]) | wrong)


def test_padding_in_front_of_a_sentence_is_refused(make_model, make_sources):
    sources = make_sources([3, 9])
    sources = {name: tensor.flip(1) for name, tensor in sources.items()}
    with pytest.raises(ValueError, match="in front of sentence 0.*padding_side"):
        make_model().generate(**sources)


def test_none_switches_a_saved_setting_off_where_none_is_a_value(make_model, make_sources):
    model, sources = make_model(seed=1), make_sources([1, 12, 30], seed=1)
    plain = model.generate(**sources, num_iterations=8, **FULL)
    model.generation_config.num_iterations = 8
    model.generation_config.confidence_threshold = 0.3
    model.generation_config.suppress_tokens = plain.sequences[0, :1].tolist()
    saved = model.generate(**sources, **FULL)
    assert saved.num_iterations.min() < 8 and not saved.sequences.equal(plain.sequences)
    off = {"confidence_threshold": None, "suppress_tokens": None}
    found = model.generate(**sources, **off, **FULL)
    assert found.sequences.equal(plain.sequences)
    assert found.num_iterations.tolist() == [8] * 3
    # what Trainers pass for "not given"
    assert model.generate(**sources, **off, num_iterations=None, max_length=None).equal(
        plain.sequences
    )
