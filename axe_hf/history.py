"""How Mask-Predict filled a canvas, iteration by iteration, as text for a terminal."""

import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from .cmlm import MaskPredictOutput
from .output import printable

# 256-colour codes from unsure (red) to sure (green): one for each fifth of the probability.
_CONFIDENCE_COLORS = (160, 208, 178, 106, 34)
_GREY = 244


def readable_tokens(tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int]) -> list[str]:
    """Tokens (length,) as a person reads them, without the "▁" that marks the start of a word.

    A piece that goes on inside a word starts with "·", the mask is "_" and the blank is "ε".

    Example:
        >>> from axe_hf import train_tokenizer
        >>> from axe_hf.history import readable_tokens
        >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
        >>> readable_tokens(tokenizer, tokenizer("A dog barked.").input_ids)
        ['A', 'dog', 'bar', '·k', '·e', '·d', '.', '</s>']
    """
    signs = {tokenizer.mask_token_id: "_", getattr(tokenizer, "blank_token_id", None): "ε"}
    special = {*signs, *tokenizer.all_special_ids}
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)

    def readable(i: int) -> str:
        token = signs.get(i) or tokenizer.convert_ids_to_tokens(i) or f"#{i}"
        if isinstance(decoder, ByteLevel) and i not in special:
            token = decoder.decode([token]).replace(" ", "▁") or token
        token = printable(token)
        if i in special:
            return token
        return f"·{token}" if token[0].isalnum() else token.removeprefix("▁") or "▁"

    return [readable(int(i)) for i in token_ids]


def uses_color(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colours; NO_COLOR (no-color.org) is not set."""
    is_terminal = hasattr(stream, "isatty") and stream.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def format_history(
    output: MaskPredictOutput,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sentence: int = 0,
    color: bool | None = None,
    width: int | None = None,
) -> str:
    """Write down how Mask-Predict filled one canvas, a line for each iteration.

    Line 0 is the canvas at the start, "_" but for the tokens that `decoder_input_ids` gave; line t
    holds what iteration t leaves standing, and "_" where the next one predicts again.

    Args:
        output: what `generate(..., output_history=True, return_dict_in_generate=True)` returned.
        tokenizer: of the model; its tokens are written as by `readable_tokens`.
        sentence (default 0): which sentence of the batch.
        color: whether to colour tokens from red (unsure) to green (sure, or given) by their
            probability; by default where standard output is a terminal and NO_COLOR is not set.
        width: columns to fill; by default those of the terminal. Longer canvases go into blocks.

    Raises:
        ValueError: `output` holds no history, or has no such sentence.

    Example:
        >>> import torch
        >>> from axe_hf import MaskPredictOutput, train_tokenizer
        >>> from axe_hf.history import format_history
        >>> tokenizer = train_tokenizer(["A dog barks."] * 5, vocab_size=300)
        >>> a, dog, barks = tokenizer("A dog barks").input_ids[:3]
        >>> canvas = torch.tensor([[[3, 3, 3]], [[a, 3, barks]]])
        >>> tokens = torch.tensor([[[a, a, barks]], [[a, dog, barks]]])
        >>> history = {"canvas": canvas, "tokens": tokens, "log_probs": tokens * -0.01}
        >>> output = MaskPredictOutput(lengths=torch.tensor([3]), history=history)
        >>> print(format_history(output, tokenizer, color=False))
        0  _ _   _
        1  A _   barks
        2  A dog barks
    """
    rows, log_probs = history_rows(output, tokenizer, sentence)
    color = uses_color(sys.stdout) if color is None else color
    width = shutil.get_terminal_size().columns if width is None else width
    cell_widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    label_width = len(str(len(rows) - 1))
    blocks: list[list[int]] = [[]]  # columns that stand side by side
    for j, cell_width in enumerate(cell_widths):
        used = label_width + 2 + sum(cell_widths[i] + 1 for i in blocks[-1])
        if blocks[-1] and used + cell_width > width:
            blocks.append([])
        blocks[-1].append(j)
    lines = []
    for block in blocks:
        for number, (row, row_log_probs) in enumerate(zip(rows, log_probs, strict=True)):
            cells = [_painted(row[j], row_log_probs[j], color, cell_widths[j]) for j in block]
            lines.append(f"{number:>{label_width}}  {' '.join(cells)}".rstrip())
        lines.append("")
    return "\n".join(lines[:-1])


def history_rows(
    output: MaskPredictOutput, tokenizer: PreTrainedTokenizerBase, sentence: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Readable tokens, "_" where the next iteration predicts, and nats, 0 for what was given.

    Both have a list for the start and one for each iteration, with an entry for each position.
    """
    if getattr(output, "history", None) is None:
        advice = "generate(..., output_history=True, return_dict_in_generate=True)"
        raise ValueError(f"`output` holds no history. Ask for it: {advice}.")
    if sentence not in range(len(output.lengths)):
        raise ValueError(f"`sentence` must be in [0, {len(output.lengths)}), got {sentence!r}.")
    length = int(output.lengths[sentence])
    # What the next iteration sees; after the last one all tokens stand.
    canvases = [*output.history["canvas"], output.history["tokens"][-1]]
    rows = [readable_tokens(tokenizer, canvas[sentence, :length]) for canvas in canvases]
    log_probs = [step[sentence, :length].tolist() for step in output.history["log_probs"]]
    return rows, [[0.0] * length, *log_probs]


def display_width(text: str) -> int:
    """Columns of a terminal that `text` fills: two for wide Asian letters, none for accents."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _painted(token: str, log_prob: float, color: bool, width: int) -> str:
    """`token` in its colour, filled up to `width` columns."""
    spaces = " " * (width - display_width(token))
    if not color:
        return token + spaces
    code = _GREY if token == "_" else _CONFIDENCE_COLORS[min(int(math.exp(log_prob) * 5), 4)]
    return f"\x1b[38;5;{code}m{token}\x1b[0m{spaces}"
