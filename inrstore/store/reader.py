"""A store, opened with suspicion: manifest and metadata first, chunks one by one, nothing missing in silence."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from inrstore import files, limits
from inrstore.chunk.frames import ChunkInfo, decode_chunk, decode_inside, describe_chunk
from inrstore.errors import CorruptChunkError, FileTooLargeError, InrstoreError, StoreError
from inrstore.evaluate.metrics import Measures
from inrstore.files import Place
from inrstore.store import layout, manifest
from inrstore.store.layout import Grid, ZarrFormat

ALLOWED_CODECS = frozenset({"inrstore", "bytes", "gzip", "zstd", "crc32c", "blosc", "zlib"})
"""Codecs a store may name. Others, found through entry points, could run code of their own on reading."""

MAX_METADATA_BYTES = 1 << 26
"""Size of one metadata file."""

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Store:
    """A store opened for reading. Nothing of the image is read before it is asked for.

    Parameters
    ----------
    where : path-like or str
        Path or URL of the store.

    Attributes
    ----------
    label : str
        Its path or URL, for people.
    files : Place
        Its files.
    manifest : dict of str to (int, str)
        Size and digest of every file but the one that holds the manifest.
    seal : str
        Digest of that file.

    Raises
    ------
    StoreError
        If it is not a complete store of this package, or names a codec that is not allowed.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.files: Place = files.place(where)
        self.label = self.files.name
        document = self._root()
        check_codecs(self.files)
        import zarr

        try:
            # Without the consolidated copy: the arrays' own documents are what every reader can see.
            self.group = zarr.open_group(self.zarr_store(), mode="r", use_consolidated=False)
            image = self.group[layout.IMAGE]
            if not isinstance(image, zarr.Array):
                raise TypeError("image is not an array")
            attributes = cast(dict[str, Any], self.group.attrs[layout.ATTRIBUTES])
            self.zarr_format: ZarrFormat = image.metadata.zarr_format
            self.grid = Grid(tuple(image.shape), tuple(image.chunks))
            self.dtype = np.dtype(image.dtype)
            version = attributes["version"]
            self.source_dtype = np.dtype(attributes["source"]["dtype"])
            self.promised = dict(attributes["quality"]["asked"])
            self.measured = dict(attributes["quality"])
        except InrstoreError:
            raise
        except Exception as error:  # zarr raises many kinds for damaged metadata
            raise StoreError(f"{self.label}: not an inrstore store: {error}") from error
        if version != layout.LAYOUT_VERSION:
            raise StoreError(f"{self.label}: layout version {version} is not known")
        if manifest.MANIFEST not in attributes:
            raise StoreError(f"{self.label}: {self.root_key} has no manifest; the store is incomplete")
        if layout.stored_dtype(self.dtype) != layout.stored_dtype(self.source_dtype):
            raise StoreError(f"{self.label}: image: {self.dtype} voxels of a {self.source_dtype} source")
        if not 1 <= len(self.grid.shape) <= len(layout.DIMS) or not all(self.grid.shape):
            raise StoreError(f"{self.label}: image: no image has the shape {self.grid.shape}")
        if math.prod(self.grid.chunks) > limits.MAX_CHUNK_VALUES:
            raise StoreError(f"{self.label}: image: a chunk of {self.grid.chunks} is larger than allowed")
        self.attributes = attributes
        self.manifest, self.decoded_digest = manifest.parse(attributes[manifest.MANIFEST], self.label)
        try:
            self.seal, self.sealed = manifest.read_seal(document), manifest.sealed(document)
        except ValueError as error:
            raise StoreError(f"{self.label}: {self.root_key}: {error}") from error
        if not self.sealed:
            raise StoreError(f"{self.label}: {self.root_key} was changed after the store was made")
        for key in self.manifest:
            if key.rpartition("/")[2] in _METADATA:
                self.check_file(key)
        self.dims = layout.image_dims(len(self.grid.shape))

    def _root(self) -> bytes:
        """Return the file that makes a store complete."""
        try:
            for self.root_key in (layout.root_key(3), layout.root_key(2)):
                if self.files.size(self.root_key) is not None:
                    return files.read(self.files, self.root_key, MAX_METADATA_BYTES)
        except FileTooLargeError as error:
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(f"{self.label}: {self.root_key} cannot be read: {error.strerror or error}") from error
        first = next(iter(self.files.walk()), None)
        if first is None or first.problem:
            raise StoreError(f"{self.label}: no such store")
        raise StoreError(f"{self.label}: neither zarr.json nor .zattrs: not a Zarr store, or an incomplete one")

    def zarr_store(self) -> Any:
        """Return what zarr and xarray open: a path, or a store object for a URL."""
        opener = getattr(self.files, "zarr_store", None)
        return self.label if opener is None else opener()

    @property
    def source_bytes(self) -> int:
        """Bytes of the uncompressed voxels."""
        return math.prod(self.grid.shape) * self.dtype.itemsize

    def stored_bytes(self) -> int:
        """Return the size of all files that are there."""
        return sum(entry.size for entry in self.files.walk())

    def stated(self) -> Measures:
        """Return the quality that was measured when the store was made."""
        try:
            names = ("psnr", "psnr_range", "rmse", "max_error", "lossless")
            return Measures(**{name: self.measured[name] for name in names})
        except KeyError as error:
            raise StoreError(f"{self.label}: attribute quality.{error.args[0]} is missing") from error

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of an image chunk inside the store."""
        return layout.chunk_key(self.zarr_format, layout.IMAGE, index)

    def frame(self, index: tuple[int, ...]) -> bytes:
        """Return the bytes of an image chunk; a missing one is an error, where zarr would read zeros."""
        return self.file(self.key(index))

    def describe(self, index: tuple[int, ...]) -> ChunkInfo:
        """Return what a chunk says of itself."""
        with naming(self.key(index)):
            return describe_chunk(self.frame(index))

    def chunk(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a decoded chunk without the padding at the edges; its checksums are tested."""
        data = self.frame(index)
        with naming(self.key(index)):
            whole = decode_chunk(data, self.grid.chunks, self.dtype)
        region = self.grid.region(index)
        return whole[tuple(slice(s.stop - s.start) for s in region)]

    def inside(self) -> npt.NDArray[np.bool_] | None:
        """Return which voxels are kept, (1, ..., z, y, x), as the chunks say; None for a store without a mask."""
        if "mask" not in self.attributes:
            return None
        leading = layout.measurement_axes(self.dims)
        out = np.zeros((1,) * leading + self.grid.shape[leading:], np.bool_)
        for index in self.grid:
            region = self.grid.region(index)
            if any(index[:leading]):
                continue
            with naming(self.key(index)):
                found = decode_inside(self.frame(index), self.grid.chunks, self.dtype)
            part = found[(slice(1),) * leading + tuple(slice(s.stop - s.start) for s in region[leading:])]
            out[(slice(1),) * leading + region[leading:]] = part
        return out

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return a small array: one chunk, gzipped, its checksum tested and its size bounded by its shape."""
        array = self._array(name)
        shape, dtype = tuple(array.shape), layout.stored_dtype(array.dtype)
        size = math.prod(shape) * dtype.itemsize
        key = layout.chunk_key(self.zarr_format, name, (0,) * len(shape))
        if tuple(array.chunks) != shape or size > layout.MAX_SMALL_BYTES or dtype.kind not in "iuf":
            raise StoreError(f"{self.label}: {name} is not a small array of one chunk")
        engine = zlib.decompressobj(wbits=31)
        try:
            raw = engine.decompress(self.file(key), size + 1)
        except zlib.error as error:
            raise StoreError(f"{self.label}: {key} is corrupt: {error}") from error
        if len(raw) != size or not engine.eof:
            raise StoreError(f"{self.label}: {key} is corrupt: it does not hold {size} bytes")
        return np.frombuffer(raw, dtype).reshape(shape)

    def small_bytes(self, name: str) -> bytes:
        """Return the bytes of a small array, none if the store has no such array."""
        return self.read(name).tobytes() if name in self.small_names() else b""

    def small_names(self) -> list[str]:
        """Return the names of the arrays beside the image."""
        return sorted(layout.SMALL_ARRAYS & {key.split("/")[0] for key in self.manifest})

    def missing_files(self) -> list[str]:
        """Return the files of the manifest that are not there."""
        present = {entry.key for entry in self.files.walk()}
        return [key for key in self.manifest if key not in present]

    def check_file(self, key: str) -> None:
        """Compare a file with the manifest.

        Raises
        ------
        StoreError
            If it is missing, or is not what was written.
        """
        size, digest = self.manifest[key]
        data = self.file(key)
        if len(data) != size:
            raise StoreError(f"{self.label}: {key} has {len(data)} bytes, the manifest says {size}")
        if manifest.digest(data) != digest:
            raise StoreError(f"{self.label}: {key} was changed: its digest is not that of the manifest")

    def file(self, key: str) -> bytes:
        """Return a file of the manifest; how much is read depends on what the manifest says."""
        if key not in self.manifest:
            raise StoreError(f"{self.label}: {key} is not in the manifest; the store is damaged")
        try:
            data = files.read(self.files, key, self.manifest[key][0])
        except FileTooLargeError:
            size = self.manifest[key][0]
            raise StoreError(
                f"{self.label}: {key} was changed: it has more than the {size} bytes in the manifest"
            ) from None
        except FileNotFoundError:
            raise StoreError(f"{self.label}: {key} is missing; the store is incomplete") from None
        except OSError as error:
            raise StoreError(f"{self.label}: {key} cannot be read: {error.strerror or error}") from error
        if manifest.digest(data) != self.manifest[key][1]:
            raise StoreError(f"{self.label}: {key} was changed: its digest is not that of the manifest")
        return data

    def _array(self, name: str) -> Any:
        """Return an array by its name."""
        try:
            array = self.group[name]
            _ = array.shape, array.chunks  # type: ignore[union-attr]
        except Exception as error:  # zarr raises many kinds for damaged metadata
            raise StoreError(f"{self.label}: array {name} is missing or damaged: {error}") from error
        return array


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Have the errors of a corrupt chunk say which chunk it is."""
    try:
        yield
    except CorruptChunkError as error:
        raise type(error)(error.field, f"{error.reason} [{key}]") from error


def check_codecs(place: Place) -> None:
    """Refuse a store whose metadata names a codec outside `ALLOWED_CODECS`, before zarr makes any of them.

    Parameters
    ----------
    place : Place
        Files of the store.

    Raises
    ------
    StoreError
        Naming the file and the codec.
    """
    for entry in place.walk():
        folders, _, name = entry.key.rpartition("/")
        if name not in _METADATA or "/" in folders:
            continue
        where = place.label(entry.key)
        try:
            document = json.loads(files.read(place, entry.key, MAX_METADATA_BYTES))
        except (OSError, ValueError, RecursionError, FileTooLargeError) as error:
            raise StoreError(f"{where}: damaged metadata: {error}") from error
        for codec in _codecs(document):
            if codec not in ALLOWED_CODECS:
                raise StoreError(f"{where}: codec {codec!r} is not allowed in a store")


def _codecs(document: Any) -> Iterator[str]:
    """Yield the codec names in a metadata document of either format, consolidated ones included."""
    if isinstance(document, list):
        for item in document:
            yield from _codecs(item)
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key in ("attributes", ".zattrs") or key.endswith("/.zattrs"):
            continue
        if key in ("codecs", "index_codecs", "compressor", "filters"):
            for codec in value if isinstance(value, list) else [value]:
                if isinstance(codec, dict):
                    yield str(codec.get("name", codec.get("id")))
                elif codec is not None:
                    yield str(codec)
        yield from _codecs(value)
