"""What a server of an archive sends is what an export writes, to every client; or it breaks off."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from archives import bids_dataset, bulk_zip, make_archive, small_tree, write_pair
from common import ROOT, random_image, write_nifti
from servers import needs_moto, s3_server
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.reader import Store
from inrstore.views import serve as module
from inrstore.views.http_request import Problem, byte_range
from inrstore.views.serve import Server
from inrstore.views.vfs import Vfs

pytestmark = pytest.mark.skipif(find_spec("aiohttp") is None, reason="aiohttp is not installed")

LARGE = "b/large.nii"
BIG = 12 << 20
"""Bytes of a file that no socket takes at once."""


def nifti(path: Path, *values: Any, **options: Any) -> Path:
    """Write an image, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, *values, **options)


def tree(folder: Path) -> Path:
    small_tree(folder)
    write_nifti(folder / "b/large.nii.gz", random_image((20, 18, 12, 8)))
    (folder / "b/50% & größer.dat").write_bytes(b"a name")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree, its lossy archive of several chunks an image, and what that exports, unpacked."""
    folder = tmp_path_factory.mktemp("serve")
    source = tree(folder / "in")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
            patch.setattr(layout, name, 300)
        make_archive(source, folder / "archive", max_error=2)
    with Vfs(folder / "archive") as vfs:
        exported = {entry.path: vfs.open(entry.path).read() for entry in vfs.walk()}
    return source, folder / "archive", exported


@pytest.fixture(scope="module")
def server(made):
    with Server(made[1], port=0, source=made[0]) as running:
        yield running


class Reply:
    """An answer: status, headers, body."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = found.status, found.headers, found.read()


def connect(server: Server, timeout: float = 20) -> http.client.HTTPConnection:
    address = urllib.parse.urlsplit(server.url)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> Reply:
    """Send a request as it is, its target not encoded; underscores of headers are hyphens."""
    connection = connect(server)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return Reply(connection.getresponse())
    finally:
        connection.close()


def quoted(path: str) -> str:
    return urllib.parse.quote(path)


def get(server: Server, path: str, **headers: str) -> Reply:
    reply = ask(server, path, **headers)
    assert reply.status in (200, 206), (reply.status, reply.body)
    return reply


def as_json(server: Server, path: str) -> Any:
    return json.loads(get(server, path).body)


def raw(server: Server, data: bytes, timeout: float = 20) -> bytes:
    """Send bytes and return all that comes until the connection is closed."""
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout) as client:
        client.sendall(data)
        out = bytearray()
        while block := client.recv(1 << 16):
            out += block
    return bytes(out)


def in_process(code: str, *arguments: str) -> str:
    """Run a program that has this repository's package at hand; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Files


def test_every_file_is_that_of_an_export(server, made, tmp_path):
    _, archive, exported = made
    inrstore.export(archive, tmp_path / "out")
    on_disk = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")
               if path.is_file()}  # fmt: skip
    names = {name.removesuffix(".gz") for name in on_disk}
    assert names == set(exported) and len(names) >= 10
    for name, data in exported.items():
        reply = get(server, f"/nii/{quoted(name)}")
        assert (int(reply.headers["Content-Length"]), reply.body) == (len(data), data), name
        head = ask(server, f"/nii/{quoted(name)}", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert {key: head.headers[key] for key in ("Content-Length", "ETag", "Accept-Ranges")} == {
            key: reply.headers[key] for key in ("Content-Length", "ETag", "Accept-Ranges")
        }
        if name in on_disk:
            assert hashlib.sha256(data).digest() == hashlib.sha256(on_disk[name].read_bytes()).digest()


def test_a_folder_is_a_list_of_links(server):
    links = re.findall(rb'href="([^"]*)"', get(server, "/nii/b/").body)
    assert links[0] == b"/nii/" and b"/nii/b/50%25%20%26%20gr%C3%B6%C3%9Fer.dat" in links
    assert links == re.findall(rb'href="([^"]*)"', get(server, "/nii/b").body)
    assert b"/nii/b/" in re.findall(rb'href="([^"]*)"', get(server, "/nii/").body)
    for link in links:
        assert get(server, link.decode()).status == 200
    assert ask(server, "/nii/b/large.nii/").status == 404


def test_fsspec_lists_and_nibabel_reads_parts(made):
    fsspec = pytest.importorskip("fsspec")
    lines: list[str] = []
    with Server(made[1], port=0, log=lines.append) as own:
        there = fsspec.filesystem("http", skip_instance_cache=True)
        listed = {url.removeprefix(own.url) for url in there.ls(own.url + "nii/b/", detail=False)}
        assert {"nii/b/large.nii", "nii/b/dwi.bval"} <= listed
        with there.open(own.url + "nii/" + LARGE, block_size=1 << 12) as file:
            img = nib.Nifti1Image.from_file_map(
                {"image": nib.FileHolder(fileobj=file), "header": nib.FileHolder(fileobj=file)}
            )
            found = np.asarray(img.dataobj[..., 3])
    expected = nib.Nifti1Image.from_bytes(made[2][LARGE])
    assert np.array_equal(found, np.asarray(expected.dataobj[..., 3]))
    assert np.array_equal(img.affine, expected.affine)
    parts = [int(line.split()[4]) for line in lines if " 206 " in line]
    assert len(parts) >= 2 and sum(parts) < len(made[2][LARGE]) // 2


def test_one_store_is_served_as_its_file(tmp_path, small):
    source = write_nifti(tmp_path / "dwi.nii.gz", random_image((5, 4, 3, 2)))
    (tmp_path / "dwi.bval").write_text("0 1000\n")
    (tmp_path / "dwi.bvec").write_text("0 1\n0 0\n0 0\n")
    inrstore.convert(source, tmp_path / "my store.ozx", lossless=True)
    with Server(tmp_path / "my store.ozx", port=0, source=source) as own:
        index = as_json(own, "/index.json")
        assert (index["name"], index["kind"], index["total"], index["files"]) == ("my store.ozx", "store", 1, 3)
        image = index["images"][0]
        assert (image["path"], image["store"], image["shape"]) == ("dwi.nii", "my store.ozx", [2, 3, 4, 5])
        assert image["has_source"] and image["lossless"] and image["psnr"] is None
        assert len(image["spacing"]) == 3
        urls = as_json(own, "/image.json?path=dwi.nii")["urls"]
        assert get(own, urls["nii"]).body == get(own, urls["source"]).body
        assert get(own, urls["inr"]).body == (tmp_path / "my store.ozx").read_bytes()
        assert json.loads(get(own, f"{urls['array']}/zarr.json").body)["shape"] == [2, 3, 4, 5]
        assert get(own, "/nii/dwi.bval").body == b"0 1000\n"


# Zarr


READ = """
import sys, json, numpy, zarr
group = zarr.open_group(sys.argv[1], mode="r")
flat = zarr.open_array(sys.argv[1] + "/image", mode="r")
kinds = [type(codec).__name__ for codec in flat.metadata.codecs]
numpy.savez(sys.argv[2], one=flat[:], **{name: group[name][...] for name in sys.argv[3].split(",")})
assert not [name for name in sys.modules if name.split(".")[0] == "inrstore"], "the package was imported"
print(json.dumps([kinds, dict(group.attrs)["ome"]["multiscales"][0]["axes"], sorted(group.array_keys())]))
"""


@pytest.mark.parametrize(("zarr_format", "container"), [(3, "ozx"), (3, "zarr"), (2, "zarr")])
def test_any_reader_of_zarr_gets_the_values(tmp_path, small, zarr_format, container):
    source = write_nifti(tmp_path / "dwi.nii.gz", random_image((5, 7, 3, 4)))
    (tmp_path / "dwi.bval").write_text("0 1000 1000 5\n")
    (tmp_path / "dwi.bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    where = tmp_path / f"dwi.{container}"
    inrstore.convert(source, where, max_error=2, zarr_format=zarr_format, chunks=(2, 3, 4))
    store = Store(where)
    assert any(n % c for n, c in zip(store.grid.shape, store.grid.chunks, strict=True))
    with Server(where, port=0) as own:
        printed = in_process(READ, f"{own.url}zarr/dwi.{container}", str(tmp_path / "out.npz"), "bval,bvec,x,image")
        kinds, axes, names = json.loads(printed)
        assert kinds == ["BytesCodec"] and [axis["name"] for axis in axes] == ["t", "z", "y", "x"]
        assert names == sorted(store.arrays)
        with np.load(tmp_path / "out.npz") as found:
            for name in ("bval", "bvec", "x"):
                assert np.array_equal(found[name], store.read(name)), name
            for name in ("one", "image"):
                for index in store.grid:
                    assert np.array_equal(found[name][store.grid.region(index)], store.chunk(index))
        document = json.loads(get(own, f"/zarr/dwi.{container}/zarr.json").body)
        for name, inner in document["consolidated_metadata"]["metadata"].items():
            assert json.loads(get(own, f"/zarr/dwi.{container}/{name}/zarr.json").body) == inner


def test_a_chunk_at_the_edge_is_padded_with_the_fill_value(server, made):
    image = as_json(server, f"/image.json?path={LARGE}")
    store = Store(made[1] / image["store"])
    index = tuple(count - 1 for count in store.grid.counts)
    region = store.grid.region(index)
    expected = np.zeros(store.grid.chunks, store.dtype)
    expected[tuple(slice(part.stop - part.start) for part in region)] = store.chunk(index)
    key = "c/" + "/".join(map(str, index))
    whole = get(server, f"{image['urls']['array']}/{key}")
    assert whole.body == expected.tobytes()
    assert (image["chunks"], image["chunk_shape"]) == (len(store.grid), list(store.grid.chunks))
    for start, stop in ((0, 1), (1, 100), (3, 4), (len(whole.body) - 5, len(whole.body))):
        part = get(server, f"{image['urls']['array']}/{key}", Range=f"bytes={start}-{stop - 1}")
        assert part.status == 206 and part.body == whole.body[start:stop]
    for wrong in ("c/99/0/0/0", "c/0/0/0", "c/0/0/0/0/0", "c/00/0/0/0", "c/-1/0/0/0", "c/0/0/0/٣", "c/", "c", "x", ""):
        assert ask(server, f"{image['urls']['array']}/{quoted(wrong)}").status in (404, 400), wrong


def test_a_store_as_it_lies_is_read_with_the_codec(made, tmp_path):
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("fsspec")
    import inrstore.codecs.zarr

    image = write_nifti(tmp_path / "a.nii", random_image((9, 8, 7)))
    for name in ("a.zarr", "a.ozx"):
        inrstore.convert(image, tmp_path / name, lossless=True)
        store = Store(tmp_path / name)
        with Server(tmp_path / name, port=0) as own:
            for key in (*store.documents, *store.manifest):
                reply = get(own, f"/inr/{name}/{key}")
                assert reply.body == files_read(store, key) and reply.headers["ETag"], key
            part = get(own, f"/inr/{name}/image/c/0/0/0", Range="bytes=2-9")
            assert part.body == files_read(store, "image/c/0/0/0")[2:10]
            found = zarr.open_group(f"{own.url}inr/{name}", mode="r")["image"][:]
            assert np.array_equal(found, nib.load(image).get_fdata().T.astype(found.dtype))
            assert ask(own, f"/inr/{name}/nothing").status == 404
            zipped = ask(own, f"/inr/{name}")
            assert zipped.status == (200 if name == "a.ozx" else 404)
            if name == "a.ozx":
                assert zipped.body == (tmp_path / name).read_bytes()
                assert get(own, f"/inr/{name}", Range="bytes=-22").body == zipped.body[-22:]


def files_read(store: Store, key: str) -> bytes:
    with store.files.open(key) as file:
        return file.read()


# What there is


def test_the_index_says_what_the_images_are(server, made):
    index = as_json(server, "/index.json")
    _, archive, exported = made
    assert (index["kind"], index["files"], index["total"]) == ("archive", len(exported), 4)
    assert [image["path"] for image in index["images"]] == ["a/one.nii", "b/dwi.nii", LARGE, "c/pair.hdr"]
    for image in index["images"]:
        full = as_json(server, f"/image.json?path={quoted(image['path'])}")
        assert {key: full[key] for key in image if key != "spacing"} == {
            key: value for key, value in image.items() if key != "spacing"
        }
        store = Store(archive / image["store"])
        assert full["affine"] == store.attributes["affine"] and full["chunks"] == len(store.grid)
        assert full["quality"] == {"max_error": 2.0} and full["max_error"] <= 2
        assert sum(part["bytes"] for part in full["files"]) == sum(
            len(exported[part["path"]]) for part in full["files"]
        )
    pages = [as_json(server, f"/index.json?offset={n}&limit=1")["images"][0] for n in range(4)]
    assert pages == index["images"] and as_json(server, "/index.json?offset=4")["images"] == []
    for query in ("?limit=1001", "?limit=-1", "?offset=x", "?offset=" + "9" * 30):
        assert ask(server, f"/index.json{query}").status == 400, query
    for query in ("", "?path=", "?path=nothing", "?path=../in/a/one.nii.gz", "?path=b/dwi.bval", "?path=%ff"):
        assert ask(server, f"/image.json{query}").status in (400, 404), query


def test_what_a_record_lost_its_stores_still_say(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "archive")
    (tmp_path / "archive/.inrstore/journal.jsonl").unlink()
    with Server(tmp_path / "archive", port=0) as own:
        images = as_json(own, "/index.json")["images"]
        assert [(image["path"], image["shape"]) for image in images] == [
            ("a/one.nii", None), ("b/dwi.nii", None), (LARGE, None), ("c/pair.hdr", None)
        ]  # fmt: skip
        assert as_json(own, f"/image.json?path={LARGE}")["shape"] == [8, 12, 18, 20]
    (tmp_path / "archive/.inrstore/journal.jsonl").write_bytes(b"no journal\n" * 3)
    with Server(tmp_path / "archive", port=0) as own:
        assert ask(own, "/index.json").status == 500 and get(own, f"/nii/{LARGE}").body == made[2][LARGE]


def test_an_index_of_ten_thousand_images_is_quick(tmp_path, monkeypatch):
    from inrstore.archive.manifest import ManifestEntry, read_manifest, write_manifest
    from inrstore.archive.outcomes import Outcome
    from inrstore.archive.record import archive_place
    from inrstore.files.journal import encode

    nifti(tmp_path / "in/a.nii.gz", random_image((4, 3, 2)))
    archive = make_archive(tmp_path / "in", tmp_path / "archive")
    place = archive_place(archive)
    entry = next(entry for entry in read_manifest(place) if entry.kind == "store")
    known = next(record for record in place.records(".inrstore/journal.jsonl") if record["event"] == "outcome")
    many = [(f"sub-{n:05}/sub-{n:05}_T1w", n) for n in range(10_000)]
    entries = [ManifestEntry(out=f"{name}.ozx", kind="store", bytes=9, digest=entry.digest, key=f"{name}.nii.gz")
               for name, _ in many]  # fmt: skip
    write_manifest(place, entries)
    lines = [{**known, "key": f"{name}.nii.gz", "out": f"{name}.ozx"} for name, _ in many]
    assert Outcome.from_dict(lines[0]).status == "converted"
    (archive / ".inrstore/journal.jsonl").write_bytes(b"".join(encode(n, line) for n, line in enumerate(lines)))
    with Server(archive, port=0) as own:
        as_json(own, "/index.json?limit=1")  # the record is read
        for offset in (0, 9_000):
            began = time.monotonic()
            index = as_json(own, f"/index.json?offset={offset}&limit=1000")
            assert time.monotonic() - began < 2
            assert (index["total"], len(index["images"])) == (10_000, 1000)
            assert index["images"][0]["path"] == f"sub-{offset:05}/sub-{offset:05}_T1w.nii"
            assert index["images"][0]["shape"] == [2, 3, 4]


def test_the_source_is_served_where_it_was_given(server, made):
    source, _, exported = made
    import gzip

    reply = get(server, "/source/" + LARGE)
    assert reply.body == gzip.decompress((source / "b/large.nii.gz").read_bytes())
    assert len(reply.body) == len(exported[LARGE]) and reply.body != exported[LARGE]
    part = get(server, "/source/" + LARGE, Range="bytes=352-400", If_Range=reply.headers["ETag"])
    assert part.status == 206 and part.body == reply.body[352:401]
    assert get(server, "/source/b/dwi.nii", Range="bytes=5-").body == (source / "b/dwi.nii").read_bytes()[5:]
    for name in ("c/pair.hdr", "c/pair.img"):
        assert get(server, f"/source/{name}").body == (source / name).read_bytes()
    for name in ("a/notes.txt", "b/dwi.bval", "b/large.nii.gz", "nothing", "", "b", "b/", "../in/a/notes.txt"):
        assert ask(server, f"/source/{name}").status in (400, 404), name


def test_without_a_source_nothing_of_it_is_served(made):
    with Server(made[1], port=0) as own:
        assert not as_json(own, "/index.json")["images"][0]["has_source"]
        assert as_json(own, f"/image.json?path={LARGE}")["urls"]["source"] is None
        assert ask(own, "/source/" + LARGE).status == 404
    for wrong in (made[0] / "nothing", made[0].parent / "none"):
        with pytest.raises(ConfigurationError, match="no such source"):
            Server(made[1], port=0, source=wrong)


def test_a_source_that_lost_a_file_has_it_no_more(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "in")
    (tmp_path / "in/b/large.nii.gz").unlink()
    with Server(made[1], port=0, source=tmp_path / "in") as own:
        found = {image["path"]: image["has_source"] for image in as_json(own, "/index.json")["images"]}
        assert found == {"a/one.nii": True, "b/dwi.nii": True, LARGE: False, "c/pair.hdr": True}
        assert ask(own, f"/source/{LARGE}").status == 404


def test_a_source_that_lies_in_a_zip_is_unpacked(tmp_path):
    path = bulk_zip(tmp_path / "in/1000001_20250_2_0.zip", tmp_path / "scratch")
    make_archive(path.parent, tmp_path / "archive")
    with Server(tmp_path / "archive", port=0, source=path.parent) as own:
        for image in as_json(own, "/index.json")["images"]:
            assert image["has_source"] and image["entities"]["subject"] == "1000001"
            found = get(own, "/source/" + quoted(image["path"])).body
            assert found == get(own, "/nii/" + quoted(image["path"])).body


def test_a_source_that_grew_is_refused(tmp_path):
    import gzip

    source = nifti(tmp_path / "in/a.nii.gz", random_image((5, 4, 3)))
    make_archive(tmp_path / "in", tmp_path / "archive")
    source.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()) + bytes(3 << 20)))
    with Server(tmp_path / "archive", port=0, source=tmp_path / "in") as own:
        reply = ask(own, "/source/a.nii")
        assert reply.status == 500 and b"it is not what the store was made from" in reply.body


# Ranges and conditions


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=0-", (0, 100)), ("bytes=99-", (99, 1)), ("bytes=10-19", (10, 10)),
        ("bytes=90-1000", (90, 10)), ("bytes=-1", (99, 1)), ("bytes=-1000", (0, 100)), ("BYTES= 1-2 ", (1, 2)),
        ("bytes=0-" + "9" * 4000, (0, 100)), ("bytes=-" + "9" * 5000, (0, 100)),
        ("bytes=100-", 416), ("bytes=100-200", 416), ("bytes=-0", 416), (f"bytes={'9' * 5000}-", 416),
        ("bytes=", None), ("bytes=-", None), ("bytes=5-4", None), ("bytes=a-b", None), ("bytes=--5", None),
        ("bytes=1-2,4-5", None), ("bytes=0-0,0-0,0-0", None), ("items=0-1", None), ("0-1", None), ("", None),
        ("bytes=+1-2", None), ("bytes=1.0-2", None), ("bytes=٣-", None), ("bytes 0-1", None), (None, None),
    ],
)  # fmt: skip
def test_a_range_is_part_of_the_file_or_none(text, found):
    if found == 416:
        with pytest.raises(Problem) as caught:
            byte_range(text, 100)
        assert (caught.value.status, caught.value.headers) == (416, {"Content-Range": "bytes */100"})
    else:
        assert byte_range(text, 100) == found


def test_ranges_are_sent_as_rfc_9110_says(server, made):
    data, path = made[2][LARGE], f"/nii/{LARGE}"
    size = len(data)
    for header, start, end in (("bytes=5-9", 5, 10), ("bytes=-7", size - 7, size), ("bytes=352-", 352, size)):
        reply = get(server, path, Range=header)
        assert (reply.status, reply.body) == (206, data[start:end])
        assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(data)}"
        assert int(reply.headers["Content-Length"]) == end - start
    beyond = ask(server, path, Range=f"bytes={len(data)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    for header in ("bytes=0-1,3-4", "bytes=9-1", "lines=1-2"):
        assert (get(server, path, Range=header).status, get(server, path, Range=header).body) == (200, data)
    assert ask(server, path, "HEAD", Range="bytes=0-1").status == 200
    assert ask(server, "/nii/empty.dat").body == b"" and ask(server, "/nii/empty.dat", Range="bytes=0-").status == 416


def test_ranges_anywhere_are_the_bytes(server, made):
    rng, data, connection = np.random.default_rng(0), made[2][LARGE], connect(server)
    for _ in range(150):
        start, length = int(rng.integers(len(data))), int(rng.integers(1, 9000))
        connection.request("GET", f"/nii/{LARGE}", headers={"Range": f"bytes={start}-{start + length - 1}"})
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (206, data[start : start + length])
    connection.close()


def test_what_is_unchanged_is_not_sent_again(server, made):
    data, path = made[2][LARGE], f"/nii/{LARGE}"
    tag = get(server, path, Range="bytes=0-0").headers["ETag"]
    assert re.fullmatch('"[A-Za-z0-9_-]{22}"', tag)
    for header in (tag, f"W/{tag}", "*", f'"other", {tag}'):
        reply = ask(server, path, If_None_Match=header, Range="bytes=0-1")
        assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", tag), header
    assert get(server, path, If_None_Match='"other"').body == data
    assert get(server, path, Range="bytes=0-1", If_Range=tag).body == data[:2]
    for header in ('"other"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        reply = get(server, path, Range="bytes=0-1", If_Range=header)
        assert (reply.status, reply.body) == (200, data), header
    assert get(server, path, If_Match=tag).status == 200
    assert ask(server, path, If_Match='"other"').status == 412 and ask(server, path, If_Match=f"W/{tag}").status == 412


# What is not served


TRAVERSALS = [
    "..", "../", "../in/a/notes.txt", "b/../a/notes.txt", "%2e%2e/in/a/notes.txt", "%2e%2e%2fin%2fa%2fnotes.txt",
    "b%2f..%2f..%2fin/a/notes.txt", "..%5cin%5ca%5cnotes.txt", "..\\in\\a\\notes.txt", "%252e%252e/in/a/notes.txt",
    "%c0%ae%c0%ae/in", "%ff", "%00", "a/notes.txt%00.nii", "/etc/passwd", "%2fetc/passwd", "//etc/passwd", "C:/x",
    "a//notes.txt", "a/./notes.txt", ".inrstore/job.json", ".inrstore", "a/one.ozx", "%e2%80%a5/in", "a/notes.txt/",
    "C%3a/x", "a" * 5000, "/".join("a" * 400), "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["nii", "zarr", "inr", "source", "web"])
def test_no_path_leads_out(server, kind):
    for path in TRAVERSALS:
        if (kind, path) == ("inr", "a/one.ozx"):
            continue
        reply = ask(server, f"/{kind}/{path}")
        assert reply.status in (400, 404), (path, reply.status)
        assert b"root:" not in reply.body and b"two lines" not in reply.body
    store = "zarr/b/large.ozx" if kind == "zarr" else "inr/b/large.ozx"
    for path in TRAVERSALS:
        assert ask(server, f"/{store}/{path}").status in (400, 404), path
    for path in (
        "/..",
        "/%2e%2e/etc/passwd",
        "/etc/passwd",
        "/nii/../../etc/passwd",
        "/niix/a/notes.txt",
        "/index.json/x",
    ):
        assert ask(server, path).status in (400, 404), path


def test_requests_that_are_none_are_refused(server):
    port = urllib.parse.urlsplit(server.url).port
    host = b"Host: localhost:%d\r\nConnection: close\r\n\r\n" % port
    assert b" 400 " in raw(server, b"nonsense\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in raw(server, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + host).split(b"\r\n")[0]
    assert b" 400 " in raw(server, b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n" + host).split(b"\r\n")[0]
    many = b"".join(b"X-%d: 1\r\n" % n for n in range(500))
    assert b" 400 " in raw(server, b"GET / HTTP/1.1\r\n" + many + host).split(b"\r\n")[0]
    assert b" 400 " in raw(server, b"GET nii HTTP/1.1\r\n" + host).split(b"\r\n")[0]
    assert b" 200 " in raw(server, b"GET http://localhost/nii/a/notes.txt HTTP/1.1\r\n" + host).split(b"\r\n")[0]
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        reply = ask(server, "/nii/a/notes.txt", method)
        assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD, OPTIONS"), method
    with_body = b"GET /nii/a/notes.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
    assert raw(server, with_body).endswith(b"two lines\nof text\n")  # and the connection is closed
    body = b"POST /nii/a/notes.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100
    assert b" 405 " in raw(server, body).split(b"\r\n")[0]


def test_other_names_of_this_machine_are_refused(server, made):
    path = "/nii/a/notes.txt"
    for name in (
        "evil.example",
        "evil.example:8008",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "@",
    ):
        assert ask(server, path, Host=name).status == 421, name
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8008", "[::1]:99"):
        assert ask(server, path, Host=name).status == 200, name
    if socket.has_ipv6:
        try:
            with Server(made[1], port=0, host="::1") as own:
                assert own.url.startswith("http://[::1]:") and ask(own, path).status == 200
                assert ask(own, path, Host="evil.example").status == 421
        except ConfigurationError:  # the machine has no such address
            pass
    with Server(made[1], port=0, host="0.0.0.0") as own:
        assert own.url.startswith("http://0.0.0.0:")
        assert ask(own, path, Host="any.example").status == 200


def test_other_pages_may_read_data_and_nothing_may_be_loaded_by_the_page(server, made):
    for path in ("/index.json", f"/nii/{LARGE}", "/zarr/b/large.ozx/zarr.json", "/inr/b/large.ozx", "/nii/nothing"):
        reply = ask(server, path, Origin="https://viewer.example")
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert {"Content-Range", "Accept-Ranges", "ETag"} <= set(
            reply.headers["Access-Control-Expose-Headers"].split(", ")
        )
        flight = ask(server, path, "OPTIONS", Origin="https://viewer.example", Access_Control_Request_Method="GET",
                     Access_Control_Request_Headers="range")  # fmt: skip
        assert (flight.status, flight.body) == (204, b"")
        assert "Range" in flight.headers["Access-Control-Allow-Headers"].split(", ")
        assert flight.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
        assert "Access-Control-Allow-Private-Network" not in flight.headers
    page = get(server, "/")
    assert "Access-Control-Allow-Origin" not in page.headers
    assert "default-src 'none'" in page.headers["Content-Security-Policy"] and b"http://" not in page.body
    assert "sandbox" in get(server, "/nii/a/notes.txt").headers["Content-Security-Policy"]
    script = get(server, "/web/inrstore.js")
    assert script.body == (Path(module.__file__).parent / "web/inrstore.js").read_bytes()
    assert script.headers["Content-Type"].startswith("text/javascript")
    with Server(made[1], port=0, origin="") as own:
        assert "Access-Control-Allow-Origin" not in get(own, "/index.json").headers
    with Server(made[1], port=0, origin="https://viewer.example") as own:
        assert get(own, "/index.json").headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    for wrong in ("viewer.example", "https://a.example/path", "null", "https://a\r\nX: y"):
        with pytest.raises(ConfigurationError, match="no origin"):
            Server(made[1], port=0, origin=wrong)


# Clients that are many, slow, or hostile


def test_fifty_clients_at_once_get_the_bytes(server, made):
    names = [name for name, data in made[2].items() if data]

    def read(number: int) -> bool:
        connection = connect(server, 60)
        try:
            for turn in range(3):
                name = LARGE if turn == 1 else names[(number + turn) % len(names)]
                connection.request("GET", f"/nii/{quoted(name)}")
                if connection.getresponse().read() != made[2][name]:
                    return False
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(read, range(50)))


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A server with little patience of an archive with a file that no socket takes at once."""
    nifti(tmp_path / "in/a.nii.gz", random_image((5, 4, 3)))
    (tmp_path / "in/big.bin").write_bytes(os.urandom(1 << 10) * (BIG >> 10))
    make_archive(tmp_path / "in", tmp_path / "archive")
    monkeypatch.setattr(module, "_PATIENCE", 0.4)
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 6)
    with Server(tmp_path / "archive", port=0) as own:
        yield own


def test_a_client_that_takes_nothing_is_left(big):
    address = urllib.parse.urlsplit(big.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        client.settimeout(20)
        client.connect((address.hostname, address.port))
        client.sendall(b"GET /nii/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.5)
        got = 0
        try:
            while block := client.recv(1 << 16):
                got += len(block)
        except ConnectionResetError:
            pass
        assert got < BIG
    assert len(get(big, "/nii/big.bin").body) == BIG


def test_a_client_that_never_says_what_it_wants_is_left(big):
    began = time.monotonic()
    for start in (b"", b"GET /nii/big.bin HTTP/1.1\r\nHost: local"):
        try:
            assert raw(big, start) == b""
        except ConnectionResetError:
            pass
    whole = b"GET /nii/a.nii HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        assert raw(big, whole + b"GET /nii/").startswith(b"HTTP/1.1 200")  # the second request never ends
    except ConnectionResetError:
        pass
    assert 0.8 < time.monotonic() - began < 10


def test_more_connections_than_there_are_places_are_told_so(big):
    address = urllib.parse.urlsplit(big.url)
    held = [socket.create_connection((address.hostname, address.port), 10) for _ in range(6)]
    try:
        assert raw(big, b"").startswith(b"HTTP/1.1 503 ")
    finally:
        for one in held:
            one.close()
    end = time.monotonic() + 5
    while raw(big, b"GET /nii/a.nii HTTP/1.0\r\nHost: localhost\r\n\r\n")[9:12] != b"200":
        assert time.monotonic() < end


def test_pieces_bound_what_an_answer_takes(made, monkeypatch):
    asked: list[int] = []
    from inrstore.views.content import Joined

    read_into = Joined.read_into

    def noting(self: Joined, offset: int, view: memoryview) -> None:
        asked.append(len(view))
        read_into(self, offset, view)

    monkeypatch.setattr(Joined, "read_into", noting)
    monkeypatch.setattr(module, "_PIECE", 1 << 12)
    with Server(made[1], port=0) as own:
        assert get(own, f"/nii/{LARGE}").body == made[2][LARGE]
    assert max(asked) <= 1 << 12


# Damage


def damage(archive: Path, store: str, key: str) -> None:
    """Change one byte of a chunk of a zip."""
    path = archive / store
    data = bytearray(path.read_bytes())
    at = data.index(files_read(Store(path), key))
    data[at + 30] ^= 1
    path.write_bytes(data)


def test_damage_is_an_error_and_never_a_whole_answer(made, tmp_path, monkeypatch):
    shutil.copytree(made[1], tmp_path / "archive")
    store = Store(tmp_path / "archive/b/large.ozx")
    last = store.key(tuple(count - 1 for count in store.grid.counts))
    damage(tmp_path / "archive", "b/large.ozx", last)
    monkeypatch.setattr(module, "_PIECE", 1 << 12)
    told: list[str] = []
    with Server(tmp_path / "archive", port=0, tell=told.append) as own:
        chunk = ask(own, f"/zarr/b/large.ozx/{last}")
        assert chunk.status == 500 and last.encode() in chunk.body and chunk.body.count(b"\n") == 1
        assert str(tmp_path).encode() not in chunk.body
        assert ask(own, f"/inr/b/large.ozx/{last}").status == 500
        size = int(ask(own, f"/nii/{LARGE}", "HEAD").headers["Content-Length"])
        assert ask(own, f"/nii/{LARGE}", Range=f"bytes={size - 1}-").status == 500
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(own, f"/nii/{LARGE}")
        assert get(own, f"/nii/{LARGE}", Range="bytes=0-400").body == made[2][LARGE][:401]
        assert get(own, "/nii/a/one.nii").body == made[2]["a/one.nii"]
        assert len(told) in (1, 2) and str(tmp_path) in told[0]  # each once
        (tmp_path / "archive/a/one.ozx").write_bytes((tmp_path / "archive/b/dwi.ozx").read_bytes())
    with Server(tmp_path / "archive", port=0) as own:
        reply = ask(own, "/nii/a/one.nii")
        assert reply.status == 500 and b"seal" in reply.body
        assert get(own, "/nii/b/dwi.nii").body == made[2]["b/dwi.nii"]


def test_a_chunk_that_is_missing_is_no_chunk_of_zeros(tmp_path, small):
    image = write_nifti(tmp_path / "a.nii", random_image((9, 8, 7)))
    inrstore.convert(image, tmp_path / "a.zarr", lossless=True)
    key = Store(tmp_path / "a.zarr").key((0, 0, 0))
    (tmp_path / "a.zarr" / key).unlink()
    with Server(tmp_path / "a.zarr", port=0) as own:
        for kind in ("zarr", "inr"):
            assert ask(own, f"/{kind}/a.zarr/{key}").status == 500  # 404 would be the fill value


def test_no_store_no_server(tmp_path, made):
    with pytest.raises(StoreError):
        Server(tmp_path / "nothing", port=0)
    with Server(made[1], port=0) as own:
        port = int(urllib.parse.urlsplit(own.url).port or 0)
        with pytest.raises(ConfigurationError, match="cannot be listened at"):
            Server(made[1], port=port)
    for wrong in ({"port": 70_000}, {"host": "no.such.host.invalid"}, {"scratch": str(tmp_path / "none")}):
        with pytest.raises(ConfigurationError):
            Server(made[1], **{"port": 0, **wrong})
    with Server(made[1], port=port) as own:
        assert get(own, "/index.json").status == 200


def test_it_says_what_is_not_installed(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependencyError, match=r"inrstore\[serve\]"):
        Server(made[1], port=0)


# The command


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "inrstore.cli", "serve", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(made, tmp_path, number):
    if number == signal.SIGINT:
        process = command(str(made[1]), "--port", "0")
    else:
        process = command(str(made[1]), "--port", "0", "-v", "--source", str(made[0]))
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        address = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        connection.request("GET", f"/nii/{LARGE}")
        assert connection.getresponse().read() == made[2][LARGE]  # the connection stays
        with socket.create_connection((address.hostname, address.port), 20) as half:
            half.sendall(b"GET /nii")
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(20) == 0
            assert time.monotonic() - began < 4  # of which the end of Python takes a part
        connection.close()
        said = process.stderr.read() if process.stderr is not None else ""
        assert ("GET /nii/b/large.nii - 200" in said) == (number == signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def test_the_command_warns_of_an_address_that_others_reach(made):
    process = command(str(made[1]), "--host", "0.0.0.0", "--port", "0")
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("http://0.0.0.0:")
        assert "warning" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()
    for arguments, code in ((["serve", "nothing"], 1), (["serve", str(made[1]), "--origin", "x"], 2)):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        cache = inrstore.cache()
        assert CliRunner().invoke(app, arguments).exit_code == code
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert inrstore.cache() == cache


def test_the_python_of_the_guide_runs(tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    text = (ROOT / "docs/files.md").read_text().partition("## Over HTTP")[2]
    source = bids_dataset(tmp_path / "bids")
    make_archive(source, tmp_path / "archive")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(re.findall(r"```python\n(.*?)```", text, flags=re.S)[0], "files.md", "exec"), names)
    values = np.asarray(nib.load(source / "sub-01/dwi/sub-01_dwi.nii.gz").dataobj)
    assert np.array_equal(names["slab"], values[:, :, 1].T)
    assert np.array_equal(names["course"], values[2, 1, 1])


# Buckets


@needs_moto
def test_an_archive_in_a_bucket_is_served(tmp_path, monkeypatch):
    nifti(tmp_path / "in/sub/a.nii.gz", random_image((6, 5, 4)))
    write_pair(tmp_path / "in/c/pair.hdr", random_image((4, 3, 2), "uint8", seed=4))
    with s3_server(tmp_path) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket()
        make_archive(tmp_path / "in", f"{bucket}/archive")
        with Vfs(f"{bucket}/archive") as vfs:
            expected = {entry.path: vfs.open(entry.path).read() for entry in vfs.walk()}
        s3.put(f"{bucket[5:]}/in/sub/a.nii.gz", (tmp_path / "in/sub/a.nii.gz").read_bytes())
        s3.put(f"{bucket[5:]}/in/c/pair.img", (tmp_path / "in/c/pair.img").read_bytes())
        with Server(f"{bucket}/archive", port=0, source=f"{bucket}/in") as own:
            for name in ("sub/a.nii", "c/pair.img"):
                assert get(own, f"/source/{name}", Range="bytes=5-").body == expected[name][5:]
            assert ask(own, "/source/c/pair.hdr").status == 404
            assert as_json(own, "/index.json")["total"] == 2
            for name, data in expected.items():
                assert get(own, f"/nii/{name}").body == data
            image = as_json(own, "/image.json?path=sub/a.nii")
            assert json.loads(get(own, f"{image['urls']['zarr']}/zarr.json").body)["node_type"] == "group"
            zipped = get(own, image["urls"]["inr"]).body
            assert get(own, image["urls"]["inr"], Range="bytes=-22").body == zipped[-22:] and zipped[:2] == b"PK"


def test_it_stops_while_answers_are_on_their_way(made, tmp_path):
    own = Server(made[1], port=0)
    seen = threading.Event()

    def read() -> None:
        connection = connect(own)
        try:
            while True:
                connection.request("GET", f"/nii/{LARGE}")
                connection.getresponse().read()
                seen.set()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(read)
        assert seen.wait(20)
        began = time.monotonic()
        own.close()
        assert time.monotonic() - began < 2
        own.close()
