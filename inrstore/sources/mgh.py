"""MGH images of FreeSurfer, plain (.mgh) or gzipped (.mgz) -> `Source`.

nibabel knows the header; the checks are ours. Behind the voxels lie the repetition time and tags, which a store keeps
as they are; one of them, a table of colours, says that the values are labels.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import MissingDependencyError, SourceError, UnsupportedImageError
from inrstore.files import Place
from inrstore.sources.format import Around, Format, Output, is_packed
from inrstore.sources.source import Source
from inrstore.sources.streams import Digest, opened

_HEADER = 284
_FIELDS = 90
"""Bytes of the header that mean something; the others are spare."""
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_UNSUPPORTED = {2: "long", 5: "bitmap", 6: "tensor", 7: "complex", 8: "RGB"}
_VERSION, _LABELS = 1, 1
_FOOTER = 20
_COLOURS = 1
_NO_LENGTH = (_COLOURS, 2, 20, 30)
"""Tags of old programs, which are not followed by the length of what they hold."""


def read(place: Place, files: tuple[str, ...]) -> Source:
    """Read an image.

    Parameters
    ----------
    place, files : Place, tuple of str
        Where it is. Whether a file is gzipped is seen from its content.

    Raises
    ------
    UnsupportedImageError
        For an intact image whose values are neither real integers nor floats.
    SourceError
        Naming the file and the header field that is wrong.
    MissingDependencyError
        Without nibabel.
    """
    digest = Digest()
    with opened(place, files[0], digest) as stream:
        label = stream.label
        block = stream.exactly(_HEADER, "header").tobytes()
        version, *dims, code = struct.unpack(">6i", block[:24])
        if version & 0xFF != _VERSION or not 0 <= version >> 8 <= 0xFF:
            raise SourceError(f"{label}: version: {version} is not one of MGH")
        for axis, length in enumerate(dims):
            if length < 1:
                raise SourceError(f"{label}: dims[{axis}]: length {length}; every axis has at least one voxel")
        if code in _UNSUPPORTED:
            raise UnsupportedImageError(
                f"{label}: type: {_UNSUPPORTED[code]} cannot be stored; integers and floats can"
            )
        if code not in _DTYPES:
            raise SourceError(f"{label}: type: unknown (code {code})")
        dtype = np.dtype(_DTYPES[code])
        affine, affine_from, steps = _place(label, block)
        stream.check_room(math.prod(dims) * dtype.itemsize, _HEADER, "dims")
        shape = tuple(dims[::-1] if dims[3] > 1 else dims[2::-1])
        values, trailing = stream.voxels(shape, dtype, "dims")
    time = _repetition(trailing)
    name = files[0].rpartition("/")[2]
    return Source(
        name=name,
        label=label,
        kind="MGH",
        files=(name,),
        sha256=digest.sha256,
        file_bytes=digest.size,
        header=block,
        voxels=values,
        trailing=trailing,
        affine=affine,
        affine_from=affine_from,
        slope=1.0,
        inter=0.0,
        voxel_size=(*steps, time or 1.0)[: values.ndim],
        time_offset=0.0,
        units={"space": "mm", "time": "msec" if time else "unknown"},
        labels=version >> 8 == _LABELS or _has_colours(trailing),
    )


def write(names: tuple[str, ...], around: Around) -> tuple[Output, ...]:
    """Return the file: header, voxels, and what followed them."""
    return (Output(name=names[0], head=around.header, tail=around.trailing, packed=is_packed(names[0])),)


def sniff(start: bytes) -> bool:
    """Return whether a file begins as an MGH image."""
    if len(start) < _HEADER:
        return False
    version, *dims, code = struct.unpack(">6i", start[:24])
    known = code in _DTYPES or code in _UNSUPPORTED
    return version & 0xFF == _VERSION and 0 <= version >> 8 <= 0xFF and min(dims) > 0 and known


def _place(label: str, block: bytes) -> tuple[npt.NDArray[np.float64], str, tuple[float, ...]]:
    """Return the affine that nibabel would give, where it comes from, and the steps along x, y, z."""
    header = _nibabel().freesurfer.mghformat.MGHHeader(block[:_FIELDS], check=False)
    for field in ("delta", "Mdc", "Pxyz_c"):
        if not np.isfinite(header[field]).all():
            raise SourceError(f"{label}: {field}: {header[field].tolist()} is not finite")
    with np.errstate(over="ignore", invalid="ignore"):
        affine = np.asarray(header.get_affine(), np.float64)
    if not np.isfinite(affine).all():
        raise SourceError(f"{label}: Mdc: the affine is not finite")
    stated = struct.unpack(">h", block[28:30])[0] != 0
    steps = tuple(abs(float(str(step))) or 1.0 for step in header["delta"])
    return affine, "Mdc" if stated else "nothing", steps


def _repetition(trailing: bytes) -> float:
    """Return the repetition time in milliseconds; 0 if it is not known."""
    if len(trailing) < 4:
        return 0.0
    value = np.frombuffer(trailing[:4], ">f4")[0]
    return float(str(value)) if np.isfinite(value) and value > 0 else 0.0


def _has_colours(trailing: bytes) -> bool:
    """Return whether one of the tags is a table of colours."""
    position = _FOOTER
    while position + 12 <= len(trailing):
        tag, length = struct.unpack_from(">iq", trailing, position)
        if tag in _NO_LENGTH or not 0 <= length <= limits.MAX_TRAILING_BYTES:
            return bool(tag == _COLOURS)
        position += 12 + length
    return False


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError('reading MGH needs nibabel: pip install "inrstore[nifti]"') from error
    return nibabel


MGH = Format(kinds=("MGH",), suffixes=((".mgz", ".mgh", ".mgh.gz"),), sniff=sniff, read=read, write=write, named=True)
