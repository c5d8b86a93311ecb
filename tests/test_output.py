"""Folders that appear whole or not at all, and that one process writes into."""

import sys
from pathlib import Path

import pytest

from axe_hf.output import UNFINISHED, check_new_folder, only_writer, whole_folder


@pytest.mark.parametrize("context", ["only_writer", "whole_folder"])
def test_a_second_process_is_refused_until_the_first_is_killed(hold, tmp_path, context):
    first = hold(context, tmp_path / "out")
    enter = {"only_writer": only_writer, "whole_folder": whole_folder}[context]
    refused = pytest.raises(BlockingIOError, match="Another process is writing into .*out")
    with refused, enter(tmp_path / "out"):
        raise AssertionError("it got in")
    first.kill()
    first.wait()
    with enter(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_kept_once_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "out"
    with only_writer(folder), only_writer(f"{tmp_path}/new/../new/out"):
        check_new_folder(folder, "output_dir")
        assert [path.name for path in folder.iterdir()] == [UNFINISHED]
        (folder / "result").write_text("")
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_failure_is_remembered_where_it_left_something(tmp_path):
    for content in ([], ["half"]):
        with pytest.raises(ZeroDivisionError), only_writer(tmp_path / "new" / "out"):
            for name in content:
                (tmp_path / "new" / "out" / name).write_text("")
            raise ZeroDivisionError
        assert (tmp_path / "new").exists() == bool(content)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {"half", UNFINISHED}


def test_a_failure_among_other_files_leaves_no_mark(tmp_path):
    for name in ("mine", "ours"):
        (tmp_path / name).write_text("")
        with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
            raise ZeroDivisionError
        assert not (tmp_path / UNFINISHED).exists()


def test_where_there_are_no_locks_it_does_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with only_writer(tmp_path / "out"):
        (tmp_path / "out" / "result").write_text("")
    with whole_folder(tmp_path / "whole") as folder:
        (folder / "result").write_text("")
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "whole", "result"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), only_writer(tmp_path / "file" / "out"):
        raise AssertionError("it got in")
    with pytest.raises(OSError, match="file"), only_writer(tmp_path / "file"):
        raise AssertionError("it got in")


@pytest.mark.parametrize("name", [".", "old", "new"])
def test_what_a_killed_process_left_is_taken_away_by_the_next(hold, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    first = hold("whole_folder", name, tmp_path)
    first.kill()
    first.wait()
    assert [path for path in tmp_path.rglob("half")]
    if name != ".":
        check_new_folder(name, "output_dir")
    with whole_folder(name) as folder:
        assert not any(folder.iterdir())
        (folder / "result").write_text("")
    assert sorted(path.name for path in Path(name).iterdir() if path.name != "old") == ["result"]
    assert not [path for path in tmp_path.rglob(".*")]


def test_a_folder_that_is_there_keeps_its_other_files(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    with whole_folder(tmp_path) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "new").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "model"}
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
