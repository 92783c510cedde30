"""A source -> what is to be done: an item for every file; what would overwrite something else fails beforehand.

The whole source is listed first, into a temporary database that SQLite removes: memory does not grow with the number
of files, and how much there is to do is known from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Literal, Protocol, TypeAlias, cast

from inrstore.archive.catalogue import Catalogue
from inrstore.archive.copies import IGNORE
from inrstore.archive.outcomes import Kind
from inrstore.archive.rules import Rules
from inrstore.files import Entry, Place
from inrstore.files.names import check_name, folded
from inrstore.sources import image_files, image_of, store_name
from inrstore.sources.dicom import is_dicom_file
from inrstore.store.container import ENDING

SourceKind: TypeAlias = Literal["tree", "bids", "zip", "dicom"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with a source, and how; the same for every item and every worker.

    Parameters
    ----------
    source : str
        Absolute path or URL of a folder; of a single zip, the folder that holds it.
    destination : str
        Absolute path or URL of the archive.
    kind : {"tree", "bids", "zip", "dicom"}
        What the source is.
    name : str
        What people call the source: the last part of its path. Of a zip, its key in `source`.
    rules : Rules
        Which files are taken; quality and effort of each image.
    pictures : bool
        Whether a picture of each image is made for the report.
    batch : int
        Images that are fitted together.
    """

    source: str
    destination: str
    kind: SourceKind
    name: str
    rules: Rules
    pictures: bool = False
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to do.

    Parameters
    ----------
    kind : {"image", "copy", "dicom", "zip"}
        An image file to a store; a file to copy byte for byte; a folder of DICOM files to one store each
        series; a zip to a folder.
    key : str
        Where it is in the source: a file, or the folder of DICOM files ("" is the source itself).
    out : str
        Where it goes in the archive: the folder of the store, the file, or the folder ("" is the archive itself).
    size : int
        Bytes to read; 0 if that is not known yet.
    problem : str
        Why it can only fail; empty otherwise.
    known : mapping of str to (str, str)
        What the archive has of it, and may be replaced: path -> digest and settings.
    removed : frozenset of str
        Paths of what was removed on purpose, and is left out.
    """

    kind: Kind
    key: str
    out: str
    size: int = 0
    problem: str = ""
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()


class Planned(Protocol):
    """What is to be done: `items` of together `size` bytes."""

    items: int
    size: int

    def kinds(self) -> set[str]:
        """Return the kinds of items that there are."""

    def __iter__(self) -> Iterator[Item]: ...


class Plan(Catalogue):
    """Everything that is to be done with a place, in the order of folders and names.

    Parameters
    ----------
    place : Place
        The source, or a zip in it.
    kind : {"tree", "bids", "zip", "dicom"}
        What the source is; inside a zip "zip".
    rules : Rules
        Which files are taken, and which images are kept as files.
    base : str
        Folder of the archive that the place becomes.
    bulk : str
        Name of the zip, if the place is one.

    Attributes
    ----------
    items, size : int
        How many items there are, and the bytes of their files.
    """

    def __init__(self, place: Place, kind: SourceKind, rules: Rules, *, base: str = "", bulk: str = "") -> None:
        super().__init__(
            "CREATE TABLE entries (folder TEXT, name TEXT, size INTEGER, problem TEXT);"
            "CREATE TABLE items (n INTEGER PRIMARY KEY, kind TEXT, key TEXT, out TEXT, size INTEGER, problem TEXT,"
            " fold TEXT);"
            "CREATE TABLE folders (fold TEXT PRIMARY KEY, name TEXT);"
        )
        self._place, self._kind, self._rules = place, kind, rules
        self._base, self._bulk = base, bulk
        self._last_folder = ""
        self._scan()
        self._settle()
        ((self.items, size),) = self._db.execute("SELECT count(*), sum(size) FROM items")
        self.size: int = size or 0

    def __iter__(self) -> Iterator[Item]:
        rows = self._db.execute("SELECT kind, key, out, size, problem FROM items ORDER BY n")
        for kind, key, out, size, problem in rows:
            yield Item(kind=kind, key=key, out=out, size=size, problem=problem)

    def kinds(self) -> set[str]:
        """Return the kinds of items that there are."""
        return {kind for (kind,) in self._db.execute("SELECT DISTINCT kind FROM items")}

    def out(self, key: str) -> str:
        """Return where a file goes if it is copied."""
        return f"{self._base}/{key}" if self._base else key

    # ---- listing

    def _scan(self) -> None:
        described = False
        for entry in self._place.walk():
            # What lies in a folder that cannot be listed has no names that could be chosen.
            if self._takes(entry.key) or (entry.problem and not self._rules.excluded(self.out(entry.key))):
                folder, _, name = entry.key.rpartition("/")
                row = (folder, name, entry.size, entry.problem)
                self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
                described |= entry.key == IGNORE
        if self._kind == "bids" and not described:
            self._db.execute("INSERT INTO entries VALUES ('', ?, 0, '')", (IGNORE,))
        rows = self._db.execute("SELECT folder, name, size, problem FROM entries ORDER BY folder, name")
        for folder, group in groupby(rows, itemgetter(0)):
            above = f"{folder}/" if folder else ""
            self._plan_folder(folder, [Entry(above + name, size, problem) for _, name, size, problem in group])

    def _takes(self, key: str) -> bool:
        path = self.out(key)
        if self._rules.excluded(path):
            return False
        # What is in a zip is chosen by itself, or with the zip.
        as_zip = self._is_zip(key) or (self._base != "" and self._rules.included(self._base + ".zip"))
        return as_zip or self._rules.included(path)

    def _is_zip(self, key: str) -> bool:
        return self._kind != "zip" and key.lower().endswith(".zip") and key.rpartition("/")[2].lower() != ".zip"

    def _plan_folder(self, folder: str, entries: Sequence[Entry]) -> None:
        """Plan the files that lie in a folder itself."""
        sizes = {entry.key: entry.size for entry in entries if not entry.problem}
        names = cast(Place, _Names(sizes))
        others = []
        for entry in entries:
            key = entry.key
            if entry.problem:
                self._add("copy", key, self.out(key), 0, entry.problem)
            elif self._is_zip(key):
                self._add("zip", key, self.out(key[: -len(".zip")]), entry.size)
            elif (image := image_of(names, key)) is not None and image != key:
                continue  # planned with the file that its image is known by
            elif image is not None:
                files = image_files(names, key)
                if self._rules.choose(self.out(key), self._bulk).keep:
                    for file in files:
                        self._add("copy", file, self.out(file), sizes[file])
                else:
                    out = self.out(store_name(key, ENDING[self._rules.base.container]))
                    self._add("image", key, out, sum(sizes[file] for file in files))
            else:
                others.append(key)
        scans = set() if self._kind == "zip" else doubtful(self._place, others)
        if scans:
            self._add("dicom", folder, self.out(folder).rstrip("/"), sum(sizes[key] for key in scans))
        for key in others:
            if key not in scans:
                self._add("copy", key, self.out(key), sizes[key])

    def _add(self, kind: Kind, key: str, out: str, size: int, problem: str = "") -> None:
        if not problem and out:
            problem = check_name(out)
        # A folder of scans is a folder of the archive, in which other files may lie.
        fold = folded(out) if out and kind != "dicom" and not problem else None
        row = (kind, key, out, size, problem, fold)
        self._db.execute("INSERT INTO items (kind, key, out, size, problem, fold) VALUES (?, ?, ?, ?, ?, ?)", row)
        folder = out.rpartition("/")[0]
        if not problem and folder != self._last_folder:
            self._last_folder = folder
            while folder:
                self._db.execute("INSERT OR IGNORE INTO folders VALUES (?, ?)", (folded(folder), folder))
                folder = folder.rpartition("/")[0]

    # ---- collisions

    def _settle(self) -> None:
        """Let whatever would overwrite something else fail; a file that keeps its name goes before a store."""
        self._db.execute("CREATE INDEX folds ON items (fold)")
        twice = "SELECT fold FROM items WHERE fold IS NOT NULL GROUP BY fold HAVING count(*) > 1"
        for (fold,) in self._db.execute(twice).fetchall():
            rows = self._db.execute("SELECT n, kind, key, out FROM items WHERE fold = ? ORDER BY n", (fold,)).fetchall()
            copies = [row for row in rows if row[1] == "copy"]
            winner = copies[0] if len(copies) == 1 else None
            for row in rows:
                if row is not winner:
                    other = winner or next(other for other in rows if other is not row)
                    self._fail(row[0], _clash(row[3], other[2], other[3]))
        inside = "SELECT items.n, items.out, folders.name FROM items JOIN folders ON items.fold = folders.fold"
        for number, out, name in self._db.execute(inside).fetchall():
            self._fail(number, f"would become {out!r}, and the source has a folder {name!r}")

    def _fail(self, number: int, problem: str) -> None:
        self._db.execute("UPDATE items SET problem = ? WHERE n = ?", (problem, number))


class Items:
    """Items that are known, as a plan.

    Parameters
    ----------
    items : sequence of Item
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self.items, self.size = len(items), sum(item.size for item in items)

    def kinds(self) -> set[str]:
        """Return the kinds of items that there are."""
        return {item.kind for item in self._items}

    def __iter__(self) -> Iterator[Item]:
        yield from self._items


def one_zip(place: Place, key: str) -> Items:
    """Return the plan of a source that is one zip: its members are the archive's files."""
    return Items([Item(kind="zip", key=key, out="", size=place.size(key) or 0)])


def _clash(out: str, other: str, other_out: str) -> str:
    if out == other_out:
        return f"would become {out!r}, and so would {other!r}; exclude one of them, or convert it apart"
    return f"would become {out!r}, which only case or Unicode form tells from {other_out!r}"


def doubtful(place: Place, keys: Iterable[str]) -> set[str]:
    """Return which of the files of one folder are taken for DICOM images.

    From the first DICOM image on, files with the same ending are not opened here: in a folder of 100,000 that
    would take longer than everything else. Those that are none after all are found when the folder is converted.

    Parameters
    ----------
    place : Place
        Where they are.
    keys : iterable of str
        The files that are no images, in the order of their names.
    """
    taken: set[str] = set()
    endings: set[str] = set()
    for key in keys:
        name = key.rpartition("/")[2]
        ending = name.rpartition(".")[2].lower() if "." in name else ""
        ending = "0" if ending.isdecimal() else ending  # numbered files: IM.0001, IM.0002
        if ending in endings or is_dicom_file(place, key):
            endings.add(ending)
            taken.add(key)
    return taken


class _Names:
    """The files of one folder, as far as `image_files` and `image_of` ask."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def size(self, key: str) -> int | None:
        return self._sizes.get(key)
