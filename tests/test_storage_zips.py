"""A zip is a place like a folder; what it lists is enough to write it again; what is damaged is said."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from common import check_refused

from inrstore import limits
from inrstore.errors import SourceError
from inrstore.files import Entry
from inrstore.files.local import Folder
from inrstore.files.names import check_name, first_clash, folded
from inrstore.files.zips import Member, ZipPlace, stored_size

CONTENT = {
    "b.txt": b"text " * 1000,
    "a/z.bin": os.urandom(300_000),
    "a/b/c.bin": b"",
    "a.b": b"x",
    "dMRI/dMRI/data.nii.gz": os.urandom(100),
    "é/ü": "ß".encode(),
}


@pytest.fixture
def packed(tmp_path):
    """A zip with folders, comments, odd dates and permissions, stored and deflated members."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for number, (name, data) in enumerate(CONTENT.items()):
            info = zipfile.ZipInfo(name, (1980 + number, 1 + number, 2, 3, 4, 6))
            info.compress_type = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            info.external_attr = (0o100600 + number) << 16
            info.comment = f"comment {number}".encode()
            info.extra = struct.pack("<HHB", 0xCAFE, 1, number)
            file.writestr(info, data)
        file.mkdir("empty")
        file.comment = b"of the whole"
    return tmp_path / "x.zip"


def opened(path):
    return ZipPlace(Folder(path.parent), path.name)


def contents(place):
    out = {}
    for entry in place.walk():
        with place.open(entry.key) as file:
            out[entry.key] = file.read()
        assert len(out[entry.key]) == entry.size == place.size(entry.key)
    return out


def test_a_zip_reads_like_the_folder_it_was_made_of(packed, tmp_path):
    for name, data in CONTENT.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder = Folder(tmp_path / "folder")
    with opened(packed) as place:
        assert contents(place) == CONTENT
        assert list(place.walk()) == list(folder.walk())
        assert list(place.walk("a")) == list(folder.walk("a"))
        assert [entry.key for entry in place.walk("a")] == ["a/b/c.bin", "a/z.bin"]
        assert place.size("nothing") is None
        assert place.size("a") is None
        with pytest.raises(FileNotFoundError):
            place.open("nothing")
        assert place.label("a/z.bin") == f"{packed}:a/z.bin"
        assert stored_size(place, "b.txt") == 5000
        assert stored_size(place, "a.b") == 3 or place.stored("a.b") < 10
        assert stored_size(Folder(packed.parent), "x.zip") == packed.stat().st_size


def test_a_zip_is_rebuilt_from_what_its_place_lists(packed, tmp_path):
    with opened(packed) as place:
        records = json.loads(json.dumps([member.to_dict() for member in place.members()]))
        with zipfile.ZipFile(tmp_path / "again.zip", "w") as file:
            for member in map(Member.from_dict, records):
                data = b"" if member.dir else place.open(member.name).read()
                file.writestr(member.zip_info(), data)
            file.comment = place.comment
    with zipfile.ZipFile(packed) as one, zipfile.ZipFile(tmp_path / "again.zip") as other:
        assert other.testzip() is None
        assert one.comment == other.comment
        fields = ("filename", "date_time", "compress_type", "external_attr", "internal_attr", "create_system",
                  "create_version", "flag_bits", "extra", "comment", "file_size", "CRC")  # fmt: skip
        assert [[getattr(i, f) for f in fields] for i in one.infolist()] == [
            [getattr(i, f) for f in fields] for i in other.infolist()
        ]
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


class Streamed(Folder):
    """A place whose files can be read once from start to end, as those of a server."""

    def open(self, key):
        file = super().open(key)

        class Plain(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, buffer):
                return file.readinto(buffer)

            def close(self):
                file.close()
                super().close()

        return Plain()


def test_a_zip_that_cannot_be_sought_is_read_too(packed):
    with ZipPlace(Streamed(packed.parent), "x.zip") as place:
        assert contents(place) == CONTENT


def test_a_zip_that_was_written_to_a_stream_is_read(tmp_path):
    """Its local headers have no sizes, as those of many web services."""

    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            target.append(bytes(data))
            return len(data)

    target = []
    with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"hello" * 100)
        with file.open("b", "w", force_zip64=True) as member:
            member.write(b"b")
    (tmp_path / "a.zip").write_bytes(b"".join(target))
    with opened(tmp_path / "a.zip") as place:
        assert contents(place) == {"a": b"hello" * 100, "b": b"b"}


def test_zip64_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", bytes(1000))
        file.writestr("b", b"after")
    with opened(tmp_path / "a.zip") as place:
        assert contents(place) == {"a": bytes(1000), "b": b"after"}
        assert all(member.extra == b"" for member in place.members())


def test_something_in_front_of_a_zip_does_not_matter(packed):
    packed.write_bytes(b"#!/bin/sh\n" + packed.read_bytes())
    with opened(packed) as place:
        assert contents(place) == CONTENT


def test_members_are_read_by_many_threads_at_once(packed):
    with opened(packed) as place, ThreadPoolExecutor(8) as pool:
        names = list(CONTENT) * 20
        random.Random(0).shuffle(names)
        assert list(pool.map(lambda name: place.open(name).read(), names)) == [CONTENT[name] for name in names]


def test_every_byte_that_is_changed_is_an_error_or_does_not_matter(tmp_path):
    """A changed byte never changes what is read, and no other error than ours appears."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/b.txt", b"hello " * 20, zipfile.ZIP_DEFLATED)
        file.writestr("c", b"stored")
    good = (tmp_path / "a.zip").read_bytes()
    want = {"a/b.txt": b"hello " * 20, "c": b"stored"}
    for at in range(len(good)):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(good)
            data[at] ^= flip
            (tmp_path / "a.zip").write_bytes(data)
            try:
                with opened(tmp_path / "a.zip") as place:
                    got = contents(place)
            except SourceError as error:
                assert str(tmp_path / "a.zip") in str(error)
            else:
                assert {key: want.get(key, data) for key, data in got.items()} == got, (at, flip)


def test_every_truncation_is_an_error(packed):
    good = packed.read_bytes()

    def read():
        with opened(packed) as place:
            contents(place)

    for keep in [*range(0, 2000, 7), *range(2000, len(good), 7919), len(good) - 13, len(good) - 1]:
        packed.write_bytes(good[:keep])
        check_refused(read, SourceError, str(packed), folder=packed.parent)


def test_a_missing_zip_is_named(tmp_path):
    check_refused(lambda: opened(tmp_path / "a.zip"), SourceError, "a.zip", "cannot be read", folder=tmp_path)


def test_a_folder_in_place_of_a_zip_is_named(tmp_path):
    (tmp_path / "a.zip").mkdir()
    check_refused(lambda: opened(tmp_path / "a.zip"), SourceError, "a.zip", folder=tmp_path)


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a", "a/b.nii.gz", "..a", "a..", "...", ".hidden", "a b", "é", "con1", "console.txt", "a/auxiliary",
             "COM.txt", "ab:c", "x" * 255, "日本"]
)  # fmt: skip
def test_usual_names_pass(name):
    assert check_name(name) == ""


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "\\a", "a\\b", "C:", "c:/a", "//a/b", "\0",
             "a\0", "CON", "con.txt", "a/NUL/b", "lpt9", "COM¹.x", "PRN .x", "aux:stream", "CONIN$", "x" * 256,
             "é" * 128, ".inrstore", "a/.INRSTORE/b", "\udc80", "a/" * 200 + "a"]
)  # fmt: skip
def test_dangerous_names_do_not(name):
    assert check_name(name) != ""


def test_names_that_are_the_same_somewhere_fold_together():
    assert folded("A/É.") == folded("a/é")
    assert folded("ΐ") == folded("ΐ")
    assert folded("a.b") != folded("a_b")


def test_clashes_are_found_wherever_they_stand():
    apart = ["a", "a.b", "a b/c", "ab", "b/a", "b/a.b", "b/a b", "c/d/e"]
    assert first_clash(apart, ["b", "c/d", "empty", "b "]) is None
    assert first_clash([*apart, "A/x"]) == ("A/x", "needs a folder where 'a' is a file")
    assert first_clash(apart, ["a"])[1] == "a folder where 'a' is a file"
    assert first_clash([*apart, "B/A"]) is not None
    assert first_clash(apart, ["x", "x"]) == ("x", "is there twice")


def test_the_limit_of_members_is_that_of_the_directory(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(4):
            file.writestr(str(number), b"")
    monkeypatch.setattr(limits, "MAX_ZIP_MEMBERS", 4)
    with opened(tmp_path / "a.zip") as place:
        assert list(place.walk()) == [Entry(str(n), 0) for n in range(4)]
    monkeypatch.setattr(limits, "MAX_ZIP_MEMBERS", 3)
    check_refused(lambda: opened(tmp_path / "a.zip"), SourceError, "4 members, more than 3", folder=tmp_path)
