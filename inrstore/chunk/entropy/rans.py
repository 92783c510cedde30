"""Interleaved rANS: symbols of frequency tables that others make <-> states and words (specification section 6.2).

Range asymmetric numeral systems: Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392. States have 32 bits,
words 16. This module knows no model: what is coded, and with which tables, is the business of its callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Bools, Ints, Words
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

PRECISION = 14
TOTAL = 1 << PRECISION
"""What the counts of most tables sum to."""
LOWER = 1 << 16
"""The least state between symbols, and the one that a lane begins with."""

Integers = npt.NDArray[np.integer[Any]]
Row = tuple[Integers, Integers, int | Integers]
"""Counts and starts of symbols, the first of which belongs to the first lane, and their precision."""
_FEW_LANES = 12
_SIXTEEN, _LOW = np.uint32(16), np.uint32(0xFFFF)


class Lookup:
    """Frequency tables as a reader wants them: the symbol at each slot, and the range of each symbol.

    Parameters
    ----------
    counts : ndarray of int64, shape (tables, symbols)
        Each row sums to 2^precision. Column j counts the symbol j - zero; a table does not have what it counts 0 times.
    precision : int
        At most 15.
    zero : int
        Column of the symbol 0.
    """

    def __init__(self, counts: Ints, precision: int = PRECISION, zero: int = 0) -> None:
        self.precision, self.zero, self.stride = precision, zero, counts.shape[1]
        numbers = np.tile(np.arange(-zero, self.stride - zero, dtype=np.int16), len(counts))
        self.symbols = np.repeat(numbers, counts.reshape(-1))
        starts = np.cumsum(counts, 1) - counts
        self.ranges = (counts << 16 | starts).astype(np.uint32).reshape(-1)


class Stream:
    """States and words; each symbol is of the lane after that of the one before.

    Parameters
    ----------
    reader : Reader
        At the states; the stream takes all that is left.
    count : int
        Number of states.
    field : str
        Errors name it.

    Attributes
    ----------
    states : ndarray of uint32
    words : ndarray of uint16
    position, lane : int
        The next word, and the lane of the next symbol; compiled loops move them on by themselves.

    Raises
    ------
    CorruptChunkError
        When states are missing or too small, or half a word is left.
    """

    def __init__(self, reader: Reader, count: int, field: str = "rans") -> None:
        self._field, self._count = field, count
        self.states = reader.array("<u4", count, f"{field}.states").astype(np.uint32)
        if reader.remaining % 2:
            raise CorruptChunkError(f"{field}.words", "an odd number of bytes")
        # Copied, so that they are aligned: numbers are then taken out one at a time, too.
        self.words = reader.array("<u2", reader.remaining // 2, f"{field}.words").astype(np.uint16)
        if (self.states < LOWER).any():
            raise CorruptChunkError(f"{field}.states", "a state below its lower bound")
        self.position = self.lane = 0

    def restart(self) -> None:
        """Go back to the first lane."""
        self.lane = 0

    def symbols(self, tables: Ints, lookup: Lookup) -> Words:
        """Return one symbol of each of the tables."""
        if self._count < _FEW_LANES:
            return self._one_by_one(tables, lookup)
        out = np.empty(len(tables), np.int32)
        slots, ranges = tables << lookup.precision, tables * lookup.stride + lookup.zero
        mask, precision = np.uint32((1 << lookup.precision) - 1), np.uint32(lookup.precision)
        for run, x in self._runs(len(out)):
            slot = x & mask
            symbol = lookup.symbols.take(slots[run] + slot)
            out[run] = symbol
            both = lookup.ranges.take(ranges[run] + symbol)
            x = x >> precision
            x *= both >> _SIXTEEN
            x += slot
            x -= both & _LOW
            self._store(x)
        return out

    def _one_by_one(self, tables: Ints, lookup: Lookup) -> Words:
        """Return the same as `symbols`; with few lanes, numbers are faster than arrays."""
        out, states, words = np.empty(len(tables), np.int32), self.states.tolist(), self.words.data
        symbols, ranges, mask = lookup.symbols.data, lookup.ranges.data, (1 << lookup.precision) - 1
        found, position, lane = out.data, self.position, self.lane
        for i, table in enumerate(tables.tolist()):
            x = states[lane]
            slot = x & mask
            found[i] = symbol = symbols[(table << lookup.precision) + slot]
            both = ranges[table * lookup.stride + lookup.zero + symbol]
            x = (both >> 16) * (x >> lookup.precision) + slot - (both & 0xFFFF)
            if x < LOWER:
                if position >= len(words):
                    raise CorruptChunkError(f"{self._field}.words", "the stream ends early")
                x = x << 16 | words[position]
                position += 1
            states[lane] = x
            lane = lane + 1 if lane + 1 < self._count else 0
        self.states[:] = states
        self.position, self.lane = position, lane
        return out

    def flags(self, ones: npt.NDArray[np.uint32], precision: int = PRECISION) -> Bools:
        """Return one flag for each count (of 2^precision) of those that are set; they come first in their tables."""
        out = np.empty(len(ones), np.bool_)
        mask, total = np.uint32((1 << precision) - 1), np.uint32(1 << precision)
        for run, x in self._runs(len(out)):
            slot, share, count = x & mask, x >> np.uint32(precision), ones[run]
            out[run] = one = slot < count
            self._store(np.where(one, count * share + slot, (total - count) * share + slot - count))
        return out

    def flags_of_two(self, ones: npt.NDArray[np.uint32],
                     second_of: Callable[[Bools, Bools], npt.NDArray[np.uint8]],
                     precision: int = PRECISION) -> tuple[Bools, npt.NDArray[np.uint8]]:  # fmt: skip
        """Return one flag for each count, and which of two counts that was.

        Parameters
        ----------
        ones : ndarray of uint32, shape (2, n)
            As for `flags`, twice.
        second_of : callable
            Given the flags of the next values by their first counts and by their second ones, says where the second
            ones hold (1), else 0.
        precision : int
        """
        out, second = np.empty(ones.shape[1], np.bool_), np.empty(ones.shape[1], np.uint8)
        mask, total = np.uint32((1 << precision) - 1), np.uint32(1 << precision)
        for run, x in self._runs(len(out)):
            slot, share = x & mask, x >> np.uint32(precision)
            both = slot < ones[:, run]
            second[run] = which = second_of(both[0], both[1])
            count = np.where(which, ones[1, run], ones[0, run])
            out[run] = one = slot < count
            self._store(np.where(one, count * share + slot, (total - count) * share + slot - count))
        return out, second

    def finish(self) -> None:
        """Refuse words left over, or lanes that are not where their writer began."""
        self._all_words_used()
        if (self.states != LOWER).any():
            raise CorruptChunkError(f"{self._field}.states", "a lane does not end in its first state")

    def last_bits(self) -> npt.NDArray[np.uint8]:
        """Refuse words left over; return 16 bits of each lane: what it holds when all symbols are taken."""
        self._all_words_used()
        if (self.states >> _SIXTEEN != 1).any():
            raise CorruptChunkError(f"{self._field}.states", "a lane does not end where its writer began")
        return np.unpackbits(self.states.astype("<u2").view(np.uint8), bitorder="little")

    def _runs(self, symbols: int) -> Iterator[tuple[slice, npt.NDArray[np.uint32]]]:
        """Yield the runs of symbols up to the last lane, and their states."""
        i = 0
        while i < symbols:
            j = min(symbols, i + self._count - self.lane)
            yield slice(i, j), self.states[self.lane : self.lane + j - i]
            i = j

    def _store(self, x: npt.NDArray[np.uint32]) -> None:
        """Make `x` the next states; those that are too small take the next words."""
        low = (x < LOWER).nonzero()[0]
        if low.size:
            fresh = self.words[self.position : self.position + low.size]
            if fresh.size < low.size:
                raise CorruptChunkError(f"{self._field}.words", "the stream ends early")
            self.position += low.size
            x[low] = (x[low] << _SIXTEEN) | fresh
        end = self.lane + x.size
        self.states[self.lane : end] = x
        self.lane = end if end < self._count else 0

    def _all_words_used(self) -> None:
        if self.position != len(self.words):
            raise CorruptChunkError(f"{self._field}.words", f"{len(self.words) - self.position} words too many")


def rows_of(counts: Integers, starts: Integers, lanes: int, precision: int | Integers = PRECISION) -> Iterator[Row]:
    """Yield the rows of a run of symbols, the last row first; `precision` is that of all, or one of each."""
    for begin in range((len(counts) - 1) // lanes * lanes, -1, -lanes) if len(counts) else ():
        row = slice(begin, begin + lanes)
        yield counts[row], starts[row], precision if isinstance(precision, int) else precision[row]


def write(rows: Iterable[Row], lanes: int, first: npt.NDArray[np.uint8] | None = None) -> bytes:
    """Return states and words.

    Parameters
    ----------
    rows : iterable of (counts, starts, precision)
        The last row comes first.
    lanes : int
        Number of states.
    first : ndarray of uint8, shape (16 lanes,), optional
        Bits that the lanes begin with, and a reader finds in the end; zeros without them.
    """
    state = np.full(lanes, LOWER, np.int64)
    if first is not None:
        state += np.packbits(first, bitorder="little").view("<u2")
    words: list[Ints] = []
    for counts, starts, precision in rows:
        f, b = counts.astype(np.int64), np.asarray(precision, np.int64)
        x = state[: len(f)]
        full = x >= f << (32 - b)
        if full.any():
            words.append(x[full] & 0xFFFF)
            x[full] >>= 16
        state[: len(f)] = (x // f << b) + x % f + starts
    stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
    return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()
