"""A dry run writes nothing, names what would become of each image, and is about right."""

from __future__ import annotations

import json
import zipfile

import pytest
from common import random_image, real_scan, tree, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.archive.estimate import ConvertPlan
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError


def test_every_image_has_its_rule_quality_and_codec(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for n in range(4):
        write_nifti(source / f"sub-{n}_T1w.nii.gz", random_image((6, 5, 4), seed=n))
        write_nifti(source / f"sub-{n}_bold.nii", random_image((6, 5, 4, 3), seed=n))
    write_nifti(source / "x_mask.nii", random_image((6, 5, 4), "uint8"))
    (source / "notes.txt").write_text("notes")
    (source / "bad.nii").write_bytes(b"no image")
    with zipfile.ZipFile(source / "1_20250_2_0.zip", "w") as out:
        out.write(source / "sub-0_bold.nii", "data.nii")
    (tmp_path / "rules.toml").write_text('[T1w]\nlossless = true\n[dwi]\nrmse = 2.0\npreset = "fast"\n')
    before = tree(tmp_path)
    plan = inrstore.convert(source, tmp_path / "out", psnr=40, rules=tmp_path / "rules.toml", dry_run=True)
    assert isinstance(plan, ConvertPlan) and tree(tmp_path) == before
    found = {image.path: image for image in plan.images}
    assert len(found) == 11 and (plan.copied, plan.copied_bytes) == (1, 5)
    one = found["sub-0_T1w.nii.gz"]
    assert (one.rule, one.quality) == ("T1w", {"lossless": True})
    assert one.codec in ("predictor", "byteplanes", "raw")
    assert found["1_20250_2_0/data.nii"].quality == {"rmse": 2.0} and found["1_20250_2_0/data.nii"].preset == "fast"
    assert found["sub-3_bold.nii"].quality == {"psnr": 40.0} and found["x_mask.nii"].quality == {"lossless": True}
    assert found["bad.nii"].stored_bytes is None and "bad.nii" in found["bad.nii"].note
    assert sum(image.sampled for image in plan.images) < 9
    result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out"), "--psnr", "40", "--dry-run"])
    assert (
        result.exit_code == 0 and "sub-3_bold.nii  psnr 40" in result.output and "nothing was written" in result.output
    )
    assert tree(tmp_path) == before


def test_rules_are_checked_as_for_the_job_itself(tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/a_T1w.nii", random_image((6, 5, 4)))
    (tmp_path / "rules.toml").write_text("[T2w]\nlossless = true\n")
    with pytest.raises(ConfigurationError, match="T2w"):
        inrstore.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml", dry_run=True)


@pytest.mark.real
def test_the_estimate_of_a_scan_is_about_right(tmp_path):
    source = real_scan("sub-s09")
    result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "o.ozx"), "--dry-run", "--json"])
    (image,) = json.loads(result.output)["images"]
    assert not (tmp_path / "o.ozx").exists()
    report = inrstore.convert(source, tmp_path / "o.ozx")
    assert 0.6 < image["stored_bytes"] / report.stored_bytes < 1.6
