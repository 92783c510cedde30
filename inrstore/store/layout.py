"""What a store looks like: names, dimensions, chunks and the metadata documents; here and only here.

The documents are written by this module instead of by zarr-python: they hold no defaults that the Zarr
specifications let a writer leave out, because at a ratio of several hundred every byte of JSON counts.
zarr-python reads them like its own.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import ConfigurationError

ZarrFormat: TypeAlias = Literal[2, 3]
Chunks: TypeAlias = Literal["auto", "whole"] | tuple[int, ...]

LAYOUT_VERSION = 1
"""Version of what this module describes, stored in every store."""

IMAGE = "image"
HEADER = "nifti"
ATTRIBUTES = "inrstore"
HEADER_BYTES = 1024
"""Of a header so many bytes lie in the attributes; few have more, and those have an array for the rest."""

LEADING, TRAILING = "leading", "trailing"
"""Bytes before the voxels in the .img file of a pair, and bytes after the voxels; most files have none."""
SIDECARS = "sidecars"
"""The sidecars of the image, one behind the other; the attribute `files` says which they are, and their sizes."""
SMALL_ARRAYS = frozenset({"x", "y", "z", "t", "bval", "bvec", HEADER, LEADING, TRAILING, SIDECARS})

DIMS = ("x", "y", "z", "t", "u", "v", "w")
"""Names of the axes of a NIfTI in its own order; a store has them reversed."""

CHUNK_VOXELS = 1 << 18
"""Voxels of space in one chunk: enough that the parameters of its network are shared by many of them."""

LOSSLESS_VALUES = 1 << 21
"""Values that a lossless or bounded chunk should have: weights are paid once, and more is decoded at once."""

TRANSFORMED_VALUES = 1 << 24
"""Values that a lossy chunk of several measurements should have: fewer lose what slices have in common."""

TRANSFORMED_VOXELS = 1 << 17
"""Voxels of space in such a chunk, at least."""

SINGLE_VALUES = 1 << 22
"""Values that a lossy chunk of one measurement should have: with one step for all chunks of an image, those of this
size cost 1 or 2 % more than the whole, and a slice is read in a tenth of a second."""

_FEW_PIECES = 8

CHUNK_VALUES = 1 << 25
"""Values in one chunk that a reader has to hold at once; far below `limits.MAX_CHUNK_VALUES`."""

GZIP_LEVEL = 9

MAX_SMALL_BYTES = 1 << 28
"""Size of an array beside the image; the header of a source has no more."""


def image_dims(ndim: int) -> tuple[str, ...]:
    """Return the dimension names of an image of `ndim` axes, slowest first: (z, y, x), (t, z, y, x)."""
    return DIMS[:ndim][::-1]


def measurement_axes(dims: Sequence[str]) -> int:
    """Return how many leading axes hold measurements (t and beyond) rather than space."""
    return sum(name not in "xyz" for name in dims)


def choose_chunks(
    shape: Sequence[int],
    dims: Sequence[str],
    least: int = 0,
    asked: Chunks = "auto",
    voxels: int | None = None,
    most: int | None = None,
) -> tuple[int, ...]:
    """Choose the chunk shape of an image: all of t, whole z-slabs of about `CHUNK_VOXELS` voxels.

    Where these are few values, because all axes of space and t are short, a chunk has several places along the axes
    beyond t: an image never has many more chunks than it has times the values that a chunk should have.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image, (..., t, z, y, x).
    dims : sequence of str
        Names of these axes.
    least : int
        Values that a chunk should have, if the image has as many.
    asked : "auto", "whole" or tuple of int
        "whole" makes chunks as large as `CHUNK_VALUES`; numbers are lengths along z, y and x, the last one along x.
    voxels : int, optional
        Voxels of space that a chunk should have; `CHUNK_VOXELS` if it is not given.
    most : int, optional
        Measurements that a chunk may have along t; a longer axis is cut into equal pieces.

    Returns
    -------
    tuple of int
        One length for each axis.

    Raises
    ------
    ConfigurationError
        Where chunks of the lengths asked for have more values than a chunk can.
    """
    if not isinstance(asked, str):
        wanted = dict(zip("xyz", asked[::-1], strict=False))
        wanted["t"] = _measurements(shape, dims, most)
        given = tuple(min(wanted.get(name, n), n) if name in "xyzt" else 1 for name, n in zip(dims, shape, strict=True))
        given = _beyond(given, shape, dims, CHUNK_VOXELS if voxels is None else voxels)
        if math.prod(given) > limits.MAX_TRANSFORM_VALUES:
            limit = f"the most is {limits.MAX_TRANSFORM_VALUES}"
            raise ConfigurationError(f"chunks of {' x '.join(map(str, given))} have {math.prod(given)} values; {limit}")
        return given
    if asked == "whole":
        least = CHUNK_VALUES
    chunks = [1] * len(shape)
    values = min(CHUNK_VALUES, limits.MAX_CHUNK_VALUES)
    if "t" in dims:
        axis = dims.index("t")
        chunks[axis] = _even(_measurements(shape, dims, most), values)
        values //= chunks[axis]
    voxels = CHUNK_VOXELS if voxels is None else voxels
    space = max(1, min(max(voxels, least // math.prod(chunks)), values))
    for name in ("x", "y", "z"):
        if name in dims:
            axis = dims.index(name)
            chunks[axis] = _even(shape[axis], space)
            space = max(1, space // chunks[axis])
    return _beyond(chunks, shape, dims, max(voxels, least))


def _measurements(shape: Sequence[int], dims: Sequence[str], most: int | None) -> int:
    """Return the length of t, or of the fewest equal pieces of at most so many measurements.

    It stays whole where that would make many chunks of few values.
    """
    lengths = dict(zip(dims, shape, strict=True))
    length = lengths.get("t", 1)
    if most is None:
        return length
    pieces = math.ceil(length / most)
    space = math.prod(n for name, n in lengths.items() if name in "xyz")
    return length if pieces > _FEW_PIECES and most * space < SINGLE_VALUES else math.ceil(length / pieces)


def _beyond(chunks: Sequence[int], shape: Sequence[int], dims: Sequence[str], wanted: int) -> tuple[int, ...]:
    """Return chunks with more than one place along the axes beyond t, where they have far fewer values than wanted."""
    grown = list(chunks)
    for axis in reversed([axis for axis, name in enumerate(dims) if name not in "xyzt"]):
        grown[axis] = _even(shape[axis], max(1, wanted // math.prod(grown)))
    return tuple(grown)


def _even(length: int, wanted: int) -> int:
    """Return a piece length near `wanted`, such that the last piece is not much shorter than the others."""
    if length <= wanted:
        return length
    step = max(1, wanted // 256)
    pieces = range(math.ceil(0.75 * wanted), min(length, math.floor(1.5 * wanted)) + 1, step)
    return min(pieces, key=lambda piece: (-length % piece / piece, abs(piece - wanted)))


@dataclass(frozen=True)
class Grid:
    """The regular chunk grid of an array.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array, and of one (full) chunk.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(math.ceil(n / c) for n, c in zip(self.shape, self.chunks, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return product(*(range(n) for n in self.counts))

    def region(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the part of the array that chunk `index` covers; shorter than a chunk at the far edges."""
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, self.chunks, self.shape, strict=True))

    def cut(self, array: npt.NDArray[Any], index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return chunk `index` of `array`: full shape, C order, native little-endian, padded with zeros."""
        part = array[self.region(index)]
        if part.shape == self.chunks and part.dtype == stored_dtype(part.dtype):
            return np.ascontiguousarray(part)
        chunk = np.zeros(self.chunks, stored_dtype(array.dtype))
        chunk[tuple(slice(n) for n in part.shape)] = part
        return chunk


def stored_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype in the store for voxels of `dtype`: the same numbers, always little-endian."""
    return np.dtype(dtype).newbyteorder("<")


def chunk_key(zarr_format: ZarrFormat, array: str, index: Sequence[int]) -> str:
    """Return the path of a chunk inside the store."""
    parts = [str(i) for i in index]
    return "/".join([array, "c", *parts] if zarr_format == 3 else [array, *parts])


def decode_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a metadata document.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Return a metadata document as bytes, without blanks."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Array:
    """One array of a store, apart from its chunks.

    Parameters
    ----------
    name : str
        Its name in the group.
    grid : Grid
        Shape and chunks.
    dtype : numpy.dtype
        Little-endian dtype of its values.
    dims : tuple of str
        A name for each axis.
    codec : dict
        The array-to-bytes codec (Zarr v3) or the compressor (v2); empty for the gzip of small arrays.
    attributes : dict
        JSON attributes.
    packed : bool
        Whether the chunk of a small array is gzipped.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    codec: dict[str, Any]
    attributes: dict[str, Any]
    packed: bool = True

    def document_v3(self) -> dict[str, Any]:
        """Return the content of zarr.json."""
        endian = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        small = [{"name": "bytes", **endian}]
        if self.packed:
            small.append({"name": "gzip", "configuration": {"level": GZIP_LEVEL}})
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.grid.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.grid.chunks)}},
            "chunk_key_encoding": {"name": "default"},
            "fill_value": 0,
            "codecs": [self.codec] if self.codec else small,
            "dimension_names": list(self.dims),
        }
        return document | ({"attributes": self.attributes} if self.attributes else {})

    def documents_v2(self) -> dict[str, dict[str, Any]]:
        """Return the content of .zarray and .zattrs.

        The fill value is null: readers that follow the netCDF conventions take any other value of a v2
        array for a mark of missing data, and would turn every 0 of an integer image into NaN.
        """
        document = {
            "zarr_format": 2,
            "shape": list(self.grid.shape),
            "chunks": list(self.grid.chunks),
            "dtype": self.dtype.str,
            "compressor": self.codec or ({"id": "gzip", "level": GZIP_LEVEL} if self.packed else None),
            "fill_value": None,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
        return {
            ".zarray": document,
            ".zattrs": {"_ARRAY_DIMENSIONS": list(self.dims), **self.attributes},
        }


@dataclass(frozen=True)
class ArrayDocument:
    """What a store's metadata say of an array, checked; the counterpart of `Array` for what comes from outside.

    Parameters
    ----------
    grid : Grid
        Shape and chunks.
    dtype : numpy.dtype
        Little-endian.
    attributes : dict
    packed : bool
        Whether the chunk of a small array is gzipped.
    shared : list
        Parameters that the codec brings for all chunks, as texts; not checked.
    """

    grid: Grid
    dtype: np.dtype[Any]
    attributes: dict[str, Any]
    packed: bool
    shared: Any = ()

    @classmethod
    def parse(cls, document: Any, attributes: Any = None) -> ArrayDocument:
        """Take a zarr.json of an array, or a .zarray and its .zattrs.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing, or not as this package writes it.
        """
        if document["zarr_format"] == 3:
            if document["node_type"] != "array" or document["chunk_grid"]["name"] != "regular":
                raise ValueError("not an array with a regular grid")
            if document["chunk_key_encoding"] != {"name": "default"}:
                raise ValueError("chunk_key_encoding: not the default one")
            kind, chunks = document["data_type"], document["chunk_grid"]["configuration"]["chunk_shape"]
            attributes = document.get("attributes", {})
            packed = len(document["codecs"]) > 1
            codec = document["codecs"][0].get("configuration", {})
        else:
            kind, chunks = document["dtype"], document["chunks"]
            packed = document["compressor"] is not None
            codec = document["compressor"] or {}
            if document["dimension_separator"] != "/":
                raise ValueError("dimension_separator: not '/'")
        shape = document["shape"]
        if not isinstance(attributes, dict) or not isinstance(kind, str):
            raise TypeError("attributes or data type")
        for lengths in (shape, chunks):
            if not isinstance(lengths, list) or any(type(n) is not int or not 0 < n < 1 << 62 for n in lengths):
                raise ValueError(f"shape or chunks: {str(lengths)[:80]}")
        if len(shape) != len(chunks) or len(shape) > len(DIMS):
            raise ValueError(f"{len(shape)} axes, chunks of {len(chunks)}")
        dtype = stored_dtype(kind)
        if dtype.kind not in "iuf" or kind not in (dtype.name, dtype.str):
            raise ValueError(f"data type {kind!r}")
        return cls(Grid(tuple(shape), tuple(chunks)), dtype, attributes, packed, codec.get("shared", ()))


def small_array(name: str, values: npt.NDArray[Any], dims: tuple[str, ...], **attributes: Any) -> tuple[Array, bytes]:
    """Return a small array of one chunk, and the bytes of that chunk, gzipped if that makes them fewer."""
    values = np.ascontiguousarray(values, stored_dtype(values.dtype))
    raw = values.tobytes()
    packed = gzip.compress(raw, GZIP_LEVEL, mtime=0)
    smaller = len(packed) < len(raw)
    array = Array(name, Grid(values.shape, values.shape), values.dtype, dims, {}, attributes, smaller)
    return array, packed if smaller else raw


def unpack_chunk(data: bytes, packed: bool, size: int) -> bytes:
    """Return the `size` bytes of a small array's chunk.

    Raises
    ------
    ValueError
        If it does not hold them.
    """
    if packed:
        engine = zlib.decompressobj(wbits=31)
        try:
            data = engine.decompress(data, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not engine.eof:
            raise ValueError(f"it does not hold {size} bytes")
    if len(data) != size:
        raise ValueError(f"it does not hold {size} bytes")
    return data


def pack_header(header: bytes) -> str:
    """Return the first bytes of a header as the attributes hold them."""
    return base64.b64encode(zlib.compress(header, 9)).decode()


def unpack_header(text: Any) -> bytes:
    """Return what `pack_header` took.

    Raises
    ------
    ValueError
        If the text is not that, or holds more than `HEADER_BYTES`.
    """
    if not isinstance(text, str) or len(text) > 4 * HEADER_BYTES:
        raise ValueError("header: not a short text")
    engine = zlib.decompressobj()
    try:
        header = engine.decompress(base64.b64decode(text, validate=True), HEADER_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"header: {error}") from error
    if len(header) > HEADER_BYTES or not engine.eof:
        raise ValueError(f"header: more than {HEADER_BYTES} bytes")
    return header


def document_keys(zarr_format: ZarrFormat, names: Iterable[str]) -> list[str]:
    """Return the paths of the metadata documents but the one at `root_key`; of Zarr v2 the consolidated one first."""
    if zarr_format == 3:
        return [f"{name}/zarr.json" for name in names]
    return [".zmetadata", ".zgroup", *(f"{name}/{own}" for name in names for own in (".zarray", ".zattrs"))]


def chunk_keys(zarr_format: ZarrFormat, arrays: Iterable[tuple[str, Grid]]) -> Iterator[str]:
    """Yield the paths of all chunks in the order of the manifest: the small arrays in their order, then the image.

    So what opening needs lies together in a zip, behind the documents.

    Parameters
    ----------
    zarr_format : {2, 3}
    arrays : iterable of (str, Grid)
        Name, shape and chunks of each array, in the order of the consolidated metadata.
    """
    for name, grid in sorted(arrays, key=lambda array: array[0] == IMAGE):
        yield from (chunk_key(zarr_format, name, index) for index in grid)


def root_key(zarr_format: ZarrFormat) -> str:
    """Return the file that holds the attributes of the group; it is written last."""
    return "zarr.json" if zarr_format == 3 else ".zattrs"


def metadata_files(zarr_format: ZarrFormat, attributes: Mapping[str, Any], arrays: Sequence[Array]) -> dict[str, bytes]:
    """Return every metadata file of a store but the one at `root_key`.

    Parameters
    ----------
    zarr_format : {2, 3}
        Format of the files.
    attributes : dict
        Attributes of the group; the consolidated metadata of Zarr v2 repeats them.
    arrays : sequence of Array
        Arrays of the group.

    Returns
    -------
    dict of str to bytes
        Content by path inside the store.
    """
    if zarr_format == 3:
        return {f"{array.name}/zarr.json": encode_json(array.document_v3()) for array in arrays}
    flat: dict[str, Any] = {".zgroup": {"zarr_format": 2}}
    for array in arrays:
        for name, document in array.documents_v2().items():
            flat[f"{array.name}/{name}"] = document
    files = {path: encode_json(document) for path, document in flat.items()}
    flat[".zattrs"] = attributes
    return files | {".zmetadata": encode_json({"zarr_consolidated_format": 1, "metadata": flat})}


def root_file(zarr_format: ZarrFormat, attributes: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    """Return the file at `root_key`: the attributes and, in Zarr v3, the metadata of all arrays once more."""
    if zarr_format == 2:
        return encode_json(attributes)
    return encode_json({
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {array.name: array.document_v3() for array in arrays},
        },
    })  # fmt: skip
