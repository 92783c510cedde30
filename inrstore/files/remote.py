"""A bucket, or a prefix of one, as a `WritablePlace`; a web server as a `Place`. All requests go through obstore.

Credentials and endpoints come from the usual variables of the environment: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
AWS_ALLOW_HTTP, AWS_SKIP_SIGNATURE, AZURE_STORAGE_ACCOUNT_NAME, GOOGLE_APPLICATION_CREDENTIALS and the like. They
never become part of a place: one that travels to a worker finds them there again. Failed requests are repeated by
obstore.
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast
from urllib.parse import quote, unquote

from inrstore.errors import ConfigurationError, FileTooLargeError, MissingDependencyError
from inrstore.files.local import CHANGED
from inrstore.files.place import Entry

if TYPE_CHECKING:
    from obstore import Bytes, ObjectMeta, PutMode
    from obstore.store import ObjectStore
    from zarr.storage import ObjectStore as ZarrStore

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")
"""Beginnings of the URLs that are understood."""

FIRST_BYTES = 1 << 18
"""Bytes of the first request for an object; small ones, most of them, are whole then."""

MOST_BYTES = 1 << 23
"""Bytes of one request when an object is read on and on, and of one part of a large write."""

MOST_PUT = 5 << 30
"""Bytes of the largest object that one put can make."""

LAST_BYTES = (1 << 16) + 22
"""Bytes of the first request for what is read from its end: the longest comment of a zip and its end record."""

Version: TypeAlias = dict[str, str]
"""What tells one state of an object from the next: its etag, its generation."""


@dataclass(frozen=True)
class Found:
    """An object as it was at one moment: its bytes, its version, when it was written by the clock of the server."""

    data: bytes
    version: Version
    modified: datetime


class ObjectPlace:
    """A prefix of a bucket, or a folder of a web server, which can only be read and not listed.

    Parameters
    ----------
    url : str
        "s3://bucket/prefix", "gs://bucket/prefix", "az://container/prefix", "https://host/folder". The prefix of
        a bucket is taken as it stands (a "%" or "#" is that character); a web address is a URL in the strict sense.

    Raises
    ------
    ConfigurationError
        If the URL cannot be understood, or something it needs is not in the environment.
    MissingDependencyError
        Without obstore.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        self.name = url.rstrip("/")
        self._web = scheme in ("http", "https")
        bucket, _, prefix = rest.partition("/")
        if scheme not in SCHEMES or not bucket:
            raise ConfigurationError(f"{url!r}: not a URL that is known; they begin with {'://, '.join(SCHEMES)}://")
        if self._web and ("?" in url or "#" in url):
            raise ConfigurationError(f"{url!r}: a web address with '?' or '#' cannot be used")
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise MissingDependencyError('URLs need obstore: pip install "inrstore[remote]"') from error
        try:
            if self._web:
                self._store: ObjectStore = from_url(self.name, client_options={"allow_http": True})
            else:
                self._store = from_url(f"{scheme}://{bucket}/{quote(prefix.strip('/'))}")
        except (BaseError, ValueError) as error:
            raise ConfigurationError(f"{url!r}: cannot be used: {_reason(error)}") from error

    def __reduce__(self) -> tuple[type[ObjectPlace], tuple[str]]:
        return type(self), (self.name,)

    def label(self, key: str) -> str:
        """Return the URL of a file."""
        return f"{self.name}/{key}"

    def _at(self, key: str) -> str:
        """Return a key as obstore takes it; one that is not plain would name another object, or none."""
        if not key or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
            raise ConfigurationError(f"{key!r} is not a path inside {self.name}")
        return unquote(key) if self._web else key

    def open(self, key: str) -> BinaryIO:
        """Open an object: it is fetched in pieces as it is read, 8 MiB at most are held, and seeking is possible.

        From a web server that cannot send pieces it comes as one stream, without seeking.
        """
        from obstore.exceptions import GenericError, NotSupportedError

        path = self._at(key)
        with explained(self.label(key)):
            try:
                data, info = self._piece(path, 0, FIRST_BYTES, {})
            except NotSupportedError:
                stream = self._store.get(path).stream(min_chunk_size=FIRST_BYTES)
                return io.BufferedReader(_Stream(self.label(key), iter(stream)))
            except GenericError:
                if self._store.head(path)["size"]:
                    raise
                return io.BytesIO()  # there is no first byte to ask for
        return io.BufferedReader(_Object(self, key, data, info))

    def _piece(self, path: str, start: int, stop: int, same: Version) -> tuple[Bytes, ObjectMeta]:
        """Return bytes of an object, of the version `same` if that is given."""
        options: dict[str, Any] = {"range": (start, stop)}
        tag = same.get("e_tag", "W/")
        if not tag.startswith("W/"):  # weak tags are equal for different bytes
            options["if_match"] = tag
        got = self._store.get(path, options=cast(Any, options))
        return got.bytes(), got.meta

    def piece(self, key: str, start: int, stop: int, first: ObjectMeta) -> Bytes:
        """Return the bytes of an object from `start` up to `stop`.

        Raises
        ------
        OSError
            ESTALE if the object is another one than when `first` was said of it, by its version, size or date.
        """
        with explained(self.label(key)):
            data, info = self._piece(self._at(key), start, stop, _version(first))
        # Not every server keeps the condition, and those with weak tags are not asked to.
        if _identity(info) != _identity(first):
            raise OSError(errno.ESTALE, CHANGED, self.label(key))
        return data

    def random(self, key: str) -> RemoteBytes:
        """Open an object for reading anywhere in it; the first request brings its end."""
        return RemoteBytes(self, key)

    def end(self, key: str) -> tuple[Bytes, ObjectMeta]:
        """Return the last bytes of an object, at least `LAST_BYTES` of them or all, and what the server says of it."""
        from obstore.exceptions import GenericError, NotSupportedError

        path = self._at(key)
        with explained(self.label(key)):
            try:
                got = self._store.get(path, options={"range": {"suffix": LAST_BYTES}})
            except (NotSupportedError, GenericError):  # a server that knows no ranges, or an empty object
                got = self._store.get(path)
            return got.bytes(), got.meta

    def size(self, key: str) -> int | None:
        """Return the bytes of an object, or None if there is none."""
        try:
            with explained(self.label(key)):
                return int(self._store.head(self._at(key))["size"])
        except FileNotFoundError:
            return None

    def stamp(self, key: str) -> str:
        """Return size and tag of an object, or its time where it has no tag; "" if there is none."""
        try:
            with explained(self.label(key)):
                info = self._store.head(self._at(key))
        except FileNotFoundError:
            return ""
        return f"{info['size']}-{info.get('e_tag') or info['last_modified'].isoformat()}"

    def fetch(self, key: str, limit: int) -> Found | None:
        """Return a whole object with its version, or None if there is none.

        Raises
        ------
        FileTooLargeError
            If it is larger than `limit` bytes.
        """
        try:
            with explained(self.label(key)):
                got = self._store.get(self._at(key))
                if got.meta["size"] > limit:
                    raise FileTooLargeError(f"{self.label(key)}: larger than {limit} bytes")
                return Found(got.bytes().to_bytes(), _version(got.meta), got.meta["last_modified"])
        except FileNotFoundError:
            return None

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object below `prefix` page by page, in the order of the bytes of their keys.

        (A directory bucket of S3 is listed in an order of its own.) Objects that only stand for a folder are left out.
        """
        where = self.label(prefix) if prefix else self.name
        if self._web:
            raise OSError(errno.ENOTSUP, "a web server cannot be listed", where)
        with explained(where):
            pages = iter(self._store.list(self._at(prefix) if prefix else None, chunk_size=1000))
        while True:
            with explained(where):
                page = next(pages, None)
            if page is None:
                return
            for info in page:
                key = str(info["path"])
                # The key of a folder's object ends with a slash, which the list does not show.
                if info["size"] or (key and self.size(key) is not None):
                    yield Entry(key, int(info["size"]))

    def write(self, key: str, data: bytes) -> None:
        """Write an object; no reader ever sees a part of it."""
        self._put(key, data, "overwrite")

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write an object that comes in blocks, holding some 40 MiB; if they end in an error nothing is written."""
        rest = iter(blocks)
        first, size = [], 0
        for block in rest:
            first.append(block)
            size += len(block)
            if size >= MOST_BYTES:
                break
        else:
            self.write(key, b"".join(first))
            return
        self._put(key, chain(first, rest), "overwrite")

    def create(self, key: str, blocks: Iterable[bytes]) -> bool:
        """Write an object unless there is one, in one conditional put; of several at once, one wins.

        If the answer of the server is lost, the request is repeated, and then finds what it wrote itself: who gets
        False compares the bytes.

        Raises
        ------
        OSError
            Also for more than `MOST_PUT` bytes, which no service takes in one put.
        """
        from obstore.exceptions import AlreadyExistsError

        data = b"".join(blocks)
        if len(data) > MOST_PUT:
            raise OSError(errno.EFBIG, f"{len(data)} bytes; one put takes {MOST_PUT}", self.label(key))
        try:
            self._put(key, data, "create")
        except AlreadyExistsError:
            return False
        return True

    def swap(self, key: str, data: bytes, old: Version | None) -> Version | None:
        """Write an object in the place of one version of it and of no other.

        Parameters
        ----------
        key : str
        data : bytes
            No other writer may ever write the same: by them it is seen who won when an answer was lost.
        old : Version or None
            What is to be replaced; None if nothing may be there.

        Returns
        -------
        Version or None
            Of what was written; None if something else is there by now.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._put(key, data, "create" if old is None else cast("PutMode", old))
        except (AlreadyExistsError, PreconditionError):
            there = self.fetch(key, max(len(data), 1 << 23))
            return there.version if there is not None and there.data == data else None

    def _put(self, key: str, data: bytes | Iterator[bytes], mode: PutMode) -> Version:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        path = self._at(key)
        with explained(self.label(key), AlreadyExistsError, PreconditionError):
            if self._web:
                raise OSError(errno.EROFS, "a web server can only be read", self.label(key))
            return _version(self._store.put(path, data, mode=mode, chunk_size=MOST_BYTES, max_concurrency=4))

    def remove(self, key: str) -> None:
        """Remove an object; it is no error if there is none."""
        self.remove_all([key])

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects, in no order; it is no error if one is not there."""
        paths = [self._at(key) for key in keys]
        with explained(self.name):
            for start in range(0, len(paths), 1000):
                self._store.delete(paths[start : start + 1000])

    def zarr_store(self, key: str = "") -> ZarrStore[Any]:
        """Return this place, or what lies below `key`, as a store for zarr and xarray, read only."""
        from zarr.storage import ObjectStore

        inner = ObjectPlace(self.label(self._at(key))) if key else self
        return ObjectStore(inner._store, read_only=True)


def _identity(info: Any) -> tuple[Version, int, datetime | None]:
    """Return what tells one state of an object from the next; its date only where it has no strong tag."""
    version = _version(info)
    strong = not version.get("e_tag", "W/").startswith("W/")
    return version, int(info["size"]), None if strong else info["last_modified"]


def _version(info: Any) -> Version:
    return {name: info[name] for name in ("e_tag", "version") if info.get(name) is not None}


@contextmanager
def explained(where: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn errors of obstore, but those `passed`, into an OSError with one readable line that names the URL."""
    from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

    try:
        yield
    except passed:
        raise
    except FileNotFoundError as error:
        if error.errno is not None:
            raise  # not from obstore: blocks that come from a file
        if "NoSuchBucket" in str(error):
            raise OSError(errno.EIO, "there is no such bucket", where) from error
        raise FileNotFoundError(errno.ENOENT, "there is no such object", where) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _reason(error), where) from error
    except PreconditionError as error:
        raise OSError(errno.ESTALE, CHANGED, where) from error
    except BaseError as error:
        raise OSError(errno.EIO, _reason(error), where) from error


def _reason(error: Exception) -> str:
    """Return what a server or obstore says, without its pages of details."""
    text = str(error).partition("\n\nDebug source")[0]
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return "no credentials were found in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the like)"
    if "builder error" in text:
        return "http:// without encryption has to be allowed: AWS_ALLOW_HTTP=true, or the like"
    said = re.search(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", text)
    return f"{said[2]} ({said[1]})" if said else " ".join(text.split())[:300]


class RemoteBytes:
    """An object, read anywhere; what was read stays for a while if it is small, so that neighbours cost no request.

    Parameters
    ----------
    place : ObjectPlace
    key : str
    """

    def __init__(self, place: ObjectPlace, key: str) -> None:
        self._place, self._key = place, key
        data, info = place.end(key)
        self.size, self._first = int(info["size"]), info
        self._pieces = [(self.size - len(data), data.to_bytes())]

    def read_at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` on, in one request at most; fewer at the end."""
        stop = min(start + length, self.size)
        if start >= stop:
            return b""
        for begin, data in self._pieces:
            if begin <= start and stop <= begin + len(data):
                return data[start - begin : stop - begin]
        found = self._place.piece(self._key, start, stop, self._first).to_bytes()
        if len(found) != stop - start:
            raise OSError(errno.EIO, "the server sent less than was asked for", self._place.label(self._key))
        if len(found) <= FIRST_BYTES:
            self._pieces = [*self._pieces[:1], *self._pieces[-2:], (start, found)]
        return found

    def close(self) -> None:
        """Nothing is open."""


class _Object(io.RawIOBase):
    """An object, read in pieces that grow while it is read on and are small again after a jump."""

    def __init__(self, place: ObjectPlace, key: str, data: Bytes, info: ObjectMeta) -> None:
        self._place, self._key = place, key
        self.size, self._first = int(info["size"]), info
        self._data, self._start = memoryview(data), 0
        self._at = 0
        self._step = FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "before the start", self._place.label(self._key))
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self.size:
            return 0
        end = self._start + len(self._data)
        if not self._start <= self._at < end:
            self._step = min(2 * self._step, MOST_BYTES) if self._at == end else FIRST_BYTES
            self._data = memoryview(b"")  # let go of the old piece before the new one comes
            stop = min(self._at + self._step, self.size)
            self._data = memoryview(self._place.piece(self._key, self._at, stop, self._first))
            self._start = self._at
            if len(self._data) != stop - self._at:
                raise OSError(errno.EIO, "the server sent less than was asked for", self._place.label(self._key))
        found = self._data[self._at - self._start :][: len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class _Stream(io.RawIOBase):
    """An object as the server sends it, from its start to its end."""

    def __init__(self, label: str, parts: Iterator[Any]) -> None:
        self._label, self._parts = label, parts
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._data:
            with explained(self._label):
                part = next(self._parts, None)
            if part is None:
                return 0
            self._data = memoryview(part)
        found = self._data[: len(buffer)]
        buffer[: len(found)] = found
        self._data = self._data[len(found) :]
        return len(found)
