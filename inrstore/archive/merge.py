"""Two archives -> one: what the other holds is taken in as it is, and nothing of either is replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from inrstore import files
from inrstore.archive.catalogue import Ledger
from inrstore.archive.copies import is_made
from inrstore.archive.manifest import ManifestEntry, digest_of, path_of, read_manifest, source_kind
from inrstore.archive.outcomes import Outcome
from inrstore.archive.prepare import absolute, check_apart
from inrstore.archive.record import WORK, Record, archive_place
from inrstore.archive.rules import matches
from inrstore.archive.zips import ZIPS
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files import Place, WritablePlace, blocks
from inrstore.store import manifest
from inrstore.store.container import is_zip, publish, seal_of
from inrstore.store.conversion import report_of
from inrstore.store.reader import Store
from inrstore.store.verify import verify_store

SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What an archive took in.

    Parameters
    ----------
    archive, other : str
        The archive, and the one that was taken in; that one is only read.
    stores, files : int
        Stores and other files that came.
    same : int
        What was there already, equal.
    stored_bytes : int
        What came.
    seconds : float
        Time taken.
    """

    archive: str
    other: str
    stores: int
    files: int
    same: int
    stored_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def merge(
    other: str | os.PathLike[str], archive: str | os.PathLike[str], *, exclude: Sequence[str] = ()
) -> MergeReport:
    """Take everything of another archive into an archive, under the same paths.

    Every store and file is compared with its digest on the way. What came keeps the name of the source it was made
    from: an update with the source of this archive does not miss it there. A merge that was stopped goes on when it is
    run again, and until then nothing else can be done with the archive.

    Parameters
    ----------
    other, archive : path-like
        Paths or URLs of complete archives; `archive` grows.
    exclude : sequence of str
        Globs on paths in the other archive that are not taken.

    Returns
    -------
    MergeReport

    Raises
    ------
    StoreError
        If one is incomplete or damaged, or a path holds different things in both; the message names the first, and
        nothing was done then.
    ConfigurationError
        For an archive in itself, and archives of one zip each, whose paths mean nothing beside others.
    """
    began = time.perf_counter()
    check_apart(absolute(os.fspath(other)), absolute(os.fspath(archive)))
    theirs, place = files.place(other), archive_place(archive)
    job = Record(archive_place(other)).job()
    name = str(job["source"].get("name"))
    for kind, where in ((source_kind(job), theirs.name), (source_kind(Record(place).job()), place.name)):
        if kind == "zip":
            raise ConfigurationError(
                f"{where}: the archive of one zip cannot be merged; export it, or convert a folder"
            )
    with Record(archive_place(other)).known() as known, Record(place) as record:
        own = f"{name} ({manifest.digest(absolute(os.fspath(other)).encode())})"  # no folder of this machine
        record.begin(None, merging=own)
        wanted = [entry for entry in read_manifest(theirs) if _is_wanted(job, entry, exclude)]
        _refuse_conflicts(record, theirs, wanted)
        if not record.ledger.merging:
            for _ in read_manifest(place):  # to the end: it has to be complete
                pass
            record.note_merge(own)
        stores = others = same = size = 0
        for number, entry in enumerate(wanted):
            ours = record.ledger.by_out(entry.out)
            if ours is not None and ours.digest == entry.digest:
                same += 1
                record.ledger.put(ours, number, 0)  # the manifest has one order, however often it took
                continue
            if not _is_there(place, entry):
                _take(theirs, place, entry)
            record.add(_outcome(known, place, entry, name), number, 0)
            stores, others = stores + (entry.kind == "store"), others + (entry.kind != "store")
            size += entry.bytes
        record.finish(True)
        record.note_merge("")
    return MergeReport(
        archive=place.name, other=theirs.name, stores=stores, files=others, same=same, stored_bytes=size,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def _is_wanted(job: Any, entry: ManifestEntry, exclude: Sequence[str]) -> bool:
    if is_made(job, entry) and not entry.out.startswith(f"{ZIPS}/"):
        return False  # each archive has its own description
    return not any(matches(glob, entry.out) for glob in exclude)


def _refuse_conflicts(record: Record, theirs: Place, wanted: Sequence[ManifestEntry]) -> None:
    """Raise StoreError if a path of the other archive holds something else in this one."""
    wrong = []
    for entry in wanted:
        ours = record.ledger.by_out(entry.out)
        if ours is not None and ours.digest != entry.digest:
            wrong.append(entry.out)
        elif ours is None and not _is_there(record.place, entry) and _is_taken(record.place, entry.out):
            wrong.append(entry.out)
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        text = f"{', '.join(wrong[:SHOWN])}{more}"
        raise StoreError(f"{record.place.name} and {theirs.name} differ in {text}; exclude what is not to come")


def _is_taken(place: Place, out: str) -> bool:
    return place.size(out) is not None or next(iter(place.walk(out)), None) is not None


def _is_there(place: Place, entry: ManifestEntry) -> bool:
    """Return whether an archive has exactly this, as a merge leaves it that was stopped before it noted it."""
    if not _is_taken(place, entry.out):
        return False
    if entry.kind == "store":
        if seal_of(path_of(place, entry.out)) != entry.digest:
            return False
        verify_store(Store(path_of(place, entry.out)), fast=True)
        return True
    with place.open(entry.out) as file:
        return digest_of(file) == (entry.bytes, entry.digest)


def _take(theirs: Place, place: WritablePlace, entry: ManifestEntry) -> None:
    """Copy a store or file; what was written is compared with its digest before it counts."""
    where = path_of(theirs, entry.out)
    if entry.kind == "store" and not is_zip(entry.out):
        store = Store(where)
        if store.seal != entry.digest:
            raise StoreError(f"{where}: is another store than the one in the manifest: its seal differs")
        keys = [store.root_key, *(key for key in store.documents if key != store.root_key), *store.manifest]
        keys += [".zmetadata"] if store.zarr_format == 2 else []
        members = [(key, store.documents.get(key) or store.file(key)) for key in dict.fromkeys(keys)]
        work = "" if files.is_url(place.name) else f"{place.name}/{WORK}"
        publish(path_of(place, entry.out), members, work=work)
        return
    if entry.kind == "store":
        store = Store(where)
        if store.seal != entry.digest:
            raise StoreError(f"{where}: is another store than the one in the manifest: its seal differs")
        verify_store(store, fast=True)
    with theirs.open(entry.out) as file:
        if entry.kind == "store":
            new = place.create(entry.out, blocks(file))
        else:
            new = place.size(entry.out) is None
            if new:
                place.write_blocks(entry.out, blocks(file))
    if not new:
        raise StoreError(f"{place.label(entry.out)}: somebody put something there meanwhile")
    if not _is_there(place, entry):
        place.remove(entry.out)
        raise StoreError(f"{where}: was changed: it is not what the manifest says")


def _outcome(known: Ledger, place: Place, entry: ManifestEntry, name: str) -> Outcome:
    found = known.get(entry.key, entry.out)
    if found is None or found.digest != entry.digest:
        if entry.kind == "store":
            found = Outcome.converted(entry.key, entry.out, 0, report_of(Store(path_of(place, entry.out))))
        else:
            found = Outcome(kind="copy", key=entry.key, out=entry.out, status="copied", source_bytes=entry.bytes,
                            stored_bytes=entry.bytes, digest=entry.digest)  # fmt: skip
    return replace(found, origin=found.origin or name, stamp="", settings="", gone=False, resumed=False)
