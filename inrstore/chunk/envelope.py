"""What a network should not have to carry: masked values, borders, non-finite values (specification section 4).

`split` takes a chunk apart into a box of ordinary values and an envelope; `join` puts it together again.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, numbers
from inrstore.chunk import mask as masks
from inrstore.chunk.frame import Reader
from inrstore.chunk.inflate import inflate
from inrstore.chunk.numbers import Numbers
from inrstore.errors import CorruptChunkError

_BOX, _EXCEPTIONS, _MASK, _NUMBERS = 1, 2, 4, 8


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
    mask : ndarray of bool or None
        Axes of the box, of length 1 where it does not vary; what is False equals `fill`, and so does all outside
        the box.
    numbers : Numbers or None
        What the mode codes in place of the values of the box.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    fill: bytes
    exceptions: npt.NDArray[np.bool_] | None = None
    values: npt.NDArray[Any] | None = None
    mask: masks.Mask | None = None
    numbers: Numbers | None = None

    @property
    def box(self) -> tuple[slice, ...]:
        """The box as an index."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def box_shape(self) -> tuple[int, ...]:
        """The shape of the box."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def coded(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of what the mode codes, in a little-endian chunk of `dtype`."""
        return dtype if self.numbers is None else self.numbers.dtype

    def values_of(self, core: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of what the mode codes: all of a box or a part of it, writable."""
        return core if self.numbers is None else self.numbers.values(core, dtype)


def whole(shape: tuple[int, ...]) -> Envelope:
    """Return the envelope that leaves everything to the model."""
    return Envelope((0,) * len(shape), shape, b"")


def split(chunk: npt.NDArray[Any], mask: masks.Mask | None = None) -> tuple[npt.NDArray[Any], Envelope]:
    """Take a little-endian chunk of at least two different values apart.

    Parameters
    ----------
    chunk : ndarray
        Any values where there is no mask; 0 outside it where there is one.
    mask : ndarray of bool, optional
        As `masks.narrow` gives it, with something inside.

    Returns
    -------
    core : ndarray
        The box, a view of the chunk where nothing in it changes; non-finite values are replaced by the mean of the
        finite ones (0 if that is huge).
        Outside the mask it holds some value from inside.
    envelope : Envelope
        What `join` needs.
    """
    core, envelope = crop(chunk, mask)
    if chunk.dtype.kind != "f":
        return core, envelope
    odd = ~np.isfinite(core)
    if not odd.any():
        return core, envelope
    core = core.copy()  # the chunk itself stays as it is
    finite = core[~odd] if envelope.mask is None else core[~odd & envelope.mask]
    with np.errstate(over="ignore"):
        mean = finite.astype(np.float64).mean() if finite.size else 0.0
    exceptions = odd if envelope.mask is None else odd & envelope.mask
    values = core[exceptions]
    core[odd] = mean if np.isfinite(mean) else 0.0
    return core, replace(envelope, exceptions=exceptions, values=values)


def crop(chunk: npt.NDArray[Any], mask: masks.Mask | None = None) -> tuple[npt.NDArray[Any], Envelope]:
    """Take off border and mask alone, as `split` does; the values of the box are kept bit for bit."""
    pattern = dtypes.bits(chunk)
    fill = pattern[(-1,) * chunk.ndim] if mask is None else pattern.dtype.type(0)
    used = pattern != fill if mask is None else mask
    start, stop = [], []
    for axis, length in enumerate(chunk.shape):
        others = tuple(a for a in range(chunk.ndim) if a != axis)
        places = np.flatnonzero(used.any(axis=others))
        narrow = used.shape[axis] != length or not places.size
        start.append(0 if narrow else int(places[0]))
        stop.append(length if narrow else int(places[-1]) + 1)
    envelope = Envelope(tuple(start), tuple(stop), fill.tobytes())
    core = np.asarray(chunk[envelope.box])  # of a chunk without axes an index makes a number
    if mask is None:
        return core, envelope
    inside = masks.narrow(masks.part(mask, envelope.box), core.shape)
    if not inside.all():
        core = core.copy()
        first = np.unravel_index(int(inside.argmax()), inside.shape)
        np.copyto(core, core[first], where=~inside)
    return core, replace(envelope, mask=inside)


def coded_values(chunk: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> int:
    """Return how many values a lossy coder has to carry.

    These are the finite ones of the box and inside the mask; none of a chunk that is constant there.
    """
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape)
    if mask is not None and not mask.all():
        flat = values[np.broadcast_to(mask, values.shape)]
    else:
        flat, mask = values.reshape(-1), None
    pattern = dtypes.bits(flat)
    if pattern.size == 0 or (pattern == pattern[0]).all():
        return 0
    if mask is not None:
        return int(np.isfinite(flat).sum()) if flat.dtype.kind == "f" else flat.size
    core, envelope = split(values)
    return core.size - (0 if envelope.values is None else envelope.values.size)


def join(core: npt.NDArray[Any], envelope: Envelope, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the chunk; the inverse of `split`."""
    if envelope.exceptions is not None:
        core[envelope.exceptions] = envelope.values
    if envelope.mask is not None:
        np.copyto(dtypes.bits(core), fill_of(envelope, core.dtype), where=~envelope.mask)
    if core.shape == shape:
        return core
    chunk = np.empty(shape, core.dtype)
    dtypes.bits(chunk)[...] = fill_of(envelope, core.dtype)
    chunk[envelope.box] = core
    return chunk


def fill_of(envelope: Envelope, dtype: np.dtype[Any]) -> np.unsignedinteger[Any]:
    """Return the bit pattern of `fill`; there must be one."""
    pattern: np.unsignedinteger[Any] = np.frombuffer(envelope.fill, dtypes.bits_dtype(dtype.itemsize))[0]
    return pattern


def write(envelope: Envelope, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of an envelope."""
    boxed = envelope.box_shape != shape
    masked = envelope.mask is not None
    flags = _BOX * boxed | _EXCEPTIONS * (envelope.exceptions is not None) | _MASK * masked
    out = bytes([flags | _NUMBERS * (envelope.numbers is not None)])
    if boxed:
        out += struct.pack(f"<{2 * len(shape)}I", *envelope.start, *envelope.stop)
    if boxed or masked:
        out += envelope.fill
    if envelope.mask is not None:
        axes = sum(1 << a for a, n in enumerate(envelope.mask.shape) if n > 1)
        coded = masks.write(envelope.mask.squeeze())
        out += struct.pack("<BI", axes, len(coded)) + coded
    if envelope.exceptions is not None and envelope.values is not None:
        for raw in (np.packbits(envelope.exceptions).tobytes(), envelope.values.tobytes()):
            packed = zlib.compress(raw, 9)
            out += struct.pack("<I", len(packed)) + packed
    return out if envelope.numbers is None else out + envelope.numbers.write()


def read(reader: Reader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Envelope:
    """Parse an envelope; `dtype` is little-endian."""
    flags = reader.number("B", "envelope.flags")
    if flags & ~(_BOX | _EXCEPTIONS | _MASK | _NUMBERS):
        raise CorruptChunkError("envelope.flags", f"reserved bits are set in {flags:#x}")
    if flags & (_EXCEPTIONS | _NUMBERS) and dtype.kind != "f":
        raise CorruptChunkError("envelope.flags", "exceptions or numbers in an integer chunk")
    start, stop, fill = (0,) * len(shape), shape, b""
    if flags & _BOX:
        start = tuple(reader.number("I", "envelope.start") for _ in shape)
        stop = tuple(reader.number("I", "envelope.stop") for _ in shape)
        if any(not a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
            raise CorruptChunkError("envelope.stop", f"box {start}..{stop} is not inside {shape}")
    if flags & (_BOX | _MASK):
        fill = bytes(reader.take(dtype.itemsize, "envelope.fill"))
        if dtype.kind == "b" and fill[0] > 1:
            raise CorruptChunkError("envelope.fill", f"{fill[0]} is not a truth value")
    envelope = Envelope(start, stop, fill)
    if flags & _MASK:
        envelope = replace(envelope, mask=_read_mask(reader, envelope.box_shape))
    if flags & _EXCEPTIONS:
        envelope = _with_exceptions(reader, envelope, dtype)
    return replace(envelope, numbers=numbers.read(reader, dtype)) if flags & _NUMBERS else envelope


def _with_exceptions(reader: Reader, envelope: Envelope, dtype: np.dtype[Any]) -> Envelope:
    count = math.prod(envelope.box_shape)
    packed = _inflate(reader, (count + 7) // 8, "envelope.exceptions")
    marks = np.unpackbits(np.frombuffer(packed, np.uint8))
    if marks[count:].any():
        raise CorruptChunkError("envelope.exceptions", "bits after the last value are set")
    exceptions = marks[:count].astype(bool).reshape(envelope.box_shape)
    raw = _inflate(reader, int(exceptions.sum()) * dtype.itemsize, "envelope.values")
    return replace(envelope, exceptions=exceptions, values=np.frombuffer(raw, dtype))


def _read_mask(reader: Reader, box_shape: tuple[int, ...]) -> masks.Mask:
    axes = reader.number("B", "envelope.mask_axes")
    if axes >> len(box_shape):
        raise CorruptChunkError("envelope.mask_axes", f"bits above axis {len(box_shape) - 1} in {axes:#x}")
    lengths = tuple(n for a, n in enumerate(box_shape) if axes >> a & 1)
    data = reader.take(reader.number("I", "envelope.mask"), "envelope.mask")
    bitmap = masks.read(Reader(data), lengths, "envelope.mask")
    return bitmap.reshape([n if axes >> a & 1 else 1 for a, n in enumerate(box_shape)])


def _inflate(reader: Reader, size: int, field: str) -> bytes:
    return inflate(reader.take(reader.number("I", field), field), size, field)
