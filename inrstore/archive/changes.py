"""A plan beside what an archive holds -> what is new, changed, to be made anew, gone, and left as it is.

Nothing is read but names, sizes and times. The two lie in temporary databases on the disk, so memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from inrstore.archive.catalogue import Catalogue, Ledger
from inrstore.archive.outcomes import Outcome
from inrstore.archive.plan import Item, Planned
from inrstore.archive.rules import Rules, matches
from inrstore.archive.stamps import choice_of, stamp_of
from inrstore.archive.zips import record_key, splits
from inrstore.files import Place
from inrstore.sources import image_files, is_image

Why: TypeAlias = Literal["new", "changed", "settings", "forced", "same", "removed"]
"""Why an item is done, or is not: it was removed on purpose, or nothing of it is new."""

SHOWN = 1000
"""Names of each kind that are kept for people; all are counted."""


@dataclass
class Summary:
    """How many items of a plan are what, with the names of the first.

    Attributes
    ----------
    counts : dict of str to int
        By kind: new, changed, settings, forced, same, removed, gone.
    names : dict of str to list of str
        Of each kind but "same" the first, by their keys in the source.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*get_args(Why), "gone"), 0))
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, key: str) -> None:
        """Count an item."""
        self.counts[kind] += 1
        names = self.names.setdefault(kind, [])
        if kind != "same" and len(names) < SHOWN:
            names.append(key)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """What an update is going to do with an archive.

    Parameters
    ----------
    archive : str
        Its path or URL.
    counts : dict of str to int
        Items that are "new" (never done, or failed), "changed" in the source, have other "settings", are "forced", are
        the "same", were "removed" on purpose, or are "gone" from the source; the last three are left as they are.
    names : dict of str to list of str
        The first of each, by their keys in the source; not of those that are the same.
    """

    archive: str
    counts: dict[str, int]
    names: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


class Changes(Catalogue):
    """The items of a plan that have to be done, in its order.

    Parameters
    ----------
    plan : Planned
    place : Place
        Its source.
    rules : Rules
    ledger : Ledger
        What the archive knows.
    target : Place
        The archive.
    force : sequence of str
        Globs on paths in the archive: what fits is made anew though nothing changed.
    reread : bool
        Whether files are read and compared though size and time are the same.
    restore : sequence of str
        Globs on paths in the archive: what fits comes back though it was removed on purpose.

    Attributes
    ----------
    summary : Summary
    items, size : int
        How many have to be done, and the bytes of their files.
    restored : list of (str, str)
        Source key and path in the archive of what was removed and comes back.
    """

    def __init__(
        self, plan: Planned, place: Place, rules: Rules, ledger: Ledger, target: Place, *, force: Sequence[str] = (),
        reread: bool = False, restore: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(
            "CREATE TABLE todo (n INTEGER PRIMARY KEY, why TEXT);"
            "CREATE TABLE seen (key TEXT, out TEXT, PRIMARY KEY (key, out)) WITHOUT ROWID"
        )
        self._plan, self._place, self._rules, self._ledger, self._target = plan, place, rules, ledger, target
        self._force, self._reread = force, reread
        self.summary = Summary()
        self.items = self.size = 0
        self.restored = [pair for pair in ledger.removed() if any(matches(glob, pair[1]) for glob in restore)]
        self._back = set(self.restored)
        for number, item in enumerate(plan):
            why = self._why(item)
            self.summary.add(why, item.key)
            self._db.execute("INSERT INTO todo VALUES (?, ?)", (number, why))
            if why not in ("same", "removed"):
                self.items += 1
                self.size += item.size
            seen = ((one.key, one.out) for one in self._known(item))
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", seen)
        for one in ledger.earlier():
            if one.status != "failed" and not one.of_record and not one.origin and not self._is_seen(one):
                if is_taken(rules, one) and not is_superseded(ledger, place, one):
                    self.summary.add("gone", one.key)

    def _is_seen(self, one: Outcome) -> bool:
        found = self._db.execute("SELECT 1 FROM seen WHERE key = ? AND out = ?", (one.key, one.out)).fetchone()
        return found is not None

    def todo(self) -> Iterator[tuple[int, Item]]:
        """Yield what has to be done, each with its number in the plan, and with what may be replaced."""
        for (number, item), why in self._decided():
            if why not in ("same", "removed"):
                known = {one.out: (one.digest, "forced" if self._is_forced(one) else one.settings)
                         for one in self._known(item) if one.digest}  # fmt: skip
                yield number, replace(item, known=known, removed=self._removed(item))

    def same(self) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield the outcomes of what is left as it is."""
        for (number, item), why in self._decided():
            if why == "same":
                known = self._known(item)
                ordered = known if item.kind != "zip" else known[1:] + known[:1]
                yield number, [replace(one, resumed=True) for one in ordered]

    def _decided(self) -> Iterator[tuple[tuple[int, Item], Why]]:
        rows = self._db.execute("SELECT why FROM todo ORDER BY n")
        for numbered, (why,) in zip(enumerate(self._plan), rows, strict=True):
            yield numbered, why

    def _why(self, item: Item) -> Why:
        known = self._known(item)
        back = any(key.startswith(self._inside(item)) for key, _ in self._back)
        if self._gone_for_good(item.key, item.out) or (not known and not back and self._removed(item)):
            return "removed"
        if item.problem or not known:
            return "new"
        settings = ""
        if item.kind == "image":
            settings = choice_of(self._rules, item).settings
        elif item.kind == "zip":
            settings = self._rules.settings
        if any(self._is_forced(one) for one in known):
            return "forced"
        if item.kind in ("zip", "dicom") and back:
            return "changed"
        if any(one.status == "failed" for one in known):
            return "changed"
        kept = item.kind == "image" and any(one.kind == "copy" for one in known)
        if kept or (item.kind == "copy" and all(one.out != item.out for one in known)):
            return "settings"  # a rule keeps it as a file, or did
        made = [one for one in known if one.settings] if item.kind != "zip" else known[:1]
        if item.kind == "dicom":
            settings = made[0].settings if made and self._same_rules(item, made) else "others"
        if any(one.settings not in ("", settings) for one in made):
            return "settings"
        sure = known[:1] if item.kind == "zip" else known
        stamp = "" if self._reread else stamp_of(self._place, item, self._rules)
        there = all(self._is_there(one) for one in known)
        return "same" if stamp and there and all(one.stamp == stamp for one in sure) else "changed"

    def _same_rules(self, item: Item, made: Sequence[Outcome]) -> bool:
        """Return whether the rules would make the same of all series of a folder of scans."""
        return all(one.settings == self._rules.choose(one.path).settings for one in made)

    def _known(self, item: Item) -> list[Outcome]:
        """Return what the archive has of an item; of a zip the record of the zip first."""
        if item.kind == "zip":
            record = self._ledger.get(item.key, record_key(item.key))
            return [] if record is None else [record, *self._ledger.below(self._inside(item))]
        if item.kind == "dicom":
            above, stamp = len(self._inside(item)), stamp_of(self._place, item, self._rules)
            # Beside it lie files that are items of their own.
            return [one for one in self._ledger.below(self._inside(item)) if "/" not in one.key[above:]
                    and (one.stamp == stamp or self._place.size(one.key) is None)]  # fmt: skip
        keys = list(image_files(self._place, item.key)) if item.kind == "image" else [item.key]
        found = [one for key in keys for one in self._ledger.by_key(key) if not one.origin]
        there = None if found else self._ledger.by_out(item.out)
        if there is not None and not there.origin and self._place.size(there.key) is None:
            return [there]  # of a file that has another name now: packed, say
        return found

    @staticmethod
    def _inside(item: Item) -> str:
        """Return how the keys of all begin that comes from an item."""
        if item.kind == "zip":
            return f"{item.key}:"
        return f"{item.key}/" if item.key else ""

    def _is_forced(self, outcome: Outcome) -> bool:
        return any(matches(glob, path) for glob in self._force for path in (outcome.path, outcome.out))

    def _gone_for_good(self, key: str, out: str) -> bool:
        return self._ledger.is_removed(key, out) and (key, out) not in self._back

    def _removed(self, item: Item) -> frozenset[str]:
        """Return the paths of what was removed on purpose from an item that has several files."""
        if item.kind not in ("zip", "dicom"):
            return frozenset()
        inside = self._inside(item)
        return frozenset(out for key, out in self._ledger.removed()
                         if key.startswith(inside) and (key, out) not in self._back)  # fmt: skip

    def _is_there(self, outcome: Outcome) -> bool:
        """Return whether the archive has what it wrote, as far as a look tells."""
        size = self._target.size(outcome.out)
        if size is not None:
            return size == outcome.stored_bytes
        return outcome.status == "converted" and any(
            self._target.size(f"{outcome.out}/{name}") is not None for name in ("zarr.json", ".zattrs")
        )


def is_taken(rules: Rules, outcome: Outcome) -> bool:
    """Return whether a job would take the file of the source from which an outcome came."""
    paths = [outcome.path, *(head for head, _ in splits(outcome.key) if head.lower().endswith(".zip"))]
    return any(rules.included(path) for path in paths) and not any(rules.excluded(path) for path in paths)


def is_superseded(ledger: Ledger, source: Place, outcome: Outcome) -> bool:
    """Return whether the file of the source is there, and in the archive as something else."""
    others = (one for one in ledger.by_key(outcome.key) if one.out != outcome.out)
    return source.size(outcome.key) is not None or any(one.status != "failed" for one in others)


def unmatched(plan: Planned, place: Place, rules: Rules, members: Iterator[str]) -> list[str]:
    """Return the rules that no image of a plan fits.

    Parameters
    ----------
    plan : Planned
    place : Place
        Its source.
    rules : Rules
    members : iterator of str
        Names of the rules that images inside zips fit, one after the other; asked only while a rule is left over.
    """
    left = {rule.name for rule in rules.rules} - {"*"}
    for item in plan if left else ():
        if item.kind == "image":
            left.discard(choice_of(rules, item).rule)
        elif item.kind == "copy" and is_image(item.key):  # that a rule keeps as a file
            left.discard(rules.choose(item.out).rule)
        if not left:
            break
    while left and (name := next(members, None)) is not None:
        left.discard(name)
    return [rule.name for rule in rules.rules if rule.name in left]
