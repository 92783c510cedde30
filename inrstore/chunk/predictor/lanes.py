"""The two rANS streams of the mode, read in runs of any length (specification section 12.8)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.integers import Bools, Ints, Words
from inrstore.chunk.entropy.lanes import Stream
from inrstore.chunk.entropy.rans import PRECISION, TOTAL, write_rows
from inrstore.chunk.frame import Reader
from inrstore.chunk.predictor.tables import STRIDE, Tables

_VALUES_PER_LANE = 4000
_MOST_LANES = 4096
_MASK, _PRECISION = np.uint32(TOTAL - 1), np.uint32(PRECISION)
_TOTAL, _SIXTEEN, _START = np.uint32(TOTAL), np.uint32(16), np.uint32(0xFFFF)


def lane_count(values: int, chosen: int | None) -> int:
    """Return the number of states of a stream: 2^chosen, or one that suits that many values of the chunk."""
    if chosen is not None:
        return 1 << chosen
    return int(min(_MOST_LANES, max(4, 1 << (values // _VALUES_PER_LANE).bit_length())))


class SymbolStream(Stream):
    """Symbols of the tables of a chunk."""

    def __init__(self, reader: Reader, count: int, tables: Tables) -> None:
        super().__init__(reader, count, "predictor.symbols")
        self._symbols, self._ranges = tables.symbols().reshape(-1), tables.ranges().reshape(-1)
        self._slots_at, self._ranges_at = tables.index << PRECISION, tables.index * STRIDE + 512

    def take(self, places: Ints) -> Words:
        """Return one symbol for each place (four times the context, plus the phase)."""
        n = len(places)
        out = np.empty(n, np.int32)
        slots_at, ranges_at = self._slots_at.take(places), self._ranges_at.take(places)
        i = 0
        while i < n:
            j = min(n, i + self._count - self._lane)
            x = self._states[self._lane : self._lane + j - i]
            slot = x & _MASK
            symbol = self._symbols.take(slots_at[i:j] + slot)
            out[i:j] = symbol
            both = self._ranges.take(ranges_at[i:j] + symbol)
            x = x >> _PRECISION
            x *= both >> _SIXTEEN
            x += slot
            x -= both & _START
            self._store(x)
            i = j
        return out


class FlagStream(Stream):
    """Flags: one probability for each class."""

    def __init__(self, reader: Reader, count: int, ones: npt.NDArray[np.uint32]) -> None:
        super().__init__(reader, count, "predictor.flag_stream")
        self._ones = ones

    def take(self, classes: Ints) -> Bools:
        """Return one flag of each of the classes."""
        n = len(classes)
        out, ones = np.empty(n, np.bool_), self._ones.take(classes)
        i = 0
        while i < n:
            j = min(n, i + self._count - self._lane)
            x = self._states[self._lane : self._lane + j - i]
            slot, count = x & _MASK, ones[i:j]
            out[i:j] = one = slot < count
            share = x >> _PRECISION
            self._store(np.where(one, count * share + slot, (_TOTAL - count) * share + slot - count))
            i = j
        return out


def write_stream(counts: Ints, starts: Ints, lanes: int) -> bytes:
    """Return the stream of symbols with these counts and starts."""

    def rows() -> Iterator[tuple[Ints, Ints]]:
        for begin in range((len(counts) - 1) // lanes * lanes, -1, -lanes) if len(counts) else ():
            yield counts[begin : begin + lanes], starts[begin : begin + lanes]

    return write_rows(rows(), lanes)
