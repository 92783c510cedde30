"""Chunk mode constant: one value everywhere, inside a mask or outside (specification section 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, envelope
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Reader
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError


def envelope_of(reader: Reader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Envelope:
    """Return the envelope of a payload: all is inside, or nothing is. The value itself is left for `decode`."""
    ahead = Reader(reader.data)
    fill = bytes(ahead.take(dtype.itemsize, "constant.value"))
    inside = not ahead.remaining
    if not inside and ahead.number("B", "constant.outside") != 1:
        raise CorruptChunkError("constant.outside", "it is 1 or not there")
    ahead.finish("constant.outside")
    everything = envelope.whole(shape)
    return everything if inside else replace(everything, fill=fill, mask=np.zeros((1,) * len(shape), np.bool_))


def decode(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the values of a payload; `dtype` is little-endian."""
    value = reader.array(dtypes.bits_dtype(dtype.itemsize).str, 1, "constant.value")
    return np.full(shape, value[0], value.dtype).view(dtype)


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk of one value, or of one all of which is outside its mask; else None."""
    if task.mask is not None:
        return None if task.mask.any() else bytes(task.chunk.dtype.itemsize) + b"\1"
    flat = dtypes.bits(task.values.reshape(-1))
    return flat[:1].tobytes() if (flat == flat[0]).all() else None
