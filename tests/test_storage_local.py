"""Folders, journals and locks: nothing half-written, nothing outside, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from common import tree
from hypothesis import given, settings
from hypothesis import strategies as st

from inrstore import files
from inrstore.errors import DestinationHeldError, FileTooLargeError, StoreError
from inrstore.files import durable
from inrstore.files.journal import MAX_LINE_BYTES, Journal, decode, encode, records
from inrstore.files.local import Folder
from inrstore.files.lock import Lock

# ---- folders -----------------------------------------------------------------------------------------------


def test_what_is_written_is_read_and_walked_in_order(tmp_path):
    folder = Folder(tmp_path / "new")
    for key in ("b/2", "a", "b/10", "b/c/d"):
        folder.write(key, key.encode())
    assert [(e.key, e.size, e.problem) for e in folder.walk()] == [
        ("a", 1, ""), ("b/10", 4, ""), ("b/2", 3, ""), ("b/c/d", 5, "")
    ]  # fmt: skip
    assert [e.key for e in folder.walk("b/c")] == ["b/c/d"]
    assert files.read(folder, "b/c/d", 5) == b"b/c/d"
    assert folder.size("b") is None
    assert folder.size("a/x") is None
    folder.remove("a")
    folder.remove("a")
    assert folder.size("a") is None


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
def test_no_key_leads_out_of_a_folder(tmp_path, key):
    folder = Folder(tmp_path / "inside")
    for action in (folder.open, folder.size, folder.remove, lambda k: folder.write(k, b"x")):
        with pytest.raises(ValueError, match="not a path inside"):
            action(key)
    assert tree(tmp_path) == {}


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path):
    folder = Folder(tmp_path)
    folder.write("a", bytes(1000))
    assert len(files.read(folder, "a", 1000)) == 1000
    with pytest.raises(FileTooLargeError, match="larger than 999 bytes"):
        files.read(folder, "a", 999)
    with pytest.raises(FileNotFoundError):
        files.read(folder, "b", 10)


def test_links_and_what_is_no_file_are_problems_not_surprises(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("x")
    (tmp_path / "to-file").symlink_to(tmp_path / "real/file")
    (tmp_path / "to-folder").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff")).write_text("x")
    found = {entry.key: entry.problem for entry in Folder(tmp_path).walk()}
    assert found.pop("real/file") == found.pop("to-file") == ""
    assert "link to a folder" in found.pop("to-folder")
    assert "broken link" in found.pop("broken")
    assert "not a regular file" in found.pop("pipe")
    ((_, problem),) = found.items()
    assert "UTF-8" in problem
    with pytest.raises(OSError, match="not a regular file"):
        Folder(tmp_path).open("pipe")


def test_of_several_makers_of_a_file_one_wins(tmp_path):
    folder, wins = Folder(tmp_path), []

    def make(number):
        if folder.create("claim", [str(number).encode()]):
            wins.append(number)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert (tmp_path / "claim").read_text() == str(wins[0])
    assert list(tree(tmp_path)) == ["claim"]


def test_blocks_that_end_in_an_error_leave_nothing(tmp_path):
    def blocks():
        yield b"half"
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        durable.write_blocks(tmp_path / "a", blocks())
    assert tree(tmp_path) == {}


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path, monkeypatch):
    durable.write_file(tmp_path / "a", b"old")
    fsync = os.fsync

    def fail(handle):
        raise OSError(5, "broken")

    monkeypatch.setattr(durable.os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        durable.write_file(tmp_path / "a", b"new")
    monkeypatch.setattr(durable.os, "fsync", fsync)
    assert (tmp_path / "a").read_bytes() == b"old"


# ---- journals ----------------------------------------------------------------------------------------------


def test_a_journal_gives_back_its_records_over_several_openings(tmp_path):
    path = tmp_path / "new/journal.jsonl"
    wanted = []
    for opening in range(3):
        with Journal(path) as journal:
            for number in range(opening + 1):
                wanted.append({"opening": opening, "number": number, "text": 'ä"\n'})
                journal.append(wanted[-1])
    assert list(records(path)) == wanted
    assert list(records(tmp_path / "none")) == []


def test_a_torn_last_line_is_dropped_wherever_it_is_torn(tmp_path):
    path = tmp_path / "j"
    with Journal(path) as journal:
        for number in range(3):
            journal.append({"n": number})
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert [r["n"] for r in records(path)] == [0, 1]
        with Journal(path) as journal:
            journal.append({"n": 7})
        assert [r["n"] for r in records(path)] == [0, 1, 7]


def test_a_flipped_bit_is_damage_or_ends_the_journal_but_never_a_wrong_record(tmp_path):
    path = tmp_path / "j"
    wanted = [{"n": number, "key": "image/c/0"} for number in range(3)]
    with Journal(path) as journal:
        for record in wanted:
            journal.append(record)
    whole = path.read_bytes()
    outcomes = []
    for position in range(len(whole) * 8):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            found = list(records(path))
        except StoreError as error:
            assert "is damaged" in str(error)
            outcomes.append("damaged")
        else:
            assert found == wanted[: len(found)]
            outcomes.append(len(found))
    assert 3 not in outcomes
    assert outcomes.count("damaged") > len(outcomes) / 2


@given(st.integers(0, 10**6), st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_line_is_good_only_at_its_own_place(number, record):
    line = encode(number, record)
    assert decode(number, line) == json.loads(json.dumps(record))
    assert decode(number + 1, line) is None
    assert decode(number, line[:-1]) is None


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path):
    """The longest record can be read; one byte more is refused before anything of it is on the disk."""
    longest = {"note": "x" * (MAX_LINE_BYTES - len(encode(0, {"note": ""})))}
    with Journal(tmp_path / "j") as journal:
        journal.append(longest)
        with pytest.raises(StoreError, match="a record of"):
            journal.append({"note": longest["note"] + "x"})
        journal.append({"note": "short"})
    assert [len(record["note"]) for record in records(tmp_path / "j")] == [len(longest["note"]), 5]


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, b"bytes", 10**5000, _nested(100_000), "x" * MAX_LINE_BYTES, "\0" * (1 << 20)],
    ids=["nan", "inf", "set", "bytes", "digits", "nested", "long", "escaped"],
)
def test_what_its_reader_would_refuse_is_not_appended(tmp_path, value):
    with Journal(tmp_path / "j") as journal:
        journal.append({"n": 0})
        before = (tmp_path / "j").read_bytes()
        with pytest.raises(StoreError, match="a record"):
            journal.append({"n": value})
        assert (tmp_path / "j").read_bytes() == before
        journal.append({"n": 1})
    assert [record["n"] for record in records(tmp_path / "j")] == [0, 1]


def test_a_record_that_is_no_object_is_not_appended(tmp_path):
    with Journal(tmp_path / "j") as journal, pytest.raises(StoreError, match="a record"):
        journal.append([1])  # type: ignore[arg-type]
    assert (tmp_path / "j").read_bytes() == b""


@pytest.mark.parametrize("opening", [Journal, lambda path: Lock(path, "it")], ids=["journal", "lock"])
def test_a_link_in_the_place_of_a_journal_or_a_lock_is_not_followed(tmp_path, opening):
    """Who brings an archive with such a link must not have a file of its user's emptied."""
    (tmp_path / "thesis.txt").write_bytes(b"years")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/it").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises((OSError, StoreError)):
        opening(tmp_path / "archive/it").close()
    assert (tmp_path / "thesis.txt").read_bytes() == b"years"


@pytest.mark.parametrize("opening", [Journal, lambda path: Lock(path, "it")], ids=["journal", "lock"])
def test_a_pipe_in_the_place_of_a_journal_or_a_lock_is_refused(tmp_path, opening):
    os.mkfifo(tmp_path / "it")
    with pytest.raises(OSError, match=r"not a regular file.*it"):
        opening(tmp_path / "it")


def test_what_a_link_leads_to_is_not_cleared(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / f"{durable.PREFIX}0123456789abcdef").write_bytes(b"of another archive")
    (tmp_path / "work").symlink_to(folder)
    before = tree(tmp_path)
    Folder(tmp_path).clear("work")
    assert tree(tmp_path) == before


def test_a_line_that_cannot_be_written_is_taken_back(tmp_path, monkeypatch):
    with Journal(tmp_path / "j") as journal:
        journal.append({"n": 0})
        write = os.write

        def full(handle, data):
            write(handle, bytes(data)[:5])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(durable.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.append({"n": 1})
        monkeypatch.setattr(durable.os, "write", write)
        journal.append({"n": 2})
    assert [r["n"] for r in records(tmp_path / "j")] == [0, 2]


# ---- locks -------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from inrstore.files.lock import Lock
with Lock(Path(sys.argv[1]), "the archive"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_says_who_holds_it_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "new/lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DestinationHeldError, match=f"the archive: being written by .* process {holder.pid}"):
            Lock(path, "the archive")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    for _ in range(2):
        with Lock(path, "the archive"):
            pass


@pytest.mark.parametrize("above", ["p", "p/q"])
def test_a_lock_survives_that_its_holder_removes_the_folder(tmp_path, above):
    """Who loses the race is told that somebody holds it, never that there is no such file."""
    path, inside, most, wrong = tmp_path / "p/q/lock", [], [], []

    def work():
        for _ in range(40):
            try:
                with Lock(path, "it"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    with suppress(OSError):  # another made something in it meanwhile
                        durable.remove_folder(tmp_path / above)
            except DestinationHeldError:
                time.sleep(0.0005)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(most) > 4
    assert max(most) == 1


def test_a_folder_that_goes_just_when_it_is_needed_is_made_again(tmp_path, monkeypatch):
    make, gone = durable.make_folder, []

    def vanishing(path):
        make(path)
        if len(gone) < 3:
            gone.append(path)
            durable.remove_folder(tmp_path / "p")
            raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(durable, "make_folder", vanishing)
    with Lock(tmp_path / "p/q/lock", "it"):
        assert len(gone) == 3
