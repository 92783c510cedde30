"""Neighbours, and the weights of groups and stages (specification sections 12.4 to 12.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints, read_column, read_matrix, write_column, write_matrix
from inrstore.chunk.frame import Reader
from inrstore.chunk.predictor.regions import Differences, RegionGrid, read_differences, write_differences
from inrstore.chunk.products import SMALL_PRODUCT, product
from inrstore.errors import CorruptChunkError, LimitExceededError

PAD = 4
"""Rows and columns around a plane that neighbours may lie in."""
MAX_ERROR = 4095
MOST_EARLIER = 256
"""Earlier measurements that a base is made of."""
_SETS, _SCALE, _SHIFT, _FRACTIONS = 16, 1023, 14, (4, 12)
CLASSES = 32

OWN, BELOW, ABOVE, BASE = "own", "below", "above", "base"
ERROR, ERROR_BELOW, ERROR_ABOVE, ERROR_MEAN = "error", "error below", "error above", "error mean"


class Box(NamedTuple):
    """Neighbours in rows dy.. and columns dx.. of one array, row by row."""

    array: str
    dy: int
    dx: int
    rows: int
    columns: int


_VALUES = ((0, -4, 4), (-1, -4, 6), (-2, -3, 6), (-3, -2, 5))
_OWN = sum(count for _, _, count in _VALUES)
_ERRORS = ((0, -3, 3), (-1, -2, 4), (-2, -1, 3))


@dataclass(frozen=True)
class Neighbourhood:
    """Where the numbers of a value come from.

    Parameters
    ----------
    slices : bool
        There are slices below and above.
    later : bool
        The group is not the first: there is a base.
    """

    slices: bool
    later: bool

    @property
    def boxes(self) -> list[Box]:
        """Boxes of the regressors."""
        out = self.value_boxes
        return [*out, Box(BASE, -1, -1, 3, 3)] if self.later else out

    @property
    def value_boxes(self) -> list[Box]:
        """Boxes of the regressors that are values, which have flags too."""
        out = [Box(OWN, dy, dx, 1, n) for dy, dx, n in _VALUES]
        return [*out, Box(BELOW, -1, -1, 3, 3), Box(ABOVE, -1, -1, 3, 3)] if self.slices else out

    @property
    def error_boxes(self) -> list[Box]:
        """Boxes of the errors."""
        out = [Box(ERROR, dy, dx, 1, n) for dy, dx, n in _ERRORS]
        if self.slices:
            out += [Box(ERROR_BELOW, 0, 0, 1, 1), Box(ERROR_ABOVE, 0, 0, 1, 1)]
        return [*out, Box(ERROR_MEAN, 0, 0, 1, 1)] if self.later else out

    @property
    def values(self) -> int:
        """J: regressors that are values."""
        return _OWN + 18 * self.slices

    @property
    def regressors(self) -> int:
        """K: all regressors but the constant."""
        return self.values + 9 * self.later

    @property
    def errors(self) -> int:
        """M: errors."""
        return 10 + 2 * self.slices + self.later

    @property
    def near(self) -> list[int]:
        """Regressors whose mean is the centre."""
        return [3, 7, 8, 9, *([_OWN + 4, _OWN + 13] if self.slices else [])]


@dataclass(frozen=True)
class Stage:
    """Integer weights of a stage; shapes as in section 12.5.

    Parameters
    ----------
    fraction, clip : int
    weights : ndarray of int64, shape (sets, K + 1)
    thresholds : ndarray of int64, shape (sets - 1,)
        Ascending.
    activity : ndarray of int64, shape (K + 1,)
    scale : int
        Factor of the activity in the expected error.
    errors : ndarray of int64, shape (M,)
    flags : ndarray of int64, shape (J + 1,), or None
    grid : RegionGrid or None
        Regions, if the chunk has any.
    differences : Differences or None
        What their weights are.
    """

    fraction: int
    clip: int
    weights: Ints
    thresholds: Ints
    activity: Ints
    scale: int
    errors: Ints
    flags: Ints | None = None
    grid: RegionGrid | None = None
    differences: Differences | None = None

    def write(self) -> bytes:
        """Return the bytes of the stage."""
        head = b"" if self.flags is None else write_column(self.flags)
        head += struct.pack("<BBH", self.fraction, len(self.weights), self.clip) + write_matrix(self.weights)
        if self.grid is not None:
            head += write_differences(self.differences)
        head += write_column(np.diff(self.thresholds, prepend=0)) + write_column(self.activity)
        return head + struct.pack("<H", self.scale) + write_column(self.errors)


def read_stage(
    reader: Reader, neighbourhood: Neighbourhood, zeros: bool, grid: RegionGrid | None = None, values: int = 0
) -> Stage:
    """Parse and check a stage of so many values."""
    flags = None
    if zeros:
        flags = read_column(reader, neighbourhood.values + 1, "predictor.flag_weights")
        _check_sum(np.abs(flags).sum(), "flag_weights")
    fraction = reader.number("B", "predictor.fraction")
    if not _FRACTIONS[0] <= fraction <= _FRACTIONS[1]:
        raise LimitExceededError("predictor.fraction", f"{fraction}")
    sets = reader.number("B", "predictor.sets")
    if not 1 <= sets <= _SETS:
        raise LimitExceededError("predictor.sets", f"{sets}")
    clip = reader.number("H", "predictor.clip")
    if clip < 1:
        raise CorruptChunkError("predictor.clip", "0")
    weights = read_matrix(reader, sets, neighbourhood.regressors + 1, "predictor.weights")
    _check_sum(reach(weights, clip).max(), "weights")
    differences = None if grid is None else read_differences(reader, grid, values, weights)
    if differences is not None:
        _check_sum(reach(differences.weights(weights), clip).max(), "region_weights")
    steps = read_column(reader, sets - 1, "predictor.thresholds")
    if (steps[:1] < 0).any() or (steps[1:] < 1).any():
        raise CorruptChunkError("predictor.thresholds", "they do not ascend")
    _check_sum(steps.sum(), "thresholds")
    activity = read_column(reader, neighbourhood.regressors + 1, "predictor.activity_weights")
    if (activity < 0).any():
        raise CorruptChunkError("predictor.activity_weights", "a weight below 0")
    _check_sum(int(reach(activity, clip)), "activity_weights")
    scale = reader.number("H", "predictor.activity_scale")
    if scale > _SCALE:
        raise LimitExceededError("predictor.activity_scale", f"{scale}")
    errors = read_column(reader, neighbourhood.errors, "predictor.error_weights")
    if (errors < 0).any():
        raise CorruptChunkError("predictor.error_weights", "a weight below 0")
    _check_sum(errors.sum() * MAX_ERROR, "error_weights")
    return Stage(fraction, clip, weights, np.cumsum(steps), activity, scale, errors, flags, grid, differences)


def reach(weights: Ints, clip: int) -> Ints:
    """Return the most that the sums of each row can be; no product here leaves int64 (widths are limited)."""
    out: Ints = np.abs(weights[..., :-1]).sum(-1) * clip + np.abs(weights[..., -1])
    return out


def _check_sum(most: int, name: str) -> None:
    if not most < limits.EXACT_FLOAT32:
        raise LimitExceededError(f"predictor.{name}", "sums leave the range of exact float32")


def write_base(shift: int, weights: Ints) -> bytes:
    """Return the bytes of a group (section 12.4)."""
    return bytes([shift]) + write_matrix(weights)


def read_base(reader: Reader, measurements: int, earlier: int) -> tuple[int, Ints]:
    """Parse and check the base of a group of so many measurements after so many earlier ones."""
    shift = reader.number("B", "predictor.group_shift")
    if shift > _SHIFT:
        raise LimitExceededError("predictor.group_shift", f"{shift}")
    used = min(earlier, MOST_EARLIER)
    weights = read_matrix(reader, measurements, used + 1, "predictor.group_weights")
    # 2^40 in each of 257 columns times 2^16 would not fit int64, so the sum is looked at before it is multiplied.
    most = np.abs(weights[:, :-1]).sum(1)
    if (most > limits.EXACT_FLOAT64 // limits.MAX_PREDICTOR_RANGE).any() or (
        most * limits.MAX_PREDICTOR_RANGE + np.abs(weights[:, -1]) >= limits.EXACT_FLOAT64
    ).any():
        raise LimitExceededError("predictor.group_weights", "sums leave the range of exact float64")
    return shift, weights


def base_of(earlier: Ints, weights: Ints, shift: int, low: int, high: int) -> Ints:
    """Return P of each measurement of a group.

    Parameters
    ----------
    earlier : ndarray of int, shape (k', n)
        Values of the earlier measurements.
    weights : ndarray of int64, shape (G, k' + 1)
    shift, low, high : int

    Returns
    -------
    ndarray, shape (G, n), dtype of `earlier`
    """
    out = np.empty((len(weights), earlier.shape[1]), earlier.dtype)
    slopes, offsets = weights[:, :-1].astype(np.float64), weights[:, -1:].astype(np.float64)
    size = max(64, SMALL_PRODUCT // weights.size)
    for i in range(0, earlier.shape[1], size):
        sums = product(slopes, earlier[:, i : i + size].astype(np.float64))
        sums += offsets
        sums *= 2.0**-shift
        np.floor(sums, out=sums)
        out[:, i : i + size] = np.clip(sums, low, high)
    return out
