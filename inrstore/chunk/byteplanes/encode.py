"""Values -> byteplanes payloads: the coarsest levels that keep a target, differenced and deflated (section 8)."""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, envelope, quality
from inrstore.chunk import mask as masks
from inrstore.chunk.byteplanes.decode import EXACT, FLOAT, INTEGER, NO_CHANNELS, PLAIN
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.task import Task

_LEVEL = 6  # zlib; 9 takes three times as long for less than a hundredth of the bytes
_MEMORY = 9  # of zlib: as the program gzip, a little better than what gzip of Python has
_PLAIN_BLOCK = 1 << 17  # values after which it is seen whether bytes as they lie are still worth it
_STEP_TRIALS = (1.3, 1.2, 1.1, 1.05, 1.02, 1.0, 0.98, 0.94, 0.88, 0.8, 0.6)


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk: its bit patterns for a lossless target, else the coarsest levels that keep it.

    None where such levels are all integers anyway, or would need more bytes than the values.
    """
    if not task.target.lossless:
        return _quantised(task)
    shape, real = task.chunk.shape, task.chunk.dtype.kind == "f"
    around = task.cropped[1] if real or task.mask is not None else None
    if around is not None and (around.mask is not None or around.numbers is not None):
        best = task.sealed(encode(task.cropped[0], None, around.mask))
    else:
        # Borders deflate to nothing and non-finite values are bit patterns like any other: no envelope needed.
        best = envelope.write(envelope.whole(shape), shape) + encode(task.values, None)
    plain = _plain(task.values, len(best)) if real and task.mask is None else None
    return best if plain is None else envelope.write(envelope.whole(shape), shape) + plain


def _plain(values: npt.NDArray[Any], most: int) -> bytes | None:
    """Return the payload of bytes deflated as they lie, what gzip does, or None if that is no less than `most`."""
    engine, flat = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY), values.reshape(-1)
    parts = [struct.pack("<BB", PLAIN, NO_CHANNELS)]
    size = len(parts[0]) + 1
    for start in range(0, flat.size, _PLAIN_BLOCK):
        parts.append(engine.compress(flat[start : start + _PLAIN_BLOCK].tobytes()))
        size += len(parts[-1])
        if size >= most:
            return None
    parts.append(engine.flush())
    return b"".join(parts) if size + len(parts[-1]) < most else None


def _quantised(task: Task) -> bytes | None:
    (core, around), target, axis = task.split, task.target, task.channel_axis
    whole = core.dtype.kind in "iu"
    if target.max_error is not None:
        bound = math.floor(target.max_error) if whole else target.max_error * (1 - 1e-9)
        trials = [np.array([2.0 * bound + whole])]
    else:
        assert target.rmse is not None
        # The error of a fine uniform quantiser has a standard deviation of step / sqrt(12).
        trials = [target.rmse * math.sqrt(12) * f * task.scales for f in _STEP_TRIALS]
    for steps in trials:
        quantiser = Quantiser.over(core, steps, axis)
        if whole and (quantiser.steps == 1).all():
            return None
        try:
            decoded = quantiser.values(quantiser.index(core), core.dtype)
            rebuilt = envelope.join(decoded, around, task.chunk.shape)
            if quality.meets(task.values, rebuilt, target, around.box, around.mask):
                return task.sealed(encode(core, quantiser, around.mask), split=True)
        except OverflowError:
            return None
    return None


def encode(core: npt.NDArray[Any], quantiser: Quantiser | None, inside: masks.Mask | None = None) -> bytes:
    """Return the payload after the envelope.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value and one axis; finite when there is a quantiser.
    quantiser : Quantiser or None
        None is lossless.
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core, with axes of length 1 where it does not vary.

    Raises
    ------
    OverflowError
        The step is too fine to pay.
    """
    if quantiser is None:
        head, index = struct.pack("<BB", EXACT, NO_CHANNELS), dtypes.ordered(core)
    else:
        index = quantiser.index(core)
        kind = FLOAT if core.dtype.kind == "f" else INTEGER
        axis = NO_CHANNELS if quantiser.axis is None else quantiser.axis
        head = struct.pack("<BB", kind, axis) + quantiser.write(core.dtype) + bytes([index.dtype.itemsize])
    axes = _best_axes(index, inside)
    return head + struct.pack("<B", axes) + pack(_fill(index, inside, axes), axes, _LEVEL)


def pack(index: npt.NDArray[Any], axes: int, level: int = _LEVEL) -> bytes:
    """Return the zlib stream of indices differenced along the axes whose bits are set."""
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
    return min(packed, key=lambda axes: len(pack(_fill(sample, where, axes), axes, 1)))
