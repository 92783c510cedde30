"""An archive that lives: nothing vanishes by itself, and everything can be changed, safely."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import bids_dataset, small_tree, unpacked
from common import random_image, tree, write_nifti
from trees import by_key, images

import inrstore
from inrstore.archive.changes import UpdatePlan
from inrstore.archive.record import JOURNAL, MANIFEST
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files.journal import records


def convert(source: Path, destination: Path, **options):
    return inrstore.convert(source, destination, preset="fast", **{"lossless": True, **options})


def seals(archive: Path) -> dict[str, str]:
    return {outcome.out: outcome.digest for outcome in by_key(archive).values()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".inrstore" not in path.parts)
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def run(*arguments) -> tuple[int, str]:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# ---- nothing vanishes


@pytest.mark.parametrize("again", ["convert", "update"])
def test_what_is_gone_from_the_source_stays_and_is_reported(tmp_path, again):
    source = images(tmp_path / "in", 2)
    convert(source, tmp_path / "out")
    (source / "sub-1_bold.nii.gz").unlink()
    arguments = ("--lossless", "--preset", "fast") if again == "convert" else ()
    code, text = run(again, source, tmp_path / "out", *arguments)
    assert code == 1 and "gone from the source" in text and "sub-1_bold.nii.gz" in text
    assert inrstore.info(tmp_path / "out").gone == 1
    assert inrstore.verify(tmp_path / "out").stores == 2
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert (tmp_path / "back/sub-1_bold.nii.gz").exists()
    write_nifti(source / "sub-1_bold.nii.gz", random_image((6, 5, 4), seed=1))  # it comes back
    assert inrstore.update(source, tmp_path / "out").gone == 0


def test_a_smaller_selection_drops_nothing(tmp_path):
    source = images(tmp_path / "in", 3)
    convert(source, tmp_path / "out")
    report = convert(source, tmp_path / "out", include=["sub-0*"])
    assert (report.complete, report.gone) == (True, 0)
    assert inrstore.verify(tmp_path / "out").stores == 3


def test_members_that_are_gone_from_a_zip_stay(tmp_path):
    scans = [write_nifti(tmp_path / f"{n}.nii.gz", random_image((4, 3, 2), seed=n)) for n in range(2)]
    (tmp_path / "in").mkdir()
    for count in (2, 1):
        with zipfile.ZipFile(tmp_path / "in/a.zip", "w") as out:
            for scan in scans[:count]:
                out.write(scan, scan.name)
        report = (
            convert(tmp_path / "in", tmp_path / "out")
            if count == 2
            else inrstore.update(tmp_path / "in", tmp_path / "out")
        )
    assert report.complete and report.gone_first == ("a.zip:1.nii.gz",)
    assert inrstore.verify(tmp_path / "out").stores == 2


def test_a_source_that_cannot_be_read_whole_calls_nothing_gone(tmp_path):
    source = tmp_path / "in"
    for n in range(2):
        (source / f"s{n}").mkdir(parents=True)
        write_nifti(source / f"s{n}/a.nii.gz", random_image((4, 3, 2), seed=n))
    convert(source, tmp_path / "out")
    shutil.rmtree(source / "s1")
    (source / "s1").symlink_to("nowhere")
    report = convert(source, tmp_path / "out")
    assert not report.complete and report.gone == 0


@pytest.mark.parametrize("rules, words", [
    ("[t1w]\nlossless = true\n", "did you mean T1w"), ("[bogus]\nlossless = true\n", "no image fits [bogus]"),
    ('["*/dwi/*"]\nlossless = true\n', "dwi"),
])  # fmt: skip
def test_a_rule_that_fits_no_image_is_an_error_before_any_work(tmp_path, rules, words):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/sub-1_T1w.nii.gz", random_image((4, 3, 2)))
    (tmp_path / "rules.toml").write_text(rules + "[default]\npsnr = 36\n")
    with pytest.raises(ConfigurationError, match=words.replace("[", r"\[")):
        inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml")
    assert not (tmp_path / "out").exists()
    inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml", allow_unmatched=True)


def test_a_rule_that_fits_an_image_in_a_zip_is_fine(tmp_path):
    (tmp_path / "in").mkdir()
    scan = write_nifti(tmp_path / "dwi.nii.gz", random_image((4, 3, 2)))
    with zipfile.ZipFile(tmp_path / "in/a.zip", "w") as out:
        out.write(scan, "x/sub_dwi.nii.gz")
    (tmp_path / "rules.toml").write_text("[dwi]\nlossless = true\n")
    assert inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml").complete


def test_an_inclusion_that_fits_nothing_is_an_error(tmp_path):
    source = images(tmp_path / "in", 2)
    with pytest.raises(ConfigurationError, match="sub-7"):
        convert(source, tmp_path / "out", include=["sub-0*", "sub-7*"])
    assert not (tmp_path / "out").exists()


def test_a_store_that_no_record_lists_is_an_error(tmp_path):
    source = images(tmp_path / "in", 1)
    convert(source, tmp_path / "out")
    shutil.copy(tmp_path / "out/sub-0_bold.ozx", tmp_path / "out/other.ozx")
    with pytest.raises(StoreError, match=r"other\.ozx: .*manifest"):
        inrstore.verify(tmp_path / "out")


# ---- update


def test_an_update_does_what_is_new_or_changed_and_nothing_else(tmp_path):
    source = small_tree(tmp_path / "in")
    convert(source, tmp_path / "out")
    before = stamps(tmp_path / "out")
    write_nifti(source / "b/dwi.nii", random_image((5, 4, 3, 2), seed=9))
    write_nifti(source / "new.nii", random_image((4, 3, 2)))
    (source / "a/notes.txt").write_bytes(b"other\n")
    shown = []
    report = inrstore.update(source, tmp_path / "out", show=shown.append)
    assert report.complete and report.gone == 0
    assert {k: v for k, v in shown[0].counts.items() if v} == {"new": 1, "changed": 2, "same": 6}
    after = stamps(tmp_path / "out")
    touched = {Path(name).name for name in after if after[name] != before.get(name)}
    assert touched == {"dwi.ozx", "new.ozx", "notes.txt"}
    inrstore.verify(tmp_path / "out", source)
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert unpacked(tmp_path / "back") == unpacked(source)


def test_an_update_with_nothing_new_touches_and_reads_nothing(tmp_path, monkeypatch):
    source = bids_dataset(tmp_path / "in")
    small_tree(source / "sourcedata")
    with zipfile.ZipFile(source / "sourcedata/1.zip", "w") as out:
        out.write(source / "sourcedata/a/one.nii.gz", "x.nii.gz")
    convert(source, tmp_path / "out")
    before, manifest = stamps(tmp_path / "out"), (tmp_path / "out" / MANIFEST).read_bytes()
    plan = inrstore.update(source, tmp_path / "out", dry_run=True)
    assert isinstance(plan, UpdatePlan)
    assert {kind for kind, count in plan.counts.items() if count} <= {"same", "changed"}
    assert plan.names.get("changed", []) in ([], [".bidsignore"])  # which the source does not have
    assert inrstore.update(source, tmp_path / "out").complete
    assert stamps(tmp_path / "out") == before and (tmp_path / "out" / MANIFEST).read_bytes() == manifest


def test_a_change_that_keeps_size_and_time_is_found_by_reading_again(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    path = write_nifti(source / "a.nii", random_image((4, 3, 2)))
    info = path.stat()
    convert(source, tmp_path / "out")
    write_nifti(path, random_image((4, 3, 2), seed=3))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    first = seals(tmp_path / "out")
    inrstore.update(source, tmp_path / "out")
    assert seals(tmp_path / "out") == first
    inrstore.update(source, tmp_path / "out", reread=True)
    assert seals(tmp_path / "out") != first
    inrstore.verify(tmp_path / "out", source)


@pytest.mark.parametrize("store", ["ozx", "zarr"])
def test_other_settings_for_some_images_make_these_anew(tmp_path, store):
    source = images(tmp_path / "in", 3, (20, 18, 16))
    inrstore.convert(source, tmp_path / "out", psnr=40, preset="fast", store=store)
    first = seals(tmp_path / "out")
    assert inrstore.update(source, tmp_path / "out", only=["sub-1_*"], psnr=30).complete
    second = seals(tmp_path / "out")
    assert {name for name in first if first[name] != second[name]} == {f"sub-1_bold.{store}"}
    assert by_key(tmp_path / "out")["sub-1_bold.nii.gz"].measures["promised"] == {"psnr": 30.0}
    assert inrstore.verify(tmp_path / "out", source).stores == 3
    assert inrstore.update(source, tmp_path / "out").complete  # it keeps its own
    assert seals(tmp_path / "out") == second
    inrstore.update(source, tmp_path / "out", lossless=True)
    assert [by_key(tmp_path / "out")[f"sub-{n}_bold.nii.gz"].measures["promised"] for n in range(3)] == [
        {"lossless": True}, {"psnr": 30.0}, {"lossless": True}]  # fmt: skip


def test_forced_images_are_made_anew(tmp_path):
    source = images(tmp_path / "in", 2)
    convert(source, tmp_path / "out")
    before = stamps(tmp_path / "out")
    inrstore.update(source, tmp_path / "out", force=["sub-0*"])
    after = stamps(tmp_path / "out")
    assert [Path(name).name for name in after if after[name] != before[name]] == ["sub-0_bold.ozx"]


def test_an_update_replaces_nothing_that_the_archive_did_not_make(tmp_path):
    source = images(tmp_path / "in", 1)
    convert(source, tmp_path / "out")
    convert(images(tmp_path / "in2", 2), tmp_path / "out2")
    shutil.copy(tmp_path / "out2/sub-1_bold.ozx", tmp_path / "out/sub-0_bold.ozx")
    theirs = (tmp_path / "out/sub-0_bold.ozx").read_bytes()
    write_nifti(source / "sub-0_bold.nii.gz", random_image((6, 5, 4), seed=7))
    report = inrstore.update(source, tmp_path / "out")
    assert not report.complete and "not the store that this archive made" in report.failures[0]["reason"]
    assert (tmp_path / "out/sub-0_bold.ozx").read_bytes() == theirs


def test_a_changed_image_that_cannot_be_read_leaves_its_store(tmp_path):
    source = images(tmp_path / "in", 1)
    convert(source, tmp_path / "out")
    whole = (tmp_path / "out/sub-0_bold.ozx").read_bytes()
    (source / "sub-0_bold.nii.gz").write_bytes(b"no image")
    assert not inrstore.update(source, tmp_path / "out").complete
    assert (tmp_path / "out/sub-0_bold.ozx").read_bytes() == whole
    report = inrstore.prune(tmp_path / "out") if (tmp_path / "out" / MANIFEST).exists() else None
    assert report is None and (tmp_path / "out/sub-0_bold.ozx").read_bytes() == whole


def test_an_update_of_another_source_is_refused(tmp_path):
    convert(images(tmp_path / "in", 1), tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="another source"):
        inrstore.update(images(tmp_path / "else", 1), tmp_path / "out")
    assert tree(tmp_path / "out").keys() == before.keys()
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "in", tmp_path / "moved/in")
    assert inrstore.update(tmp_path / "moved/in", tmp_path / "out").complete


def test_an_image_that_was_kept_as_a_file_makes_way_for_its_store(tmp_path):
    source = images(tmp_path / "in", 2)
    (tmp_path / "keep.toml").write_text('["sub-0*"]\nkeep = "file"\n')
    convert(source, tmp_path / "out", rules=tmp_path / "keep.toml")
    assert (tmp_path / "out/sub-0_bold.nii.gz").exists()
    (tmp_path / "none.toml").write_text('[default]\npreset = "fast"\n')
    assert inrstore.update(source, tmp_path / "out", rules=tmp_path / "none.toml").complete
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".inrstore") == [
        "sub-0_bold.ozx", "sub-1_bold.ozx"]  # fmt: skip
    inrstore.verify(tmp_path / "out", source)


# ---- remove and prune


def test_what_is_removed_is_gone_for_good_and_comes_back_only_when_asked(tmp_path):
    source = small_tree(tmp_path / "in")
    convert(source, tmp_path / "out")
    code, text = run("remove", tmp_path / "out", "b/*", "--dry-run")
    assert code == 0 and "would go" in text and (tmp_path / "out/b/dwi.ozx").exists()
    report = inrstore.remove(tmp_path / "out", ["b/*"])
    assert set(report.removed) == {"b/dwi.ozx", "b/dwi.json", "b/dwi.bval", "b/dwi.bvec"}
    assert not (tmp_path / "out/b").exists()
    assert inrstore.verify(tmp_path / "out").stores == 2
    for again in (convert, inrstore.update):
        report = again(source, tmp_path / "out")
        assert report.complete and not (tmp_path / "out/b").exists()
    report = inrstore.update(source, tmp_path / "out", restore=["b/dwi.ozx"])
    assert report.complete and sorted(p.name for p in (tmp_path / "out/b").iterdir()) == ["dwi.ozx"]
    inrstore.update(source, tmp_path / "out", restore=["*"])
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert unpacked(tmp_path / "back") == unpacked(source)


def test_nothing_is_removed_that_the_program_did_not_write(tmp_path):
    source = small_tree(tmp_path / "in")
    convert(source, tmp_path / "out", store="zarr")
    (tmp_path / "out/a/notes.txt").write_bytes(b"mine now")
    (tmp_path / "out/b/dwi.zarr/mine.txt").write_bytes(b"mine")
    before = tree(tmp_path / "out")
    with pytest.raises(StoreError, match=r"notes\.txt: is not what"):
        inrstore.remove(tmp_path / "out", ["*"])
    after = tree(tmp_path / "out")
    assert {k: v for k, v in after.items() if k != JOURNAL and "lock" not in k} == {
        k: v for k, v in before.items() if k != JOURNAL and "lock" not in k}  # fmt: skip
    inrstore.remove(tmp_path / "out", ["b/dwi*"])
    assert [p.name for p in (tmp_path / "out/b/dwi.zarr").iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigurationError, match="nothing in"):
        inrstore.remove(tmp_path / "out", ["nothing/*"])


def test_pictures_go_with_their_images(tmp_path):
    source = images(tmp_path / "in", 2, (12, 10, 8))
    convert(source, tmp_path / "out", report=tmp_path / "r.html")
    assert len(list((tmp_path / "out/.inrstore/pictures").iterdir())) == 2
    inrstore.remove(tmp_path / "out", ["sub-0*"])
    assert [p.name for p in (tmp_path / "out/.inrstore/pictures").iterdir()] == ["sub-1_bold.ozx.png"]


def test_a_subject_is_removed_from_zips(tmp_path):
    scans = [write_nifti(tmp_path / f"{n}.nii.gz", random_image((4, 3, 2), seed=n)) for n in range(2)]
    (tmp_path / "in").mkdir()
    for subject in (1, 2):
        with zipfile.ZipFile(tmp_path / f"in/{subject}_20250_2_0.zip", "w") as out:
            for scan in scans:
                out.write(scan, scan.name)
    convert(tmp_path / "in", tmp_path / "out")
    inrstore.remove(tmp_path / "out", ["1_20250_2_0/0*"])
    inrstore.verify(tmp_path / "out")
    inrstore.export(tmp_path / "out", tmp_path / "part")
    assert zipfile.ZipFile(tmp_path / "part/1_20250_2_0.zip").namelist() == ["1.nii.gz"]
    inrstore.remove(tmp_path / "out", ["1_20250_2_0/*"])
    assert not any("1_20250_2_0" in name for name in tree(tmp_path / "out"))
    inrstore.verify(tmp_path / "out")
    assert inrstore.update(tmp_path / "in", tmp_path / "out").complete
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["2_20250_2_0.zip"]


def test_pruning_removes_what_is_gone_and_what_is_left_over_and_nothing_else(tmp_path):
    source = images(tmp_path / "in", 3)
    convert(source, tmp_path / "out")
    (source / "sub-1_bold.nii.gz").unlink()
    assert inrstore.prune(tmp_path / "out").removed == ()  # nobody has looked yet
    inrstore.update(source, tmp_path / "out")
    shutil.copy(tmp_path / "out/sub-0_bold.ozx", tmp_path / "out/other.ozx")
    (tmp_path / "out/mine.txt").write_bytes(b"mine")
    report = inrstore.prune(tmp_path / "out", dry_run=True)
    assert (tmp_path / "out/sub-1_bold.ozx").exists()
    assert report.removed == ("sub-1_bold.ozx",)
    report = inrstore.prune(tmp_path / "out")
    assert report.removed == ("sub-1_bold.ozx",)
    assert {one["path"] for one in report.kept} == {"other.ozx", "mine.txt"}
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == [".inrstore", "mine.txt", "other.ozx", "sub-0_bold.ozx", "sub-2_bold.ozx"]
    (tmp_path / "out/other.ozx").unlink()
    assert inrstore.verify(tmp_path / "out").stores == 2
    assert inrstore.update(source, tmp_path / "out").gone == 0


def test_an_archive_without_its_journal_is_not_taken_for_an_empty_one(tmp_path):
    source = images(tmp_path / "in", 2)
    convert(source, tmp_path / "out")
    (tmp_path / "out" / JOURNAL).unlink()
    for command in (lambda: inrstore.remove(tmp_path / "out", ["sub-0*"]), lambda: inrstore.prune(tmp_path / "out")):
        with pytest.raises((StoreError, ConfigurationError), match=r"journal|nothing in"):
            command()
        assert inrstore.verify(tmp_path / "out").stores == 2
    inrstore.update(source, tmp_path / "out")
    assert inrstore.remove(tmp_path / "out", ["sub-0*"]).removed == ("sub-0_bold.ozx",)


def test_the_journal_says_all_of_it(tmp_path):
    source = images(tmp_path / "in", 2)
    convert(source, tmp_path / "out")
    inrstore.remove(tmp_path / "out", ["sub-0*"])
    events = [record["event"] for record in records(tmp_path / "out" / JOURNAL)]
    assert events == ["begin", "outcome", "outcome", "end", "begin", "removed", "end"]
    assert json.loads(json.dumps(inrstore.info(tmp_path / "out").to_dict()))["converted"] == 1
    assert np.array_equal(
        inrstore.open(tmp_path / "out/sub-1_bold.ozx").image.values.T, random_image((6, 5, 4), seed=1)
    )


# ---- merge


@pytest.mark.parametrize("store", ["ozx", "zarr"])
def test_merged_archives_hold_both_and_each_comes_back(tmp_path, store):
    one, two = small_tree(tmp_path / "one"), images(tmp_path / "two", 2)
    convert(one, tmp_path / "a", store=store)
    convert(two, tmp_path / "b", store=store)
    before = tree(tmp_path / "b")
    report = inrstore.merge(tmp_path / "b", tmp_path / "a")
    assert (report.stores, report.files, report.same) == (2, 0, 0)
    assert tree(tmp_path / "b") == before
    assert inrstore.verify(tmp_path / "a").stores == 5
    inrstore.export(tmp_path / "a", tmp_path / "back")
    assert unpacked(tmp_path / "back") == unpacked(one) | unpacked(two)
    again = inrstore.update(one, tmp_path / "a")
    assert (again.complete, again.gone) == (True, 0)
    assert inrstore.merge(tmp_path / "b", tmp_path / "a").same == 2
    assert inrstore.verify(tmp_path / "a").stores == 5


def test_a_merge_with_zips_gives_the_zips_back(tmp_path):
    scan = write_nifti(tmp_path / "x.nii.gz", random_image((4, 3, 2)))
    for n in (1, 2):
        (tmp_path / f"in{n}").mkdir()
        with zipfile.ZipFile(tmp_path / f"in{n}/{n}.zip", "w") as out:
            out.write(scan, "d/x.nii.gz")
        convert(tmp_path / f"in{n}", tmp_path / f"out{n}")
    inrstore.merge(tmp_path / "out2", tmp_path / "out1")
    inrstore.verify(tmp_path / "out1")
    inrstore.export(tmp_path / "out1", tmp_path / "back")
    assert [zipfile.ZipFile(tmp_path / f"back/{n}.zip").namelist() for n in (1, 2)] == [["d/x.nii.gz"]] * 2


def test_archives_that_contradict_each_other_are_not_merged(tmp_path):
    convert(images(tmp_path / "one", 2), tmp_path / "a")
    inrstore.convert(images(tmp_path / "two", 2), tmp_path / "b", psnr=30, preset="fast")
    before = {key: value for key, value in tree(tmp_path / "a").items() if ".inrstore" not in key}
    with pytest.raises(StoreError, match=r"differ in sub-0_bold\.ozx, sub-1_bold\.ozx"):
        inrstore.merge(tmp_path / "b", tmp_path / "a")
    assert {key: value for key, value in tree(tmp_path / "a").items() if ".inrstore" not in key} == before
    assert inrstore.verify(tmp_path / "a").stores == 2
    assert inrstore.merge(tmp_path / "b", tmp_path / "a", exclude=["sub-*"]).stores == 0


def test_after_a_merge_that_was_stopped_nothing_else_is_done(tmp_path, monkeypatch):
    from inrstore.archive import merge

    source = images(tmp_path / "one", 1)
    (tmp_path / "two").mkdir()
    for n in range(3):
        write_nifti(tmp_path / f"two/x{n}.nii", random_image((4, 3, 2), seed=n))
    convert(source, tmp_path / "a")
    convert(tmp_path / "two", tmp_path / "b")
    take, calls = merge._take, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        take(*arguments)

    monkeypatch.setattr(merge, "_take", stopped)
    with pytest.raises(KeyboardInterrupt):
        inrstore.merge(tmp_path / "b", tmp_path / "a")
    monkeypatch.undo()
    archive = tmp_path / "a"
    for command in (lambda: inrstore.update(source, archive), lambda: convert(source, archive),
                    lambda: inrstore.remove(archive, ["*"]), lambda: inrstore.prune(archive)):  # fmt: skip
        with pytest.raises(StoreError, match="was not finished"):
            command()
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.verify(tmp_path / "a")
    assert inrstore.merge(tmp_path / "b", tmp_path / "a").stores == 2
    assert inrstore.verify(tmp_path / "a").stores == 4


# ---- logs


def test_a_log_has_a_line_for_everything(tmp_path):
    source = images(tmp_path / "in", 2)
    (source / "bad\nname.nii").write_bytes(b"no image")
    code, _ = run("convert", source, tmp_path / "out", "--lossless", "--preset", "fast", "--log", tmp_path / "log.txt")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert code == 1 and len(lines) == 5
    assert sum(" info converted: sub-" in line for line in lines) == 2
    assert sum(r" error failed: bad\nname.nii" in line for line in lines) == 1
    run("update", source, tmp_path / "out", "--log", tmp_path / "log.txt")
    assert len((tmp_path / "log.txt").read_text().splitlines()) > len(lines)
    code, text = run("convert", source, tmp_path / "out", "--log", tmp_path)
    assert code == 1 and "cannot be written" in text


# ---- what was thought of later


@pytest.mark.parametrize("store", ["ozx", "zarr"])
def test_what_somebody_removed_by_hand_is_removed_from_the_record(tmp_path, store):
    source = images(tmp_path / "in", 2)
    convert(source, tmp_path / "out", store=store)
    path = tmp_path / f"out/sub-0_bold.{store}"
    path.unlink() if store == "ozx" else shutil.rmtree(path)
    inrstore.remove(tmp_path / "out", ["sub-0*"])
    assert inrstore.verify(tmp_path / "out").stores == 1


def test_a_file_that_was_packed_meanwhile_takes_the_place_of_what_it_was(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    values = random_image((5, 4, 3))
    write_nifti(source / "a.nii", values)
    convert(source, tmp_path / "out")
    (source / "a.nii").unlink()
    write_nifti(source / "a.nii.gz", values)
    report = inrstore.update(source, tmp_path / "out")
    assert (report.complete, report.gone) == (True, 0), report.failures
    assert inrstore.verify(tmp_path / "out", source).stores == 1
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["a.nii.gz"]


def test_a_member_of_a_zip_that_was_removed_whole_comes_back_alone(tmp_path):
    scans = [write_nifti(tmp_path / f"{n}.nii.gz", random_image((4, 3, 2), seed=n)) for n in range(2)]
    (tmp_path / "in").mkdir()
    for name in ("1.zip", "2.zip"):
        with zipfile.ZipFile(tmp_path / "in" / name, "w") as out:
            for scan in scans:
                out.write(scan, scan.name)
    convert(tmp_path / "in", tmp_path / "out")
    inrstore.remove(tmp_path / "out", ["1/*"])
    assert inrstore.update(tmp_path / "in", tmp_path / "out", restore=["1/0*"]).complete
    for again in (lambda: convert(tmp_path / "in", tmp_path / "out"),
                  lambda: inrstore.update(tmp_path / "in", tmp_path / "out")):  # fmt: skip
        report = again()
        assert (report.complete, report.gone) == (True, 0)
        assert inrstore.verify(tmp_path / "out").stores == 3
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert zipfile.ZipFile(tmp_path / "back/1.zip").namelist() == ["0.nii.gz"]


def test_a_store_that_was_edited_is_not_taken_for_what_was_written(tmp_path):
    source = images(tmp_path / "in", 1)
    convert(source, tmp_path / "out", store="zarr")
    document = tmp_path / "out/sub-0_bold.zarr/zarr.json"
    document.write_text(document.read_text().replace("sub-0_bold", "sub-9_bold"))
    with pytest.raises(StoreError, match="is not what this program wrote"):
        inrstore.remove(tmp_path / "out", ["*"])
    assert document.exists()


def test_stores_of_format_2_are_merged_and_the_journal_names_no_folder(tmp_path):
    convert(images(tmp_path / "one", 1), tmp_path / "a", zarr_format=2)
    (tmp_path / "two").mkdir()
    write_nifti(tmp_path / "two/x.nii", random_image((4, 3, 2)))
    convert(tmp_path / "two", tmp_path / "b", zarr_format=2)
    assert inrstore.merge(tmp_path / "b", tmp_path / "a").stores == 1
    assert inrstore.verify(tmp_path / "a").stores == 2
    assert str(tmp_path) not in (tmp_path / "a" / JOURNAL).read_text()
