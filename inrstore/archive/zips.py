"""A zip -> its record in the archive -> the zip again: the same members, order, dates, attributes and comments."""

from __future__ import annotations

import base64
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrstore import files
from inrstore.archive.manifest import check_inside, path_of
from inrstore.archive.outcomes import Outcome
from inrstore.errors import FileTooLargeError, StoreError
from inrstore.files import Place, blocks, durable
from inrstore.files.names import RECORD
from inrstore.files.zip_members import Member
from inrstore.sources.registry import file_names, is_image
from inrstore.store.container import NewFile, explain
from inrstore.store.export import export
from inrstore.store.reader import Store

ZIPS = f"{RECORD}/zips"
MAX_RECORD_BYTES = 1 << 28
"""Record of one zip: some hundred bytes for each of its members."""


@dataclass(frozen=True)
class ZipContents:
    """What was a zip: its comment, its members, and the image that each file of an image belongs to."""

    comment: bytes
    members: Sequence[Member]
    images: Mapping[str, str]

    def record(self, key: str, done: Sequence[Outcome]) -> bytes:
        """Return the record of the zip: what is needed to build it again, and where each member is in the archive."""
        found = {outcome.key: outcome for outcome in done}
        members = []
        for member in self.members:
            outcome = found.get(f"{key}:{member.name}") or found.get(f"{key}:{self.images.get(member.name)}")
            out, store = ("", False) if outcome is None else (outcome.out, outcome.status == "converted")
            seal = {"digest": outcome.digest} if outcome is not None and store else {}
            members.append({**member.to_dict(), "out": out, "store": store, **seal})
        document = {"comment": base64.b64encode(self.comment).decode(), "members": members}
        return (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def record_key(key: str) -> str:
    """Return where an archive keeps the record of a zip of the source."""
    return f"{ZIPS}/{key}.json"


def zip_of(place: Place, key: str) -> tuple[str, str] | None:
    """Return the key of the zip that a key leads into and the member, or None if it leads into none."""
    return next((pair for pair in splits(key) if place.size(record_key(pair[0])) is not None), None)


def splits(key: str) -> Iterator[tuple[str, str]]:
    """Yield what is before and behind each colon of a key, one of which may follow the name of a zip."""
    start = key.find(":")
    while start >= 0:
        yield key[:start], key[start + 1 :]
        start = key.find(":", start + 1)


def zip_record(place: Place, key: str) -> dict[str, Any]:
    """Return what is known of a zip: its comment and members.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    name = record_key(key)
    try:
        found = json.loads(files.read(place, name, MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError, FileTooLargeError) as error:
        raise StoreError(f"{place.label(name)}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("members"), list):
        raise StoreError(f"{place.label(name)}: members: not a list")
    return found


@dataclass
class Rebuilt:
    """What a rebuilt zip holds.

    Attributes
    ----------
    images, files : int
        Members from stores, and members that were kept as they were.
    left_out : int
        Members that the archive does not have, because they were excluded.
    """

    images: int = 0
    files: int = 0
    left_out: int = 0


def rebuild_zip(place: Place, key: str, destination: Path, tell: Callable[[str], None]) -> Rebuilt:
    """Write a zip anew from its record.

    Images are packed as `inrstore.store.export.export` gives them, all others byte for byte. The same archive
    always gives the same bytes.

    Parameters
    ----------
    place : Place
        The archive.
    key : str
        Of the zip, in the source.
    destination : Path
        File to make; must not exist.
    tell : callable
        Called with the name of each member that is done.

    Raises
    ------
    StoreError, CorruptChunkError
        If the archive is damaged, or the file cannot be written; nothing is left then.
    """
    document = zip_record(place, key)
    where = place.label(record_key(key))
    members = [_member(entry, where) for entry in document["members"]]
    made = Rebuilt()
    with NewFile(destination) as partial:
        try:
            with (
                tempfile.TemporaryDirectory(prefix=durable.PREFIX, dir=destination.parent) as scratch,
                zipfile.ZipFile(partial.path, "x") as packed,
            ):
                images = _Images(place, Path(scratch))
                for member, out, is_store, seal in members:
                    if not out and not member.dir:
                        made.left_out += 1
                        continue
                    info = member.zip_info()
                    if member.dir:
                        packed.writestr(info, b"")
                    elif is_store:
                        _pack_image(packed, info, images.file(out, member.name, seal))
                        made.images += is_image(member.name)
                    else:
                        _pack_file(packed, info, place, out, member)
                        made.files += 1
                    _as_before(info, member)
                    tell(f"{key}:{member.name}")
                packed.comment = _comment(document, where)
        except OSError as error:
            raise explain(destination, error) from error
        except (ValueError, struct.error, NotImplementedError, OverflowError) as error:
            raise StoreError(f"{where}: members: cannot be packed: {error}") from error
        partial.commit()
    return made


def _member(entry: Any, where: str) -> tuple[Member, str, bool, str]:
    """Return a member on record, where the archive has it, whether it is a store there, and the store's seal."""
    try:
        member = Member.from_dict(entry)
        if not isinstance(member.name, str) or not member.name:
            raise ValueError(f"name: {member.name!r}")
        return member, str(entry["out"]), bool(entry["store"]), str(entry["digest"]) if entry["store"] else ""
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{where}: members: {error!r}") from error


def _pack_image(packed: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    info.file_size = path.stat().st_size
    with path.open("rb") as file, packed.open(info, "w") as target:
        for block in blocks(file):
            target.write(block)


def _pack_file(packed: zipfile.ZipFile, info: zipfile.ZipInfo, place: Place, out: str, member: Member) -> None:
    check_inside(place, out)
    crc = size = 0
    try:
        file = place.open(out)
    except FileNotFoundError as error:
        raise StoreError(f"{place.label(out)}: is missing") from error
    with file, packed.open(info, "w") as target:
        for block in blocks(file):
            crc, size = zlib.crc32(block, crc), size + len(block)
            if size > member.size:
                break
            target.write(block)
    if (crc, size) != (member.crc, member.size):
        raise StoreError(f"{place.label(out)}: was changed: it is not what was in the zip")


def _as_before(info: zipfile.ZipInfo, member: Member) -> None:
    """Give a member that is written the attributes that zipfile has set by itself."""
    for name in ("external_attr", "internal_attr", "create_system", "create_version", "extra"):
        setattr(info, name, getattr(member, name))


def _comment(document: Mapping[str, Any], where: str) -> bytes:
    try:
        return base64.b64decode(document.get("comment") or "", validate=True)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{where}: comment: {error}") from error


class _Images:
    """Images on their way into a zip: exported to a scratch folder, one at a time, all files of one at once."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self._out = ""

    def file(self, out: str, name: str, seal: str) -> Path:
        """Return a file of the image of a store that can be packed under a name; the store must have this seal."""
        check_inside(self._place, out)
        path = self._folder / name.rpartition("/")[2]  # a header may name its other file
        if out != self._out or not path.exists():
            for old in self._folder.iterdir():
                old.unlink()
            where = path_of(self._place, out)
            store = Store(where)
            if store.seal != seal:
                raise StoreError(f"{where}: is another store than the one in the zip's record: its seal differs")
            export(where, path.with_name(file_names(path.name)[0]))
            self._out = out
        return path
