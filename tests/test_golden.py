"""What must not change, held to values that an earlier version wrote down
(`tests/golden/measure.py`)."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))

_spec = importlib.util.spec_from_file_location("measure", FOLDER / "measure.py")
measure = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(measure)


def tolerance_of(name):
    """Relative to the largest of the values that stand together."""
    # Sums of float32 and bfloat16 gradients: kernels of other processors round otherwise.
    return {"bfloat16": 2e-2, "float32": 1e-5}.get(name.partition("torch.")[2].split(" ")[0], 1e-9)


def assert_alike(found, expected, rel, where):
    assert type(found) is type(expected) or {type(found), type(expected)} == {int, float}, where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_alike(found[key], expected[key], rel, f"{where}, {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, rel, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=rel), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("part", measure.MEASURES)
def test_nothing_that_was_written_down_has_changed(part):
    found = json.loads(json.dumps({f"{part}: {k}": v for k, v in measure.MEASURES[part]().items()}))
    expected = {name: GOLDEN[name] for name in GOLDEN if name.startswith(f"{part}: ")}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert_alike(found[name], values, tolerance_of(name), name)
