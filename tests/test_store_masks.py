"""What a mask means for quality and size: errors count inside alone, and at the same error no store grows."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common import real_scan
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """Return a folder with an fMRI run (brain, a brighter shell, air with noise), and a mask of the brain."""
    folder = tmp_path_factory.mktemp("head")
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (28, 28, 8)), indexing="ij"))
    radius = np.square(grid).sum(axis=0)
    brain, skull = radius < 0.5, (radius > 0.6) & (radius < 0.9)
    rng = np.random.default_rng(0)
    anatomy = np.where(brain, 500 + 150 * np.sin(9 * grid[0]) * np.cos(5 * grid[1]), np.where(skull, 900, 0))
    run = anatomy[..., None] + rng.normal(0, 6, (*anatomy.shape, 10))
    image = nib.Nifti1Image(np.rint(np.abs(run)).astype(np.int16), np.diag([3, 3, 3, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((3, 3, 3, 2.0))
    nib.save(image, folder / "sub-1_bold.nii")
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), image.affine), folder / "brain.nii")
    return folder


def both(folder: Path, out: Path, **asked):
    """Return the reports without and with the mask, and the error inside it of both."""
    voxels = np.asarray(nib.load(folder / "sub-1_bold.nii").dataobj).T.astype(float)
    inside = np.asarray(nib.load(folder / "brain.nii").dataobj).T > 0
    found = []
    for name, mask in (("without", None), ("with", folder / "brain.nii")):
        report = inrstore.convert(folder / "sub-1_bold.nii", out / f"{name}.ozx", mask=mask, preset="fast", **asked)
        error = (inrstore.open(out / f"{name}.ozx").image.values - voxels)[:, inside]
        found.append((report, float(np.sqrt(np.square(error).mean()))))
    return found


@pytest.mark.parametrize("asked", [{}, {"max_error": 8.0}, {"lossless": True}], ids=["default", "bound", "all"])
def test_a_mask_makes_no_store_larger_where_the_error_inside_is_promised(head, tmp_path, asked):
    (plain, before), (masked, after) = both(head, tmp_path, **asked)
    assert masked.stored_bytes < 0.7 * plain.stored_bytes
    assert after <= 1.3 * before + 0.05


def test_a_psnr_counts_inside_the_mask_alone_and_so_asks_for_more(head, tmp_path):
    (plain, before), (masked, after) = both(head, tmp_path, psnr=45.0)
    voxels = np.asarray(nib.load(head / "sub-1_bold.nii").dataobj).T.astype(float)
    inside = np.asarray(nib.load(head / "brain.nii").dataobj).T > 0
    spread = np.median(np.ptp(voxels[:, inside], axis=1))
    assert masked.psnr == pytest.approx(20 * np.log10(spread / after), abs=0.2) and masked.psnr >= 45
    assert after < 0.7 * before and plain.psnr >= 45


def test_the_command_says_what_a_mask_keeps(head, tmp_path):
    told = CliRunner().invoke(app, ["convert", str(head / "sub-1_bold.nii"), str(tmp_path / "s.ozx"), "--mask",
                                    str(head / "brain.nii"), "--preset", "fast"]).output  # fmt: skip
    assert "  mask      keeps " in told and " % of the places; errors and PSNR are of these alone" in told
    assert "  mask " not in CliRunner().invoke(app, ["convert", str(head / "sub-1_bold.nii"), str(tmp_path / "t.ozx"),
                                                     "--preset", "fast"]).output  # fmt: skip


@pytest.mark.real
def test_a_mask_of_a_real_scan_makes_no_store_larger_by_default(tmp_path):
    source = real_scan("sub-s06tiny")
    image = nib.load(source)
    mean = np.asarray(image.dataobj).mean(axis=-1)
    nib.save(nib.Nifti1Image((mean > mean.mean()).astype(np.uint8), image.affine), tmp_path / "mask.nii")
    sizes = [inrstore.convert(source, tmp_path / f"{n}.ozx", mask=mask, preset="fast").stored_bytes
             for n, mask in enumerate((None, tmp_path / "mask.nii"))]  # fmt: skip
    assert sizes[1] < sizes[0]
