"""Every byte of a zip belongs to something that is listed, or the zip is refused; those of real programs pass."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
import zipapp
import zipfile
import zlib
from pathlib import Path

import pytest

import inrstore
from inrstore.errors import SourceError
from inrstore.files.local import Folder
from inrstore.files.zips import ZipPlace
from tools.forge import Member, deflated, forge, nifti

CONTENT = {
    "dMRI/dMRI/data.nii": nifti(),
    "dMRI/noise.bin": random.Random(0).randbytes(70_000),
    "empty": b"",
    "raw/text.txt": b"text " * 1000,
}


@pytest.fixture
def folder(tmp_path):
    for name, data in CONTENT.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "in"


def contents(path: Path) -> dict[str, bytes]:
    with ZipPlace(Folder(path.parent), path.name) as place:
        return {entry.key: place.open(entry.key).read() for entry in place.walk()}


def zipped(path: Path, names=CONTENT, comment: bytes = b"") -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, CONTENT[name])
        made.comment = comment
    return path.read_bytes()


def refused(path: Path, data: bytes, *words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        contents(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


# ---- members that would be lost ---------------------------------------------------------------------------


def test_a_second_end_record_in_the_comment_is_refused(tmp_path):
    """Readers from the end and readers from the front see other members."""
    path = tmp_path / "a.zip"
    inner = zipped(path, ["empty"])
    outer = bytearray(zipped(path))
    struct.pack_into("<H", outer, len(outer) - 2, len(inner))
    refused(path, bytes(outer) + inner, "two end records")


def test_an_end_record_in_the_comment_that_points_into_the_zip_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    zipped(path)
    with zipfile.ZipFile(path) as made:
        start = made.start_dir
    whole = path.read_bytes()
    size = len(whole) - 22 - start
    again = whole[start:-22] + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, len(CONTENT), len(CONTENT), size,
                                           len(whole), 0)  # fmt: skip
    refused(path, whole[:-2] + struct.pack("<H", len(again)) + again, "two end records")


def test_a_zip_to_which_another_was_appended_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    one, other = zipped(path, ["empty", "raw/text.txt"]), zipped(path, ["dMRI/noise.bin"])
    refused(path, one + other, "another zip", "before its first member")
    # The same with a list that counts from the start of both.
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("dMRI/noise.bin", CONTENT["dMRI/noise.bin"])
    second = bytearray(path.read_bytes())
    start = second.rfind(b"PK\1\2")
    struct.pack_into("<L", second, start + 42, len(one))
    struct.pack_into("<L", second, len(second) - 6, len(one) + start)
    refused(path, one + bytes(second), "another zip")


@pytest.mark.parametrize("hidden", range(3))
def test_a_member_that_the_directory_does_not_list_is_refused(tmp_path, hidden):
    members = [Member(b"%d" % number, b"hello" * 99) for number in range(3)]
    whole = bytearray(forge(members))
    end = len(whole) - 22
    listed = [whole.find(b"PK\1\2")]
    while (after := whole.find(b"PK\1\2", listed[-1] + 1)) > 0:
        listed.append(after)
    listed.append(end)
    length = listed[hidden + 1] - listed[hidden]
    del whole[listed[hidden] : listed[hidden + 1]]
    struct.pack_into("<HHL", whole, len(whole) - 14, 2, 2, end - listed[0] - length)
    refused(tmp_path / "a.zip", bytes(whole), "not in the directory")


def test_bytes_between_members_are_refused_and_zeros_are_not(tmp_path):
    whole = forge([Member(b"a"), Member(b"b", at=336)])
    second = whole.find(b"PK\3\4", 1)
    listed = whole.find(b"PK\1\2")
    for pad in (bytes(300), b"secret".ljust(300, b"\0")):
        data = bytearray(whole[:second] + pad + whole[second:])
        struct.pack_into("<L", data, len(data) - 6, listed + 300)
        if any(pad):
            refused(tmp_path / "a.zip", bytes(data), "bytes that belong to no member", "'a'")
        else:
            (tmp_path / "a.zip").write_bytes(data)
            assert contents(tmp_path / "a.zip") == {"a": b"hello", "b": b"hello"}


def test_bytes_behind_a_deflated_stream_are_refused(tmp_path):
    packed = deflated(b"hello") + b"hidden"
    refused(tmp_path / "a.zip", forge([Member(b"a", packed, 5, zlib.crc32(b"hello"), method=8)]), "belong to nothing")


def test_no_command_loses_members_of_a_zip(tmp_path):
    one, other = zipped(tmp_path / "x", ["dMRI/dMRI/data.nii"]), zipped(tmp_path / "x", ["raw/text.txt"])
    (tmp_path / "a.zip").write_bytes(one + other)
    with pytest.raises(SourceError, match=r"a\.zip.*another zip"):
        inrstore.convert(tmp_path / "a.zip", tmp_path / "a.ozx", lossless=True)
    report = inrstore.convert(tmp_path / "a.zip", tmp_path / "archive", lossless=True)
    assert not report.complete
    assert "another zip" in report.failures[0]["reason"]


# ---- what real programs write ------------------------------------------------------------------------------


def run(*arguments: object, cwd: Path, **more: object) -> subprocess.CompletedProcess[bytes]:
    program = str(arguments[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here")
    return subprocess.run(list(map(str, arguments)), cwd=cwd, check=True, capture_output=True, **more)


@pytest.mark.parametrize(
    "options",
    [["-q"], ["-q", "-0"], ["-q", "-D"], ["-q", "-X"], ["-q", "-fz"], ["-q", "-fd"]],
    ids="-".join,
)
def test_zips_of_info_zip_are_read(folder, tmp_path, options):
    run("zip", "-r", *options, "../a.zip", ".", cwd=folder)
    assert contents(tmp_path / "a.zip") == CONTENT


def test_a_zip_of_info_zip_to_a_pipe_is_read(folder, tmp_path):
    """Sizes and checksums follow the data."""
    (tmp_path / "a.zip").write_bytes(run("zip", "-r", "-q", "-", ".", cwd=folder).stdout)
    assert contents(tmp_path / "a.zip") == CONTENT


def test_a_zip_whose_members_were_replaced_and_removed_is_read(folder, tmp_path):
    run("zip", "-r", "-q", "../a.zip", ".", cwd=folder)
    (folder / "raw/text.txt").write_bytes(b"short")
    run("zip", "-q", "../a.zip", "raw/text.txt", cwd=folder)
    run("zip", "-q", "-d", "../a.zip", "empty", cwd=folder)
    run("zip", "-q", "-z", "../a.zip", cwd=folder, input=b"a comment\n")
    wanted = {key: data for key, data in CONTENT.items() if key != "empty"} | {"raw/text.txt": b"short"}
    assert contents(tmp_path / "a.zip") == wanted


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_zip_with_the_program_that_unpacks_it_in_front_is_read(folder, tmp_path, adjusted):
    """It is no file of the zip, and holds none."""
    stub = shutil.which("unzipsfx")
    if stub is None:
        pytest.skip("unzipsfx is not here")
    run("zip", "-r", "-q", "../a.zip", ".", cwd=folder)
    (tmp_path / "a.exe").write_bytes(Path(stub).read_bytes() + (tmp_path / "a.zip").read_bytes())
    if adjusted:
        run("zip", "-q", "-A", "a.exe", cwd=tmp_path)
    assert contents(tmp_path / "a.exe") == CONTENT


@pytest.mark.parametrize("options", [["-mx=9"], ["-mx=0"], ["-mx=5", "-mcu=on"]], ids="-".join)
def test_zips_of_7_zip_are_read(folder, tmp_path, options):
    run("7z", "a", "-tzip", *options, "../a.zip", ".", cwd=folder)
    assert contents(tmp_path / "a.zip") == CONTENT


def test_a_zip_of_libarchive_is_read(folder, tmp_path):
    run("bsdtar", "-a", "-cf", "../a.zip", *sorted(path.name for path in folder.iterdir()), cwd=folder)
    assert contents(tmp_path / "a.zip") == CONTENT


def test_zips_of_python_are_read(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    assert contents(tmp_path / "a.zip") == CONTENT
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as made:
        made.writestr("added", b"later")
    assert contents(tmp_path / "a.zip") == {**CONTENT, "added": b"later"}
    (folder / "__main__.py").write_bytes(b"")
    zipapp.create_archive(folder, tmp_path / "b.zip", interpreter="/usr/bin/env python3")
    assert contents(tmp_path / "b.zip") == {**CONTENT, "__main__.py": b""}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("long", [False, True])
def test_sizes_behind_the_data_are_read_in_every_form(tmp_path, signed, long):
    """The signature is optional, and each size has four bytes or eight."""
    member = Member(b"a", deflated(b"hello"), 5, zlib.crc32(b"hello"), method=8, flags=0x808,
                    local=(("crc", 0), ("packed", 0), ("size", 0)))  # fmt: skip
    whole = bytearray(forge([member]))
    at = whole.find(b"PK\1\2")
    behind = b"PK\7\10" * signed + struct.pack("<LQQ" if long else "<LLL", zlib.crc32(b"hello"), len(member.data), 5)
    for wrong in (False, True):
        data = whole[:at] + (behind[:-1] + b"\1" if wrong else behind) + whole[at:]
        struct.pack_into("<L", data, len(data) - 6, at + len(behind))
        if wrong:
            refused(tmp_path / "a.zip", bytes(data), "belong to no member")
        else:
            (tmp_path / "a.zip").write_bytes(data)
            assert contents(tmp_path / "a.zip") == {"a": b"hello"}


def test_a_zip_in_a_zip_is_a_file_like_any_other(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        made.writestr("x", b"x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("inner.zip", inner.getvalue())
        made.writestr("last.zip", inner.getvalue())
    assert contents(tmp_path / "a.zip") == {"inner.zip": inner.getvalue(), "last.zip": inner.getvalue()}
