"""Integer networks at every position of a chunk (specification sections 7.3 and 16.2), compiled.

Product-sums are of integers below 2^24 in float32, so they are exact in any order; all else is integers, or float64
that holds them exactly. Indices come from the shapes of the arguments, and from offsets clamped to the volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inrstore.chunk.kernels.jit import compiled, inlined

_LANES = 256
"""Positions that are worked on together: several rows, or a part of one."""
_SINE, _RELU = 1, 2
_AMPLITUDE = 1023.0


@inlined
def _here(n: int, held: Any, to: int, line: Any, begin: int, unit: float, half: float, most: float) -> None:
    for i in range(n):
        value = np.floor(line[np.uint64(begin + i)] * unit + half)
        held[np.uint64(to + i)] = np.float32(min(max(value, -most), most))


@inlined
def _difference(n: int, held: Any, to: int, there: Any, first: int, line: Any, begin: int, unit: float, half: float,
                most: float) -> None:  # fmt: skip
    for i in range(n):
        value = np.floor((there[np.uint64(first + i)] - line[np.uint64(begin + i)]) * unit + half)
        held[np.uint64(to + i)] = np.float32(min(max(value, -most), most))


@inlined
def _add_row(n: int, sums: Any, held: Any, row: int, weight: Any) -> None:
    for i in range(n):
        sums[i] += weight * held[np.uint64(row * _LANES + i)]


@inlined
def _add_rows(n: int, sums: Any, held: Any, row: int, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any,
              h: Any) -> None:  # fmt: skip
    begin = row * _LANES
    for i in range(n):
        at = begin + i
        sums[i] += (
            a * held[np.uint64(at)]
            + b * held[np.uint64(at + _LANES)]
            + c * held[np.uint64(at + 2 * _LANES)]
            + d * held[np.uint64(at + 3 * _LANES)]
        ) + (
            e * held[np.uint64(at + 4 * _LANES)]
            + f * held[np.uint64(at + 5 * _LANES)]
            + g * held[np.uint64(at + 6 * _LANES)]
            + h * held[np.uint64(at + 7 * _LANES)]
        )


@inlined
def _products(n: int, sums: Any, held: Any, weights: Any) -> None:
    """Fill in the sums over all rows that are held."""
    for i in range(n):
        sums[i] = 0
    whole = len(weights) // 8 * 8
    for k in range(0, whole, 8):
        w = weights[k : k + 8]
        _add_rows(n, sums, held, k, w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7])
    for k in range(whole, len(weights)):
        _add_row(n, sums, held, k, weights[k])


@inlined
def _sines(n: int, target: Any, row: int, sums: Any, places: Any, multiplier: Any, bias: Any, table: Any) -> None:
    for i in range(n):
        z = np.uint32(np.int32(sums[i])) * multiplier + bias
        places[i] = np.uint32(z) >> np.uint32(20)
    for i in range(n):
        target[np.uint64(row * _LANES + i)] = table[places[i]]


@inlined
def _clamped(n: int, target: Any, row: int, sums: Any, multiplier: float, bias: float, low: float) -> None:
    for i in range(n):
        z = np.float64(sums[i]) * multiplier + bias
        z = np.floor(z * 2.0**-24 + 0.5)
        target[np.uint64(row * _LANES + i)] = np.float32(min(max(z, low), _AMPLITUDE))


@compiled(
    "void(float64[:,:,:,::1], float64[:,:,:,::1], int64[::1], int64[::1], int64[::1], int64[:,::1], int64,"
    " int64[:,::1], float32[::1], int64[::1], float32[::1], float32[:,::1], int64[::1], int64[::1], int64)"
)
def correct(volumes: Any, out: Any, first_place: Any, shifts: Any, difference_shifts: Any, offsets: Any,
            magnitude: int, layers: Any, weights: Any, biases: Any, table: Any, readout: Any, gains: Any,
            additions: Any, shift: int) -> None:  # fmt: skip
    """Fill in what is to be added to the leading components at every position of a box.

    Parameters
    ----------
    volumes : ndarray of float64, shape (components, slices, rows, columns)
    out : ndarray of float64, shape (outputs, slices, rows, columns)
        Of the box, which lies in the volumes.
    first_place : ndarray of int64, shape (3,)
        Where the box begins.
    shifts, difference_shifts : ndarray of int64
    offsets : ndarray of int64, shape (neighbours, 3)
    magnitude : int
    layers : ndarray of int64, shape (layers, 6)
        Units, inputs, code of the activation, multiplier, where weights and biases begin.
    weights : ndarray of float32
    biases : ndarray of int64
        Times their multiplier.
    table : ndarray of float32, shape (4096,)
        Of the sine.
    readout : ndarray of float32, shape (outputs, units)
    gains, additions : ndarray of int64, shape (outputs,)
        Additions are offsets and halves, shifted.
    shift : int
    """
    depth, height, width = volumes.shape[1:]
    slices, rows, columns = out.shape[1:]
    z0, y0, x0 = first_place[0], first_place[1], first_place[2]
    widest, most = len(shifts) + len(difference_shifts) * len(offsets), np.float64(magnitude)
    inputs = widest
    for layer in range(len(layers)):
        widest = max(widest, layers[layer, 0])
    held, other = np.zeros(widest * _LANES, np.float32), np.zeros(widest * _LANES, np.float32)
    sums, places, line = np.empty(_LANES, np.float32), np.empty(_LANES, np.uint32), np.empty(_LANES)
    together = max(1, _LANES // columns)
    for z in range(z0, z0 + slices):
        for top in range(y0, y0 + rows, together):
            bottom = min(top + together, y0 + rows)
            for begin in range(x0, x0 + columns, _LANES):
                size = min(_LANES, x0 + columns - begin)
                for y in range(top, bottom):
                    to = (y - top) * size
                    for k in range(len(shifts)):
                        unit, half = 2.0 ** -shifts[k], 0.5 if shifts[k] else 0.0
                        _here(size, held, to + k * _LANES, volumes[k, z, y], begin, unit, half, most)
                    to += len(shifts) * _LANES
                    for k in range(len(difference_shifts)):
                        unit, half = 2.0 ** -difference_shifts[k], 0.5 if difference_shifts[k] else 0.0
                        own = volumes[k, z, y]
                        for j in range(len(offsets)):
                            dx = offsets[j, 2]
                            there = volumes[k, min(max(z + offsets[j, 0], 0), depth - 1),
                                            min(max(y + offsets[j, 1], 0), height - 1)]  # fmt: skip
                            if begin + dx >= 0 and begin + size + dx <= width:
                                _difference(size, held, to, there, begin + dx, own, begin, unit, half, most)
                            else:
                                for i in range(size):
                                    line[i] = there[min(max(begin + i + dx, 0), width - 1)]
                                _difference(size, held, to, line, 0, own, begin, unit, half, most)
                            to += _LANES
                n = (bottom - top) * size
                source, target = held, other
                count = inputs
                for number in range(len(layers)):
                    units, code, multiplier = layers[number, 0], layers[number, 2], layers[number, 3]
                    for unit_number in range(units):
                        first = layers[number, 4] + unit_number * count
                        _products(n, sums, source, weights[first : first + count])
                        bias = biases[layers[number, 5] + unit_number]
                        if code == _SINE:
                            _sines(n, target, unit_number, sums, places, np.uint32(multiplier), np.uint32(bias), table)
                        else:
                            low = 0.0 if code == _RELU else -_AMPLITUDE
                            _clamped(n, target, unit_number, sums, np.float64(multiplier), np.float64(bias), low)
                    source, target = target, source
                    count = units
                for k in range(len(readout)):
                    _products(n, sums, source, readout[k])
                    gain, addition = gains[k], additions[k]
                    for y in range(top, bottom):
                        to, line_out = (y - top) * size, out[k, z - z0, y - y0]
                        for i in range(size):
                            number_out = (np.int64(sums[np.uint64(to + i)]) * gain + addition) >> shift
                            line_out[np.uint64(begin - x0 + i)] = np.float64(number_out)
