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
    for engine in ("transformers", "ctranslate2"):
        axe_hf.distill(model, pairs_file, tmp_path / engine, engine=engine, **settings)
    ours, theirs = rows_of(tmp_path / "transformers"), rows_of(tmp_path / "ctranslate2")
    assert [row["translation"] for row in ours] == [row["translation"] for row in theirs]
    assert len({row["translation"]["de"] for row in ours}) > 10
    scores = [torch.tensor([row["score"] for row in rows]) for rows in (ours, theirs)]
    torch.testing.assert_close(*scores, rtol=0, atol=2e-4)
