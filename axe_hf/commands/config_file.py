"""Settings of `axe-hf train` from a JSON or YAML file."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .parsing import UsageError


def read_config(path: str) -> dict[str, Any]:
    """The settings in a file, by name.

    Raises:
        UsageError: the file is not there, or is not a mapping in JSON or YAML, with its line.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        config = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: must be UTF-8, got {error}") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: must be JSON, {error.msg}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = path if mark is None else f"{path}, line {mark.line + 1}"
        raise UsageError(f"{place}: must be YAML, {getattr(error, 'problem', error)}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path}: must hold settings by name, got {type(config).__name__}")
    return config


def as_options(config: dict[str, Any], names: Sequence[str], path: str) -> list[str]:
    """The same settings as options of the command line, which checks their types.

    Args:
        config: settings by name.
        names: all names that there are.
        path: of the file, for messages.

    Raises:
        UsageError: a name that is not there, or a value that cannot be written as an option.
    """
    options = []
    for name, value in config.items():
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{path}: there is no setting {name!r}{hint}")
        if value is None:
            raise UsageError(f"{path}: {name!r} has no value; leave it out for its default")
        if isinstance(value, list):
            options += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict):
            options.append(f"--{name}={json.dumps(value)}")
        else:
            options.append(f"--{name}={value}")
    return options
