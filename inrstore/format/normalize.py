"""What a network should not have to carry: constant borders and non-finite values (specification section 4).

`split` takes a chunk apart into a box of ordinary values and an envelope; `join` puts it together again.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import CorruptChunkError
from inrstore.format import dtypes
from inrstore.format.frame import Reader

_BOX, _EXCEPTIONS = 1, 2


@dataclass(frozen=True)
class Envelope:
    """The parts of a chunk that no model codes.

    Parameters
    ----------
    start, stop : tuple of int
        The box of ordinary values; everything outside equals `fill`.
    fill : bytes
        One value, little-endian.
    exceptions : ndarray of bool or None
        Shape of the box; True where the value is given bit for bit.
    values : ndarray or None
        Those values in C order of the box.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    fill: bytes
    exceptions: npt.NDArray[np.bool_] | None = None
    values: npt.NDArray[Any] | None = None

    @property
    def box(self) -> tuple[slice, ...]:
        """The box as an index."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def box_shape(self) -> tuple[int, ...]:
        """The shape of the box."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))


def whole(shape: tuple[int, ...]) -> Envelope:
    """Return the envelope that leaves everything to the model."""
    return Envelope((0,) * len(shape), shape, b"")


def split(chunk: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Envelope]:
    """Take a little-endian chunk of at least two different values apart.

    Returns
    -------
    core : ndarray
        The box, contiguous; non-finite values are replaced by the mean of the finite ones (0 if that is huge).
    envelope : Envelope
        What `join` needs.
    """
    pattern = dtypes.bits(chunk)
    fill = pattern[(-1,) * chunk.ndim]
    differs = pattern != fill
    start, stop = [], []
    for axis in range(chunk.ndim):
        others = tuple(a for a in range(chunk.ndim) if a != axis)
        used = np.flatnonzero(differs.any(axis=others))
        start.append(int(used[0]) if used.size else 0)
        stop.append(int(used[-1]) + 1 if used.size else chunk.shape[axis])
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    core = np.asarray(chunk[box], order="C")
    exceptions = values = None
    if chunk.dtype.kind == "f":
        exceptions = ~np.isfinite(core)
        if exceptions.any():
            core = core.copy()  # the chunk itself stays as it is
            values = core[exceptions]
            finite = core[~exceptions].astype(np.float64)
            with np.errstate(over="ignore"):
                mean = finite.mean() if finite.size else 0.0
            core[exceptions] = mean if np.isfinite(mean) else 0.0
        else:
            exceptions = None
    return core, Envelope(tuple(start), tuple(stop), fill.tobytes(), exceptions, values)


def coded_values(chunk: npt.NDArray[Any]) -> int:
    """Return how many values a lossy coder has to carry: the finite ones of the box, none of a constant chunk."""
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype))
    pattern = dtypes.bits(values.reshape(-1))
    if pattern.size == 0 or (pattern == pattern[0]).all():
        return 0
    core, envelope = split(values)
    return core.size - (0 if envelope.values is None else envelope.values.size)


def join(core: npt.NDArray[Any], envelope: Envelope, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the chunk; the inverse of `split`."""
    if envelope.exceptions is not None:
        core[envelope.exceptions] = envelope.values
    if core.shape == shape:
        return core
    chunk = np.empty(shape, core.dtype)
    dtypes.bits(chunk)[...] = np.frombuffer(envelope.fill, dtypes.bits_dtype(core.dtype.itemsize))[0]
    chunk[envelope.box] = core
    return chunk


def write(envelope: Envelope, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of an envelope."""
    boxed = envelope.box_shape != shape
    out = bytes([_BOX * boxed | _EXCEPTIONS * (envelope.exceptions is not None)])
    if boxed:
        out += struct.pack(f"<{2 * len(shape)}I", *envelope.start, *envelope.stop) + envelope.fill
    if envelope.exceptions is not None and envelope.values is not None:
        for raw in (np.packbits(envelope.exceptions).tobytes(), envelope.values.tobytes()):
            packed = zlib.compress(raw, 9)
            out += struct.pack("<I", len(packed)) + packed
    return out


def read(reader: Reader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Envelope:
    """Parse an envelope; `dtype` is little-endian."""
    flags = reader.number("B", "envelope.flags")
    if flags & ~(_BOX | _EXCEPTIONS):
        raise CorruptChunkError("envelope.flags", f"reserved bits are set in {flags:#x}")
    if flags & _EXCEPTIONS and dtype.kind != "f":
        raise CorruptChunkError("envelope.flags", "exceptions in an integer chunk")
    start, stop, fill = (0,) * len(shape), shape, b""
    if flags & _BOX:
        start = tuple(reader.number("I", "envelope.start") for _ in shape)
        stop = tuple(reader.number("I", "envelope.stop") for _ in shape)
        if any(not a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
            raise CorruptChunkError("envelope.stop", f"box {start}..{stop} is not inside {shape}")
        fill = bytes(reader.take(dtype.itemsize, "envelope.fill"))
        if dtype.kind == "b" and fill[0] > 1:
            raise CorruptChunkError("envelope.fill", f"{fill[0]} is not a truth value")
    envelope = Envelope(start, stop, fill)
    if not flags & _EXCEPTIONS:
        return envelope
    count = math.prod(envelope.box_shape)
    packed = _inflate(reader, (count + 7) // 8, "envelope.exceptions")
    marks = np.unpackbits(np.frombuffer(packed, np.uint8))
    if marks[count:].any():
        raise CorruptChunkError("envelope.exceptions", "bits after the last value are set")
    exceptions = marks[:count].astype(bool).reshape(envelope.box_shape)
    raw = _inflate(reader, int(exceptions.sum()) * dtype.itemsize, "envelope.values")
    return Envelope(start, stop, fill, exceptions, np.frombuffer(raw, dtype))


def inflate(packed: bytes | memoryview, size: int, field: str) -> bytes:
    """Undo zlib; the result must have exactly `size` bytes, and no more is ever allocated."""
    engine = zlib.decompressobj()
    try:
        # zlib takes a limit of 0 for none, so one byte more than wanted is asked for.
        raw = engine.decompress(packed, size + 1)
    except zlib.error as error:
        raise CorruptChunkError(field, f"not a zlib stream: {error}") from None
    if len(raw) != size or not engine.eof or engine.unused_data or engine.unconsumed_tail:
        raise CorruptChunkError(field, f"does not inflate to {size} bytes")
    return raw


def _inflate(reader: Reader, size: int, field: str) -> bytes:
    return inflate(reader.take(reader.number("I", field), field), size, field)
