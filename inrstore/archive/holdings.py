"""What a complete archive holds, read from its manifest with suspicion: no name leads out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from inrstore import files
from inrstore.archive.bids import DESCRIPTION, IGNORE
from inrstore.archive.record import ORIGINALS, ZIPS, Record
from inrstore.errors import FileTooLargeError, StoreError
from inrstore.files import Place
from inrstore.store import manifest

HoldingKind: TypeAlias = Literal["store", "file", "record"]

MAX_ZIP_RECORD_BYTES = 1 << 28
"""Record of one zip: some hundred bytes for each of its members."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A line of the manifest.

    Parameters
    ----------
    out : str
        Where it is in the archive.
    kind : {"store", "file", "record"}
        An image as a store, a file as it was, or a file of the archive's own record.
    size : int
        Bytes of all its files.
    digest : str
        Of a store: its seal. Of a file: its digest.
    key : str
        Where it was in the source.
    """

    out: str
    kind: HoldingKind
    size: int
    digest: str
    key: str


def holdings(record: Record) -> Iterator[Holding]:
    """Yield what an archive holds, one at a time.

    Raises
    ------
    StoreError
        If the archive is incomplete, the manifest is damaged, or a name leads out of the archive.
    """
    for line in record.manifest():
        for name in ("out", "key"):
            if name == "out" or line["key"]:
                check_inside(record.place, line[name])
        kind = cast(HoldingKind, line["kind"])
        yield Holding(out=line["out"], kind=kind, size=line["bytes"], digest=line["digest"], key=line["key"])


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


def is_made(job: Mapping[str, Any], holding: Holding) -> bool:
    """Return whether a file is none of the source's: one of the record, or a description that was changed for BIDS."""
    return holding.kind == "record" or (
        holding.kind == "file" and source_kind(job) == "bids" and holding.out in (DESCRIPTION, IGNORE)
    )


def original_of(place: Place, holding: Holding) -> str | None:
    """Return where the archive keeps what a file of its own replaced, or None if it replaced nothing."""
    kept = f"{ORIGINALS}/{holding.out}"
    return kept if holding.kind == "file" and place.size(kept) is not None else None


def zip_of(place: Place, key: str) -> tuple[str, str] | None:
    """Return the key of the zip that a key leads into and the member, or None if it leads into none."""
    start = key.find(":")
    while start >= 0:
        if place.size(f"{ZIPS}/{key[:start]}.json") is not None:
            return key[:start], key[start + 1 :]
        start = key.find(":", start + 1)
    return None


def zip_record(place: Place, key: str) -> dict[str, Any]:
    """Return what is known of a zip: its comment and members.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    name = f"{ZIPS}/{key}.json"
    try:
        found = json.loads(files.read(place, name, MAX_ZIP_RECORD_BYTES))
    except (OSError, ValueError, RecursionError, FileTooLargeError) as error:
        raise StoreError(f"{place.label(name)}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("members"), list):
        raise StoreError(f"{place.label(name)}: members: not a list")
    return found


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file piece by piece."""
    while block := file.read(1 << 20):
        yield block


def digest_of(file: BinaryIO) -> tuple[int, str]:
    """Return size and digest of a file, read piece by piece."""
    sha256, size = hashlib.sha256(), 0
    for block in blocks(file):
        sha256.update(block)
        size += len(block)
    return size, manifest.shorten(sha256.digest())


def check_unchanged(place: Place, holding: Holding) -> None:
    """Raise StoreError if a file of an archive is missing or is not what was written."""
    where = place.label(holding.out)
    try:
        with place.open(holding.out) as file:
            found = digest_of(file)
    except OSError as error:
        raise StoreError(f"{where}: cannot be read: {error.strerror or error}") from error
    if found != (holding.size, holding.digest):
        raise StoreError(f"{where}: was changed since the archive was made")


def part_of(out: str, parts: int) -> int:
    """Return which of `parts` parts of an archive a thing belongs to, from 0; the same on every machine."""
    return int.from_bytes(hashlib.sha256(out.encode()).digest()[:8], "big") % parts
