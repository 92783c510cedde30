"""The journal of `inrstore.files.journal` in an object store: numbered objects of many lines each.

Objects cannot be appended to: the last one is exchanged for itself with one line more, until it is full. Each is
exchanged only in the version that this process wrote, so a process that has lost its claim cannot add to the journal of
the next.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from inrstore.errors import DestinationHeldError, FileTooLargeError, StoreError
from inrstore.files.closing import Closing
from inrstore.files.journal import MAX_LINE_BYTES, decode, encode
from inrstore.files.remote import Found, ObjectPlace, Version

PAGE_BYTES = 1 << 16
"""An object of at least this size is full."""


def remote_records(place: ObjectPlace, key: str) -> Iterator[dict[str, Any]]:
    """Yield the records of the journal whose objects lie below `key`, one at a time; none if there are none.

    Raises
    ------
    StoreError
        If it is damaged.
    OSError
        If it cannot be read.
    """
    count = 0
    for number, found in enumerate(_pages(place, key)):
        for record in _lines(place, _page(key, number), found, count):
            count += 1
            yield record


def _page(key: str, number: int) -> str:
    return f"{key}/{number:08d}"


def _pages(place: ObjectPlace, key: str) -> Iterator[Found]:
    for number, entry in enumerate(place.walk(key)):
        if entry.key != _page(key, number):
            raise StoreError(f"{place.label(_page(key, number))}: is missing; there is {entry.key}")
        try:
            found = place.fetch(entry.key, PAGE_BYTES + MAX_LINE_BYTES)
        except FileTooLargeError as error:
            raise StoreError(f"{error}; the journal is damaged") from error
        if found is None:
            raise StoreError(f"{place.label(entry.key)}: was removed meanwhile")
        yield found


def _lines(place: ObjectPlace, key: str, found: Found, count: int) -> Iterator[dict[str, Any]]:
    """Yield the records of an object whose first record has the number `count`. The first line names who wrote it."""
    for offset, line in enumerate(found.data.splitlines(keepends=True)[1:]):
        record = decode(count + offset, line)
        if record is None:
            raise StoreError(f"{place.label(key)}: line {offset + 2} is damaged")
        yield record


class RemoteJournal(Closing):
    """A journal opened for appending, by the one process that holds the claim.

    Parameters
    ----------
    place : ObjectPlace
    key : str
        Below it lie the objects.

    Raises
    ------
    StoreError
        If what is there is damaged.
    DestinationHeldError
        If another process is appending.
    OSError
        If it cannot be read or written.
    """

    def __init__(self, place: ObjectPlace, key: str) -> None:
        self._place, self._key = place, key
        self._count, self._number = 0, -1
        self._begin = f"# {secrets.token_hex(8)}\n".encode()
        self._data = self._begin
        self._version: Version | None = None
        for found in _pages(place, key):
            self._number += 1
            lines = list(_lines(place, _page(key, self._number), found, self._count))
            self._count += len(lines)
            self._data, self._version = found.data, found.version
        # Now the one before us, should it still live, can neither add to the last object nor begin the next.
        if self._number >= 0:
            first = self._data.find(b"\n") + 1
            self._exchange(self._begin + self._data[first:] if len(self._data) < PAGE_BYTES else None)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is in the store when this returns, and after an error it is not."""
        if self._number < 0 or len(self._data) >= PAGE_BYTES:
            self._exchange(None)
        self._exchange(self._data + encode(self._count, record))
        self._count += 1

    def _exchange(self, data: bytes | None) -> None:
        """Exchange the last object, or begin the next one if there are no data."""
        if data is None:
            number, data, old = self._number + 1, self._begin, None
        else:
            number, old = self._number, self._version
        page = _page(self._key, number)
        version = self._place.swap(page, data, old)
        if version is None:
            # Ours all the same if it begins with our name: what it has more was written by a put that seemed to fail.
            there = self._place.fetch(page, PAGE_BYTES + MAX_LINE_BYTES)
            if there is not None and there.data.startswith(self._begin):
                version = self._place.swap(page, data, there.version)
        if version is None:
            raise DestinationHeldError(f"{self._place.label(self._key)}: another process writes to this journal")
        self._number, self._data, self._version = number, data, version

    def close(self) -> None:
        """Nothing is open; for use like a `Journal`."""
