"""Python floats as kernel arguments."""

from __future__ import annotations

import ctypes


def in_two_parts(value: float) -> tuple[float, float]:
    """Returns two numbers that single precision holds and whose sum is `value`, to 48 bits or more.

    Triton passes a Python float in single precision.
    """
    high = ctypes.c_float(value).value
    return high, ctypes.c_float(value - high).value
