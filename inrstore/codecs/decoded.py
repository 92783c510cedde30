"""Chunks that were decoded a moment ago: reading slice by slice decodes each chunk once, not once for each slice."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.decode import Selection, decode_chunk, decode_region, has_parts
from inrstore.chunk.shared import Shared
from inrstore.errors import ConfigurationError

DEFAULT_BYTES = 128 << 20
Array = npt.NDArray[Any]
Key = tuple[Any, ...]


class _Recent:
    """The arrays that were used last, up to so many bytes; each is made by one thread while others wait for it."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._arrays: OrderedDict[Key, Array] = OrderedDict()
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
            return self._arrays.get(key)

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
                    self._keep(key, found)
                return found
        finally:
            with self._lock:
                if not turn.locked():
                    self._made_now.pop(key, None)

    def _keep(self, key: Key, array: Array) -> None:
        with self._lock:
            if array.nbytes <= self._most and key not in self._arrays:
                self._arrays[key] = array
                self._bytes += array.nbytes
                self._drop()

    def _drop(self) -> None:
        while self._bytes > self._most:
            _, array = self._arrays.popitem(last=False)
            self._bytes -= array.nbytes


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


def chunk(
    data: bytes, shape: tuple[int, ...] | None = None, dtype: npt.DTypeLike | None = None, shared: Shared | None = None
) -> Array:
    """Return the chunk of a frame, as `inrstore.chunk.decode.decode_chunk` does, but not writable if it is kept."""
    return _recent.get(_key(data, shape, dtype, shared), lambda: decode_chunk(data, shape, dtype, shared))


def region(
    data: bytes, selection: Selection, shape: tuple[int, ...], dtype: npt.DTypeLike, shared: Shared | None = None
) -> Array:
    """Return part of the chunk of a frame, as `inrstore.chunk.decode.decode_region` does, not writable if it is kept.

    What a mode decodes by itself is not kept: a chunk of which only parts are read is never decoded as a whole.
    """
    if not has_parts(data):
        return np.asarray(chunk(data, shape, dtype, shared)[selection])
    whole = _recent.find(_key(data, shape, dtype, shared))
    return decode_region(data, selection, shape, dtype, shared) if whole is None else np.asarray(whole[selection])


def _key(data: bytes, shape: Any, dtype: Any, shared: Shared | None) -> Key:
    """Return what a decoded chunk depends on; a checksum of 32 bits would now and then be that of another frame."""
    kind = None if dtype is None else np.dtype(dtype).str
    return hashlib.blake2b(data, digest_size=16).digest(), shape, kind, tuple(shared or ())
