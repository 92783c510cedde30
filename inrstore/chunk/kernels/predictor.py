"""Loops of chunk mode predictor (specification sections 12.6 to 12.8), compiled.

Sums are of integers below 2^24 in float32, so they are exact in any order; quotients are made as numpy makes them.
numba does not check indices: every one comes from the geometry of a block, or from a table that holds nothing out of
range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

u = np.uint64
"""Indices are unsigned where it matters: numba looks at the sign of others, which may count from the end."""

OK, WORDS_END, BITS_END, UNUSED_CONTEXT, TOO_FEW_ESCAPES, FLAGS_END = range(6)
"""What `decode_block` may return."""

LANES = 128
"""Values whose regressors are held together."""
GROUP = 8
"""Regressors that are added up together; what is missing to a multiple is weighted by 0."""

BUCKET_BITS = 4
"""Slots of a table that have one entry are 2^4."""

_BUCKET = np.uint32(BUCKET_BITS)
_AT_ONCE = 2048
_SIDE = 16
_ESCAPE, _UNUSED = 501, 502
_PRECISION = 14
_FIRST = (127 + 5) << 2
_CLASSES, _CLASS_STEP = 32, 154
_MOST_ERROR = 4095


@inlined
def _fill(n: int, target: Any, value: Any) -> None:
    for i in range(n):
        target[i] = value


@inlined
def _load(n: int, target: Any, memory: Any, at: int) -> None:
    for i in range(n):
        target[i] = memory[u(at + i)]


@inlined
def _add_memory(n: int, sums: Any, memory: Any, at: int, weight: Any) -> None:
    for i in range(n):
        sums[i] += weight * memory[u(at + i)]


@inlined
def _add_four(n: int, sums: Any, memory: Any, at: int, offsets: Any, weights: Any, k: int) -> None:
    """Add four weighted numbers, from the k-th on; the last ones are repeated with a weight of 0."""
    last = len(offsets) - 1
    none = np.float32(0)
    one, two, three = min(k + 1, last), min(k + 2, last), min(k + 3, last)
    a, b = weights[k], weights[one] if one > k else none
    c, d = weights[two] if two > one else none, weights[three] if three > two else none
    first, second, third, fourth = at + offsets[k], at + offsets[one], at + offsets[two], at + offsets[three]
    for i in range(n):
        sums[i] += (a * memory[u(first + i)] + b * memory[u(second + i)]) + (
            c * memory[u(third + i)] + d * memory[u(fourth + i)]
        )


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
def _two_regressors(n: int, held: Any, row: int, memory: Any, one: int, other: int, centre: Any, share: Any, most: Any,
                    active: Any, weight: Any, weight_of_other: Any) -> None:  # fmt: skip
    begin = row * LANES
    for i in range(n):
        taken = share * centre[i]
        x, y = memory[u(one + i)] - taken, memory[u(other + i)] - taken
        x = most if x > most else x
        x = -most if x < -most else x
        y = most if y > most else y
        y = -most if y < -most else y
        held[u(begin + i)] = x
        held[u(begin + LANES + i)] = y
        active[i] += weight * abs(x) + weight_of_other * abs(y)


@inlined
def _regressors(held: Any, n: int, begin: int, end: int, memory: Any, at: int, offsets: Any, centre: Any, share: Any,
                most: Any, active: Any, activity: Any) -> None:  # fmt: skip
    for k in range(begin, end - 1, 2):
        _two_regressors(n, held, k, memory, at + offsets[k], at + offsets[k + 1], centre, share, most, active,
                        activity[k], activity[k + 1])  # fmt: skip
    if (end - begin) & 1:
        _regressor(n, held, end - 1, memory, at + offsets[end - 1], centre, share, most, active, activity[end - 1])


@inlined
def _flagged(n: int, held: Any, row: int, memory: Any, at: int, flag: int, centre: Any, most: Any, active: Any,
             weight: Any) -> None:  # fmt: skip
    begin = row * LANES
    for i in range(n):
        x = (memory[u(at + i)] - centre[i]) * memory[u(flag + i)]
        x = most if x > most else x
        x = -most if x < -most else x
        held[u(begin + i)] = x
        active[i] += weight * abs(x)


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


@inlined
def _predict(n: int, at: int, memory: Any, held: Any, centre: Any, active: Any, sums: Any, chosen: Any, offsets: Any,
             flag_offsets: Any, values: int, near: Any, weights: Any, activity: Any, thresholds: Any, most: Any,
             later: bool, begin: int, predicted: Any, level: Any, fraction: int) -> None:  # fmt: skip
    """Fill in p and t of `n` values from `begin` on, whose addresses begin at `at` and lie side by side."""
    regressors = len(offsets)
    one, none = np.float32(1), np.float32(0)
    _fill(n, active, activity[regressors])
    if later:
        middle = values + 4
        _load(n, centre, memory, at + offsets[middle])
        _regressors(held, n, 0, values, memory, at, offsets, centre, none, most, active, activity)
        _regressors(held, n, values, middle, memory, at, offsets, centre, one, most, active, activity)
        _regressors(held, n, middle + 1, regressors, memory, at, offsets, centre, one, most, active, activity)
        row, weight = middle * LANES, activity[middle]
        for i in range(n):
            x = np.floor(centre[i] * np.float32(0.0625))
            x = most if x > most else x
            x = -most if x < -most else x
            held[u(row + i)] = x
            active[i] += weight * abs(x)
    else:
        _fill(n, centre, none)
        for k in range(len(near)):
            _add_memory(n, centre, memory, at + offsets[near[k]], one)
        if len(flag_offsets):
            _fill(n, sums, none)
            for k in range(len(near)):
                _add_memory(n, sums, memory, at + flag_offsets[near[k]], one)
            for i in range(n):
                centre[i] = np.floor(centre[i] / max(sums[i], one))
            for k in range(values):
                _flagged(n, held, k, memory, at + offsets[k], at + flag_offsets[k], centre, most, active, activity[k])
        else:
            share = np.float32(len(near))
            for i in range(n):
                centre[i] = np.floor(centre[i] / share)
            _regressors(held, n, 0, values, memory, at, offsets, centre, one, most, active, activity)
    sets = len(thresholds) + 1
    lowest, highest = 0, 0
    if sets > 1:
        for i in range(n):
            chosen[i] = 0
        for s in range(sets - 1):
            edge = thresholds[s]
            for i in range(n):
                chosen[i] += np.int32(edge < active[i])
        lowest, highest = sets, 0
        for i in range(n):
            lowest, highest = min(lowest, chosen[i]), max(highest, chosen[i])
    for s in range(lowest, highest + 1):
        w = weights[s]
        _fill(n, sums, w[regressors])
        for k in range(0, regressors, GROUP):
            # Behind the regressors stand zeros, which the constant's weight finds too.
            _add_group(n, sums, held, k, w[k], w[k + 1], w[k + 2], w[k + 3], w[k + 4], w[k + 5], w[k + 6], w[k + 7])
        for i in range(n):
            if lowest == highest or chosen[i] == s:
                predicted[begin + i] = (np.int32(centre[i]) << fraction) + np.int32(sums[i])
    for i in range(n):
        level[begin + i] = active[i]


@compiled(
    "int64(float32[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], float32[:,:,::1], float32[::1],"
    " float32[::1], float32[::1], float32[::1], int64[::1], int64[::1], int64[::1], int64[::1], int32[::1],"
    " int64[::1], uint16[::1], uint16[::1], int16[::1], uint32[::1], uint32[::1], uint16[::1], uint32[::1],"
    " uint16[::1], uint8[::1], int32[::1], int64[::1])"
)
def decode_block(memory: Any, geometry: Any, offsets: Any, error_offsets: Any, flag_offsets: Any, near: Any,
                 weights: Any, activity: Any, thresholds: Any, error_weights: Any, flag_weights: Any, row_numbers: Any,
                 column_numbers: Any, numbers: Any, tables: Any, shifts: Any, firsts: Any, buckets: Any, starts: Any,
                 symbols: Any, ones: Any, states: Any, words: Any, flag_states: Any, flag_words: Any, low_data: Any,
                 escapes: Any, cursor: Any) -> int:  # fmt: skip
    """Decode the values of a block.

    Parameters
    ----------
    memory : ndarray of float32
        All arrays of the block, one after the other, each as `planes.Padded` holds it.
    geometry : ndarray of int64, shape (9,)
        Rows, columns, planes; numbers to the next row and to the next column; address of the first value, of the
        arrays of values, errors and flags.
    offsets : ndarray of int64, shape (regressors,)
        From the address of a value to each regressor.
    error_offsets, flag_offsets : ndarray of int64
        Likewise to errors, and to the flags of the regressors that are values; none where there are no flags.
    near : ndarray of int64
        Regressors whose mean is the centre.
    weights : ndarray of float32, shape (regions, sets, regressors + 1, filled up with zeros)
    activity : ndarray of float32, likewise
    thresholds, error_weights : ndarray of float32
    flag_weights : ndarray of float32
        One more than flags: the constant.
    row_numbers, column_numbers : ndarray of int64
        What a row and a column add to the number of a region.
    numbers : ndarray of int64, shape (7,)
        Fraction, largest regressor, scale, low, high, regressors that are values, whether there is a base.
    tables : ndarray of int64, shape (256,)
    shifts : ndarray of int32, shape (64,)
    firsts : ndarray of int64, shape (tables,)
        Where the symbols of each table begin.
    buckets : ndarray of uint16, shape (tables * 2^14 / 2^BUCKET_BITS,)
        Which symbol of its table the first slot of each bucket of slots belongs to.
    starts, symbols : ndarray of uint16 and int16
        First slots of the symbols of each table, and one more, 2^14; and what they stand for.
    ones : ndarray of uint32, shape (32,)
    states, words, flag_states, flag_words : ndarray
        Of the two streams; states are updated. Behind `words` stands one more.
    low_data : ndarray of uint8
        Low bits, and some zero bytes more.
    escapes : ndarray of int32
    cursor : ndarray of int64, shape (7,)
        Next word, next lane, the same of flags, next low bit, number of low bits, next escape; updated.

    Returns
    -------
    int
        `OK`, or what is wrong.
    """
    rows, columns, planes, down, across = geometry[0], geometry[1], geometry[2], geometry[3], geometry[4]
    origin, own, error, flag = geometry[5], geometry[6], geometry[7], geometry[8]
    fraction, scale, low, high = numbers[0], numbers[2], np.int64(numbers[3]), np.int64(numbers[4])
    most, later, zeros = np.float32(numbers[1]), numbers[6] != 0, len(flag_offsets) > 0
    values = numbers[5]
    along = down - 2 * across
    half, quarter = 1 << (fraction - 1), fraction - 2
    held = np.zeros((activity.size + GROUP) * LANES, np.float32)
    centre, active, sums = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    chosen = np.zeros(LANES, np.int32)
    wide = min(planes, _AT_ONCE)
    at_once = max(1, _AT_ONCE // wide)
    predicted, level = np.empty(_AT_ONCE, np.int32), np.empty(_AT_ONCE, np.float32)
    middle, expected = np.zeros(_AT_ONCE, np.float32), np.empty(_AT_ONCE, np.float32)
    bits = expected.view(np.int32)
    place_of, address = np.empty(_AT_ONCE, np.int32), np.empty(_AT_ONCE, np.int64)
    live, found = np.empty(_AT_ONCE, np.int32), np.empty(_AT_ONCE, np.int32)
    place, lane, flag_place, flag_lane = cursor[0], cursor[1], cursor[2], cursor[3]
    bit, end, escaped = cursor[4], cursor[5], cursor[6]
    lanes, flag_lanes, last_word = len(states), len(flag_states), len(words) - 1
    edge = np.float32(_CLASS_STEP)
    for step in range(columns + 2 * (rows - 1)):
        begin, stop = max(0, (step - columns + 2) // 2), min(rows - 1, step // 2) + 1
        for row in range(begin, stop, at_once):
            count = min(at_once, stop - row)
            for plane in range(0, planes, wide):
                width = min(wide, planes - plane)
                first = origin + row * down + (step - 2 * row) * across + plane
                total = count * width
                # The pieces of a step that lie side by side and have one region.
                r = 0
                while r < count:
                    region = row_numbers[row + r] + column_numbers[step - 2 * (row + r)]
                    until = r + 1
                    if along == width:
                        while (until < count and row_numbers[row + until]
                               + column_numbers[step - 2 * (row + until)] == region):  # fmt: skip
                            until += 1
                    length = (until - r) * width
                    for p in range(0, length, LANES):
                        n = min(LANES, length - p)
                        at, i0 = first + r * along + p, r * width + p
                        if zeros:
                            _fill(n, sums, flag_weights[len(flag_offsets)])
                            for k in range(0, len(flag_offsets), 4):
                                _add_four(n, sums, memory, at, flag_offsets, flag_weights, k)
                            for i in range(n):
                                level[i0 + i] = sums[i]
                        for i in range(n):
                            address[i0 + i] = at + i
                    r = until
                many = total
                if zeros:
                    many = 0
                    for i in range(total):
                        kind = 0
                        for e in range(-15, 16):
                            kind += edge * np.float32(e) < level[i]
                        share = ones[kind]
                        x = flag_states[flag_lane]
                        slot, over = x & np.uint32((1 << _PRECISION) - 1), x >> np.uint32(_PRECISION)
                        if slot < share:
                            x = share * over + slot
                            live[many] = i
                            many += 1
                        else:
                            x = (np.uint32(1 << _PRECISION) - share) * over + slot - share
                        if x < np.uint32(1 << 16):
                            if flag_place >= len(flag_words):
                                return FLAGS_END
                            x = x << np.uint32(16) | np.uint32(flag_words[flag_place])
                            flag_place += 1
                        flag_states[flag_lane] = x
                        flag_lane += 1
                        if flag_lane == flag_lanes:
                            flag_lane = 0
                    if many == 0:
                        continue
                    for j in range(many):
                        memory[flag + address[live[j]]] = np.float32(1)
                else:
                    for i in range(total):
                        live[i] = i
                r = 0
                while r < count:
                    region = row_numbers[row + r] + column_numbers[step - 2 * (row + r)]
                    until = r + 1
                    if along == width:
                        while (until < count and row_numbers[row + until]
                               + column_numbers[step - 2 * (row + until)] == region):  # fmt: skip
                            until += 1
                    length = (until - r) * width
                    for p in range(0, length, LANES):
                        n = min(LANES, length - p)
                        at, i0 = first + r * along + p, r * width + p
                        _predict(n, at, memory, held, centre, active, sums, chosen, offsets, flag_offsets, values, near,
                                 weights[region], activity, thresholds, most, later, i0, predicted, level,
                                 fraction)  # fmt: skip
                        _fill(n, sums, np.float32(0))
                        for k in range(0, len(error_offsets), 4):
                            _add_four(n, sums, memory, at, error_offsets, error_weights, k)
                        for i in range(n):
                            t = np.int64(min(level[i0 + i], np.float32(1 << 20)))
                            expected[i0 + i] = np.float32((t * scale >> 6) + np.int64(sums[i]))
                            middle[i0 + i] = centre[i]
                    r = until
                for i in range(total):
                    context = max((bits[i] >> 21) - _FIRST, 0)
                    phase = ((np.int64(predicted[i]) + half) >> quarter) & 3
                    place_of[i] = min(context, 63) * 4 + phase
                for j in range(many):
                    table = u(tables[u(place_of[u(live[u(j)])])])
                    x = states[u(lane)]
                    slot = x & np.uint32((1 << _PRECISION) - 1)
                    # The first symbol of the bucket of the slot, and on from there: two steps without branches, since
                    # processors cannot guess them, then those that are seldom taken. The end of a table stops all.
                    at = u(firsts[table]) + u(buckets[table * u(1 << (_PRECISION - BUCKET_BITS)) + u(slot >> _BUCKET)])
                    at += u(slot >= starts[at + u(1)])
                    at += u(slot >= starts[at + u(1)])
                    while slot >= starts[at + u(1)]:
                        at += u(1)
                    base = starts[at]
                    x = np.uint32(starts[at + u(1)] - base) * (x >> np.uint32(_PRECISION)) + slot - base
                    # Whether a word is needed cannot be guessed either, so one is always looked at.
                    fewer = u(x < np.uint32(1 << 16))
                    word = u(words[u(min(place, last_word))])
                    states[u(lane)] = x << (fewer << u(4)) | word * fewer
                    place += np.int64(fewer)
                    lane += 1
                    if lane == lanes:
                        lane = 0
                    found[u(j)] = symbols[at]
                if place > last_word:
                    return WORDS_END
                bad = False
                for j in range(many):
                    bad |= found[j] == _UNUSED
                if bad:
                    return UNUSED_CONTEXT
                fault = OK
                for j in range(many):
                    i = u(live[u(j)])
                    p = np.int64(predicted[i])
                    value = min(max((p + half) >> fraction, low), high)
                    symbol = np.int64(found[u(j)])
                    if symbol >= _ESCAPE:
                        if escaped >= len(escapes):
                            # Low bits of the same step that end early come first.
                            fault = TOO_FEW_ESCAPES
                            continue
                        value = np.int64(escapes[escaped])
                        escaped += 1
                    else:
                        shift = np.int64(shifts[u(place_of[i] >> 2)])
                        if shift:
                            if bit + shift > end:
                                return BITS_END
                            b = u(bit >> 3)
                            whole = (
                                np.int64(low_data[b]) | np.int64(low_data[b + 1]) << 8 | np.int64(low_data[b + 2]) << 16
                            )
                            part = (whole >> (bit & 7)) & ((1 << shift) - 1)
                            bit += shift
                            symbol = (symbol << shift) + part - (1 << shift >> 1)
                        value = min(max(value + symbol, low), high)
                    at = address[i]
                    memory[u(own + at)] = np.float32(value - np.int64(middle[i]) if later else value)
                    memory[u(error + at)] = np.float32(min(abs((value << fraction) - p) >> quarter, _MOST_ERROR))
                if fault != OK:
                    return fault
    cursor[0], cursor[1], cursor[2], cursor[3] = place, lane, flag_place, flag_lane
    cursor[4], cursor[6] = bit, escaped
    return OK


@compiled("void(float32[::1], int64, int64, int64, float32[::1], int64, int64, int64)")
def spread(memory: Any, first: int, down: int, across: int, planes: Any, count: int, rows: int, columns: int) -> None:
    """Put planes (count, rows, columns) into a padded array whose first value, next row and next column these are.

    Squares of planes and columns at a time, so that lines of the cache are used whole.
    """
    for r in range(rows):
        for begin in range(0, columns, _SIDE):
            for some in range(0, count, _SIDE):
                until = min(some + _SIDE, count)
                for c in range(begin, min(begin + _SIDE, columns)):
                    at, place = first + r * down + c * across, r * columns + c
                    for p in range(some, until):
                        memory[u(at + p)] = planes[u(p * rows * columns + place)]


@compiled("void(float32[::1], int64, int64, int64, float32[::1], int64, int64, int64)")
def collect(memory: Any, first: int, down: int, across: int, planes: Any, count: int, rows: int, columns: int) -> None:
    """Take planes out of a padded array; the inverse of `spread`."""
    for r in range(rows):
        for begin in range(0, columns, _SIDE):
            for some in range(0, count, _SIDE):
                stop = min(begin + _SIDE, columns)
                for p in range(some, min(some + _SIDE, count)):
                    at, place = first + r * down + p, (p * rows + r) * columns
                    for c in range(begin, stop):
                        planes[u(place + c)] = memory[u(at + c * across)]
