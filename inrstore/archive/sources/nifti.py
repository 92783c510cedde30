"""NIfTI-1 and NIfTI-2 files, plain or gzipped -> `Source`.

nibabel knows the header; the checks are ours, because nibabel reads many a damaged file with a guess.
Nothing in a header sizes an allocation before that many bytes were there to be read.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inrstore.archive.sources import Source
from inrstore.archive.sources.gradients import read_gradients
from inrstore.errors import MissingDependencyError, SourceError

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
           1280: "u8"}  # fmt: skip
_NAMES = {0: "unknown", 1: "binary", 32: "complex64", 128: "RGB24", 1536: "float128", 1792: "complex128",
          2048: "complex256", 2304: "RGBA32"}  # fmt: skip
_VERSIONS = {348: ("NIfTI-1", b"n+1\0"), 540: ("NIfTI-2", b"n+2\0\r\n\032\n")}

MAX_HEADER_BYTES = 1 << 28
"""Bytes before the voxels. The largest extensions known (CIFTI) have some tens of megabytes."""

MAX_TRAILING_BYTES = 1 << 20
"""Bytes after the voxels, which some programs leave; they have to be read to reach the gzip checksum."""

GZIP_RATIO = 1040
"""DEFLATE never expands further, so a larger claim is refused before anything is read."""

_BLOCK = 1 << 22


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_nifti(path: Path) -> Source:
    """Read a single-file NIfTI image (.nii, .nii.gz) and the gradient sidecars beside it.

    Parameters
    ----------
    path : Path
        The file; it is only read. Whether it is gzipped is seen from its content.

    Returns
    -------
    Source
        Voxels unscaled and transposed to C order.

    Raises
    ------
    SourceError
        Naming the file and the header field that is wrong.
    MissingDependencyError
        Without nibabel.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file")
    if not path.is_file():
        raise SourceError(f"{path}: not a file")
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
            size = raw.tell()
            raw.seek(0)
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not gzipped:
                return _read(path, raw, size, size, digest)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(path, stream, size * GZIP_RATIO, size, digest)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: damaged or truncated gzip stream: {error}") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path, stream: _Stream, most: int, file_bytes: int, digest: str) -> Source:
    nibabel = _nibabel()
    start = stream.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    version = next((v for v in _VERSIONS if v in sizes), 0)
    if len(start) < 4 or not version:
        raise SourceError(f"{path}: not a NIfTI file: sizeof_hdr is neither 348 nor 540")
    kind, magic = _VERSIONS[version]
    block = start + _exactly(path, stream, version - 4, "header")
    header = (nibabel.Nifti1Header if version == 348 else nibabel.Nifti2Header)(block, check=False)
    # The magic is the last field of NIfTI-1 and follows the size in NIfTI-2.
    found = block[344:348] if version == 348 else block[4:12]
    if found != magic:
        if found[:2] == b"ni":
            raise SourceError(f"{path}: magic: the header of a .hdr/.img pair, which is not supported")
        raise SourceError(f"{path}: not a NIfTI file: magic is {bytes(found)!r}")

    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise SourceError(f"{path}: dim[0]: {dims[0]} axes; a NIfTI has 1 to 7")
    for axis, length in enumerate(dims[1 : dims[0] + 1], 1):
        if length < 1:
            raise SourceError(f"{path}: dim[{axis}]: length {length}; every axis has at least one voxel")
    code = int(header["datatype"])
    if code not in _DTYPES:
        what = f"{_NAMES.get(code, 'unknown')} (code {code})"
        raise SourceError(f"{path}: datatype: {what} is not supported; real integers and floats are")
    order = "<" if header.endianness == "<" else ">"
    dtype = np.dtype(order + _DTYPES[code])
    offset = float(header["vox_offset"])
    least = version + 4
    if not math.isfinite(offset) or offset != int(offset) or not least <= offset <= MAX_HEADER_BYTES:
        raise SourceError(f"{path}: vox_offset: {offset:g} is not an offset behind the header")

    shape = tuple(dims[dims[0] : 0 : -1])
    voxel_bytes = math.prod(shape) * dtype.itemsize
    if int(offset) + voxel_bytes > most:
        raise SourceError(f"{path}: dim: the header claims {voxel_bytes} bytes of voxels, more than the file can hold")
    slope, inter = _scaling(path, header)
    affine, affine_from = _affine(path, header)
    space, time = _units(path, header)
    steps = _steps(path, header, dims[0])
    leading = block + _exactly(path, stream, int(offset) - version, "header extensions")
    values = np.frombuffer(_exactly(path, stream, voxel_bytes, "voxels"), dtype).reshape(shape)
    values.flags.writeable = False
    _finish(path, stream)
    volumes = dims[4] if dims[0] == 4 else None
    bval, bvec = read_gradients(path, volumes)
    return Source(
        path=path,
        kind=kind,
        sha256=digest,
        file_bytes=file_bytes,
        header=bytes(leading),
        voxels=values,
        affine=affine,
        affine_from=affine_from,
        slope=slope,
        inter=inter,
        voxel_size=steps,
        time_offset=_finite(path, "toffset", header["toffset"]),
        units={"space": space, "time": time},
        bval=bval,
        bvec=bvec,
    )


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError('reading NIfTI needs nibabel: pip install "inrstore[nifti]"') from error
    return nibabel


def _exactly(path: Path, stream: _Stream, size: int, what: str) -> bytearray:
    """Read `size` bytes; memory grows only as they arrive."""
    out = bytearray()
    while len(out) < size:
        block = stream.read(min(_BLOCK, size - len(out)))
        if not block:
            raise SourceError(f"{path}: {what}: the header claims {size} bytes, but the file ends after {len(out)}")
        out += block
    return out


def _finish(path: Path, stream: _Stream) -> None:
    """Read to the end, because only there gzip's own checksum is tested."""
    left = MAX_TRAILING_BYTES
    while block := stream.read(min(_BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            raise SourceError(f"{path}: dim: more than {MAX_TRAILING_BYTES} bytes follow the voxels")


def _finite(path: Path, field: str, value: npt.ArrayLike) -> float:
    number = float(np.asarray(value))
    if not math.isfinite(number):
        raise SourceError(f"{path}: {field}: {number} is not a finite number")
    return number


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Return slope and intercept. A slope of 0 means "no scaling" in the NIfTI standard."""
    slope = _finite(path, "scl_slope", header["scl_slope"])
    if slope == 0:
        return 1.0, 0.0
    return slope, _finite(path, "scl_inter", header["scl_inter"])


def _affine(path: Path, header: Any) -> tuple[npt.NDArray[np.float64], str]:
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
            raise SourceError(f"{path}: {name}: {header[name]} is not finite")
    for axis in range(4):
        _finite(path, f"pixdim[{axis}]", header["pixdim"][axis])
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except Exception as error:  # nibabel raises several kinds for quaternions that are none
        raise SourceError(f"{path}: {fields}: {error}") from error
    if not np.isfinite(affine).all():
        raise SourceError(f"{path}: {fields}: the affine is not finite")
    return affine, fields


def _units(path: Path, header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError as error:
        raise SourceError(f"{path}: xyzt_units: {int(header['xyzt_units'])} is no known code") from error
    return str(space), str(time)


def _steps(path: Path, header: Any, ndim: int) -> tuple[float, ...]:
    """Return the grid spacing of each axis; 1 where the header has none. Single precision, shortest form."""
    steps = []
    for axis in range(1, ndim + 1):
        step = abs(_finite(path, f"pixdim[{axis}]", header["pixdim"][axis]))
        steps.append(float(str(np.float32(step))) or 1.0)
    return tuple(steps)
