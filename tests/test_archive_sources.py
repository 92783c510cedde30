"""Every NIfTI is read as it is, or refused with the file and the field."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
import tracemalloc
import zipfile
from contextlib import contextmanager
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from common import check_refused, check_same_bits, patch_header, random_image, write_nifti

from inrstore import limits
from inrstore.errors import MissingDependencyError, SourceError, UnsupportedImageError
from inrstore.files.local import Folder
from inrstore.files.zips import ZipPlace
from inrstore.sources import read_image, read_source, streams

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


@pytest.fixture
def plain(tmp_path):
    """A small plain NIfTI-1 file."""
    return write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))


def refused(path, *words, kind=SourceError):
    return check_refused(lambda: read_source(path), kind, str(path), *words, folder=path.parent)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_supported_dtype_and_byte_order_is_read(tmp_path, dtype, order):
    values = random_image((5, 4, 3, 2), dtype)
    path = write_nifti(tmp_path / "a.nii.gz", values, order=order)
    source = read_source(path)
    check_same_bits(source.voxels, values.T)
    assert source.voxels.dtype == values.dtype.newbyteorder(order)
    loaded = nib.load(path)
    assert np.array_equal(source.voxels, loaded.dataobj.get_unscaled().T)
    assert np.array_equal(source.affine, loaded.affine)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "no-suffix"])
@pytest.mark.parametrize("version", [1, 2])
def test_versions_and_extensions_are_read_whatever_the_name(tmp_path, version, name):
    written = write_nifti(
        tmp_path / ("b.nii.gz" if name.endswith("gz") else "b.nii"),
        random_image((5, 4, 3)), version=version, extension=b"hello " * 20,
    )  # fmt: skip
    path = written.rename(tmp_path / name)
    source = read_source(path)
    assert source.kind == f"NIfTI-{version}"
    assert b"hello hello" in source.header
    data = path.read_bytes()
    whole = gzip.decompress(data) if name.endswith("gz") else data
    assert source.header + source.voxels.tobytes() == whole
    assert source.file_bytes == len(data)


def test_slope_zero_means_no_scaling(plain):
    patch_header(plain, scl_slope=0.0, scl_inter=float("nan"))
    source = read_source(plain)
    assert (source.slope, source.inter) == (1.0, 0.0)


def test_scaling_is_kept_apart_from_the_voxels(plain):
    before = read_source(plain).voxels
    patch_header(plain, scl_slope=2.5, scl_inter=-1024.0)
    source = read_source(plain)
    assert (source.slope, source.inter) == (2.5, -1024.0)
    check_same_bits(source.voxels, before)


@pytest.mark.parametrize("sform, qform", [(2, 1), (0, 1), (0, 0)])
def test_the_affine_is_the_one_nibabel_takes(plain, sform, qform):
    patch_header(plain, sform_code=sform, qform_code=qform)
    source = read_source(plain)
    assert np.array_equal(source.affine, nib.load(plain).affine)
    assert source.affine_from == ("sform" if sform else "qform" if qform else "pixdim")


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_after_the_voxels_are_kept(plain, packed):
    data = plain.read_bytes() + b"after" * 100
    plain.write_bytes(gzip.compress(data) if packed else data)
    source = read_source(plain)
    assert source.trailing == b"after" * 100
    assert source.header + source.voxels.tobytes() + source.trailing == data


def test_a_gzip_of_several_members_is_read(plain):
    """As pigz -i, bgzip and appending write them, with zeros behind."""
    data, before = plain.read_bytes(), read_source(plain)
    plain.write_bytes(b"".join(gzip.compress(data[at : at + 100]) for at in range(0, len(data), 100)) + bytes(512))
    source = read_source(plain)
    check_same_bits(source.voxels, before.voxels)
    assert source.header == before.header


def test_the_digest_is_that_of_the_file(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        path = write_nifti(tmp_path / name, random_image((50, 40, 30)))
        source = read_source(path)
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert source.file_bytes == path.stat().st_size
        assert (source.name, source.label, source.files) == (name, str(path), (name,))


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_is_read_once_from_a_place_without_seeking(tmp_path, packed):
    path = write_nifti(tmp_path / ("a.nii.gz" if packed else "a.nii"), random_image((50, 40, 30)))
    place = OneWay(tmp_path)
    source = read_image(place, path.name)
    check_same_bits(source.voxels, read_source(path).voxels)
    assert place.opened == [path.name]


class OneWay(Folder):
    """A place whose files can only be read forwards, a few bytes at a time, as those of a server."""

    def __init__(self, path):
        super().__init__(path)
        self.opened = []

    @contextmanager
    def open(self, key):
        self.opened.append(key)
        with super().open(key) as file:
            yield SimpleNamespace(read=lambda size: file.read(min(size, 1000)))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_an_image_is_read_from_a_zip(tmp_path, name):
    path = write_nifti(tmp_path / name, random_image((20, 20, 9, 4)))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, f"dMRI/dMRI/{name}")
        file.writestr("dMRI/dMRI/bvals", "0 1 2 3")
    with ZipPlace(Folder(tmp_path), "x.zip") as place:
        source = read_image(place, f"dMRI/dMRI/{name}")
    check_same_bits(source.voxels, read_source(path).voxels)
    assert source.sha256 == read_source(path).sha256
    assert source.label == f"{tmp_path / 'x.zip'}:dMRI/dMRI/{name}"
    assert source.bval.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("packed", [False, True])
def test_reading_takes_the_memory_of_the_voxels(tmp_path, packed):
    path = write_nifti(tmp_path / "a.nii", np.zeros((256, 256, 256), np.int16))
    read_source_of_good(tmp_path)
    if packed:
        noise = np.random.default_rng(0).bytes(1 << 16)  # less than 900 : 1
        path.write_bytes(gzip.compress(path.read_bytes()[:352] + noise * 512, 1))
    with at_most((32 << 20) + (10 << 20)):
        assert read_source(path).voxels.nbytes == 32 << 20


def test_an_image_larger_than_the_limit_is_refused_before_it_is_read(plain, monkeypatch):
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 119)
    refused(plain, "dim", "claims 120 bytes", "more than the 119")


# ---- bad input ---------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.nii", "no such file")


def test_folder(tmp_path):
    (tmp_path / "a.nii").mkdir()
    refused(tmp_path / "a.nii", "not a regular file")


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"hello world" * 100, b"\0" * 1000, b"\x1f\x8b", b"\x1f\x8bxxxxxxxxxxxx"]
)
def test_not_a_nifti(tmp_path, content):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    refused(path)


def test_wrong_magic(plain):
    data = bytearray(plain.read_bytes())
    data[344:348] = b"abcd"
    plain.write_bytes(data)
    refused(plain, "magic")


@pytest.mark.parametrize("keep", [2, 9, 30, 0.3, 0.5, 0.9, -9, -8, -4, -1])
def test_truncated_gzip(tmp_path, keep):
    path = write_nifti(tmp_path / "a.nii.gz", random_image((20, 20, 9)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(path)


def test_damaged_gzip(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", random_image((20, 20, 9)))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    refused(path, "gzip")


@pytest.mark.parametrize("missing", [1, 100, 5000])
@pytest.mark.parametrize("packed", [False, True])
def test_fewer_voxels_than_the_header_claims(tmp_path, missing, packed):
    path = write_nifti(tmp_path / "a.nii", random_image((20, 20, 9)))
    data = path.read_bytes()[:-missing]
    path.write_bytes(gzip.compress(data) if packed else data)
    refused(path, "claims")


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_claim_allocates_nothing(tmp_path, packed):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    patch_header(path, dim=(7, *[32767] * 7))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    read_source_of_good(tmp_path)  # whatever is imported late is imported now
    with at_most(1 << 20):
        refused(path, "dim", "claims")


def test_a_claim_within_reach_of_gzip_is_read_no_further_than_the_file(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_image((40, 40, 40)))
    patch_header(path, dim=(3, 200, 200, 200))
    path.write_bytes(gzip.compress(path.read_bytes()))
    read_source_of_good(tmp_path)
    with at_most(12 << 20):
        refused(path, "claims 16000000 bytes", "ends after 128000")


def test_a_gzip_bomb_is_not_read_beyond_what_the_header_says(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(64 << 20)))
    monkeypatch.setattr(streams, "_BLOCK", 1 << 18)
    read_source_of_good(tmp_path)
    with at_most(8 << 20):
        refused(path, "bytes follow the voxels")


@contextmanager
def at_most(size):
    """Check the peak of the memory that Python allocates."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def read_source_of_good(folder):
    good = folder / "good"
    good.mkdir()
    read_source(write_nifti(good / "good.nii.gz", random_image((5, 4, 3))))


@pytest.mark.parametrize("dim", [(3, 0, 4, 3, 1), (3, 5, 0, 3, 1), (3, 5, 4, -3, 1), (4, 5, 4, 3, 0), (4, 5, 4, 3, -1)])
def test_zero_or_negative_length(plain, dim):
    axis = next(i for i, n in enumerate(dim) if n < 1)
    refused(patch_header(plain, dim=dim), f"dim[{axis}]", str(dim[axis]))


@pytest.mark.parametrize("axes", [0, -1, 8, 300])
def test_wrong_number_of_axes(plain, axes):
    # nibabel takes 0 < dim[0] < 8 as the mark of the byte order, so this is the same file, read the other way
    refused(patch_header(plain, dim=(axes, 5, 4, 3)), "dim")


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images_are_told_apart_from_damaged_ones(tmp_path, dtype):
    path = tmp_path / "a.nii"
    nib.Nifti1Image(np.ones((3, 3, 3), dtype), np.eye(4)).to_filename(path)
    refused(path, "datatype", dtype, kind=UnsupportedImageError)


@pytest.mark.parametrize("code, name", [(128, "RGB24"), (2304, "RGBA32"), (1536, "float128"), (1, "binary")])
def test_other_datatypes_are_told_apart_from_damaged_ones(plain, code, name):
    refused(patch_header(plain, datatype=code), "datatype", name, kind=UnsupportedImageError)


@pytest.mark.parametrize("code", [0, 999])
def test_a_datatype_that_does_not_exist(plain, code):
    refused(patch_header(plain, datatype=code), "datatype", str(code))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_intercept_that_is_no_number(plain, value):
    refused(patch_header(plain, scl_slope=1.0, scl_inter=value), "scl_inter")


@pytest.mark.parametrize("offset", [0.0, 351.0, 352.5, -1.0, 1e30, float("nan"), float("inf")])
def test_wrong_voxel_offset(plain, offset):
    refused(patch_header(plain, vox_offset=offset), "vox_offset")


def test_affine_that_is_not_finite(plain):
    refused(patch_header(plain, srow_x=float("nan")), "srow_x")
    patch_header(plain, sform_code=0, qform_code=1, quatern_b=float("inf"))
    refused(plain, "quatern_b")
    refused(patch_header(plain, quatern_b=7.0), "qform")


def test_voxel_size_that_is_not_finite(plain):
    refused(patch_header(plain, pixdim=(1.0, 2.0, float("nan"))), "pixdim[2]")


def test_unknown_units(plain):
    refused(patch_header(plain, xyzt_units=7), "xyzt_units")


def test_unreadable_file(plain):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    plain.chmod(0)
    refused(plain, "cannot be read")


def test_nibabel_missing_says_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    check_refused(lambda: read_source(plain), MissingDependencyError, "inrstore[nifti]", folder=plain.parent)


def test_random_damage_of_the_header_never_raises_another_error(plain):
    original = plain.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(original)
        for position in rng.integers(0, 352, rng.integers(1, 6)):
            data[position] = rng.integers(256)
        plain.write_bytes(data)
        try:
            source = read_source(plain)
        except SourceError as error:
            assert str(plain) in str(error)
        else:
            assert np.isfinite(source.affine).all()


def test_the_struct_offsets_of_these_tests_are_those_of_nibabel(plain):
    patch_header(plain, scl_slope=3.0, datatype=512)
    header = nib.Nifti1Header(plain.read_bytes()[:348], check=False)
    assert header["scl_slope"] == 3
    assert header["datatype"] == 512
    assert struct.calcsize("<h") == 2
