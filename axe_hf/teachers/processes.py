"""The processes that share the work: one, or those of `accelerate launch` and `torchrun`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among those that do the same work."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this one writes what there is one of."""
        return self.rank == 0

    @classmethod
    @contextmanager
    def launched(cls, device: str | None) -> Iterator["Processes"]:
        """Those that a launcher started, which then know each other; else this one alone."""
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        was_there = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not was_there and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls(0, 1, _usable(chosen))
            return
        from accelerate import PartialState

        # A week: one process may be done long before the others.
        state = PartialState(cpu=chosen.startswith("cpu"), timeout=timedelta(days=7))
        own = chosen if ":" in chosen else str(state.device)
        yield cls(state.process_index, state.num_processes, _usable(own))
        if not was_there:
            state.destroy_process_group()

    def from_main(self, compute: Callable[[], _T]) -> _T:
        """What `compute` returns, or raises, in the main process, for all of them."""
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = compute()
            except Exception as error:
                if self.count == 1:
                    raise
                answer[1] = error
        if self.count > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(answer)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def wait(self) -> None:
        """For all of them to get here."""
        if self.count > 1:
            torch.distributed.barrier()


def _usable(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(f"`device`: {device!r} cannot be used ({first_line}).") from error
