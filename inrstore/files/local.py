"""A folder of this machine as a `WritablePlace`."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from inrstore.files import Entry, durable


class Folder:
    """A folder.

    Parameters
    ----------
    path : Path
        It need not exist until something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        durable.write_file(self.at(key), data)

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write a file that comes in blocks, through a temporary name."""
        durable.write_blocks(self.at(key), blocks)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless there is one, through a hard link, of which one of several makers gets the name."""
        path = self.at(key)
        own = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        durable.write_file(own, data)
        try:
            os.link(own, path)
        except FileExistsError:
            return False
        finally:
            durable.remove(own)
        durable.sync(path.parent)
        return True

    def remove(self, key: str) -> None:
        """Remove a file; it is no error if there is none."""
        durable.remove(self.at(key))
