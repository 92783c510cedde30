"""An archive in Python and on the command line: a table of its images, selected by what they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import make_archive
from common import random_image, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.archive.images import entities_of
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, StoreError

pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("sub-01/ses-a/dwi/sub-01_ses-a_acq-b_dwi", "sub-01/func/sub-01_task-rest_bold",
                                   "sub-02/func/sub-02_task-nback_run-1_bold", "sub-02/anat/sub-02_T1w")):  # fmt: skip
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (5, 4, 3) if name.endswith("T1w") else (5, 4, 3, 2)
        write_nifti(folder / "in" / f"{name}.nii.gz", random_image(shape, seed=number))
    scan = write_nifti(folder / "scan.nii.gz", random_image((4, 3, 2)))
    with zipfile.ZipFile(folder / "in/1000001_20252_2_0.zip", "w") as out:
        out.write(scan, "T1/T1.nii.gz")
    return make_archive(folder / "in", folder / "archive")


def test_images_say_who_and_what_they_are(archive):
    found = inrstore.open_archive(archive)
    assert len(found) == 5 and found.values("subject") == ["01", "02", "1000001"]
    one = found["sub-01/ses-a/dwi/sub-01_ses-a_acq-b_dwi.nii.gz"].record
    assert one.entities == {"subject": "01", "session": "a", "acquisition": "b"}
    assert (one.suffix, one.shape, one.dims, one.dtype) == ("dwi", (2, 3, 4, 5), ("t", "z", "y", "x"), "int16")
    assert one.quality == {"lossless": True} and one.psnr is None and one.ratio > 0
    bulk = found.select(subject="1000001")[0].record
    assert (bulk.suffix, bulk.entities["field"], bulk.entities["instance"]) == ("T1w", "20252", "2")


def test_selections_follow_each_other(archive):
    found = inrstore.open_archive(archive)
    assert [image.record.suffix for image in found.select(subject="02")] == ["T1w", "bold"]
    assert len(found.select(suffix="bold").select(task=["rest", "nback"])) == 2
    assert len(found.select("sub-02/*", suffix="T1w")) == len(found.select(run="1")) == 1
    assert len(found.select(suffix="dwi", subject="02")) == 0
    assert isinstance(found[1:3], inrstore.views.archive.Archive) and len(found[1:3]) == 2
    with pytest.raises(ConfigurationError, match="tasks: no image"):
        found.select(tasks="rest")
    with pytest.raises(KeyError, match="no image"):
        found["nothing"]


def test_images_are_opened_when_asked_for(archive):
    image = inrstore.open_archive(archive).select(task="rest")[0]
    assert np.array_equal(image.open().image.values.T, random_image((5, 4, 3, 2), seed=1))
    assert "rest" in repr(image) and "5 images" in repr(inrstore.open_archive(archive))


def test_the_table_is_a_data_frame_where_pandas_is(archive):
    table = inrstore.open_archive(archive).table()
    if isinstance(table, list):
        pytest.skip("pandas is not installed")
    assert list(table[table.suffix == "bold"].task) == ["rest", "nback"]


def test_another_store_in_its_place_is_not_opened(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "copy")
    shutil.copy(tmp_path / "copy/sub-02/anat/sub-02_T1w.ozx", tmp_path / "copy/sub-01/func/sub-01_task-rest_bold.ozx")
    with pytest.raises(StoreError, match="seal"):
        inrstore.open_archive(tmp_path / "copy").select(task="rest")[0].open()


def test_a_lost_journal_leaves_a_list(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "copy")
    (tmp_path / "copy/.inrstore/journal.jsonl").unlink()
    found = inrstore.open_archive(tmp_path / "copy")
    assert len(found) == 5 and found.select(task="rest")[0].open().image.shape == (2, 3, 4, 5)


def test_ls_lists_and_selects(archive):
    run = CliRunner().invoke
    result = run(app, ["ls", str(archive), "--subject", "01", "--suffix", "dwi", "--json"])
    (record,) = json.loads(result.output)
    assert (record["subject"], record["session"], record["shape"]) == ("01", "a", [2, 3, 4, 5])
    text = run(app, ["ls", str(archive), "sub-02/*", "--where", "task=nback"]).output
    assert "sub-02_task-nback_run-1_bold.nii.gz  5x4x3x2 int16" in text and "1 images" in text
    assert run(app, ["ls", str(archive), "--where", "task"]).exit_code == 2
    assert run(app, ["ls", str(Path(archive).parent)]).exit_code == 1


@pytest.mark.parametrize("path, wanted", [
    ("sub-1/dwi/sub-1_dir-AP_run-02_dwi.nii.gz", {"subject": "1", "direction": "AP", "run": "02"}),
    ("1_20250_2_0.zip:dMRI/raw/AP.nii.gz", {"subject": "1", "field": "20250", "instance": "2", "array": "0"}),
    ("scan_10:30:00.nii.gz", {}), ("data/T1.nii", {}), ("sub-/a.nii", {}), ("x-y_T1w.nii", {}),
])  # fmt: skip
def test_entities_of_names(path, wanted):
    assert entities_of(path) == wanted


@pytest.mark.slow
def test_a_thousand_images_are_listed_and_looked_through_in_seconds(tmp_path):
    """Limits of the requirement; what is measured is on the result of the tool."""
    (tmp_path / "in").mkdir()
    data = write_nifti(tmp_path / "one.nii.gz", random_image((4, 3, 2))).read_bytes()
    for number in range(1000):
        (tmp_path / f"in/sub-{number:04}_T1w.nii.gz").write_bytes(data)
    make_archive(tmp_path / "in", tmp_path / "archive")
    took = {}
    for name, command in {
        "open": ["-c", f"import inrstore; assert len(inrstore.open_archive({str(tmp_path / 'archive')!r})) == 1000"],
        "ls": ["-m", "inrstore.cli", "ls", str(tmp_path / "archive"), "--subject", "0007"],
        "update": ["-m", "inrstore.cli", "update", str(tmp_path / "in"), str(tmp_path / "archive")],
    }.items():
        began = sum(os.times()[2:4])  # processor time of children, whatever else runs here
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        took[name] = sum(os.times()[2:4]) - began
    print(took)
    assert took["open"] < 4 and took["ls"] < 4 and took["update"] < 15, took
