"""Export gives back what went in: every byte of the header, and the voxels as promised."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from common import check_refused, check_same_bits, random_image, real_scan, write_nifti

import inrstore
from inrstore.errors import ConfigurationError, DestinationExistsError, StoreError, WriteError
from inrstore.store import layout
from inrstore.store.export import runs
from inrstore.store.layout import Grid
from inrstore.store.reader import Store


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks of few voxels, so that small images have several."""
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 10)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 10)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 10)


def whole(path):
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


@pytest.mark.parametrize("out", ["o.nii", "o.nii.gz"])
@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("shape", [(5, 4, 7, 3), (5, 4, 7), (6, 5), (7,), (3, 4, 2, 3, 2), (40, 2, 2)])
def test_a_lossless_store_gives_back_every_byte(tmp_path, shape, out, zarr_format):
    source = write_nifti(tmp_path / "a.nii.gz", random_image(shape), extension=b"kept, too")
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True, zarr_format=zarr_format)
    report = inrstore.export(tmp_path / "s.zarr", tmp_path / out)
    assert whole(tmp_path / out) == whole(source)
    assert report.file_bytes == (tmp_path / out).stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", out, "s.zarr"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "uint64"])
def test_dtype_and_byte_order_are_those_of_the_source(tmp_path, dtype, order, version):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7), dtype), order=order, version=version)
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii")
    assert whole(tmp_path / "o.nii") == whole(source)


def test_a_lossy_store_gives_back_every_byte_of_the_header(tmp_path, monkeypatch):
    values = random_image((9, 8, 7, 3))
    source = write_nifti(tmp_path / "a.nii", values, extension=b"kept, too", slope=2.5)
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 300)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 300)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 300)
    inrstore.convert(source, tmp_path / "s.zarr", max_error=4)
    inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii")
    start = int(nib.load(source).dataobj.offset)
    assert whole(tmp_path / "o.nii")[:start] == whole(source)[:start]
    before, after = nib.load(source), nib.load(tmp_path / "o.nii")
    assert np.array_equal(before.affine, after.affine)
    assert 0 < np.abs(before.dataobj.get_unscaled() - after.dataobj.get_unscaled()).max() <= 4
    assert after.dataobj.slope == 2.5


def test_the_same_store_gives_the_same_bytes(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    for name in ("one.nii.gz", "two.nii.gz"):
        inrstore.export(tmp_path / "s.zarr", tmp_path / name)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_an_existing_file_is_not_touched(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    check_refused(
        lambda: inrstore.export(tmp_path / "s.zarr", source), DestinationExistsError, "a.nii", folder=tmp_path
    )


def test_other_names_are_refused(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    check_refused(
        lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / "o.mgz"),
        ConfigurationError,
        ".nii",
        folder=tmp_path,
    )


@pytest.mark.parametrize("out", ["o.nii", "o.nii.gz"])
def test_a_corrupt_chunk_leaves_nothing(tmp_path, out):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    opened = Store(tmp_path / "s.zarr")
    key = opened.key(list(opened.grid)[-1])
    path = tmp_path / "s.zarr" / key
    path.write_bytes(path.read_bytes()[:-1])
    check_refused(lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / out), StoreError, key, folder=tmp_path)


@pytest.mark.parametrize("out", ["o.nii", "o.nii.gz"])
def test_a_destination_that_cannot_be_written_is_named(tmp_path, out):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 7)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    check_refused(lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / "no" / out), WriteError, out, folder=tmp_path)


@pytest.mark.parametrize(
    "shape, chunks",
    [((3, 5, 4, 6), (3, 2, 4, 6)), ((3, 5, 4, 6), (3, 5, 2, 5)), ((7,), (3,)), ((2, 3, 4), (1, 1, 1)),
     ((2, 3, 4), (2, 3, 4)), ((5, 1, 1), (2, 1, 1))],
)  # fmt: skip
def test_the_pieces_of_the_chunks_make_up_the_file(shape, chunks):
    array = np.arange(np.prod(shape), dtype="<i2").reshape(shape)
    out = np.full(array.nbytes, 255, np.uint8)
    grid = Grid(shape, chunks)
    for index in grid:
        region = grid.region(index)
        for offset, run in runs(array[region].copy(), region, shape):
            out[offset : offset + run.nbytes] = np.frombuffer(run.tobytes(), np.uint8)
    check_same_bits(out.view("<i2").reshape(shape), array)


@pytest.mark.real
def test_a_real_scan_comes_back_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.undo()
    source = real_scan("sub-s03")
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii")
    assert whole(tmp_path / "o.nii") == whole(source)
