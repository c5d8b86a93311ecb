"""Write the phrasebook, the sentence pairs that come with axe_hf, by a grammar.

What it does: samples English sentences and their German translations, and writes a file for each
of training, validation and test, that `axe_hf.data.load_translations` reads. The files in
axe_hf/data/phrasebook are what it writes without options; they need no writing again.
Takes 20 seconds on one CPU core.

    python examples/phrasebook/write_phrasebook.py my_phrasebook
    python examples/phrasebook/write_phrasebook.py my_phrasebook --num-pairs 200000 --seed 1

Expected output: a line for each file, with its rows and its size.
"""

import argparse
import gzip
import json
from pathlib import Path

from corpus import SPLITS, Phrasebook, make_phrasebook

from axe_hf.output import whole_folder


def json_lines(rows: list[dict]) -> bytes:
    """Rows as the files hold them, a line each."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(book: Phrasebook, folder: str | Path) -> None:
    """Write train.jsonl.gz, validation.jsonl.gz and test.jsonl.gz, all of them or none."""
    with whole_folder(folder) as unfinished:
        for split in SPLITS:
            rows, path = getattr(book, split), unfinished / f"{split}.jsonl.gz"
            # Without name and time: the same rows give the same file.
            with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
                file.write(json_lines(rows))
            print(f"{path.name}: {len(rows):,} rows, {path.stat().st_size:,} bytes")


def main() -> None:
    # 1. What to write.
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where the files go; it is made if it is not there")
    parser.add_argument("--num-pairs", type=int, default=50_000, help="of training (%(default)s)")
    parser.add_argument("--num-validation", type=int, default=200, help="sentences (%(default)s)")
    parser.add_argument("--num-test", type=int, default=500, help="sentences (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other sentences (%(default)s)")
    options = vars(parser.parse_args())
    # 2. Write it.
    write(make_phrasebook(**{k: v for k, v in options.items() if k != "folder"}), options["folder"])


if __name__ == "__main__":
    main()
