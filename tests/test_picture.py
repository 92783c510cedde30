"""The picture original | decoded | error is a PNG for images of any shape."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from common import check_refused, random_image, write_nifti

import inrstore
from inrstore.errors import MissingDependencyError, SourceError
from inrstore.store import layout
from inrstore.store.slices import decode_slice
from inrstore.views import picture


@pytest.mark.parametrize("shape", [(20, 16, 6, 3), (20, 16, 6), (20, 16), (20,), (4, 5, 3, 1, 2)])
def test_a_picture_is_drawn_for_every_shape(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 64)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 64)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 64)
    source = write_nifti(tmp_path / "a.nii", random_image(shape))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=3)
    out = picture.draw_comparison(tmp_path / "s.zarr", source, tmp_path / "p.png")
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_only_the_chunks_of_the_slice_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 40)
    values = random_image((5, 4, 8, 2))
    source = write_nifti(tmp_path / "a.nii", values)
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    opened = picture_store(tmp_path / "s.zarr", monkeypatch)
    index = (1, 4, slice(None), slice(None))
    assert np.array_equal(decode_slice(opened, index), values.T[1, 4])
    assert opened.calls == 1


def picture_store(path, monkeypatch):
    from inrstore.store.reader import Store

    store = Store(path)
    store.calls = 0
    chunk = store.chunk

    def count(index):
        store.calls += 1
        return chunk(index)

    monkeypatch.setattr(store, "chunk", count)
    return store


def test_not_finite_voxels_are_drawn(tmp_path):
    values = random_image((8, 7, 3), "float32")
    values[:, :, 1] = np.nan
    source = write_nifti(tmp_path / "a.nii", values)
    inrstore.convert(source, tmp_path / "s.zarr", max_error=1)
    assert picture.draw_comparison(tmp_path / "s.zarr", source, tmp_path / "p.png").is_file()


def test_another_source_is_refused(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((8, 7, 3)))
    other = write_nifti(tmp_path / "b.nii", random_image((8, 7, 4)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=1)
    check_refused(
        lambda: picture.draw_comparison(tmp_path / "s.zarr", other, tmp_path / "p.png"),
        SourceError, "shape", folder=tmp_path,
    )  # fmt: skip


def test_matplotlib_missing_says_what_to_install(tmp_path, monkeypatch):
    source = write_nifti(tmp_path / "a.nii", random_image((8, 7, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", max_error=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    check_refused(
        lambda: picture.draw_comparison(tmp_path / "s.zarr", source, tmp_path / "p.png"),
        MissingDependencyError, "inrstore[all]", folder=tmp_path,
    )  # fmt: skip
