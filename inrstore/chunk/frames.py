"""Frames <-> chunks: picks the mode and runs its steps in order (specification section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes, frame, normalize
from inrstore.chunk import mask as masks
from inrstore.chunk.byteplanes import planes
from inrstore.chunk.frame import Frame, Reader
from inrstore.chunk.inr import siren
from inrstore.chunk.neural import decode as neural
from inrstore.chunk.predictor import decode as predictor
from inrstore.chunk.transform import decode as transform
from inrstore.errors import ConfigurationError, CorruptChunkError

Selection = tuple[int | slice, ...]


# ---- decoding ----------------------------------------------------------------------------------------------


def decode_chunk(
    data: bytes | memoryview,
    shape: tuple[int, ...] | None = None,
    dtype: npt.DTypeLike | None = None,
    models: neural.Models | None = None,
) -> npt.NDArray[Any]:
    """Decode a frame and check the decoded values against their checksum.

    Parameters
    ----------
    data : bytes-like
        The frame.
    shape, dtype : optional
        What the array says a chunk is; a frame that says otherwise is refused before anything is allocated.
        Byte order is not compared.
    models : mapping of bytes to Network, optional
        The networks that the codec configuration brings, by digest.

    Returns
    -------
    ndarray
        Writable, of the frame's shape, dtype, byte order and memory layout.

    Raises
    ------
    CorruptChunkError
        Naming the field that is wrong; never another exception.
    """
    parsed = frame.unpack(data, shape, None if dtype is None else np.dtype(dtype))
    chunk = _decode(parsed, models)
    _check_truth(chunk)
    if frame.crc_of(chunk) != parsed.decoded_crc:
        raise CorruptChunkError("decoded_crc", "the decoded values are not those that were stored")
    return np.asarray(chunk, parsed.dtype, order="F" if parsed.fortran else "C")


def decode_region(
    data: bytes | memoryview,
    selection: Selection,
    shape: tuple[int, ...] | None = None,
    dtype: npt.DTypeLike | None = None,
    models: neural.Models | None = None,
) -> npt.NDArray[Any]:
    """Decode only the values that a basic selection asks for; equal to the slice of the whole.

    A network is evaluated at the wanted voxels alone, so the checksum of the decoded chunk is not tested
    (that of the frame is); the other modes decode the chunk and slice it.

    Parameters
    ----------
    data : bytes-like
        The frame.
    selection : tuple of int and slice
        One entry for each axis; integers drop their axis.
    shape, dtype, models : optional
        As for `decode_chunk`.
    """
    parsed = frame.unpack(data, shape, None if dtype is None else np.dtype(dtype))
    ranges = [range(*s.indices(n)) if isinstance(s, slice) else range(n)[s : s + 1 or None]
              for s, n in zip(selection, parsed.shape, strict=True)]  # fmt: skip
    everything = all(r == range(n) for r, n in zip(ranges, parsed.shape, strict=True))
    if parsed.mode != frame.SIREN or everything:
        return decode_chunk(data, shape, dtype, models)[selection]
    kind = dtypes.little(parsed.dtype)
    reader = Reader(parsed.payload)
    envelope = normalize.read(reader, parsed.shape, kind)
    network = siren.read(reader, kind, envelope.box_shape)
    out = np.empty([len(r) for r in ranges], kind)
    if envelope.fill:
        dtypes.bits(out)[...] = normalize.fill_of(envelope, kind)
    inside = [_within(r, a, b) for r, a, b in zip(ranges, envelope.start, envelope.stop, strict=True)]
    hit = [r[i] for r, i in zip(ranges, inside, strict=True)]
    wanted = [range(r.start - a, r.stop - a, r.step) for r, a in zip(hit, envelope.start, strict=True)]
    if all(len(w) for w in wanted):
        with _quiet():
            values = siren.evaluate(network, kind, envelope.box_shape, wanted)
        grid = tuple(siren.slice_of(w) for w in wanted)
        if envelope.exceptions is not None and envelope.values is not None:
            full = np.zeros(envelope.box_shape, kind)
            full[envelope.exceptions] = envelope.values
            np.copyto(values, full[grid], where=envelope.exceptions[grid])
        if envelope.mask is not None:
            outside = ~masks.part(envelope.mask, grid)
            np.copyto(dtypes.bits(values), normalize.fill_of(envelope, kind), where=outside)
        out[tuple(inside)] = values
    drop = tuple(0 if not isinstance(s, slice) else slice(None) for s in selection)
    return out[drop].astype(parsed.dtype, copy=False)


def decode_inside(
    data: bytes | memoryview, shape: tuple[int, ...] | None = None, dtype: npt.DTypeLike | None = None
) -> npt.NDArray[np.bool_]:
    """Return which values a chunk codes: all of them, or those inside its mask. No values are decoded.

    Parameters
    ----------
    data : bytes-like
        The frame.
    shape, dtype : optional
        As for `decode_chunk`.

    Returns
    -------
    ndarray of bool
        Shape of the chunk.
    """
    parsed = frame.unpack(data, shape, None if dtype is None else np.dtype(dtype))
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    if parsed.mode == frame.RAW:
        return np.ones(parsed.shape, np.bool_)
    if parsed.mode == frame.CONSTANT:
        return np.full(parsed.shape, _read_constant(reader, kind)[1])
    envelope = normalize.read(reader, parsed.shape, kind)
    if envelope.mask is None:
        return np.ones(parsed.shape, np.bool_)
    inside = np.zeros(parsed.shape, np.bool_)
    inside[envelope.box] = envelope.mask
    return inside


def _within(positions: range, start: int, stop: int) -> slice:
    """Return the places in `positions` of those in start..stop-1; they lie side by side."""
    first, last = (start, stop - 1) if positions.step > 0 else (stop - 1, start)
    low = -((positions.start - first) // positions.step)
    high = (last - positions.start) // positions.step + 1
    return slice(min(max(low, 0), len(positions)), min(max(high, 0), len(positions)))


def _quiet() -> np.errstate:
    """Return a context without warnings of invalid floats: kernels of BLAS may meet such beside a matrix.

    Nothing hangs on it: products here are of integers whose sums are exact, and limits have been checked.
    """
    return np.errstate(invalid="ignore")


def _decode(parsed: Frame, models: neural.Models | None = None) -> npt.NDArray[Any]:
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    if parsed.mode == frame.RAW:
        size = math.prod(parsed.shape) * kind.itemsize
        if reader.remaining != size:
            raise CorruptChunkError("raw.values", f"{reader.remaining} bytes where {size} belong")
        return np.frombuffer(reader.take(size, "raw.values"), kind).reshape(parsed.shape).copy()
    if parsed.mode == frame.CONSTANT:
        value, _ = _read_constant(reader, kind)
        return np.full(parsed.shape, value[0], value.dtype).view(kind)
    envelope = normalize.read(reader, parsed.shape, kind)
    if parsed.mode == frame.PLANES:
        core = planes.decode(reader, kind, envelope.box_shape)
        if envelope.mask is not None:
            _check_truth(core)  # outside the mask, too
    else:
        with _quiet():
            core = _decode_products(parsed.mode, reader, kind, envelope.box_shape, models)
    return np.asarray(normalize.join(core, envelope, parsed.shape), order="C")


def _decode_products(mode: int, reader: Reader, kind: np.dtype[Any], box: tuple[int, ...],
                     models: neural.Models | None) -> npt.NDArray[Any]:  # fmt: skip
    """Return the box of a mode that multiplies matrices."""
    if mode == frame.TRANSFORM:
        return transform.decode(reader, kind, box)
    if mode == frame.PREDICTOR:
        return predictor.decode(reader, kind, box)
    if mode == frame.NEURAL:
        return neural.decode(reader, kind, box, models)
    network = siren.read(reader, kind, box)
    return siren.evaluate(network, kind, box, [range(n) for n in box])


def _read_constant(reader: Reader, kind: np.dtype[Any]) -> tuple[npt.NDArray[Any], bool]:
    """Return the bit pattern of the one value, and whether it is inside the mask."""
    value = reader.array(dtypes.bits_dtype(kind.itemsize).str, 1, "constant.value")
    inside = not reader.remaining
    if not inside and reader.number("B", "constant.outside") != 1:
        raise CorruptChunkError("constant.outside", "it is 1 or not there")
    reader.finish("constant.outside")
    return value, inside


def _check_truth(values: npt.NDArray[Any]) -> None:
    if values.dtype.kind == "b" and (dtypes.bits(values) > 1).any():
        raise CorruptChunkError("payload", "a truth value that is neither 0 nor 1")


# ---- encoding ----------------------------------------------------------------------------------------------


def encode_trivial(chunk: npt.NDArray[Any], mask: masks.Mask | None = None) -> bytes | None:
    """Return the frame of an empty, single-valued or 0-D chunk; None when there is more to code.

    With a mask (and zeros outside) only a chunk that is empty or all outside is trivial.
    """
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype))
    if chunk.size == 0:
        return seal(frame.RAW, chunk, b"")
    if mask is not None:
        return None if mask.any() else seal(frame.CONSTANT, chunk, bytes(chunk.dtype.itemsize) + b"\1")
    flat = dtypes.bits(values.reshape(-1))
    if (flat == flat[0]).all():
        return seal(frame.CONSTANT, chunk, flat[:1].tobytes())
    return None


def encode_raw(chunk: npt.NDArray[Any]) -> bytes:
    """Return the frame that holds the values as they are."""
    return seal(frame.RAW, chunk, np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).tobytes())


def encode_lossless(chunk: npt.NDArray[Any], mask: masks.Mask | None = None) -> bytes:
    """Return the smallest frame without a predictor that keeps every bit, and the mask (and zeros outside it)."""
    trivial = encode_trivial(chunk, mask)
    if trivial is not None:
        return trivial
    values = np.ascontiguousarray(chunk, dtypes.little(chunk.dtype)).reshape(chunk.shape)
    if mask is not None:
        core, cropped = normalize.crop(values, mask)
        payload = normalize.write(cropped, chunk.shape) + planes.encode(core, None, cropped.mask)
        return seal(frame.PLANES, chunk, payload)
    # Borders deflate to nothing and non-finite values are bit patterns like any other: no envelope needed.
    envelope = normalize.write(normalize.whole(chunk.shape), chunk.shape)
    coded = seal(frame.PLANES, chunk, envelope + planes.encode(values, None))
    return min(coded, encode_raw(chunk), key=len)


def seal(mode: int, like: npt.NDArray[Any], payload: bytes, decoded: npt.NDArray[Any] | None = None) -> bytes:
    """Return the frame of a payload; `decoded` is what it decodes to when that is not `like` itself."""
    if math.prod(max(1, n) for n in like.shape) > limits.MAX_CHUNK_VALUES:  # as readers count
        raise ConfigurationError(f"a chunk of shape {like.shape}; the most is {limits.MAX_CHUNK_VALUES} values")
    if like.ndim > limits.MAX_DIMS:
        raise ConfigurationError(f"a chunk of {like.ndim} axes; the most is {limits.MAX_DIMS}")
    crc = frame.crc_of(like if decoded is None else decoded)
    return frame.pack(mode, like, crc, payload)


def seal_checked(mode: int, like: npt.NDArray[Any], payload: bytes) -> bytes:
    """Return the frame of a lossy payload; its checksum is that of what the reader's decoder makes of it."""
    decoded = _decode(Frame(mode, like.dtype, like.shape, 0, memoryview(payload)))
    return seal(mode, like, payload, decoded)


# ---- looking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkInfo:
    """What a frame says of itself, nothing decoded.

    Parameters
    ----------
    mode : str
        raw, constant, planes, siren, predictor or neural.
    dtype : str
        numpy dtype string.
    shape : tuple of int
    frame_bytes : int
        Size of the frame.
    details : dict
        For siren: layers, width, channels, parameters. For neural: digest of a shared network, or parameters.
    """

    mode: str
    dtype: str
    shape: tuple[int, ...]
    frame_bytes: int
    details: dict[str, Any] = field(default_factory=dict)


def describe_chunk(data: bytes | memoryview) -> ChunkInfo:
    """Parse a frame and its header fields without decoding values."""
    parsed = frame.unpack(data)
    details: dict[str, Any] = {}
    if parsed.mode == frame.SIREN:
        kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
        network = siren.read(reader, kind, normalize.read(reader, parsed.shape, kind).box_shape)
        layers, width = network.biases.shape
        groups = [*network.weights, network.biases, network.readout]
        details = {"layers": layers, "width": width, "channels": len(network.readout),
                   "parameters": sum(g.size for g in groups)}  # fmt: skip
    elif parsed.mode == frame.NEURAL:
        kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
        normalize.read(reader, parsed.shape, kind)
        details = neural.describe(reader)
    return ChunkInfo(frame.MODE_NAMES[parsed.mode], parsed.dtype.str, parsed.shape, len(bytes(data)), details)
