"""A store -> the same as plain Zarr v3, which any reader of Zarr opens: values as they are, chunks decoded when read.

Every array has the codec `bytes` alone. Metadata are consolidated; nothing has to be listed. What a store of Zarr v2
says is said as v3 says it. The manifest of the store is left out: its digests are those of coded chunks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.codecs import decoded
from inrstore.store import layout
from inrstore.store.attributes import SMALL_DIMS
from inrstore.store.layout import Array
from inrstore.store.manifest import MANIFEST, digest
from inrstore.store.reader import Store, naming
from inrstore.views.content import Bytes, Content, boxes

_V2_ATTRIBUTES = frozenset({"_ARRAY_DIMENSIONS"})


class PlainZarr:
    """The files of a store as plain Zarr v3.

    Parameters
    ----------
    store : Store

    Attributes
    ----------
    documents : dict of str to bytes
        Metadata by their keys: zarr.json of the group and of each array.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        arrays = [self._array(name) for name in store.arrays]
        attributes = _group_attributes(store)
        self.documents = layout.metadata_files(3, attributes, arrays)
        self.documents[layout.root_key(3)] = layout.root_file(3, attributes, arrays)

    def _array(self, name: str) -> Array:
        found = self._store.arrays[name]
        dims = self._store.dims if name == layout.IMAGE else SMALL_DIMS.get(name, ("byte",))
        attributes = {key: value for key, value in found.attributes.items() if key not in _V2_ATTRIBUTES}
        return Array(name, found.grid, found.dtype, dims, {}, attributes, packed=False)

    def open(self, key: str) -> tuple[Content, str, int]:
        """Return a file, what changes with its bytes, and how many of them are held once they are read.

        Parameters
        ----------
        key : str
            "zarr.json", "image/zarr.json", "image/c/0/1/0/0".

        Raises
        ------
        FileNotFoundError
            If the store has no such file.
        StoreError
            If a small array is damaged.
        """
        if key in self.documents:
            return Bytes(self.documents[key]), digest(self.documents[key]), 0
        name, _, place = key.partition("/c/")
        array = self._store.arrays.get(name)
        index = _index(place)
        if array is None or index is None or len(index) != len(array.grid.counts):
            raise FileNotFoundError(key)
        if any(number >= count for number, count in zip(index, array.grid.counts, strict=True)):
            raise FileNotFoundError(key)
        tag = self._store.manifest[layout.chunk_key(self._store.zarr_format, name, index)]
        if name == layout.IMAGE:
            chunk = _Chunk(self._store, index)
            return chunk, tag, chunk.size if chunk.size > decoded.cache() else 0
        data = self._store.read(name).tobytes()
        return Bytes(data), tag, len(data)


def _index(place: str) -> tuple[int, ...] | None:
    """Return the numbers of a chunk, None if the text is none that Zarr writes."""
    parts = place.split("/")
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 and str(int(part)) == part for part in parts):
        return None
    return tuple(map(int, parts))


def _group_attributes(store: Store) -> dict[str, Any]:
    """Return the attributes of the group: those of the store without its manifest, and OME-Zarr as v3 has it."""
    root = layout.decode_json(store.root)
    found = dict(root["attributes"] if store.zarr_format == 3 else root)
    own = {key: value for key, value in found.pop(layout.ATTRIBUTES).items() if key != MANIFEST}
    if store.zarr_format == 2 and "multiscales" in found:
        levels = [{key: value for key, value in one.items() if key != "version"} for one in found.pop("multiscales")]
        found["ome"] = {"version": "0.5", "multiscales": levels}
    return {layout.ATTRIBUTES: own, **found}


class _Chunk:
    """The values of a chunk of full shape in C order, zeros beyond the edges of the image.

    It is decoded when it is first read, and again only if the cache of decoded chunks keeps it no more; one that is
    too large for that is held here.

    Parameters
    ----------
    store : Store
    index : tuple of int
    """

    def __init__(self, store: Store, index: tuple[int, ...]) -> None:
        self._store, self._index = store, index
        self._valid = tuple(part.stop - part.start for part in store.grid.region(index))
        self._key: decoded.Key | None = None
        self._held: npt.NDArray[Any] | None = None
        self.size = math.prod(store.grid.chunks) * store.dtype.itemsize

    def read_into(self, offset: int, view: memoryview) -> None:
        """Copy the values that are asked for."""
        values, width = self._values(), self._store.dtype.itemsize
        first, last = offset // width, -(-(offset + len(view)) // width)
        out = np.zeros(last - first, self._store.dtype)
        for at, box in boxes(values.shape, first, last):
            lengths = [part.stop - part.start for part in box]
            inside = tuple(slice(part.start, max(part.start, min(part.stop, valid)))
                           for part, valid in zip(box, self._valid, strict=True))  # fmt: skip
            there = tuple(slice(part.stop - part.start) for part in inside)
            out[at : at + math.prod(lengths)].reshape(lengths)[there] = values[inside]
        start = offset - first * width
        view[:] = out.view(np.uint8)[start : start + len(view)].data

    def _values(self) -> npt.NDArray[Any]:
        found = self._held
        if found is None and self._key is not None:
            found = decoded.recall(self._key)
        if found is None:
            store = self._store
            expected = store.grid.chunks, store.dtype, store.shared
            frame = store.frame(self._index)
            with naming(f"{store.label}: {store.key(self._index)}"):
                found = decoded.chunk(frame, *expected)
            self._key = decoded.key_of(frame, *expected)
            if decoded.recall(self._key) is None:
                self._held = found
        return found
