"""What every picture starts from."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dollar signs are text here, not formulas.
TEXT = {"parse_math": False}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Pictures need matplotlib. Install it: python -m pip install "axe-hf[plot]".'
        ) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")
