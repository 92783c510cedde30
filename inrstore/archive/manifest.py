"""What a complete archive holds: its manifest, written last, and read with suspicion: no name leads out of the archive.

`.inrstore/manifest.jsonl` has a line for each store and file, and one with their number and the digest over all lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from inrstore.errors import StoreError
from inrstore.files import Place, WritablePlace, blocks
from inrstore.files.journal import MAX_LINE_BYTES, decode, encode
from inrstore.files.names import RECORD
from inrstore.store.manifest import shorten

MANIFEST = f"{RECORD}/manifest.jsonl"
_BLOCK = 1 << 16

EntryKind: TypeAlias = Literal["store", "file", "record"]


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """A line of the manifest.

    Parameters
    ----------
    out : str
        Where it is in the archive.
    kind : {"store", "file", "record"}
        An image as a store, a file as it was, or a file of the archive's own record.
    bytes : int
        Size of all its files.
    digest : str
        Of a store: its seal. Of a file: its digest.
    key : str
        Where it was in the source.
    """

    out: str
    kind: EntryKind
    bytes: int
    digest: str
    key: str

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> ManifestEntry | None:
        """Return the entry that a line is, None if it is none."""
        texts = all(isinstance(found.get(name), str) for name in ("out", "kind", "digest", "key"))
        if not texts or type(found.get("bytes")) is not int or found["kind"] not in get_args(EntryKind):
            return None
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})


def read_manifest(place: Place) -> Iterator[ManifestEntry]:
    """Yield what an archive holds, one at a time.

    Raises
    ------
    StoreError
        If there is no manifest (the archive is incomplete), it is damaged, or a name leads out of the archive; at its
        end, if lines are missing.
    """
    where = place.label(MANIFEST)
    if place.size(MANIFEST) is None:
        raise StoreError(f"{place.name}: incomplete: it has no manifest; run the same convert command again")
    sha256 = hashlib.sha256()
    count = 0
    with place.open(MANIFEST) as file:
        while line := file.readline(MAX_LINE_BYTES):
            found = decode(count, line)
            if found is not None and "end" in found:
                if (found["end"], found.get("digest")) != (count, shorten(sha256.digest())):
                    raise StoreError(f"{where}: the last line does not fit the lines before it")
                if file.read(1):
                    raise StoreError(f"{where}: goes on after its last line")
                return
            entry = None if found is None else ManifestEntry.from_dict(found)
            if entry is None:
                raise StoreError(f"{where}: line {count + 1} is damaged")
            sha256.update(line)
            count += 1
            check_inside(place, entry.out)
            if entry.key:
                check_inside(place, entry.key)
            yield entry
    raise StoreError(f"{where}: the last line is missing")


def write_manifest(place: WritablePlace, entries: Iterable[ManifestEntry]) -> None:
    """Write the manifest, which makes the archive complete."""

    def pieces() -> Iterator[bytes]:
        count, sha256, block = 0, hashlib.sha256(), bytearray()
        for count, entry in enumerate(entries, 1):
            line = encode(count - 1, vars(entry))
            sha256.update(line)
            block += line
            if len(block) >= _BLOCK:
                yield bytes(block)
                block.clear()
        yield bytes(block) + encode(count, {"end": count, "digest": shorten(sha256.digest())})

    place.write_blocks(MANIFEST, pieces())


def check_inside(place: Place, key: str) -> None:
    """Raise StoreError if a key of a record would lead out of the place it is used in."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\0" in key or "\\" in key:
        raise StoreError(f"{place.name}: the record names {key!r}, which is no path inside the archive")


def path_of(place: Place, out: str) -> str:
    """Return the path or URL of a store of an archive."""
    return f"{place.name.rstrip('/')}/{out}"


def source_kind(job: Mapping[str, Any]) -> str:
    """Return what kind of source a job has: tree, bids, zip or dicom."""
    source = job.get("source")
    return str(source.get("kind")) if isinstance(source, Mapping) else ""


class Digest:
    """A file that passes by in blocks, with its size and digest.

    Parameters
    ----------
    file : BinaryIO
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256 = file, hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in blocks(self._file):
            self.size += len(block)
            self._sha256.update(block)
            yield block

    @property
    def value(self) -> str:
        """The digest of what has passed."""
        return shorten(self._sha256.digest())


def digest_of(file: BinaryIO) -> tuple[int, str]:
    """Return size and digest of a file, read piece by piece."""
    passing = Digest(file)
    for _ in passing:
        pass
    return passing.size, passing.value


def check_unchanged(place: Place, entry: ManifestEntry) -> None:
    """Raise StoreError if a file of an archive is missing or is not what was written."""
    where = place.label(entry.out)
    try:
        with place.open(entry.out) as file:
            found = digest_of(file)
    except OSError as error:
        raise StoreError(f"{where}: cannot be read: {error.strerror or error}") from error
    if found != (entry.bytes, entry.digest):
        raise StoreError(f"{where}: was changed since the archive was made")
