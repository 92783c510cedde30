"""A store -> the bytes of the files that it was made from, at any offset; only chunks that are touched are decoded.

A file is a row of pieces: bytes, voxels in the order of its format, and gzip around them where the format says so.
"""

from __future__ import annotations

import math
import struct
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inrstore.codecs import decoded
from inrstore.sources.format import Output
from inrstore.store.export import outputs_of
from inrstore.store.reader import Store, naming

Box = tuple[slice, ...]


class Content(Protocol):
    """Bytes that can be read anywhere, by several threads at once.

    Attributes
    ----------
    size : int
        How many there are, exactly.
    """

    size: int

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a writable view of bytes from `offset` on; all that it asks for is there.

        Raises
        ------
        StoreError, CorruptChunkError, OSError
        """


class Bytes:
    """Bytes in memory.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Copy them."""
        view[:] = self._data[offset : offset + len(view)]


class Joined:
    """Pieces, one behind the other.

    Parameters
    ----------
    pieces : sequence of Content
    """

    def __init__(self, pieces: Sequence[Content]) -> None:
        self._pieces = [piece for piece in pieces if piece.size]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + piece.size)
        self.size = self._starts[-1]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Read from each piece its part."""
        while view:
            number = bisect_right(self._starts, offset) - 1
            length = min(len(view), self._starts[number + 1] - offset)
            self._pieces[number].read_into(offset - self._starts[number], view[:length])
            view, offset = view[length:], offset + length


class Voxels:
    """The voxels of a store, in the order in which they lie in a file of its format.

    Decoded chunks are kept with those of all readers of the process (`inrstore.cache`); of those that are too large for
    that the one that was used last, so that it is not decoded for each of its pieces.

    Parameters
    ----------
    store : Store
    axes : tuple of int
        As in `Output`.
    """

    def __init__(self, store: Store, axes: tuple[int, ...]) -> None:
        self._store = store
        self._axes = axes or tuple(range(len(store.grid.shape)))
        self._shape = tuple(store.grid.shape[axis] for axis in self._axes)
        self._lengths = tuple(store.grid.chunks[axis] for axis in self._axes)
        self._keys: dict[tuple[int, ...], decoded.Key] = {}
        self._last: tuple[tuple[int, ...], npt.NDArray[Any]] | None = None
        self.size = store.source_bytes

    def read_into(self, offset: int, view: memoryview) -> None:
        """Decode the chunks that are touched, and copy."""
        dtype = self._store.source_dtype
        first, last = offset // dtype.itemsize, -(-(offset + len(view)) // dtype.itemsize)
        whole = (offset + len(view)) % dtype.itemsize == 0 and offset % dtype.itemsize == 0
        values = np.frombuffer(view, dtype) if whole else np.empty(last - first, dtype)
        for at, box in boxes(self._shape, first, last):
            lengths = [part.stop - part.start for part in box]
            self._copy(box, values[at : at + math.prod(lengths)].reshape(lengths))
        if not whole:
            start = offset - first * dtype.itemsize
            view[:] = values.view(np.uint8)[start : start + len(view)].data

    def _copy(self, box: Box, out: npt.NDArray[Any]) -> None:
        counts = (
            range(part.start // length, -(-part.stop // length))
            for part, length in zip(box, self._lengths, strict=True)
        )
        for place in product(*counts):
            starts = [number * length for number, length in zip(place, self._lengths, strict=True)]
            common = [slice(max(part.start, start), min(part.stop, start + length))
                      for part, start, length in zip(box, starts, self._lengths, strict=True)]  # fmt: skip
            inside = tuple(slice(c.start - s, c.stop - s) for c, s in zip(common, starts, strict=True))
            there = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True))
            index = [0] * len(place)
            for axis, number in zip(self._axes, place, strict=True):
                index[axis] = number
            out[there] = self._chunk(tuple(index)).transpose(self._axes)[inside]

    def _chunk(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a chunk of full shape; its frame is read and digested only if the chunk is kept no more."""
        last = self._last
        if last is not None and last[0] == index:
            return last[1]
        found = decoded.recall(self._keys[index]) if index in self._keys else None
        if found is None:
            store, expected = self._store, (self._store.grid.chunks, self._store.dtype, self._store.shared)
            frame = store.frame(index)
            with naming(f"{store.label}: {store.key(index)}"):
                found = decoded.chunk(frame, *expected)
            key = self._keys[index] = decoded.key_of(frame, *expected)
            self._last = None if decoded.recall(key) is found else (index, found)
        return found


def boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, Box]]:
    """Cut a run of values of a C-ordered array into boxes.

    Parameters
    ----------
    shape : sequence of int
        Of the array, no length 0.
    start, stop : int
        Numbers of the first value, and of the one behind the last.

    Yields
    ------
    int, tuple of slice
        Where in the run a box begins, and its part of each axis.
    """
    if start >= stop:
        return
    if not shape:
        yield 0, ()
        return
    row = math.prod(shape[1:])
    first, last = start // row, (stop - 1) // row
    begin, end = start - first * row, stop - last * row
    if begin and first < last:
        for at, box in boxes(shape[1:], begin, row):
            yield at, (slice(first, first + 1), *box)
        first, begin = first + 1, 0
    whole = last + 1 if end == row else last
    if not begin and first < whole:
        yield first * row - start, (slice(first, whole), *(slice(0, n) for n in shape[1:]))
        first = whole
    if first <= last:
        for at, box in boxes(shape[1:], begin, end):
            yield max(0, last * row - start) + at, (slice(last, last + 1), *box)


_GZIP_START = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])
"""Deflate, no flags, no time, no name, an unknown system (RFC 1952, section 2.3)."""
_STORED = 0xFFFF
_BLOCK_HEADER = 5
_TRAILER = 8
_PIECE = 1 << 20


class Gzipped:
    """A gzip file of stored blocks: its size is known before a byte is read, and any part of it can be.

    The checksum at its end needs all that is inside: it is made while somebody reads from the start to the end, and
    what is missing when it is asked for is read then, once.

    Parameters
    ----------
    inner : Content
    """

    def __init__(self, inner: Content) -> None:
        self._inner = inner
        self._blocks = max(1, -(-inner.size // _STORED))  # RFC 1951, section 3.2.4: at most 65,535 bytes each
        self._end = len(_GZIP_START) + self._blocks * _BLOCK_HEADER + inner.size
        self.size = self._end + _TRAILER
        self._lock = threading.Lock()
        self._checked, self._crc = 0, 0

    def read_into(self, offset: int, view: memoryview) -> None:
        """Read what is inside, with the header of each block before it."""
        while view:
            if offset < len(_GZIP_START):
                piece = _GZIP_START[offset:]
            elif offset >= self._end:
                piece = struct.pack("<II", self._whole_crc(), self._inner.size & 0xFFFFFFFF)[offset - self._end :]
            else:
                number, at = divmod(offset - len(_GZIP_START), _STORED + _BLOCK_HEADER)
                start = number * _STORED
                length = min(_STORED, self._inner.size - start)
                if at >= _BLOCK_HEADER:
                    done = min(len(view), length + _BLOCK_HEADER - at)
                    self._inner.read_into(start + at - _BLOCK_HEADER, view[:done])
                    self._pass(start + at - _BLOCK_HEADER, view[:done])
                    view, offset = view[done:], offset + done
                    continue
                piece = struct.pack("<BHH", number == self._blocks - 1, length, length ^ 0xFFFF)[at:]
            piece = piece[: len(view)]
            view[: len(piece)] = piece
            view, offset = view[len(piece) :], offset + len(piece)

    def _pass(self, start: int, data: memoryview) -> None:
        """Take bytes into the checksum if they are the next ones."""
        with self._lock:
            if start <= self._checked < start + len(data):
                self._crc = zlib.crc32(data[self._checked - start :], self._crc)
                self._checked = start + len(data)

    def _whole_crc(self) -> int:
        while self._checked < self._inner.size:
            start = self._checked
            data = memoryview(bytearray(min(_PIECE, self._inner.size - start)))
            self._inner.read_into(start, data)
            self._pass(start, data)
        return self._crc


def files_of(store: Store, name: str) -> dict[str, Content]:
    """Return the files that a store is, by their names, the one that the image is known by first.

    They are those of `inrstore.store.export.export`, byte for byte; but what that packs is only wrapped in gzip here.

    Parameters
    ----------
    store : Store
    name : str
        What the first is called, with an ending of the format that the store was made from.

    Raises
    ------
    StoreError, ConfigurationError
        As an export.
    """
    return {output.name: _content(store, output) for output in outputs_of(store, Path(name))}


def _content(store: Store, output: Output) -> Content:
    voxels = [Voxels(store, output.axes)] if output.voxels else []
    inner: Content = Joined([Bytes(output.head), *voxels, Bytes(output.tail)])
    return Joined([Bytes(output.plain), Gzipped(inner) if output.packed else inner])
