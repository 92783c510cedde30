"""A source becomes an archive: every kind of source and file; what goes wrong is told, and costs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from archives import bids_dataset, bulk_zip, small_tree, unpacked, write_pair, write_tree
from common import check_refused, needs_torch, opened, random_image, real_scan, tree, write_nifti
from trees import by_key, damaged, images

import inrstore
from inrstore.archive.outcomes import ArchiveProgress
from inrstore.errors import ConfigurationError, DestinationExistsError, SourceError
from inrstore.store.reports import JobProgress

# ---- kinds of sources


def test_a_tree_keeps_its_shape(tmp_path):
    source = small_tree(tmp_path / "in")
    before = tree(source)
    report = inrstore.convert(source, tmp_path / "out", lossless=True)
    assert (report.complete, report.converted, report.copied, report.failed) == (True, 3, 5, 0)
    out = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert {"a/one.ozx", "b/dwi.ozx", "c/pair.ozx", "a/notes.txt", "empty.dat", "b/dwi.bval"} <= out
    assert not any(name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".partial", "~")) for name in out)
    assert tree(source) == before
    image = opened(tmp_path / "out/b/dwi.ozx")
    assert np.array_equal(np.asarray(image["image"]).T, random_image((5, 4, 3, 2), seed=1))
    assert image["bval"][:].tolist() == [0, 1000]


def test_the_report_adds_up_and_is_json(tmp_path):
    source = small_tree(tmp_path / "in")
    report = inrstore.convert(source, tmp_path / "out", max_error=2)
    files = [path for path in source.rglob("*") if path.is_file()]
    assert report.source_bytes == sum(path.stat().st_size for path in files)
    images = [path for path in files if path.suffix in (".gz", ".nii", ".hdr", ".img")]
    assert report.image_bytes == sum(path.stat().st_size for path in images)
    stored = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".inrstore" not in path.parts]
    assert report.stored_bytes == sum(path.stat().st_size for path in stored)
    assert report.ratio == report.image_bytes / report.store_bytes
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["complete"] is True
    info = inrstore.info(tmp_path / "out")
    same = ("complete", "converted", "copied", "source_bytes", "stored_bytes", "ratio", "modes", "psnr")
    assert {name: getattr(info, name) for name in same} == {name: getattr(report, name) for name in same}
    assert info.source["name"] == "in"
    assert info.options["promise"] == {"max_error": 2}


def test_what_is_archived_is_verified_and_comes_back(tmp_path):
    source = small_tree(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    assert inrstore.verify(tmp_path / "out", source).stores == 3
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert unpacked(tmp_path / "back") == unpacked(source)


def test_a_dataset_becomes_a_derivative(tmp_path):
    source = bids_dataset(tmp_path / "in")
    inrstore.convert(source, tmp_path / "out", lossless=True)
    description = json.loads((tmp_path / "out/dataset_description.json").read_bytes())
    assert description["DatasetType"] == "derivative"
    kept = tmp_path / "out/.inrstore/originals/dataset_description.json"
    assert kept.read_bytes() == (source / "dataset_description.json").read_bytes()
    assert "*.ozx" in (tmp_path / "out/.bidsignore").read_text()
    assert inrstore.verify(tmp_path / "out", source).files > 0
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert unpacked(tmp_path / "back") == unpacked(source)


def test_a_zip_becomes_the_archive_itself(tmp_path):
    path = bulk_zip(tmp_path / "in/100_20250_2_0.zip", tmp_path / "scratch")
    report = inrstore.convert(path, tmp_path / "out", lossless=True)
    assert (report.converted, report.copied) == (2, 4)
    assert (tmp_path / "out/dMRI/dMRI/data.ozx").is_file()
    assert by_key(tmp_path / "out")["100_20250_2_0.zip:dMRI/dMRI/bvals"].out == "dMRI/dMRI/bvals"
    record = json.loads((tmp_path / "out/.inrstore/zips/100_20250_2_0.zip.json").read_bytes())
    stores = {member["name"]: member["out"] for member in record["members"] if member["store"]}
    assert stores == {
        "dMRI/dMRI/data.nii.gz": "dMRI/dMRI/data.ozx",
        "dMRI/dMRI/nodif_brain_mask.nii.gz": "dMRI/dMRI/nodif_brain_mask.ozx",
    }
    assert inrstore.verify(tmp_path / "out", path).stores == 2


def test_gradients_are_found_inside_a_zip(tmp_path):
    path = bulk_zip(tmp_path / "in/1.zip", tmp_path / "scratch")
    inrstore.convert(path, tmp_path / "out", lossless=True)
    image = opened(tmp_path / "out/dMRI/dMRI/data.ozx")
    assert image["bval"][:].tolist() == [0, 1000]


def test_a_folder_of_zips_becomes_a_folder_of_folders(tmp_path):
    for name in ("1", "2"):
        bulk_zip(tmp_path / f"in/{name}_20250_2_0.zip", tmp_path / "scratch")
    (tmp_path / "rules.toml").write_text("[dwi]\nmax_error = 3\n")
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml")
    assert report.converted == 4
    done = by_key(tmp_path / "out")
    assert done["1_20250_2_0.zip:dMRI/dMRI/data.nii.gz"].measures["promised"] == {"max_error": 3}
    assert done["2_20250_2_0.zip:dMRI/dMRI/nodif_brain_mask.nii.gz"].measures["promised"] == {"lossless": True}
    assert (tmp_path / "out/2_20250_2_0/größe.txt").read_text() == "text " * 200


def test_a_pair_in_a_zip_is_on_record_with_both_files(tmp_path):
    pair = write_pair(tmp_path / "x.hdr", random_image((4, 3, 2)))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as packed:
        packed.write(pair.with_suffix(".img"), "x.img")
        packed.write(pair, "x.hdr")
    inrstore.convert(tmp_path / "p.zip", tmp_path / "out", lossless=True)
    record = json.loads((tmp_path / "out/.inrstore/zips/p.zip.json").read_bytes())
    assert [(member["name"], member["out"], member["store"]) for member in record["members"]] == [
        ("x.img", "x.ozx", True),
        ("x.hdr", "x.ozx", True),
    ]


@pytest.mark.real
def test_scans_become_images_and_files_among_them_are_copied(tmp_path):
    pytest.importorskip("dcm2niix")
    source = real_scan("sub-s03").parents[2] / "dicom" / "dwi_uih_explicitvrle"
    folder = tmp_path / "in/scan"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    ending = next(source.iterdir()).suffix
    write_tree(folder, {f"zzz{ending}": b"no image", "notes.txt": b"text"})
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", lossless=True, include=("scan/*",))
    assert report.complete, report.failures
    assert (tmp_path / f"out/scan/zzz{ending}").read_bytes() == b"no image"
    (store,) = (tmp_path / "out/scan").glob("*.ozx")
    image = opened(store)
    import nibabel as nib

    voxels = np.asanyarray(nib.load(real_scan("sub-s03")).dataobj.get_unscaled())
    assert np.array_equal(np.asarray(image["image"]).T, voxels)
    again = inrstore.convert(tmp_path / "in", tmp_path / "out", lossless=True, include=("scan/*",))
    assert again.complete and again.resumed == report.converted + report.copied


# ---- kinds of images


def test_an_image_that_no_store_holds_is_copied_with_a_note(tmp_path):
    values = np.zeros((3, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    (tmp_path / "in").mkdir()
    path = write_nifti(tmp_path / "in/colours.nii", values)
    pair = write_pair(tmp_path / "in/complex.hdr", random_image((3, 3, 2)).astype("complex64"))
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", lossless=True)
    assert (report.complete, report.converted, report.copied) == (True, 0, 3)
    assert (tmp_path / "out/colours.nii").read_bytes() == path.read_bytes()
    assert (tmp_path / "out/complex.img").read_bytes() == pair.with_suffix(".img").read_bytes()
    outcome = by_key(tmp_path / "out")["colours.nii"]
    assert (outcome.kind, outcome.status) == ("image", "copied")
    assert outcome.note
    assert inrstore.verify(tmp_path / "out", tmp_path / "in").files == 3


def test_labels_are_known_by_name_and_by_header(tmp_path):
    labels = np.arange(60, dtype="int16").reshape(3, 4, 5)
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/a_dseg.nii.gz", labels)
    path = write_nifti(tmp_path / "in/regions.nii", labels)
    data = bytearray(path.read_bytes())
    data[68:70] = (1002).to_bytes(2, "little")
    path.write_bytes(data)
    write_nifti(tmp_path / "in/b_bold.nii", labels)
    inrstore.convert(tmp_path / "in", tmp_path / "out", max_error=4)
    promised = {key: outcome.measures["promised"] for key, outcome in by_key(tmp_path / "out").items()}
    assert promised == {
        "a_dseg.nii.gz": {"lossless": True}, "regions.nii": {"lossless": True}, "b_bold.nii": {"max_error": 4}
    }  # fmt: skip
    again = inrstore.convert(tmp_path / "in", tmp_path / "out", max_error=4)
    assert again.resumed == 3


def test_rules_say_what_is_done_with_which_image(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a_T1w.nii.gz", "a_bold.nii.gz", "a_dwi.nii.gz"):
        write_nifti(tmp_path / "in" / name, random_image((4, 4, 3)))
    (tmp_path / "rules.toml").write_text("[T1w]\nlossless = true\n[bold]\nkeep = 'file'\n[default]\nmax_error = 2\n")
    inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml")
    done = by_key(tmp_path / "out")
    assert done["a_T1w.nii.gz"].measures["promised"] == {"lossless": True}
    assert done["a_dwi.nii.gz"].measures["promised"] == {"max_error": 2}
    assert (done["a_bold.nii.gz"].status, done["a_bold.nii.gz"].out) == ("copied", "a_bold.nii.gz")


def masked_tree(folder):
    folder.mkdir()
    mask = np.zeros((5, 4, 6), "uint8")
    mask[1:4, 1:3, 2:5] = 1
    write_nifti(folder / "a_dwi.nii.gz", random_image((5, 4, 6, 2)))
    write_nifti(folder / "a_mask.nii.gz", mask)
    write_nifti(folder / "b_dwi.nii.gz", random_image((5, 4, 6, 2)))
    return mask


@pytest.mark.parametrize("zipped", [False, True])
def test_a_mask_beside_an_image_is_used_and_a_missing_one_noted(tmp_path, zipped):
    mask = masked_tree(tmp_path / "in")
    source = tmp_path / "in"
    if zipped:
        source = tmp_path / "s.zip"
        with zipfile.ZipFile(source, "w") as packed:
            for path in sorted((tmp_path / "in").iterdir()):
                packed.write(path, path.name)
    report = inrstore.convert(source, tmp_path / "out", max_error=1, mask="{entities}_mask.nii.gz")
    assert report.complete, report.failures
    done = {key.rpartition(":")[2]: outcome for key, outcome in by_key(tmp_path / "out").items()}
    assert "b_mask.nii.gz" in done["b_dwi.nii.gz"].note
    assert not done["a_dwi.nii.gz"].note
    voxels = np.asarray(opened(tmp_path / "out/a_dwi.ozx")["image"]).T
    assert (voxels[mask == 0] == 0).all() and (voxels[mask == 1] != 0).all()
    assert np.array_equal(np.asarray(opened(tmp_path / "out/a_mask.ozx")["image"]).T, mask)
    assert not (tmp_path / "out/.inrstore/work").exists()
    assert inrstore.convert(source, tmp_path / "out", max_error=1, mask="{entities}_mask.nii.gz").complete


# ---- one image of a folder or zip


def test_the_only_image_of_a_folder_or_zip_becomes_one_store(tmp_path):
    source = images(tmp_path / "in", 1)
    (source / "notes.txt").write_text("text")
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as packed:
        packed.write(source / "sub-0_bold.nii.gz", "a/sub-0_bold.nii.gz")
    plain = inrstore.convert(source / "sub-0_bold.nii.gz", tmp_path / "a.ozx", lossless=True)
    folder = inrstore.convert(source, tmp_path / "b.ozx", lossless=True)
    zipped = inrstore.convert(tmp_path / "one.zip", tmp_path / "c.ozx", lossless=True)
    assert len({(tmp_path / f"{name}.ozx").read_bytes() for name in "abc"}) == 1
    assert plain.seal == folder.seal == zipped.seal


@pytest.mark.parametrize("count, words", [(0, "no image"), (2, "more than one image")])
def test_a_store_holds_exactly_one_image(tmp_path, count, words):
    source = images(tmp_path / "in", count)
    (source / "notes.txt").write_text("text")
    check_refused(lambda: inrstore.convert(source, tmp_path / "s.ozx"), SourceError, words, folder=tmp_path)


def test_options_of_archives_are_refused_for_one_store(tmp_path):
    source = images(tmp_path / "in", 1)
    for options in ({"include": ["*"]}, {"report": "r.html"}, {"workers": 2}):
        for path in (source, source / "sub-0_bold.nii.gz"):
            convert = lambda path=path, options=options: inrstore.convert(path, tmp_path / "s.ozx", **options)  # noqa: E731
            check_refused(convert, ConfigurationError, *options, folder=tmp_path)


def test_one_image_of_labels_is_lossless_unless_a_quality_is_named(tmp_path):
    path = write_nifti(tmp_path / "a_dseg.nii", random_image((5, 4, 3)))
    assert inrstore.convert(path, tmp_path / "a.ozx").promised == {"lossless": True}
    assert inrstore.convert(path, tmp_path / "b.ozx", max_error=2).promised == {"max_error": 2}


# ---- progress and report


def test_progress_goes_from_nothing_to_all(tmp_path):
    source = small_tree(tmp_path / "in")
    steps = []
    inrstore.convert(source, tmp_path / "out", max_error=1, progress=steps.append)
    assert all(isinstance(step, ArchiveProgress) for step in steps)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total == 8
    assert steps[-1].bytes_done == steps[-1].bytes_total
    running = {key: step for one in steps for key, step in one.running.items()}
    assert set(running) == {"a/one.nii.gz", "b/dwi.nii", "c/pair.hdr"}
    assert all(isinstance(step, JobProgress) for step in running.values())
    assert not steps[-1].running


def test_the_page_shows_every_image_also_after_a_resumed_job(tmp_path):
    pytest.importorskip("matplotlib")
    source = damaged(tmp_path / "in")
    for _ in range(2):
        report = inrstore.convert(source, tmp_path / "out", lossless=True, report=tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text()
        assert all(f"sub-{number}_bold.nii.gz" in page for number in range(8))
        assert page.count("<img ") == 6
        assert report.report == str(tmp_path / "r.html")


@pytest.mark.fit
@needs_torch
def test_images_fitted_together_keep_their_promise(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        write_nifti(tmp_path / f"in/{number}.nii", random_image((16, 16, 12), seed=number))
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", psnr=28, preset="fast", batch=2)
    assert report.complete, report.failures
    assert report.psnr >= 28
    assert inrstore.verify(tmp_path / "out", tmp_path / "in").stores == 3


def test_batches_do_not_change_lossless_stores(tmp_path):
    source = damaged(tmp_path / "in")
    inrstore.convert(source, tmp_path / "a", lossless=True)
    inrstore.convert(source, tmp_path / "b", lossless=True, batch=3)
    one, other = tree(tmp_path / "a"), tree(tmp_path / "b")
    names = {name for name in one if not name.startswith(".inrstore")}
    assert {name: one[name] for name in names} == {name: other[name] for name in names}


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """What a job holds after 200 and after 1,200 small files; paths intern their parts, in a table that leaps."""
    code = (
        "import gc, os, sys, tracemalloc, inrstore\n"
        "os.fsync = lambda handle: None\n"
        "held = {}\n"
        "def look(step):\n"
        "    if step.done in (200, 1200):\n"
        "        gc.collect()\n"
        "        found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, '*/pathlib.py')])\n"
        "        held[step.done] = sum(one.size for one in found.statistics('filename'))\n"
        "tracemalloc.start()\n"
        "assert inrstore.convert(sys.argv[1] + '/in', sys.argv[1] + '/out', progress=look).complete\n"
        "print(held[1200] - held[200])\n"
    )
    write_tree(tmp_path / "in", {f"g{n // 50:03}/s{n:05}.txt": b"text" for n in range(1200)})
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000


@pytest.mark.real
def test_a_folder_of_one_series_becomes_one_store(tmp_path):
    pytest.importorskip("dcm2niix")
    source = real_scan("sub-s03").parents[2] / "dicom" / "dwi_uih_explicitvrle"
    report = inrstore.convert(source, tmp_path / "s.ozx", lossless=True)
    assert report.lossless
    with pytest.raises(DestinationExistsError):
        inrstore.convert(source, tmp_path / "s.ozx", lossless=True)
