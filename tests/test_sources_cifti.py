"""A CIFTI matrix becomes an image of measurements, whatever its lengths, and comes back byte for byte."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from checks import examples
from common import needs_torch, opened
from hypothesis import given
from hypothesis import strategies as st
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis

import inrstore
from inrstore.sources import read_source
from inrstore.store.conversion import chunks_for
from inrstore.store.layout import Grid, image_dims
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reader import Store


def write_cifti(path: Path, values: np.ndarray, axis: str = "series") -> Path:
    """Write (maps, grayordinates)."""
    maps, places = values.shape
    names = [f"map {n}" for n in range(maps)]
    first = {
        "series": lambda: SeriesAxis(0, 0.72, maps),
        "scalar": lambda: ScalarAxis(names),
        "label": lambda: LabelAxis(names, {n: (f"region {n}", (0, 0, 0, 1)) for n in range(5)}),
    }[axis]()
    surface = BrainModelAxis.from_surface(np.arange(places), places, "CortexLeft")
    image = nib.Cifti2Image(values, (first, surface), dtype=values.dtype)
    image.nifti_header.set_intent({"series": 3002, "scalar": 3006, "label": 3007}[axis])
    image.to_filename(path)
    return path


def series(maps: int, places: int, dtype: str = "f4") -> np.ndarray:
    rng = np.random.default_rng(maps)
    return (1000 + 50 * np.sin(np.arange(places) / 40) + rng.normal(0, 3, (maps, places))).astype(dtype)


@pytest.mark.parametrize("maps, places", [(5, 2000), (1, 300), (300, 1), (40, 40)])
def test_a_matrix_has_few_chunks_and_comes_back(tmp_path, maps, places):
    path = write_cifti(tmp_path / "x.dtseries.nii", series(maps, places))
    report = inrstore.convert(path, tmp_path / "x.ozx", lossless=True)
    assert report.chunks == 1
    assert report.stored_bytes < path.stat().st_size + 5000
    inrstore.export(tmp_path / "x.ozx", tmp_path / "back.dtseries.nii")
    assert (tmp_path / "back.dtseries.nii").read_bytes() == path.read_bytes()


def test_maps_are_measurements_and_grayordinates_a_line(tmp_path):
    values = series(6, 500)
    path = write_cifti(tmp_path / "x.dscalar.nii", values, "scalar")
    source = read_source(path)
    assert (source.kind, source.labels, source.spatial) == ("CIFTI", False, False)
    assert np.array_equal(source.voxels[:, 0, 0], values)
    inrstore.convert(path, tmp_path / "x.zarr", lossless=True)
    group = opened(tmp_path / "x.zarr")
    assert np.array_equal(group["image"][:, 0, 0], nib.load(path).get_fdata())
    assert group["image"].metadata.dimension_names == ("t", "z", "y", "x")
    # A grayordinate has no place in millimetres, and a map no time; the XML says what they are.
    assert sorted(group.array_keys()) == ["image", "nifti"]
    assert "ome" not in group.attrs
    assert inrstore.open(tmp_path / "x.zarr").image.shape == (6, 1, 1, 500)


def test_the_xml_is_kept_byte_for_byte(tmp_path):
    path = write_cifti(tmp_path / "x.dscalar.nii", series(3, 400), "scalar")
    data, image = path.read_bytes(), nib.load(path)
    start = int(image.nifti_header["vox_offset"]) or len(data) - 4 * 3 * 400
    assert b"CIFTI_INDEX_TYPE_SCALARS" in data[:start]
    inrstore.convert(path, tmp_path / "x.ozx", max_error=5.0)
    assert Store(tmp_path / "x.ozx").header() == data[:start]
    inrstore.export(tmp_path / "x.ozx", tmp_path / "y.dscalar.nii")
    back = nib.load(tmp_path / "y.dscalar.nii")
    assert (tmp_path / "y.dscalar.nii").read_bytes()[:start] == data[:start]
    assert back.header.get_axis(0).name.tolist() == ["map 0", "map 1", "map 2"]
    assert np.abs(back.get_fdata() - image.get_fdata()).max() <= 5


@pytest.mark.parametrize("intent", [3007, 3000])
def test_labels_are_kept_lossless(tmp_path, intent):
    values = np.random.default_rng(0).integers(0, 5, (2, 300)).astype("f4")
    (tmp_path / "in").mkdir()
    path = write_cifti(tmp_path / "in/x.dlabel.nii", values, "label")
    data = bytearray(path.read_bytes())
    data[504:508] = intent.to_bytes(4, "little")
    path.write_bytes(data)
    assert read_source(path).labels
    report = inrstore.convert(tmp_path / "in", tmp_path / "archive", psnr=30)
    assert report.complete
    assert Store(tmp_path / "archive/x.dlabel.ozx").promised == {"lossless": True}


def test_matrices_in_other_byte_orders_and_packed_come_back(tmp_path):
    path = write_cifti(tmp_path / "a.dtseries.nii", series(4, 50, "i2"))
    image = nib.load(path)
    header = nib.Nifti2Header(path.read_bytes()[:540]).as_byteswapped(">")
    offset = path.stat().st_size - 4 * 50 * 2
    swapped = header.binaryblock + path.read_bytes()[540:offset] + image.get_fdata().astype(">i2").T.tobytes() + b"tail"
    packed = tmp_path / "b.dtseries.nii.gz"
    packed.write_bytes(gzip.compress(swapped))
    inrstore.convert(packed, tmp_path / "b.ozx", lossless=True)
    inrstore.export(tmp_path / "b.ozx", tmp_path / "c.dtseries.nii")
    assert (tmp_path / "c.dtseries.nii").read_bytes() == swapped


@needs_torch
def test_more_measurements_than_a_transform_holds_are_cut(tmp_path):
    path = write_cifti(tmp_path / "x.dtseries.nii", series(1100, 300))
    report = inrstore.convert(path, tmp_path / "x.ozx", psnr=40)
    assert report.psnr >= 40
    assert report.modes == {"transform": 2}
    assert Store(tmp_path / "x.ozx").grid.chunks == (550, 1, 1, 300)


def test_an_image_of_many_axes_has_few_chunks(tmp_path):
    values = np.random.default_rng(0).normal(0, 9, (2, 1, 1, 1, 70, 30)).astype("f4")
    nib.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "a.nii")
    for name, quality in {
        "a": {"lossless": True},
        "b": {"max_error": 0.5},
        "c": {"psnr": 40},
        "d": {"rmse": 0.5},
    }.items():
        report = inrstore.convert(tmp_path / "a.nii", tmp_path / f"{name}.ozx", **quality)
        assert report.chunks == 1
        inrstore.export(tmp_path / f"{name}.ozx", tmp_path / f"{name}.out.nii")
        back = nib.load(tmp_path / f"{name}.out.nii").get_fdata()
        assert np.abs(back - values).max() <= {"a": 0, "b": 0.5, "c": 1, "d": 9}[name]


def test_many_measurements_of_few_values_are_measured_together():
    # One after the other takes minutes where this takes a second.
    import time

    from inrstore.evaluate.metrics import compare

    values = np.zeros((1_000_000, 1, 1, 2), "i2")
    values[:, 0, 0, 1] = 7
    began = time.perf_counter()
    found = compare(values, values + np.int16(1))
    assert time.perf_counter() - began < 5
    assert (found.rmse, found.max_error) == (1.0, 1.0)
    assert found.psnr == pytest.approx(20 * math.log10(7))


QUALITIES = (Quality(lossless=True), Quality(max_error=2.0), Quality(psnr=40.0), Quality(rmse=1.0))


@examples(3000)
@given(st.lists(st.floats(0, 36), min_size=1, max_size=7), st.sampled_from(QUALITIES), st.sampled_from([True, False]))
def test_an_image_of_any_shape_has_few_chunks(bits, quality, spatial):
    scale = min(1.0, 36 / max(1e-9, sum(bits)))
    shape = tuple(max(1, int(2 ** (b * scale))) for b in bits)
    chunks = chunks_for(shape, image_dims(len(shape)), Options(quality=quality), spatial=spatial)
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    assert math.prod(chunks) <= 1 << 26
    assert len(Grid(shape, chunks)) <= math.ceil(math.prod(shape) / 2**20) + 8
