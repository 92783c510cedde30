"""An archive that passes is whole; whatever is missing, changed or different from the source is named."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from dataclasses import replace

import pytest
from archives import bids_dataset, bulk_zip, make_archive, small_tree, write_tree
from common import DATA, check_refused, random_image, tree, write_nifti

from inrstore.archive.catalogue import Names
from inrstore.archive.manifest import MANIFEST, ManifestEntry, path_of, read_manifest, write_manifest
from inrstore.archive.verify import SHOWN, _same_but_converter, extra_files, verify_archive
from inrstore.archive.zips import zip_of
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files.journal import encode
from inrstore.files.local import Folder
from inrstore.store import manifest


@pytest.fixture
def source(tmp_path):
    return small_tree(tmp_path / "in")


@pytest.fixture
def archive(source, tmp_path):
    return make_archive(source, tmp_path / "archive", store="zarr")


def rewrite_manifest(archive, change):
    """Write a whole manifest anew, as someone who wants to deceive would."""
    place = Folder(archive)
    write_manifest(place, change(list(read_manifest(place))))


@pytest.mark.parametrize("options", [{}, {"fast": True}, {"against": True}, {"subset": "1/1"}])
def test_a_whole_archive_passes_and_is_not_touched(archive, source, options):
    before = tree(archive)
    if "against" in options:
        options = {"against": source}
    report = verify_archive(archive, **options)
    assert (report.stores, report.files, report.extra_count) == (3, 5, 0)
    assert report.stored_bytes == sum(line.bytes for line in read_manifest(Folder(archive)))
    assert json.loads(json.dumps(report.to_dict()))["archive"] == str(archive)
    assert tree(archive) == before


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["a/notes.txt", "b/dwi.zarr", "b/dwi.zarr/zarr.json", "b/dwi.zarr/image/c/0/0/0/0"])
def test_what_is_missing_is_named(archive, name, fast):
    path = archive / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    check_refused(lambda: verify_archive(archive, fast=fast), StoreError, "1 of 8", name[:6], folder=archive)


def test_every_changed_byte_is_found(archive):
    for name in ("a/notes.txt", "b/dwi.zarr/zarr.json", "b/dwi.zarr/x/c/0", "c/pair.zarr/image/c/0/0/0"):
        path = archive / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        check_refused(lambda: verify_archive(archive), StoreError, name.split(".zarr")[0], folder=archive)
        path.write_bytes(whole)
    verify_archive(archive)


def test_every_changed_byte_of_a_store_that_is_one_file_is_found(tmp_path, source):
    archive = make_archive(source, tmp_path / "one")
    path = archive / "c/pair.ozx"
    whole = path.read_bytes()
    unused = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            verify_archive(archive)
        except StoreError as error:
            assert "c/pair.ozx" in str(error)
        else:  # dates, permissions and versions in the headers of a zip
            unused += 1
    assert unused < len(whole) / 70
    path.write_bytes(whole)
    verify_archive(archive)


def test_a_fast_check_compares_sizes_of_files(archive):
    path = archive / "a/notes.txt"
    path.write_bytes(path.read_bytes().upper())
    verify_archive(archive, fast=True)
    path.write_bytes(b"short")
    check_refused(lambda: verify_archive(archive, fast=True), StoreError, "notes.txt", "5 bytes", folder=archive)


def test_another_store_of_the_same_name_is_found(archive, source, tmp_path):
    (tmp_path / "other").mkdir()
    write_nifti(tmp_path / "other/one.nii.gz", random_image((6, 5, 4), seed=9))
    other = make_archive(tmp_path / "other", tmp_path / "b", store="zarr")
    shutil.rmtree(archive / "a/one.zarr")
    shutil.copytree(other / "one.zarr", archive / "a/one.zarr")
    check_refused(lambda: verify_archive(archive, fast=True), StoreError, "a/one.zarr", "seal", folder=archive)


def test_all_problems_are_counted_and_the_first_are_named(tmp_path):
    source = write_tree(tmp_path / "in", {f"{number:03}.txt": b"text" for number in range(40)})
    archive = make_archive(source, tmp_path / "archive")
    for number in range(SHOWN + 5):
        (archive / f"{number:03}.txt").unlink()
    error = check_refused(
        lambda: verify_archive(archive), StoreError, f"{SHOWN + 5} of 40", "and 5 more", folder=archive
    )
    assert str(error).count("is missing") == SHOWN
    seen = []
    with pytest.raises(StoreError):
        verify_archive(archive, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("039.txt", 40, SHOWN + 5)


def test_files_that_do_not_belong_there_are_listed(archive):
    for name in ("new.txt", "b/more/new.txt", "b/dwi.zarr/image/c/9", "c/x.zarr/journal"):
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_text("?")
    report = verify_archive(archive)
    assert report.extra_count == 4
    assert set(report.extra_files) == {"new.txt", "b/more/new.txt", "b/dwi.zarr/image/c/9", "c/x.zarr/journal"}


def test_the_parts_of_an_archive_make_up_the_whole(tmp_path):
    source = write_tree(tmp_path / "in", {f"{number:03}.txt": b"text" for number in range(30)})
    archive = make_archive(source, tmp_path / "archive")
    (archive / "new.txt").write_text("?")
    reports = [verify_archive(archive, subset=f"{part}/3") for part in (1, 2, 3)]
    assert sum(report.files for report in reports) == 30
    assert all(0 < report.files < 30 for report in reports)
    assert sum(report.extra_count for report in reports) == 1
    (archive / "017.txt").unlink()
    bad = 0
    for part in (1, 2, 3):
        try:
            verify_archive(archive, subset=f"{part}/3")
        except StoreError as error:
            bad += "017.txt" in str(error)
    assert bad == 1


@pytest.mark.parametrize("options", [{"subset": "4/3"}, {"subset": "x"}, {"fast": True, "against": "in"}])
def test_options_that_make_no_sense_are_refused(archive, options):
    check_refused(lambda: verify_archive(archive, **options), ConfigurationError, folder=archive)


# ---- the manifest


def test_an_incomplete_archive_says_what_to_do(archive):
    (archive / MANIFEST).unlink()
    check_refused(
        lambda: verify_archive(archive), StoreError, "incomplete", "run the same convert command again", folder=archive
    )


def test_a_folder_that_is_no_archive_is_refused(tmp_path):
    check_refused(lambda: verify_archive(tmp_path), StoreError, "not an archive", folder=tmp_path)


@pytest.mark.parametrize("keep", [-1, -2, 3])
def test_a_manifest_that_was_cut_is_damaged(archive, keep):
    lines = (archive / MANIFEST).read_bytes().splitlines(keepends=True)
    (archive / MANIFEST).write_bytes(b"".join(lines[:keep]))
    check_refused(lambda: verify_archive(archive), StoreError, "manifest.jsonl", "last line", folder=archive)


@pytest.mark.parametrize("out", ["../in/a/notes.txt", "/etc/passwd", "a/../../in/a/notes.txt", "", "a\\b", "a\0b"])
def test_names_that_lead_out_of_the_archive_are_refused(archive, out):
    rewrite_manifest(archive, lambda lines: [replace(lines[0], out=out), *lines[1:]])
    check_refused(lambda: verify_archive(archive), StoreError, "no path inside the archive", folder=archive)


def test_a_name_that_is_twice_in_the_manifest_is_a_problem(archive):
    rewrite_manifest(archive, lambda lines: [*lines, lines[0]])
    check_refused(lambda: verify_archive(archive), StoreError, "twice", folder=archive)


# ---- against the source


def test_a_changed_source_is_found(archive, source):
    for name, data in {"a/notes.txt": b"other", "b/dwi.nii": None, "c/pair.img": None}.items():
        path = source / name
        before = path.read_bytes()
        path.write_bytes(data or before[:-1] + bytes([before[-1] ^ 64]))
        check_refused(lambda: verify_archive(archive, source), StoreError, name.split(".")[0], "1 of 8", folder=archive)
        path.write_bytes(before)
    verify_archive(archive, source)


def test_what_the_source_lost_or_gained_is_found(archive, source):
    (source / "empty.dat").rename(source / "renamed.dat")
    check_refused(
        lambda: verify_archive(archive, source), StoreError,
        "empty.dat: ", "the source has no such file", "renamed.dat: is in the source and not in the archive",
        folder=archive,
    )  # fmt: skip


def test_quality_worse_than_promised_is_found(tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/one.nii", random_image((8, 7, 6)))
    archive = make_archive(tmp_path / "in", tmp_path / "archive", max_error=2.0)
    verify_archive(archive, tmp_path / "in")
    image = random_image((8, 7, 6))
    image[3, 3, 3] += 9
    write_nifti(tmp_path / "in/one.nii", image)
    check_refused(lambda: verify_archive(archive, tmp_path / "in"), StoreError, "one.ozx", "max_error", folder=archive)


def test_a_bids_dataset_is_compared_with_what_it_was(tmp_path):
    source = bids_dataset(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive")
    verify_archive(archive, source)
    for path in (source / "dataset_description.json", archive / ".inrstore/originals/dataset_description.json"):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        check_refused(lambda: verify_archive(archive, source), StoreError, "dataset_description.json", folder=archive)
        path.write_bytes(before)


@pytest.mark.parametrize("single", [True, False])
def test_zips_are_compared_member_by_member(tmp_path, single):
    path = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    archive = make_archive(path if single else path.parent, tmp_path / "archive")
    report = verify_archive(archive, path if single else path.parent)
    assert (report.stores, report.files) == (2, 5)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("more.txt", b"more")
    check_refused(
        lambda: verify_archive(archive, path if single else path.parent), StoreError, "other members", folder=archive
    )


def test_a_zip_may_have_another_name_now(tmp_path):
    path = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    archive = make_archive(path, tmp_path / "archive")
    verify_archive(archive, path.rename(tmp_path / "in/other.zip"))
    with zipfile.ZipFile(path, "w") as packed:  # one of the old name is not looked at
        packed.writestr("x", b"x")
    verify_archive(archive, tmp_path / "in/other.zip")


@pytest.mark.real
def test_dicom_is_converted_anew_and_compared(tmp_path):
    pytest.importorskip("dcm2niix")
    source = tmp_path / "in/scan"
    series = sorted((DATA / "dicom/dwi_uih_explicitvrle").glob("*"))
    if not series:
        pytest.skip(f"the DICOM files are not at {DATA}")
    source.mkdir(parents=True)
    for path in series[:7]:
        shutil.copy(path, source)
    (tmp_path / "in/notes.txt").write_text("of the scan")
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    report = verify_archive(archive, tmp_path / "in")
    assert report.stores == 1 and report.files >= 4
    shutil.copy(series[7], source)
    check_refused(lambda: verify_archive(archive, tmp_path / "in"), StoreError, "scan/series-12.ozx", folder=archive)


def test_another_version_of_the_converter_is_no_difference(tmp_path):
    made = {"ConversionSoftware": "dcm2niix", "ConversionSoftwareVersion": "v1", "EchoTime": 0.1}
    others = [{**made, "ConversionSoftwareVersion": "v2"}, {**made, "EchoTime": 0.2}, {"EchoTime": 0.1}, []]
    texts = [json.dumps(document).encode() for document in (made, *others)]
    place = Folder(write_tree(tmp_path, {f"{number}.json": text for number, text in enumerate([*texts, b"no"])}))
    same = [_same_but_converter(place, "0.json", place, f"{number}.json") for number in range(7)]
    assert same == [True, True, False, False, False, False, False]


def test_colons_in_names_are_not_taken_for_zips(tmp_path):
    source = write_tree(tmp_path / "in", {"scan:b.txt": b"text", "x.zip:y.txt": b"text", "sub:1/c:d": b"text"})
    archive = make_archive(source, tmp_path / "archive")
    assert zip_of(Folder(archive), "x.zip:y.txt") is None
    verify_archive(archive, source)


# ---- size


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """Manifests of 500 and of 5,000 lines, each of a file that is missing: as many objects are alive at their ends."""
    alive = []
    for count in (500, 5000):
        archive = tmp_path / str(count)
        (archive / ".inrstore").mkdir(parents=True)
        (archive / ".inrstore/job.json").write_text('{"version": 1, "source": {"kind": "tree"}, "options": {}}')
        names = (f"sub-{number:06}/a-file-{number:06}.txt" for number in range(count))
        entries = (ManifestEntry(out=n, kind="file", bytes=0, digest=manifest.digest(b""), key=n) for n in names)
        write_manifest(Folder(archive), entries)
        most = 0

        def watch(name, done, bad):
            nonlocal most
            most = max(most, sys.getallocatedblocks())

        before = sys.getallocatedblocks()
        with pytest.raises(StoreError, match=f"{count} of {count}"):
            verify_archive(archive, progress=watch)
        alive.append(most - before)
    assert alive[1] < alive[0] + 1500


def test_stores_in_stores_are_nobodys_business():
    """The extra files of a store are those of its own report; a walk does not list its chunks."""
    with Names() as names:
        names.add("a/x.ozx", "a/x.nii", store=True)
        names.add("a/x.ozx.txt", "a/x.ozx.txt", store=False)
        assert not names.add("a/x.ozx", "b", store=False)
        assert (names.kind("a/x.ozx"), names.kind("a/x.ozx.txt"), names.kind("a")) == ("store", "file", "")
        assert names.has_below("a") and names.has_below("") and not names.has_below("a/x")
        place = _Listed("a/x.ozx/c/0", "a/x.ozx/zarr.json", "a/x.ozx.txt", "a/y", ".inrstore/lock", "a/x.zarry/0")
        assert list(extra_files(place, names)) == ["a/y", "a/x.zarry/0"]


class _Listed:
    name = "listed"

    def __init__(self, *keys):
        self.keys = keys

    def walk(self, prefix=""):
        from inrstore.files import Entry

        return (Entry(key, 0) for key in self.keys)


def test_paths_and_urls_of_stores():
    assert path_of(_Named("/data/a"), "b/c.ozx") == "/data/a/b/c.ozx"
    assert path_of(_Named("s3://bucket/a/"), "c.ozx") == "s3://bucket/a/c.ozx"


class _Named:
    def __init__(self, name):
        self.name = name


def test_a_line_is_as_the_journal_writes_it(archive):
    first = (archive / MANIFEST).read_bytes().splitlines(keepends=True)[0]
    assert first == encode(0, vars(next(read_manifest(Folder(archive)))))
