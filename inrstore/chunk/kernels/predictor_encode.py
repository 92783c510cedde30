"""Loops of the encoder of chunk mode predictor (specification sections 6.2, 12.6 and 12.7), compiled.

All is integers, sums of integers below 2^24 in float32, exact in any order, or float64 that is added up in the order of
the numpy path from the same table of logarithms. numba does not check indices: every one here comes from the shapes of
the arguments, or is clamped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

u = np.uint64
"""Indices are unsigned where it matters: numba looks at the sign of others, which may count from the end."""

_TOTAL = 1 << 14
_PHASES, _CONTEXTS = 4, 64
_FIRST = (127 + 5) << 2
_CLASS_STEP, _MOST_ERROR = 154, 4095
PAD = 4
"""As in `predictor.regression`."""
LANES = 128
"""Values whose regressors are held together."""


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


@compiled("void(int32[::1], uint8[::1], int64[::1], int32[::1], uint8[::1])")
def group(errors: Any, places: Any, begins: Any, sorted_errors: Any, phases: Any) -> None:
    """Fill in residuals and their phases, sorted by context; their order within one stays.

    Parameters
    ----------
    errors, places : ndarray of int32 and uint8, shape (n,)
    begins : ndarray of int64, shape (64,)
        Where those of each context go; used up.
    sorted_errors, phases : ndarray of int32 and uint8, shape (n,)
    """
    last = len(errors) - 1
    for i in range(len(errors)):
        context = u(places[i] >> np.uint8(2))
        k = u(min(begins[context], last))
        sorted_errors[k], phases[k] = errors[i], places[i] & np.uint8(3)
        begins[context] += 1


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


# ---- predictions: as in `kernels.predictor`, but for rows of values that are all known ----------------------


@inlined
def _regressor(n: int, held: Any, row: int, memory: Any, at: int, centre: Any, share: Any, most: Any, active: Any,
               weight: Any) -> None:  # fmt: skip
    """Hold a regressor, less the centre if `share` is 1 and not if it is 0, limited; add its part of the activity."""
    begin = row * LANES
    for i in range(n):
        x = memory[u(at + i)] - share * centre[i]
        x = most if x > most else x
        x = -most if x < -most else x
        held[u(begin + i)] = x
        active[i] += weight * abs(x)


@inlined
def _flagged(n: int, held: Any, row: int, memory: Any, flags: Any, at: int, centre: Any, most: Any, active: Any,
             weight: Any) -> None:  # fmt: skip
    begin = row * LANES
    for i in range(n):
        x = (memory[u(at + i)] - centre[i]) * flags[u(at + i)]
        x = most if x > most else x
        x = -most if x < -most else x
        held[u(begin + i)] = x
        active[i] += weight * abs(x)


@inlined
def _add(n: int, sums: Any, memory: Any, at: int, weight: Any) -> None:
    for i in range(n):
        sums[i] += weight * memory[u(at + i)]


@inlined
def _add_group(n: int, sums: Any, held: Any, row: int, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any,
               h: Any) -> None:  # fmt: skip
    begin = row * LANES
    for i in range(n):
        at = begin + i
        sums[i] += (
            a * held[u(at)] + b * held[u(at + LANES)] + c * held[u(at + 2 * LANES)] + d * held[u(at + 3 * LANES)]
        ) + (
            e * held[u(at + 4 * LANES)]
            + f * held[u(at + 5 * LANES)]
            + g * held[u(at + 6 * LANES)]
            + h * held[u(at + 7 * LANES)]
        )


@compiled(
    "void(UniTuple(float32[::1], 4), UniTuple(float32[::1], 3), int32[:,:,::1], int64, int64[::1], int64[::1],"
    " int64[::1], float32[:,:,::1], float32[::1], float32[::1], float32[::1], int64[::1], int64[::1], int64[::1],"
    " int32[:,:,::1], uint8[:,:,::1], float32[:,:,::1], float32[:,:,::1], uint8[:,:,::1])"
)
def predict(memories: Any, flags: Any, known: Any, origin: int, arrays: Any, offsets: Any, near: Any, weights: Any,
            activity: Any, thresholds: Any, flag_weights: Any, row_numbers: Any, column_numbers: Any, numbers: Any,
            difference: Any, phase: Any, error: Any, level: Any, classes: Any) -> None:  # fmt: skip
    """Fill in what the weights of a stage say of its values.

    Parameters
    ----------
    memories, flags : tuple of ndarray of float32
        Arrays (row, column, plane) with their pads, of values and of flags.
    known : ndarray of int32, shape (rows, columns, planes)
    origin : int
        Address of the first value.
    arrays, offsets : ndarray of int64, shape (regressors,)
        Which array each regressor is in, and how far from the address of the value.
    near, weights, activity, thresholds, flag_weights, row_numbers, column_numbers, numbers
        As for `kernels.predictor.decode_block`.
    difference, phase, error, level : ndarray, shape of `known`
        Filled in: values less their predictions, phases, errors, activities.
    classes : ndarray of uint8, shape of `known`, or of no values where there are no flags
        Classes of the flags; filled in.
    """
    rows, columns, planes = known.shape
    pads = memories[0].size // planes
    across = planes
    down = across * (pads // (rows + 2 * PAD))
    fraction, low, high, values = numbers[0], numbers[3], numbers[4], numbers[5]
    most, later, zeros = np.float32(numbers[1]), numbers[6] != 0, classes.size > 0
    regressors, sets = len(offsets), len(thresholds) + 1
    held = np.zeros((activity.size + 8) * LANES, np.float32)
    centre, active, sums = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    chosen, predicted = np.zeros(LANES, np.int32), np.empty(LANES, np.int32)
    one, none, edge = np.float32(1), np.float32(0), np.float32(_CLASS_STEP)
    half, quarter = 1 << (fraction - 1), fraction - 2
    for y in range(rows):
        begin = 0
        while begin < columns:
            region, until = row_numbers[y] + column_numbers[begin], begin + 1
            while until < columns and row_numbers[y] + column_numbers[until] == region:
                until += 1
            length, first = (until - begin) * planes, origin + y * down + begin * across
            for p in range(0, length, LANES):
                n, at = min(LANES, length - p), first + p
                active[:n] = activity[regressors]
                if later:
                    middle = values + 4
                    memory = memories[arrays[middle]]
                    for i in range(n):
                        centre[i] = memory[u(at + offsets[middle] + i)]
                    for k in range(regressors):
                        share = none if k < values else one
                        _regressor(n, held, k, memories[arrays[k]], at + offsets[k], centre, share, most, active,
                                   none if k == middle else activity[k])  # fmt: skip
                    row, weight = middle * LANES, activity[middle]
                    for i in range(n):
                        x = np.floor(centre[i] * np.float32(0.0625))
                        x = most if x > most else x
                        x = -most if x < -most else x
                        held[u(row + i)] = x
                        active[i] += weight * abs(x)
                else:
                    centre[:n] = none
                    for k in near:
                        _add(n, centre, memories[arrays[k]], at + offsets[k], one)
                    if zeros:
                        sums[:n] = none
                        for k in near:
                            _add(n, sums, flags[arrays[k]], at + offsets[k], one)
                        for i in range(n):
                            centre[i] = np.floor(centre[i] / max(sums[i], one))
                        for k in range(values):
                            _flagged(n, held, k, memories[arrays[k]], flags[arrays[k]], at + offsets[k], centre, most,
                                     active, activity[k])  # fmt: skip
                    else:
                        share = np.float32(len(near))
                        for i in range(n):
                            centre[i] = np.floor(centre[i] / share)
                        for k in range(values):
                            _regressor(n, held, k, memories[arrays[k]], at + offsets[k], centre, one, most, active,
                                       activity[k])  # fmt: skip
                lowest, highest = 0, 0
                if sets > 1:
                    chosen[:n] = 0
                    for s in range(sets - 1):
                        bound = thresholds[s]
                        for i in range(n):
                            chosen[i] += np.int32(bound < active[i])
                    lowest, highest = sets, 0
                    for i in range(n):
                        lowest, highest = min(lowest, chosen[i]), max(highest, chosen[i])
                for s in range(lowest, highest + 1):
                    w = weights[region, s]
                    sums[:n] = w[regressors]
                    for k in range(0, regressors, 8):
                        # Behind the regressors stand zeros, which the constant's weight finds too.
                        _add_group(n, sums, held, k, w[k], w[k + 1], w[k + 2], w[k + 3], w[k + 4], w[k + 5], w[k + 6],
                                   w[k + 7])  # fmt: skip
                    for i in range(n):
                        if lowest == highest or chosen[i] == s:
                            predicted[i] = (np.int32(centre[i]) << fraction) + np.int32(sums[i])
                if zeros:
                    sums[:n] = flag_weights[values]
                    for k in range(values):
                        _add(n, sums, flags[arrays[k]], at + offsets[k], flag_weights[k])
                    classes_of = classes[y].reshape(-1)
                    for i in range(n):
                        kind = 0
                        for e in range(-15, 16):
                            kind += edge * np.float32(e) < sums[i]
                        classes_of[u(begin * planes + p + i)] = kind
                values_of, differences = known[y].reshape(-1), difference[y].reshape(-1)
                phases, errors, levels = phase[y].reshape(-1), error[y].reshape(-1), level[y].reshape(-1)
                for i in range(n):
                    place = u(begin * planes + p + i)
                    value, found = np.int64(values_of[place]), np.int64(predicted[i])
                    moved = found + half
                    phases[place] = moved >> quarter & 3
                    differences[place] = value - min(max(moved >> fraction, low), high)
                    errors[place] = min(abs((value << fraction) - found) >> quarter, _MOST_ERROR)
                    levels[place] = active[i]
            begin = until


@compiled(
    "void(UniTuple(float32[::1], 4), int64, int64[::1], int64[::1], float32[::1], int64, float32[:,:,::1],"
    " uint8[:,:,::1])"
)
def expect(memories: Any, origin: int, arrays: Any, offsets: Any, weights: Any, scale: int, level: Any,
           places: Any) -> None:  # fmt: skip
    """Add to each phase four times the context of the expected error.

    Parameters
    ----------
    memories : tuple of ndarray of float32
        Arrays of errors.
    origin, arrays, offsets, weights
        As for `predict`, of errors.
    scale : int
    level, places : ndarray of float32 and uint8, shape (rows, columns, planes)
        Activities, and phases that become places.
    """
    rows, columns, planes = level.shape
    down = planes * (memories[0].size // planes // (rows + 2 * PAD))
    sums, singles = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    bits = singles.view(np.int32)
    for y in range(rows):
        levels, out = level[y].reshape(-1), places[y].reshape(-1)
        for p in range(0, columns * planes, LANES):
            n, at = min(LANES, columns * planes - p), origin + y * down + p
            sums[:n] = np.float32(0)
            for k in range(len(offsets)):
                _add(n, sums, memories[arrays[k]], at + offsets[k], weights[k])
            for i in range(n):
                t = np.int64(min(levels[u(p + i)], np.float32(1 << 20)))
                singles[i] = np.float32((t * scale >> 6) + np.int64(sums[i]))
            for i in range(n):
                context = min(max((bits[i] >> 21) - _FIRST, 0), _CONTEXTS - 1)
                out[u(p + i)] += np.uint8(4 * context)
