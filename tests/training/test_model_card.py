"""The card: the Hub's metadata as its own library reads them, and only what happened."""

import json
from dataclasses import fields, replace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from axe_hf import (
    AxeTrainingArguments,
    CmlmConfig,
    DataArguments,
    ModelArguments,
    run_training,
)
from axe_hf.languages import hub_language
from axe_hf.training import ModelCardDetails, model_card_text
from axe_hf.training.model_card import hardware_of, minimal_card_text, teachers_of

SCORES = {"bleu": 31.256, "chrf": 55.0, "repetition_rate": 0.01, "length_ratio": 0.98}
SCORES |= {"bleu_signature": "nrefs:1|tok:13a", "chrf_signature": "nrefs:1|nc:6"}
SCORES |= {"samples_per_second": 12.34}
PLAIN = ModelCardDetails(
    "en-zh",
    CmlmConfig(),
    "en_XX",
    "zh_CN",
    dataset="me/pairs:big",
    scores={"test": SCORES},
    evaluated_on={"test": "test.tsv"},
    hardware="a processor, 2 threads, 8 at once",
)
KINDS = {
    "from scratch": {},
    "fine-tuned": {"base_model": "me/base", "license": "cc-by-4.0"},
    "warm-started": {"base_model": "Helsinki-NLP/opus-mt-en-zh", "is_warm_started": True},
    "an adapter": {"base_model": "me/base", "adapter": "LORA"},
    "of several directions": {"config": CmlmConfig(directions=["en-de", "de-en", "zh-CN:en"])},
    "exported": {"is_exported": True, "is_origin_known": False, "scores": {}, "dataset": None},
}


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_the_hubs_library_reads_every_card_and_writes_it_again(kind):
    text = model_card_text(replace(PLAIN, **KINDS[kind]))
    header = header_of(text)
    card = ModelCard(text, ignore_metadata_errors=False)
    assert card.data.pipeline_tag == "translation" and card.data.widget
    right = "peft" if kind == "an adapter" else "transformers"
    assert card.data.library_name == right
    for code in card.data.language:
        assert code in ("en", "zh", "de")
    assert card.data.to_dict() == header
    again = ModelCardData(**{**card.data.to_dict(), "model-index": header.get("model-index")})
    assert again.to_dict() == header
    relation = {"fine-tuned": "finetune", "warm-started": "finetune", "an adapter": "adapter"}
    assert header.get("base_model_relation") == relation.get(kind)
    assert header.get("base_model") == KINDS[kind].get("base_model")
    assert header.get("license") == KINDS[kind].get("license")
    assert ("Licence: none is stated" in text) == (kind != "fine-tuned")
    assert header.get("datasets") == (None if kind == "exported" else ["me/pairs"])


def test_the_scores_go_round_through_the_hubs_index(kind):
    details = replace(PLAIN, **KINDS[kind])
    header = header_of(model_card_text(details))
    if not details.scores:
        assert "model-index" not in header
        return
    name, results = model_index_to_eval_results(header["model-index"])
    assert name == "en-zh" and eval_results_to_model_index(name, results) == header["model-index"]
    found = {result.metric_type: result for result in results}
    assert (found["bleu"].metric_value, found["chrf"].metric_value) == (31.26, 55.0)
    assert found["bleu"].metric_name == "nrefs:1|tok:13a"
    assert (found["bleu"].dataset_name, found["bleu"].dataset_split) == ("test.tsv", "test")


def test_each_direction_has_scores_of_its_own_and_the_code_names_a_target():
    scores = dict(SCORES)
    for number, name in enumerate(("en-de", "de-en")):
        scores |= {f"{name}_{score}": value for score, value in SCORES.items()}
        scores[f"{name}_bleu"] = 20.0 + number
    config = CmlmConfig(directions=["en-de", "de-en", "fr-en"])
    several = replace(PLAIN, config=config, source_lang=None, target_lang=None)
    text = model_card_text(replace(several, scores={"test": scores}))
    header = header_of(text)
    name, results = model_index_to_eval_results(header["model-index"])
    assert eval_results_to_model_index(name, results) == header["model-index"]
    bleu = {r.task_name: r.metric_value for r in results if r.metric_type == "bleu"}
    assert bleu == {"Translation en-de": 20.0, "Translation de-en": 21.0}
    assert "| test, en-de | 20.00 | 55.00 |" in text and "31.26" not in text
    assert 'translate(model, tokenizer, ["A sentence."], target_lang="de")' in text
    assert 'tokenizer([">>de<< A sentence."]' in text


@pytest.mark.parametrize(
    ("code", "right"),
    [("zh_CN", "zh"), ("en_XX", "en"), ("eng_Latn", "eng"), ("deu", "deu"), ("pt-BR", "pt")]
    + [("EN", "en"), ("source", None), ("", None), (None, None), ("12", None)],
)
def test_languages_are_written_as_the_hub_has_them(code, right):
    assert hub_language(code) == right


def test_what_is_offered_to_try_speaks_the_source_and_names_the_target():
    several = replace(PLAIN, config=CmlmConfig(directions=["en-de", "de-en", "fi-en"]))
    texts = [row["text"] for row in header_of(model_card_text(several))["widget"]]
    assert texts == [">>de<< Good morning. How are you?", ">>en<< Guten Morgen. Wie geht es Ihnen?"]
    text = model_card_text(replace(PLAIN, source_lang="fi"))
    assert "widget" not in header_of(text)


def test_the_speed_is_told_with_hardware_and_what_it_includes():
    text = model_card_text(PLAIN)
    assert "12.3 sentences a second on a processor, 2 threads, 8 at once" in text
    assert "translating alone is faster" in text
    assert "sentences a second" not in model_card_text(replace(PLAIN, hardware=None))
    assert hardware_of(torch.device("cpu")).endswith(f"{torch.get_num_threads()} threads")


def test_a_folder_of_which_nobody_told_claims_nothing(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    text = minimal_card_text("me/model", make_model().config, tmp_path, False)
    assert "How it was trained is not stated" in text and "Trained from scratch" not in text
    assert "It was trained with" not in text and "None" not in text
    assert header_of(text).keys() == {"library_name", "pipeline_tag", "tags"}


@pytest.fixture
def distilled(pairs, tmp_path):
    """A folder as `axe-hf distill` leaves it."""
    folder = tmp_path / "distilled"
    (folder / "data").mkdir(parents=True)
    rows = "".join(json.dumps(pair) + "\n" for pair in pairs[:40])
    (folder / "data" / "train-00000-of-00001.jsonl").write_text(rows, encoding="utf-8")
    plan = {"teacher": "Helsinki-NLP/opus-mt-en-de", "commit": "abc", "engine": "transformers"}
    summary = {"plan": plan | {"generation": {"num_beams": 5}}, "data": ["news.tsv"]}
    (folder / "distillation.json").write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize("part", ["", "data", "data/train-00000-of-00001.jsonl"])
def test_the_teacher_of_distilled_data_is_found(distilled, part):
    (found,) = teachers_of([str(distilled / part)] * 2)
    assert found["teacher"] == "Helsinki-NLP/opus-mt-en-de" and found["data"] == "news.tsv"
    assert teachers_of(["nowhere", str(distilled.parent)]) == []
    (distilled / "distillation.json").write_text("{")
    assert teachers_of([str(distilled)]) == []


def test_the_teacher_of_a_distilled_data_set_on_the_hub_is_found(distilled, hub):
    from hub_server import Repository

    summary = (distilled / "distillation.json").read_bytes()
    for name, files in {"me/distilled": {"distillation.json": summary}, "me/other": {}}.items():
        hub.repositories[name] = Repository()
        hub.repositories[name].commit("main", files, "initial commit")
    (found,) = teachers_of(["me/distilled:default"])
    assert found["teacher"] == "Helsinki-NLP/opus-mt-en-de"
    assert teachers_of(["me/other", "me/none"]) == []


def test_a_run_tells_its_teacher_test_data_speed_and_pushes_it_when_scored(
    distilled, pairs, tmp_path, hub
):
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs[40:]))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    data = {"source_lang": "en", "target_lang": "de", "vocab_size": 300}
    data |= {"train_file": str(distilled), "test_file": str(tmp_path / "test.jsonl")}
    training = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    training |= {"output_dir": str(tmp_path / "out"), "push_to_hub": True}
    given = sizes | data | training | {"hub_model_id": "me/en-de"}
    parsed = []
    for of in (ModelArguments, DataArguments, AxeTrainingArguments):
        names = {f.name for f in fields(of)}
        parsed.append(of(**{k: v for k, v in given.items() if k in names}))
    result = run_training(*parsed)
    pushed = hub.files("me/en-de")["README.md"].decode()
    assert hub.repositories["me/en-de"].titles[1:] == ["End of training"]
    assert pushed == (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    card = ModelCard(pushed)
    (first, *_) = card.data.eval_results
    assert first.dataset_name == "test.jsonl" and card.data.language == ["en", "de"]
    assert first.metric_value == round(result.metrics["test_bleu"], 2)
    for text in (
        "targets were written by `Helsinki-NLP/opus-mt-en-de` at `abc`",
        "from the sources of news.tsv",
        f"{result.metrics['test_samples_per_second']:.1f} sentences a second",
        "Trained from scratch",
        'from_pretrained("me/en-de", trust_remote_code=True)',
    ):
        assert text in card.text, text
    assert str(tmp_path) not in pushed
