"""A zip as a store of Zarr: written in one go in a given order, read by its directory and one range for each member.

The order and the comment are those of RFC-9 of OME-Zarr, "zipped OME-Zarr": chunks are stored, metadata documents come
first, in the file and in its directory.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from inrstore.errors import StoreError
from inrstore.files.closing import Closing
from inrstore.files.place import Entry, RandomBytes
from inrstore.files.zip_members import check_end, check_local, check_members
from inrstore.files.zips import DAMAGE, Bounded

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DATE = (1980, 1, 1, 0, 0, 0)
_HEADER_BYTES = 30
_SMALL = 1 << 18


def zip_blocks(members: Iterable[tuple[str, bytes, bool]], comment: bytes) -> Iterator[bytes]:
    """Yield a zip piece by piece; the same members give the same bytes.

    Parameters
    ----------
    members : iterable of (str, bytes, bool)
        Name, content, and whether it is deflated, in order.
    comment : bytes
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as zipped:
        for name, data, deflated in members:
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
            info.external_attr, info.create_system = 0o644 << 16, 3
            zipped.writestr(info, data, compresslevel=9 if deflated else None)
            yield sink.take()
        zipped.comment = comment
    yield sink.take()


class _Sink(io.RawIOBase):
    """What zipfile writes to; what is complete can be taken away."""

    def __init__(self) -> None:
        self._begin, self._data = 0, io.BytesIO()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._begin + self._data.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._begin + self._data.seek(offset - self._begin if whence == 0 else offset, whence)

    def write(self, data: object, /) -> int:
        return self._data.write(data)  # type: ignore[arg-type]

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = self._data.getvalue()
        self._begin += len(data)
        self._data = io.BytesIO()
        return data


class StoredZip(Closing):
    """The members of a zip as a `Place`. The directory is read and checked when it is opened, a member when it is read.

    Parameters
    ----------
    zipped : RandomBytes
    name : str
        How messages name it.

    Raises
    ------
    StoreError
        Naming the zip, the member and what is wrong with it.
    """

    def __init__(self, zipped: RandomBytes, name: str) -> None:
        self.name, self._zipped, self.size_on_disk = name, zipped, zipped.size
        try:
            with zipfile.ZipFile(Bounded(zipped)) as listed:
                infos, self.comment = listed.infolist(), listed.comment
        except DAMAGE as error:
            raise StoreError(f"{name}: not a whole zip: {error}") from error
        wrong = check_members(infos, zipped.size)
        problem = check_end(zipped.read_at, zipped.size, self.comment, len(infos))
        if wrong is not None:
            problem = wrong[1] if wrong[0] is None else f"{wrong[0]}: {wrong[1]}"
        for info in infos:
            if info.compress_size > info.file_size + info.file_size // 256 + 64:
                problem = f"{info.orig_filename}: {info.compress_size} bytes for the {info.file_size} that it holds"
            if not 0 <= info.header_offset <= zipped.size - self._room(info):
                problem = f"{info.orig_filename}: lies outside the zip"
        if problem:
            raise StoreError(f"{name}: not a whole zip: {problem}")
        self._infos = {info.orig_filename: info for info in infos if not info.orig_filename.endswith("/")}

    def label(self, key: str) -> str:
        """Return the zip and the member."""
        return f"{self.name}:{key}"

    def size(self, key: str) -> int | None:
        """Return the uncompressed bytes of a member, or None if there is no such file."""
        return self._infos[key].file_size if key in self._infos else None

    def stamp(self, key: str) -> str:
        """Return size and checksum of a member, "" if there is no such file."""
        return f"{self._infos[key].file_size}-{self._infos[key].CRC:08x}" if key in self._infos else ""

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every member below `prefix`, in the order of its name."""
        start = f"{prefix}/" if prefix else ""
        for key in sorted(self._infos):
            if key.startswith(start):
                yield Entry(key, self._infos[key].file_size)

    def keys(self) -> list[str]:
        """Return the names of the members in the order of the directory."""
        return list(self._infos)

    def fetch_together(self, keys: Iterable[str]) -> None:
        """Read members that lie side by side in one go, if they are small: each costs no request of its own then."""
        infos = [self._infos[key] for key in keys if key in self._infos]
        if infos:
            start = min(info.header_offset for info in infos)
            stop = max(info.header_offset + self._room(info) for info in infos)
            if stop - start <= _SMALL:
                self._zipped.read_at(start, stop - start)

    @staticmethod
    def _room(info: zipfile.ZipInfo) -> int:
        return _HEADER_BYTES + len(info.orig_filename.encode()) + info.compress_size

    def open(self, key: str) -> io.BufferedReader:
        """Open a member, which is read and checked as a whole when its first bytes are."""
        if key not in self._infos:
            raise FileNotFoundError(f"{self.label(key)}: no such member")
        info = self._infos[key]
        return io.BufferedReader(_Member(info.file_size, lambda: self._read(info)))

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        where = self.label(info.orig_filename)
        block = self._zipped.read_at(info.header_offset, self._room(info))

        def read_at(start: int, length: int) -> bytes:
            inside = start - info.header_offset
            found = block[inside : inside + length] if inside >= 0 else b""
            return found if len(found) == length else self._zipped.read_at(start, length)

        begin, problem = check_local(read_at, info)
        data = b"" if problem else read_at(begin, info.compress_size)
        if not problem and len(data) != info.compress_size:
            problem = "the zip ends before it"
        if not problem and info.compress_type == zipfile.ZIP_DEFLATED:
            engine = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = engine.decompress(data, info.file_size + 1)
            except zlib.error as error:
                problem = str(error)
            if not problem and (not engine.eof or engine.unused_data):
                problem = f"it does not hold {info.file_size} bytes"
        if not problem and (len(data), zlib.crc32(data)) != (info.file_size, info.CRC):
            problem = "its checksum is another one"
        if problem:
            raise StoreError(f"{where}: is damaged: {problem}")
        return data

    def close(self) -> None:
        """Close the zip."""
        self._zipped.close()


class _Member(io.RawIOBase):
    """A member that is read when it is asked for, so that a larger one than is wanted is never read."""

    def __init__(self, size: int, read: Callable[[], bytes]) -> None:
        self.size, self._read = size, read
        self._data: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self._data is None:
            self._data = io.BytesIO(self._read())
        return self._data.readinto(buffer)
