"""What memory should not hold: names and outcomes of a million files, in temporary databases on the disk.

A job of a million files takes no more memory than one of ten. SQLite removes the file when it is closed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inrstore.archive.outcomes import Outcome
from inrstore.files.closing import Closing

EARLIER = -1
"""Rank of what is known from an earlier run only."""


class Catalogue(Closing):
    """A temporary database.

    Parameters
    ----------
    tables : str
        The statements that make them.
    threads : bool
        Whether other threads than this one use it, too, one at a time.
    """

    def __init__(self, tables: str, *, threads: bool = False) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=not threads)
        self._db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {tables}; BEGIN")

    def close(self) -> None:
        """Remove it."""
        self._db.close()


class Ledger(Catalogue):
    """The last outcome of each file by source key and output, with its rank: number of its item, place in that item.

    Also what was ever written where, and what was removed on purpose and is not to come back by itself.
    """

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE outcomes (key TEXT, out TEXT, item INTEGER, part INTEGER, line TEXT, PRIMARY KEY (key, out));"
            "CREATE INDEX outs ON outcomes (out);"
            "CREATE TABLE made (out TEXT, digest TEXT, PRIMARY KEY (out, digest)) WITHOUT ROWID;"
            "CREATE TABLE removed (key TEXT, out TEXT, PRIMARY KEY (key, out)) WITHOUT ROWID"
        )
        self.merging = ""  # the archive of which a merge was begun and not ended

    def put(self, outcome: Outcome, item: int = EARLIER, part: int = 0) -> None:
        """Set what is known of a file."""
        line = json.dumps(outcome.to_dict(), allow_nan=False)
        values = (outcome.key, outcome.out, item, part, line)
        self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?)", values)
        if outcome.status != "failed":
            self.restore(outcome.key, outcome.out)  # it is there again
        if outcome.digest:
            self._db.execute("INSERT OR IGNORE INTO made VALUES (?, ?)", (outcome.out, outcome.digest))

    def made(self, out: str) -> set[str]:
        """Return the digests, or seals, of all that was ever written to a path of the archive."""
        return {digest for (digest,) in self._db.execute("SELECT digest FROM made WHERE out = ?", (out,))}

    def remove(self, key: str, out: str) -> None:
        """Forget a file that was removed on purpose, and remember that it was."""
        self.drop(key, out)
        self._db.execute("INSERT OR IGNORE INTO removed VALUES (?, ?)", (key, out))

    def restore(self, key: str, out: str) -> None:
        """Forget that a file was removed on purpose."""
        self._db.execute("DELETE FROM removed WHERE key = ? AND out = ?", (key, out))

    def is_removed(self, key: str, out: str) -> bool:
        """Return whether a file was removed on purpose."""
        found = self._db.execute("SELECT 1 FROM removed WHERE key = ? AND out = ?", (key, out)).fetchone()
        return found is not None

    def removed(self) -> Iterator[tuple[str, str]]:
        """Yield source key and output of what was removed on purpose."""
        yield from self._db.execute("SELECT key, out FROM removed ORDER BY key, out").fetchall()

    def by_out(self, out: str) -> Outcome | None:
        """Return what is known of a path of the archive."""
        return next(self._select("WHERE out = ? ORDER BY rowid DESC", out), None)

    def is_current(self, out: str) -> bool:
        """Return whether this run made, or came across, what lies at a path of the archive."""
        return any(one.status != "failed" for one in self._select("WHERE out = ? AND item >= 0", out))

    def by_key(self, key: str) -> Iterator[Outcome]:
        """Yield what is known of a file of the source."""
        return self._select("WHERE key = ? ORDER BY rowid", key)

    def below(self, start: str) -> Iterator[Outcome]:
        """Yield what is known of files whose keys begin with a text that ends in a slash or a colon."""
        end = start[:-1] + chr(ord(start[-1]) + 1) if start else "\U0010ffff"
        return self._select("WHERE key >= ? AND key < ? ORDER BY rowid", start, end)

    def any(self) -> Iterator[Outcome]:
        """Yield all outcomes, those of this run first."""
        yield from self.current()
        yield from self.earlier()

    def get(self, key: str, out: str) -> Outcome | None:
        """Return what is known of a file."""
        return next(self._select("WHERE key = ? AND out = ?", key, out), None)

    def drop(self, key: str, out: str) -> None:
        """Forget a file."""
        self._db.execute("DELETE FROM outcomes WHERE key = ? AND out = ?", (key, out))

    def current(self) -> Iterator[Outcome]:
        """Yield the outcomes of this run, in the order of the plan."""
        return self._select("WHERE item >= 0 ORDER BY item, part")

    def earlier(self) -> Iterator[Outcome]:
        """Yield what is known from earlier runs only, in the order it was put."""
        return self._select("WHERE item < 0 ORDER BY rowid")

    def _select(self, which: str, *values: str) -> Iterator[Outcome]:
        for (line,) in self._db.execute(f"SELECT line FROM outcomes {which}", values):  # noqa: S608 - own text
            yield Outcome.from_dict(json.loads(line))


class Names(Catalogue):
    """Outputs and source keys of all that is in a manifest."""

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE outs (name TEXT PRIMARY KEY, store INTEGER) WITHOUT ROWID;"
            "CREATE TABLE keys (name TEXT PRIMARY KEY) WITHOUT ROWID"
        )

    def add(self, out: str, key: str, *, store: bool) -> bool:
        """Take in a store or file; return False if its output is there already."""
        self._db.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,))
        return self._db.execute("INSERT OR IGNORE INTO outs VALUES (?, ?)", (out, store)).rowcount == 1

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
