"""Frames -> chunks: frame -> envelope -> mode -> array (specification sections 2 to 4).

The mirror of `inrstore.chunk.encode`. A frame is unpacked, and its checksum tested, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import arithmetic, dtypes, envelope, frame
from inrstore.chunk import mask as masks
from inrstore.chunk.context import UNKNOWN, Context
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Frame, Reader
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.siren import Siren, slice_of
from inrstore.chunk.modes import BY_NUMBER, SIREN, Mode, find
from inrstore.chunk.shared import Shared
from inrstore.errors import CorruptChunkError

Selection = tuple[int | slice, ...]


@arithmetic.usual()
def decode_chunk(
    data: bytes | memoryview,
    shape: tuple[int, ...] | None = None,
    dtype: npt.DTypeLike | None = None,
    shared: Shared | None = None,
) -> npt.NDArray[Any]:
    """Decode a frame and check the decoded values against their checksum.

    Parameters
    ----------
    data : bytes-like
        The frame.
    shape, dtype : optional
        What the array says a chunk is; a frame that says otherwise is refused before anything is allocated.
        Byte order is not compared.
    shared : mapping of bytes to bytes, optional
        Parameters that the codec configuration brings, by digest.

    Returns
    -------
    ndarray
        Writable, of the frame's shape, dtype, byte order and memory layout.

    Raises
    ------
    CorruptChunkError
        Naming the field that is wrong; never another exception.
    """
    context = Context.of(shape, dtype, shared)
    return _whole(_unpack(data, context), context)


@arithmetic.usual()
def decode_region(
    data: bytes | memoryview,
    selection: Selection,
    shape: tuple[int, ...] | None = None,
    dtype: npt.DTypeLike | None = None,
    shared: Shared | None = None,
) -> npt.NDArray[Any]:
    """Decode only the values that a basic selection asks for; equal to the slice of the whole.

    A mode that can makes the wanted values alone, so the checksum of the decoded chunk is not tested
    (that of the frame is), nor limits of what is not made; the other modes decode the chunk and slice it.

    Parameters
    ----------
    data : bytes-like
        The frame.
    selection : tuple of int and slice
        One entry for each axis; integers drop their axis.
    shape, dtype, shared : optional
        As for `decode_chunk`.
    """
    context = Context.of(shape, dtype, shared)
    parsed = _unpack(data, context)
    mode = find(parsed.mode)
    ranges = [range(*s.indices(n)) if isinstance(s, slice) else range(n)[s : s + 1 or None]
              for s, n in zip(selection, parsed.shape, strict=True)]  # fmt: skip
    everything = all(r == range(n) for r, n in zip(ranges, parsed.shape, strict=True))
    flushed = parsed.dtype.kind == "f" and arithmetic.flushes()  # then only the checksum tells what is right
    if mode.decode_part is None or everything or flushed:
        return _whole(parsed, context)[selection]
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    around = mode.envelope(reader, parsed.shape, kind)
    out = np.empty([len(r) for r in ranges], kind)
    if around.fill:
        dtypes.bits(out)[...] = envelope.fill_of(around, kind)
    inside = [_within(r, a, b) for r, a, b in zip(ranges, around.start, around.stop, strict=True)]
    hit = [r[i] for r, i in zip(ranges, inside, strict=True)]
    wanted = [range(r.start - a, r.stop - a, r.step) for r, a in zip(hit, around.start, strict=True)]
    if all(len(w) for w in wanted):
        with _quiet():
            coded = mode.decode_part(reader, around.coded(kind), around.box_shape, wanted, context)
            values = around.values_of(coded, kind)
        grid = tuple(slice_of(w) for w in wanted)
        if around.exceptions is not None and around.values is not None:
            full = np.zeros(around.box_shape, kind)
            full[around.exceptions] = around.values
            np.copyto(values, full[grid], where=around.exceptions[grid])
        if around.mask is not None:
            outside = ~masks.part(around.mask, grid)
            np.copyto(dtypes.bits(values), envelope.fill_of(around, kind), where=outside)
        out[tuple(inside)] = values
    drop = tuple(0 if not isinstance(s, slice) else slice(None) for s in selection)
    return out[drop].astype(parsed.dtype, copy=False)


def mode_of(data: bytes | memoryview) -> Mode | None:
    """Return the mode of a frame, None if it is not known; of damaged ones nothing follows.

    Parameters
    ----------
    data : bytes-like
        The frame; nothing of it is checked.
    """
    return BY_NUMBER.get(frame.mode_of(data))


@arithmetic.usual()
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
    parsed = _unpack(data, Context.of(shape, dtype, None))
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    around = find(parsed.mode).envelope(reader, parsed.shape, kind)
    inside = np.full(parsed.shape, around.mask is None)
    if around.mask is not None:
        inside[around.box] = around.mask
    return inside


@arithmetic.usual()
def decode_network(
    data: bytes | memoryview, shape: tuple[int, ...] | None = None, dtype: npt.DTypeLike | None = None
) -> tuple[Envelope, Siren] | None:
    """Return the network that a chunk is, and the envelope around it; None of other modes. No values are decoded.

    Parameters
    ----------
    data : bytes-like
        The frame.
    shape, dtype : optional
        As for `decode_chunk`.
    """
    parsed = _unpack(data, Context.of(shape, dtype, None))
    if parsed.mode != SIREN.number:
        return None
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    around = SIREN.envelope(reader, parsed.shape, kind)
    return around, siren.read(reader, around.coded(kind), around.box_shape)


@arithmetic.usual()
def values_of(parsed: Frame, context: Context = UNKNOWN) -> npt.NDArray[Any]:
    """Return the values of a frame, little-endian and in C order; their checksum is not tested.

    Raises
    ------
    CorruptChunkError
        Naming the field that is wrong.
    """
    mode, kind, reader = find(parsed.mode), dtypes.little(parsed.dtype), Reader(parsed.payload)
    around = mode.envelope(reader, parsed.shape, kind)
    with _quiet():
        core = around.values_of(mode.decode(reader, around.coded(kind), around.box_shape, context), kind)
    _check_truth(core)  # outside the mask, too
    return np.asarray(envelope.join(core, around, parsed.shape), order="C")


def _unpack(data: bytes | memoryview, context: Context) -> Frame:
    return frame.unpack(data, context.shape, context.dtype, BY_NUMBER)


def _whole(parsed: Frame, context: Context) -> npt.NDArray[Any]:
    chunk = values_of(parsed, context)
    if frame.crc_of(chunk) != parsed.decoded_crc:
        reason = "the decoded values are not those that were stored"
        if parsed.dtype.kind == "f" and arithmetic.flushes():
            reason += "; this thread takes subnormal numbers for zero, which a library has set (FTZ, DAZ)"
        raise CorruptChunkError("decoded_crc", reason)
    return np.asarray(chunk, parsed.dtype, order="F" if parsed.fortran else "C")


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


def _check_truth(values: npt.NDArray[Any]) -> None:
    if values.dtype.kind == "b" and (dtypes.bits(values) > 1).any():
        raise CorruptChunkError("payload", "a truth value that is neither 0 nor 1")


# ---- looking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkInfo:
    """What a frame says of itself, nothing decoded.

    Parameters
    ----------
    mode : str
        Name of the mode; `inrstore.chunk.modes` lists them.
    dtype : str
        numpy dtype string.
    shape : tuple of int
    frame_bytes : int
        Size of the frame.
    details : dict
        What the mode says of its payload: sizes of a network, the digest of a shared one.
    """

    mode: str
    dtype: str
    shape: tuple[int, ...]
    frame_bytes: int
    details: dict[str, Any] = field(default_factory=dict)


@arithmetic.usual()
def describe_chunk(data: bytes | memoryview, shared: Shared | None = None) -> ChunkInfo:
    """Parse a frame and its header fields without decoding values.

    Parameters
    ----------
    data : bytes-like
        The frame.
    shared : mapping of bytes to bytes, optional
        As for `decode_chunk`; without it less is known of a chunk that names a parameter.
    """
    parsed = _unpack(data, UNKNOWN)
    mode, kind, reader = find(parsed.mode), dtypes.little(parsed.dtype), Reader(parsed.payload)
    around = mode.envelope(reader, parsed.shape, kind)
    details = mode.describe(reader, around.coded(kind), around.box_shape, Context.of(None, None, shared))
    return ChunkInfo(mode.name, parsed.dtype.str, parsed.shape, len(bytes(data)), details)
