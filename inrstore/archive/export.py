"""An archive -> what it was made from: a tree of images and files, or its zips, rebuilt.

What is exported appears under its name when it is complete and on the disk; until then it has another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from inrstore import files
from inrstore.archive.copies import is_made, original_of
from inrstore.archive.manifest import (
    ManifestEntry,
    check_inside,
    check_unchanged,
    digest_of,
    path_of,
    read_manifest,
    source_kind,
)
from inrstore.archive.prepare import absolute, check_apart
from inrstore.archive.record import Record
from inrstore.archive.rules import matches
from inrstore.archive.zips import ZIPS, rebuild_zip, record_key, zip_of
from inrstore.errors import ConfigurationError, StoreError
from inrstore.files import Place, blocks, durable
from inrstore.files.local import Folder
from inrstore.store.container import explain, refuse_existing
from inrstore.store.export import export
from inrstore.store.reader import Store

ExportCallback: TypeAlias = Callable[[str, int], None]
"""Called with the name of what was exported, and how many things are exported so far."""


@dataclass(frozen=True, kw_only=True)
class ArchiveExportReport:
    """What an export of an archive made.

    Parameters
    ----------
    archive, out : str
        From where, to where.
    images, files, zips : int
        Images written, files copied, zips rebuilt; what is in a zip counts as well.
    left_out : int
        Members that a rebuilt zip lacks, because they were excluded when the archive was made.
    file_bytes : int
        Size of all that was written.
    seconds : float
        Time taken.
    """

    archive: str
    out: str
    images: int
    files: int
    zips: int
    left_out: int
    file_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def export_archive(
    dst: str | os.PathLike[str],
    out: str | os.PathLike[str],
    include: Sequence[str] = (),
    *,
    progress: ExportCallback | None = None,
) -> ArchiveExportReport:
    """Write what an archive was made from.

    Images have their format and their names again, all other files byte for byte what they were; a BIDS dataset has its
    own description. An archive of zips gives zips with the same members, order, dates, attributes and comments; only
    the compressed bytes of the images and of the zips differ. DICOM folders stay what dcm2niix made of them.

    Parameters
    ----------
    dst : path-like
        Path or URL of the archive.
    out : path-like
        Folder to make; or, of the archive of one zip, a name that ends in .zip. Must not exist.
    include : sequence of str
        Globs on the paths that are to be written; by default everything is. A zip is rebuilt whole.
    progress : callable, optional
        Called after each file.

    Returns
    -------
    ArchiveExportReport

    Raises
    ------
    DestinationExistsError
        If `out` exists.
    ConfigurationError
        For a zip of an archive that was not made from one, or globs that nothing fits.
    StoreError, CorruptChunkError
        If the archive is incomplete or damaged; nothing is left then.
    """
    if files.is_url(out):
        raise ConfigurationError(f"{out}: an export is written to a folder or file of this machine")
    destination = Path(out)
    check_apart(absolute(os.fspath(dst)), absolute(os.fspath(out)))
    place = files.place(dst)
    record = Record(place)
    job = record.job()
    start = time.perf_counter()
    writer = _Writer(place, job, include, progress)
    if destination.suffix.lower() == ".zip":
        if source_kind(job) != "zip" or include:
            raise ConfigurationError(
                f"{destination}: only the archive of one zip can be exported to one, and only whole"
            )
        key = str(job["source"].get("name"))
        # To the end: an incomplete or damaged archive is an error.
        found = [entry for entry in read_manifest(place) if entry.out == record_key(key)]
        if not found:
            raise StoreError(f"{place.name}: the manifest lacks the record of {key}")
        writer.rebuild(found[0], key, destination)
    else:
        with _partial_folder(destination) as folder:
            writer.tree(folder)
            if include and not writer.done:
                raise ConfigurationError(f"include: nothing in {place.name} fits {', '.join(include)}")
    return ArchiveExportReport(
        archive=place.name,
        out=str(destination),
        images=writer.images,
        files=writer.files,
        zips=writer.zips,
        left_out=writer.left_out,
        file_bytes=writer.size,
        seconds=time.perf_counter() - start,
    )


class _Writer:
    """Writes one thing after the other and counts them."""

    def __init__(
        self, place: Place, job: Mapping[str, Any], include: Sequence[str], progress: ExportCallback | None
    ) -> None:
        self.place = place
        self.job = job
        self.include = include
        self.progress = progress
        self.images = self.files = self.zips = self.left_out = self.size = 0

    @property
    def done(self) -> int:
        """How many things are written."""
        return self.images + self.files + self.zips

    def tree(self, folder: Path) -> None:
        """Write everything that is included into a folder."""
        single = source_kind(self.job) == "zip"
        for entry in read_manifest(self.place):
            if entry.out.startswith(f"{ZIPS}/") and not single:
                self._zip(entry, folder)
                continue
            if entry.kind == "record" and not entry.out.startswith(f"{ZIPS}/"):
                check_unchanged(self.place, entry)
            kept = original_of(self.place, entry)
            if kept is None and is_made(self.job, entry):
                continue
            packed = None if single else zip_of(self.place, entry.key)
            if packed is not None and entry.out.startswith(packed[0][: -len(".zip")] + "/"):
                continue
            name = original_path(entry, f"{self.job['source'].get('name')}:" if single else "")
            if not self._wanted(name):
                continue
            target = Folder(folder).at(name)
            if entry.kind == "store":
                self._image(entry, target)
            elif kept is not None:
                self._copy(kept, target, None)
            else:
                self._copy(entry.out, target, (entry.bytes, entry.digest))
            self._tell(name)

    def _wanted(self, name: str) -> bool:
        return not self.include or any(matches(glob, name) for glob in self.include)

    def _tell(self, name: str) -> None:
        if self.progress is not None:
            self.progress(name, self.done)

    def _image(self, entry: ManifestEntry, target: Path) -> None:
        """Write a store as the files that it was made from."""
        where = path_of(self.place, entry.out)
        store = Store(where)
        if store.seal != entry.digest:
            raise StoreError(f"{where}: is another store than the one in the manifest: its seal differs")
        durable.make_folder(target.parent)
        self.size += export(where, target).file_bytes
        self.images += 1

    def _copy(self, key: str, target: Path, expected: tuple[int, str] | None) -> None:
        """Copy a file; what was written is compared with size and digest in the manifest, if they are there."""
        try:
            with self.place.open(key) as file:
                Folder(target.parent).write_blocks(target.name, blocks(file))
            with target.open("rb") as written:
                found = digest_of(written)
        except FileNotFoundError as error:
            raise StoreError(f"{self.place.label(key)}: is missing") from error
        except OSError as error:
            raise explain(target, error) from error
        if expected is not None and found != expected:
            raise StoreError(f"{self.place.label(key)}: was changed: its digest is not that of the manifest")
        self.size += found[0]
        self.files += 1

    def _zip(self, entry: ManifestEntry, folder: Path) -> None:
        """Rebuild a zip of a folder of zips."""
        key = entry.out.removeprefix(f"{ZIPS}/").removesuffix(".json")
        check_inside(self.place, key)
        if self._wanted(key):
            target = Folder(folder).at(key)
            durable.make_folder(target.parent)
            self.rebuild(entry, key, target)

    def rebuild(self, entry: ManifestEntry, key: str, destination: Path) -> None:
        """Rebuild a zip from its record, which must be what was written."""
        check_unchanged(self.place, entry)
        made = rebuild_zip(self.place, key, destination, self._tell)
        self.images += made.images
        self.files += made.files
        self.left_out += made.left_out
        self.size += destination.stat().st_size
        self.zips += 1


def original_path(entry: ManifestEntry, zipped: str) -> str:
    """Return where an image or file lay: the folder it has in the archive, and its name in the source.

    Parameters
    ----------
    entry : ManifestEntry
    zipped : str
        What the keys of the members of its zip begin with, "1.zip:"; "" for what lay in none.
    """
    if entry.kind != "store":
        return entry.out
    name = entry.key.removeprefix(zipped).rpartition("/")[2]
    folder, slash, _ = entry.out.rpartition("/")
    return folder + slash + name


@contextmanager
def _partial_folder(destination: Path) -> Iterator[Path]:
    """Give a folder that gets its name at the end; after an error nothing is left."""
    refuse_existing(destination)
    folder = durable.temporary(destination.parent)
    try:
        durable.make_folder(destination.parent)
        folder.mkdir()  # fails if something has the name, so all that is in it is ours
        try:
            yield folder
            refuse_existing(destination)
            durable.sync_folders(folder)
            durable.rename(folder, destination)
        finally:
            durable.remove_folder(folder)
    except OSError as error:
        raise explain(destination, error) from error
