"""An archive seen as files is the tree it was made from: names, sizes and bytes; damage is an error, never zeros."""

from __future__ import annotations

import errno
import gzip
import io
import math
import pickle
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from archives import bids_dataset, bulk_zip, make_archive, small_tree, write_pair, write_tree
from common import random_image, reseal, write_nifti
from hypothesis import given
from hypothesis import strategies as st
from servers import needs_moto, s3_server
from test_sources_cifti import series, write_cifti
from test_sources_mgh import HISTORY, write_mgh
from test_sources_nrrd import write_nrrd

import inrstore
from inrstore.archive.manifest import ManifestEntry, read_manifest, write_manifest
from inrstore.archive.record import archive_place
from inrstore.codecs import decoded
from inrstore.errors import StoreError
from inrstore.files.local import Folder
from inrstore.store.reader import Store
from inrstore.views import vfs as module
from inrstore.views.content import Bytes, Gzipped, Joined, Voxels, boxes
from inrstore.views.vfs import Vfs


def every_format(folder: Path) -> Path:
    """Make a tree with an image of every format that is read."""
    small_tree(folder)
    write_nifti(folder / "a/two.nii", random_image((5, 4, 3), "float32"), version=2)
    write_nifti(folder / "a/LOUD.NII.GZ", random_image((5, 4, 3)))
    write_pair(folder / "c/packed.hdr.gz", random_image((4, 3, 2), seed=5))
    write_cifti(folder / "m.dtseries.nii", series(6, 40))
    (folder / "fs").mkdir()
    write_mgh(folder / "fs/brain.mgz", random_image((5, 4, 3), "u1"), HISTORY)
    write_mgh(folder / "fs/plain.mgh", random_image((5, 4, 3, 2), "f4"), HISTORY)
    values = random_image((4, 3, 5))
    write_nrrd(folder / "raw.nrrd", values, after=b"tail")
    write_nrrd(folder / "packed.nrrd", values, encoding="gzip")
    write_nrrd(folder / "first.nrrd", random_image((3, 4, 5, 6)), kinds="vector domain domain domain")
    write_nrrd(folder / "apart.nhdr", values, data_file="apart.raw")
    write_nrrd(folder / "apart2.nhdr", values, data_file="apart2.raw.gz", encoding="gzip")
    return folder


def contents(vfs: Vfs) -> dict[str, bytes]:
    """Return every file, each of the size that was said."""
    found = {}
    for entry in vfs.walk():
        with vfs.open(entry.path) as file:
            found[entry.path] = file.read()
        assert len(found[entry.path]) == vfs.size(entry.path) == file.size
    return found


def plain_name(name: str) -> str:
    if name.lower().endswith((".nii.gz", ".hdr.gz", ".img.gz")):
        return name[:-3]
    return name.removesuffix(".mgz") + ".mgh" if name.endswith(".mgz") else name


def unpacked(name: str, data: bytes) -> bytes:
    """Return the bytes of a file without gzip, wherever its format has it."""
    head, blank, rest = data.partition(b"\n\n") if name.endswith(".nrrd") else (b"", b"", data)
    return head + blank + (gzip.decompress(rest) if rest[:2] == b"\x1f\x8b" else rest)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """A tree with every format, and its archive."""
    folder = tmp_path_factory.mktemp("formats")
    source = every_format(folder / "in")
    with pytest.MonkeyPatch.context() as patch:
        from inrstore.store import layout

        for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
            patch.setattr(layout, name, 20)
        make_archive(source, folder / "archive")
    return source, folder / "archive"


# The tree


def test_an_archive_looks_like_its_source_unpacked(formats):
    source, archive = formats
    there = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    expected = {plain_name(name): unpacked(name, data) for name, data in there.items()}
    with Vfs(archive) as vfs:
        found = contents(vfs)
        assert {name: unpacked(name, data) for name, data in found.items()} == expected
        # What a header says to be gzipped stays so, all else is plain.
        assert [name for name, data in found.items() if data != expected[name]] == ["apart2.raw.gz", "packed.nrrd"]
        assert vfs.count() == len(found)


def test_an_archive_looks_like_its_source_packed(formats):
    source, archive = formats
    there = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    with Vfs(archive, gz=True) as vfs:
        found = contents(vfs)
        assert {name: unpacked(name, data) for name, data in found.items()} == {
            name: unpacked(name, data) for name, data in there.items()
        }
        for name, data in found.items():
            assert "nrrd" in name or name.lower().endswith("gz") == (data[:2] == b"\x1f\x8b"), name


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_lossy_archive_gives_the_bytes_of_its_export(tmp_path, small, zarr_format):
    source = write_nifti(tmp_path / "a.nii.gz", random_image((9, 8, 7, 5)), extension=b"kept", slope=None)
    (tmp_path / "in").mkdir()
    source.rename(tmp_path / "in/a.nii.gz")
    make_archive(tmp_path / "in", tmp_path / "archive", max_error=3, zarr_format=zarr_format)
    ending = "ozx" if zarr_format == 3 else "zarr"
    inrstore.export(tmp_path / f"archive/a.{ending}", tmp_path / "a.nii")
    with Vfs(tmp_path / "archive") as vfs:
        assert contents(vfs) == {"a.nii": (tmp_path / "a.nii").read_bytes()}


def test_folders_are_listed_one_at_a_time(formats):
    with Vfs(formats[1]) as vfs:
        top = vfs.entries()
        assert [(entry.name, entry.is_folder) for entry in top][:3] == [("a", True), ("apart.nhdr", False),
                                                                        ("apart.raw", False)]  # fmt: skip
        assert [entry.path for entry in vfs.entries("/a/")] == ["a/LOUD.NII", "a/notes.txt", "a/one.nii", "a/two.nii"]
        assert vfs.entry("a").is_folder and vfs.entry("").is_folder and not vfs.entry("/a/one.nii").is_folder
        for call, path, error in [
            (vfs.entries, "nothing", FileNotFoundError), (vfs.entries, "a/notes.txt", NotADirectoryError),
            (vfs.entry, "a/../a", FileNotFoundError), (vfs.entry, "a/one.nii.gz", FileNotFoundError),
            (vfs.open, "a", IsADirectoryError), (vfs.size, "", IsADirectoryError),
            (vfs.open, ".inrstore/job.json", FileNotFoundError), (vfs.open, "a/one.ozx", FileNotFoundError),
        ]:  # fmt: skip
            with pytest.raises(error):
                call(path)


def test_a_bids_dataset_has_its_own_description_again(tmp_path):
    source = bids_dataset(tmp_path / "in")
    make_archive(source, tmp_path / "archive")
    assert b"derivative" in (tmp_path / "archive/dataset_description.json").read_bytes()
    with Vfs(tmp_path / "archive", gz=True) as vfs:
        found = contents(vfs)
    assert found["dataset_description.json"] == (source / "dataset_description.json").read_bytes()
    assert sorted(found) == sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())


@pytest.mark.parametrize("many", [False, True], ids=["one zip", "a folder of zips"])
def test_a_zip_is_a_folder_of_what_was_in_it(tmp_path, many):
    path = bulk_zip(tmp_path / "in/1000001_20250_2_0.zip", tmp_path / "scratch")
    with zipfile.ZipFile(path, "a") as packed:
        packed.write(tmp_path / "scratch/mask.nii.gz", "top.nii.gz")
    with zipfile.ZipFile(path) as packed:
        members = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    make_archive(path.parent if many else path, tmp_path / "archive")
    before = "1000001_20250_2_0/" if many else ""
    with Vfs(tmp_path / "archive") as vfs:
        assert contents(vfs) == {before + plain_name(name): unpacked(name, data) for name, data in members.items()}


def test_where_a_name_is_taken_an_image_keeps_its_own(tmp_path):
    source = tmp_path / "in"
    write_tree(source, {"a/x.mgz": b""})
    write_mgh(source / "a/x.mgz", random_image((5, 4, 3)))
    write_mgh(source / "a/y.mgh", random_image((5, 4, 3)))
    (source / "a/x.mgh").write_bytes((source / "a/y.mgh").read_bytes())
    make_archive(source, tmp_path / "archive")
    with Vfs(tmp_path / "archive") as vfs:
        found = contents(vfs)
    assert sorted(found) == ["a/x.mgh", "a/x.mgz", "a/y.mgh"]
    assert found["a/x.mgh"] == (source / "a/y.mgh").read_bytes()
    assert gzip.decompress(found["a/x.mgz"]) == gzip.decompress((source / "a/x.mgz").read_bytes())


def test_a_single_store_is_its_file_with_the_sidecars_that_it_keeps(tmp_path):
    source = write_nifti(tmp_path / "dwi.nii.gz", random_image((5, 4, 3, 2)))
    (tmp_path / "dwi.bval").write_text("0 1000\n")
    (tmp_path / "dwi.bvec").write_text("0 1\n0 0\n0 0\n")
    inrstore.convert(source, tmp_path / "other.ozx", lossless=True)
    with Vfs(tmp_path / "other.ozx") as vfs:
        found = contents(vfs)
    assert found == {"dwi.nii": gzip.decompress(source.read_bytes()), "dwi.bval": b"0 1000\n",
                     "dwi.bvec": b"0 1\n0 0\n0 0\n"}  # fmt: skip
    with Vfs(tmp_path / "other.ozx", gz=True) as vfs:
        assert gzip.decompress(contents(vfs)["dwi.nii.gz"]) == found["dwi.nii"]


def test_an_image_whose_name_says_nothing_has_one_that_does(tmp_path):
    source = write_nifti(tmp_path / "x.nii", random_image((5, 4, 3))).rename(tmp_path / "brain")
    inrstore.convert(source, tmp_path / "s.ozx", lossless=True)
    with Vfs(tmp_path / "s.ozx") as vfs:
        assert contents(vfs) == {"brain.nii": source.read_bytes()}


@needs_moto
def test_archives_and_stores_in_a_bucket_are_files_too(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = server.bucket()
        make_archive(source, f"{bucket}/archive")
        monkeypatch.setattr(module, "_MOST_WHOLE", 5)  # the rest is read where it lies
        with Vfs(f"{bucket}/archive") as vfs:
            server.requests()
            assert len(list(vfs.walk())) == 9
            assert server.requests() == []
            found = contents(vfs)
        for name, data in found.items():
            there = source / name
            assert data == (
                there.read_bytes() if there.exists() else gzip.decompress((source / f"{name}.gz").read_bytes())
            )
        with Vfs(f"{bucket}/archive/b/dwi.ozx") as vfs:
            assert contents(vfs)["dwi.nii"] == (source / "b/dwi.nii").read_bytes()


# Bytes at an offset


@given(shape=st.lists(st.integers(1, 5), min_size=0, max_size=4), data=st.data())
def test_a_run_of_values_is_cut_into_boxes_that_cover_it_once(shape, data):
    count = math.prod(shape)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    values, out = np.arange(count).reshape(shape), np.full(stop - start, -1)
    for at, box in boxes(shape, start, stop):
        part = values[box]
        assert (out[at : at + part.size] == -1).all()
        out[at : at + part.size] = part.ravel()
    assert out.tolist() == list(range(start, stop))


@pytest.mark.parametrize(
    "name", ["a/one.nii", "b/dwi.nii", "m.dtseries.nii", "first.nrrd", "packed.nrrd", "c/pair.img"]
)
def test_any_part_of_a_file_is_that_part_of_the_whole(formats, name):
    rng = np.random.default_rng(3)
    with Vfs(formats[1]) as vfs, vfs.open(name) as file:
        whole = file.read()
        for _ in range(150):
            start = int(rng.integers(0, len(whole) + 5))
            size = int(rng.integers(0, rng.choice([4, 40, len(whole) + 5])))
            assert file.read_at(start, size) == whole[start : start + size]
        file.seek(-7, io.SEEK_END)
        assert file.read(100) == whole[-7:] and file.read(1) == b"" and file.tell() == len(whole)


def test_threads_read_the_same(formats):
    with Vfs(formats[1], gz=True) as vfs, vfs.open("a/one.nii.gz") as file, ThreadPoolExecutor(8) as pool:
        whole = gzip.decompress((formats[0] / "a/one.nii.gz").read_bytes())
        everything = list(pool.map(lambda _: file.read_at(0, file.size), range(16)))
        assert len(set(everything)) == 1 and gzip.decompress(everything[0]) == whole
        names = [entry.path for entry in vfs.walk()] * 4
        assert list(pool.map(vfs.size, names)) == [vfs.size(name) for name in names]


def test_only_the_chunks_that_are_touched_are_decoded(tmp_path, small, monkeypatch):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    monkeypatch.setattr(Voxels, "_decode_ahead", lambda self, place: None)
    asked = []
    original = Store.frame
    monkeypatch.setattr(Store, "frame", lambda self, index: asked.append(index) or original(self, index))
    with Vfs(tmp_path / "s.zarr") as vfs, vfs.open("a.nii") as file:
        whole, start = source.read_bytes(), 352
        assert file.read_at(0, start) == whole[:start] and asked == []
        volume = 5 * 4 * 8 * 2
        assert file.read_at(start, 40) == whole[start : start + 40]
        assert len(set(asked)) == 1
        # The same place in every volume: chunks hold all measurements, so that it is there.
        for t in range(3):
            assert file.read_at(start + t * volume, 40) == whole[start + t * volume : start + t * volume + 40]
        assert len(asked) == 1
        file.read_at(start, volume)
        assert len(asked) == len(set(asked)) == math.prod(Store(tmp_path / "s.zarr").grid.counts) > 2


def test_decoded_chunks_are_kept_with_those_of_all_readers(tmp_path, monkeypatch):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(1 << 20))
    made = []
    original = decoded.decode_chunk
    monkeypatch.setattr(decoded, "decode_chunk", lambda *args: made.append(1) or original(*args))
    with Vfs(tmp_path / "s.zarr") as vfs, vfs.open("a.nii") as file:
        whole = file.read()
        assert inrstore.open(tmp_path / "s.zarr").image.values.tobytes() == whole[352:]
        assert len(made) == 1
        inrstore.cache(0)
        file.read_at(400, 10)
        file.read_at(800, 10)  # of one that is too large to be kept the last one is
        assert len(made) == 2


def test_a_gzip_of_stored_blocks_is_whole_and_its_checksum_is_made_once(monkeypatch):
    class Counted(Bytes):
        passed = 0

        def read_into(self, offset, view):
            self.passed += len(view)
            super().read_into(offset, view)

    for size in (0, 1, 65534, 65535, 65536, 200_000):
        data = np.random.default_rng(size).bytes(size)
        inner = Counted(data)
        packed = Gzipped(inner)
        tail = bytearray(8)
        packed.read_into(packed.size - 8, memoryview(tail))
        assert inner.passed == size
        whole = bytearray(packed.size)
        packed.read_into(0, memoryview(whole))
        assert inner.passed == 2 * size  # not once more for the checksum
        assert whole[-8:] == tail and gzip.decompress(whole) == data
        inner = Counted(data)
        packed = Gzipped(inner)
        packed.read_into(0, memoryview(whole))
        assert inner.passed == size and gzip.decompress(whole) == data


def test_pieces_that_are_empty_do_not_count():
    joined = Joined([Bytes(b""), Bytes(b"ab"), Bytes(b""), Bytes(b"c")])
    out = bytearray(3)
    joined.read_into(0, memoryview(out))
    assert joined.size == 3 and out == b"abc"


def test_a_file_that_is_sent_to_another_process_is_opened_there(formats):
    with Vfs(formats[1]) as vfs:
        file = vfs.open("a/one.nii")
    file.seek(100)
    sent = pickle.dumps(file)
    assert len(sent) < 1000
    assert pickle.loads(sent).read() == file.read()


# Damage


def test_damage_is_an_error_and_never_zeros(tmp_path, small):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 8, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    chunks = sorted(path for path in (tmp_path / "s.zarr/image/c").rglob("*") if path.is_file())
    chunks[0].unlink()
    chunks[1].write_bytes(chunks[1].read_bytes()[:-1])
    size, whole = 5 * 4 * 8 * 2 // len(chunks), source.read_bytes()
    with Vfs(tmp_path / "s.zarr") as vfs, vfs.open("a.nii") as file:
        for number, word in [(0, "missing"), (1, "changed")]:
            with pytest.raises(OSError, match=word) as caught:
                file.read_at(352 + number * size + 4, 8)
            assert caught.value.errno == errno.EIO and caught.value.filename == "a.nii"
        assert file.read_at(352 + 2 * size, size) == whole[352 + 2 * size : 352 + 3 * size]
        with pytest.raises(OSError):
            file.read()


def test_a_store_or_file_that_the_archive_did_not_write_is_an_error(tmp_path):
    source = small_tree(tmp_path / "in")
    archive = make_archive(source, tmp_path / "archive")
    (archive / "a/one.ozx").write_bytes((archive / "b/dwi.ozx").read_bytes())
    (archive / "a/notes.txt").write_bytes(b"two lines\nof tExt\n")
    (archive / "b/dwi.bvec").unlink()
    (archive / "b/dwi.json").write_bytes(b"")
    with Vfs(archive) as vfs:
        assert len(list(vfs.walk())) == 9
        for name, word in [("a/one.nii", "seal"), ("a/notes.txt", "digest"), ("b/dwi.bvec", "missing"),
                           ("b/dwi.json", "changed")]:  # fmt: skip
            with pytest.raises(OSError, match=word) as caught:
                vfs.open(name)
            assert caught.value.errno == errno.EIO
        with pytest.raises(OSError, match="seal"):
            vfs.size("a/one.nii")
        assert vfs.open("b/dwi.nii").read() == (source / "b/dwi.nii").read_bytes()


def test_a_large_file_that_has_another_size_is_an_error(tmp_path, monkeypatch):
    archive = make_archive(write_tree(tmp_path / "in", {"big.dat": bytes(range(200))}), tmp_path / "archive")
    monkeypatch.setattr(module, "_MOST_WHOLE", 100)
    with Vfs(archive) as vfs:
        assert vfs.open("big.dat").read_at(150, 10) == bytes(range(150, 160))
        (archive / "big.dat").write_bytes(bytes(199))
        with pytest.raises(OSError, match="the manifest says 200"):
            vfs.open("big.dat")


@pytest.mark.parametrize("out, key, words", [
    ("a/con.txt", "a/con.txt", "device name"), ("a//b.txt", "a//b.txt", "empty part"),
    (".INRSTORE/x", "x", "own record"), ("e" * 300, "e", "longer"), ("a/one.ozx/b.txt", "b.txt", ""),
    ("a/notes.txt/b.txt", "b.txt", "another file or folder"), ("a/notes.txt", "a/notes.txt", "another file or folder"),
])  # fmt: skip
def test_names_of_a_forged_record_are_refused(tmp_path, out, key, words):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    place = archive_place(archive)
    entries = [*read_manifest(place), ManifestEntry(out=out, kind="file", bytes=1, digest="x" * 22, key=key)]
    write_manifest(place, entries)
    if not words:
        with Vfs(archive) as vfs:
            assert "a/one.ozx/b.txt" in [entry.path for entry in vfs.walk()]
        return
    with pytest.raises(StoreError, match=words):
        Vfs(archive)


def test_a_store_whose_name_leads_elsewhere_is_refused(tmp_path):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 3)))
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    for name in ("../a.nii", "/etc/a.nii", "b/a.nii"):
        reseal(
            tmp_path / "s.zarr",
            lambda document, name=name: document["attributes"]["inrstore"]["source"].update(name=name),
        )
        with pytest.raises(StoreError, match="name"):
            Vfs(tmp_path / "s.zarr")


def test_what_is_no_archive_or_not_complete_is_said(tmp_path):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    (archive / ".inrstore/manifest.jsonl").unlink()
    with pytest.raises(StoreError, match="incomplete"):
        Vfs(archive)
    with pytest.raises(StoreError, match="no such store"):
        Vfs(tmp_path / "nothing")


# Many


def test_ten_thousand_images_are_listed_at_once_and_no_store_is_opened(tmp_path, monkeypatch):
    archive = make_archive(write_tree(tmp_path / "in", {"x.txt": b"x"}), tmp_path / "archive")
    place = Folder(archive)
    entries = list(read_manifest(place))
    for number in range(10_000):
        name = f"sub-{number:05}/anat/sub-{number:05}_T1w"
        entries.append(ManifestEntry(out=f"{name}.ozx", kind="store", bytes=9, digest="s" * 22, key=f"{name}.nii.gz"))
    write_manifest(place, entries)
    monkeypatch.setattr(module, "Store", None)
    start = time.process_time()
    with Vfs(archive) as vfs:
        assert sum(1 for _ in vfs.walk()) == 10_001
        assert vfs.entries("sub-00007/anat")[0].name == "sub-00007_T1w.nii"
    assert time.process_time() - start < 5


def test_stores_that_were_read_stay_open_up_to_a_number(tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        write_nifti(source / f"{number}.nii", random_image((3, 3, 3), seed=number))
    archive = make_archive(source, tmp_path / "archive")
    monkeypatch.setattr(module, "_MOST_STORES", 2)
    with Vfs(archive) as vfs:
        files = [vfs.open(f"{number}.nii") for number in range(4)]
        assert len(vfs._stores) == 2
        assert [file.read() for file in files] == [(source / f"{number}.nii").read_bytes() for number in range(4)]


def test_a_copied_file_is_read_and_compared_once(tmp_path, monkeypatch):
    archive = make_archive(write_tree(tmp_path / "in", {"a.txt": b"text", "b.txt": b"other"}), tmp_path / "archive")
    monkeypatch.setattr(module, "_MOST_KEPT", 6)
    with Vfs(archive) as vfs:
        assert vfs.open("a.txt").read() == b"text"
        (archive / "a.txt").unlink()
        assert vfs.open("a.txt").read() == b"text"
        assert vfs.open("b.txt").read() == b"other"
        with pytest.raises(OSError, match="missing"):
            vfs.open("a.txt")


# Large images, and those who read on and on


@pytest.fixture
def slabs(tmp_path, monkeypatch):
    """A store of four volumes and six chunks; how often each was decoded."""
    from inrstore.store import layout

    for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
        monkeypatch.setattr(layout, name, 20)
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 6, 4)), order=">")
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    assert len(Store(tmp_path / "s.zarr").grid) == 6
    asked: list[tuple[int, ...]] = []
    original = Store.frame
    monkeypatch.setattr(Store, "frame", lambda self, index: asked.append(index) or original(self, index))
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(400))  # two chunks
    return tmp_path / "s.zarr", source.read_bytes(), asked


def volumes(file: io.RawIOBase) -> bytes:
    return file.read(352) + b"".join(file.read(5 * 4 * 6 * 2) for _ in range(4))


def test_an_image_that_is_too_large_to_be_kept_is_decoded_once_if_there_is_a_folder_for_it(slabs, tmp_path):
    store, whole, asked = slabs
    (tmp_path / "aside").mkdir()
    with Vfs(store, scratch=str(tmp_path / "aside")) as vfs, vfs.open("a.nii") as file:
        assert volumes(file) == whole
        assert len(asked) == 6
        rng = np.random.default_rng(0)
        for start in rng.integers(0, len(whole), 50).tolist():
            assert file.read_at(start, 77) == whole[start : start + 77]
        assert len(asked) == 6
        assert list((tmp_path / "aside").iterdir()) == []
    asked.clear()
    with Vfs(store) as vfs, vfs.open("a.nii") as file:
        assert volumes(file) == whole
    assert len(asked) == 24


@pytest.mark.parametrize("full", ["no room", "at once", "later"])
def test_where_the_disk_has_no_room_for_it_it_is_decoded_again(slabs, tmp_path, monkeypatch, full):
    from inrstore.views import content

    store, whole, _ = slabs
    if full == "no room":
        monkeypatch.setattr(content.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    else:
        left = [0 if full == "at once" else 7]

        def write(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "no room")
            original(*arguments)

        original = content.write_all
        monkeypatch.setattr(content, "write_all", write)
    with Vfs(store, scratch=str(tmp_path)) as vfs, vfs.open("a.nii") as file:
        assert volumes(file) == whole and file.read_at(400, 300) == whole[400:700]


def test_damage_of_a_large_image_is_an_error_of_the_disk(slabs, tmp_path):
    store, whole, _ = slabs
    chunks = sorted(path for path in (store / "image/c").rglob("*") if path.is_file())
    chunks[-1].unlink()
    with Vfs(store, scratch=str(tmp_path)) as vfs, vfs.open("a.nii") as file:
        assert file.read_at(352, 40 * 5) == whole[352 : 352 + 40 * 5]
        for _ in range(2):
            with pytest.raises(OSError, match="missing") as caught:
                file.read_at(352, 40 * 6)
            assert caught.value.errno == errno.EIO


def test_the_next_chunk_is_decoded_beside_the_one_that_is_needed(slabs, monkeypatch):
    store, whole, asked = slabs
    made = []
    original = decoded.decode_chunk
    monkeypatch.setattr(decoded, "decode_chunk", lambda *args: made.append(1) or original(*args))
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(1 << 20))
    with Vfs(store) as vfs, vfs.open("a.nii") as file:
        file.read(352 + 10)
        wait_until(lambda: len(made) == 2)
        assert set(asked) == {(0, 0, 0, 0), (0, 1, 0, 0)}
        assert file.read() == whole[362:]
        assert set(asked) == set(Store(store).grid)
        wait_until(lambda: all(thread.name != "inrstore ahead" for thread in threading.enumerate()))
        assert len(made) == 6  # by whichever thread came first
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(1 << 20))
    with Vfs(store) as vfs, vfs.open("a.nii") as file:
        monkeypatch.setattr("inrstore.views.content._STREAM", 10)
        assert file.read_at(352 + 200, 4) == whole[552:556]
        time.sleep(0.1)
        assert len(made) == 7  # nobody reads on


def wait_until(done) -> None:
    for _ in range(200):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")
