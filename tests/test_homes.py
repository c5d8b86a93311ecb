"""One thing, one home: what is written once is not written again elsewhere in axe_hf."""

import ast
import re
from pathlib import Path

import pytest

import axe_hf
from axe_hf.cmlm.configuration_cmlm import SPECIAL_TOKEN_IDS
from axe_hf.cmlm.configuration_mask_predict import SETTINGS

PACKAGE = Path(axe_hf.__file__).parent
# The definition stands alone, so that it can be read alone; kernels import nothing of the rest.
ALONE = {"reference.py"}
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


def code_of(path):
    """The tree of a file without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            body[0] = ast.Pass()
    return tree


CODE = {name: code_of(path) for name, path in FILES.items() if name not in ALONE}


def homes_of(is_it):
    """The files in which a piece of code is found that `is_it` knows."""
    return {name for name, tree in CODE.items() if any(map(is_it, ast.walk(tree)))}


def strings_in(node):
    """The strings that stand side by side in a list, a tuple, a set or the keys of a dictionary."""
    items = getattr(node, "elts", None) or getattr(node, "keys", None) or []
    return {item.value for item in items if isinstance(getattr(item, "value", None), str)}


def test_the_label_that_is_not_scored():
    def is_minus_100(node):
        return isinstance(node, ast.UnaryOp) and ast.unparse(node) == "-100"

    assert homes_of(is_minus_100) == {"cmlm/loss_axe.py"}


def test_the_names_of_the_special_tokens():
    names = set(SPECIAL_TOKEN_IDS)
    assert homes_of(lambda node: len(strings_in(node) & names) > 2) == {
        "cmlm/configuration_cmlm.py"
    }


def test_the_settings_of_decoding():
    """One table; the model card shows five of them."""
    found = homes_of(lambda node: len(strings_in(node) & set(SETTINGS)) > 5)
    assert found <= {"cmlm/configuration_mask_predict.py"}


PIECES = {
    "this folder holds something": (r"any\(.*\.iterdir\(\)\)", {"output.py"}),
    "whole or not at all": (r"\.unfinished|mkdtemp|NamedTemporaryFile", {"output.py"}),
    "lines of UTF-8": (r"\\ufeff", {"data/formats.py"}),
    "a masked canvas": (r"full_like\(.*pad_token_id", {"cmlm/mask_predict.py"}),
    "text that is no Unicode": (r"surrogatepass", {"pipeline.py"}),
    "what commands a terminal": (r"x9f", {"output.py"}),
    "a batch of sources": (r"padding_side='right', return_tensors", {"translation.py"}),
    "what says nothing": (r"' '\.join\(tags\)", {"pipeline.py"}),
    "what is visible": (r"unicodedata\.category", {"pipeline.py"}),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_of_code(name):
    pattern, homes = PIECES[name]
    found = {file for file, tree in CODE.items() if re.search(pattern, ast.unparse(tree))}
    assert found == homes


@pytest.mark.parametrize("name", FILES)
def test_no_function_is_longer_than_a_sitting(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            text = ast.get_docstring(node, clean=False)
            num_lines = node.end_lineno - node.lineno + 1 - len((text or "").splitlines())
            assert num_lines <= 60, f"{node.name}, its docstring aside"
