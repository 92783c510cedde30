"""A file of a place -> its bytes, read once from start to end: hashed as they lie, unpacked if they are gzipped."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import SourceError
from inrstore.files import Place
from inrstore.files.local import CHANGED
from inrstore.files.zips import stored_size

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 22
_RAW_BLOCK = 1 << 18


class Digest:
    """SHA-256 and count of the bytes of one or more files, as they lie."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        """Add bytes."""
        self._sha256.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what was added."""
        return self._sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """Passes on what it reads, and adds it to a digest; at its end there have to have been `size` bytes."""

    def __init__(self, file: BinaryIO, digest: Digest, size: int) -> None:
        self._file = file
        self._digest = digest
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            data = bytes(self._file.read(len(view) - done))
            self._left -= len(data)
            if self._left < 0 or (self._left and not data):
                raise OSError(errno.ESTALE, CHANGED)
            if not data:
                break
            self._digest.update(data)
            view[done : done + len(data)] = data
            done += len(data)
        return done


class Stream:
    """The unpacked bytes of an open file.

    Parameters
    ----------
    label : str
        How messages name the file.
    file : BufferedIOBase
        Gives the unpacked bytes.
    packed : bool
        Whether it was gzipped.
    stored : int
        Bytes that the file takes in what holds it: on the disk, in the zip.
    most : int
        Bytes that there can be.
    """

    def __init__(self, label: str, file: io.BufferedIOBase, packed: bool, stored: int, most: int) -> None:
        self.label = label
        self.packed = packed
        self.stored = stored
        self.most = most
        self._file = file
        self._count = 0

    def exactly(self, size: int, what: str) -> npt.NDArray[np.uint8]:
        """Read `size` bytes into memory that grows only as they arrive, to `size` and no further.

        Raises
        ------
        SourceError
            Naming the file and `what`, if it ends before.
        """
        out = np.empty(min(size, _BLOCK), np.uint8)
        done = 0
        while done < size:
            if done == len(out):
                out.resize(min(size, 2 * done), refcheck=False)
            count = self._file.readinto(out[done : done + _BLOCK].data)
            if not count:
                raise SourceError(
                    f"{self.label}: {what}: the header claims {size} bytes, but the file ends after {done}"
                )
            done += count
            self._counted(count)
        return out

    def rest(self, limit: int) -> bytes | None:
        """Read to the end, because only there gzip's own checksum is tested; None if there are more than `limit`."""
        out = bytearray()
        while block := self._file.read(min(_BLOCK, limit + 1 - len(out))):
            out += block
            self._counted(len(block))
            if len(out) > limit:
                return None
        return bytes(out)

    def line(self, limit: int) -> bytes:
        """Read a line with its end; at most so many bytes, of which the last is no end of a line then."""
        data = self._file.readline(limit)
        self._counted(len(data))
        return data

    def check_room(self, size: int, offset: int, field: str) -> None:
        """Refuse voxels that the file cannot hold, or no image may have, before anything is allocated for them.

        Parameters
        ----------
        size, offset : int
            Bytes of the voxels, and before them.
        field : str
            What the header calls their number.
        """
        claim = f"{self.label}: {field}: the header claims {size} bytes of voxels from byte {offset} on"
        if offset + size > self.most:
            if self.packed:
                raise SourceError(f"{claim}: {expansion(self.stored)}")
            raise SourceError(f"{claim}, more than the file can hold")
        if size > limits.MAX_IMAGE_BYTES:
            raise SourceError(f"{claim}, more than the {limits.MAX_IMAGE_BYTES} that one image may have")

    def voxels(self, shape: tuple[int, ...], dtype: np.dtype[Any], field: str) -> tuple[npt.NDArray[Any], bytes]:
        """Read voxels, C order and read-only, and what follows them to the end of the file; see `check_room`."""
        values = self.exactly(math.prod(shape) * dtype.itemsize, "voxels").view(dtype).reshape(shape)
        values.flags.writeable = False
        trailing = self.rest(limits.MAX_TRAILING_BYTES)
        if trailing is None:
            raise SourceError(f"{self.label}: {field}: more than {limits.MAX_TRAILING_BYTES} bytes follow the voxels")
        return values, trailing

    def unpacked(self) -> Stream:
        """Return what follows, unpacked: it is a gzip stream behind plain bytes."""
        if self.packed:
            raise SourceError(f"{self.label}: encoding: gzip inside gzip")
        inner = gzip.GzipFile(fileobj=self._file)
        return Stream(self.label, inner, True, self.stored, limits.most_expanded(self.stored))

    def start(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._file.read(size)
        self._counted(len(data))
        return data

    def _counted(self, count: int) -> None:
        self._count += count
        if self.packed and self._count > self.most:
            raise SourceError(f"{self.label}: {expansion(self.stored)}")


def expansion(stored: int) -> str:
    """Return the refusal of what expands too far."""
    return f"expands more than {limits.MAX_EXPANSION} : 1 from {stored} stored bytes; no image does"


@contextmanager
def opened(place: Place, key: str, digest: Digest, *, packed: bool | None = None) -> Iterator[Stream]:
    """Open a file that may be gzipped, which is seen from its content unless it is known.

    Parameters
    ----------
    place, key : Place, str
        The file.
    digest : Digest
        Takes every byte of the file as it lies, when the stream is read to its end.
    packed : bool, optional
        Whether the file is gzipped.

    Raises
    ------
    SourceError
        Naming the file, if it cannot be read, its gzip stream is damaged, or it was changed while it was read.
    """
    label = place.label(key)
    try:
        size = place.size(key)
        with place.open(key) as file, io.BufferedReader(_Hashed(file, digest, size or 0), _RAW_BLOCK) as raw:
            if size is None:
                raise SourceError(f"{label}: not a file")
            stored = stored_size(place, key)
            if packed is False or (packed is None and raw.peek(2)[:2] != b"\x1f\x8b"):
                yield Stream(label, raw, False, stored, size)
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield Stream(label, unpacked, True, stored, limits.most_expanded(stored))
    except FileNotFoundError as error:
        raise SourceError(f"{label}: no such file") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{label}: damaged or truncated gzip stream: {error}") from error
    except OSError as error:
        why = CHANGED if error.errno == errno.ESTALE else f"cannot be read: {error.strerror or error}"
        raise SourceError(f"{label}: {why}") from error
