"""The integers that lossy modes count their outputs in, chosen by encoders (specification sections 14.8 and 15.3)."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt


def exponent_of(core: npt.NDArray[Any], fine: float) -> int | None:
    """Return the power of two in which outputs are counted: fine against the target, within 30 bits.

    Parameters
    ----------
    core : ndarray
        Finite values.
    fine : float
        The rmse that is to be kept, in stored units.

    Returns
    -------
    int or None
        None where 30 bits are too few.
    """
    most = max(abs(float(core.min())), abs(float(core.max())), 1e-300)
    least = math.ceil(math.log2(most)) - 30
    if core.dtype.kind in "iu":
        whole = max(0, least, min(40, math.floor(math.log2(fine)) - 20))  # gains reach some 2^25 outputs
        return whole if 2.0**whole <= max(fine / 4, 1.0) else None
    exponent = max(math.floor(math.log2(fine / 64)), least)
    return exponent if 2.0**exponent <= fine / 4 and abs(exponent) <= 100 else None


def bounds(core: npt.NDArray[Any], exponent: int) -> tuple[int, int]:
    """Return the smallest and largest multiple of 2^exponent in the range of the values."""
    low, high = core.min(), core.max()
    if core.dtype.kind == "f":
        return math.ceil(math.ldexp(float(low), -exponent)), math.floor(math.ldexp(float(high), -exponent))
    return -(-int(low) >> exponent), int(high) >> exponent


def fits(low: int, high: int) -> bool:
    """Return whether the format holds the bounds, and there is something between them."""
    return max(abs(low), abs(high)) < 1 << 31 and low <= high
