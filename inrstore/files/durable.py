"""What changes a disk: every operation that has to survive a crash or a full disk is one of these functions.

A program that dies between any two of them leaves a state from which the same command goes on; the crash
tests stop the process before and after each of them in turn, so nothing else may write to a destination.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PREFIX = ".inrstore-"
"""Begin of the names of what is being written; the rest is random, so that nobody else has it."""


def temporary(folder: Path) -> Path:
    """Return a name in a folder that nothing has."""
    return folder / f"{PREFIX}{secrets.token_hex(8)}"


def make_folder(path: Path) -> None:
    """Make a folder and those above it; the entries are on the disk when it returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        with suppress(FileNotFoundError):
            if not path.is_dir() and not stat.S_ISDIR(path.lstat().st_mode):
                raise
        make_folder(path)  # another made it just now, and may have removed it again
    else:
        sync(path.parent)


def write_file(path: Path, data: bytes, work: Path | None = None) -> None:
    """Write a file under a random name, have the disk hold it, then give it its name; one that is there is replaced."""
    write_blocks(path, (data,), work)


def write_blocks(path: Path, blocks: Iterable[bytes], work: Path | None = None) -> None:
    """Write a file that comes in blocks, as `write_file` does; if they end in an error nothing is left.

    Parameters
    ----------
    path : Path
    blocks : iterable of bytes
    work : Path, optional
        Folder of the same file system for what is unfinished; that of `path` otherwise.
    """
    make_folder(path.parent)
    rename(write_new(work or path.parent, blocks), path)


def write_new(folder: Path, blocks: Iterable[bytes]) -> Path:
    """Write blocks to a new file of a random name, have the disk hold it; if they end in an error nothing is left."""
    make_folder(folder)
    path = temporary(folder)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for block in blocks:
            _write(handle, block)
        os.fsync(handle)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(handle)
    return path


def write_first(path: Path, data: bytes) -> None:
    """Write a file that nothing may have the name of, and have the disk hold it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        _write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def open_own(path: Path) -> int:
    """Open a file that this program keeps, for reading and writing; it is made if there is none.

    Raises
    ------
    OSError
        Also if the name is that of a link, which would lead to a file of somebody else's, or of a pipe.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def give_name(made: Path, path: Path) -> None:
    """Give a file that this process made its name, which nothing may have.

    Raises
    ------
    FileExistsError
        If something has it. The file is still there then.
    """
    make_folder(path.parent)
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: between the look and the rename lies a moment
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(made, path)
    else:
        made.unlink()
    sync(path.parent)


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
