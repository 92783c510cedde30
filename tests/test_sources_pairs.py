"""The two files of a pair are one image, under whichever name it is asked for."""

from __future__ import annotations

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from common import check_refused, check_same_bits, patch_header, random_image

import inrstore
from inrstore.errors import SourceError, UnsupportedImageError
from inrstore.files.local import Folder
from inrstore.sources import file_names, image_files, image_of, is_image, read_image, read_source, store_name


@pytest.fixture
def pair(tmp_path):
    """A NIfTI-1 pair, a.hdr and a.img."""
    nib.Nifti1Pair(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.hdr")
    return tmp_path / "a.hdr"


def pack(path):
    """Gzip a file; return its new path."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def refused(path, *words, kind=SourceError):
    return check_refused(lambda: read_source(path), kind, *words, folder=path.parent)


@pytest.mark.parametrize("asked", ["header", "voxels"])
@pytest.mark.parametrize("header_packed", [False, True])
@pytest.mark.parametrize("voxels_packed", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_a_pair_is_read_by_either_name_packed_or_not(tmp_path, asked, header_packed, voxels_packed, version):
    values = random_image((5, 4, 3, 2))
    (nib.Nifti1Pair if version == 1 else nib.Nifti2Pair)(values, np.diag([2.0, 2, 2, 1])).to_filename(
        tmp_path / "a.hdr"
    )
    files = [tmp_path / "a.hdr", tmp_path / "a.img"]
    whole = [file.read_bytes() for file in files]
    files = [pack(file) if packed else file for file, packed in zip(files, (header_packed, voxels_packed), strict=True)]
    source = read_source(files[asked == "voxels"])
    check_same_bits(source.voxels, values.T)
    assert source.kind == f"NIfTI-{version} pair"
    assert [source.header, source.leading + source.voxels.tobytes() + source.trailing] == whole
    assert source.files == tuple(file.name for file in files)
    assert source.name == files[0].name
    assert source.label == str(files[0])
    stored = b"".join(file.read_bytes() for file in files)
    assert (source.sha256, source.file_bytes) == (hashlib.sha256(stored).hexdigest(), len(stored))
    assert image_files(Folder(tmp_path), files[asked == "voxels"].name) == source.files


def test_bytes_around_the_voxels_of_a_pair_are_kept(pair):
    before = read_source(pair)
    patch_header(pair, vox_offset=16.0)
    pair.write_bytes(pair.read_bytes() + b"extension")
    image = pair.with_suffix(".img")
    image.write_bytes(b"sixteen bytes ok" + image.read_bytes() + b"after")
    source = read_source(pair)
    check_same_bits(source.voxels, before.voxels)
    assert (source.leading, source.trailing) == (b"sixteen bytes ok", b"after")
    assert source.header.endswith(b"extension")


def test_the_gradients_of_a_pair_are_found(tmp_path):
    nib.Nifti1Pair(random_image((3, 3, 3, 4)), np.eye(4)).to_filename(tmp_path / "a.hdr")
    (tmp_path / "a.bval").write_text("0 1 2 3")
    assert read_source(tmp_path / "a.img").bval.tolist() == [0, 1, 2, 3]


def test_a_single_file_called_img_is_read(tmp_path):
    nib.Nifti1Image(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.img")
    assert read_source(path).kind == "NIfTI-1"


def test_a_header_without_its_voxels(pair):
    pair.with_suffix(".img").unlink()
    refused(pair, str(pair), ".img", "not beside it")


@pytest.mark.parametrize("keep", [0, 1, 119])
def test_a_pair_whose_voxels_are_cut(pair, keep):
    image = pair.with_suffix(".img")
    image.write_bytes(image.read_bytes()[:keep])
    refused(pair, str(image), "dim", "claims 120 bytes")


def test_a_pair_whose_packed_voxels_are_damaged(pair):
    image = pack(pair.with_suffix(".img"))
    image.write_bytes(image.read_bytes()[:-9])
    refused(pair, str(image), "gzip")


def test_a_pair_under_another_name(pair):
    refused(pair.rename(pair.with_name("a.nii")), "magic", ".hdr/.img", "does not end in .hdr")


def test_analyze_is_intact_but_not_stored(tmp_path):
    nib.AnalyzeImage(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.hdr")
    refused(tmp_path / "a.hdr", str(tmp_path / "a.hdr"), "Analyze 7.5", kind=UnsupportedImageError)


def test_the_header_of_another_program_is_intact_but_not_stored(tmp_path):
    (tmp_path / "a.hdr").write_text("ENVI\nsamples = 10\n")
    refused(tmp_path / "a.hdr", "not a NIfTI file", kind=UnsupportedImageError)


def test_names_of_images_and_of_their_stores():
    images = {"a/x.nii": "a/x.zarr", "x.nii.gz": "x.zarr", "X.NII.GZ": "X.zarr", "x.y.hdr": "x.y.zarr",
              "a.b/x.hdr.gz": "a.b/x.zarr"}  # fmt: skip
    assert {name: store_name(name) for name in images} == images
    assert store_name("a/x.nii.gz", ".ozx") == "a/x.ozx"
    assert all(map(is_image, images))
    assert not any(map(is_image, ["x.img", "x.img.gz", "nii", "x.nii.bz2", "x.gz", "x.nii.json", "x.zarr"]))


def test_the_image_that_a_file_belongs_to_is_told(pair):
    place = Folder(pair.parent)
    assert image_of(place, "a.img") == image_of(place, "a.hdr") == "a.hdr"
    (pair.parent / "alone.img").write_bytes(b"")
    assert image_of(place, "alone.img") is None
    (pair.parent / "other.hdr").write_bytes(b"")
    assert image_of(place, "other.hdr") is None
    assert image_of(place, "a.json") is None
    # The unpacked voxels go with the unpacked header.
    (pair.parent / "a.img.gz").write_bytes(b"")
    assert image_of(place, "a.img.gz") is None
    assert image_files(place, "a.hdr") == ("a.hdr", "a.img")
    assert image_files(place, "a.nii.gz") == ("a.nii.gz",)
    with pytest.raises(SourceError, match=r"alone\.img"):
        read_image(place, "alone.img")


def test_names_of_the_files_of_an_image():
    assert file_names("x/a.nii.gz") == ("x/a.nii.gz",)
    assert file_names("x/a.hdr") == file_names("x/a.img") == ("x/a.hdr", "x/a.img")
    assert file_names("A.IMG.GZ") == ("A.HDR.GZ", "A.IMG.GZ")
    assert file_names("notes.txt") == ("notes.txt",)


def test_a_single_file_beside_voxels_that_are_not_its_own_is_not_stored(tmp_path):
    nib.Nifti1Image(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.hdr")
    assert read_source(path).kind == "NIfTI-1"
    (tmp_path / "a.img").write_bytes(b"would be lost")
    refused(path, "magic", "a.img", kind=UnsupportedImageError)


def test_a_single_file_called_img_is_exported_as_one(tmp_path):
    nib.Nifti1Image(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.img")
    inrstore.convert(path, tmp_path / "s.zarr", lossless=True)
    inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii")
    assert (tmp_path / "o.nii").read_bytes() == path.read_bytes()
