"""The examples run, and say of an archive what the originals say."""

from __future__ import annotations

import runpy
import sys

import nibabel as nib
import numpy as np
import pytest
from archives import make_archive
from checks import ROOT
from common import needs_torch, real_scan, tree, write_nifti

import inrstore

xarray = pytest.importorskip("xarray")
example = runpy.run_path(str(ROOT / "examples/fa_per_subject.py"))

BVAL = np.repeat([0.0, 1000.0], [1, 12])
BVEC = np.array([[0, 0, 0], *(np.array(v) / np.linalg.norm(v) for v in
                              [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1),
                               (0, 1, -1), (1, 2, 1), (2, 1, -1), (1, 1, 2)])])  # fmt: skip


def signal(eigenvalues, shape=()):
    """Return what a tensor along x, y, z with these eigenvalues (1e-3 mm²/s) gives."""
    decay = np.exp(-BVAL / 1000 * (BVEC**2 @ np.array(eigenvalues)))
    return 1000 * np.broadcast_to(decay, (*shape, len(BVAL)))


def fa_of(eigenvalues):
    d = np.array(eigenvalues) - np.mean(eigenvalues)
    return np.sqrt(1.5 * (d @ d) / np.dot(eigenvalues, eigenvalues))


def plain(path):
    """Return an original as the example takes it, read by nibabel and numpy alone."""
    stem = str(path).removesuffix(".nii.gz")
    image = {"image": (("t", "z", "y", "x"), np.asarray(nib.load(path).dataobj.get_unscaled()).T)}
    bval, bvec = np.loadtxt(stem + ".bval"), np.loadtxt(stem + ".bvec").T
    return xarray.Dataset(image, coords={"bval": ("t", bval), "bvec": (("t", "component"), bvec)})


def scan_beside_its_gradients(folder, name="sub-s06tiny"):
    """Copy a real scan with its gradients into a folder."""
    source = real_scan(name)
    (folder / name / "dwi").mkdir(parents=True)
    for file in source.parent.iterdir():
        (folder / name / "dwi" / file.name).write_bytes(file.read_bytes())
    return folder / name / "dwi" / source.name


@pytest.mark.parametrize("eigenvalues", [(1.7, 0.3, 0.3), (1, 1, 1), (0.3, 2, 0.9), (1, 0.9, 0.2)])
def test_the_fit_gives_the_fa_of_a_known_tensor(eigenvalues):
    found = example["fit_fa"](signal(eigenvalues, (2, 3)), BVAL, BVEC)
    assert found.shape == (2, 3)
    assert np.allclose(found, fa_of(eigenvalues), atol=1e-5)


def test_no_signal_is_no_anisotropy_and_no_warning():
    values = np.concatenate([np.zeros((2, 13)), signal((1.7, 0.3, 0.3), (1,))])
    found = example["fit_fa"](values, BVAL, BVEC)
    assert found[:2].tolist() == [0, 0] and abs(found[2] - fa_of((1.7, 0.3, 0.3))) < 1e-5


def test_low_b_values_are_fitted_if_there_are_enough():
    shells = np.repeat([0.0, 1000, 3000], [1, 6, 20])
    assert example["choose_volumes"](shells).sum() == 7
    assert example["choose_volumes"](np.repeat([0.0, 1000, 3000], [1, 5, 20])).all()


@pytest.mark.real
def test_fa_of_a_lossless_archive_equals_that_of_the_originals(tmp_path, monkeypatch, capsys):
    source = scan_beside_its_gradients(tmp_path / "in")
    write_nifti(tmp_path / "in/sub-s06tiny/anat.nii.gz", np.ones((4, 4, 4), "int16"))  # has no gradients
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    before = tree(archive)
    monkeypatch.setattr(sys, "argv", ["fa_per_subject.py", str(archive)])
    example["main"]()
    (row,) = capsys.readouterr().out.splitlines()[1:]
    stored = inrstore.open(archive / "sub-s06tiny/dwi/sub-s06tiny_acq-dsi101_dwi.ozx")
    value, voxels = example["mean_fa"](stored)
    assert (value, voxels) == example["mean_fa"](plain(source))
    assert f"{value:.4f}" in row and str(voxels) in row and "sub-s06tiny_acq-dsi101_dwi.nii.gz" in row
    assert tree(archive) == before, "nothing is written back"


@pytest.mark.fit
@pytest.mark.real
@needs_torch
def test_fa_at_40_db_is_close_to_that_of_the_originals(tmp_path):
    source = scan_beside_its_gradients(tmp_path / "in")
    archive = make_archive(tmp_path / "in", tmp_path / "archive", psnr=40.0)
    stored = inrstore.open(archive / "sub-s06tiny/dwi/sub-s06tiny_acq-dsi101_dwi.ozx")
    one, other = example["mean_fa"](stored)[0], example["mean_fa"](plain(source))[0]
    assert 0 < abs(one - other) < 0.02
    fa, reference = (example["maps"](image)[0].values for image in (stored, plain(source)))
    assert np.sqrt(np.mean((fa - reference) ** 2)) < 0.06
