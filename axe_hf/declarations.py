"""What dataclasses declare, read from their source, before PyTorch is loaded."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """A field of a dataclass."""

    name: str
    kinds: tuple[str, ...]  # what its annotation joins by `|`, without None: "int", "Literal"
    choices: tuple[Any, ...]  # the values of a `Literal`
    default: Any  # None also where it is computed
    is_required: bool
    help: str  # of the docstring's Args, or else of the metadata


def argument_texts(docstring: str | None) -> dict[str, str]:
    """What Args say of each argument, in one line as argparse wants it: no backticks, `%` doubled.

    Example:
        >>> from axe_hf.declarations import argument_texts
        >>> argument_texts("Sum.\\n\\n  Args:\\n    a, b (default 1): a\\n      `number`.")
        {'a': 'a number', 'b': 'a number'}
    """
    section = re.search(r"^[ \t]*Args:\n((?:[ \t]+\S.*\n?)+)", docstring or "", re.MULTILINE)
    entry = r"^([ \t]*)(\w+(?:, \w+)*)(?: \([^)\n]*\))?: (.*(?:\n\1[ \t]+\S.*)*)"
    texts: dict[str, str] = {}
    for _, names, about in re.findall(entry, section[1] if section else "", re.MULTILINE):
        about = " ".join(about.split()).rstrip(".").replace("`", "").replace("%", "%%")
        texts |= dict.fromkeys(names.split(", "), about)
    return texts


def declared_fields(path: Path, class_name: str) -> dict[str, Declaration]:
    """The fields that a dataclass at the top of a file declares itself, in their order, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (body,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    texts = argument_texts(ast.get_docstring(body))
    declared = {}
    for line in body.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        name, value, default, text = line.target.id, line.value, _literal(line.value), ""
        is_required = value is None
        if isinstance(value, ast.Call):  # field(...)
            given = {keyword.arg: keyword.value for keyword in value.keywords}
            if _literal(given.get("init")) is False:
                continue
            default, text = _literal(given.get("default")), _help(given.get("metadata"))
            is_required = not given.keys() & {"default", "default_factory"}
        types = _types(line.annotation)
        declared[name] = Declaration(name, *types, default, is_required, texts.get(name, text))
    return declared


def _types(annotation: ast.expr) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The types of `A | B[...] | None` by name, and the values of a `Literal` among them."""
    if isinstance(annotation, ast.BinOp):
        left, right = _types(annotation.left), _types(annotation.right)
        return left[0] + right[0], left[1] + right[1]
    kind, _, inside = ast.unparse(annotation).partition("[")
    if kind == "Literal":
        return (kind,), ast.literal_eval(f"({inside[:-1]},)")
    return (() if kind == "None" else (kind,)), ()


def _help(metadata: ast.expr | None) -> str:
    if not isinstance(metadata, ast.Dict):
        return ""
    entries = zip(metadata.keys, metadata.values, strict=True)
    texts = [_literal(value) for key, value in entries if _literal(key) == "help"]
    return " ".join("".join(filter(None, texts)).split())


def _literal(value: ast.expr | None) -> Any:
    """The value of an expression, None if it must be computed."""
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None
