"""An image -> the standard deviation of its noise in each measurement, with numpy alone, in about a second.

- *Many measurements* (10 or more): what is left of each when it is predicted from the others by least squares, over the
  voxels of the foreground (Bioucas-Dias and Nascimento, IEEE TGRS 46, 2008, do so for bands of a spectrum). It needs no
  smooth image and no white noise, so that interpolated scans are measured as well as raw ones. Of a contrast that only
  one measurement has (a single b = 0) the others know little, and more than noise is left; since one receiver measures
  all, no measurement counts as noisier than the median of them.
- *Few*: differences of a voxel and its two neighbours along z, of these along y, of these along x: of smooth anatomy
  nothing is left, and their median absolute value is that of noise. (Along x alone, fine anatomy counts as noise, two
  to five times over in T1, FLAIR and CT.) Noise that neighbours share, as in images that a scanner interpolated, is
  underestimated.

The foreground is what a threshold of Otsu on the mean of all measurements leaves, smoothed over 3 x 3 x 3 voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError
from inrstore.evaluate.findings import Floats, Image, Truth

REGRESSION, DIFFERENCES = "regression-1", "differences-1"
"""Names of the estimators; another number is another result for the same image."""
LEAST_MEASUREMENTS = 10
_NORMAL = 0.6744897501960817
"""Median of the absolute value of a normal variable, in standard deviations."""
_GROUP = 256
"""Measurements that are predicted from each other; the time grows with its cube."""
_SAMPLED = 1 << 24
"""Values that a regression looks at."""
_PER_MEASUREMENT = 2
"""Voxels that a regression needs for each of its measurements."""
_LEAST_OF_INTEGERS = 0.5
"""Stored units; less cannot be told from the rounding to integers."""
_NONE = 1e-9
"""Of the largest value: less is rounding, not noise."""


@dataclass(frozen=True)
class Noise:
    """The noise of an image.

    Parameters
    ----------
    sigma : ndarray
        Standard deviation in each measurement, in the shape of the leading axes, stored units, above 0.
    estimator : str
        `REGRESSION` or `DIFFERENCES`.
    counted : ndarray of bool
        In the shape of the space axes: the voxels that are not 0 in every measurement, inside the mask. Background that
        was set to 0 has no noise, and errors there would only dilute those that matter.
    """

    sigma: Floats
    estimator: str
    counted: Truth

    @classmethod
    def of(cls, voxels: Image, leading: int, inside: Truth | None = None) -> Noise:
        """Estimate the noise.

        Parameters
        ----------
        voxels : ndarray
            Stored units; the first `leading` axes count measurements, the others are space.
        leading : int
        inside : ndarray of bool, optional
            Which voxels count; broadcasts to the image.

        Raises
        ------
        ConfigurationError
            If there is none that could be measured: of constant or synthetic measurements, truth values, or integers
            with less than half a unit.
        """
        space = voxels.shape[leading:]
        if voxels.dtype.kind not in "iuf" or not space:
            raise ConfigurationError(f"noise: {voxels.dtype} {voxels.shape} has none")
        flat = voxels.reshape(-1, *(1,) * (3 - len(space)), *space)
        counted = np.zeros(flat.shape[1:], np.bool_)
        total = np.zeros(flat.shape[1:], np.float64)
        for volume in flat:
            counted |= volume != 0
            total += np.nan_to_num(volume.astype(np.float64), posinf=0.0, neginf=0.0)
        if inside is not None:
            counted &= np.broadcast_to(inside, voxels.shape)[(0,) * leading].reshape(counted.shape)
        total = _smoothed(total)  # a threshold on noise would choose voxels by their noise
        front = counted & (total > _otsu(total[counted])) if counted.any() else counted
        found, estimator = _regressed(flat, front), REGRESSION
        if found is None:
            if max(flat.shape[1:]) < 3:
                raise ConfigurationError(f"noise: cannot be measured of {flat.shape[1:]} voxels")
            found, estimator = deviation(flat, front), DIFFERENCES
        _check(found, flat)
        return cls(np.minimum(found, np.median(found)).reshape(voxels.shape[:leading]), estimator,
                   counted.reshape(space))  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Return a JSON object for the metadata: the estimator, and the median and range of sigma."""
        least, middle, most = (float(f"{v:.5g}") for v in np.percentile(self.sigma, (0, 50, 100)))
        return {"estimator": self.estimator, "sigma": middle, "sigma_range": [least, most]}


class Excess:
    """Accumulates the errors of each measurement, block by block.

    Parameters
    ----------
    noise : Noise
        Of the original image.
    """

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        self._squares, self._counts = np.zeros(noise.sigma.shape), np.zeros(noise.sigma.shape)

    def add(self, original: Image, decoded: Image, where: tuple[slice, ...]) -> None:
        """Take in the same part of both images; `where` is that part."""
        leading = self._squares.ndim
        part: tuple[Any, ...] = (*where[:leading], ...)  # a view, also where there are no leading axes
        squares, counts = self._squares[part], self._counts[part]
        counted = self._noise.counted[where[leading:]]
        for index in np.ndindex(squares.shape):
            a, b = (image[index][counted].astype(np.float64) for image in (original, decoded))
            there = np.isfinite(a)
            with np.errstate(over="ignore", invalid="ignore"):
                squared = np.square(b[there] - a[there])
            squared[~np.isfinite(squared)] = np.inf  # a finite value that became NaN
            squares[index] += squared.sum()
            counts[index] += squared.size

    def ratios(self) -> Floats:
        """Return the rmse of each measurement over its sigma, in the shape of the leading axes."""
        return np.asarray(np.sqrt(self._squares / np.maximum(self._counts, 1)) / self._noise.sigma)


def deviation(voxels: Image, inside: Truth | None = None) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the noise of each measurement, by differences of neighbours, in stored units.

    Parameters
    ----------
    voxels : ndarray
        (..., z, y, x); at least 3 voxels along one of these.
    inside : ndarray of bool, optional
        (z, y, x), the voxels that count: background that was set to 0 has no noise.

    Returns
    -------
    ndarray
        In the shape of the leading axes; NaN where no voxel counts.
    """
    out = np.full(voxels.shape[:-3], np.nan, np.float64)
    axes = [axis for axis in range(3) if voxels.shape[axis - 3] >= 3]
    counts = np.ones(voxels.shape[-3:], np.bool_) if inside is None else inside
    for axis in axes:
        counts = _neighbours(counts, axis)[1]  # those around it may be outside: a few large differences move no median
    for index in np.ndindex(out.shape if axes else (0,)):
        # Second differences have no part of a slope; along one axis after the other, 1.5 times the variance each.
        rest = voxels[index].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            for axis in axes:
                before, here, after = _neighbours(rest, axis)
                rest = here - 0.5 * (before + after)
        values = rest[counts & np.isfinite(rest)]
        if values.size:
            if voxels.dtype.kind in "iu":  # of integers they are multiples of a step, and so would be their median
                step = 0.5 ** len(axes)
                values = values + step * (np.arange(values.size) * 0.6180339887498949 % 1.0 - 0.5)
            out[index] = np.median(np.abs(values)) / _NORMAL / 1.5 ** (len(axes) / 2)
    return out


def _neighbours(values: npt.NDArray[Any], axis: int) -> list[npt.NDArray[Any]]:
    """Return what is before, at and behind each place of (z, y, x) that has both neighbours along an axis."""
    length = values.shape[axis] - 2
    return [values[(slice(None),) * axis + (slice(start, start + length),)] for start in range(3)]


def _regressed(flat: Image, front: Truth) -> Floats | None:
    """Return what is left of each measurement, (t,), when the others predict it; None where these are too few."""
    count, places = len(flat), np.flatnonzero(front)
    most = max(_PER_MEASUREMENT * min(count, _GROUP), _SAMPLED // max(1, count))
    places = places[:: max(1, -(-places.size // most))]
    if count < LEAST_MEASUREMENTS:
        return None
    out = []
    for group in np.array_split(np.arange(count), -(-count // _GROUP)):
        rows = np.stack([flat[t].reshape(-1)[places].astype(np.float64) for t in group])
        rows = rows[:, np.isfinite(rows).all(axis=0)]
        voxels = rows.shape[1]
        if voxels < _PER_MEASUREMENT * len(group):
            return None
        rows -= rows.mean(axis=1, keepdims=True)
        size = np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
        scaled = np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)
        covariance = scaled @ scaled.T / voxels
        inverse = np.linalg.inv(covariance + 1e-13 * np.eye(len(group)))
        left = (inverse / np.diag(inverse)[:, None]) @ scaled * size
        spread = np.median(np.abs(left - np.median(left, axis=1, keepdims=True)), axis=1) / _NORMAL
        out.append(spread * math.sqrt(voxels / (voxels - len(group))))
    return np.concatenate(out)


def _check(found: Floats, flat: Image) -> None:
    """Refuse what is no noise."""
    largest = [float(np.abs(np.nan_to_num(volume.astype(np.float64), posinf=0.0, neginf=0.0)).max(initial=0.0))
               for volume in flat]  # fmt: skip
    least = np.maximum(np.array(largest) * _NONE, 1e-300)
    none = np.flatnonzero(~(found > least) | ~np.isfinite(found))
    hint = "ask for another quality (psnr, rmse, max_error or lossless)"
    constant = [t for t in range(len(flat)) if (flat[t] == flat[t].reshape(-1)[:1]).all()]
    if constant:
        none = np.array(constant)
    if none.size:
        which = f"measurement {none[0]}" + (f" and {none.size - 1} more" if none.size > 1 else "")
        raise ConfigurationError(
            f"noise: {which} of {len(flat)} has none (constant, synthetic, or made of others); {hint}"
        )
    if flat.dtype.kind in "iu" and float(np.median(found)) < _LEAST_OF_INTEGERS:
        raise ConfigurationError(
            f"noise: {np.median(found):.2g} stored units cannot be told from the rounding to integers; {hint}"
        )


def _smoothed(image: Floats) -> Floats:
    """Return sums over 3 voxels along each axis; at the ends the last one counts twice."""
    for axis, length in enumerate(image.shape):
        at = np.arange(length)
        image = image + image.take(np.maximum(at - 1, 0), axis) + image.take(np.minimum(at + 1, length - 1), axis)
    return image


def _otsu(values: Floats) -> float:
    """Return the threshold that parts values into two classes with the largest variance between them."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(sums / below - (sums[-1] - sums) / above)
    between[~np.isfinite(between)] = 0.0
    return float(edges[int(np.argmax(between)) + 1]) if between.any() else -math.inf
