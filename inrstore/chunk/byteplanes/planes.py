"""Indices of levels, differenced, split into byte planes and deflated (specification section 8).

The simple fallback for what a network does not carry: on bit patterns it is lossless, on a uniform grid every
error is at most half a step.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, normalize
from inrstore.chunk import mask as masks
from inrstore.chunk.byteplanes.levels import EXACT, FLOAT, INTEGER, Grid, ordered, read_grid, unordered
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

_NO_CHANNELS = 0xFF
_LEVEL = 6  # zlib; 9 takes three times as long for less than a hundredth of the bytes


def encode(core: npt.NDArray[Any], grid: Grid | None, inside: masks.Mask | None = None) -> bytes:
    """Return the payload after the envelope.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value and one axis; finite when there is a grid.
    grid : Grid or None
        None is lossless.
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core, with axes of length 1 where it does not vary.

    Raises
    ------
    OverflowError
        The grid is too fine to pay.
    """
    if grid is None:
        head, index = struct.pack("<BB", EXACT, _NO_CHANNELS), ordered(core)
    else:
        index = grid.index(core)
        kind = FLOAT if core.dtype.kind == "f" else INTEGER
        axis = _NO_CHANNELS if grid.axis is None else grid.axis
        head = struct.pack("<BB", kind, axis) + grid.write(core.dtype) + bytes([index.dtype.itemsize])
    axes = _best_axes(index, inside)
    return head + struct.pack("<B", axes) + _pack(_fill(index, inside, axes), axes, _LEVEL)


def decode(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a planes payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    kind, axis = reader.number("B", "planes.kind"), reader.number("B", "planes.channel_axis")
    if kind != EXACT and kind != {"f": FLOAT, "i": INTEGER, "u": INTEGER}.get(dtype.kind):
        raise CorruptChunkError("planes.kind", f"{kind} with dtype {dtype}")
    if axis != _NO_CHANNELS and (axis >= len(shape) or kind == EXACT):
        raise CorruptChunkError("planes.channel_axis", f"{axis} of {len(shape)} axes")
    if kind == EXACT:
        return unordered(_read(reader, dtypes.bits_dtype(dtype.itemsize), shape), dtype)
    grid = read_grid(reader, dtype, shape, None if axis == _NO_CHANNELS else axis)
    width = reader.number("B", "planes.width")
    if width not in (1, 2, 4, 8) or width > dtype.itemsize:
        raise CorruptChunkError("planes.width", f"{width} bytes for values of {dtype.itemsize}")
    return grid.values(_read(reader, dtypes.bits_dtype(width), shape), dtype)


def _read(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    axes = reader.number("B", "planes.axes")
    if axes >> len(shape):
        raise CorruptChunkError("planes.axes", f"bits above axis {len(shape) - 1} in {axes:#x}")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = normalize.inflate(reader.take(reader.remaining, "planes.data"), size, "planes.data")
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


def _pack(index: npt.NDArray[Any], axes: int, level: int) -> bytes:
    for axis in range(index.ndim):
        if axes >> axis & 1:
            index = np.diff(index, axis=axis, prepend=index.dtype.type(0))
    if axes:
        sign = index >> (8 * index.dtype.itemsize - 1)
        index = (index << 1) ^ np.negative(sign)
    planes = np.ascontiguousarray(index).reshape(-1, 1).view(np.uint8)
    return zlib.compress(np.ascontiguousarray(planes.T).tobytes(), level)


def _fill(index: npt.NDArray[Any], inside: masks.Mask | None, axes: int) -> npt.NDArray[Any]:
    """Return the indices with those outside made cheap: differences of 0 along an axis, or plain 0."""
    if inside is None:
        return index
    varies = [a for a in reversed(range(index.ndim)) if inside.shape[a] > 1]
    differenced = [a for a in varies if axes >> a & 1]
    if not differenced:
        return np.where(inside, index, index.dtype.type(0))
    return masks.spread(index, inside, [*differenced, *(a for a in varies if a not in differenced)])


def _best_axes(index: npt.NDArray[Any], inside: masks.Mask | None = None) -> int:
    """Choose the axes to difference along, on a central sample of at most about 2^17 values."""
    keep = max(4, int((1 << 17) ** (1 / index.ndim)))
    middle = [slice(max(0, (n - keep) // 2), max(0, (n - keep) // 2) + keep) for n in index.shape]
    choices = [c for k in range(4) for c in itertools.combinations(range(index.ndim), k)]
    packed = [sum(1 << axis for axis in c) for c in choices]
    sample = index[tuple(middle)]
    where = None if inside is None else masks.part(inside, middle)
    return min(packed, key=lambda axes: len(_pack(_fill(sample, where, axes), axes, 1)))
