"""Archives and sources to order for the tests of whole archives."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt
from common import AFFINE, random_image, write_nifti

import inrstore


def make_archive(source: Path, destination: Path | str, **options: Any) -> Any:
    """Convert a source to an archive, lossless if nothing else is asked for; nothing may fail."""
    if not options.keys() & {"psnr", "rmse", "max_error"}:
        options["lossless"] = True
    report = inrstore.convert(source, destination, preset="fast", **options)
    assert report.complete, report.failures
    return destination


def write_pair(path: Path, values: npt.NDArray[Any]) -> Path:
    """Write a NIfTI pair, given the path of its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Pair(values, AFFINE, dtype=values.dtype).to_filename(path)
    return path


def unpacked(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, images and zips without their compression."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            out[path.relative_to(folder).as_posix()] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return out


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def small_tree(folder: Path) -> Path:
    """Make a tree with two images, one of them uncompressed, a pair, and files of other kinds."""
    write_tree(folder, {"a/notes.txt": b"two lines\nof text\n", "empty.dat": b"", "b/dwi.json": b'{"EchoTime": 0.1}'})
    (folder / "b").mkdir(exist_ok=True)
    write_nifti(folder / "a/one.nii.gz", random_image((6, 5, 4)), extension=b"kept, too")
    write_nifti(folder / "b/dwi.nii", random_image((5, 4, 3, 2), seed=1), order=">")
    write_pair(folder / "c/pair.hdr", random_image((4, 3, 2), "uint8", seed=4))
    (folder / "b/dwi.bval").write_text("0 1000\n")
    (folder / "b/dwi.bvec").write_text("0 1\n0 0\n0 0\n")
    return folder


def bids_dataset(folder: Path) -> Path:
    """Make a small BIDS dataset."""
    description = {"Name": "Small", "BIDSVersion": "1.10.0", "License": "CC0", "DatasetDOI": "doi:10.0000/small"}
    write_tree(folder, {
        "dataset_description.json": json.dumps(description).encode(), "README.md": b"A dataset of one subject.\n",
        "participants.tsv": b"participant_id\nsub-01\n",
        "sub-01/anat/sub-01_T1w.json": b'{"Manufacturer": "none"}',
        "sub-01/dwi/sub-01_dwi.bval": b"0 1000 1000\n", "sub-01/dwi/sub-01_dwi.bvec": b"0 1 0\n0 0 1\n0 0 0\n",
        "sub-01/dwi/sub-01_dwi.json": b"{}",
    })  # fmt: skip
    write_nifti(folder / "sub-01/anat/sub-01_T1w.nii.gz", random_image((6, 5, 4)))
    write_nifti(folder / "sub-01/dwi/sub-01_dwi.nii.gz", random_image((5, 4, 3, 3)))
    return folder


def bulk_zip(path: Path, scratch: Path) -> Path:
    """Make a zip like those of the UK Biobank: folders, an image, a pair, text, dates, attributes and comments."""
    scratch.mkdir(exist_ok=True)
    image = write_nifti(scratch / "data.nii.gz", random_image((5, 4, 3, 2), seed=2)).read_bytes()
    mask = write_nifti(scratch / "mask.nii.gz", random_image((5, 4, 3), "uint8", seed=3)).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        for number, (name, data) in enumerate(
            [("dMRI/", b""), ("dMRI/dMRI/data.nii.gz", image), ("dMRI/dMRI/bvals", b"0 1000\n"),
             ("dMRI/dMRI/bvecs", b"0 1\n0 0\n0 0\n"), ("dMRI/dMRI/nodif_brain_mask.nii.gz", mask),
             ("größe.txt", b"text " * 200), ("dMRI/raw/empty", b"")]
        ):  # fmt: skip
            info = zipfile.ZipInfo(name, (2019, 5, 1 + number, 12, 30, 2 * number))
            info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else (0o100600 + number) << 16
            info.compress_type = zipfile.ZIP_STORED if name.endswith(("/", ".gz")) else zipfile.ZIP_DEFLATED
            info.comment = b"checked" if number == 2 else b""
            info.extra = b"\x55\x54\x05\x00\x03\x00\x01\x02\x03" if number == 3 else b""
            packed.writestr(info, data)
        packed.comment = b"made for a test"
    return path
