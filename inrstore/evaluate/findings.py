"""Two arrays of a quantity (before, after) -> how far they are apart, in figures with the same few names everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError

Image: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Truth: TypeAlias = npt.NDArray[np.bool_]

MEAN_ABSOLUTE, PERCENTILE, BIAS = "mean absolute error", "95 % of errors", "bias"
RELATIVE, RELATIVE_SPREAD = "relative error, mean", "relative error, std"
VALUE = "value"


@dataclass(frozen=True)
class Finding:
    """One figure.

    Parameters
    ----------
    measure : str
        What was looked at: "FA", "SSIM".
    region : str
        Where: "WM", "brain", "image".
    statistic : str
        What is said of it: `MEAN_ABSOLUTE`, `PERCENTILE` (the size that 95 % of the errors stay below), `BIAS` (mean of
        after - before), `RELATIVE` and `RELATIVE_SPREAD` (mean and standard deviation of (after - before) / before), or
        `VALUE` for what is a figure by itself.
    value : float or None
        None where it is infinite or does not exist.
    unit : str
        Empty for a pure number.
    """

    measure: str
    region: str
    statistic: str
    value: float | None
    unit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model or a comparison says of one candidate.

    Parameters
    ----------
    findings : tuple of Finding
    maps : mapping of str to ndarray
        What is shown as pictures, (z, y, x), or (z, y, x, 3) in 0 to 1 for colours; see `inrstore.evaluate.page`.
    """

    findings: tuple[Finding, ...]
    maps: Mapping[str, Image]


def number(value: float | np.number[Any] | None) -> float | None:
    """Return a number that JSON knows, None for one that is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def value(measure: str, region: str, found: float | np.number[Any] | None, unit: str = "") -> Finding:
    """Return a figure that stands by itself."""
    return Finding(measure, region, VALUE, number(found), unit)


def errors(
    measure: str, region: str, before: Image, after: Image, unit: str = "", *, relative: bool = True
) -> tuple[Finding, ...]:
    """Return how far a quantity is off.

    Parameters
    ----------
    measure, region, unit : str
        For the findings.
    before, after : ndarray
        (n,), the quantity in the same voxels. A voxel where either is not finite does not count.
    relative : bool
        Whether errors relative to the quantity make sense; voxels where it is 0 do not count for these.

    Returns
    -------
    tuple of Finding
        None as values if no voxel counts.
    """
    counts = np.isfinite(before) & np.isfinite(after)
    first, second = before[counts].astype(np.float64), after[counts].astype(np.float64)
    error = second - first
    size = np.abs(error)
    some = error.size > 0
    found = [
        Finding(measure, region, MEAN_ABSOLUTE, number(size.mean()) if some else None, unit),
        Finding(measure, region, PERCENTILE, number(np.percentile(size, 95)) if some else None, unit),
        Finding(measure, region, BIAS, number(error.mean()) if some else None, unit),
    ]
    if relative:
        there = first != 0
        parts = 100 * error[there] / first[there]
        found += [
            Finding(measure, region, RELATIVE, number(parts.mean()) if parts.size else None, "%"),
            Finding(measure, region, RELATIVE_SPREAD, number(parts.std()) if parts.size else None, "%"),
        ]
    return tuple(found)


def needs(package: str) -> MissingDependencyError:
    """Return the error that says how to get a package of the extra."""
    return MissingDependencyError(f'this evaluation needs {package}: pip install "inrstore[evaluate]"')


def foreground(image: Image) -> Truth:
    """Return where an image shows something: its zeros if they are most of it, else a threshold of Otsu, smoothed.

    Parameters
    ----------
    image : ndarray
        (z, y, x), numbers that are finite.

    Returns
    -------
    ndarray of bool
        (z, y, x); all of it if that is what was found nowhere.

    Raises
    ------
    MissingDependencyError
        Without dipy.
    """
    zero = image == 0
    if zero.mean() > 0.5 and not zero.all():  # background was taken out, of a skull-stripped image for instance
        return np.asarray(~zero)
    try:
        from dipy.segment.mask import median_otsu
    except ImportError as error:
        raise needs("dipy") from error
    # The median filter takes minutes at full size, and a mask needs no more.
    step = max(1, round((image.size / _MASK_VOXELS) ** (1 / 3)))
    steps = tuple(step if length >= 8 * step else 1 for length in image.shape)
    small = np.ascontiguousarray(image[tuple(slice(None, None, one) for one in steps)], np.float32)
    _, mask = median_otsu(small, median_radius=2, numpass=1)
    for axis, one in enumerate(steps):
        mask = np.repeat(mask, one, axis).take(np.arange(image.shape[axis]), axis)
    return np.asarray(mask, np.bool_) if mask.any() else np.ones(image.shape, np.bool_)


_MASK_VOXELS = 500_000
