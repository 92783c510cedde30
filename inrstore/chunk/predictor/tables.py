"""Contexts and the frequency tables they choose (specification sections 12.6, points 6 and 7, and 12.7)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.integers import Ints
from inrstore.chunk.entropy.rans import TOTAL
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError, LimitExceededError

CONTEXTS = 64
PHASES = 4
TAILS = (1, 3, 5, 7, 15, 31)
MAX_PEAK, MAX_ESCAPE, MAX_SCALE = 500, 2000, 65535
ESCAPE = MAX_PEAK + 1
"""Stands for the escape where symbols are numbers."""
UNUSED = MAX_PEAK + 2
"""Stands for what a context without tables gives."""
STRIDE = 1024
"""Entries of one table in the array of counts and starts; symbol k is entry k + 512."""
_NO_FORM, _PHASED = 255, 16
_FIRST = (127 + 5) << 2
_PLACES = np.minimum(np.maximum(np.arange(1 << 10) - _FIRST, 0), CONTEXTS - 1).astype(np.int64) * PHASES


def contexts(expected: npt.NDArray[Any]) -> Ints:
    """Return four times the context of expected errors (not negative, below 2^26).

    The context is made of the exponent and the first two fraction bits of the number: in its float32 they stand
    side by side, and rounding moves no number below 2^24 (all above share the last context).
    """
    return _PLACES.take(expected.astype(np.float32).view(np.int32) >> 21)


@dataclass(frozen=True)
class Bell:
    """The tables of one context.

    Parameters
    ----------
    shift : int
        Low bits that are stored as they are.
    phased : bool
        There are four tables, by the fraction of the prediction.
    tail, scale, peak, escape : int
        Student t with TAILS[tail] degrees of freedom and scale / 64, over -peak..peak; count of the escape.
    """

    shift: int
    phased: bool
    tail: int
    scale: int
    peak: int
    escape: int

    def write(self) -> bytes:
        """Return the bytes of the context."""
        return struct.pack("<BBHHH", self.shift | _PHASED * self.phased, self.tail, self.scale, self.peak, self.escape)

    def tables(self) -> list[Ints]:
        """Return the counts of -peak..peak and the escape, one array or one for each phase."""
        phases: Sequence[int] = range(PHASES) if self.phased else (-1,)
        return [counts(np.array([self.scale]), TAILS[self.tail], self.peak, self.escape, p)[0] for p in phases]


def counts(scales: Ints, degrees: int, peak: int, escape: int, phase: int) -> Ints:
    """Return the counts of a table for each scale.

    Parameters
    ----------
    scales : ndarray of int64, shape (S,)
    degrees : int
        One of `TAILS`.
    peak, escape : int
        As in `Bell`.
    phase : int
        0..3, or -1 for a table without phase.

    Returns
    -------
    ndarray of int64, shape (S, 2 peak + 2)
    """
    k = np.arange(-peak, peak + 1, dtype=np.int64)
    square = scales.astype(np.int64)[:, None] ** 2 * degrees
    if phase < 0:
        square, points = square >> 12, [k]
    else:
        square, points = square * 576 >> 12, [24 * k - 6 * phase + 9 + o for o in (-8, 0, 8)]
    square = np.maximum(square, 1)
    weight = np.zeros((len(scales), len(k)), np.int64)
    for point in points:
        root = (square << 24) // (square + point * point)
        if degrees == 5:
            weight += ((root * root >> 24) * root) >> 24
        else:
            for _ in range(((degrees + 1) // 2).bit_length() - 1):
                root = root * root >> 24
            weight += root
    spare = TOTAL - len(k) - escape
    out = 1 + weight * spare // np.maximum(1, weight.sum(1, keepdims=True))
    rows = np.arange(len(scales))
    out[rows, weight.argmax(1)] += TOTAL - escape - out.sum(1)
    return np.concatenate([out, np.full((len(scales), 1), escape)], 1)


def read_bell(reader: Reader) -> Bell | None:
    """Parse one context; None when it is not used."""
    form = reader.number("B", "predictor.form")
    if form == _NO_FORM:
        return None
    if form >> 5:
        raise CorruptChunkError("predictor.form", f"reserved bits are set in {form:#x}")
    tail = reader.number("B", "predictor.tail")
    scale, peak, escape = (reader.number("H", f"predictor.{name}") for name in ("scale", "peak", "escape"))
    bell = Bell(form & 15, bool(form & _PHASED), tail, scale, peak, escape)
    if tail >= len(TAILS):
        raise CorruptChunkError("predictor.tail", f"{tail}")
    if not scale:
        raise CorruptChunkError("predictor.scale", "0")
    if not 1 <= peak <= MAX_PEAK or peak << bell.shift > 65535:
        raise LimitExceededError("predictor.peak", f"{peak} with {bell.shift} low bits")
    if not 1 <= escape <= MAX_ESCAPE:
        raise LimitExceededError("predictor.escape", f"{escape}")
    return bell


def write_bells(bells: Sequence[Bell | None]) -> bytes:
    """Return the bytes of all contexts."""
    return b"".join(bytes([_NO_FORM]) if bell is None else bell.write() for bell in bells)


class Tables:
    """All tables of a chunk.

    Parameters
    ----------
    bells : sequence of (Bell or None)
        One for each context.

    Attributes
    ----------
    index : ndarray of int64, shape (4 CONTEXTS,)
        Which table a context and a phase choose; one past the last where there is none.
    shifts : ndarray of int32, shape (CONTEXTS,)
    counts : list of ndarray
        Of each table, as `Bell.tables` gives them.
    peaks : list of int
        Of each table.
    """

    def __init__(self, bells: Sequence[Bell | None]) -> None:
        self.index = np.zeros(PHASES * CONTEXTS, np.int64)
        self.shifts = np.zeros(CONTEXTS, np.int32)
        self.counts: list[Ints] = []
        self.peaks: list[int] = []
        for context, bell in enumerate(bells):
            if bell is None:
                continue
            made = bell.tables()
            self.shifts[context] = bell.shift
            for phase in range(PHASES):
                self.index[PHASES * context + phase] = len(self.counts) + (phase if bell.phased else 0)
            self.counts += made
            self.peaks += [bell.peak] * len(made)
        unused = np.array([bell is None for bell in bells]).repeat(PHASES)
        self.index[unused] = len(self.counts)

    def symbols(self) -> npt.NDArray[np.int16]:
        """Return the symbol at each slot, shape (tables + 1, 2^14); the last table has nothing but `UNUSED`."""
        out = np.full((len(self.counts) + 1, TOTAL), UNUSED, np.int16)
        for row, count, peak in zip(out[:-1], self.counts, self.peaks, strict=True):
            row[:] = np.repeat(np.append(np.arange(-peak, peak + 1), ESCAPE), count)
        return out

    def ranges(self) -> npt.NDArray[np.uint32]:
        """Return count << 16 | start of each symbol, shape (tables + 1, STRIDE); symbol k is entry k + 512."""
        out = np.ones((len(self.counts) + 1, STRIDE), np.uint32)
        for row, count, peak in zip(out[:-1], self.counts, self.peaks, strict=True):
            both = (count << 16) | (np.cumsum(count) - count)
            row[512 - peak : 512 + peak + 1] = both[:-1]
            row[512 + ESCAPE] = both[-1]
        return out
