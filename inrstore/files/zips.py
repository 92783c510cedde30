"""A zip as a read-only `Place`: listed and checked when it is opened, its members streamed, nothing ever extracted.

zipfile reads the list of members; what it takes on trust is checked here. A zip in which anything is amiss is refused
as a whole: who forged one member has forged the rest.
"""

from __future__ import annotations

import errno
import io
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from inrstore import limits
from inrstore.errors import SourceError
from inrstore.files.closing import Closing
from inrstore.files.local import CHANGED, LocalBytes
from inrstore.files.place import Entry, Place, RandomBytes
from inrstore.files.zip_members import Member, check_between, check_end, check_front, check_local, check_members, member

__all__ = ["Member", "ZipPlace", "stored_size"]

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DAMAGE = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, OverflowError, OSError)
"""What zipfile raises for bytes that are no zip."""


class ZipPlace(Closing):
    """The files in a zip.

    Parameters
    ----------
    place, key : Place, str
        The zip. One that is not a file of this machine is first copied to a temporary file.

    Raises
    ------
    SourceError
        Naming the zip, the member and what is wrong with it.
    """

    def __init__(self, place: Place, key: str) -> None:
        self.name = place.label(key)
        try:
            self._bytes = LocalBytes(_on_disk(place.open(key)))
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            with zipfile.ZipFile(Bounded(self._bytes)) as listed:
                infos, self.comment, end = listed.infolist(), listed.comment, listed.start_dir
        except DAMAGE as error:
            raise SourceError(f"{self.name}: not a whole zip: {error}") from error
        problem = check_end(self._bytes.read_at, self._bytes.size, self.comment, len(infos))
        if problem:
            raise SourceError(f"{self.name}: not a whole zip: {problem}")
        wrong = check_members(infos, self._bytes.size)
        if wrong:
            name, why = wrong
            raise SourceError(f"{self.name}: {why}") if name is None else self._refused(name, why)
        self._starts = self._locate(infos, end)
        self._members = [member(info) for info in infos]
        infos.sort(key=lambda info: info.orig_filename.replace("/", "\0"))
        self._files = {info.orig_filename: info for info in infos if not info.orig_filename.endswith("/")}

    def _refused(self, name: str, problem: str) -> SourceError:
        shown = name if len(name) <= 120 else name[:100] + "..."
        return SourceError(f"{self.name}: member {shown!r}: {problem}")

    def _locate(self, infos: list[zipfile.ZipInfo], end: int) -> dict[str, int]:
        """Return where the data of each member begins.

        Its local header must say what the directory says, and all bytes of the zip must belong to something.
        """
        starts, gaps = {}, []
        for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
            start, problem = check_local(self._bytes.read_at, info)
            if not problem and start + info.compress_size > end:
                problem = "overlaps what follows it"
            if problem:
                raise self._refused(info.orig_filename, problem)
            starts[info.orig_filename] = start
            gaps.append((info, start + info.compress_size, end))
            end = info.header_offset
        for info, start, stop in gaps:
            problem = check_between(self._bytes.read_at, info, start, stop)
            if problem:
                raise self._refused(info.orig_filename, problem)
        problem = check_front(self._bytes.read_at, end)
        if problem:
            raise SourceError(f"{self.name}: {problem}")
        return starts

    def label(self, key: str) -> str:
        """Return the zip and the member."""
        return f"{self.name}:{key}"

    def open(self, key: str) -> BinaryIO:
        """Open a member; reading it to its end checks its size and checksum.

        Raises
        ------
        FileNotFoundError
            If there is none.
        SourceError
            While reading, if the member is damaged.
        """
        if key not in self._files:
            raise FileNotFoundError(f"{self.label(key)}: no such member")
        raw = _Data(self._bytes, self._starts[key], self._files[key], self.label(key), self.name)
        return io.BufferedReader(raw, 1 << 16)

    def size(self, key: str) -> int | None:
        """Return the uncompressed bytes of a member, or None if there is no such file."""
        return self._files[key].file_size if key in self._files else None

    def stamp(self, key: str) -> str:
        """Return size and checksum of a member, "" if there is no such file."""
        return f"{self._files[key].file_size}-{self._files[key].CRC:08x}" if key in self._files else ""

    def stored(self, key: str) -> int:
        """Return the bytes that a member takes in the zip."""
        return self._files[key].compress_size

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file below `prefix`, in the order of its name, folder by folder."""
        start = f"{prefix}/" if prefix else ""
        for key, info in self._files.items():
            if key.startswith(start):
                yield Entry(key, info.file_size)

    def members(self) -> list[Member]:
        """Return every file and folder, in the order of the zip's directory."""
        return self._members

    def close(self) -> None:
        """Close the zip; members that are open cannot be read any more."""
        self._bytes.close()


class _Data(io.RawIOBase):
    """The uncompressed data of one member."""

    def __init__(self, zipped: LocalBytes, start: int, info: zipfile.ZipInfo, label: str, zip_label: str) -> None:
        self._zipped = zipped
        self._at = start
        self._end = start + info.compress_size
        self._left = info.file_size
        self._size = info.file_size
        self._crc = info.CRC
        self._found = 0
        self._label, self._zip_label = label, zip_label
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if info.compress_type == zipfile.ZIP_DEFLATED else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        # One byte more than there should be shows whether there are more.
        try:
            data = self._take(min(len(view), self._left) or 1)
        except zlib.error as error:
            raise self._bad(f"damaged: {error}") from error
        if len(data) > self._left:
            raise self._bad(f"size: it holds more than the {self._size} bytes that it claims")
        self._left -= len(data)
        self._found = zlib.crc32(data, self._found)
        if not data:
            if self._left:
                raise self._bad(f"size: ends after {self._size - self._left} of {self._size} bytes")
            if self._at < self._end or (self._inflate is not None and self._inflate.unused_data):
                raise self._bad("damaged: bytes follow its data that belong to nothing")
            if self._found != self._crc:
                raise self._bad("damaged: its checksum (CRC-32) differs")
            if self._zipped.changed():
                raise self._bad("")
        view[: len(data)] = data
        return len(data)

    def _bad(self, problem: str) -> SourceError:
        """Return the error of a member, which is another one if the zip was changed."""
        return SourceError(f"{self._zip_label}: {CHANGED}" if self._zipped.changed() else f"{self._label}: {problem}")

    def _take(self, most: int) -> bytes:
        """Return up to `most` bytes; nothing at the end."""
        if self._inflate is None:
            return self._stored(most)
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stored(1 << 16)
            data = self._inflate.decompress(packed, most)
            if data or not packed:
                return data
        return b""

    def _stored(self, most: int) -> bytes:
        data = self._zipped.read_at(self._at, min(most, self._end - self._at))
        self._at += len(data)
        return data


class Bounded(io.RawIOBase):
    """A file for zipfile, of which no one read takes more than the directory of a zip may have.

    Parameters
    ----------
    zipped : RandomBytes
    """

    def __init__(self, zipped: RandomBytes) -> None:
        self._zipped, self._at = zipped, 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; one before the start is an error, as of any file."""
        at = offset + (0, self._at, self._zipped.size)[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "before the start")
        self._at = at
        return at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes from the place on."""
        if size is None or size < 0:
            size = min(limits.MAX_ZIP_DIRECTORY_BYTES, max(0, self._zipped.size - self._at))
        if size > limits.MAX_ZIP_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a directory of {size} bytes, more than {limits.MAX_ZIP_DIRECTORY_BYTES}")
        data = self._zipped.read_at(self._at, size)
        self._at += len(data)
        return data


def stored_size(place: Place, key: str) -> int:
    """Return the bytes that a file takes in what holds it: the compressed size in a zip, else its size."""
    return place.stored(key) if isinstance(place, ZipPlace) else place.size(key) or 0


def _on_disk(file: BinaryIO) -> BinaryIO:
    """Return an open file of this machine with the same bytes."""
    try:
        file.fileno()
    except (AttributeError, OSError):
        with file:
            copy = tempfile.TemporaryFile()
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            return copy
    return file
