"""A real diffusion scan, end to end: networks fitted, opened in every way, verified, exported."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from common import DATA, needs_torch, real_scan

pytestmark = [pytest.mark.real, pytest.mark.fit, pytest.mark.slow, needs_torch]

SCAN = "sub-s03/dwi/sub-s03_acq-uih16dir_dwi.nii.gz"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The scan as a store, made by the command line."""
    if not (DATA / SCAN).exists():
        pytest.skip(f"the real scans are not here: {DATA}")
    path = tmp_path_factory.mktemp("real") / "s03.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "inrstore.cli", "convert", str(DATA / SCAN), str(path), "--psnr", "32",
         "--preset", "fast", "--mode", "siren", "--device", "cpu", "--json"],
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_a_scan_becomes_networks_at_the_promised_quality(store):
    path, report = store
    assert report["modes"] == {"siren": 1}
    assert 32.0 <= report["psnr"] <= 32.6
    assert report["ratio"] > 100
    assert report["stored_bytes"] == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def test_psnr_is_that_of_an_independent_computation(store):
    import nibabel as nib
    import zarr

    path, report = store
    original = nib.load(real_scan("sub-s03")).dataobj.get_unscaled().T.astype(np.float64)
    decoded = zarr.open_group(path, mode="r")["image"][...].astype(np.float64)
    ranges = np.ptp(original.reshape(len(original), -1), axis=1)[:, None, None, None]
    assert report["psnr"] == pytest.approx(-10 * np.log10(np.mean(((original - decoded) / ranges) ** 2)), abs=1e-6)
    rmse = np.sqrt(np.mean((original - decoded) ** 2))
    assert report["psnr_range"] == pytest.approx(20 * np.log10(np.ptp(original) / rmse), abs=1e-6)
    assert report["max_error"] == np.abs(original - decoded).max()


def test_one_voxel_and_one_slice_equal_those_of_the_whole(store):
    import xarray as xr
    import zarr

    path, _ = store
    image = zarr.open_group(path, mode="r")["image"]
    whole = image[...]
    assert np.array_equal(image[:, 9, 30, 31], whole[:, 9, 30, 31])
    assert np.array_equal(image[3, ::4, 5:60:7], whole[3, ::4, 5:60:7])
    lazy = xr.open_zarr(path)["image"]
    assert np.array_equal(lazy.isel(z=4).values, whole[:, 4])


def test_verify_and_export_agree_with_the_source(store, tmp_path):
    import gzip

    import nibabel as nib
    import zarr

    import inrstore

    path, _ = store
    source = real_scan("sub-s03")
    inrstore.verify(path, against=source)
    inrstore.export(path, tmp_path / "back.nii.gz")
    before, after = gzip.open(source).read(352), gzip.open(tmp_path / "back.nii.gz").read(352)
    assert before == after
    back = nib.load(tmp_path / "back.nii.gz").dataobj.get_unscaled()
    assert np.array_equal(back.T, zarr.open_group(path, mode="r")["image"][...])
