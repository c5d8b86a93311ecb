"""One of two processes: trains what `runs.py` describes, the first of them saves what came out.

    python -m torch.distributed.run --standalone --nproc-per-node 2 ranks.py PART FOLDER

The parts are `equal`, `sharded` and `zero`.
"""

import sys
from pathlib import Path

import runs
import sharded
import torch
import zero


def equal(folder: Path) -> None:
    """Each recipe that is cut for two processes."""
    for name, (recipe, cuts) in runs.RECIPES.items():
        for cut in cuts:
            if cut.num_processes == 2:
                record = runs.record_of(recipe, cut, str(folder / "out"))
                if torch.distributed.get_rank() == 0:
                    torch.save(record, folder / runs.file_of(name, cut))
    rank = torch.distributed.get_rank()
    torch.save(runs.timed_record_of(folder / "timed"), folder / f"timed-{rank}.pt")


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    {"equal": equal, "sharded": sharded.main, "zero": zero.main}[name](Path(folder))
    torch.distributed.destroy_process_group()
