"""An image of nibabel, a Dataset of xarray, a file of fsspec: each is what it would be of the exported file, lazily."""

from __future__ import annotations

import importlib
import pickle
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from archives import make_archive, write_pair
from common import ROOT, check_refused, random_image, write_nifti
from test_sources_cifti import series, write_cifti
from test_sources_mgh import HISTORY, write_mgh
from test_sources_nrrd import SPACE, write_nrrd

import inrstore
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.reader import Store
from inrstore.views.content import Voxels


@pytest.fixture
def frames(monkeypatch):
    """The chunks of which the frames were read; no other than what is asked for."""
    monkeypatch.setattr(Voxels, "_decode_ahead", lambda self, place: None)
    asked: list[tuple[int, ...]] = []
    original = Store.frame
    monkeypatch.setattr(Store, "frame", lambda self, index: asked.append(index) or original(self, index))
    return asked


def write_pair2(path: Path) -> Path:
    image = nib.Nifti2Pair(random_image((4, 3, 5)), np.diag([2, 3, 4, 1]))
    image.to_filename(path)
    return path


IMAGES = {
    "a.nii": lambda path: write_nifti(path, random_image((5, 4, 6, 3)), slope=2.5, extension=b"kept"),
    "a.nii.gz": lambda path: write_nifti(path, random_image((5, 4, 6), "float32"), order=">"),
    "two.nii": lambda path: write_nifti(path, random_image((5, 4, 6, 2)), version=2),
    "pair.hdr": lambda path: write_pair(path, random_image((4, 3, 5), "uint8")),
    "pair2.hdr": write_pair2,
    "brain.mgz": lambda path: write_mgh(path, random_image((5, 4, 3), "u1"), HISTORY, tr=2300),
    "m.dtseries.nii": lambda path: write_cifti(path, series(6, 40)),
}
CLASSES = {"a.nii": "Nifti1Image", "two.nii": "Nifti2Image", "pair.hdr": "Nifti1Pair", "pair2.hdr": "Nifti2Pair",
           "brain.mgz": "MGHImage", "m.dtseries.nii": "Cifti2Image", "a.nii.gz": "Nifti1Image"}  # fmt: skip


# nibabel


@pytest.mark.parametrize("name", IMAGES)
def test_a_store_loads_as_nibabel_loads_its_source(tmp_path, small, name):
    path = IMAGES[name](tmp_path / name)
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    image, expected = inrstore.load(tmp_path / "s.ozx"), nib.load(path)
    assert type(image).__name__ == type(expected).__name__ == CLASSES[name]
    assert image.header == expected.header and image.shape == expected.shape
    assert image.get_data_dtype() == expected.get_data_dtype() and nib.is_proxy(image.dataobj)
    if image.ndim != 2:
        assert np.array_equal(image.affine, expected.affine)
        part, wanted = image.slicer[1:3, :, 2:], expected.slicer[1:3, :, 2:]
        assert np.array_equal(part.get_fdata(), wanted.get_fdata()) and np.array_equal(part.affine, wanted.affine)
    assert np.array_equal(np.asanyarray(image.dataobj[1]), np.asanyarray(expected.dataobj[1]))
    assert np.array_equal(image.get_fdata(), expected.get_fdata())
    assert image.get_fdata(dtype=np.float32).dtype == np.float32
    saved = tmp_path / f"saved.{name.partition('.')[2]}"
    nib.save(image, saved)
    wanted_file = tmp_path / f"wanted.{name.partition('.')[2]}"
    nib.save(expected, wanted_file)  # nibabel scales anew
    assert np.array_equal(nib.load(saved).get_fdata(), nib.load(wanted_file).get_fdata())
    copy = pickle.loads(pickle.dumps(image))
    assert np.array_equal(copy.dataobj[..., 1], expected.dataobj[..., 1])


def test_real_values_are_scaled_as_by_nibabel(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 6)), slope=2.5)
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    image = inrstore.load(tmp_path / "s.ozx")
    assert image.dataobj.slope == 2.5 and image.get_fdata().dtype == np.float64
    assert np.array_equal(image.dataobj.get_unscaled(), random_image((5, 4, 6)))


@pytest.mark.parametrize("kinds", [None, "vector domain domain domain"])
def test_an_nrrd_loads_with_the_affine_and_axes_of_its_store(tmp_path, small, kinds):
    values = random_image((3, 4, 5, 6) if kinds else (4, 5, 6), ">i2")
    fields = {**SPACE, "kinds": kinds}
    if kinds:
        fields["space directions"] = f"none {SPACE['space directions']}"
    path = write_nrrd(tmp_path / "a.nrrd", values, **fields)
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    image = inrstore.load(tmp_path / "s.ozx")
    assert type(image) is nib.Nifti1Image and np.allclose(image.affine, inrstore_affine(tmp_path / "s.ozx"))
    assert np.array_equal(np.asarray(image.dataobj), np.moveaxis(values, 0, -1) if kinds else values)
    copy = pickle.loads(pickle.dumps(image))
    assert np.array_equal(copy.get_fdata(), image.get_fdata())


def inrstore_affine(store: Path) -> np.ndarray:
    return np.reshape(inrstore.open(store).attrs["affine"], (4, 4))


def test_a_slice_of_the_data_decodes_the_chunks_that_it_touches(tmp_path, small, frames):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8, 3)))
    inrstore.convert(path, tmp_path / "s.zarr", lossless=True)
    frames.clear()
    image = inrstore.load(tmp_path / "s.zarr")
    assert frames == []
    course = image.dataobj[2, 1, 5]
    assert course.tolist() == random_image((5, 4, 8, 3))[2, 1, 5].tolist() and len(frames) == 1
    image.slicer[:, :, 5:6].get_fdata()
    assert len(set(frames)) == 1
    image.get_fdata()
    assert set(frames) == set(Store(tmp_path / "s.zarr").grid)


def test_an_image_of_an_archive_is_named_as_in_the_source_or_the_archive(tmp_path):
    source = tmp_path / "in"
    (source / "sub-01/anat").mkdir(parents=True)
    write_nifti(source / "sub-01/anat/sub-01_T1w.nii.gz", random_image((5, 4, 3)))
    (source / "notes.txt").write_text("text")
    archive = make_archive(source, tmp_path / "archive")
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.ozx"):
        assert np.array_equal(inrstore.load(archive, name).get_fdata(), random_image((5, 4, 3)))
    for name, words in [("", "say which image"), ("sub-02", "has no image sub-02"), ("notes.txt", "has no image"),
                        ("sub-01", "has no image")]:  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            inrstore.load(archive, name)
    with pytest.raises(ConfigurationError, match="is a store of one image"):
        inrstore.load(archive / "sub-01/anat/sub-01_T1w.ozx", "x")
    (archive / "sub-01/anat/sub-01_T1w.ozx").write_bytes(b"")
    with pytest.raises(StoreError):
        inrstore.load(archive, "sub-01/anat/sub-01_T1w.nii")


def test_a_chunk_that_is_missing_is_an_error_when_it_is_needed(tmp_path, small):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8)))
    inrstore.convert(path, tmp_path / "s.zarr", lossless=True)
    sorted(path for path in (tmp_path / "s.zarr/image/c").rglob("*") if path.is_file())[-1].unlink()
    image = inrstore.load(tmp_path / "s.zarr")
    assert np.array_equal(image.dataobj[..., 0], random_image((5, 4, 8))[..., 0])
    with pytest.raises(OSError, match="is missing"):
        image.get_fdata()


def test_without_nibabel_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingDependencyError, match=r"inrstore\[nifti\]"):
        inrstore.load(tmp_path / "s.ozx")


# xarray


def test_the_engine_opens_stores_members_and_image_files(tmp_path, monkeypatch):
    xr = pytest.importorskip("xarray")
    from inrstore.views.engine import InrstoreBackend

    for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
        monkeypatch.setattr(layout, name, 40)
    (tmp_path / "in").mkdir()
    path = write_nifti(tmp_path / "in/dwi.nii", random_image((5, 4, 8, 3)), slope=0.5)
    (tmp_path / "in/dwi.bval").write_text("0 1000 1000\n")
    (tmp_path / "in/dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    expected = inrstore.open(archive / "dwi.ozx")
    for where, options in [(archive / "dwi.ozx", {}), (archive, {"member": "dwi.nii"}), (path, {})]:
        for scaled in (False, True):
            found = xr.open_dataset(where, engine=InrstoreBackend, scaled=scaled, **options)
            wanted = inrstore.open(archive / "dwi.ozx", scaled=scaled)
            xr.testing.assert_equal(found, wanted)
            assert found.image.dtype == wanted.image.dtype and found.image.attrs == wanted.image.attrs
            own = {name: value for name, value in wanted.attrs.items() if where != path or name[:7] != "quality"}
            assert found.attrs == own
            for name in wanted.coords:
                assert found[name].attrs == wanted[name].attrs and found[name].dtype == wanted[name].dtype
    lazy = xr.open_dataset(archive / "dwi.ozx", engine=InrstoreBackend, drop_variables=["bvec"])
    assert "bvec" not in lazy.variables and "bval" in lazy.variables
    assert xr.open_dataset(archive / "dwi.ozx", engine=InrstoreBackend, chunks={}).image.chunks == expected.image.chunks
    lazy.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    with pytest.raises(ConfigurationError, match="no image 'nothing'"):
        xr.open_dataset(archive, engine=InrstoreBackend, member="nothing")
    with pytest.raises(ConfigurationError, match="a path or a URL"):
        xr.open_dataset(b"bytes", engine=InrstoreBackend)
    guess = InrstoreBackend().guess_can_open
    assert guess("a/b.ozx") and not guess("b.zarr") and not guess("b.nii") and not guess(b"")


# fsspec


@pytest.fixture
def inr(monkeypatch):
    """Fsspec with the protocol, as an installed package has it."""
    fsspec = pytest.importorskip("fsspec")
    from inrstore.views.fsspec import InrFileSystem

    fsspec.register_implementation("inr", InrFileSystem, clobber=True)
    InrFileSystem.clear_instance_cache()
    return fsspec


def test_fsspec_opens_what_is_in_an_archive(tmp_path, inr):
    (tmp_path / "in/b").mkdir(parents=True)
    path = write_nifti(tmp_path / "in/b/a.nii", random_image((5, 4, 3)))
    (tmp_path / "in/table.tsv").write_text("name\tage\none\t31\n")
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    with inr.open(f"inr://table.tsv::{archive}", "rt") as file:
        assert file.read() == "name\tage\none\t31\n"
    with inr.open(f"inr://b/a.nii::file://{archive}") as file:
        assert file.read() == path.read_bytes()
    files = inr.filesystem("inr", fo=str(archive))
    assert files.find("") == ["b/a.nii", "table.tsv"] and files.glob("*/*.nii") == ["b/a.nii"]
    assert files.ls("", detail=False) == ["b", "table.tsv"] and files.ls("table.tsv", detail=False) == ["table.tsv"]
    size = path.stat().st_size
    assert files.info("b/a.nii") == {"name": "b/a.nii", "size": size, "type": "file"}
    assert files.isdir("b") and not files.exists("b/nothing") and files.size("b/a.nii") == size
    assert files.cat_file("b/a.nii", 10, 20) == path.read_bytes()[10:20]
    assert files.cat_file("b/a.nii", -5) == path.read_bytes()[-5:]
    files.get("b", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy/a.nii").read_bytes() == path.read_bytes()
    assert files.modified("b").year >= 2024 and files.created("b") == files.modified("b")
    with pytest.raises(OSError, match="only be read"):
        files.open("b/new", "wb")
    with pytest.raises(FileNotFoundError):
        files.info("b/nothing")
    with pytest.raises(ConfigurationError, match="say which archive"):
        inr.filesystem("inr")
    packed = inr.filesystem("inr", fo=str(archive / "b/a.ozx"), gz=True)
    assert packed.ls("", detail=False) == ["a.nii"]
    # A copy, as dask sends one, opens the archive again.
    assert pickle.loads(pickle.dumps(files)).cat_file("table.tsv") == b"name\tage\none\t31\n"


def test_pandas_reads_a_table_of_an_archive(tmp_path, inr):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/table.tsv").write_text("name\tage\none\t31\n")
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    assert pandas.read_csv(f"inr://table.tsv::{archive}", sep="\t").age.tolist() == [31]


# The package


def test_plug_ins_are_where_the_package_says(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in ("xarray.backends", "fsspec.specs"):
        for target in project["entry-points"][group].values():
            name, _, attribute = target.partition(":")
            pytest.importorskip(group.split(".")[0])
            assert isinstance(getattr(importlib.import_module(name), attribute), type)
    assert {"mount", "fsspec"} <= project["optional-dependencies"].keys()


def test_a_damaged_header_is_an_error_that_names_the_store(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    monkeypatch.setattr(Store, "header", lambda self: bytes(352))
    check_refused(lambda: inrstore.load(tmp_path / "s.ozx"), StoreError, "s.ozx", "nibabel", folder=tmp_path)
