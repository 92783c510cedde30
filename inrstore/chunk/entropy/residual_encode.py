"""Residuals -> bytes: tables that code each context in about the fewest bits, and what they code (section 12.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import BitWriter, Ints
from inrstore.chunk.entropy.contexts import CONTEXTS, PHASES
from inrstore.chunk.entropy.rans import LOWER, PRECISION, TOTAL, rows_of, write
from inrstore.chunk.entropy.residual import MOST_LANES
from inrstore.chunk.entropy.student import (
    MAX_ESCAPE,
    MAX_PEAK,
    MAX_SCALE,
    MOST_TAIL,
    ContextTables,
    StudentTable,
    counts,
    write_tables,
)
from inrstore.chunk.kernels import choice

Doubles = npt.NDArray[np.float64]

LOGS = np.log2(np.maximum(np.arange(TOTAL + 1), 1))
"""Of counts, to base 2; a table, so that compiled loops have the same."""
_ESCAPE_BITS = 16
_BLOCK = 1 << 19
Integers = npt.NDArray[np.integer[Any]]
_VALUES_PER_LANE = 4000
_LANES, _LEAST_FOR_LANES = 6, 30_000  # 48 more lanes double the speed of 60,000 values, and take 0.35 % of their bytes
_BYTES_PER_LANE = 1500


@dataclass(frozen=True)
class CodedResiduals:
    """Residuals, ready for a stream of any number of lanes.

    Parameters
    ----------
    tables : bytes
        Of all contexts.
    rest : bytes
        Escapes and low bits.
    bits : float
        Length of the stream, about.
    counts, starts : ndarray of uint16
        Of each symbol.
    """

    tables: bytes
    rest: bytes
    bits: float
    counts: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.uint16]

    def stream(self, lanes: int) -> bytes:
        """Return states and words."""
        return written(self.counts, self.starts, 1 << lanes)


def written(counts: npt.NDArray[np.uint16], starts: npt.NDArray[np.uint16], lanes: int) -> bytes:
    """Return states and words of symbols, by compiled loops where they serve."""
    loops = choice.find("predictor_encode", len(counts))
    if loops is None:
        return write(rows_of(counts, starts, lanes), lanes)
    states, words = np.full(lanes, LOWER, np.uint32), np.empty(len(counts), np.uint16)
    begin = loops.write(counts, starts, PRECISION, states, words)
    return states.astype("<u4").tobytes() + words[begin:].astype("<u2").tobytes()


def lanes_of(values: int, size: int = 0) -> int:
    """Return the binary logarithm of the number of states that suits a chunk.

    Parameters
    ----------
    values : int
    size : int
        Of the payload in bytes, about: in large ones more states cost little.
    """
    usual = min(MOST_LANES, max(2, (values // _VALUES_PER_LANE).bit_length()))
    return max(usual, min(_LANES, (size // _BYTES_PER_LANE).bit_length())) if values >= _LEAST_FOR_LANES else usual


def coded(errors: Integers, places: Integers, known: Integers, table: StudentTable | None = None) -> CodedResiduals:
    """Return residuals in tables that suit them.

    Parameters
    ----------
    errors : ndarray of int, shape (n,)
        Values minus their predictions, in the order of decoding.
    places : ndarray of int, shape (n,)
        Four times the context, plus the phase.
    known : ndarray of int, shape (n,)
        What an escape writes: the values above the lowest one.
    table : StudentTable, optional
        That of every context; fitted to each if it is not given.
    """
    context = (places >> 2).astype(np.uint8)
    seen = np.bincount(context, minlength=CONTEXTS)
    loops = choice.find("predictor_encode", len(errors))
    if table is None:
        parts = _by_context(context, seen, errors, places, loops)
        found = [None if part is None else fit_table(*part) for part in parts]
    else:
        found = [table if count else None for count in seen]
    tables = ContextTables(found)
    peaks, firsts = np.array(tables.peaks, np.int64), np.cumsum([0, *(len(c) for c in tables.counts)])
    nothing = [np.zeros(0, np.int64)]
    every = np.concatenate([*tables.counts, *nothing])
    start_of = np.concatenate([*(np.cumsum(c) - c for c in tables.counts), *nothing]).astype(np.uint16)
    total = np.zeros(len(every), np.int64)
    counts, starts = np.empty(len(errors), np.uint16), np.empty(len(errors), np.uint16)
    escapes, low_bits = [], BitWriter()
    for begin in range(0, len(errors), _BLOCK):  # what is between takes ten times the memory of what is kept
        here = slice(begin, begin + _BLOCK)
        if loops is not None:
            size = len(errors[here])
            escaped, low, widths, ends = (np.empty(n, np.int64) for n in (size, size, size, 2))
            loops.symbols(errors[here].astype(np.int32), places[here].astype(np.uint8), tables.index, tables.shifts,
                          peaks, firsts, every, start_of, counts[here], starts[here], total, escaped, low, widths,
                          ends)  # fmt: skip
            escapes.append(known[here][escaped[: ends[0]]].astype("<u2"))
            low_bits.add(low[: ends[1]], widths[: ends[1]])
            continue
        which, shift = tables.index[places[here]], tables.shifts[context[here]].astype(np.int64)
        moved = errors[here] + ((1 << shift) >> 1)
        symbol, low, peak = moved >> shift, moved & ((1 << shift) - 1), peaks[which]
        over = np.abs(symbol) > peak
        at = firsts[which] + np.where(over, 2 * peak + 1, symbol + peak)
        escapes.append(known[here][over].astype("<u2"))
        some = (shift > 0) & ~over
        low_bits.add(low[some], shift[some])
        total += np.bincount(at, minlength=len(every))
        counts[here], starts[here] = every[at], start_of[at]
    bits = float(PRECISION) * len(errors) - float((total * LOGS[every]).sum())
    escaped_values, packed = np.concatenate([*escapes, np.zeros(0, "<u2")]), low_bits.finish()
    rest = struct.pack("<I", len(escaped_values)) + escaped_values.tobytes() + struct.pack("<I", len(packed)) + packed
    return CodedResiduals(write_tables(found), rest, bits, counts, starts)


def _by_context(context: npt.NDArray[np.uint8], seen: Ints, errors: Integers, places: Integers,
                loops: ModuleType | None) -> Iterator[tuple[Ints, Ints] | None]:  # fmt: skip
    """Yield residuals and phases of each context, in order; None for those that nothing is in."""
    ends = np.cumsum(seen)
    if loops is not None:
        grouped, phases = np.empty(len(errors), np.int32), np.empty(len(errors), np.uint8)
        loops.group(errors.astype(np.int32), places.astype(np.uint8), ends - seen, grouped, phases)
    for number, (count, end) in enumerate(zip(seen.tolist(), ends.tolist(), strict=True)):
        if not count:
            yield None
        elif loops is not None:
            run = slice(end - count, end)
            yield grouped[run].astype(np.int64), phases[run].astype(np.int64)
        else:
            mine = np.flatnonzero(context == number)
            yield errors[mine].astype(np.int64), places[mine].astype(np.int64) & 3


def fit_table(errors: Ints, phases: Ints) -> StudentTable:
    """Return the tables that code the differences of one context in about the fewest bits."""
    loops = choice.find("predictor_encode", 0)
    mean = float(np.abs(errors).mean())
    shift = max(0, int(np.floor(np.log2(max(mean, 1) / 10))))
    phased = mean < 5
    rounded = (errors + ((1 << shift) >> 1)) >> shift
    size, most = np.abs(rounded), min(MAX_PEAK, 65535 >> shift)
    beyonds = np.bincount(np.minimum(size, most + 1), minlength=2)[::-1].cumsum()[::-1]  # how many are at least i
    which = phases if phased else np.zeros_like(phases)
    inside = size <= most
    place = which[inside] * (2 * most + 1) + rounded[inside] + most
    whole = np.bincount(place, minlength=PHASES * (2 * most + 1)).reshape(PHASES, -1).astype(np.float64)

    def peak_at(share: float) -> int:
        return min(most, max(1, int(np.searchsorted(-beyonds, -share * len(size), "left")) - 1))

    def escape_of(peak: int) -> tuple[int, int]:
        beyond = int(beyonds[peak + 1]) if peak + 1 < len(beyonds) else 0
        return beyond, min(MAX_ESCAPE, max(1, round(TOTAL * beyond / len(size))))

    def bits(scales: Ints, peak: int, tail: int) -> Doubles:
        beyond, escape = escape_of(peak)
        out = np.full(len(scales), beyond * (_ESCAPE_BITS + np.log2(TOTAL / escape)))
        if loops is not None:
            loops.add_bits(scales, peak, escape, phased, tail, whole, LOGS, out)
            return out
        for phase in range(PHASES if phased else 1):
            seen = whole[phase, most - peak : most + peak + 1]
            if seen.any():
                logs = LOGS[counts(scales, peak, escape, phase if phased else -1, tail)[:, :-1]]
                out -= np.cumsum(logs * seen, 1)[:, -1]  # one after the other, as the loops do
        return out

    def grid(low: float, high: float, number: int) -> Ints:
        scaled = max(mean / (1 << shift), 0.05) * 64 * _geometric(low, high, number)
        return np.clip(np.rint(scaled), 1, MAX_SCALE).astype(np.int64)

    peak, best = peak_at(1 / 3000), (np.inf, 0, 0)
    for tail in range(MOST_TAIL + 1):
        low, high = 0.2, 2.0
        for _ in range(3):
            scales = grid(low, high, 6)
            cost = bits(scales, peak, tail)
            i = int(cost.argmin())
            best = min(best, (float(cost[i]), int(scales[i]), tail))
            factors = _geometric(low, high, 6)
            low, high = float(factors[max(0, i - 1)]), float(factors[min(5, i + 1)])
    _, scale, tail = best
    tries = sorted({peak, *(peak_at(x) for x in (3e-3, 1e-3, 1e-4, 3e-5, 0))})
    peak = min(tries, key=lambda p: float(bits(np.array([scale]), p, tail)[0]))
    return StudentTable(shift, phased, scale, peak, escape_of(peak)[1], tail)


def _geometric(low: float, high: float, number: int) -> Doubles:
    """Return numbers from `low` to `high` of equal ratios; ten times as fast as that of numpy."""
    out: Doubles = low * (high / low) ** (np.arange(number) / (number - 1))
    return out
