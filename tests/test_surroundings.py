"""What is not the destination is not touched, and metadata is not used before its digest is checked."""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from common import random_image, tree, write_nifti

import inrstore
from inrstore.errors import InrstoreError, StoreError


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, random_image((9, 8, 7), seed=seed))


# ---- files of others


def test_a_folder_that_is_called_partial_is_somebody_elses(tmp_path):
    source = image(tmp_path / "out.partial/a.nii.gz")
    (tmp_path / "out.partial/thesis.txt").write_bytes(b"years")
    before = tree(tmp_path / "out.partial")
    with suppress(InrstoreError):
        inrstore.convert(source, tmp_path / "out", lossless=True)
    assert tree(tmp_path / "out.partial") == before


@pytest.mark.parametrize("name", ["store/x", "journal.jsonl", "notes.txt"])
def test_what_was_not_made_here_stays_whatever_it_is_called(tmp_path, name):
    source = image(tmp_path / "a.nii.gz")
    file = tmp_path / "out.partial" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    try:
        inrstore.convert(source, tmp_path / "out", lossless=True)
    except InrstoreError:
        pass
    assert file.read_bytes() == b"mine"


def test_a_link_that_is_called_partial_leads_nowhere(tmp_path):
    source = image(tmp_path / "a.nii.gz")
    image(tmp_path / "elsewhere/store/b.nii.gz")
    (tmp_path / "out.partial").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    try:
        inrstore.convert(source, tmp_path / "out", lossless=True)
    except InrstoreError:
        pass
    assert tree(tmp_path / "elsewhere") == before
    assert os.readlink(tmp_path / "out.partial") == str(tmp_path / "elsewhere")


def test_what_lies_in_the_record_of_an_archive_under_another_name_stays(tmp_path):
    source = image(tmp_path / "in/a.nii.gz").parent
    inrstore.convert(source, tmp_path / "archive", lossless=True)
    work = tmp_path / "archive/.inrstore/work"
    (work / ".inrstore-0123456789abcdef").mkdir(parents=True)
    (work / ".inrstore-0123456789abcdef/half").write_bytes(b"of a run that died")
    (work / "thesis.txt").write_bytes(b"years")
    (work / "link").symlink_to(source)
    inrstore.convert(source, tmp_path / "archive", lossless=True)
    assert tree(work) == {"thesis.txt": tree(work)["thesis.txt"], "link": f"link to {source}"}
    assert inrstore.verify(tmp_path / "archive", source).stores == 1


def test_a_report_beside_a_folder_of_its_name_leaves_it_alone(tmp_path):
    source = tmp_path / "scan_files"
    image(source / "a.nii.gz")
    for number in range(3):
        (source / f"{number}.png").write_bytes(b"a figure")
    before = tree(source)
    inrstore.convert(source, tmp_path / "archive", lossless=True, report=tmp_path / "scan.html")
    assert tree(source) == before
    assert inrstore.verify(tmp_path / "archive", source).stores == 1


def test_a_report_may_lie_beside_a_zip(tmp_path):
    image(tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as packed:
        packed.write(tmp_path / "a.nii.gz", "a.nii.gz")
    before = (tmp_path / "one.zip").read_bytes()
    inrstore.convert(tmp_path / "one.zip", tmp_path / "archive", lossless=True, report=tmp_path / "page.html")
    assert "a.nii.gz" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "one.zip").read_bytes() == before


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>my homepage</title>")
    before = tree(tmp_path)
    with pytest.raises(InrstoreError, match=r"page\.html"):
        inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True, report=page)
    assert tree(tmp_path) == before
    page.unlink()
    for _ in range(2):
        inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True, report=page)
    assert "a.nii.gz" in page.read_text()


# ---- metadata before its digest


def test_no_command_uses_an_edited_shape(tmp_path):
    inrstore.convert(image(tmp_path / "a.nii.gz"), tmp_path / "a.zarr", lossless=True)
    document = tmp_path / "a.zarr/image/zarr.json"
    text = document.read_text()
    assert '"shape":[7,8,9]' in text
    document.write_text(text.replace('"shape":[7,8,9]', '"shape":[6,8,9]'))
    assert json.loads(document.read_text())["shape"] == [6, 8, 9]
    for command in (inrstore.info, inrstore.open, inrstore.verify):
        with pytest.raises(StoreError, match=r"image/zarr\.json"):
            command(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"image/zarr\.json"):
        inrstore.export(tmp_path / "a.zarr", tmp_path / "back.nii")
    assert not (tmp_path / "back.nii").exists()
