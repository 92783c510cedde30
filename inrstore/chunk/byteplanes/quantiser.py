"""Values <-> unsigned indices of uniform levels (specification sections 8.1 to 8.3)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

_BLOCK = 1 << 17  # values whose 64-bit temporaries are held at a time


@dataclass(frozen=True)
class Quantiser:
    """A uniform grid of levels.

    Parameters
    ----------
    low, high : int or float
        Range of the values; whole numbers for integer types.
    steps : ndarray of uint64 or float64
        One step, or one for each index of `axis`.
    axis : int or None
        Axis along which the steps change.
    """

    low: float
    high: float
    steps: npt.NDArray[Any]
    axis: int | None

    @classmethod
    def over(cls, values: npt.NDArray[Any], steps: npt.NDArray[np.float64], axis: int | None) -> Quantiser:
        """Return the quantiser of these steps over finite values; steps of integers become whole numbers."""
        axis = axis if len(steps) > 1 else None
        if values.dtype.kind == "f":
            return cls(float(values.min()), float(values.max()), steps, axis)
        whole = np.clip(np.rint(steps), 1, 2.0**62).astype(np.uint64)
        return cls(int(values.min()), int(values.max()), whole, axis)

    def index(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the index of the nearest level, in the narrowest unsigned type.

        Raises
        ------
        OverflowError
            When indices would need more bytes than values: the step is too fine to pay.
        """
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                index = np.rint((values.astype(np.float64) - self.low) / self._view(values.ndim))
            if not np.isfinite(index).all() or index.max() >= 2.0**53:
                raise OverflowError("the step is too fine for exact indices")
            grid = index.astype(np.uint64)
        else:
            distance = values.astype(np.uint64) - np.uint64(int(self.low) % 2**64)
            step = self._view(values.ndim)
            grid = distance // step
            grid += distance % step > step // 2
        peak = int(grid.max())
        width = next(w for w in (1, 2, 4, 8) if peak < 1 << 8 * w)
        if width > values.dtype.itemsize:
            raise OverflowError("the step is too fine for an index no wider than a value")
        narrow: npt.NDArray[Any] = grid.astype(dtypes.bits_dtype(width))
        return narrow

    def values(self, grid: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the levels of indices."""
        result = np.empty(grid.shape, dtype)
        # Rows share a step: everything from the channel axis on, or the whole when there is none.
        rows = 1 if self.axis is None else math.prod(grid.shape[: self.axis + 1])
        grid, out = grid.reshape(rows, -1), result.reshape(rows, -1)
        for i in _blocks(grid.shape):
            index, step = grid[i], self.steps[np.arange(i[0].start, i[0].stop) % len(self.steps), None]
            if dtype.kind == "f":
                # Two separately rounded float64 operations, the limits, one cast: the same everywhere. The limits by
                # comparison, because minimum and maximum may give either of two zeros.
                with np.errstate(over="ignore"):
                    level = self.low + index.astype(np.float64) * step
                level = np.where(level < self.low, self.low, np.where(level > self.high, self.high, level))
                out[i] = level.astype(dtype)
            else:
                # Saturates at the largest value instead of wrapping around 2^64.
                span = np.uint64(int(self.high) - int(self.low))
                wide = index.astype(np.uint64)
                distance = np.where(wide > span // step, span, wide * step)
                out[i] = (distance + np.uint64(int(self.low) % 2**64)).astype(dtype)
        return result

    def write(self, dtype: np.dtype[Any]) -> bytes:
        """Return the bytes of the fields range and steps."""
        if dtype.kind == "f":
            return struct.pack("<dd", self.low, self.high) + self.steps.astype("<f8").tobytes()
        wide = "<qq" if dtype.kind == "i" else "<QQ"
        return struct.pack(wide, int(self.low), int(self.high)) + self.steps.astype("<u8").tobytes()

    def _view(self, ndim: int) -> npt.NDArray[Any]:
        view = [1] * ndim
        if self.axis is not None:
            view[self.axis] = len(self.steps)
        return self.steps.reshape(view)


def read_quantiser(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...], axis: int | None) -> Quantiser:
    """Parse the fields range and steps."""
    count = 1 if axis is None else shape[axis]
    if dtype.kind == "f":
        low, high = (float(v) for v in reader.array("<f8", 2, "byteplanes.range"))
        steps = reader.array("<f8", count, "byteplanes.steps")
        most = float(np.finfo(dtype).max)
        inside = -most <= low <= high <= most
        positive = bool(np.isfinite(steps).all() and (steps > 0).all())
    else:
        kind = "q" if dtype.kind == "i" else "Q"
        low, high = reader.number(kind, "byteplanes.range"), reader.number(kind, "byteplanes.range")
        steps = reader.array("<u8", count, "byteplanes.steps")
        info = np.iinfo(dtype)
        inside = info.min <= low <= high <= info.max
        positive = bool(steps.all())
    if not inside:
        raise CorruptChunkError("byteplanes.range", f"{low}..{high} is not a range of {dtype}")
    if not positive:
        raise CorruptChunkError("byteplanes.steps", "a step is not positive and finite")
    return Quantiser(low, high, steps, axis)


def _blocks(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield the blocks of a matrix whose 64-bit temporaries stay small, whatever its shape."""
    columns = min(shape[1], _BLOCK)
    rows = max(1, _BLOCK // columns)
    for row in range(0, shape[0], rows):
        for column in range(0, shape[1], columns):
            yield slice(row, min(row + rows, shape[0])), slice(column, column + columns)
