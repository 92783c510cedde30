"""`--preserve MEASURE[=BOUND]`: the quality that keeps a measure within its bound is found and told, or refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from common import check_refused, real_scan, write_nifti
from test_evaluate import phantom, scheme
from typer.testing import CliRunner

from inrstore import api
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, MissingDependencyError
from inrstore.sources import read_source
from inrstore.store import preserve
from inrstore.store.measures import MEASURES, Preserve, first_guess
from inrstore.store.options import Options
from inrstore.store.quality import Quality

FAST = {"preset": "fast", "device": "cpu"}


def diffusion(folder, name="s_dwi"):
    gradients = scheme(12)
    image, _ = phantom(gradients, sigma=15)
    write_nifti(folder / f"{name}.nii.gz", np.abs(image).T)
    (folder / f"{name}.bval").write_text(" ".join(f"{b:g}" for b in gradients.bval) + "\n")
    (folder / f"{name}.bvec").write_text("\n".join(" ".join(f"{v:.6f}" for v in r) for r in gradients.bvec.T) + "\n")
    return folder / f"{name}.nii.gz"


def series(folder, name="s_bold"):
    rng = np.random.default_rng(5)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (6, 20, 20)), indexing="ij")
    head = z**2 + y**2 + x**2 < 0.9
    course = np.cumsum(rng.normal(0, 3, (16, 1, 1, 1)), axis=0)
    image = np.where(head, 400 + 50 * np.sin(5 * x) + course * (x > 0), 0) + rng.normal(0, 4, (16, *head.shape)) * head
    return write_nifti(folder / f"{name}.nii.gz", np.rint(np.maximum(image, 0)).astype(np.int16).T)


def tissues(folder, name="s_T1w"):
    rng = np.random.default_rng(6)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 28, 28)), indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2) + 0.05 * np.sin(9 * x)
    image = np.select([radius < 0.45, radius < 0.7, radius < 0.9], [900, 600, 300], 0) * 1.0
    image += (image > 0) * rng.normal(0, 40, image.shape)
    return write_nifti(folder / f"{name}.nii.gz", np.rint(image).astype(np.int16).T)


def test_a_bound_on_fa_is_kept_and_not_by_much(tmp_path):
    pytest.importorskip("dipy")
    source = diffusion(tmp_path)
    report = api.convert(source, tmp_path / "a.ozx", preserve="fa=0.03", **FAST)
    said = report.preserve
    assert said["measure"] == "fa" and said["bound"] == 0.03 and 0.005 < said["found"] <= 0.03
    found = api.evaluate(source, tmp_path / "a.ozx").candidates[0].find("FA", "WM", "mean absolute error")
    assert found == pytest.approx(said["found"], rel=1e-4)
    assert set(report.promised) == {"noise"} and api.verify(tmp_path / "a.ozx", source).promised == report.promised
    text = CliRunner().invoke(app, ["info", str(tmp_path / "a.ozx")]).stdout
    assert f"preserves fa: {said['found']:g}, bound 0.03" in text


def test_a_likeness_stays_above_its_bound(tmp_path):
    pytest.importorskip("dipy")
    source = series(tmp_path)
    report = api.convert(source, tmp_path / "a.ozx", preserve={"bold": 0.8}, **FAST)
    assert 0.8 <= report.preserve["found"] < 0.88
    source = tissues(tmp_path)
    report = api.convert(source, tmp_path / "b.ozx", preserve={"volume": 0.9}, **FAST)
    found = api.evaluate(source, tmp_path / "b.ozx").candidates[0]
    assert min(found.find("Dice", f"class {k}") for k in (1, 2, 3)) == pytest.approx(report.preserve["found"], rel=1e-4)
    assert report.preserve["found"] >= 0.9


@pytest.mark.parametrize("asked", [0.02, 0.2])
@pytest.mark.parametrize("power, factor", [(1.2, 0.05), (2.0, 0.4), (3.0, 0.001)])
def test_the_coarsest_quality_is_found_in_a_few_trials(monkeypatch, asked, power, factor):
    """Whatever the law by which a loss follows the multiple of the noise; the last resort is every bit."""
    source = SimpleNamespace(label="x", voxels=np.zeros((2, 2, 2, 2)))
    monkeypatch.setattr(preserve, "prepare", lambda *_: (MEASURES["fa"], None))
    monkeypatch.setattr(preserve, "_noisy", lambda *_: True)
    monkeypatch.setattr(preserve, "figure_of", lambda measure, model, source, loss, name: loss)

    def attempt(quality, before):
        loss = 0.0 if quality.lossless else factor * quality.noise**power * (1 + 0.02 * math.sin(90 * quality.noise))
        return SimpleNamespace(stored=1, decoded=lambda: loss, quality=quality)

    found = preserve.search(source, Options(quality=Quality(preserve=Preserve("fa", asked))), attempt)
    assert found.figure <= asked and len(found.attempts) <= preserve.TRIALS
    exact = (asked / factor) ** (1 / power)
    assert found.trial.quality.noise > 0.9 * exact or exact > 20
    none = preserve.search(source, Options(quality=Quality(preserve=Preserve("fa", 1e-9))), attempt)
    assert none.trial.quality.lossless and none.figure == 0


def test_a_first_guess_follows_the_curve():
    curve = MEASURES["fa"].curve
    for multiple, loss in curve:
        assert first_guess(curve, loss) == pytest.approx(multiple)
    assert first_guess(curve, 1e-4) < curve[0][0] and first_guess(curve, 0.9) > curve[-1][0]


def test_an_image_without_the_measure_is_refused_before_any_work(tmp_path, monkeypatch):
    pytest.importorskip("dipy")
    scans = {name: make(tmp_path) for name, make in (("dwi", diffusion), ("bold", series), ("T1w", tissues))}
    write_nifti(tmp_path / "few_dwi.nii", np.ones((6, 6, 4, 3), np.int16))
    (tmp_path / "few_dwi.bval").write_text("0 1000 1000\n")
    (tmp_path / "few_dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
    monkeypatch.setattr("inrstore.store.convert._encode", lambda *_: pytest.fail("work was done"))

    def refused(source, asked, *words, error=ConfigurationError):
        check_refused(
            lambda: api.convert(source, tmp_path / "x.ozx", preserve=asked, **FAST), error, *words, folder=tmp_path
        )

    refused(scans["T1w"], "fa", "s_T1w.nii.gz", "preserve fa", "kind dmri", "one of kind structural")
    refused(scans["bold"], "fa", "s_bold.nii.gz", "one of kind fmri")
    refused(scans["dwi"], "bold", "s_dwi.nii.gz", "one of kind dmri")
    refused(tmp_path / "few_dwi.nii", "md", "too few for a tensor")
    wrong = {
        "fat": "preserve must be one of fa, md, bold, volume, hu", "fa=x": "must be a number, not 'x'",
        "fa=0": "between 0 and 1, not 0", "bold=1": "between 0 and 1",
    }  # fmt: skip
    for asked, words in [*wrong.items(), (["fa"], "one measure"), ({"fa": 1, "md": 1}, "one measure"),
                         ({"fa": True}, "not True")]:  # fmt: skip
        refused(scans["dwi"], asked, words)
    check_refused(lambda: api.convert(scans["dwi"], tmp_path / "x", preserve="fa", mode="siren"), ConfigurationError,
                  "goes with no network", folder=tmp_path)  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    refused(scans["dwi"], "fa", "inrstore[evaluate]", error=MissingDependencyError)


def test_a_rule_of_an_archive_says_which_images(tmp_path):
    pytest.importorskip("dipy")
    (tmp_path / "in/sub-1/func").mkdir(parents=True)
    (tmp_path / "in/sub-1/anat").mkdir(parents=True)
    series(tmp_path / "in/sub-1/func", "sub-1_bold")
    tissues(tmp_path / "in/sub-1/anat", "sub-1_T1w")
    given = {"rules": tmp_path / "rules.toml", **FAST}
    check_refused(lambda: api.convert(tmp_path / "in", tmp_path / "out", preserve="bold"), ConfigurationError,
                  '[dwi] preserve = "bold"', folder=tmp_path)  # fmt: skip
    (tmp_path / "rules.toml").write_text("[bold]\npreserve = {bold = 0.7}\n[T1w]\npreserve = 'fa'\n")
    plan = api.convert(tmp_path / "in", tmp_path / "out", dry_run=True, **given)
    report = api.convert(tmp_path / "in", tmp_path / "out", **given)
    assert report.failed == 1 and "preserve fa: " in str(report.failures)
    (store,) = (tmp_path / "out").rglob("*bold*.ozx")
    assert api.info(store).preserve["measure"] == "bold" and api.info(store).preserve["found"] >= 0.7
    assert "preserve fa: " in str([image.note for image in plan.images])
    (tmp_path / "rules.toml").write_text("[bold]\npreserve = {bold = 0.7}\n")
    plan = api.convert(tmp_path / "in", tmp_path / "out2", dry_run=True, **given)
    assert {"preserve": {"bold": 0.7}} in [image.quality for image in plan.images]
    assert api.convert(tmp_path / "in", tmp_path / "out2", **given).complete
    again = api.convert(tmp_path / "in", tmp_path / "out2", **given)
    assert again.complete and again.resumed == 2
    assert api.update(tmp_path / "in", tmp_path / "out2").complete  # as the record has it
    (tmp_path / "rules.toml").write_text("[default]\npreserve = 'bold'\n")
    check_refused(lambda: api.convert(tmp_path / "in", tmp_path / "out3", **given), ConfigurationError,
                  "say in a rule which", folder=tmp_path)  # fmt: skip


def test_a_scan_without_noise_has_a_psnr(tmp_path):
    ramp = np.add.outer(np.arange(9), np.add.outer(np.arange(9), np.arange(9))).astype(np.int16)
    source = read_source(write_nifti(tmp_path / "s_T1w.nii", ramp))
    made = preserve.first(source, Options(quality=Quality(preserve=Preserve("volume", 0.95))))
    assert made.quality.noise is None and 40 < made.quality.psnr < 60


@pytest.mark.real
@pytest.mark.slow
def test_a_real_scan_keeps_its_bound(tmp_path):
    pytest.importorskip("dipy")
    source = real_scan("sub-s03")
    report = api.convert(source, tmp_path / "a.ozx", preserve="fa", **FAST)
    assert 0.017 < report.preserve["found"] <= 0.02
    assert read_source(source).voxels.nbytes / report.stored_bytes > 15
