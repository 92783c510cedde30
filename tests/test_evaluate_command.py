"""The command `evaluate`: what an image is, what comes out as text, JSON, table and page, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from common import check_refused, real_scan, write_nifti
from test_evaluate import directions, phantom, scheme
from typer.testing import CliRunner

import inrstore
from inrstore import api
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, MissingDependencyError, SourceError, StoreError
from inrstore.sources import read_source
from inrstore.store.defaults import kind_of
from inrstore.store.reports import JobProgress


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A diffusion scan of 34 measurements with two stores, another image, and a mask."""
    top = tmp_path_factory.mktemp("evaluate")
    gradients = scheme(32)
    scan, mask = phantom(gradients, sigma=15)
    write_nifti(top / "s_dwi.nii.gz", np.abs(scan).T)
    write_nifti(top / "mask.nii.gz", mask.T.astype(np.uint8))
    write_nifti(top / "other.nii.gz", scan[:3].T)
    (top / "s_dwi.bval").write_text(" ".join(f"{b:g}" for b in gradients.bval) + "\n")
    (top / "s_dwi.bvec").write_text("\n".join(" ".join(f"{v:.6f}" for v in row) for row in gradients.bvec.T) + "\n")
    inrstore.convert(top / "s_dwi.nii.gz", top / "exact.ozx", lossless=True)
    inrstore.convert(top / "s_dwi.nii.gz", top / "near.ozx", max_error=8)
    inrstore.convert(top / "s_dwi.nii.gz", top / "masked.zarr", max_error=8, mask=top / "mask.nii.gz")
    return top


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *(str(a) for a in arguments)])


def test_stores_stand_side_by_side(folder):
    pytest.importorskip("dipy")
    report = api.evaluate(folder / "s_dwi.nii.gz", [folder / "near.ozx", folder / "exact.ozx"])
    assert report.kind == "dmri" and report.notes == ()
    near, exact = report.candidates
    assert near.nbytes == (folder / "near.ozx").stat().st_size
    assert near.ratio == pytest.approx(np.prod(report.shape) * 2 / near.nbytes)
    assert near.bits_per_voxel == pytest.approx(8 * near.nbytes / np.prod(report.shape))
    assert exact.find("FA", "WM", "mean absolute error") == 0 and exact.find("PSNR, whole range", "image") is None
    assert 0 < near.find("FA", "WM", "mean absolute error") < 0.1
    assert near.find("largest error", "image") == 8


def test_text_json_table_and_page_come_from_one_report(folder, tmp_path):
    pytest.importorskip("dipy")
    source, stores = folder / "s_dwi.nii.gz", (folder / "near.ozx", folder / "exact.ozx")
    result = run(source, *stores, "--mask", folder / "mask.nii.gz", "--report", tmp_path / "r.html", "--csv",
                 tmp_path / "t.csv", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    told = json.loads(result.stdout)
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert len(rows) == sum(len(one["findings"]) for one in told["candidates"])
    fa = next(r for r in rows if (r["measure"], r["region"], r["statistic"]) == ("FA", "WM", "mean absolute error"))
    assert float(fa["value"]) > 0 and fa["candidate"].endswith("near.ozx")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") >= 8 and page.count("<img") >= 13
    assert "near.ozx" in page and "colour FA" in page and "SSIM" in page and "IWLS" not in page
    assert page.count("src=") == page.count('src="data:image/png;base64,') and "href" not in page  # nothing is fetched
    text = run(source, *stores, "--mask", folder / "mask.nii.gz", "--report", tmp_path / "r.html").stdout
    assert re.search(r"FA, mean error \(bias\) +WM 0\.\d+ \([+-]", text) and "r.html" in text


def test_yardsticks_stand_beside_the_stores(folder):
    pytest.importorskip("dipy")
    seen: list[JobProgress] = []
    report = api.evaluate(folder / "s_dwi.nii.gz", folder / "near.ozx", mask=folder / "mask.nii.gz",
                               yardsticks=True, progress=seen.append)  # fmt: skip
    names = [one.name for one in report.candidates]
    assert names[0].endswith("near.ozx") and names[1:4] == ["two halves of the directions", "MP-PCA",
                                                            "smoothing, FWHM 1.5 voxels"]  # fmt: skip
    others = [one for one in report.candidates[4:]]
    assert all(one.kind == "yardstick" and one.nbytes <= report.candidates[0].nbytes for one in others)
    assert len(others) == 2 or any("imagecodecs" in note for note in report.notes)
    assert [step.fraction for step in seen] == sorted(step.fraction for step in seen) and len(seen) > 6
    assert seen[0].unit == "steps"


def test_inside_the_mask_of_a_store_alone_errors_count(folder):
    report = api.evaluate(folder / "s_dwi.nii.gz", folder / "masked.zarr", kind="image")
    assert report.candidates[0].find("largest error", "image") == 8
    assert any("mask" in note for note in report.notes)


def test_without_the_extra_any_image_is_still_measured(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dipy", None)
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    report = api.evaluate(folder / "s_dwi.nii.gz", folder / "near.ozx")
    assert report.kind == "image" and "inrstore[evaluate]" in report.notes[0]
    assert report.candidates[0].find("PSNR, by slices", "image") > 20
    assert report.candidates[0].find("SSIM", "image") is None
    with pytest.raises(MissingDependencyError, match=r"inrstore\[evaluate\]"):
        api.evaluate(folder / "s_dwi.nii.gz", folder / "near.ozx", kind="dmri")
    result = run(folder / "s_dwi.nii.gz", folder / "near.ozx", "--kind", "dmri")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1


def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    source, near = folder / "s_dwi.nii.gz", folder / "near.ozx"

    def refused(error, *words, **options):
        given = {"source": source, "stores": [near], **options}
        return check_refused(lambda: api.evaluate(**given), error, *words, folder=tmp_path)

    refused(StoreError, "other.nii.gz", "(3, 6, 16, 30)", source=folder / "other.nii.gz")
    refused(ConfigurationError, "at least one", stores=[])
    refused(ConfigurationError, "twice", stores=[near, near])
    refused(ConfigurationError, "kind", "pet", kind="pet")
    refused(ConfigurationError, "s_dwi.nii.gz", "'ct'", kind="ct")
    refused(ConfigurationError, "seed", "dmri", seed=(1, 2, 3))
    refused(ConfigurationError, "seed", "three", seed=(1, 2))
    mask = folder / "mask.nii.gz"
    refused(ConfigurationError, "seed", "30 x 16 x 6", seed=(99, 2, 3), kind="fmri", mask=mask)
    refused(SourceError, "other.nii.gz", "mask", mask=folder / "other.nii.gz")
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    (tmp_path / "mine.csv").write_text("a,b\n")
    refused(ConfigurationError, "mine.html", report=tmp_path / "mine.html")
    refused(ConfigurationError, "mine.csv", table=tmp_path / "mine.csv")
    assert run(source, near, "--seed", "1,2").exit_code == run(source, near, "--seed", "a,b,c").exit_code == 2
    assert run(source).exit_code == 2


def test_names_of_files_are_no_html(folder, tmp_path):
    odd = tmp_path / "<script>alert(1)<.ozx"
    odd.write_bytes((folder / "near.ozx").read_bytes())
    api.evaluate(folder / "s_dwi.nii.gz", [odd, folder / "exact.ozx"], kind="image", report=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "alert(1)" in page and "<script>alert" not in page


def test_an_image_is_what_its_gradients_name_and_shape_say(folder, tmp_path):
    image = read_source(folder / "s_dwi.nii.gz")
    assert kind_of(image) == kind_of(image, "bold") == "dmri"
    bare = replace(image, bval=None, bvec=None)
    assert kind_of(bare, "bold") == "fmri" and kind_of(bare, "T1w") == kind_of(bare, "dwi") == "fmri"
    assert kind_of(replace(bare, units={"space": "mm", "time": "unknown"})) == "image"
    volume = replace(bare, voxels=image.voxels[0], voxel_size=image.voxel_size[:3])
    assert kind_of(volume, "T1w") == kind_of(volume, "FLAIR") == "structural"
    assert kind_of(volume, "ct") == kind_of(replace(volume, inter=-1024.0)) == "ct"
    assert kind_of(volume) == kind_of(replace(volume, labels=True), "T1w") == "image"
    assert kind_of(replace(volume, sidecars={".json": b'{"Modality": "CT"}'}), "x") == "ct"
    assert kind_of(replace(volume, sidecars={".json": b"no JSON"}), "x") == "image"


def test_series_volumes_and_tomograms_are_evaluated_as_what_they_are(tmp_path):
    pytest.importorskip("dipy")
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (10, 18, 20)), indexing="ij")
    ball = np.where(x**2 + y**2 + z**2 < 0.8, 600 + 200 * x, 0)
    images = {"s_bold": np.stack([ball + (ball > 0) * rng.normal(0, 8, ball.shape) for _ in range(14)]),
              "s_T1w": ball + (ball > 0) * rng.normal(0, 8, ball.shape), "s_ct": 1024 + ball}  # fmt: skip
    measures = {"s_bold": ("fmri", "tSNR"), "s_T1w": ("structural", "Dice"), "s_ct": ("ct", "HU")}
    for name, values in images.items():
        source = write_nifti(tmp_path / f"{name}.nii", np.rint(values).T.astype(np.int16),
                             **({"slope": 1.0} if name != "s_ct" else {}))  # fmt: skip
        inrstore.convert(source, tmp_path / f"{name}.ozx", max_error=4)
        report = api.evaluate(source, tmp_path / f"{name}.ozx", report=tmp_path / f"{name}.html")
        kind, measure = measures[name]
        assert report.kind == kind, report.notes
        assert any(one.measure == measure for one in report.candidates[0].findings)
        assert (tmp_path / f"{name}.html").stat().st_size > 5_000


def test_too_few_directions_leave_the_measures_of_any_image(tmp_path):
    pytest.importorskip("dipy")
    write_nifti(tmp_path / "a.nii", np.abs(phantom(scheme(4, 1))[0]).T)
    (tmp_path / "a.bval").write_text("0 1000 1000 1000 1000\n")
    (tmp_path / "a.bvec").write_text("\n".join(" ".join(f"{v:.4f}" for v in row) for row in
                                               np.concatenate([np.zeros((1, 3)), directions(4)]).T) + "\n")  # fmt: skip
    inrstore.convert(tmp_path / "a.nii", tmp_path / "a.ozx", lossless=True)
    report = api.evaluate(tmp_path / "a.nii", tmp_path / "a.ozx")
    assert report.kind == "image" and "too few for a tensor" in report.notes[0]
    with pytest.raises(ConfigurationError, match="too few"):
        api.evaluate(tmp_path / "a.nii", tmp_path / "a.ozx", kind="dmri")


@pytest.mark.real
def test_a_real_scan_is_evaluated(tmp_path):
    pytest.importorskip("dipy")
    source = real_scan("sub-s06tiny")
    inrstore.convert(source, tmp_path / "s.ozx", max_error=10)
    report = api.evaluate(source, tmp_path / "s.ozx", kind="dmri")
    assert 0 < report.candidates[0].find("FA", "brain", "mean absolute error") < 0.2
