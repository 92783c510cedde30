"""An append-only record of what is done: one JSON object a line, each with its number and a checksum.

A line is `<number> <checksum> <text>`; the checksum is the CRC32C of "<number> <text>", 8 hex digits. A crash
can only tear the last line, which is then cut off; anything else that does not fit is damage, and said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c

from inrstore.errors import StoreError
from inrstore.files import durable
from inrstore.files.closing import Closing

MAX_LINE_BYTES = 1 << 22
"""One record; the longest holds the plan of one subject's files."""


def encode(number: int, record: dict[str, Any]) -> bytes:
    """Return a record as a line.

    Raises
    ------
    StoreError
        If `decode` would refuse it, or it is longer than a line can be: it would be damage to everyone who reads it.
    """
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"a record that is not JSON: {error}") from error
    line = b"%d %08x %s\n" % (number, _checksum(number, text), text)
    if len(line) > MAX_LINE_BYTES:
        raise StoreError(f"a record of {len(line)} bytes; a line of a journal has {MAX_LINE_BYTES} at most")
    if decode(number, line) is None:
        raise StoreError("a record that could not be read again")
    return line


def decode(number: int, line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, or None if it is not that whole line."""
    parts = line.split(b" ", 2)
    if len(parts) != 3 or not line.endswith(b"\n"):
        return None
    text = parts[2][:-1]
    if parts[0] != b"%d" % number or parts[1] != b"%08x" % _checksum(number, text):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _checksum(number: int, text: bytes) -> int:
    return int(google_crc32c.value(b"%d %s" % (number, text)))


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, one at a time; none if there is no file.

    Raises
    ------
    StoreError
        If a line but the last one is damaged.
    """
    for record, _ in _lines(path):
        yield record


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each record and where its line ends."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            record = decode(number, line)
            if record is None:
                if file.read(1):
                    raise StoreError(f"{path}: line {number + 1} is damaged")
                return
            yield record, file.tell()
            number += 1


class Journal(Closing):
    """A journal opened for appending, by one process at a time.

    Parameters
    ----------
    path : Path
        The file; made if there is none. A torn last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        end = self._count = 0
        for _, after in _lines(path):
            self._count += 1
            end = after
        durable.make_folder(path.parent)
        new = not path.exists()
        self._handle = durable.open_own(path)
        os.ftruncate(self._handle, end)
        os.lseek(self._handle, end, os.SEEK_SET)
        if new:
            durable.sync(path.parent)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        After an error the journal can be appended to again: what was written of the line is taken back.
        """
        end = os.lseek(self._handle, 0, os.SEEK_CUR)
        try:
            durable.append(self._handle, encode(self._count, record))
        except OSError:
            os.ftruncate(self._handle, end)
            os.lseek(self._handle, end, os.SEEK_SET)
            raise
        self._count += 1

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
