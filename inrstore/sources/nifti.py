"""NIfTI-1 and NIfTI-2 images, single files or pairs, plain or gzipped, and CIFTI matrices in them -> `Source`.

A CIFTI file is a NIfTI-2 of axes 1, 1, 1, 1, a, b whose header holds XML that says what a and b are: along a, which
varies fastest, maps or times, along b grayordinates or parcels. It becomes an image of a measurements, each of b values
in a line; nothing of the XML is read but whether the values are labels.

nibabel knows the header; the checks are ours, because nibabel reads many a damaged file with a guess.
Nothing in a header sizes an allocation before that many bytes were there to be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import MissingDependencyError, SourceError, UnsupportedImageError
from inrstore.files import Place
from inrstore.sources.format import Around, Format, Output, is_packed
from inrstore.sources.source import Source
from inrstore.sources.streams import Digest, Stream, opened

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
           1280: "u8"}  # fmt: skip
_UNSUPPORTED = {1: "binary", 32: "complex64", 128: "RGB24", 1536: "float128", 1792: "complex128",
                2048: "complex256", 2304: "RGBA32"}  # fmt: skip
_VERSIONS = {
    348: ("NIfTI-1", b"n+1\0", b"ni1\0"),
    540: ("NIfTI-2", b"n+2\0\r\n\032\n", b"ni2\0\r\n\032\n"),
}
"""sizeof_hdr: name, magic of a single file, magic of a pair."""
_LABEL_INTENT = 1002
_CIFTI = "CIFTI"
_CIFTI_INTENTS = range(3000, 3100)
_CIFTI_LABELS = b"CIFTI_INDEX_TYPE_LABELS"
"""In the XML of a matrix whose values are keys of a table of labels."""


_CIFTI_AXES = (3, 2, 1, 0)
"""Of a matrix as it lies in a file, slowest first: the measurements of a place are side by side."""


def write_single(names: tuple[str, ...], around: Around) -> tuple[Output, ...]:
    """Return a single file: header, voxels, and what followed them."""
    axes = _CIFTI_AXES if around.kind == _CIFTI else ()
    return (Output(name=names[0], head=around.header, tail=around.trailing, axes=axes, packed=is_packed(names[0])),)


def write_pair(names: tuple[str, ...], around: Around) -> tuple[Output, ...]:
    """Return a header, and a file of the voxels with what was around them."""
    header, image = names
    return (
        Output(name=header, head=around.header, voxels=False, packed=is_packed(header)),
        Output(name=image, head=around.leading, tail=around.trailing, packed=is_packed(image)),
    )


def read(place: Place, files: tuple[str, ...], *, pair: bool) -> Source:
    """Read an image.

    Parameters
    ----------
    place, files : Place, tuple of str
        Where it is. Whether a file is gzipped is seen from its content.
    pair : bool
        Whether the first is the header of a pair by its name. A single file may be called like one.

    Returns
    -------
    Source
        Voxels unscaled and transposed to C order.

    Raises
    ------
    UnsupportedImageError
        For an intact image whose values are neither real integers nor floats, and for Analyze 7.5.
    SourceError
        Naming the file and the header field that is wrong.
    MissingDependencyError
        Without nibabel.
    """
    digest = Digest()
    with opened(place, files[0], digest) as stream:
        head = _read_header(stream, pair)
        if head.paired:
            header = head.block + _header_rest(stream)
        elif len(files) > 1:
            # Both are kept as files: the other one would be lost if this one became a store.
            raise UnsupportedImageError(f"{stream.label}: magic: a single file, but {_name(files[1])} is beside it")
        else:
            _check_room(stream, head)
            header = head.block + stream.exactly(head.offset - len(head.block), "header extensions").tobytes()
            values, trailing = _voxels(stream, head)
    leading = b""
    if head.paired:
        if len(files) == 1:
            raise SourceError(f"{stream.label}: the file that holds its voxels, .img or .img.gz, is not beside it")
        with opened(place, files[1], digest) as stream:
            _check_room(stream, head)
            leading = stream.exactly(head.offset, "vox_offset").tobytes()
            values, trailing = _voxels(stream, head)
    labels = head.labels
    if head.kind == _CIFTI:
        values = values.transpose(1, 2, 3, 0)
        labels |= _CIFTI_LABELS in header
    return Source(
        name=_name(files[0]),
        label=place.label(files[0]),
        kind=head.kind,
        files=tuple(_name(file) for file in files),
        sha256=digest.sha256,
        file_bytes=digest.size,
        header=header,
        leading=leading,
        voxels=values,
        trailing=trailing,
        affine=head.affine,
        affine_from=head.affine_from,
        slope=head.slope,
        inter=head.inter,
        voxel_size=head.voxel_size,
        time_offset=head.time_offset,
        units=head.units,
        labels=labels,
        spatial=head.kind != _CIFTI,
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What the fixed part of a header says; `block` are its bytes."""

    block: bytes
    kind: str
    paired: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    affine: npt.NDArray[np.float64]
    affine_from: str
    voxel_size: tuple[float, ...]
    time_offset: float
    units: dict[str, str]
    labels: bool

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(stream: Stream, named_header: bool) -> _Header:
    label = stream.label
    nibabel = _nibabel()
    start = stream.start(4)
    version = _version(start)
    if len(start) < 4 or not version:
        # Other programs call their files .hdr too: intact for all we know, but no image of ours.
        kind = UnsupportedImageError if named_header and len(start) == 4 else SourceError
        raise kind(f"{label}: not a NIfTI file: sizeof_hdr is neither 348 nor 540")
    name, single, pair = _VERSIONS[version]
    block = start + stream.exactly(version - 4, "header").tobytes()
    header = (nibabel.Nifti1Header if version == 348 else nibabel.Nifti2Header)(block, check=False)
    # The magic is the last field of NIfTI-1 and follows the size in NIfTI-2.
    found = block[344:348] if version == 348 else block[4:12]
    if found not in (single, pair):
        if named_header and version == 348 and not found.strip(b"\0"):
            raise UnsupportedImageError(f"{label}: magic: Analyze 7.5, which does not say where left and right are")
        raise SourceError(f"{label}: not a NIfTI file: magic is {found!r}")
    paired = found == pair
    if paired and not named_header:
        raise SourceError(f"{label}: magic: the header of a .hdr/.img pair, but the name does not end in .hdr")

    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise SourceError(f"{label}: dim[0]: {dims[0]} axes; a NIfTI has 1 to 7")
    for axis, length in enumerate(dims[1 : dims[0] + 1], 1):
        if length < 1:
            raise SourceError(f"{label}: dim[{axis}]: length {length}; every axis has at least one voxel")
    dtype = _dtype(label, header)
    offset = float(header["vox_offset"])
    least = 0 if paired else version + 4
    if not math.isfinite(offset) or offset != int(offset) or not least <= offset <= limits.MAX_HEADER_BYTES:
        raise SourceError(f"{label}: vox_offset: {offset:g} is not an offset behind the header")
    slope, inter = _scaling(label, header)
    affine, affine_from = _affine(label, header)
    space, time = _units(label, header)
    form, shape = f"{name} pair" if paired else name, tuple(dims[dims[0] : 0 : -1])
    steps = _steps(label, header, dims[0])
    cifti = version == 540 and not paired and int(header["intent_code"]) in _CIFTI_INTENTS
    if cifti and dims[:5] == [6, 1, 1, 1, 1]:
        form, shape, steps = _CIFTI, (dims[6], dims[5], 1, 1), (1.0,) * 4
    return _Header(
        block=block,
        kind=form,
        paired=paired,
        shape=shape,
        dtype=dtype,
        offset=int(offset),
        slope=slope,
        inter=inter,
        affine=affine,
        affine_from=affine_from,
        voxel_size=steps,
        time_offset=_finite(label, "toffset", header["toffset"]),
        units={"space": space, "time": time},
        labels=int(header["intent_code"]) == _LABEL_INTENT,
    )


def _version(start: bytes) -> int:
    """Return the size of the header that begins like this, which tells the version; 0 if it is none."""
    return next((v for v in _VERSIONS if start[:4] in (v.to_bytes(4, "little"), v.to_bytes(4, "big"))), 0)


def _header_rest(stream: Stream) -> bytes:
    rest = stream.rest(limits.MAX_HEADER_BYTES)
    if rest is None:
        raise SourceError(f"{stream.label}: header: larger than {limits.MAX_HEADER_BYTES} bytes")
    return rest


def _check_room(stream: Stream, head: _Header) -> None:
    """Refuse a claim that the file cannot fulfil before anything is allocated for it."""
    stream.check_room(head.voxel_bytes, head.offset, "dim")


def _voxels(stream: Stream, head: _Header) -> tuple[npt.NDArray[Any], bytes]:
    """Return the voxels and the bytes after them."""
    return stream.voxels(head.shape, head.dtype, "dim")


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _dtype(label: str, header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _DTYPES:
        return np.dtype(("<" if header.endianness == "<" else ">") + _DTYPES[code])
    if code in _UNSUPPORTED:
        raise UnsupportedImageError(
            f"{label}: datatype: {_UNSUPPORTED[code]} cannot be stored; integers and floats can"
        )
    raise SourceError(f"{label}: datatype: unknown (code {code})")


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError('reading NIfTI needs nibabel: pip install "inrstore[nifti]"') from error
    return nibabel


def _finite(label: str, field: str, value: npt.ArrayLike) -> float:
    number = float(np.asarray(value))
    if not math.isfinite(number):
        raise SourceError(f"{label}: {field}: {number} is not a finite number")
    return number


def _scaling(label: str, header: Any) -> tuple[float, float]:
    """Return slope and intercept. A slope of 0 means "no scaling" in the NIfTI standard.

    nibabel takes one that is not finite for the same, and writes NaN itself.
    """
    slope = float(header["scl_slope"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    return slope, _finite(label, "scl_inter", header["scl_inter"])


def _affine(label: str, header: Any) -> tuple[npt.NDArray[np.float64], str]:
    """Return the affine that nibabel would give, and the fields it comes from."""
    names: tuple[str, ...] = ()
    if header["sform_code"] > 0:
        fields, names = "sform", ("srow_x", "srow_y", "srow_z")
    elif header["qform_code"] > 0:
        fields = "qform"
        names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    else:
        fields = "pixdim"
    for name in names:
        if not np.isfinite(header[name]).all():
            raise SourceError(f"{label}: {name}: {header[name]} is not finite")
    for axis in range(4):
        _finite(label, f"pixdim[{axis}]", header["pixdim"][axis])
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except Exception as error:  # nibabel raises several kinds for quaternions that are none
        raise SourceError(f"{label}: {fields}: {error}") from error
    if not np.isfinite(affine).all():
        raise SourceError(f"{label}: {fields}: the affine is not finite")
    return affine, fields


def _units(label: str, header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError as error:
        raise SourceError(f"{label}: xyzt_units: {int(header['xyzt_units'])} is no known code") from error
    return str(space), str(time)


def _steps(label: str, header: Any, ndim: int) -> tuple[float, ...]:
    """Return the grid spacing of each axis; 1 where the header has none. Single precision, shortest form."""
    steps = []
    for axis in range(1, ndim + 1):
        step = abs(_finite(label, f"pixdim[{axis}]", header["pixdim"][axis]))
        steps.append(float(str(np.float32(step))) or 1.0)
    return tuple(steps)


_KINDS = tuple(name for name, *_ in _VERSIONS.values())

SINGLE = Format(
    kinds=(*_KINDS, _CIFTI), suffixes=((".nii", ".nii.gz"),), sniff=lambda start: _version(start) != 0,
    read=partial(read, pair=False), write=write_single,
)  # fmt: skip
PAIR = Format(
    kinds=tuple(f"{kind} pair" for kind in _KINDS), suffixes=((".hdr", ".hdr.gz"), (".img", ".img.gz")),
    sniff=lambda start: False,  # the voxels are found by the name of the header, or not at all
    read=partial(read, pair=True), write=write_pair,
)  # fmt: skip
