"""Cubic splines through the decoded voxels of an image: values and derivatives between them.

Voxels are knots of one interpolating spline through the whole image, mirrored at its outermost centres. Of that spline
only what points need is made: their voxels with a margin, beyond which a voxel counts for less than 1e-7.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError

Floats = npt.NDArray[np.float64]
Read = Callable[[slice, tuple[slice, ...]], npt.NDArray[Any]]
"""Some of the measurements, part of each axis of space -> voxels, (measurements, *parts)."""

_MARGIN = 14  # the filter forgets by a factor of 2 - sqrt(3) a voxel
_TILE = 64  # voxels along an axis that are filtered at once
_AT_ONCE = 1 << 23  # values that are filtered at once, of as many measurements as that are
_DEGREE = 3


def interpolate(
    read: Read, lengths: Sequence[int], places: Floats, nearest: npt.NDArray[np.int64], count: int, gradient: bool
) -> tuple[Floats, Floats]:
    """Evaluate the spline.

    Parameters
    ----------
    read : callable
    lengths : sequence of int
        Of the axes of space.
    places : ndarray of float64, shape (axes, points)
        Positions in voxels. Beyond the outermost centres the spline goes on as a constant.
    nearest : ndarray of int64, shape (axes, points)
        The voxels that they are nearest to. Where one is not finite, so is the value, and the derivative is NaN;
        for the points around, it counts as 0.
    count : int
        Measurements.
    gradient : bool

    Returns
    -------
    values : ndarray of float64, shape (points, measurements)
    slopes : ndarray of float64, shape (points, measurements, axes)
        Of no axes without `gradient`.

    Raises
    ------
    MissingDependencyError
        Without scipy.
    """
    axes, points = places.shape
    last = np.array(lengths)[:, None] - 1
    inner = np.clip(places, 0, last)
    values = np.empty((points, count))
    slopes = np.zeros((points, count, axes if gradient else 0))
    tiles, which = np.unique(nearest // _TILE, axis=1, return_inverse=True)
    for tile in range(tiles.shape[1]):
        here = np.flatnonzero(which.reshape(-1) == tile)
        low, high = nearest[:, here].min(1), nearest[:, here].max(1)
        parts = tuple(slice(max(0, int(a) - _MARGIN), min(n, int(b) + _MARGIN + 1))
                      for a, b, n in zip(low, high, lengths, strict=True))  # fmt: skip
        start = np.array([part.start for part in parts])[:, None]
        at = np.ascontiguousarray((inner[:, here] - start).T)
        beyond = ((places < 0) | (places > last))[:, here].T[:, None, :]
        some = max(1, _AT_ONCE // math.prod(part.stop - part.start for part in parts))
        for begin in range(0, count, some):
            measured = slice(begin, min(begin + some, count))
            voxels = np.asarray(read(measured, parts), np.float64)
            finite = np.isfinite(voxels)
            spline = _spline(voxels if finite.all() else np.where(finite, voxels, 0.0), axes)
            found, moved = spline(at), np.zeros((len(here), measured.stop - begin, slopes.shape[2]))
            for axis in range(slopes.shape[2]):
                moved[..., axis] = spline(at, nu=[int(axis == other) for other in range(axes)])
            if gradient:  # constant beyond the centres
                moved[np.broadcast_to(beyond, moved.shape)] = 0.0
            if not finite.all():
                index = (slice(None), *(nearest[:, here] - start))
                odd = ~finite[index].T
                found, moved[odd] = np.where(odd, voxels[index].T, found), np.nan
            values[here, measured], slopes[here, measured] = found, moved
    return values, slopes


def _spline(voxels: Floats, axes: int) -> Any:
    """Return the interpolating spline of an array (measurements, *axes), positions -> (points, measurements)."""
    try:
        from scipy.interpolate import NdBSpline
        from scipy.ndimage import spline_filter1d
    except ImportError as error:
        raise MissingDependencyError('interpolating voxels needs scipy: pip install "inrstore[spline]"') from error
    found = voxels
    for axis in range(1, axes + 1):
        found = spline_filter1d(found, _DEGREE, axis, mode="mirror")
    # One coefficient before the first voxel and two behind the last, where the basis of a point in between ends.
    found = np.pad(found, [(0, 0), *itertools.repeat((1, 2), axes)], mode="reflect")
    knots = tuple(np.arange(n + _DEGREE + 1) - 3.0 for n in found.shape[1:])
    return NdBSpline(knots, np.ascontiguousarray(np.moveaxis(found, 0, -1)), _DEGREE)
