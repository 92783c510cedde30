"""Where images come from: one module for each kind of input, all giving the same `Source`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import files
from inrstore.errors import SourceError
from inrstore.sources.pairs import header_of, image_files, is_image, store_name

__all__ = ["Source", "header_of", "image_files", "is_image", "read_image", "read_source", "store_name"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image as it came, ready to be stored.

    Parameters
    ----------
    name : str
        The file's name; of a pair that of the header.
    label : str
        How messages name the file.
    kind : str
        Its format, for people: "NIfTI-1", "NIfTI-1 pair".
    files : tuple of str
        The names of its files: one, or the header's and the voxels'.
    sha256 : str
        Digest of the file as it lies on disk; of a pair, of the header's file followed by the voxels'.
    file_bytes : int
        Size of the file, or of both, as it lies on disk.
    header : bytes
        Every byte before the voxels: header, extensions and padding. Of a pair the whole file of the header.
    leading : bytes
        Bytes before the voxels in the file of a pair that holds them; empty for a single file.
    voxels : ndarray
        Stored (unscaled) values, (..., t, z, y, x), in the source's dtype and byte order, read-only.
    trailing : bytes
        Bytes after the voxels.
    affine : ndarray
        (4, 4), voxel index (x, y, z) to millimetres of the world (in `units["space"]` if that is known).
    affine_from : str
        The header fields that the affine comes from.
    slope, inter : float
        Real value = slope x stored value + inter; 1 and 0 when the source asks for no scaling.
    voxel_size : tuple of float
        Step along x, y, z, t, ... in the units below.
    time_offset : float
        Time of the first volume.
    units : dict
        "space" and "time", as the source names them: mm, sec, unknown.
    bval : ndarray or None
        b-value of each volume, (t,), in s/mm².
    bvec : ndarray or None
        Gradient direction of each volume, (t, 3), as in the sidecar.
    """

    name: str
    label: str
    kind: str
    files: tuple[str, ...]
    sha256: str
    file_bytes: int
    header: bytes
    leading: bytes = b""
    voxels: npt.NDArray[Any]
    trailing: bytes = b""
    affine: npt.NDArray[np.float64]
    affine_from: str
    slope: float
    inter: float
    voxel_size: tuple[float, ...]
    time_offset: float
    units: dict[str, str]
    bval: npt.NDArray[np.float64] | None = None
    bvec: npt.NDArray[np.float64] | None = None


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read an image of any supported kind, given by a path or a URL.

    Parameters
    ----------
    path : path-like or str
        The file; it is only read.

    Raises
    ------
    SourceError
        Naming the file and what is wrong with it.
    MissingDependencyError
        When the package that reads this kind is not installed.
    """
    return read_image(*files.split(path))


def read_image(place: files.Place, key: str) -> Source:
    """Read an image of any supported kind from a place, with its gradients; each file is read once.

    Parameters
    ----------
    place : Place
        A folder, a zip, a bucket.
    key : str
        The image in it; of a pair either file.

    Raises
    ------
    UnsupportedImageError
        For an intact image of a kind that a store cannot hold.
    SourceError
        Naming the file and what is wrong with it.
    MissingDependencyError
        When the package that reads this kind is not installed.
    """
    from inrstore.sources.nifti import read_nifti

    try:
        return read_nifti(place, key)
    except OSError as error:  # of a look at what lies beside it
        raise SourceError(f"{place.label(key)}: cannot be read: {error.strerror or error}") from error
