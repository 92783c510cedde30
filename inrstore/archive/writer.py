"""A store that is not visible under its name before it is complete and on the disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from inrstore.errors import DestinationExistsError, StoreError


def refuse_existing(destination: Path) -> None:
    """Raise DestinationExistsError if anything, even a dangling link, has this name."""
    if os.path.lexists(destination):
        raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")


def partial_path(destination: Path) -> Path:
    """Return a new name beside `destination`, on the same file system, for what is not complete yet."""
    return destination.with_name(f"{destination.name}.partial-{secrets.token_hex(4)}")


def sync(path: Path) -> None:
    """Have the disk hold a file or the entries of a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a directory; the rename is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def explain(path: Path, error: OSError) -> StoreError:
    """Return the error for a write that failed: "disk full" and the like, with the path."""
    return StoreError(f"{path}: cannot be written: {error.strerror or error}")


class PartialStore:
    """A directory that becomes `destination` on `commit`, and vanishes otherwise.

    Use it as a context manager: leaving it without a commit, for whatever reason, removes everything.

    Parameters
    ----------
    destination : Path
        Where the store is to be; must not exist.

    Raises
    ------
    DestinationExistsError
        If something is there.
    StoreError
        If a file cannot be written, a full disk included.
    """

    def __init__(self, destination: Path) -> None:
        refuse_existing(destination)
        self.destination = destination
        self.path = partial_path(destination)
        self._directories: set[Path] = set()
        try:
            self.path.mkdir()
        except OSError as error:
            raise explain(destination, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def write(self, key: str, data: bytes) -> None:
        """Write a file at `key`, a path inside the store, down to the disk."""
        path = self.path / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                put(file, data)
        except OSError as error:
            raise explain(self.destination / key, error) from error
        while path != self.path:
            path = path.parent
            self._directories.add(path)

    def read(self, key: str) -> bytes:
        """Return the file at `key` as it was written."""
        try:
            return (self.path / key).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.destination / key}: cannot be read back: {error}") from error

    def commit(self) -> None:
        """Give the store its name; from here on it is complete, also after a power failure."""
        try:
            for directory in self._directories | {self.path}:
                sync(directory)
            # rename() would replace an empty directory without a word.
            refuse_existing(self.destination)
            self.path.rename(self.destination)
            sync(self.destination.parent)
        except OSError as error:
            raise explain(self.destination, error) from error


def put(file: IO[bytes], data: bytes) -> None:
    """Write all of `data` and wait until the disk has it."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


class PartialFile:
    """A file that gets its name when it is complete; the counterpart of `PartialStore` for exports.

    Parameters
    ----------
    destination : Path
        Where the file is to be; must not exist.
    """

    def __init__(self, destination: Path) -> None:
        refuse_existing(destination)
        self.destination = destination
        self.path = partial_path(destination)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def commit(self) -> None:
        """Give the file its name; an existing one is never replaced."""
        try:
            sync(self.path)
            refuse_existing(self.destination)
            self.path.rename(self.destination)
            sync(self.destination.parent)
        except OSError as error:
            raise explain(self.destination, error) from error
