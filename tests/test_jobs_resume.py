"""A job that died goes on: what is finished is not touched, nothing is lost, and nothing half-done counts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from archives import bids_dataset, bulk_zip, small_tree
from common import random_image, tree, write_nifti

import inrstore
from inrstore.archive.outcomes import Outcome
from inrstore.archive.record import JOURNAL, MANIFEST, Record
from inrstore.errors import StoreError
from inrstore.files.journal import records
from inrstore.files.local import Folder


def mixed(folder, scratch):
    """A dataset with a zip and a pair in it."""
    bids_dataset(folder)
    small_tree(folder / "sourcedata")
    bulk_zip(folder / "sourcedata/1_20250_2_0.zip", scratch)
    return folder


def stamps(folder):
    """Return what tells whether a file was touched or replaced."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if ".inrstore" not in path.parts:
            info = path.stat()
            out[path] = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size)
    return out


def same_archive(one, other):
    """Check that two archives are equal but for the journal and the lock."""
    left, right = tree(one), tree(other)
    for name in (JOURNAL, ".inrstore/lock"):
        left.pop(name, None)
        right.pop(name, None)
    assert left == right


def test_the_same_command_again_touches_nothing(tmp_path):
    source = mixed(tmp_path / "in", tmp_path / "scratch")
    first = inrstore.convert(source, tmp_path / "out", lossless=True)
    before, manifest = stamps(tmp_path / "out"), (tmp_path / "out" / MANIFEST).read_bytes()
    journal = list(records(tmp_path / "out" / JOURNAL))
    again = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert stamps(tmp_path / "out") == before
    assert (tmp_path / "out" / MANIFEST).read_bytes() == manifest
    assert again.complete
    assert (again.converted, again.copied, again.stored_bytes) == (first.converted, first.copied, first.stored_bytes)
    assert again.resumed >= first.converted + first.copied
    events = [record["event"] for record in records(tmp_path / "out" / JOURNAL)]
    assert events == [record["event"] for record in journal] + ["begin", "end"]


def test_what_a_worker_left_that_died_does_not_stay(tmp_path):
    """A worker that dies while it writes, and whose image another one makes: the run ends well, and cleans up."""
    source = small_tree(tmp_path / "in")
    work = tmp_path / "out/.inrstore/work"

    def die(step):
        (work / ".inrstore-half").mkdir(parents=True, exist_ok=True)
        (work / ".inrstore-half/c").write_bytes(b"half")
        (work / ".inrstore-other").write_bytes(b"half")

    assert inrstore.convert(source, tmp_path / "out", lossless=True, progress=die).complete
    inrstore.convert(source, tmp_path / "plain", lossless=True)
    same_archive(tmp_path / "out", tmp_path / "plain")
    work.mkdir()
    (work / "mine").write_bytes(b"not of this program")
    inrstore.convert(source, tmp_path / "out", lossless=True, progress=die)
    assert [path.name for path in work.iterdir()] == ["mine"]


def test_what_an_earlier_run_measured_is_reported_again(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", max_error=2)
    first = {outcome.key: outcome for outcome in Record(Folder(tmp_path / "out")).outcomes()}
    inrstore.convert(source, tmp_path / "out", max_error=2)
    second = {outcome.key: outcome for outcome in Record(Folder(tmp_path / "out")).outcomes()}
    assert second == first
    assert all(outcome.measures["worst_voxel"] for outcome in first.values() if outcome.status == "converted")


def test_a_lost_journal_costs_nothing_but_its_times(tmp_path):
    source = mixed(tmp_path / "in", tmp_path / "scratch")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    before, manifest = stamps(tmp_path / "out"), (tmp_path / "out" / MANIFEST).read_bytes()
    (tmp_path / "out" / JOURNAL).unlink()
    assert inrstore.convert(source, tmp_path / "out", lossless=True).complete
    assert stamps(tmp_path / "out") == before
    assert (tmp_path / "out" / MANIFEST).read_bytes() == manifest


def test_what_was_removed_is_made_again(tmp_path):
    source = mixed(tmp_path / "in", tmp_path / "scratch")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    whole = tree(tmp_path / "out")
    (tmp_path / "out/sourcedata/a/one.ozx").unlink()
    (tmp_path / "out/README.md").unlink()
    (tmp_path / "out/.inrstore/zips/sourcedata/1_20250_2_0.zip.json").unlink()
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert report.complete
    after = tree(tmp_path / "out")
    for name in (JOURNAL, ".inrstore/lock"):
        whole.pop(name), after.pop(name)
    assert after == whole


def test_a_new_file_in_the_source_is_added(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    write_nifti(source / "new.nii", random_image((4, 4, 3)))
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert (report.complete, report.converted, report.resumed) == (True, 4, 8)
    assert inrstore.verify(tmp_path / "out", source).stores == 4


def test_a_manifest_does_not_outlive_what_it_lists(tmp_path):
    """A job that adds to a complete archive and fails leaves an incomplete one."""
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    (source / "new.nii").write_bytes(b"no image")
    assert not inrstore.convert(source, tmp_path / "out", lossless=True).complete
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.verify(tmp_path / "out")


@pytest.mark.parametrize("name, words", [("a/notes.txt", "differs from the source"), ("b/dwi.nii", "another size")])
def test_a_source_that_changed_is_a_failure_and_overwrites_nothing(tmp_path, name, words):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    before = stamps(tmp_path / "out")
    if name.endswith(".nii"):
        write_nifti(source / name, random_image((7, 4, 3, 2)))
    else:
        (source / name).write_bytes(b"TWO lines\nof text\n")
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert [failure["key"] for failure in report.failures] == [name]
    assert words in report.failures[0]["reason"]
    assert stamps(tmp_path / "out") == before


def test_a_store_that_was_published_but_not_noted_is_taken_as_it_is(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "whole", lossless=True)
    inrstore.convert(source, tmp_path / "out", lossless=True)
    journal = tmp_path / "out" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # torn in the middle of a line
    (tmp_path / "out" / MANIFEST).unlink()
    before = stamps(tmp_path / "out")
    assert inrstore.convert(source, tmp_path / "out", lossless=True).complete
    assert stamps(tmp_path / "out") == before
    same_archive(tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("seed", range(2))
def test_a_job_that_is_killed_goes_on(tmp_path, seed):
    source = mixed(tmp_path / "in", tmp_path / "scratch")
    before = tree(source)
    began = time.perf_counter()
    command = [sys.executable, "-m", "inrstore.cli", "convert", source, tmp_path / "whole", "--lossless"]
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - began
    command[-2] = tmp_path / "out"
    draw = random.Random(seed)
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(whole * draw.uniform(0.5, 1.0))
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same_archive(tmp_path / "out", tmp_path / "whole")
    assert tree(source) == before


def test_the_journal_says_what_became_of_everything(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", max_error=1)
    lines = list(records(tmp_path / "out" / JOURNAL))
    assert [lines[0]["event"], lines[-1]["event"]] == ["begin", "end"]
    found = [Outcome.from_dict(line) for line in lines if line["event"] == "outcome"]
    assert {outcome.key for outcome in found} == {
        "a/one.nii.gz", "b/dwi.nii", "c/pair.hdr", "a/notes.txt", "empty.dat", "b/dwi.json", "b/dwi.bval", "b/dwi.bvec"
    }  # fmt: skip
    one = next(outcome for outcome in found if outcome.key == "a/one.nii.gz")
    assert one.source_bytes == (source / "a/one.nii.gz").stat().st_size
    assert one.stored_bytes == (tmp_path / "out/a/one.ozx").stat().st_size
    assert one.measures["promised"] == {"max_error": 1}
    assert one.seconds > 0


def test_a_damaged_record_is_an_error(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    journal = tmp_path / "out" / JOURNAL
    data = bytearray(journal.read_bytes())
    data[200] ^= 1
    journal.write_bytes(data)
    with pytest.raises(StoreError, match=r"journal\.jsonl: line \d+ is damaged"):
        inrstore.convert(source, tmp_path / "out", lossless=True)
    for text in ("{", "[]", json.dumps({"version": 9})):
        (tmp_path / "out/.inrstore/job.json").write_text(text)
        with pytest.raises(StoreError, match=r"job\.json"):
            inrstore.convert(source, tmp_path / "out", lossless=True)


def test_a_source_that_cannot_be_written_is_enough(tmp_path):
    source = mixed(tmp_path / "in", tmp_path / "scratch")
    folders = [source, *(path for path in source.rglob("*") if path.is_dir())]
    for folder in folders:
        os.chmod(folder, 0o555)
    try:
        before = stamps(source)
        assert inrstore.convert(source, tmp_path / "out", lossless=True).complete
        assert stamps(source) == before
    finally:
        for folder in folders:
            os.chmod(folder, 0o755)
