"""What attributes and small arrays of a store say: coordinates, gradients, header, OME-Zarr, provenance.

Where a store follows a convention and where it has to differ:

* OME-Zarr 0.5 (Zarr v3) or 0.4 (v2): one multiscales level, axes and voxel sizes. It has no affine, and no
  place for axes beyond t, so images of more than four axes go without.
* CF conventions: coordinates of a regular grid are packed, index x scale_factor + add_offset, which xarray undoes.
* nifti-zarr 1.0.rc1 keeps the header in an array of its own, which costs half a kilobyte; here the attribute `header`
  holds the first bytes, and the array `nifti` what an unusually long header has beyond them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.sources import Source
from inrstore.sources.gradients import SIDECARS
from inrstore.store import layout
from inrstore.store.layout import Array, ZarrFormat

_OME_SPACE = {"mm": "millimeter", "meter": "meter", "micron": "micrometer"}
_OME_TIME = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}
TO_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_TIME_UNITS = {"sec": "s", "msec": "ms", "usec": "us"}

SMALL_DIMS = {"x": ("x",), "y": ("y",), "z": ("z",), "t": ("t",), "bval": ("t",), "bvec": ("t", "component")}
"""Axes of the arrays that are coordinates of the image."""

BVEC_FRAME = "FSL: along the image axes x, y, z, with x negated where the determinant of the affine is above 0"
"""In which axes gradients are: files of gradients are taken as FSL and dcm2niix write them."""


def small_arrays(source: Source, dims: tuple[str, ...]) -> list[tuple[Array, bytes]]:
    """Return the arrays beside the image, each with the bytes of its chunk.

    Parameters
    ----------
    source : Source
        The image.
    dims : tuple of str
        Names of the axes of its voxels.

    Returns
    -------
    list of (Array, bytes)
        x, y, z in millimetres along the voxel grid; t if its unit is one of time (neither of a matrix); bval, bvec;
        nifti if the header is longer than `layout.HEADER_BYTES`, and what other bytes the source has around its voxels;
        its sidecars.
    """
    out = []
    to_mm = TO_MM.get(source.units["space"], 1.0)
    for name, length in zip(dims, source.voxels.shape, strict=True) if source.spatial else ():
        axis = layout.DIMS.index(name)
        if length * 4 > layout.MAX_SMALL_BYTES:
            continue
        step = source.voxel_size[axis]
        if name in "xyz":
            out.append(_coordinate(name, length, step * to_mm, 0.0, "mm"))
        elif name == "t" and source.units["time"] in _TIME_UNITS:
            out.append(_coordinate("t", length, step, source.time_offset, _TIME_UNITS[source.units["time"]]))
    if source.bval is not None:
        out.append(layout.small_array("bval", _shorter(source.bval), SMALL_DIMS["bval"], units="s/mm2"))
    if source.bvec is not None:
        out.append(layout.small_array("bvec", _shorter(source.bvec), SMALL_DIMS["bvec"]))
    for name, data in (
        (layout.HEADER, source.header[layout.HEADER_BYTES :]),
        (layout.LEADING, source.leading),
        (layout.TRAILING, source.trailing),
    ):
        if data:
            out.append(layout.small_array(name, np.frombuffer(data, np.uint8), ("byte",)))
    kept = {ending: source.sidecars[ending] for ending in SIDECARS if source.sidecars.get(ending)}
    if kept:
        whole = np.frombuffer(b"".join(kept.values()), np.uint8)
        sizes = {ending: len(data) for ending, data in kept.items()}
        out.append(layout.small_array(layout.SIDECARS, whole, ("byte",), files=sizes))
    return out


def _coordinate(name: str, length: int, step: float, offset: float, units: str) -> tuple[Array, bytes]:
    """Return the coordinate of a regular grid, packed as the CF conventions say (section 8.1)."""
    packed = np.arange(length, dtype=next(kind for kind in ("u1", "u2", "u4") if length <= np.iinfo(kind).max + 1))
    moved = {"add_offset": offset} if offset else {}
    return layout.small_array(name, packed, SMALL_DIMS[name], units=units, scale_factor=step, **moved)


def unpacked(values: npt.NDArray[Any], said: dict[str, Any]) -> npt.NDArray[Any]:
    """Return the values of a small array whose attributes say how they are packed, in single precision if so."""
    scale, offset = said.get("scale_factor"), said.get("add_offset", 0.0)
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        return values
    return (values * float(scale) + float(offset)).astype(np.float32)


def image_attributes(source: Source) -> dict[str, Any]:
    """Return the attributes of the image array: its coordinates, named by the netCDF convention."""
    named = [name for name in ("bval", "bvec") if getattr(source, name) is not None]
    return {"coordinates": " ".join(named)} if named else {}


def group_attributes(
    source: Source, dims: tuple[str, ...], zarr_format: ZarrFormat, tool: str, quality: dict[str, Any]
) -> dict[str, Any]:
    """Return the attributes of the group.

    Parameters
    ----------
    source : Source
        The image.
    dims : tuple of str
        Names of the axes of its voxels.
    zarr_format : {2, 3}
        Decides the version of OME-Zarr.
    tool : str
        Name and version of this package.
    quality : dict
        What was asked and what was reached.
    """
    own = {
        "version": layout.LAYOUT_VERSION,
        "tool": tool,
        "source": {
            "name": source.name,
            "kind": source.kind,
            "bytes": source.file_bytes,
            "sha256": source.sha256,
            "dtype": source.voxels.dtype.str,
            **({"derived": source.derived} if source.derived else {}),
            **({"warnings": list(source.warnings)} if source.warnings else {}),
        },
        "affine": [[float(value) for value in row] for row in source.affine],
        "affine_from": source.affine_from,
        "scl_slope": source.slope,
        "scl_inter": source.inter,
        "units": source.units,
        "header": layout.pack_header(source.header[: layout.HEADER_BYTES]),
        "quality": quality,
    }
    return {layout.ATTRIBUTES: own, **_ome(source, dims, zarr_format)}


def _ome(source: Source, dims: tuple[str, ...], zarr_format: ZarrFormat) -> dict[str, Any]:
    space = sum(name in "xyz" for name in dims)
    if not 2 <= space <= 3 or len(dims) > 4 or not source.spatial:
        return {}
    axes: list[dict[str, str]] = []
    for name in dims:
        kind, table = ("time", _OME_TIME) if name == "t" else ("space", _OME_SPACE)
        unit = table.get(source.units[kind])
        axes.append({"name": name, "type": kind} | ({"unit": unit} if unit else {}))
    scale = [source.voxel_size[layout.DIMS.index(name)] for name in dims]
    transformations = [{"type": "scale", "scale": scale}]
    multiscales: list[dict[str, Any]] = [
        {
            "name": layout.IMAGE,
            "axes": axes,
            "datasets": [{"path": layout.IMAGE, "coordinateTransformations": transformations}],
            "type": "none",  # of downscaling: there is one level
            "metadata": {},
        }
    ]
    if zarr_format == 3:
        return {"ome": {"version": "0.5", "multiscales": multiscales}}
    return {"multiscales": [{"version": "0.4", **multiscales[0]}]}


def _shorter(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return numbers from a text in single precision if that keeps every digit of the text."""
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    same = all(float(str(s)) == v for s, v in zip(single.ravel(), values.ravel(), strict=True))
    return single if same else values
