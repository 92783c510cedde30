"""Loops of the encoder of chunk mode transform, compiled.

Sums around a coefficient are integers, exact in any order. Costs are float64, made of the same tables, by the same
additions, products and comparisons, in the same order as in the numpy path, so that both choose the same. numba does
not check indices: every one here comes from loop bounds that the shapes of the arguments give, or is clamped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

u = np.uint64
"""Indices are unsigned where it matters: numba looks at the sign of others, which may count from the end."""

_FLAG_BITS, _SIZE_BITS, _SIZES, _CONTEXTS = 16, 12, 18, 64
_INCREMENT, _MOST_COUNTS = 64, 64 << 11
_ESCAPE, _ORDER = 17, 2
_FIRST = (127 + 5) << 2
_CLIP = 255
_WIDE = 1 << 10
"""Columns that are lifted together."""
_BEFORE = np.array([(0, 3), (12, 15), (1, 2), (13, 14), (4, 7), (8, 11), (5, 6), (9, 10)], np.int64)
"""The two ways to each state, as `transform.trellis.NEXT` says: twice the state before, plus the flag."""
_UNIT, _MOST_SQUARE, _NEVER = 65536.0, 16777216.0, 1 << 55
"""As in `transform.trellis`."""


# ---- what is known around coefficients: as in `kernels.transform` ------------------------------------------


@inlined
def _any_face(rows: Any, number: int, down: int) -> bool:
    return (rows[number] | rows[number - 1] | rows[number + 1] | rows[number - down] | rows[number + down]) != 0


@inlined
def _clear_row(n: int, sums: Any, weight: int) -> None:
    for i in range(n):
        sums[i] = weight


@inlined
def _add_faces(n: int, sums: Any, a: Any, own: int, left: int, ys: int, zs: int, w_own: int, w_faces: int) -> None:
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


# ---- the choice --------------------------------------------------------------------------------------------


@inlined
def _shares_of_sizes(sizes: Any, shares: Any) -> None:
    """Fill in the share of each size, of 2^12, for each context."""
    for context in range(_CONTEXTS):
        total, most, rest = 0, 0, 1 << _SIZE_BITS
        for j in range(_SIZES):
            total += sizes[context, j]
            if sizes[context, j] > sizes[context, most]:
                most = j
        for j in range(_SIZES):
            shares[context, j] = 1 + sizes[context, j] * ((1 << _SIZE_BITS) - _SIZES) // total
            rest -= shares[context, j]
        shares[context, most] += rest


@inlined
def _low_bits(context: int) -> int:
    return max((context >> 2) - 10, 0)


@inlined
def _cost(distance: float, at: float, magnitude: int, width: int, base: Any, price: float) -> float:
    """Return the squared error of a magnitude of at least 1 that stands for `at`, and what its bits are worth."""
    short = (magnitude - 1) >> width
    bits = base[u(min(short, _ESCAPE))]
    if short >= _ESCAPE:
        zeros, rest = 0, ((short - _ESCAPE) >> _ORDER) + 1
        while rest > 1:
            zeros, rest = zeros + 1, rest >> 1
        bits += np.float64(2 * zeros + 1 + _ORDER)
    error = distance - at
    return error * error + price * bits


@inlined
def _branches(distance: float, half: float, width: int, none: float, base: Any, price: float) -> tuple[int, int, int]:
    """Return the costs of zero and of the better magnitude of at least 1, and that, of a quantiser."""
    square = min(distance * distance, _MOST_SQUARE)
    zero = np.int64(np.rint((square + none) * _UNIT))
    first = max(np.int64(distance + half), 1)
    cost = _cost(distance, np.float64(first) - half, first, width, base, price)
    if distance + half >= 1.0:  # else it is farther off and takes more bits
        other = _cost(distance, np.float64(first + 1) - half, first + 1, width, base, price)
        if other < cost:
            first, cost = first + 1, other
    return zero, np.int64(np.rint(min(cost, 2 * _MOST_SQUARE) * _UNIT)), first


@inlined
def _walk(n: int, places: Any, distances: Any, widths: Any, priced: Any, base: Any, price: float, state: int,
          decisions: Any, either: Any, chosen: Any, second: Any) -> int:  # fmt: skip
    """Choose along the cheapest path through the trellis; return the state that it ends in.

    The algorithm is that of Viterbi. Costs are integers, so that any order of additions gives the same.
    """
    costs = np.full(8, _NEVER, np.int64)
    costs[state] = 0
    c0, c1, c2, c3, c4, c5, c6, c7 = costs
    for i in range(n):
        context, distance = np.int64(places[u(i)]), np.float64(distances[u(i)])
        zero, one, magnitude = _branches(distance, 0.0, widths[u(context)], priced[u(context)], base[u(context)], price)
        row = u(context + _CONTEXTS)
        zero2, one2, magnitude2 = _branches(distance, 0.5, widths[u(context)], priced[row], base[row], price)
        either[u(i), 0], either[u(i), 1] = magnitude, magnitude2
        # The two ways to each state, as in `_BEFORE`.
        a0, b0 = c0 + zero, c1 + one
        a1, b1 = c6 + zero2, c7 + one2
        a2, b2 = c0 + one, c1 + zero
        a3, b3 = c6 + one2, c7 + zero2
        a4, b4 = c2 + zero, c3 + one
        a5, b5 = c4 + zero2, c5 + one2
        a6, b6 = c2 + one, c3 + zero
        a7, b7 = c4 + one2, c5 + zero2
        decisions[u(i)] = (
            np.int64(b0 < a0) | np.int64(b1 < a1) << 1 | np.int64(b2 < a2) << 2 | np.int64(b3 < a3) << 3
            | np.int64(b4 < a4) << 4 | np.int64(b5 < a5) << 5 | np.int64(b6 < a6) << 6 | np.int64(b7 < a7) << 7
        )  # fmt: skip
        c0, c1, c2, c3 = min(a0, b0), min(a1, b1), min(a2, b2), min(a3, b3)
        c4, c5, c6, c7 = min(a4, b4), min(a5, b5), min(a6, b6), min(a7, b7)
        if i & 1023 == 1023:
            least = min(min(min(c0, c1), min(c2, c3)), min(min(c4, c5), min(c6, c7)))
            c0, c1, c2, c3 = c0 - least, c1 - least, c2 - least, c3 - least
            c4, c5, c6, c7 = c4 - least, c5 - least, c6 - least, c7 - least
    costs[:] = c0, c1, c2, c3, c4, c5, c6, c7
    best = 0
    for after in range(8):
        if costs[after] < costs[best]:
            best = after
    at = best
    for i in range(n - 1, -1, -1):
        before = _BEFORE[at, np.int64(decisions[u(i)]) >> at & 1]
        at, flag = before >> 1, before & 1
        second[u(i)] = at >> 2
        chosen[u(i)] = either[u(i), u(at >> 2)] * flag
    return best


@inlined
def _choose(n: int, places: Any, distances: Any, widths: Any, priced: Any, base: Any, price: float,
            chosen: Any) -> None:  # fmt: skip
    """Choose each magnitude by itself: 0, the nearest one, or one below."""
    for i in range(n):
        best, distance = 0, np.float64(distances[u(i)])
        if distance >= 0.5:
            context = np.int64(places[u(i)])
            lowest = distance * distance + priced[u(context)]
            most = int(np.rint(distance))
            for magnitude in range(max(1, most - 1), most + 1):
                cost = _cost(distance, np.float64(magnitude), magnitude, widths[u(context)], base[u(context)], price)
                if cost < lowest:
                    best, lowest = magnitude, cost
        chosen[u(i)] = best


@inlined
def _parity(step: int, which: int) -> tuple[int, int, int]:
    """Return a parity of a pass: (0,0,0) or (1,1,1), (1,1,0) (0,0,1), (1,0,1) (0,1,0), (0,1,1) (1,0,0)."""
    z = which if step in (0, 3) else 1 - which
    y = which if step in (0, 2) else 1 - which
    return z, y, which if step < 2 else 1 - which


@compiled(
    "int64(float32[::1], int32[::1], int64[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], uint16[::1],"
    " uint8[::1], int64[:,::1], int64[::1], int64[:,::1], int64[:,::1], float64, float64[::1], float64[:,::1],"
    " uint8[::1], uint8[::1], int32[::1], int64[:,::1], int64[:,:,::1], int64[:,:,::1], int64[:,:,::1],"
    " int64[:,:,::1], float64[:,:,::1], int64[:,::1], float64[:,::1], int64[::1])"
)
def encode_subband(values: Any, out: Any, shape: Any, coded: Any, inside: Any, parent: Any, parent_rows: Any,
                   beside: Any, beside_rows: Any, weights: Any, axes: Any, flags: Any, sizes: Any, price: float,
                   logs: Any, size_logs: Any, coded_flags: Any, live_context: Any, live_size: Any, ends: Any,
                   flag_shares: Any, flags_seen: Any, size_shares: Any, sizes_seen: Any, worth: Any, excess: Any,
                   excess_low: Any, walk: Any) -> int:  # fmt: skip
    """Choose the coefficients of a subband, pass after pass.

    Parameters
    ----------
    values : ndarray of float32, shape (components * z * y * x,)
        In quantiser steps.
    out : ndarray of int32, of the size of `values`
        Zeros; what is chosen is filled in.
    shape, coded, inside, parent, parent_rows, beside, beside_rows, weights, axes
        As for `kernels.transform.decode_subband`.
    flags, sizes : ndarray of int64, shape (64, 2) or, with a trellis, (128, 2), and (64, 18)
        Counts of the model; updated.
    price : float
        Squared steps that one bit is worth.
    logs : ndarray of float64, shape (2^16 + 1,)
        Base 2, of shares of 2^16.
    size_logs : ndarray of float64, shape (2, 2^12 + 1)
        Base 2, of counts of sizes, and of them as shares of 2^12.
    coded_flags : ndarray of uint8, of the size of `values`
        Twice the row of `flags` of each value in order, and 1 where it is not 0; filled in.
    live_context, live_size : ndarray of uint8 and int32, of the size of `values`
        Context and magnitude of what is not 0, in order; filled in.
    ends : ndarray of int64, shape (4, 2)
        After each pass: how many values there were, and how many of them were not 0.
    flag_shares, flags_seen : ndarray of int64, shape (4, rows of flags, 2)
        Of each pass: the counts of both flags, of 2^16, and how often they were coded. `flags_seen` is zeros.
    size_shares, sizes_seen : ndarray of int64, shape (4, 64, 18)
        The same of sizes. Both are zeros.
    worth : ndarray of float64, shape (4, 3, components)
        Zeros. Of each pass: the squares that each component saves, the logarithms of its shares, the squares that are
        left.
    excess, excess_low : ndarray of int64 and float64, shape (4, 2)
        Zeros. Of each pass, for coefficients of 1 and above: how many, and by how much they are low.
    walk : ndarray of int64, shape (1,)
        State of the trellis; updated.

    Returns
    -------
    int
        How many values are not 0.
    """
    components, depth, height, width = shape[0], shape[1], shape[2], shape[3]
    half = (width + 3) // 2 + 1
    ys = 2 * half
    zs = (height + 2) * ys
    longest = (width + 1) // 2
    sums, singles = np.empty(longest, np.int32), np.empty(longest, np.float32)
    bits, row = singles.view(np.int32), np.empty(longest, np.uint8)
    rows_inside = np.zeros(components * (depth + 2) * (height + 2), np.uint8)
    widths = np.empty(_CONTEXTS, np.int64)
    for context in range(_CONTEXTS):
        widths[context] = _low_bits(context)
    rows, trellis = len(flags), len(flags) == 2 * _CONTEXTS
    priced, zero_logs = np.empty(rows), np.empty(rows)
    base, live_logs = np.empty((rows, _SIZES)), np.empty((rows, _SIZES))
    none_seen = np.empty((2, rows), np.int64)
    positions, live = 0, 0
    most = components * ((depth + 1) // 2) * ((height + 1) // 2) * ((width + 1) // 2) * 2
    places, distances = np.empty(most, np.uint8), np.empty(most, np.float32)
    chosen, second = np.empty(most, np.int32), np.zeros(most, np.uint8)
    decisions, either = np.empty(most if trellis else 0, np.uint8), np.empty((most if trellis else 0, 2), np.int32)
    for step in range(4):
        w = weights[step]
        constant = np.int32(w[8])
        wz, wy, wx = (16 * (w[0] if axes[0] else w[1]), 16 * (w[0] if axes[1] else w[1]),
                      16 * (w[0] if axes[2] else w[1]))  # fmt: skip
        w_edges = 16 * w[2]
        with_parent = len(parent) > 0 and (w[4] != 0 or w[5] != 0)
        with_beside = len(beside) > 0 and (w[6] != 0 or w[7] != 0)
        ones_of, seen, seen_sizes = flag_shares[step], flags_seen[step], sizes_seen[step]
        shares = size_shares[step]
        _shares_of_sizes(sizes, shares)
        for number in range(rows):
            part = (flags[number, 1] << _FLAG_BITS) // (flags[number, 0] + flags[number, 1])
            part = min(max(part, 1), (1 << _FLAG_BITS) - 1)
            rest, context = (1 << _FLAG_BITS) - part, number & (_CONTEXTS - 1)
            ones_of[number, 0], ones_of[number, 1] = rest, part
            zero_logs[number] = logs[rest]
            priced[number] = price * -logs[rest]
            some, wide = 1.0 - logs[part], np.float64(widths[context])
            for j in range(_SIZES):
                share = shares[context, j]
                base[number, j] = (some + wide) + (np.float64(_SIZE_BITS) - size_logs[0, share])
                live_logs[number, j] = ((logs[part] + size_logs[1, share]) - 1.0) - wide
        none_seen[:] = 0
        first_live, none_low, more_low, none_count, more_count = live, 0.0, 0.0, 0, 0
        count = 0
        for parity in range(2):
            pz, py, px = _parity(step, parity)
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
                            places[u(count + i)], distances[u(count + i)] = row[u(i)], abs(values[u(flat + 2 * i)])
                        count += n
        if trellis:
            walk[0] = _walk(count, places, distances, widths, priced, base, price, walk[0] & 7, decisions, either,
                            chosen, second)  # fmt: skip
        else:
            _choose(count, places, distances, widths, priced, base, price, chosen)
        count = 0
        for parity in range(2):
            pz, py, px = _parity(step, parity)
            n = (width - px + 1) // 2
            if n <= 0:
                continue
            for c in range(components):
                saved, logs_of, left_of = worth[step, 0, c], worth[step, 1, c], worth[step, 2, c]
                for z in range(pz, depth, 2):
                    for y in range(py, height, 2):
                        number = (c * (depth + 2) + z + 1) * (height + 2) + y + 1
                        own = number * ys + (1 - px) * half + px
                        flat = ((c * depth + z) * height + y) * width + px
                        for i in range(n):
                            context, distance = np.int64(places[u(count)]), np.float64(distances[u(count)])
                            best, other = np.int64(chosen[u(count)]), np.int64(second[u(count)])
                            count += 1
                            place, square = context + other * _CONTEXTS, distance * distance
                            if best:
                                short = min((best - 1) >> widths[u(context)], _ESCAPE)
                                whole = 2 * best - other if trellis else best
                                left_over = distance - (np.float64(best) - 0.5 * np.float64(other))
                                saved += square - left_over * left_over
                                left_of += left_over * left_over
                                logs_of += live_logs[u(place), u(short)]
                                if whole > 1:
                                    more_low, more_count = more_low + left_over, more_count + 1
                                else:
                                    none_low, none_count = none_low + left_over, none_count + 1
                                live_context[u(live)], live_size[u(live)] = context, best
                                live += 1
                                seen[u(place), u(1)] += 1
                                coded_flags[u(positions + i)] = 2 * place + 1
                                clipped = np.uint8(min(best, _CLIP))
                                out[u(flat + 2 * i)] = -whole if values[u(flat + 2 * i)] < np.float32(0) else whole
                                coded[u(flat + 2 * i)] = clipped
                                inside[u(own + i)] = clipped
                                rows_inside[number] = 1
                            else:
                                left_of += square
                                logs_of += zero_logs[u(place)]
                                none_seen[u(i & 1), u(place)] += 1  # by turns, so that none waits for the one before
                                coded_flags[u(positions + i)] = 2 * place
                        positions += n
                worth[step, 0, c], worth[step, 1, c], worth[step, 2, c] = saved, logs_of, left_of
        for k in range(first_live, live):
            context = np.int64(live_context[u(k)])
            short = min((np.int64(live_size[u(k)]) - 1) >> widths[u(context)], _ESCAPE)
            seen_sizes[u(context), u(short)] += 1
        excess[step, 0], excess[step, 1] = none_count, more_count
        excess_low[step, 0], excess_low[step, 1] = none_low, more_low
        ends[step, 0], ends[step, 1] = positions, live
        for number in range(rows):
            seen[number, 0] = none_seen[0, number] + none_seen[1, number]
            for j in range(2):
                flags[number, j] += _INCREMENT * seen[number, j]
        for context in range(_CONTEXTS):
            for j in range(_SIZES):
                sizes[context, j] += _INCREMENT * seen_sizes[context, j]
        _forget(flags)
        _forget(sizes)
    return live


@inlined
def _faces_of(a: Any, own: int, left: int, ys: int, zs: int) -> int:
    return (
        np.int64(a[left])
        + np.int64(a[left + 1])
        + np.int64(a[own - ys])
        + np.int64(a[own + ys])
        + np.int64(a[own - zs])
        + np.int64(a[own + zs])
    )


@compiled(
    "void(int64[::1], int64, int64[::1], int64[::1], uint8[::1], uint8[::1], uint8[::1], uint16[::1], int64[::1],"
    " uint16[:,::1], uint8[::1])"
)
def features(picked: Any, step: int, parity: Any, shape: Any, coded: Any, inside: Any, parent: Any, beside: Any,
             axes: Any, rows: Any, values: Any) -> None:  # fmt: skip
    """Fill in what was known around some positions of one parity, and their clipped magnitudes.

    Parameters
    ----------
    picked : ndarray of int64
        Among the positions of the parity, in (component, z, y, x); others count as the last one.
    step : int
        The pass that the parity belongs to.
    parity : ndarray of int64, shape (3,)
    shape, coded, inside, parent, beside, axes
        As for `encode_subband`, after it.
    rows : ndarray of uint16, shape (8, len(picked))
        Zeros; filled in.
    values : ndarray of uint8, shape (len(picked),)
    """
    components, depth, height, width = shape[0], shape[1], shape[2], shape[3]
    half = (width + 3) // 2 + 1
    ys = 2 * half
    zs = (height + 2) * ys
    pz, py, px = parity[0], parity[1], parity[2]
    nz, ny, nx = (depth - pz + 1) // 2, (height - py + 1) // 2, (width - px + 1) // 2
    last = components * nz * ny * nx - 1
    for k in range(len(picked) if last >= 0 else 0):
        at = min(max(picked[k], 0), last)
        x, rest = at % nx, at // nx
        y, rest = rest % ny, rest // ny
        z, c = rest % nz, rest // nz
        z, y = 2 * z + pz, 2 * y + py
        line = ((c * (depth + 2) + z + 1) * (height + 2) + y + 1) * ys
        own, left = line + (1 - px) * half + px + x, line + px * half + x
        if step & 1:
            rows[0 if axes[2] else 1, k] += np.uint16(inside[left]) + np.uint16(inside[left + 1])
            for dz in (-zs, zs):
                rows[2, k] += np.uint16(inside[own + dz - ys]) + np.uint16(inside[own + dz + ys])
        if step & 2:
            rows[0 if axes[1] else 1, k] += np.uint16(inside[own - ys]) + np.uint16(inside[own + ys])
            rows[0 if axes[0] else 1, k] += np.uint16(inside[own - zs]) + np.uint16(inside[own + zs])
            for down in (-zs, -ys, ys, zs):
                rows[2, k] += np.uint16(inside[left + down]) + np.uint16(inside[left + down + 1])
        if len(parent):
            rows[4, k] = parent[own]
            rows[5, k] = _faces_of(parent, own, left, ys, zs)
        if len(beside):
            rows[6, k] = beside[own]
            rows[7, k] = _faces_of(beside, own, left, ys, zs)
        values[k] = coded[((c * depth + z) * height + y) * width + 2 * x + px]


# ---- the stream --------------------------------------------------------------------------------------------


@inlined
def _code(x: int, both: int, precision: int, words: Any, end: int) -> tuple[int, int]:
    """Return the state after a symbol, and where the words begin; `both` is 2^16 times its count, and its start."""
    count = both >> u(16)
    # Whether a word goes out cannot be guessed, so one is always written: each symbol has a place.
    full = u(x >= count << (u(32) - precision))
    words[u(end - 1)] = np.uint16(x)
    x >>= full << u(4)
    share = u(np.float64(x) / np.float64(count))  # below 2^32 over below 2^16: no rounding reaches the next integer
    return (share << precision) + (x - share * count) + (both & u(0xFFFF)), end - np.int64(full)


@compiled(
    "int64(uint8[::1], uint8[::1], int32[::1], int64[:,::1], int64[:,:,::1], int64[:,:,::1], int64, uint32[::1],"
    " uint16[::1], int64)"
)
def write_subband(coded_flags: Any, live_context: Any, live_size: Any, ends: Any, flag_shares: Any, size_shares: Any,
                  lane: int, states: Any, words: Any, end: int) -> int:  # fmt: skip
    """Code the symbols of a subband, the last one first; return where their words begin.

    Parameters
    ----------
    coded_flags, live_context, live_size, ends, flag_shares, size_shares
        As `encode_subband` gives them.
    lane : int
        That of the symbol after the last one.
    states : ndarray of uint32
        Updated.
    words : ndarray of uint16
        Filled in from `end` down; each symbol takes at most one, and there is room for all.
    end : int
    """
    lanes = len(states)
    rows = flag_shares.shape[1]
    both_of_flags, both_of_sizes = np.empty(2 * rows, np.uint64), np.empty((_CONTEXTS, _SIZES), np.uint64)
    for step in range(3, -1, -1):
        for number in range(rows):
            none, some = flag_shares[step, number, 0], flag_shares[step, number, 1]
            both_of_flags[2 * number] = none << 16 | some
            both_of_flags[2 * number + 1] = some << 16
        for context in range(_CONTEXTS):
            begin = 0
            for j in range(_SIZES):
                both_of_sizes[context, j] = size_shares[step, context, j] << 16 | begin
                begin += size_shares[step, context, j]
        for k in range(ends[step, 1] - 1, ends[step - 1, 1] - 1 if step else -1, -1):
            lane = (lane if lane > 0 else lanes) - 1
            context = np.int64(live_context[u(k)])
            short = np.int64(min((np.int64(live_size[u(k)]) - 1) >> _low_bits(context), _ESCAPE))
            x, end = _code(u(states[u(lane)]), both_of_sizes[context, short], u(_SIZE_BITS), words, end)
            states[u(lane)] = np.uint32(x)
        for k in range(ends[step, 0] - 1, ends[step - 1, 0] - 1 if step else -1, -1):
            lane = (lane if lane > 0 else lanes) - 1
            x, end = _code(u(states[u(lane)]), both_of_flags[u(coded_flags[u(k)])], u(_FLAG_BITS), words, end)
            states[u(lane)] = np.uint32(x)
    return end


@compiled("int64(int32[::1], uint8[::1], int64)")
def signs(values: Any, out: Any, begin: int) -> int:
    """Fill in whether each value that is not 0 is negative; return where the next one goes.

    `out` has one place more than there are.
    """
    for i in range(len(values)):
        out[u(begin)] = values[i] < 0
        begin += np.int64(values[i] != 0)
    return begin


# ---- the forward wavelet -----------------------------------------------------------------------------------


@inlined
def _lift(n: int, target: Any, one: Any, other: Any, factor: Any) -> None:
    for i in range(n):
        target[i] += factor * (one[i] + other[i])


@inlined
def _copy(n: int, target: Any, source: Any) -> None:
    for i in range(n):
        target[i] = source[i]


@compiled("void(float32[:,::1], float32[:,::1], float32[:,::1], float32[::1])")
def split_columns(values: Any, low: Any, high: Any, factors: Any) -> None:
    """Halve the last axis.

    Parameters
    ----------
    values : ndarray of float32, shape (rows, n)
        n is at least 2.
    low, high : ndarray of float32, shape (rows, ceil(n / 2)) and (rows, floor(n / 2))
        Filled in.
    factors : ndarray of float32, shape (4,)
        Of the lifting, over 2^14.
    """
    m, n = low.shape[1], high.shape[1]
    even, odd = np.empty(m + 1, np.float32), np.empty(n + 2, np.float32)  # ends repeated
    for r in range(len(values)):
        line = values[r]
        for i in range(n):
            even[i] = line[2 * i]
            odd[u(i + 1)] = line[2 * i + 1]
        if m > n:
            even[n] = line[2 * n]
        for i in range(0, 4, 2):
            even[m] = even[m - 1]
            _lift(n, odd[1:], even, even[1:], factors[i])
            odd[0], odd[n + 1] = odd[1], odd[n]
            _lift(m, even, odd, odd[1:], factors[i + 1])
        _copy(m, low[r], even)
        _copy(n, high[r], odd[1:])


@compiled("void(float32[:,:,::1], float32[:,:,::1], float32[:,:,::1], float32[::1])")
def split_rows(values: Any, low: Any, high: Any, factors: Any) -> None:
    """Halve the middle axis; as `split_columns`, shapes are (blocks, n, columns)."""
    m, n = low.shape[1], high.shape[1]
    for block in range(len(values)):
        even, odd, lines = low[block], high[block], values[block]
        for begin in range(0, values.shape[2], _WIDE):
            size = min(_WIDE, values.shape[2] - begin)
            # A line is lifted as soon as its neighbours are, so that all stays in the cache.
            _copy(size, even[0, begin:], lines[0, begin:])
            for i in range(m + 1):
                if i + 1 < m:
                    _copy(size, even[i + 1, begin:], lines[2 * i + 2, begin:])
                if i < n:
                    _copy(size, odd[i, begin:], lines[2 * i + 1, begin:])
                    _lift(size, odd[i, begin:], even[i, begin:], even[min(i + 1, m - 1), begin:], factors[0])
                if i < m:
                    _lift(size, even[i, begin:], odd[max(i - 1, 0), begin:], odd[min(i, n - 1), begin:], factors[1])
                j = i - 1
                if 0 <= j < n:
                    _lift(size, odd[j, begin:], even[j, begin:], even[min(j + 1, m - 1), begin:], factors[2])
                if 0 <= j < m:
                    _lift(size, even[j, begin:], odd[max(j - 1, 0), begin:], odd[min(j, n - 1), begin:], factors[3])
