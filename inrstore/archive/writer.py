"""A store on its way: chunk by chunk, each on the disk before the next, under its name when it is complete.

Beside the destination lies `<destination>.partial` with the files so far (`store`), a journal of the chunks
that are finished, and a lock. A conversion that dies is taken up there by the same command. Only publishing,
one rename, makes the store appear.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from inrstore import storage
from inrstore.archive.manifest import Record, digest
from inrstore.errors import DestinationExistsError, StoreError, WriteError
from inrstore.storage import durable
from inrstore.storage.journal import Journal, records
from inrstore.storage.lock import Lock

PARTIAL = ".partial"


class Partial(Protocol):
    """A store that is being written; one process at a time holds it."""

    def finished(self) -> Mapping[str, Record]:
        """Return the chunks that an earlier run finished: size and digest by key. They were read and compared."""

    def write_chunk(self, key: str, data: bytes) -> None:
        """Write a chunk and note in the journal that it is finished."""

    def write(self, key: str, data: bytes) -> None:
        """Write any other file."""

    def read(self, key: str) -> bytes:
        """Return a file as it was written."""

    def publish(self, key: str, data: bytes) -> None:
        """Write the last file; from here on the store is complete, also after a power failure."""

    def discard(self) -> None:
        """Remove everything: there is nothing to go on from."""

    def close(self) -> None:
        """Let go of it without removing anything."""


def open_partial(destination: str, job: Mapping[str, Any]) -> Partial:
    """Begin to write a store, or take up what an earlier run of the same job left.

    Parameters
    ----------
    destination : str
        Path or URL of the store.
    job : mapping
        What decides the bytes: source, quality, effort, versions. JSON.

    Raises
    ------
    DestinationExistsError
        If the store exists.
    DestinationHeldError
        If another process is writing it.
    StoreError
        If what is there is of another job; the message says what differs.
    """
    if storage.is_url(destination):
        from inrstore.archive.partial_remote import RemotePartial

        return RemotePartial(destination, job)
    return LocalPartial(Path(destination), job)


def refuse_existing(destination: Path) -> None:
    """Raise DestinationExistsError if anything, even a dangling link, has this name."""
    if os.path.lexists(destination):
        raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")


def check_same_job(where: str, found: Any, job: Mapping[str, Any]) -> None:
    """Raise StoreError, saying what differs, if an unfinished store is of another job."""
    if found == dict(job):
        return
    old = found if isinstance(found, dict) else {}
    names = sorted(name for name in {*old, *job} if old.get(name) != job.get(name))
    text = "; ".join(f"{name} was {old.get(name)}, now {job.get(name)}" for name in names)
    raise StoreError(f"{where}: an unfinished conversion of another kind ({text}); run that one again or remove it")


def explain(path: Path | str, error: OSError) -> WriteError:
    """Return the error for a write that failed: "disk full" and the like, with the path."""
    return WriteError(f"{path}: cannot be written: {error.strerror or error}")


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
        self._files = self.path / "store"
        with self._explained(destination):
            self._lock = Lock(self.path / "lock", str(destination))
        try:
            with self._explained(destination):
                self._finished = self._recover(job)
                self._journal = Journal(self.path / "journal.jsonl")
                if self._new:
                    self._journal.append({"event": "begin", "job": dict(job)})
            # Whoever held the lock before may have published meanwhile.
            refuse_existing(destination)
        except DestinationExistsError:
            self.discard()
            raise
        except BaseException:
            self._lock.release()
            raise

    def _recover(self, job: Mapping[str, Any]) -> dict[str, Record]:
        """Return the finished chunks after a look at each; remove every other file."""
        finished: dict[str, Record] = {}
        self._new = True
        for record in records(self.path / "journal.jsonl"):
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
            durable.remove_folder(self.path)
        self._lock.release()

    def close(self) -> None:
        """Let go of it without removing anything."""
        self._journal.close()
        self._lock.release()

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain(path, error) from error


def sweep_published(destination: str) -> bool:
    """Remove what is left beside a store that was published by a run that died right then.

    Returns
    -------
    bool
        Whether there was anything.
    """
    if storage.is_url(destination):
        from inrstore.archive.partial_remote import sweep_published as sweep

        return sweep(destination)
    path = Path(destination)
    left = path.with_name(path.name + PARTIAL)
    if not left.is_dir() or not path.is_dir():
        return False
    try:
        with Lock(left / "lock", destination):
            durable.remove_folder(left)
    except OSError as error:
        raise explain(left, error) from error
    return True


class PartialFile:
    """A file that gets its name when it is complete; the counterpart of a `Partial` for exports.

    Parameters
    ----------
    destination : Path
        Where the file is to be; must not exist.
    """

    def __init__(self, destination: Path) -> None:
        refuse_existing(destination)
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}{PARTIAL}-{secrets.token_hex(4)}")

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
            durable.sync(self.path)
            refuse_existing(self.destination)
            durable.rename(self.path, self.destination)
        except OSError as error:
            raise explain(self.destination, error) from error


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error means that nothing more can be written to the destination at all."""
    cause = error.__cause__ if isinstance(error, WriteError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
