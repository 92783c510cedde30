"""A bucket, or a prefix of one, as a `WritablePlace`: objects, and what is made of objects: claims and journals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inrstore.files.claim import Claim
from inrstore.files.durable import PREFIX
from inrstore.files.remote import ObjectPlace
from inrstore.files.remote_journal import RemoteJournal, remote_records


class Bucket(ObjectPlace):
    """A place of objects that one process at a time may hold."""

    def lock(self, key: str) -> Claim:
        """Claim the place, which a process that dies loses after some minutes."""
        return Claim(self, key)

    def journal(self, key: str) -> RemoteJournal:
        """Open a journal whose objects lie below `key`."""
        return RemoteJournal(self, key)

    def records(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a journal, one at a time."""
        return remote_records(self, key)

    def clear(self, key: str) -> None:
        """Remove the objects directly below `key` that have a name of those that this program makes up."""
        self.remove_all(entry.key for entry in self.walk(key) if entry.key.startswith(f"{key}/{PREFIX}"))
