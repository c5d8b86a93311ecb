"""How many positions an iteration of Mask-Predict masks again."""

import math

SCHEDULES = ("linear", "cosine")


def num_masked_again(schedule: str, length: int, t: int, num_iterations: int) -> int:
    """Positions masked before pass t + 1 of `num_iterations`, for t in 1 .. num_iterations - 1; at least one.

    `"linear"` is Mask-Predict's (Ghazvininejad et al. 2019, section 3.1), floor(length * (1 - t/T)), in whole numbers,
    since a rounded quotient can be just below a whole one. `"cosine"` is floor(length * cos(pi t / 2T)) (Chang et al.,
    "MaskGIT", CVPR 2022, section 3.2): more at first, fewer at the end.

    Args:
        schedule: `"linear"` or `"cosine"`.
        length: positions of the canvas that are to be predicted.
        t: passes done.
        num_iterations: T.

    Example:

    ```python
    >>> [num_masked_again("linear", 10, t, 4) for t in (1, 2, 3)]
    [7, 5, 2]
    >>> [num_masked_again("cosine", 10, t, 4) for t in (1, 2, 3)]
    [9, 7, 3]

    ```
    """
    if schedule == "linear":
        return max(1, length * (num_iterations - t) // num_iterations)
    return max(1, math.floor(length * math.cos(math.pi * t / (2 * num_iterations))))
