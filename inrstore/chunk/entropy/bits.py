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
    signed: Ints = (out >> 1) ^ -(out & 1)
    return signed.T


def write_column(values: Ints) -> bytes:
    """Return a matrix of one column as bytes."""
    return write_matrix(values[:, None])


def read_column(reader: Reader, rows: int, field: str) -> Ints:
    """Return a matrix of one column."""
    return read_matrix(reader, rows, 1, field)[:, 0]


class BitReader:
    """Numbers of a few bits each, one after the other.

    Parameters
    ----------
    data : bytes-like
        All of them; the first bit is the least significant one of the first byte.
    field : str
        Errors name it.

    Attributes
    ----------
    data : ndarray of uint8
    end, position : int
        How many bits there are, and the next one; compiled loops move on by themselves.
    """

    def __init__(self, data: memoryview, field: str) -> None:
        self._field = field
        padded = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(4, np.uint8)])
        self.data = padded[:-4]
        self._from = np.zeros(len(padded) - 3, np.uint32)  # 32 bits from each byte on
        for i in range(4):
            self._from |= padded[i : len(padded) - 3 + i].astype(np.uint32) << np.uint32(8 * i)
        self.end, self.position = 8 * len(data), 0

    def take(self, widths: Words) -> Words:
        """Return the next numbers; no width is above 25."""
        ends = np.cumsum(widths, dtype=np.int64) + self.position
        if ends.size and ends[-1] > self.end:
            raise CorruptChunkError(self._field, "the bits end early")
        if ends.size:
            self.position = int(ends[-1])
        ends -= widths
        found = self._from.take(ends >> 3)
        ends &= 7
        found >>= ends.astype(np.uint32)
        out: Words = found.view(np.int32)
        out &= (np.int32(1) << widths) - np.int32(1)
        return out

    def zeros(self, count: int, most: int) -> Words:
        """Return how many 0 stand in front of each of the next so many 1; more than `most` are refused."""
        first, skip = divmod(self.position, 8)
        some = self.data[first : first + 1 + -(-count * (most + 2) // 8)]
        ones = np.unpackbits(some, bitorder="little")[skip:].nonzero()[0][:count]
        if len(ones) < count:
            raise CorruptChunkError(self._field, "the bits end early")
        out = np.diff(ones, prepend=-1) - 1
        if (out > most).any():
            raise LimitExceededError(self._field, f"more than {most} zeros in front of a number")
        self.position += int(ones[-1]) + 1
        return out.astype(np.int32)

    def finish(self) -> None:
        """Refuse whole bytes left over, or padding that is not 0."""
        if self.end - self.position >= 8:
            raise CorruptChunkError(self._field, "bytes are left over")
        if self.position & 7 and (int(self._from[self.position >> 3]) & 255) >> (self.position & 7):
            raise CorruptChunkError(self._field, "bits after the last number are set")


class BitWriter:
    """Takes numbers at their widths, some at a time; the inverse of `BitReader`."""

    def __init__(self) -> None:
        self._bytes: list[bytes] = []
        self._left = np.zeros(0, np.uint8)

    def add(self, numbers: Ints, widths: Ints) -> None:
        """Take numbers (not negative) at their widths."""
        bits = np.concatenate([self._left, _spread(numbers, widths)])
        whole = len(bits) & ~7
        self._bytes.append(np.packbits(bits[:whole], bitorder="little").tobytes())
        self._left = bits[whole:]

    def finish(self) -> bytes:
        """Return all bytes; the last one is filled up with zeros."""
        return b"".join([*self._bytes, np.packbits(self._left, bitorder="little").tobytes()])


def pack_bits(numbers: Ints, widths: Ints) -> bytes:
    """Return the numbers (not negative) at their widths; the inverse of `BitReader`."""
    return np.packbits(_spread(numbers, widths), bitorder="little").tobytes()


def _spread(numbers: Ints, widths: Ints) -> npt.NDArray[np.uint8]:
    """Return the bits of numbers, one in a byte."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if len(ends) else 0
    bits = np.zeros(total, np.uint8)
    begins = ends - widths
    for j in range(int(widths.max(initial=0))):
        use = widths > j
        bits[begins[use] + j] = numbers[use] >> j & 1
    return bits
