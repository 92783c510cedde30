"""What attributes and small arrays of a store say: coordinates, gradients, header, OME-Zarr, provenance.

Where a store follows a convention and where it has to differ:

* OME-Zarr 0.5 (Zarr v3) or 0.4 (v2): one multiscales level, axes and voxel sizes. It has no affine, and no
  place for axes beyond t, so images of more than four axes go without.
* nifti-zarr 1.0.rc1: the array `nifti` holds the header bytes and takes precedence. It differs in the codec
  (the convention asks for blosc or zlib), in the name of the image array, and in that the bytes up to the
  voxels are all kept, padding included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.sources import Source
from inrstore.store import layout
from inrstore.store.layout import Array, ZarrFormat

_OME_SPACE = {"mm": "millimeter", "meter": "meter", "micron": "micrometer"}
_OME_TIME = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}
_TO_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_TIME_UNITS = {"sec": "s", "msec": "ms", "usec": "us"}

SMALL_DIMS = {"x": ("x",), "y": ("y",), "z": ("z",), "t": ("t",), "bval": ("t",), "bvec": ("t", "component")}
"""Axes of the arrays that are coordinates of the image."""

_NOTE = "x, y, z: voxel index times voxel size; the affine maps voxel indices (x, y, z, 1) to the world"


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
        x, y, z in millimetres along the voxel grid; t if its unit is one of time; bval, bvec; nifti, and what
        other bytes the source has around its voxels.
    """
    out = []
    to_mm = _TO_MM.get(source.units["space"], 1.0)
    for name, length in zip(dims, source.voxels.shape, strict=True):
        axis = layout.DIMS.index(name)
        if length * 4 > layout.MAX_SMALL_BYTES:
            continue
        steps = np.arange(length) * source.voxel_size[axis]
        if name in "xyz":
            out.append(layout.small_array(name, _single(steps * to_mm), SMALL_DIMS[name], units="mm"))
        elif name == "t" and source.units["time"] in _TIME_UNITS:
            unit = _TIME_UNITS[source.units["time"]]
            out.append(layout.small_array("t", _single(source.time_offset + steps), SMALL_DIMS["t"], units=unit))
    if source.bval is not None:
        out.append(layout.small_array("bval", _shorter(source.bval), SMALL_DIMS["bval"], units="s/mm2"))
    if source.bvec is not None:
        out.append(layout.small_array("bvec", _shorter(source.bvec), SMALL_DIMS["bvec"]))
    for name, data in (
        (layout.HEADER, source.header),
        (layout.LEADING, source.leading),
        (layout.TRAILING, source.trailing),
    ):
        if data:
            out.append(layout.small_array(name, np.frombuffer(data, np.uint8), ("byte",)))
    return out


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
        },
        "affine": [[float(value) for value in row] for row in source.affine],
        "affine_from": source.affine_from,
        "coordinates": _NOTE,
        "scl_slope": source.slope,
        "scl_inter": source.inter,
        "units": source.units,
        "quality": quality,
    }
    return {layout.ATTRIBUTES: own, **_ome(source, dims, zarr_format)}


def _ome(source: Source, dims: tuple[str, ...], zarr_format: ZarrFormat) -> dict[str, Any]:
    space = sum(name in "xyz" for name in dims)
    if not 2 <= space <= 3 or len(dims) > 4:
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
            "axes": axes,
            "datasets": [{"path": layout.IMAGE, "coordinateTransformations": transformations}],
        }
    ]
    if zarr_format == 3:
        return {"ome": {"version": "0.5", "multiscales": multiscales}}
    return {"multiscales": [{"version": "0.4", **multiscales[0]}]}


def _single(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return coordinates in single precision, that of the header they are computed from."""
    return values.astype(np.float32)


def _shorter(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return numbers from a text in single precision if that keeps every digit of the text."""
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    same = all(float(str(s)) == v for s, v in zip(single.ravel(), values.ravel(), strict=True))
    return single if same else values
