"""MGH images are read as nibabel reads them, and come back byte for byte."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common import AFFINE, check_refused, check_same_bits, opened, random_image, tree

import inrstore
from inrstore import limits
from inrstore.errors import SourceError, UnsupportedImageError
from inrstore.sources import is_image, read_source, store_name
from inrstore.store.reader import Store


def write_mgh(path: Path, values: np.ndarray, tags: bytes = b"", **fields: float) -> Path:
    image = nib.freesurfer.MGHImage(values, AFFINE)
    for name, value in fields.items():
        image.header[name] = value
    plain = path.with_suffix(".mgh")
    image.to_filename(plain)
    data = plain.read_bytes() + tags
    plain.unlink()
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith("gz") else data)
    return path


def loaded(path: Path) -> nib.freesurfer.MGHImage:
    return nib.freesurfer.MGHImage.from_bytes(content(path))


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.lower().endswith("gz") else data


def tag(number: int, data: bytes) -> bytes:
    return struct.pack(">iq", number, len(data)) + data


HISTORY = tag(3, b"mri_convert a.nii b.mgz\0")


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.mgh.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "i2"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2), (1, 1, 1)])
def test_an_image_is_read_as_nibabel_reads_it_and_comes_back(tmp_path, name, dtype, shape):
    path = write_mgh(tmp_path / name, random_image(shape, dtype), HISTORY, tr=2300, te=2.5)
    source, image = read_source(path), loaded(path)
    assert source.kind == "MGH" and not source.labels
    check_same_bits(np.ascontiguousarray(source.voxels.T), np.asanyarray(image.dataobj))
    assert np.array_equal(source.affine, image.affine)
    assert source.voxel_size == pytest.approx([float(z) for z in image.header.get_zooms()])
    assert source.units == {"space": "mm", "time": "msec"}
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    inrstore.export(tmp_path / "s.ozx", tmp_path / f"back.{name.partition('.')[2]}")
    assert content(tmp_path / f"back.{name.partition('.')[2]}") == content(path)


def test_axes_lie_in_the_world_of_ome(tmp_path):
    path = write_mgh(tmp_path / "a.mgz", random_image((5, 4, 3, 2)), tr=2000)
    inrstore.convert(path, tmp_path / "s.zarr", max_error=2)
    (scale,) = opened(tmp_path / "s.zarr").attrs["ome"]["multiscales"]
    steps = [float(f"{step:.4g}") for step in np.linalg.norm(AFFINE[:3, :3], axis=0)[::-1]]
    assert scale["axes"][0] == {"name": "t", "type": "time", "unit": "millisecond"}
    assert scale["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([2000.0, *steps], rel=1e-3)
    assert np.allclose(Store(tmp_path / "s.zarr").attributes["affine"], AFFINE, atol=1e-4)


def test_an_image_without_a_place_gets_the_one_of_nibabel(tmp_path):
    path = write_mgh(tmp_path / "a.mgh", random_image((5, 4, 3)), delta=(9, 9, 9))
    data = bytearray(path.read_bytes())
    data[28:30] = bytes(2)
    path.write_bytes(data)
    source = read_source(path)
    assert np.array_equal(source.affine, loaded(path).affine)
    assert source.voxel_size == (1.0, 1.0, 1.0)
    assert source.affine_from == "nothing"


def test_an_image_without_a_footer_comes_back(tmp_path):
    path = write_mgh(tmp_path / "a.mgh", random_image((5, 4, 3)))
    path.write_bytes(path.read_bytes()[: 284 + 5 * 4 * 3 * 2])
    inrstore.convert(path, tmp_path / "s.ozx", lossless=True)
    inrstore.export(tmp_path / "s.ozx", tmp_path / "b.mgh")
    assert (tmp_path / "b.mgh").read_bytes() == path.read_bytes()


def test_values_with_a_table_of_colours_are_labels(tmp_path):
    (tmp_path / "in").mkdir()
    values = random_image((5, 4, 3), "i4")
    write_mgh(tmp_path / "in/seg.mgz", values, HISTORY + struct.pack(">ii", 1, -2) + bytes(40))
    assert read_source(tmp_path / "in/seg.mgz").labels
    inrstore.convert(tmp_path / "in", tmp_path / "archive", psnr=20)
    assert Store(tmp_path / "archive/seg.mgz.ozx").promised == {"lossless": True}
    path = write_mgh(tmp_path / "by-intent.mgh", values)
    path.write_bytes(struct.pack(">i", 1 << 8 | 1) + path.read_bytes()[4:])
    assert read_source(path).labels


def test_a_tree_of_freesurfer_comes_back(tmp_path):
    for name in ("mri/orig.mgz", "mri/orig/001.MGZ", "surf/lh.thickness.mgh"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mgh(path, random_image((5, 4, 3), "f4"), HISTORY)
    report = inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True)
    assert (report.converted, report.complete) == (3, True)
    inrstore.export(tmp_path / "archive", tmp_path / "out")
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "in").keys()
    for name in ("mri/orig.mgz", "mri/orig/001.MGZ", "surf/lh.thickness.mgh"):
        assert content(tmp_path / "out" / name) == content(tmp_path / "in" / name)


def test_names_and_contents_that_are_mgh(tmp_path):
    assert is_image("a/x.mgz") and store_name("a/x.mgh.gz") == "a/x.mgh.gz.zarr"
    path = write_mgh(tmp_path / "a.mgz", random_image((5, 4, 3)))
    assert read_source(path.rename(tmp_path / "noname")).kind == "MGH"


def patched(path: Path, offset: int, form: str, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "offset, form, values, error, word",
    [
        (0, ">i", (2,), SourceError, "version"),
        (0, ">i", (-255,), SourceError, "version"),
        (4, ">i", (0,), SourceError, "dims[0]"),
        (12, ">i", (-3,), SourceError, "dims[2]"),
        (4, ">4i", (2**31 - 1,) * 4, SourceError, "dims"),
        (4, ">i", (6,), SourceError, "dims"),
        (4, ">i", (50000,), SourceError, "dims"),
        (20, ">i", (9,), SourceError, "type"),
        (20, ">i", (-1,), SourceError, "type"),
        (20, ">i", (8,), UnsupportedImageError, "type: RGB"),
        (30, ">f", (float("nan"),), SourceError, "delta"),
        (42, ">f", (float("inf"),), SourceError, "Mdc"),
        (78, ">f", (float("nan"),), SourceError, "Pxyz_c"),
        (30, ">f", (3e38,), SourceError, "affine"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, offset, form, values, error, word):
    path = write_mgh(tmp_path / "a.mgh", random_image((5, 4, 3)))
    patched(path, offset, form, *values)
    if word == "affine":
        patched(path, 42, ">f", 3e38)
    check_refused(lambda: read_source(path), error, str(path), word, folder=tmp_path)


def test_claims_are_refused_before_memory_is_taken(tmp_path):
    data = struct.pack(">6i", 1, 60000, 60000, 60000, 1, 3) + bytes(260)
    for name, stored in (("a.mgh", data), ("a.mgz", gzip.compress(data))):
        (tmp_path / name).write_bytes(stored)
        check_refused(lambda name=name: read_source(tmp_path / name), SourceError, "dims", "claims", folder=tmp_path)


@pytest.mark.parametrize("size", [0, 20, 283, 300])
def test_a_file_that_is_cut_is_refused(tmp_path, size):
    path = write_mgh(tmp_path / "a.mgh", random_image((5, 4, 3)))
    path.write_bytes(path.read_bytes()[:size])
    check_refused(lambda: read_source(path), SourceError, str(path), folder=tmp_path)


def test_more_than_can_follow_the_voxels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TRAILING_BYTES", 100)
    path = write_mgh(tmp_path / "a.mgh", random_image((5, 4, 3)), bytes(101))
    check_refused(lambda: read_source(path), SourceError, str(path), "follow the voxels", folder=tmp_path)
