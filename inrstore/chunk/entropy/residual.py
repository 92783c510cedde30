"""Residuals of predictions: differences in tables by context, escapes, low bits (specification sections 12.7 and 12.8).

Both lossless modes code their differences so. What is expected of each is theirs; the tables and streams are here.
"""

from __future__ import annotations

import numpy as np

from inrstore.chunk.entropy.bits import BitReader, Bools, Ints, Words
from inrstore.chunk.entropy.contexts import CONTEXTS, contexts
from inrstore.chunk.entropy.rans import TOTAL, Lookup, Stream
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

    Attributes
    ----------
    field : str
    tables : ContextTables
    ones : ndarray of uint32, shape (classes,)
        Counts of flags that are set, of 2^14.
    escapes : ndarray of int32
    escaped : int
        How many of them are taken.
    low : BitReader
    flag_stream : Stream or None
    symbol_stream : Stream

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """

    def __init__(self, reader: Reader, field: str, values: int, low: int, high: int, classes: int = 0) -> None:
        self.field = field
        self.tables = ContextTables([read_table(reader, field) for _ in range(CONTEXTS)])
        lanes = 1 << reader.number("B", f"{field}.lanes")
        if lanes > 1 << MOST_LANES or values > lanes * _VALUES_PER_LANE:
            raise LimitExceededError(f"{field}.lanes", f"{lanes} states for {values} values")
        self.ones = reader.array("<u2", classes, f"{field}.flag_counts").astype(np.uint32)
        if (self.ones < 1).any() or (self.ones >= TOTAL).any():
            raise CorruptChunkError(f"{field}.flag_counts", f"a count is not in 1..{TOTAL - 1}")
        escapes = reader.number("I", f"{field}.escapes")
        if escapes > values:
            raise CorruptChunkError(f"{field}.escapes", f"{escapes} for {values} values")
        self.escapes = reader.array("<u2", escapes, f"{field}.escapes").astype(np.int32) + np.int32(low)
        self.escaped = 0
        if (self.escapes > high).any():
            raise CorruptChunkError(f"{field}.escapes", f"a value above {high}")
        bits = reader.take(reader.number("I", f"{field}.low_bits"), f"{field}.low_bits")
        self.low = BitReader(bits, f"{field}.low_bits")
        self.flag_stream = None
        if classes:
            part = reader.take(reader.number("I", f"{field}.flag_stream"), f"{field}.flag_stream")
            self.flag_stream = Stream(Reader(part), lanes, f"{field}.flag_stream")
        self.symbol_stream = Stream(reader, lanes, f"{field}.symbols")
        self._lookup: Lookup | None = None
        self._shifted = bool(self.tables.shifts.any())

    def flags(self, classes: Ints) -> Bools:
        """Return one flag of each of the classes."""
        assert self.flag_stream is not None
        return self.flag_stream.flags(self.ones.take(classes))

    def take(self, expected: Words, phase: Words) -> tuple[Words, Ints]:
        """Return differences, and the places of escapes among them (whose difference means nothing)."""
        place = contexts(expected)
        place += phase
        if self._lookup is None:
            self._lookup = self.tables.lookup()
        out = self.symbol_stream.symbols(self.tables.index.take(place), self._lookup)
        escapes = (out >= ESCAPE).nonzero()[0]
        if escapes.size and (out[escapes] == UNUSED).any():
            raise CorruptChunkError(f"{self.field}.form", "a value has a context that is not used")
        if self._shifted:
            shift = self.tables.shifts.take(place >> 2)
            if escapes.size:
                shift[escapes] = 0
            some = shift.nonzero()[0]
            if some.size:
                width = shift[some]
                out[some] = (out[some] << width) + self.low.take(width) - (np.int32(1) << width >> 1)
        return out, escapes

    def next_escapes(self, count: int) -> Words:
        """Return the values that the next escapes stand for."""
        fresh = self.escapes[self.escaped : self.escaped + count]
        if fresh.size < count:
            raise CorruptChunkError(f"{self.field}.escapes", "there are too few")
        self.escaped += count
        return fresh

    def finish(self) -> None:
        """Refuse what is left over."""
        if self.escaped != len(self.escapes):
            raise CorruptChunkError(f"{self.field}.escapes", f"{len(self.escapes) - self.escaped} are left over")
        self.low.finish()
        if self.flag_stream is not None:
            self.flag_stream.finish()
        self.symbol_stream.finish()
