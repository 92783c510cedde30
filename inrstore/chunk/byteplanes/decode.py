"""Bytes -> values of chunk mode byteplanes: inflate, add up differences, take levels (specification section 8).

The simple fallback for what no model carries: on bit patterns it is lossless, on a uniform grid of levels every
error is at most half a step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.byteplanes.quantiser import read_quantiser
from inrstore.chunk.frame import Reader
from inrstore.chunk.inflate import inflate
from inrstore.errors import CorruptChunkError

EXACT, INTEGER, FLOAT, PLAIN = range(4)
NO_CHANNELS = 0xFF


def decode(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    kind, axis = reader.number("B", "byteplanes.kind"), reader.number("B", "byteplanes.channel_axis")
    if kind not in (EXACT, PLAIN) and kind != {"f": FLOAT, "i": INTEGER, "u": INTEGER}.get(dtype.kind):
        raise CorruptChunkError("byteplanes.kind", f"{kind} with dtype {dtype}")
    if axis != NO_CHANNELS and (axis >= len(shape) or kind in (EXACT, PLAIN)):
        raise CorruptChunkError("byteplanes.channel_axis", f"{axis} of {len(shape)} axes")
    if kind == PLAIN:
        size = math.prod(shape) * dtype.itemsize
        raw = inflate(reader.take(reader.remaining, "byteplanes.data"), size, "byteplanes.data")
        return np.frombuffer(bytearray(raw), dtype).reshape(shape)  # writable
    if kind == EXACT:
        return dtypes.unordered(_indices(reader, dtypes.bits_dtype(dtype.itemsize), shape), dtype)
    quantiser = read_quantiser(reader, dtype, shape, None if axis == NO_CHANNELS else axis)
    width = reader.number("B", "byteplanes.width")
    if width not in (1, 2, 4, 8) or width > dtype.itemsize:
        raise CorruptChunkError("byteplanes.width", f"{width} bytes for values of {dtype.itemsize}")
    return quantiser.values(_indices(reader, dtypes.bits_dtype(width), shape), dtype)


def _indices(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    axes = reader.number("B", "byteplanes.axes")
    if axes >> len(shape):
        raise CorruptChunkError("byteplanes.axes", f"bits above axis {len(shape) - 1} in {axes:#x}")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = inflate(reader.take(reader.remaining, "byteplanes.data"), size, "byteplanes.data")
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    index = np.array(planes.T, order="C").view(dtype).reshape(shape)  # a copy always: it is written to
    if axes:
        sign = index & dtype.type(1)
        index >>= dtype.type(1)
        index ^= np.negative(sign, out=sign)
    for axis in range(len(shape)):
        if axes >> axis & 1:
            np.add.accumulate(index, axis=axis, out=index, dtype=dtype)
    return index
