"""A store, opened with suspicion: manifest and metadata first, chunks one by one, nothing missing in silence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import files, limits
from inrstore.chunk.decode import ChunkInfo, decode_chunk, decode_inside, describe_chunk
from inrstore.chunk.frame import max_encoded_size
from inrstore.chunk.shared import parse, texts_of
from inrstore.errors import ConfigurationError, CorruptChunkError, FileTooLargeError, InrstoreError, StoreError
from inrstore.evaluate.metrics import Measures
from inrstore.files import Place
from inrstore.files.stored_zip import StoredZip
from inrstore.sources.gradients import SIDECARS
from inrstore.store import layout, manifest
from inrstore.store.container import open_files
from inrstore.store.layout import ZarrFormat

ALLOWED_CODECS = frozenset({"inrstore", "bytes", "gzip", "zstd", "crc32c", "blosc", "zlib"})
"""Codecs a store may name. Others, found through entry points, could run code of their own on reading."""

MAX_METADATA_BYTES = 1 << 26
"""Size of one metadata file."""


class Store:
    """A store opened for reading. Nothing of the image is read before it is asked for.

    The group's document is used only when its seal is that of its bytes, and every other file only when its digest
    is the one in that document.

    Parameters
    ----------
    where : path-like or str
        Path or URL of the store: a zip (.ozx) or a folder.

    Attributes
    ----------
    label : str
        Its path or URL, for people.
    files : Place
        Its files.
    arrays : dict of str to ArrayDocument
        Its arrays.
    documents : dict of str to bytes
        Its metadata documents.
    manifest : dict of str to str
        Digest of every chunk of every array.
    seal : str
        Digest of the group's document.

    Raises
    ------
    StoreError
        If it is not a complete store of this package, was changed, or names a codec that is not allowed.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self._where = os.fspath(where)
        self.files: Place = open_files(where)
        self.label = self.files.name
        if isinstance(self.files, StoredZip):
            self.files.fetch_together(key for key in self.files.keys() if not key.startswith(f"{layout.IMAGE}/c/"))
        self.root = document = self._root()
        try:
            self.seal, sealed = manifest.read_seal(document), manifest.sealed(document)
        except ValueError as error:
            text = f"{self.label}: {self.root_key}: {error}; not an inrstore store, or an incomplete one"
            raise StoreError(text) from error
        if not sealed:
            raise StoreError(f"{self.label}: {self.root_key} was changed after the store was made")
        try:
            self._read_metadata(layout.decode_json(document))
        except InrstoreError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise StoreError(f"{self.label}: not an inrstore store: {error!r}") from error
        self._check_image()

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return type(self), (self._where,)

    def _root(self) -> bytes:
        """Return the file that makes a store complete."""
        try:
            for root_format in (3, 2):
                self.zarr_format: ZarrFormat = 3 if root_format == 3 else 2
                self.root_key = layout.root_key(self.zarr_format)
                with suppress(FileNotFoundError, NotADirectoryError):
                    return files.read(self.files, self.root_key, MAX_METADATA_BYTES)
        except FileTooLargeError as error:
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(f"{self.label}: {self.root_key} cannot be read: {error.strerror or error}") from error
        try:
            first = next(iter(self.files.walk()), None)
        except OSError:  # a web server cannot be listed
            first = None
        if first is None or first.problem:
            raise StoreError(f"{self.label}: no such store")
        raise StoreError(f"{self.label}: neither zarr.json nor .zattrs: not a Zarr store, or an incomplete one")

    def _read_metadata(self, root: dict[str, Any]) -> None:
        """Take what the sealed document says, and check the other documents before they are used."""
        group = root["attributes"] if self.zarr_format == 3 else root
        attributes = group[layout.ATTRIBUTES]
        if attributes["version"] != layout.LAYOUT_VERSION:
            raise StoreError(f"{self.label}: layout version {attributes['version']} is not known")
        if self.zarr_format == 3:
            found = root["consolidated_metadata"]["metadata"]
            documents = {f"{name}/zarr.json": document for name, document in found.items()}
            self.arrays = {str(name): layout.ArrayDocument.parse(document) for name, document in found.items()}
        else:
            documents = self._consolidated(attributes[manifest.MANIFEST]["documents"])
            names = [key.removesuffix("/.zarray") for key in documents if key.endswith("/.zarray")]
            self.arrays = {name: layout.ArrayDocument.parse(documents[f"{name}/.zarray"], documents[f"{name}/.zattrs"])
                           for name in names}  # fmt: skip
        check_codecs(self.label, documents)
        grids = [(name, array.grid) for name, array in self.arrays.items()]
        keys, count = layout.chunk_keys(self.zarr_format, grids), sum(math.prod(grid.counts) for _, grid in grids)
        self.manifest, self.decoded_digest = manifest.parse(attributes[manifest.MANIFEST], keys, count, self.label)
        self.documents = {self.root_key: self.root}
        for key in layout.document_keys(self.zarr_format, self.arrays):
            self.documents[key] = self._file(key, MAX_METADATA_BYTES)
            if key in documents and self.documents[key] != layout.encode_json(documents[key]):
                raise StoreError(f"{self.label}: {key} was changed: it is not what {self.root_key} says")
        self.head = layout.unpack_header(attributes["header"])
        image = self.arrays[layout.IMAGE]
        self.attributes, self.grid, self.dtype = attributes, image.grid, image.dtype
        try:
            self.shared = parse(texts_of(image.shared))
        except ConfigurationError as error:
            raise StoreError(f"{self.label}: {layout.IMAGE}: {error}") from error
        self.source_dtype = np.dtype(attributes["source"]["dtype"])
        self.promised, self.measured = dict(attributes["quality"]["asked"]), dict(attributes["quality"])
        default = self.measured.get("default")
        self.default: dict[str, Any] = dict(default) if isinstance(default, dict) else {}
        self.dims = layout.image_dims(len(self.grid.shape))

    def _consolidated(self, digest: str) -> dict[str, Any]:
        """Return the documents of a store of Zarr v2, which lie in a file of their own."""
        key = ".zmetadata"
        data = self._file(key, MAX_METADATA_BYTES)
        if manifest.digest(data) != digest:
            raise StoreError(f"{self.label}: {key} was changed: its digest is not that of the manifest")
        found: dict[str, Any] = layout.decode_json(data)["metadata"]
        return {key: document for key, document in found.items() if key != self.root_key}

    def _check_image(self) -> None:
        if self.dtype != layout.stored_dtype(self.source_dtype):
            raise StoreError(f"{self.label}: image: {self.dtype} voxels of a {self.source_dtype} source")
        if not self.grid.shape:
            raise StoreError(f"{self.label}: image: no image has no axes")
        if math.prod(self.grid.chunks) > limits.MAX_CHUNK_VALUES:
            raise StoreError(f"{self.label}: image: a chunk of {self.grid.chunks} is larger than allowed")

    @property
    def source_bytes(self) -> int:
        """Bytes of the uncompressed voxels."""
        return math.prod(self.grid.shape) * self.dtype.itemsize

    def stored_bytes(self) -> int:
        """Return the size of all files that are there, of a zip that of the zip."""
        if isinstance(self.files, StoredZip):
            return self.files.size_on_disk
        return sum(entry.size for entry in self.files.walk())

    def stated(self) -> Measures:
        """Return the quality that was measured when the store was made."""
        try:
            names = ("psnr", "psnr_range", "rmse", "max_error", "lossless")
            return Measures(**{name: self.measured[name] for name in names})
        except KeyError as error:
            raise StoreError(f"{self.label}: attribute quality.{error.args[0]} is missing") from error

    def said(self, name: str) -> dict[str, Any] | None:
        """Return an object in what the store says of its quality, None if it says nothing."""
        found = self.measured.get(name)
        return found if isinstance(found, dict) else None

    def number(self, name: str) -> float:
        """Return an attribute that has to be a finite number."""
        value = self.attributes.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise StoreError(f"{self.label}: attribute {name} is no number")
        return float(value)

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of an image chunk inside the store."""
        return layout.chunk_key(self.zarr_format, layout.IMAGE, index)

    def frame(self, index: tuple[int, ...]) -> bytes:
        """Return the bytes of an image chunk; a missing one is an error, where zarr would read zeros."""
        return self.file(self.key(index))

    def describe(self, index: tuple[int, ...]) -> ChunkInfo:
        """Return what a chunk says of itself."""
        with naming(self.key(index)):
            return describe_chunk(self.frame(index), self.shared)

    def chunk(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a decoded chunk without the padding at the edges; its checksums are tested."""
        data = self.frame(index)
        with naming(self.key(index)):
            whole = decode_chunk(data, self.grid.chunks, self.dtype, self.shared)
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
        """Return a small array as it is stored: one chunk, its size bounded by its shape."""
        if name not in self.arrays:
            raise StoreError(f"{self.label}: array {name} is missing")
        array = self.arrays[name]
        shape, size = array.grid.shape, math.prod(array.grid.shape) * array.dtype.itemsize
        key = layout.chunk_key(self.zarr_format, name, (0,) * len(shape))
        if array.grid.chunks != shape or size > layout.MAX_SMALL_BYTES:
            raise StoreError(f"{self.label}: {name} is not a small array of one chunk")
        try:
            raw = layout.unpack_chunk(self.file(key), array.packed, size)
        except ValueError as error:
            raise StoreError(f"{self.label}: {key} is corrupt: {error}") from error
        return np.frombuffer(raw, array.dtype).reshape(shape)

    def header(self) -> bytes:
        """Return every byte of the source before its voxels: header, extensions and padding."""
        return self.head + self.small_bytes(layout.HEADER)

    def small_bytes(self, name: str) -> bytes:
        """Return the bytes of a small array, none if the store has no such array."""
        return self.read(name).tobytes() if name in self.small_names() else b""

    def warnings(self) -> tuple[str, ...]:
        """Return what its user should know of how the image was made or read."""
        found = self.attributes["source"].get("warnings", [])
        return tuple(str(text) for text in found) if isinstance(found, list) else ()

    def sidecars(self) -> dict[str, bytes]:
        """Return the sidecars that are kept, byte for byte, by their endings: ".json", ".bval", ".bvec".

        Raises
        ------
        StoreError
            If what the store says of them cannot be.
        """
        if layout.SIDECARS not in self.arrays:
            return {}
        whole, sizes = self.small_bytes(layout.SIDECARS), self.arrays[layout.SIDECARS].attributes.get("files")
        where = f"{self.label}: {layout.SIDECARS}: files"
        if not isinstance(sizes, dict) or not sizes.keys() <= set(SIDECARS):
            raise StoreError(f"{where}: not sizes of {', '.join(SIDECARS)}")
        if any(type(n) is not int or not 0 < n <= limits.MAX_SIDECAR_BYTES for n in sizes.values()):
            raise StoreError(f"{where}: a size that no sidecar has")
        if sum(sizes.values()) != len(whole):
            raise StoreError(f"{where}: {sum(sizes.values())} bytes where there are {len(whole)}")
        found, start = {}, 0
        for ending, size in sizes.items():
            found[ending] = whole[start : start + size]
            start += size
        return found

    def small_names(self) -> list[str]:
        """Return the names of the arrays beside the image."""
        return sorted(layout.SMALL_ARRAYS & self.arrays.keys())

    def missing_files(self) -> list[str]:
        """Return the chunks of the manifest that are not there."""
        present = {entry.key for entry in self.files.walk()}
        return [key for key in self.manifest if key not in present]

    def file(self, key: str) -> bytes:
        """Return a chunk of any array; its size is bounded by what it may be, and its digest is compared.

        Raises
        ------
        StoreError
            If it is missing, or is not what was written.
        """
        if key not in self.manifest:
            raise StoreError(f"{self.label}: {key} is not in the manifest; the store is damaged")
        data = self._file(key, self._most(self.arrays[key.partition("/")[0]]))
        if manifest.digest(data) != self.manifest[key]:
            raise StoreError(f"{self.label}: {key} was changed: its digest is not that of the manifest")
        return data

    def _file(self, key: str, most: int) -> bytes:
        try:
            return files.read(self.files, key, most)
        except FileTooLargeError as error:
            raise StoreError(f"{self.label}: {key} was changed: {error}") from None
        except FileNotFoundError:
            raise StoreError(f"{self.label}: {key} is missing; the store is incomplete") from None
        except OSError as error:
            raise StoreError(f"{self.label}: {key} cannot be read: {error.strerror or error}") from error

    def _most(self, array: layout.ArrayDocument) -> int:
        """Return the most bytes that a chunk of an array can have."""
        if array is not self.arrays[layout.IMAGE]:
            return layout.MAX_SMALL_BYTES
        mask = math.prod(array.grid.chunks) // 4 + (1 << 16)
        return max_encoded_size(array.grid.chunks, array.dtype) + mask


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Have the errors of a corrupt chunk say which chunk it is."""
    try:
        yield
    except CorruptChunkError as error:
        raise type(error)(error.field, f"{error.reason} [{key}]") from error


def check_codecs(label: str, documents: dict[str, Any]) -> None:
    """Refuse metadata documents that name a codec outside `ALLOWED_CODECS`, before zarr makes any of them.

    Raises
    ------
    StoreError
        Naming the file and the codec.
    """
    for key, document in documents.items():
        for codec in _codecs(document):
            if codec not in ALLOWED_CODECS:
                raise StoreError(f"{label}: {key}: codec {codec!r} is not allowed in a store")


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
