"""Ways in which a file, an image or somebody's data could get lost in a job without a word: none of them is left."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from archives import unpacked, write_pair
from common import random_image, tree, write_nifti

import inrstore
from inrstore.archive.record import JOB, MANIFEST
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files import durable


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, random_image((6, 5, 4), seed=seed))


def convert(source: Path, destination: Path, **options):
    return inrstore.convert(source, destination, lossless=True, **options)


def there_and_back(source: Path, folder: Path) -> None:
    """Check that everything in a source is in its archive, and comes back from it."""
    report = convert(source, folder / "archive")
    assert report.complete, report.failures
    inrstore.verify(folder / "archive", source)
    inrstore.export(folder / "archive", folder / "back")
    assert unpacked(folder / "back") == unpacked(source)


# ---- reports


@pytest.mark.parametrize(
    "page", ["in/a.nii.gz", "in/page.html", "archive/page.html", "page.txt", "s3://bucket/page.html"]
)
def test_a_report_replaces_no_file_of_the_source_or_the_archive(tmp_path, page):
    image(tmp_path / "in/a.nii.gz")
    before = tree(tmp_path)
    where = page if "://" in page else tmp_path / page
    with pytest.raises(ConfigurationError, match="report"):
        convert(tmp_path / "in", tmp_path / "archive", report=where)
    assert tree(tmp_path) == before


# ---- going on


def test_a_source_that_changed_is_noticed_though_its_size_is_the_same(tmp_path):
    image(tmp_path / "in/a.nii", seed=0)
    convert(tmp_path / "in", tmp_path / "archive")
    size = (tmp_path / "in/a.nii").stat().st_size
    image(tmp_path / "in/a.nii", seed=1)
    assert (tmp_path / "in/a.nii").stat().st_size == size
    report = convert(tmp_path / "in", tmp_path / "archive")
    assert not report.complete
    assert "another file" in report.failures[0]["reason"]


def test_a_store_that_was_damaged_meanwhile_is_no_finished_one(tmp_path):
    image(tmp_path / "in/a.nii")
    convert(tmp_path / "in", tmp_path / "archive")
    path = tmp_path / "archive/a.ozx"
    data = bytearray(path.read_bytes())
    data[data.index(b"x/c/0") + 8] ^= 1
    path.write_bytes(data)
    report = convert(tmp_path / "in", tmp_path / "archive")
    assert not report.complete
    assert "x/c/0" in report.failures[0]["reason"]


def test_an_interrupted_job_that_was_widened_is_not_complete(tmp_path):
    image(tmp_path / "in/a/1.nii.gz")
    image(tmp_path / "in/b/2.nii.gz", seed=1)
    assert convert(tmp_path / "in", tmp_path / "archive", include=["a/*"]).complete

    def interrupt(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "in", tmp_path / "archive", progress=interrupt)
    assert json.loads((tmp_path / "archive" / JOB).read_text())["options"]["include"] == []
    assert not (tmp_path / "archive" / MANIFEST).exists()
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.verify(tmp_path / "archive")
    assert convert(tmp_path / "in", tmp_path / "archive").complete


def test_of_two_writers_of_one_file_each_is_whole(tmp_path):
    def blocks():
        yield b"x" * 1000
        durable.write_file(tmp_path / "a", b"other")  # the second writer, in the middle of the first
        assert (tmp_path / "a").read_bytes() == b"other"
        yield b"y" * 1000

    durable.write_blocks(tmp_path / "a", blocks())
    assert (tmp_path / "a").read_bytes() == b"x" * 1000 + b"y" * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# ---- files of odd names and kinds


def test_zips_that_hold_no_file_come_back(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    with zipfile.ZipFile(tmp_path / "in/empty.zip", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "in/folders.zip", "w") as out:
        out.writestr("d/", "")
    assert convert(tmp_path / "in", tmp_path / "archive").complete
    inrstore.export(tmp_path / "archive", tmp_path / "back")
    assert zipfile.ZipFile(tmp_path / "back/empty.zip").namelist() == []
    assert zipfile.ZipFile(tmp_path / "back/folders.zip").namelist() == ["d/"]


def test_names_with_colons_come_back(tmp_path):
    image(tmp_path / "in/scan_10:30:00.nii.gz")
    image(tmp_path / "in/scan_11:30:00.nii.gz", seed=1)
    there_and_back(tmp_path / "in", tmp_path)


def test_what_lies_beside_a_zip_under_its_name_and_a_colon_comes_back(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in/a.zip", "w") as out:
        out.writestr("x.txt", "hello")
    (tmp_path / "in/a.zip:Zone.Identifier").write_text("[ZoneTransfer]")
    assert convert(tmp_path / "in", tmp_path / "archive").complete
    inrstore.export(tmp_path / "archive", tmp_path / "back")
    assert (tmp_path / "back/a.zip:Zone.Identifier").read_text() == "[ZoneTransfer]"
    assert zipfile.ZipFile(tmp_path / "back/a.zip").read("x.txt") == b"hello"


def test_a_second_file_of_voxels_beside_a_pair_is_kept(tmp_path):
    write_pair(tmp_path / "in/a.hdr", random_image((4, 3, 2)))
    (tmp_path / "in/a.img.gz").write_bytes(b"other voxels, or none")
    there_and_back(tmp_path / "in", tmp_path)


def test_a_link_to_a_folder_is_a_failure_whatever_is_included(tmp_path):
    image(tmp_path / "in/a/1.nii.gz")
    (tmp_path / "in/sub-02").symlink_to(image(tmp_path / "other/2.nii.gz").parent)
    report = convert(tmp_path / "in", tmp_path / "archive", include=["*/*.nii.gz"])
    assert not report.complete
    assert "link to a folder" in report.failures[0]["reason"]
    assert convert(tmp_path / "in", tmp_path / "archive", include=["*/*.nii.gz"], exclude=["sub-02"]).complete


def test_a_store_is_not_made_inside_its_source(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    before = tree(tmp_path)
    with pytest.raises(ConfigurationError, match="in each other"):
        convert(tmp_path / "in", tmp_path / "in/out.ozx")
    assert tree(tmp_path) == before


# ---- exports


def test_stores_that_changed_places_are_not_exported(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    image(tmp_path / "in/b.nii.gz", seed=1)
    archive = tmp_path / "archive"
    convert(tmp_path / "in", archive)
    (archive / "a.ozx").rename(archive / "c")
    (archive / "b.ozx").rename(archive / "a.ozx")
    (archive / "c").rename(archive / "b.ozx")
    with pytest.raises(StoreError, match="seal"):
        inrstore.export(archive, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_stores_of_a_zip_that_changed_places_are_not_packed(tmp_path):
    scans = [image(tmp_path / f"{name}.nii.gz", seed=number) for number, name in enumerate("ab")]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as out:
        for scan in scans:
            out.write(scan, scan.name)
    archive = tmp_path / "archive"
    convert(tmp_path / "in.zip", archive)
    inrstore.export(archive, tmp_path / "good.zip")
    (archive / "a.ozx").rename(archive / "c")
    (archive / "b.ozx").rename(archive / "a.ozx")
    (archive / "c").rename(archive / "b.ozx")
    with pytest.raises(StoreError, match="seal"):
        inrstore.export(archive, tmp_path / "bad.zip")
    assert not (tmp_path / "bad.zip").exists()


def test_a_chunk_in_the_place_of_another_is_not_exported(tmp_path, small):
    source = image(tmp_path / "a.nii")
    convert(source, tmp_path / "s.zarr")
    chunks = sorted(p for p in (tmp_path / "s.zarr/image/c").rglob("*") if p.is_file())
    assert len(chunks) > 1
    chunks[0].write_bytes(chunks[1].read_bytes())
    with pytest.raises(StoreError, match="changed"):
        inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii")


def test_an_export_does_not_go_into_its_archive(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    convert(tmp_path / "in", tmp_path / "archive")
    before = tree(tmp_path)
    with pytest.raises(ConfigurationError, match="in each other"):
        inrstore.export(tmp_path / "archive", tmp_path / "archive/back")
    assert tree(tmp_path) == before


def test_odd_voxels_come_back(tmp_path):
    for name, values in {
        "nan": np.full((4, 3, 2), np.nan), "infinite": np.full((4, 3, 2), np.inf), "huge": np.array([[[3e38, -3e38]]]),
    }.items():  # fmt: skip
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), tmp_path / f"in/{name}.nii.gz")
    there_and_back(tmp_path / "in", tmp_path)


def test_a_file_that_is_replaced_while_it_is_copied_is_not_kept(tmp_path, monkeypatch):
    from inrstore.archive import copies

    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes(b"old" * 1000)
    image(tmp_path / "in/b.nii.gz")

    class Slow(copies.Digest):
        def __iter__(self):
            yield from super().__iter__()
            (tmp_path / "new").write_bytes(b"new and longer" * 1000)
            (tmp_path / "new").replace(tmp_path / "in/a.txt")

    monkeypatch.setattr(copies, "Digest", Slow)
    report = convert(tmp_path / "in", tmp_path / "archive")
    assert [one["key"] for one in report.failures] == ["a.txt"] and "was changed" in report.failures[0]["reason"]
    assert not (tmp_path / "archive/a.txt").exists()
    monkeypatch.undo()
    assert convert(tmp_path / "in", tmp_path / "archive").complete


@pytest.mark.parametrize("text", ["[T1w]\npsnr = " + "9" * 5000, "[T1w]\npsnr = {"])
def test_rules_that_cannot_be_read_are_an_error_that_names_the_file(tmp_path, text):
    image(tmp_path / "in/a_T1w.nii.gz")
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"rules\.toml: not TOML"):
        inrstore.convert(tmp_path / "in", tmp_path / "archive", rules=tmp_path / "rules.toml")


def test_a_mask_elsewhere_that_is_not_there_is_named(tmp_path):
    source = image(tmp_path / "in/a.nii.gz")
    with pytest.raises(inrstore.errors.SourceError, match=r"\.\./missing\.nii: no such mask"):
        inrstore.convert(source, tmp_path / "a.ozx", mask="../missing.nii")
