"""Pairs of arrays -> structural similarity (Wang et al. 2004) in windows of 7 values along each axis; numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW = 7
_K1, _K2 = 0.01, 0.03


def ssim(original: npt.NDArray[Any], decoded: npt.NDArray[Any], span: float = 0.0) -> float:
    """Return the mean structural similarity of two images.

    Windows are uniform, variances those of a sample, K1 = 0.01 and K2 = 0.03: the numbers of
    `skimage.metrics.structural_similarity` as it is called without options. Windows that stand out are left out.

    Parameters
    ----------
    original, decoded : ndarray
        Of one shape; at least 7 along each axis. Values that are not finite make the result nan.
    span : float
        Range of the values; 0 takes that of the original, or 1 where all its values are equal.

    Raises
    ------
    ValueError
        The shapes differ, or a window does not fit.
    """
    if original.shape != decoded.shape:
        raise ValueError(f"shapes {original.shape} and {decoded.shape}")
    if not original.ndim or min(original.shape) < WINDOW:
        raise ValueError(f"shape {original.shape}: a window has {WINDOW} values along each axis")
    x, y = original.astype(np.float64), decoded.astype(np.float64)
    span = span or float(x.max() - x.min()) or 1.0
    middle = float(x.mean())  # variances are of small numbers then
    x, y = x - middle, y - middle
    count = float(WINDOW**x.ndim)
    mean_x, mean_y = _windows(x) / count, _windows(y) / count
    sample = 1 / (count - 1)
    var_x = (_windows(x * x) - count * mean_x * mean_x) * sample
    var_y = (_windows(y * y) - count * mean_y * mean_y) * sample
    both = (_windows(x * y) - count * mean_x * mean_y) * sample
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    mean_x, mean_y = mean_x + middle, mean_y + middle
    found = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    found /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(found.mean())


def _windows(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of every whole window."""
    for axis in range(values.ndim):
        values = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis).sum(-1)
    return values
