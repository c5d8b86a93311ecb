"""Parsers of the commands; dataclass fields as their options, or as settings of a file."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ..declarations import Declaration

Fields = Mapping[str, Declaration]
_SECRET = ("--token", "--hub-token", "--push-to-hub-token")
_TRUTHS = dict.fromkeys(("yes", "true", "t", "y", "1"), True)
_TRUTHS |= dict.fromkeys(("no", "false", "f", "n", "0"), False)
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_WORDS |= {"str": "text", "list": "a list", "dict": "a mapping"}


class UsageError(Exception):
    """The arguments of a command are wrong; the message says which, and what is right."""


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that prints descriptions as they are, and raises instead of exiting."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def flag(name: str) -> str:
    """An argument as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def add_option(parser: Any, name: str, **kwargs: Any) -> None:
    """Add an option that is shown `--with-dashes` and may be written `--with_underscores`, too."""
    parser.add_argument(flag(name), dest=name, **kwargs)
    if "_" in name:
        parser.add_argument(f"--{name}", dest=name, **kwargs | {"help": argparse.SUPPRESS})


def without_secrets(words: Sequence[str]) -> list[str]:
    """Words of a command as they may be printed: `***` for a token of the Hub.

    >>> without_secrets(["--token", "hf_abc", "--hub_token=hf_abc", "--seed", "1"])
    ['--token', '***', '--hub_token=***', '--seed', '1']
    """
    shown = list[str]()
    for word in words:
        name, is_joined, _ = word.partition("=")
        if shown and shown[-1].replace("_", "-") in _SECRET:
            word = "***"
        elif is_joined and name.replace("_", "-") in _SECRET:
            word = f"{name}=***"
        shown.append(word)
    return shown


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return _TRUTHS[text.lower()]


def _text_or_truth(text: str) -> str | bool:
    return {"true": True, "false": False}.get(text.lower(), text)


def _mapping(text: str) -> dict[str, Any]:
    with suppress(json.JSONDecodeError):
        if isinstance(value := json.loads(text), dict):
            return value
    raise argparse.ArgumentTypeError(f"must be a mapping in JSON, got {text!r}")


_READERS: dict[str, Callable[[str], Any]]
_READERS = {"str": str, "bool": _truth, "float": float, "int": int, "dict": _mapping}


def _reader(field: Declaration) -> Callable[[str], Any]:
    """What makes a value of text, by the first of the field's types in the order of `_READERS`."""
    is_either = "str" in field.kinds and {"bool", "Literal"} & {*field.kinds}
    if is_either or field.name == "resume_from_checkpoint":  # declared as text, may be true
        return _text_or_truth
    return next((_READERS[kind] for kind in _READERS if kind in field.kinds), str)


def add_field(group: Any, field: Declaration, text: str | None) -> None:
    """Add a field as an option with this help, or hidden; what is not given has no default."""
    reader, hidden = _reader(field), argparse.SUPPRESS
    kwargs: dict[str, Any] = {"type": reader, "default": argparse.SUPPRESS, "help": hidden}
    if text is not None:
        kwargs["help"] = text if field.default in (None, "") else f"{text} ({field.default})"
    if field.kinds == ("Literal",):
        kwargs["choices"] = field.choices
    else:
        words = {_truth: "BOOL", int: "N", float: "X", _mapping: "JSON"}
        kwargs["metavar"] = words.get(reader, "TEXT")
    if "list" in field.kinds:
        kwargs["nargs"] = "+"
    if reader is _truth:
        kwargs |= {"nargs": "?", "const": True}
        no = {"action": "store_false", "default": argparse.SUPPRESS, "help": hidden}
        group.add_argument(flag(f"no_{field.name}"), f"--no_{field.name}", dest=field.name, **no)
    add_option(group, field.name, **kwargs)


def given_settings(namespace: argparse.Namespace, fields: Fields) -> dict[str, Any]:
    """The fields that were given, by name; a single word for text or a list is text."""
    given = {name: value for name, value in vars(namespace).items() if name in fields}
    for name, value in given.items():
        if isinstance(value, list) and len(value) == 1 and "str" in fields[name].kinds:
            given[name] = value[0]
    return given


def unknown_option(words: list[str], fields: Fields) -> UsageError:
    """What is wrong with words that no option took."""
    option = next((word for word in words if word.startswith("--")), None)
    if option is None:
        return UsageError(f"there is no place for {' '.join(words)}")
    name = option[2:].partition("=")[0].replace("-", "_")
    return UsageError(f"there is no option {flag(name)}{_nearest(name, fields, flag)}")


def _nearest(name: str, fields: Fields, show: Callable[[str], str]) -> str:
    near = get_close_matches(name, fields, 1)
    return f"; did you mean {show(near[0])}?" if near else ""


def read_settings(path: str, fields: Fields) -> dict[str, Any]:
    """The settings in a JSON or YAML file, by name; UsageError for what is not one of `fields`."""
    settings = {}
    for name, value in _read_mapping(path).items():
        if name not in fields:
            near = _nearest(str(name), fields, repr)
            raise UsageError(f"{path}: there is no setting {name!r}{near}")
        if value is None and path.endswith(".json") and fields[name].default is None:
            continue  # as Transformers writes down what is not given
        if value is None:
            raise UsageError(f"{path}: {name!r} has no value; leave it out for its default")
        field = fields[name]
        try:
            settings[name] = _checked(field, value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            words = _WORDS | {"Literal": f"one of {', '.join(map(str, field.choices))}"}
            expected = " or ".join(words[kind] for kind in field.kinds if kind in words) or "text"
            raise UsageError(f"{path}: {name!r} must be {expected}, got {value!r}") from error
    return settings


def _checked(field: Declaration, value: Any) -> Any:
    """A value of a file as the field wants it; YAML reads 5e-4 as text, so text may be a number."""
    if isinstance(value, dict) and "dict" in field.kinds:
        return value
    reader, is_list = _reader(field), isinstance(value, list) and "list" in field.kinds
    words = value if is_list else [value]
    for word in words:
        is_wrong = isinstance(word, bool) and reader not in (_truth, _text_or_truth)
        is_wrong |= field.kinds == ("Literal",) and word not in field.choices
        if is_wrong or not isinstance(word, str | int | float):
            raise ValueError
    read = [reader(str(word)) for word in words]
    return read if is_list or field.kinds == ("list",) else read[0]


def _read_mapping(path: str) -> dict[str, Any]:
    import yaml

    suffix = Path(path).suffix
    if suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"first argument must be an option or a .json or .yaml file, got {path}")
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = json.loads(text) if suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: must be JSON, {error.msg}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = path if mark is None else f"{path}, line {mark.line + 1}"
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise UsageError(f"{place}: must be YAML, {problem}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, a number of 5,000 digits
        raise UsageError(f"{path}: must hold plain settings, {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path}: must hold settings by name, got {type(config).__name__}")
    return config
