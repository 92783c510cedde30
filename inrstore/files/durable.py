"""What changes a disk: every operation that has to survive a crash or a full disk is one of these functions.

A program that dies between any two of them leaves a state from which the same command goes on; the crash
tests stop the process before and after each of them in turn, so nothing else may write to a destination.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

TEMPORARY = ".tmp~"
"""End of the names of files that are being written."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it; the entries are on the disk when it returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, have the disk hold it, then give it its name."""
    write_blocks(path, (data,))


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file that comes in blocks, as `write_file` does; if they end in an error nothing is left.

    Of two that write the same file at once, the first to begin fails; the file of the second is whole.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + TEMPORARY)
    handle = _create(temporary)
    try:
        try:
            for block in blocks:
                _write(handle, block)
            os.fsync(handle)
            if not _same(handle, temporary):
                raise OSError(errno.EBUSY, "another process writes the same file", str(path))
        except Exception:
            if _same(handle, temporary):
                remove(temporary)
            raise
    finally:
        os.close(handle)
    rename(temporary, path)


def _create(path: Path) -> int:
    """Make a new file; one that is there is of a writer that died, or that will find it gone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags, 0o644)
        except FileExistsError:
            remove(path)


def _same(handle: int, path: Path) -> bool:
    """Return whether a path still names an open file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def rename(path: Path, to: Path) -> None:
    """Give a file or folder its name; the new entry is on the disk when it returns."""
    os.replace(path, to)
    sync(to.parent)


def append(handle: int, data: bytes) -> None:
    """Append to an open file, and wait until the disk has it."""
    _write(handle, data)
    os.fsync(handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def remove(path: Path) -> None:
    """Remove a file; it is no error if there is none."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; it is no error if there is none.

    A folder in which someone puts something meanwhile is theirs, and stays.
    """
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY or error.filename != os.fspath(path):
            raise


def sync_folders(path: Path) -> None:
    """Have the disk hold the entries of a folder and of all folders in it."""
    for folder, _, _ in os.walk(path):
        sync(Path(folder))


def sync(path: Path) -> None:
    """Have the disk hold a file or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)
