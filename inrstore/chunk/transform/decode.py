"""Bytes -> values of chunk mode transform (specification section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.bits import BitReader, Ints
from inrstore.chunk.entropy.contexts import contexts as context_of
from inrstore.chunk.entropy.rans import Lookup, Stream
from inrstore.chunk.frame import Reader
from inrstore.chunk.kernels import choice
from inrstore.chunk.products import product
from inrstore.chunk.shared import NOTHING, Shared
from inrstore.chunk.transform import compiled, wavelet
from inrstore.chunk.transform.adaptive import CONTEXTS, FLAG_BITS, SIZE_BITS, SIZES, Model, low_bits
from inrstore.chunk.transform.contexts import Singles
from inrstore.chunk.transform.header import Header, read_header, read_lanes, shared_name
from inrstore.chunk.transform.scan import Coefficients, Words, scan
from inrstore.chunk.transform.subbands import Subband, Triple
from inrstore.chunk.transform.trellis import Walk
from inrstore.chunk.transform.window import Window
from inrstore.errors import CorruptChunkError, LimitExceededError

ESCAPE = SIZES - 1
ORDER, MOST_ZEROS = 2, 21
"""What an escaped size is above the escape is an Exp-Golomb number: its order, and the zeros in front, at most."""
_BLOCK = 1 << 15
_TOGETHER = 1 << 16  # values of components that are transformed together


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian, `shared` has parameters by digest.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    header, lengths, subbands, coefficients, loops = _coefficients(reader, dtype, box, shared)
    return synthesis(header, lengths, subbands, coefficients, dtype, box, loops)


def decode_part(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], wanted: Sequence[range],
                shared: Shared = NOTHING) -> npt.NDArray[Any]:  # fmt: skip
    """Return the values at the wanted positions along each axis of the box, at least one; equal to those of `decode`.

    All coefficients are decoded, and with them all that bytes can be wrong in is checked. What is left out are the
    limits of values that are not made: those of section 14.7 hold for what reaches the wanted positions,
    that of section 14.8 for the components there and the wanted measurements. So all that is made is exact, but a
    chunk that `decode` refuses for values elsewhere is not refused.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    header, lengths, subbands, coefficients, loops = _coefficients(reader, dtype, box, shared)
    axis, places = header.channel_axis, _places(box, header.channel_axis, wanted)
    try:
        volumes = _components_at(header, lengths, subbands, coefficients, places, loops)
    except LimitExceededError:
        # Values beside the wanted ones, which are only made to be cut off, may have been too large: all of them decide.
        whole = synthesis(header, lengths, subbands, coefficients, dtype, box, loops)
        return whole[np.ix_(*wanted)]
    if axis is not None:
        some = np.array(wanted[axis])
        header = replace(header, basis=header.basis[some], gains=header.gains[some], offsets=header.offsets[some])
    return outputs(header, volumes, dtype, tuple(len(w) for w in wanted), loops)


def _coefficients(
    reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared
) -> tuple[Header, Triple, list[Subband], Coefficients, ModuleType | None]:
    """Return the header of a payload, slices, rows and columns, subbands, coefficients, and loops if they serve."""
    header, lengths, subbands = read_header(reader, dtype, box, shared)
    count = sum(int(n) * math.prod(b.shape) for b, n in zip(subbands, header.active, strict=True))
    lanes = read_lanes(reader, count)
    bits = BitReader(reader.take(reader.number("I", "transform.bits"), "transform.bits"), "transform.bits")
    signs = np.unpackbits(
        reader.array("u1", reader.number("I", "transform.signs"), "transform.signs"), bitorder="little"
    )
    stream = Stream(reader, lanes, "transform")
    loops = choice.find("transform", math.prod(box))
    if loops is None:
        source = (_TrellisSource if header.trellis else _Source)(stream, bits)
        coefficients = scan(subbands, header.active, header.levels, header.weights, source, trellis=header.trellis)
    else:
        coefficients = compiled.magnitudes(loops, header, subbands, stream, bits)
    bits.finish()
    _sign(coefficients, stream.last_bits(), signs, loops)
    return header, lengths, subbands, coefficients, loops


def _places(box: tuple[int, ...], axis: int | None, wanted: Sequence[range]) -> list[Ints]:
    """Return the slices, rows and columns that are wanted."""
    space = [(n, np.array(w)) for a, (n, w) in enumerate(zip(box, wanted, strict=True)) if a != axis]
    space = [(1, np.zeros(1, np.int64))] * (3 - len(space)) + space
    slices = np.zeros(1, np.int64)
    for length, some in space[:-2]:
        slices = (slices[:, None] * length + some).reshape(-1)
    return [slices, space[-2][1], space[-1][1]]


def _components_at(header: Header, lengths: Triple, subbands: Sequence[Subband], coefficients: Coefficients,
                   places: Sequence[Ints], loops: ModuleType | None) -> wavelet.Doubles:  # fmt: skip
    """Return the components at slices, rows and columns, corrected if they are; little else is made."""
    reach = (0, 0, 0) if header.correction is None else header.correction.reach
    hull = [(int(some.min()), int(some.max()) + 1) for some in places]
    around = [(max(0, a - r), min(n, b + r)) for (a, b), r, n in zip(hull, reach, lengths, strict=True)]
    volumes = components_of(header, lengths, subbands, coefficients, loops, Window.of(lengths, header.levels, around))
    if header.correction is not None:
        z, y, x = (slice(a - begin, b - begin) for (a, b), (begin, _) in zip(hull, around, strict=True))
        header.correction.apply(volumes, (z, y, x))
    for axis, (some, (begin, _)) in enumerate(zip(places, around, strict=True), 1):
        volumes = volumes.take(some - begin, axis)
    return volumes


def describe(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> dict[str, Any]:
    """Return what a payload says of itself, and the shared parameter that it names if that is at hand."""
    name = shared_name(reader)
    found: dict[str, Any] = {"shared": name.hex()} if name else {}
    if name and all(digest[: len(name)] != name for digest in shared):
        return found
    header, _, _ = read_header(reader, dtype, box, shared)
    found["components"] = header.basis.shape[1]
    return found if header.correction is None else found | header.correction.describe()


def _sign(coefficients: Coefficients, first: npt.NDArray[np.uint8], rest: npt.NDArray[np.uint8],
          loops: ModuleType | None) -> None:  # fmt: skip
    """Give the magnitudes, subband by subband, the signs that stand in the last states and after them."""
    live_of = np.count_nonzero if loops is None else loops.count_live
    count = sum(int(live_of(values.reshape(-1))) for values in coefficients.values())
    beyond = max(0, count - len(first))
    if not beyond <= len(rest) < beyond + 8:
        raise CorruptChunkError("transform.signs", f"{len(rest)} bits where {beyond} belong")
    if first[count:].any() or rest[beyond:].any():
        raise CorruptChunkError("transform.signs", "a bit after the last sign is set")
    bits = np.concatenate([first[:count], rest[:beyond], np.zeros(1, np.uint8)])
    begin = 0
    for values in coefficients.values():
        flat = values.reshape(-1)
        if loops is not None:
            begin = loops.sign(flat, bits, begin)
            continue
        live = flat.nonzero()[0]
        negative = live[bits[begin : begin + live.size] == 1]
        flat[negative] = -flat[negative]
        begin += live.size


class _Source:
    """Magnitudes from a stream."""

    QUANTISERS = 1

    def __init__(self, stream: Stream, bits: BitReader) -> None:
        self._stream, self._bits, self._model = stream, bits, Model(self.QUANTISERS)

    def take(self, subband: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> Words:
        return self._magnitudes(context_of(expected) >> 2)

    def _magnitudes(self, place: Ints) -> Words:
        """Return the magnitudes of a pass from the contexts of its values."""
        live = self._flags(place)
        out = np.zeros(len(place), np.int32)
        if live.size:
            mine = place.take(live)
            sizes = self._stream.symbols(mine, Lookup(self._model.size_counts(), SIZE_BITS)).astype(np.int64)
            self._model.count_sizes(mine, sizes)
            width = low_bits(mine).astype(np.int32)
            magnitude = (sizes + self._escaped(sizes)).astype(np.int32) << width
            if width.any():
                magnitude += self._bits.take(width)
            magnitude += 1
            if (magnitude > limits.MAX_TRANSFORM_MAGNITUDE).any():
                raise LimitExceededError("transform.bits", "a coefficient is too large")
            out[live] = magnitude
        return out

    def _flags(self, place: Ints) -> Ints:
        """Return which values of a pass are not zero, in order."""
        share = self._model.flag_counts().astype(np.uint32)
        flags = self._stream.flags(share.take(place), FLAG_BITS)
        self._model.count_flags(place, flags)
        return flags.nonzero()[0]

    def _escaped(self, sizes: Ints) -> Ints:
        """Return what is added to each size."""
        out = np.zeros(len(sizes), np.int64)
        over = (sizes == ESCAPE).nonzero()[0]
        if over.size:
            width = self._bits.zeros(over.size, MOST_ZEROS) + np.int32(ORDER)
            out[over] = self._bits.take(width) + (1 << width) - (1 << ORDER)
        return out


class _TrellisSource(_Source):
    """Coefficients of two quantisers from a stream, in half steps."""

    QUANTISERS = 2

    def __init__(self, stream: Stream, bits: BitReader) -> None:
        super().__init__(stream, bits)
        self._walk, self._second = Walk(), np.zeros(0, np.uint8)

    def _magnitudes(self, place: Ints) -> Words:
        magnitudes = super()._magnitudes(place)
        return 2 * magnitudes - np.where(magnitudes > 0, self._second, 0).astype(np.int32)

    def _flags(self, place: Ints) -> Ints:
        shares = self._model.flag_counts().astype(np.uint32).reshape(2, -1)
        flags, self._second = self._stream.flags_of_two(shares[:, place], self._walk.quantisers, FLAG_BITS)
        self._model.count_flags(place + CONTEXTS * self._second, flags)
        return flags.nonzero()[0]


def dequantised(values: npt.NDArray[Any], subband: Subband, header: Header) -> wavelet.Doubles:
    """Return coefficients in internal units (section 14.7)."""
    some = values.reshape(-1).nonzero()[0]
    number = np.zeros(values.size)
    signed = values.reshape(-1)[some].astype(np.float64)
    magnitude = np.abs(signed)
    bias = np.where(magnitude > 1, float(header.biases[1]), float(header.biases[0]))
    unit = 64 if header.trellis else 128
    units = (magnitude * unit + bias) * wavelet.gain_of(subband.key, subband.level, header.levels)
    number[some] = np.sign(signed) * np.floor((units + 64) * 2.0**-7)
    return number.reshape(values.shape)


def synthesis(header: Header, lengths: Triple, subbands: Sequence[Subband], coefficients: Coefficients,
              dtype: np.dtype[Any], box: tuple[int, ...],
              loops: ModuleType | None = None) -> npt.NDArray[Any]:  # fmt: skip
    """Return the box of quantised coefficients (sections 14.7 and 14.8)."""
    volumes = components_of(header, lengths, subbands, coefficients, loops)
    if header.correction is not None:
        header.correction.apply(volumes)
    return outputs(header, volumes, dtype, box, loops)


def components_of(header: Header, lengths: Triple, subbands: Sequence[Subband], coefficients: Coefficients,
                  loops: ModuleType | None = None, window: Window | None = None) -> wavelet.Doubles:  # fmt: skip
    """Return the components of quantised coefficients, shape (components, slices, rows, columns) (section 14.7).

    With a window they are those inside it.
    """
    components = header.basis.shape[1]
    window = window or Window.of(lengths, header.levels)
    together = max(1, _TOGETHER // math.prod(window.shape))

    def volumes_of(begin: int, end: int) -> wavelet.Doubles:
        some = {(b.level, b.key): coefficients[b.level, b.key][(slice(begin, end), *window.part(b.level, b.key))]
                for b in subbands}  # fmt: skip
        if loops is not None:
            made = compiled.inverse(loops, some, header, window, end - begin)
        else:
            mine = {}
            for subband, values in zip(subbands, some.values(), strict=True):
                if len(values):
                    found = dequantised(values, subband, header)
                    missing = np.zeros((end - begin - len(found), *found.shape[1:]))
                    mine[subband.level, subband.key] = np.concatenate([found, missing]) if len(missing) else found
            made = wavelet.inverse(mine, lengths, header.levels, window)
        return np.zeros((end - begin, *window.shape)) if made is None else made

    if components <= together:  # a second copy of one large component would be most of the memory
        volumes = volumes_of(0, components)
    else:
        volumes = np.empty((components, *window.shape))
        for begin in range(0, components, together):
            end = min(begin + together, components)
            volumes[begin:end] = volumes_of(begin, end)
    return volumes


def outputs(header: Header, volumes: wavelet.Doubles, dtype: np.dtype[Any], box: tuple[int, ...],
            loops: ModuleType | None = None) -> npt.NDArray[Any]:  # fmt: skip
    """Return the box of its components, corrected or not (section 14.8)."""
    rows = volumes.reshape(len(volumes), -1)
    if loops is None:
        most = np.maximum(rows.max(1), -rows.min(1))
    else:
        most = np.array([loops.largest(row) for row in rows])
    basis = np.ldexp(header.basis.astype(np.float64), header.column_shifts[None, :])
    unit = 2.0**header.shift
    gains, offsets = header.gains.astype(np.float64), np.ldexp(header.offsets.astype(np.float64), header.offset_shift)
    if (gains * (np.abs(basis) @ most) + np.abs(offsets) + unit / 2 >= limits.EXACT_FLOAT64).any():
        raise LimitExceededError("transform.outputs", "sums leave the range of exact float64")
    plain = basis.shape == (1, 1) and basis[0, 0] == 1  # nothing to be multiplied
    # Numbers below 2^53 divided by a power of two, so all is exact.
    gains, offsets = gains[:, None] / unit, offsets[:, None] / unit + 0.5
    measurements = len(basis)
    out = np.empty((measurements, rows.shape[1]), dtype)
    block = max(64, _BLOCK // measurements)
    for begin in range(0, rows.shape[1], block):
        part = rows[:, begin : begin + block]
        if loops is not None:
            sums = np.array(part) if plain else product(basis, part)
            compiled.finish(loops, sums, gains, offsets, header, out[:, begin : begin + block])
            continue
        number = (part if plain else product(basis, part)) * gains
        number += offsets
        np.floor(number, out=number)
        np.clip(number, header.low, header.high, out=number)
        if header.exponent:
            np.ldexp(number, header.exponent, out=number)
        out[:, begin : begin + block] = number
    axis = header.channel_axis
    if axis is None:
        return out.reshape(box)
    rest = tuple(n for a, n in enumerate(box) if a != axis)
    return np.moveaxis(out.reshape(measurements, *rest), 0, axis)
