"""A store opens lazily, without a warning, through zarr, xarray and dask; importing costs nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys

import dask
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
import zarr
from common import check_refused, random_image, write_nifti

import inrstore
from inrstore.errors import MissingDependencyError, StoreError
from inrstore.store import layout

FORMATS = pytest.mark.parametrize("zarr_format", [3, 2])
SHAPE = (5, 4, 8, 3)


@pytest.fixture
def decoded(monkeypatch):
    """The chunks that were decoded, one entry for each; none is kept."""
    from inrstore.codecs import decoded

    monkeypatch.setattr(decoded, "_recent", decoded._Recent(0))
    calls: list[int] = []

    def watch(module, name):
        original = getattr(module, name)

        def run(*arguments, **options):
            calls.append(1)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, run)

    watch(decoded, "decode_chunk")
    watch(decoded, "decode_region")
    return calls


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes a store of four chunks along z."""
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 40)
    source = write_nifti(tmp_path / "dwi.nii", random_image(SHAPE))
    (tmp_path / "dwi.bval").write_text("0 1000 1000")
    (tmp_path / "dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0")

    def run(zarr_format=3, **options):
        inrstore.convert(source, tmp_path / "s.zarr", zarr_format=zarr_format, **(options or {"max_error": 2}))
        return tmp_path / "s.zarr"

    run.source = source
    return run


@FORMATS
def test_xarray_shows_named_dimensions_and_coordinates(make, zarr_format):
    store = make(zarr_format, lossless=True)
    for dataset in (
        xr.open_zarr(str(store)),
        xr.open_dataset(str(store), engine="zarr", chunks={}),
        inrstore.open(store),
    ):
        image = dataset["image"]
        assert image.dims == ("t", "z", "y", "x")
        assert image.dtype == np.dtype("int16")
        assert {"x", "y", "z", "t", "bval", "bvec"} <= set(dataset.coords)
        assert image.chunks == ((3,), (2, 2, 2, 2), (4,), (5,))
        assert dataset["x"].values.tolist() == [0, 2, 4, 6, 8]
        assert dataset["x"].attrs["units"] == "mm"
        assert dataset["bval"].values.tolist() == [0, 1000, 1000]
        assert dataset["bvec"].dims == ("t", "component")
        stored = nib.load(make.source).dataobj.get_unscaled().T
        assert np.array_equal(image.values, stored)
        picked = image.sel(z=6.0, method="nearest").isel(t=1)
        assert np.array_equal(picked.values, stored[1, 2])


@FORMATS
def test_opening_decodes_nothing_and_reading_only_what_is_touched(make, decoded, zarr_format):
    store = make(zarr_format)
    decoded.clear()
    dataset, opened = xr.open_zarr(str(store)), inrstore.open(store)
    image = zarr.open_group(str(store), mode="r")["image"]
    repr(dataset), repr(opened), image.info
    assert not decoded
    with dask.config.set(scheduler="synchronous"):
        opened["image"].isel(z=3).compute()
        assert len(decoded) == 1
        dataset["image"].isel(z=slice(2, 6)).compute()
        assert len(decoded) == 3
    image[0, 7]
    assert len(decoded) == 4


def test_the_dataset_carries_what_is_needed_to_use_it(make):
    store = make()
    dataset = inrstore.open(store)
    assert np.array_equal(dataset.attrs["affine"], nib.load(make.source).affine)
    assert dataset.attrs["scl_slope"] == 1.0
    assert dataset.attrs["quality"]["asked"] == {"max_error": 2.0}
    assert dataset["image"].attrs["scl_inter"] == 0.0
    assert set(dataset.data_vars) == {"image"}


def test_a_dataset_survives_pickling(make):
    dataset = inrstore.open(make())
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy["image"].values, dataset["image"].values)


def test_dask_gives_the_same_voxels_from_threads(make):
    store = make()
    once = zarr.open_group(str(store), mode="r")["image"][...]
    with dask.config.set(scheduler="threads", num_workers=2):
        assert np.array_equal(inrstore.open(store)["image"].data.compute(), once)


@FORMATS
def test_an_image_of_three_axes_has_no_time(tmp_path, zarr_format):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True, zarr_format=zarr_format)
    dataset = inrstore.open(tmp_path / "s.zarr")
    assert dataset["image"].dims == ("z", "y", "x")
    assert set(dataset.coords) == {"x", "y", "z"}


def test_a_fourth_axis_that_is_not_time_has_no_coordinate(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3, 2)), time="unknown")
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    assert "t" not in inrstore.open(tmp_path / "s.zarr").coords


def test_coordinates_are_in_millimetres_whatever_the_unit(tmp_path):
    for unit, factor in (("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)):
        source = write_nifti(tmp_path / f"{unit}.nii", random_image((5, 4, 3)), units=unit)
        inrstore.convert(source, tmp_path / f"{unit}.zarr", lossless=True)
        dataset = inrstore.open(tmp_path / f"{unit}.zarr")
        assert dataset["z"].values == pytest.approx(np.array([0, 3, 6]) * factor)
        assert dataset.attrs["units"]["space"] == unit


def test_a_store_without_a_chunk_is_not_opened(make, tmp_path):
    store = make()
    (store / "image/c/0/1/0/0").unlink()
    check_refused(lambda: inrstore.open(store), StoreError, "image/c/0/1/0/0", folder=tmp_path)


@pytest.mark.parametrize("package", ["xarray", "dask.array"])
def test_xarray_missing_says_what_to_install(make, tmp_path, monkeypatch, package):
    store = make()
    monkeypatch.setitem(sys.modules, package, None)
    check_refused(lambda: inrstore.open(store), MissingDependencyError, "inrstore[xarray]", folder=tmp_path)


def test_importing_imports_nothing_heavy():
    heavy = ("torch", "nibabel", "xarray", "dask", "matplotlib", "typer", "rich", "scipy")
    code = (
        "import sys, inrstore, inrstore.codecs.zarr\n"
        f"assert not set(sys.modules) & set({heavy!r}), sorted(sys.modules)\n"
        "import subprocess\nassert inrstore.__version__\nassert 'convert' in dir(inrstore)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    fast = f"import sys, inrstore\nassert not set(sys.modules) & set({('numpy', 'zarr', *heavy)!r})\n"
    subprocess.run([sys.executable, "-c", fast], check=True)


def test_public_names_exist():
    for name in inrstore.__all__:
        assert getattr(inrstore, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        inrstore.no_such_name  # noqa: B018
