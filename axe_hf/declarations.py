"""What classes declare, read from their source: names, types, defaults and help, without importing them.

A command line made of dataclasses can so show its help and find wrong options before PyTorch is loaded.
"""

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """A field of a dataclass.

    Args:
        name: of the field.
        kinds: the types that its annotation joins by `|`, without None: "int", "list", "SchedulerType".
        choices: the values of a `Literal`, or those that the field's metadata name.
        item_kind: the type of a list's items.
        default: of the field; None also where it is computed.
        is_required: whether there is no default.
        help: what the docstring's Args say, or else the field's metadata; `%` doubled, as argparse wants.
    """

    name: str
    kinds: tuple[str, ...]
    choices: tuple[Any, ...]
    item_kind: str
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
        >>> argument_texts("Sum.\\n\\n    Args:\\n        a, b (default 1): a\\n            `number`.")
        {'a': 'a number', 'b': 'a number'}
    """
    entry = r"^([ \t]*)(\w+(?:, \w+)*)(?: \([^)\n]*\))?: (.*(?:\n\1[ \t]+\S.*)*)"
    section = re.search(r"^[ \t]*Args:\n((?:[ \t]+\S.*\n?)+)", docstring or "", re.MULTILINE)
    texts: dict[str, str] = {}
    for _, names, about in re.findall(entry, section[1] if section else "", re.MULTILINE):
        about = " ".join(about.split()).rstrip(".").replace("`", "").replace("%", "%%")
        texts |= dict.fromkeys(names.split(", "), about)
    return texts


def declared_fields(path: Path, class_name: str) -> dict[str, Declaration]:
    """The fields that the body of a dataclass declares; those that `__init__` does not take are left out.

    Args:
        path: of the file.
        class_name: of a class at the top of it.

    Returns:
        The fields by name, in their order.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (body,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    texts = argument_texts(ast.get_docstring(body))
    declared = {}
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            field = _field(name, statement.annotation, statement.value, texts.get(name))
            if field is not None:
                declared[name] = field
    return declared


def _field(
    name: str, annotation: ast.expr, value: ast.expr | None, text: str | None
) -> Declaration | None:
    default, is_required, metadata = _literal(value), value is None, {}
    if isinstance(value, ast.Call):
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if _literal(given.get("init")) is False:
            return None
        default = _literal(given.get("default"))
        is_required = not given.keys() & {"default", "default_factory"}
        if isinstance(entries := given.get("metadata"), ast.Dict):
            metadata = {
                _literal(key): _literal(entry)
                for key, entry in zip(entries.keys, entries.values, strict=True)
            }
    kinds = []
    choices, item_kind = tuple(metadata.get("choices") or ()), "str"
    for part in _joined(annotation):
        if isinstance(part, ast.Subscript):
            kinds.append(ast.unparse(part.value))
            if kinds[-1] == "list":
                item_kind = ast.unparse(part.slice)
            elif kinds[-1] == "Literal":
                inside = _literal(part.slice)
                choices += inside if isinstance(inside, tuple) else (inside,)
        elif not (isinstance(part, ast.Constant) and part.value is None):
            kinds.append(ast.unparse(part))
    text = " ".join((text or metadata.get("help") or "").split())
    return Declaration(name, tuple(kinds), choices, item_kind, default, is_required, text)


def _joined(annotation: ast.expr) -> list[ast.expr]:
    """The parts of `A | B | C`."""
    if isinstance(annotation, ast.BinOp):
        return _joined(annotation.left) + _joined(annotation.right)
    return [annotation]


def _literal(value: ast.expr | None) -> Any:
    """The value of an expression, None if it must be computed."""
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None


def source_of(package: str, module: str) -> Path:
    """Where a module of an installed package is written, without importing either.

    Args:
        package: its name, such as "transformers".
        module: a module right in it, such as "training_args".

    Raises:
        ImportError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"The package {package} is not installed.")
    return Path(spec.submodule_search_locations[0]) / f"{module}.py"
