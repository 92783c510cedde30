"""The integer network: coded weights -> voxels at any coordinates (specification sections 5 to 7).

SIREN: Sitzmann et al., arXiv:2006.09661. One network maps a spatial coordinate to every measurement at that
place. All arithmetic is integer; phases are unsigned 32-bit numbers in which one turn is 2^32, so that they
wrap as they should.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.entropy import rans
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import exact
from inrstore.errors import CorruptChunkError, LimitExceededError

_NO_CHANNELS = 0xFF
_BLOCK = 4096  # points evaluated at a time: activations of 64 units then stay in the cache
_ROOM = 1 << 19  # values of one layer held at a time, however wide
MAX_SHIFT = 34

Ints = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Network:
    """The integers of one network; exactly what a payload holds.

    Parameters
    ----------
    channel_axis : int or None
        Axis of the chunk that the outputs run along; the other axes are coordinates.
    weights : sequence of ndarray of int
        Sine layers, (out, in); the first takes one column for each coordinate axis.
    biases : ndarray of int, shape (layers, width)
        Phase offsets.
    multipliers : list of int
        One unsigned 32-bit number for each sine layer and one for the biases: phase units (2^-32 turn) for one
        unit of the product-sum, or of a bias.
    readout : ndarray of int, shape (channels, width)
        The linear last layer.
    gains : ndarray of int64, shape (1,) or (channels,)
        Output units for one unit of the read-out sum, times 2^shift; see `pack_gain`.
    offsets : ndarray of int, shape (channels,)
        Added to the outputs, in sixteenths.
    shift : int
        4..34.
    exponent : int
        A stored value is the output times 2^exponent.
    low, high : int
        Outputs are limited to this range.
    """

    channel_axis: int | None
    weights: Sequence[Ints]
    biases: Ints
    multipliers: list[int]
    readout: Ints
    gains: Ints
    offsets: Ints
    shift: int
    exponent: int
    low: int
    high: int


# ---- gains: 12 significant bits in 16 ----------------------------------------------------------------------


def pack_gain(gain: float) -> int:
    """Return the 16-bit code of the gain nearest to a positive number below 2^27."""
    exponent = max(0, int(np.frexp(gain)[1]) - 12)
    mantissa = round(gain / 2.0**exponent)
    if mantissa >= 4096:
        exponent, mantissa = exponent + 1, 2048
    return exponent << 12 | max(0, mantissa)


def unpack_gain(code: Ints) -> Ints:
    """Return the gains of 16-bit codes: the low 12 bits shifted left by the high 4."""
    return (code & 0xFFF) << (code >> 12)


# ---- payload -----------------------------------------------------------------------------------------------


def write(network: Network) -> bytes:
    """Return the payload after the envelope; `gains` must be values that `pack_gain` can make."""
    axis = _NO_CHANNELS if network.channel_axis is None else network.channel_axis
    layers, width = network.biases.shape
    groups = [*network.weights, network.biases, network.readout]
    tables = [rans.fit_table(g.ravel()) for g in groups]
    head = struct.pack("<BBHbBii", axis, layers, width, network.exponent, network.shift, network.low, network.high)
    head += np.array(network.multipliers, "<u4").tobytes()
    head += b"".join(struct.pack("<IIH", t.slope, t.bend, t.peak) for t in tables)
    codes = [pack_gain(float(g)) for g in network.gains]
    head += struct.pack("<B", len(codes) > 1) + np.array(codes, "<u2").tobytes()
    head += network.offsets.astype("<i4").tobytes()
    symbols = np.concatenate([g.ravel() for g in groups])
    return head + rans.encode(symbols, _table_of(groups), tables)


def read(reader: Reader, dtype: np.dtype[Any], box_shape: tuple[int, ...]) -> Network:
    """Parse and check a payload.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    earned = reader.remaining * limits.MAX_PARAMETERS_PER_BYTE
    axis_byte = reader.number("B", "siren.channel_axis")
    if axis_byte != _NO_CHANNELS and axis_byte >= len(box_shape):
        raise CorruptChunkError("siren.channel_axis", f"{axis_byte} of {len(box_shape)} axes")
    axis = None if axis_byte == _NO_CHANNELS else axis_byte
    channels = 1 if axis is None else box_shape[axis]
    inputs = len(box_shape) - (axis is not None)
    layers, width = reader.number("B", "siren.layers"), reader.number("H", "siren.width")
    if not 1 <= layers <= limits.MAX_LAYERS:
        raise LimitExceededError("siren.layers", f"{layers} is not in 1..{limits.MAX_LAYERS}")
    if not 1 <= width <= limits.MAX_WIDTH:
        raise LimitExceededError("siren.width", f"{width} is not in 1..{limits.MAX_WIDTH}")
    shapes = [(width, inputs)] + [(width, width)] * (layers - 1) + [(layers, width), (channels, width)]
    count = sum(a * b for a, b in shapes)
    if count > min(limits.MAX_PARAMETERS, earned):
        raise LimitExceededError("siren.parameters", f"{count} parameters in {reader.remaining} bytes")
    exponent, shift = reader.number("b", "siren.exponent"), reader.number("B", "siren.shift")
    if not 4 <= shift <= MAX_SHIFT:
        raise LimitExceededError("siren.shift", f"{shift} is not in 4..{MAX_SHIFT}")
    low, high = reader.number("i", "siren.low"), reader.number("i", "siren.high")
    dtypes.check_outputs(low, high, exponent, dtype, "siren")
    multipliers = [int(m) for m in reader.array("<u4", layers + 1, "siren.multipliers")]
    tables = []
    for _ in shapes:
        slope, bend = reader.number("I", "siren.slope"), reader.number("I", "siren.bend")
        peak = reader.number("H", "siren.peak")
        if peak > limits.MAX_SYMBOL:
            raise LimitExceededError("siren.peak", f"{peak} is above {limits.MAX_SYMBOL}")
        tables.append(rans.Table(slope, bend, peak))
    many = reader.number("B", "siren.gain_kind")
    if many > 1:
        raise CorruptChunkError("siren.gain_kind", f"{many} is reserved")
    gains = unpack_gain(reader.array("<u2", channels if many else 1, "siren.gains").astype(np.int64))
    offsets = reader.array("<i4", channels, "siren.offsets")
    sizes = [a * b for a, b in shapes]
    table_of = np.repeat(np.arange(len(shapes), dtype=np.uint8), sizes)
    symbols = rans.decode(reader, table_of, tables)
    groups = [g.reshape(s) for g, s in zip(np.split(symbols, np.cumsum(sizes)[:-1]), shapes, strict=True)]
    for matrix in (*groups[1:layers], groups[-1]):
        exact.check_row_bound(matrix, "siren.weights")
    return Network(axis, groups[:layers], groups[layers], multipliers, groups[-1],
                   gains, offsets, shift, exponent, low, high)  # fmt: skip


def _table_of(groups: Sequence[Ints]) -> Ints:
    return np.repeat(np.arange(len(groups)), [g.size for g in groups])


# ---- evaluation --------------------------------------------------------------------------------------------


def evaluate(
    network: Network,
    dtype: np.dtype[Any],
    box_shape: tuple[int, ...],
    indices: Sequence[range | npt.NDArray[np.int64]],
) -> npt.NDArray[Any]:
    """Evaluate the network on the grid spanned by one index vector for each axis of the box.

    Parameters
    ----------
    network : Network
    dtype : numpy.dtype
        Little-endian dtype of the result.
    box_shape : tuple of int
        Shape of the whole box; coordinates are centred on it.
    indices : sequence of range or ndarray of int64
        Positions wanted along each axis, the channel axis included.

    Returns
    -------
    ndarray
        Shape is the length of each index vector.
    """
    axis = network.channel_axis
    space = [a for a in range(len(box_shape)) if a != axis]
    channels = range(1) if axis is None else indices[axis]
    turns = _turns(network.weights[0], network.multipliers[0])  # phase for one unit of each coordinate
    bias = _turns(network.biases, network.multipliers[-1])[:, :, None]
    extents = [len(indices[a]) for a in space]
    inner = extents[-1] if extents else 1
    outer = int(np.prod(extents[:-1], dtype=np.int64))
    out = np.empty((len(channels), outer, inner), dtype)
    layers = _Layers(network, channels)
    block = max(1, min(_BLOCK, _ROOM // max(bias.shape[1], min(len(channels), _BLOCK))))
    rows_at_once = max(1, block // max(1, inner))
    for col in range(0, inner, block):
        stop = min(col + block, inner)
        last = np.zeros((bias.shape[1], 1), np.uint32)
        if space:
            last = turns[:, -1:] * _coordinate(indices[space[-1]], np.arange(col, stop), box_shape[space[-1]])
        for row in range(0, outer, rows_at_once):
            rows = np.arange(row, min(row + rows_at_once, outer))
            base = np.broadcast_to(bias[0], (bias.shape[1], len(rows))).copy()
            places = np.unravel_index(rows, extents[:-1] or (1,))
            for column, (a, place) in enumerate(zip(space[:-1], places, strict=False)):
                base += turns[:, column, None] * _coordinate(indices[a], place, box_shape[a])
            phase = base[:, :, None] + last[:, None, :]
            values = layers.run(phase.reshape(len(base), -1), bias[1:], dtype)
            out[:, rows[0] : rows[-1] + 1, col:stop] = values.reshape(-1, len(rows), stop - col)
    result = out.reshape(len(channels), *extents)
    return result.reshape(extents) if axis is None else np.moveaxis(result, 0, axis)


def slice_of(positions: range) -> slice:
    """Return the slice that takes these positions, all of them at least 0, along an axis."""
    return slice(positions.start, positions.stop if positions.stop >= 0 else None, positions.step)


def _coordinate(
    positions: range | npt.NDArray[np.int64], places: npt.NDArray[np.intp], extent: int
) -> npt.NDArray[np.uint32]:
    """Return the centred coordinates, modulo 2^32, of some of the positions along an axis."""
    if isinstance(positions, range):  # a long axis is never spelled out
        chosen = positions.start + positions.step * places
    else:
        chosen = positions[places]
    return (2 * chosen - (extent - 1)).astype(np.uint32)


def _turns(number: Ints, multiplier: int) -> npt.NDArray[np.uint32]:
    """Return number * multiplier modulo one turn (int64 wraps at a multiple of it)."""
    return (number.astype(np.int64) * multiplier).astype(np.uint32)


class _Layers:
    """Scratch memory and float32 matrices for one evaluation."""

    def __init__(self, network: Network, channels: range | Ints) -> None:
        chosen = slice_of(channels) if isinstance(channels, range) else channels
        self.network = network
        self.hidden = [w.astype(np.float32) for w in network.weights[1:]]
        self.readout = network.readout[chosen].astype(np.float32)
        self.gains = network.gains if len(network.gains) == 1 else network.gains[chosen]
        self.offsets = network.offsets[chosen]
        self.table = exact.sine_table()

    def run(
        self, phase: npt.NDArray[np.uint32], bias: npt.NDArray[np.uint32], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """Return stored values, (channels, points), for first-layer phases (width, points)."""
        network = self.network
        top = 32 - exact.PHASE_BITS
        index = np.empty(phase.shape, np.intp)
        activation = np.empty(phase.shape, np.float32)
        total = np.empty(phase.shape, np.float32)
        signed = phase.view(np.int32)
        for layer in range(len(self.hidden) + 1):
            if layer:
                np.matmul(self.hidden[layer - 1], activation, out=total)
                np.copyto(signed, total, casting="unsafe")
                np.multiply(phase, np.uint32(network.multipliers[layer]), out=phase)
                np.add(phase, bias[layer - 1], out=phase)
            np.right_shift(phase, np.uint32(top), out=phase)
            np.copyto(index, phase)
            np.take(self.table, index, out=activation, mode="wrap")
        out = np.empty((len(self.readout), phase.shape[1]), dtype)
        for first in range(0, len(self.readout), _BLOCK):
            part = slice(first, first + _BLOCK)
            number = np.matmul(self.readout[part], activation).astype(np.int64)
            number *= (self.gains if len(self.gains) == 1 else self.gains[part])[:, None]
            # offset and rounding half in one addition
            offset = self.offsets[part].astype(np.int64) << (network.shift - 4)
            number += offset[:, None] + (1 << (network.shift - 1))
            number >>= network.shift
            np.clip(number, network.low, network.high, out=number)
            if dtype.kind == "f":
                out[part] = np.ldexp(number.astype(np.float64), network.exponent).astype(dtype)
            else:
                number <<= network.exponent
                out[part] = number.astype(dtype)
        return out
