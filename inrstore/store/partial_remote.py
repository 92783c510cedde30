"""A store on its way to a bucket: chunks go to their final keys, the group's own document comes last.

An object is written whole or not at all, and cannot be renamed: so the store has no other name while it is not
complete, but without the group's document it is none, for this package and for every reader of Zarr. Beside it, below
`<destination>.partial/`, lie the claim of who writes it and the journal of the chunks that are finished. A conversion
that dies between any two requests is taken up there by the same command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from inrstore import files
from inrstore.errors import ConfigurationError, DestinationExistsError, StoreError
from inrstore.files.claim import EXPIRY, Claim
from inrstore.files.remote import ObjectPlace
from inrstore.files.remote_journal import RemoteJournal, remote_records
from inrstore.store import layout
from inrstore.store.manifest import Record, digest
from inrstore.store.partial import PARTIAL, check_same_job, explain

_ROOTS = (layout.root_key(3), layout.root_key(2))
"""Documents of which one makes a store complete."""

_MAX_FILE_BYTES = 1 << 31
_READERS = 8
"""Chunks that are compared at the same time when a conversion is taken up."""


class RemotePartial:
    """A `Partial` in an object store.

    Parameters
    ----------
    destination : str
        URL of the store, below the root of a bucket.
    job : mapping
        What decides the bytes.
    expiry : float
        Seconds after which the claim of a process that gives no sign of life may be taken over.
    """

    def __init__(self, destination: str, job: Mapping[str, Any], *, expiry: float = EXPIRY) -> None:
        self.destination = destination.rstrip("/")
        self._place, self._name = _split(self.destination)
        self._beside = self._name + PARTIAL
        with self._explained(self.destination):
            if _is_published(self._place, self._name):
                raise self._exists()
            self._claim = Claim(
                self._place, f"{self._beside}/claim", self.destination, expiry=expiry, interval=expiry / 10
            )
        try:
            with self._explained(self.destination):
                self._finished = self._recover(job)
        except DestinationExistsError:
            # A journal, if there is one, shows `sweep_published` that the store is of a run that died just then.
            self._claim.close() if self._begun else self._claim.remove()
            raise
        except BaseException:
            self._claim.close()
            raise

    def _recover(self, job: Mapping[str, Any]) -> dict[str, Record]:
        """Return the finished chunks after a look at each; remove every other object."""
        there = [entry.key for entry in self._place.walk(self._name)]
        self._begun = False
        noted: dict[str, Record] = {}
        for record in remote_records(self._place, self._journal_key):
            if not self._begun:
                check_same_job(self._place.label(self._beside), record.get("job"), job)
                self._begun = True
            elif record.get("event") == "chunk":
                noted[self._at(str(record["key"]))] = (int(record["size"]), str(record["digest"]))
        if any(self._at(root) in there for root in _ROOTS) or (there and not self._begun):
            raise self._exists()
        candidates = [key for key in there if key in noted]
        with ThreadPoolExecutor(_READERS) as pool:
            same = list(pool.map(lambda key: self._holds(key, noted[key]), candidates))
        good = {key for key, is_same in zip(candidates, same, strict=True) if is_same}
        self._journal = RemoteJournal(self._place, self._journal_key)
        if not self._begun:
            self._journal.append({"event": "begin", "job": dict(job)})
        self._place.remove_all(key for key in there if key not in good)
        return {key.removeprefix(f"{self._name}/"): noted[key] for key in sorted(good)}

    def _exists(self) -> DestinationExistsError:
        return DestinationExistsError(f"{self.destination}: exists already; remove it or choose another name")

    @property
    def _journal_key(self) -> str:
        return f"{self._beside}/journal"

    def _at(self, key: str) -> str:
        return f"{self._name}/{key}"

    def _holds(self, key: str, noted: Record) -> bool:
        found = self._place.fetch(key, _MAX_FILE_BYTES)
        return found is not None and (len(found.data), digest(found.data)) == noted

    def finished(self) -> Mapping[str, Record]:
        """Return the chunks that an earlier run finished."""
        return self._finished

    def write_chunk(self, key: str, data: bytes) -> None:
        """Write a chunk and note in the journal that it is finished."""
        self.write(key, data)
        with self._explained(self._label(key)):
            self._journal.append({"event": "chunk", "key": key, "size": len(data), "digest": digest(data)})

    def write(self, key: str, data: bytes) -> None:
        """Write any other file."""
        with self._explained(self._label(key)):
            self._claim.check()
            self._place.write(self._at(key), data)

    def read(self, key: str) -> bytes:
        """Return a file as it was written."""
        try:
            return files.read(self._place, self._at(key), _MAX_FILE_BYTES)
        except OSError as error:
            raise StoreError(f"{self._label(key)}: cannot be read back: {error.strerror or error}") from error

    def publish(self, key: str, data: bytes) -> None:
        """Write the group's document, if there is none: from here on there is a store."""
        with self._explained(self._label(key)):
            self._claim.renew()
            if not self._place.create(self._at(key), data) and self.read(key) != data:
                raise self._exists()
        self._sweep()

    def discard(self) -> None:
        """Remove what is not published, unless another process has taken it over."""
        with self._explained(self.destination):
            if self._claim.held:
                self._claim.renew()
                self._place.remove_all([entry.key for entry in self._place.walk(self._name)])
        self._sweep()

    def _sweep(self) -> None:
        """Remove what lies beside the store, and let go of it."""
        with self._explained(self._place.label(self._beside)):
            if self._claim.held:
                sweep(self._place, self._beside)
        self._claim.remove()

    def close(self) -> None:
        """Let go of it without removing anything."""
        self._claim.close()

    def _label(self, key: str) -> str:
        return self._place.label(self._at(key))

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain(where, error) from error


def _split(destination: str) -> tuple[ObjectPlace, str]:
    """Return the place above a store, and the store's name there."""
    root, _, name = destination.rpartition("/")
    if root.endswith("/") or not name:
        raise ConfigurationError(f"{destination!r}: a store cannot be a whole bucket; name a folder in it")
    return ObjectPlace(root), name


def _is_published(place: ObjectPlace, name: str) -> bool:
    return any(place.size(f"{name}/{root}") is not None for root in _ROOTS)


def sweep(place: ObjectPlace, beside: str) -> None:
    """Remove the journal, from its end, so that a part of it is still a journal; the claim stays."""
    keys = [entry.key for entry in place.walk(beside) if entry.key != f"{beside}/claim"]
    for key in sorted(keys, reverse=True):
        place.remove(key)


def sweep_published(destination: str) -> bool:
    """Remove what is left beside a store that was published by a run that died right then.

    Returns
    -------
    bool
        Whether there was anything.
    """
    destination = destination.rstrip("/")
    place, name = _split(destination)
    beside = name + PARTIAL
    try:
        if next(place.walk(beside), None) is None or not _is_published(place, name):
            return False
        claim = Claim(place, f"{beside}/claim", destination)
        try:
            sweep(place, beside)
        except BaseException:
            claim.close()
            raise
        claim.remove()
    except OSError as error:
        raise explain(destination, error) from error
    return True
