"""Loops of chunk mode transform (specification sections 14.3 to 14.8), compiled.

All is integer arithmetic, or float64 and float32 that hold integers exactly: the results are those of the numpy path.
numba does not check indices. Every one here comes from loop bounds that the shapes of the arguments give, or is tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

u = np.uint64
"""Indices are unsigned where it matters: numba looks at the sign of others, which may count from the end."""

OK, WORDS_END, BITS_END, TOO_MANY_ZEROS, TOO_LARGE = range(5)
"""What `decode_subband` may return."""

_FLAG_BITS, _SIZE_BITS, _SIZES, _CONTEXTS = 16, 12, 18, 64
_NEXT = np.array([0, 2, 2, 0, 4, 6, 6, 4, 5, 7, 7, 5, 1, 3, 3, 1], np.int64)
"""As `transform.trellis.NEXT`, one state after the other."""
_INCREMENT, _MOST_COUNTS = 64, 64 << 11
_ESCAPE, _ORDER = 17, 2
_FIRST = (127 + 5) << 2
_CLIP = 255
_WIDE = 1 << 10
"""Columns that are lifted together."""
_LOOKUP_FROM = 4096
"""Values from which a table of all slots is worth making."""


@inlined
def _any_face(rows: Any, number: int, down: int) -> bool:
    """Return whether a row or one of the four around it is marked."""
    return (rows[number] | rows[number - 1] | rows[number + 1] | rows[number - down] | rows[number + down]) != 0


@inlined
def _clear_row(n: int, sums: Any, weight: int) -> None:
    for i in range(n):
        sums[i] = weight


@inlined
def _add_faces(n: int, sums: Any, a: Any, own: int, left: int, ys: int, zs: int, w_own: int, w_faces: int) -> None:
    """Add what the values of another subband at the positions and their six neighbours say."""
    for i in range(n):
        at, beside = own + i, left + i
        faces = (
            np.int32(a[u(beside)])
            + np.int32(a[u(beside + 1)])
            + np.int32(a[u(at - ys)])
            + np.int32(a[u(at + ys)])
            + np.int32(a[u(at - zs)])
            + np.int32(a[u(at + zs)])
        )
        sums[i] += np.int32(w_own) * np.int32(a[u(at)]) + np.int32(w_faces) * faces


@inlined
def _add_step1(n: int, sums: Any, a: Any, own: int, left: int, ys: int, zs: int, wx: int, w_edges: int) -> None:
    for i in range(n):
        at, beside = own + i, left + i
        x = np.int32(a[u(beside)]) + np.int32(a[u(beside + 1)])
        edges = (
            np.int32(a[u(at - zs - ys)])
            + np.int32(a[u(at - zs + ys)])
            + np.int32(a[u(at + zs - ys)])
            + np.int32(a[u(at + zs + ys)])
        )
        sums[i] += np.int32(wx) * x + np.int32(w_edges) * edges


@inlined
def _add_step2(n: int, sums: Any, a: Any, own: int, left: int, ys: int, zs: int, wz: int, wy: int,
               w_edges: int) -> None:  # fmt: skip
    for i in range(n):
        at, beside = own + i, left + i
        y = np.int32(a[u(at - ys)]) + np.int32(a[u(at + ys)])
        z = np.int32(a[u(at - zs)]) + np.int32(a[u(at + zs)])
        edges = (
            np.int32(a[u(beside - ys)])
            + np.int32(a[u(beside - ys + 1)])
            + np.int32(a[u(beside + ys)])
            + np.int32(a[u(beside + ys + 1)])
            + np.int32(a[u(beside - zs)])
            + np.int32(a[u(beside - zs + 1)])
            + np.int32(a[u(beside + zs)])
            + np.int32(a[u(beside + zs + 1)])
        )
        sums[i] += np.int32(wz) * z + np.int32(wy) * y + np.int32(w_edges) * edges


@inlined
def _contexts_of(n: int, sums: Any, singles: Any, bits: Any, row: Any) -> None:
    """Turn sums below 2^24 into contexts: exponent and two fraction bits of the number as float32, as numpy does."""
    for i in range(n):
        singles[i] = np.float32(sums[i])
    for i in range(n):
        place = (bits[i] >> np.int32(21)) - np.int32(_FIRST)
        place = max(place, np.int32(0))
        row[i] = np.uint8(min(place, np.int32(_CONTEXTS - 1)))


@inlined
def _forget(counts: Any) -> None:
    for row in range(counts.shape[0]):
        while True:
            total = 0
            for j in range(counts.shape[1]):
                total += counts[row, j]
            if total <= _MOST_COUNTS:
                break
            for j in range(counts.shape[1]):
                counts[row, j] = (counts[row, j] + 1) >> 1


@inlined
def _starts_of_sizes(sizes: Any, starts: Any) -> None:
    """Fill in where each size of each context begins, of 2^12; one more is the end."""
    for context in range(_CONTEXTS):
        total, most = 0, 0
        for j in range(_SIZES):
            total += sizes[context, j]
            if sizes[context, j] > sizes[context, most]:
                most = j
        rest = 1 << _SIZE_BITS
        for j in range(_SIZES):
            rest -= 1 + sizes[context, j] * ((1 << _SIZE_BITS) - _SIZES) // total
        begin = 0
        for j in range(_SIZES):
            starts[context, j] = begin
            begin += 1 + sizes[context, j] * ((1 << _SIZE_BITS) - _SIZES) // total
            if j == most:
                begin += rest
        starts[context, _SIZES] = begin


@inlined
def _number(data: Any, position: int, width: int) -> int:
    """Return `width` (at most 25) bits; seven zero bytes stand behind the data."""
    at = position >> 3
    whole = (
        np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    )
    return (whole >> (position & 7)) & ((1 << width) - 1)


@compiled(
    "int64(int32[::1], int64[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], uint16[::1], uint8[::1],"
    " int64[:,::1], int64[::1], int64[:,::1], int64[:,::1], uint32[::1], uint16[::1], uint8[::1], int64[::1])"
)
def decode_subband(out: Any, shape: Any, coded: Any, inside: Any, parent: Any, parent_rows: Any, beside: Any,
                   beside_rows: Any, weights: Any, axes: Any, flags: Any, sizes: Any, states: Any, words: Any,
                   data: Any, cursor: Any) -> int:  # fmt: skip
    """Decode the magnitudes of a subband, pass after pass.

    Parameters
    ----------
    out : ndarray of int32, shape (components * z * y * x,)
        Zeros; magnitudes are filled in.
    shape : ndarray of int64, shape (4,)
        Components, slices, rows, columns.
    coded : ndarray of uint8, of the size of `out`
        Zeros; clipped magnitudes are filled in.
    inside : ndarray of uint8, of the size that `room` gives
        Zeros; clipped magnitudes with one more place on each side, even and odd columns of a row apart.
    parent, beside : ndarray of uint8 and uint16, as `inside`; empty where there are none
        Magnitudes of the parents, sums of those of the siblings.
    parent_rows, beside_rows : ndarray of uint8, shape (components * (z + 2) * (y + 2),)
        Which rows of these are not all zeros.
    weights : ndarray of int64, shape (4, 9)
        Of the kind of the subband.
    axes : ndarray of int64, shape (3,)
        Which of them the subband is a high pass of.
    flags, sizes : ndarray of int64, shape (64, 2) or, with a trellis, (128, 2), and (64, 18)
        Counts of the model; updated.
    states, words : ndarray of uint32 and uint16
        Of the stream; states are updated. Behind the words stands one more.
    data : ndarray of uint8
        Bits, and seven zero bytes more.
    cursor : ndarray of int64, shape (5,)
        Next word, next lane, next bit, number of bits, state of the trellis; updated.

    Returns
    -------
    int
        `OK`, or what is wrong.
    """
    components, depth, height, width = shape[0], shape[1], shape[2], shape[3]
    half = (width + 3) // 2 + 1
    ys = 2 * half
    zs = (height + 2) * ys
    lanes, total_words, end = len(states), len(words) - 1, cursor[3]
    place, lane, bit, state = cursor[0], cursor[1], cursor[2], cursor[4] & 7
    rows, trellis = len(flags), len(flags) == 2 * _CONTEXTS
    longest = (width + 1) // 2
    sums, singles = np.empty(longest, np.int32), np.empty(longest, np.float32)
    bits, row = singles.view(np.int32), np.empty(longest, np.uint8)
    rows_inside = np.zeros(components * (depth + 2) * (height + 2), np.uint8)
    most = components * ((depth + 1) // 2) * ((height + 1) // 2) * ((width + 1) // 2) * 2 + 1
    live_at, live_inside, live_row = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    live_context, live_size = np.empty(most, np.uint8), np.empty(most, np.int32)
    live_second = np.zeros(most if trellis else 1, np.uint8)
    counted, share = np.zeros((2 * _CONTEXTS, 2), np.int64), np.empty(2 * _CONTEXTS, np.uint32)
    starts = np.empty((_CONTEXTS, _SIZES + 1), np.uint32)
    lookup = np.empty((1, 1), np.uint8)
    for step in range(4):
        w = weights[step]
        constant = np.int32(w[8])
        wz, wy, wx = (16 * (w[0] if axes[0] else w[1]), 16 * (w[0] if axes[1] else w[1]),
                      16 * (w[0] if axes[2] else w[1]))  # fmt: skip
        w_edges = 16 * w[2]
        with_parent = len(parent) > 0 and (w[4] != 0 or w[5] != 0)
        with_beside = len(beside) > 0 and (w[6] != 0 or w[7] != 0)
        counted[:] = 0
        for context in range(rows):
            part = (flags[context, 1] << _FLAG_BITS) // (flags[context, 0] + flags[context, 1])
            share[context] = min(max(part, 1), (1 << _FLAG_BITS) - 1)
        live = 0
        for second in range(2):
            # (0,0,0) (1,1,1) | (1,1,0) (0,0,1) | (1,0,1) (0,1,0) | (0,1,1) (1,0,0)
            pz = second if step == 0 else (1 - second if step < 3 else second)
            py = second if step == 0 else (1 - second if step == 1 else (second if step == 2 else 1 - second))
            px = second if step < 2 else 1 - second
            n = (width - px + 1) // 2
            if n <= 0:
                continue
            for c in range(components):
                for z in range(pz, depth, 2):
                    for y in range(py, height, 2):
                        number = (c * (depth + 2) + z + 1) * (height + 2) + y + 1
                        at = number * ys
                        own, left = at + (1 - px) * half + px, at + px * half
                        known = False
                        if step:
                            for dz in range(-1, 2):
                                first = number + dz * (height + 2)
                                known |= (rows_inside[first - 1] | rows_inside[first] | rows_inside[first + 1]) != 0
                        over = below = False
                        if with_parent:
                            over = _any_face(parent_rows, number, height + 2)
                        if with_beside:
                            below = _any_face(beside_rows, number, height + 2)
                        _clear_row(n if known or over or below else 1, sums, constant)
                        if known:
                            if step == 1:
                                _add_step1(n, sums, inside, own, left, ys, zs, wx, w_edges)
                            elif step == 2:
                                _add_step2(n, sums, inside, own, left, ys, zs, wz, wy, w_edges)
                            else:
                                _add_step1(n, sums, inside, own, left, ys, zs, wx, w_edges)
                                _add_step2(n, sums, inside, own, left, ys, zs, wz, wy, w_edges)
                        if over:
                            _add_faces(n, sums, parent, own, left, ys, zs, 16 * w[4], 16 * w[5])
                        if below:
                            _add_faces(n, sums, beside, own, left, ys, zs, 16 * w[6], 16 * w[7])
                        if known or over or below:
                            _contexts_of(n, sums, singles, bits, row)
                        else:
                            _contexts_of(1, sums, singles, bits, row)
                            row[1:n] = row[0]
                        flat = ((c * depth + z) * height + y) * width + px
                        for i in range(n):
                            context = row[u(i)]
                            x = states[u(lane)]
                            count = share[u(context)]
                            slot, high = x & np.uint32(0xFFFF), x >> np.uint32(16)
                            # Without branches: in noise a flag is a toss-up.
                            one = np.int64(slot < count)
                            counted_row = np.int64(context)
                            if trellis:
                                other, second = share[u(context + _CONTEXTS)], state >> 2
                                live_second[u(live)] = second
                                one = np.int64(slot < other) if second else one
                                count = other if second else count
                                counted_row += second * _CONTEXTS
                                state = _NEXT[u(2 * state + one)]
                            zero = np.uint32(one) - np.uint32(1)  # all bits set where the flag is not
                            x = (count ^ (zero & (count ^ (np.uint32(1 << _FLAG_BITS) - count)))) * high + slot
                            x -= zero & count
                            live_at[u(live)], live_inside[u(live)] = flat + 2 * i, own + i
                            live_row[u(live)], live_context[u(live)] = number, context
                            live += one
                            counted[u(counted_row), u(one)] += 1
                            if x < np.uint32(1 << 16):
                                if place >= total_words:
                                    return WORDS_END
                                x = x << np.uint32(16) | np.uint32(words[u(place)])
                                place += 1
                            states[u(lane)] = x
                            lane += 1
                            if lane == lanes:
                                lane = 0
        for context in range(rows):
            flags[context, 0] += _INCREMENT * counted[context, 0]
            flags[context, 1] += _INCREMENT * counted[context, 1]
        _forget(flags)
        if live == 0:
            continue
        _starts_of_sizes(sizes, starts)
        tabled = live >= _LOOKUP_FROM
        if tabled:
            if lookup.size == 1:
                lookup = np.empty((_CONTEXTS, 1 << _SIZE_BITS), np.uint8)
            for context in range(_CONTEXTS):
                if counted[context, 1] or counted[_CONTEXTS + context, 1]:
                    for j in range(_SIZES):
                        lookup[context, starts[context, j] : starts[context, j + 1]] = j
        escaped, lows = 0, False
        for k in range(live):
            context = u(live_context[u(k)])
            x = states[u(lane)]
            slot = x & np.uint32((1 << _SIZE_BITS) - 1)
            if tabled:
                size = np.int64(lookup[context, u(slot)])
            else:
                size = 0
                while slot >= starts[context, u(size + 1)]:
                    size += 1
            begin = starts[context, u(size)]
            x = (starts[context, u(size + 1)] - begin) * (x >> np.uint32(_SIZE_BITS)) + slot - begin
            # Whether a word is needed cannot be guessed, so one is always looked at.
            fewer = u(x < np.uint32(1 << 16))
            word = u(words[u(min(place, total_words))])
            states[u(lane)] = x << (fewer << u(4)) | word * fewer
            place += np.int64(fewer)
            lane += 1
            if lane == lanes:
                lane = 0
            live_size[u(k)] = size
            escaped += size == _ESCAPE
            lows |= context >= u(44)
        if place > total_words:
            return WORDS_END
        for k in range(live):
            sizes[live_context[k], live_size[k]] += _INCREMENT
        _forget(sizes)
        if escaped:
            # How many 0 stand in front of each 1, of all escapes; then what follows, of all escapes.
            most_zeros = 21
            begin = bit >> 3
            until = min(8 * (begin + 1 - (-escaped * (most_zeros + 2) // 8)), end)
            zeros, found, many = np.empty(escaped, np.uint8), 0, False
            run = 0
            while bit < until and found < escaped:
                if (data[bit >> 3] >> (bit & 7)) & 1:
                    many |= run > most_zeros
                    zeros[found] = min(run, 255)
                    found += 1
                    run = 0
                else:
                    run += 1
                bit += 1
            if found < escaped:
                return BITS_END
            if many:
                return TOO_MANY_ZEROS
            found = 0
            for k in range(live):
                if live_size[k] == _ESCAPE:
                    bits_of = np.int64(zeros[found]) + _ORDER
                    found += 1
                    if bit + bits_of > end:
                        return BITS_END
                    live_size[k] += _number(data, bit, bits_of) + (1 << bits_of) - (1 << _ORDER)
                    bit += bits_of
        for k in range(live):
            magnitude = np.int64(live_size[k])
            low = max((np.int64(live_context[k]) >> 2) - 10, 0)
            if lows and low:
                if bit + low > end:
                    return BITS_END
                magnitude = (magnitude << low) + _number(data, bit, low)
                bit += low
            live_size[k] = magnitude + 1
        for k in range(live):
            magnitude = live_size[k]
            if magnitude > 1 << 24:
                return TOO_LARGE
            clipped = np.uint8(min(magnitude, _CLIP))
            out[live_at[k]] = 2 * magnitude - live_second[k] if trellis else magnitude
            coded[live_at[k]] = clipped
            inside[live_inside[k]] = clipped
            rows_inside[live_row[k]] = 1
    cursor[0], cursor[1], cursor[2], cursor[4] = place, lane, bit, state
    return OK


@compiled("void(uint8[::1], int64[::1], uint8[:,:,:,::1], int64[::1], uint8[::1])")
def spread(target: Any, shape: Any, parent: Any, halved: Any, rows: Any) -> None:
    """Fill in the parent of each position, where there is one.

    Parameters
    ----------
    target : ndarray of uint8
        Zeros, as `inside` of `decode_subband`.
    shape : ndarray of int64, shape (4,)
    parent : ndarray of uint8, shape (components, z, y, x)
    halved : ndarray of int64, shape (3,)
        1 for each axis that the parent is half as long along, else 0.
    rows : ndarray of uint8
        Zeros; 1 is filled in for rows that are not all zeros.
    """
    components, depth, height, width = min(shape[0], parent.shape[0]), shape[1], shape[2], shape[3]
    half = (width + 3) // 2 + 1
    for c in range(components):
        for z in range(depth):
            z_of = min(z >> halved[0], parent.shape[1] - 1)
            for y in range(height):
                y_of = min(y >> halved[1], parent.shape[2] - 1)
                number = (c * (depth + 2) + z + 1) * (height + 2) + y + 1
                line = parent[c, z_of, y_of]
                some = np.uint8(0)
                for x in range(len(line)):
                    some |= line[x]
                if some == 0:
                    continue
                rows[number] = 1
                even, odd = number * 2 * half, (2 * number + 1) * half
                for x in range(width):
                    value = line[min(x >> halved[2], len(line) - 1)]
                    target[(even if x & 1 else odd) + (x + 1) // 2] = value


@compiled("void(uint16[::1], int64[::1], uint8[:,:,:,::1], uint8[::1])")
def add_sibling(target: Any, shape: Any, sibling: Any, rows: Any) -> None:
    """Add the magnitudes of a sibling, as `spread` does: cut where it is longer, its last place repeated beyond it."""
    components, depth, height, width = min(shape[0], sibling.shape[0]), shape[1], shape[2], shape[3]
    half = (width + 3) // 2 + 1
    for c in range(components):
        for z in range(depth):
            z_of = min(z, sibling.shape[1] - 1)
            for y in range(height):
                number = (c * (depth + 2) + z + 1) * (height + 2) + y + 1
                line = sibling[c, z_of, min(y, sibling.shape[2] - 1)]
                some = np.uint8(0)
                for x in range(len(line)):
                    some |= line[x]
                if some == 0:
                    continue
                rows[number] = 1
                even, odd, last = number * 2 * half, (2 * number + 1) * half, len(line) - 1
                some_of = min(width, len(line)) // 2
                for i in range(some_of):
                    target[u(odd + i)] += line[2 * i]
                    target[u(even + i + 1)] += line[2 * i + 1]
                for x in range(2 * some_of, width):
                    target[(even if x & 1 else odd) + (x + 1) // 2] += line[min(x, last)]


@compiled("int64(int32[::1], uint8[::1], int64)")
def sign(values: Any, bits: Any, begin: int) -> int:
    """Make magnitudes negative whose bit is 1, one bit for each that is not 0; return the place of the next bit.

    There must be as many bits, and one more.
    """
    for i in range(len(values)):
        # Without branches: signs are toss-ups.
        value = values[i]
        values[i] = value * (1 - 2 * np.int32(bits[begin]))
        begin += np.int64(value != 0)
    return begin


@compiled("int64(int32[::1])")
def count_live(values: Any) -> int:
    """Return how many values are not 0."""
    count = 0
    for i in range(len(values)):
        count += values[i] != 0
    return count


@inlined
def _dequantise_row(n: int, target: Any, begin: int, values: Any, numbers: Any) -> None:
    """Fill in coefficients in internal units (section 14.7), in the float64 arithmetic of the numpy path."""
    gain, bias_of_one, bias, unit = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(n):
        value = np.float64(values[i])
        magnitude = abs(value)
        units = (magnitude * unit + (bias if magnitude > 1.0 else bias_of_one)) * gain
        number = np.floor((units + 64.0) * 2.0**-7)
        number = number if value > 0.0 else -number
        target[u(begin + i)] = number if value != 0.0 else 0.0


@inlined
def _copy(n: int, target: Any, begin: int, source: Any) -> None:
    for i in range(n):
        target[u(begin + i)] = source[i]


@inlined
def _clear(n: int, target: Any, begin: int) -> None:
    for i in range(n):
        target[u(begin + i)] = 0.0


@inlined
def _lift(n: int, target: Any, begin: int, source: Any, first: int, factor: float) -> None:
    """Subtract what two neighbours say, which stand side by side in `source`."""
    for i in range(n):
        at = first + i
        both = source[u(at)] + source[u(at + 1)]
        target[u(begin + i)] -= np.floor(both * factor + 0.5)


@inlined
def _lift_line(n: int, target: Any, one: Any, other: Any, factor: float) -> None:
    for i in range(n):
        target[i] -= np.floor((one[i] + other[i]) * factor + 0.5)


@inlined
def _exceeds(n: int, values: Any, most: float) -> bool:
    bad = False
    for i in range(n):
        bad |= abs(values[i]) >= most
    return bad


@inlined
def _weave(n: int, out: Any, even: Any, odd: Any) -> None:
    for i in range(n):
        out[2 * i] = even[i]
        out[2 * i + 1] = odd[u(i + 1)]


@inlined
def _join_line(line: Any, m: int, n: int, even: Any, odd: Any, high: bool, factors: Any, most: float) -> bool:
    """Undo the halving of one row: `even` holds m numbers and one place more, `odd` a place, n numbers, a place."""
    if high:
        odd[0], odd[n + 1] = odd[1], odd[n]
        _lift(m, even, 0, odd, 0, factors[3])
    even[m] = even[m - 1]
    _lift(n, odd, 1, even, 0, factors[2])
    odd[0], odd[n + 1] = odd[1], odd[n]
    _lift(m, even, 0, odd, 0, factors[1])
    even[m] = even[m - 1]
    _lift(n, odd, 1, even, 0, factors[0])
    if _exceeds(m, even, most) or _exceeds(n, odd[1:], most):
        return False
    _weave(n, line, even, odd)
    if m > n:
        line[2 * n] = even[n]
    return True


@inlined
def _roll(i: int, m: int, n: int, out: Any, begin: int, size: int, high: bool, factors: Any, most: float) -> bool:
    """Lift what can be lifted once line i of both halves lies in its place in `out`, so that all stays in the cache.

    A line is final three lines later; i runs to m + 1.
    """
    if i < m and high:
        _lift_line(size, out[2 * i, begin:], out[2 * max(i - 1, 0) + 1, begin:], out[2 * min(i, n - 1) + 1, begin:],
                   factors[3])  # fmt: skip
    j = i - 1
    if 0 <= j < n:
        _lift_line(size, out[2 * j + 1, begin:], out[2 * j, begin:], out[2 * min(j + 1, m - 1), begin:], factors[2])
    if 0 <= j < m:
        _lift_line(size, out[2 * j, begin:], out[2 * max(j - 1, 0) + 1, begin:], out[2 * min(j, n - 1) + 1, begin:],
                   factors[1])  # fmt: skip
        if _exceeds(size, out[2 * j, begin:], most):
            return False
    k = i - 2
    if 0 <= k < n:
        _lift_line(size, out[2 * k + 1, begin:], out[2 * k, begin:], out[2 * min(k + 1, m - 1), begin:], factors[0])
        if _exceeds(size, out[2 * k + 1, begin:], most):
            return False
    return True


@compiled("boolean(float64[:,::1], float64[:,::1], float64[:,::1], float64[::1], float64)")
def join_columns(low: Any, high: Any, out: Any, factors: Any, most: float) -> bool:
    """Undo the halving of the last axis.

    Parameters
    ----------
    low, high : ndarray of float64, shape (rows, ceil(n / 2)) and (rows, floor(n / 2)), or with no rows for zeros
    out : ndarray of float64, shape (rows, n)
    factors : ndarray of float64, shape (4,)
        Of the lifting, over 2^14.
    most : float

    Returns
    -------
    bool
        No value is `most` or larger.
    """
    rows, length = out.shape
    m, n = (length + 1) // 2, length // 2
    even, odd = np.empty(m + 1), np.empty(n + 2)
    for r in range(rows):
        if len(low):
            _copy(m, even, 0, low[r])
        else:
            _clear(m, even, 0)
        if len(high):
            _copy(n, odd, 1, high[r])
        else:
            _clear(n, odd, 1)
        if not _join_line(out[r], m, n, even, odd, len(high) > 0, factors, most):
            return False
    return True


@compiled("boolean(float64[:,:,::1], float64[:,:,::1], float64[:,:,::1], float64[::1], float64)")
def join_rows(low: Any, high: Any, out: Any, factors: Any, most: float) -> bool:
    """Undo the halving of the middle axis; as `join_columns`, shapes are (blocks, n, columns)."""
    blocks, length, width = out.shape
    m, n = (length + 1) // 2, length // 2
    for block in range(blocks):
        for begin in range(0, width, _WIDE):
            size = min(_WIDE, width - begin)
            for i in range(m + 2):
                if i < m:
                    if len(low):
                        _copy(size, out[block, 2 * i], begin, low[block, i, begin:])
                    else:
                        _clear(size, out[block, 2 * i], begin)
                if i < n:
                    if len(high):
                        _copy(size, out[block, 2 * i + 1], begin, high[block, i, begin:])
                    else:
                        _clear(size, out[block, 2 * i + 1], begin)
                if not _roll(i, m, n, out[block], begin, size, len(high) > 0, factors, most):
                    return False
    return True


@compiled(
    "boolean(float64[:,:,::1], int32[:,:,::1], int32[:,:,::1], int32[:,:,::1], int32[:,:,::1], float64[:,::1],"
    " float64[:,:,::1], float64[::1], float64)"
)
def join_slices(made: Any, low: Any, right: Any, lower: Any, both: Any, numbers: Any, out: Any, factors: Any,
                most: float) -> bool:  # fmt: skip
    """Undo the halving of rows and columns of quantised coefficients.

    Parameters
    ----------
    made : ndarray of float64, shape (slices, y, x)
        The low pass of both, in internal units; or `low`, if that is empty.
    low, right, lower, both : ndarray of int32, shape (slices, y, x)
        Coefficients: the low pass, the high passes of columns, rows, both. What is missing of slices is zeros.
    numbers : ndarray of float64, shape (4, 4)
        For each of the four the gain, the biases of 1 and of more, and what 1 counts.
    out : ndarray of float64, shape (slices, rows, columns)
    factors, most
        As for `join_columns`.
    """
    slices, rows, columns = out.shape
    m, n, mx, nx = (rows + 1) // 2, rows // 2, (columns + 1) // 2, columns // 2
    even, odd = np.empty(mx + 1), np.empty(nx + 2)
    for s in range(slices):
        high = s < len(lower) or s < len(both)
        for i in range(m + 2):
            if i < m:
                if s < len(made):
                    _copy(mx, even, 0, made[s, i])
                elif s < len(low):
                    _dequantise_row(mx, even, 0, low[s, i], numbers[0])
                else:
                    _clear(mx, even, 0)
                if s < len(right):
                    _dequantise_row(nx, odd, 1, right[s, i], numbers[1])
                else:
                    _clear(nx, odd, 1)
                if not _join_line(out[s, 2 * i], mx, nx, even, odd, s < len(right), factors, most):
                    return False
            if i < n:
                if high:
                    if s < len(lower):
                        _dequantise_row(mx, even, 0, lower[s, i], numbers[2])
                    else:
                        _clear(mx, even, 0)
                    if s < len(both):
                        _dequantise_row(nx, odd, 1, both[s, i], numbers[3])
                    else:
                        _clear(nx, odd, 1)
                    if not _join_line(out[s, 2 * i + 1], mx, nx, even, odd, s < len(both), factors, most):
                        return False
                else:
                    _clear(columns, out[s, 2 * i + 1], 0)
            if not _roll(i, m, n, out[s], 0, columns, high, factors, most):
                return False
    return True


@compiled("void(int32[::1], float64[::1], float64[::1])")
def dequantise(values: Any, out: Any, numbers: Any) -> None:
    """Fill in coefficients in internal units; `numbers` are those of `join_slices`."""
    _dequantise_row(len(values), out, 0, values, numbers)


@compiled("float64(float64[::1])")
def largest(values: Any) -> float:
    """Return the largest magnitude."""
    # Sixteen at a time, so that it becomes vector code: which is the largest does not depend on the order.
    found = np.zeros(16)
    whole = len(values) // 16 * 16
    for begin in range(0, whole, 16):
        for i in range(16):
            value = abs(values[begin + i])
            found[i] = value if value > found[i] else found[i]
    for i in range(whole, len(values)):
        found[0] = max(found[0], abs(values[i]))
    return found.max()


@compiled("void(float64[:,::1], float64[::1], float64[::1], float64, float64, float64)")
def finish(sums: Any, gains: Any, offsets: Any, low: float, high: float, unit: float) -> None:
    """Turn sums (measurements, positions) into outputs in place (section 14.8); `unit` is a power of two."""
    for t in range(len(sums)):
        gain, offset, line = gains[t], offsets[t], sums[t]
        for i in range(len(line)):
            line[i] = min(max(np.floor(line[i] * gain + offset), low), high) * unit


@compiled("void(float64[:,::1], uint16[:,::1], float64[::1], float64[::1], float64, float64)")
def finish_short(sums: Any, out: Any, gains: Any, offsets: Any, low: float, high: float) -> None:
    """As `finish`, for 16-bit outputs in units of 1; those below 0 are their two's complements."""
    for t in range(len(sums)):
        gain, offset, line, target = gains[t], offsets[t], sums[t], out[t]
        for i in range(len(line)):
            target[i] = np.uint16(np.int32(min(max(np.floor(line[i] * gain + offset), low), high)))
