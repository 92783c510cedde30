"""An image -> the standard deviation of its noise in each measurement.

Of a 4-D image the noise of MP-PCA (dipy) would be the better estimate, but takes a minute; the one here takes a second
and needs numpy alone: differences across a voxel's two neighbours along x, whose median absolute value is that of noise
where the image is smooth. Noise that neighbours share, as in images that a scanner interpolated, is underestimated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inrstore.evaluate.findings import Image, Truth

_NORMAL = 0.6744897501960817
"""Median of the absolute value of a normal variable, in standard deviations."""


def deviation(voxels: Image, inside: Truth | None = None) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the noise of each measurement, in stored units.

    Parameters
    ----------
    voxels : ndarray
        (..., z, y, x); at least 3 voxels along x.
    inside : ndarray of bool, optional
        (z, y, x), the voxels that count: background that was set to 0 has no noise.

    Returns
    -------
    ndarray
        In the shape of the leading axes; NaN where no voxel counts.
    """
    out = np.full(voxels.shape[:-3], np.nan, np.float64)
    counts = None if inside is None else inside[..., 1:-1] & inside[..., :-2] & inside[..., 2:]
    for index in np.ndindex(out.shape):
        image = voxels[index].astype(np.float64)
        # Second differences have no part of a slope; 1.5 times the variance of the noise is theirs.
        second = image[..., 1:-1] - 0.5 * (image[..., :-2] + image[..., 2:])
        values = second[np.isfinite(second) if counts is None else counts & np.isfinite(second)]
        if values.size:
            out[index] = np.median(np.abs(values)) / _NORMAL / np.sqrt(1.5)
    return out
