"""Make batches for a conditional masked language model: padding, canvas and labels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..cmlm.configuration_cmlm import canvas_recipe, check_canvas_recipe
from ..cmlm.configuration_mask_predict import require
from ..cmlm.loss_axe import IGNORE_INDEX
from ..cmlm.mask_predict import masked_canvas, needed_positions, no_room
from .draws import DRAW, uniform_numbers
from .tokenizer import check_special_tokens

# What a collator needs and a target must not hold.
_RESERVED_TOKENS = ("pad_token", "mask_token", "blank_token")


@dataclass(frozen=True)
class DataCollatorForCmlm:
    """Pad a batch and mask its targets, as Mask-Predict trains (arXiv 1904.09324, section 2.2).

    In the training of an `AxeTrainer` what is drawn for a sentence hangs on `seed`, the epoch and
    the sentence's row in the data set alone: not on the batch, and so not on the number of
    processes, accumulation, workers or restarts. (Dropout and `draft_share` are drawn by each
    process for its batches.) Elsewhere, and where data are streamed, the draw hangs on `seed` and
    the batch: a sentence gets other masks whenever it meets other sentences.

    Args:
        tokenizer: Gives `pad_token_id`, `mask_token_id` and `blank_token_id`.
        masking: `"uniform"`, as the paper trains: N' of a target's N tokens (`</s>` is one), N'
            drawn uniformly from 1..N. Or `"full"`: all, the canvas with which decoding starts.
        seed: Any integer.
        pad_to_multiple_of: Widen sources and targets to a multiple of this.
        length_multiplier: Canvas positions per target token (lambda of the AXE paper, which is not
            known to use it in training; that is ours). Over 1 it leaves room for blanks, which AXE
            needs to learn. Only with `masking="full"`, and decode with the same value.
        length_jitter: Share, in [0, 1), by which every canvas is drawn longer or shorter.
            A model that has seen canvases of wrong lengths learns to leave the rest blank. Ours.
        max_canvas_length: Longest canvas made; the model's `max_target_length`.
        allow_repetition: Whether the model may say a token on several positions in a row. Then no
            canvas is shorter than its target and a blank between each two equal neighbours, so that
            there is an alignment that leaves no token out.

    Returns:
        When called with a list of features, each with `input_ids` and `labels` (sequences of ids,
        other columns are ignored), a dict of `int64` tensors: `input_ids` and `attention_mask`
        `(batch, source)`; `decoder_input_ids` `(batch, canvas)`, the mask, or the token where it is
        observed; `labels` `(batch, target)`, -100 at observed positions and padding.

    Raises:
        ValueError: An argument, a missing or empty column, a reserved token in a target, or a
            target that no canvas holds where `allow_repetition` asks for room.

    Example:
        >>> from axe_hf import train_tokenizer
        >>> tokenizer = train_tokenizer(["good morning", "guten Morgen"] * 9, vocab_size=300)
        >>> collator = DataCollatorForCmlm(tokenizer, masking="full")
        >>> batch = collator([tokenizer("good morning", text_target="guten Morgen")])
        >>> tokenizer.decode(batch["decoder_input_ids"][0]), tokenizer.decode(batch["labels"][0])
        ('<mask><mask><mask>', 'guten Morgen</s>')
    """

    tokenizer: PreTrainedTokenizerBase
    masking: Literal["uniform", "full"] = "uniform"
    seed: int = 0
    pad_to_multiple_of: int | None = None
    length_multiplier: float = 1.0
    length_jitter: float = 0.0
    max_canvas_length: int | None = None
    allow_repetition: bool = False

    def __post_init__(self):
        check_canvas_recipe(canvas_recipe(self) | {"masking": self.masking})
        require({"at least 1": "pad_to_multiple_of max_canvas_length"}, vars(self))
        require({"True or False": "allow_repetition"}, vars(self), optional=False)
        check_special_tokens(self.tokenizer, _RESERVED_TOKENS)

    def for_evaluation(self) -> "DataCollatorForCmlm":
        """The same with every target position masked, as decoding starts, and no jitter."""
        return replace(self, masking="full", length_jitter=0.0)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sources, targets = _column(features, "input_ids"), _column(features, "labels")
        reserved = {getattr(self.tokenizer, f"{name}_id"): name for name in _RESERVED_TOKENS}
        for row, ids in enumerate(targets):
            for token in sorted(reserved.keys() & set(ids)):
                wrong = f"'labels' of feature {row} must hold no {reserved[token]}, got id {token}"
                raise ValueError(f"{wrong}. Remove it; tokenize without padding, it is added here.")
        pad_token_id, multiple = self.tokenizer.pad_token_id, self.pad_to_multiple_of
        target_ids, is_target = padded(targets, pad_token_id, multiple)
        is_full = self.masking == "full"
        is_masked = is_target
        if not is_full:  # drawn for the longest row, so that pad_to_multiple_of changes no mask
            drawn = self._numbers(features, sources, targets, 1 + max(map(len, targets)))
            is_masked = _draw_masks(is_target, drawn)
        canvas = target_ids.masked_fill(is_masked, self.tokenizer.mask_token_id)
        if is_full and (self.length_multiplier != 1 or self.length_jitter or self.allow_repetition):
            lengths = is_target.sum(dim=1) * self.length_multiplier  # (batch,)
            if self.length_jitter > 0:
                drawn = self._numbers(features, sources, targets, 1)[:, 0]  # (batch,)
                lengths = lengths * (1 + self.length_jitter * (2 * drawn - 1))
            lengths = lengths.round().long()
            if self.allow_repetition:
                needed = needed_positions(target_ids.masked_fill(~is_target, IGNORE_INDEX))
                check_room(needed.tolist(), self.max_canvas_length, "feature")
                lengths = torch.maximum(lengths, needed)
            lengths = lengths.clamp(1, self.max_canvas_length)
            width = _round_up(int(lengths.max()), multiple)
            canvas = masked_canvas(lengths, width, self.tokenizer)
        return self.pad_sources(features) | {
            "decoder_input_ids": canvas,
            "labels": target_ids.masked_fill(~is_masked, IGNORE_INDEX),
        }

    def _numbers(self, features: Any, sources: Any, targets: Any, number: int) -> torch.Tensor:
        """Random numbers in [0, 1), `(batch, number)`, of each sentence or, unnumbered, of all."""
        draws = [feature.get(DRAW) for feature in features]
        if None not in draws:
            return uniform_numbers(self.seed, draws, number)
        generator = _generator((self.seed, sources, targets))
        return torch.rand(len(features), number, generator=generator)

    def pad_sources(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` alone, of features that need no `labels`."""
        sources, pad_token_id = _column(features, "input_ids"), self.tokenizer.pad_token_id
        for row, ids in enumerate(sources):
            if pad_token_id in (ids[0], ids[-1]):  # it would be attended to
                wrong = f"'input_ids' of feature {row} must not be padded, got {ids}"
                raise ValueError(f"{wrong}. Tokenize without padding, it is added here.")
        input_ids, is_source = padded(sources, pad_token_id, self.pad_to_multiple_of)
        return {"input_ids": input_ids, "attention_mask": is_source.long()}


def check_room(needed: Sequence[int] | np.ndarray, limit: int | None, name: str) -> None:
    """Raise ValueError for the first number of positions that is over `limit`."""
    for row, number in enumerate(needed):
        if limit is not None and number > limit:
            raise ValueError(f"'labels' of {name} {row} need {no_room(number, limit)}")


def _column(features: Sequence[dict[str, Any]], name: str) -> list[list[int]]:
    if not hasattr(features, "__len__") or not len(features):
        raise ValueError(f"`features` must hold at least one example, got {features or 'none'}.")
    rows = []
    for row, feature in enumerate(features):
        if name not in (columns := [*feature] if isinstance(feature, Mapping) else []):
            columns = sorted({*columns} - {DRAW})
            wrong = f"`features`: feature {row} must have '{name}', got only {columns}"
            raise ValueError(f"{wrong}. Make the columns with axe_hf.data.tokenize_translations.")
        ids = feature[name].tolist() if hasattr(feature[name], "tolist") else feature[name]
        if not isinstance(ids, Sequence) or not ids:
            raise ValueError(f"'{name}' of feature {row} must not be empty, got {ids!r}.")
        rows.append(ids := list(ids))
        is_whole = all(issubclass(t, Integral) and t is not bool for t in {*map(type, ids)})
        if not is_whole or min(ids) < 0:
            got = f"got {min(ids) if is_whole else ids}; -100 is added here"
            raise ValueError(f"'{name}' of feature {row} must be token ids, {got}.")
    return rows


def padded(
    rows: list[list[int]], padding: int, multiple: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded at the right, (rows, longest) long, and where they are no padding, bool."""
    lengths = torch.tensor([len(ids) for ids in rows])
    width = _round_up(int(lengths.max()), multiple)
    is_token = torch.arange(width) < lengths[:, None]  # (rows, width)
    tokens = torch.full((len(rows), width), padding)
    tokens[is_token] = torch.tensor(list(chain.from_iterable(rows)))
    return tokens, is_token


def _round_up(width: int, multiple: int | None) -> int:
    return width if multiple is None else -(-width // multiple) * multiple


def _generator(content: tuple[int, list[list[int]], list[list[int]]]) -> torch.Generator:
    # Not hash(): it differs from one process to the next for strings and keeps too few bits.
    digest = hashlib.blake2b(repr(content).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _draw_masks(is_target: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """True at 1..N of the N tokens of each row of `is_target`, all numbers equally likely.

    Of the numbers `drawn` `(batch, 1 + longest target)` the first says how many, the others which.
    """
    lengths = is_target.sum(dim=1)  # (batch,)
    num_masked = 1 + (drawn[:, 0].double() * lengths).long()  # (batch,), in 1..N: drawn < 1
    keys = torch.full(is_target.shape, 2.0, dtype=drawn.dtype)  # behind every drawn number
    keys[:, : drawn.shape[1] - 1] = drawn[:, 1:]
    keys.masked_fill_(~is_target, 2.0)
    ranks = keys.argsort(dim=1).argsort(dim=1)  # (batch, target_length)
    return ranks < num_masked[:, None]
