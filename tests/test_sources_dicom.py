"""A folder of DICOM files becomes images; a file that is left out or harms is an error."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from common import DATA, check_refused, check_same_bits, real_scan, tree

from inrstore import files
from inrstore.errors import MissingDependencyError, SourceError
from inrstore.files.local import Folder
from inrstore.files.zips import ZipPlace
from inrstore.sources import dicom, read_image, read_source
from tools.forge import dicom_image

pytestmark = pytest.mark.skipif(find_spec("dcm2niix") is None, reason="reading DICOM needs dcm2niix")

real = pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason=f"the DICOM series are not at {DATA}")


def pixels(rows=8, columns=8):
    return np.arange(rows * columns, dtype="<u2").tobytes()


@pytest.fixture
def series(tmp_path):
    """A folder with one small DICOM image."""
    folder = tmp_path / "in/series"
    folder.mkdir(parents=True)
    (folder / "a.dcm").write_bytes(dicom_image(8, 8, 1, pixels()))
    return folder


def made_files(place, folder=""):
    with dicom.converted(place, folder) as made:
        return {entry.key: files.read(made, entry.key, 1 << 24) for entry in made.walk()}


@pytest.mark.real
@real
def test_the_series_of_a_real_scan_gives_its_voxels_and_gradients():
    scan = read_source(real_scan("sub-s03"))
    place = Folder(DATA / "dicom")
    assert dicom.is_dicom(place, "dwi_uih_explicitvrle")
    with dicom.converted(place, "dwi_uih_explicitvrle") as made:
        assert [entry.key for entry in made.walk()] == [f"series-12.{end}" for end in ("bval", "bvec", "json", "nii")]
        source = read_image(made, "series-12.nii")
        assert json.loads(files.read_text(made, "series-12.json", 1 << 20))["SeriesNumber"] == 12
        assert source.label == f"{DATA / 'dicom/dwi_uih_explicitvrle'}:series-12.nii"
    check_same_bits(source.voxels, scan.voxels)
    assert np.array_equal(source.bval, scan.bval)
    assert np.array_equal(source.bvec, scan.bvec)
    assert np.array_equal(source.affine, scan.affine)


@pytest.mark.real
@real
def test_a_series_packed_as_jpeg_2000_is_read():
    with dicom.converted(Folder(DATA / "dicom/ct_siemens_j2k_lossless"), "") as made:
        source = read_image(made, "series-0.nii")
    assert source.voxels.shape == (10, 512, 512)
    assert (source.voxels.min(), source.inter) == (0, -1024)


@pytest.mark.real
@real
def test_the_bytes_do_not_depend_on_the_folders_or_on_the_place(tmp_path, monkeypatch):
    original = DATA / "dicom/dwi_uih_explicitvrle"
    want = made_files(Folder(original))
    (tmp_path / "other temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other temporary"))
    moved = tmp_path / "a b; $(c)"
    moved.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in sorted(original.iterdir(), reverse=True):
            shutil.copyfile(path, moved / f"-o {path.name}")
            file.write(path, f"d/{path.name}")
    assert made_files(Folder(moved)) == want
    with ZipPlace(Folder(tmp_path), "x.zip") as place:
        assert made_files(place, "d") == want
    assert list((tmp_path / "other temporary").iterdir()) == []


def test_the_source_is_only_read_and_nothing_is_left(series, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = tree(tmp_path)
    made = made_files(Folder(series.parent), "series")
    assert sorted(made) == ["series-7.json", "series-7.nii"]
    assert tree(tmp_path) == before


def test_names_in_the_file_do_not_become_paths(series):
    (series / "a.dcm").write_bytes(dicom_image(8, 8, 1, pixels(), number=b"../../7"))
    assert all("/" not in name and name.startswith("series-") for name in made_files(Folder(series)))


def test_folders_below_are_others(series):
    place = Folder(series.parent)
    assert dicom.is_dicom(place, "series")
    assert not dicom.is_dicom(place, "")
    shutil.copytree(series, series / "below")
    assert list(dicom.dicom_files(place, "series")) == ["series/a.dcm"]
    assert len(made_files(place, "series")) == 2


def test_what_is_a_dicom_image_is_seen_from_the_file(series):
    place = Folder(series)
    data = (series / "a.dcm").read_bytes()
    for name in ("IM0001", "1.2.840.1", "x.IMA", "y.hdr"):
        (series / name).write_bytes(data)
    for name in ("a.nii", "a.nii.gz", "a.json", "a.txt"):
        (series / name).write_bytes(data)
    (series / "text").write_text("hello")
    (series / "empty").write_bytes(b"")
    for name, kind in (("report", b"1.2.840.10008.5.1.4.1.1.88.22"), ("DICOMDIR", b"1.2.840.10008.1.3.10")):
        (series / name).write_bytes(dicom_image(8, 8, 1, pixels(), kind=kind))
    assert sorted(dicom.dicom_files(place, "")) == ["1.2.840.1", "IM0001", "a.dcm", "x.IMA", "y.hdr"]
    assert not dicom.is_dicom_file(place, "missing")


# ---- errors ------------------------------------------------------------------------------------------------


def refused(folder, *words, kind=SourceError, **options):
    def convert():
        with dicom.converted(Folder(folder.parent), folder.name, **options):
            pass

    return check_refused(convert, kind, *words, folder=folder)


def test_a_folder_without_dicom_is_named(tmp_path):
    (tmp_path / "series").mkdir()
    refused(tmp_path / "series", str(tmp_path / "series"), "holds no DICOM image")


def test_a_damaged_file_is_an_error_that_says_what_dcm2niix_said(series):
    (series / "b.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 3000)
    refused(series, str(series), "dcm2niix", "corrupt")


def test_a_file_that_dcm2niix_leaves_out_is_an_error(series):
    (series / "b.dcm").write_bytes(dicom_image(8, 8, 1, pixels()))  # the same image again
    with pytest.raises(SourceError, match=r"dcm2niix.* of 2|dcm2niix: error"):
        made_files(Folder(series))


def test_a_conversion_that_takes_too_long_is_stopped(series):
    refused(series, str(series), "did not finish", timeout=0.0)


def test_a_file_cannot_fill_the_disk(series, monkeypatch):
    monkeypatch.setattr(dicom, "_ROOM", 300)
    monkeypatch.setattr(dicom, "_ROOM_PER_BYTE", 0)
    refused(series, str(series), "dcm2niix")


def test_limits_of_number_and_size(series, monkeypatch):
    monkeypatch.setattr(dicom.limits, "MAX_DICOM_BYTES", 100)
    refused(series, "more than 100 bytes")
    monkeypatch.setattr(dicom.limits, "MAX_DICOM_FILES", 0)
    refused(series, "more than 0 DICOM files")


def test_what_it_leaves_is_looked_at(tmp_path):
    def check(*words):
        with pytest.raises(SourceError) as caught:
            dicom._check_outputs("folder", tmp_path, 1000)
        assert all(word in str(caught.value) for word in words)

    check("made no image")
    (tmp_path / "a.nii").write_bytes(bytes(1000))
    dicom._check_outputs("folder", tmp_path, 1000)
    (tmp_path / "a.json").write_bytes(b"x")
    check("1001 bytes")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").symlink_to("/etc/passwd")
    check("a.json")
    (tmp_path / "a.json").unlink()
    (tmp_path / "-a\n.json").write_bytes(b"")
    check("-a\\n.json")


def test_dcm2niix_missing_says_what_to_install(series, monkeypatch):
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    refused(series, "inrstore[dicom]", kind=MissingDependencyError)


def test_no_defaults_of_a_user_are_taken(series, tmp_path, monkeypatch):
    want = made_files(Folder(series))
    (tmp_path / ".dcm2nii.ini").write_text("isGZ=1\nfilename=%f_%p\nisBIDS=0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert made_files(Folder(series)) == want
    assert Path(tmp_path / ".dcm2nii.ini").read_text().startswith("isGZ=1")
