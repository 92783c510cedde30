"""Zips, NIfTI images and DICOM images made field by field, so that every field can be a lie."""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass
from typing import Any

# ---- zips, field by field ----------------------------------------------------------------------------------


@dataclass
class Member:
    """A member to forge; `local` overrides fields of its local header, `at` is where the directory puts it."""

    name: bytes
    data: bytes = b"hello"
    size: int | None = None
    crc: int | None = None
    packed: int | None = None
    method: int = 0
    flags: int = 0x800
    mode: int = stat.S_IFREG | 0o644
    local: tuple[tuple[str, int | bytes], ...] = ()
    at: int | None = None
    volume: int = 0


def forge(members: list[Member], *, directory_size: int | None = None, directory_at: int | None = None) -> bytes:
    """Return a zip of just these members."""
    out, listed = bytearray(), bytearray()
    for member in members:
        fields: dict[str, int | bytes] = {
            "flags": member.flags,
            "method": member.method,
            "crc": zlib.crc32(member.data) if member.crc is None else member.crc,
            "packed": len(member.data) if member.packed is None else member.packed,
            "size": len(member.data) if member.size is None else member.size,
            "name": member.name,
        }
        there = fields | dict(member.local)
        offset = len(out) if member.at is None else member.at
        out += struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, *_fixed(there), len(bytes(there["name"])), 0)
        out += bytes(there["name"]) + member.data
        listed += struct.pack("<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", 20, 3, 20, *_fixed(fields), len(member.name), 0, 0,
                              member.volume, 0, member.mode << 16, offset) + member.name  # fmt: skip
    size = len(listed) if directory_size is None else directory_size
    start = len(out) if directory_at is None else directory_at
    count = min(len(members), 0xFFFF)
    return bytes(out + listed + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, size, start, 0))


def _fixed(fields: dict[str, int | bytes]) -> list[int | bytes]:
    date = (2024 - 1980) << 9 | 1 << 5 | 1
    return [fields["flags"], fields["method"], 0, date, fields["crc"], fields["packed"], fields["size"]]


def zeros(megabytes: int) -> bytes:
    """Return a raw DEFLATE stream of so many MiB of zeros, 1020 : 1, made from one MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packer.compress(b"")
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + b"\3\0"


def crc_of_zeros(megabytes: int, start: int = 0) -> int:
    """Return the CRC-32 of so many MiB of zeros."""
    block = bytes(1 << 20)
    for _ in range(megabytes):
        start = zlib.crc32(block, start)
    return start


def deflated(data: bytes) -> bytes:
    """Return a raw DEFLATE stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# ---- images ------------------------------------------------------------------------------------------------


def nifti(dim: tuple[int, ...] = (3, 4, 4, 4), voxels: bytes = bytes(128), **fields: float) -> bytes:
    """Return a NIfTI-1 file of int16 with chosen fields."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(dim)}h", header, 40, *dim)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    letters = {"datatype": ("h", 70), "vox_offset": ("f", 108), "scl_slope": ("f", 112), "scl_inter": ("f", 116),
               "xyzt_units": ("b", 123), "toffset": ("f", 136), "qform_code": ("h", 252), "sform_code": ("h", 254),
               "quatern_b": ("f", 256), "srow_x": ("f", 280), "pixdim_1": ("f", 80)}  # fmt: skip
    for name, value in ({"datatype": 4, "vox_offset": 352.0} | fields).items():
        letter, offset = letters[name]
        struct.pack_into("<" + letter, header, offset, value)
    header[344:348] = b"n+1\0"
    return bytes(header) + voxels


def gzip_of_zeros(head: bytes, megabytes: int) -> bytes:
    """Return one gzip member of some bytes and then zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = crc_of_zeros(megabytes, zlib.crc32(head))
    length = (len(head) + (megabytes << 20)) & 0xFFFFFFFF
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + zeros(megabytes) + struct.pack("<LL", crc, length)


def pair(**fields: Any) -> bytes:
    """Return the header of a pair."""
    return nifti(voxels=b"", vox_offset=0.0, **fields)[:344] + b"ni1\0" + bytes(4)


_MR = b"1.2.840.10008.5.1.4.1.1.4"


def dicom_image(
    rows: int, columns: int, frames: int, pixels: bytes, *, number: bytes = b"7", kind: bytes = _MR,
    place: tuple[int, float] | None = None,
) -> bytes:  # fmt: skip
    """Return a DICOM image in Explicit VR Little Endian; `place` is the number of a slice of CT, and where it lies."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += (b"\0" if kind in (b"UI", b"OW") else b" ") * (len(value) % 2)
        size = b"\0\0" + struct.pack("<L", len(value)) if kind == b"OW" else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind + size + value

    def short(number: int, value: int) -> bytes:
        return element(0x28, number, b"US", struct.pack("<H", value))

    meta = element(2, 2, b"UI", kind) + element(2, 3, b"UI", b"1.2.3") + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    meta = element(2, 0, b"UL", struct.pack("<L", len(meta))) + meta
    body = element(8, 0x16, b"UI", kind) + element(8, 0x60, b"CS", b"MR") + element(0x20, 0x11, b"IS", number)
    body += element(0x20, 0x0E, b"UI", b"1.2.3.4") + element(0x20, 0x13, b"IS", b"1")
    if place is not None:
        body = element(8, 0x16, b"UI", kind) + element(8, 0x18, b"UI", b"1.2.3.%d" % place[0])
        body += element(8, 0x60, b"CS", b"CT") + element(8, 0x70, b"LO", b"SIEMENS") + element(0x18, 0x50, b"DS", b"3")
        body += element(0x20, 0x0E, b"UI", b"1.2.3.4") + element(0x20, 0x11, b"IS", number)
        body += element(0x20, 0x13, b"IS", b"%d" % place[0]) + element(0x20, 0x32, b"DS", b"0\\0\\%g" % place[1])
        body += element(0x20, 0x37, b"DS", b"1\\0\\0\\0\\1\\0")
    body += short(2, 1) + element(0x28, 8, b"IS", str(frames).encode()) + short(0x10, rows) + short(0x11, columns)
    body += short(0x100, 16) + short(0x101, 16) + short(0x102, 15) + short(0x103, int(place is not None))
    return bytes(128) + b"DICM" + meta + body + element(0x7FE0, 0x10, b"OW", pixels)
