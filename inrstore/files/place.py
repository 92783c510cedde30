"""What a place is, where files lie: its verbs, and reading a whole file with a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from inrstore.errors import FileTooLargeError, SourceError
from inrstore.files.closing import Closing

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file of a place.

    Parameters
    ----------
    key : str
        Its path inside the place, with slashes.
    size : int
        Bytes, 0 if there is a problem.
    problem : str
        Why it cannot be read ("a link to a folder", "a broken link"); empty when it can.
    """

    key: str
    size: int
    problem: str = ""


class Place(Protocol):
    """Files under one root, to be read.

    Attributes
    ----------
    name : str
        The root, for people and for opening it again: a path or a URL.
    """

    name: str

    def label(self, key: str) -> str:
        """Return how messages name a file of this place."""

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading from its start to its end; seeking is not promised.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it cannot be read.
        """

    def size(self, key: str) -> int | None:
        """Return the bytes of a file, or None if there is no such file."""

    def stamp(self, key: str) -> str:
        """Return what changes when a file is written anew, at the cost of a look; "" if there is no such file."""

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below `prefix` (a folder's key or ""), in the order of its name, folder by folder."""


class RandomBytes(Protocol):
    """A file of `size` bytes that can be read anywhere."""

    size: int

    def read_at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` on; fewer at the end."""

    def close(self) -> None:
        """Let go of it."""


class Log(Protocol):
    """A journal opened for appending, by one process at a time."""

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is safe when this returns, and after an error it is not there."""

    def close(self) -> None:
        """Let go of it."""


class WritablePlace(Place, Protocol):
    """A place that takes files. A write is whole or not at all, and on the disk when it returns."""

    def write(self, key: str, data: bytes) -> None:
        """Write a file; one that is there is replaced."""

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write a file that comes in blocks and need not fit into memory; nothing if they end in an error."""

    def create(self, key: str, blocks: Iterable[bytes]) -> bool:
        """Write a file unless there is one; return whether it was written. Of several at once, one wins."""

    def remove(self, key: str) -> None:
        """Remove a file; it is no error if there is none."""

    def clear(self, key: str) -> None:
        """Remove what lies in a folder under a name that begins as those do that this program makes up."""

    def random(self, key: str) -> RandomBytes:
        """Open a file for reading anywhere in it; errors as in `open`."""

    def lock(self, key: str) -> Closing:
        """Take the right to write to this place, until it is closed; `key` is where it says who has it.

        Raises
        ------
        DestinationHeldError
            If another process has it; the message says who.
        """

    def journal(self, key: str) -> Log:
        """Open a journal for appending."""

    def records(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a journal, one at a time; none if there is no such file."""


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file piece by piece."""
    while block := file.read(_BLOCK):
        yield block


def read(where: Place, key: str, limit: int) -> bytes:
    """Return a whole file that may not be larger than `limit` bytes.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileTooLargeError
        If it is larger; one whose place knows its size is not read then.
    """
    data = bytearray()
    with where.open(key) as file:
        if getattr(getattr(file, "raw", file), "size", 0) > limit:
            raise FileTooLargeError(f"{where.label(key)}: larger than {limit} bytes")
        # In blocks: some files allocate what they are asked for, not what they hold.
        while block := file.read(min(_BLOCK, limit + 1 - len(data))):
            data += block
    if len(data) > limit:
        raise FileTooLargeError(f"{where.label(key)}: larger than {limit} bytes")
    return bytes(data)


def read_text(where: Place, key: str, limit: int) -> str:
    """Return a text file; one that cannot be read is a SourceError that names it."""
    try:
        return read(where, key, limit).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, FileTooLargeError) as error:
        raise SourceError(f"{where.label(key)}: cannot be read as text: {error}") from error
