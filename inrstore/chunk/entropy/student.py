"""Frequency tables of residuals: Student t over a range, one or four for each context (specification section 12.7)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.entropy.contexts import CONTEXTS, PHASES
from inrstore.chunk.entropy.rans import TOTAL, Lookup
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError, LimitExceededError

MAX_PEAK, MAX_ESCAPE, MAX_SCALE = 500, 2000, 65535
ESCAPE = MAX_PEAK + 1
"""Stands for the escape where symbols are numbers."""
UNUSED = MAX_PEAK + 2
"""Stands for what a context without tables gives."""
MOST_TAIL = 4
_ZERO, _NO_FORM, _PHASED, _TAIL = 512, 255, 16, 5


@dataclass(frozen=True)
class StudentTable:
    """The tables of one context.

    Parameters
    ----------
    shift : int
        Low bits that are stored as they are.
    phased : bool
        There are four tables, by the fraction of the prediction.
    scale, peak, escape, tail : int
        Student t with 2^(tail + 1) - 1 degrees of freedom and scale / 64, over -peak..peak; count of the escape.
    """

    shift: int
    phased: bool
    scale: int
    peak: int
    escape: int
    tail: int = 2

    def write(self) -> bytes:
        """Return the bytes of the context."""
        form = self.shift | _PHASED * self.phased | self.tail << _TAIL
        return struct.pack("<BHHH", form, self.scale, self.peak, self.escape)

    def tables(self) -> list[Ints]:
        """Return the counts of -peak..peak and the escape, one array or one for each phase."""
        phases: Sequence[int] = range(PHASES) if self.phased else (-1,)
        return [counts(np.array([self.scale]), self.peak, self.escape, p, self.tail)[0] for p in phases]


def counts(scales: Ints, peak: int, escape: int, phase: int, tail: int) -> Ints:
    """Return the counts of a table for each scale.

    Parameters
    ----------
    scales : ndarray of int64, shape (S,)
    peak, escape : int
        As in `StudentTable`.
    phase : int
        0..3, or -1 for a table without phase.
    tail : int
        0..4.

    Returns
    -------
    ndarray of int64, shape (S, 2 peak + 2)
    """
    k = np.arange(-peak, peak + 1, dtype=np.int64)
    square = scales.astype(np.int64)[:, None] ** 2 * ((2 << tail) - 1)
    if phase < 0:
        square, points = square >> 12, [k]
    else:
        square, points = square * 576 >> 12, [24 * k - 6 * phase + 9 + o for o in (-8, 0, 8)]
    square = np.maximum(square, 1)
    weight = np.zeros((len(scales), len(k)), np.int64)
    for point in points:
        distance = point * point
        root = (1 << 24) + -(distance << 24) // (square + distance)  # all below 2^53
        for _ in range(tail):
            root = root * root >> 24
        weight += root
    spare = TOTAL - len(k) - escape
    out = 1 + weight * spare // np.maximum(1, weight.sum(1, keepdims=True))
    out[:, peak] += TOTAL - escape - out.sum(1)
    return np.concatenate([out, np.full((len(scales), 1), escape)], 1)


def read_table(reader: Reader, field: str) -> StudentTable | None:
    """Parse one context; None when it is not used. Errors name `field` and what is wrong of it."""
    form = reader.number("B", f"{field}.form")
    if form == _NO_FORM:
        return None
    if form >> _TAIL > MOST_TAIL:
        raise CorruptChunkError(f"{field}.form", f"reserved bits are set in {form:#x}")
    scale, peak, escape = (reader.number("H", f"{field}.{name}") for name in ("scale", "peak", "escape"))
    table = StudentTable(form & 15, bool(form & _PHASED), scale, peak, escape, form >> _TAIL)
    if not scale:
        raise CorruptChunkError(f"{field}.scale", "0")
    if not 1 <= peak <= MAX_PEAK or peak << table.shift > 65535:
        raise LimitExceededError(f"{field}.peak", f"{peak} with {table.shift} low bits")
    if not 1 <= escape <= MAX_ESCAPE:
        raise LimitExceededError(f"{field}.escape", f"{escape}")
    return table


def write_tables(tables: Sequence[StudentTable | None]) -> bytes:
    """Return the bytes of all contexts."""
    return b"".join(bytes([_NO_FORM]) if table is None else table.write() for table in tables)


class ContextTables:
    """All tables of a chunk.

    Parameters
    ----------
    tables : sequence of (StudentTable or None)
        One for each context.

    Attributes
    ----------
    index : ndarray of int64, shape (4 CONTEXTS,)
        Which table a context and a phase choose; one past the last where there is none.
    shifts : ndarray of int32, shape (CONTEXTS,)
    counts : list of ndarray
        Of each table, as `StudentTable.tables` gives them.
    peaks : list of int
        Of each table.
    """

    def __init__(self, tables: Sequence[StudentTable | None]) -> None:
        self.index = np.zeros(PHASES * CONTEXTS, np.int64)
        self.shifts = np.zeros(CONTEXTS, np.int32)
        self.counts: list[Ints] = []
        self.peaks: list[int] = []
        for context, table in enumerate(tables):
            if table is None:
                continue
            made = table.tables()
            self.shifts[context] = table.shift
            for phase in range(PHASES):
                self.index[PHASES * context + phase] = len(self.counts) + (phase if table.phased else 0)
            self.counts += made
            self.peaks += [table.peak] * len(made)
        unused = np.array([table is None for table in tables]).repeat(PHASES)
        self.index[unused] = len(self.counts)

    def lookup(self) -> Lookup:
        """Return the tables for a stream; the last one, of contexts that are not used, has nothing but `UNUSED`."""
        out = np.zeros((len(self.counts) + 1, 2 * _ZERO), np.int64)
        for row, count, peak in zip(out[:-1], self.counts, self.peaks, strict=True):
            row[_ZERO - peak : _ZERO + peak + 1] = count[:-1]
            row[_ZERO + ESCAPE] = count[-1]
        out[-1, _ZERO + UNUSED] = TOTAL
        return Lookup(out, zero=_ZERO)
