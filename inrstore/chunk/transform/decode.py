"""Bytes -> values of chunk mode transform (specification section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.integers import BitReader, Ints
from inrstore.chunk.frame import Reader
from inrstore.chunk.predictor.tables import contexts as context_of
from inrstore.chunk.transform import wavelet
from inrstore.chunk.transform.adaptive import CONTEXTS, QUIET, SIZES, Model, groups_of, low_bits
from inrstore.chunk.transform.bands import Band, Triple
from inrstore.chunk.transform.contexts import Singles
from inrstore.chunk.transform.header import Header, read_header, read_lanes
from inrstore.chunk.transform.lanes import Stream
from inrstore.chunk.transform.walk import Coefficients, Words, walk
from inrstore.errors import CorruptChunkError, LimitExceededError

ESCAPE = SIZES - 1
LENGTH_BITS, MOST_LENGTH, HALF_LENGTH = 5, 24, 12
"""An escaped size: bits of its length, the most, and how many of them stand together."""
_BLOCK = 1 << 15
_TOGETHER = 1 << 18  # values of components that are transformed together
_MOST_SUM = float(1 << 46)


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    header, lengths, bands = read_header(reader, dtype, box)
    count = sum(int(n) * math.prod(b.shape) for b, n in zip(bands, header.active, strict=True))
    lanes = read_lanes(reader, count)
    bits = BitReader(reader.take(reader.number("I", "transform.bits"), "transform.bits"), "transform.bits")
    signs = np.unpackbits(
        reader.array("u1", reader.number("I", "transform.signs"), "transform.signs"), bitorder="little"
    )
    source = _Source(Stream(Reader(reader.take(reader.remaining, "transform.words")), lanes), bits)
    coefficients = walk(bands, header.active, header.levels, header.weights, source)
    _sign(coefficients, source.finish(), signs)
    return synthesis(header, lengths, bands, coefficients, dtype, box)


def _sign(coefficients: Coefficients, first: npt.NDArray[np.uint8], rest: npt.NDArray[np.uint8]) -> None:
    """Give the magnitudes, band by band, the signs that stand in the last states and after them."""
    count = sum(int(np.count_nonzero(values)) for values in coefficients.values())
    beyond = max(0, count - len(first))
    if not beyond <= len(rest) < beyond + 8:
        raise CorruptChunkError("transform.signs", f"{len(rest)} bits where {beyond} belong")
    if first[count:].any() or rest[beyond:].any():
        raise CorruptChunkError("transform.signs", "a bit after the last sign is set")
    bits = np.concatenate([first[:count], rest[:beyond]]) == 1
    begin = 0
    for values in coefficients.values():
        flat = values.reshape(-1)
        live = flat.nonzero()[0]
        negative = live[bits[begin : begin + live.size]]
        flat[negative] = -flat[negative]
        begin += live.size


class _Source:
    """Magnitudes from a stream."""

    def __init__(self, stream: Stream, bits: BitReader) -> None:
        self._stream, self._bits, self._model = stream, bits, Model()

    def take(self, band: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> Words:
        place = context_of(expected) >> 2
        live = self._flags(place)
        out = np.zeros(len(place), np.int32)
        if live.size:
            mine = place.take(live)
            sizes = self._stream.sizes(mine, self._model.size_counts())
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
        share = self._model.flag_counts()
        quiet, firsts, most = groups_of(place)
        loud = place >= QUIET
        flags = np.zeros(len(place), np.bool_)
        among = most + (CONTEXTS + QUIET)
        groups = self._stream.flags(share.take(among))
        wanted = np.ones(len(place), np.bool_)
        wanted[quiet] = np.repeat(groups, np.diff(np.append(firsts, len(quiet))))
        asked = wanted.nonzero()[0]
        own = np.where(loud, place, place + CONTEXTS).take(asked)
        found = self._stream.flags(share.take(own))
        flags[asked] = found
        self._model.count_flags(np.concatenate([among, own]), np.concatenate([groups, found]))
        return flags.nonzero()[0]

    def _escaped(self, sizes: Ints) -> Ints:
        """Return what is added to each size."""
        out = np.zeros(len(sizes), np.int64)
        over = (sizes == ESCAPE).nonzero()[0]
        if over.size:
            length = self._bits.take(np.full(over.size, LENGTH_BITS, np.int32))
            if (length > MOST_LENGTH).any():
                raise LimitExceededError("transform.bits", "an escaped size is too long")
            first = np.minimum(length, HALF_LENGTH)
            low = self._bits.take(first).astype(np.int64)
            out[over] = low + (self._bits.take(length - first).astype(np.int64) << HALF_LENGTH)
        return out

    def finish(self) -> npt.NDArray[np.uint8]:
        """Refuse what is left over; return the bits that the states end in."""
        self._bits.finish()
        return self._stream.last_bits()


def dequantised(values: npt.NDArray[Any], band: Band, header: Header) -> wavelet.Doubles:
    """Return coefficients in internal units (section 14.7)."""
    some = values.reshape(-1).nonzero()[0]
    number = np.zeros(values.size)
    signed = values.reshape(-1)[some].astype(np.float64)
    magnitude = np.abs(signed)
    bias = np.where(magnitude > 1, float(header.biases[1]), float(header.biases[0]))
    units = (magnitude * 128 + bias) * wavelet.gain_of(band.key, band.level, header.levels)
    number[some] = np.copysign(np.floor((units + 64) * 2.0**-7), signed)
    return number.reshape(values.shape)


def synthesis(header: Header, lengths: Triple, bands: Sequence[Band], coefficients: Coefficients,
              dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:  # fmt: skip
    """Return the box of quantised coefficients (sections 14.7 and 14.8)."""
    components = header.basis.shape[1]
    volumes = np.empty((components, *lengths))
    together = max(1, _TOGETHER // math.prod(lengths))
    for begin in range(0, components, together):
        end = min(begin + together, components)
        mine = {}
        for band, count in zip(bands, header.active, strict=True):
            if count > begin:
                values = dequantised(coefficients[band.level, band.key][begin:end], band, header)
                missing = end - begin - len(values)
                if missing:
                    values = np.concatenate([values, np.zeros((missing, *band.shape))])
                mine[band.level, band.key] = values
        made = wavelet.inverse(mine, lengths, header.levels)
        volumes[begin:end] = 0 if made is None else made
    return _outputs(header, volumes.reshape(components, -1), dtype, box)


def _outputs(header: Header, rows: wavelet.Doubles, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    most = np.maximum(rows.max(1), -rows.min(1))
    basis = np.ldexp(header.basis.astype(np.float64), header.column_shifts[None, :])
    if (np.abs(basis) @ most >= _MOST_SUM).any():
        raise LimitExceededError("transform.basis", "sums leave the exact range")
    measurements = len(basis)
    out = np.empty((measurements, rows.shape[1]), dtype)
    gains = header.gains[:, None]
    offsets = (header.offsets[:, None] << header.offset_shift) + (1 << (header.shift - 1))
    block = max(64, _BLOCK // measurements)
    for begin in range(0, rows.shape[1], block):
        part = rows[:, begin : begin + block]
        number = (part if measurements == 1 else basis @ part).astype(np.int64)
        number *= gains
        number += offsets
        number >>= header.shift
        np.clip(number, header.low, header.high, out=number)
        if dtype.kind == "f":
            out[:, begin : begin + block] = np.ldexp(number.astype(np.float64), header.exponent).astype(dtype)
        else:
            number <<= header.exponent
            out[:, begin : begin + block] = number.astype(dtype)
    axis = header.channel_axis
    if axis is None:
        return out.reshape(box)
    rest = tuple(n for a, n in enumerate(box) if a != axis)
    return np.moveaxis(out.reshape(measurements, *rest), 0, axis)
