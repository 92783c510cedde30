"""The source of a store or archive where it still lies -> the unpacked bytes of its images, at any offset.

A file that is packed, or lies in a zip, is unpacked once into a file without a name. A file of the source is reached
by the key that the archive has of it, and only if that is an image's; DICOM folders are left alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from inrstore import files, limits
from inrstore.archive.origin import origin_of
from inrstore.archive.record import Record, archive_place
from inrstore.archive.zips import splits
from inrstore.errors import ConfigurationError, SourceError, StoreError
from inrstore.files import Place
from inrstore.files.closing import Closing
from inrstore.files.place import RandomBytes
from inrstore.sources import read_image
from inrstore.sources.registry import format_of
from inrstore.sources.streams import Digest, opened
from inrstore.store.manifest import digest
from inrstore.views.content import Content
from inrstore.views.vfs import Vfs, VirtualImage

_MOST_KEPT = 8
"""Files that were unpacked and are kept."""
_PIECE = 1 << 22


class Lying:
    """A file where it lies, open.

    Parameters
    ----------
    file : RandomBytes
    label : str
        How messages name it.
    """

    def __init__(self, file: RandomBytes, label: str) -> None:
        self._file, self._label, self.size, self.close = file, label, file.size, file.close

    def read_into(self, offset: int, view: memoryview) -> None:
        """Read a part of it."""
        data = self._file.read_at(offset, len(view))
        if len(data) != len(view):
            raise StoreError(f"{self._label}: ends early; it was changed while it was read")
        view[:] = data


class _Unpacked:
    """A file without a name."""

    def __init__(self, folder: str, pieces: Iterator[bytes], most: int, label: str) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        weakref.finalize(self, self._file.close)
        self.size = 0
        for piece in pieces:
            self.size += len(piece)
            if self.size > most:
                raise SourceError(f"{label}: holds more than {most} bytes: it is not what the store was made from")
            self._file.write(piece)
        self._file.flush()

    def read_into(self, offset: int, view: memoryview) -> None:
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if not count:
                raise OSError("a temporary file ends early")
            view, offset = view[count:], offset + count


class Originals(Closing):
    """What the images of a store or an archive were made from.

    Parameters
    ----------
    vfs : Vfs
    source : path-like or str
        Of a store the file that it was made from; of an archive the tree, or the zip.
    scratch : str, optional
        Folder for what is unpacked; that of the system for temporary files.

    Raises
    ------
    ConfigurationError
        If there is no such file, or folder.
    """

    def __init__(self, vfs: Vfs, source: str | os.PathLike[str], scratch: str | None = None) -> None:
        self._vfs, self._where = vfs, os.fspath(source)
        self._scratch = tempfile.gettempdir() if scratch is None else scratch
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Unpacked] = OrderedDict()
        self._read: tuple[str, npt.NDArray[Any]] | None = None
        self._local = not files.is_url(self._where)
        if self._local and not (os.path.exists if vfs.is_archive else os.path.isfile)(self._where):
            raise ConfigurationError(f"{self._where}: no such {'source' if vfs.is_archive else 'file'}")
        if vfs.is_archive:
            self._origin = origin_of(Record(archive_place(vfs.where)).job(), self._where)
            self._place = files.place(self._origin.place.name)
        else:
            self._place, self._key = files.split(self._where)

    def close(self) -> None:
        """Let go of it."""
        self._kept.clear()
        self._read = None
        if self._vfs.is_archive:
            self._origin.close()

    def has(self, image: VirtualImage) -> bool:
        """Return whether the source has the file of an image, at the cost of a look; of a bucket, whether it may."""
        key = image.key if self._vfs.is_archive else self._key
        return not self._local or self._exists(self._place, key) is not None

    @staticmethod
    def _exists(place: Place, key: str) -> str | None:
        """Return the file of a place that a key leads to or into, None if there is none."""
        if place.size(key) is not None:
            return key
        heads = (head for head, _ in splits(key) if head.lower().endswith(".zip"))
        return next((head for head in heads if place.size(head) is not None), None)

    def open(self, path: str) -> tuple[Content, str, Callable[[], None]]:
        """Return the unpacked bytes of a file, what changes with them, and what lets go of them.

        Parameters
        ----------
        path : str
            Of a file of an image, in the tree of the `Vfs`.

        Raises
        ------
        FileNotFoundError
            If no image has it, or the source does not.
        SourceError, OSError
            If it cannot be read, or is another file.
        """
        main = self._vfs.find(path)
        image = None if main is None else self._vfs.image(main)
        if image is None or path not in self._vfs.parts(image.path):
            raise FileNotFoundError(path)
        key = image.key if self._vfs.is_archive else self._key
        folder, slash, _ = key.rpartition("/")
        beside = folder + slash + path.rpartition("/")[2]
        for name in (key,) if path == main else (beside, f"{beside}.gz"):
            if format_of(name) is not None and self._exists(self._place, name) is not None:
                return self._open(name, self._vfs.size(path))
        raise FileNotFoundError(path)

    def voxels(self, path: str) -> npt.NDArray[Any]:
        """Return the voxels of the original of an image; those of the last that was asked for are kept.

        Parameters
        ----------
        path : str
            Of a file of the image, in the tree of the `Vfs`.

        Returns
        -------
        ndarray
            (..., t, z, y, x), as they are stored, in the byte order of the file.

        Raises
        ------
        FileNotFoundError
            If there is no such image.
        SourceError
            If its source cannot be read, or has another shape or type than the store.
        """
        main = self._vfs.find(path)
        image = None if main is None else self._vfs.image(main)
        if image is None:
            raise FileNotFoundError(path)
        with self._lock:
            if self._read is None or self._read[0] != image.path:
                self._read = None
                key = image.key if self._vfs.is_archive else self._key
                place: Place = self._place
                if self._vfs.is_archive and place.size(key) is None:
                    place, key = self._origin.locate(key)
                source, store = read_image(place, key), self._vfs.store(image.path)
                is_one = source.voxels.shape == store.grid.shape and source.voxels.dtype.name == store.source_dtype.name
                if not is_one:
                    text = f"{source.voxels.dtype} {source.voxels.shape} where the store has {store.grid.shape}"
                    raise SourceError(f"{source.label}: is not what the store was made from: {text}")
                self._read = image.path, source.voxels
            return self._read[1]

    def _open(self, key: str, expected: int) -> tuple[Content, str, Callable[[], None]]:
        with self._lock:  # a zip, or what is being unpacked, is one at a time
            place: Place = self._place
            if place.size(key) is None:
                place, key = self._origin.locate(key)
            stamp = digest(f"{place.name} {key} {place.stamp(key)}".encode())
            if stamp in self._kept:
                self._kept.move_to_end(stamp)
                return self._kept[stamp], stamp, lambda: None
            with opened(place, key, Digest()) as stream:
                if not stream.packed and place is self._place:
                    file = Lying(self._place.random(key), place.label(key))
                    return file, stamp, file.close
                if shutil.disk_usage(self._scratch).free < 2 * expected:
                    raise SourceError(f"{self._scratch}: no room to unpack {place.label(key)}")
                pieces = iter(lambda: stream.start(_PIECE), b"")
                most = expected + limits.MAX_TRAILING_BYTES
                made = self._kept[stamp] = _Unpacked(self._scratch, pieces, most, place.label(key))
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return made, stamp, lambda: None
