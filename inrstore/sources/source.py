"""An image as it came: what a format reads and a store is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image as it came, ready to be stored.

    Parameters
    ----------
    name : str
        The file's name; of several files that of the first.
    label : str
        How messages name the file.
    kind : str
        Its format, one of `Format.kinds`: "NIfTI-1", "NIfTI-1 pair". An export finds the format again by it.
    files : tuple of str
        The names of its files, the one that names it first.
    sha256 : str
        Digest of the files as they lie on disk, one after the other.
    file_bytes : int
        Size of the files as they lie on disk.
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
    labels : bool
        Whether the header says that the values are labels.
    sidecars : mapping of str to bytes
        Files beside it that its store is to keep, by their endings (`inrstore.sources.gradients.SIDECARS`).
    warnings : tuple of str
        What the user should know of how it was made or read.
    derived : str
        What it was interpolated from, if it is no copy of what a scanner or program gave; empty otherwise.
    spatial : bool
        Whether x, y and z are places in the world. Of a matrix (CIFTI) x counts grayordinates, z and y have length 1.
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
    labels: bool = False
    spatial: bool = True
    warnings: tuple[str, ...] = ()
    derived: str = ""
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
