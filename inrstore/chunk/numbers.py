"""Numbers of a simpler type -> the floating-point values that a box had (specification section 4.2).

Most floating-point images were integers once: scaled, divided, looked up. Modes then code the integers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.frame import Reader
from inrstore.chunk.inflate import inflate
from inrstore.errors import CorruptChunkError, LimitExceededError

NARROW, PRODUCT, QUOTIENT, TABLE = range(4)
MOST_DIFFERENCES = 4
"""How often the entries of a table may be differenced."""
_BLOCK = 1 << 17  # values whose 64-bit temporaries are held at a time


class Numbers(Protocol):
    """What a mode codes in place of the values of a box, and how these follow.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the numbers, little-endian.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""

    def values(self, numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values, of the type of the chunk; `CorruptChunkError` for numbers that stand for none."""

    def write(self) -> bytes:
        """Return the bytes."""


@dataclass(frozen=True)
class Narrow:
    """Values that a narrower floating-point type holds.

    Parameters
    ----------
    dtype : numpy.dtype
    """

    dtype: np.dtype[Any]

    def values(self, numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the same values in the wider type."""
        if np.isnan(numbers).any():  # which bits a wider one would have depends on the machine
            raise CorruptChunkError("numbers.coding", "a NaN of a narrower type")
        return numbers.astype(dtype)

    def write(self) -> bytes:
        """Return the bytes."""
        return bytes([NARROW, dtypes.code_of(self.dtype)])


@dataclass(frozen=True)
class Linear:
    """Integers times a factor, or over a divisor, plus an offset: binary64, each step rounded, then the type.

    Parameters
    ----------
    dtype : numpy.dtype
        Integers of at most four bytes.
    coding : {PRODUCT, QUOTIENT}
    factor : float
        Finite, not 0; the divisor of a quotient.
    offset : float
        Finite; nothing is added if it is 0, so that zeros keep their sign.
    """

    dtype: np.dtype[Any]
    coding: int
    factor: float
    offset: float = 0.0

    def values(self, numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values."""
        out = np.empty(numbers.shape, dtype)
        given, made = np.ascontiguousarray(numbers).reshape(-1), out.reshape(-1)
        with np.errstate(over="ignore", under="ignore"):
            for part in blocks(made.size):
                made[part] = self.exact(given[part].astype(np.float64)).astype(dtype)
        return out

    def exact(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the values in binary64; numpy rounds after each step and never fuses two."""
        scaled = numbers * self.factor if self.coding == PRODUCT else numbers / self.factor
        return scaled + self.offset if self.offset else scaled

    def write(self) -> bytes:
        """Return the bytes."""
        return struct.pack("<BBdd", self.coding, dtypes.code_of(self.dtype), self.factor, self.offset)


@dataclass(frozen=True)
class Table:
    """Places in a list of values.

    Parameters
    ----------
    dtype : numpy.dtype
        uint8 or uint16.
    entries : ndarray
        The values, at most 2^(8 itemsize) of them, of the type of the chunk.
    coded : bytes
        How they are written, from the field `differences` on.
    """

    dtype: np.dtype[Any]
    entries: npt.NDArray[Any]
    coded: bytes

    def values(self, numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values."""
        if int(numbers.max(initial=0)) >= len(self.entries):
            raise CorruptChunkError("numbers.entries", f"{numbers.max()} is no place among {len(self.entries)}")
        found: npt.NDArray[Any] = self.entries[numbers]
        return found

    def write(self) -> bytes:
        """Return the bytes."""
        head = struct.pack("<BBI", TABLE, dtypes.code_of(self.dtype), len(self.entries))
        return head + self.coded


def read(reader: Reader, dtype: np.dtype[Any]) -> Numbers:
    """Parse the numbers of an envelope; `dtype` is that of the chunk, little-endian."""
    coding = reader.number("B", "numbers.coding")
    if coding > TABLE:
        raise CorruptChunkError("numbers.coding", f"{coding} is reserved")
    code = reader.number("B", "numbers.type")
    kind = dtypes.little(dtypes.dtype_of(code)) if code & dtypes.BIG_ENDIAN == 0 and code in dtypes.CODES else None
    held = kind is not None and {
        NARROW: kind.kind == "f" and kind.itemsize < dtype.itemsize,
        TABLE: kind.kind == "u" and kind.itemsize <= 2,
    }.get(coding, kind.kind in "iu" and kind.itemsize <= 4)
    if kind is None or not held:
        raise CorruptChunkError("numbers.type", f"{code} with coding {coding} of {dtype}")
    if coding == NARROW:
        return Narrow(kind)
    if coding == TABLE:
        return _read_table(reader, kind, dtype)
    factor, offset = (float(v) for v in reader.array("<f8", 2, "numbers.factor"))
    if not np.isfinite(factor) or factor == 0:
        raise CorruptChunkError("numbers.factor", f"{factor} is 0 or not finite")
    if not np.isfinite(offset):
        raise CorruptChunkError("numbers.offset", f"{offset} is not finite")
    return Linear(kind, coding, factor, offset)


def _read_table(reader: Reader, kind: np.dtype[Any], dtype: np.dtype[Any]) -> Table:
    count = reader.number("I", "numbers.entries")
    if not 1 <= count <= 1 << 8 * kind.itemsize:
        raise LimitExceededError("numbers.entries", f"{count} for places of type {kind}")
    start = reader.position
    times = reader.number("B", "numbers.differences")
    if times > MOST_DIFFERENCES:
        raise CorruptChunkError("numbers.differences", f"{times} is above {MOST_DIFFERENCES}")
    packed = reader.take(reader.number("I", "numbers.table"), "numbers.table")
    raw = inflate(packed, count * dtype.itemsize, "numbers.table")
    pattern = np.array(np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, count).T, order="C")
    ordered = pattern.view(dtypes.bits_dtype(dtype.itemsize)).reshape(count)
    for _ in range(times):
        np.add.accumulate(ordered, out=ordered, dtype=ordered.dtype)
    return Table(kind, dtypes.unordered(ordered, dtype), bytes(reader.data[start : reader.position]))


def blocks(size: int) -> Iterator[slice]:
    """Yield the parts of a flat array whose temporaries stay small."""
    for start in range(0, size, _BLOCK):
        yield slice(start, start + _BLOCK)
