"""Every NIfTI is read as it is, or refused with the file and the field."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import tracemalloc
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest
from common import check_refused, check_same_bits, patch_header, random_image, real_scan, write_nifti

from inrstore.archive.sources import nifti, read_source
from inrstore.errors import MissingDependencyError, SourceError

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


@pytest.fixture
def plain(tmp_path):
    """A small plain NIfTI-1 file."""
    return write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))


def refused(path, *words):
    return check_refused(lambda: read_source(path), SourceError, str(path), *words, folder=path.parent)


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


def test_voxels_may_be_followed_by_a_few_bytes(plain):
    plain.write_bytes(plain.read_bytes() + b"\0" * 100)
    assert read_source(plain).voxels.shape == (3, 4, 5)


# ---- bad input ---------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.nii", "no such file")


def test_folder(tmp_path):
    (tmp_path / "a.nii").mkdir()
    refused(tmp_path / "a.nii", "not a file")


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


def test_header_of_a_pair(tmp_path):
    nib.Nifti1Pair(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.hdr")
    refused(tmp_path / "a.hdr", "magic", ".hdr/.img")


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
    monkeypatch.setattr(nifti, "_BLOCK", 1 << 18)
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


@pytest.mark.parametrize("dtype, name", [("complex64", "complex64"), ("complex128", "complex128")])
def test_complex(tmp_path, dtype, name):
    path = tmp_path / "a.nii"
    nib.Nifti1Image(np.ones((3, 3, 3), dtype), np.eye(4)).to_filename(path)
    refused(path, "datatype", name)


@pytest.mark.parametrize(
    "code, name",
    [(128, "RGB24"), (2304, "RGBA32"), (1536, "float128"), (1, "binary"), (0, "unknown"), (999, "999")],
)
def test_other_datatypes(plain, code, name):
    refused(patch_header(plain, datatype=code), "datatype", name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["scl_slope", "scl_inter"])
def test_scaling_that_is_no_number(plain, field, value):
    fields = {"scl_slope": 1.0, field: value}
    refused(patch_header(plain, **fields), field)


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


# ---- gradients ---------------------------------------------------------------------------------------------


@pytest.fixture
def dwi(tmp_path):
    """A 4-D image of four volumes, without gradients."""
    return write_nifti(tmp_path / "x_dwi.nii.gz", random_image((4, 4, 3, 4)))


BVAL, BVEC = "0 1000 1000 2000", "0 1 0 0\n0 0 1 0\n0 0 0 -0.707\n"


@pytest.mark.parametrize("names", [("x_dwi.bval", "x_dwi.bvec"), ("x_dwi.bvals", "x_dwi.bvecs"), ("bvals", "bvecs")])
def test_gradients_are_found_under_their_usual_names(dwi, names):
    dwi.with_name(names[0]).write_text(BVAL)
    dwi.with_name(names[1]).write_text(BVEC)
    source = read_source(dwi)
    assert source.bval.tolist() == [0, 1000, 1000, 2000]
    assert source.bvec.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, -0.707]]


def test_gradients_in_rows_or_columns(dwi):
    dwi.with_name("x_dwi.bval").write_text("0\n1000\n1000\n2000\n")
    dwi.with_name("x_dwi.bvec").write_text("0 0 0\n1,0,0\n0 1 0\n0 0 -.707\n")
    source = read_source(dwi)
    assert source.bval.tolist() == [0, 1000, 1000, 2000]
    assert source.bvec[3].tolist() == [0, 0, -0.707]


def test_no_gradients(dwi):
    source = read_source(dwi)
    assert source.bval is None
    assert source.bvec is None


def test_gradients_of_another_image_in_the_folder_are_not_taken(dwi):
    dwi.with_name("bvals").write_text("0 1 2")
    assert read_source(dwi).bval is None


def test_a_three_dimensional_image_has_no_gradients(plain):
    plain.with_name("a.bval").write_text("0 0 0")
    assert read_source(plain).bval is None


@pytest.mark.parametrize("text", ["0 1000", "0 1 2 x", "0 1\n2 3 4", "0 1 2 nan", "", "\xff"])
def test_gradients_that_do_not_fit_are_named(dwi, text):
    path = dwi.with_name("x_dwi.bval")
    path.write_text(text, "latin-1")
    check_refused(lambda: read_source(dwi), SourceError, str(path), folder=dwi.parent)


@pytest.mark.real
def test_real_gradients_are_read():
    source = read_source(real_scan("sub-s03"))
    assert source.bval.shape == (17,)
    assert source.bvec.shape == (17, 3)
    assert np.allclose(np.linalg.norm(source.bvec[1:], axis=1), 1, atol=1e-3)


def test_the_struct_offsets_of_these_tests_are_those_of_nibabel(plain):
    patch_header(plain, scl_slope=3.0, datatype=512)
    header = nib.Nifti1Header(plain.read_bytes()[:348], check=False)
    assert header["scl_slope"] == 3
    assert header["datatype"] == 512
    assert struct.calcsize("<h") == 2
