"""Outcomes -> nothing: what was removed on purpose, and what is left over; only what this program provably wrote.

The record says what is to go before anything goes, and the manifest is that of the smaller archive before a file is
missing: a run that dies in between leaves files that `verify` calls left over and `prune` removes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from inrstore.archive.catalogue import Names
from inrstore.archive.manifest import MANIFEST, digest_of, path_of, read_manifest
from inrstore.archive.outcomes import Outcome
from inrstore.archive.record import Record, archive_place
from inrstore.archive.report import picture_key
from inrstore.archive.rules import matches
from inrstore.archive.zips import record_key, zip_record
from inrstore.errors import ConfigurationError, InrstoreError, StoreError
from inrstore.files import Place, WritablePlace
from inrstore.files.local import Folder
from inrstore.store import manifest
from inrstore.store.container import seal_of
from inrstore.store.reader import Store


@dataclass(frozen=True, kw_only=True)
class RemovalReport:
    """What was removed from an archive, or would be.

    Parameters
    ----------
    archive : str
        Its path or URL.
    removed : tuple of str
        Paths in the archive of the stores and files that went.
    removed_bytes : int
        What they took.
    kept : tuple of dict
        What stays though it was meant: "path" and "reason".
    dry_run : bool
        Whether it was only looked at.
    seconds : float
        Time taken.
    """

    archive: str
    removed: tuple[str, ...]
    removed_bytes: int
    kept: tuple[dict[str, str], ...]
    dry_run: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def remove(
    archive: str | os.PathLike[str], include: Sequence[str], *, dry_run: bool = False, force: bool = False
) -> RemovalReport:
    """Remove stores and files from an archive for good: `update` does not bring them back by itself.

    Parameters
    ----------
    archive : path-like
        Path or URL.
    include : sequence of str
        Globs on paths in the archive, by the names that images have in the source or there.
    dry_run : bool
        Only say what would go.
    force : bool
        Remove also what is damaged or was changed, as long as it lies where this program wrote it.

    Returns
    -------
    RemovalReport

    Raises
    ------
    ConfigurationError
        Without globs, or for one that nothing fits.
    StoreError
        If it is no archive, or one of the things is not what this program wrote; nothing is removed then.
    """
    if not include:
        raise ConfigurationError("include: which files? A glob on their paths in the archive is needed")
    began = time.perf_counter()
    place = archive_place(archive)
    with Record(place) as record:
        record.begin(None)
        ledger = record.ledger
        _check_known(place, record)
        chosen: list[Outcome] = []
        left = [_stray(place, out) for _, out in ledger.removed()  # by a run that died
                if any(matches(glob, out) for glob in include) and _is_left(place, out, ledger.made(out))]  # fmt: skip
        before = [out for _, out in ledger.removed()]
        for glob in include:
            found = [
                one for one in ledger.any() if _may_go(one) and (matches(glob, one.path) or matches(glob, one.out))
            ]
            if not found and not any(matches(glob, out) for out in before):
                raise ConfigurationError(f"{glob}: nothing in {place.name} fits it")
            chosen += [one for one in found if one not in chosen]
        zips = _zips_of(chosen)
        for one in chosen:
            problem = "" if force else _problem(place, one.out, {one.digest})
            if problem:
                raise StoreError(f"{place.label(one.out)}: {problem}; nothing was removed")
        if not dry_run:
            for one in chosen:
                record.remove(one)
            whole = _rewrite_zips(record, zips)
            _finish(record)
            for one in (*chosen, *whole, *left):
                discard(place, one, sure=force)
            record.note_end()
    return _report(place, [*chosen, *left], [], dry_run, began)


def prune(archive: str | os.PathLike[str], *, dry_run: bool = False) -> RemovalReport:
    """Remove from an archive what the source does not have any more, and what is left over of earlier work.

    What is gone was found gone by the last `convert` or `update`. Left over is what this program wrote and no record
    lists; files of others stay, and are named.

    Parameters
    ----------
    archive : path-like
        Path or URL of a complete archive.
    dry_run : bool
        Only say what would go.

    Returns
    -------
    RemovalReport

    Raises
    ------
    StoreError
        If it is no complete archive.
    """
    from inrstore.archive.verify import extra_files

    began = time.perf_counter()
    place = archive_place(archive)
    kept: list[dict[str, str]] = []
    with Record(place) as record, Names() as names:
        record.begin(None)
        ledger = record.ledger
        _check_known(place, record)
        for entry in read_manifest(place):
            if ledger.by_out(entry.out) is not None:  # or a run died that was to remove it
                names.add(entry.out, entry.key, store=entry.kind == "store")
        chosen = [one for one in ledger.any() if one.gone and _may_go(one)]
        for one in list(chosen):
            problem = _problem(place, one.out, {one.digest})
            if problem:
                kept.append({"path": one.out, "reason": problem})
                chosen.remove(one)
        left: list[Outcome] = []
        for out in _left_over(extra_files(place, names)):
            digests = ledger.made(out)
            problem = _problem(place, out, digests) if digests else "was not written by this program"
            if ledger.by_out(out) is not None or problem:
                kept.append(
                    {"path": out, "reason": problem or "the record still knows it; run convert or update again"}
                )
            else:
                left.append(_stray(place, out))
        if not dry_run:
            for one in chosen:
                record.forget(one)
            whole = _rewrite_zips(record, _zips_of(chosen))
            _finish(record)
            for one in (*chosen, *left, *whole):
                discard(place, one)
            record.note_end()
    return _report(place, [*chosen, *left], kept, dry_run, began)


def discard(place: WritablePlace, outcome: Outcome, *, sure: bool = False) -> None:
    """Remove a store or file, with its picture; only if it is what was written, or this is `sure`."""
    out = outcome.out
    if not sure and _problem(place, out, {outcome.digest}):
        return
    if place.size(out) is not None:
        place.remove(out)
    elif outcome.status != "copied":
        keys = list(_members(place, out, sure=sure))
        if keys and isinstance(place, Folder) and {entry.key for entry in place.walk(out)} <= set(keys):
            place.remove_folder(out)
        else:  # somebody else's files lie there, too, or it is a bucket, where the root's document goes last
            for key in reversed(keys):
                place.remove(key)
                _remove_empty(place, key)
    place.remove(picture_key(out))
    _remove_empty(place, out)
    _remove_empty(place, picture_key(out))


def _may_go(outcome: Outcome) -> bool:
    return not outcome.of_record and outcome.digest != ""


def _problem(place: Place, out: str, digests: Iterable[str]) -> str:
    """Return why something is not to be removed, "" if it is what was written or is not there."""
    size = place.size(out)
    if size is None and not _root_of(place, out):
        return ""
    if size is not None and not out.lower().endswith(".ozx"):
        try:
            with place.open(out) as file:
                found = digest_of(file)[1]
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
    else:
        found = seal_of(path_of(place, out))
    return "" if found in digests else "is not what this program wrote there"


def _is_left(place: Place, out: str, digests: set[str]) -> bool:
    """Return whether something is there still, and is what was written."""
    return bool(place.size(out) is not None or _root_of(place, out)) and not _problem(place, out, digests)


def _root_of(place: Place, out: str) -> str:
    """Return the document that makes a folder a store, "" if there is none."""
    return next((key for key in (f"{out}/zarr.json", f"{out}/.zattrs") if place.size(key) is not None), "")


def _members(place: Place, out: str, *, sure: bool) -> Iterator[str]:
    """Yield the files of a store that is a folder: the one that makes it a store first; others may lie beside them."""
    try:
        store = Store(path_of(place, out))
        keys = [store.root_key, *(key for key in store.documents if key != store.root_key), *store.manifest]
        if store.zarr_format == 2:
            keys.append(".zmetadata")
        yield from (f"{out}/{key}" for key in dict.fromkeys(keys))
    except InrstoreError:
        if sure:
            yield from [entry.key for entry in place.walk(out)]


def _remove_empty(place: Place, key: str) -> None:
    if isinstance(place, Folder):
        place.remove_empty_above(key)


def _zips_of(outcomes: Iterable[Outcome]) -> dict[str, set[str]]:
    """Return the zips that outcomes come from, and their paths in the archive."""
    zips: dict[str, set[str]] = {}
    for one in outcomes:
        start = one.key.lower().find(".zip:")
        while start >= 0:
            zips.setdefault(one.key[: start + len(".zip")], set()).add(one.out)
            start = one.key.lower().find(".zip:", start + 1)
    return zips


def _rewrite_zips(record: Record, zips: dict[str, set[str]]) -> list[Outcome]:
    """Let the records of zips say what is not in the archive any more; return those of which nothing is left."""
    place = record.place
    whole = []
    for key, outs in zips.items():
        known = record.ledger.get(key, record_key(key))
        if known is None:
            continue
        document = zip_record(place, key)
        left = 0
        for member in document["members"]:
            if member.get("out") in outs:
                member.update(out="", store=False)
                member.pop("digest", None)
            left += bool(member.get("out"))
        if not left:
            record.remove(known)
            whole.append(known)
            continue
        data = (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
        place.write(record_key(key), data)
        record.amend(replace(known, digest=manifest.digest(data), stored_bytes=len(data)))
    return whole


def _check_known(place: Place, record: Record) -> None:
    """Refuse to write a manifest from a record that lacks what the manifest has: it would be forgotten."""
    if place.size(MANIFEST) is None:
        return
    for entry in read_manifest(place):
        if entry.digest not in record.ledger.made(entry.out):
            raise StoreError(f"{place.name}: its journal does not know {entry.out}; run convert or update again first")


def _finish(record: Record) -> None:
    """Write the manifest of what is left, if the archive is complete."""
    if record.place.size(MANIFEST) is not None:
        record.write_manifest()


def _left_over(keys: Iterable[str]) -> Iterator[str]:
    """Yield the stores and files that no record lists: of a folder that is a store its path, once."""
    last = ""
    for key in keys:
        head, sep, _ = key.partition(".zarr/")
        out = head + ".zarr" if sep else key
        if out != last:
            last = out
            yield out


def _stray(place: Place, out: str) -> Outcome:
    if place.size(out) is None or out.lower().endswith(".ozx"):
        digest, status, size = seal_of(path_of(place, out)), "converted", place.size(out) or 0
    else:
        with place.open(out) as file:
            size, digest = digest_of(file)
        status = "copied"
    return Outcome(kind="image", key="", out=out, status=status, stored_bytes=size, digest=digest)  # type: ignore[arg-type]


def _report(
    place: Place, gone: Sequence[Outcome], kept: Sequence[dict[str, str]], dry_run: bool, began: float
) -> RemovalReport:
    return RemovalReport(
        archive=place.name, removed=tuple(one.out for one in gone), kept=tuple(kept), dry_run=dry_run,
        removed_bytes=sum(one.stored_bytes for one in gone), seconds=time.perf_counter() - began,
    )  # fmt: skip
