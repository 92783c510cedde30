"""Matrices of small signed integers, and fields of bits (specification sections 12.3 and 12.8)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError, LimitExceededError

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Words = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def write_matrix(values: npt.ArrayLike) -> bytes:
    """Return a matrix (R, C) as bytes; each column has its own width."""
    matrix = np.atleast_2d(np.asarray(values, np.int64))
    coded = (matrix << 1) ^ (matrix >> 63)
    widths = np.array([int(w).bit_length() for w in coded.max(0, initial=0)], np.uint8)
    bits = [(coded[:, j, None] >> np.arange(w) & 1).astype(np.uint8).reshape(-1) for j, w in enumerate(widths)]
    packed = np.packbits(np.concatenate(bits), bitorder="little") if bits else np.zeros(0, np.uint8)
    return widths.tobytes() + packed.tobytes()


def read_matrix(reader: Reader, rows: int, columns: int, field: str) -> Ints:
    """Return a matrix of that many rows and columns; a column without bits costs one byte of input."""
    widths = reader.array("u1", columns, field).astype(np.int64)
    if (widths > limits.MAX_PREDICTOR_BITS).any():
        raise LimitExceededError(field, f"integers of more than {limits.MAX_PREDICTOR_BITS} bits")
    out = read_bits(reader, rows, widths, field)
    signed: Ints = (out >> 1) ^ -(out & 1)
    return signed


def read_bits(reader: Reader, rows: int, widths: Ints, field: str) -> Ints:
    """Return numbers (not negative) in so many rows, column after column, each with the width of its column."""
    total = rows * int(widths.sum())
    bits = np.unpackbits(reader.array("u1", -(-total // 8), field), bitorder="little")
    if bits[total:].any():
        raise CorruptChunkError(field, "bits after the last number are set")
    out = np.zeros((len(widths), rows), np.int64)
    some = np.repeat(widths[widths > 0], rows)
    if some.size:
        begins = np.cumsum(some) - some
        places = np.arange(total) - np.repeat(begins, some)
        out[widths > 0] = np.add.reduceat(bits[:total].astype(np.int64) << places, begins).reshape(-1, rows)
    return out.T


class BitReader:
    """Numbers of a few bits each, one after the other.

    Parameters
    ----------
    data : bytes-like
        All of them; the first bit is the least significant one of the first byte.
    field : str
        Errors name it.
    """

    def __init__(self, data: memoryview, field: str = "predictor.low_bits") -> None:
        self._field = field
        padded = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(3, np.uint8)])
        self._from = padded[:-2].astype(np.int32)  # 24 bits from each byte on
        self._from |= padded[1:-1].astype(np.int32) << 8
        self._from |= padded[2:].astype(np.int32) << 16
        self._end, self._position = 8 * len(data), 0

    def take(self, widths: Words) -> Words:
        """Return the next numbers; no width is above 16."""
        ends = np.cumsum(widths, dtype=np.int64) + self._position
        if ends.size and ends[-1] > self._end:
            raise CorruptChunkError(self._field, "the bits end early")
        if ends.size:
            self._position = int(ends[-1])
        ends -= widths
        out: Words = self._from.take(ends >> 3)
        ends &= 7
        out >>= ends.astype(np.int32)
        out &= (np.int32(1) << widths) - np.int32(1)
        return out

    def finish(self) -> None:
        """Refuse whole bytes left over, or padding that is not 0."""
        if self._end - self._position >= 8:
            raise CorruptChunkError(self._field, "bytes are left over")
        if self._position & 7 and (int(self._from[self._position >> 3]) & 255) >> (self._position & 7):
            raise CorruptChunkError(self._field, "bits after the last number are set")


def pack_bits(numbers: Ints, widths: Ints) -> bytes:
    """Return the numbers (not negative) at their widths; the inverse of `BitReader`."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if len(ends) else 0
    bits = np.zeros(total, np.uint8)
    begins = ends - widths
    for j in range(int(widths.max(initial=0))):
        use = widths > j
        bits[begins[use] + j] = numbers[use] >> j & 1
    return np.packbits(bits, bitorder="little").tobytes()
