"""Convert: every promise about quality, and nothing half-written after any error."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import nibabel as nib
import numpy as np
import pytest
import zarr
from common import check_refused, check_same_bits, files_of, needs_torch, random_image, real_scan, write_nifti

import inrstore
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.errors import QualityError
from inrstore.evaluate.metrics import compare
from inrstore.store import convert as convert_module
from inrstore.store.reader import Store


def stored_voxels(path):
    return zarr.open_group(str(path), mode="r")["image"][...]


def lossy(**options):
    """Options that may fit networks."""
    return pytest.param(options, marks=needs_torch)


# ---- quality -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_lossless_keeps_every_bit(tmp_path, small, dtype, order):
    values = random_image((5, 4, 7, 2), dtype)
    path = write_nifti(tmp_path / "a.nii", values, order=order)
    report = inrstore.convert(path, tmp_path / "s.zarr", lossless=True)
    assert report.lossless
    assert report.psnr is None
    assert report.chunks > 1
    check_same_bits(stored_voxels(tmp_path / "s.zarr"), values.T)


@pytest.mark.parametrize("options", [lossy(psnr=20), lossy(psnr=30), lossy(rmse=3.0), {"max_error": 4}, lossy()])
@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 7, 3), (9, 8)])
def test_the_promise_is_kept_and_reported_as_it_is(tmp_path, small, options, shape):
    values = random_image(shape)
    path = write_nifti(tmp_path / "a.nii", values)
    report = inrstore.convert(path, tmp_path / "s.zarr", **options)
    measured = compare(values.T, stored_voxels(tmp_path / "s.zarr"))
    assert report.psnr == pytest.approx(measured.psnr, abs=1e-9)
    assert report.psnr_range == pytest.approx(measured.psnr_range, abs=1e-9)
    assert report.rmse == pytest.approx(measured.rmse)
    assert report.max_error == measured.max_error
    assert measured.psnr is None or measured.psnr >= options.get("psnr", 0 if options else 40)
    assert measured.rmse <= options.get("rmse", np.inf)
    assert measured.max_error <= options.get("max_error", np.inf)


@needs_torch
@pytest.mark.parametrize("shape", [(4, 4, 3, 2, 2), (4, 4, 3, 1, 3), (3, 3, 2, 2, 2, 2)])
def test_psnr_holds_for_more_than_four_axes(tmp_path, shape):
    values = random_image(shape)
    values[..., -1] *= 30
    path = write_nifti(tmp_path / "a.nii", values)
    report = inrstore.convert(path, tmp_path / "s.zarr", psnr=25)
    measured = compare(values.T, stored_voxels(tmp_path / "s.zarr"))
    assert measured.psnr is None or measured.psnr >= 25
    assert report.psnr == (None if measured.psnr is None else pytest.approx(measured.psnr))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{"lossless": True}, {"max_error": 0.5}, lossy(psnr=25)])
def test_not_finite_voxels_keep_their_bits(tmp_path, dtype, options):
    values = random_image((5, 4, 3, 2), dtype)
    values[0, 0, 0, 0], values[1, 2, 1, 1], values[2, 2, 2, 0] = np.nan, np.inf, -np.inf
    path = write_nifti(tmp_path / "a.nii", values)
    report = inrstore.convert(path, tmp_path / "s.zarr", **options)
    decoded = stored_voxels(tmp_path / "s.zarr").T
    check_same_bits(decoded[~np.isfinite(values)], values[~np.isfinite(values)])
    assert np.isfinite(report.rmse)
    assert inrstore.verify(tmp_path / "s.zarr", path).same_file


@pytest.mark.parametrize("value", [0, 7, -3.5, float("nan")])
@pytest.mark.parametrize("options", [lossy(), {"max_error": 1}, {"lossless": True}])
def test_constant_images_are_exact_and_tiny(tmp_path, value, options):
    kind = "int16" if isinstance(value, int) else "float32"
    values = np.full((7, 6, 5, 3), value, kind)
    path = write_nifti(tmp_path / "a.nii", values)
    report = inrstore.convert(path, tmp_path / "s.zarr", **options)
    assert report.modes == {"constant": 1}
    assert report.max_error == 0
    assert report.psnr is None
    check_same_bits(stored_voxels(tmp_path / "s.zarr"), values.T)


@needs_torch
@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 5)])
def test_images_of_one_voxel_work(tmp_path, shape):
    values = random_image(shape)
    path = write_nifti(tmp_path / "a.nii", values)
    inrstore.convert(path, tmp_path / "s.zarr")
    assert inrstore.verify(tmp_path / "s.zarr", path).psnr is None or np.ptp(values) > 0


@needs_torch
def test_every_chunk_is_written_also_the_empty_ones(tmp_path, small):
    values = np.zeros((5, 4, 60), np.int16)
    values[:, :, :2] = 9
    path = write_nifti(tmp_path / "a.nii", values)
    report = inrstore.convert(path, tmp_path / "s.zarr", psnr=30)
    keys = [name for name, _ in files_of(tmp_path / "s.zarr") if name.startswith("image/c/")]
    assert len(keys) == report.chunks > 10


def test_a_missed_promise_leaves_nothing(tmp_path, source, monkeypatch):
    def careless(chunks, *rest):
        return encode_chunks([chunk // 8 * 8 for chunk in chunks], Target(lossless=True))

    monkeypatch.setattr(convert_module, "encode_chunks", careless)
    for options, words in (
        ({"psnr": 60}, "PSNR"),
        ({"lossless": True}, "bit"),
        ({"max_error": 1}, "max_error"),
    ):
        check_refused(
            lambda options=options: inrstore.convert(source, tmp_path / "s.zarr", **options),
            QualityError, words, folder=tmp_path,
        )  # fmt: skip


def test_a_lost_nan_breaks_the_promise(tmp_path, monkeypatch):
    values = random_image((5, 4, 3), "float32")
    values[0, 0, 0] = np.nan
    path = write_nifti(tmp_path / "a.nii", values)

    def careless(chunks, *rest):
        return encode_chunks([np.nan_to_num(chunk) for chunk in chunks], Target(lossless=True))

    monkeypatch.setattr(convert_module, "encode_chunks", careless)
    check_refused(
        lambda: inrstore.convert(path, tmp_path / "s.zarr", psnr=10),
        QualityError,
        "non-finite",
        folder=tmp_path,
    )


# ---- the report --------------------------------------------------------------------------------------------


def test_the_report_counts_every_file_and_is_json(tmp_path, source, small):
    report = inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    sizes = sum(path.stat().st_size for path in (tmp_path / "s.zarr").rglob("*") if path.is_file())
    assert report.stored_bytes == sizes
    assert report.source_bytes == 5 * 4 * 6 * 3 * 2
    assert report.ratio == report.source_bytes / sizes
    assert sum(report.modes.values()) == report.chunks
    assert report.seconds > 0
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    with pytest.raises(FrozenInstanceError):
        report.psnr = 1


def test_progress_goes_from_nothing_to_all(tmp_path, source, small):
    seen = []
    report = inrstore.convert(source, tmp_path / "s.zarr", max_error=2, progress=seen.append)
    assert seen[0].chunks_done == 0
    assert seen[-1].chunks_done == seen[-1].chunks_total == report.chunks
    assert seen[-1].fraction == 1.0
    assert all(0 <= step.fraction <= 1 and step.mb_per_s >= 0 for step in seen)
    assert [step.fraction for step in seen] == sorted(step.fraction for step in seen)


def test_zarr_formats_hold_the_same_chunks(tmp_path, source, small):
    inrstore.convert(source, tmp_path / "a.zarr", max_error=2, zarr_format=3)
    inrstore.convert(source, tmp_path / "b.zarr", max_error=2, zarr_format=2)
    one, other = Store(tmp_path / "a.zarr"), Store(tmp_path / "b.zarr")
    for index in one.grid:
        assert one.frame(index) == other.frame(index)


# ---- real scans --------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("name", ["sub-s03", "sub-s06tiny"])
def test_real_scans_are_kept_without_loss(tmp_path, name):
    source = real_scan(name)
    report = inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    assert report.lossless
    assert inrstore.verify(tmp_path / "s.zarr", source).same_file


@pytest.mark.real
@pytest.mark.fit
@pytest.mark.slow
def test_a_real_scan_is_fitted_to_its_psnr(tmp_path):
    pytest.importorskip("torch")
    source = real_scan("sub-s06tiny")
    report = inrstore.convert(source, tmp_path / "s.zarr", psnr=30, preset="fast")
    assert 30 <= report.psnr
    assert inrstore.verify(tmp_path / "s.zarr", source).psnr == pytest.approx(report.psnr)
    document = json.loads((tmp_path / "s.zarr/image/zarr.json").read_bytes())
    configuration = document["codecs"][0]["configuration"]
    values = nib.load(source).dataobj.get_unscaled()
    widest = max(float(np.ptp(values[..., t])) for t in range(values.shape[3]))
    assert configuration == {"rmse": pytest.approx(10 ** (-30 / 20) * widest)}, "a bound for all measurements"
