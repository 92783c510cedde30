"""NRRD images, in one file (.nrrd) or with their voxels beside the header (.nhdr, .raw or .raw.gz) -> `Source`.

A header is text, and few of its fields matter here; the rest is kept as it is. pynrrd would read it, but reads whatever
the header claims. Voxels are raw or gzipped. Axes that are no space come first in a `Source`, wherever they lie in the
file: components of a voxel are often side by side there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import ConfigurationError, SourceError, UnsupportedImageError
from inrstore.files import Place
from inrstore.sources.format import Around, Format, Output
from inrstore.sources.source import Source
from inrstore.sources.streams import Digest, Stream, opened

_SINGLE, _DETACHED = "NRRD", "NRRD detached"
_MAGIC = re.compile(rb"NRRD000[1-6]\r?\n")
_MOST_HEADER = 1 << 22
"""Bytes of a header; 4,096 gradients take some hundred kilobytes."""
_MOST_AXES = 16
_SPACE_AXES = 3
_STORE_AXES = 7

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
_SYNONYMS = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}
_ORDERS = {"little": "<", "big": ">"}
_GZIP = ("gzip", "gz")
_UNSUPPORTED = ("bzip2", "bz2", "zrl", "hex", "txt", "text", "ascii")
_SHORT = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
_SHORT |= {f"{short}t": long for short, long in _SHORT.items()}
_WORLD = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
"""Signs that bring a space to right, anterior, superior. Of other spaces nobody knows how the patient lies in them."""
_IN_SPACE = ("domain", "space")
_UNITS = {"mm": "mm", "millimeter": "mm", "millimeters": "mm", "m": "meter", "um": "micron", "\u00b5m": "micron"}
_SEGMENTS = "segment0_"
"""Begins keys of a segmentation of 3D Slicer, whose values are labels."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a header says.

    Parameters
    ----------
    dtype : numpy.dtype
    sizes : tuple of int
        As in the header, fastest first.
    gzipped : bool
    skip : int
        Bytes before the voxels.
    data : str
        Name of the file that holds the voxels; empty for this one.
    axes : tuple of int
        Axes of the header in the order of `Source.voxels`, slowest first, -1 for one of length 1 that it lacks.
    """

    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    gzipped: bool
    skip: int
    data: str
    axes: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    affine_from: str
    steps: tuple[float, ...]
    unit: str
    labels: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `Source.voxels`."""
        return tuple(1 if axis < 0 else self.sizes[axis] for axis in self.axes)

    @property
    def file_axes(self) -> tuple[int, ...]:
        """Axes of `Source.voxels` as they lie in the file, slowest first."""
        return tuple(sorted(range(len(self.axes)), key=lambda a: -self.axes[a] if self.axes[a] >= 0 else -math.inf))

    def arranged(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of the file as `Source.voxels`."""
        lying = values.reshape([self.shape[axis] for axis in self.file_axes])
        return lying.transpose(np.argsort(self.file_axes))


def read(place: Place, files: tuple[str, ...], *, detached: bool) -> Source:
    """Read an image.

    Parameters
    ----------
    place, files : Place, tuple of str
        Where it is.
    detached : bool
        Whether its voxels lie in another file, by its name.

    Raises
    ------
    UnsupportedImageError
        For an intact image of another encoding, kind of values or number of axes than a store can hold, or whose
        voxels lie in other files than one with the stem of the header.
    SourceError
        Naming the file and the header field that is wrong.
    """
    digest = Digest()
    with opened(place, files[0], digest) as stream:
        header, head = _read_header(stream)
        if detached:
            _check_data(stream.label, head, files)
        elif head.data:
            raise UnsupportedImageError(
                f"{stream.label}: data file: its voxels lie elsewhere; such a file ends in .nhdr"
            )
        else:
            leading, values, trailing = _read_voxels(stream.unpacked() if head.gzipped else stream, head, len(header))
    if head.data:
        with opened(place, files[1], digest, packed=head.gzipped) as stream:
            leading, values, trailing = _read_voxels(stream, head, 0)
    return Source(
        name=_name(files[0]),
        label=place.label(files[0]),
        kind=_DETACHED if head.data else _SINGLE,
        files=tuple(_name(file) for file in files),
        sha256=digest.sha256,
        file_bytes=digest.size,
        header=header,
        leading=leading,
        voxels=head.arranged(values),
        trailing=trailing,
        affine=head.affine,
        affine_from=head.affine_from,
        slope=1.0,
        inter=0.0,
        voxel_size=head.steps,
        time_offset=0.0,
        units={"space": head.unit, "time": "unknown"},
        labels=head.labels,
    )


def write(names: tuple[str, ...], around: Around) -> tuple[Output, ...]:
    """Return the file, or the header and the file that it names.

    Raises
    ------
    ConfigurationError
        If the header names a file of another stem than it is to have itself.
    """
    head = _parse(names[0], around.header)
    if around.kind == _SINGLE:
        return (Output(name=names[0], plain=around.header, head=around.leading, tail=around.trailing,
                       axes=head.file_axes, packed=head.gzipped),)  # fmt: skip
    if head.data not in _data_names(names[0]):
        raise ConfigurationError(f"{names[0]}: its voxels lie in {head.data}, as its header says; name it like that")
    return (
        Output(name=names[0], head=around.header, voxels=False),
        Output(name=head.data, head=around.leading, tail=around.trailing, axes=head.file_axes, packed=head.gzipped),
    )


def sniff(start: bytes) -> bool:
    """Return whether a file begins as an NRRD with its voxels inside."""
    return _MAGIC.match(start) is not None


def _read_header(stream: Stream) -> tuple[bytes, _Header]:
    """Read the header with the blank line that ends it; the stream stands before the voxels."""
    block = bytearray()
    while line := stream.line(_MOST_HEADER + 1 - len(block)):
        block += line
        if len(block) > _MOST_HEADER:
            raise SourceError(f"{stream.label}: header: more than {_MOST_HEADER} bytes without a blank line")
        if not block.startswith(b"NRRD"[: len(block)]):
            raise SourceError(f"{stream.label}: not an NRRD file: it does not begin with NRRD")
        if not line.strip(b"\r\n"):
            break
    head = _parse(stream.label, bytes(block))
    if head.data:
        rest = stream.rest(_MOST_HEADER)
        if rest is None:
            raise SourceError(f"{stream.label}: header: more than {_MOST_HEADER} bytes")
        block += rest
    return bytes(block), head


def _read_voxels(stream: Stream, head: _Header, offset: int) -> tuple[bytes, npt.NDArray[Any], bytes]:
    """Return what is before the voxels, the voxels as they lie, and what follows them."""
    before = head.skip if stream.packed else offset + head.skip
    stream.check_room(math.prod(head.sizes) * head.dtype.itemsize, before, "sizes")
    leading = stream.exactly(head.skip, "byte skip").tobytes()
    values, trailing = stream.voxels(head.sizes[::-1], head.dtype, "sizes")
    return leading, values, trailing


def _data_names(name: str) -> tuple[str, ...]:
    """Return what the file of the voxels may be called, given the name of its header."""
    return tuple(name[: -len(".nhdr")] + (s.upper() if name.isupper() else s) for s in (".raw", ".raw.gz"))


def _check_data(label: str, head: _Header, files: tuple[str, ...]) -> None:
    if not head.data:
        raise SourceError(f"{label}: data file: is missing")
    if head.data not in _data_names(_name(files[0])):
        raise UnsupportedImageError(f"{label}: data file: {head.data[:80]!r} is not a .raw or .raw.gz of the same name")
    if len(files) < 2:
        raise SourceError(f"{label}: data file: {head.data} is not beside it")
    if _name(files[1]) != head.data:
        raise UnsupportedImageError(f"{label}: data file: {head.data}, but {_name(files[1])} is beside it")


def _name(key: str) -> str:
    return key.rpartition("/")[2]


# ---- fields


def _parse(label: str, block: bytes) -> _Header:
    """Return what the text of a header says."""
    if not sniff(block):
        raise SourceError(f"{label}: not an NRRD file: its first line is {block[:16]!r}")
    fields, segments = _fields(label, block)
    kind = _needed(label, fields, "type").lower()
    if kind == "block":
        raise UnsupportedImageError(f"{label}: type: block cannot be stored; integers and floats can")
    if kind not in _DTYPES:
        raise SourceError(f"{label}: type: {kind[:40]!r} is none of NRRD")
    order = fields.get("endian", "little" if _DTYPES[kind][1] == "1" else "").lower()
    if order not in _ORDERS:
        raise SourceError(f"{label}: endian: {order[:40]!r} is neither little nor big")
    sizes = _sizes(label, fields)
    encoding = _needed(label, fields, "encoding").lower()
    if encoding in _UNSUPPORTED:
        raise UnsupportedImageError(f"{label}: encoding: {encoding} cannot be stored; raw and gzip can")
    if encoding not in ("raw", *_GZIP):
        raise SourceError(f"{label}: encoding: {encoding[:40]!r} is none of NRRD")
    axes, vectors = _axes(label, fields, sizes)
    affine, came_from = _affine(label, fields, axes, vectors)
    steps = tuple(float(np.linalg.norm(affine[:3, column])) or 1.0 for column in range(3))
    return _Header(
        dtype=np.dtype(_ORDERS[order] + _DTYPES[kind]),
        sizes=sizes,
        gzipped=encoding in _GZIP,
        skip=_skip(label, fields),
        data=fields.get("data file", ""),
        axes=axes,
        affine=affine,
        affine_from=came_from,
        steps=(*steps, *(1.0,) * _STORE_AXES)[: len(axes)],
        unit=_unit(fields),
        labels=segments,
    )


def _fields(label: str, block: bytes) -> tuple[dict[str, str], bool]:
    """Return the fields up to the blank line, and whether there are keys of a segmentation."""
    fields: dict[str, str] = {}
    segments = False
    for line in block.decode("utf-8", "replace").split("\n")[1:]:
        text = line.rstrip("\r")
        if not text:
            break
        if text.startswith("#"):
            continue
        name, colon, value = text.partition(":")
        if not colon:
            raise SourceError(f"{label}: header: {text[:40]!r} is no field")
        if value.startswith("="):  # a key of others
            segments |= name.lower().startswith(_SEGMENTS)
            continue
        name = _SYNONYMS.get(name.lower(), name.lower())
        if name in fields:
            raise SourceError(f"{label}: {name[:40]}: is there twice")
        fields[name] = value.strip()
    return fields, segments


def _needed(label: str, fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise SourceError(f"{label}: {name}: is missing")
    return fields[name]


def _whole(label: str, name: str, text: str, least: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII) or int(text) < least:
        raise SourceError(f"{label}: {name}: {text[:40]!r} is not a whole number from {least} on")
    return int(text)


def _sizes(label: str, fields: dict[str, str]) -> tuple[int, ...]:
    dimension = _whole(label, "dimension", _needed(label, fields, "dimension"), 1)
    if dimension > _MOST_AXES:
        raise SourceError(f"{label}: dimension: {dimension} axes; an NRRD has at most {_MOST_AXES}")
    sizes = tuple(_whole(label, "sizes", text, 1) for text in _needed(label, fields, "sizes").split())
    if len(sizes) != dimension:
        raise SourceError(f"{label}: sizes: {len(sizes)} lengths of {dimension} axes")
    return sizes


def _skip(label: str, fields: dict[str, str]) -> int:
    lines = _whole(label, "line skip", fields.get("line skip", "0"), 0)
    skip = _whole(label, "byte skip", fields.get("byte skip", "0"), -1)
    if lines or skip < 0:
        raise UnsupportedImageError(f"{label}: {'line skip' if lines else 'byte skip'}: of this kind cannot be stored")
    if skip > limits.MAX_HEADER_BYTES:
        raise SourceError(f"{label}: byte skip: {skip}; the most is {limits.MAX_HEADER_BYTES}")
    return skip


def _vectors(label: str, name: str, text: str) -> Iterator[tuple[float, ...] | None]:
    """Yield the vectors of a field, None for "none"."""
    for part in re.findall(r"\([^()]*\)|[^\s()]+", text):
        if part.lower() == "none":
            yield None
            continue
        try:
            vector = tuple(float(number) for number in part.strip("()").split(","))
        except ValueError:
            vector = ()
        if not part.startswith("(") or not vector or not all(map(math.isfinite, vector)):
            raise SourceError(f"{label}: {name}: {part[:60]!r} is not a vector of finite numbers")
        yield vector


def _axes(label: str, fields: dict[str, str], sizes: tuple[int, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """Return the axes in the order of `Source.voxels`, and the direction of each axis of the header, None for none."""
    count = len(sizes)
    vectors: list[tuple[float, ...] | None] = []
    spatial = [True] * count
    if "space directions" in fields:
        vectors = list(_vectors(label, "space directions", fields["space directions"]))
        if len(vectors) != count:
            raise SourceError(f"{label}: space directions: {len(vectors)} of {count} axes")
        spatial = [vector is not None for vector in vectors]
    elif "kinds" in fields:
        kinds = fields["kinds"].lower().split()
        if len(kinds) != count:
            raise SourceError(f"{label}: kinds: {len(kinds)} of {count} axes")
        spatial = [kind in _IN_SPACE or kind.startswith("?") for kind in kinds]
    if sum(spatial) in (0, count):
        spatial = [axis < _SPACE_AXES for axis in range(count)]
    inside = [axis for axis in range(count) if spatial[axis]]
    others = [axis for axis in range(count) if not spatial[axis]]
    if len(inside) > _SPACE_AXES:
        raise UnsupportedImageError(f"{label}: space directions: {len(inside)} axes of space; a store has at most 3")
    # Measurements go before three axes of space; a picture of two has another one of length 1.
    missing = [-1] * (_SPACE_AXES - len(inside)) if others else []
    axes = (*others[::-1], *missing, *inside[::-1])
    if len(axes) > _STORE_AXES:
        raise UnsupportedImageError(f"{label}: dimension: {count} axes; a store has at most {_STORE_AXES}")
    return axes, [vectors[axis] if vectors else None for axis in inside]


def _affine(
    label: str, fields: dict[str, str], axes: tuple[int, ...], vectors: list[Any]
) -> tuple[npt.NDArray[np.float64], str]:
    """Return the affine to the world of RAS, and where it comes from."""
    affine = np.eye(4)
    inside = [axis for axis in axes[::-1][:_SPACE_AXES] if axis >= 0]
    if not any(vector is not None for vector in vectors):
        if "spacings" not in fields:
            return affine, "nothing"
        try:
            steps = [float(text) for text in fields["spacings"].split()]
            chosen = [steps[axis] for axis in inside]
        except (ValueError, IndexError):
            raise SourceError(f"{label}: spacings: {fields['spacings'][:60]!r} is not a number for each axis") from None
        for column, step in enumerate(chosen):
            if math.isinf(step):
                raise SourceError(f"{label}: spacings: {step} is not finite")
            affine[column, column] = 1.0 if math.isnan(step) else step
        return affine, "spacings"
    space = fields.get("space", "").lower().removesuffix("-time")
    space = _SHORT.get(space, space)
    signs = np.array(_WORLD.get(space, (1, 1, 1)), np.float64)
    columns = [vector for vector in vectors if vector is not None]
    lengths = {len(vector) for vector in columns}
    if max(lengths) > _SPACE_AXES:
        raise UnsupportedImageError(f"{label}: space: of {max(lengths)} axes; a store has at most {_SPACE_AXES}")
    if len(lengths) > 1:
        raise SourceError(f"{label}: space directions: vectors of {', '.join(map(str, sorted(lengths)))} numbers")
    rows = lengths.pop()
    affine[:3, :3] = 0
    for column, vector in enumerate(vectors):
        affine[:rows, column] = vector if vector is not None else 0
    for column in range(len(vectors), 3):
        affine[column, column] = 1
    if "space origin" in fields:
        origin = list(_vectors(label, "space origin", fields["space origin"]))
        if len(origin) != 1 or origin[0] is None or len(origin[0]) != rows:
            raise SourceError(f"{label}: space origin: {fields['space origin'][:60]!r} is not one vector")
        affine[:rows, 3] = origin[0]
    affine[:3] *= signs[:, None]
    return affine, f"space directions ({space})" if space else "space directions"


def _unit(fields: dict[str, str]) -> str:
    found = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    units = {_UNITS.get(unit.strip().lower(), "unknown") for unit in found if unit.strip()}
    return units.pop() if len(units) == 1 else "unknown"


SINGLE = Format(
    kinds=(_SINGLE,), suffixes=((".nrrd",),), sniff=sniff,
    read=partial(read, detached=False), write=write, named=True,
)  # fmt: skip
DETACHED = Format(
    kinds=(_DETACHED,), suffixes=((".nhdr",), (".raw", ".raw.gz")),
    sniff=lambda start: False,  # the voxels are found by the name of the header, or not at all
    read=partial(read, detached=True), write=write, named=True,
)  # fmt: skip
