"""An image -> one figure for its noise that its anatomy is no part of.

Second differences of neighbours along every axis, measurements too, one after the other: little but noise is left, and
its median absolute value tells the standard deviation. It takes a second and numpy alone, and agrees with MP-PCA on
scans as they were measured; noise that neighbours share, as in images that a scanner interpolated, is underestimated.
`inrstore.evaluate.noise`, which looks along one axis, counts anatomy of coarse voxels as noise, several times over.
"""

from __future__ import annotations

import numpy as np

from inrstore.evaluate.findings import Image, Truth

_NORMAL = 0.6744897501960817
"""Median of the absolute value of a normal variable, in standard deviations."""
_PLACES, _VALUES = 8, 1 << 20
"""Measurements that are looked at, evenly spaced, and about how many values of each."""


def floor(voxels: Image) -> float:
    """Return the standard deviation of what neighbours do not tell of each other, in stored units.

    Only voxels count whose mean over the measurements is no less than that of all: not air, which has other noise or
    was set to 0. Of a large image it is some slices in its middle of a few measurements.

    Parameters
    ----------
    voxels : ndarray
        (..., z, y, x), integers or floats.

    Returns
    -------
    float
        0 where most voxels are as their neighbours, NaN where there are too few to tell.
    """
    stacked = voxels.reshape(-1, *voxels.shape[-3:])
    keep = max(3, _VALUES // max(1, stacked[0, 0].size))
    first = max(0, (stacked.shape[1] - keep) // 2)
    stacked = stacked[:, first : first + keep]
    count = len(stacked)
    places = np.unique(np.linspace(1, count - 2, min(_PLACES, count - 2)).astype(int)) if count > 2 else range(count)
    parts = [stacked[t - 1 : t + 2] if count > 2 else stacked[t : t + 1] for t in places]
    mean = np.mean([np.nan_to_num(part.mean(axis=0, dtype=np.float64), posinf=0.0, neginf=0.0) for part in parts], 0)
    inside = mean >= mean.mean()
    found = [_rough(part, inside) for part in parts]
    known = [value for value in found if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def _rough(image: Image, inside: Truth) -> float:
    """Return the deviation of second differences along each axis of (t, z, y, x) that has 3 values or more."""
    rest, counts, scale = image.astype(np.float64), inside[None] & np.isfinite(image).all(axis=0), 1.0
    for axis, length in enumerate(image.shape):
        if length < 3:
            continue
        before, here, after = (_along(rest, axis, start, length - 2) for start in range(3))
        with np.errstate(invalid="ignore"):
            rest = here - 0.5 * (before + after)
        if axis:
            counts = np.logical_and.reduce([_along(counts, axis, start, length - 2) for start in range(3)])
        scale *= 1.5
    values = rest[np.broadcast_to(counts, rest.shape)]
    return float(np.median(np.abs(values)) / _NORMAL / np.sqrt(scale)) if values.size and scale > 1 else float("nan")


def _along(values: Image, axis: int, start: int, length: int) -> Image:
    return values[(slice(None),) * axis + (slice(start, start + length),)]
