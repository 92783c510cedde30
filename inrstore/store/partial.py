"""What a store on its way is, wherever it lies: the verbs, and what they have in common."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from inrstore.errors import DestinationExistsError, StoreError, WriteError
from inrstore.store.manifest import Record

PARTIAL = ".partial"
"""End of the name under which a store lies until it is complete."""


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


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error means that nothing more can be written to the destination at all."""
    cause = error.__cause__ if isinstance(error, WriteError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
