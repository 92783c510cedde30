"""Where files lie: a folder, a zip, a bucket; one set of verbs for all. Nothing here knows of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from inrstore.errors import FileTooLargeError, SourceError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file of a place.

    Parameters
    ----------
    key : str
        Its path inside the place, with slashes.
    size : int
        Bytes, 0 if there is a problem.
    problem : str
        Why it cannot be read ("a link to a folder", "a broken link"); empty when it can.
    """

    key: str
    size: int
    problem: str = ""


class Place(Protocol):
    """Files under one root, to be read.

    Attributes
    ----------
    name : str
        The root, for people and for opening it again: a path or a URL.
    """

    name: str

    def label(self, key: str) -> str:
        """Return how messages name a file of this place."""

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading from its start to its end; seeking is not promised.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it cannot be read.
        """

    def size(self, key: str) -> int | None:
        """Return the bytes of a file, or None if there is no such file."""

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below `prefix` (a folder's key or ""), in the order of its name, folder by folder."""


class WritablePlace(Place, Protocol):
    """A place that takes files. A write is whole or not at all, and on the disk when it returns."""

    def write(self, key: str, data: bytes) -> None:
        """Write a file; one that is there is replaced."""

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write a file that comes in blocks and need not fit into memory; nothing if they end in an error."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless there is one; return whether it was written. Of several at once, one wins."""

    def remove(self, key: str) -> None:
        """Remove a file; it is no error if there is none."""


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
    if is_url(where):
        from inrstore.files.remote import ObjectPlace

        return ObjectPlace(str(where))
    from inrstore.files.local import Folder

    return Folder(Path(where))


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


def read(where: Place, key: str, limit: int) -> bytes:
    """Return a whole file that may not be larger than `limit` bytes.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileTooLargeError
        If it is larger.
    """
    data = bytearray()
    with where.open(key) as file:
        # In blocks: some files allocate what they are asked for, not what they hold.
        while block := file.read(min(_BLOCK, limit + 1 - len(data))):
            data += block
    if len(data) > limit:
        raise FileTooLargeError(f"{where.label(key)}: larger than {limit} bytes")
    return bytes(data)


def read_text(where: Place, key: str, limit: int) -> str:
    """Return a text file; one that cannot be read is a SourceError that names it."""
    try:
        return read(where, key, limit).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, FileTooLargeError) as error:
        raise SourceError(f"{where.label(key)}: cannot be read as text: {error}") from error
