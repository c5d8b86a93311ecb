"""Several data sets as one, each as often as its weight says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..cmlm.configuration_mask_predict import require

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)


def mix(datasets: "Sequence[Dataset]", weights: Sequence[float] | None = None) -> "Dataset":
    """One data set of several: all rows once, or by `weights`.

    With weights, of N rows set k has N * weights[k] / sum(weights), rounded: as many as a stream
    draws from it on average, but exactly so many. N is such that the set that is largest for its
    weight has all its rows once; the others come several times, the last time only their first
    rows. They stand one set after the other: a trainer shuffles. Nothing is copied.

    Args:
        datasets: with the same columns.
        weights: one for each, in any unit; None for all rows once.

    Example:
        >>> from datasets import Dataset
        >>> many, few = Dataset.from_dict({"n": [1, 2, 3, 4]}), Dataset.from_dict({"n": [7, 8]})
        >>> mix([many, few], [1, 1])["n"][:]
        [1, 2, 3, 4, 7, 8, 7, 8]
    """
    from datasets import concatenate_datasets

    if weights is None:
        return datasets[0] if len(datasets) == 1 else concatenate_datasets(list(datasets))
    shares = [weight / sum(weights) for weight in weights]
    total = max(len(one) / share for one, share in zip(datasets, shares, strict=True))
    parts, counts = [], []
    for one, share in zip(datasets, shares, strict=True):
        counts.append(f"{(number := max(1, round(total * share)))} of {len(one)}")
        times, rest = divmod(number, len(one))
        parts += [one] * times + ([one.select(range(rest))] if rest else [])
    logger.warning(f"Mixed by weights: an epoch has {' and '.join(counts)} pairs.")
    return concatenate_datasets(parts)


def check_weights(weights: Sequence[float], source: Any, name: str = "weights") -> None:
    """Refuse `weights`, which messages call `name`, that are not one number for each source."""
    number = len(source) if isinstance(source, (list, tuple)) else 1
    if len(weights) != number:
        raise ValueError(f"`{name}` must be one for each source, got {len(weights)} for {number}.")
    numbers = {f"{name}[{i}]": weight for i, weight in enumerate(weights)}
    require({"positive": " ".join(numbers)}, numbers, optional=False)
