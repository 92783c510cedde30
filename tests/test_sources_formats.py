"""A format of images is a value in one table: names, plan, reading, export and zips all follow from it."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from archives import make_archive
from common import check_refused, check_same_bits, random_image, tree, write_nifti

import inrstore
from inrstore import files
from inrstore.archive.export import export_archive
from inrstore.archive.verify import verify_archive
from inrstore.archive.work import _not_dicom
from inrstore.errors import ConfigurationError, SourceError, StoreError
from inrstore.files import Place
from inrstore.files.local import Folder
from inrstore.sources import Source, is_image, read_image, read_source, registry, store_name
from inrstore.sources.format import Around, Format, Output
from inrstore.sources.streams import Digest
from tools.forge import dicom_image

SHAPE = (3, 4, 5, 2)
"""Of the image in `Source.voxels`, (t, z, y, x)."""
HEAD = b"DUMMY 3 4 5 2\n"


def sniff(start: bytes) -> bool:
    return start.startswith(b"DUMMY ")


def read(place: Place, names: tuple[str, ...]) -> Source:
    """Read big-endian voxels behind a line of text, packed, the volumes of a voxel side by side; a tail follows."""
    data = files.read(place, names[0], 1 << 20)
    digest = Digest()
    digest.update(data)
    head, packed = data[: len(HEAD)], data[len(HEAD) :]
    if head != HEAD:
        raise SourceError(f"{place.label(names[0])}: not a dummy")
    content = gzip.decompress(packed)
    size = 2 * int(np.prod(SHAPE))
    t, z, y, x = SHAPE
    voxels = np.frombuffer(content[:size], ">i2").reshape(z, y, x, t).transpose(3, 0, 1, 2)
    name = names[0].rpartition("/")[2]
    return Source(
        name=name, label=place.label(names[0]), kind="Dummy", files=(name,), sha256=digest.sha256,
        file_bytes=digest.size, header=head, voxels=voxels, trailing=content[size:], affine=np.eye(4),
        affine_from="nothing", slope=1.0, inter=0.0, voxel_size=(1.0,) * 4, time_offset=0.0,
        units={"space": "mm", "time": "sec"}, labels=True,
    )  # fmt: skip


def write(names: tuple[str, ...], around: Around) -> tuple[Output, ...]:
    return (Output(name=names[0], plain=around.header, tail=around.trailing, axes=(1, 2, 3, 0), packed=True),)


DUMMY = Format(kinds=("Dummy",), suffixes=((".dum", ".special.nii"),), sniff=sniff, read=read, write=write)


@pytest.fixture
def dummy(monkeypatch):
    """One format more."""
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, DUMMY))


def values() -> np.ndarray:
    return np.ascontiguousarray(random_image(SHAPE[::-1]).T)


def write_dummy(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = values().transpose(1, 2, 3, 0).astype(">i2").tobytes() + b"tail"
    path.write_bytes(HEAD + gzip.compress(content))
    return path


def content(path: Path) -> tuple[bytes, bytes]:
    data = path.read_bytes()
    return data[: len(HEAD)], gzip.decompress(data[len(HEAD) :])


def test_no_two_formats_share_a_kind_or_an_ending():
    kinds = [kind for one in registry.FORMATS for kind in one.kinds]
    endings = [suffix for one in registry.FORMATS for group in one.suffixes for suffix in group]
    assert len(set(kinds)) == len(kinds)
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


def test_a_format_is_known_by_its_names_and_its_content(tmp_path, dummy):
    assert is_image("a/x.DUM") and store_name("a/x.DUM") == "a/x.zarr"
    assert registry.format_of("x.special.nii") is DUMMY  # the longer ending counts
    assert registry.format_of("x.nii") is not DUMMY
    for name in ("x.dum", "x", "x.dat"):
        source = read_source(write_dummy(tmp_path / name))
        assert source.kind == "Dummy"
        check_same_bits(source.voxels, values())
    (tmp_path / "y").write_text("no image")
    check_refused(lambda: read_source(tmp_path / "y"), SourceError, "neither its name", "Dummy", folder=tmp_path)


def test_an_archive_of_another_format_comes_back(tmp_path, dummy):
    source = tmp_path / "in"
    one, other = write_dummy(source / "a/one.dum"), write_dummy(source / "TWO.DUM")
    (source / "a/one.bval").write_text("0 1000 2000")
    assert read_source(one).bval.tolist() == [0, 1000, 2000]
    with zipfile.ZipFile(source / "more.zip", "w") as packed:
        packed.write(one, "x/three.dum")
    archive = make_archive(source, tmp_path / "archive")
    assert (archive / "a/one.ozx").is_file() and (archive / "TWO.ozx").is_file()
    verify_archive(archive, source)
    report = export_archive(archive, tmp_path / "out")
    assert (report.images, report.zips) == (3, 1)
    assert tree(tmp_path / "out").keys() == tree(source).keys()
    for path in (one, other):
        assert content(tmp_path / "out" / path.relative_to(source)) == content(path)
    with zipfile.ZipFile(tmp_path / "out/more.zip") as packed:
        packed.extract("x/three.dum", tmp_path)
    assert content(tmp_path / "x/three.dum") == content(one)


def test_a_header_that_says_labels_keeps_them_exact(tmp_path, dummy):
    write_dummy(tmp_path / "in/a.dum")
    archive = tmp_path / "archive"
    assert inrstore.convert(tmp_path / "in", archive).complete
    export_archive(archive, tmp_path / "out")
    assert content(tmp_path / "out/a.dum") == content(tmp_path / "in/a.dum")


def test_an_export_has_the_format_of_its_source(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registry, "FORMATS", (*registry.FORMATS, DUMMY))
        inrstore.convert(write_dummy(tmp_path / "a.dum"), tmp_path / "s.zarr", lossless=True)
        check_refused(
            lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / "o.nii"),
            ConfigurationError, "Dummy", ".dum", folder=tmp_path,
        )  # fmt: skip
    check_refused(
        lambda: inrstore.export(tmp_path / "s.zarr", tmp_path / "o.dum"), StoreError, "kind: 'Dummy'", folder=tmp_path
    )


# ---- files that change while they are read


class Restless(Folder):
    """A folder in which something happens when a file is opened."""

    def __init__(self, path, at, what):
        super().__init__(path)
        self.event, self.what = at, what

    def open(self, key):
        file = super().open(key)
        if key == self.event:
            self.what(self.path)
        return file


def written_anew(folder):
    """Write the image in place."""
    write_nifti(folder / "a.nii", random_image((5, 4, 3), seed=9))


def replaced(folder):
    """Put another file under the name, of the same size and time."""
    before = (folder / "a.nii").stat()
    other = write_nifti(folder / "b.nii", random_image((5, 4, 3), seed=9))
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(folder / "a.nii")


def removed(folder):
    (folder / "a.nii").unlink()


@pytest.mark.parametrize("what", [written_anew, replaced, removed])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, what):
    path = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    with pytest.raises(SourceError, match="was changed while it was read") as caught:
        read_image(Restless(tmp_path, "a.nii", what), "a.nii")
    assert str(path) in str(caught.value)


def test_a_header_that_changes_before_its_voxels_are_read_is_refused(tmp_path):
    nib.Nifti1Pair(random_image((5, 4, 3)), np.eye(4)).to_filename(tmp_path / "a.hdr")
    place = Restless(tmp_path, "a.img", lambda folder: (folder / "a.hdr").write_bytes(bytes(348)))
    with pytest.raises(SourceError, match=r"a\.hdr: was changed while it was read"):
        read_image(place, "a.img")


def test_a_damaged_file_that_does_not_change_says_what_is_damaged(tmp_path):
    (tmp_path / "a.nii").write_bytes(bytes(400))
    with pytest.raises(SourceError, match="not a NIfTI file"):
        read_source(tmp_path / "a.nii")


def test_a_header_of_others_among_scans_of_the_same_ending_is_kept(tmp_path):
    (tmp_path / "a.hdr").write_bytes(dicom_image(2, 2, 1, bytes(8)))
    (tmp_path / "b.hdr").write_text("ENVI")
    write_nifti(tmp_path / "c.nii", random_image((3, 3, 3)))
    assert _not_dicom(Folder(tmp_path), "") == ["b.hdr"]


def test_images_of_different_formats_may_have_one_name(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    image = nib.Nifti1Image(random_image((5, 4, 3)), np.eye(4))
    image.to_filename(source / "brain.nii.gz")
    nib.freesurfer.MGHImage(random_image((5, 4, 3)), np.eye(4)).to_filename(source / "brain.mgz")
    assert inrstore.convert(source, tmp_path / "archive", lossless=True).complete
    assert sorted(path.name for path in (tmp_path / "archive").glob("*.ozx")) == ["brain.mgz.ozx", "brain.ozx"]
    inrstore.export(tmp_path / "archive", tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == ["brain.mgz", "brain.nii.gz"]


def test_a_file_beside_its_packed_form_is_an_error_that_says_how_to_choose(tmp_path):
    # They may be two images, and one of them would be lost.
    source = tmp_path / "in"
    source.mkdir()
    for name, seed in (("a.nii", 0), ("a.nii.gz", 1)):
        nib.Nifti1Image(random_image((5, 4, 3), seed=seed), np.eye(4)).to_filename(source / name)
    report = inrstore.convert(source, tmp_path / "archive", lossless=True)
    assert not report.complete
    texts = sorted(str(failure) for failure in report.failures)
    assert len(texts) == 2
    for text in texts:
        assert "a.nii" in text and "a.nii.gz" in text and "exclude one of them" in text
    report = inrstore.convert(source, tmp_path / "other", lossless=True, exclude=["a.nii"])
    assert report.complete
    assert inrstore.verify(tmp_path / "other")
