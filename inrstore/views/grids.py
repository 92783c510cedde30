"""Grids of places in a field: another spacing, a coarser level, any affine; evaluated where they are asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, MissingDependencyError

Floats = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
"""Along i, j, k."""

MOST_VOXELS = 32767
"""Along an axis: what a NIfTI-1 can have."""
MOST_LEVEL = 14
_AT_ONCE = 1 << 22  # values
_QUARTERS = (-0.25, 0.25)


class Samples(Protocol):
    """Values, (points, measurements)."""

    @property
    def values(self) -> Floats:
        """Of all points."""


class Sampled(Protocol):
    """What a grid needs of a field."""

    affine: Floats
    shape: Shape

    def sample(self, points: Any, *, space: Any, measurements: Any) -> Samples:
        """Return values at points."""


# ---- geometry ----------------------------------------------------------------------------------------------


def spaced(shape: Shape, affine: Floats, spacing: float | Sequence[float]) -> tuple[Shape, Floats]:
    """Return shape and affine of a grid along the same axes, of another spacing and about the same centre.

    The centre of the image stays where it is; along each axis there are as many voxels as come nearest to its length
    (between the outer faces), so that the centres of all of them are inside.

    Parameters
    ----------
    shape, affine : tuple of int, ndarray of float64 (4, 4)
        Of the image.
    spacing : float or sequence of three floats
        In mm, along all axes or along i, j, k.

    Raises
    ------
    ConfigurationError
        For a spacing that is not a positive number, or makes more than `MOST_VOXELS` voxels along an axis.
    """
    try:
        steps = np.broadcast_to(np.asarray(spacing, np.float64), 3)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"spacing: {spacing!r} is neither one number nor three") from error
    if not np.isfinite(steps).all() or (steps <= 0).any():
        raise ConfigurationError(f"spacing: {spacing!r}: in mm, above 0")
    ratio = steps / np.linalg.norm(affine[:3, :3], axis=0)  # old voxels for a new one
    counts = np.maximum(1, np.rint(np.array(shape) / ratio))
    if counts.max() > MOST_VOXELS:
        raise ConfigurationError(
            f"spacing: {spacing!r} makes {counts.max():.0f} voxels along an axis, the most is {MOST_VOXELS}"
        )
    change = np.diag([*ratio, 1.0])
    change[:3, 3] = (np.array(shape) - 1) / 2 - ratio * (counts - 1) / 2
    return (int(counts[0]), int(counts[1]), int(counts[2])), affine @ change


def coarser(shape: Shape, affine: Floats, level: int) -> tuple[Shape, Floats]:
    """Return shape and affine of a grid 2^level times as coarse, whose first voxels begin where those of the image do.

    An axis of one voxel stays as it is. The last voxel of another may reach beyond the image.
    """
    if isinstance(level, bool) or not isinstance(level, int | np.integer) or not 0 <= level <= MOST_LEVEL:
        raise ConfigurationError(f"level: {level!r} is no integer from 0 to {MOST_LEVEL}")
    ratio = np.array([1 if n == 1 else 1 << level for n in shape])
    counts = [-(-n // int(r)) for n, r in zip(shape, ratio, strict=True)]
    change = np.diag([*ratio.astype(np.float64), 1.0])
    change[:3, 3] = (ratio - 1) / 2
    return (counts[0], counts[1], counts[2]), affine @ change


def checked(shape: Any, affine: Any) -> tuple[Shape, Floats]:
    """Return a shape and an affine that a user gave.

    Raises
    ------
    ConfigurationError
        If they are not three lengths and 4 x 4 finite numbers.
    """
    lengths = tuple(shape)[:3]
    if len(lengths) != 3 or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in lengths):
        raise ConfigurationError(f"shape: {shape!r}: three lengths are wanted")
    if not all(1 <= n <= MOST_VOXELS for n in lengths):
        raise ConfigurationError(f"shape: {shape!r}: lengths are from 1 to {MOST_VOXELS}")
    try:
        matrix = np.array(affine, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("affine: not 4 x 4 numbers") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
        raise ConfigurationError("affine: not an affine of 4 x 4 finite numbers")
    return (int(lengths[0]), int(lengths[1]), int(lengths[2])), matrix


# ---- values ------------------------------------------------------------------------------------------------


class Grid:
    """Values of a field on a grid, as dask takes it for an array: what is not asked for is not evaluated.

    Parameters
    ----------
    field : Field
    shape, affine : tuple of int, ndarray of float64 (4, 4)
        Of the grid, along i, j, k.
    leading : tuple of int
        Lengths of the axes of measurements, slowest first.
    axes : int
        Axes of space that the array has: the last so many of z, y, x.
    dtype : numpy.dtype
        Of the values.
    average : bool
        Whether a voxel is the mean of the field at eight places (of an axis of one voxel at its centre alone), a
        quarter of its width from its centre along each axis, as far as they are inside the image.
    """

    def __init__(
        self, field: Sampled, shape: Shape, affine: Floats, leading: tuple[int, ...], axes: int, dtype: np.dtype[Any],
        *, average: bool = False,
    ) -> None:  # fmt: skip
        self.field, self.lengths, self.affine, self.leading, self.dtype = field, shape, affine, leading, dtype
        self.shape = (*leading, *shape[::-1][3 - axes :])
        self.ndim = len(self.shape)
        self._axes = axes
        self._change = np.linalg.inv(field.affine) @ affine
        taps = [_QUARTERS if average and n > 1 else (0.0,) for n in field.shape]
        self._taps = [np.array(one) for one in itertools.product(*taps)]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Return the values of a basic selection."""
        parts = key if isinstance(key, tuple) else (key,)
        where = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
        first, last = parts[:where], parts[where + 1 :]
        parts = (*first, *(slice(None),) * (self.ndim - len(first) - len(last)), *last)
        lead = len(self.leading)
        measured = np.arange(math.prod(self.leading)).reshape(self.leading)[parts[:lead]]
        ranges = [range(n)[part] if isinstance(part, slice) else range(n)[part : part + 1 or None]
                  for part, n in zip(parts[lead:], self.shape[lead:], strict=True)]  # fmt: skip
        z, y, x = [range(1)] * (3 - self._axes) + ranges
        out = np.empty((measured.size, len(z), len(y), len(x)), self.dtype)
        for planes, rows in blocks(len(z), len(y), len(x) * measured.size):
            k, j, i = np.meshgrid(z[planes], y[rows], x, indexing="ij")
            places = np.stack([i, j, k], -1).reshape(-1, 3).astype(np.float64)
            found = self._values(places, measured.reshape(-1))
            out[:, planes, rows] = found.T.reshape(-1, *k.shape)
        drop = tuple(slice(None) if isinstance(part, slice) else 0 for part in parts[lead:])
        kept = out.reshape(*measured.shape, *(len(r) for r in ([z, y, x][3 - self._axes :])))
        return np.asarray(kept[(..., *drop)] if drop else kept)

    def _values(self, places: Floats, measured: npt.NDArray[np.int64]) -> Floats:
        total = count = np.zeros(1)
        for tap in self._taps:
            voxels = (places + tap) @ self._change[:3, :3].T + self._change[:3, 3]
            found = self.field.sample(voxels, space="voxel", measurements=measured).values
            if len(self._taps) == 1:
                return found
            half = np.array(self.field.shape) - 0.5
            inside = ((voxels > -0.5) & (voxels < half)).all(1)[:, None]
            total, count = total + np.where(inside, found, 0.0), count + inside
        with np.errstate(invalid="ignore"):
            return total / count

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield the planes and rows to ask for at a time, so that memory is bounded."""
        return blocks(self.lengths[2], self.lengths[1], self.lengths[0] * math.prod(self.leading))


def blocks(planes: int, rows: int, values: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of planes and of their rows, of `values` values each, that have a bounded number of values."""
    some = max(1, _AT_ONCE // max(1, rows * values))
    few = rows if some > 1 else max(1, min(rows, _AT_ONCE // max(1, values)))
    for plane in range(0, planes, some):
        for row in range(0, rows, few):
            yield slice(plane, min(plane + some, planes)), slice(row, min(row + few, rows))


def lazily(grid: Grid) -> Any:
    """Return a grid as a dask array.

    Raises
    ------
    MissingDependencyError
        Without dask.
    """
    try:
        import dask.array
    except ImportError as error:
        raise MissingDependencyError('a grid is a DataArray: pip install "inrstore[xarray]"') from error
    planes, rows = next(grid.blocks())
    space = (planes.stop, rows.stop, grid.lengths[0])
    chunks = (*grid.leading, *space[3 - (grid.ndim - len(grid.leading)) :])
    return dask.array.from_array(grid, chunks=chunks, meta=np.empty(0, grid.dtype), name=False)  # type: ignore[no-untyped-call]
