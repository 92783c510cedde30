"""Interleaved rANS over integer frequency tables, and the tables themselves (specification sections 5 and 6).

Range asymmetric numeral systems: Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392. States have 32
bits, words 16, probabilities 14. One lane serves 1,024 symbols, so short streams pay for few states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import CorruptChunkError
from inrstore.format.frame import Reader

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
    state = np.full(lanes, LOWER, np.int64)
    words: list[npt.NDArray[np.int64]] = []
    for begin in range((count - 1) // lanes * lanes, -1, -lanes) if count else ():
        f, c = frequency[begin : begin + lanes], start[begin : begin + lanes]
        x = state[: len(f)]
        full = x >= f << (32 - PRECISION)
        if full.any():
            words.append(x[full] & 0xFFFF)
            x[full] >>= 16
        state[: len(f)] = (x // f << PRECISION) + x % f + c
    stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
    return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()


def decode(reader: Reader, table_of: npt.NDArray[np.integer[Any]], tables: Sequence[Table]) -> npt.NDArray[np.int16]:
    """Decode `len(table_of)` symbols from the rest of the reader.

    Raises
    ------
    CorruptChunkError
        When words are missing or left over, or a lane does not end in its first state.
    """
    count, lanes = len(table_of), lane_count(len(table_of))
    state = reader.array("<u4", lanes, "rans.states").astype(np.int64)
    if reader.remaining % 2:
        raise CorruptChunkError("rans.words", "an odd number of bytes")
    words = reader.array("<u2", reader.remaining // 2, "rans.words").astype(np.int64)
    if (state < LOWER).any():
        raise CorruptChunkError("rans.states", "a state below its lower bound")
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
    position = 0
    for begin in range(0, count, lanes):
        index = table_of[begin : begin + lanes].astype(np.int64) << PRECISION
        x = state[: len(index)]
        index += x & (TOTAL - 1)
        symbols[begin : begin + lanes] = flat_symbol[index]
        x = flat_frequency[index] * (x >> PRECISION) + flat_offset[index]
        low = np.flatnonzero(x < LOWER)
        if low.size:
            fresh = words[position : position + low.size]
            if fresh.size < low.size:
                raise CorruptChunkError("rans.words", "the stream ends early")
            position += low.size
            x[low] = (x[low] << 16) | fresh
        state[: len(index)] = x
    if position != len(words):
        raise CorruptChunkError("rans.words", f"{len(words) - position} words too many")
    if (state != LOWER).any():
        raise CorruptChunkError("rans.states", "a lane does not end in its first state")
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
