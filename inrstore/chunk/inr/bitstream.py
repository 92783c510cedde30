"""Networks <-> bytes (specification section 7.1): a header that is data, tables, and weights coded by rANS.

The bytes end where they say, so that a network may stand anywhere: in a chunk, or shared by many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from inrstore import limits
from inrstore.chunk.entropy import weights as coder
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr.layers import ACTIVATIONS, Activation, Ints, Layer
from inrstore.chunk.inr.network import (
    MAX_SHIFT,
    MIN_SHIFT,
    Coordinates,
    Inputs,
    Network,
    Values,
    pack_gain,
    unpack_gain,
)
from inrstore.errors import CorruptChunkError, LimitExceededError

_COORDINATES, _VALUES = 0, 1
_RATIO_UNIT = 32
"""Ratios of a table are short numbers of this unit below 2^32."""


def write(network: Network) -> bytes:
    """Return the bytes of a network; `gains` must be values that `pack_gain` can make."""
    groups = _groups(network)
    tables = [short_table(coder.fit_table(g)) for g in groups]
    head = _write_inputs(network.inputs) + bytes([len(network.layers)])
    head += b"".join(bytes([a.activation.code, len(a.biases) - 1]) for a in network.layers)
    multipliers = [*(a.multiplier for a in network.layers), network.bias_multiplier]
    head += struct.pack("<I", network.outputs) + np.array(multipliers, "<u4").tobytes()
    head += b"".join(write_table(t) for t in tables)
    codes = [pack_gain(float(g)) for g in network.gains]
    head += struct.pack("<BB", network.shift, len(codes) > 1) + np.array(codes, "<u2").tobytes()
    head += _write_offsets(network.offsets)
    symbols = np.concatenate(groups).astype(np.int64)
    stream = coder.encode(symbols, _table_of(groups), tables)
    words = (len(stream) - 4 * coder.lane_count(len(symbols))) // 2
    return head + struct.pack("<I", words) + stream


def read(reader: Reader) -> Network:
    """Parse and check the bytes of a network; what follows them is left to the reader.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    earned = reader.remaining * limits.MAX_PARAMETERS_PER_BYTE
    inputs = _read_inputs(reader)
    count = reader.number("B", "network.layers")
    if not 1 <= count <= limits.MAX_LAYERS:
        raise LimitExceededError("network.layers", f"{count} is not in 1..{limits.MAX_LAYERS}")
    activations, widths = _read_layers(reader, count)
    outputs = reader.number("I", "network.outputs")
    columns = [inputs.count, *widths]
    sizes = [a * b for a, b in zip(widths, columns, strict=False)] + [sum(widths), outputs * widths[-1]]
    if not outputs or sum(sizes) > min(limits.MAX_PARAMETERS, earned):
        raise LimitExceededError("network.outputs", f"{sum(sizes)} parameters of {outputs} outputs in so few bytes")
    multipliers = [int(m) for m in reader.array("<u4", count + 1, "network.multipliers")]
    tables = [read_table(reader, "network") for _ in sizes]
    shift = reader.number("B", "network.shift")
    if not MIN_SHIFT <= shift <= MAX_SHIFT:
        raise LimitExceededError("network.shift", f"{shift} is not in {MIN_SHIFT}..{MAX_SHIFT}")
    many = reader.number("B", "network.gain_kind")
    if many > 1:
        raise CorruptChunkError("network.gain_kind", f"{many} is reserved")
    gains = unpack_gain(reader.array("<u2", outputs if many else 1, "network.gains").astype(np.int64))
    offsets = _read_offsets(reader, outputs)
    words = reader.number("I", "network.words")
    stream = Reader(reader.take(4 * coder.lane_count(sum(sizes)) + 2 * words, "network.words"))
    symbols = coder.decode(stream, np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes), tables)
    *matrices, biases, readout = np.split(symbols, np.cumsum(sizes)[:-1])
    layers = tuple(
        Layer(activation, matrix.reshape(width, -1 if matrix.size else 0), bias, multiplier)
        for activation, matrix, width, bias, multiplier in zip(
            activations, matrices, widths, np.split(biases, np.cumsum(widths)[:-1]), multipliers[:-1], strict=True
        )
    )
    network = Network(inputs, layers, multipliers[-1], readout.reshape(outputs, -1), gains, offsets, shift)
    network.check()
    return network


# ---- inputs and layers -------------------------------------------------------------------------------------


def _write_inputs(inputs: Inputs) -> bytes:
    if isinstance(inputs, Coordinates):
        return struct.pack("<BB", _COORDINATES, inputs.count)
    return struct.pack("<BHH", _VALUES, inputs.count, inputs.magnitude)


def _read_inputs(reader: Reader) -> Inputs:
    kind = reader.number("B", "network.inputs")
    if kind == _COORDINATES:
        count = reader.number("B", "network.axes")
        if count > limits.MAX_DIMS:
            raise LimitExceededError("network.axes", f"{count} is above {limits.MAX_DIMS}")
        return Coordinates(count)
    if kind == _VALUES:
        count, magnitude = reader.number("H", "network.values"), reader.number("H", "network.magnitude")
        if not 1 <= count <= limits.MAX_NETWORK_INPUTS:
            raise LimitExceededError("network.values", f"{count} is not in 1..{limits.MAX_NETWORK_INPUTS}")
        if not 1 <= magnitude <= limits.MAX_NETWORK_MAGNITUDE:
            raise LimitExceededError("network.magnitude", f"{magnitude} is not in 1..{limits.MAX_NETWORK_MAGNITUDE}")
        return Values(count, magnitude)
    raise CorruptChunkError("network.inputs", f"{kind} is reserved")


def _read_layers(reader: Reader, count: int) -> tuple[list[Activation], list[int]]:
    activations, widths = [], []
    for _ in range(count):
        code = reader.number("B", "network.activation")
        if code not in ACTIVATIONS:
            raise CorruptChunkError("network.activation", f"{code} is reserved")
        activations.append(ACTIVATIONS[code])
        widths.append(reader.number("B", "network.width") + 1)
    return activations, widths


# ---- offsets: as many bytes each as the largest needs ------------------------------------------------------


def _write_offsets(offsets: Ints) -> bytes:
    most = int(np.maximum(offsets, ~offsets).max(initial=0))
    size = most.bit_length() // 8 + 1
    return bytes([size]) + offsets.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :size].tobytes()


def _read_offsets(reader: Reader, count: int) -> Ints:
    size = reader.number("B", "network.offset_bytes")
    if not 1 <= size <= 4:
        raise LimitExceededError("network.offset_bytes", f"{size} is not in 1..4")
    padded = np.zeros((count, 4), np.uint8)
    padded[:, 4 - size :] = reader.array("u1", count * size, "network.offsets").reshape(count, size)
    signed: Ints = padded.view("<i4")[:, 0] >> 8 * (4 - size)
    return signed


# ---- tables ------------------------------------------------------------------------------------------------


def _groups(network: Network) -> list[Ints]:
    """Return the symbols in their order, one dimension for each table: layers, biases, read-out."""
    return [*(a.weights.reshape(-1) for a in network.layers),
            np.concatenate([a.biases for a in network.layers]), network.readout.reshape(-1)]  # fmt: skip


def _table_of(groups: Sequence[Ints]) -> Ints:
    return np.repeat(np.arange(len(groups)), [g.size for g in groups])


def _pack_ratio(ratio: int) -> int:
    """Return the code of a slope or bend: the short number nearest to what is missing to 2^32 - 1, in units of 32."""
    return min(0xFFFF, pack_gain((2**32 - 1 - ratio) / _RATIO_UNIT))


def _unpack_ratio(code: int) -> int:
    return 2**32 - 1 - _RATIO_UNIT * ((code & 0xFFF) << (code >> 12))


def short_table(table: coder.Table) -> coder.Table:
    """Return the table nearest to one that the bytes of a network can say."""
    slope, bend = (_unpack_ratio(_pack_ratio(r)) for r in (table.slope, table.bend))
    return coder.Table(slope, bend, table.peak)


def write_table(table: coder.Table) -> bytes:
    """Return the six bytes of a table that `short_table` has made."""
    return struct.pack("<HHH", _pack_ratio(table.slope), _pack_ratio(table.bend), table.peak)


def read_table(reader: Reader, name: str) -> coder.Table:
    """Parse and check a table; errors name the fields of whatever has this name."""
    slope, bend = reader.number("H", f"{name}.slope"), reader.number("H", f"{name}.bend")
    peak = reader.number("H", f"{name}.peak")
    if peak > limits.MAX_SYMBOL:
        raise LimitExceededError(f"{name}.peak", f"{peak} is above {limits.MAX_SYMBOL}")
    return coder.Table(_unpack_ratio(slope), _unpack_ratio(bend), peak)
