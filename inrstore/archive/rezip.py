"""The record of a zip -> the zip again: the same members, order, dates, attributes and comments."""

from __future__ import annotations

import base64
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrstore.archive.holdings import blocks, check_inside, path_of, zip_record
from inrstore.archive.record import ZIPS
from inrstore.errors import StoreError
from inrstore.files import Place
from inrstore.files.zip_members import Member
from inrstore.store.export import export
from inrstore.store.partial import PARTIAL, explain
from inrstore.store.reader import Store
from inrstore.store.writer import PartialFile

_ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img")


def ending(name: str) -> str:
    """Return the ending that makes a file an image or a part of one, in small letters; empty for other files."""
    return next((end for end in _ENDINGS if name.lower().endswith(end)), "")


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
    where = place.label(f"{ZIPS}/{key}.json")
    members = [_member(entry, where) for entry in document["members"]]
    made = Rebuilt()
    with PartialFile(destination) as partial:
        try:
            with (
                tempfile.TemporaryDirectory(prefix=f"{destination.name}{PARTIAL}-", dir=destination.parent) as scratch,
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
                        made.images += not ending(member.name).startswith(".img")
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
    """Images on their way into a zip: exported to a scratch folder, one at a time; of a pair both files at once."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self._out = ""

    def file(self, out: str, name: str, seal: str) -> Path:
        """Return a file of the image of a store that can be packed under a name; the store must have this seal."""
        check_inside(self._place, out)
        end = ending(name)
        path = self._folder / f"image{end}"
        if out != self._out or not path.exists():
            for old in self._folder.iterdir():
                old.unlink()
            where = path_of(self._place, out)
            store = Store(where)
            if not store.sealed or store.seal != seal:
                raise StoreError(f"{where}: is another store than the one in the zip's record: its seal differs")
            export(where, self._folder / f"image{end.replace('.img', '.hdr')}")
            self._out = out
        return path
