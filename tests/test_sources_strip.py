"""What people wrote into a file can be left out: it is nowhere in the store, and the image is the same."""

from __future__ import annotations

import zipfile

import nibabel as nib
import numpy as np
import pytest
from common import AFFINE, random_image
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app
from inrstore.errors import SourceError

SECRET = b"JANE DOE 1970"


def named(path, kind=nib.Nifti1Image):
    """Write an image with a name in its header and its extension."""
    image = kind(random_image((6, 5, 4)), AFFINE, dtype="int16")
    image.header["descrip"] = SECRET
    image.header["aux_file"] = SECRET
    image.header["intent_name"] = SECRET
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET * 3))
    image.to_filename(path)
    return path


@pytest.mark.parametrize(
    "ending, kind", [("nii", nib.Nifti1Image), ("nii.gz", nib.Nifti2Image), ("hdr", nib.Nifti1Pair)]
)
def test_free_text_and_extensions_are_nowhere_in_the_store(tmp_path, ending, kind):
    source = named(tmp_path / f"a.{ending}", kind)
    report = inrstore.convert(source, tmp_path / "a.zarr", lossless=True, strip=True)
    assert set(report.stripped) == {"descrip", "aux_file", "intent_name", "extensions"}
    inrstore.verify(tmp_path / "a.zarr", source)
    inrstore.export(tmp_path / "a.zarr", tmp_path / f"back.{ending}")
    back, was = nib.load(tmp_path / f"back.{ending}"), nib.load(source)
    assert np.array_equal(np.asanyarray(back.dataobj), np.asanyarray(was.dataobj))
    assert np.array_equal(back.affine, was.affine) and not back.header.extensions
    for path in tmp_path.glob("back*"):
        data = path.read_bytes() if path.suffix != ".gz" else __import__("gzip").decompress(path.read_bytes())
        assert SECRET not in data
    inrstore.verify(tmp_path / "a.zarr", tmp_path / f"back.{ending}")


def test_an_archive_says_of_each_image_what_was_taken_out(tmp_path):
    (tmp_path / "in").mkdir()
    named(tmp_path / "in/a.nii")
    with zipfile.ZipFile(tmp_path / "in/b.zip", "w") as out:
        out.write(named(tmp_path / "b.nii"), "b.nii")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--lossless", "--strip"])
    assert result.exit_code == 0, result.output
    journal = (tmp_path / "out/.inrstore/journal.jsonl").read_text()
    assert journal.count("taken out: ") == 2 and "extensions" in journal
    inrstore.verify(tmp_path / "out", tmp_path / "in")
    inrstore.export(tmp_path / "out", tmp_path / "back")
    assert SECRET not in (tmp_path / "back/a.nii").read_bytes()
    assert inrstore.update(tmp_path / "in", tmp_path / "out").resumed >= 2


def test_what_cannot_be_stripped_is_not_kept_as_it_is(tmp_path):
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.complex64), AFFINE), tmp_path / "in/c.nii")
    report = inrstore.convert(tmp_path / "in", tmp_path / "out", strip=True)
    assert not report.complete and not (tmp_path / "out/c.nii").exists()
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n# Jane Doe\n\n"
    (tmp_path / "n.nrrd").write_bytes(header.encode() + bytes(range(8)))
    with pytest.raises(SourceError, match="cannot be taken out"):
        inrstore.convert(tmp_path / "n.nrrd", tmp_path / "n.ozx", strip=True)


def test_tags_of_mgh_are_taken_out(tmp_path):
    values = random_image((4, 3, 2))
    nib.MGHImage(values, AFFINE).to_filename(tmp_path / "a.mgh")
    with (tmp_path / "a.mgh").open("ab") as file:
        file.write(b"\0" * 8 + SECRET)
    report = inrstore.convert(tmp_path / "a.mgh", tmp_path / "a.ozx", lossless=True, strip=True)
    assert report.stripped == ("tags",)
    inrstore.export(tmp_path / "a.ozx", tmp_path / "b.mgh")
    assert SECRET not in (tmp_path / "b.mgh").read_bytes()
    assert np.array_equal(inrstore.open(tmp_path / "a.ozx").image.values.T, values)
