"""What dataclasses declare, read from their source.

A command line made of their fields can so show its help, and find wrong options, before PyTorch is
loaded.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """A field of a dataclass.

    Args:
        name: of the field.
        kinds: the types that its annotation joins by `|`, without None: "int", "list", "Literal".
        choices: the values of a `Literal`.
        default: of the field; None also where it is computed.
        is_required: whether there is no default.
        help: what the docstring's Args say, or else the field's metadata; `%` doubled for argparse.
    """

    name: str
    kinds: tuple[str, ...]
    choices: tuple[Any, ...]
    default: Any
    is_required: bool
    help: str


def argument_texts(docstring: str | None) -> dict[str, str]:
    """What the Args of a docstring say about each argument, as help for argparse.

    Args:
        docstring: of a class or function; "a, b (default 1): text" is about both.

    Returns:
        The texts by name, in one line, without backticks and the last full stop.

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
    """The fields that a dataclass declares itself, in their order, by name.

    Args:
        path: of the file.
        class_name: of a class at the top of it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (body,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    texts = argument_texts(ast.get_docstring(body))
    declared = {}
    for line in body.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name, value, default, text = line.target.id, line.value, _literal(line.value), ""
            is_required = value is None
            if isinstance(value, ast.Call):
                given = {keyword.arg: keyword.value for keyword in value.keywords}
                if _literal(given.get("init")) is False:
                    continue
                default, text = _literal(given.get("default")), _help(given.get("metadata"))
                is_required = not given.keys() & {"default", "default_factory"}
            kinds, choices = _types(line.annotation)
            text = texts.get(name, text)
            declared[name] = Declaration(name, kinds, choices, default, is_required, text)
    return declared


def _types(annotation: ast.expr) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The types of `A | B[...] | None` by name, and the values of a `Literal` among them."""
    if isinstance(annotation, ast.BinOp):
        left, right = _types(annotation.left), _types(annotation.right)
        return left[0] + right[0], left[1] + right[1]
    if not isinstance(annotation, ast.Subscript):
        return (() if _is_none(annotation) else (ast.unparse(annotation),)), ()
    kind, inside = ast.unparse(annotation.value), _literal(annotation.slice)
    is_several = isinstance(inside, tuple)
    return (kind,), (inside if is_several else (inside,)) if kind == "Literal" else ()


def _is_none(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Constant) and annotation.value is None


def _help(metadata: ast.expr | None) -> str:
    if not isinstance(metadata, ast.Dict):
        return ""
    entries = {
        _literal(key): value for key, value in zip(metadata.keys, metadata.values, strict=True)
    }
    return " ".join((_literal(entries.get("help")) or "").split())


def _literal(value: ast.expr | None) -> Any:
    """The value of an expression, None if it must be computed."""
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None
