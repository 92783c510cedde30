"""Masked conversions: what is outside costs nothing and is 0, what is inside keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from common import check_refused, needs_torch, random_image, write_nifti

import inrstore
from inrstore.errors import QualityError, SourceError
from inrstore.evaluate.metrics import compare
from inrstore.sources import read_source
from inrstore.store.convert import convert_image
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reader import Store

SHAPE = (12, 10, 9)


@pytest.fixture
def ball(tmp_path):
    """A mask image: a ball off the middle."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    inside = (x - 5) ** 2 + (y - 5) ** 2 + (z - 3) ** 2 < 14
    return write_nifti(tmp_path / "ball.nii.gz", inside.astype(np.uint8)), inside


def run(source, store, mask, **promise):
    options = Options(quality=Quality.of(*(promise.get(n) for n in ("psnr", "rmse", "max_error")),
                                   promise.get("lossless", False)), mask=str(mask))  # fmt: skip
    return convert_image(read_source(source), str(store), options)


@pytest.mark.parametrize(
    "promise", [{"lossless": True}, {"max_error": 3}, pytest.param({"psnr": 25}, marks=needs_torch)]
)
@pytest.mark.parametrize("volumes", [None, 3])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_inside_keeps_its_promise_and_outside_is_zero(tmp_path, ball, small, promise, volumes, dtype):
    mask, inside = ball
    values = random_image(SHAPE if volumes is None else (*SHAPE, volumes), dtype)
    source = write_nifti(tmp_path / "a.nii", values)
    report = run(source, tmp_path / "s.zarr", mask, **promise)
    decoded = inrstore.open(tmp_path / "s.zarr").image.values.T
    kept = np.broadcast_to(inside if volumes is None else inside[..., None], values.shape)
    assert not decoded[~kept].any()
    assert report.chunks > 1
    if volumes is None:
        measured = compare(values[kept], decoded[kept], 0)
        assert report.psnr is None or report.psnr == pytest.approx(measured.psnr)
        assert report.max_error == measured.max_error
    if "lossless" in promise:
        assert report.lossless
        assert np.array_equal(decoded[kept], values[kept])
    if "max_error" in promise:
        assert np.abs(decoded.astype(float) - values)[kept].max() <= 3
    if "psnr" in promise:
        assert report.psnr is None or report.psnr >= 25
    store = Store(tmp_path / "s.zarr")
    assert np.array_equal(store.inside().reshape(inside.T.shape), inside.T)
    assert store.attributes["mask"]["voxels"] == inside.sum()
    report = inrstore.verify(tmp_path / "s.zarr", source)
    assert report.same_file


def test_a_mask_saves_what_is_outside_it(tmp_path, ball):
    mask, _ = ball
    rng = np.random.default_rng(0)
    source = write_nifti(tmp_path / "a.nii", rng.integers(0, 9999, (*SHAPE, 20), "int16"))
    whole = inrstore.convert(source, tmp_path / "whole.zarr", lossless=True)
    masked = run(source, tmp_path / "masked.zarr", mask, lossless=True)
    sizes = [inrstore.info(r.store).image_bytes for r in (whole, masked)]
    assert sizes[1] < 0.3 * sizes[0]


def test_verify_against_another_source_looks_inside_only(tmp_path, ball):
    mask, inside = ball
    values = random_image(SHAPE)
    source = write_nifti(tmp_path / "a.nii", values)
    run(source, tmp_path / "s.zarr", mask, max_error=1)
    outside, within = values.copy(), values.copy()
    outside[0, 0, 0] += 100
    within[5, 5, 3] += 100
    assert not inside[0, 0, 0]
    assert inside[5, 5, 3]
    assert not inrstore.verify(tmp_path / "s.zarr", write_nifti(tmp_path / "b.nii", outside)).same_file
    with pytest.raises(QualityError):
        inrstore.verify(tmp_path / "s.zarr", write_nifti(tmp_path / "c.nii", within))


@pytest.mark.parametrize("kind", ["shape", "place", "empty", "missing"])
def test_a_mask_that_does_not_fit_is_refused(tmp_path, ball, kind):
    mask, inside = ball
    source = write_nifti(tmp_path / "a.nii", random_image(SHAPE))
    if kind == "shape":
        mask, word = write_nifti(tmp_path / "m.nii", inside[1:].astype(np.uint8)), "11 x 10 x 9"
    elif kind == "empty":
        mask, word = write_nifti(tmp_path / "m.nii", np.zeros(SHAPE, np.uint8)), "no voxel"
    elif kind == "missing":
        mask, word = tmp_path / "none.nii", "none.nii"
    else:
        import nibabel

        image = nibabel.load(mask)
        affine = image.affine.copy()
        affine[0, 3] += 5
        mask, word = tmp_path / "m.nii", "elsewhere"
        nibabel.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(mask)
    check_refused(lambda: run(source, tmp_path / "s.zarr", mask, lossless=True), SourceError, word, folder=tmp_path)
