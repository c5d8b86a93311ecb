"""Pictures: an AXE alignment, a Mask-Predict decoding, loss curves. They need matplotlib (the extra `plot`).

Every function returns a `matplotlib.figure.Figure` that belongs to no window: save it by `figure.savefig("name.png")`.
"""

from .alignment import plot_alignment
from .decoding import plot_history
from .losses import plot_losses

__all__ = ["plot_alignment", "plot_history", "plot_losses"]
