"""Lines of a pipe: as soon as they come, together where they come together, in order."""

import io
import itertools
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axe_hf.data import arriving_lines


@pytest.fixture
def pipe():
    """A reading end, buffered as standard input is, and the descriptor of the writing end."""
    reading, writing = os.pipe()
    file = os.fdopen(reading, "rb")
    yield file, writing
    file.close()
    try:
        os.close(writing)
    except OSError:
        pass


@given(st.binary(max_size=200).filter(lambda b: b"\r" not in b), st.integers(1, 7))
def test_lines_are_those_of_a_file_however_many_are_taken(content, most):
    content = content.decode("utf-8", "replace").encode()
    windows = list(arriving_lines(io.BytesIO(content), "x", most))
    expected = content.decode().replace("\ufeff", "").split("\n")
    if not expected[-1] and not content.endswith("\ufeff".encode()):
        expected.pop()
    assert [line for window in windows for line in window] == expected
    assert all(windows)


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot ask a pipe")
def test_a_line_is_given_out_while_the_pipe_stays_open(pipe):
    file, writing = pipe
    windows = arriving_lines(file, "x", 100)
    for text in ("one", "two"):
        os.write(writing, f"{text}\n".encode())
        start = time.monotonic()
        assert next(windows) == [text]
        assert time.monotonic() - start < 2
    os.write(writing, b"the last, without an end")
    os.close(writing)
    assert list(windows) == [["the last, without an end"]]


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot ask a pipe")
def test_lines_that_come_together_are_given_out_together(pipe):
    file, writing = pipe
    os.write(writing, b"one\ntwo\nthr")
    windows = arriving_lines(file, "x", 100, window_seconds=60, quiet_seconds=0.5)
    late = threading.Timer(0.05, os.write, (writing, b"ee\nfo"))
    late.start()
    assert next(windows) == ["one", "two", "three"]
    late.join()
    os.write(writing, b"ur\r\n")
    assert next(windows) == ["four"]


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot ask a pipe")
def test_a_line_does_not_wait_for_ever_for_others(pipe):
    file, writing = pipe
    is_over = threading.Event()

    def write():
        while not is_over.wait(0.002):
            os.write(writing, b"line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        window = next(arriving_lines(file, "x", 10**9, window_seconds=0.2, quiet_seconds=5))
    finally:
        is_over.set()
        writer.join()
    assert 1 < len(window) < 1000


def test_an_endless_stream_is_taken_in_parts():
    class Endless(io.BufferedIOBase):
        def read1(self, size):
            return b"a line\n" * (size // 7)

    windows = list(itertools.islice(arriving_lines(Endless(), "x", 100), 30))
    assert {len(window) for window in windows} == {2**16 // 7}


@pytest.mark.parametrize(
    ("content", "before", "line"), [(b"\xff\n", [], 1), (b"one\n\ncaf\xe9\nmore", ["one", ""], 3)]
)
def test_lines_before_a_broken_one_are_given_out_and_it_is_named(content, before, line):
    found = []
    with pytest.raises(ValueError, match=f"standard input, line {line}: must be UTF-8"):
        for window in arriving_lines(io.BytesIO(content), "standard input", 10):
            found += window
    assert found == before


def test_a_broken_line_is_counted_from_the_beginning():
    content = b"one\n" * 5 + b"\x80\n"
    windows = arriving_lines(io.BytesIO(content), "x", 1)
    with pytest.raises(ValueError, match="line 6"):
        list(windows)
