"""What lies beside one image goes into its store, and comes out of it again byte for byte."""

from __future__ import annotations

import zipfile

import pytest
from common import check_refused, random_image, reseal, tree, write_nifti

import inrstore
from inrstore import limits
from inrstore.errors import DestinationExistsError, SourceError, StoreError
from inrstore.sources import read_source
from inrstore.store.reader import Store

TEXTS = {
    "json": b'{"EchoTime": 0.0890,\r\n "SeriesDescription": "caf\xe9"}\n\n',
    "bval": b"0 1.0e3  1000\t2000.00 \n",
    "bvec": b"0 1 0 0\n0 0 1 0\n0 0 0 -0.70700",
}


@pytest.fixture
def dwi(tmp_path):
    """A 4-D image with all its sidecars."""
    (tmp_path / "in").mkdir()
    path = write_nifti(tmp_path / "in/x_dwi.nii.gz", random_image((5, 4, 3, 4)))
    for ending, text in TEXTS.items():
        (tmp_path / f"in/x_dwi.{ending}").write_bytes(text)
    return path


@pytest.mark.parametrize("store", ["s.ozx", "s.zarr"])
def test_sidecars_of_one_image_come_back_byte_for_byte(tmp_path, dwi, store):
    inrstore.convert(dwi, tmp_path / store, lossless=True)
    (tmp_path / "out").mkdir()
    report = inrstore.export(tmp_path / store, tmp_path / "out/y.nii")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["y.bval", "y.bvec", "y.json", "y.nii"]
    for ending, text in TEXTS.items():
        assert (tmp_path / f"out/y.{ending}").read_bytes() == text
    assert report.file_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())


def test_sidecars_of_format_2_come_back_too(tmp_path, dwi):
    inrstore.convert(dwi, tmp_path / "s.zarr", lossless=True, zarr_format=2)
    assert Store(tmp_path / "s.zarr").sidecars() == {f".{ending}": text for ending, text in TEXTS.items()}
    assert inrstore.verify(tmp_path / "s.zarr")
    assert inrstore.open(tmp_path / "s.zarr").bval.shape == (4,)


def test_gradients_under_other_names_get_the_usual_ones(tmp_path, dwi):
    for word in ("bval", "bvec"):
        dwi.with_name(f"x_dwi.{word}").rename(dwi.with_name(f"{word}s"))
    inrstore.convert(dwi, tmp_path / "s.ozx", lossless=True)
    assert Store(tmp_path / "s.ozx").sidecars() == {f".{ending}": text for ending, text in TEXTS.items()}


def test_an_image_without_volumes_keeps_what_bears_its_name(tmp_path):
    path = write_nifti(tmp_path / "b0.nii", random_image((5, 4, 3)))
    path.with_name("b0.bval").write_bytes(b"0\n")
    path.with_name("bvecs").write_bytes(b"0 0 0\n")
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    assert Store(tmp_path / "s.ozx").sidecars() == {".bval": b"0\n"}


def test_a_store_without_sidecars_is_as_before(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    path.with_name("a.json").write_bytes(b"")
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    assert not any("sidecars" in name for name in zipfile.ZipFile(tmp_path / "s.ozx").namelist())
    inrstore.export(tmp_path / "s.ozx", tmp_path / "b.nii")
    assert not list(tmp_path.glob("b.[!n]*"))


@pytest.mark.parametrize("ending", TEXTS)
def test_a_sidecar_that_is_there_is_not_replaced(tmp_path, dwi, ending):
    inrstore.convert(dwi, tmp_path / "s.ozx", lossless=True)
    (tmp_path / "out").mkdir()
    there = tmp_path / f"out/y.{ending}"
    there.write_text("somebody's")
    words = (str(there), "exists already")
    check_refused(lambda: inrstore.export(tmp_path / "s.ozx", tmp_path / "out/y.nii"), DestinationExistsError, *words,
                  folder=tmp_path / "out")  # fmt: skip


def test_a_sidecar_that_is_too_large_is_named(tmp_path, dwi, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", 100)
    dwi.with_name("x_dwi.json").write_bytes(b" " * 101)
    words = (str(dwi.with_name("x_dwi.json")), "100")
    check_refused(
        lambda: inrstore.convert(dwi, tmp_path / "s.ozx", lossless=True), SourceError, *words, folder=tmp_path
    )


def test_an_archive_has_sidecars_as_files_alone(tmp_path, dwi):
    before = tree(tmp_path / "in")
    inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True)
    assert Store(tmp_path / "archive/x_dwi.ozx").sidecars() == {}
    inrstore.export(tmp_path / "archive", tmp_path / "out")
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in after if "nii" not in name} == {
        name: before[name] for name in before if "nii" not in name
    }
    assert not read_source(dwi).sidecars


@pytest.mark.parametrize(
    "files",
    [None, [], {"/../../evil": 10}, {".json": -1}, {".json": 1 << 40}, {".json": True}, {".json": 3}, {".txt": 5}],
)
def test_what_a_forged_store_says_of_its_sidecars_is_not_believed(tmp_path, dwi, files):
    inrstore.convert(dwi, tmp_path / "s.zarr", lossless=True)
    arrays = ("attributes", "inrstore")

    def forge(document):
        assert arrays[0] in document
        document["consolidated_metadata"]["metadata"]["sidecars"]["attributes"]["files"] = files

    reseal(tmp_path / "s.zarr", forge)
    (tmp_path / "out").mkdir()
    check_refused(lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / "out/y.nii"), StoreError, "sidecars: files",
                  folder=tmp_path)  # fmt: skip


def test_a_sidecar_that_was_changed_in_a_store_is_refused(tmp_path, dwi):
    inrstore.convert(dwi, tmp_path / "s.zarr", lossless=True)
    chunk = tmp_path / "s.zarr/sidecars/c/0"
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match="sidecars/c/0 was changed"):
        inrstore.export(tmp_path / "s.zarr", tmp_path / "y.nii")
    with pytest.raises(StoreError, match="sidecars/c/0 was changed"):
        inrstore.verify(tmp_path / "s.zarr")
