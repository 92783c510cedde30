"""Chunks that were decoded a moment ago: reading slice by slice decodes each chunk once, not once for each slice."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.decode import Selection, decode_chunk, decode_region, mode_of
from inrstore.chunk.shared import Shared
from inrstore.errors import ConfigurationError

DEFAULT_BYTES = 128 << 20
_LARGE = 4
"""A region of at least one value in so many costs about what the chunk does."""
Array = npt.NDArray[Any]
Key = tuple[Any, ...]


class _Recent:
    """The arrays that were used last, up to so many bytes; each is made by one thread while others wait for it.

    An array of which a part alone was made has its place among them: the bytes that it would have, and no array.
    """

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._arrays: OrderedDict[Key, tuple[int, Array | None]] = OrderedDict()
        self._newest: Key | None = None
        self._again = False  # whether that was asked for again
        self._made_now: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def most(self) -> int:
        return self._most

    def resize(self, most: int) -> None:
        with self._lock:
            self._most = most
            self._drop()

    def find(self, key: Key) -> Array | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key, (0, None))[1]

    def worth_making(self, key: Key, nbytes: int) -> bool:
        """Return whether an array, so large, should be there when a part of it is asked for.

        It should if it can be kept, and was asked for a moment ago; or the array that was new before it was asked for
        again: then somebody reads slice by slice.
        """
        with self._lock:
            known, again = key in self._arrays, self._again
            self._newest, self._again = (self._newest, again or key == self._newest) if known else (key, False)
            self._put(key, nbytes, None)
            return nbytes <= self._most and (known or again)

    def get(self, key: Key, make: Callable[[], Array]) -> Array:
        """Return the array of a key, made if it is not there; an error is raised anew each time."""
        if not self._most:
            return make()
        with self._lock:
            turn = self._made_now.setdefault(key, threading.Lock())
        try:
            with turn:
                found = self.find(key)
                if found is None:
                    found = make()
                    found.flags.writeable = False
                    with self._lock:
                        self._put(key, found.nbytes, found)
                return found
        finally:
            with self._lock:
                if not turn.locked():
                    self._made_now.pop(key, None)

    def _put(self, key: Key, nbytes: int, array: Array | None) -> None:
        before = self._arrays.get(key)
        if nbytes <= self._most and (before is None or before[1] is None):
            self._arrays[key] = nbytes, array
            self._bytes += nbytes - (before[0] if before else 0)
            self._drop()

    def _drop(self) -> None:
        while self._bytes > self._most:
            _, (nbytes, _) = self._arrays.popitem(last=False)
            self._bytes -= nbytes


_recent = _Recent(DEFAULT_BYTES)


def _after_fork() -> None:
    """Begin anew in a child: its parent's threads, which may have held a lock, are not there."""
    global _recent
    _recent = _Recent(_recent.most)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def cache(nbytes: int | None = None) -> int:
    """Say how many bytes of decoded chunks a process keeps, so that the next read of one need not decode it.

    Every reader that goes through the codec shares them: zarr, xarray, dask, `inrstore.open`.

    Parameters
    ----------
    nbytes : int, optional
        At most, over all arrays; 0 keeps none. 128 MiB (2^27) when the process starts. Nothing changes without it.

    Returns
    -------
    int
        What it was before.

    Raises
    ------
    ConfigurationError
        If it is negative or no integer.
    """
    before = _recent.most
    if nbytes is not None:
        if isinstance(nbytes, bool) or not isinstance(nbytes, int | np.integer) or nbytes < 0:
            raise ConfigurationError(f"cache: {nbytes!r} is no number of bytes")
        _recent.resize(int(nbytes))
    return before


def recall(key: Key) -> Array | None:
    """Return a chunk that is kept by the key that `key_of` gave for its frame; None if it is kept no more.

    So who reads the same chunk in many small pieces need not read and digest its frame for each of them.
    """
    return _recent.find(key)


def chunk(
    data: bytes, shape: tuple[int, ...] | None = None, dtype: npt.DTypeLike | None = None, shared: Shared | None = None
) -> Array:
    """Return the chunk of a frame, as `inrstore.chunk.decode.decode_chunk` does, but not writable if it is kept."""
    return _recent.get(key_of(data, shape, dtype, shared), lambda: decode_chunk(data, shape, dtype, shared))


def region(
    data: bytes, selection: Selection, shape: tuple[int, ...], dtype: npt.DTypeLike, shared: Shared | None = None
) -> Array:
    """Return part of the chunk of a frame, as `inrstore.chunk.decode.decode_region` does, not writable if it is kept.

    Where parts of a chunk have work in common, the first is made alone, and the chunk, which is kept, when another is
    asked for as long as it would be kept; or at once for a large part, and where the chunk before was needed twice.
    Other parts that a mode makes alone are not kept, and their chunk is never decoded for them.
    """
    mode, key = mode_of(data), key_of(data, shape, dtype, shared)
    if mode is None or mode.decode_part is None:
        return np.asarray(chunk(data, shape, dtype, shared)[selection])
    if mode.parts_share:
        count = math.prod(shape)
        large = _LARGE * math.prod(_lengths(selection, shape)) >= count
        if _recent.worth_making(key, count * np.dtype(dtype).itemsize) or large:
            return np.asarray(chunk(data, shape, dtype, shared)[selection])
    whole = _recent.find(key)
    return decode_region(data, selection, shape, dtype, shared) if whole is None else np.asarray(whole[selection])


def _lengths(selection: Selection, shape: tuple[int, ...]) -> list[int]:
    return [len(range(*s.indices(n))) if isinstance(s, slice) else 1 for s, n in zip(selection, shape, strict=True)]


def key_of(data: bytes, shape: Any, dtype: Any, shared: Shared | None) -> Key:
    """Return what a decoded chunk depends on; a checksum of 32 bits would now and then be that of another frame."""
    kind = None if dtype is None else np.dtype(dtype).str
    return hashlib.blake2b(data, digest_size=16).digest(), shape, kind, tuple(shared or ())
