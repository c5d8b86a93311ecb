"""What is in the wheel, and that the files that tell of a release agree."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest

import axe_hf

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def read_settings(repository):
    settings = configparser.ConfigParser()
    settings.read(repository / "setup.cfg", encoding="utf-8")
    return settings


def requirement_names(text):
    """The distribution names at the start of each line of a list of requirements."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """A wheel of the checkout, built from a copy so that no build folder is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(repository / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "axe_hf", folder / "axe_hf", ignore=ignored)
    # What must not get in stands beside it, as in the checkout.
    for name in ("tests", "examples"):
        (folder / name).mkdir()
        (folder / name / "stray.py").touch()
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", "dist", "."],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_package_and_nothing_else(wheel, repository):
    folder = repository / "axe_hf"
    expected = {
        path.relative_to(repository).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert "axe_hf/py.typed" in expected


def test_the_wheels_metadata_is_that_of_setup_cfg(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode("utf-8"))
    assert metadata["Name"] == "axe-hf"
    assert metadata["Version"] == axe_hf.__version__
    assert metadata["License"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"eval", "plot", "test", "dev"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload().startswith("# ")


def test_the_wheel_brings_the_command_and_the_licence(wheel):
    texts = {name.rsplit("/", 1)[-1]: name for name in wheel.namelist() if ".dist-info/" in name}
    command = wheel.read(texts["entry_points.txt"]).decode()
    assert "axe-hf = axe_hf.cli:main" in command
    assert b"Apache License" in wheel.read(texts["LICENSE"])


def test_every_direct_requirement_is_pinned(repository):
    settings = read_settings(repository)
    required = requirement_names(settings["options"]["install_requires"])
    for extra in settings["options.extras_require"].values():
        required |= requirement_names(extra)
    pinned = (repository / "constraints.txt").read_text(encoding="utf-8")
    # setuptools is the build's own; torch brings it along.
    assert required - requirement_names(pinned) - {"axe-hf", "setuptools"} == set()
    assert all("==" in line for line in pinned.splitlines() if not line.startswith("#"))


def test_the_version_is_the_same_everywhere(repository):
    citation = (repository / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {axe_hf.__version__}\n" in citation
    assert f"\n## {axe_hf.__version__}\n" in changelog


def test_the_readmes_two_commands_are_those_that_ci_runs(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    script = (repository / ".ci" / "run").read_text(encoding="utf-8")
    for command in (
        'python -m pip install -c constraints.txt -e ".[eval,plot]" && axe-hf quickstart',
        'python -m pip install -c constraints.txt -e ".[test]" && python -m pytest -n 2',
    ):
        assert command in readme
        assert command in script


def test_the_readme_has_no_blank_left_to_fill(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"[A-Z]+_TABLE|[A-Z]+_OUTPUT|`SIGNATURE`|TODO", readme)
