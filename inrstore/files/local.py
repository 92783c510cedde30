"""A folder of this machine as a `WritablePlace`."""

from __future__ import annotations

import errno
import io
import os
import stat
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from inrstore.errors import ConfigurationError
from inrstore.files import durable, journal
from inrstore.files.closing import Closing
from inrstore.files.journal import Journal
from inrstore.files.lock import Lock
from inrstore.files.place import Entry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHANGED = "was changed while it was read"

_State: TypeAlias = tuple[int, int, int, int]


class Folder:
    """A folder.

    Parameters
    ----------
    path : Path
        It need not exist until something is written.
    work : str
        Key of a folder for files that are being written; empty for the folder of each file.
    """

    def __init__(self, path: Path, work: str = "") -> None:
        self.path = path
        self.work = path / work if work else None
        self.name = str(path)

    def label(self, key: str) -> str:
        """Return the path of a file."""
        return str(self.path / key)

    def at(self, key: str) -> Path:
        """Return the path of a file; a key cannot lead out of the folder.

        Raises
        ------
        ConfigurationError
            For a key that is absolute or has `..` in it.
        """
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or "\0" in key:
            raise ConfigurationError(f"{key!r} is not a path inside {self.path}")
        return self.path.joinpath(*parts)

    def open(self, key: str) -> BinaryIO:
        """Open a regular file; a pipe or a device is refused, it might never end.

        Who reads to the end of a file that is written meanwhile gets an OSError (ESTALE) there.
        """
        return io.BufferedReader(SteadyFile(self.at(key)))

    def size(self, key: str) -> int | None:
        """Return the bytes of a file, or None if there is no such file."""
        path = self.at(key)
        try:
            info = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def stamp(self, key: str) -> str:
        """Return size and time of a file, as nanoseconds; "" if there is none."""
        try:
            info = self.at(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return f"{info.st_size}-{info.st_mtime_ns}"

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below `prefix`. Links to files are followed, links to folders are a problem."""
        top = self.at(prefix) if prefix else self.path
        yield from self._walk(top, prefix)

    def _walk(self, folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return  # as of a prefix of a bucket under which nothing is
        except OSError as error:
            yield Entry(prefix, 0, f"cannot be listed: {error.strerror or error}")
            return
        for entry in entries:
            key = f"{prefix}/{entry.name}" if prefix else entry.name
            try:
                key.encode()
            except UnicodeEncodeError:
                yield Entry(key.encode(errors="backslashreplace").decode(), 0, "its name is not UTF-8")
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), key)
            else:
                yield self._entry(entry, key)

    @staticmethod
    def _entry(entry: os.DirEntry[str], key: str) -> Entry:
        try:
            info = entry.stat()
        except OSError as error:
            return Entry(key, 0, f"a broken link: {error.strerror or error}")
        if stat.S_ISDIR(info.st_mode):
            return Entry(key, 0, "a link to a folder; links could lead in circles and are not followed")
        if not stat.S_ISREG(info.st_mode):
            return Entry(key, 0, "not a regular file")
        return Entry(key, info.st_size)

    def write(self, key: str, data: bytes) -> None:
        """Write a file through a temporary name."""
        durable.write_file(self.at(key), data, self.work)

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write a file that comes in blocks, through a temporary name."""
        durable.write_blocks(self.at(key), blocks, self.work)

    def create(self, key: str, blocks: Iterable[bytes]) -> bool:
        """Write a file unless there is one; of several makers one gets the name."""
        path = self.at(key)
        made = durable.write_new(self.work or path.parent, blocks)
        try:
            durable.give_name(made, path)
        except FileExistsError:
            return False
        finally:
            durable.remove(made)
        return True

    def random(self, key: str) -> LocalBytes:
        """Open a regular file for reading anywhere in it."""
        return LocalBytes(self.open(key))

    def remove(self, key: str) -> None:
        """Remove a file; it is no error if there is none."""
        durable.remove(self.at(key))

    def remove_folder(self, key: str) -> None:
        """Remove a folder with all that is in it; it loses its name in one step."""
        away = durable.temporary(self.work or self.path)
        durable.make_folder(away.parent)
        durable.rename(self.at(key), away)
        durable.remove_folder(away)

    def remove_empty_above(self, key: str) -> None:
        """Remove the folders in which a file lay, as far as nothing is in them any more."""
        folder = self.at(key).parent
        while folder != self.path and self.path in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def clear(self, key: str) -> None:
        """Remove from a folder what has a name of those that this program makes up, and the folder if that is all.

        What a link leads to is somebody's.
        """
        folder = self.at(key)
        if folder.is_symlink():
            return
        for path in list(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith(durable.PREFIX):
                durable.remove_folder(path) if path.is_dir() and not path.is_symlink() else durable.remove(path)
        with suppress(OSError):
            folder.rmdir()

    def lock(self, key: str) -> Lock:
        """Lock the folder, as long as this process lives."""
        return Lock(self.at(key), self.name)

    def journal(self, key: str) -> Journal:
        """Open a journal for appending."""
        return Journal(self.at(key))

    def records(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a journal, one at a time."""
        return journal.records(self.at(key))


class SteadyFile(io.FileIO):
    """A regular file, read as it was when it was opened: at its end it is an error if it was written meanwhile.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    size : int
        Bytes of the file when it was opened.

    Raises
    ------
    OSError
        EINVAL for what is no regular file; it is not waited for. ESTALE at the end of one that was changed.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, "r", opener=_open_regular)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        self._path = path
        self._before = _state(os.fstat(self.fileno()))
        self.size = self._before[2]

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read into a buffer."""
        count = super().readinto(buffer)
        if not count and memoryview(buffer).nbytes:
            self._check()
        return count

    def readall(self) -> bytes:
        """Read what is left."""
        data = super().readall()
        self._check()
        return data

    def _check(self) -> None:
        if _state(os.fstat(self.fileno())) != self._before:
            raise OSError(errno.ESTALE, CHANGED, str(self._path))


def _open_regular(path: str, flags: int) -> int:
    _check_regular(os.stat(path))  # before: a device can do anything when it is opened
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # nor is a pipe waited for that came since
    try:
        _check_regular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_regular(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _state(info: os.stat_result) -> _State:
    """Return what tells one state of a file from the next. Not the time of its entry, which a link changes."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _state_at(path: str | os.PathLike[str]) -> _State | None:
    try:
        return _state(os.stat(path))
    except OSError:
        return None


class LocalBytes(Closing):
    """A file of this machine, read anywhere.

    Parameters
    ----------
    file : BinaryIO
        An open file; it is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        with file:
            self._handle = os.dup(file.fileno())
            # A temporary file has a number for a name.
            self._path = name if isinstance(name := getattr(file, "name", None), str | os.PathLike) else None
        self._end = weakref.finalize(self, os.close, self._handle)
        self._before = _state(os.fstat(self._handle))
        self.size = self._before[2]

    def changed(self) -> bool:
        """Return whether the file was written since it was opened, or another one has its name by now."""
        states = {_state(os.fstat(self._handle)), self._before if self._path is None else _state_at(self._path)}
        return states != {self._before}

    def read_at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` on; fewer at the end."""
        parts = []
        while length > 0 and (part := os.pread(self._handle, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._end()
