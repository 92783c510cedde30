"""If nobody names a quality: it follows the noise of the image, keeps what its kind is for, and is never a surprise."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common import random_image, real_scan, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app
from inrstore.evaluate.fmri import Series
from inrstore.store.defaults import TIMES

SIGMA = 6.0


def series(path: Path, *, bright: float = 0.0, volumes: int = 12, seed: int = 0, dtype: str = "int16") -> Path:
    """Write an fMRI run (a ball of anatomy with noise of 6 units, air of 0), one voxel of it bright."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 24, 8)), indexing="ij"))
    inside = np.square(grid).sum(axis=0) < 0.9
    anatomy = 500 + 150 * np.sin(9 * grid[0]) * np.cos(5 * grid[1])
    run = anatomy[..., None] + np.random.default_rng(seed).normal(0, SIGMA, (*anatomy.shape, volumes))
    run = np.where(inside[..., None], run, 0)
    run[12, 12, 4] += bright
    image = nib.Nifti1Image(np.rint(run).astype(dtype), np.diag([3, 3, 3, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((3, 3, 3, 2.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def test_the_default_of_fmri_keeps_the_series(tmp_path):
    """At the 40 dB that were the default the noise of this run is all gone, and the series with it."""
    source = series(tmp_path / "sub-1_bold.nii.gz", bright=9000)
    report = inrstore.convert(source, tmp_path / "s.ozx", preset="fast")
    voxels = np.asarray(nib.load(source).dataobj).T
    decoded = inrstore.open(tmp_path / "s.ozx").image.values
    model = Series(voxels, mask=(voxels > 0).all(axis=0))
    found = {one.measure: one.value for one in model.compare(decoded).findings}
    assert found["correlation of the series, median"] > 0.95
    assert not report.lossless and report.rmse < TIMES["fmri"] * SIGMA * 1.2


def test_the_default_follows_the_noise_and_not_the_range(tmp_path):
    """A bright voxel changes the decibels, not the error."""
    plain, bright = (inrstore.convert(series(tmp_path / f"{name}_bold.nii", bright=value), tmp_path / f"{name}.ozx",
                                      preset="fast")
                     for name, value in (("a", 0.0), ("b", 6000.0)))  # fmt: skip
    assert bright.psnr - plain.psnr == pytest.approx(20 * np.log10(6500 / 670), abs=1.0)
    assert bright.rmse == pytest.approx(plain.rmse, rel=0.1)
    assert plain.default["noise"] == pytest.approx(SIGMA, rel=0.15)


def test_what_nothing_tells_the_kind_of_keeps_every_bit(tmp_path):
    write_nifti(tmp_path / "image.nii.gz", random_image((8, 7, 6)))
    report = inrstore.convert(tmp_path / "image.nii.gz", tmp_path / "s.ozx")
    assert report.lossless and report.promised == {"lossless": True} and report.default == {"kind": "image"}


def test_noise_that_is_lost_in_rounding_keeps_every_bit(tmp_path):
    values = np.tile(np.arange(16, dtype=np.int16)[:, None, None], (1, 12, 10))
    write_nifti(tmp_path / "sub-1_T1w.nii", values)
    report = inrstore.convert(tmp_path / "sub-1_T1w.nii", tmp_path / "s.ozx")
    assert report.lossless and report.default == {"kind": "structural"}


def test_what_is_asked_for_is_never_changed(tmp_path):
    source = series(tmp_path / "sub-1_bold.nii")
    for asked in ({"psnr": 33.0}, {"rmse": 9.0}, {"max_error": 20.0}, {"lossless": True}):
        report = inrstore.convert(source, tmp_path / f"{next(iter(asked))}.ozx", preset="fast", **asked)
        assert report.promised == asked and report.default == {}
        assert inrstore.info(report.store).default == {}


def test_the_command_says_what_was_taken_and_why(tmp_path):
    source = series(tmp_path / "sub-1_bold.nii")
    plan = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "s.ozx"), "--dry-run"]).output
    assert "(default)" in plan and not (tmp_path / "s.ozx").exists()
    made = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "s.ozx")]).output
    known = inrstore.info(tmp_path / "s.ozx")
    assert f"rmse {known.promised['rmse']:g} (default)" in plan
    for text in (made, CliRunner().invoke(app, ["info", str(tmp_path / "s.ozx")]).output):
        assert (
            f"  default   {TIMES['fmri']:g} times the noise of {known.default['noise']:g} in this image (fMRI)" in text
        )
    write_nifti(tmp_path / "image.nii", random_image((8, 7, 6)))
    text = CliRunner().invoke(app, ["convert", str(tmp_path / "image.nii"), str(tmp_path / "i.ozx")]).output
    assert "  default   every bit, for nothing tells what this image is" in text


def test_each_image_of_an_archive_has_the_default_of_its_kind(tmp_path):
    series(tmp_path / "in/sub-1/func/sub-1_bold.nii.gz")
    (tmp_path / "in/sub-1/anat").mkdir()
    write_nifti(tmp_path / "in/sub-1/anat/sub-1_dseg.nii.gz", random_image((8, 7, 6), "uint8"))
    write_nifti(tmp_path / "in/sub-1/anat/other.nii.gz", random_image((8, 7, 6)))
    report = inrstore.convert(tmp_path / "in", tmp_path / "out")
    assert report.complete and report.defaults == {"fmri": 1, "image": 1}
    promised = {store.stem: inrstore.info(store).promised for store in (tmp_path / "out").rglob("*.ozx")}
    assert promised["sub-1_dseg"] == promised["other"] == {"lossless": True}
    assert promised["sub-1_bold"].keys() == {"rmse"}
    assert inrstore.convert(tmp_path / "in", tmp_path / "out").resumed == 3
    for store in (tmp_path / "out").rglob("*.ozx"):
        inrstore.verify(store)


def test_an_archive_without_its_record_is_taken_up_with_the_same_default(tmp_path):
    series(tmp_path / "in/sub-1_bold.nii.gz")
    inrstore.convert(tmp_path / "in", tmp_path / "out")
    seal = inrstore.info(tmp_path / "out/sub-1_bold.ozx").seal
    (tmp_path / "out/.inrstore/journal.jsonl").write_bytes(b"")
    assert inrstore.convert(tmp_path / "in", tmp_path / "out").resumed == 1
    assert inrstore.info(tmp_path / "out/sub-1_bold.ozx").seal == seal


def test_an_archive_of_the_time_of_40_db_keeps_them_when_it_is_updated(tmp_path):
    series(tmp_path / "in/sub-1_bold.nii.gz")
    inrstore.convert(tmp_path / "in", tmp_path / "out", psnr=40, preset="fast")
    job = tmp_path / "out/.inrstore/job.json"
    document = json.loads(job.read_text())
    document["options"]["unasked"] = True  # as such archives say it
    job.write_text(json.dumps(document))
    series(tmp_path / "in/sub-2_bold.nii.gz", seed=1)
    inrstore.update(tmp_path / "in", tmp_path / "out")
    stores = sorted((tmp_path / "out").glob("*.ozx"))
    assert [inrstore.info(store).promised for store in stores] == [{"psnr": 40.0}] * 2


@pytest.mark.real
def test_the_default_suits_real_scans(tmp_path):
    report = inrstore.convert(real_scan("sub-s06tiny"), tmp_path / "s.ozx")
    assert report.default["kind"] == "dmri" and report.promised.keys() == {"rmse"}
    assert json.loads(json.dumps(report.to_dict()))["default"] == report.default
