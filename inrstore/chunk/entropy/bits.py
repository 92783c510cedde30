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


RICE, DIFFERENCES = 64, 128
"""Bits of the code of a column: it is in Rice code; what stands there are differences to the row above."""
_MOST_QUOTIENT = 63
_LARGEST = 1 << (limits.MAX_PREDICTOR_BITS - 1)
_WINDOW = 1 << 18  # bits that are looked at together


def write_matrix(values: npt.ArrayLike) -> bytes:
    """Return a matrix (R, C) as bytes, each column in the code that makes it the smallest (section 12.3)."""
    matrix = np.atleast_2d(np.asarray(values, np.int64))
    codes, bits = np.zeros(matrix.shape[1], np.uint8), [np.zeros(0, np.uint8)]
    for number, column in enumerate(matrix.T):
        ways = [(0, (column << 1) ^ (column >> 63))]
        if len(column) > 1:
            steps = np.diff(column, prepend=0)
            ways.append((DIFFERENCES, (steps << 1) ^ (steps >> 63)))
        size, code, coded = min(((*_fewest(z), z) for _, z in ways), key=lambda found: found[0])
        codes[number] = code + next(flag for flag, z in ways if z is coded)
        width = code & (RICE - 1)
        if code >= RICE:
            unary = np.zeros(size - width * len(coded), np.uint8)
            unary[np.cumsum((coded >> width) + 1) - 1] = 1
            bits.append(unary)
        bits.append((coded[:, None] >> np.arange(width) & 1).astype(np.uint8).reshape(-1))
    return codes.tobytes() + np.packbits(np.concatenate(bits), bitorder="little").tobytes()


def _fewest(coded: Ints) -> tuple[int, int]:
    """Return the fewest bits that numbers (not negative) take, and the code of that."""
    width = int(coded.max(initial=0)).bit_length()
    fewest, code = width * len(coded), width
    for low in range(max(0, width - 6), min(width, limits.MAX_RICE_BITS + 1)):  # quotients are below 64
        size = int((coded >> low).sum()) + (1 + low) * len(coded)
        if size < fewest:
            fewest, code = size, RICE + low
    return (fewest, code) if width <= limits.MAX_PREDICTOR_BITS else (1 << 60, min(width, RICE - 1))  # none reads that


def read_matrix(reader: Reader, rows: int, columns: int, field: str) -> Ints:
    """Return a matrix of that many rows and columns; a column without bits costs one byte of input."""
    codes = reader.array("u1", columns, field).astype(np.int64)
    rice, widths = (codes & RICE) > 0, codes & (RICE - 1)
    if (widths > np.where(rice, limits.MAX_RICE_BITS, limits.MAX_PREDICTOR_BITS)).any():
        raise LimitExceededError(field, f"integers of more than {limits.MAX_PREDICTOR_BITS} bits")
    out = np.zeros((columns, rows), np.int64)
    most = np.cumsum(rows * (widths + (_MOST_QUOTIENT + 1) * rice))
    data, position, first = reader.data[reader.position :], 0, 0
    while rows and first < columns:
        last = max(first + 1, int(np.searchsorted(most, (most[first - 1] if first else 0) + _WINDOW, "right")))
        here = slice(first, last)
        position += _read_columns(data, position, widths[here], rice[here], out[here], field)
        first = last
    if position & 7 and data[position >> 3] >> (position & 7):
        raise CorruptChunkError(field, "bits after the last number are set")
    reader.take(-(-position // 8), field)
    signed: Ints = (out >> 1) ^ -(out & 1)
    if (codes >= DIFFERENCES).any():
        signed[codes >= DIFFERENCES] = np.cumsum(signed[codes >= DIFFERENCES], 1)
        if (np.abs(signed) > _LARGEST).any():
            raise LimitExceededError(field, f"integers of more than {limits.MAX_PREDICTOR_BITS} bits")
    return signed.T


def _read_columns(data: memoryview, position: int, widths: Ints, rice: npt.NDArray[np.bool_], out: Ints,
                  field: str) -> int:  # fmt: skip
    """Fill columns (rows of `out`) with numbers from a bit on; return how many bits they take."""
    rows = out.shape[1]
    most = rows * int((widths + (_MOST_QUOTIENT + 1) * rice).sum())
    some = np.frombuffer(data[position >> 3 : (position + most + 7) >> 3], np.uint8)
    bits = np.unpackbits(some, bitorder="little")[position & 7 :]
    ones = bits.nonzero()[0] if rice.any() else np.zeros(0, np.int64)
    begins, at = np.zeros(len(widths), np.int64), 0  # of the low bits
    for column, (width, coded) in enumerate(zip(widths.tolist(), rice.tolist(), strict=True)):
        if coded:
            begin = int(np.searchsorted(ones, at))
            ends = ones[begin : begin + rows]
            if len(ends) < rows:
                raise CorruptChunkError(field, "the bits end early")
            out[column] = ends
            out[column, 1:] -= ends[:-1]
            out[column, 0] -= at - 1
            at = int(ends[-1]) + 1
        begins[column] = at
        at += rows * width
    if at > len(bits):
        raise CorruptChunkError(field, f"{at} bits expected, {len(bits)} are left")
    out[rice] -= 1
    if (out > _MOST_QUOTIENT).any():
        raise CorruptChunkError(field, f"more than {_MOST_QUOTIENT} zeros in front of a number")
    out <<= widths[:, None]
    for width in np.unique(widths[widths > 0]).tolist():
        of = (widths == width).nonzero()[0]
        size = 16 if width <= 16 else 64
        low = np.zeros((len(of), rows, size), np.uint8)
        for place, begin in zip(low, begins[of].tolist(), strict=True):
            place[:, :width] = bits[begin : begin + rows * width].reshape(rows, width)
        out[of] += np.packbits(low, bitorder="little").view(f"<u{size // 8}").reshape(len(of), rows).astype(np.int64)
    return at


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
