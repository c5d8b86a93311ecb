"""`axe-hf` itself: help, exit codes, and how a failure, Ctrl-C or a closed pipe looks."""

import os
import runpy
import subprocess
import sys

import pytest

from axe_hf import __version__
from axe_hf.cli import COMMANDS, main

HEAVY = ("torch", "transformers", "datasets", "evaluate", "sacrebleu", "matplotlib")


@pytest.fixture
def translate_raises(monkeypatch):
    """Makes `axe-hf translate` fail with an exception."""

    def prepare(error):
        def run(options):
            raise error

        monkeypatch.setattr("axe_hf.commands.translate.run", run)

    return prepare


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"axe-hf {__version__}\n", "")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in shown
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "axe-hf: error: there is no command 'trian'. Did you mean train?"),
        (["zzz"], "axe-hf: error: there is no command 'zzz'. There are quickstart, distill, train"),
        (["--nope", "train"], "axe-hf: error: unrecognized arguments: --nope"),
    ],
)
def test_wrong_commands_and_options_are_named(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_teaches(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: axe-hf {command}" in shown
    assert "example" in shown and shown.count(f"axe-hf {command}") > 1
    assert "SUPPRESS" not in shown


def test_a_failure_with_a_message_is_that_message(translate_raises, capsys):
    translate_raises(ValueError("`x` must be\n  1, got 2."))
    assert main(["translate", "model", "text"]) == 1
    assert capsys.readouterr().err == "axe-hf translate: error: `x` must be 1, got 2.\n"


def test_a_failure_nobody_foresaw_is_one_line_and_a_traceback_with_debug(translate_raises, capsys):
    translate_raises(KeyError("surprise"))
    assert main(["translate", "model", "a text"]) == 1
    assert capsys.readouterr().err == (
        "axe-hf translate: error: KeyError: 'surprise' "
        "(to see where: axe-hf --debug translate model 'a text')\n"
    )
    with pytest.raises(KeyError):
        main(["--debug", "translate", "model", "a text"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07 a\x7f", r"\x1b]0;owned\x07 a\x7f"),
        ("\x9b31m \u202e\u2066gpj.exe", r"\x9b31m \u202e\u2066gpj.exe"),
        ("name\udcff", r"name\udcff"),
    ],
)
def test_an_error_commands_no_terminal(translate_raises, capsys, text, shown):
    translate_raises(ValueError(f"{text}: Größe 日本"))
    assert main(["translate", "model", "text"]) == 1
    assert capsys.readouterr().err == f"axe-hf translate: error: {shown}: Größe 日本\n"
    assert main(["translate", "model", "text", f"--{text.replace(' ', '')}"]) == 2
    assert shown.replace(" ", "") in capsys.readouterr().err
    translate_raises(KeyboardInterrupt())
    assert main(["translate", "model", "text", "--output", text]) == 130
    assert f"Nothing was written to {shown}." in capsys.readouterr().err


def test_ctrl_c_gives_130_and_says_what_is_left(translate_raises, capsys):
    translate_raises(KeyboardInterrupt())
    assert main(["translate", "model", "text", "--output", "out.txt"]) == 130
    said = capsys.readouterr().err.strip()
    assert said == "axe-hf translate: stopped. Nothing was written to out.txt."


@pytest.mark.parametrize("words", [["--token", "hf_abc"], ["--hub_token=hf_abc"]])
def test_a_token_is_not_printed_with_the_command_to_repeat(monkeypatch, capsys, tmp_path, words):
    """Where a run is stopped, and where it fails in a way that nobody expected."""
    (tmp_path / "checkpoint-1").mkdir()
    data = f"--source-lang en --target-lang de --train-file t.tsv --output-dir {tmp_path}".split()
    for error, said in ((KeyboardInterrupt(), "Go on from"), (RuntimeError("x"), "to see where")):

        def fail(options, error=error):
            raise error

        monkeypatch.setattr("axe_hf.commands.train.run", fail)
        main(["train", *data, *words])
        printed = capsys.readouterr().err
        assert said in printed and "hf_abc" not in printed and "***" in printed


def test_help_loads_nothing_heavy_and_a_reader_that_went_away_is_no_failure():
    program = (
        "import sys; from axe_hf.cli import main; from axe_hf.commands import translate;"
        "main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr);"
        "translate.run = lambda options: print('a line');"
        "sys.exit(main(['translate', 'model', 'text']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141
    assert errors.strip() == "[]"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "trian",
        "train --help-all",
        "train",
        "train --learning-rat 1",
        "train --masking some",
        "train {settings}",
        "distill --help",
        "distill",
        "translate --help",
        "translate",
        "translate model text --num-iterations 0",
        "evaluate --help",
        "evaluate model",
        "export --help",
        "export model",
    ],
)
def test_help_and_wrong_usage_load_neither_pytorch_nor_transformers(line, tmp_path):
    settings = tmp_path / "run.yaml"
    settings.write_text("d_modl: 8\n")
    program = (
        "import sys, time; from axe_hf.cli import main; code = main(sys.argv[1:]);"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr);"
        "print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *line.format(settings=settings).split()],
        capture_output=True,
        text=True,
        check=True,
    )
    *_, loaded, seconds = done.stderr.splitlines()
    assert loaded == f"{0 if 'help' in line else 2} []"
    assert float(seconds) < 0.5


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["axe_hf", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("axe_hf", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"axe-hf {__version__}\n"
