"""Small signed integers in tables that are symmetric bells: the weights of networks (specification sections 6.1, 6.2).

One lane serves 1,024 symbols, so short streams pay for few states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.entropy.rans import TOTAL, Lookup, Stream, rows_of, write
from inrstore.chunk.frame import Reader

SYMBOLS_PER_LANE = 1024
_AT_ONCE = 1 << 16  # symbols whose places are held at a time


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
    return write(rows_of(frequency, start, lanes), lanes)


def decode(reader: Reader, table_of: npt.NDArray[np.integer[Any]], tables: Sequence[Table]) -> npt.NDArray[np.int16]:
    """Decode `len(table_of)` symbols from the rest of the reader.

    Raises
    ------
    CorruptChunkError
        When words are missing or left over, or a lane does not end in its first state.
    """
    stream = Stream(reader, lane_count(len(table_of)))
    most = max((table.peak for table in tables), default=0)
    counts = np.zeros((len(tables), 2 * most + 1), np.int64)
    for row, table in zip(counts, tables, strict=True):
        row[most - table.peak : most + table.peak + 1] = table.frequencies()
    lookup, symbols = Lookup(counts, zero=most), np.empty(len(table_of), np.int16)
    for begin in range(0, len(table_of), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        symbols[part] = stream.symbols(table_of[part].astype(np.int64), lookup)
    stream.finish()
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
