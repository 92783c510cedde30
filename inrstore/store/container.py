"""A finished store -> where it lies: one zip (.ozx), or a folder; of this machine or in a bucket (specs/store-1.md).

A store has its name only when it is whole, on the disk, and was read back. Until then it has a random name that this
process made, which is the only thing that is ever removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from inrstore import files
from inrstore.errors import ConfigurationError, DestinationExistsError, InrstoreError, StoreError, WriteError
from inrstore.files import durable
from inrstore.files.remote import MOST_PUT, ObjectPlace
from inrstore.files.stored_zip import StoredZip, zip_blocks
from inrstore.store import manifest

Container: TypeAlias = Literal["ozx", "zarr"]
"""One zip after RFC-9 of OME-Zarr, or a folder of files."""

Member: TypeAlias = tuple[str, bytes]
"""Path inside the store, and content."""

ENDING = {"ozx": ".ozx", "zarr": ".zarr"}
_COMMENT = {"ome": {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": True}}}}
_BLOCK = 1 << 20
_ROOT = {3: "zarr.json", 2: ".zattrs"}
_MOST_ROOT = 1 << 26


def is_zip(where: str | os.PathLike[str]) -> bool:
    """Return whether a path or URL names a store that is one file."""
    return os.fspath(where).lower().endswith(ENDING["ozx"])


def open_files(where: str | os.PathLike[str]) -> files.Place:
    """Return the files of a store.

    Raises
    ------
    StoreError
        If it is a zip that is damaged, or not there.
    """
    if not is_zip(where) and (files.is_url(where) or not _begins_as_zip(where)):
        return files.place(where)
    place, key = files.split(where)
    try:
        return StoredZip(place.random(key), place.label(key))
    except FileNotFoundError:
        raise StoreError(f"{place.label(key)}: no such store") from None
    except OSError as error:
        raise StoreError(f"{place.label(key)}: cannot be read: {error.strerror or error}") from error


def _begins_as_zip(where: str | os.PathLike[str]) -> bool:
    if not os.path.isfile(where):
        return False
    with suppress(OSError), open(where, "rb") as file:
        return file.read(4) == b"PK\3\4"
    return False


def refuse_existing(destination: str | os.PathLike[str]) -> None:
    """Raise DestinationExistsError if anything has this name: a file, a dangling link, an object, a prefix."""
    if not files.is_url(destination):
        taken = os.path.lexists(destination)
    elif is_zip(destination):
        place, key = files.split(destination)
        taken = place.size(key) is not None
    else:
        taken = False  # objects below it may be what is left of a conversion that died; `_Upload` tells
    if taken:
        raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")


def seal_of(where: str) -> str:
    """Return the seal of the store of this name, "" if there is none, or one whose document is not what was sealed."""
    for number in (3, 2):
        with suppress(OSError, ValueError, InrstoreError):
            document = files.read(open_files(where), _ROOT[number], _MOST_ROOT)
            return manifest.read_seal(document) if manifest.sealed(document) else ""
    return ""


def publish(
    destination: str, members: Sequence[Member], *, work: str = "", ome: bool = True, replaces: str = ""
) -> int:
    """Write a store, read it back, give it its name.

    Parameters
    ----------
    destination : str
        Path or URL; one that ends in .ozx becomes a zip.
    members : sequence of (str, bytes)
        Every file in the order of RFC-9: the root's document, the other documents, the rest.
    work : str
        Folder of the same file system for what is unfinished; that of the destination if it is empty.
    ome : bool
        Whether it is an OME-Zarr, which the comment of a zip says.
    replaces : str
        Seal of the store that may have the name, and makes way in one step when the new one is whole.

    Returns
    -------
    int
        Bytes of all its files, of a zip those of the zip.

    Raises
    ------
    DestinationExistsError, DestinationHeldError
        If something, or another process, has the name.
    WriteError
        If it cannot be written; nothing is left then.
    StoreError
        If what was written reads otherwise.
    """
    if replaces and seal_of(destination) != replaces:
        raise DestinationExistsError(f"{destination}: is another store than the one that was to be replaced")
    with explained(destination):
        if is_zip(destination):
            comment = json.dumps(_COMMENT, separators=(",", ":")).encode() if ome else b""
            blocks = zip_blocks(((key, data, key.endswith(".json")) for key, data in members), comment)
            if files.is_url(destination):
                return _put_zip(destination, blocks, replaces)
            return _write_zip(Path(destination), blocks, Path(work) if work else None, replace=bool(replaces))
        if files.is_url(destination) and replaces:
            raise StoreError(f"{destination}: a folder in a bucket cannot be replaced in one step; remove it first")
        if files.is_url(destination):
            _put_folder(destination, members)
        else:
            _write_folder(Path(destination), members, Path(work) if work else None, replace=bool(replaces))
    return sum(len(data) for _, data in members)


# ---- this machine


def _write_zip(path: Path, blocks: Iterable[bytes], work: Path | None, *, replace: bool) -> int:
    wanted = hashlib.sha256()
    made = durable.write_new(work or path.parent, _passing(blocks, wanted))
    try:
        found = hashlib.sha256()
        with made.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
            size = file.tell()
        _check_equal(str(path), found.digest(), wanted.digest())
        if replace:
            durable.rename(made, path)
        else:
            durable.give_name(made, path)
    except FileExistsError:
        raise DestinationExistsError(f"{path}: exists already; remove it or choose another name") from None
    finally:
        durable.remove(made)
    return size


def _passing(blocks: Iterable[bytes], sha256: hashlib._Hash) -> Iterator[bytes]:
    for block in blocks:
        sha256.update(block)
        yield block


def _write_folder(path: Path, members: Sequence[Member], work: Path | None, *, replace: bool) -> None:
    durable.make_folder(work or path.parent)
    durable.make_folder(path.parent)
    made = durable.temporary(work or path.parent)
    made.mkdir()  # fails if something has the name, so all that is in it is ours
    try:
        for key, data in (*members[1:], members[0]):  # without the root's document it is no store
            file = made / key
            durable.make_folder(file.parent)
            durable.write_first(file, data)
            _check_equal(str(path / key), file.read_bytes(), data)
        durable.sync_folders(made)
        if replace:
            _exchange(made, path)
            return
        refuse_existing(path)  # a rename would replace an empty folder without a word
        durable.rename(made, path)
    except BaseException:
        durable.remove_folder(made)
        raise


def _exchange(made: Path, path: Path) -> None:
    """Give a new store its name, which an old one has. Between the two steps there is none, and no half of one."""
    old = durable.temporary(made.parent)
    durable.rename(path, old)
    try:
        durable.rename(made, path)
    except BaseException:
        durable.rename(old, path)
        raise
    durable.remove_folder(old)


def _check_equal(where: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise StoreError(f"{where}: reads otherwise than it was written; the disk or its file system is at fault")


# ---- buckets


def _put_zip(destination: str, blocks: Iterable[bytes], replaces: str) -> int:
    place, key = files.split(destination)
    data = b"".join(blocks)
    if replaces:
        assert isinstance(place, ObjectPlace)
        there = place.fetch(key, MOST_PUT)
        if there is None or seal_of(destination) != replaces or place.swap(key, data, there.version) is None:
            raise DestinationExistsError(f"{destination}: was changed meanwhile, and was not replaced")
        return len(data)
    # A put whose answer was lost is repeated, and then finds its own object.
    new = place.create(key, [data])
    same = files.read(place, key, len(data) + 1) == data
    if not new and not same:
        raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")
    if not same:
        raise StoreError(f"{destination}: reads otherwise than it was written")
    return len(data)


def _put_folder(destination: str, members: Sequence[Member]) -> None:
    """Write a store to a bucket, where nothing can be renamed: the root's document, which makes it a store, comes last.

    Beside it lies the claim of who writes it. Objects without a root's document are what is left of a claim's dead
    holder; without a claim they are somebody's.
    """
    from inrstore.files.claim import Claim

    root, _, name = destination.rstrip("/").rpartition("/")
    if root.endswith("/") or not name:
        raise ConfigurationError(f"{destination!r}: a store cannot be a whole bucket; name a folder in it")
    place = ObjectPlace(root)
    claim = Claim(place, f"{name}.claim", destination)
    written: list[str] = []
    try:
        there = [entry.key for entry in place.walk(name)]
        if f"{name}/{members[0][0]}" in there or (there and claim.fresh):
            raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")
        place.remove_all(there)
        for key, data in members[1:]:
            claim.check()
            written.append(f"{name}/{key}")
            place.write(f"{name}/{key}", data)
            _check_equal(f"{destination}/{key}", files.read(place, f"{name}/{key}", len(data) + 1), data)
        claim.renew()
        key, data = members[0]
        if not place.create(f"{name}/{key}", [data]) and files.read(place, f"{name}/{key}", len(data) + 1) != data:
            written.clear()  # they may be that store's by now
            raise DestinationExistsError(f"{destination}: exists already; remove it or choose another name")
        written.clear()
    finally:
        if claim.held:
            place.remove_all(written)  # and nothing that somebody put there meanwhile
        claim.remove()


# ---- errors


@contextmanager
def explained(where: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of a write into a WriteError that names the destination."""
    try:
        yield
    except OSError as error:
        raise explain(where, error) from error


def explain(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """Return the error for a write that failed: "disk full" and the like, with the path."""
    return WriteError(f"{path}: cannot be written: {error.strerror or error}")


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error means that nothing more can be written to the destination at all."""
    cause = error.__cause__ if isinstance(error, WriteError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class NewFile:
    """A file that gets its name when it is complete; until then it has a random one.

    Parameters
    ----------
    destination : Path
        Where the file is to be; must not exist.
    """

    def __init__(self, destination: Path) -> None:
        refuse_existing(destination)
        self.destination, self.path = destination, durable.temporary(destination.parent)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *error: object) -> None:
        durable.remove(self.path)

    def commit(self) -> None:
        """Give the file its name; an existing one is never replaced."""
        with explained(self.destination):
            durable.sync(self.path)
            try:
                durable.give_name(self.path, self.destination)
            except FileExistsError:
                raise DestinationExistsError(f"{self.destination}: exists already; choose another name") from None
