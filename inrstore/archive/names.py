"""The names in a manifest, in a temporary database on the disk: what an archive has too much, and what it lacks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast

from inrstore.archive.holdings import Holding, source_kind
from inrstore.archive.items import SourceKind
from inrstore.archive.plan import Plan
from inrstore.archive.record import FOLDER
from inrstore.archive.rules import Rules, Selection
from inrstore.files import Place
from inrstore.store.convert import Wish
from inrstore.store.quality import Promise


class Names:
    """Outputs and keys of an archive's holdings; SQLite removes the file when it is closed."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE outs (name TEXT PRIMARY KEY, store INTEGER) WITHOUT ROWID;"
            "CREATE TABLE keys (name TEXT PRIMARY KEY) WITHOUT ROWID;"
            "BEGIN"
        )

    def add(self, holding: Holding) -> bool:
        """Take the names of a holding in; return False if its output is there already."""
        self._db.execute("INSERT OR IGNORE INTO keys VALUES (?)", (holding.key,))
        values = holding.out, holding.kind == "store"
        return self._db.execute("INSERT OR IGNORE INTO outs VALUES (?, ?)", values).rowcount == 1

    def kind(self, out: str) -> str:
        """Return what a path of the archive is: "store", "file", or "" if it is neither."""
        row = self._db.execute("SELECT store FROM outs WHERE name = ?", (out,)).fetchone()
        return "" if row is None else "store" if row[0] else "file"

    def has_key(self, key: str) -> bool:
        """Return whether a file of the source is held."""
        return self._db.execute("SELECT 1 FROM keys WHERE name = ?", (key,)).fetchone() is not None

    def has_below(self, folder: str) -> bool:
        """Return whether something that was in a folder of the source is held."""
        start = f"{folder}/" if folder else ""
        end = start[:-1] + "0" if start else "\U0010ffff"  # "0" follows "/"
        return self._db.execute("SELECT 1 FROM keys WHERE name >= ? AND name < ?", (start, end)).fetchone() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()


def extra_files(place: Place, names: Names) -> Iterator[str]:
    """Yield the files of an archive that are neither in its manifest nor in one of its stores nor in its record."""
    store = ""
    for entry in place.walk():
        key = entry.key
        if key.startswith(f"{FOLDER}/") or (store and key.startswith(store)) or names.kind(key) == "file":
            continue
        parts = key.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        inside = next((folder for folder in above if names.kind(folder) == "store"), None)
        if inside is None:
            yield key
        else:
            store = f"{inside}/"


def not_archived(source: Place, job: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Yield what the job would convert or copy of a source today, and the archive does not hold."""
    options = job.get("options")
    options = options if isinstance(options, Mapping) else {}
    selection = Selection(include=tuple(options.get("include") or ()), exclude=tuple(options.get("exclude") or ()))
    rules = Rules(base=Wish(promise=Promise(lossless=True)))
    with Plan(source, cast(SourceKind, source_kind(job)), rules, selection) as plan:
        for item in plan:
            held = names.has_below(item.key) if item.kind == "dicom" else names.has_key(item.key)
            if not held:
                yield item.key
