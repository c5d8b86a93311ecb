"""`axe-hf translate` on pipes, terminals and whole texts."""

import gzip
import io
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf.cli import main
from axe_hf.translation import translate_with_scores

posix = pytest.mark.skipif(os.name != "posix", reason="forks, and asks pipes")


@pytest.fixture(scope="module")
def translated(model):
    """The translations of texts, as lines."""
    loaded, tokenizer = (
        auto_class.from_pretrained(model) for auto_class in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )

    def of(*texts, **settings):
        found = translate_with_scores(loaded, tokenizer, texts, **settings)
        return [best.text.replace("\n", " ") for row in found for best in row]

    return of


class Child:
    """A command in a fork of this process, behind pipes or a terminal."""

    def __init__(self, argv, is_terminal):
        self.output = b""
        if is_terminal:
            import pty

            self.pid, self.reading = pty.fork()
            self.writing = self.reading
        else:
            (child_in, self.writing), (self.reading, child_out) = os.pipe(), os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                os.dup2(child_in, 0), os.dup2(child_out, 1)
            for end in (
                child_in,
                child_out,
                *((self.writing, self.reading) if not self.pid else ()),
            ):
                os.close(end)
        if self.pid == 0:
            code = 1
            with suppress(BaseException):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdin, sys.stdout = (
                    os.fdopen(0, closefd=False),
                    os.fdopen(1, "w", closefd=False),
                )
                sys.stderr = os.fdopen(1 if is_terminal else 2, "w", closefd=False)
                code = main([str(word) for word in argv])
            os._exit(code)

    def write(self, text):
        os.write(self.writing, text if isinstance(text, bytes) else text.encode())

    def read(self, until, seconds=60):
        """What it prints up to `until`."""
        end = time.monotonic() + seconds
        while until.encode() not in self.output:
            left = max(0, end - time.monotonic())
            assert select.select([self.reading], [], [], left)[0], (until, self.output)
            got = b""
            with suppress(OSError):  # a terminal whose other side is closed
                got = os.read(self.reading, 65536)
            assert got, (until, self.output)
            self.output += got
        before, self.output = self.output.split(until.encode(), 1)
        return before.decode()

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def start(capfd):
    """Starts a command behind pipes, or on a terminal; it is killed in the end."""
    started = []

    def run(*argv, is_terminal=False):
        started.append(Child(argv, is_terminal))
        return started[-1]

    yield run
    for child in started:
        with suppress(OSError):
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        for end in {child.reading, child.writing}:
            with suppress(OSError):
                os.close(end)


@posix
def test_a_coprocess_reads_its_answer_before_it_closes_its_end(start, model, translated):
    child = start("translate", model)
    for text in ("one two", "", "three four one"):
        child.write(f"{text}\n")
        assert [child.read("\n")] == translated(text)
    child.write("two\nthree\r\nfour")
    os.close(child.writing)
    assert [child.read("\n") for _ in range(3)] == translated("two", "three", "four")
    assert child.wait() == 0


@posix
def test_json_lines_and_tables_come_as_lines_come_and_count_on(start, model):
    options = ("--num-length-candidates", "3", "--n-best", "2", "--format")
    child, table = start("translate", model, *options, "jsonl"), None
    for text in ("one two", "three"):
        child.write(f"{text}\n")
        assert len(json.loads(child.read("\n"))) == 2
    table = start("translate", model, *options, "tsv")
    for number in ("1", "2"):
        table.write("one two\n")
        assert [table.read("\n").split("\t")[0] for _ in range(2)] == [number] * 2


@posix
def test_lines_before_a_broken_one_are_answered(start, model, translated, capfd):
    child = start("translate", model)
    child.write(b"one two\nthree\ncaf\xe9\nfour\n")
    assert [child.read("\n") for _ in range(2)] == translated("one two", "three")
    assert child.wait() == 1
    assert "standard input, line 3: must be UTF-8, got byte 0xe9" in capfd.readouterr().err


@posix
def test_nobody_who_reads_ends_it_quietly(start, model, capfd):
    child = start("translate", model)
    child.write("one\n")
    child.read("\n")
    os.close(child.reading)
    child.write("two\n")
    assert child.wait() == 141
    assert capfd.readouterr().err == ""


@posix
def test_ctrl_c_says_how_much_was_done(start, model, capfd):
    child = start("translate", model)
    child.write("one\ntwo\n\n")
    for _ in range(3):
        child.read("\n")
    time.sleep(0.3)  # until it waits for more
    os.kill(child.pid, signal.SIGINT)
    assert child.wait() == 130
    assert "axe-hf translate: stopped. 3 lines were translated." in capfd.readouterr().err


@posix
def test_a_terminal_is_asked_and_ctrl_d_ends(start, model, translated):
    child = start("translate", model, is_terminal=True)
    child.read("Type sentences, one a line; end with Ctrl-D.")
    for text in ("one two", "three four"):
        child.read("> ")
        child.write(f"{text}\n")
        child.read(f"{text}\r\n")  # as it was typed
        assert translated(text)[0] in child.read("\r\n")
    child.read("> ")
    child.write("\x04")
    assert child.wait() == 0


@posix
def test_what_is_typed_can_be_edited_and_called_back(start, model, translated):
    pytest.importorskip("readline")
    child = start("translate", model, is_terminal=True)
    child.read("> ")
    child.write("two one\x01\x0bthree\n")  # to the beginning, delete what follows
    assert translated("three")[0] in child.read("\r\n> ")
    child.write("\x10\n")  # the line before
    assert translated("three")[0] in child.read("\r\n> ")


@posix
def test_ctrl_c_on_a_terminal_ends_it(start, model):
    child = start("translate", model, is_terminal=True)
    child.read("> ")
    time.sleep(0.3)  # until it waits: between prompt and waiting Python takes no note of a signal
    child.write("\x03")
    child.read("stopped. 0 lines were translated.")
    assert child.wait() == 130


def test_a_long_input_is_translated_in_its_order(axe_hf, stdin, model, translated):
    texts = ["one", "one two three four", "", "two two", "four three"] * 20
    stdin("".join(f"{text}\n" for text in texts).encode())
    code, out, _ = axe_hf("translate", model, "--batch-size", "1")
    assert code == 0
    assert out.split("\n")[:-1] == translated(*texts)


def test_warnings_count_lines_on(axe_hf, model, monkeypatch, caplog):
    windows = iter([["one"] * 64, ["two", "one two " * 9]])
    monkeypatch.setattr("axe_hf.data.arriving_lines", lambda *_: windows)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert axe_hf("translate", model)[0] == 0
    assert "and were cut there: line 66." in caplog.text


def test_n_best_is_num_return_sequences(axe_hf, model):
    candidates = ("--num-length-candidates", "4")
    first = axe_hf("translate", model, "one two", *candidates, "--n-best", "3")
    assert first[0] == 0 and first[1].count("\n") == 3
    for name in ("--num-return-sequences", "--num_return_sequences", "--n_best"):
        assert axe_hf("translate", model, "one two", *candidates, name, "3") == first


def test_scores_stand_in_front_of_each_translation(axe_hf, model):
    _, plain, _ = axe_hf("translate", model, "one two", "three")
    _, scored, _ = axe_hf("translate", model, "one two", "three", "--scores")
    _, table, _ = axe_hf("translate", model, "one two", "three", "--scores", "--format", "tsv")
    rows = [line.split("\t", 1) for line in scored.splitlines()]
    assert "".join(f"{text}\n" for _, text in rows) == plain
    assert all(float(score) < 0 for score, _ in rows)
    assert table == "".join(f"{n}\t{line}\n" for n, line in enumerate(scored.splitlines(), 1))


TEXT = "  one two. \r\n\r\n\tthree\n\n"


@pytest.mark.parametrize("source", ["file", "packed", "pipe"])
def test_a_document_keeps_its_lines(axe_hf, stdin, model, translated, tmp_path, source):
    file = tmp_path / "text.gz"
    file.write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "text").write_bytes(TEXT.encode("utf-8-sig"))
    stdin(TEXT.encode())
    given = {"file": ("--input", tmp_path / "text"), "packed": ("--input", file), "pipe": ()}
    output = tmp_path / "out"
    code, _, err = axe_hf("translate", model, "--document", *given[source], "--output", output)
    assert code == 0, err
    first, second = translated("one two.", "three")
    assert output.read_bytes().decode() == f"  {first} \r\n\r\n\t{second}\n\n"


def test_sentences_of_a_line_are_translated_one_by_one(axe_hf, model, translated):
    text = "one two. three!\nfour"
    code, out, _ = axe_hf("translate", model, "--split-sentences", text, "two")
    first, second, third, fourth = translated("one two.", "three!", "four", "two")
    assert (code, out) == (0, f"{first} {second}\n{third}\n{fourth}\n")


def test_sentences_are_split_as_their_language_says(axe_hf, model, translated):
    """In German "3." may be a number in the middle of a sentence."""
    text, whole = "one 3. two", translated("one 3. two")[0]
    options = ("translate", model, "--split-sentences", text, "--source-lang")
    assert axe_hf(*options, "de")[1] == f"{whole}\n"
    first, second = translated("one 3.", "two")
    assert axe_hf(*options, "en")[1] in (f"{first} {second}\n", f"{whole}\n")


def test_a_document_that_says_nothing_stays_as_it_is(axe_hf, stdin, model):
    for content in (b"", b"\n \n"):
        stdin(content)
        assert axe_hf("translate", model, "--document")[:2] == (0, content.decode())


def test_a_broken_text_is_an_error_with_its_line(fails, stdin, model, tmp_path):
    stdin(b"one\n\xff")
    line = fails(1, "translate", model, "--document")
    assert "standard input, line 2: must be UTF-8, got byte 0xff" in line
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"one two\n" * 99)[:-12])
    line = fails(1, "translate", model, "--document", "--input", tmp_path / "half.gz")
    assert "must be a complete gzip file" in line


@pytest.mark.parametrize("kind", ["--document", "--split-sentences"])
@pytest.mark.parametrize("option", [("--n-best", "2"), ("--scores",), ("--format", "tsv")])
def test_a_document_has_one_translation(fails, model, kind, option):
    line = fails(2, "translate", model, "x", kind, *option)
    assert f"{kind} gives one text for each: leave out {option[0]}" in line


def test_steps_are_shown_of_sentences_only(fails, model):
    assert "--show-steps shows sentences" in fails(
        2, "translate", model, "x", "--show-steps", "--document"
    )
    assert "drop --n-best" in fails(2, "translate", model, "x", "--show-steps", "--scores")


def test_steps_are_shown_of_lines_as_they_come(axe_hf, stdin, model):
    stdin(b"one two\nthree\n")
    code, out, _ = axe_hf("translate", model, "--show-steps")
    assert code == 0 and out == axe_hf("translate", model, "--show-steps", "one two", "three")[1]


def test_a_missing_splitter_names_the_extra(fails, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    assert 'pip install "axe-hf[documents]"' in fails(
        1, "translate", model, "x", "--split-sentences"
    )


def test_output_of_standard_input_is_all_or_nothing(fails, model, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\n")))
    fails(1, "translate", model, "--output", output)
    assert not output.exists()
