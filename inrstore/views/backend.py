"""A store as an xarray Dataset, lazily."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inrstore.errors import MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.attributes import SMALL_DIMS, unpacked
from inrstore.store.reader import Store

if TYPE_CHECKING:
    import xarray


def open(store: str | os.PathLike[str]) -> xarray.Dataset:
    """Open a store as a Dataset; chunks are decoded when their values are needed.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.

    Returns
    -------
    xarray.Dataset
        `image`, a dask array of the stored (unscaled) voxels with dimensions (t, z, y, x) or (z, y, x);
        coordinates x, y, z in mm along the voxel grid, t, bval and bvec as far as the source had them.
        Attributes: affine, scl_slope, scl_inter, units, quality, source. `image * scl_slope + scl_inter`
        gives real values.

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
        import dask.array  # noqa: F401
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
            units = {key: value for key, value in said.items() if key == "units"}
            dataset = dataset.assign_coords({name: (SMALL_DIMS[name], unpacked(opened.read(name), said), units)})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{opened.label}: its arrays do not fit together: {error}") from error
    own = opened.attributes
    # The manifest is for checking, not for reading: people would have to scroll past it.
    names = ("affine", "affine_from", "scl_slope", "scl_inter", "units", "quality", "source")
    dataset.attrs = {name: own[name] for name in names if name in own}
    dataset[layout.IMAGE].attrs.update({name: own[name] for name in ("scl_slope", "scl_inter") if name in own})
    return dataset
