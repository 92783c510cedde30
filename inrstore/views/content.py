"""A store -> the bytes of the files that it was made from, at any offset; only chunks that are touched are decoded.

A file is a row of pieces: bytes, voxels in the order of its format, and gzip around them where the format says so.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import struct
import tempfile
import threading
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inrstore.codecs import decoded
from inrstore.errors import InrstoreError
from inrstore.sources.format import Output
from inrstore.store.export import outputs_of, runs, write_all
from inrstore.store.reader import Store, naming

Box = tuple[slice, ...]
Place = tuple[int, ...]
"""Numbers of a chunk along the axes of a file."""
_STREAM = 1 << 18
"""Bytes by which one read may be away from the end of the one before, and be its sequel: the kernel asks ahead."""


_MOST_CACHE = 1 << 30


def cache_bytes() -> int:
    """Return how many bytes of decoded chunks a process keeps that does nothing else: a quarter of the memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return decoded.DEFAULT_BYTES
    return min(_MOST_CACHE, memory // 4)


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

    Decoded chunks are kept with those of all readers of the process (`inrstore.cache`). An image that is too large for
    that would be decoded again for every volume that is read, because its chunks hold all volumes of a place: if there
    is a folder for it, its chunks go to a file there, each when it is decoded first.

    While somebody reads on and on, the next chunk is decoded beside the one that is needed.

    Parameters
    ----------
    store : Store
    axes : tuple of int
        As in `Output`.
    scratch : str, optional
        The folder. What is in it has no name, and is gone with the process.
    """

    def __init__(self, store: Store, axes: tuple[int, ...], scratch: str | None = None) -> None:
        self._store = store
        self._axes = axes or tuple(range(len(store.grid.shape)))
        self._shape = tuple(store.grid.shape[axis] for axis in self._axes)
        self._lengths = tuple(store.grid.chunks[axis] for axis in self._axes)
        self._counts = tuple(store.grid.counts[axis] for axis in self._axes)
        self._keys: dict[Place, decoded.Key] = {}
        self._last: tuple[Place, npt.NDArray[Any]] | None = None
        self._end, self._streaming, self._ahead = 0, False, threading.Lock()
        self._laid: _Laid | None = None
        self._scratch = scratch
        self.size = store.source_bytes

    def read_into(self, offset: int, view: memoryview) -> None:
        """Decode the chunks that are touched, and copy."""
        self._streaming = len(view) > _STREAM or abs(offset - self._end) <= _STREAM
        self._end = offset + len(view)
        dtype = self._store.source_dtype
        first, last = offset // dtype.itemsize, -(-(offset + len(view)) // dtype.itemsize)
        laid = self._on_disk()
        if laid is not None:
            touched = (place for _, box in boxes(self._shape, first, last) for place in self._places(box))
            if all([laid.put(place, self._region(place), self._chunk) for place in dict.fromkeys(touched)]):
                laid.read_into(offset, view)
                return
        whole = (offset + len(view)) % dtype.itemsize == 0 and offset % dtype.itemsize == 0
        values = np.frombuffer(view, dtype) if whole else np.empty(last - first, dtype)
        for at, box in boxes(self._shape, first, last):
            lengths = [part.stop - part.start for part in box]
            self._copy(box, values[at : at + math.prod(lengths)].reshape(lengths))
        if not whole:
            start = offset - first * dtype.itemsize
            view[:] = values.view(np.uint8)[start : start + len(view)].data

    def _on_disk(self) -> _Laid | None:
        """Return the file of an image that is too large to be kept, if there is room for one."""
        if self._scratch is not None and self.size > decoded.cache() // 2:
            if shutil.disk_usage(self._scratch).free > 2 * self.size:
                self._laid = _Laid(self._scratch, self._shape, self._store.source_dtype)
            self._scratch = None
        return self._laid

    def _places(self, box: Box) -> Iterator[Place]:
        """Yield the chunks that a box touches, by their numbers along the axes of the file."""
        return product(*(range(part.start // length, -(-part.stop // length))
                         for part, length in zip(box, self._lengths, strict=True)))  # fmt: skip

    def _region(self, place: Place) -> Box:
        return tuple(slice(number * length, min((number + 1) * length, n))
                     for number, length, n in zip(place, self._lengths, self._shape, strict=True))  # fmt: skip

    def _copy(self, box: Box, out: npt.NDArray[Any]) -> None:
        for place in self._places(box):
            region = self._region(place)
            common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, region, strict=True)]
            inside = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(common, region, strict=True))
            there = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True))
            out[there] = self._chunk(place)[inside]

    def _chunk(self, place: Place) -> npt.NDArray[Any]:
        """Return a chunk of full shape, its axes as in the file; its frame is read only if it is kept no more."""
        last = self._last
        if last is not None and last[0] == place:
            return last[1]
        found = decoded.recall(self._keys[place]) if place in self._keys else None
        if found is None:
            if self._streaming:
                self._decode_ahead(place)
            found = self._decode(place)
        return found.transpose(self._axes)

    def _decode(self, place: Place) -> npt.NDArray[Any]:
        index = [0] * len(place)
        for axis, number in zip(self._axes, place, strict=True):
            index[axis] = number
        store, expected = self._store, (self._store.grid.chunks, self._store.dtype, self._store.shared)
        frame = store.frame(tuple(index))
        with naming(f"{store.label}: {store.key(tuple(index))}"):
            found = decoded.chunk(frame, *expected)
        key = self._keys[place] = decoded.key_of(frame, *expected)
        # Of those that are too large to be kept the last one is, or it would be decoded for each of its pieces.
        self._last = None if decoded.recall(key) is found else (place, found.transpose(self._axes))
        return found

    def _decode_ahead(self, place: Place) -> None:
        """Begin with the chunk that comes next in the file, if it can be kept and no other is on its way."""
        number = int(np.ravel_multi_index(place, self._counts)) + 1
        room = 4 * math.prod(self._lengths) * self._store.dtype.itemsize <= decoded.cache()
        if not room or number == math.prod(self._counts) or not self._ahead.acquire(blocking=False):
            return
        following = tuple(int(n) for n in np.unravel_index(number, self._counts))

        def run() -> None:
            try:
                if following not in self._keys or decoded.recall(self._keys[following]) is None:
                    self._decode(following)
            except (InrstoreError, OSError, MemoryError):
                pass  # whoever needs it is told
            finally:
                self._ahead.release()

        threading.Thread(target=run, name="inrstore ahead", daemon=True).start()


class _Laid:
    """A file without a name that holds voxels as they lie in a file of a format, of the chunks that were put into it.

    Parameters
    ----------
    folder : str
    shape : tuple of int
        Of the image, slowest axis first.
    dtype : numpy.dtype
    """

    def __init__(self, folder: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        weakref.finalize(self, self._file.close)
        self._shape, self._dtype = shape, dtype
        self._done = set[Place]()
        self._full = False
        self._turns: dict[Place, threading.Lock] = {}
        self._lock = threading.Lock()

    def put(self, place: Place, region: Box, make: Callable[[Place], npt.NDArray[Any]]) -> bool:
        """Write a chunk that is not there yet; return False if the disk is full."""
        if place in self._done:
            return True
        with self._lock:
            turn = self._turns.setdefault(place, threading.Lock())
        with turn:
            if place not in self._done and not self._full:
                values = make(place)[tuple(slice(part.stop - part.start) for part in region)]
                try:
                    for offset, run in runs(values.astype(self._dtype, copy=False), region, self._shape):
                        write_all(self._file.fileno(), run.tobytes(), offset)
                    self._done.add(place)
                except OSError:
                    self._full = True
        return place in self._done

    def read_into(self, offset: int, view: memoryview) -> None:
        """Read what was put there."""
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if not count:
                raise OSError(errno.EIO, "a temporary file ends early")
            view, offset = view[count:], offset + count


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


def files_of(store: Store, name: str, scratch: str | None = None) -> dict[str, Content]:
    """Return the files that a store is, by their names, the one that the image is known by first.

    They are those of `inrstore.store.export.export`, byte for byte; but what that packs is only wrapped in gzip here.

    Parameters
    ----------
    store : Store
    name : str
        What the first is called, with an ending of the format that the store was made from.
    scratch : str, optional
        As of `Voxels`.

    Raises
    ------
    StoreError, ConfigurationError
        As an export.
    """
    return {output.name: _content(store, output, scratch) for output in outputs_of(store, Path(name))}


def _content(store: Store, output: Output, scratch: str | None) -> Content:
    voxels = [Voxels(store, output.axes, scratch)] if output.voxels else []
    inner: Content = Joined([Bytes(output.head), *voxels, Bytes(output.tail)])
    return Joined([Bytes(output.plain), Gzipped(inner) if output.packed else inner])
