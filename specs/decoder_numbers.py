"""Section 4.2: numbers of another type, from which the values of a floating-point box follow."""

from collections.abc import Callable

import numpy as np
from decoder_parts import Reader, check, from_order, inflate

FLOATS = {9: "<f2", 10: "<f4", 11: "<f8"}
INTEGERS = {1: "<i1", 2: "<i2", 3: "<i4", 5: "<u1", 6: "<u2", 7: "<u4"}
BLOCK = 2**20  # numbers of one temporary array


def read_numbers(payload: Reader, dtype: np.dtype) -> tuple[np.dtype, Callable[[np.ndarray], np.ndarray]]:
    """Return the type of the numbers, and what makes values of `dtype` of them."""
    check((coding := payload.number("u8", "coding")) <= 3, "coding", f"{coding} is reserved")
    code = payload.number("u8", "type")
    if coding == 0:
        check(code in FLOATS and np.dtype(FLOATS[code]).itemsize < dtype.itemsize, "type", f"{code} is not narrower")
        return np.dtype(FLOATS[code]), lambda numbers: widened(numbers, dtype)
    if coding == 3:
        check(code in (5, 6), "type", f"{code} for places in a table")
        kind = np.dtype(INTEGERS[code])
        entries = read_table(payload, kind, dtype)
        return kind, lambda numbers: looked_up(numbers, entries)
    check(code in INTEGERS, "type", f"{code} is no integer of at most four bytes")
    a, b = payload.array("<f8", 2, "factor, offset")
    check(np.isfinite(a) and a != 0, "factor", f"{a} is 0 or not finite")
    check(np.isfinite(b), "offset", f"{b} is not finite")
    return np.dtype(INTEGERS[code]), lambda numbers: scaled(numbers, coding == 1, a, b, dtype)


def widened(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Coding 0."""
    check(not np.isnan(numbers).any(), "numbers", "a NaN of a narrower type")
    return numbers.astype(dtype)


def scaled(numbers: np.ndarray, product: bool, a: np.float64, b: np.float64, dtype: np.dtype) -> np.ndarray:
    """Codings 1 and 2."""
    k, values = numbers.reshape(-1), np.empty(numbers.size, dtype)
    with np.errstate(over="ignore", under="ignore"):
        for first in range(0, k.size, BLOCK):
            x = k[first : first + BLOCK].astype(np.float64)
            x = x * a if product else x / a  # rounded here
            if b != 0:
                x = x + b  # and here
            values[first : first + BLOCK] = x.astype(dtype)
    return values.reshape(numbers.shape)


def read_table(payload: Reader, kind: np.dtype, dtype: np.dtype) -> np.ndarray:
    """Return the entries of a table."""
    n = payload.number("u32", "entries")
    check(1 <= n <= 256**kind.itemsize, "entries", f"{n} for places of type {kind}")
    check((differences := payload.number("u8", "differences")) <= 4, "differences", f"{differences} is above 4")
    stream = payload.take(payload.number("u32", "table length"), "table")
    planes = np.frombuffer(inflate(stream, n * dtype.itemsize, "table"), np.uint8).reshape(dtype.itemsize, n)
    u = np.array(planes.T, order="C").view(f"<u{dtype.itemsize}").reshape(n)
    for _ in range(differences):
        u = np.cumsum(u, dtype=u.dtype)
    return from_order(u, dtype)


def looked_up(numbers: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Coding 3."""
    check(numbers.max() < entries.size, "numbers", f"{numbers.max()} is no place among {entries.size}")
    return entries[numbers]
