import json
import re

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from axe_hf import CmlmForConditionalGeneration, MaskPredictGenerationConfig, MaskPredictOutput
from axe_hf.cmlm.configuration_mask_predict import SETTINGS
from axe_hf.cmlm.generation_cmlm import kept_tokens

PAD, EOS, UNK, MASK, BLANK = range(5)


class FixedHead(torch.nn.Module):
    """In place of the output projection: the same scores at every position."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, hidden_states):
        logits = torch.zeros(*hidden_states.shape[:-1], 24, dtype=hidden_states.dtype)
        for token, score in self.scores.items():
            logits[..., token] = score
        return logits


def test_pad_and_mask_are_never_predicted(make_model, make_sources):
    model = make_model()
    model.lm_head = FixedHead({PAD: 9.0, MASK: 8.0, 17: 5.0})
    output = model.generate(
        **make_sources([3, 5]), num_iterations=3, max_length=4, min_length=4, output_scores=None
    )
    assert output.tolist() == [[17] * 4] * 2


@pytest.mark.parametrize("token", [EOS, BLANK])
def test_blanks_and_ends_are_removed_though_nothing_else_be_left(make_model, make_sources, token):
    model = make_model()
    model.lm_head = FixedHead({token: 9.0})
    output = model.generate(**make_sources([3, 5]), return_dict_in_generate=True)
    assert (output.sequences == PAD).all() and output.sequences.shape[0] == 2
    assert (output.token_scores == 0).all()


def test_runs_of_one_token_stay_unless_told_otherwise(make_model, make_sources):
    model = make_model()
    model.lm_head = FixedHead({17: 5.0})
    fixed_length = {"min_length": 6, "max_length": 6}
    assert model.generate(**make_sources([3]), **fixed_length).tolist() == [[17] * 6]
    collapsed = model.generate(**make_sources([3]), **fixed_length, collapse_repeats=True)
    assert collapsed.tolist() == [[17]]


@pytest.mark.parametrize("is_allowed", [True, False])
def test_runs_are_collapsed_by_models_trained_with_repetition(
    make_model, make_sources, is_allowed, tmp_path
):
    model = make_model(allow_repetition=is_allowed)
    model.lm_head = FixedHead({17: 5.0})
    sources, length = make_sources([3]), {"min_length": 6, "max_length": 6}
    expected = {True: [[17]], False: [[17] * 6]}
    assert model.generation_config.collapse_repeats is None
    assert model.generate(**sources, **length).tolist() == expected[is_allowed]
    given = model.generate(**sources, **length, collapse_repeats=not is_allowed)
    assert given.tolist() == expected[not is_allowed]
    assert (
        model.generate(**sources, **length, collapse_repeats=None).tolist()
        == (expected[is_allowed])
    )
    # A generation config that says so, as those saved before there was repetition, has the word.
    model.generation_config = MaskPredictGenerationConfig(collapse_repeats=not is_allowed)
    assert model.generate(**sources, **length).tolist() == expected[not is_allowed]


@pytest.mark.parametrize("is_allowed", [True, False])
@pytest.mark.parametrize("saved", [{"collapse_repeats": False}, {}])
def test_settings_saved_before_there_was_repetition_mean_what_they_meant(
    make_model, make_sources, tmp_path, is_allowed, saved
):
    make_model(allow_repetition=is_allowed).save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    settings = json.loads(path.read_text())
    assert settings.pop("collapse_repeats") is None
    path.write_text(json.dumps(settings | saved))
    model = CmlmForConditionalGeneration.from_pretrained(tmp_path)
    model.lm_head = FixedHead({17: 5.0})
    found = model.generate(**make_sources([3]), min_length=4, max_length=4).tolist()
    assert found == ([[17]] if is_allowed and not saved else [[17] * 4])


def test_a_blank_keeps_both_of_two_equal_tokens_and_a_run_its_best_score(make_config):
    tokens = torch.tensor([[7, 7, BLANK, 7, 9, 9, 9, EOS, EOS, PAD], [BLANK] * 4 + [8] * 6])
    log_probs = torch.tensor([[-3, -1, -9, -4, -2, -5, 0, -1, -6, 0]] * 2).float()
    kept, scores = kept_tokens(tokens, log_probs, make_config(), True)
    assert kept.tolist() == [[7, 7, 9], [8, PAD, PAD]]
    assert scores.tolist() == [[-1, -4, 0], [0, 0, 0]]
    kept, scores = kept_tokens(tokens, log_probs, make_config(), False)
    assert kept[0].tolist() == [7, 7, 7, 9, 9, 9]
    assert scores[0].tolist() == [-3, -1, -4, -2, -5, 0]


def test_without_asking_there_is_no_history(make_model, make_sources):
    output = make_model().generate(**make_sources([6]), return_dict_in_generate=True)
    assert isinstance(output, MaskPredictOutput) and output.history is None
    assert output.num_iterations.tolist() == [1]
    assert output.token_scores.shape == output.sequences.shape
    assert (output.token_scores <= 0).all()


def test_more_candidates_never_lower_the_score(make_model, make_sources):
    model, sources = make_model(seed=8), make_sources([6, 20, 2, 9], seed=8)
    scores = [
        model.generate(
            **sources,
            num_length_candidates=k,
            length_score_weight=0.0,
            num_iterations=1,
            return_dict_in_generate=True,
        ).sequences_scores
        for k in (1, 3, 30)
    ]
    assert (scores[0] <= scores[1] + 1e-6).all() and (scores[1] <= scores[2] + 1e-6).all()


def test_the_length_score_weighs_in_as_documented(make_model, make_sources):
    model, sources = make_model(seed=9), make_sources([6, 20, 2, 9], seed=9)
    output = model.generate(
        **sources,
        num_length_candidates=30,
        length_score_weight=1e6,
        return_dict_in_generate=True,
    )
    length_logits = model.get_encoder()(**sources).length_logits
    assert output.lengths.tolist() == length_logits.argmax(dim=1).tolist()


def test_lengths_keep_within_their_bounds(make_model, make_sources):
    model, sources = make_model(seed=1), make_sources([6, 20, 2, 9], seed=1)
    bounds = {"min_length": 7, "max_length": 9, "return_dict_in_generate": True}
    for length_multiplier in (0.1, 1.0, 10.0):
        output = model.generate(**sources, **bounds, length_multiplier=length_multiplier)
        assert output.lengths.min() >= 7 and output.lengths.max() <= 9


def test_the_multiplier_is_the_configs_where_no_setting_says_otherwise(
    make_model, make_sources, tmp_path
):
    sources = make_sources([6, 20, 2, 9], seed=1)
    model = make_model(seed=1, masking="full", length_multiplier=1.4)
    assert model.generation_config.length_multiplier == 1.4
    expected = model.generate(**sources, return_dict_in_generate=True).lengths
    plain = model.generate(**sources, return_dict_in_generate=True, length_multiplier=1.0).lengths
    assert expected.tolist() == (plain * 1.4).round().long().clamp(max=30).tolist()
    model.generation_config = MaskPredictGenerationConfig(num_iterations=2)
    assert model.generation_config.length_multiplier is None
    assert model.generate(**sources, return_dict_in_generate=True).lengths.equal(expected)
    model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    saved = json.loads(path.read_text())
    assert saved.pop("length_multiplier") is None
    for auto_class in (CmlmForConditionalGeneration, AutoModelForSeq2SeqLM):
        assert auto_class.from_pretrained(tmp_path).generation_config.length_multiplier == 1.4
        path.write_text(json.dumps(saved))  # and where the file says nothing of it
    model.generation_config.length_multiplier = 0.5  # decoding may differ where it says so
    assert model.generate(**sources, return_dict_in_generate=True).lengths.lt(expected).all()


# Settings


def test_settings_survive_save_and_load_through_every_class(make_model, tmp_path):
    model = make_model()
    settings = {
        "num_iterations": 7,
        "num_length_candidates": 4,
        "length_multiplier": 1.1,
        "length_score_weight": 0.2,
        "schedule": "cosine",
        "confidence_threshold": 0.9,
        "early_stop": True,
        "collapse_repeats": True,
        "output_history": True,
        "compile": True,
        "use_onednn": False,
        "do_sample": True,
        "temperature": 0.7,
        "suppress_tokens": [7, 9],
        "num_return_sequences": 2,
        "output_scores": True,
        "return_dict_in_generate": True,
        "min_length": 2,
        "max_length": 20,
    }
    # `compile_config` is the one that Transformers never saves.
    assert set(settings) == {*SETTINGS} - {"compile_config"}
    defaults = vars(MaskPredictGenerationConfig())
    assert all(value != defaults[name] for name, value in settings.items())
    model.generation_config = MaskPredictGenerationConfig(pad_token_id=PAD, **settings)
    model.save_pretrained(tmp_path / "once")
    for auto_class in (CmlmForConditionalGeneration, AutoModelForSeq2SeqLM):
        loaded = auto_class.from_pretrained(tmp_path / "once")
        loaded.save_pretrained(tmp_path / "twice")
        loaded = auto_class.from_pretrained(tmp_path / "twice")
        assert type(loaded.generation_config) is MaskPredictGenerationConfig
        found = {name: getattr(loaded.generation_config, name) for name in settings}
        assert found == settings
        assert loaded.generation_config.pad_token_id == PAD
    standalone = MaskPredictGenerationConfig.from_pretrained(tmp_path / "twice")
    assert {name: getattr(standalone, name) for name in settings} == settings


def test_saved_settings_are_used_and_single_ones_overridden(make_model, make_sources, tmp_path):
    model, sources = make_model(seed=2), make_sources([6, 20, 2], seed=2)
    expected = model.generate(**sources, num_iterations=4, num_length_candidates=3)
    model.generation_config.num_iterations = 4
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert loaded.generate(**sources, num_length_candidates=3).equal(expected)
    output = loaded.generate(**sources, num_iterations=2, return_dict_in_generate=True)
    assert output.num_iterations.tolist() == [2, 2, 2]
    assert loaded.generation_config.num_iterations == 4


def test_the_saved_settings_hold_nothing_autoregressive(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    stray = {"num_beams", "top_k", "temperature", "do_sample", "length_penalty", "use_cache"}
    assert not stray & set(saved)


def test_seq2seq_trainer_leaves_the_settings_as_they_were(make_model, make_sources, tmp_path):
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    model, sources = make_model(), make_sources([6, 20, 2])
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([7, 8, 9, 1])}
        for ids, mask in zip(*sources.values(), strict=True)
    ]
    model.generation_config.num_iterations = 3
    before = model.generation_config.to_diff_dict()
    arguments = Seq2SeqTrainingArguments(
        tmp_path, predict_with_generate=True, use_cpu=True, report_to="none", disable_tqdm=True
    )
    trainer = Seq2SeqTrainer(model, arguments, eval_dataset=rows)
    predictions = trainer.predict(rows).predictions
    after = model.generation_config.to_diff_dict()
    assert len(predictions) == 3
    assert after == before


def test_a_plain_generation_config_is_taken_too(make_model, make_sources):
    model, sources = make_model(seed=2), make_sources([6, 20, 2], seed=2)
    config = MaskPredictGenerationConfig(num_iterations=3)
    expected = model.generate(**sources, num_iterations=3)
    assert model.generate(**sources, generation_config=config).equal(expected)
    assert model.generate(**sources, generation_config=GenerationConfig(max_length=9)).shape[1] <= 9


def test_generate_does_not_write_to_the_settings_it_was_given(make_model, make_sources):
    config = MaskPredictGenerationConfig(num_iterations=3)
    before = config.to_dict()
    make_model().generate(**make_sources([6]), generation_config=config, max_length=5)
    assert config.to_dict() == before


def test_what_the_trainer_and_pipelines_pass_is_swallowed(make_model, make_sources):
    model, sources = make_model(), make_sources([6, 2])
    labels = torch.tensor([[7, 1], [8, 1]])
    passed = {"labels": labels, "synced_gpus": False, "num_beams": 1, "use_cache": True}
    expected = model.generate(**sources)
    assert model.generate(**sources, **passed).equal(expected)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"num_beams": 5}, "`num_beams` .*`num_length_candidates`"),
        ({"max_new_tokens": 10}, "`max_new_tokens` .*`max_length`"),
        ({"length_penalty": 0.6}, "`length_penalty` .*`length_multiplier`"),
        ({"past_key_values": ()}, "`past_key_values`"),
        ({"temperature": 0.7}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"repetition_penalty": 2.0}, "repetition_penalty"),
        ({"decoding_iterations": 3}, "no argument `decoding_iterations`.*num_iterations"),
        ({"num_iterations": 0}, "`num_iterations` must be an integer >= 1, got 0"),
        ({"num_iterations": 2.0}, "`num_iterations` must be an integer >= 1, got 2.0"),
        ({"num_iterations": True}, "`num_iterations` must be an integer >= 1, got True"),
        ({"num_length_candidates": "5"}, "`num_length_candidates` must be an integer >= 1"),
        ({"length_multiplier": 0.0}, "`length_multiplier` must be > 0, got 0.0"),
        ({"length_multiplier": "1"}, "`length_multiplier` must be"),
        ({"length_multiplier": float("nan")}, "`length_multiplier` must be"),
        ({"length_score_weight": "1"}, "`length_score_weight` must be"),
        ({"max_length": 0}, "`max_length`"),
        ({"min_length": 9, "max_length": 8}, "`min_length` 9 is over `max_length` 8"),
        ({"min_length": -1}, "`min_length` must be >= 0, got -1"),
    ],
)
def test_wrong_settings_are_refused_with_advice(make_model, make_sources, wrong, complaint):
    with pytest.raises((ValueError, TypeError), match=complaint):
        make_model().generate(**make_sources([6]), **wrong)


@pytest.mark.parametrize("too_long", [31, 128])
def test_an_upper_bound_over_the_limit_is_the_limit_with_a_warning(
    make_model, make_sources, too_long, caplog
):
    model, sources = make_model(), make_sources([6, 9])
    expected = model.generate(**sources)
    assert torch.equal(model.generate(**sources, max_length=too_long), expected)
    assert f"`max_length` is {too_long} but `config.max_target_length` = 30" in caplog.text
    model.generation_config.max_length = too_long
    assert torch.equal(model.generate(**sources), expected)


def test_a_source_is_needed(make_model):
    with pytest.raises(ValueError, match="`input_ids` .* or `encoder_outputs`"):
        make_model().generate()


def test_a_source_that_is_too_long_is_refused(make_model, make_sources):
    with pytest.raises(ValueError, match="41 positions but `config.max_source_length` is 40"):
        make_model().generate(**make_sources([41]))


def test_transformers_knows_that_the_model_generates(make_model):
    assert make_model().can_generate()


def test_an_empty_batch_is_refused(make_model):
    empty = torch.zeros(0, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"at least one token, got \(0, 3\)"):
        make_model().generate(empty)


@pytest.mark.parametrize(
    ("ignored", "complaint"),
    [
        ({"top_k": 1}, "`top_k` has no meaning"),
        ({"top_p": 0.1}, "`top_p` has no meaning"),
        ({"repetition_penalty": 5.0}, "`repetition_penalty` has no meaning"),
        ({"num_iteration": 7}, "no setting `num_iteration`. Is it `num_iterations`"),
        ({"num_beams": 4}, "`num_length_candidates`"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(ignored, complaint):
    with pytest.raises(ValueError, match=complaint):
        MaskPredictGenerationConfig(**ignored)


@pytest.mark.parametrize(
    "neutral",
    [{"num_beams": 1}, {"length_penalty": 1}, {"top_k": 50}, {"top_p": 1.0}, {"use_cache": True}],
    ids=str,
)
def test_settings_that_change_nothing_are_accepted(neutral):
    assert MaskPredictGenerationConfig(**neutral).num_iterations == 1


def test_encoder_outputs_that_are_none_are_refused(make_model, make_sources):
    model = make_model()
    with pytest.raises(ValueError, match="of at least one sentence, got tuple"):
        model.generate(encoder_outputs=(torch.zeros(1, 2, 16),))
    outputs = model.get_encoder()(**make_sources([3]))
    outputs.last_hidden_state = outputs.last_hidden_state[:0]
    with pytest.raises(ValueError, match="of at least one sentence"):
        model.generate(encoder_outputs=outputs)


BROKEN_SETTINGS = {
    "half an object": b"{",
    "no text": b"\xff\xfe\x00",
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "a word in place of a number": b'{"num_iterations": "four"}',
    "out of range": b'{"length_multiplier": -1}',
    "another model's": b'{"num_beams": 5}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN_SETTINGS.values(), ids=BROKEN_SETTINGS)
def test_a_generation_config_that_is_broken_is_named_and_not_ignored(make_model, tmp_path, content):
    make_model().save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_bytes(content)
    for name in (str(tmp_path), tmp_path):
        with pytest.raises(ValueError, match=re.escape(str(file))):
            CmlmForConditionalGeneration.from_pretrained(name)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path.parent, subfolder=tmp_path.name)


def test_a_generation_config_that_cannot_be_read_is_named(make_model, tmp_path, monkeypatch):
    make_model().save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match=re.escape(str(file))):
        CmlmForConditionalGeneration.from_pretrained(tmp_path)
    file.rmdir()
    file.symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=re.escape(str(file))):
        CmlmForConditionalGeneration.from_pretrained(tmp_path)


def test_only_where_there_is_no_generation_config_the_models_own_settings_hold(
    make_model, tmp_path
):
    make_model().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    try:
        raise OSError("another problem, which the caller is handling")
    except OSError:
        loaded = CmlmForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.generation_config.max_length == loaded.config.max_target_length


@pytest.mark.parametrize("num_iterations", [1001, 10**9, 10**30])
def test_passes_without_end_are_refused(make_model, make_sources, num_iterations):
    sources = make_sources([3])
    with pytest.raises(
        ValueError, match=f"`num_iterations` must be at most 1000, got {num_iterations}"
    ):
        make_model().generate(**sources, num_iterations=num_iterations)
    with pytest.raises(ValueError, match="`num_iterations` must be at most 1000"):
        MaskPredictGenerationConfig(num_iterations=num_iterations)
    assert make_model().generate(**sources, num_iterations=1000, early_stop=True).shape[0] == 1
