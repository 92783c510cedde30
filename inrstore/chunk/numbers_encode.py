"""The values of a floating-point box -> the numbers they were made from (specification section 4.2).

What is looked at are the different values, sorted: if they are about evenly spaced, their places on that line are
the numbers, and a factor and an offset are looked for that give every one of them bit for bit. Where there are none
(another program rounded elsewhere, or the line is a curve) a table says what each number stands for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.numbers import MOST_DIFFERENCES, PRODUCT, QUOTIENT, Linear, Narrow, Numbers, Table, blocks

_MOST_LEVELS = 1 << 16
_SAMPLE = 1 << 17
_BLOCK = 1 << 20
_WIDE = 1 << 31  # numbers have at most four bytes
_TABLE_SHARE = 16  # a table may take this part of the bytes of the values
_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")


def numbered(core: npt.NDArray[Any], around: Envelope) -> tuple[npt.NDArray[Any], Envelope]:
    """Return the numbers in place of the values of a box and the envelope that says so, or both as they were.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value, any bit patterns. Those outside the mask are free.
    around : Envelope
        Without exceptions.
    """
    if core.dtype.kind != "f" or not core.size:
        return core, around
    odd, negative = ~np.isfinite(core), np.signbit(core) & (core == 0)
    if (negative != (core == 0)).any():  # zeros of one sign may be numbers like all others
        odd |= negative
    some = bool(odd.any())
    values = core[~odd] if some else core.reshape(-1)
    with np.errstate(all="ignore"):  # a line that does not hold the values shows when these are compared
        found = None if not values.size else _found(values, core.nbytes)
    if found is None:
        return core, around
    numbers, given = found
    whole = given.reshape(core.shape) if not some else np.full(core.shape, given.min(), given.dtype)
    if some:
        whole[~odd] = given
        kept = odd if around.mask is None else odd & around.mask
        if kept.any():
            around = replace(around, exceptions=kept, values=core[kept])
    return whole, replace(around, numbers=numbers)


def _found(values: npt.NDArray[Any], size: int) -> tuple[Numbers, npt.NDArray[Any]] | None:
    """Return the numbers of flat finite values; `size` is what all of a box take in bytes."""
    kind = values.dtype
    levels = _levels(values)
    if levels is not None:
        for numbers in _from_levels(levels, size):
            given = _numbers_of(values, numbers, levels)
            if given is not None:
                return numbers, given
    else:
        few = np.unique(values[:: max(1, values.size // _SAMPLE)][:_MOST_LEVELS])
        for numbers in (Linear(np.dtype("<i4"), PRODUCT, 1.0), *_lines(few)):
            given = _on_line(values, numbers)
            if given is not None:
                return replace(numbers, dtype=given.dtype), given
    for name in ("<f2", "<f4"):
        narrow = np.dtype(name)
        if narrow.itemsize < kind.itemsize and _holds(narrow, values):
            return Narrow(narrow), values.astype(narrow)
    return None


def _levels(values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return the different values, sorted, or None if they are too many."""
    levels = np.unique(values[:: max(1, values.size // _SAMPLE)])
    for start in range(0, values.size, _BLOCK):
        if levels.size > _MOST_LEVELS:
            return None
        levels = np.union1d(levels, values[start : start + _BLOCK])
    return levels if levels.size <= _MOST_LEVELS else None


def _holds(narrow: np.dtype[Any], values: npt.NDArray[Any]) -> bool:
    return all((values[p].astype(narrow).astype(values.dtype) == values[p]).all() for p in blocks(values.size))


# ---- lines -------------------------------------------------------------------------------------------------


def _from_levels(levels: npt.NDArray[Any], size: int) -> Iterator[Numbers]:
    """Yield what the levels may come from, the best first."""
    yield from _lines(levels)
    table = _table(levels)
    if len(table.coded) * _TABLE_SHARE <= size:
        yield table


def _lines(levels: npt.NDArray[Any]) -> Iterator[Linear]:
    """Yield the factors and offsets that give every level bit for bit, with a type that is still to be chosen."""
    placed = _places(levels)
    if placed is None:
        return
    places, step = placed
    for numbers, given in _candidates(levels.astype(np.float64), places, step, _half_ulps(levels)):
        exact = numbers.exact(given)
        if abs(given).max() < _WIDE and _same(exact.astype(levels.dtype), levels):
            yield replace(numbers, dtype=_smallest(int(given.min()), int(given.max())))
            return


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Return whether two arrays have the same bits: zeros of two signs are equal, and are not the same."""
    return bool((dtypes.bits(one) == dtypes.bits(other)).all())


def _places(levels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], float] | None:
    """Return the place of each level on an even line, from 0 for the first, and the step; None if there is none."""
    x, top = levels.astype(np.float64), abs(levels).max()
    gaps = np.diff(x)
    if not gaps.size or not np.isfinite(gaps).all():
        return None
    placed = _placed(x, gaps, 2.0 * float(np.spacing(top)))
    if placed is None and levels.itemsize == 8 and _holds(np.dtype("<f4"), levels):  # they were rounded to that once
        placed = _placed(x, gaps, 2.0 * float(np.spacing(np.float32(top))))
    return placed


def _placed(
    x: npt.NDArray[np.float64], gaps: npt.NDArray[np.float64], noise: float
) -> tuple[npt.NDArray[np.float64], float] | None:
    """Return places and step, as `_places`, of sorted values that are off their line by at most `noise`."""
    step = _common_step(gaps, 2 * noise)
    error = 2 * noise
    while step is not None:
        counts = np.rint(gaps / step)
        unsure = np.flatnonzero(counts * error > 0.25 * step)
        sure = int(unsure[0]) if unsure.size else gaps.size
        if not sure:
            return None
        reach = float(counts[:sure].sum())
        step = float(x[sure] - x[0]) / reach
        if sure == gaps.size:
            break
        if noise / reach >= error:
            return None
        error = noise / reach
    if step is None:
        return None
    places = np.concatenate([[0.0], np.cumsum(counts)])
    if places[-1] >= _WIDE or abs(x[0] + places * step - x).max() > 4 * noise:
        return None
    return places, step


def _common_step(gaps: npt.NDArray[np.float64], noise: float) -> float | None:
    """Return the largest step of which all gaps are multiples but for noise (Euclid's algorithm), or None."""
    step = float(gaps.min())
    while step > 8 * noise:
        counts = np.rint(gaps / step)
        left = abs(gaps - counts * step)
        off = left > noise * (1 + counts)
        if not off.any():
            return step
        step = float(left[off].min())
    return None


def _candidates(
    x: npt.NDArray[np.float64], places: npt.NDArray[np.float64], step: float, half: npt.NDArray[np.float64]
) -> Iterator[tuple[Linear, npt.NDArray[np.float64]]]:
    """Yield lines near the levels `x`, half a unit in the last place of which is `half`, and the numbers on each."""
    unknown = np.dtype("<i4")
    from_zero = places + np.rint(x[0] / step)
    if abs(from_zero * step - x).max() < 0.25 * step:
        some = from_zero != 0
        n, least, most = abs(from_zero[some]), abs(x[some]) - half[some], abs(x[some]) + half[some]
        if n.size and (least > 0).all():
            sign = -1.0 if np.signbit(x[x == 0]).any() else 1.0  # such a zero is one times a negative factor
            for factor in _near((np.max(least / n) + np.min(most / n)) / 2):
                yield Linear(unknown, PRODUCT, sign * factor), sign * from_zero + 0.0
            for divisor in _near((np.max(n / most) + np.min(n / least)) / 2):
                yield Linear(unknown, QUOTIENT, sign * divisor), sign * from_zero + 0.0
    short = float(np.float32(step))  # as headers have it
    for factor in (short, *(float(np.nextafter(np.float32(step), s)) for s in (0.0, np.float32(np.inf))), step):
        if not factor:
            continue
        left = x - places * factor
        yield Linear(unknown, PRODUCT, factor, float(((left - half).max() + (left + half).min()) / 2)), places
        # If the offset is one that float32 holds, it says where the numbers begin.
        begin = np.arange(-_MOST_LEVELS, _MOST_LEVELS + 1.0)
        offsets = x[0] - begin * factor
        rounded = offsets.astype(np.float32).astype(np.float64)
        fine = abs(rounded - offsets) <= 4 * np.spacing(abs(x[0]) + abs(begin * factor))
        for at in sorted(np.flatnonzero(fine), key=lambda i: abs(begin[i]))[:4]:
            yield Linear(unknown, PRODUCT, factor, float(rounded[at])), places + begin[at]


def _near(value: float) -> Iterator[float]:
    """Yield the number in float32, then those in binary64 around it."""
    yield float(np.float32(value))
    for steps in (0, 1, -1, 2, -2, 3, -3):
        yield value + steps * float(np.spacing(value))


def _half_ulps(levels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(np.spacing(abs(levels)).astype(np.float64) / 2)


def _smallest(least: int, most: int) -> np.dtype[Any]:
    """Return the smallest type that holds a range of integers."""
    fits = (n for n in _INTEGERS if np.iinfo(n).min <= least and most <= np.iinfo(n).max)
    return dtypes.little(np.dtype(next(fits, "i4")))


# ---- tables ------------------------------------------------------------------------------------------------


def _table(levels: npt.NDArray[Any]) -> Table:
    """Return the table of the levels: by their places on a line if there is one that is short, else in their order."""
    placed = _places(levels)
    entries = levels
    if placed is not None and placed[0][-1] < _MOST_LEVELS:
        places = placed[0].astype(np.int64)
        entries = (float(levels[0]) + np.arange(places[-1] + 1) * placed[1]).astype(levels.dtype)  # unused ones, too
        entries[places] = levels
    pattern = dtypes.ordered(entries)
    tries = [bytes([0]) + _packed(pattern)]
    for times in range(1, MOST_DIFFERENCES + 1):
        pattern = np.diff(pattern, prepend=pattern.dtype.type(0))
        tries.append(bytes([times]) + _packed(pattern))
    return Table(dtypes.bits_dtype(1 if entries.size <= 256 else 2), entries, min(tries, key=len))


def _packed(pattern: npt.NDArray[Any]) -> bytes:
    planes = np.ascontiguousarray(pattern.reshape(-1, 1).view(np.uint8).T)
    packed = zlib.compress(planes.tobytes(), 9)
    return struct.pack("<I", len(packed)) + packed


# ---- numbers of values -------------------------------------------------------------------------------------


def _numbers_of(values: npt.NDArray[Any], numbers: Numbers, levels: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    if isinstance(numbers, Linear):
        return _on_line(values, numbers)
    assert isinstance(numbers, Table)
    places = np.searchsorted(numbers.entries, levels).astype(numbers.dtype)
    given = np.empty(values.size, numbers.dtype)
    for part in blocks(values.size):
        given[part] = places[np.searchsorted(levels, values[part])]
    return given


def _on_line(values: npt.NDArray[Any], line: Linear) -> npt.NDArray[Any] | None:
    """Return the numbers of values that all are on a line, bit for bit, in the smallest type; else None."""
    given = np.empty(values.size, np.int32)
    for part in blocks(values.size):
        near = values[part].astype(np.float64) - line.offset
        near = np.rint(near / line.factor if line.coding == PRODUCT else near * line.factor) + 0.0  # of no sign
        if not abs(near).max() < _WIDE or not _same(line.exact(near).astype(values.dtype), values[part]):  # NaN, too
            return None
        given[part] = near
    return given.astype(_smallest(int(given.min()), int(given.max())))
