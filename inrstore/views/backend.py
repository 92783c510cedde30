"""A store as an xarray Dataset, lazily; or an image file as the Dataset that its store would be."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.attributes import BVEC_FRAME, SMALL_DIMS, group_attributes, small_arrays, unpacked
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
            dataset = _with_coordinate(dataset, name, opened.read(name), opened.arrays[name].attributes)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{opened.label}: its arrays do not fit together: {error}") from error
    slope, inter = (opened.number(name) for name in ("scl_slope", "scl_inter"))
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
    dataset = _described(dataset, opened.attributes, slope, inter, scaled=scaled)
    if level:
        dataset[layout.IMAGE].attrs["kind"] = coarse.attrs["kind"]
        dataset.attrs["affine"] = coarse.attrs["affine"]
    return dataset


def open_source(source: str | os.PathLike[str], *, scaled: bool = False) -> xarray.Dataset:
    """Read an image file as the Dataset that its store would be if it lost nothing.

    Parameters
    ----------
    source : path-like
        Path or URL of an image of any known format, with its gradients beside it.
    scaled : bool
        As in `open`.

    Returns
    -------
    xarray.Dataset
        As of `open`, without `quality`; the voxels are in memory, or where the file is not packed mapped from it.

    Raises
    ------
    SourceError
    MissingDependencyError
        Without xarray, or the package that reads the format.
    """
    from inrstore.sources import read_source

    try:
        import xarray
    except ImportError as error:
        raise MissingDependencyError('a Dataset needs xarray: pip install "inrstore[xarray]"') from error
    image = read_source(source)
    dims, voxels = layout.image_dims(image.voxels.ndim), image.voxels
    if scaled:
        from inrstore.views.scaled import dtype_of, real

        voxels = real(voxels, image.slope, image.inter, dtype_of(voxels.dtype, image.slope, image.inter))
    dataset = xarray.Dataset({layout.IMAGE: (dims, voxels)})
    for array, data in small_arrays(image, dims):
        if array.name in SMALL_DIMS:
            size = math.prod(array.grid.shape) * array.dtype.itemsize
            values = np.frombuffer(layout.unpack_chunk(data, array.packed, size), array.dtype)
            dataset = _with_coordinate(dataset, array.name, values.reshape(array.grid.shape), array.attributes)
    own = group_attributes(image, dims, 3, "", {})[layout.ATTRIBUTES]
    attributes = {name: value for name, value in own.items() if name != "quality"}
    return _described(dataset, attributes, image.slope, image.inter, scaled=scaled)


def _with_coordinate(
    dataset: xarray.Dataset, name: str, values: npt.NDArray[Any], said: dict[str, Any]
) -> xarray.Dataset:
    about = {key: value for key, value in said.items() if key == "units"}
    if name == "bvec":
        about["frame"] = BVEC_FRAME
    return dataset.assign_coords({name: (SMALL_DIMS[name], unpacked(values, said), about)})


def _described(
    dataset: xarray.Dataset, attributes: Mapping[str, Any], slope: float, inter: float, *, scaled: bool
) -> xarray.Dataset:
    """Give a Dataset the attributes that it has for its user, and no others."""
    values = "real: stored x scl_slope + scl_inter" if scaled else "stored: x scl_slope + scl_inter gives real ones"
    dataset[layout.IMAGE].attrs = {"values": values, "scl_slope": slope, "scl_inter": inter}
    dataset.attrs = plain({name: attributes[name] for name in _SHOWN if name in attributes})
    for variable in dataset.variables.values():
        variable.encoding = {}  # else xarray would code copies with the lossy settings of a store
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
