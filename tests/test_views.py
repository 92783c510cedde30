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
from common import check_refused, patch_header, random_image, write_nifti

import inrstore
from inrstore.errors import MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.views import backend, scaled

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
    assert np.array_equal(np.reshape(dataset.attrs["affine"], (4, 4)), nib.load(make.source).affine)
    assert dataset.attrs["scl_slope"] == 1.0
    assert dataset.attrs["quality_asked_max_error"] == 2.0
    assert dataset["image"].attrs["scl_inter"] == 0.0
    assert set(dataset.data_vars) == {"image"}


@FORMATS
def test_attributes_are_what_every_netcdf_file_holds(make, zarr_format):
    dataset = inrstore.open(make(zarr_format))
    for about in (dataset.attrs, *(v.attrs for v in dataset.variables.values())):
        assert "coordinates" not in about  # reserved by CF
        for name, value in about.items():
            parts = value if isinstance(value, list) else [value]
            assert parts and all(type(p) in (str, int, float) for p in parts), name
            assert len({type(p) for p in parts}) == 1 and all(abs(p) < 1 << 31 for p in parts if type(p) is int)
    assert dataset["bval"].attrs["units"] == "s/mm2" and dataset["t"].attrs["units"] == "s"
    assert "FSL" in dataset["bvec"].attrs["frame"]
    assert backend.plain({"a": {"b": {"c": True}, "d": None}, "e": [], "f": 1 << 40, "g": [[1], [2]]}) == {
        "a_b_c": 1, "f": float(1 << 40), "g": [1, 2]
    }  # fmt: skip


@FORMATS
@pytest.mark.parametrize("engine", ["netCDF4", "h5netcdf", "scipy"])
def test_a_netcdf_file_of_it_reads_back_the_same(make, tmp_path, zarr_format, engine):
    pytest.importorskip(engine)
    dataset = inrstore.open(make(zarr_format))
    dataset.to_netcdf(tmp_path / "a.nc", engine=engine.lower())
    with xr.open_dataset(tmp_path / "a.nc", engine=engine.lower()) as again:
        assert again.drop_attrs().equals(dataset.drop_attrs())
        assert set(again.coords) == set(dataset.coords) and again["image"].dtype == np.int16
        for name, value in dataset.attrs.items():
            assert np.array_equal(again.attrs[name], value), name


@FORMATS
@pytest.mark.parametrize(
    "change",
    [lambda d: d, lambda d: d.isel(t=0), lambda d: d.isel(t=slice(1, None)), lambda d: d.transpose(..., "t"),
     lambda d: d.isel(t=[2, 0, 1])],
)  # fmt: skip
def test_a_copy_of_a_lossy_store_loses_nothing_more(make, tmp_path, zarr_format, change):
    dataset = change(inrstore.open(make(zarr_format, psnr=30)))
    dataset.to_zarr(tmp_path / "copy.zarr", zarr_format=zarr_format, consolidated=False)
    again = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)
    assert np.array_equal(again["image"].values, dataset["image"].values)
    assert "inrstore" not in str(zarr.open_array(tmp_path / "copy.zarr/image").metadata.to_dict()).lower()


# ---- real values -------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("slope, inter", [(1.0, 0.0), (0.5, -1024.0), (-3.25, 0.0), (0.1, 1e-3)])
def test_scaled_values_are_those_of_nibabel(tmp_path, zarr_format, slope, inter):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8, 3)))
    patch_header(source, scl_slope=slope, scl_inter=inter)
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True, zarr_format=zarr_format)
    dataset, stored = inrstore.open(tmp_path / "s.zarr", scaled=True), inrstore.open(tmp_path / "s.zarr")
    image = dataset["image"]
    assert image.dtype == np.float32 and image.chunks == stored["image"].chunks
    assert np.array_equal(image.values, nib.load(source).get_fdata().T.astype(np.float32))
    assert np.array_equal(image.isel(t=1, z=[5, 2]).values, image.values[1, [5, 2]])
    assert image.attrs["scl_slope"] == pytest.approx(slope) and image.attrs["values"].startswith("real")
    assert stored["image"].dtype == np.int16 and stored["image"].attrs["values"].startswith("stored")
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))["image"].values, image.values)


def test_scaling_decodes_no_more_than_reading_does(make, decoded):
    store = make()
    decoded.clear()
    image = inrstore.open(store, scaled=True)["image"]
    assert not decoded
    with dask.config.set(scheduler="synchronous"):
        image.isel(z=3).compute()
    assert len(decoded) == 1


@pytest.mark.parametrize(
    "stored, slope, inter, dtype",
    [("i2", 0.5, 3.0, "f4"), ("u1", 1.0, 0.0, "f4"), ("f2", 2.0, 0.0, "f4"), ("f4", 1.0, 0.0, "f4"),
     ("f4", 2.0, 0.0, "f8"), ("i4", 1.0, 0.0, "f8"), ("f8", 1.0, 0.0, "f8"), ("i2", 1e35, 0.0, "f8"),
     ("i2", 1e-40, 0.0, "f8")],
)  # fmt: skip
def test_real_values_are_single_where_that_rounds_once(stored, slope, inter, dtype):
    assert scaled.dtype_of(np.dtype(stored), slope, inter) == np.dtype(dtype)


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
        assert dataset.attrs["units_space"] == unit


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
