"""A folder of this machine as a `WritablePlace`."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from inrstore.files import durable, journal
from inrstore.files.closing import Closing
from inrstore.files.journal import Journal
from inrstore.files.lock import Lock
from inrstore.files.place import Entry


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
        ValueError
            For a key that is absolute or has `..` in it.
        """
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or "\0" in key:
            raise ValueError(f"{key!r} is not a path inside {self.path}")
        return self.path.joinpath(*parts)

    def open(self, key: str) -> BinaryIO:
        """Open a regular file; a pipe or a device is refused, it might never end."""
        path = self.at(key)
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is not a regular file")
        return path.open("rb")

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
        """Remove from a folder what has a name of those that this program makes up, and the folder if that is all."""
        folder = self.at(key)
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
        self._end = weakref.finalize(self, os.close, self._handle)
        self.size = os.fstat(self._handle).st_size

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
