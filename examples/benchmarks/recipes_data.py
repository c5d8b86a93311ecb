"""What recipes.py trains on and is judged by: sentence pairs as tensors, and their references."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import sacrebleu
import torch
from torch import Tensor

from axe_hf import train_tokenizer

# The ids that axe_hf.train_tokenizer fixes.
PAD, EOS, MASK, BLANK = 0, 1, 3, 4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Size:
    """How large a model a dataset gets, and how long it is trained.

    Attributes:
        vocab_size: Of the BPE of both languages together.
        num_layers: In the encoder, and again in the decoder.
        max_length: Pairs with more tokens on a side, `</s>` included, are left out of training.
        buckets: `(width, batch)`: sentences of at most that many tokens, and more than in the
            bucket before, are trained on in batches of that many.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    max_length: int
    buckets: tuple[tuple[int, int], ...]
    num_steps: int


SIZES = {
    "tatoeba_short": Size(2000, 192, 2, 20, ((20, 29),), 5000),
    "tatoeba": Size(8000, 256, 3, 32, ((12, 170), (32, 64)), 8000),
    "software_docs": Size(8000, 256, 3, 64, ((16, 128), (32, 64), (64, 32)), 8000),
}


class Corpus:
    """A dataset on the device.

    Attributes:
        sources, targets: `(pairs, max_length)`, long, padded. What is trained on.
        held_out: By split, the sources `(pairs, longest)` and the references.
    """

    def __init__(self, folder: Path, name: str, limit_rows: int | None = None):
        self.size = SIZES[name]
        splits = ("train", "validation", "test")
        rows = {split: read_pairs(folder / f"{name}.{split}.jsonl.gz") for split in splits}
        rows = {split: pairs[:limit_rows] for split, pairs in rows.items()}
        texts = [text for row in rows["train"] for text in (row["en"], row["de"])]
        self.tokenizer = train_tokenizer(texts, vocab_size=self.size.vocab_size)
        sources, targets = (self._encode(rows["train"], side) for side in ("en", "de"))
        limit = self.size.max_length
        is_short = (sources.ne(PAD).sum(1) <= limit) & (targets.ne(PAD).sum(1) <= limit)
        self.sources = to_width(sources[is_short], limit).to(DEVICE)
        self.targets = to_width(targets[is_short], limit).to(DEVICE)
        self.held_out = {
            split: (self._encode(rows[split], "en").to(DEVICE), [row["de"] for row in rows[split]])
            for split in splits[1:]
        }

    def _encode(self, rows: list[dict[str, str]], side: str) -> Tensor:
        texts = [row[side] for row in rows]
        key = "text" if side == "en" else "text_target"
        return padded(self.tokenizer(**{key: texts}).input_ids)

    def bleu(self, split: str, outputs: list[list[int]]) -> tuple[float, float, str]:
        """BLEU, the outputs' length over the references', and sacreBLEU's signature."""
        texts = self.tokenizer.batch_decode(outputs, skip_special_tokens=True)
        metric = sacrebleu.BLEU()
        score = metric.corpus_score(texts, [self.held_out[split][1]])
        return score.score, score.sys_len / score.ref_len, str(metric.get_signature())


def read_pairs(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["translation"] for line in file]


def padded(rows: list[list[int]]) -> Tensor:
    """`(rows, longest)`, long."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD)


def to_width(ids: Tensor, width: int) -> Tensor:
    """Cut, or padded."""
    missing = max(0, width - ids.shape[1])
    return torch.nn.functional.pad(ids, (0, missing), value=PAD)[:, :width].contiguous()
