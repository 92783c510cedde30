"""The record of an archive, in its folder `.inrstore`: what the job is, what became of each file, what there is.

`job.json` says what was asked for. `journal.jsonl` gains a line for each outcome, on the disk before the next. Only a
complete archive has `manifest.jsonl`, written last: a line for each store and file, and one with their number and the
digest over all lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from inrstore import files
from inrstore.archive.items import Outcome
from inrstore.archive.ledger import Ledger
from inrstore.errors import ConfigurationError, DestinationExistsError, FileTooLargeError, StoreError
from inrstore.files import WritablePlace
from inrstore.files.closing import Closing
from inrstore.files.journal import MAX_LINE_BYTES, Journal, decode, encode, records
from inrstore.files.local import Folder
from inrstore.files.lock import Lock
from inrstore.store import manifest

if TYPE_CHECKING:
    from inrstore.files.remote import ObjectPlace

FOLDER = ".inrstore"
JOB = f"{FOLDER}/job.json"
JOURNAL = f"{FOLDER}/journal.jsonl"
MANIFEST = f"{FOLDER}/manifest.jsonl"
LOCK = f"{FOLDER}/lock"
ORIGINALS = f"{FOLDER}/originals"
ZIPS = f"{FOLDER}/zips"
VERSION = 1
MAX_JOB_BYTES = 1 << 24
_BLOCK = 1 << 16

_MAY_CHANGE = ("include", "exclude")
"""Options that a later run of a job may change: they say what is converted, not how."""


class _Journal(Protocol):
    def append(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class _Lock(Protocol):
    def close(self) -> None: ...


def is_archive(place: files.Place) -> bool:
    """Return whether a place holds an archive, complete or not."""
    return place.size(JOB) is not None


class Record(Closing):
    """The record of an archive.

    Opened, it can be read: `job`, `outcomes`, `manifest`. Between `begin` and `close` this process holds the
    archive and writes.

    Parameters
    ----------
    place : WritablePlace
        The archive.
    """

    def __init__(self, place: WritablePlace) -> None:
        self.place = place
        self._lock: _Lock | None = None
        self._journal: _Journal | None = None
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

        While this record is written, it is that of this run, in the order of the plan; else of all runs.

        Raises
        ------
        StoreError
            If the journal is damaged.
        """
        if self._ledger is not None:
            yield from self._ledger.current()
            return
        ledger = self._read_journal()
        try:
            yield from ledger.earlier()
        finally:
            ledger.close()

    def _read_journal(self) -> Ledger:
        ledger = Ledger()
        for record in journal_records(self.place):
            try:
                if record["event"] == "outcome":
                    outcome = Outcome.from_dict(record)
                    ledger.drop(outcome.key, outcome.out)
                    ledger.put(outcome)
                elif record["event"] == "gone":
                    ledger.drop(record["key"], record["out"])
            except (KeyError, TypeError) as error:
                raise StoreError(f"{self.place.label(JOURNAL)}: a line that is none of a job: {error}") from error
        return ledger

    def manifest(self) -> Iterator[dict[str, Any]]:
        """Yield what a complete archive holds, one line for each store and file: out, kind, bytes, digest, key.

        Raises
        ------
        StoreError
            If there is no manifest (the archive is incomplete), or it is damaged; at its end, if lines are missing.
        """
        where = self.place.label(MANIFEST)
        if self.place.size(MANIFEST) is None:
            raise StoreError(f"{self.place.name}: incomplete: it has no manifest; run the same convert command again")
        sha256 = hashlib.sha256()
        count = 0
        with self.place.open(MANIFEST) as file:
            while line := file.readline(MAX_LINE_BYTES):
                found = decode(count, line)
                if found is None:
                    raise StoreError(f"{where}: line {count + 1} is damaged")
                if "end" in found:
                    if (found["end"], found.get("digest")) != (count, manifest.shorten(sha256.digest())):
                        raise StoreError(f"{where}: the last line does not fit the lines before it")
                    if file.read(1):
                        raise StoreError(f"{where}: goes on after its last line")
                    return
                if not _is_line(found):
                    raise StoreError(f"{where}: line {count + 1} is damaged")
                sha256.update(line)
                count += 1
                yield found
        raise StoreError(f"{where}: the last line is missing")

    # ---- writing

    def begin(self, job: Mapping[str, Any]) -> None:
        """Take hold of the archive for a job, or for going on with it.

        Raises
        ------
        DestinationExistsError
            If the place holds something else than an archive.
        DestinationHeldError
            If another process is writing to it.
        ConfigurationError
            If it is the archive of another job; the message says what differs.
        """
        if self.place.size(LOCK) is None and not is_archive(self.place) and not _is_empty(self.place):
            raise DestinationExistsError(
                f"{self.place.name}: exists already and is no archive of this program; choose another name"
            )
        self._lock = _take_lock(self.place)
        try:
            if not is_archive(self.place):
                self.place.write(JOB, _document(job))
            else:
                found = self.job()
                check_same_job(self.place.name, found, job)
                if found["options"] != job["options"]:
                    self.place.remove(MANIFEST)  # before: it is that of another selection
                    self.place.write(JOB, _document(job))
            self._ledger = self._read_journal()
            self._journal = _open_journal(self.place)
            self._has_manifest = self.place.size(MANIFEST) is not None
            self._journal.append({"event": "begin", "tool": job["tool"]})
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
        known = self._ledger.get(outcome.key, outcome.out) if outcome.resumed else None
        if known is not None and known.status == outcome.status and known.digest == outcome.digest:
            outcome = replace(known, resumed=True)
        else:
            if self._has_manifest:  # of a smaller archive, from now on
                self.place.remove(MANIFEST)
                self._has_manifest = False
            self._journal.append({"event": "outcome", **outcome.to_dict()})
        self._ledger.put(outcome, item, part)
        return outcome

    def write_manifest(self, lines: Iterable[Mapping[str, Any]]) -> int:
        """Write the manifest, which makes the archive complete; return how many lines it has.

        Parameters
        ----------
        lines : iterable of dict
            out, kind ("store", "file" or "record"), bytes, digest, key.
        """
        count = 0

        def blocks() -> Iterator[bytes]:
            nonlocal count
            sha256, block = hashlib.sha256(), bytearray()
            for line in lines:
                data = encode(count, dict(line))
                sha256.update(data)
                block += data
                count += 1
                if len(block) >= _BLOCK:
                    yield bytes(block)
                    block.clear()
            yield bytes(block) + encode(count, {"end": count, "digest": manifest.shorten(sha256.digest())})

        self.place.write_blocks(MANIFEST, blocks())
        return count

    def finish(self, complete: bool) -> None:
        """Note the end of a run that got through its plan; a complete archive gets its manifest.

        What earlier runs made and the plan no longer has is dropped from the record; the files stay.
        """
        assert self._ledger is not None and self._journal is not None
        for outcome in self._ledger.earlier():
            self._journal.append({"event": "gone", "key": outcome.key, "out": outcome.out})
        if complete:
            self.write_manifest(self._lines())
        elif self._has_manifest:
            self.place.remove(MANIFEST)
        self._journal.append({"event": "end", "complete": complete})

    def _lines(self) -> Iterator[dict[str, Any]]:
        for outcome in self.outcomes():
            if outcome.status == "converted":
                kind = "store"
            else:
                kind = "record" if outcome.out.startswith(f"{FOLDER}/") else "file"
            yield {"out": outcome.out, "kind": kind, "bytes": outcome.stored_bytes, "digest": outcome.digest,
                   "key": outcome.key}  # fmt: skip

    def close(self) -> None:
        """Let go of the archive."""
        for part in (self._journal, self._ledger):
            if part is not None:
                part.close()
        if self._lock is not None:
            self._lock.close()
        self._journal = self._ledger = self._lock = None


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


def _is_line(found: Mapping[str, Any]) -> bool:
    texts = all(isinstance(found.get(name), str) for name in ("out", "kind", "digest", "key"))
    return texts and type(found.get("bytes")) is int and found["kind"] in ("store", "file", "record")


def _is_empty(place: WritablePlace) -> bool:
    return next(iter(place.walk()), None) is None


def _take_lock(place: WritablePlace) -> _Lock:
    if isinstance(place, Folder):
        return Lock(place.at(LOCK), place.name)
    from inrstore.files.claim import Claim

    return Claim(cast("ObjectPlace", place), LOCK, place.name)


def _open_journal(place: WritablePlace) -> _Journal:
    if isinstance(place, Folder):
        return Journal(place.at(JOURNAL))
    from inrstore.files.remote_journal import RemoteJournal

    return RemoteJournal(cast("ObjectPlace", place), JOURNAL)


def journal_records(place: WritablePlace) -> Iterator[dict[str, Any]]:
    """Yield the lines of an archive's journal, one at a time."""
    if isinstance(place, Folder):
        return records(place.at(JOURNAL))
    from inrstore.files.remote_journal import remote_records

    return remote_records(cast("ObjectPlace", place), JOURNAL)
