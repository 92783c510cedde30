"""Outcomes by what they are of, the last one of each: looked up and listed in order, and not kept in memory.

They lie in a temporary database that SQLite removes when it is closed; a job of a million files takes no more memory
than one of ten.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inrstore.archive.items import Outcome

EARLIER = -1
"""Rank of what is known from an earlier run only."""


class Ledger:
    """Outcomes by source key and output, each with its rank: the number of its item, and its place in that item."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE outcomes (key TEXT, out TEXT, item INTEGER, part INTEGER, line TEXT, PRIMARY KEY (key, out))"
        )
        self._db.execute("BEGIN")

    def put(self, outcome: Outcome, item: int = EARLIER, part: int = 0) -> None:
        """Set what is known of a file."""
        line = json.dumps(outcome.to_dict(), allow_nan=False)
        values = (outcome.key, outcome.out, item, part, line)
        self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?)", values)

    def get(self, key: str, out: str) -> Outcome | None:
        """Return what is known of a file."""
        row = self._db.execute("SELECT line FROM outcomes WHERE key = ? AND out = ?", (key, out)).fetchone()
        return None if row is None else Outcome.from_dict(json.loads(row[0]))

    def drop(self, key: str, out: str) -> None:
        """Forget a file."""
        self._db.execute("DELETE FROM outcomes WHERE key = ? AND out = ?", (key, out))

    def current(self) -> Iterator[Outcome]:
        """Yield the outcomes of this run, in the order of the plan."""
        rows = self._db.execute("SELECT line FROM outcomes WHERE item >= 0 ORDER BY item, part")
        for (line,) in rows:
            yield Outcome.from_dict(json.loads(line))

    def earlier(self) -> Iterator[Outcome]:
        """Yield what is known from earlier runs only, in the order it was put."""
        rows = self._db.execute("SELECT line FROM outcomes WHERE item < 0 ORDER BY rowid")
        for (line,) in rows:
            yield Outcome.from_dict(json.loads(line))

    def close(self) -> None:
        """Remove it."""
        self._db.close()
