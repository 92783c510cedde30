"""Chunk mode raw: the values as they are (specification section 3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import envelope
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Reader
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError


def envelope_of(_reader: Reader, shape: tuple[int, ...], _dtype: np.dtype[Any]) -> Envelope:
    """Return the envelope that leaves everything to the mode: a raw payload has none."""
    return envelope.whole(shape)


def decode(reader: Reader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the values of a payload; `dtype` is little-endian."""
    size = math.prod(shape) * dtype.itemsize
    if reader.remaining != size:
        raise CorruptChunkError("raw.values", f"{reader.remaining} bytes where {size} belong")
    return np.frombuffer(reader.take(size, "raw.values"), dtype).reshape(shape).copy()


def bid(task: Task) -> memoryview | None:
    """Return the payload, which is the values themselves, where all are to be kept; a mask would be lost."""
    if not task.target.lossless or task.mask is not None:
        return None
    return np.ascontiguousarray(task.values).reshape(-1).view(np.uint8).data
