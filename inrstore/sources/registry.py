"""The formats of images that are read and written: the only list of them, and all that their names tell."""

from __future__ import annotations

from inrstore.errors import SourceError
from inrstore.files import Place
from inrstore.sources import mgh, nifti, nrrd
from inrstore.sources.format import Format
from inrstore.sources.streams import Digest, opened

FORMATS: tuple[Format, ...] = (nifti.SINGLE, nifti.PAIR, mgh.MGH, nrrd.SINGLE, nrrd.DETACHED)
"""Of two endings of a name the longer counts; what a name does not tell, the first that knows the content."""

SNIFFED = 1024
"""Bytes by which a format is known from its content."""


def format_of(name: str) -> Format | None:
    """Return the format that a file is of by its name, or None if its ending is none of an image."""
    found = max(FORMATS, key=lambda one: len(one.suffix(name)))
    return found if found.suffix(name) else None


def format_of_kind(kind: str) -> Format | None:
    """Return the format of an image by `Source.kind`, or None if it is not known."""
    return next((one for one in FORMATS if kind in one.kinds), None)


def format_of_content(place: Place, key: str) -> Format:
    """Return the format of a file whose name does not tell.

    Raises
    ------
    SourceError
        If it is none of these, or cannot be read.
    """
    with opened(place, key, Digest()) as stream:
        start = stream.start(SNIFFED)
        found = next((one for one in FORMATS if one.sniff(start)), None)
        if found is None:
            known = ", ".join(kind for one in FORMATS for kind in one.kinds)
            raise SourceError(f"{stream.label}: neither its name nor its content is that of an image: {known}")
        return found


def ending_of(name: str) -> str:
    """Return the ending that makes a file an image or a part of one, as it is written; "" for other files."""
    found = format_of(name)
    return "" if found is None else found.suffix(name)


def stem(key: str) -> str:
    """Return a key without the ending of an image."""
    return key[: len(key) - len(ending_of(key))]


def store_name(key: str, ending: str = ".zarr") -> str:
    """Return the key of the store that an image becomes: a/x.nii.gz -> a/x.zarr, a/x.mgz -> a/x.mgz.zarr."""
    found = format_of(key)
    return (key if found is not None and found.named else stem(key)) + ending


def is_image(key: str) -> bool:
    """Return whether an image may be known by this file, by its name: .nii, or .hdr, but not the .img beside it."""
    found = format_of(key)
    return found is not None and found.names(key)[0] == key


def file_names(name: str) -> tuple[str, ...]:
    """Return what the files of an image are called, given the name of one of them, the first one first."""
    found = format_of(name)
    return (name,) if found is None else found.names(name)


def image_of(place: Place, key: str) -> str | None:
    """Return the file by which the image is known that a file belongs to.

    Parameters
    ----------
    place, key : Place, str
        The file. An image of one file is not looked for.

    Returns
    -------
    str or None
        None for a file that is no image by its name, and for a part of one of which another file is missing.
    """
    found = format_of(key)
    return None if found is None else found.image_of(place, key)


def image_files(place: Place, key: str) -> tuple[str, ...]:
    """Return the files of an image that are there, the one by which it is known first.

    Parameters
    ----------
    place, key : Place, str
        The image: any of its files.
    """
    key = image_of(place, key) or key
    found = format_of(key) if is_image(key) else None
    return (key,) if found is None else found.files(place, key)
