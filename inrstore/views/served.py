"""A path below the address of a server -> the bytes that it names: exact sizes, what changes with them; no HTTP.

    nii/<file>              a file of the tree that the archive was made from
    zarr/<store>/<key>      a file of a store as plain Zarr v3, decoded
    inr/<store>/<key>       a file of a store as it lies; inr/<store> is the zip of a store that is one
    source/<file>           the same file of the source itself, unpacked, if there is a source to compare with
    original/<file>/<n>     of that source the voxels of a volume: little-endian, x fastest, whatever its format

Every name is looked up among those that the record and the manifests have; none is made into a path of this machine.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from inrstore.errors import StoreError
from inrstore.files.closing import Closing
from inrstore.files.names import check_name
from inrstore.files.stored_zip import StoredZip
from inrstore.store.manifest import digest
from inrstore.store.reader import Store
from inrstore.views.content import Bytes, Content
from inrstore.views.originals import Lying, Originals
from inrstore.views.plain_zarr import PlainZarr
from inrstore.views.vfs import Vfs, VirtualEntry, VirtualImage

_MOST_OPEN = 64
JSON, BYTES, TEXT, ZIP = "application/json", "application/octet-stream", "text/plain; charset=utf-8", "application/zip"
_MEDIA = {"json": JSON, "txt": TEXT, "tsv": TEXT, "csv": TEXT, "bval": TEXT, "bvec": TEXT}


@dataclass(frozen=True)
class Resource:
    """Bytes that have a name.

    Parameters
    ----------
    content : Content
    tag : str
        What changes when they do.
    media : str
        Their type.
    held : int
        Bytes of memory that are held from the first that is read on.
    close : callable
        Lets go of them.
    """

    content: Content
    tag: str
    media: str = BYTES
    held: int = 0
    close: Callable[[], None] = lambda: None


class _Stored:
    """A chunk of a store as it lies; it is read, and compared with its digest, as a whole."""

    def __init__(self, store: Store, key: str) -> None:
        size = store.files.size(key)
        if size is None:
            raise StoreError(f"{store.label}: {key} is missing; the store is incomplete")
        self._store, self._key, self.size = store, key, size
        self._data: bytes | None = None

    def read_into(self, offset: int, view: memoryview) -> None:
        if self._data is None:
            self._data = self._store.file(self._key)
            if len(self._data) != self.size:
                raise StoreError(f"{self._store.label}: {self._key} was changed while it was read")
        view[:] = self._data[offset : offset + len(view)]


class Served(Closing):
    """What a server shows of a store or an archive.

    Parameters
    ----------
    where : path-like or str
        Path or URL.
    source : path-like or str, optional
        As of `Originals`.
    scratch : str, optional
        As of `Vfs`.

    Attributes
    ----------
    vfs : Vfs
    originals : Originals or None

    Raises
    ------
    StoreError, ConfigurationError
        As `Vfs` and `Originals`.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        source: str | os.PathLike[str] | None = None,
        scratch: str | None = None,
    ) -> None:
        self.vfs = Vfs(where, scratch=scratch)
        self._plain = lru_cache(_MOST_OPEN)(PlainZarr)
        try:
            self.originals = None if source is None else Originals(self.vfs, source, scratch)
        except BaseException:
            self.vfs.close()
            raise

    def entries(self, folder: str) -> list[VirtualEntry]:
        """Return what is in a folder below `nii`."""
        return self.vfs.entries(folder)

    def close(self) -> None:
        """Let go of it."""
        self.vfs.close()
        if self.originals is not None:
            self.originals.close()

    def open(self, path: str) -> Resource:
        """Return what a path names.

        Parameters
        ----------
        path : str
            Without percent signs that mean something, and without a slash at its start: "nii/sub-01/T1w.nii".

        Raises
        ------
        FileNotFoundError, IsADirectoryError
        ValueError
            If it is no path.
        StoreError, CorruptChunkError, SourceError, OSError
            If what it is made from is missing or damaged.
        """
        kind, _, rest = path.partition("/")
        if rest and (problem := check_name(rest)):
            raise ValueError(problem)
        if kind == "nii":
            content = self.vfs.content(rest)
            return Resource(content, self.vfs.digest(rest), _MEDIA.get(rest.rpartition(".")[2].lower(), BYTES))
        if kind == "source" and self.originals is not None:
            content, tag, close = self.originals.open(rest)
            return Resource(content, tag, close=close)
        if kind == "original" and self.originals is not None:
            return self._volume(self.originals, *rest.rpartition("/")[::2])
        if kind in ("zarr", "inr"):
            image, key = self._split(rest)
            store = self.vfs.store(image.path)
            return self._decoded(store, key) if kind == "zarr" else self._as_it_lies(image, store, key)
        raise FileNotFoundError(path)

    def _volume(self, originals: Originals, path: str, number: str) -> Resource:
        voxels = originals.voxels(path)
        leading = voxels.shape[: max(0, voxels.ndim - 3)]
        if not re.fullmatch("[0-9]{1,9}", number, re.ASCII) or int(number) >= math.prod(leading):
            raise FileNotFoundError(f"{path}/{number}")
        volume = voxels[np.unravel_index(int(number), leading)] if leading else voxels
        data = np.ascontiguousarray(volume, volume.dtype.newbyteorder("<")).tobytes()
        return Resource(Bytes(data), "", held=len(data))

    def _split(self, path: str) -> tuple[VirtualImage, str]:
        """Return the store that a path begins with, and the rest."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            found = self.vfs.image_of("/".join(parts[:count]))
            if found is not None:
                return found, "/".join(parts[count:])
        raise FileNotFoundError(path)

    def _decoded(self, store: Store, key: str) -> Resource:
        content, tag, held = self._plain(store).open(key)
        return Resource(content, tag, JSON if key.endswith(".json") else BYTES, held)

    def _as_it_lies(self, image: VirtualImage, store: Store, key: str) -> Resource:
        if key in store.documents:
            return Resource(Bytes(store.documents[key]), store.seal, JSON)
        if key in store.manifest:
            content = _Stored(store, key)
            return Resource(content, store.manifest[key], held=content.size)
        if key or not isinstance(store.files, StoredZip):
            raise FileNotFoundError(f"{image.store}/{key}")
        place, name = self.vfs.place_of(image)
        stamp = digest(f"{store.seal} {place.stamp(name)}".encode())
        file = Lying(place.random(name), store.label)
        return Resource(file, stamp, ZIP, close=file.close)
