"""Tables and streams of mode neural: those of mode predictor, without zeros (specification sections 12.7, 12.8)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.integers import BitReader
from inrstore.chunk.entropy.rans import write_rows
from inrstore.chunk.frame import Reader
from inrstore.chunk.predictor.lanes import SymbolStream
from inrstore.chunk.predictor.tables import CONTEXTS, ESCAPE, UNUSED, Tables, contexts, read_bell
from inrstore.errors import CorruptChunkError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.int32]

_VALUES_PER_LANE, _MOST_LANES = 4000, 4096


def lane_count(values: int) -> int:
    """Return the number of states of the stream of a chunk of that many values."""
    return int(min(_MOST_LANES, max(4, 1 << (values // _VALUES_PER_LANE).bit_length())))


class Streams:
    """Everything after the weights, read as it is needed.

    Parameters
    ----------
    reader : Reader
    values : int
        Of the chunk.
    high : int
        The largest value.
    """

    def __init__(self, reader: Reader, values: int, high: int) -> None:
        self._tables = Tables([read_bell(reader) for _ in range(CONTEXTS)])
        escapes = reader.number("I", "neural.escapes")
        if escapes > values:
            raise CorruptChunkError("neural.escapes", f"{escapes} for {values} values")
        self._escapes = reader.array("<u2", escapes, "neural.escapes").astype(np.int32)
        self._escaped = 0
        if (self._escapes > high).any():
            raise CorruptChunkError("neural.escapes", f"a value above {high}")
        self._low = BitReader(reader.take(reader.number("I", "neural.low_bits"), "neural.low_bits"))
        self._symbols = SymbolStream(reader, lane_count(values), self._tables)
        self._shifted = bool(self._tables.shifts.any())

    def take(self, expected: Words, phase: Words) -> tuple[Words, Ints]:
        """Return differences, and the places of escapes among them (whose difference means nothing)."""
        place = contexts(expected)
        place += phase
        out = self._symbols.take(place)
        escapes = (out >= ESCAPE).nonzero()[0]
        if escapes.size and (out[escapes] == UNUSED).any():
            raise CorruptChunkError("neural.form", "a value has a context that is not used")
        if self._shifted:
            shift = self._tables.shifts.take(place >> 2)
            shift[escapes] = 0
            some = shift.nonzero()[0]
            width = shift[some]
            out[some] = (out[some] << width) + self._low.take(width) - (np.int32(1) << width >> 1)
        return out, escapes

    def next_escapes(self, count: int) -> Words:
        """Return the values that the next escapes stand for."""
        fresh = self._escapes[self._escaped : self._escaped + count]
        if fresh.size < count:
            raise CorruptChunkError("neural.escapes", "there are too few")
        self._escaped += count
        return fresh

    def finish(self) -> None:
        """Refuse what is left over."""
        if self._escaped != len(self._escapes):
            raise CorruptChunkError("neural.escapes", f"{len(self._escapes) - self._escaped} are left over")
        self._low.finish()
        self._symbols.finish()


def write_symbols(counts: Ints, starts: Ints, values: int) -> bytes:
    """Return the stream of symbols with these counts and starts; `values` is that of the chunk."""
    lanes = lane_count(values)

    def rows() -> Iterator[tuple[Ints, Ints]]:
        for begin in range((len(counts) - 1) // lanes * lanes, -1, -lanes) if len(counts) else ():
            yield counts[begin : begin + lanes], starts[begin : begin + lanes]

    return write_rows(rows(), lanes)
