"""The examples run, on tiny settings, and read like programs to copy from."""

import ast
import json
import runpy
import sys

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer

NAMES = (
    "01_axe_by_hand.py",
    "02_train.py",
    "03_translate.py",
    "04_push_to_hub.py",
    "05_teacher_to_student.py",
    "export_onnx.py",
    "onnx_translate.py",
    "run_translation.py",
)


@pytest.fixture
def run_example(repository, monkeypatch, capsys):
    """Runs an example as a program, in this process, and returns what it printed."""

    def run(name, *argv):
        path = repository / "examples" / name
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, argv)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_what_it_does(name, repository):
    text = (repository / "examples" / name).read_text(encoding="utf-8")
    most = {"05_teacher_to_student.py": 160}.get(name, 80)  # the whole road in one program
    assert len(text.splitlines()) < most
    header = ast.get_docstring(ast.parse(text))
    for part in ("What it does:", "Takes ", f"python examples/{name}", "Expected output:"):
        assert part in header, part
    assert "# 1. " in text and "# 2. " in text


def test_axe_by_hand_prints_the_numbers_of_its_header(run_example, repository):
    printed = run_example("01_axe_by_hand.py")
    header = (repository / "examples" / "01_axe_by_hand.py").read_text(encoding="utf-8")
    assert "cross entropy: 23.94 nats" in printed and "23.94" in header
    assert "AXE:            9.78 nats" in printed and "9.78" in header
    assert '"though" was left out' in printed
    assert "1  really     <blank>" in printed
    assert "AXE:             5.04 nats" in printed and "5.04" in header
    assert "repetition:      0.31 nats" in printed and "0.31" in header


def test_training_translating_and_sharing_follow_on_each_other(run_example, hub, tmp_path):
    model = tmp_path / "model"
    options = f"--output_dir {model} --max_train_pairs 60 --max_steps 2 --vocab_size 400 --use_cpu "
    options += "--d_model 16 --num_layers 1 --save_strategy no --disable_tqdm true "
    options += "--ours --masking full --length_multiplier 2"
    printed = run_example("02_train.py", *options.split())
    assert "bleu_signature: nrefs:var" in printed
    assert (model / "README.md").is_file()

    printed = run_example("03_translate.py", model, "Where is the station?", "I am hungry.")
    assert "In one pass of the decoder:" in printed
    steps = printed.split("nats per position):\n")[1].splitlines()
    assert [line[:3] for line in steps[:5]] == ["0  ", "1  ", "2  ", "3  ", "4  "]
    assert set(steps[0][3:].split()) == {"_"} and "_" not in steps[4].split()

    printed = run_example("04_push_to_hub.py", model, "me/en-de-axe", "--private")
    names = hub.files("me/en-de-axe").keys()
    assert {"modeling_cmlm.py", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert f"{hub.url}/me/en-de-axe" in printed


def test_the_training_example_fine_tunes_on_files(run_example, tmp_path):
    pairs = "".join(f"number {i}\tNummer {i}\n" for i in range(20))
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    files = f"--train_file {tmp_path}/pairs.tsv --test_file {tmp_path}/pairs.tsv"
    small = "--d_model 16 --num_layers 1 --vocab_size 300 --max_steps 1 --use_cpu"
    small += " --save_strategy no --disable_tqdm true"
    run_example("02_train.py", *f"{files} {small} --output_dir {tmp_path}/first".split())
    again = f"{files} {small} --output_dir {tmp_path}/second --model_name_or_path {tmp_path}/first"
    printed = run_example("02_train.py", *again.split())
    assert "bleu_signature: nrefs:1" in printed
    assert (tmp_path / "second" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_road_from_a_teacher_to_its_students_is_gone_in_one_program(
    run_example, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "pairs.tsv").write_text("number one\tNummer eins\ntwo\tzwei\n" * 12)
    files = f"--train_file {tmp_path}/pairs.tsv --test_file {tmp_path}/pairs.tsv"
    small = "--d_model 16 --vocab_size 300 --max_steps 20 --per_device_train_batch_size 4"
    small += " --learning_rate 0.01 --use_cpu --save_strategy no --disable_tqdm true"
    chosen = "--losses CTC --targets distilled --max_train_pairs 20"
    folder = tmp_path / "road"
    options = f"{files} {small} {chosen} --output_dir {folder}".split()
    printed = run_example("05_teacher_to_student.py", *options)
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert table in printed and "nrefs:1|" in printed
    names = [f"CTC, {start}, distilled, T={T}" for start in ("cold", "warm") for T in (1, 4)]
    names += ["teacher, 1 beams", "teacher, 5 beams"]
    assert [line.split(" | ")[0][2:] for line in table.splitlines()[2:]] == names
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results) == names and all(found["ms alone"] > 0 for found in results.values())
    assert (folder / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    warm = AutoModelForSeq2SeqLM.from_pretrained(folder / "CTC, warm, distilled")
    assert warm.config.axe_temperature == 1 and warm.config.masking == "full"
    teacher = AutoModelForSeq2SeqLM.from_pretrained(folder / "teacher")
    assert warm.config.d_model == teacher.config.d_model == 16
    assert warm.model.shared.weight[5:].shape == teacher.model.shared.weight[5:].shape


@pytest.mark.slow
def test_the_export_example_translates_in_onnxruntime_as_generate_does(run_example, tmp_path):
    pytest.importorskip("onnxruntime")
    tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    options = ("--num_iterations", 2, "--max_length", 9)
    folder = tmp_path / "onnx"
    printed = run_example("export_onnx.py", tmp_path / "model", folder, "A dog.", "A", *options)
    lines = printed.splitlines()
    assert lines[2].startswith(f"{folder / 'mask_predict.onnx'}: ")
    assert "tokens: equal" in lines
    difference = printed.split("log-probability: ")[1].split(" nats")[0]
    assert float(difference) < 1e-5
    assert "onnxruntime: " in lines[-2] and lines[-1].endswith(" ms for 2 sentences")
