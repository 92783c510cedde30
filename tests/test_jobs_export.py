"""An export gives back what an archive was made from: trees, BIDS datasets, zips."""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from archives import bids_dataset, bulk_zip, make_archive, small_tree, unpacked, write_pair, write_tree
from common import DATA, check_refused, random_image, real_scan, tree, write_nifti
from servers import needs_moto, s3_server

from inrstore import files
from inrstore.archive.export import export_archive
from inrstore.archive.manifest import MANIFEST, read_manifest, write_manifest
from inrstore.archive.verify import verify_archive
from inrstore.errors import ConfigurationError, CorruptChunkError, DestinationExistsError, StoreError, WriteError
from inrstore.files.local import Folder
from inrstore.store import manifest


def members(path):
    """Return what a zip says of each member, in its order, and the unpacked data."""
    out = []
    with zipfile.ZipFile(path) as packed:
        for info in packed.infolist():
            data = packed.read(info)
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            names = ("filename", "date_time", "compress_type", "external_attr", "internal_attr", "create_system",
                     "create_version", "extra", "comment")  # fmt: skip
            out.append((*(getattr(info, name) for name in names), info.is_dir(), data))
        return out, packed.comment


def test_a_tree_comes_back_byte_for_byte(tmp_path):
    source = small_tree(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive")
    before = tree(archive)
    report = export_archive(archive, tmp_path / "out")
    assert unpacked(tmp_path / "out") == unpacked(source)
    assert tree(archive) == before
    assert (report.images, report.files, report.zips) == (3, 5, 0)
    assert report.file_bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert json.loads(json.dumps(report.to_dict()))["out"] == str(tmp_path / "out")


def test_a_lossy_tree_comes_back_with_its_headers(tmp_path):
    source = small_tree(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive", max_error=3.0)
    export_archive(archive, tmp_path / "out")
    one, other = (nib.load(folder / "a/one.nii.gz") for folder in (source, tmp_path / "out"))
    start = int(one.dataobj.offset)
    raw = [gzip.decompress((folder / "a/one.nii.gz").read_bytes()) for folder in (source, tmp_path / "out")]
    assert raw[0][:start] == raw[1][:start]
    assert 0 < np.abs(one.dataobj.get_unscaled() - other.dataobj.get_unscaled()).max() <= 3


def test_a_bids_dataset_gets_its_description_back(tmp_path):
    source = bids_dataset(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive")
    assert (archive / ".bidsignore").exists()
    export_archive(archive, tmp_path / "out")
    assert unpacked(tmp_path / "out") == unpacked(source)


def test_a_bidsignore_comes_back_as_it_was(tmp_path):
    source = bids_dataset(tmp_path / "in")
    (source / ".bidsignore").write_bytes(b"extra/")
    archive = make_archive(source, tmp_path / "archive")
    export_archive(archive, tmp_path / "out")
    assert (tmp_path / "out/.bidsignore").read_bytes() == b"extra/"


def test_a_zip_is_rebuilt(tmp_path):
    source = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    archive = make_archive(source, tmp_path / "archive")
    report = export_archive(archive, tmp_path / "back.zip")
    assert members(tmp_path / "back.zip") == members(source)
    assert (report.images, report.files, report.zips, report.left_out) == (2, 4, 1, 0)
    export_archive(archive, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "back.zip").read_bytes()


def test_the_archive_of_a_zip_can_become_a_folder(tmp_path):
    source = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    archive = make_archive(source, tmp_path / "archive")
    export_archive(archive, tmp_path / "out")
    found = unpacked(tmp_path / "out")
    assert found == {name: data for name, *_, folder, data in members(source)[0] if not folder}


def test_zips_in_a_tree_are_rebuilt_where_they_were(tmp_path):
    source = write_tree(tmp_path / "in", {"list.csv": b"1,2\n"})
    one = bulk_zip(source / "a/100_20250_2_0.zip", tmp_path / "scratch")
    other = bulk_zip(source / "101_20250_2_0.ZIP", tmp_path / "scratch")
    archive = make_archive(source, tmp_path / "archive")
    export_archive(archive, tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")) == [
        "101_20250_2_0.ZIP", "a", "a/100_20250_2_0.zip", "list.csv"
    ]  # fmt: skip
    for path in (one, other):
        assert members(tmp_path / "out" / path.relative_to(source)) == members(path)


@pytest.mark.parametrize("first", ["hdr", "img"])
def test_a_pair_in_a_zip_comes_back_as_a_pair(tmp_path, first):
    header = write_pair(tmp_path / "scratch/pair.hdr", random_image((4, 3, 2)))
    source = tmp_path / "pairs.zip"
    with zipfile.ZipFile(source, "w") as packed:
        last = "img" if first == "hdr" else "hdr"
        packed.write(header.with_suffix(f".{first}"), f"x/pair.{first}")
        packed.writestr("x/z.txt", b"between")
        packed.write(header.with_suffix(f".{last}"), f"x/pair.{last}")
    archive = make_archive(source, tmp_path / "archive")
    assert (archive / "x/pair.ozx").is_file()
    report = export_archive(archive, tmp_path / "back.zip")
    assert members(tmp_path / "back.zip") == members(source)
    assert (report.images, report.files, report.left_out) == (1, 1, 0)


def test_members_that_were_excluded_are_counted(tmp_path):
    source = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    archive = make_archive(source, tmp_path / "archive", exclude=["**/bv*"])
    report = export_archive(archive, tmp_path / "back.zip")
    assert report.left_out == 2
    names = [name for name, *_ in members(tmp_path / "back.zip")[0]]
    assert names == [name for name, *_ in members(source)[0] if "bv" not in name]


@pytest.mark.parametrize("glob, names", [("**/*.nii*", {"a/one.nii.gz", "b/dwi.nii"}),
                                         ("b/*", {"b/dwi.nii", "b/dwi.bval", "b/dwi.bvec", "b/dwi.json"})])  # fmt: skip
def test_only_what_is_included_is_written(tmp_path, glob, names):
    source = small_tree(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive")
    export_archive(archive, tmp_path / "out", include=[glob])
    assert set(unpacked(tmp_path / "out")) == names


def test_globs_that_nothing_fits_are_an_error(tmp_path):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    check_refused(
        lambda: export_archive(archive, tmp_path / "out", include=["*.mgz"]),
        ConfigurationError, "*.mgz", folder=tmp_path,
    )  # fmt: skip


def test_an_existing_destination_is_not_touched(tmp_path):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    (tmp_path / "out").mkdir()
    check_refused(lambda: export_archive(archive, tmp_path / "out"), DestinationExistsError, "out", folder=tmp_path)


def test_a_destination_that_cannot_be_written_is_named(tmp_path):
    archive = make_archive(bulk_zip(tmp_path / "1.zip", tmp_path / "scratch"), tmp_path / "archive")
    check_refused(lambda: export_archive(archive, tmp_path / "no/o.zip"), WriteError, "o.zip", folder=tmp_path)
    (tmp_path / "file").write_text("x")
    check_refused(lambda: export_archive(archive, tmp_path / "file/o"), WriteError, "file/o", folder=tmp_path)


def test_a_tree_does_not_become_a_zip(tmp_path):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    check_refused(lambda: export_archive(archive, tmp_path / "o.zip"), ConfigurationError, "one zip", folder=tmp_path)
    check_refused(lambda: export_archive(archive, "s3://b/o"), ConfigurationError, "this machine", folder=tmp_path)


@pytest.mark.parametrize("kind", ["tree", "zip"])
def test_a_damaged_archive_leaves_nothing(tmp_path, kind):
    if kind == "zip":
        source = bulk_zip(tmp_path / "in/1.zip", tmp_path / "scratch")
        damaged = {
            "dMRI/dMRI/bvals": b"0 2000\n",
            "dMRI/dMRI/data.zarr/image/c/0/0/0/0": b"",
            ".inrstore/zips/1.zip.json": b"{}",
        }
    else:
        source = small_tree(tmp_path / "in")
        damaged = {"a/notes.txt": b"two lines\nof TEXT\n", "b/dwi.zarr/image/c/0/0/0/0": b""}
    archive = make_archive(source, tmp_path / "archive", store="zarr")
    out = tmp_path / ("o.zip" if kind == "zip" else "o")
    for name, data in damaged.items():
        before = (archive / name).read_bytes()
        (archive / name).write_bytes(data)
        left = tree(tmp_path)
        with pytest.raises((StoreError, CorruptChunkError), match=name.split("/")[-1].split(".")[0]):
            export_archive(archive, out)
        assert tree(tmp_path) == left
        (archive / name).unlink()
        with pytest.raises(StoreError):
            export_archive(archive, out)
        (archive / name).write_bytes(before)
    export_archive(archive, out)


def test_an_incomplete_archive_is_refused(tmp_path):
    archive = make_archive(bulk_zip(tmp_path / "1.zip", tmp_path / "scratch"), tmp_path / "archive")
    (archive / MANIFEST).unlink()
    for out in ("o.zip", "o"):
        check_refused(
            lambda out=out: export_archive(archive, tmp_path / out), StoreError, "incomplete", folder=tmp_path
        )


@pytest.mark.parametrize("field", ["out", "key"])
def test_names_that_lead_out_are_refused(tmp_path, field):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    place = Folder(archive)
    write_manifest(place, [replace(line, **{field: "../outside"}) for line in read_manifest(place)])
    check_refused(lambda: export_archive(archive, tmp_path / "o"), StoreError, "no path inside", folder=tmp_path)


FORGED = [{"out": "../in/a"}, {"date_time": [1, 2]}, {"name": None}, {"name": ""}, {"extra": "?"},
          {"compress_type": 77}, {"date_time": [2200, 1, 1, 0, 0, 0]}, {"create_system": -1}]  # fmt: skip


@pytest.mark.parametrize("change", FORGED, ids=str)
def test_a_forged_record_of_a_zip_is_refused(tmp_path, change):
    archive = make_archive(bulk_zip(tmp_path / "1.zip", tmp_path / "scratch"), tmp_path / "archive")
    path = archive / ".inrstore/zips/1.zip.json"
    document = json.loads(path.read_text())
    document["members"][2] |= change
    path.write_text(json.dumps(document))
    place = Folder(archive)
    data = path.read_bytes()
    write_manifest(place, [
        replace(line, bytes=len(data), digest=manifest.digest(data)) if line.kind == "record" else line
        for line in read_manifest(place)
    ])  # fmt: skip
    check_refused(lambda: export_archive(archive, tmp_path / "o.zip"), StoreError, folder=tmp_path)


def test_names_in_capitals_come_back(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    write_nifti(source / "a.nii", random_image((4, 3, 2))).rename(source / "A.NII")
    write_nifti(source / "b.nii.gz", random_image((4, 3, 2))).rename(source / "B.Nii.GZ")
    write_pair(source / "c.hdr", random_image((4, 3, 2))).rename(source / "C.HDR")
    (source / "c.img").rename(source / "C.IMG")
    archive = make_archive(source, tmp_path / "archive")
    export_archive(archive, tmp_path / "out")
    assert unpacked(tmp_path / "out") == unpacked(source)


@pytest.mark.real
def test_a_dicom_series_comes_back_as_the_scan_that_it_is(tmp_path):
    pytest.importorskip("dcm2niix")
    series = DATA / "dicom/dwi_uih_explicitvrle"
    scan = real_scan("sub-s03")
    archive = make_archive(series, tmp_path / "archive")
    export_archive(archive, tmp_path / "out")
    (image,) = (tmp_path / "out").glob("*.nii*")
    one, other = nib.load(image), nib.load(scan)
    assert np.array_equal(one.dataobj.get_unscaled(), other.dataobj.get_unscaled())
    for end in (".bval", ".bvec"):
        stem = str(image).removesuffix(".gz").removesuffix(".nii")
        assert np.allclose(np.loadtxt(stem + end), np.loadtxt(str(scan).removesuffix(".nii.gz") + end), atol=1e-4)


@pytest.fixture
def s3(tmp_path_factory, monkeypatch):
    with s3_server(tmp_path_factory.mktemp("server")) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@needs_moto
def test_an_archive_in_a_bucket_is_verified_and_exported(tmp_path, s3):
    source = small_tree(tmp_path / "in")
    bulk_zip(source / "1_20250_2_0.zip", tmp_path / "scratch")
    where = f"{s3.bucket()}/archives/first"
    make_archive(source, where)
    report = verify_archive(where, source)
    assert (report.stores, report.files, report.extra_count) == (5, 10, 0)
    verify_archive(where, fast=True)
    export_archive(where, tmp_path / "out", include=["a/*", "*.zip"])
    found = unpacked(tmp_path / "out")
    assert set(found) == {"a/one.nii.gz", "a/notes.txt", "1_20250_2_0.zip"}
    assert members(tmp_path / "out/1_20250_2_0.zip") == members(source / "1_20250_2_0.zip")
    files.place(where).write("a/notes.txt", b"two lines\nof TEXT\n")
    check_refused(lambda: verify_archive(where), StoreError, "a/notes.txt", "1 of 15", folder=tmp_path)
