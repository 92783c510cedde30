"""Residuals of predictions: differences in tables by context, escapes, low bits (specification sections 12.7 and 12.8).

Both lossless modes code their differences so. What is expected of each is theirs; the tables and streams are here.
"""

from __future__ import annotations

import numpy as np

from inrstore.chunk.entropy.bits import BitReader, Bools, Ints, Words
from inrstore.chunk.entropy.contexts import CONTEXTS, contexts
from inrstore.chunk.entropy.rans import TOTAL, Stream
from inrstore.chunk.entropy.student import ESCAPE, UNUSED, ContextTables, read_table
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError, LimitExceededError

MOST_LANES = 12
"""Each stream has at most 2^12 states."""
_VALUES_PER_LANE = 1 << 15  # so that a huge box without the data for it is refused before it is allocated


class Residuals:
    """Tables and streams of a chunk, read as they are needed.

    Parameters
    ----------
    reader : Reader
        At the tables; everything to its end is theirs.
    field : str
        Name of the mode; errors begin with it.
    values : int
        Of the chunk.
    low, high : int
        Range of the values.
    classes : int
        Of the flags; 0 where there are none.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """

    def __init__(self, reader: Reader, field: str, values: int, low: int, high: int, classes: int = 0) -> None:
        self._field = field
        self._tables = ContextTables([read_table(reader, field) for _ in range(CONTEXTS)])
        lanes = 1 << reader.number("B", f"{field}.lanes")
        if lanes > 1 << MOST_LANES or values > lanes * _VALUES_PER_LANE:
            raise LimitExceededError(f"{field}.lanes", f"{lanes} states for {values} values")
        self._ones = reader.array("<u2", classes, f"{field}.flag_counts").astype(np.uint32)
        if (self._ones < 1).any() or (self._ones >= TOTAL).any():
            raise CorruptChunkError(f"{field}.flag_counts", f"a count is not in 1..{TOTAL - 1}")
        escapes = reader.number("I", f"{field}.escapes")
        if escapes > values:
            raise CorruptChunkError(f"{field}.escapes", f"{escapes} for {values} values")
        self._escapes = reader.array("<u2", escapes, f"{field}.escapes").astype(np.int32) + np.int32(low)
        self._escaped = 0
        if (self._escapes > high).any():
            raise CorruptChunkError(f"{field}.escapes", f"a value above {high}")
        bits = reader.take(reader.number("I", f"{field}.low_bits"), f"{field}.low_bits")
        self._low = BitReader(bits, f"{field}.low_bits")
        self._flags = None
        if classes:
            part = reader.take(reader.number("I", f"{field}.flag_stream"), f"{field}.flag_stream")
            self._flags = Stream(Reader(part), lanes, f"{field}.flag_stream")
        self._symbols, self._lookup = Stream(reader, lanes, f"{field}.symbols"), self._tables.lookup()
        self._shifted = bool(self._tables.shifts.any())

    def flags(self, classes: Ints) -> Bools:
        """Return one flag of each of the classes."""
        assert self._flags is not None
        return self._flags.flags(self._ones.take(classes))

    def take(self, expected: Words, phase: Words) -> tuple[Words, Ints]:
        """Return differences, and the places of escapes among them (whose difference means nothing)."""
        place = contexts(expected)
        place += phase
        out = self._symbols.symbols(self._tables.index.take(place), self._lookup)
        escapes = (out >= ESCAPE).nonzero()[0]
        if escapes.size and (out[escapes] == UNUSED).any():
            raise CorruptChunkError(f"{self._field}.form", "a value has a context that is not used")
        if self._shifted:
            shift = self._tables.shifts.take(place >> 2)
            if escapes.size:
                shift[escapes] = 0
            some = shift.nonzero()[0]
            if some.size:
                width = shift[some]
                out[some] = (out[some] << width) + self._low.take(width) - (np.int32(1) << width >> 1)
        return out, escapes

    def next_escapes(self, count: int) -> Words:
        """Return the values that the next escapes stand for."""
        fresh = self._escapes[self._escaped : self._escaped + count]
        if fresh.size < count:
            raise CorruptChunkError(f"{self._field}.escapes", "there are too few")
        self._escaped += count
        return fresh

    def finish(self) -> None:
        """Refuse what is left over."""
        if self._escaped != len(self._escapes):
            raise CorruptChunkError(f"{self._field}.escapes", f"{len(self._escapes) - self._escaped} are left over")
        self._low.finish()
        if self._flags is not None:
            self._flags.finish()
        self._symbols.finish()
