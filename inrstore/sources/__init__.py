"""Where images come from: whatever the format, `read_source` and `read_image` give the same `Source`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from inrstore import files
from inrstore.errors import SourceError
from inrstore.files.local import Folder
from inrstore.sources.dicom import Converted
from inrstore.sources.gradients import read_gradients, read_sidecars
from inrstore.sources.registry import (
    file_names,
    format_of,
    format_of_content,
    image_files,
    image_of,
    is_image,
    store_name,
)
from inrstore.sources.source import Source

__all__ = ["Source", "file_names", "image_files", "image_of", "is_image", "read_image", "read_source", "store_name"]


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read an image of any known format, given by a path or a URL.

    Parameters
    ----------
    path : path-like or str
        The file; it is only read.

    Raises
    ------
    SourceError
        Naming the file and what is wrong with it.
    MissingDependencyError
        When the package that reads this kind is not installed.
    """
    return read_image(*files.split(path))


def read_image(place: files.Place, key: str, *, sidecars: bool = False) -> Source:
    """Read an image of any known format from a place, with its gradients; each of its files is read once.

    Parameters
    ----------
    place : Place
        A folder, a zip, a bucket.
    key : str
        The image in it: any of its files. If the name says nothing, the format is seen from the content.
    sidecars : bool
        Whether its sidecars come with it as they are. An archive has them as files of their own.

    Raises
    ------
    UnsupportedImageError
        For an intact image of a kind that a store cannot hold.
    SourceError
        Naming the file and what is wrong with it; also if a file of a folder changes while it is read.
    MissingDependencyError
        When the package that reads this kind is not installed.
    """
    try:
        key = image_of(place, key) or key
        found = format_of(key) if is_image(key) else None
        found = found or format_of_content(place, key)
        parts = found.files(place, key)
        with _unchanged(place, parts):
            source = found.read(place, parts)
        volumes = source.voxels.shape[0] if source.voxels.ndim == 4 and source.spatial else None
        bval, bvec = read_gradients(place, key, volumes)
        beside = read_sidecars(place, key, volumes) if sidecars else {}
    except OSError as error:  # of a look at what lies beside it
        raise SourceError(f"{place.label(key)}: cannot be read: {error.strerror or error}") from error
    source = replace(source, bval=bval, bvec=bvec, sidecars=beside)
    return _as_made(source, place, key) if isinstance(place, Converted) else source


def _as_made(source: Source, made: Converted, key: str) -> Source:
    """Return an image with what is to be said of its making by dcm2niix."""
    origin = made.derived(key)
    told = (f"derived: interpolated from {origin} by dcm2niix, no copy of what the scanner gave",) if origin else ()
    return replace(source, warnings=(*told, *(f"dcm2niix: {warning}" for warning in made.warnings)), derived=origin)


@contextmanager
def _unchanged(place: files.Place, keys: tuple[str, ...]) -> Iterator[None]:
    """Raise SourceError if a file is written or replaced meanwhile: what was read is neither the old nor the new."""
    before = _states(place, keys)
    try:
        yield
    finally:  # what was read in between may be refused for another reason
        after = _states(place, keys)
        for key in keys:
            if before.get(key) != after.get(key):
                raise SourceError(f"{place.label(key)}: was changed while it was read; convert it when it is at rest")


def _states(place: files.Place, keys: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Return what tells a file of a folder from what it becomes. Buckets see to it themselves; zips are held open."""
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(place, Folder):
        for key in keys:
            with suppress(OSError):
                info = place.at(key).stat()
                found[key] = info.st_size, info.st_mtime_ns, info.st_dev, info.st_ino
    return found
