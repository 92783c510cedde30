"""How far a decoded chunk is from the original, in the terms of its target (specification section 10)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.target import Target

_SMALL_SUM = 1 << 13


def rmse(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    target: Target,
    box: tuple[slice, ...] | None = None,
    inside: npt.NDArray[np.bool_] | None = None,
) -> float:
    """Return the root mean square error over the finite values, each error divided by its scale.

    Parameters
    ----------
    original, decoded : ndarray
        Same shape and dtype, stored units.
    target : Target
        Gives the scale.
    box : tuple of slice, optional
        Where to look; constant borders outside would only dilute the error.
    inside : ndarray of bool, optional
        Which values of the box count; broadcasts to its shape.
    """
    scale = np.broadcast_to(target.channel_scale(original.shape), original.shape)
    if box is not None:
        original, decoded, scale = original[box], decoded[box], scale[box]
    where = np.broadcast_to(True if inside is None else inside, original.shape)
    total, count = 0.0, 0
    for i in range(len(original)) if original.ndim else (...,):
        finite = np.isfinite(original[i]) & where[i] if original.dtype.kind == "f" else where[i]
        error = decoded[i][finite].astype(np.float64) - original[i][finite].astype(np.float64)
        error = error / scale[i][finite]
        total += sum_of_squares(error)
        count += error.size
    return math.sqrt(total / count) if count else 0.0


def sum_of_squares(values: npt.NDArray[Any]) -> float:
    """Return the sum of squares of floats, the same whatever the number of threads that BLAS may use."""
    flat = values.reshape(-1)
    pieces = (flat[i : i + _SMALL_SUM] for i in range(0, flat.size, _SMALL_SUM))
    return math.fsum(float(np.vdot(piece, piece)) for piece in pieces)


def max_error(original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
    """Return the largest absolute error over the finite values; exact for integers of every width."""
    if original.dtype.kind == "f":
        finite = np.isfinite(original)
        gap = np.abs(original[finite].astype(np.float64) - decoded[finite].astype(np.float64))
    else:
        high, low = np.maximum(original, decoded), np.minimum(original, decoded)
        gap = high.astype(np.uint64) - low.astype(np.uint64)
    return float(gap.max(initial=0))


def meets(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    target: Target,
    box: tuple[slice, ...] | None = None,
    inside: npt.NDArray[np.bool_] | None = None,
) -> bool:
    """Return whether a decoded chunk keeps its promise; non-finite values must be equal bit for bit.

    `box` and `inside` are those of `rmse`; outside them both arrays hold the same.
    """
    if target.lossless or original.dtype.kind == "f":
        where = ... if target.lossless else ~np.isfinite(original)
        if original[where].tobytes() != decoded[where].tobytes():
            return False
    if target.max_error is not None:
        return max_error(original, decoded) <= target.max_error
    if target.rmse is not None:
        return rmse(original, decoded, target, box, inside) <= target.rmse
    return True
