"""Archives and images that were made to do harm, and a program that reads them all within 2 GB of memory.

    python -m tools.hostile make FOLDER     writes every case
    python -m tools.hostile read FOLDER     reads every case as convert would; one JSON line each

Each case says what its refusal has to name. `tests/test_hostile.py` runs both.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import stat
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inrstore.errors import InrstoreError
from inrstore.files import Place
from inrstore.files.local import Folder
from inrstore.files.zips import ZipPlace
from inrstore.sources import dicom, is_image, read_image
from tools.forge import Member, crc_of_zeros, deflated, dicom_image, forge, gzip_of_zeros, nifti, pair, zeros

MEMORY = 2 << 30
GIGABYTE = 1 << 30

# ---- the cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A hostile input: the file to read, what its refusal has to say, and what writes it."""

    file: str
    words: tuple[str, ...]
    write: Callable[[Path], object]


CASES: dict[str, Case] = {}


def _zip(name: str, words: str | tuple[str, ...], make: Callable[[], bytes | list[Member]]) -> None:
    """Add a zip; a list of members follows one that is in order."""

    def write(path: Path) -> None:
        made = make()
        good = Member(b"good/a.nii.gz", gzip.compress(nifti()))
        path.write_bytes(made if isinstance(made, bytes) else forge([good, *made]))

    CASES[name] = Case(f"{name}.zip", (words,) if isinstance(words, str) else words, write)


def _name(name: str, word: str, *members: bytes) -> None:
    _zip(name, ("member", word), lambda: [Member(member) for member in members])


def _image(name: str, words: str | tuple[str, ...], make: Callable[[], bytes], suffix: str = ".nii") -> None:
    def write(path: Path) -> None:
        path.write_bytes(make())

    CASES[name] = Case(name + suffix, (words,) if isinstance(words, str) else words, write)


_name("zip-slip", "leads out of its folder", b"../escaped")
_name("zip-slip-inside", "leads out of its folder", b"a/b/../../../escaped")
_name("zip-slip-folder", "leads out of its folder", b"../escaped/")
_name("absolute", "absolute path", b"/tmp/escaped")
_name("drive", "drive letter", b"C:/escaped")
_name("drive-relative", "drive letter", b"c:escaped")
_name("unc", "UNC", b"\\\\server\\share\\escaped")
_name("unc-slashes", "UNC", b"//server/share/escaped")
_name("backslash", "backslash", b"a\\..\\..\\escaped")
_name("nul", "NUL", b"a.nii\0.txt")
_name("device-con", "device name", b"a/CON")
_name("device-aux", "device name", b"aux.nii")
_name("device-com", "device name", b"Com1.tar.gz")
_name("device-blank", "device name", b"nul .txt")
_name("device-superscript", "device name", "LPT²".encode())
_name("long-part", "longer than 255 bytes", "é".encode() * 128)
_name("long-path", "longer than 4096 bytes", b"/".join([b"a" * 200] * 21))
_name("deep", "folders deep", b"/".join([b"a"] * 200))
_name("empty-part", "empty part", b"a//b")
_name("dot-part", "empty part", b"a/./b")
_name("empty-name", "empty name", b"")
_name("own-record", "own record", b".Inrstore/job.json")
_name("duplicate", "is there twice", b"a", b"a")
_name("case-fold", "in case or Unicode form alone", b"data/A.nii", b"data/a.nii")
_name("case-fold-folder", "in case or Unicode form alone", b"Data/a.nii", b"data/a.nii")
_name("sharp-s", "in case or Unicode form alone", "straße".encode(), b"STRASSE")
_name("nfc-nfd", "in case or Unicode form alone",
      *(unicodedata.normalize(form, "é.nii").encode() for form in ("NFC", "NFD")))  # fmt: skip
_name("trailing-dot", "in case or Unicode form alone", b"a.nii", b"a.nii.")
_name("file-and-folder", "a folder where", b"a", b"a/b")
_name("file-and-folder-case", "a folder where", b"A", b"a/b/c")
_zip("file-and-folder-entry", "a folder where",
     lambda: [Member(b"a"), Member(b"a/", b"", mode=stat.S_IFDIR | 0o755)])  # fmt: skip
_zip("not-utf8", "utf-8", lambda: [Member(b"\xff\xfe")])
_zip("symlink", ("member 'link'", "symbolic link"), lambda: [Member(b"link", b"/etc", mode=stat.S_IFLNK | 0o777)])
_zip("symlink-parent", "symbolic link",
     lambda: [Member(b"a", b"..", mode=stat.S_IFLNK | 0o777), Member(b"a/escaped")])  # fmt: skip
_zip("fifo", "neither a file nor a folder", lambda: [Member(b"a", b"", mode=stat.S_IFIFO | 0o644)])
_zip("device-node", "neither a file nor a folder", lambda: [Member(b"a", b"", mode=stat.S_IFBLK | 0o644)])
_zip("folder-with-data", "a folder with data", lambda: [Member(b"a/", mode=stat.S_IFDIR | 0o755)])
_zip("encrypted", "encrypted", lambda: [Member(b"a", flags=0x801)])
_zip("encrypted-strong", "encrypted", lambda: [Member(b"a", flags=0x840)])
_zip("encrypted-aes", "encrypted", lambda: [Member(b"a", method=99)])
_zip("patch", "patch", lambda: [Member(b"a", flags=0x820)])
_zip("volume", "volume", lambda: [Member(b"a", volume=3)])
_zip("bzip2", ("compression method", "bzip2"), lambda: [Member(b"a", method=12)])
_zip("method-unknown", ("compression method 77", "unknown"), lambda: [Member(b"a", method=77)])
_zip("overlap-quoted", "overlaps",
     lambda: forge([Member(b"a", forge([Member(b"b")])[:36]), Member(b"b", b"hello", at=31)]))  # fmt: skip
_zip("overlap-same", "member",
     lambda: forge([Member(b"k", deflated(bytes(1 << 16)), 1 << 16, method=8),
                    *(Member(b"m%d" % i, b"", at=0) for i in range(9))]))  # fmt: skip
_zip("overlap-directory", "overlaps", lambda: [Member(b"a", size=60, packed=60)])
_zip("size-local", ("size", "in the local header"),
     lambda: [Member(b"a", deflated(bytes(100)), 100, method=8, local=(("size", 10),))])  # fmt: skip
_zip("packed-local", ("compressed size", "in the local header"), lambda: [Member(b"a", local=(("packed", 1),))])
_zip("crc-local", ("checksum", "in the local header"), lambda: [Member(b"a", local=(("crc", 1),))])
_zip("name-local", ("name", "in the local header"), lambda: [Member(b"a", local=(("name", b"../a"),))])
_zip("method-local", ("method", "in the local header"), lambda: [Member(b"a", local=(("method", 8),))])
_zip("size-stored", "size: stored", lambda: [Member(b"a", size=1 << 31)])
_zip("size-too-small", "more than the 1000 bytes that it claims",
     lambda: [Member(b"a", zeros(1024), 1000, zlib.crc32(bytes(1000)), method=8)])  # fmt: skip
_zip("size-too-large", "ends after 100 of 4000 bytes",
     lambda: [Member(b"a", deflated(bytes(100)), 4000, zlib.crc32(bytes(100)), method=8)])  # fmt: skip
_zip("bomb", ("member 'a'", "900 : 1"),
     lambda: [Member(b"a", zeros(1024), GIGABYTE, crc_of_zeros(1024), method=8)])  # fmt: skip
_zip("bomb-in-pieces", ("its members", "900 : 1"),
     lambda: [Member(b"%d" % i, zeros(60), 60 << 20, 0, method=8) for i in range(18)])  # fmt: skip
_zip("bomb-nifti-in-zip", ("good.nii.gz", "900 : 1"), lambda: forge([_packed_bomb()]))
_zip("too-many", "members, more than", lambda: forge([Member(b"%d" % i, b"") for i in range((1 << 18) + 1)]))
_zip("directory-huge", "not a whole zip", lambda: forge([Member(b"a")], directory_size=0xFFFFFFF0))
_zip("directory-offset", "lies before the start", lambda: forge([Member(b"a")], directory_at=0x7FFFFFFF))
_zip("directory-long", "a directory of", lambda: _long_directory())
_zip("header-elsewhere", "no local header", lambda: [Member(b"a", at=3)])
_zip("header-beyond", "no local header", lambda: [Member(b"a", at=1 << 31)])
_zip("zip64-offset", "lies before the start", lambda: _zip64_offset())
_zip("count", "in its end record", lambda: _counted(forge([Member(b"a"), Member(b"b")])))
_zip("padded", "not at its end", lambda: forge([Member(b"a")]) + bytes(100))
_zip("empty-file", "not a whole zip", lambda: b"")
_zip("no-zip", "not a whole zip", lambda: nifti() * 20)
_zip("cut-at-end", "not a whole zip", lambda: forge([Member(b"a", bytes(1000))])[:-40])
_zip("cut-inside", "member", lambda: _cut(forge([Member(b"a", os.urandom(1000))]), 500))
_zip("damaged-stored", "checksum", lambda: [Member(b"a", crc=1)])
_zip("damaged-deflate", "damaged", lambda: [Member(b"a", b"\xff" * 50, 1000, method=8)])
_zip("cut-deflate", "ends after", lambda: [Member(b"a", deflated(os.urandom(1000))[:500], 1000, method=8)])
_zip("image-claims-in-zip", ("b.nii.gz", "dim", "claims"),
     lambda: [Member(b"b.nii.gz", gzip.compress(nifti((7, *[32767] * 7))))])  # fmt: skip

_image("claims-32767-7", ("dim", "claims"), lambda: gzip.compress(nifti((7, *[32767] * 7))), ".nii.gz")
_image("claims-plain", ("dim", "claims"), lambda: nifti((7, *[32767] * 7)))
_image("claims-wrap", ("dim", "claims"), lambda: nifti((7, *[16384] * 4, 128, 1, 1)))
_image("claims-more", ("dim", "claims"), lambda: nifti((3, 100, 100, 100)))
_image("claims-more-gzip", ("voxels", "ends after"), lambda: gzip.compress(nifti((3, 200, 200, 200))), ".nii.gz")
_image("dim-negative", "dim[2]", lambda: nifti((3, 4, -4, 4)))
_image("dim-zero", "dim[1]", lambda: nifti((3, 0, 4, 4)))
_image("dim-axes", "dim", lambda: nifti((8, 4, 4, 4)))
_image("inter-infinite", "scl_inter", lambda: nifti(scl_slope=1.0, scl_inter=float("inf")))
_image("offset-negative", "vox_offset", lambda: nifti(vox_offset=-1.0))
_image("offset-huge", "vox_offset", lambda: nifti(vox_offset=1e30))
_image("offset-nan", "vox_offset", lambda: nifti(vox_offset=float("nan")))
_image("offset-beyond", "dim", lambda: gzip.compress(nifti(vox_offset=float(1 << 28))), ".nii.gz")
_image("affine-nan", "srow_x", lambda: nifti(sform_code=1, srow_x=float("nan")))
_image("quaternion", "quatern_b", lambda: nifti(qform_code=1, quatern_b=float("inf")))
_image("pixdim-nan", "pixdim[1]", lambda: nifti(pixdim_1=float("nan")))
_image("toffset-nan", "toffset", lambda: nifti(toffset=float("nan")))
_image("units", "xyzt_units", lambda: nifti(xyzt_units=7))
_image("datatype", "datatype", lambda: nifti(datatype=0))
_image("gzip-cut", "gzip", lambda: gzip.compress(nifti(voxels=os.urandom(128)))[:-20], ".nii.gz")
_image("gzip-crc", "gzip", lambda: _flipped(gzip.compress(nifti()), -8), ".nii.gz")
_image("gzip-garbage", "gzip", lambda: gzip.compress(nifti()) + b"garbage", ".nii.gz")
_image("bomb-voxels", ("dim", "900 : 1"),
       lambda: gzip_of_zeros(nifti((3, 1024, 1024, 512), b""), 1024), ".nii.gz")  # fmt: skip
_image("bomb-behind", "bytes follow the voxels", lambda: gzip_of_zeros(nifti(), 1024), ".nii.gz")
_image("bomb-members", "bytes follow the voxels",
       lambda: gzip.compress(nifti()) + gzip_of_zeros(b"", 60) * 18, ".nii.gz")  # fmt: skip
_image("pair-bomb", "header: larger than", lambda: gzip_of_zeros(pair(), 1024), ".hdr.gz")
_image("pair-alone", "is not beside it", lambda: pair(), ".hdr")
_image("no-image", "not a NIfTI", lambda: b"\x7fELF" + bytes(1000))


def _case(name: str, file: str, *words: str) -> Callable[[Callable[[Path], object]], None]:
    def add(write: Callable[[Path], object]) -> None:
        CASES[name] = Case(file, words, write)

    return add


@_case("pair-cut", "pair-cut.hdr", "pair-cut.img", "claims")
def _(path: Path) -> None:
    path.write_bytes(pair())
    path.with_suffix(".img").write_bytes(bytes(127))


@_case("pipe", "pipe.nii", "not a")
def _(path: Path) -> None:
    os.mkfifo(path)


@_case("link-loop", "link-loop.nii", "link-loop.nii")
def _(path: Path) -> None:
    path.symlink_to(path.name)


@_case("gradients-long", "gradients-long.nii", "gradients-long.bval", "larger than")
def _(path: Path) -> None:
    path.write_bytes(nifti((4, 2, 2, 2, 8)))
    path.with_suffix(".bval").write_bytes(b"0 " * (9 << 20))


@_case("gradients-infinite", "gradients-infinite.nii", "gradients-infinite.bval", "finite")
def _(path: Path) -> None:
    path.write_bytes(nifti((4, 2, 2, 2, 8)))
    path.with_suffix(".bval").write_bytes(b"0 " * 7 + b"1e999")


@_case("dicom-garbage", "dicom-garbage", "dcm2niix")
def _(path: Path) -> None:
    path.mkdir()
    (path / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 5000)


@_case("dicom-rows", "dicom-rows", "dcm2niix")
def _(path: Path) -> None:
    path.mkdir()
    (path / "a.dcm").write_bytes(dicom_image(65535, 65535, 2147483647, bytes(128)))


@_case("dicom-cut", "dicom-cut", "dcm2niix")
def _(path: Path) -> None:
    path.mkdir()
    (path / "a.dcm").write_bytes(dicom_image(8, 8, 1, bytes(128))[:-64])


def _packed_bomb() -> Member:
    packed = gzip_of_zeros(nifti((3, 1024, 1024, 512), b""), 1024)
    return Member(b"good.nii.gz", deflated(packed), len(packed), zlib.crc32(packed), method=8)


def _counted(data: bytes) -> bytes:
    return data[:-12] + b"\1\0" + data[-10:]


def _cut(data: bytes, count: int) -> bytes:
    return data[:100] + data[100 + count :]


def _flipped(data: bytes, at: int) -> bytes:
    out = bytearray(data)
    out[at] ^= 1
    return bytes(out)


def _long_directory() -> bytes:
    entry = struct.pack("<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", 20, 3, 20, *[0] * 7, 1, 0, 65535, 0, 0, 0, 0)
    listed = (entry + b"a" + bytes(65535)) * 600
    return listed + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 600, 600, len(listed), 0, 0)


def _zip64_offset() -> bytes:
    data = forge([Member(b"a")])
    end = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 47, (1 << 63) - 1)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22, 1)
    return data[:-22] + end + locator + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, *[0xFFFFFFFF] * 2, 0)


# ---- make and read -----------------------------------------------------------------------------------------


def make(folder: Path) -> None:
    """Write every case into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES.values():
        case.write(folder / case.file)


def read(place: Place, key: str) -> None:
    """Read all of a source as convert does: zips member by member, images whole, other files to their end."""
    if key.endswith(".zip"):
        with ZipPlace(place, key) as inside:
            for entry in list(inside.walk()):
                read(inside, entry.key)
    elif is_image(key):
        read_image(place, key)
    elif isinstance(place, Folder) and (place.path / key).is_dir():
        with dicom.converted(place, key, timeout=20) as made:
            for entry in list(made.walk()):
                read(made, entry.key)
    else:
        with place.open(key) as file:
            while file.read(1 << 20):
                pass


def _peak() -> int:
    """Return the most memory that this process ever had, in bytes.

    `ru_maxrss` is no use: it starts from the memory of the process that forked this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no VmHWM")


def main(arguments: list[str]) -> None:
    """Run `make` or `read`."""
    folder = Path(arguments[1])
    if arguments[0] == "make":
        make(folder)
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, case in CASES.items():
        error, text = "", ""
        try:
            read(Folder(folder), case.file)
        except InrstoreError as caught:
            error, text = type(caught).__name__, str(caught)
        peak = _peak()
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(json.dumps({"name": name, "error": error, "text": text, "peak": max(peak, child)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
