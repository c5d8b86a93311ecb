"""Sampling, several results of a sentence, and streamers."""

import pytest
import torch

from axe_hf.cmlm import mask_predict

PAD, EOS, UNK, MASK, BLANK = range(5)
FULL = {"return_dict_in_generate": True}


def test_sampling_repeats_with_its_seed_and_differs_with_another(make_model, make_sources):
    model, sources = make_model(seed=3, init_std=0.2), make_sources([9] * 8)

    def sample(seed, **settings):
        generator = torch.Generator().manual_seed(seed)
        decoding = {"do_sample": True, "min_length": 9, "num_iterations": 3, **settings}
        return model.generate(**sources, **decoding, generator=generator)

    assert sample(0).equal(sample(0))
    assert not sample(0).equal(sample(1))
    cold = sample(0, temperature=1e-4)
    assert cold.equal(model.generate(**sources, min_length=9, num_iterations=3))


def test_sampled_tokens_follow_the_tempered_distribution_and_keep_their_own_score():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 5.0])
    choice = mask_predict.TokenChoice(
        never=(4,), temperature=2.0, generator=torch.Generator().manual_seed(0)
    )
    head = torch.nn.Linear(1, 5, bias=False)
    with torch.no_grad():
        head.weight.copy_(logits[:, None])
        tokens, log_probs = mask_predict.TokenPredictor(head, 5, choice)(torch.ones(40_000, 1))
    shares = torch.bincount(tokens, minlength=5) / len(tokens)
    expected = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    torch.testing.assert_close(shares, (expected / 2).softmax(0), atol=0.01, rtol=0)
    torch.testing.assert_close(log_probs, expected.log_softmax(0)[tokens])


def test_the_best_candidates_come_back_in_order(make_model, make_sources):
    model, sources = make_model(seed=4), make_sources([3, 9, 5])
    decoding = {"num_length_candidates": 5, "num_iterations": 2, "output_history": True, **FULL}
    several = model.generate(**sources, **decoding, num_return_sequences=3)
    one = model.generate(**sources, **decoding)
    assert several.sequences.shape[0] == len(several.lengths) == 9
    scores = several.ranking_scores.view(3, 3)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert scores[:, 0].equal(one.ranking_scores)
    width = one.sequences.shape[1]
    assert several.sequences.view(3, 3, -1)[:, 0, :width].equal(one.sequences)
    assert several.history["tokens"].shape[1] == 9
    assert all(len(set(row)) == 3 for row in several.lengths.view(3, 3).tolist())


@pytest.mark.parametrize("collapse_repeats", [True, False])
def test_different_outputs_come_before_those_that_were_there_already(
    make_model, make_sources, collapse_repeats
):
    model, sources = make_model(seed=4), make_sources([3, 9, 5, 7, 8, 2])
    decoding = {"num_length_candidates": 8, "collapse_repeats": collapse_repeats, **FULL}
    every = model.generate(**sources, **decoding, num_return_sequences=8)
    num_repeated = 0
    for row in range(6):
        part = slice(8 * row, 8 * row + 8)
        outputs = [tuple(ids) for ids in every.sequences[part].tolist()]
        scores, num_distinct = every.ranking_scores[part], len(set(outputs))
        assert len(set(outputs[:num_distinct])) == num_distinct
        for group in (scores[:num_distinct], scores[num_distinct:]):
            assert group.equal(group.sort(descending=True).values)
        for i, output in enumerate(outputs[num_distinct:], start=num_distinct):
            assert scores[outputs.index(output)] >= scores[i]
        num_repeated += 8 - num_distinct
    assert num_repeated > 0  # blanks, too, leave nothing to tell canvases apart by
    three = model.generate(**sources, **decoding, num_return_sequences=3)
    width = three.sequences.shape[1]
    expected = every.sequences.view(6, 8, -1)[:, :3].flatten(0, 1)
    assert three.sequences.equal(expected[:, :width]) and (expected[:, width:] == PAD).all()
    best = model.generate(**sources, **decoding)
    assert best.ranking_scores.equal(every.ranking_scores[::8])


# Streaming


class RecordingStreamer:
    def __init__(self):
        self.events = []

    def put(self, value):
        self.events.append(("put", value.tolist()))

    def put_draft(self, value):
        self.events.append(("draft", value.tolist()))

    def end(self):
        self.events.append(("end", None))


def test_a_streamer_sees_every_pass_and_the_translation(make_model, make_sources):
    model, sources, streamer = make_model(seed=5), make_sources([9]), RecordingStreamer()
    decoding = {"num_iterations": 4, "target_lengths": torch.tensor([8])}
    sequence = model.generate(**sources, **decoding, streamer=streamer)
    kinds = [kind for kind, _ in streamer.events]
    assert kinds == ["put", "draft", "draft", "draft", "draft", "put", "end"]
    drafts = [value[0] for kind, value in streamer.events if kind == "draft"]
    assert [draft.count(MASK) for draft in drafts] == [6, 4, 2, 0]
    assert drafts[-1] == streamer.events[-2][1][0] == sequence[0].tolist()
    assert streamer.events[0] == ("put", [[]])


@pytest.mark.parametrize("length_score_weight", [0.0, 0.3])
def test_the_last_draft_is_the_translation(make_model, make_sources, length_score_weight):
    for seed in range(10):
        streamer = RecordingStreamer()
        sequence = make_model(seed=seed, tie_word_embeddings=False).generate(
            **make_sources([9], seed=seed),
            num_iterations=2,
            num_length_candidates=6,
            length_score_weight=length_score_weight,
            streamer=streamer,
        )
        assert streamer.events[-3] == ("draft", sequence.tolist())


def test_drafts_are_collapsed_as_the_translation_is(make_model, make_sources):
    for seed in range(5):
        streamer = RecordingStreamer()
        model = make_model(seed=seed, allow_repetition=True)
        sequence = model.generate(
            **make_sources([9], seed=seed),
            num_iterations=3,
            target_lengths=torch.tensor([12]),
            streamer=streamer,
        )
        drafts = [value[0] for kind, value in streamer.events if kind == "draft"]
        assert drafts[-1] == sequence[0].tolist()
        for draft in drafts:
            assert len(draft) <= 12


def test_transformers_own_streamers_work(make_model, make_sources, capsys):
    from transformers import TextStreamer
    from transformers.generation.streamers import TextDiffusionStreamer

    from axe_hf import train_tokenizer

    tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
    model = make_model(vocab_size=len(tokenizer))
    sources = make_sources([5], vocab_size=len(tokenizer))
    text = tokenizer.decode(model.generate(**sources)[0], skip_special_tokens=True)
    for streamer_class in (TextStreamer, TextDiffusionStreamer):
        for skip_prompt in (False, True):
            streamer = streamer_class(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
            model.generate(**sources, streamer=streamer)
            assert text in capsys.readouterr().out
    with pytest.raises(ValueError, match="one sentence, got a batch of 2"):
        model.generate(**make_sources([5, 3], vocab_size=90), streamer=TextStreamer(tokenizer))
