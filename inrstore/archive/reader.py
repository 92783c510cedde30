"""A store on disk, opened with suspicion: metadata first, chunks one by one, nothing missing in silence."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.archive import layout
from inrstore.archive.layout import Grid, ZarrFormat
from inrstore.errors import CorruptChunkError, InrstoreError, StoreError
from inrstore.format.chunk import ChunkInfo, decode_chunk, describe_chunk

ALLOWED_CODECS = frozenset({"inrstore", "bytes", "gzip", "zstd", "crc32c", "blosc", "zlib"})
"""Codecs a store may name. Others, found through entry points, could run code of their own on reading."""

MAX_METADATA_BYTES = 1 << 26
"""Size of one metadata file."""

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Store:
    """A store opened for reading. Nothing of the image is read before it is asked for.

    Parameters
    ----------
    path : path-like
        Directory of the store.

    Raises
    ------
    StoreError
        If it is not a store of this package, or names a codec that is not allowed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_codecs(self.path)
        import zarr

        try:
            # Without the consolidated copy: the arrays' own documents are what every reader can see.
            self.group = zarr.open_group(str(self.path), mode="r", use_consolidated=False)
            image = self.group[layout.IMAGE]
            attributes = cast(dict[str, Any], self.group.attrs[layout.ATTRIBUTES])
            if not isinstance(image, zarr.Array):
                raise TypeError("image is not an array")
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
            raise StoreError(f"{self.path}: not an inrstore store: {error}") from error
        if version != layout.LAYOUT_VERSION:
            raise StoreError(f"{self.path}: layout version {version} is not known")
        if layout.stored_dtype(self.dtype) != layout.stored_dtype(self.source_dtype):
            raise StoreError(f"{self.path}: image: {self.dtype} voxels of a {self.source_dtype} source")
        if not 1 <= len(self.grid.shape) <= len(layout.DIMS) or not all(self.grid.shape):
            raise StoreError(f"{self.path}: image: no image has the shape {self.grid.shape}")
        if math.prod(self.grid.chunks) > limits.MAX_CHUNK_VALUES:
            raise StoreError(f"{self.path}: image: a chunk of {self.grid.chunks} is larger than allowed")
        self.attributes = attributes
        self.dims = layout.image_dims(len(self.grid.shape))

    @property
    def source_bytes(self) -> int:
        """Bytes of the uncompressed voxels."""
        return math.prod(self.grid.shape) * self.dtype.itemsize

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of an image chunk inside the store."""
        return layout.chunk_key(self.zarr_format, layout.IMAGE, index)

    def frame(self, index: tuple[int, ...]) -> bytes:
        """Return the bytes of an image chunk; a missing one is an error, where zarr would read zeros."""
        return self._bytes(self.key(index))

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

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return a small array: one chunk, gzipped, its checksum tested and its size bounded by its shape."""
        array = self._array(name)
        shape, dtype = tuple(array.shape), layout.stored_dtype(array.dtype)
        size = math.prod(shape) * dtype.itemsize
        key = layout.chunk_key(self.zarr_format, name, (0,) * len(shape))
        if tuple(array.chunks) != shape or size > layout.MAX_SMALL_BYTES or dtype.kind not in "iuf":
            raise StoreError(f"{self.path}: {name} is not a small array of one chunk")
        engine = zlib.decompressobj(wbits=31)
        try:
            raw = engine.decompress(self._bytes(key), size + 1)
        except zlib.error as error:
            raise StoreError(f"{self.path}: {key} is corrupt: {error}") from error
        if len(raw) != size or not engine.eof:
            raise StoreError(f"{self.path}: {key} is corrupt: it does not hold {size} bytes")
        return np.frombuffer(raw, dtype).reshape(shape)

    def small_names(self) -> list[str]:
        """Return the names of the arrays beside the image: those that lie there or are announced."""
        present = {entry.name for entry in self.path.iterdir() if entry.is_dir()}
        return sorted(layout.SMALL_ARRAYS & (present | self._announced()))

    def expected_files(self) -> set[str]:
        """Return every path inside a complete store."""
        files = {"zarr.json"} if self.zarr_format == 3 else {".zgroup", ".zattrs", ".zmetadata"}
        for name in [layout.IMAGE, *self.small_names()]:
            array = self._array(name)
            own = ("zarr.json",) if self.zarr_format == 3 else (".zarray", ".zattrs")
            files |= {f"{name}/{file}" for file in own}
            grid = Grid(tuple(array.shape), tuple(array.chunks))
            files |= {layout.chunk_key(self.zarr_format, name, index) for index in grid}
        return files

    def _announced(self) -> set[str]:
        """Return the names of all arrays in the consolidated metadata."""
        try:
            if self.zarr_format == 3:
                document = json.loads((self.path / "zarr.json").read_bytes())
                return set(document["consolidated_metadata"]["metadata"])
            document = json.loads((self.path / ".zmetadata").read_bytes())
            return {key.split("/")[0] for key in document["metadata"]}
        except (OSError, KeyError, TypeError, AttributeError):
            return set()  # other programs need not have written it

    def _array(self, name: str) -> Any:
        """Return an array by its name."""
        try:
            array = self.group[name]
            _ = array.shape, array.chunks  # type: ignore[union-attr]
        except Exception as error:  # zarr raises many kinds for damaged metadata
            raise StoreError(f"{self.path}: array {name} is missing or damaged: {error}") from error
        return array

    def _bytes(self, key: str) -> bytes:
        try:
            return (self.path / key).read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{self.path}: {key} is missing; the store is incomplete") from None
        except OSError as error:
            raise StoreError(f"{self.path}: {key} cannot be read: {error.strerror or error}") from error


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Have the errors of a corrupt chunk say which chunk it is."""
    try:
        yield
    except CorruptChunkError as error:
        raise type(error)(error.field, f"{error.reason} [{key}]") from error


def files_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every file of a store: its path inside, and its size."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            yield file.relative_to(path).as_posix(), file.lstat().st_size


def stored_bytes(path: Path) -> int:
    """Return the size of all files of a store."""
    return sum(size for _, size in files_of(path))


def check_codecs(path: Path) -> None:
    """Refuse a store whose metadata names a codec outside `ALLOWED_CODECS`, before zarr makes any of them.

    Parameters
    ----------
    path : Path
        Directory of the store.

    Raises
    ------
    StoreError
        Naming the file and the codec.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such store")
    if not path.is_dir():
        raise StoreError(f"{path}: not a directory; a store is one")
    found = False
    for folder in [path, *sorted(entry for entry in path.iterdir() if entry.is_dir())]:
        for name in _METADATA:
            file = folder / name
            if not file.is_file():
                continue
            found = True
            try:
                if file.stat().st_size > MAX_METADATA_BYTES:
                    raise StoreError(f"{file}: larger than {MAX_METADATA_BYTES} bytes")
                document = json.loads(file.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise StoreError(f"{file}: damaged metadata: {error}") from error
            for codec in _codecs(document):
                if codec not in ALLOWED_CODECS:
                    raise StoreError(f"{file}: codec {codec!r} is not allowed in a store")
    if not found:
        raise StoreError(f"{path}: not a Zarr store")


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
