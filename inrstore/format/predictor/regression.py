"""Weights of a stage and what they say of a value (specification sections 12.5 and 12.6).

All sums are made in float32 by BLAS: they are sums of integers below 2^24, so they are exact in any order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import CorruptChunkError, LimitExceededError
from inrstore.format.frame import Reader
from inrstore.format.predictor.integers import Ints, Singles, Words, read_matrix, write_matrix

PAD = 4
"""Rows and columns around a plane that neighbours may lie in."""
MAX_ERROR = 4095
MOST_EARLIER = 256
"""Earlier measurements that a base is made of."""
_SETS, _SCALE, _SHIFT, _FRACTIONS = 16, 1023, 14, (4, 12)
_MOST_ACTIVE = np.float32(1 << 20)
_CLASS_STEP = 154
CLASSES = 32
_CLASS_EDGES = (_CLASS_STEP * np.arange(-15, 16)).astype(np.float32)
_SMALL_PRODUCT = 1 << 18
"""Multiplications up to which OpenBLAS stays on one thread."""
_SIXTEENTH = np.float32(1 / 16)

OWN, BELOW, ABOVE, BASE = "own", "below", "above", "base"
ERROR, ERROR_BELOW, ERROR_ABOVE, ERROR_MEAN = "error", "error below", "error above", "error mean"


class Box(NamedTuple):
    """Neighbours in rows dy.. and columns dx.. of one array, row by row."""

    array: str
    dy: int
    dx: int
    rows: int
    columns: int


_NARROW = ((0, -4, 4), (-1, -3, 5), (-2, -2, 5), (-3, -1, 3))
_WIDE = ((0, -4, 4), (-1, -4, 6), (-2, -4, 8), (-3, -3, 7), (-4, -2, 5))
_ERRORS = ((0, -3, 3), (-1, -2, 4), (-2, -1, 3))


@dataclass(frozen=True)
class Neighbourhood:
    """Where the numbers of a value come from.

    Parameters
    ----------
    wide : bool
        30 neighbours in the own plane rather than 17.
    slices : bool
        There are slices below and above.
    later : bool
        The group is not the first: there is a base.
    """

    wide: bool
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
        out = [Box(OWN, dy, dx, 1, n) for dy, dx, n in (_WIDE if self.wide else _NARROW)]
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
        return (30 if self.wide else 17) + 18 * self.slices

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
        own = 30 if self.wide else 17
        return [3, *((7, 8, 9) if self.wide else (6, 7, 8)), *([own + 4, own + 13] if self.slices else [])]


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
    """

    fraction: int
    clip: int
    weights: Ints
    thresholds: Ints
    activity: Ints
    scale: int
    errors: Ints
    flags: Ints | None = None

    def write(self) -> bytes:
        """Return the bytes of the stage."""
        head = b"" if self.flags is None else write_matrix(self.flags)
        head += struct.pack("<BBH", self.fraction, len(self.weights), self.clip) + write_matrix(self.weights)
        head += write_matrix(np.diff(self.thresholds, prepend=0)) + write_matrix(self.activity)
        return head + struct.pack("<H", self.scale) + write_matrix(self.errors)


def read_stage(reader: Reader, hood: Neighbourhood, zeros: bool) -> Stage:
    """Parse and check a stage."""
    flags = None
    if zeros:
        flags = read_matrix(reader, 1, hood.values + 1, "predictor.flag_weights")[0]
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
    weights = read_matrix(reader, sets, hood.regressors + 1, "predictor.weights")
    _check_sum(reach(weights, clip).max(), "weights")
    steps = read_matrix(reader, 1, sets - 1, "predictor.thresholds")[0]
    if (steps[:1] < 0).any() or (steps[1:] < 1).any():
        raise CorruptChunkError("predictor.thresholds", "they do not ascend")
    _check_sum(steps.sum(), "thresholds")
    activity = read_matrix(reader, 1, hood.regressors + 1, "predictor.activity_weights")
    if (activity < 0).any():
        raise CorruptChunkError("predictor.activity_weights", "a weight below 0")
    _check_sum(reach(activity, clip)[0], "activity_weights")
    scale = reader.number("H", "predictor.activity_scale")
    if scale > _SCALE:
        raise LimitExceededError("predictor.activity_scale", f"{scale}")
    errors = read_matrix(reader, 1, hood.errors, "predictor.error_weights")[0]
    if (errors < 0).any():
        raise CorruptChunkError("predictor.error_weights", "a weight below 0")
    _check_sum(errors.sum() * MAX_ERROR, "error_weights")
    return Stage(fraction, clip, weights, np.cumsum(steps), activity[0], scale, errors, flags)


def reach(weights: Ints, clip: int) -> Ints:
    """Return the most that the sums of each row can be; no product here leaves int64 (widths are limited)."""
    out: Ints = np.abs(weights[:, :-1]).sum(1) * clip + np.abs(weights[:, -1])
    return out


def _check_sum(most: int, name: str) -> None:
    if not most < limits.EXACT_FLOAT32:
        raise LimitExceededError(f"predictor.{name}", "sums leave the range of exact float32")


def product(matrix: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the product of matrices in pieces so small that OpenBLAS does not share them out among threads.

    A step has better uses for its time than waiting for other threads, the more so where all cores are busy.
    """
    size = max(64, _SMALL_PRODUCT // matrix.size)
    if rows.shape[1] <= size:
        whole: npt.NDArray[Any] = matrix @ rows
        return whole
    out = np.empty((len(matrix), rows.shape[1]), matrix.dtype)
    for i in range(0, rows.shape[1], size):
        np.matmul(matrix, rows[:, i : i + size], out=out[:, i : i + size])
    return out


def _two_rows(weights: Ints) -> Singles:
    """Return a row of weights and one of zeros: a vector times a matrix is shared out whatever its size."""
    out = np.zeros((2, len(weights)), np.float32)
    out[0] = weights
    return out


class Kernel:
    """The weights of a stage, ready for many values at once.

    Parameters
    ----------
    stage : Stage
    hood : Neighbourhood
    span : int
        high - low of the layout: no regressor can be larger.
    """

    def __init__(self, stage: Stage, hood: Neighbourhood, span: int) -> None:
        self.fraction = np.int32(stage.fraction)
        self._later, self._values, self._regressors = hood.later, hood.values, hood.regressors
        self._clip = np.float32(stage.clip) if stage.clip < span else None
        self._weights, self._activity = stage.weights.astype(np.float32), _two_rows(stage.activity)
        self._thresholds = stage.thresholds.astype(np.float32)
        self._scale, self._errors = np.int32(stage.scale), _two_rows(stage.errors)
        self._flags = None if stage.flags is None else _two_rows(stage.flags[:-1])
        self._flag_offset = np.float32(0 if stage.flags is None else stage.flags[-1])
        self._near = np.zeros((2, hood.values), np.float32)
        self._near[0, hood.near] = 1
        self._share = np.float32(len(hood.near))

    def classes(self, flags: Singles) -> Ints:
        """Return the class of each flag; `flags` are those of the neighbours, shape (J, n)."""
        assert self._flags is not None
        sums = product(self._flags, flags)[0]
        sums += self._flag_offset
        found: Ints = _CLASS_EDGES.searchsorted(sums)
        return found

    def centre(self, rows: Singles, flags: Singles | None) -> Singles:
        """Centre and limit the regressors in place (points 2 and 3); return c.

        Parameters
        ----------
        rows : ndarray of float32, shape (K + 1, n)
            The list r of each value; the last row is 1.
        flags : ndarray of float32, shape (J, n), optional
        """
        values = rows[: self._values]
        centre: Singles
        if self._later:
            middle = self._values + 4
            centre = rows[middle].copy()
            rows[self._values : self._regressors] -= centre
            np.multiply(centre, _SIXTEENTH, out=rows[middle])
            np.floor(rows[middle], out=rows[middle])
        else:
            # A quotient of integers this small is never rounded to the integer above it.
            centre = product(self._near, values)[0]
            centre /= self._share if flags is None else np.maximum(product(self._near, flags)[0], np.float32(1))
            np.floor(centre, out=centre)
            values -= centre
            if flags is not None:
                values *= flags
        if self._clip is not None:
            inside = rows[: self._regressors]
            np.clip(inside, -self._clip, self._clip, out=inside)
        return centre

    def predict(self, rows: Singles, centre: Singles, iota: Ints) -> tuple[Words, Singles]:
        """Return p and t (point 5); `rows` is used up.

        Parameters
        ----------
        rows : ndarray of float32, shape (K + 1, n)
            As `centre` left it.
        centre : ndarray of float32, shape (n,)
        iota : ndarray of int, shape (n,)
            0, 1, 2, ..
        """
        sums = product(self._weights, rows)
        np.abs(rows, out=rows)
        active: Singles = product(self._activity, rows)[0]
        if len(self._thresholds):
            place = self._thresholds.searchsorted(active)
            place *= len(iota)
            place += iota
            chosen = sums.take(place)
        else:
            chosen = sums[0]
        out = centre.astype(np.int32)
        out <<= self.fraction
        out += chosen.astype(np.int32)
        return out, active

    def expected(self, active: Singles, errors: Singles) -> Words:
        """Return the expected error (point 6); `active` is used up.

        Parameters
        ----------
        active : ndarray of float32, shape (n,)
            t of point 5.
        errors : ndarray of float32, shape (M, n)
        """
        out = self.scaled(active)
        out += product(self._errors, errors)[0].astype(np.int32)
        return out

    def scaled(self, active: Singles) -> Words:
        """Return the part of the expected error that the activity makes; `active` is used up."""
        out = np.minimum(active, _MOST_ACTIVE, out=active).astype(np.int32)
        out *= self._scale
        out >>= 6
        return out


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
    size = max(64, _SMALL_PRODUCT // weights.size)
    for i in range(0, earlier.shape[1], size):
        sums = slopes @ earlier[:, i : i + size].astype(np.float64)
        sums += offsets
        sums *= 2.0**-shift
        np.floor(sums, out=sums)
        out[:, i : i + size] = np.clip(sums, low, high)
    return out
