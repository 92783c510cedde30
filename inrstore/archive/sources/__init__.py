"""Where images come from: one module for each kind of input, all giving the same `Source`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image as it came, ready to be stored.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Its format, for people: "NIfTI-1".
    sha256 : str
        Digest of the file as it lies on disk.
    file_bytes : int
        Size of the file as it lies on disk.
    header : bytes
        Every byte before the voxels: header, extensions and padding.
    voxels : ndarray
        Stored (unscaled) values, (..., t, z, y, x), in the source's dtype and byte order, read-only.
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

    path: Path
    kind: str
    sha256: str
    file_bytes: int
    header: bytes
    voxels: npt.NDArray[Any]
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
    """Read an image of any supported kind.

    Parameters
    ----------
    path : path-like
        The file; it is only read.

    Raises
    ------
    SourceError
        Naming the file and what is wrong with it.
    MissingDependencyError
        When the package that reads this kind is not installed.
    """
    from inrstore.archive.sources.nifti import read_nifti

    return read_nifti(Path(path))
