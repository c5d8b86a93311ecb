import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_dataset

import axe_hf
from axe_hf.rescoring import autoregressive_scores
from axe_hf.teachers import DistillationSettings
from axe_hf.teachers.engines import Said, TransformersEngine
from axe_hf.teachers.filters import lowest_score, reason_to_drop

LANGUAGES = {"source_lang": "en", "target_lang": "de"}


@pytest.fixture
def distill(marian, tokenizer, pairs_file, tmp_path):
    """Distills with the small Marian; keywords change what is given."""

    def run(data=pairs_file, folder="out", teacher=marian, tokenizer=tokenizer, **settings):
        settings = LANGUAGES | {"shard_size": 20} | settings
        return axe_hf.distill(teacher, data, tmp_path / folder, tokenizer=tokenizer, **settings)

    return run


def rows_in(folder):
    files = sorted(folder.glob("data/train-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def files_in(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_it_writes_what_the_teacher_says_to_each_source(
    distill, marian, tokenizer, pairs, tmp_path
):
    result = distill()
    rows = rows_in(tmp_path / "out")
    sources = [pair["translation"]["en"] for pair in pairs]
    assert [row["translation"]["en"] for row in rows] == sources
    said = []
    for source in sources:
        output = marian.generate(**tokenizer([source], return_tensors="pt"))
        said += [text.strip() for text in tokenizer.batch_decode(output, skip_special_tokens=True)]
    assert [row["translation"]["de"] for row in rows] == said
    assert len({*said}) > 20
    scores = autoregressive_scores(marian, tokenizer, sources, [[text] for text in said])[:, 0]
    found = torch.tensor([row["score"] for row in rows])
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-4)
    assert result.counts == {"read": 45, "kept": 45}
    assert result.mean_score == pytest.approx(scores.mean().item(), abs=1e-3)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith((".", "_"))]


def test_equal_sources_of_a_shard_are_translated_once(distill, pairs, monkeypatch):
    translated, original = [], TransformersEngine.translate

    def translate(self, sources, token_ids):
        translated.extend(sources)
        return original(self, sources, token_ids)

    monkeypatch.setattr(TransformersEngine, "translate", translate)
    distill(shard_size=45)
    assert sorted(translated) == sorted({pair["translation"]["en"] for pair in pairs})


def test_batches_hold_as_many_tokens_as_asked_for(distill, marian, monkeypatch):
    sizes, generate = [], type(marian).generate

    def count(self, input_ids, **kwargs):
        sizes.append(input_ids.numel())
        return generate(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(marian), "generate", count)
    distill(max_tokens_per_batch=30)
    assert 15 < max(sizes) <= 30


def test_plain_text_and_pairs_are_joined_and_what_is_no_source_is_counted(distill, tmp_path):
    (tmp_path / "more.en").write_text("seven\n\n \u200b\n" + "one " * 60 + "\nsix six\n")
    (tmp_path / "pair.tsv").write_text("one\teins\n")
    result = distill([tmp_path / "more.en", str(tmp_path / "pair.tsv")], keep_original=True)
    assert result.counts == {"read": 6, "kept": 3, "invisible": 2, "too_long": 1}
    rows = rows_in(tmp_path / "out")
    assert [row["translation"]["en"] for row in rows] == ["seven", "six six", "one"]
    assert [row["references"][1:] for row in rows] == [[], [], ["eins"]]
    assert all(row["references"][0] == row["translation"]["de"] for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_everything_reads_the_folder(distill, tmp_path, kind):
    distill(format=kind, rows_per_file=20, keep_original=True, license="cc-by-4.0")
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "data",
        "distillation.json",
    ]
    names = [f"train-{i:05}-of-00003.{kind}" for i in range(3)]
    assert sorted(path.name for path in folder.glob("data/*")) == names
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == 45 and {*found.column_names} == {"translation", "score", "references"}
    translations = axe_hf.load_translations(folder, **LANGUAGES)
    assert list(translations["translation"]) == list(found["translation"])
    if kind == "jsonl":
        assert list(found) == rows_in(folder)


def test_another_folder_of_the_same_name_is_not_read_in_its_place(distill, tmp_path):
    for seed in (0, 1):
        asked = {"generation": {"do_sample": True}, "seed": seed}
        distill(folder=f"{seed}/out", **asked)
        found = load_dataset(str(tmp_path / f"{seed}/out"), cache_dir=str(tmp_path / "cache"))
        assert list(found["train"]) == rows_in(tmp_path / f"{seed}/out")


def test_the_card_tells_the_hub_and_a_reader(distill, pairs_file, tmp_path):
    (tmp_path / "a|b`c").write_text("one\n")
    prefix = {"source_prefix": "two ", "license": "mit", "num_beams": 2, "drop_copies": True}
    distill([pairs_file, tmp_path / "a|b`c"], drop_lowest=0.2, **prefix)
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["language"] == ["en", "de"] and head["license"] == "mit"
    assert head["task_categories"] == ["translation"]
    assert head["configs"][0]["data_files"][0]["path"] == "data/train-*.jsonl"
    command = "axe-hf distill MarianMTModel pairs.jsonl 'a|b'\"'\"'c' --source-lang en"
    assert "| left out: translations of the lowest scores | 9 |" in body
    assert "--source-prefix 'two ' --shard-size 20 --drop-copies --drop-lowest 0.2" in body
    assert "`a¦b'c`" in body and command.split(" 'a")[0] in body
    summary = json.loads((tmp_path / "out" / "distillation.json").read_text("utf-8"))
    assert summary["counts"] == {"read": 46, "kept": 37, "low_score": 9}
    assert summary["plan"]["generation"]["num_beams"] == 2
    assert min(row["score"] for row in rows_in(tmp_path / "out")) == summary["lowest_score"]


SAID = {"score": -1.0, "is_finished": True, "num_source_tokens": 4, "num_tokens": 4}


@pytest.mark.parametrize(
    ("source", "text", "changes", "settings", "reason"),
    [
        ("Good dog.", "Guter Hund.", {}, {}, None),
        ("Good dog.", " ", {}, {}, "empty"),
        ("Good dog.", "good  DOG.", {}, {}, None),
        ("Good dog.", "good  DOG.", {}, {"drop_copies": True}, "copied"),
        ("Good dog.", "Guter", {"is_finished": False}, {}, None),
        ("Good dog.", "Guter", {"is_finished": False}, {"drop_unfinished": True}, "unfinished"),
        ("Good dog.", "Guter", {"num_tokens": 8}, {"max_length_ratio": 2.0}, None),
        ("Good dog.", "Guter", {"num_tokens": 9}, {"max_length_ratio": 2.0}, "length_ratio"),
        ("Good dog.", "Guter", {"num_tokens": 1}, {"max_length_ratio": 3.9}, "length_ratio"),
        ("A dog.", "Der Hund, der Hund.", {}, {"max_ngram": 2}, "repeated"),
        ("A dog.", "Der Hund, der Hund.", {}, {"max_ngram": 3}, None),
        ("The dog, the dog.", "Der Hund, der Hund.", {}, {"max_ngram": 2}, None),
        ("A dog.", "我们我们", {}, {"max_ngram": 2}, "repeated"),
        ("A dog.", "我们的狗", {}, {"max_ngram": 1}, None),
    ],
)
def test_each_filter_drops_what_it_is_for_and_only_if_asked_for(
    source, text, changes, settings, reason
):
    said = Said(text=text, **SAID | changes)
    assert reason_to_drop(source, said, DistillationSettings(**settings)) == reason


def test_the_lowest_scores_are_at_most_the_share_asked_for():
    scores = [-float(n) for n in range(1, 11)]
    assert lowest_score(scores, 0.0) is None
    assert sum(score < lowest_score(scores, 0.3) for score in scores) == 3
    assert sum(score < lowest_score([-2.0, -2.0, -2.0, -1.0], 0.5) for score in [-2.0] * 3) == 0


def test_filters_that_leave_nothing_say_so_and_others_go_on_from_there(distill, monkeypatch):
    with pytest.raises(ValueError, match="Nothing is left of 45 sentences: unfinished 45"):
        distill(drop_unfinished=True, max_new_tokens=2)
    monkeypatch.setattr(TransformersEngine, "translate", None)  # all is there
    assert distill(max_new_tokens=2).counts["kept"] == 45


def test_what_translations_depend_on_must_be_the_same_to_go_on(
    distill, marian, pairs_file, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("axe_hf.teachers.distillation.publish", lambda *_: 1 / 0)
        distill()
    with pytest.raises(ValueError, match=r"another `generation` .*now .*'num_beams': 2"):
        distill(num_beams=2)
    with pytest.raises(ValueError, match=r"another `seed` \(0 there, now 1\)"):
        distill(seed=1)
    other = tmp_path / "other.jsonl"
    other.write_text(pairs_file.read_text("utf-8").replace("one", "two"))
    with pytest.raises(ValueError, match="another `sources`. Go on as it began, "):
        distill(other)
    trained = type(marian)(marian.config)
    trained.load_state_dict(marian.state_dict())
    trained.generation_config = marian.generation_config
    with torch.no_grad():
        trained.model.decoder.layers[0].fc1.weight += 1e-3
    with pytest.raises(ValueError, match="another `weights`. Go on"):
        distill(teacher=trained)
    monkeypatch.setattr(TransformersEngine, "translate", None)  # all is there
    assert distill(drop_copies=True).sentences_per_second is None
    monkeypatch.undo()
    assert distill(num_beams=2, overwrite=True).counts["kept"] == 45


def test_a_finished_folder_is_replaced_if_asked_for_and_a_foreign_one_never(distill, tmp_path):
    distill()
    before = files_in(tmp_path / "out")
    with pytest.raises(FileExistsError, match="finished distillation: choose .* or `overwrite` it"):
        distill()
    (tmp_path / "out" / "mine").write_text("mine")
    distill(overwrite=True, rows_per_file=30)
    after = files_in(tmp_path / "out")
    assert after.pop("mine") == b"mine" and len(after) == len(before) + 1
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="`output_dir` must be a new or an empty folder"):
        distill(folder="foreign", overwrite=True)


def test_only_one_process_writes(distill, hold, tmp_path):
    (tmp_path / "out" / "_unfinished-distillation").mkdir(parents=True)
    hold("only_writer", tmp_path / "out")
    with pytest.raises(BlockingIOError, match="Another process is writing into"):
        distill()


def test_a_full_disk_is_told_of_with_what_is_left(distill, tmp_path, monkeypatch):
    from axe_hf.teachers import work

    write, calls = work.write_text, []

    def fail(path, text):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(work, "write_text", fail)
    with pytest.raises(OSError, match="No space left on device. The shards before are whole, in "):
        distill()
    names = sorted(path.name for path in tmp_path.glob("out/*/*"))
    assert names == ["plan.json", "shard-000000.jsonl"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children")
@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(
    run_script, teacher, pairs_file, tmp_path
):
    """And on a full disk, and in two processes."""
    shutil.copytree(teacher, tmp_path / "teacher")
    shutil.copy(pairs_file, tmp_path / "pairs.jsonl")
    code, printed = run_script(Path(__file__).with_name("kills.py"), tmp_path)
    assert code == 0, printed
    assert "all ended alike" in printed


def test_sampling_is_the_same_by_the_same_seed(distill, tmp_path):
    asked = {"generation": {"do_sample": True}, "num_beams": 1}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    distill(folder="first", **asked)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    distill(folder="same", **asked)
    distill(folder="other", seed=1, **asked)
    first, same, other = (rows_in(tmp_path / name) for name in ("first", "same", "other"))
    assert first == same != other


@pytest.mark.parametrize("settings", [{"int8": True}, {"num_beams": 3, "length_penalty": 0.2}])
def test_other_arithmetic_and_searches_are_used(distill, tmp_path, settings):
    distill(folder="plain")
    distill(**settings)
    plain, other = rows_in(tmp_path / "plain"), rows_in(tmp_path / "out")
    assert plain != other and len(other) >= 40


def test_a_type_is_for_a_teacher_given_by_name(distill, teacher, tmp_path):
    distill(teacher=teacher, tokenizer=None, dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "distillation.json").read_text())["plan"]["dtype"] == (
        "bfloat16"
    )
    with pytest.raises(ValueError, match="`dtype` is for a teacher given by name"):
        distill(folder="new", dtype="bfloat16")


def test_teacher_and_tokenizer_are_left_as_they_are(distill, make_teacher):
    model, tokenizer = make_teacher("mbart")
    before = model.generation_config.to_dict(), tokenizer.src_lang, tokenizer.tgt_lang
    codes = {"teacher_source_lang": "de_DE", "teacher_target_lang": "en_XX"}
    distill(teacher=model.train(), tokenizer=tokenizer, num_beams=2, **codes)
    assert before == (model.generation_config.to_dict(), tokenizer.src_lang, tokenizer.tgt_lang)
    assert model.training


@pytest.mark.parametrize(
    ("kind", "codes", "name"),
    [
        ("mbart", ("en_XX", "de_DE"), "decoder_start_token_id"),
        ("nllb", ("eng_Latn", "deu_Latn"), "forced_bos_token_id"),
        ("m2m100", (None, None), "forced_bos_token_id"),  # those of the data
    ],
)
def test_the_teachers_languages_are_set(distill, make_teacher, tmp_path, kind, codes, name):
    model, tokenizer = make_teacher(kind)
    asked = dict(zip(("teacher_source_lang", "teacher_target_lang"), codes, strict=True))
    distill(teacher=model, tokenizer=tokenizer, **asked)
    plan = json.loads((tmp_path / "out" / "distillation.json").read_text())["plan"]
    source, target = plan["languages"]
    assert [source, target] == [codes[0] or "en", codes[1] or "de"]
    ids = getattr(tokenizer, "lang_code_to_id", None) or tokenizer.get_vocab()
    assert plan["generation"][name] == ids[target]
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    given = {"decoder_start_token_id": ids[target]} if kind == "mbart" else {}
    given = given or {"forced_bos_token_id": ids[target]}
    row = rows_in(tmp_path / "out")[0]
    inputs = tokenizer([row["translation"]["en"]], return_tensors="pt")
    output = model.generate(**inputs, **given)[:, 1 + (kind != "mbart") :]
    (text,) = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert row["translation"]["de"] == text.strip()


def test_a_marian_of_several_targets_gets_its_code_in_front(
    distill, marian_tokenizer, make_teacher, tmp_path
):
    from axe_hf.pipeline import own_tokenizer

    tokenizer = own_tokenizer(marian_tokenizer)
    tokenizer.supported_language_codes = [">>deu<<", ">>nld<<"]
    model, _ = make_teacher("bart")
    model.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ValueError, match="`teacher_target_lang` must be .* such as deu.* got 'de'"):
        distill(teacher=model, tokenizer=tokenizer)
    for folder, asked in {
        "code": {"teacher_target_lang": "deu"},
        "prefix": {"source_prefix": ">>deu<< "},
    }.items():
        distill(folder=folder, teacher=model, tokenizer=tokenizer, **asked)
    assert rows_in(tmp_path / "code") == rows_in(tmp_path / "prefix")


def test_a_prefix_is_read_by_the_teacher_alone(distill, make_teacher, tmp_path):
    model, tokenizer = make_teacher("t5")
    distill(folder="bare", teacher=model, tokenizer=tokenizer)
    distill(teacher=model, tokenizer=tokenizer, source_prefix="nine ten ")
    bare, rows = rows_in(tmp_path / "bare"), rows_in(tmp_path / "out")
    assert [r["translation"]["en"] for r in rows] == [r["translation"]["en"] for r in bare]
    inputs = tokenizer([f"nine ten {rows[0]['translation']['en']}"], return_tensors="pt")
    (text,) = tokenizer.batch_decode(model.generate(**inputs)[:, 1:], skip_special_tokens=True)
    assert rows[0]["translation"]["de"] == text.strip() and rows != bare


def test_a_teacher_that_names_no_longest_translation_is_not_cut_at_20(
    distill, make_teacher, tmp_path
):
    model, tokenizer = make_teacher("bart")
    model.generation_config.max_new_tokens = None
    model.generation_config.suppress_tokens = [tokenizer.eos_token_id]  # it never ends
    result = distill(teacher=model, tokenizer=tokenizer, shard_size=50)
    plan = json.loads((tmp_path / "out" / "distillation.json").read_text())["plan"]
    assert plan["generation"]["max_new_tokens"] == 39  # a decoder of 40 positions
    assert result.counts["kept"] == 45
    with pytest.raises(ValueError, match="Nothing is left of 45 sentences: unfinished 45"):
        distill(folder="new", teacher=model, tokenizer=tokenizer, drop_unfinished=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generation": {"num_beam": 4}}, "no setting 'num_beam'; did you mean 'num_beams'"),
        ({"generation": {"num_return_sequences": 4}}, "'num_return_sequences' is no part of"),
        ({"generation": {"num_beams": 4}, "num_beams": 2}, "`num_beams` is given twice"),
        ({"generation": {"early_stopping": "maybe"}}, "`generation`: .*early_stopping"),
        ({"max_new_tokens": 40}, "`max_new_tokens` must be below 40"),
        ({"max_source_length": 41}, "`max_source_length` is 41, over the teacher's limit of 40"),
        ({"num_beams": 0}, "`num_beams` must be at least 1"),
        ({"max_length_ratio": 0.5}, "`max_length_ratio` must be from 1"),
        ({"drop_lowest": 1.0}, r"`drop_lowest` must be in \[0, 1\)"),
        ({"format": "csv"}, "`format` must be one of 'jsonl', 'parquet', got 'csv'"),
        ({"engine": "onnx"}, "`engine` must be one of"),
        ({"teacher_target_lang": "de"}, "`teacher_target_lang` is 'de', but .* no such codes"),
        ({"device": "tpu"}, "`device`: 'tpu' cannot be used"),
        ({"source_lang": "de"}, "`source_lang` and `target_lang` must differ, got 'de' twice"),
        ({"source_lang": "fr"}, "must have the language 'fr'"),
        ({"int8": True, "dtype": "bfloat16"}, "`int8` takes the place of `dtype`"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(distill, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        distill(**settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["num_beams=4", ["num_beams", 4]])
def test_other_settings_of_the_search_are_given_by_name(distill, given):
    with pytest.raises(TypeError, match="`generation` must be a dict of settings by their names"):
        distill(generation=given)


def test_text_with_one_key_for_both_sides_is_refused(distill, tmp_path):
    (tmp_path / "text.txt").write_text("one\n")
    with pytest.raises(ValueError, match="must differ, got 'en' twice"):
        distill(tmp_path / "text.txt", target_lang="en")


def test_data_without_sentences_or_translations_is_refused(distill, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "text.txt").write_text("one\n")
    (tmp_path / "memory.tmx").write_text("<tmx/>\n")
    with pytest.raises(ValueError, match="empty.txt: must hold at least one sentence"):
        distill(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="`keep_original` needs data with translations"):
        distill(tmp_path / "text.txt", keep_original=True)
    with pytest.raises(ValueError, match="`data` must end in .jsonl, .json, .tsv"):
        distill(tmp_path / "memory.tmx")
    with pytest.raises(FileNotFoundError, match="`data` must name .*nowhere.txt"):
        distill(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="`data` must name at least one"):
        distill([])
    assert not (tmp_path / "out").exists()


def test_a_language_that_the_teacher_does_not_know_is_answered_with_near_ones(
    distill, make_teacher, tmp_path
):
    model, tokenizer = make_teacher("nllb")
    with pytest.raises(ValueError, match="`teacher_source_lang` must be .* such as eng_Latn;"):
        distill(teacher=model, tokenizer=tokenizer)
    codes = {"teacher_source_lang": "eng_Latn", "teacher_target_lang": "deu_Latin"}
    with pytest.raises(ValueError, match="own 3 codes, such as deu_Latn.* got 'deu_Latin'"):
        distill(teacher=model, tokenizer=tokenizer, **codes)
    assert not (tmp_path / "out").exists()


def test_teachers_that_cannot_be_are_refused(
    distill, marian, teacher, tokenizer, make_model, tmp_path
):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 300}
    causal = GPT2LMHeadModel(GPT2Config(**sizes))
    with pytest.raises(TypeError, match="The teacher model must be an encoder-decoder, got GPT2"):
        distill(teacher=causal)
    with pytest.raises(TypeError, match="The teacher model must be autoregressive, got Cmlm"):
        distill(teacher=make_model())
    with pytest.raises(ValueError, match=r"`tokenizer` is missing: a loaded teacher \(Marian"):
        distill(tokenizer=None)
    shutil.copytree(teacher, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / name).unlink()
    causal.save_pretrained(tmp_path / "causal")
    (tmp_path / "empty").mkdir()
    for folder, message in {
        "bare": "bare has no tokenizer that can be read .*by `tokenizer`",
        "causal": "must be an encoder-decoder .*causal is a 'gpt2'",
        "empty": "holds no model: there is no config.json",
        "owner/none": "neither a folder with a model nor one on the Hub",
    }.items():
        path = folder if "/" in folder else tmp_path / folder
        with pytest.raises(ValueError, match=message):
            distill(teacher=path, tokenizer=None)
    distill(teacher=tmp_path / "bare", tokenizer=str(teacher))
    assert len(rows_in(tmp_path / "out")) == 45


def test_a_tokenizer_that_is_not_the_teachers_is_refused(distill, tokenizer, tmp_path):
    from transformers import BartTokenizer

    words = [a + b for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    big = axe_hf.train_tokenizer(words * 9, vocab_size=600)
    assert max(max(ids) for ids in big(words).input_ids) >= len(tokenizer)
    (tmp_path / "words.txt").write_text("\n".join(words))
    with pytest.raises(ValueError, match="teacher's tokenizer's token .* Do model and tokenizer"):
        distill(tmp_path / "words.txt", tokenizer=big)
    with pytest.raises(ValueError, match="has 5 symbols: it knows no word of 45 of the first 45"):
        distill(tokenizer=BartTokenizer())  # as Transformers makes one where there are no files
    assert not (tmp_path / "out").exists()


def test_a_log_gets_a_line_now_and_then(distill, monkeypatch, capsys):
    monkeypatch.setattr("axe_hf.teachers.work._SECONDS_BETWEEN_LINES", 0)
    distill(shard_size=45)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("Translated 45 of 45 sentences, ")
    assert lines[-1].endswith(" a second, 0 minutes left")


def test_the_engine_that_is_not_installed_is_named(distill, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ImportError, match=r'python -m pip install "axe-hf\[ctranslate2\]"'):
        distill(engine="ctranslate2")


def test_counts_add_up(distill):
    asked = {"max_length_ratio": 2.5, "max_ngram": 3, "drop_lowest": 0.2}
    counts = Counter(distill(drop_copies=True, **asked).counts)
    assert counts.pop("read") == counts.total() == 45 and len(counts) > 2
