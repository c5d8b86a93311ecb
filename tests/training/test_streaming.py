import json
import math
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from axe_hf.data import PairStream, PairTokenizer, TranslationStream
from axe_hf.training import AxeTrainingArguments, DataArguments, ModelArguments, run_training

LANGUAGES = {"source_lang": "en", "target_lang": "de"}
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}


@pytest.fixture
def file(pairs, tmp_path):
    """The 60 toy pairs in a file."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture
def stream(file, tokenizer):
    """The toy pairs in windows of 25."""
    tokenize = PairTokenizer(tokenizer, *LANGUAGES.values(), 12, 12)
    return TranslationStream(PairStream(file, **LANGUAGES), tokenize, shuffle_buffer=25)


SETTINGS = {
    "token budget": {"max_tokens_per_batch": 48, "gradient_accumulation_steps": 2},
    "sentences": {"per_device_train_batch_size": 8, "ema_decay": 0.9},
    "workers": {"max_tokens_per_batch": 48, "dataloader_num_workers": 2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_on_a_stream_is_resumed_bit_for_bit(name, make_trainer, make_model, stream, tmp_path):
    settings = SETTINGS[name] | {"max_steps": 12, "save_steps": 1, "save_strategy": "steps"}
    settings |= {"logging_steps": 1, "save_total_limit": None, "output_dir": str(tmp_path / "run")}

    def train(**how):
        model = make_model(dropout=0.2)
        trainer = make_trainer(model, train_dataset=stream, eval_dataset=None, **settings)
        trainer.train(**how)
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        return model.state_dict(), losses, trainer.state.epoch

    whole, losses, epoch = train()
    train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-7"))
    # What the resumed run saved after one step, of which a second worker knows nothing.
    resumed, again, last = train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert again == losses and last == epoch
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_a_checkpoint_of_other_processes_or_workers_goes_on_nearby_and_says_so(
    make_trainer, stream, tmp_path, caplog
):
    settings = {"max_tokens_per_batch": 48, "save_steps": 7, "save_strategy": "steps"}
    make_trainer(train_dataset=stream, max_steps=7, **settings).train()
    checkpoint = tmp_path / "run" / "checkpoint-7"
    state = json.loads((checkpoint / "stream_state_0.json").read_text())
    assert state["workers"][0]["positions"][0]["mark"]["line"] in (25, 50)
    settings |= {"max_steps": 8, "dataloader_num_workers": 2}
    make_trainer(train_dataset=stream, **settings).train(resume_from_checkpoint=str(checkpoint))
    text = "was read by 1 processes with 1 readers each, and now by 1 with 2. All go on where"
    assert text in caplog.text
    (checkpoint / "stream_state_0.json").unlink()
    caplog.clear()
    make_trainer(train_dataset=stream, **settings).train(resume_from_checkpoint=str(checkpoint))
    assert "holds no stream_state_0.json: the data are read from the beginning" in caplog.text


def test_a_checkpoint_tells_if_its_files_have_changed(make_trainer, stream, file, tmp_path, caplog):
    settings = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps"}
    make_trainer(train_dataset=stream, **settings).train()
    Path(file).write_text(Path(file).read_text() * 2)
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    make_trainer(train_dataset=stream, **settings).train(resume_from_checkpoint=checkpoint)
    assert "`train_dataset` is a stream of 1 files" in caplog.text
    assert "the run goes on as another one" in caplog.text


@pytest.fixture
def run(file, tmp_path):
    """Runs a small training; keywords go to the three kinds of arguments by name."""

    def start(output="out", **settings):
        data = LANGUAGES | {"vocab_size": 300, "train_file": file, "test_file": file}
        data |= {"max_source_length": 12, "max_target_length": 12, "max_predict_samples": 5}
        training = {"max_steps": 8, "save_steps": 3, "use_cpu": True, "disable_tqdm": True}
        given = SIZES | data | training | {"output_dir": str(tmp_path / output)} | settings
        kinds = (ModelArguments, DataArguments, AxeTrainingArguments)
        names = [{field.name for field in fields(kind)} for kind in kinds]
        return run_training(
            *(
                kind(**{name: value for name, value in given.items() if name in own})
                for kind, own in zip(kinds, names, strict=True)
            )
        )

    return start


def test_a_whole_run_streams_and_is_resumed(run, tmp_path, caplog):
    settings = {"streaming": True, "shuffle_buffer": 25, "max_tokens_per_batch": 48}
    result = run(**settings)
    assert "The tokenizer learns" not in caplog.text  # all 60
    assert result.trainer.state.log_history[-1]["test_runtime"] > 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "train.jsonl" in card and "| epochs" not in card
    again = run(**settings, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    theirs = again.model.state_dict()
    assert all(torch.equal(w, theirs[name]) for name, w in result.model.state_dict().items())


def test_a_stream_takes_the_first_pairs_and_needs_no_workers_of_its_own(run, caplog, monkeypatch):
    monkeypatch.setattr("axe_hf.training.loading.MOST_PAIRS_FOR_TOKENIZER", 15)
    settings = {"streaming": True, "max_train_samples": 20, "preprocessing_num_workers": 2}
    result = run(**settings, max_steps=2)
    assert "The tokenizer learns the first 15 pairs of the stream" in caplog.text
    assert "`preprocessing_num_workers` is 2, but changes nothing: a stream" in caplog.text
    stream = result.trainer.train_dataset
    assert len(list(stream.pairs.first(99))) == 20
    assert "of 20 pairs" in stream.description


def test_a_stream_has_both_directions_of_a_pair_as_data_read_whole(run, tmp_path):
    directions = {"source_lang": None, "target_lang": None, "directions": ["en-de", "de-en"]}
    directions |= {"test_file": None, "max_predict_samples": None, "vocab_size": 330}
    whole = run("whole", **directions, max_steps=1).trainer.train_dataset
    settings = {"streaming": True, "shuffle_buffer": 25, "per_device_train_batch_size": 10}
    result = run("streamed", **directions, **settings, max_steps=2)
    stream, seen = result.trainer.train_dataset, []
    for batch in stream.batches(batch_size=10):  # two windows of 25 pairs, one of 10
        seen += [(row["input_ids"], row["labels"]) for row in batch.rows]
        if batch.state["window"] == 3:
            break
    expected = [(row["input_ids"], row["labels"]) for row in whole]
    assert len(expected) == 120 and sorted(seen) == sorted(expected)
    tags = [result.tokenizer.convert_tokens_to_ids(tag) for tag in (">>de<<", ">>en<<")]
    assert sorted(source[0] for source, _ in seen) == sorted(tags * 60)
    with pytest.raises(ValueError, match="`tokenize` must be one or several of equal limits"):
        TranslationStream(stream.pairs, [])


def test_so_many_pairs_are_read_and_scored_as_was_asked_for(run):
    result = run(max_train_samples=20, max_steps=2)
    assert len(result.trainer.train_dataset) == 20
    assert result.metrics["test_samples_per_second"] * result.metrics["test_runtime"] < 5.5


def test_a_run_mixes_files_by_their_weights(run, file, tmp_path, caplog):
    few = tmp_path / "few.tsv"
    few.write_text("one\teins\ntwo\tzwei\n")
    weights = {"train_file": [file, str(few)], "train_file_weights": [3, 1]}
    result = run(**weights, max_steps=2)
    assert len(result.trainer.train_dataset) == 80  # 60 and 20
    assert "an epoch has 60 of 60 and 20 of 2 pairs" in caplog.text
    assert "train.jsonl and few.tsv" in (tmp_path / "out" / "README.md").read_text()
    run("streamed", **weights, max_steps=2, streaming=True, shuffle_buffer=40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streaming": True, "max_steps": -1}, "`max_steps` must be set with `streaming`"),
        ({"shuffle_buffer": 9}, "`shuffle_buffer` is 9, but is of a stream"),
        ({"train_file_weights": [1, 2]}, "`train_file_weights` must be one for each source, got 2"),
        ({"train_file_weights": ["x"]}, "`train_file_weights` must be numbers, got"),
        (
            {"train_file_weights": [math.nan]},
            "`train_file_weights\\[0\\]` must be positive",
        ),
        ({"max_eval_samples": 0}, "`max_eval_samples` must be at least 1"),
        (
            {"streaming": True, "max_tokens_per_batch": 10},
            "`max_tokens` must hold every pair, got 10, but the stream may have 12",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(run, settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


@pytest.mark.slow
def test_two_processes_share_a_stream_step_by_step_and_resume_bit_for_bit(file, pairs, tmp_path):
    script = Path(__file__).with_name("stream_of_two.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--standalone", str(script), file, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in range(2)]
    assert [one["steps"] for one in told] == [9, 9]
    assert all(one["is_equal"] for one in told)
    texts = [pair["translation"]["en"] for pair in pairs]
    assert sorted(told[0]["first_epoch"] + told[1]["first_epoch"]) == sorted(texts)
