"""Interleaved rANS over integer frequency tables, and the tables themselves (specification sections 5 and 6).

Range asymmetric numeral systems: Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392. States have 32
bits, words 16, probabilities 14. One lane serves 1,024 symbols, so short streams pay for few states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

PRECISION = 14
TOTAL = 1 << PRECISION
LOWER = 1 << 16
SYMBOLS_PER_LANE = 1024

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """A symmetric bell over the integers -peak..peak, made by integer recurrences alone.

    The weight of magnitude k is g[k], with g[0] = 2^28, g[k] = g[k-1] * r[k] >> 32, r[1] = slope + 1,
    r[k+1] = r[k] * (bend + 1) >> 32: a Laplacian when bend is 2^32 - 1, a Gaussian when slope^2 is about bend.

    Parameters
    ----------
    slope, bend : int
        Unsigned 32-bit.
    peak : int
        Largest magnitude, at most `limits.MAX_SYMBOL`.
    """

    slope: int
    bend: int
    peak: int

    def frequencies(self) -> Ints:
        """Return the counts of -peak..peak; they sum to 2^14 and none is zero."""
        weight, ratio = 1 << 28, self.slope + 1
        half = [weight]
        for _ in range(self.peak):
            weight = weight * ratio >> 32
            ratio = ratio * (self.bend + 1) >> 32
            half.append(weight)
        total = 2 * sum(half) - half[0]
        spare = TOTAL - (2 * self.peak + 1)
        counts = [1 + g * spare // total for g in half]
        counts[0] += TOTAL - (2 * sum(counts) - counts[0])
        return np.array(counts[:0:-1] + counts, np.int64)


def lane_count(symbols: int) -> int:
    """Return the number of interleaved states for a stream of that many symbols."""
    return max(1, -(-symbols // SYMBOLS_PER_LANE))


def encode(symbols: Ints, table_of: Ints, tables: Sequence[Table]) -> bytes:
    """Code `symbols` (one dimension); symbol i uses `tables[table_of[i]]`.

    Returns
    -------
    bytes
        The states (u32, lane by lane), then the words (u16) in the order the decoder takes them.
    """
    count, lanes = len(symbols), lane_count(len(symbols))
    frequency = np.zeros(count, np.int64)
    start = np.zeros(count, np.int64)
    for i, table in enumerate(tables):
        counts = table.frequencies()
        begins = np.cumsum(counts) - counts
        mine = table_of == i
        index = symbols[mine] + table.peak
        frequency[mine], start[mine] = counts[index], begins[index]
    rows = range((count - 1) // lanes * lanes, -1, -lanes) if count else ()
    return write_rows(((frequency[i : i + lanes], start[i : i + lanes]) for i in rows), lanes)


def write_rows(rows: Iterable[tuple[Ints, Ints]], lanes: int) -> bytes:
    """Return the states and words of rows of symbols, one of each row for each of the first lanes.

    Parameters
    ----------
    rows : iterable of (ndarray, ndarray)
        Counts and starts of the symbols of a row; the last row comes first.
    lanes : int
        Number of states.
    """
    state = np.full(lanes, LOWER, np.int64)
    words: list[npt.NDArray[np.int64]] = []
    for f, c in rows:
        x = state[: len(f)]
        full = x >= f << (32 - PRECISION)
        if full.any():
            words.append(x[full] & 0xFFFF)
            x[full] >>= 16
        state[: len(f)] = (x // f << PRECISION) + x % f + c
    stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
    return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()


class Lanes:
    """The states of a stream that is being read, and the words that refill them.

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
    states : ndarray of int64, shape (count,)

    Raises
    ------
    CorruptChunkError
        When states are missing or too small, or half a word is left.
    """

    def __init__(self, reader: Reader, count: int, field: str = "rans") -> None:
        self.field = field
        self.states = reader.array("<u4", count, f"{field}.states").astype(np.int64)
        if reader.remaining % 2:
            raise CorruptChunkError(f"{field}.words", "an odd number of bytes")
        self._words = reader.array("<u2", reader.remaining // 2, f"{field}.words").astype(np.int64)
        self._position = 0
        if (self.states < LOWER).any():
            raise CorruptChunkError(f"{field}.states", "a state below its lower bound")

    def store(self, x: Ints) -> None:
        """Make `x` the states of the first lanes; those that are too small take the next words."""
        low = np.flatnonzero(x < LOWER)
        if low.size:
            fresh = self._words[self._position : self._position + low.size]
            if fresh.size < low.size:
                raise CorruptChunkError(f"{self.field}.words", "the stream ends early")
            self._position += low.size
            x[low] = (x[low] << 16) | fresh
        self.states[: len(x)] = x

    def finish(self) -> None:
        """Refuse a stream with words left over, or whose lanes are not where its writer began."""
        if self._position != len(self._words):
            raise CorruptChunkError(f"{self.field}.words", f"{len(self._words) - self._position} words too many")
        if (self.states != LOWER).any():
            raise CorruptChunkError(f"{self.field}.states", "a lane does not end in its first state")


def decode(reader: Reader, table_of: npt.NDArray[np.integer[Any]], tables: Sequence[Table]) -> npt.NDArray[np.int16]:
    """Decode `len(table_of)` symbols from the rest of the reader.

    Raises
    ------
    CorruptChunkError
        When words are missing or left over, or a lane does not end in its first state.
    """
    count = len(table_of)
    lanes = Lanes(reader, lane_count(count))
    symbol_at = np.empty((len(tables), TOTAL), np.int16)
    frequency_at = np.empty((len(tables), TOTAL), np.int16)
    offset_at = np.empty((len(tables), TOTAL), np.int16)  # slot minus start of its symbol
    for i, table in enumerate(tables):
        counts = table.frequencies()
        which = np.repeat(np.arange(len(counts)), counts)
        symbol_at[i] = which - table.peak
        frequency_at[i] = counts[which]
        offset_at[i] = np.arange(TOTAL) - (np.cumsum(counts) - counts)[which]
    symbols = np.empty(count, np.int16)
    flat_symbol, flat_frequency, flat_offset = symbol_at.ravel(), frequency_at.ravel(), offset_at.ravel()
    width = len(lanes.states)
    for begin in range(0, count, width):
        index = table_of[begin : begin + width].astype(np.int64) << PRECISION
        x = lanes.states[: len(index)]
        index += x & (TOTAL - 1)
        symbols[begin : begin + width] = flat_symbol[index]
        lanes.store(flat_frequency[index] * (x >> PRECISION) + flat_offset[index])
    lanes.finish()
    return symbols


def fit_table(symbols: Ints) -> Table:
    """Return the table that codes these symbols in the fewest bits (grid search, three zooms)."""
    magnitude = np.abs(symbols)
    peak = int(magnitude.max(initial=0))
    if peak > limits.MAX_SYMBOL:
        raise ValueError(f"symbol {peak} is above {limits.MAX_SYMBOL}")
    count = np.bincount(magnitude, minlength=peak + 1).astype(np.float64)
    k = np.arange(peak + 1)
    both = np.where(k == 0, 1.0, 2.0)
    spare = TOTAL - (2 * peak + 1)
    # ln g[k] = -(alpha k + beta k (k - 1) / 2); both rates on logarithmic scales, searched by zooming in
    centre, span = np.array([-3.0, -6.0]), np.array([9.0, 12.0])
    best = (np.inf, 0.0, 0.0)
    for _ in range(4):
        for log_alpha in centre[0] + np.linspace(-span[0], span[0], 13):
            log_beta = (centre[1] + np.linspace(-span[1], span[1], 13))[:, None]
            exponent = np.exp(log_alpha) * k + np.exp(log_beta) * (k * (k - 1) / 2)
            weight = np.exp(-np.minimum(exponent, 60.0))
            share = (1 + spare * weight / (weight * both).sum(1, keepdims=True)) / TOTAL
            bits = -(np.log2(share) * count).sum(1)
            i = int(bits.argmin())
            if bits[i] < best[0]:
                best = (float(bits[i]), float(log_alpha), float(log_beta[i, 0]))
        centre, span = np.array(best[1:]), span / 4
    slope, bend = (int(2**32 * np.exp(-np.exp(v))) - 1 for v in best[1:])
    return Table(min(max(slope, 0), 2**32 - 1), min(max(bend, 0), 2**32 - 1), peak)


def code_length(symbols: Ints, table: Table) -> float:
    """Return the ideal length in bits of these symbols under a table."""
    counts = table.frequencies()
    return float(-np.log2(counts[symbols + table.peak] / TOTAL).sum())
