"""The record of an archive, in its folder `.inrstore`: what the job is, and what became of each file.

`job.json` says what was asked for. `journal.jsonl` gains a line for each outcome, on the disk before the next. Only a
complete archive has a manifest, written last; see `inrstore.archive.manifest`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from inrstore import files
from inrstore.archive.catalogue import Ledger
from inrstore.archive.manifest import MANIFEST, EntryKind, ManifestEntry, write_manifest
from inrstore.archive.outcomes import ArchiveInfo, Outcome, Tally
from inrstore.errors import ConfigurationError, DestinationExistsError, FileTooLargeError, StoreError
from inrstore.files import WritablePlace, durable
from inrstore.files.closing import Closing
from inrstore.files.local import Folder
from inrstore.files.names import RECORD
from inrstore.files.place import Log

JOB = f"{RECORD}/job.json"
JOURNAL = f"{RECORD}/journal.jsonl"
LOCK = f"{RECORD}/lock"
WORK = f"{RECORD}/work"
"""Where files are that are being written: ours by the lock of the archive, and removed by the next run."""

VERSION = 1
MAX_JOB_BYTES = 1 << 24

_MAY_CHANGE = ("include", "exclude")
"""Options that a later run of a job may change: they say what is converted, not how."""


def archive_place(where: str | os.PathLike[str]) -> WritablePlace:
    """Return the place of an archive, which writes what is unfinished to its own folder."""
    place = files.place(where)
    return Folder(place.path, WORK) if isinstance(place, Folder) else place


def is_archive(place: files.Place) -> bool:
    """Return whether a place holds an archive, complete or not."""
    return place.size(JOB) is not None


class Record(Closing):
    """The record of an archive.

    Opened, it can be read: `job`, `outcomes`. Between `begin` and `close` this process holds the
    archive and writes.

    Parameters
    ----------
    place : WritablePlace
        The archive.
    """

    def __init__(self, place: WritablePlace) -> None:
        self.place = place
        self._lock: Closing | None = None
        self._journal: Log | None = None
        self._ledger: Ledger | None = None
        self._has_manifest = False

    # ---- reading

    def job(self) -> dict[str, Any]:
        """Return the job as it was recorded: version, tool, format, source, options.

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        try:
            found = json.loads(files.read(self.place, JOB, MAX_JOB_BYTES))
        except FileNotFoundError:
            raise StoreError(f"{self.place.name}: not an archive: it has no {JOB}") from None
        except (OSError, ValueError, RecursionError, FileTooLargeError) as error:
            raise StoreError(f"{self.place.label(JOB)}: cannot be read: {error}") from error
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise StoreError(f"{self.place.label(JOB)}: version: not {VERSION}")
        return found

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the last outcome of each file.

        While this record is written, those of this run come first, in the order of the plan.

        Raises
        ------
        StoreError
            If the journal is damaged.
        """
        if self._ledger is not None:
            yield from self._ledger.any()
            return
        with self.known() as ledger:
            yield from ledger.any()

    def known(self) -> Ledger:
        """Read the journal: what is known of each file. It is to be closed."""
        ledger = Ledger()
        for record in self.place.records(JOURNAL):
            try:
                if record["event"] == "outcome":
                    outcome = Outcome.from_dict(record)
                    ledger.drop(outcome.key, outcome.out)
                    ledger.put(outcome)
                elif record["event"] == "forgotten":
                    ledger.drop(record["key"], record["out"])
                elif record["event"] == "removed":
                    ledger.remove(record["key"], record["out"])
                elif record["event"] == "restored":
                    ledger.restore(record["key"], record["out"])
                elif record["event"] == "merge":
                    ledger.merging = str(record["other"])
            except (KeyError, TypeError) as error:
                raise StoreError(f"{self.place.label(JOURNAL)}: a line that is none of a job: {error}") from error
        return ledger

    # ---- writing

    @property
    def ledger(self) -> Ledger:
        """What is known of each file, while this process holds the archive."""
        assert self._ledger is not None
        return self._ledger

    def begin(self, job: Mapping[str, Any] | None, *, change: bool = False, merging: str = "") -> None:
        """Take hold of the archive for a job, or for going on with it.

        Parameters
        ----------
        job : mapping or None
            None for one that changes what is there already, and asks for nothing.
        change : bool
            Whether the job of the archive may have had other options.
        merging : str
            The archive that is to be taken in.

        Raises
        ------
        DestinationExistsError
            If the place holds something else than an archive.
        DestinationHeldError
            If another process is writing to it.
        ConfigurationError
            If it is the archive of another job; the message says what differs.
        """
        if not is_archive(self.place):
            if job is None:
                self.job()  # says what is missing
            if not _just_begun(self.place):
                raise DestinationExistsError(
                    f"{self.place.name}: exists already and is no archive of this program; choose another name"
                )
        elif change and job is not None:
            check_same_source(self.place.name, self.job(), job)  # before the lock, which is a file
        self._lock = self.place.lock(LOCK)
        try:
            self.place.clear(WORK)  # what an earlier run left unfinished
            found = self.job() if is_archive(self.place) or job is None else None
            self._ledger = self.known()
            if self._ledger.merging not in ("", merging):
                begun = self._ledger.merging
                raise StoreError(f"{self.place.name}: a merge of {begun} was not finished; run it again first")
            if job is not None and found is None:
                self.place.write(JOB, _document(job))
            elif job is not None and found is not None:
                if change:
                    check_same_source(self.place.name, found, job)
                else:
                    check_same_job(self.place.name, found, job)
                if found["options"] != job["options"]:
                    self.place.remove(MANIFEST)  # before: it is that of another selection
                    self.place.write(JOB, _document(job))
            self._journal = self.place.journal(JOURNAL)
            self._has_manifest = self.place.size(MANIFEST) is not None
            self._journal.append({"event": "begin", "tool": f"inrstore {version('inrstore')}"})
        except BaseException:
            self.close()
            raise

    def add(self, outcome: Outcome, item: int, part: int) -> Outcome:
        """Note what became of a file; it is on the disk when this returns.

        Parameters
        ----------
        outcome : Outcome
        item, part : int
            Its place in the plan: the number of the item, and its own in the item.

        Returns
        -------
        Outcome
            The same; of a file that was there already, with what an earlier run knew of it.
        """
        assert self._ledger is not None and self._journal is not None
        known = self._ledger.get(outcome.key, outcome.out)
        if outcome.status == "failed" and known is not None and known.digest:
            # What is there from before is still what this program wrote, and a later run may replace it.
            outcome = replace(outcome, digest=known.digest, stored_bytes=known.stored_bytes)
        known = known if outcome.resumed else None
        if known is not None and known.status == outcome.status and known.digest == outcome.digest:
            now = replace(known, resumed=False, gone=False, stamp=outcome.stamp or known.stamp,
                          settings=outcome.settings or known.settings)  # fmt: skip
            if now != replace(known, resumed=False):  # the same store; what is known of its source is new
                self._journal.append({"event": "outcome", **now.to_dict()})
            outcome = replace(now, resumed=True)
        else:
            if self._has_manifest:  # of a smaller archive, from now on
                self.place.remove(MANIFEST)
                self._has_manifest = False
            self._journal.append({"event": "outcome", **outcome.to_dict()})
        self._ledger.put(outcome, item, part)
        return outcome

    def mark(self, outcome: Outcome, *, gone: bool) -> Outcome:
        """Note whether the source still has a file that is kept; return what is known of it now."""
        assert self._ledger is not None and self._journal is not None
        if gone != outcome.gone:
            outcome = replace(outcome, gone=gone)
            self._journal.append({"event": "outcome", **outcome.to_dict()})
            self._ledger.put(outcome)
        return outcome

    def note_merge(self, other: str) -> None:
        """Note that another archive is being taken in, or "" that it was."""
        assert self._ledger is not None and self._journal is not None
        self._journal.append({"event": "merge", "other": other})
        self._ledger.merging = other

    def forget(self, outcome: Outcome) -> None:
        """Drop a file from the record; what is in the archive is not touched."""
        assert self._ledger is not None and self._journal is not None
        self._journal.append({"event": "forgotten", "key": outcome.key, "out": outcome.out})
        self._ledger.drop(outcome.key, outcome.out)

    def remove(self, outcome: Outcome) -> None:
        """Note that a file is removed on purpose, before it is: no run brings it back by itself."""
        assert self._ledger is not None and self._journal is not None
        self._journal.append({"event": "removed", "key": outcome.key, "out": outcome.out})
        self._ledger.remove(outcome.key, outcome.out)

    def restore(self, key: str, out: str) -> None:
        """Note that a file that was removed on purpose may come back."""
        assert self._ledger is not None and self._journal is not None
        self._journal.append({"event": "restored", "key": key, "out": out})
        self._ledger.restore(key, out)

    def amend(self, outcome: Outcome) -> None:
        """Note another digest of a file that was written anew."""
        assert self._ledger is not None and self._journal is not None
        self._journal.append({"event": "outcome", **outcome.to_dict()})
        self._ledger.put(outcome)

    def write_manifest(self) -> None:
        """Write the manifest of all that is known."""
        write_manifest(self.place, map(_entry, self.outcomes()))
        self._has_manifest = True

    def finish(self, complete: bool) -> None:
        """Note the end of a run that got through its plan; a complete archive gets its manifest."""
        if complete:
            self.write_manifest()
        elif self._has_manifest:
            self.place.remove(MANIFEST)
        self.note_end(complete)

    def note_end(self, complete: bool = True) -> None:
        """Note the end of a run."""
        assert self._journal is not None
        self._journal.append({"event": "end", "complete": complete})

    def close(self) -> None:
        """Let go of the archive."""
        if self._lock is not None and isinstance(self.place, Folder):
            with suppress(OSError):
                self.place.clear(WORK)  # what a worker left that died
        for part in (self._journal, self._ledger):
            if part is not None:
                part.close()
        if self._lock is not None:
            self._lock.close()
        self._journal = self._ledger = self._lock = None


def check_same_source(where: str, found: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if an archive is that of a source of another name or kind; it may lie elsewhere now."""
    old, new = found.get("source") or {}, job["source"]
    names = [name for name in ("kind", "name") if old.get(name) != new.get(name)]
    if names or found.get("format") != job.get("format"):
        text = "; ".join(f"{name} was {_show(old.get(name))}, now {_show(new.get(name))}" for name in names)
        raise ConfigurationError(f"{where}: the archive of another source ({text or 'of another format'})")


def check_same_job(where: str, found: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, saying what differs, if an archive is that of another job."""
    old, new = _flat(found), _flat(job)
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name) and name not in _MAY_CHANGE]
    if not names:
        return
    if names == ["source at"]:
        raise ConfigurationError(f"{where}: the archive of another source of the same name; choose another destination")
    text = "; ".join(f"{name} was {_show(old.get(name))}, now {_show(new.get(name))}" for name in names)
    raise ConfigurationError(f"{where}: the archive of another job ({text}); run that one again or choose another name")


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides whether two jobs are the same: source and options, not the version of the tool."""
    source, options = job.get("source"), job.get("options")
    out = {f"source {name}": value for name, value in source.items()} if isinstance(source, dict) else {}
    out["format"] = job.get("format")
    return out | (options if isinstance(options, dict) else {"options": options})


def _show(value: Any) -> str:
    return "not given" if value in (None, "", []) else json.dumps(value, ensure_ascii=False)


def _document(job: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(job), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _entry(outcome: Outcome) -> ManifestEntry:
    kind: EntryKind = "store" if outcome.status == "converted" else "record" if outcome.of_record else "file"
    return ManifestEntry(out=outcome.out, kind=kind, bytes=outcome.stored_bytes, digest=outcome.digest, key=outcome.key)


def _just_begun(place: WritablePlace) -> bool:
    """Return whether nothing is there but what a run leaves that ends before it has written its job."""
    unfinished = f"{RECORD}/{durable.PREFIX}", f"{WORK}/{durable.PREFIX}"
    return all(entry.key == LOCK or entry.key.startswith(unfinished) for entry in place.walk())


def archive_info(where: str) -> ArchiveInfo:
    """Return what an archive says of itself, from its record.

    Parameters
    ----------
    where : str
        Path or URL.

    Raises
    ------
    StoreError
        If it is no archive, or its record is damaged.
    """
    place = files.place(where)
    record = Record(place)
    job = record.job()
    tally = Tally()
    for outcome in record.outcomes():
        tally.add(outcome)
    return ArchiveInfo(
        archive=place.name, complete=place.size(MANIFEST) is not None, **tally.sums(),
        tool=str(job.get("tool")), source=dict(job["source"]), options=dict(job["options"]),
    )  # fmt: skip
