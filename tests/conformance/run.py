"""Runs Transformers' own tests of a model, ModelTesterMixin and ConfigTester, on ours.

    python tests/conformance/run.py

They are not in the installed package but in its source distribution, so this fetches the one of
the installed version with pip, unpacks its tests in a temporary folder and runs suite.py among
them. About a minute on two cores; needs the package index, or --sdist with the file itself.
"""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

# The source distribution leaves out sub-folders of tests; these names are imported from them.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def download_sdist(version: str, folder: Path) -> Path:
    """Fetches the source distribution of one version of transformers with pip."""
    # Without build isolation, pip would build an environment only to read the version again.
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
    command.append(f"transformers=={version}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    files = list(folder.glob("*.tar.gz"))
    if done.returncode or not files:
        raise SystemExit(
            f"error: pip could not fetch the source distribution of transformers {version} (its "
            "message is above). Without a network, give the file: --sdist transformers-...tar.gz. "
            "A complaint about setuptools goes away with: python -m pip install setuptools"
        )
    return files[0]


def lay_out_tests(sdist: Path, folder: Path) -> Path:
    """Unpacks the tests, adds what they miss and our suite; returns the path of the suite."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts
            if member.isfile() and parts[1:2] == ("tests",) and ".." not in parts:
                target = folder.joinpath(*parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    tests = folder / "tests"
    if not (tests / "test_modeling_common.py").is_file():
        raise SystemExit(f"error: {sdist.name} holds no tests/test_modeling_common.py.")
    for name, text in STUBS.items():
        (tests / name).parent.mkdir(exist_ok=True)
        (tests / name).write_text(text)
    suite = tests / "models" / "cmlm" / "test_modeling_cmlm.py"
    suite.parent.mkdir(parents=True)
    shutil.copy(HERE / "suite.py", suite)
    for package in {path.parent for path in tests.rglob("*.py")} | {suite.parent.parent}:
        (package / "__init__.py").touch()
    return suite


def main() -> int:
    """Returns pytest's exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Other arguments go to pytest, for instance -k."
    )
    parser.add_argument(
        "--sdist", type=Path, help="transformers-<version>.tar.gz, in place of a download"
    )
    arguments, pytest_arguments = parser.parse_known_args()
    version = importlib.metadata.version("transformers")
    with tempfile.TemporaryDirectory(prefix="axe_hf-conformance-") as name:
        folder = Path(name)
        sdist = arguments.sdist or download_sdist(version, folder)
        if not sdist.is_file():
            parser.error(f"--sdist: there is no file {sdist}")
        if sdist.name != f"transformers-{version}.tar.gz":
            parser.error(f"--sdist must be transformers-{version}.tar.gz, got {sdist.name}")
        suite = lay_out_tests(sdist, folder)
        print(f"the tests of transformers {version}, on this checkout's model:", flush=True)
        search_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        # Their marks are declared in a configuration that the source distribution leaves out.
        options = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        return subprocess.run(
            [sys.executable, "-m", "pytest", str(suite), *options, *pytest_arguments],
            cwd=folder,
            check=False,
            env={**os.environ, "PYTHONPATH": search_path, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
