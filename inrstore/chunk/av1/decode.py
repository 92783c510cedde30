"""Bytes -> values of chunk mode av1 (specification section 15)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.av1 import library, obu
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError, LimitExceededError

LEVELS = 1 << library.DEPTH
MOST_SHIFT, MOST_OFFSET = 45, 1 << 52
_HEAD = "<BBBBbiiIq"


@dataclass(frozen=True)
class Header:
    """What stands in front of the stream; section 15.1.

    Parameters
    ----------
    rows, columns : int
        Axes of the box.
    shift, exponent, low, high, gain, offset : int
    """

    rows: int
    columns: int
    shift: int
    exponent: int
    low: int
    high: int
    gain: int
    offset: int

    def write(self) -> bytes:
        """Return the bytes of the header."""
        return struct.pack(
            _HEAD, 0, self.rows, self.columns, self.shift, self.exponent, self.low, self.high, self.gain, self.offset
        )

    def outputs(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the value of each sample, shape (1024,)."""
        number = np.arange(LEVELS, dtype=np.int64) * self.gain + self.offset
        number = np.clip((number + (1 << self.shift >> 1)) >> self.shift, self.low, self.high)
        values: npt.NDArray[Any]
        values = np.ldexp(number.astype(np.float64), self.exponent) if dtype.kind == "f" else number << self.exponent
        return values.astype(dtype)

    def frames(self, box: tuple[int, ...]) -> tuple[tuple[int, ...], int, int, int]:
        """Return the order of the axes, the number of frames, and their height and width."""
        others = [axis for axis in range(len(box)) if axis not in (self.rows, self.columns)]
        height, width = (max(library.LEAST_SIDE, box[axis]) for axis in (self.rows, self.columns))
        return (*others, self.rows, self.columns), math.prod(box[axis] for axis in others), height, width


def read_header(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> Header:
    """Parse and check a header.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    flags = reader.number("B", "av1.flags")
    if flags:
        raise CorruptChunkError("av1.flags", f"reserved bits are set in {flags:#x}")
    rows, columns = reader.number("B", "av1.rows"), reader.number("B", "av1.columns")
    if rows >= len(box):
        raise CorruptChunkError("av1.rows", f"{rows} of {len(box)} axes")
    if columns >= len(box) or columns == rows:
        raise CorruptChunkError("av1.columns", f"{columns} of {len(box)} axes, beside {rows}")
    shift = reader.number("B", "av1.shift")
    if not 1 <= shift <= MOST_SHIFT:
        raise LimitExceededError("av1.shift", f"{shift} is not in 1..{MOST_SHIFT}")
    exponent = reader.number("b", "av1.exponent")
    low, high = reader.number("i", "av1.low"), reader.number("i", "av1.high")
    dtypes.check_outputs(low, high, exponent, dtype, "av1")
    gain, offset = reader.number("I", "av1.gain"), reader.number("q", "av1.offset")
    if not gain:
        raise CorruptChunkError("av1.gain", "0")
    if abs(offset) >= MOST_OFFSET:
        raise LimitExceededError("av1.offset", f"{offset}")
    header = Header(rows, columns, shift, exponent, low, high, gain, offset)
    _, count, height, width = header.frames(box)
    if height * width > limits.MAX_AV1_PIXELS:
        raise LimitExceededError("av1.rows", f"frames of {width} x {height}")
    if count * height * width > limits.MAX_AV1_SAMPLES:
        raise LimitExceededError("av1.rows", f"{count} frames of {width} x {height}")
    return header


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    MissingDependencyError
        Without PyAV.
    """
    header = read_header(reader, dtype, box)
    order, count, height, width = header.frames(box)
    units = obu.temporal_units(reader.take(reader.remaining, "av1.stream"), count, width, height)
    lengths = tuple(box[axis] for axis in order)
    outputs, values = header.outputs(dtype), np.empty((count, *lengths[-2:]), dtype)
    for number, luma in enumerate(library.decode(units, width, height)):  # an index of numpy's has eight bytes
        values[number] = outputs.take(luma[: lengths[-2], : lengths[-1]], mode="clip")
    return np.ascontiguousarray(values.reshape(lengths).transpose(np.argsort(order)))


def describe(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> dict[str, Any]:
    """Return what a payload says of itself."""
    header = read_header(reader, dtype, box)
    _, count, height, width = header.frames(box)
    return {"frames": count, "height": height, "width": width}
