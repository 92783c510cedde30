"""Loops of the encoder of residuals (specification sections 6.2 and 12.7), compiled.

All is integers, or float64 that is added up in the order of the numpy path from the same table of logarithms. numba
does not check indices: every one here comes from the shapes of the arguments, or is clamped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

u = np.uint64
"""Indices are unsigned where it matters: numba looks at the sign of others, which may count from the end."""

_TOTAL = 1 << 14
_PHASES, _CONTEXTS = 4, 64


@inlined
def _add_roots(n: int, weights: Any, peak: int, factor: int, offset: int, square: int, tail: int) -> None:
    """Add to each weight that of a point: a power of 1 / (1 + distance^2 / square), in 2^-24, rounded down."""
    whole = np.float64(square)
    for i in range(n):
        point = factor * (i - peak) + offset
        distance = point * point
        below = square + distance
        above = distance << 24
        # Rounded up; a quotient of floats may be off by one.
        part = np.int64(np.float64(above) / (whole + np.float64(distance)))
        left = above - part * below
        part += np.int64(left > 0)
        part += np.int64(left > below)
        part -= np.int64(left <= -below)
        root = (1 << 24) - part
        for _ in range(tail):
            root = root * root >> 24
        weights[i] += root


@compiled("void(int64[::1], int64, int64, boolean, int64, float64[:,::1], float64[::1], float64[::1])")
def add_bits(scales: Any, peak: int, escape: int, phased: bool, tail: int, seen: Any, logs: Any, out: Any) -> None:
    """Add what differences of -peak..peak cost with the tables of each scale.

    Parameters
    ----------
    scales : ndarray of int64
    peak, escape, phased, tail
        As for `entropy.student.StudentTable`.
    seen : ndarray of float64, shape (phases, 2 most + 1)
        How often each difference of -most..most is there; most is at least `peak`.
    logs : ndarray of float64, shape (2^14 + 1,)
        Base 2.
    out : ndarray of float64, of the size of `scales`
    """
    size = 2 * peak + 1
    first = (seen.shape[1] - size) // 2
    weights = np.empty(size, np.int64)
    spare = _TOTAL - size - escape
    for s in range(len(scales)):
        for phase in range(_PHASES if phased else 1):
            some = False
            for i in range(size):
                some |= seen[phase, first + i] != 0
            if not some:
                continue
            weights[:] = 0
            square = scales[s] * scales[s] * ((2 << tail) - 1)
            if phased:
                square = max(square * 576 >> 12, 1)
                for offset in (-8, 0, 8):
                    _add_roots(size, weights, peak, 24, 9 - 6 * phase + offset, square, tail)
            else:
                _add_roots(size, weights, peak, 1, 0, max(square >> 12, 1), tail)
            total = 0
            for i in range(size):
                total += weights[i]
            total = max(total, 1)
            rest = _TOTAL - escape
            for i in range(size):
                weights[i] = 1 + weights[i] * spare // total
                rest -= weights[i]
            weights[peak] += rest
            bits = 0.0
            for i in range(size):
                bits += logs[min(max(weights[i], 0), _TOTAL)] * seen[phase, first + i]
            out[s] -= bits


@compiled(
    "void(int32[::1], uint8[::1], int64[::1], int32[::1], int64[::1], int64[::1], int64[::1], uint16[::1],"
    " uint16[::1], uint16[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def symbols(errors: Any, places: Any, index: Any, shifts: Any, peaks: Any, firsts: Any, every: Any, start_of: Any,
            counts: Any, starts: Any, seen: Any, escaped: Any, numbers: Any, widths: Any,
            found: Any) -> None:  # fmt: skip
    """Fill in the symbols of residuals.

    Parameters
    ----------
    errors, places : ndarray of int32 and uint8, shape (n,)
    index, shifts : ndarray
        As in `entropy.student.ContextTables`; each place has a table.
    peaks, firsts : ndarray of int64
        Of each table: its peak, and where it begins in the following two.
    every, start_of : ndarray of int64 and uint16
        Counts and starts of all tables.
    counts, starts : ndarray of uint16, shape (n,)
        Filled in.
    seen : ndarray of int64, of the size of `every`
        How often each symbol was coded; added to.
    escaped : ndarray of int64, shape (n,)
        Which of the residuals are escaped; filled in.
    numbers, widths : ndarray of int64, shape (n,)
        Low bits of those that have some; filled in.
    found : ndarray of int64, shape (2,)
        How many are escaped, and have low bits; filled in.
    """
    escapes, lows, last = 0, 0, len(every) - 1
    for i in range(len(errors)):
        place = np.int64(places[i])
        table, shift = index[u(place)], np.int64(shifts[u(place >> 2)])
        moved = np.int64(errors[i]) + ((1 << shift) >> 1)
        symbol, peak = moved >> shift, peaks[u(table)]
        at = firsts[u(table)]
        if abs(symbol) > peak:
            escaped[u(escapes)] = i
            escapes += 1
            at += 2 * peak + 1
        else:
            at += symbol + peak
            if shift:
                numbers[u(lows)], widths[u(lows)] = moved & ((1 << shift) - 1), shift
                lows += 1
        at = min(max(at, 0), last)
        counts[i], starts[i] = every[u(at)], start_of[u(at)]
        seen[u(at)] += 1
    found[0], found[1] = escapes, lows


@compiled("int64(uint16[::1], uint16[::1], int64, uint32[::1], uint16[::1])")
def write(counts: Any, starts: Any, precision: int, states: Any, words: Any) -> int:
    """Code symbols, the last one first; return where their words begin.

    Parameters
    ----------
    counts, starts : ndarray of uint16
        No count is 0.
    precision : int
        At most 16.
    states : ndarray of uint32
        Updated.
    words : ndarray of uint16, of the size of `counts`
        Filled in from its end down.
    """
    lanes, end = len(states), len(words)
    lane, bits = len(counts) % lanes, u(precision)
    for k in range(len(counts) - 1, -1, -1):
        lane = (lane if lane > 0 else lanes) - 1
        x, count = u(states[u(lane)]), u(counts[u(k)])
        # Whether a word goes out cannot be guessed, so one is always written: each symbol has a place.
        full = u(x >= count << (u(32) - bits))
        words[u(end - 1)] = np.uint16(x)
        end -= np.int64(full)
        x >>= full << u(4)
        share = u(np.float64(x) / np.float64(count))  # below 2^32 over below 2^16: no rounding reaches an integer
        states[u(lane)] = np.uint32((share << bits) + (x - share * count) + u(starts[u(k)]))
    return end
