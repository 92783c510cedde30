"""A store as an xarray Dataset, lazily."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from inrstore.errors import MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.attributes import BVEC_FRAME, SMALL_DIMS, unpacked
from inrstore.store.reader import Store

if TYPE_CHECKING:
    import xarray

_SHOWN = ("affine", "affine_from", "scl_slope", "scl_inter", "units", "quality", "source")
"""Attributes that a Dataset has. The manifest is for checking, not for reading."""


def open(store: str | os.PathLike[str], *, scaled: bool = False, level: int = 0) -> xarray.Dataset:
    """Open a store as a Dataset; chunks are decoded when their values are needed.

    The Dataset can be written with `to_netcdf` and `to_zarr`. Nothing of how the store is coded goes along, so that
    what was decoded loses nothing more.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    scaled : bool
        Give real values, stored value x scl_slope + scl_inter, instead of stored ones. They are computed in float64
        and rounded once: to float32 where the stored ones are integers of at most 16 bits, float16, or float32 with
        slope 1 and intercept 0, unless the slope would take them out of the range of (normal) float32; else they
        stay float64.
    level : int
        Level of the image's pyramid, 2^level times as coarse along each axis: nothing of it is stored, it is evaluated
        when its values are needed; see `inrstore.views.field.Field.level`.

    Returns
    -------
    xarray.Dataset
        `image`, a dask array of the voxels with dimensions (t, z, y, x) or (z, y, x); its attribute `values` says
        whether they are scaled. What they measure no NIfTI says, so it has no units.
        Coordinates x, y, z in mm along the voxel grid, t, bval (s/mm2) and bvec as far as the source had them; the
        attribute `frame` of bvec says in which axes they are.
        Attributes are texts, numbers and lists of numbers: `affine` (16 numbers, row by row, from voxel indices
        (x, y, z) to mm), `affine_from`, `scl_slope`, `scl_inter`, and with the names of their parts `units_...`,
        `quality_...` and `source_...`; truth values are 0 and 1.

    Raises
    ------
    StoreError
        If it is not a store of this package, was changed, names a codec that is not allowed, or lacks a chunk; when
        values are read, if the digest of a chunk is not that in the store's manifest.
    MissingDependencyError
        Without xarray and dask.
    """
    opened = Store(store)
    missing = opened.missing_files()
    if missing:
        raise StoreError(f"{opened.label}: {missing[0]} is missing; the store is incomplete")
    try:
        import dask.array
        import xarray

        from inrstore.store.sealed import SealedStore
    except ImportError as error:
        raise MissingDependencyError(
            'opening a store as a Dataset needs xarray and dask: pip install "inrstore[xarray]"'
        ) from error
    small = opened.small_names()
    # The small arrays are read by this package, which bounds their size, and not once more by zarr.
    try:
        dataset: xarray.Dataset = xarray.open_zarr(SealedStore(opened), consolidated=False, drop_variables=small)
        for name in set(small) & SMALL_DIMS.keys():
            said = opened.arrays[name].attributes
            about = {key: value for key, value in said.items() if key == "units"}
            if name == "bvec":
                about["frame"] = BVEC_FRAME
            dataset = dataset.assign_coords({name: (SMALL_DIMS[name], unpacked(opened.read(name), said), about)})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{opened.label}: its arrays do not fit together: {error}") from error
    slope, inter = (_number(opened, name) for name in ("scl_slope", "scl_inter"))
    if level:
        from inrstore.views.field import Field

        coarse = Field(opened, scaled=scaled).level(level)
        dataset = dataset.drop_vars([layout.IMAGE, *(name for name in "xyz" if name in dataset.coords)])
        dataset[layout.IMAGE] = coarse.variable
        dataset = dataset.assign_coords({name: coarse[name] for name in "xyz" if name in coarse.coords})
    elif scaled:
        from inrstore.views.scaled import Scaled

        real = dask.array.from_array(Scaled(SealedStore(opened), slope, inter), chunks=opened.grid.chunks,
                                     meta=np.empty(0))  # type: ignore[no-untyped-call]  # fmt: skip
        dataset[layout.IMAGE] = dataset[layout.IMAGE].copy(data=real)
    values = "real: stored x scl_slope + scl_inter" if scaled else "stored: x scl_slope + scl_inter gives real ones"
    dataset[layout.IMAGE].attrs = {"values": values, "scl_slope": slope, "scl_inter": inter}
    dataset.attrs = plain({name: opened.attributes[name] for name in _SHOWN if name in opened.attributes})
    if level:
        dataset[layout.IMAGE].attrs["kind"] = coarse.attrs["kind"]
        dataset.attrs["affine"] = coarse.attrs["affine"]
    for variable in dataset.variables.values():
        variable.encoding = {}  # else xarray would code copies with the lossy settings of this store
    return dataset


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as every netCDF file can hold them: nothing nested, no truth values, no nulls."""
    out: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            out |= plain({f"{name}_{part}": inner for part, inner in value.items()})
        elif isinstance(value, list):
            flat = np.asarray(value).ravel().tolist()
            if flat:
                out[name] = flat
        elif isinstance(value, int):  # netCDF 3 has 32 bits
            out[name] = int(value) if abs(value) < 1 << 31 else float(value)
        elif value is not None:
            out[name] = value
    return out


def _number(opened: Store, name: str) -> float:
    value = opened.attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{opened.label}: attribute {name} is no number")
    return float(value)
