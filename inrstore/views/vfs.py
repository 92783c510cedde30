"""A store or an archive -> files: names, exact sizes, bytes at an offset. Whatever shows an archive as files asks here.

The tree is the one that the archive was made from: each store the file or files that an export gives, all else as it
was. An image that was gzipped is shown unpacked, under the name that it has then, or, if that is asked for or the name
is taken, under its own, in gzip that does not compress. A zip of the source is a folder of what was in it.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inrstore import files
from inrstore.archive.catalogue import Catalogue
from inrstore.archive.copies import ORIGINALS, is_made
from inrstore.archive.export import original_path
from inrstore.archive.manifest import MANIFEST, ManifestEntry, path_of, read_manifest, source_kind
from inrstore.archive.record import Record, archive_place, is_archive
from inrstore.archive.zips import ZIPS, splits
from inrstore.errors import FileTooLargeError, InrstoreError, StoreError
from inrstore.files.closing import Closing
from inrstore.files.names import check_name
from inrstore.files.place import RandomBytes
from inrstore.sources.registry import format_of, format_of_kind, stem
from inrstore.store import manifest
from inrstore.store.reader import Store
from inrstore.views.content import Bytes, Content, files_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FOLDER, _FILE, _IMAGE = 0, 1, 2
_MOST_STORES = 64
"""Stores that stay open after they were read: programs open the same file again and again."""
_MOST_WHOLE = 1 << 25
"""Of a file that was copied so many bytes are read, and compared with its digest, as a whole."""
_MOST_KEPT = 1 << 27
"""Bytes of such files that are kept."""


@dataclass(frozen=True)
class VirtualEntry:
    """A name in the tree.

    Parameters
    ----------
    path : str
        With slashes, without one at the start; "" for the top.
    is_folder : bool
    """

    path: str
    is_folder: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class VirtualImage:
    """An image in the tree.

    Parameters
    ----------
    path : str
        Of the file by which it is known.
    store : str
        Of its store in the archive; of a single store its name.
    seal : str
        Of its store.
    key : str
        Where it was in the source; of a single store what its source was called.
    """

    path: str
    store: str
    seal: str
    key: str


class _Names(Catalogue):
    """Every name of the tree. It lies in a temporary database, so that a million files take no memory."""

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE raw (kind TEXT, out TEXT, size INTEGER, digest TEXT, key TEXT);"
            "CREATE TABLE names (folder TEXT, name TEXT, kind INTEGER, out TEXT, size INTEGER, digest TEXT, main TEXT,"
            " PRIMARY KEY (folder, name)) WITHOUT ROWID;"
            "CREATE TABLE images (main TEXT PRIMARY KEY, out TEXT, seal TEXT, key TEXT) WITHOUT ROWID;"
            "CREATE INDEX stores ON images (out)",
            threads=True,
        )
        self._lock = threading.Lock()
        self._made = set[str]()  # the folders that were made last, and those above

    def put_raw(self, entry: ManifestEntry) -> None:
        self._db.execute("INSERT INTO raw VALUES (?, ?, ?, ?, ?)",
                         (entry.kind, entry.out, entry.bytes, entry.digest, entry.key))  # fmt: skip

    def raw(self, kind: str) -> Iterator[ManifestEntry]:
        rows = self._db.execute("SELECT out, kind, size, digest, key FROM raw WHERE kind = ?", (kind,))
        for out, what, size, digest, key in rows:
            yield ManifestEntry(out=out, kind=what, bytes=size, digest=digest, key=key)

    def forget_raw(self) -> None:
        self._db.execute("DROP TABLE raw")

    def put(self, path: str, kind: int, out: str, size: int | None, digest: str, main: str = "") -> bool:
        """Take in a file; return False if its name is taken."""
        folder, _, name = path.rpartition("/")
        if not self._put_folder(folder):
            return False
        values = (folder, name, kind, out, size, digest, main)
        return self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", values).rowcount == 1

    def _put_folder(self, path: str) -> bool:
        if not path or path in self._made:
            return True
        above, _, name = path.rpartition("/")
        if not self._put_folder(above):
            return False
        values = (above, name, _FOLDER, "", 0, "", "")
        self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        row = self.row(path)
        if row is None or row[0] != _FOLDER:
            return False
        if len(self._made) > 10_000:
            self._made.clear()
        self._made.add(path)
        return True

    def row(self, path: str) -> tuple[int, str, int | None, str, str] | None:
        folder, _, name = path.rpartition("/")
        with self._lock:
            found = self._db.execute(
                "SELECT kind, out, size, digest, main FROM names WHERE folder = ? AND name = ?", (folder, name)
            )
            row: tuple[int, str, int | None, str, str] | None = found.fetchone()
        return row

    def listing(self, folder: str) -> list[tuple[str, int]]:
        with self._lock:
            found = self._db.execute("SELECT name, kind FROM names WHERE folder = ? ORDER BY name", (folder,))
            return found.fetchall()

    def set_size(self, path: str, size: int) -> None:
        folder, _, name = path.rpartition("/")
        with self._lock:
            self._db.execute("UPDATE names SET size = ? WHERE folder = ? AND name = ?", (size, folder, name))

    def put_image(self, main: str, out: str, seal: str, key: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", (main, out, seal, key))

    def image(self, column: str, value: str) -> tuple[str, str, str, str] | None:
        """Return first file, store, seal and key of an image, by the first or the second."""
        with self._lock:
            query = f"SELECT main, out, seal, key FROM images WHERE {column} = ? LIMIT 1"  # noqa: S608 - own text
            row: tuple[str, str, str, str] | None = self._db.execute(query, (value,)).fetchone()
        return row

    def images(self, offset: int, limit: int, words: str) -> list[tuple[str, str, str, str]]:
        with self._lock:
            query = "SELECT main, out, seal, key FROM images WHERE instr(lower(main), ?) ORDER BY main LIMIT ? OFFSET ?"
            return self._db.execute(query, (words.lower(), limit, offset)).fetchall()

    def count_images(self, words: str) -> int:
        with self._lock:
            query = "SELECT count(*) FROM images WHERE instr(lower(main), ?)"
            return int(self._db.execute(query, (words.lower(),)).fetchone()[0])

    def main_of(self, out: str) -> str | None:
        """Return the first file of the image of a store."""
        found = self.image("out", out)
        return None if found is None else found[0]

    def count(self) -> int:
        """Return how many files there are."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM names WHERE kind != ?", (_FOLDER,)).fetchone()[0])


class Vfs(Closing):
    """A store or a complete archive as a tree of files, to be read only, by any number of threads.

    What is seen is the archive at the time when it is opened here. Nothing of a store is read before one of its files
    is opened or its size is asked for.

    Parameters
    ----------
    where : path-like or str
        Path or URL.
    gz : bool
        Show images that were gzipped so, under the names that they had, in gzip that does not compress; else unpacked.
    scratch : str, optional
        A folder for the decoded voxels of images that are too large for `inrstore.cache`, of which every volume would
        else be decoded anew; they lie there as files without names.

    Attributes
    ----------
    label : str
        The path or URL, for people.
    time : float
        When the archive was completed, as far as that is known, in seconds since 1970.

    Raises
    ------
    StoreError
        If it is neither, is incomplete or damaged, or has a name that leads out of it.
    """

    def __init__(self, where: str | os.PathLike[str], *, gz: bool = False, scratch: str | None = None) -> None:
        self.where, self.gz, self._scratch = os.fspath(where), gz, scratch
        self._place = files.place(self.where)
        self._names = _Names()
        self._lock = threading.Lock()
        self._stores: OrderedDict[str, tuple[Store, dict[str, Content]]] = OrderedDict()
        self._whole: OrderedDict[str, Bytes] = OrderedDict()
        try:
            self.is_archive = is_archive(self._place)
        except OSError:  # a store that is a file
            self.is_archive = False
        try:
            if self.is_archive:
                self._read_archive()
                seen = self._place.label(MANIFEST)
            else:
                self._read_store()
                seen = self.where
        except BaseException:
            self.close()
            raise
        self.label = self._place.name
        self.time = os.stat(seen).st_mtime if not files.is_url(self.where) else time.time()

    def close(self) -> None:
        """Let go of it; files that are open stay so."""
        self._names.close()
        self._stores.clear()
        self._whole.clear()

    # ---- names

    def _read_archive(self) -> None:
        place = self._place
        job = Record(archive_place(self.where)).job()
        single = f"{job['source'].get('name')}:" if source_kind(job) == "zip" else ""
        zips, kept = set[str](), dict[str, ManifestEntry]()
        for entry in read_manifest(place):
            if entry.kind != "record":
                self._names.put_raw(entry)
            elif entry.out.startswith(f"{ZIPS}/"):
                zips.add(entry.out.removeprefix(f"{ZIPS}/").removesuffix(".json"))
            elif entry.out.startswith(f"{ORIGINALS}/"):
                kept[entry.out.removeprefix(f"{ORIGINALS}/")] = entry

        def path_in_source(entry: ManifestEntry) -> str:
            zipped = single or next((f"{head}:" for head, _ in splits(entry.key) if head in zips), "")
            return original_path(entry, zipped)

        for entry in self._names.raw("file"):
            original = kept.get(entry.out)
            if original is None and is_made(job, entry):
                continue
            taken = original or entry
            self._put(path_in_source(entry), _FILE, taken.out, taken.bytes, taken.digest)
        later = []
        for entry in self._names.raw("store"):
            path = path_in_source(entry)
            if self._plain(path) != path and not self.gz:
                later.append((entry, path))  # those that have their own name keep it
            else:
                self._put_image(path, entry, path)
        for entry, path in later:
            plain = self._plain(path)
            self._put_image(path if self._names.row(plain) else plain, entry, path)
        self._names.forget_raw()

    @staticmethod
    def _plain(path: str) -> str:
        found = format_of(path)
        return path if found is None else found.plain(path)

    def _put_image(self, path: str, entry: ManifestEntry, original: str) -> None:
        """Take in a store under the name of its first file; where others belong to it, the store says which."""
        found = format_of(original)
        self._names.put_image(path, entry.out, entry.digest, entry.key)
        if found is None or len(found.suffixes) == 1:
            self._put(path, _IMAGE, entry.out, None, entry.digest, path)
            return
        folder = path.rpartition("/")[0]
        with _naming(self._place.label(entry.out)):
            contents = files_of(self._open_store(entry.out, entry.digest), path.rpartition("/")[2])
        for name, content in contents.items():
            self._put(f"{folder}/{name}" if folder else name, _IMAGE, entry.out, content.size, entry.digest, path)

    def _put(self, path: str, kind: int, out: str, size: int | None, digest: str, main: str = "") -> None:
        problem = check_name(path)
        if not problem and not self._names.put(path, kind, out, size, digest, main):
            problem = "another file or folder has the name"
        if problem:
            raise StoreError(f"{self._place.name}: the record names {path[:200]!r}: {problem}")

    def _read_store(self) -> None:
        store = Store(self.where)
        source = store.attributes["source"]
        kind, name = str(source.get("kind")), str(source.get("name"))
        found = format_of_kind(kind)
        if found is None:
            raise StoreError(f"{store.label}: source: kind: {kind!r} is no format that can be written")
        if not found.names(name) or found.names(name)[0] != name:
            name = stem(name) + found.suffixes[0][0]
        name = name if self.gz else found.plain(name)
        if check_name(name) or "/" in name:
            raise StoreError(f"{store.label}: source: name: {name[:200]!r} is no name of a file")
        contents = files_of(store, name, self._scratch)
        self._names.put_image(name, "", store.seal, str(source.get("name")))
        for part, content in contents.items():
            if not self._names.put(part, _IMAGE, "", content.size, store.seal, name):
                raise StoreError(f"{store.label}: source: name: two files would be called {part!r}")
        self._stores[name] = store, contents

    # ---- looking

    def entry(self, path: str) -> VirtualEntry:
        """Return what a path is.

        Parameters
        ----------
        path : str
            With slashes; those at its ends do not count. "" is the top.

        Raises
        ------
        FileNotFoundError
        """
        path = path.strip("/")
        return VirtualEntry(path, not path or self._row(path)[0] == _FOLDER)

    def entries(self, path: str = "") -> list[VirtualEntry]:
        """Return what is in a folder, in the order of the names.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
        """
        path = path.strip("/")
        if path and self._row(path)[0] != _FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        found = self._names.listing(path)
        return [VirtualEntry(f"{path}/{name}" if path else name, kind == _FOLDER) for name, kind in found]

    def walk(self, path: str = "") -> Iterator[VirtualEntry]:
        """Yield every file below a folder."""
        for entry in self.entries(path):
            if entry.is_folder:
                yield from self.walk(entry.path)
            else:
                yield entry

    def size(self, path: str) -> int:
        """Return the bytes of a file, exactly. For an image its store is opened the first time, and nothing decoded.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
        OSError
            EIO, if its store is damaged.
        """
        path = path.strip("/")
        size = self._file_row(path)[2]
        if size is None:
            size = self._content(path).size
            self._names.set_size(path, size)
        return size

    def open(self, path: str) -> VirtualFile:
        """Open a file for reading.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
        OSError
            EIO, if what it is made from is missing, damaged, or not what the archive wrote.
        """
        path = path.strip("/")
        return VirtualFile(self, path, self._content(path))

    def count(self) -> int:
        """Return how many files there are."""
        return self._names.count()

    # ---- contents

    def content(self, path: str) -> Content:
        """Return the bytes of a file; errors as of `open`, and when they are read those of their store."""
        return self._content(path.strip("/"))

    def place_of(self, image: VirtualImage) -> tuple[files.WritablePlace, str]:
        """Return the place that holds the store of an image, and its key there."""
        return (self._place, image.store) if self.is_archive else files.split(self.where)

    def store(self, path: str) -> Store:
        """Return the store that a file of an image is made from.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
        StoreError
            If the file is no image, or its store is damaged.
        """
        path = path.strip("/")
        kind, out, _, digest, main = self._file_row(path)
        if kind != _IMAGE:
            raise StoreError(f"{self.label}: {path} is no image that was converted")
        return self._image(out, digest, main)[0]

    def find(self, path: str) -> str | None:
        """Return the file by which an image is known, by any of its names; None if there is no such image.

        Parameters
        ----------
        path : str
            Of a file of the image, as it is shown here or as it was called in the source; or of its store.
        """
        path = path.strip("/")
        for name in (path, self._plain(path)):
            row = self._names.row(name) if name else None
            if row is not None and row[0] == _IMAGE:
                return row[4]
        return self._names.main_of(path)

    def digest(self, path: str) -> str:
        """Return what changes with the bytes of a file: the seal of its store, or of a copy its digest.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
        """
        return self._file_row(path.strip("/"))[3]

    def images(self, offset: int, limit: int, words: str = "") -> list[VirtualImage]:
        """Return some of the images with these words in their paths, in the order of these; no store is opened."""
        return [self._virtual(*row) for row in self._names.images(offset, limit, words)]

    def count_images(self, words: str = "") -> int:
        """Return how many images there are with these words in their paths."""
        return self._names.count_images(words)

    def image(self, path: str) -> VirtualImage | None:
        """Return the image of which a path is the first file."""
        row = self._names.image("main", path)
        return None if row is None else self._virtual(*row)

    def image_of(self, store: str) -> VirtualImage | None:
        """Return the image of a store, by the store's path as a `VirtualImage` has it."""
        if not self.is_archive:
            store = "" if store == self.name else "\0"
        row = self._names.image("out", store)
        return None if row is None else self._virtual(*row)

    def _virtual(self, main: str, out: str, seal: str, key: str) -> VirtualImage:
        return VirtualImage(main, out or self.name, seal, key)

    @property
    def name(self) -> str:
        """The last part of the path or URL."""
        return os.path.basename(self.where.rstrip("/") if files.is_url(self.where) else os.path.abspath(self.where))

    def first(self) -> str:
        """Return the file by which the image of a store is known."""
        return self._names.main_of("") or ""

    def parts(self, path: str) -> list[str]:
        """Return the files of an image, given one of them, that by which it is known first."""
        path = path.strip("/")
        kind, out, _, digest, main = self._file_row(path)
        if kind != _IMAGE:
            return [path]
        folder, slash, _ = main.rpartition("/")
        with _naming(path):
            return [folder + slash + name for name in self._image(out, digest, main)[1]]

    def _row(self, path: str) -> tuple[int, str, int | None, str, str]:
        row = self._names.row(path)
        if row is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return row

    def _file_row(self, path: str) -> tuple[int, str, int | None, str, str]:
        if not path or (row := self._row(path))[0] == _FOLDER:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return row

    def _content(self, path: str) -> Content:
        kind, out, size, digest, main = self._file_row(path)
        with _naming(path):
            if kind == _IMAGE:
                return self._image(out, digest, main)[1][path.rpartition("/")[2]]
            return self._copied(out, size or 0, digest)

    def _image(self, out: str, seal: str, main: str) -> tuple[Store, dict[str, Content]]:
        """Return a store and its files, which stay open for a while."""
        with self._lock:
            if main in self._stores:
                self._stores.move_to_end(main)
                return self._stores[main]
        store = self._open_store(out, seal)
        made = store, files_of(store, main.rpartition("/")[2], self._scratch)
        with self._lock:
            made = self._stores.setdefault(main, made)
            while len(self._stores) > _MOST_STORES:
                self._stores.popitem(last=False)
        return made

    def _open_store(self, out: str, seal: str) -> Store:
        where = path_of(self._place, out) if out else self.where
        store = Store(where)
        if store.seal != seal:
            raise StoreError(f"{where}: is another store than the one in the manifest: its seal differs")
        return store

    def _copied(self, out: str, size: int, digest: str) -> Content:
        """Return a file of the archive; a small one was compared with its digest, of a large one the size."""
        where = self._place.label(out)
        if size > _MOST_WHOLE:
            place = files.place(self.where)
            return _Ranges(place.random(out), size, where)
        with self._lock:
            if out in self._whole:
                self._whole.move_to_end(out)
                return self._whole[out]
        try:
            data = files.read(self._place, out, size)
        except FileNotFoundError:
            raise StoreError(f"{where}: is missing") from None
        except FileTooLargeError as error:
            raise StoreError(f"{where}: was changed: {error}") from None
        if len(data) != size or manifest.digest(data) != digest:
            raise StoreError(f"{where}: was changed: its digest is not that of the manifest")
        with self._lock:
            self._whole[out] = content = Bytes(data)
            while sum(one.size for one in self._whole.values()) > _MOST_KEPT:
                self._whole.popitem(last=False)
        return content


class _Ranges:
    """A large file of the archive, read where it lies."""

    def __init__(self, bytes_: RandomBytes, size: int, where: str) -> None:
        if bytes_.size != size:
            raise StoreError(f"{where}: has {bytes_.size} bytes, the manifest says {size}")
        self._bytes, self._where, self.size = bytes_, where, size

    def read_into(self, offset: int, view: memoryview) -> None:
        data = self._bytes.read_at(offset, len(view))
        if len(data) != len(view):
            raise StoreError(f"{self._where}: ends early")
        view[:] = data


class VirtualFile(io.RawIOBase):
    """A file of a `Vfs`, open for reading; several threads can `read_at` at once.

    A copy that is sent to another process opens it there again.

    Parameters
    ----------
    vfs : Vfs
    path : str
    content : Content
    """

    def __init__(self, vfs: Vfs, path: str, content: Content) -> None:
        self._opened_by = vfs.where, vfs.gz, path
        self._content, self._at = content, 0
        self.name, self.size = path, content.size

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (*self._opened_by, self._at)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on; fewer at the end, and none behind it.

        Raises
        ------
        OSError
            EIO, if what they are made from is missing or damaged; never other bytes.
        """
        size = max(0, min(size, self.size - offset))
        data = bytearray(size)
        self._fill(offset, memoryview(data))
        return bytes(data)

    def _fill(self, offset: int, view: memoryview) -> None:
        if view:
            with _naming(self.name):
                self._content.read_into(offset, view)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "before the start of the file", self.name)
        self._at = at
        return at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read from the place on."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._at))
        self._fill(self._at, view[:count])
        self._at += count
        return count


def _reopened(where: str, gz: bool, path: str, at: int) -> VirtualFile:
    with Vfs(where, gz=gz) as vfs:
        file = vfs.open(path)
    file.seek(at)
    return file


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn what is wrong with a store into the error of a disk, EIO, that says so."""
    try:
        yield
    except (InrstoreError, MemoryError) as error:
        raise OSError(errno.EIO, " ".join(str(error).split()) or type(error).__name__, path) from error
