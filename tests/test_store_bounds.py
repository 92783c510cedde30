"""A forged store costs no time and no memory: what it claims is refused before it is read, by every command."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from common import ROOT, random_image, reseal, write_nifti

import inrstore
from inrstore.errors import InrstoreError
from inrstore.store import layout

CHUNK, SMALL = "image/c/0/0/0", "x/c/0"


@pytest.fixture
def store(tmp_path):
    """Return a store of several chunks in a folder."""
    image = write_nifti(tmp_path / "a.nii.gz", random_image((24, 20, 16)))
    inrstore.convert(image, tmp_path / "a.zarr", lossless=True, chunks=(8, 20, 24))
    read(tmp_path / "a.zarr")  # imports what it needs, whose memory is not that of a store
    assert (tmp_path / "a.zarr" / CHUNK).is_file()
    assert (tmp_path / "a.zarr" / "image/c/1/0/0").is_file()
    return tmp_path / "a.zarr"


def read(store: Path) -> None:
    """Read every value, as a user would."""
    found = inrstore.open(store)
    for name in found.variables:
        found[name].to_numpy()


COMMANDS = {
    "open": read,
    "info": inrstore.info,
    "verify": inrstore.verify,
    "verify-fast": lambda store: inrstore.verify(store, fast=True),
    "export": lambda store: inrstore.export(store, store.with_name("back.nii")),
}


def refused(store: Path, command: str, *words: str, megabytes: int = 16, seconds: float = 5.0) -> None:
    """Check that a command ends in one of our errors, soon, and without memory."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(InrstoreError) as caught:
            COMMANDS[command](store)
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < seconds
    for word in words:
        assert word in str(caught.value)
    assert not store.with_name("back.nii").exists()


def _pipe(path: Path) -> None:
    os.mkfifo(path)
    # A reader that waits for a writer is let go in the end, so that the test can fail.
    threading.Timer(20, lambda: os.close(os.open(path, os.O_RDWR))).start()


FORGED = {
    "pipe": (_pipe, "not a regular file"),
    "zeros": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), ""),
    "folder": (lambda path: path.mkdir(), ""),
    "sparse": (lambda path: (path.touch(), os.truncate(path, 40 << 30)), "larger than"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("forged", FORGED)
def test_a_chunk_that_is_no_file_or_far_too_large_is_not_read(store, forged, command):
    make, word = FORGED[forged]
    (store / CHUNK).unlink()
    make(store / CHUNK)
    refused(store, command, CHUNK, word)


@pytest.mark.parametrize("key", ["zarr.json", "image/zarr.json", SMALL])
@pytest.mark.parametrize("forged", FORGED)
def test_a_document_or_a_table_that_is_none_is_not_read(store, forged, key):
    make, _ = FORGED[forged]
    if not (store / key).exists():
        pytest.skip("this store has no such file")
    (store / key).unlink()
    make(store / key)
    refused(store, "open", key if key != "zarr.json" else str(store))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shape_of_more_chunks_than_there_are_digests_is_not_counted_through(store, command):
    """800 million chunks in a few bytes of JSON."""

    def longer(document):
        image = document["consolidated_metadata"]["metadata"]["image"]
        image["shape"][0] = 800_000_000
        image["chunk_grid"]["configuration"]["chunk_shape"][0] = 1

    reseal(store, longer)
    refused(store, command, "digests")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("lengths", [[1 << 61], [1 << 61] * 3, [800_000_000, 1, 1], [1 << 40, 1 << 40, 0]])
def test_a_chunk_larger_than_any_can_be_is_refused(store, command, lengths):
    def larger(document):
        image = document["consolidated_metadata"]["metadata"]["image"]
        shape = lengths + image["shape"][len(lengths) :]
        image["shape"] = shape
        image["chunk_grid"]["configuration"]["chunk_shape"] = shape

    reseal(store, larger)
    refused(store, command, str(store))


def test_a_table_larger_than_any_is_refused(store):
    def larger(document):
        array = document["consolidated_metadata"]["metadata"]["x"]
        array["shape"] = array["chunk_grid"]["configuration"]["chunk_shape"] = [800_000_000]

    if "x" not in json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]:
        pytest.skip("this store has no table")
    reseal(store, larger)
    for command in ("open", "verify"):
        refused(store, command, "x")


# ---- the same in one file


def packed(store: Path, key: str, size: int, packed_size: int, method: int) -> Path:
    """Return a sparse .ozx of the store in which one member claims a size."""
    out = store.with_suffix(".ozx")
    keys = sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())
    keys.sort(key=lambda one: (one != "zarr.json", not one.endswith(".json"), one == key))
    with zipfile.ZipFile(out, "w") as made:
        for one in keys:
            made.write(store / one, one)
        start, offset = made.start_dir, made.getinfo(key).header_offset
        old = made.getinfo(key).file_size
    data = bytearray(out.read_bytes())
    room = packed_size - old
    assert keys[-1] == key
    long = struct.pack("<HHQQ", 1, 16, size, packed_size)
    local = data[offset:start]
    struct.pack_into("<H", local, 8, method)
    struct.pack_into("<LL", local, 18, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", local, 28, len(long))
    name_end = 30 + len(key)
    local[name_end:name_end] = long
    listed = data[start:-22]
    at = listed.rfind(b"PK\1\2")
    struct.pack_into("<H", listed, at + 10, method)
    struct.pack_into("<LL", listed, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", listed, at + 30, len(long))
    listed[at + 46 + len(key) : at + 46 + len(key)] = long
    begin = offset + len(local) + room
    end64 = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, len(keys), len(keys), len(listed), begin)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, begin + len(listed), 1)
    last = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, *[0xFFFFFFFF] * 2, 0)
    with out.open("wb") as file:
        file.write(data[:offset] + local)
        file.seek(begin)
        file.write(listed + end64 + locator + last)
    with zipfile.ZipFile(out) as found:
        assert found.getinfo(key).compress_size == packed_size
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stored_member_of_40_gigabytes_is_not_read(store, command):
    refused(packed(store, CHUNK, 40 << 30, 40 << 30, 0), command, "larger than")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_small_member_in_40_gigabytes_is_not_read(store, command):
    refused(packed(store, CHUNK, 1000, 40 << 30, 8), command, CHUNK)


def test_a_store_that_is_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a.ozx", "a.zarr"):
        _pipe(tmp_path / name)
        for command in COMMANDS:
            refused(tmp_path / name, command, name)


def test_the_most_chunks_cost_what_their_digests_do(store):
    """Documents hold digests of a few million chunks at most; counting those is bounded, in another process too."""
    code = (
        "import resource, sys, inrstore; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30));"
        "inrstore.verify(sys.argv[1], fast=True)"
    )

    def many(document):
        image = document["consolidated_metadata"]["metadata"]["image"]
        image["shape"][0] = 200_000
        image["chunk_grid"]["configuration"]["chunk_shape"][0] = 1
        grids = [(name, layout.ArrayDocument.parse(array).grid)
                 for name, array in document["consolidated_metadata"]["metadata"].items()]  # fmt: skip
        found = document["attributes"]["inrstore"]["manifest"]
        found["digests"] = "A" * 22 * sum(len(grid) for _, grid in grids)

    reseal(store, many)
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert "files are bad" in done.stderr
    assert "MemoryError" not in done.stderr
