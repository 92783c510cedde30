"""Where files lie: a folder, a zip, a bucket; one set of verbs for all. Nothing here knows of images."""

from __future__ import annotations

import os
from pathlib import Path

from inrstore.files.bucket import Bucket
from inrstore.files.local import Folder
from inrstore.files.place import Entry, Place, WritablePlace, blocks, read, read_text

__all__ = ["Entry", "Place", "WritablePlace", "blocks", "is_url", "place", "read", "read_text", "split"]


def place(where: str | os.PathLike[str]) -> WritablePlace:
    """Return the folder or the bucket prefix that a path or URL names; it need not exist.

    Parameters
    ----------
    where : path-like or str
        A path, or a URL: "s3://bucket/prefix" and the like (extra `remote`).

    Raises
    ------
    ConfigurationError
        For a URL that cannot be understood.
    MissingDependencyError
        For a URL without the packages of the extra `remote`.
    """
    return Bucket(str(where)) if is_url(where) else Folder(Path(where))


def split(where: str | os.PathLike[str]) -> tuple[WritablePlace, str]:
    """Return the place and the key of one file, given by its path or URL."""
    if is_url(where):
        root, _, key = str(where).rstrip("/").rpartition("/")
        return place(root), key
    path = Path(where)
    return place(path.parent), path.name


def is_url(where: str | os.PathLike[str]) -> bool:
    """Return whether this is a URL rather than a path."""
    return isinstance(where, str) and "://" in where
