"""Run a model in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout off inside the `with`, and leave every module as it was found.

    Example:

    ```python
    >>> from torch import nn
    >>> from axe_hf.cmlm.evaluation_mode import evaluation_mode
    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluation_mode(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]

    ```
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:  # and not model.train(), which would wake modules that were frozen
            module.training = True


__all__ = ["evaluation_mode"]
