"""Values on a uniform grid, differenced, split into byte planes and deflated (specification section 8).

Step 1 on the bit patterns is lossless; a larger step bounds every error by half of it. This is the simple
fallback for what a network does not carry; the payload names its arithmetic, so a better residual coder will be
a mode beside it.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import CorruptChunkError
from inrstore.format import dtypes, normalize
from inrstore.format.frame import Reader

EXACT, INTEGER, FLOAT = 0, 1, 2
_NO_CHANNELS = 0xFF


# ---- bit patterns in numerical order, so that neighbours differ little -------------------------------------


def ordered(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Map a little-endian array to unsigned integers of the same width in the same order, bit for bit."""
    pattern = dtypes.bits(array).copy()
    top = pattern.dtype.type(1 << (8 * array.dtype.itemsize - 1))
    if array.dtype.kind == "i":
        pattern ^= top
    elif array.dtype.kind == "f":
        pattern ^= np.where(pattern & top, ~pattern.dtype.type(0), top)
    return pattern


def unordered(pattern: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Undo `ordered` in place and return a view of `dtype`."""
    top = pattern.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "i":
        pattern ^= top
    elif dtype.kind == "f":
        pattern ^= np.where(pattern & top, top, ~pattern.dtype.type(0))
    return pattern.view(dtype)


# ---- unsigned grid <-> bytes -------------------------------------------------------------------------------


def _forward(grid: npt.NDArray[Any], axes: int) -> npt.NDArray[Any]:
    for axis in range(grid.ndim):
        if axes >> axis & 1:
            grid = np.diff(grid, axis=axis, prepend=grid.dtype.type(0))
    return grid


def _pack_grid(grid: npt.NDArray[Any], axes: int, level: int) -> bytes:
    delta = _forward(grid, axes)
    if axes:
        sign = delta >> (8 * grid.dtype.itemsize - 1)
        delta = (delta << 1) ^ (~sign + grid.dtype.type(1))
    planes = np.ascontiguousarray(delta).reshape(-1, 1).view(np.uint8)
    return zlib.compress(np.ascontiguousarray(planes.T).tobytes(), level)


def _unpack_grid(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], axes: int) -> npt.NDArray[Any]:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    delta = np.ascontiguousarray(planes.T).view(dtype).reshape(shape)
    if axes:
        delta = (delta >> 1) ^ (~(delta & 1) + dtype.type(1))
    for axis in range(len(shape)):
        if axes >> axis & 1:
            np.add.accumulate(delta, axis=axis, out=delta, dtype=dtype)
    return delta


def _best_axes(grid: npt.NDArray[Any]) -> int:
    """Choose the axes to difference along, on a central sample of at most about 2^18 values."""
    keep = max(4, int((1 << 18) ** (1 / max(grid.ndim, 1))))
    sample = grid[tuple(slice(max(0, (n - keep) // 2), (n - keep) // 2 + keep) if n > keep else slice(None)
                        for n in grid.shape)]  # fmt: skip
    choices = [sum(1 << a for a in c) for k in range(4) for c in itertools.combinations(range(grid.ndim), k)]
    return min(choices, key=lambda axes: len(_pack_grid(sample, axes, 1)))


# ---- payload -----------------------------------------------------------------------------------------------


def encode(
    core: npt.NDArray[Any], steps: npt.NDArray[np.float64] | None, channel_axis: int | None
) -> bytes:
    """Return the payload after the envelope.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value; finite when `steps` are given.
    steps : ndarray or None
        None is lossless; else one step, or one for each index of `channel_axis`. Whole numbers for integers.
    channel_axis : int or None
        Axis along which the steps change.
    """
    if steps is None:
        head = struct.pack("<BB", EXACT, _NO_CHANNELS)
        grid = ordered(core)
    else:
        axis = channel_axis if channel_axis is not None and len(steps) > 1 else None
        view = _along(steps, axis, core.ndim)
        low = float(core.min()) if core.dtype.kind == "f" else int(core.min())
        high = float(core.max()) if core.dtype.kind == "f" else int(core.max())
        if core.dtype.kind == "f":
            head = struct.pack("<BBdd", FLOAT, _axis_byte(axis), low, high) + steps.astype("<f8").tobytes()
            index = np.rint((core.astype(np.float64) - low) / view)
            if not np.isfinite(index).all() or index.max(initial=0) >= 2**53:
                raise OverflowError("the step is too fine for a grid of exact integers")
            grid = index.astype(np.uint64)
        else:
            whole = np.asarray(steps, np.uint64)
            head = struct.pack("<BB", INTEGER, _axis_byte(axis)) + _wide(low) + _wide(high)
            head += whole.astype("<u8").tobytes()
            distance = core.astype(np.uint64) - np.uint64(low % 2**64)
            step = _along(whole, axis, core.ndim)
            grid = distance // step
            grid += distance % step > step // 2
        peak = int(grid.max(initial=0))
        width = next(w for w in (1, 2, 4, 8) if peak < 1 << 8 * w)
        if width > core.dtype.itemsize:
            raise OverflowError("the step is too fine for an index no wider than a value")
        head += struct.pack("<B", width)
        grid = grid.astype(dtypes.bits_dtype(width))
    axes = _best_axes(grid)
    return head + struct.pack("<B", axes) + _pack_grid(grid, axes, 9)


def decode(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a planes payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    kind = reader.number("B", "planes.kind")
    axis_byte = reader.number("B", "planes.channel_axis")
    if kind not in (EXACT, INTEGER, FLOAT) or (kind == FLOAT) > (dtype.kind == "f"):
        raise CorruptChunkError("planes.kind", f"{kind} with dtype {dtype}")
    if kind == INTEGER and dtype.kind not in "iu":
        raise CorruptChunkError("planes.kind", f"{kind} with dtype {dtype}")
    if axis_byte != _NO_CHANNELS and (axis_byte >= len(shape) or kind == EXACT):
        raise CorruptChunkError("planes.channel_axis", f"{axis_byte} of {len(shape)} axes")
    axis = None if axis_byte == _NO_CHANNELS else axis_byte
    if kind == EXACT:
        grid = _read_grid(reader, dtypes.bits_dtype(dtype.itemsize), shape)
        return unordered(grid, dtype)
    count = 1 if axis is None else shape[axis]
    if kind == INTEGER:
        return _decode_integers(reader, dtype, shape, axis, count)
    low, high = (float(v) for v in reader.array("<f8", 2, "planes.range"))
    steps = reader.array("<f8", count, "planes.steps")
    if not (np.isfinite(steps).all() and (steps > 0).all() and np.isfinite(low) and low <= high < np.inf):
        raise CorruptChunkError("planes.steps", "not positive and finite")
    out = np.empty(shape, dtype)
    grid = _read_sized_grid(reader, shape, dtype.itemsize)
    view = np.broadcast_to(_along(steps, axis, len(shape)), shape)
    with np.errstate(over="ignore"):
        for i in _slabs(shape):
            # Two separately rounded float64 operations, then the limits, then one cast: the same everywhere.
            out[i] = np.clip(low + grid[i].astype(np.float64) * view[i], low, high)
    return out


def _decode_integers(
    reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...], axis: int | None, count: int
) -> npt.NDArray[Any]:
    low, high = (_narrow(reader, dtype) for _ in range(2))
    if low > high:
        raise CorruptChunkError("planes.range", f"{low} > {high}")
    steps = reader.array("<u8", count, "planes.steps")
    if not steps.all():
        raise CorruptChunkError("planes.steps", "a step of 0")
    out = np.empty(shape, dtype)
    grid = _read_sized_grid(reader, shape, dtype.itemsize)
    span = np.uint64(high - low)
    view = np.broadcast_to(_along(steps, axis, len(shape)), shape)
    for i in _slabs(shape):
        index, step = grid[i].astype(np.uint64), view[i]
        # Saturates at the largest value instead of wrapping around 2^64.
        distance = np.where(index > span // step, span, index * step)
        out[i] = (distance + np.uint64(low % 2**64)).astype(dtype)
    return out


def _slabs(shape: tuple[int, ...]) -> list[Any]:
    """Return indices along the first axis whose 64-bit temporaries stay small."""
    if not shape:
        return [...]
    rows = max(1, (1 << 17) * shape[0] // max(1, int(np.prod(shape))))
    return [slice(i, i + rows) for i in range(0, shape[0], rows)]


def _read_sized_grid(reader: Reader, shape: tuple[int, ...], widest: int) -> npt.NDArray[Any]:
    width = reader.number("B", "planes.width")
    if width not in (1, 2, 4, 8) or width > widest:
        raise CorruptChunkError("planes.width", f"{width} bytes for values of {widest}")
    return _read_grid(reader, dtypes.bits_dtype(width), shape)


def _read_grid(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    axes = reader.number("B", "planes.axes")
    if axes >> len(shape):
        raise CorruptChunkError("planes.axes", f"bits above axis {len(shape) - 1} in {axes:#x}")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = normalize.inflate(reader.take(reader.remaining, "planes.data"), size, "planes.data")
    return _unpack_grid(raw, dtype, shape, axes)


def _along(values: npt.NDArray[Any], axis: int | None, ndim: int) -> npt.NDArray[Any]:
    view = [1] * ndim
    if axis is not None:
        view[axis] = len(values)
    return values.reshape(view)


def _axis_byte(axis: int | None) -> int:
    return _NO_CHANNELS if axis is None else axis


def _wide(value: float) -> bytes:
    return struct.pack("<Q", int(value) % 2**64)


def _narrow(reader: Reader, dtype: np.dtype[Any]) -> int:
    value = reader.number("q" if dtype.kind == "i" else "Q", "planes.range")
    info = np.iinfo(dtype)
    if not info.min <= value <= info.max:
        raise CorruptChunkError("planes.range", f"{value} does not fit {dtype}")
    return value
