"""A store on its way to a file system of this machine: the files so far, a journal and a lock beside its place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from inrstore.errors import DestinationExistsError, StoreError
from inrstore.files import durable
from inrstore.files.journal import MAX_LINE_BYTES, Journal, decode, records
from inrstore.files.lock import Lock
from inrstore.store.manifest import Record, digest
from inrstore.store.partial import PARTIAL, check_same_job, explain, refuse_existing

_LOCK, _JOURNAL, _STORE = "lock", "journal.jsonl", "store"


class LocalPartial:
    """A `Partial` on a file system of this machine.

    Parameters
    ----------
    destination : Path
        Where the store is to be.
    job : mapping
        What decides the bytes.
    """

    def __init__(self, destination: Path, job: Mapping[str, Any]) -> None:
        refuse_existing(destination)
        self.destination = destination
        self.path = destination.with_name(destination.name + PARTIAL)
        self._files = self.path / _STORE
        with self._explained(destination):
            check_ours(self.path)
            self._lock = Lock(self.path / _LOCK, str(destination))
        try:
            with self._explained(destination):
                check_ours(self.path)
                self._finished = self._recover(job)
                self._journal = Journal(self.path / _JOURNAL)
                if self._new:
                    self._journal.append({"event": "begin", "job": dict(job)})
            # Whoever held the lock before may have published meanwhile.
            refuse_existing(destination)
        except DestinationExistsError:
            self.discard()
            raise
        except BaseException:
            self._lock.close()
            raise

    def _recover(self, job: Mapping[str, Any]) -> dict[str, Record]:
        """Return the finished chunks after a look at each; remove every other file."""
        finished: dict[str, Record] = {}
        self._new = True
        for record in records(self.path / _JOURNAL):
            if self._new:
                check_same_job(str(self.path), record.get("job"), job)
                self._new = False
            elif record.get("event") == "chunk":
                finished[str(record["key"])] = (int(record["size"]), str(record["digest"]))
        good = {key: found for key, found in finished.items() if self._holds(key, found)}
        if self._files.is_dir():
            for folder, _, names in os.walk(self._files):
                for name in names:
                    file = Path(folder, name)
                    if file.relative_to(self._files).as_posix() not in good:
                        durable.remove(file)
        return good

    def _holds(self, key: str, found: Record) -> bool:
        try:
            data = (self._files / key).read_bytes()
        except OSError:
            return False
        return (len(data), digest(data)) == found

    def finished(self) -> Mapping[str, Record]:
        """Return the chunks that an earlier run finished."""
        return self._finished

    def write_chunk(self, key: str, data: bytes) -> None:
        """Write a chunk and note in the journal that it is finished."""
        self.write(key, data)
        with self._explained(self.destination / key):
            self._journal.append({"event": "chunk", "key": key, "size": len(data), "digest": digest(data)})

    def write(self, key: str, data: bytes) -> None:
        """Write a file down to the disk."""
        with self._explained(self.destination / key):
            durable.write_file(self._files / key, data)

    def read(self, key: str) -> bytes:
        """Return a file as it was written."""
        try:
            return (self._files / key).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.destination / key}: cannot be read back: {error}") from error

    def publish(self, key: str, data: bytes) -> None:
        """Write the last file and give the store its name."""
        self.write(key, data)
        with self._explained(self.destination):
            durable.sync_folders(self._files)
            # rename() would replace an empty folder without a word.
            refuse_existing(self.destination)
            durable.rename(self._files, self.destination)
        self.discard()

    def discard(self) -> None:
        """Remove what is not published."""
        self._journal.close()
        with self._explained(self.path):
            _remove(self.path)
        self._lock.close()

    def close(self) -> None:
        """Let go of it without removing anything."""
        self._journal.close()
        self._lock.close()

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain(path, error) from error


def check_ours(path: Path) -> None:
    """Raise DestinationExistsError unless a folder is free, or was made by a conversion; its name alone proves nothing.

    Ours begins with a journal whose first line is whole and says so. Before that line it is empty, or holds the lock.
    """
    if not os.path.lexists(path):
        return
    names = set() if path.is_symlink() or not path.is_dir() else set(os.listdir(path))
    ours = not names - {_LOCK, _JOURNAL, _STORE} and not path.is_symlink() and path.is_dir()
    if not ours or (names - {_LOCK} and not _begun(path / _JOURNAL, _STORE in names)):
        raise DestinationExistsError(f"{path}: is in the way and was not made by a conversion; choose another name")


def _begun(journal: Path, more: bool) -> bool:
    """Return whether a journal begins as ours does; unless there is `more`, its first line may be torn."""
    if not journal.is_file():
        return False
    with journal.open("rb") as file:
        line = file.readline(MAX_LINE_BYTES)
    if not more and not line.endswith(b"\n"):
        return not line or line.startswith(b"0 ")
    first = decode(0, line)
    return first is not None and first.get("event") == "begin" and isinstance(first.get("job"), dict)


def _remove(path: Path) -> None:
    """Remove the folder of a conversion: what a conversion puts there, and the folder if nothing else is in it."""
    durable.remove_folder(path / _STORE)
    durable.remove(path / _JOURNAL)
    durable.remove(path / _LOCK)
    with suppress(OSError):
        path.rmdir()


def sweep_published(destination: str) -> bool:
    """Remove what is left beside a published store; see `inrstore.store.writer.sweep_published`."""
    path = Path(destination)
    left = path.with_name(path.name + PARTIAL)
    if not left.is_dir() or not path.is_dir():
        return False
    try:
        check_ours(left)
        with Lock(left / _LOCK, destination):
            _remove(left)
    except OSError as error:
        raise explain(left, error) from error
    return True
