"""Which voxels of an image are kept: a mask image -> an array of truth values that fits the voxels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.errors import SourceError
from inrstore.sources import Source, read_source
from inrstore.store import layout
from inrstore.store.layout import Grid
from inrstore.store.manifest import digest

Inside: TypeAlias = npt.NDArray[np.bool_]
"""(1, ..., z, y, x): True is kept; axes of measurements have length 1."""

_AWAY = 0.1
"""Part of a voxel by which the affine of a mask may differ: rounding of header fields, not another place."""


def read_mask(where: str, image: Source) -> Inside:
    """Read a mask for an image.

    Parameters
    ----------
    where : str
        Path or URL of an image; it keeps the voxels where it is not 0.
    image : Source
        The image that it is for.

    Raises
    ------
    SourceError
        If it has another grid or another place in space than the image, or keeps nothing.
    """
    mask = read_source(where)
    dims = layout.image_dims(image.voxels.ndim)
    leading = layout.measurement_axes(dims)
    space = image.voxels.shape[leading:]
    found = mask.voxels
    while found.ndim > len(space) and found.shape[0] == 1:
        found = found[0]  # a mask may have a t axis of one volume
    if found.shape != space:
        ours, theirs = " x ".join(map(str, space[::-1])), " x ".join(map(str, found.shape[::-1]))
        raise SourceError(f"{mask.label}: a mask of {theirs} voxels does not fit {image.label} of {ours}")
    # The farthest corner may be off by a part of a voxel.
    corner = np.array([*space[::-1], 1, 1, 1][:3] + [1], np.float64)
    away = np.abs((mask.affine - image.affine)[:3]) @ corner
    if (away > _AWAY * np.linalg.norm(image.affine[:3, :3])).any():
        raise SourceError(f"{mask.label}: the affine puts this mask elsewhere than {image.label}")
    inside: Inside = np.asarray(found != 0)
    if found.dtype.kind == "f":
        inside &= np.isfinite(found)
    if not inside.any():
        raise SourceError(f"{mask.label}: a mask that keeps no voxel of {image.label}")
    return inside.reshape((1,) * leading + space)


def cut(inside: Inside, grid: Grid, index: tuple[int, ...]) -> Inside:
    """Return the part of a mask that belongs to a chunk; what lies beyond the image is outside."""
    region = grid.region(index)
    shape = tuple(1 if n == 1 else c for n, c in zip(inside.shape, grid.chunks, strict=True))
    part = inside[tuple(slice(None) if n == 1 else s for n, s in zip(inside.shape, region, strict=True))]
    out = np.zeros(shape, np.bool_)
    out[tuple(slice(n) for n in part.shape)] = part
    return out


def within(inside: Inside, region: tuple[slice, ...]) -> Inside:
    """Return the part of a mask in a region of the image."""
    return inside[tuple(slice(None) if n == 1 else s for n, s in zip(inside.shape, region, strict=True))]


def describe(inside: Inside, name: str) -> dict[str, Any]:
    """Return what the attributes of a store say of its mask."""
    return {"name": name, "voxels": int(np.count_nonzero(inside)), "digest": digest(np.packbits(inside).tobytes())}
