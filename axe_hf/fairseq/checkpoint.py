"""A checkpoint of fairseq, read without running anything that it holds."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Whose classes checkpoints of fairseq name beside their tensors: arguments, meters, settings.
_KNOWN = re.compile(
    r"argparse\.Namespace|collections\.defaultdict|(?:fairseq|omegaconf)(?:\.\w+)+|typing\.\w+"
    r"|builtins\.(?:dict|list|tuple|set|str|int|float|bool)|numpy\.(?:_?core\.multiarray\.(?:scalar|_reconstruct)|dtype|ndarray|dtypes\.\w+)"
)
_NAMED = re.compile(r"GLOBAL ([\w.]+)")
# What reading bytes that are none ends in.
_NO_CHECKPOINT = (
    *(RuntimeError, OSError, EOFError, LookupError, ValueError, AttributeError, TypeError),
    *(OverflowError, zipfile.BadZipFile),
)
_PARTS = re.compile(r"-(?:model_part-|shard)\d+")


class _StandIn:
    """An object of a class that is not here: it keeps what it was filled with, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        state = state[0] if isinstance(state, tuple) and state else state
        if isinstance(state, Mapping):
            vars(self).update(state)


@dataclass(frozen=True)
class FairseqCheckpoint:
    """What an import needs of a checkpoint; `arguments` are what the program was started with."""

    path: Path
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.arguments.get("arch") or self.arguments.get("_name"))


def read_checkpoint(path: str | Path) -> FairseqCheckpoint:
    """Read a file that fairseq saved.

    The optimizer's state and the rest of a training run are left out. Of a file that PyTorch wrote
    since version 1.6 they are not even read; an older one is read whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: something else than a whole checkpoint, or one that names what could do harm.
    """
    path = Path(path)
    if path.is_dir():
        found = ", ".join(sorted(p.name for p in path.glob("*.pt"))[:9]) or "none"
        raise ValueError(
            f"{path} is a folder: give one file, such as checkpoint_best.pt ({found})."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    if part := _PARTS.search(path.stem):
        problem = f"{path} holds a part of the weights ({part[0][1:]})"
        raise ValueError(f"{problem}. Save them in one file with fairseq first.")
    state = _loaded(path)
    keys = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
    if "model" not in keys or not isinstance(state["model"], Mapping):
        expected = "a checkpoint of fairseq, with 'model' and 'args' in it"
        raise ValueError(f"{path} must be {expected}, got {keys!s:.300}.")
    tensors = {str(name): tensor for name, tensor in state["model"].items()}
    if "shard_metadata" in state or any("flat_param" in name for name in tensors):
        problem = f"{path} was saved by FSDP, its weights are flat or a shard"
        raise ValueError(f"{problem}. Save the whole state with fairseq first.")
    if wrong := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} must hold tensors under 'model', {wrong[0]} is none.")
    return FairseqCheckpoint(path, _arguments(state, path), tensors)


def _loaded(path: Path) -> Any:
    """What the file holds, with stand-ins for objects of classes that are known."""
    names, is_mapped = {"argparse.Namespace"}, zipfile.is_zipfile(path)
    while True:
        stand_ins = [(type(name.split(".")[-1], (_StandIn,), {}), name) for name in sorted(names)]
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
        except pickle.UnpicklingError as error:
            found = _NAMED.search(str(error))
            name = found[1] if found else ""
            name = name if "." in name else f"builtins.{name}"  # which torch leaves out
            if not found or name in names:
                raise ValueError(
                    f"{path} cannot be read as a checkpoint ({_first(error)})."
                ) from error
            if not _KNOWN.fullmatch(name):
                problem = f"{path} was not read: it names {name}, which fairseq has no use for"
                advice = "It may do harm. Is it a checkpoint, and from whom?"
                raise ValueError(f"{problem}. {advice}") from error
            names.add(name)
        except PermissionError:
            raise
        except _NO_CHECKPOINT as error:
            raise ValueError(f"{path} cannot be read as a checkpoint ({_first(error)}).") from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _arguments(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Those in `state["args"]`, or of newer checkpoints in `state["cfg"]`."""
    if state.get("args") is not None:
        return _plain(state["args"])
    settings = _plain(state.get("cfg"))
    model = _plain(settings.get("model"))
    if not model:
        raise ValueError(f"{path} must hold the arguments of its training, 'args' or 'cfg'.")
    criterion = _plain(settings.get("criterion"))
    return {name: _value(value) for name, value in {**criterion, **model}.items()}


def _plain(settings: Any) -> dict[str, Any]:
    """A namespace or a container of OmegaConf as a dictionary."""
    found = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
    content = found.get("_content")
    return dict(content if isinstance(content, Mapping) else found)


def _value(node: Any) -> Any:
    """What a node of OmegaConf holds."""
    return vars(node).get("_val") if isinstance(node, _StandIn) else node
