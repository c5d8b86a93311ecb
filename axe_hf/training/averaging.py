"""One model from several checkpoints: the mean of their weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from ..cmlm import CmlmForConditionalGeneration


@torch.no_grad()
def average_checkpoints(
    checkpoints: Sequence[str | Path], output_dir: str | Path | None = None
) -> CmlmForConditionalGeneration:
    """Average the weights of checkpoints of one run, as Mask-Predict does with its 5 best (section 4.1).

    Args:
        checkpoints: folders that `save_pretrained` or the trainer wrote, one or more.
        output_dir (default None): where to save the result, with the first checkpoint's tokenizer; it must be empty or
            not exist.

    Returns:
        The averaged model, in evaluation mode. Means are taken in fp32.

    Raises:
        ValueError: there is no checkpoint, two of them differ in shape, or `output_dir` is not empty.

    Example:

    ```python
    >>> from tempfile import TemporaryDirectory
    >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
    >>> from axe_hf.training import average_checkpoints
    >>> config = CmlmConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, max_target_length=9)
    >>> with TemporaryDirectory() as first, TemporaryDirectory() as second:
    ...     for folder in (first, second):
    ...         CmlmForConditionalGeneration(config).save_pretrained(folder)
    ...     average_checkpoints([first, second]).num_parameters()
    79096

    ```
    """
    if isinstance(checkpoints, str | Path) or not checkpoints:
        raise ValueError(f"`checkpoints` must be a list of folders, got {checkpoints!r}.")
    folders = [Path(folder) for folder in checkpoints]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ValueError(f"`checkpoints`: {folder} holds no model (no config.json).")
    if output_dir is not None and Path(output_dir).is_dir() and any(Path(output_dir).iterdir()):
        raise ValueError(f"`output_dir` {output_dir} is not empty. Name a new folder.")
    average = CmlmForConditionalGeneration.from_pretrained(folders[0])
    # By name and once for each matrix: tied ones appear once.
    sums = {name: p.float().clone() for name, p in average.named_parameters()}
    for folder in folders[1:]:
        weights = dict(CmlmForConditionalGeneration.from_pretrained(folder).named_parameters())
        _check_same_shapes(folders[0], sums, folder, weights)
        for name, total in sums.items():
            total += weights[name].float()
    for name, parameter in average.named_parameters():
        parameter.copy_(sums[name] / len(folders))
    if output_dir is not None:
        average.save_pretrained(output_dir)
        if (folders[0] / "tokenizer_config.json").is_file():
            AutoTokenizer.from_pretrained(folders[0]).save_pretrained(output_dir)
    return average.eval()


def _check_same_shapes(first: Path, sums: dict, other: Path, weights: dict) -> None:
    for name in sorted(sums.keys() | weights.keys()):
        shapes = [tuple(d[name].shape) if name in d else None for d in (sums, weights)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"`checkpoints` must be of one model: {name} has shape {shapes[0]} in {first} and {shapes[1]} in "
                f"{other}."
            )
