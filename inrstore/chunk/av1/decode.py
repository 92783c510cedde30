"""Bytes -> values of chunk mode av1 (specification section 15)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.av1 import library, obu
from inrstore.chunk.frame import Reader
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inloop.correction import read as read_correction
from inrstore.errors import CorruptChunkError, LimitExceededError

Array: TypeAlias = npt.NDArray[Any]

LEVELS = 1 << library.DEPTH
FINE = 16
"""Levels that a correction sees in each of a sample's (section 15.4)."""
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
    correction : Correction, optional
        Of the samples; `gain` and `offset` are those of what it gives then.
    """

    rows: int
    columns: int
    shift: int
    exponent: int
    low: int
    high: int
    gain: int
    offset: int
    correction: Correction | None = None

    def write(self) -> bytes:
        """Return the bytes of the header."""
        head = struct.pack(
            _HEAD, int(self.correction is not None), self.rows, self.columns, self.shift, self.exponent,
            self.low, self.high, self.gain, self.offset,
        )  # fmt: skip
        return head if self.correction is None else head + self.correction.write()

    def outputs(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the value of each sample, shape (1024,), or of each corrected one, shape (16369,)."""
        count = LEVELS if self.correction is None else (LEVELS - 1) * FINE + 1
        number = np.arange(count, dtype=np.int64) * self.gain + self.offset
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
    if flags > 1:
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
    if not flags:
        return header
    if math.prod(box) > limits.MAX_TRANSFORM_VALUES:
        raise LimitExceededError("av1.rows", f"{math.prod(box)} samples to correct")
    return replace(header, correction=read_correction(reader, 1))


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
    return box_of(header, samples_of(header, reader.take(reader.remaining, "av1.stream"), box), dtype, box)


def samples_of(header: Header, stream: bytes | memoryview, box: tuple[int, ...]) -> Array:
    """Return what stands in frames at the positions of the box, corrected where the header says so (section 15.4).

    Parameters
    ----------
    header : Header
    stream : bytes
    box : tuple of int

    Returns
    -------
    ndarray of uint16, shape (frames, rows, columns)

    Raises
    ------
    CorruptChunkError, LimitExceededError, MissingDependencyError
        As `decode`.
    """
    _, count, height, width = header.frames(box)
    units = obu.temporal_units(memoryview(stream), count, width, height)
    samples = np.empty((count, box[header.rows], box[header.columns]), np.uint16)
    for number, luma in enumerate(library.decode(units, width, height)):
        samples[number] = luma[: samples.shape[1], : samples.shape[2]]
    if header.correction is None:
        return samples
    volume = samples[None].astype(np.float64) * FINE
    header.correction.apply(volume)
    corrected: Array = np.clip(volume[0], 0, (LEVELS - 1) * FINE, out=volume[0])
    return corrected.astype(np.uint16)


def box_of(header: Header, samples: Array, dtype: np.dtype[Any], box: tuple[int, ...]) -> Array:
    """Return the values of samples, corrected or not (section 15.3)."""
    order, *_ = header.frames(box)
    values = header.outputs(dtype)[samples]
    return np.ascontiguousarray(values.reshape([box[axis] for axis in order]).transpose(np.argsort(order)))


def describe(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> dict[str, Any]:
    """Return what a payload says of itself."""
    header = read_header(reader, dtype, box)
    _, count, height, width = header.frames(box)
    found = {"frames": count, "height": height, "width": width}
    return found if header.correction is None else found | header.correction.describe()
