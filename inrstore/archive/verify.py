"""An archive -> proof that it is whole: every file and store of its manifest checked, and the source compared if asked.

Memory holds one image at a time and one line of the manifest; the names that are needed for finding files that do not
belong there lie in a temporary database on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from inrstore import files
from inrstore.archive.catalogue import Names
from inrstore.archive.copies import is_made, original_of
from inrstore.archive.manifest import ManifestEntry, digest_of, path_of, read_manifest, source_kind
from inrstore.archive.origin import Origin, not_archived, origin_of
from inrstore.archive.record import Record
from inrstore.archive.zips import ZIPS, zip_record
from inrstore.errors import ConfigurationError, InrstoreError, StoreError
from inrstore.files import Place
from inrstore.files.names import RECORD
from inrstore.files.zip_members import Member
from inrstore.sources import read_image
from inrstore.store.container import ENDING, is_zip
from inrstore.store.reader import Store
from inrstore.store.verify import parse_subset, verify_store

SHOWN = 20
"""Problems, and files that do not belong there, that are named; the rest is counted."""

VerifyCallback: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of what was checked, how many things are checked so far, and how many of them are bad."""


@dataclass(frozen=True, kw_only=True)
class ArchiveVerifyReport:
    """What a verification of an archive found; that there is a report means that nothing is wrong.

    Parameters
    ----------
    archive : str
        Its path or URL.
    stores, files : int
        Stores and other files that were checked.
    stored_bytes : int
        Their size.
    fast : bool
        Whether only sizes, and the digests of the stores' files, were compared.
    subset : str or None
        "n/t": which part of the archive was checked.
    against : str or None
        The source it was compared with.
    extra_files : tuple of str
        Files that do not belong there, the first of them.
    extra_count : int
        How many there are.
    seconds : float
        Time taken.
    """

    archive: str
    stores: int
    files: int
    stored_bytes: int
    fast: bool
    subset: str | None
    against: str | None
    extra_files: tuple[str, ...]
    extra_count: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def verify_archive(
    dst: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    fast: bool = False,
    subset: str | None = None,
    progress: VerifyCallback | None = None,
) -> ArchiveVerifyReport:
    """Check an archive: that all its manifest lists is there and is what was written.

    Parameters
    ----------
    dst : path-like
        Path or URL of the archive.
    against : path-like, optional
        The source it was made from: a folder, or a zip. Each store is compared with its image (header and promised
        quality), each file with the one it was copied from.
    fast : bool
        Compare the sizes of files, and sizes and digests of the files of stores; decode nothing.
    subset : str, optional
        "n/t" checks the n-th of t parts: a large archive can be checked over t days.
    progress : callable, optional
        Called after each store and file.

    Returns
    -------
    ArchiveVerifyReport
        If nothing is wrong.

    Raises
    ------
    StoreError
        If the archive is incomplete; or with the number of all that is bad, naming the first `SHOWN`.
    ConfigurationError
        For options that do not go together.
    """
    part, parts = parse_subset(subset)
    if fast and against is not None:
        raise ConfigurationError("a fast check decodes nothing: it does not go with a source")
    place = files.place(dst)
    record = Record(place)
    job = record.job()
    start = time.perf_counter()
    check = _Check(place, job, fast, progress)
    with Names() as names, nullcontext() if against is None else origin_of(job, against) as origin:
        for entry in read_manifest(place):
            if not names.add(entry.out, entry.key, store=entry.kind == "store"):
                check.note(entry.out, "is twice in the manifest")
            if part_of(entry.out, parts) == part:
                check(entry, origin)
        for name in extra_files(place, names):
            if part_of(name, parts) == part:
                check.note_extra(name)
                if is_store(name):
                    check.note(name, "is a store that the manifest does not list; `inrstore prune` says what it is")
        if origin is not None and source_kind(job) != "zip":  # the members of a zip are compared with its record
            for name in not_archived(origin.place, job, names):
                if part_of(name, parts) == part:
                    check.note(name, "is in the source and not in the archive")
    check.conclude()
    return ArchiveVerifyReport(
        archive=place.name,
        stores=check.stores,
        files=check.files,
        stored_bytes=check.size,
        fast=fast,
        subset=subset,
        against=None if against is None else os.fspath(against),
        extra_files=tuple(check.extra_shown),
        extra_count=check.extra,
        seconds=time.perf_counter() - start,
    )


class _Check:
    """Checks one thing after the other and remembers what was wrong."""

    def __init__(self, place: Place, job: Mapping[str, Any], fast: bool, progress: VerifyCallback | None) -> None:
        self.place = place
        self.job = job
        self.fast = fast
        self.progress = progress
        self.stores = self.files = self.size = self.bad = self.extra = 0
        self.extra_shown: list[str] = []
        self._shown: list[str] = []

    def __call__(self, entry: ManifestEntry, origin: Origin | None) -> None:
        if entry.kind == "store":
            self.stores += 1
        else:
            self.files += 1
        self.size += entry.bytes
        try:
            if entry.kind == "store":
                self._store(entry, origin)
            else:
                self._file(entry)
                if origin is not None:
                    self._file_against(entry, origin)
        except (InrstoreError, OSError) as error:
            self.note(entry.out, str(error))
        except MemoryError:
            self.note(entry.out, "not enough memory to check it")
        if self.progress is not None:
            self.progress(entry.out, self.stores + self.files, self.bad)

    def note(self, name: str, problem: str) -> None:
        """Remember a problem."""
        self.bad += 1
        if len(self._shown) < SHOWN:
            inside = problem.removeprefix(path_of(self.place, name)).removeprefix(": ")
            self._shown.append(f"{name}: {' '.join(inside.split())}")

    def note_extra(self, name: str) -> None:
        """Remember a file that does not belong there."""
        self.extra += 1
        if len(self.extra_shown) < SHOWN:
            self.extra_shown.append(name)

    def conclude(self) -> None:
        """Raise StoreError if anything was wrong."""
        if self.bad:
            more = f"; and {self.bad - len(self._shown)} more" if self.bad > len(self._shown) else ""
            total = self.stores + self.files
            raise StoreError(
                f"{self.place.name}: {self.bad} of {total} stores and files are bad: {'; '.join(self._shown)}{more}"
            )

    def _store(self, entry: ManifestEntry, origin: Origin | None) -> None:
        store = Store(path_of(self.place, entry.out))
        if store.seal != entry.digest:
            raise StoreError("is another store than the one in the manifest: its seal differs")
        source = None if origin is None else read_image(*origin.locate(entry.key))
        report = verify_store(store, source, fast=self.fast)
        for name in report.extra_files:
            self.note_extra(f"{entry.out}/{name}")

    def _file(self, entry: ManifestEntry) -> None:
        size = self.place.size(entry.out)
        if size is None:
            raise StoreError("is missing")
        if size != entry.bytes:
            raise StoreError(f"has {size} bytes, the manifest says {entry.bytes}")
        if not self.fast:
            with self.place.open(entry.out) as file:
                found = digest_of(file)
            if found != (entry.bytes, entry.digest):
                raise StoreError("was changed: its digest is not that of the manifest")

    def _file_against(self, entry: ManifestEntry, origin: Origin) -> None:
        if entry.out.startswith(f"{ZIPS}/"):
            self._zip_against(entry, origin)
            return
        own, expected = entry.out, (entry.bytes, entry.digest)
        if is_made(self.job, entry):
            kept = original_of(self.place, entry)
            if kept is None:
                return
            with self.place.open(kept) as file:
                own, expected = kept, digest_of(file)
        place, key = origin.locate(entry.key)
        with place.open(key) as file:
            if digest_of(file) == expected:
                return
        if not (key.endswith(".json") and _same_but_converter(self.place, own, place, key)):
            raise StoreError(f"differs from {place.label(key)}")

    def _zip_against(self, entry: ManifestEntry, origin: Origin) -> None:
        """Compare the members of a zip with those on record: none was added, removed or given another date."""
        key = entry.out.removeprefix(f"{ZIPS}/").removesuffix(".json")
        try:
            known = [Member.from_dict(member) for member in zip_record(self.place, key)["members"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"members: {error!r}") from error
        if origin.members(key) != known:
            raise StoreError("the zip in the source has other members than on record")


def extra_files(place: Place, names: Names) -> Iterator[str]:
    """Yield the files of an archive that are neither in its manifest nor in one of its stores nor in its record."""
    store = ""
    for entry in place.walk():
        key = entry.key
        if key.startswith(f"{RECORD}/") or (store and key.startswith(store)) or names.kind(key):
            continue
        parts = key.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        inside = next((folder for folder in above if names.kind(folder) == "store"), None)
        if inside is None:
            yield key
        else:
            store = f"{inside}/"


def is_store(key: str) -> bool:
    """Return whether a file is a store, or what makes a folder one."""
    folder, _, name = key.rpartition("/")
    return is_zip(key) or (folder.lower().endswith(ENDING["zarr"]) and name in ("zarr.json", ".zattrs"))


def part_of(out: str, parts: int) -> int:
    """Return which of `parts` parts of an archive a thing belongs to, from 0; the same on every machine."""
    return int.from_bytes(hashlib.sha256(out.encode()).digest()[:8], "big") % parts


def _same_but_converter(place: Place, out: str, source: Place, key: str) -> bool:
    """Return whether two JSON files of dcm2niix differ in its version at most."""
    documents = []
    for where, name in ((place, out), (source, key)):
        try:
            found = json.loads(files.read(where, name, 1 << 24))
        except (InrstoreError, OSError, ValueError, RecursionError):
            return False
        if not isinstance(found, dict) or found.pop("ConversionSoftware", None) != "dcm2niix":
            return False
        found.pop("ConversionSoftwareVersion", None)
        documents.append(found)
    return documents[0] == documents[1]
