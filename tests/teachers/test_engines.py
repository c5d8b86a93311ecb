"""Greedy search through both engines, for each architecture that CTranslate2 knows."""

import json

import pytest
import torch

import axe_hf

KINDS = ["bart", "t5", "mbart", "nllb", "m2m100"]
CODES = {
    "mbart": {"teacher_source_lang": "en_XX", "teacher_target_lang": "de_DE"},
    "nllb": {"teacher_source_lang": "eng_Latn", "teacher_target_lang": "deu_Latn"},
}


def rows_of(folder):
    (file,) = folder.glob("data/train-*.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_say_the_same_and_score_it_alike(make_teacher, pairs_file, tmp_path, kind):
    pytest.importorskip("ctranslate2")
    model, tokenizer = make_teacher(kind)
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer": tokenizer, "num_beams": 1}
    settings |= CODES.get(kind, {})
    if kind == "bart":  # as it is published: its texts are cut one token earlier
        settings["generation"] = {"forced_eos_token_id": tokenizer.eos_token_id}
    for engine in ("transformers", "ctranslate2"):
        axe_hf.distill(model, pairs_file, tmp_path / engine, engine=engine, **settings)
    ours, theirs = rows_of(tmp_path / "transformers"), rows_of(tmp_path / "ctranslate2")
    assert [row["translation"] for row in ours] == [row["translation"] for row in theirs]
    assert len({row["translation"]["de"] for row in ours}) > 10
    scores = [torch.tensor([row["score"] for row in rows]) for rows in (ours, theirs)]
    torch.testing.assert_close(*scores, rtol=0, atol=2e-4)


def test_marian_with_its_padding_first_is_the_same_through_both(
    marian, tokenizer, pairs_file, tmp_path
):
    pytest.importorskip("ctranslate2")
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer": tokenizer}
    for engine in ("transformers", "ctranslate2"):
        axe_hf.distill(marian, pairs_file, tmp_path / engine, engine=engine, **settings)
    ours, theirs = rows_of(tmp_path / "transformers"), rows_of(tmp_path / "ctranslate2")
    assert [row["translation"] for row in ours] == [row["translation"] for row in theirs]
    axe_hf.distill(
        marian,
        pairs_file,
        tmp_path / "int8",
        engine="ctranslate2",
        int8=True,
        num_beams=3,
        **settings,
    )
    assert len(rows_of(tmp_path / "int8")) > 40


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
@pytest.mark.parametrize("longest", [{"max_new_tokens": 6}, {"generation": {"max_length": 6}}])
def test_an_end_that_a_teacher_is_made_to_say_finishes_nothing(
    marian, tokenizer, pairs_file, tmp_path, engine, longest
):
    """OPUS-MT, BART and mBART say `</s>` in the last place, whatever they think."""
    if engine == "ctranslate2":
        pytest.importorskip("ctranslate2")
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer": tokenizer, "num_beams": 1}
    settings |= {"engine": engine, "drop_unfinished": True} | longest
    counts = []
    for end in (tokenizer.eos_token_id, None):
        own = {"forced_eos_token_id": end} | longest.get("generation", {})
        given = settings | {"generation": own}
        counts.append(axe_hf.distill(marian, pairs_file, tmp_path / str(end), **given).counts)
    forced, free = counts
    assert forced["unfinished"] >= free["unfinished"] > 0 < forced["kept"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generation": {"do_sample": True}}, "nothing that repeats exactly do_sample=True"),
        ({"generation": {"num_beam_groups": 2}}, "num_beam_groups=2"),
        ({"dtype": "float16"}, "`engine`: CTranslate2 has no float16 on this cpu"),
    ],
)
def test_what_ctranslate2_cannot_do_is_refused(teacher, pairs_file, tmp_path, settings, message):
    pytest.importorskip("ctranslate2")
    settings = {"source_lang": "en", "target_lang": "de", "engine": "ctranslate2"} | settings
    with pytest.raises(ValueError, match=message):
        axe_hf.distill(teacher, pairs_file, tmp_path / "out", **settings)


def test_an_architecture_that_does_not_convert_is_named(tokenizer, pairs_file, tmp_path):
    pytest.importorskip("ctranslate2")
    from transformers import BlenderbotConfig, BlenderbotForConditionalGeneration

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    sizes |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1, "bos_token_id": 1}
    config = BlenderbotConfig(vocab_size=len(tokenizer), **sizes, **ids)
    model = BlenderbotForConditionalGeneration(config)
    model.generation_config.encoder_no_repeat_ngram_size = None
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer": tokenizer}
    advice = 'No conversion is registered .* Take `engine="transformers"`'
    with pytest.raises(ValueError, match=f"BlenderbotFor.* does not convert .*{advice}"):
        axe_hf.distill(model, pairs_file, tmp_path / "out", engine="ctranslate2", **settings)
