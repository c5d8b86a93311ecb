"""`axe-hf translate`: what it prints and writes, and how each failure looks."""

import gzip
import json
import os
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from axe_hf import train_tokenizer
from axe_hf.translation import Translation, translate_with_scores


def test_texts_file_and_standard_input_give_the_same_lines(axe_hf, stdin, model, tmp_path):
    texts = ["one two", "", "three four one"]
    code, from_arguments, _ = axe_hf("translate", model, *texts)
    assert code == 0
    lines = from_arguments.split("\n")
    assert len(lines) == 4 and lines[1] == lines[3] == ""
    (tmp_path / "in.txt").write_bytes("\r\n".join(texts).encode("utf-8-sig"))
    assert axe_hf("translate", model, "--input", tmp_path / "in.txt")[1] == from_arguments
    stdin("\n".join(texts).encode())
    assert axe_hf("translate", model)[1] == from_arguments
    stdin(b"")
    assert axe_hf("translate", model)[:2] == (0, "")


def test_gzipped_files_are_read_by_every_command(axe_hf, model, tmp_path):
    plain, packed = tmp_path / "a.en", tmp_path / "a.en.gz"
    plain.write_text("one two\nthree\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = axe_hf("translate", model, "--input", plain)
    assert expected[0] == 0 and axe_hf("translate", model, "--input", packed) == expected
    words = ("evaluate", "--translations", packed, "--references", packed, plain)
    code, out, _ = axe_hf(*words)
    assert code == 0 and "BLEU" in out


def test_output_goes_to_a_file_and_overwrites_only_when_told(axe_hf, fails, model, tmp_path):
    output = tmp_path / "out.txt"
    _, expected, _ = axe_hf("translate", model, "one two", "two")
    code, out, _ = axe_hf("translate", model, "one two", "two", "--output", output)
    assert (code, out) == (0, "")
    assert output.read_text(encoding="utf-8") == expected
    output.write_text("mine")
    line = fails(1, "translate", model, "two", "--output", output)
    assert f"{output} exists already. Replace it by --overwrite." in line
    assert output.read_text() == "mine"
    assert axe_hf("translate", model, "two", "--output", output, "--overwrite")[0] == 0
    assert output.read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_output_follows_no_link_and_has_the_right_mode(axe_hf, model, tmp_path):
    output, victim = tmp_path / "out.txt", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".out.txt.{os.getpid()}.unfinished").symlink_to(victim)
    before = os.umask(0o027)
    try:
        assert axe_hf("translate", model, "two", "--output", output)[0] == 0
    finally:
        os.umask(before)
    assert victim.read_text() == "mine" and not output.is_symlink()
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    for mode in (0o600, 0o664):
        output.chmod(mode)
        assert axe_hf("translate", model, "one", "--output", output, "--overwrite")[0] == 0
        assert stat.S_IMODE(output.stat().st_mode) == mode
    assert len(list(tmp_path.iterdir())) == 3


def test_an_output_that_is_also_read_is_not_overwritten(fails, model, tmp_path):
    file, link, other = tmp_path / "news.en", tmp_path / "link", tmp_path / "other"
    file.write_text("one\n")
    other.write_text("two\n")
    os.link(file, link)
    pair = ("--source-lang", "en", "--target-lang", "de")
    for words in (
        ("translate", model, "--input", file),
        ("translate", model, "--input", link),
        ("evaluate", "--translations", other, "--references", other, file),
        ("evaluate", "--translations", file, "--references", other),
        ("evaluate", model, f"{other}, {file}", *pair),
    ):
        line = fails(1, *words, "--output", file, "--overwrite")
        assert f"--output: {file} is read, too. Write to another file." in line
        assert file.read_text() == "one\n"


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="needs /dev/stdin")
def test_an_output_that_the_shell_reads_from_is_not_overwritten(fails, model, tmp_path):
    file, before = tmp_path / "news.en", os.dup(0)
    file.write_text("one\n")
    try:
        with open(file) as opened:
            os.dup2(opened.fileno(), 0)
        line = fails(1, "translate", model, "--output", file, "--overwrite")
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert "is read, too" in line and file.read_text() == "one\n"


@pytest.mark.parametrize("text", ["one \udcff two", "\ud83d one", "\u200b", "\x00"])
def test_show_steps_takes_broken_unicode_and_texts_that_show_nothing(axe_hf, model, text):
    _, plain, _ = axe_hf("translate", model, text)
    code, out, _ = axe_hf("translate", model, "--show-steps", text)
    assert code == 0 and out.splitlines()[-2] == plain.rstrip("\n")
    assert ("\n0  _" in out) == ("one" in text)


def test_nothing_in_a_sentence_commands_the_terminal(axe_hf, model, monkeypatch):
    commands = "\x1b]0;owned\x07", "\x9b31mred", "\u202eone", "one\rtwo"
    for text in commands:
        code, out, _ = axe_hf("translate", model, "--show-steps", f"one {text}")
        shown = text.encode("unicode_escape").decode()
        assert code == 0 and out.startswith(f"one {shown}\n0  _")
        assert not set("\x1b\x07\x9b\u202e\r") & set(out)
    found = [[Translation(text, 0.0)] for text in commands]
    monkeypatch.setattr("axe_hf.translation.translate_with_scores", lambda *_, **__: found)
    _, piped, _ = axe_hf("translate", model, "x")
    assert piped == "".join(f"{text}\n" for text in commands)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, out, _ = axe_hf("translate", model, "x")
    assert out.splitlines() == [r"\x1b]0;owned\x07", r"\x9b31mred", r"\u202eone", r"one\rtwo"]


def test_options_of_the_decoding_reach_it_wherever_they_stand(axe_hf, model, monkeypatch):
    seen = {}

    def record(model, tokenizer, texts, **settings):
        seen.update(settings, texts=texts)
        return [[Translation("", 0.0)]] * len(texts)

    monkeypatch.setattr("axe_hf.translation.translate_with_scores", record)
    options = "--num-iterations 3 --length_multiplier 1.1 --collapse-repeats --batch-size 7"
    code, *_ = axe_hf("translate", model, *options.split(), "one two", "--max-length", "9", "x")
    assert code == 0
    assert seen == {
        "texts": ["one two", "x"],
        "num_iterations": 3,
        "length_multiplier": 1.1,
        "collapse_repeats": True,
        "max_length": 9,
        "batch_size": 7,
        "num_return_sequences": 1,
    }


def test_every_setting_of_mask_predict_is_an_option_that_is_explained(axe_hf):
    from axe_hf.cmlm.configuration_mask_predict import SETTINGS

    offered = {name for name, setting in SETTINGS.items() if setting.is_option}
    assert {"num_iterations", "num_length_candidates", "collapse_repeats"} <= offered
    assert {"min_length", "max_length"} <= offered and "output_history" not in offered
    several = {"num_return_sequences"}  # which only `translate` can print
    for command, more in (("translate", several), ("evaluate", set())):
        shown = " ".join(axe_hf(command, "--help")[1].split())
        for name, setting in SETTINGS.items():
            text = " ".join(setting.help.replace("`", "").split()[:3])
            assert (f"--{name.replace('_', '-')} " in shown.replace(",", " ")) == (
                name in offered | more
            )
            assert text in shown or name not in offered


def test_show_steps_draws_each_iteration_above_the_translation(axe_hf, model, tmp_path):
    _, plain, _ = axe_hf("translate", model, "one two", "--num-iterations", "3")
    options = ("--show-steps", "--num-iterations", "3", "--output", tmp_path / "out.txt")
    code, out, _ = axe_hf("translate", model, *options, "one two", "")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "one two"
    assert [line[:3] for line in lines[1:5]] == ["0  ", "1  ", "2  ", "3  "]
    assert lines[5] + "\n" == plain
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == plain + "\n"


def test_wrong_usage(fails, model):
    assert "required: MODEL" in fails(2, "translate")
    assert "--nope" in fails(2, "translate", model, "x", "--nope")
    assert "not both" in fails(2, "translate", model, "x", "--input", "file")
    line = fails(2, "translate", model, "x", "--num-iterations", "0")
    assert "`num_iterations` must be an integer >= 1, got 0" in line
    assert "--num-iterations: invalid int" in fails(
        2, "translate", model, "x", "--num-iterations", "a"
    )
    line = fails(2, "translate", model, "x", "--batch-size", "0")
    assert "--batch-size: must be a whole number from 1, got '0'" in line


def test_a_model_that_is_none(fails, model, tmp_path):
    assert "there is no folder" in fails(1, "translate", tmp_path / "nowhere", "x")
    assert "no config.json" in fails(1, "translate", tmp_path, "x")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "does not say what it was trained on" in fails(1, "translate", tmp_path / "adapter", "x")
    rescoring = ("--rescore-with", tmp_path / "adapter", "--num-length-candidates", "2")
    assert "save what axe_hf.load_merged gives" in fails(1, "translate", model, "x", *rescoring)
    (tmp_path / "file").write_text("")
    assert "is a file" in fails(1, "translate", tmp_path / "file", "x")
    line = fails(1, "translate", "nobody/nothing", "x")
    assert "nobody/nothing is neither a folder with a model nor one on the Hub" in line
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "must be a CMLM" in fails(1, "translate", tmp_path, "x")
    assert "--device: 'abacus'" in fails(1, "translate", model, "x", "--device", "abacus")


def test_files_that_cannot_be_read_or_written(fails, model, tmp_path, stdin):
    line = fails(1, "translate", model, "--input", tmp_path / "nowhere")
    assert "nowhere" in line
    (tmp_path / "latin").write_bytes(b"good\ncaf\xe9\n")
    line = fails(1, "translate", model, "--input", tmp_path / "latin")
    assert f"{tmp_path / 'latin'}, line 2: must be UTF-8, got byte 0xe9" in line
    stdin(b"\xff\n")
    assert "standard input, line 1: must be UTF-8" in fails(1, "translate", model)
    line = fails(1, "translate", model, "x", "--output", tmp_path / "no" / "out.txt")
    assert "--output: there is no folder" in line
    line = fails(1, "translate", model, "x", "--output", os.devnull, "--overwrite")
    assert "--output must name a plain file" in line


def test_sampling_shows_the_steps_of_the_translation_it_prints(axe_hf, model):
    options = [
        "--show-steps",
        "--do-sample",
        "--temperature",
        "5",
        "--min-length",
        "8",
        "--num-iterations",
        "2",
    ]
    _, out, _ = axe_hf("translate", model, *options, "one two")
    *_, last_step, translation = out.rstrip("\n").split("\n")
    # Bytes, such as <0xB1>, are joined to letters in the translation.
    words = [word.lstrip("·") for word in last_step.split()[1:] if word[0] not in "<ε"]
    assert words and all(word in translation for word in words), out


def test_another_model_chooses_among_the_candidates(axe_hf, fails, model, rescorer, tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from axe_hf import translate

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = ["one two", "three four one", "two"]
    options = ["--num-length-candidates", "12", "--rescore-with", rescorer]
    code, out, err = axe_hf("translate", model, *texts, *options)
    assert code == 0, err
    _, shown, _ = axe_hf("translate", model, *texts, *options, "--show-steps")
    translations = out.splitlines()
    for i, text in enumerate(texts):
        paragraph = shown.split("\n\n")[i].splitlines()
        # The steps are those of the candidate that the other model chose.
        assert paragraph[0] == text and paragraph[-1] == translations[i]
        words = [word.lstrip("·") for word in paragraph[-2].split()[1:] if word[0] not in "<ε"]
        assert words and all(word in translations[i] for word in words), shown
    line = fails(1, "translate", model, "one", "--rescore-with", tmp_path)
    assert f"--rescore-with: {tmp_path} holds no model" in line
    loaded = AutoModelForSeq2SeqLM.from_pretrained(model)
    pair = (AutoModelForSeq2SeqLM.from_pretrained(rescorer), tokenizer)
    settings = {"num_length_candidates": 12, "rescore_with": pair}
    expected = translate(loaded, tokenizer, texts, **settings)
    assert out == "".join(" ".join(text.split("\n")) + "\n" for text in expected)


def test_int8_translates_on_a_cpu_though_there_be_a_gpu(axe_hf, model, monkeypatch):
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from axe_hf import quantize_int8, translate

    texts = ["one two", "three four one"]
    loaded, tokenizer = (
        auto_class.from_pretrained(model) for auto_class in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    expected = translate(quantize_int8(loaded), tokenizer, texts, min_length=9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ((), ("--device", "cpu")):
        options = ("--int8", "--min-length", "9", *device)
        code, out, err = axe_hf("translate", model, *texts, *options)
        assert code == 0, err
        assert out == "".join(" ".join(text.split("\n")) + "\n" for text in expected)


def test_int8_takes_a_model_that_was_saved_in_half_precision(axe_hf, half_precision_model):
    import json

    config = json.loads((half_precision_model / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    code, out, err = axe_hf("translate", half_precision_model, "one two", "--int8")
    assert code == 0, err
    assert out.count("\n") == 1


def test_int8_is_refused_on_another_device(fails, model):
    line = fails(2, "translate", model, "x", "--int8", "--device", "cuda:1")
    assert "--int8 multiplies on a CPU: leave out --device cuda:1, or --int8" in line


MATRIX = "model.encoder.layers.0.fc1.weight"
KEYS = "model.decoder.layers.0.encoder_attn.k_proj.weight"


@pytest.fixture
def spoilt(model, tmp_path):
    """Copies the folder of the model, with its weights changed in place by a function."""

    def make(change):
        folder = tmp_path / "spoilt"
        shutil.copytree(model, folder)
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop(MATRIX), f"lacks the weights {MATRIX}"),
        (lambda w: w.update(more=torch.ones(1)), "unexpected_keys: more"),
        (lambda w: w.update({MATRIX: w[MATRIX].to(torch.int8)}), "floating point, got torch.int8"),
        (lambda w: w.update({MATRIX: torch.ones(3, 16)}), "no whole model"),
        (lambda w: w[MATRIX].fill_(torch.nan), "hold NaN or infinity"),
        (lambda w: w[MATRIX].fill_(torch.inf), "hold NaN or infinity"),
        (lambda w: w[KEYS][:, 0].fill_(torch.nan), f"hold NaN or infinity: {KEYS}"),
    ],
)
def test_a_checkpoint_with_wrong_weights_is_an_error(axe_hf, spoilt, tmp_path, change, complaint):
    output = tmp_path / "out.txt"
    code, out, err = axe_hf("translate", spoilt(change), "one two", "--output", output)
    assert (code, out, output.exists()) == (1, "", False)
    assert complaint in err.splitlines()[-1] and "axe-hf translate: error: " in err


def test_integer_weights_in_a_bin_file_are_an_error(fails, spoilt):
    for kind in (torch.int32, torch.bool):
        folder = spoilt(lambda weights: None)
        weights = load_file(folder / "model.safetensors")
        torch.save(weights | {KEYS: weights[KEYS].to(kind)}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert f"{KEYS} must be floating point, got {kind}" in fails(1, "translate", folder, "one")
        shutil.rmtree(folder)


def test_a_file_of_the_model_is_not_overwritten(fails, spoilt):
    folder = spoilt(lambda weights: None)
    for name in ("model.safetensors", "config.json"):
        before = (folder / name).read_bytes()
        line = fails(1, "translate", folder, "x", "--output", folder / name, "--overwrite")
        assert "is read, too" in line and (folder / name).read_bytes() == before


def test_a_broken_generation_config_is_an_error(fails, spoilt):
    folder = spoilt(lambda weights: None)
    for content in ("{", '{"num_iterations": 0}'):
        (folder / "generation_config.json").write_text(content)
        assert str(folder / "generation_config.json") in fails(1, "translate", folder, "one")


def test_the_tokenizer_of_another_model_is_an_error(fails, spoilt):
    folder = spoilt(lambda weights: None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name, token in (("mask_token", "<unk>"), ("eos_token", "<blank>")):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {name: token}))
        line = fails(1, "translate", folder, "one")
        assert f"`{name}_id` is" in line and "the model was trained with" in line
    train_tokenizer([chr(0x4E00 + i) for i in range(300)] * 5, 600).save_pretrained(folder)
    assert "has 600 symbols" in fails(1, "translate", folder, "one")


def test_a_rescorer_that_lacks_weights_is_an_error(axe_hf, model, rescorer, tmp_path):
    folder = tmp_path / "rescorer"
    shutil.copytree(rescorer, folder)
    weights = load_file(folder / "model.safetensors")
    del weights[MATRIX]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code, out, err = axe_hf("translate", model, "one two", "--rescore-with", folder)
    assert (code, out) == (1, "")
    assert f"--rescore-with: {folder} lacks the weights {MATRIX}" in err.splitlines()[-1]


def test_passes_without_end_are_an_error(fails, model):
    line = fails(2, "translate", model, "one", "--num-iterations", 10**9)
    assert "`num_iterations` must be at most 1000, got 1000000000" in line


def test_several_translations_are_printed_as_text_table_or_json(axe_hf, model, tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    texts = ["one two", "", "three four one"]
    loaded, tokenizer = (
        auto_class.from_pretrained(model) for auto_class in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    several = {"num_length_candidates": 3, "num_return_sequences": 2}
    expected = translate_with_scores(loaded, tokenizer, texts, **several)
    options = ("--num-length-candidates", "3", "--num-return-sequences", "2")

    def lines(*more):
        code, out, err = axe_hf("translate", model, *texts, *options, *more)
        assert code == 0, err
        return out.split("\n")[:-1]

    flat = [(i, best) for i, found in enumerate(expected, start=1) for best in found]
    assert lines() == [best.text.replace("\n", " ") for _, best in flat]
    table = [f"{i}\t{best.score:.4f}\t{best.text}".replace("\n", " ") for i, best in flat]
    assert lines("--format", "tsv") == table
    found = [
        [Translation(**best) for best in json.loads(line)] for line in lines("--format", "jsonl")
    ]
    assert found == expected
    assert lines("--format", "tsv", "--output", tmp_path / "out.tsv") == []
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").split("\n")[:-1] == table


def test_one_translation_has_a_score_too(axe_hf, model):
    _, plain, _ = axe_hf("translate", model, "one two")
    _, table, _ = axe_hf("translate", model, "one two", "--format", "tsv")
    number, score, text = table.split("\t")
    assert number == "1" and float(score) < 0 and text == plain


def test_numbers_and_formats_that_cannot_be(fails, model):
    line = fails(2, "translate", model, "x", "--num-return-sequences", "0")
    assert "--num-return-sequences: must be a whole number from 1, got '0'" in line
    assert "--format: invalid choice: 'xml'" in fails(2, "translate", model, "x", "--format", "xml")
    for option in (("--num-return-sequences", "2"), ("--format", "jsonl")):
        line = fails(2, "translate", model, "x", "--show-steps", *option)
        assert "--show-steps shows one text" in line
    line = fails(1, "translate", model, "x", "--num-return-sequences", "2")
    assert "`num_return_sequences` is 2, but a sentence has 1 length candidate(s)" in line
