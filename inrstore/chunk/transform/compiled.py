"""Coefficients and components by compiled loops: the same as `scan` with a reader, and as `wavelet`, give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import BitReader
from inrstore.chunk.entropy.rans import Stream
from inrstore.chunk.transform import wavelet
from inrstore.chunk.transform.adaptive import Model
from inrstore.chunk.transform.contexts import Magnitudes, kind_of
from inrstore.chunk.transform.header import Header
from inrstore.chunk.transform.scan import Coefficients, Words
from inrstore.chunk.transform.subbands import Subband, Triple, keys_of
from inrstore.chunk.transform.window import Window
from inrstore.errors import CorruptChunkError, LimitExceededError

_ERRORS: dict[int, Callable[[], CorruptChunkError]] = {
    1: lambda: CorruptChunkError("transform.words", "the stream ends early"),
    2: lambda: CorruptChunkError("transform.bits", "the bits end early"),
    3: lambda: LimitExceededError("transform.bits", "too many zeros in front of a number"),
    4: lambda: LimitExceededError("transform.bits", "a coefficient is too large"),
}
"""What the loops return, as in `kernels.transform`."""
_FACTORS = np.array([lift * 2.0**-wavelet.PRECISION for lift in wavelet.LIFTS])


def magnitudes(loops: ModuleType, header: Header, subbands: Sequence[Subband], stream: Stream,
               bits: BitReader) -> Coefficients:  # fmt: skip
    """Return the magnitudes of each subband, shape (active components, z, y, x).

    Parameters
    ----------
    loops : module
        `inrstore.chunk.kernels.transform`.
    header : Header
    subbands : sequence of Subband
    stream : Stream
    bits : BitReader
        Both are moved on.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    out: Coefficients = {}
    coded: dict[tuple[int, Triple], Magnitudes] = {}
    model, words = Model(1 + header.trellis), np.append(stream.words, np.uint16(0))
    data = np.concatenate([bits.data, np.zeros(8, np.uint8)])
    cursor = np.array([stream.position, stream.lane, bits.position, bits.end, 0], np.int64)
    for subband, components in zip(subbands, header.active, strict=True):
        count, place = int(components), (subband.level, subband.key)
        coded = {key: value for key, value in coded.items() if key[0] <= subband.level + 1}
        values = out[place] = np.zeros((count, *subband.shape), np.int32)
        coded[place] = np.zeros((0, *subband.shape), np.uint8)
        if not values.size:
            continue
        shape = np.array(values.shape, np.int64)
        parent, parent_rows, beside, beside_rows = around(loops, subband, shape, header.levels, coded)
        clipped, inside = np.zeros(values.shape, np.uint8), np.zeros(room(shape), np.uint8)
        weights, axes = np.ascontiguousarray(header.weights[kind_of(subband)]), np.array(subband.key, np.int64)
        fault = loops.decode_subband(
            values.reshape(-1), shape, clipped.reshape(-1), inside, parent, parent_rows, beside, beside_rows, weights,
            axes, model.flags, model.sizes, stream.states, words, data, cursor)  # fmt: skip
        if fault:
            raise _ERRORS[fault]()
        coded[place] = clipped
    stream.position, stream.lane, bits.position = (int(number) for number in cursor[:3])
    return out


def room(shape: npt.NDArray[np.int64]) -> int:
    """Return the numbers of an array with one more place on each side, even and odd columns apart."""
    components, depth, height, width = shape.tolist()
    return int(components * (depth + 2) * (height + 2) * 2 * ((width + 3) // 2 + 1))


def around(loops: ModuleType, subband: Subband, shape: npt.NDArray[np.int64], levels: Triple,
           coded: Mapping[tuple[int, Triple], Magnitudes]) -> tuple[npt.NDArray[Any], ...]:  # fmt: skip
    """Return parents and siblings at the positions of a subband, each with which rows are not zeros."""
    parent, beside, none = np.zeros(0, np.uint8), np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    parent_rows = beside_rows = none
    if not any(subband.key):
        return parent, parent_rows, beside, beside_rows
    rows = int(shape[0] * (shape[1] + 2) * (shape[2] + 2))
    above = coded.get((subband.level + 1, subband.key))
    if above is not None and len(above):
        parent, parent_rows = np.zeros(room(shape), np.uint8), np.zeros(rows, np.uint8)
        halved = np.array([subband.level + 1 < count for count in levels], np.int64)
        loops.spread(parent, shape, above, halved, parent_rows)
    siblings = [a for (level, key), a in coded.items() if level == subband.level and any(key) and len(a)]
    if siblings:
        beside, beside_rows = np.zeros(room(shape), np.uint16), np.zeros(rows, np.uint8)
        for sibling in siblings:
            loops.add_sibling(beside, shape, sibling, beside_rows)
    return parent, parent_rows, beside, beside_rows


def inverse(loops: ModuleType, coefficients: Mapping[tuple[int, Triple], Words], header: Header, window: Window,
            components: int) -> wavelet.Doubles | None:  # fmt: skip
    """Return the volumes of quantised coefficients, (components, z, y, x); None if there are none (section 14.7).

    Parameters
    ----------
    loops : module
    coefficients : mapping of (level, key) to ndarray of int32, shape (some components, z, y, x)
        Of the parts that the window needs. What is missing of the components is zeros.
    header : Header
    window : Window
    components : int

    Raises
    ------
    LimitExceededError
        When values leave the range that is exact.
    """
    levels, top = header.levels, max(header.levels)

    def found(level: int, key: Triple) -> Words | None:
        values = coefficients.get((level, key))
        return np.ascontiguousarray(values) if values is not None and len(values) else None

    def numbers(level: int, key: Triple) -> list[float]:
        unit = 64 if header.trellis else 128
        return [wavelet.gain_of(key, level, levels), *header.biases, unit]

    def dequantised(level: int, key: Triple) -> wavelet.Doubles | None:
        values = found(level, key)
        if values is None:
            return None
        out = np.zeros((components, *values.shape[1:]))
        loops.dequantise(values.reshape(-1), out[: len(values)].reshape(-1), np.array(numbers(level, key), np.float64))
        return out

    def slices(level: int, z: int, made: wavelet.Doubles | None, shape: tuple[int, ...]) -> wavelet.Doubles | None:
        keys: list[Triple] = [(z, y, x) for y in (0, 1) for x in (0, 1)]
        parts = [found(level, key) for key in keys]
        if not z:
            parts[0] = None
        if made is None and all(part is None for part in parts):
            return None
        out = np.empty((components, *shape))
        flat = [np.zeros((0, 0, 0), np.int32) if p is None else p.reshape(-1, *p.shape[2:]) for p in parts]
        lowest = np.zeros((0, 0, 0)) if made is None else made.reshape(-1, *made.shape[2:])
        table = np.array([numbers(level, key) for key in keys], np.float64)
        if not loops.join_slices(lowest, *flat, table, out.reshape(-1, *shape[1:]), _FACTORS, wavelet.MOST):
            raise _too_large()
        return out

    low = dequantised(max(top - 1, 0), (0, 0, 0))
    for level in range(top - 1, -1, -1):
        whole = window.made(level)
        if level < levels[1] and level < levels[2]:
            depth = (whole[0] + 1) // 2 if level < levels[0] else whole[0]
            low = slices(level, 0, low, (depth, *whole[1:]))
            if level < levels[0]:
                low = _join(loops, low, slices(level, 1, None, (whole[0] // 2, *whole[1:])), 1, whole[0])
        else:
            parts = {key: dequantised(level, key) for key in keys_of(levels, level)[1:]}
            low = wavelet.joined({(0, 0, 0): low, **parts}, level, whole, levels, partial(_join, loops))
        low = None if low is None else np.ascontiguousarray(low[(slice(None), *window.kept(level))])
    return low


def _join(loops: ModuleType, low: wavelet.Doubles | None, high: wavelet.Doubles | None, axis: int,
          length: int) -> wavelet.Doubles | None:  # fmt: skip
    """Return what `wavelet.join` does."""
    some = low if low is not None else high
    if some is None:
        return None
    shape = [*some.shape[:axis], length, *some.shape[axis + 1 :]]
    out = np.empty(shape)
    last = axis == len(shape) - 1
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])

    def flat(part: wavelet.Doubles | None) -> wavelet.Doubles:
        if part is None:
            return np.zeros((0, 0) if last else (0, 0, 0))
        return part.reshape((before, -1) if last else (before, -1, after))

    loop = loops.join_columns if last else loops.join_rows
    if not loop(flat(low), flat(high), flat(out), _FACTORS, wavelet.MOST):
        raise _too_large()
    return out


def _too_large() -> LimitExceededError:
    return LimitExceededError("transform.coefficients", "they make values that leave the exact range")


def finish(loops: ModuleType, sums: wavelet.Doubles, gains: wavelet.Doubles, offsets: wavelet.Doubles, header: Header,
           out: npt.NDArray[Any]) -> None:  # fmt: skip
    """Fill in outputs of sums, both (measurements, positions); the sums are used up (section 14.8).

    Parameters
    ----------
    loops : module
    sums : ndarray of float64
    gains, offsets : ndarray of float64, shape (measurements, 1)
        Over the unit; offsets and a half.
    header : Header
    out : ndarray
        Of the type of the chunk.
    """
    low, high, unit = float(header.low), float(header.high), 2.0**header.exponent
    loops.finish(sums, gains.reshape(-1), offsets.reshape(-1), low, high, unit)
    out[...] = sums
