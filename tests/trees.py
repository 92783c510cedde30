"""Folders of small images for the tests of jobs."""

from __future__ import annotations

from pathlib import Path

from common import random_image, write_nifti

from inrstore.archive.outcomes import Outcome
from inrstore.archive.record import Record
from inrstore.files.local import Folder


def images(folder: Path, count: int, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    """Make a folder of images sub-0_bold.nii.gz, sub-1_bold.nii.gz, ..."""
    folder.mkdir()
    for number in range(count):
        write_nifti(folder / f"sub-{number}_bold.nii.gz", random_image(shape, seed=number))
    return folder


def damaged(folder: Path) -> Path:
    """Make a folder of eight images of which two, 2 and 5, are damaged."""
    images(folder, 8)
    (folder / "sub-2_bold.nii.gz").write_bytes((folder / "sub-2_bold.nii.gz").read_bytes()[:-9])
    (folder / "sub-5_bold.nii.gz").write_bytes(b"no image")
    return folder


def by_key(archive: Path) -> dict[str, Outcome]:
    """Return what an archive's journal knows of each file of the source."""
    return {outcome.key: outcome for outcome in Record(Folder(archive)).outcomes()}
