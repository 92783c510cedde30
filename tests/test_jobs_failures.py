"""What goes wrong in a job: it is told, it costs nothing else, and the same command goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from archives import bulk_zip, small_tree, write_tree
from common import check_refused, random_image, write_nifti
from trees import by_key, damaged, images

import inrstore
from inrstore.archive.outcomes import MOST_NOTE
from inrstore.errors import (
    ConfigurationError,
    DestinationExistsError,
    DestinationHeldError,
    SourceError,
    StoreError,
    WriteError,
)
from inrstore.files import durable


@pytest.mark.parametrize("size", [2000, 4_300_000])
def test_a_bad_sidecar_does_not_make_the_journal_unreadable(tmp_path, size):
    """What strangers wrote goes into notes; a note is short, and the archive can be read and gone on with."""
    source = tmp_path / "in"
    source.mkdir()
    write_nifti(source / "dwi.nii.gz", random_image((6, 5, 4, 3)))
    (source / "dwi.bval").write_text("0 " + "x" * size)
    (source / "dwi.bvec").write_text("0 0 0\n" * 3)
    report = inrstore.convert(source, tmp_path / "archive", lossless=True)
    assert report.failed == 1 and "dwi.bval" in report.failures[0]["reason"]
    assert 400 < len(report.failures[0]["reason"]) <= MOST_NOTE
    assert inrstore.info(tmp_path / "archive").failures == report.failures
    assert inrstore.convert(source, tmp_path / "archive", lossless=True).failures == report.failures


def test_a_bad_subject_is_listed_and_the_others_are_done(tmp_path):
    source = damaged(tmp_path / "in")
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert (report.complete, report.converted, report.failed) == (False, 6, 2)
    assert [failure["key"] for failure in report.failures] == ["sub-2_bold.nii.gz", "sub-5_bold.nii.gz"]
    assert all("sub-" in failure["reason"] for failure in report.failures)
    assert not (tmp_path / "out/.inrstore/manifest.jsonl").exists()
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.verify(tmp_path / "out")
    assert not inrstore.info(tmp_path / "out").complete


def test_what_was_repaired_is_done_by_the_same_command(tmp_path):
    source = damaged(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    for number in (2, 5):
        write_nifti(source / f"sub-{number}_bold.nii.gz", random_image((4, 4, 3), seed=number))
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert (report.complete, report.resumed) == (True, 6)
    assert inrstore.verify(tmp_path / "out", source).stores == 8


def test_what_was_excluded_since_is_dropped_from_the_record(tmp_path):
    source = damaged(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    report = inrstore.convert(source, tmp_path / "out", lossless=True, exclude=["sub-[25]_*"])
    assert (report.complete, report.failed) == (True, 0)
    assert len(by_key(tmp_path / "out")) == 6
    assert inrstore.verify(tmp_path / "out").stores == 6


def test_a_bad_zip_or_member_is_one_failure(tmp_path):
    bulk_zip(tmp_path / "in/good.zip", tmp_path / "scratch")
    (tmp_path / "in/bad.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "in/half.zip", "w") as packed:
        packed.writestr("a.nii.gz", b"no image")
        packed.writestr("b.txt", b"text")
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", lossless=True)
    assert [failure["key"] for failure in report.failures] == ["bad.zip", "half.zip:a.nii.gz"]
    assert (tmp_path / "out/half/b.txt").read_bytes() == b"text"
    assert not (tmp_path / "out/.inrstore/zips/half.zip.json").exists()


def test_an_error_nobody_foresaw_is_a_failure_that_says_where(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")

    def broken(place, key):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("inrstore.archive.work.read_image", broken)
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert report.failed == 3
    assert "ZeroDivisionError: oh (test_jobs_failures.py, line" in report.failures[0]["reason"]


def test_a_full_disk_stops_the_job_with_a_reason(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")
    write = durable.write_blocks
    seen = []

    def full(path, blocks, work=None):
        seen.append(path.name)
        if path.name == "dwi.bvec":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, blocks, work)

    monkeypatch.setattr("inrstore.files.local.durable.write_blocks", full)
    with pytest.raises(StoreError, match=r"dwi\.bvec: No space left on device; nothing more .* same command"):
        inrstore.convert(source, tmp_path / "out", lossless=True)
    assert not (tmp_path / "out/.inrstore/manifest.jsonl").exists()
    monkeypatch.undo()
    assert inrstore.convert(source, tmp_path / "out", lossless=True).complete


def test_a_journal_that_cannot_be_written_stops_the_job(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")
    append = durable.append
    count = 0

    def full(handle, data):
        nonlocal count
        count += b'"outcome"' in data
        if count > 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        append(handle, data)

    monkeypatch.setattr("inrstore.files.journal.durable.append", full)
    with pytest.raises(WriteError, match=r"record cannot be written: Input/output error"):
        inrstore.convert(source, tmp_path / "out", lossless=True)
    monkeypatch.undo()
    assert inrstore.convert(source, tmp_path / "out", lossless=True).complete


@pytest.mark.parametrize("beside", [{}, {".inrstore/lock": b""}, {".inrstore/work/.inrstore-1/a": b"x"}])
def test_a_folder_with_other_files_is_not_touched(tmp_path, beside):
    source = small_tree(tmp_path / "in")
    write_tree(tmp_path / "out", {"mine.txt": b"text", **beside})
    convert = lambda: inrstore.convert(source, tmp_path / "out", lossless=True)  # noqa: E731
    check_refused(convert, DestinationExistsError, "no archive", folder=tmp_path)


def test_an_archive_that_had_no_job_yet_is_begun_anew(tmp_path):
    write_tree(tmp_path / "out", {".inrstore/lock": b"", ".inrstore/.inrstore-0123456789abcdef": b"{"})
    assert inrstore.convert(small_tree(tmp_path / "in"), tmp_path / "out", lossless=True).complete


def test_an_empty_folder_can_become_an_archive(tmp_path):
    (tmp_path / "out").mkdir()
    assert inrstore.convert(small_tree(tmp_path / "in"), tmp_path / "out", lossless=True).complete


@pytest.mark.parametrize(
    "options, words",
    [
        ({"psnr": 30}, ['promise was {"lossless": true}', '{"psnr": 30.0}']),
        ({"lossless": True, "preset": "small"}, ['preset was "balanced", now "small"']),
        ({"lossless": True, "zarr_format": 2}, ["zarr_format was 3, now 2"]),
        ({"lossless": True, "seed": 1}, ["seed"]),
        ({"lossless": True, "mask": "m.nii"}, ['mask was not given, now "m.nii"']),
    ],
)
def test_another_job_is_refused_and_says_what_differs(tmp_path, options, words):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    convert = lambda: inrstore.convert(source, tmp_path / "out", **options)  # noqa: E731
    with pytest.raises(ConfigurationError) as caught:
        convert()
    assert all(word in str(caught.value) for word in [*words, "another job"])
    assert inrstore.verify(tmp_path / "out", source).stores == 3


def test_another_source_of_the_same_name_is_refused(tmp_path):
    inrstore.convert(small_tree(tmp_path / "a/in"), tmp_path / "out", lossless=True)
    with pytest.raises(ConfigurationError, match="another source of the same name"):
        inrstore.convert(small_tree(tmp_path / "b/in"), tmp_path / "out", lossless=True)


def test_the_record_names_no_folder_of_this_machine(tmp_path):
    source = small_tree(tmp_path / "in")
    write_nifti(tmp_path / "mask.nii", np.ones((6, 5, 4), "uint8"))
    inrstore.convert(source, tmp_path / "out", lossless=True, include=["a/*"], mask=tmp_path / "mask.nii")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name != "lock":
            assert str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("inner", ["in/out", "in", "."])
def test_source_and_archive_do_not_lie_in_each_other(tmp_path, inner):
    source = small_tree(tmp_path / "in")
    convert = lambda: inrstore.convert(source, tmp_path / inner, lossless=True)  # noqa: E731
    check_refused(convert, ConfigurationError, "in each other", folder=tmp_path)


def test_nothing_to_convert_is_an_error_that_leaves_nothing(tmp_path):
    source = small_tree(tmp_path / "in")
    convert = lambda: inrstore.convert(source, tmp_path / "out", include=["none"])  # noqa: E731
    check_refused(convert, SourceError, "nothing to convert", folder=tmp_path)
    check_refused(lambda: inrstore.convert(tmp_path / "no", tmp_path / "out"), SourceError, "no such", folder=tmp_path)


@pytest.mark.parametrize(
    "options", [{"include": "*.nii"}, {"exclude": [3]}, {"batch": 0}, {"workers": 0}, {"workers": 1, "scheduler": "x"}]
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, options):
    source = small_tree(tmp_path / "in")
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "out", **options), ConfigurationError, *options, folder=tmp_path
    )


HOLDER = """
import sys
import inrstore.archive.run as run
convert = run.run_items
def waiting(job, items, tell):
    print("holding", flush=True)
    sys.stdin.readline()
    return convert(job, items, tell)
run.run_items = waiting
import inrstore
print(inrstore.convert(sys.argv[1], sys.argv[2], lossless=True).complete, flush=True)
"""


def test_of_two_jobs_one_wins_and_the_other_says_who(tmp_path):
    source = images(tmp_path / "in", 1)
    command = [sys.executable, "-c", HOLDER, source, tmp_path / "out"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "holding\n"
        with pytest.raises(DestinationHeldError, match=f"process {first.pid}"):
            inrstore.convert(source, tmp_path / "out", lossless=True)
        out, _ = first.communicate("go\n")
    assert out == "True\n"
    assert inrstore.verify(tmp_path / "out", source).stores == 1
