"""What sections share: fields (section 1), zlib streams, outputs (section 5), entropy coding (6), matrices (12.3)."""

import zlib
from typing import Any

import numpy as np


class Invalid(ValueError):
    """The bytes are not a frame of this format. The message begins with the field at fault."""


def check(condition: Any, field: str, problem: str) -> None:
    """Raise `Invalid` about `field` unless `condition` holds."""
    if not condition:
        raise Invalid(f"{field}: {problem}")


# Section 1. Promises and conventions.
class Reader:
    """Takes little-endian fields one after the other, and never beyond the end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.rest = memoryview(data)

    def take(self, size: int, field: str) -> memoryview:
        check(size <= len(self.rest), field, f"{size} bytes expected, {len(self.rest)} are there")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def number(self, kind: str, field: str) -> int:
        """Return one number; `kind` is u8, u16, u32, i8 or i32, as in the specification."""
        return int.from_bytes(self.take(int(kind[1:]) // 8, field), "little", signed=kind[0] == "i")

    def array(self, dtype: str, count: int, field: str) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, field), dtype)


def inflate(data: memoryview, size: int, field: str) -> bytes:
    """Inflate a zlib stream that must fill `data` and give exactly `size` bytes."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, size + 1)  # to zlib, a limit of 0 would mean none
    except zlib.error as error:
        raise Invalid(f"{field}: {error}") from None
    check(len(out) == size and stream.eof, field, f"does not inflate to {size} bytes")
    check(not stream.unused_data, field, "bytes are left over after the zlib stream")
    return out


# Section 5. The range of outputs.
def range_of(dtype: np.dtype) -> tuple[int, int]:
    """Return the smallest and largest finite value of a type; both are whole numbers."""
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def check_outputs(dtype: np.dtype, exponent: int, low: int, high: int) -> None:
    """Check that low 2^exponent and high 2^exponent are in the range of a type."""
    check(low <= high, "low, high", f"{low} is above {high}")
    allowed = range(-100, 101) if dtype.kind == "f" else range(41)
    check(exponent in allowed, "exponent", f"{exponent} is not allowed for {dtype}")
    smallest, largest = range_of(dtype)
    for bound in (low, high):  # compared in integers
        above, below = bound << max(exponent, 0), 1 << max(-exponent, 0)
        check(smallest * below <= above <= largest * below, "low, high", f"outside the range of {dtype}")


# Section 12.3. Matrices of integers.
def read_matrix(payload: Reader, rows: int, columns: int, field: str) -> np.ndarray:
    """Return a matrix, as int64."""
    codes = payload.array("u1", columns, field).tolist()
    check(all(c % 128 <= 40 or 64 <= c % 128 <= 98 for c in codes), field, "a column has a code of no kind")
    at = 0  # of the next bit

    def bit() -> int:
        nonlocal at
        check(at // 8 < len(payload.rest), field, "the bits end early")
        at += 1
        return payload.rest[(at - 1) // 8] >> (at - 1) % 8 & 1

    z = np.zeros((rows, columns), np.int64)
    for column, code in enumerate(codes if rows else ()):
        width = code % 64
        if code % 128 >= 64:
            for row in range(rows):
                while bit() == 0:
                    z[row, column] += 1
                    check(z[row, column] <= 63, field, "64 zeros in front of a number")
        for row in range(rows):
            z[row, column] = (int(z[row, column]) << width) + sum(bit() << i for i in range(width))
    while at % 8:
        check(bit() == 0, field, "the bits after the last are not 0")
    payload.take(at // 8, field)
    out = np.where(z % 2 == 0, z >> 1, -1 - (z >> 1))
    for column, code in enumerate(codes):
        if code >= 128:
            out[:, column] = np.cumsum(out[:, column])
    check(not np.any(np.abs(out) > 1 << 39), field, "a number is beyond 2^39")
    return out


def read_column(payload: Reader, rows: int, field: str) -> np.ndarray:
    """Return a matrix of one column."""
    return read_matrix(payload, rows, 1, field)[:, 0]


def check_rows(matrix: np.ndarray, most: int, limit: int, field: str) -> None:
    """Check the limit on what each row may add up to, when all numbers but the last are at most `most`."""
    for row in np.abs(matrix).tolist():
        check(most * sum(row[:-1]) + row[-1] < limit, field, f"a row may reach {limit}")


# Section 6. Entropy coding.
def counts_of(slope: int, bend: int, peak: int) -> list[int]:
    """Section 6.1: return the counts of the symbols -peak..peak."""
    g, r = [2**28], slope + 1
    for _ in range(peak):
        g.append(g[-1] * r >> 32)
        r = r * (bend + 1) >> 32
    total = g[0] + 2 * sum(g[1:])
    f = [1 + x * (16384 - (2 * peak + 1)) // total for x in g]
    f[0] += 16384 - (f[0] + 2 * sum(f[1:]))
    return f[:0:-1] + f


class Lanes:
    """Section 6.2: all lanes take a step at a time. A table is symbols, and how many of 16384 slots each has."""

    def __init__(self, payload: Reader, lanes: int, tables: list[tuple]) -> None:
        self.symbol = np.array([symbol for symbols, _ in tables for symbol in symbols], np.int32)
        self.count = np.array([count for _, counts in tables for count in counts], np.int64)
        self.end = np.cumsum(self.count)  # slots are numbered through all tables
        self.states = payload.array("<u4", lanes, "states").astype(np.int64)
        check(np.all(self.states >= 2**16), "states", "a state is below 2^16")
        check(len(payload.rest) % 2 == 0, "words", "an odd byte is left over")
        self.words = payload.array("<u2", len(payload.rest) // 2, "words").astype(np.int64)

    def run(self, tables: np.ndarray, i: int = 0) -> np.ndarray:
        """Return one symbol of each of the tables; the first is symbol i."""
        symbols, done = np.empty(len(tables), np.int32), 0
        while done < len(tables):
            lane = (i + done) % len(self.states)
            x = self.states[lane : lane + len(tables) - done]  # a view: changing x changes the states
            part = slice(done, done + len(x))
            slot = (x & 16383) + (tables[part] << 14)
            where = np.searchsorted(self.end, slot, side="right")
            symbols[part] = self.symbol[where]
            x[:] = self.count[where] * (x >> 14) + slot - (self.end[where] - self.count[where])
            short = np.flatnonzero(x < 2**16)  # these lanes take the next words, in their order
            check(short.size <= self.words.size, "words", "too few")
            x[short] = x[short] << 16 | self.words[: short.size]
            self.words = self.words[short.size :]
            done += len(x)
        return symbols

    def finish(self) -> None:
        check(self.words.size == 0, "words", "too many")
        check(np.all(self.states == 2**16), "states", "a state does not end at 2^16")


# Section 8.2. Kind 0.
def from_order(u: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values of which `u` are the bit patterns, put in numerical order."""
    top = np.array(1 << (8 * dtype.itemsize - 1), u.dtype)
    if dtype.kind == "i":
        u = u ^ top
    elif dtype.kind == "f":
        u = np.where(u & top, u ^ top, ~u)
    return u.view(dtype)
