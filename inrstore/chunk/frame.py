"""The frame around every chunk: header, checksums, and bounds-checked reading (specification section 2)."""

from __future__ import annotations

import math
import struct
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.errors import CorruptChunkError, LimitExceededError, UnsupportedVersionError

MAGIC = b"\x89INR"
VERSION = 1

RAW = 0
"""The mode of a chunk without values; `inrstore.chunk.modes` lists all."""


class Reader:
    """Reads little-endian numbers from bytes; a read past the end names the field that wanted it."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.position

    def take(self, size: int, field: str) -> memoryview:
        """Return the next `size` bytes."""
        if size > self.remaining:
            raise CorruptChunkError(field, f"needs {size} bytes, {self.remaining} are left")
        view = self.data[self.position : self.position + size]
        self.position += size
        return view

    def number(self, kind: str, field: str) -> int:
        """Return the next integer; `kind` is a letter of the struct module."""
        return int(struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind), field))[0])

    def array(self, dtype: str | np.dtype[Any], count: int, field: str) -> npt.NDArray[Any]:
        """Return the next `count` numbers as an array; the bytes must be there before it is made."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(count * kind.itemsize, field), kind, count)

    def finish(self, field: str) -> None:
        """Refuse bytes after the last field."""
        if self.remaining:
            raise CorruptChunkError(field, f"{self.remaining} bytes too many")


@dataclass(frozen=True)
class Frame:
    """A parsed frame, its own checksum verified.

    Parameters
    ----------
    mode : int
        How the payload is coded; not looked up yet.
    dtype : numpy.dtype
        With byte order.
    shape : tuple of int
        Shape echo; compared with the array's own by the caller, never trusted alone.
    decoded_crc : int
        CRC32C of the decoded chunk as little-endian bytes in C order.
    payload : memoryview
        The coded chunk.
    fortran : bool
        The decoded array is wanted in Fortran order in memory.
    """

    mode: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    decoded_crc: int
    payload: memoryview
    fortran: bool = False


def header_size(ndim: int) -> int:
    """Return the bytes before the payload."""
    return 16 + 4 * ndim


def max_encoded_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the most bytes a frame of this shape and dtype can take: the raw chunk and its frame."""
    return header_size(len(shape)) + math.prod(shape) * dtype.itemsize + 4


def crc_of(array: npt.NDArray[Any]) -> int:
    """Return the CRC32C of an array as little-endian bytes in C order."""
    flat = np.ascontiguousarray(array, dtypes.little(array.dtype)).reshape(-1)
    crc, block = 0, 1 << 18  # in blocks: the library takes bytes, and a copy of a whole chunk costs memory
    for i in range(0, flat.size, block):
        crc = int(google_crc32c.extend(crc, flat[i : i + block].tobytes()))
    return crc


def mode_of(data: bytes | memoryview) -> int:
    """Return the number of the mode that a frame names, nothing checked; -1 if it ends before."""
    return data[len(MAGIC) + 1] if len(data) > len(MAGIC) + 1 else -1


def pack(mode: int, like: npt.NDArray[Any], decoded_crc: int, payload: bytes | memoryview) -> bytes:
    """Return the frame around a payload; `like` gives dtype, byte order, shape and memory layout."""
    layout = dtypes.FORTRAN * (like.flags.f_contiguous and not like.flags.c_contiguous)
    head = MAGIC + struct.pack("<4B", VERSION, mode, dtypes.code_of(like.dtype) | layout, like.ndim)
    head += struct.pack(f"<{like.ndim}I2I", *like.shape, decoded_crc, len(payload))
    crc = int(google_crc32c.extend(int(google_crc32c.value(head)), bytes(payload)))
    return b"".join([head, payload, struct.pack("<I", crc)])


def unpack(
    data: bytes | memoryview,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
    known: Container[int] | None = None,
) -> Frame:
    """Parse and check a frame; `shape` and `dtype`, when given, must be those of the frame.

    Parameters
    ----------
    data : bytes-like
    shape, dtype : optional
    known : container of int, optional
        Modes that the reader knows; another one is refused in its place among the checks (section 2.1).

    Raises
    ------
    CorruptChunkError
        Naming the field that is wrong.
    UnsupportedVersionError
        The frame is intact but newer than this reader.
    """
    view = memoryview(data).cast("B")
    reader = Reader(view)
    if bytes(reader.take(4, "magic")) != MAGIC:
        raise CorruptChunkError("magic", "this is not an inrstore chunk")
    # The last four bytes of every version are the checksum, so damage and novelty can be told apart.
    if len(view) < header_size(0) + 4:
        raise CorruptChunkError("frame", f"{len(view)} bytes are too few")
    if int(google_crc32c.value(bytes(view[:-4]))) != struct.unpack("<I", view[-4:])[0]:
        raise CorruptChunkError("frame_crc", "the bytes are damaged or cut short")
    version = reader.number("B", "version")
    if version != VERSION:
        raise UnsupportedVersionError("version", f"{version} is not one this reader knows ({VERSION})")
    mode = reader.number("B", "mode")
    if known is not None and mode not in known:
        raise UnsupportedVersionError("mode", f"{mode} is not one this reader knows")
    code = reader.number("B", "dtype")
    kind = dtypes.dtype_of(code & ~dtypes.FORTRAN)
    ndim = reader.number("B", "ndim")
    if ndim > limits.MAX_DIMS:
        raise LimitExceededError("ndim", f"{ndim} axes, {limits.MAX_DIMS} are allowed")
    echo = tuple(reader.number("I", "shape") for _ in range(ndim))
    if math.prod(max(1, n) for n in echo) > limits.MAX_CHUNK_VALUES:  # an axis of 0 excuses no other axis
        raise LimitExceededError("shape", f"{echo} holds more than {limits.MAX_CHUNK_VALUES} values")
    if mode != RAW and not all(echo):
        raise CorruptChunkError("shape", "a chunk without values is always raw")
    if shape is not None and echo != tuple(shape):
        raise CorruptChunkError("shape", f"{echo} where the array has {tuple(shape)}")
    if dtype is not None and dtypes.little(kind) != dtypes.little(np.dtype(dtype)):
        raise CorruptChunkError("dtype", f"{kind} where the array has {np.dtype(dtype)}")
    decoded_crc = reader.number("I", "decoded_crc")
    length = reader.number("I", "payload_length")
    if length != reader.remaining - 4:
        raise CorruptChunkError("payload_length", f"{length} where {reader.remaining - 4} bytes are present")
    return Frame(mode, kind, echo, decoded_crc, reader.take(length, "payload"), bool(code & dtypes.FORTRAN))
