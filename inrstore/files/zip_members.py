"""A member of a zip: what has to be kept to write it again, and whether what is said of it is true."""

from __future__ import annotations

import base64
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from inrstore import limits
from inrstore.files.names import check_name, first_clash

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""Called with a place in a file and a number of bytes."""

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCH = 0x20
_LATER = 0x8
"""Flag: sizes and checksum follow the data, the local header may have zeros."""
_UTF8 = 0x800

_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd"}
_END = struct.Struct("<4sHHHHLLH")
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_DESCRIPTOR = b"PK\7\10"
_PARTS = (b"PK\1\2", b"PK\3\4", b"PK\5\6")
"""Begin of a member in the directory, of a member, of an end record."""
_MOST_IN_FRONT = 1 << 28
_BLOCK = 1 << 20
_FULL = 0xFFFFFFFF
"""Stands for a size that is in the zip64 field instead."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a zip: what is needed to write it again.

    Parameters
    ----------
    name : str
        As in the zip; a folder's ends in a slash.
    date_time : tuple of int
        Year, month, day, hour, minute, second.
    compress_type : int
        0 stored, 8 deflate.
    external_attr, internal_attr, create_system, create_version, flag_bits : int
        Fields of the zip's directory: permissions, text or not, where it was made, how.
    extra, comment : bytes
        Likewise; the extra field without the zip64 sizes, which are those of the old zip.
    size, crc : int
        Of the uncompressed data.
    """

    name: str
    date_time: tuple[int, int, int, int, int, int]
    compress_type: int
    external_attr: int
    internal_attr: int
    create_system: int
    create_version: int
    flag_bits: int
    extra: bytes
    comment: bytes
    size: int
    crc: int

    @property
    def dir(self) -> bool:
        """Whether it is a folder."""
        return self.name.endswith("/")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        packed = {name: base64.b64encode(getattr(self, name)).decode() for name in ("extra", "comment")}
        return {**vars(self), **packed, "date_time": list(self.date_time), "dir": self.dir}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Member:
        """Take what `to_dict` gave; other entries are passed over.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or of another type.
        """
        taken = {name: values[name] for name in cls.__dataclass_fields__}
        for name in ("extra", "comment"):
            taken[name] = base64.b64decode(taken[name], validate=True)
        return cls(**{**taken, "date_time": tuple(taken["date_time"])})

    def zip_info(self) -> zipfile.ZipInfo:
        """Return what `zipfile.ZipFile.open(..., "w")` takes to write the member again."""
        info = zipfile.ZipInfo(self.name, self.date_time)
        for name in ("compress_type", "external_attr", "internal_attr", "create_system", "create_version"):
            setattr(info, name, getattr(self, name))
        info.extra, info.comment, info.file_size = self.extra, self.comment, self.size
        return info


def check_member(info: zipfile.ZipInfo) -> str:
    """Return what is wrong with what the directory says of a member."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = info.orig_filename.endswith("/")
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        return "neither a file nor a folder"
    if info.flag_bits & _ENCRYPTED or info.compress_type == 99:
        return "encrypted"
    if info.flag_bits & _PATCH:
        return "a patch, not a file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = _METHODS.get(info.compress_type, "unknown")
        return f"compression method {info.compress_type} ({name}); only stored and deflated members are read"
    if info.volume:
        return "on another volume"
    if folder and info.file_size:
        return "a folder with data"
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        return f"size: stored, {info.file_size} bytes in {info.compress_size}"
    if info.file_size > limits.most_expanded(info.compress_size):
        return bomb(info.file_size, info.compress_size)
    return ""


def bomb(size: int, stored: int) -> str:
    """Return the refusal of what expands too far."""
    return f"would expand more than {limits.MAX_EXPANSION} : 1, from {stored} to {size} bytes"


def member(info: zipfile.ZipInfo) -> Member:
    """Return what the directory says of a member that has been checked."""
    year, month, day, hour, minute, second = info.date_time
    return Member(
        name=info.orig_filename,
        date_time=(year, month, day, hour, minute, second),
        compress_type=info.compress_type,
        external_attr=info.external_attr,
        internal_attr=info.internal_attr,
        create_system=info.create_system,
        create_version=info.create_version,
        flag_bits=info.flag_bits,
        extra=b"".join(whole for kind, whole in _fields(info.extra) if kind != 1),
        comment=info.comment,
        size=info.file_size,
        crc=info.CRC,
    )


def check_members(infos: Sequence[zipfile.ZipInfo], size: int) -> tuple[str | None, str] | None:
    """Return the name of a member and what is wrong with it by the directory of a zip of `size` bytes; None if nothing.

    Instead of a name None stands for the zip as a whole.
    """
    if len(infos) > limits.MAX_ZIP_MEMBERS:
        return None, f"{len(infos)} members, more than {limits.MAX_ZIP_MEMBERS}"
    for info in infos:
        problem = check_name(info.orig_filename.removesuffix("/")) or check_member(info)
        if problem:
            return info.orig_filename, problem
    names = [info.orig_filename for info in infos]
    clash = first_clash(
        (name for name in names if not name.endswith("/")),
        (name.removesuffix("/") for name in names if name.endswith("/")),
    )
    total = sum(info.file_size for info in infos)
    if clash is None and total > limits.most_expanded(size):
        return None, f"its members {bomb(total, size)}"
    return clash


def check_end(read_at: ReadAt, size: int, comment: bytes, count: int) -> str:
    """Return what is wrong with the end of a zip: that it goes on behind it, or ends before, zipfile lets pass."""
    tail = read_at(max(0, size - _END.size - 0xFFFF), _END.size + 0xFFFF)
    end = tail[-_END.size - len(comment) :][: _END.size]
    if len(end) < _END.size:
        return "its end record is cut off"
    magic, *_, listed, _, _, length = _END.unpack(end)
    if magic != b"PK\5\6" or length != len(comment):
        return "its end record is not at its end"
    if _end_records(tail) > 1:
        return "it has two end records, one in the comment of the other, and so two lists of members"
    if listed not in (min(count, 0xFFFF), 0xFFFF):
        return f"{listed} members in its end record, {count} in its list"
    return ""


def _end_records(tail: bytes) -> int:
    """Return how many end records there are whose comment goes to the end of a zip; readers differ in which they take.

    Parameters
    ----------
    tail : bytes
        The last bytes of the zip.
    """
    count, at = 0, tail.find(b"PK\5\6")
    while 0 <= at <= len(tail) - _END.size:
        count += at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail)
        at = tail.find(b"PK\5\6", at + 1)
    return count


def check_between(read_at: ReadAt, info: zipfile.ZipInfo, start: int, stop: int) -> str:
    """Return what is wrong with what lies behind the data of a member, up to the next one or the directory.

    There may be the sizes and checksum of a member that was written to a stream, if they are those in the directory,
    and zeros. Anything else belongs to nothing that is listed, and would be lost.

    Parameters
    ----------
    read_at : callable
        Returns bytes of the zip, from a place on, so many.
    info : ZipInfo
        What the directory says of the member.
    start, stop : int
        Where its data end, where the next begins.
    """
    if start == stop:
        return ""
    if info.flag_bits & _LATER:
        behind = read_at(start, min(stop - start, 24))
        start += next((len(one) for one in _descriptors(info) if behind.startswith(one)), 0)
    while start < stop:
        block = read_at(start, min(_BLOCK, stop - start))
        if not block or block.count(0) < len(block):
            what = "a member that is not in the directory" if b"PK\3\4" in block else "bytes that belong to no member"
            return f"behind it, up to byte {stop} of the zip, lie {what}"
        start += len(block)
    return ""


def _descriptors(info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what may follow the data of a member in a stream; the signature is optional, and comes first here."""
    long = struct.pack("<LQQ", info.CRC, info.compress_size, info.file_size)
    forms = [long]
    if max(info.compress_size, info.file_size) <= _FULL:
        forms = [struct.pack("<LLL", info.CRC, info.compress_size, info.file_size), long]
    # The longer form first: the shorter one may begin like it.
    yield from sorted((sign + form for form in forms for sign in (_DESCRIPTOR, b"")), key=len, reverse=True)


def check_front(read_at: ReadAt, stop: int) -> str:
    """Return what is wrong with what lies before the first member of a zip.

    A program that unpacks it, or a line that names one, may lie there: it is no file of the zip. No part of a zip may,
    because its members would be lost: those of a zip that another was appended to, or one taken out of the directory.
    """
    if stop > _MOST_IN_FRONT:
        return f"{stop} bytes lie before its first member, more than {_MOST_IN_FRONT}"
    for start in range(0, stop, _BLOCK):
        block = read_at(start, min(_BLOCK + 3, stop - start))
        if any(part in block for part in _PARTS):
            return "a part of another zip, or a member that is not in the directory, lies before its first member"
    return ""


def check_local(read_at: ReadAt, info: zipfile.ZipInfo) -> tuple[int, str]:
    """Return where the data of a member begins, and what is wrong with its local header.

    Parameters
    ----------
    read_at : callable
        Returns bytes of the zip, from a place on, so many.
    info : ZipInfo
        What the directory says.
    """
    if info.header_offset < 0:
        return 0, "lies before the start of the zip"
    fixed = read_at(info.header_offset, _LOCAL.size)
    if len(fixed) < _LOCAL.size or not fixed.startswith(b"PK\3\4"):
        return 0, "has no local header where the directory says"
    _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(fixed)
    rest = read_at(info.header_offset + _LOCAL.size, name_bytes + extra_bytes)
    name, extra = rest[:name_bytes], rest[name_bytes:]
    for what, local, listed in (
        ("name", name, info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")),
        ("method", method, info.compress_type),
        ("flags", flags, info.flag_bits),
    ):
        if local != listed:
            return 0, f"{what}: {local!r} in the local header, {listed!r} in the directory"
    long = _long_sizes(extra)
    for what, local, listed in (
        ("checksum", crc, info.CRC),
        ("size", long[0] if size == _FULL and long else size, info.file_size),
        ("compressed size", long[1] if packed == _FULL and long else packed, info.compress_size),
    ):
        unsaid = flags & _LATER and local in (0, _FULL)
        if local != listed and not unsaid:
            return 0, f"{what}: {local} in the local header, {listed} in the directory"
    return info.header_offset + _LOCAL.size + name_bytes + extra_bytes, ""


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of an extra field, each with its kind and size in front; what is no field comes last."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if 4 + size > len(extra):
            break
        yield kind, extra[: 4 + size]
        extra = extra[4 + size :]
    if extra:
        yield -1, extra


def _long_sizes(extra: bytes) -> tuple[int, int] | None:
    """Return size and compressed size of the zip64 field of a local header, which has both."""
    field = next((whole for kind, whole in _fields(extra) if kind == 1 and len(whole) >= 20), None)
    if field is None:
        return None
    size, packed = struct.unpack_from("<QQ", field, 4)
    return size, packed
