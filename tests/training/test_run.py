import json
import math
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GPT2Config,
    HfArgumentParser,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
)
from transformers.trainer_utils import EvalPrediction

from axe_hf import (
    AxeTrainer,
    AxeTrainingArguments,
    CmlmConfig,
    TranslationMetric,
    train_tokenizer,
    translate,
)
from axe_hf.training import (
    DataArguments,
    ModelArguments,
    ModelCardDetails,
    model_card_text,
    run_training,
)

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}


@pytest.fixture
def files(pairs, tmp_path):
    """Paths of train, validation and test files; the last has references and a long pair."""
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation", "test")}
    rows = {"train": pairs[:40], "validation": pairs[40:50], "test": [dict(p) for p in pairs[50:]]}
    rows["test"][0] = {"translation": {"en": "one " * 30, "de": "eins " * 30}}
    for row in rows["test"]:
        row["references"] = [row["translation"]["de"], "etwas anderes"]
    for name, path in paths.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
    return {f"{name}_file": str(path) for name, path in paths.items()}


@pytest.fixture
def run(files, tmp_path):
    """Runs a small training; keywords go to the three kinds of arguments by name."""

    def start(output="out", **settings):
        data = {"source_lang": "en", "target_lang": "de", "vocab_size": 300}
        data |= {"max_source_length": 12, "max_target_length": 12} | files
        training = {"max_steps": 4, "save_steps": 2, "use_cpu": True, "disable_tqdm": True}
        given = SIZES | data | training | {"output_dir": str(tmp_path / output)} | settings
        parsed = []
        for kind in (ModelArguments, DataArguments, AxeTrainingArguments):
            names = {f.name for f in fields(kind)}
            parsed.append(kind(**{k: v for k, v in given.items() if k in names}))
        return run_training(*parsed)

    return start


def test_a_run_leaves_everything_one_needs(run, tmp_path):
    result = run(logging_steps=2)
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "trainer_state.json"} <= names
    assert {"train_results.json", "eval_results.json", "test_results.json"} <= names
    model = AutoModelForSeq2SeqLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer(["one two"], return_tensors="pt").input_ids
    assert model.generate(ids, num_iterations=2).shape[0] == 1
    assert model.config.max_target_length == 12
    scores = json.loads((out / "test_results.json").read_text())
    assert scores["test_bleu"] == result.metrics["test_bleu"]
    assert scores["test_bleu_signature"].startswith("nrefs:2")
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert sum("loss" in entry for entry in history) == 2


def test_scores_count_the_pairs_that_are_too_long_for_the_model(run, monkeypatch):
    scored = []
    compute = TranslationMetric._compute
    monkeypatch.setattr(
        TranslationMetric,
        "_compute",
        lambda self, **given: scored.append(given["references"]) or compute(self, **given),
    )
    run()
    assert [len(references) for references in scored] == [10, 10]
    assert scored[1][0] == ["eins " * 30, "etwas anderes"]


def test_the_model_card_tells_what_the_model_is(run, tmp_path):
    result = run(ema_decay=0.9, train_minutes=1)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.language == ["en", "de"]
    assert card.data.pipeline_tag == "translation" and card.data.library_name == "transformers"
    assert {"cmlm", "mask-predict", "non-autoregressive"} <= set(card.data.tags)
    results = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert results["test", "bleu"] == round(result.metrics["test_bleu"], 2)
    for text in (
        "from `en` to `de`",
        "import axe_hf",
        "trust_remote_code=True",
        result.metrics["test_bleu_signature"],
        "train.jsonl, 40 sentence pairs",
        "Trained from scratch",
        f"| AXE skip-target penalty (delta) | {CmlmConfig.axe_delta} |",
        "EMA decay",
        "arxiv.org/abs/2004.01655",
        "arxiv.org/abs/1904.09324",
        "## Limits",
    ):
        assert text in card.text, text
    assert str(tmp_path) not in card.content


def test_a_card_cites_ctc_where_a_token_may_be_repeated():
    found = (
        model_card_text(ModelCardDetails("m", CmlmConfig(allow_repetition=allows)))
        for allows in (False, True)
    )
    assert ["10.1145/1143844.1143891" in text for text in found] == [False, True]


def test_a_card_without_scores_or_languages_is_whole():
    text = model_card_text(ModelCardDetails("m", CmlmConfig(training_loss="cross_entropy")))
    assert "## Scores" not in text and "delta" not in text and "None" not in text
    assert "cross entropy at every position" in text


@pytest.mark.parametrize(
    "evil", ["a|b `c` <script>alert(1)</script>\n\n# [x](http://y)", '"); import os; ("\n```\n* b']
)
def test_nothing_in_a_card_is_markdown_or_html_that_a_user_put_there(evil):
    scores = {"bleu": 1.0, "chrf": 2.0, "repetition_rate": 0.0, "length_ratio": 1.0}
    details = ModelCardDetails(
        evil,
        CmlmConfig(),
        *[evil] * 3,
        base_model=evil,
        training={evil: evil},
        generation={evil: evil},
        scores={evil: scores | {"bleu_signature": evil, "chrf_signature": evil}},
    )
    body = model_card_text(details).split("\n---\n", 1)[1]
    plain = ModelCardDetails("m", CmlmConfig(), "en", "de", "data", base_model="b")
    plain = replace(
        plain, training={"a": 1}, generation={"n": 1}, scores={"test": details.scores[evil]}
    )
    good = model_card_text(
        replace(plain, scores={"t": scores | {"bleu_signature": "s", "chrf_signature": "s"}})
    )
    # As many lines, fences, titles and columns as with names that mean no harm.
    good = good.split("\n---\n", 1)[1]
    assert body.count("\n") == good.count("\n")
    for line, right in zip(body.splitlines(), good.splitlines(), strict=True):
        if not right:
            continue
        assert line[:2] == right[:2] or right[:1].isalpha()
        columns = len(re.findall(r"(?<!\\)\|", line))
        assert right[0] != "|" or columns == right.count("|")
    for code in re.findall(r"from_pretrained\((.*)\)", body):
        assert eval(f"dict(a={code})")["a"] == evil
    prose = re.sub(r"```.*?```|`[^`]*`", "", body, flags=re.DOTALL)
    assert "<script>" not in prose.replace(r"\<", "") and "[x]" not in prose


def test_an_output_folder_in_use_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="`output_dir` must be a new or an empty folder"):
        run(train_file="does not matter.jsonl")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        run("file")


def test_a_broken_off_run_is_resumed_with_the_same_words(run, tmp_path):
    run(max_steps=2)
    with pytest.raises(FileExistsError, match="resume_from_checkpoint"):
        run(max_steps=4)
    resumed = run(max_steps=4, resume_from_checkpoint="last")
    assert resumed.trainer.state.global_step == 4
    with pytest.raises(ValueError, match="`d_model` is 32, but the run to resume has 16"):
        run(max_steps=6, d_model=32, resume_from_checkpoint="last")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        run("new", resume_from_checkpoint="last")
    with pytest.raises(ValueError, match="holds no trainer_state.json"):
        run(resume_from_checkpoint=str(tmp_path))


def test_of_two_runs_started_together_in_one_folder_the_second_is_refused(
    run, hold, tmp_path, caplog
):
    out = tmp_path / "out"
    first = hold("only_writer", out)
    (out / "half").unlink()
    for how in ({}, {"resume_from_checkpoint": "last"}):
        with pytest.raises(BlockingIOError, match="Another process is writing into .*out"):
            run(train_file="does not matter.jsonl", **how)
    first.kill()
    first.wait()
    (out / "runs").mkdir()  # what it left
    with pytest.raises(FileExistsError, match="resume_from_checkpoint"):
        run()
    assert run(resume_from_checkpoint="last").trainer.state.global_step == 4
    assert "the run that broke off in it starts again" in caplog.text
    assert not (out / "_unfinished").exists()


def test_a_half_written_checkpoint_is_passed_over(run, tmp_path, caplog):
    whole = run(max_steps=4, save_steps=3)
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    (tmp_path / "out" / "checkpoint-4").mkdir()
    resumed = run(max_steps=4, save_steps=3, resume_from_checkpoint="last")
    assert "checkpoint-4 holds no trainer_state.json" in caplog.text
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    (tmp_path / "out" / "checkpoint-60").mkdir()
    assert run(resume_from_checkpoint="last").trainer.state.global_step == 4


@pytest.mark.parametrize("output", ["file/out", "file/new/out"])
def test_an_output_folder_that_cannot_be_written_is_found_before_the_data(run, tmp_path, output):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(output, train_file="does not matter.jsonl")


def test_fine_tuning_keeps_the_architecture_and_changes_the_loss(run, tmp_path):
    first = run(training_loss="cross_entropy", test_file=None)
    assert first.model.config.training_loss == "cross_entropy"
    same = {name: None for name in SIZES} | {"vocab_size": None, "max_source_length": None}
    tuned = run(
        "tuned",
        model_name_or_path=str(tmp_path / "out"),
        **same | {"training_loss": "axe", "dropout": 0.0, "max_steps": 1},
    )
    assert tuned.model.config.training_loss == "axe" and tuned.model.config.d_model == 16
    assert tuned.model.config.dropout == 0.0
    assert len(tuned.tokenizer) == len(first.tokenizer)
    assert "Fine-tuned from" in (tmp_path / "tuned" / "README.md").read_text()
    with pytest.raises(ValueError, match="`encoder_layers` is 2, but .* was built with 1"):
        run("no", model_name_or_path=str(tmp_path / "out"), **same | {"encoder_layers": 2})
    with pytest.raises(ValueError, match="`max_target_length` is 50, over the model's limit of 12"):
        run("no", model_name_or_path=str(tmp_path / "out"), **same | {"max_target_length": 50})
    assert not (tmp_path / "no").exists()


def test_fine_tuning_keeps_the_length_multiplier(run, tmp_path):
    recipe = {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2}
    run(test_file=None, **recipe, max_steps=1)
    same = {name: None for name in SIZES} | {"vocab_size": None, "max_source_length": None}
    same |= {"model_name_or_path": str(tmp_path / "out"), "test_file": None, "max_steps": 1}
    for number, given in enumerate(({}, {"length_multiplier": 1.2}, {"dropout": 0.0})):
        run(f"tuned{number}", **same | {"learning_rate": 1e-9} | given)
        expected = recipe | {n: value for n, value in given.items() if n in recipe}
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / f"tuned{number}")
        assert expected.items() <= model.config.to_dict().items()
        assert model.generation_config.length_multiplier == expected["length_multiplier"]
    resumed = run(test_file=None, max_steps=2, resume_from_checkpoint="last")
    assert recipe.items() <= resumed.model.config.to_dict().items()
    assert resumed.trainer.data_collator.length_jitter == 0.2


FAMILY = {"allow_repetition": True, "axe_temperature": 1.0}


def test_fine_tuning_keeps_the_alignment_family_or_changes_it_when_asked(run, tmp_path):
    run(test_file=None, masking="full", length_multiplier=2.0, max_steps=1, **FAMILY)
    same = {name: None for name in SIZES} | {"vocab_size": None, "max_source_length": None}
    same |= {"max_target_length": None, "test_file": None, "max_steps": 1}
    cases = [("out", {}, FAMILY), ("out", {"allow_repetition": False}, {"allow_repetition": False})]
    cases += [("tuned1", FAMILY, FAMILY), ("tuned2", {"axe_temperature": 0.0}, {})]
    for number, (source, given, changed) in enumerate(cases):
        tuned = run(
            f"tuned{number}", **same | {"model_name_or_path": str(tmp_path / source)} | given
        )
        assert tuned.model.generation_config.collapse_repeats is None
        expected = FAMILY | given | changed
        for config in (
            tuned.model.config,
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path / f"tuned{number}").config,
        ):
            assert {name: getattr(config, name) for name in FAMILY} == expected
        assert tuned.trainer.data_collator.allow_repetition == expected["allow_repetition"]


def test_a_model_saved_before_there_was_repetition_collapses_once_it_has_learnt_it(run, tmp_path):
    run(test_file=None, max_steps=1)
    path = tmp_path / "out" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"collapse_repeats": False}))
    same = {name: None for name in SIZES} | {"vocab_size": None, "max_source_length": None}
    same |= {"model_name_or_path": str(tmp_path / "out"), "test_file": None, "max_steps": 1}
    assert run("same", **same).model.generation_config.collapse_repeats is False
    tuned = run("tuned", **same, masking="full", **FAMILY)
    assert tuned.model.generation_config.collapse_repeats is None


def test_pairs_without_room_for_repetition_are_left_out_of_training_and_cut_in_scoring(
    run, files, tmp_path
):
    short, doubled = "eins zwei drei", " ".join(["eins"] * 7)
    for name in ("train_file", "validation_file"):
        rows = [{"translation": {"en": "one two", "de": text}} for text in (short, doubled) * 4]
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = {"test_file": None, "masking": "full", "length_multiplier": 2.0, "max_target_length": 9}
    assert len(run("plain", **how).trainer.train_dataset) == 8
    result = run("out", **how, **FAMILY)
    assert len(result.trainer.train_dataset) == 4
    scored = result.trainer.get_eval_dataloader().dataset
    lengths = {len(row["labels"]) for row in result.trainer.eval_dataset}
    assert len(scored) == 8 and lengths == {4, 5}  # four times "eins" takes seven positions
    assert "eval_bleu" in result.metrics


def test_the_number_of_passes_is_saved_with_the_model(run, tmp_path):
    for number in (3, 2):
        result = run(f"out{number}", num_iterations=number, max_steps=1)
        assert result.model.generation_config.num_iterations == number
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / f"out{number}")
        assert model.generation_config.num_iterations == number
        card = (tmp_path / f"out{number}" / "README.md").read_text()
        assert f"`num_iterations={number}`" in card and f"num_iterations={number})" in card


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ({}, "Aligned Cross Entropy (AXE), which forgives words"),
        ({"axe_temperature": 0.3}, "a relative of .* the soft minimum .* at temperature 0.3, by"),
        ({"allow_repetition": True}, "a relative of .* the best alignment; a token may be said by"),
        ({"axe_delta": math.inf}, "a relative of .* the best alignment; no token may be left out"),
        (FAMILY, "a relative of .* the sum over all alignments; a token may be said by several"),
        (FAMILY | {"axe_delta": math.inf}, "connectionist temporal classification (CTC): the sum"),
        ({"training_loss": "cross_entropy"}, "cross entropy at every position, by"),
    ],
)
def test_a_card_names_the_loss_in_words(family, words):
    text = " ".join(model_card_text(ModelCardDetails("m", CmlmConfig(**family))).split())
    assert re.search(f"It was trained with {re.escape(words)}".replace("\\.\\*", ".*"), text)
    told = "| repetition | allowed |" in text
    assert told == family.get("allow_repetition", False)


def test_foreign_tokenizers_train_and_score_by_their_targets(
    run, tmp_path, foreign_tokenizer, monkeypatch
):
    foreign_tokenizer.save_pretrained(tmp_path / "tokenizer")
    name, target = str(tmp_path / "tokenizer"), "zwei fünf"
    scored = []
    score = AxeTrainer._score_translations

    def see(self, prediction, **kwargs):
        right = EvalPrediction(
            prediction.label_ids, prediction.label_ids
        )  # as if it had been found
        scored.append(score(self, right, **kwargs))
        return scored[-1]

    monkeypatch.setattr(AxeTrainer, "_score_translations", see)
    result = run(vocab_size=None, tokenizer_name_or_path=name)
    assert scored[0]["bleu"] == pytest.approx(100) and scored[1]["bleu"] > 60  # one text is cut
    assert result.tokenizer(text_target=target) == foreign_tokenizer(text_target=target)
    row = result.trainer.train_dataset[0]
    assert len(row["labels"]) <= 7 and row["labels"][-1] == foreign_tokenizer.eos_token_id
    assert len(row["labels"]) == len(row["input_ids"]) - (foreign_tokenizer("").input_ids[1:] != [])
    found = translate(result.model, result.tokenizer, ["two five", "one"], num_iterations=2)
    assert len(found) == 2 and not any("_XX" in text or "<0x" in text for text in found)


@pytest.mark.parametrize(("language", "tokenize"), [("zh", "zh"), ("th_TH", "char"), ("de", "13a")])
def test_bleu_is_that_of_the_target_language(run, files, language, tokenize, tmp_path):
    for name, path in files.items():
        text = Path(path).read_text(encoding="utf-8").replace('"de"', f'"{language}"')
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        files[name] = str(tmp_path / f"{name}.jsonl")
    args = AxeTrainingArguments(str(tmp_path / "out"), max_steps=1, use_cpu=True, disable_tqdm=True)
    data = DataArguments("en", language, vocab_size=300, max_target_length=12, **files)
    result = run_training(ModelArguments(**SIZES), data, args)
    assert f"|tok:{tokenize}|" in result.metrics["test_bleu_signature"]
    assert f"|tok:{tokenize}|" in (tmp_path / "out" / "README.md").read_text()
    assert args.bleu_tokenize is None  # the next run may be of another language
    args.output_dir, args.bleu_tokenize = str(tmp_path / "other"), "intl"
    result = run_training(ModelArguments(**SIZES), data, args)
    assert "|tok:intl|" in result.metrics["eval_bleu_signature"]


class TestBadInput:
    def test_missing_and_broken_files_are_named_and_nothing_is_written(self, run, tmp_path):
        with pytest.raises(FileNotFoundError, match="`validation_file`: .*nowhere.jsonl"):
            run(validation_file=str(tmp_path / "nowhere.jsonl"))
        broken = tmp_path / "broken.jsonl"
        broken.write_text('{"translation": {"en": "a", "de": "b"}}\n{"translation": {"en": "a"}}\n')
        with pytest.raises(ValueError, match="`train_file`: .*broken.jsonl, line 2"):
            run(train_file=str(broken))
        assert not (tmp_path / "out").exists()

    def test_tokenizers_and_settings_that_cannot_serve_are_refused_before_anything_is_written(
        self, run, tmp_path
    ):
        from tokenizers import Tokenizer, models

        bare = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]")), pad_token="[PAD]"
        )
        for special, complaint in (
            ({"mask_token": "[MASK]"}, "must have a eos_token.*extra_special_tokens"),
            ({"mask_token": "[MASK]", "eos_token": "[SEP]"}, "must have a blank_token"),
        ):
            bare.add_special_tokens(special)
            bare.save_pretrained(tmp_path / "tokenizer")
            given = {"vocab_size": None, "tokenizer_name_or_path": str(tmp_path / "tokenizer")}
            with pytest.raises(ValueError, match=complaint):
                run(**given)
        with pytest.raises(ValueError, match="`tokenize` must be one of 13a.* got '14a'"):
            run(bleu_tokenize="14a")
        assert not (tmp_path / "out").exists()
        with pytest.raises(ValueError, match="`generation_num_beams`.*num_length_candidates"):
            run(generation_num_beams=4)
        assert not (tmp_path / "out").exists()

    def test_data_arguments(self):
        with pytest.raises(ValueError, match="either `train_file` or `dataset_name`"):
            DataArguments("en", "de")
        with pytest.raises(ValueError, match="`test_split` is a split of `dataset_name`"):
            DataArguments("en", "de", train_file="a.tsv", test_split="test")
        with pytest.raises(ValueError, match="`vocab_size` is for a tokenizer to train"):
            DataArguments("en", "de", train_file="a.tsv", tokenizer_name_or_path="x", vocab_size=9)
        with pytest.raises(ValueError, match="`max_source_length` must be at least 2"):
            DataArguments("en", "de", train_file="a.tsv", max_source_length=1)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -2, 0])
    def test_no_number_is_nan_infinite_negative_or_zero(self, value):
        for name in ("vocab_size", "max_source_length", "max_target_length"):
            with pytest.raises(ValueError, match=f"`{name}` must be .*, got {value}"):
                DataArguments("en", "de", train_file="a.tsv", **{name: value})
        for name in ("d_model", "decoder_layers", "encoder_attention_heads", "decoder_ffn_dim"):
            with pytest.raises(ValueError, match=f"`{name}` must be at least 1.*, got {value}"):
                ModelArguments(**{name: value})
        names = ("dropout", "attention_dropout", "activation_dropout", "axe_temperature")
        names += ("axe_delta",) if value != math.inf else ()
        for name in (*names, "label_smoothing", "length_loss_weight") if value else ():
            with pytest.raises(ValueError, match=f"`{name}` must be .*, got {value}"):
                ModelArguments(model_name_or_path="m", **{name: value})

    def test_model_settings_out_of_range(self, run, tmp_path):
        with pytest.raises(Exception, match="`axe_delta` must be >= 0"):
            run(axe_delta=-1.0)
        with pytest.raises(Exception, match="must divide `d_model`"):
            run(encoder_attention_heads=3)
        with pytest.raises(Exception, match="`length_multiplier` is 1.4.* Use masking='full'"):
            run(length_multiplier=1.4, train_file="not read")
        with pytest.raises(Exception, match="cross entropy needs a label"):
            run(masking="full", length_jitter=0.1, training_loss="cross_entropy")
        for family in ({"allow_repetition": True}, {"axe_temperature": 1.0}):
            with pytest.raises(Exception, match="cross entropy aligns nothing"):
                run(training_loss="cross_entropy", **family)
        with pytest.raises(Exception, match="`axe_delta` is infinite, but with uniform masks"):
            run(allow_repetition=True, axe_delta=math.inf, train_file="not read")
        assert not (tmp_path / "out").exists()


def test_model_arguments_are_fields_of_the_config():
    others = {"model_name_or_path", "attn_implementation", "init_from", "kept_layers"}
    others |= {"teacher_source_lang", "teacher_target_lang", "model_revision", "use_peft"}
    others |= {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "license"}
    names = {f.name for f in fields(ModelArguments)} - others
    assert names <= {f.name for f in fields(CmlmConfig)}
    assert list(ModelArguments(dropout=0.1, d_model=8).given()) == ["d_model", "dropout"]
    assert ModelArguments(d_model=8, normalize_before=False).given() == {
        "d_model": 8,
        "normalize_before": False,
    }


def test_model_arguments_are_typed_and_explained_as_in_the_config():
    config = {field.name: field for field in fields(CmlmConfig)}
    types = get_type_hints(ModelArguments)  # a parser of these writes into `field.type`
    for field in fields(ModelArguments):
        about = field.metadata["help"]
        if field.name in config:
            of_config = config[field.name].type
            of_config = float if of_config == float | int else of_config
            assert types[field.name] == of_config | None and field.default is None
            assert f". Default: {config[field.name].default}" in about
            words = about.replace("%%", "%").split(". Default: ")[0].split()
            assert " ".join(words) in " ".join(CmlmConfig.__doc__.replace("`", "").split())


def test_every_argument_says_in_its_docstring_what_it_is_for():
    for kind in (DataArguments, ModelArguments, AxeTrainingArguments):
        for field in fields(kind):
            assert field.metadata.get("help") or not field.init, field.name


def test_the_three_kinds_of_arguments_make_one_command_line(tmp_path):
    parser = HfArgumentParser((ModelArguments, DataArguments, AxeTrainingArguments))
    model, data, training = parser.parse_args_into_dataclasses(
        f"--source_lang en --target_lang de --train_file a.tsv --output_dir {tmp_path} --d_model "
        "64 --training_loss axe --normalize_before true --dropout 0.1 --train_minutes 10 "
        "--max_tokens_per_batch 500 --masking full --tokenizer_algorithm unigram".split()
    )
    assert model.given() == {
        "d_model": 64,
        "training_loss": "axe",
        "normalize_before": True,
        "dropout": 0.1,
    }
    assert training.train_minutes == 10 and training.masking == "full"
    assert data.tokenizer_algorithm == "unigram"
    parser.format_help()


# From a teacher


@pytest.fixture
def teacher(pairs, tmp_path):
    """The folder of a small Marian with a tokenizer of its own."""
    texts = [text for pair in pairs for text in pair["translation"].values()]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    sizes = SIZES | {"encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 16}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **sizes, **ids))
    model.final_logits_bias.normal_()
    model.to(torch.bfloat16).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_run_starts_from_a_teacher(run, teacher, tmp_path):
    sizes = dict.fromkeys(SIZES) | {"decoder_layers": 1, "vocab_size": None}
    given = sizes | {"init_from": str(teacher), "kept_layers": "last", "learning_rate": 1e-9}
    given |= {"dropout": 0.2, "training_loss": "cross_entropy", "max_steps": 2}
    result = run(**given)
    config, theirs = result.model.config, AutoModelForSeq2SeqLM.from_pretrained(teacher)
    assert (config.encoder_layers, config.decoder_layers, config.dropout) == (2, 1, 0.2)
    assert (config.max_source_length, config.training_loss) == (12, "cross_entropy")
    assert result.model.dtype == torch.float32  # a teacher's bfloat16 keeps no small step
    weight = theirs.model.decoder.layers[1].fc1.weight.float()
    torch.testing.assert_close(result.model.model.decoder.layers[0].fc1.weight, weight)
    own = AutoTokenizer.from_pretrained(teacher)
    assert result.tokenizer.get_vocab() == own.get_vocab()
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "Warm-started from the weights of `" in card.text and "/teacher`" in card.text
    again = run(**given, resume_from_checkpoint="last")
    assert again.trainer.state.global_step == 2
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, result.model.state_dict()[name])
    (text,) = translate(
        *(
            load.from_pretrained(tmp_path / "out")
            for load in (AutoModelForSeq2SeqLM, AutoTokenizer)
        ),
        ["one two"],
    )
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model_name_or_path": "other"}, "either `model_name_or_path` or `init_from`"),
        ({"init_from": None, "kept_layers": "first"}, "`kept_layers` is 'first', but there is no"),
        ({"decoder_layers": 5}, "`decoder_layers` must be at most 2"),
        ({"d_model": 32}, "`d_model` is 32, not 16"),
        ({"vocab_size": 300}, "`vocab_size` is for a tokenizer to train, but .*teacher has one"),
        ({"max_target_length": 17}, "`max_target_length` must be at most 16"),
        ({"init_from": "no/such/folder"}, "`init_from` must be .*got 'no/such/folder'"),
        ({"tokenizer_name_or_path": "no/such/folder"}, "no/such/folder has no tokenizer"),
        ({"teacher_source_lang": "en_XX"}, "`teacher_source_lang` is 'en_XX', but .* no languages"),
    ],
)
def test_wrong_settings_of_a_teacher_are_refused(run, teacher, wrong, message):
    given = dict.fromkeys(SIZES) | {"vocab_size": None, "init_from": str(teacher)}
    with pytest.raises(ValueError, match=message):
        run(**given | wrong)


@pytest.mark.parametrize("config", [GPT2Config(), T5Config()], ids=lambda c: c.model_type)
def test_a_teacher_of_another_kind_is_refused_by_its_configuration(run, config, tmp_path):
    config.save_pretrained(tmp_path / "other")
    given = dict.fromkeys(SIZES) | {"vocab_size": None, "init_from": str(tmp_path / "other")}
    with pytest.raises(ValueError, match=f"`init_from`.* a '{config.model_type}'"):
        run(**given)


def test_a_tokenizer_of_another_model_is_refused(run, teacher, tmp_path):
    other = train_tokenizer(["one two three four"] * 9, vocab_size=330, min_frequency=1)
    other.add_tokens([f"word{i}" for i in range(200)])
    other.save_pretrained(tmp_path / "other")
    given = dict.fromkeys(SIZES) | {"vocab_size": None, "init_from": str(teacher)}
    with pytest.raises(ValueError, match="`tokenizer_name_or_path` has id .*, the model"):
        run(**given, tokenizer_name_or_path=str(tmp_path / "other"))


@pytest.fixture
def multilingual(mbart_tokenizer, tmp_path):
    """The folder of a small mBART, whose tokenizer calls its languages en_XX and de_DE."""
    sizes = SIZES | {"max_position_embeddings": 16}
    ids = {"pad_token_id": mbart_tokenizer.pad_token_id, "eos_token_id": 2}
    model = MBartForConditionalGeneration(MBartConfig(vocab_size=40, **sizes, **ids))
    model.save_pretrained(tmp_path / "mbart")
    mbart_tokenizer.save_pretrained(tmp_path / "mbart")
    return tmp_path / "mbart"


def test_a_teachers_languages_have_codes_of_their_own(run, multilingual):
    given = dict.fromkeys(SIZES) | {"vocab_size": None, "init_from": str(multilingual)}
    with pytest.raises(ValueError, match="`teacher_source_lang` must be .*en_XX.* got 'en'"):
        run(**given)
    codes = {"teacher_source_lang": "en_XX", "teacher_target_lang": "de_DE"}
    result = run(**given, **codes, max_steps=1)
    assert "en_XX" in result.tokenizer.convert_ids_to_tokens(result.tokenizer("one two").input_ids)


# Parts of a run


@pytest.fixture
def trained(run, tmp_path):
    """Keywords of a run that starts from a small trained model, in the folder `out`."""
    run(test_file=None, validation_file=None, max_steps=2)
    sizes = {name: None for name in SIZES} | {"vocab_size": None, "max_source_length": None}
    return sizes | {"model_name_or_path": str(tmp_path / "out"), "max_target_length": None}


def test_only_the_parts_that_are_asked_for_are_done(run, trained, files, tmp_path):
    asked = {"train_file": None, "validation_file": None, "do_predict": True}
    result = run("predictions", **trained | asked | {"eval_strategy": "steps"})
    assert {"test_bleu", "test_loss"} <= result.metrics.keys()
    assert not any(name.startswith(("train_", "eval_")) for name in result.metrics)
    left = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert left == {"test_results.json", "all_results.json", "generated_predictions.txt"}
    lines = (tmp_path / "predictions" / "generated_predictions.txt").read_text().split("\n")
    rows = Path(files["test_file"]).read_text(encoding="utf-8").splitlines()
    sources = [json.loads(row)["translation"]["en"] for row in rows]
    model, tokenizer = (
        load.from_pretrained(tmp_path / "out") for load in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    assert lines == [*translate(model, tokenizer, sources), ""]

    before = (tmp_path / "out" / "trainer_state.json").read_bytes()
    result = run("out", **trained | {"do_eval": True})  # the folder of the model may be in use
    assert "eval_bleu" in result.metrics and "test_bleu" not in result.metrics
    assert (tmp_path / "out" / "trainer_state.json").read_bytes() == before
    result = run("trained", **trained | {"do_train": True, "do_predict": True, "max_steps": 1})
    assert {"train_loss", "test_bleu"} <= result.metrics.keys()
    assert "eval_bleu" not in result.metrics
    assert (tmp_path / "trained" / "generated_predictions.txt").is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"do_predict": True, "test_file": None}, "`do_predict` is set, but there is neither"),
        (
            {"eval_strategy": "steps", "eval_steps": 1, "validation_file": None},
            "`eval_strategy` is 'steps', but there is neither `validation_file` nor",
        ),
        ({"fp16": True}, "`fp16` needs a GPU, on a CPU accelerate would train in float32"),
        ({"do_eval": True, "model_name_or_path": None}, "give the model by `model_name_or_path`"),
        ({"train_file": None}, "nothing to train on. Give `train_file` or .* ask for `do_eval`"),
        (
            {"do_predict": True, "batch_eval_metrics": True},
            "`batch_eval_metrics` must be False",
        ),
        ({"do_eval": True, "resume_from_checkpoint": "last"}, "goes on training: add `do_train`"),
        ({"do_eval": True, "use_peft": True}, "`use_peft` trains an adapter: add `do_train`"),
    ],
)
def test_parts_that_cannot_be_done_are_refused_before_any_work(run, tmp_path, wrong, message):
    given = {"model_name_or_path": "not looked for", "vocab_size": None} | wrong
    with pytest.raises(ValueError, match=message):
        run(**given)
    assert not (tmp_path / "out").exists()


def test_of_a_data_set_on_the_hub_the_usual_splits_are_what_is_asked_for(monkeypatch, tmp_path):
    asked = []

    def load(source, split, **languages):
        asked.append((source, split))
        raise FileNotFoundError(source)

    monkeypatch.setattr("axe_hf.training.loading.load_translations", load)
    args = AxeTrainingArguments(str(tmp_path / "out"), do_predict=True, use_cpu=True)
    for split, expected in ((None, "test"), ("newstest", "newstest")):
        data = DataArguments("en", "de", dataset_name="me/pairs", test_split=split)
        with pytest.raises(FileNotFoundError, match="`dataset_name`"):
            run_training(ModelArguments(model_name_or_path="m"), data, args)
        assert asked.pop() == ("me/pairs", expected)


def test_a_prefix_stands_before_each_source(run, trained):
    given = {"source_prefix": "one ", "max_steps": 1}
    plain, prefixed = (run(name, **trained | more) for name, more in (("a", {}), ("b", given)))
    (first,) = plain.tokenizer("one", add_special_tokens=False).input_ids
    sets = [
        (result.trainer.train_dataset, result.trainer.eval_dataset) for result in (plain, prefixed)
    ]
    for before, after in zip(*sets, strict=True):
        assert after[0]["input_ids"][:2] == [first, before[0]["input_ids"][0]]
        assert after[0]["labels"] == before[0]["labels"]


def test_a_teacher_is_not_a_model_to_fine_tune(run, teacher, tmp_path):
    given = dict.fromkeys(SIZES) | {"vocab_size": None, "model_name_or_path": str(teacher)}
    with pytest.raises(ValueError, match="is a 'marian'. .* give it by `init_from`"):
        run(**given, tokenizer_name_or_path=None)


# Adapters


def test_an_adapter_is_trained_resumed_and_predicted_with(run, trained, tmp_path):
    lora = trained | {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj"]}
    lora |= {"learning_rate": 0.1, "test_file": None}
    whole = run("lora", **lora)
    names = {path.name for path in (tmp_path / "lora").iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    trains = {n.split("lora_")[0] for n, w in whole.model.named_parameters() if w.requires_grad}
    assert trains and all(name.endswith("q_proj.") for name in trains)
    assert whole.model.peft_config["default"].r == 2
    expected = {n: w.clone() for n, w in whole.model.named_parameters()}
    last = str(tmp_path / "lora" / "checkpoint-2")
    resumed = run("lora", **lora, resume_from_checkpoint=last)
    assert all(w.equal(expected[n]) for n, w in resumed.model.named_parameters())
    scored = run("p", **trained | {"model_name_or_path": str(tmp_path / "lora"), "do_eval": True})
    assert scored.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-6)
    base = run("b", **trained | {"do_eval": True})
    assert scored.metrics["eval_loss"] != pytest.approx(base.metrics["eval_loss"], rel=1e-6)
    # Trained on, adapter and base are one model, which is saved whole.
    on = trained | {"model_name_or_path": str(tmp_path / "lora"), "dropout": 0.1}
    tuned = run("tuned", **on | {"max_steps": 1, "learning_rate": 1e-9, "ema_decay": None})
    assert (tmp_path / "tuned" / "model.safetensors").is_file()
    assert tuned.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-4)
    assert tuned.model.config.dropout == 0.1
    with pytest.raises(ValueError, match=r"lora is an adapter.*axe_hf\.load_merged"):
        run("on top", **on | {"use_peft": True})
    with pytest.raises(ValueError, match="is of an adapter. Add `use_peft`"):
        run("lora", **trained, resume_from_checkpoint=last)


def test_settings_of_an_adapter_without_one_are_refused(run, trained, monkeypatch):
    with pytest.raises(ValueError, match="`lora_r` is 4, but there is no adapter: add `use_peft`"):
        ModelArguments(model_name_or_path="m", lora_r=4)
    with pytest.raises(ValueError, match="`use_peft` adapts a trained CMLM"):
        ModelArguments(init_from="teacher", use_peft=True)
    with pytest.raises(ValueError, match="`lora_dropout` must be in"):
        ModelArguments(model_name_or_path="m", use_peft=True, lora_dropout=1.0)
    monkeypatch.setattr("axe_hf.training.run.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`use_peft` needs PEFT.*axe-hf\[peft\]"):
        run("lora", **trained | {"use_peft": True})
