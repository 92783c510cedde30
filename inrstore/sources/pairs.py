"""What the names of image files say: which file is an image, what its store is called, which files belong together."""

from __future__ import annotations

from inrstore.files import Place

_SINGLE = (".nii.gz", ".nii")
_HEADERS = (".hdr.gz", ".hdr")
_VOXELS = (".img.gz", ".img")


def _suffix(key: str, suffixes: tuple[str, ...]) -> str:
    """Return the suffix of a name as it is written there, or "" if it has none of these."""
    found = next((s for s in suffixes if key.lower().endswith(s)), "")
    return key[len(key) - len(found) :]


def is_image(key: str) -> bool:
    """Return whether a file is an image by its name: .nii, .nii.gz, or the header of a pair, .hdr, .hdr.gz.

    The other file of a pair, .img, is not: `header_of` tells what it belongs to.
    """
    return bool(_suffix(key, _SINGLE + _HEADERS))


def is_header(key: str) -> bool:
    """Return whether a file is the header of a pair by its name."""
    return bool(_suffix(key, _HEADERS))


def stem(key: str) -> str:
    """Return a key without the suffix of an image."""
    return key.removesuffix(_suffix(key, _SINGLE + _HEADERS + _VOXELS) or "\0")


def store_name(key: str) -> str:
    """Return the key of the store that an image becomes: a/x.nii.gz -> a/x.zarr."""
    return stem(key) + ".zarr"


def header_of(place: Place, key: str) -> str | None:
    """Return the header that a .img or .img.gz file belongs to, or None if there is none or it is another file."""
    return _partner(place, key, _VOXELS, _HEADERS)


def image_files(place: Place, key: str) -> tuple[str, ...]:
    """Return the files of an image: one, or the two of a pair, the header first.

    Parameters
    ----------
    place : Place
        Where it is.
    key : str
        The image; of a pair either file.
    """
    header = header_of(place, key)
    if header is not None:
        return header, key
    voxels = _partner(place, key, _HEADERS, _VOXELS)
    return (key,) if voxels is None else (key, voxels)


def _partner(place: Place, key: str, own: tuple[str, ...], other: tuple[str, ...]) -> str | None:
    suffix = _suffix(key, own)
    if not suffix:
        return None
    # Packed goes with packed first, and capitals with capitals.
    order = other if suffix.lower().endswith(".gz") else other[::-1]
    for one in order:
        candidate = stem(key) + (one.upper() if suffix.isupper() else one)
        if place.size(candidate) is not None:
            return candidate
    return None
