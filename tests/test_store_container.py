"""A store is one file that plain zarr, xarray and tools for zipped OME-Zarr read; what is forged in it is refused."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import zarr
from common import check_refused, needs_torch, random_image, real_scan, tree, write_nifti

import inrstore
from inrstore.errors import ConfigurationError, StoreError
from inrstore.store import layout
from inrstore.store.container import publish


def dwi(folder, shape=(9, 8, 7, 3)):
    path = write_nifti(folder / "dwi.nii.gz", random_image(shape))
    (folder / "dwi.bval").write_text(" ".join(str(1000 * (i > 0)) for i in range(shape[3])))
    directions = np.eye(3)[np.arange(shape[3]) % 3] * 0.707107
    (folder / "dwi.bvec").write_text("\n".join(" ".join(f"{v:g}" for v in row) for row in directions.T))
    return path


@pytest.fixture
def store(tmp_path, small):
    inrstore.convert(dwi(tmp_path), tmp_path / "dwi.ozx", max_error=2)
    return tmp_path / "dwi.ozx"


@pytest.fixture
def small(monkeypatch):
    """Chunks of about 40 voxels, so that small images have several."""
    for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
        monkeypatch.setattr(layout, name, 40)


# ---- RFC-9


def test_the_zip_is_as_rfc_9_wants_it(store):
    with zipfile.ZipFile(store) as zipped:
        infos = zipped.infolist()
        names = [info.filename for info in infos]
        assert zipped.testzip() is None
        comment = json.loads(zipped.comment)
        assert (
            comment["ome"]["version"] == json.loads(zipped.read("zarr.json"))["attributes"]["ome"]["version"] == "0.5"
        )
    assert comment["ome"]["zipFile"]["centralDirectory"]["jsonFirst"] is True
    documents = [name for name in names if name.endswith("zarr.json")]
    assert names[0] == "zarr.json"
    assert names[: len(documents)] == documents
    depths = [name.count("/") for name in documents]
    assert depths == sorted(depths), "breadth first"
    assert sorted(infos, key=lambda info: info.header_offset) == infos, "in the file as in the directory"
    for info in infos:
        assert (info.compress_type == zipfile.ZIP_STORED) == ("/c/" in info.filename)
        assert not info.extra and not info.flag_bits & 8


def test_an_image_that_is_no_ome_zarr_says_so(tmp_path, small):
    inrstore.convert(write_nifti(tmp_path / "a.nii", random_image((4, 3, 2, 2, 2))), tmp_path / "a.ozx", lossless=True)
    with zipfile.ZipFile(tmp_path / "a.ozx") as zipped:
        assert zipped.comment == b""
    assert inrstore.verify(tmp_path / "a.ozx", tmp_path / "a.nii").lossless


def test_rfc_9_readers_of_others_read_version_and_flag(store):
    rfc9 = pytest.importorskip("ngff_zarr.rfc9_zip", reason="ngff-zarr is not installed")
    assert rfc9.read_ozx_version(store) == "0.5"


def test_a_zip_and_a_folder_hold_the_same_files(tmp_path, store, small):
    inrstore.convert(tmp_path / "dwi.nii.gz", tmp_path / "dwi.zarr", max_error=2)
    with zipfile.ZipFile(store) as zipped:
        inside = {name: zipped.read(name) for name in zipped.namelist()}
    folder = tmp_path / "dwi.zarr"
    assert inside == {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_image_gives_the_same_file(tmp_path, store, small):
    inrstore.convert(tmp_path / "dwi.nii.gz", tmp_path / "again.ozx", max_error=2)
    assert (tmp_path / "again.ozx").read_bytes() == store.read_bytes()


def test_a_zip_is_of_zarr_format_3(tmp_path):
    source = dwi(tmp_path)
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "a.ozx", lossless=True, zarr_format=2),
        ConfigurationError, "format 3", folder=tmp_path,
    )  # fmt: skip


# ---- readers


def test_plain_zarr_reads_it(tmp_path, store):
    expected = zarr.open_group(zarr.storage.ZipStore(store, mode="r"), mode="r")
    found = inrstore.open(store).image.values
    np.testing.assert_array_equal(expected["image"][...], found)
    np.testing.assert_array_equal(expected["image"][1, 2:5, ::2, 3], found[1, 2:5, ::2, 3])
    chained = zarr.open(f"zip::{store}", mode="r")
    np.testing.assert_array_equal(chained["image"][...], found)


def test_xarray_reads_it_with_its_coordinates(store):
    xarray = pytest.importorskip("xarray")
    own = inrstore.open(store)
    for opened in (xarray.open_zarr(zarr.storage.ZipStore(store, mode="r")), xarray.open_zarr(f"zip::{store}")):
        np.testing.assert_array_equal(opened.image.values, own.image.values)
        for name in ("x", "y", "z", "t", "bval", "bvec"):
            np.testing.assert_allclose(opened[name].values, own[name].values, rtol=1e-6)
        assert opened.x.attrs["units"] == "mm"
        opened.close()


def test_a_new_process_reads_it_without_importing_this_package(store):
    code = (
        "import sys, zarr\n"
        "image = zarr.open_group(zarr.storage.ZipStore(sys.argv[1], mode='r'), mode='r')['image']\n"
        "assert 'torch' not in sys.modules\n"
        "print(int(image[...].astype('i8').sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(inrstore.open(store).image.values.astype("i8").sum())


def test_workers_of_dask_open_it_by_themselves(store):
    import pickle

    opened = pickle.loads(pickle.dumps(inrstore.open(store)))
    np.testing.assert_array_equal(opened.image.values, inrstore.open(store).image.values)


# ---- size


@pytest.mark.real
@needs_torch
def test_a_real_scan_is_one_inode_with_little_beside_its_frames(tmp_path):
    source = real_scan("sub-s01")
    store = tmp_path / "s01.ozx"
    report = inrstore.convert(source, store, psnr=36)
    info = inrstore.info(store)
    size = store.stat().st_size
    assert store.is_file() and report.stored_bytes == info.stored_bytes == size
    assert abs(store.stat().st_blocks * 512 - size) <= 8192
    with zipfile.ZipFile(store) as zipped:  # its JSON and gradients are kept as they are, and are no metadata of ours
        kept = sum(one.compress_size for one in zipped.infolist() if one.filename.startswith("sidecars/c/"))
    assert size - info.image_bytes - kept <= 5500
    assert report.psnr >= 36
    assert inrstore.verify(store, source).same_file


# ---- damage and forgery


def uses(store, folder):
    """Every command that reads a store, each with what it makes of it."""
    return (
        lambda: inrstore.open(store).image.values, lambda: inrstore.info(store),
        lambda: inrstore.export(store, folder / "o.nii"), lambda: inrstore.verify(store),
    )  # fmt: skip


def rewritten(store, change, comment=None):
    """Write the zip anew with other members, checksums and all."""
    with zipfile.ZipFile(store) as zipped:
        members = [(info, zipped.read(info)) for info in zipped.infolist()]
        comment = zipped.comment if comment is None else comment
    with zipfile.ZipFile(store, "w") as out:
        for info, data in change(members):
            out.writestr(info, data)
        out.comment = comment


def test_swapped_chunks_are_found_by_every_command(tmp_path, store):
    def swap(members):
        chunks = [i for i, (info, _) in enumerate(members) if info.filename.startswith("image/c/")]
        one, other = chunks[:2]
        members[one], members[other] = (members[one][0], members[other][1]), (members[other][0], members[one][1])
        return members

    rewritten(store, swap)
    for action in uses(store, tmp_path):
        check_refused(action, StoreError, "image/c/", "changed", folder=tmp_path)


@pytest.mark.parametrize(
    "name, old, new",
    [("image/zarr.json", b'"shape":[3,', b'"shape":[2,'), ("image/zarr.json", b'"default"', b'"v2"'),
     ("zarr.json", b'"scl_slope":1.0', b'"scl_slope":2.0'), ("zarr.json", b'"affine":[[-2', b'"affine":[[-3'),
     ("zarr.json", b'"space":"mm"', b'"space":"um"')],
)  # fmt: skip
def test_changed_metadata_are_found_by_every_command(tmp_path, store, name, old, new):
    def change(members):
        assert any(old in data for info, data in members if info.filename == name)
        return [(info, data.replace(old, new) if info.filename == name else data) for info, data in members]

    rewritten(store, change)
    for action in uses(store, tmp_path):
        check_refused(action, StoreError, name, "changed", folder=tmp_path)


def test_a_member_that_is_missing_is_named(tmp_path, store):
    rewritten(store, lambda members: [m for m in members if m[0].filename != "x/c/0"])
    for action in (lambda: inrstore.open(store), lambda: inrstore.verify(store)):
        check_refused(action, StoreError, "x/c/0", "missing", folder=tmp_path)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path, store):
    good, values = store.read_bytes(), inrstore.open(store).image.values
    header = inrstore.export(store, tmp_path / "good.nii") and (tmp_path / "good.nii").read_bytes()
    passed = 0
    for position in range(0, len(good), 3):
        store.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        try:
            inrstore.verify(store)
        except StoreError:
            continue
        passed += 1  # dates, permissions and versions in the headers of the zip
        np.testing.assert_array_equal(inrstore.open(store).image.values, values)
        for old in tmp_path.glob("o.*"):
            old.unlink()
        inrstore.export(store, tmp_path / "o.nii")
        assert (tmp_path / "o.nii").read_bytes() == header
    assert passed < len(good) / 30


@pytest.mark.parametrize("end", [0, 1, 22, 100, 1000, -1, -23, -200])
def test_a_zip_that_is_cut_is_refused(tmp_path, store, end):
    data = store.read_bytes()
    store.write_bytes(data[:end])
    for action in uses(store, tmp_path):
        check_refused(action, StoreError, "dwi.ozx", folder=tmp_path)


def test_bytes_behind_the_end_are_refused(tmp_path, store):
    store.write_bytes(store.read_bytes() + b"more")
    check_refused(lambda: inrstore.open(store), StoreError, "not a whole zip", folder=tmp_path)


def test_two_members_of_one_name_are_refused(tmp_path, store):
    with pytest.warns(UserWarning, match="Duplicate"):
        rewritten(store, lambda members: [*members, members[0]])
    check_refused(lambda: inrstore.open(store), StoreError, "zarr.json", "twice", folder=tmp_path)


def test_a_local_header_that_says_something_else_is_refused(tmp_path, store):
    data = bytearray(store.read_bytes())
    at = data.index(b"x/c/0")
    data[at : at + 5] = b"y/c/0"
    store.write_bytes(data)
    check_refused(lambda: inrstore.verify(store), StoreError, "x/c/0", folder=tmp_path)


def test_a_bomb_in_a_document_allocates_little(tmp_path, store):
    import tracemalloc

    def bomb(members):
        return [(info, bytes(1 << 28) if info.filename == "zarr.json" else data) for info, data in members]

    rewritten(store, bomb)
    for action in (lambda: inrstore.open(store), lambda: inrstore.verify(store)):
        with pytest.raises(StoreError):
            action()
        tracemalloc.start()
        try:
            check_refused(action, StoreError, "dwi.ozx", folder=tmp_path)
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()


def test_a_name_that_is_no_store_is_refused(tmp_path):
    for name, data in (("none.ozx", None), ("text.ozx", b"no zip"), ("empty.ozx", b"")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        check_refused(lambda name=name: inrstore.open(tmp_path / name), StoreError, name, folder=tmp_path)
    (tmp_path / "folder.ozx").mkdir()
    check_refused(lambda: inrstore.open(tmp_path / "folder.ozx"), StoreError, "folder.ozx", folder=tmp_path)
    with zipfile.ZipFile(tmp_path / "other.ozx", "w") as zipped:
        zipped.writestr("zarr.json", '{"zarr_format":3,"node_type":"group","attributes":{}}')
    check_refused(lambda: inrstore.open(tmp_path / "other.ozx"), StoreError, "not an inrstore store", folder=tmp_path)


def test_pipes_and_devices_are_no_stores(tmp_path):
    os.mkfifo(tmp_path / "pipe.ozx")
    check_refused(lambda: inrstore.open(tmp_path / "pipe.ozx"), StoreError, "pipe.ozx", folder=tmp_path)
    (tmp_path / "zero.ozx").symlink_to("/dev/zero")
    check_refused(lambda: inrstore.open(tmp_path / "zero.ozx"), StoreError, "zero.ozx", folder=tmp_path)


def test_large_zips_have_long_sizes(tmp_path):
    """More than 65,535 members need zip64, which readers of others know."""
    members = [("zarr.json", b"{}"), *((f"image/c/{n}", struct.pack("<I", n)) for n in range(66_000))]
    publish(str(tmp_path / "many.ozx"), members)
    with zipfile.ZipFile(tmp_path / "many.ozx") as zipped:
        assert len(zipped.namelist()) == 66_001
        assert zipped.read("image/c/65999") == struct.pack("<I", 65_999)
    assert list(tree(tmp_path)) == ["many.ozx"]


def test_a_chunk_may_have_one_place_at_the_corner_of_the_image(tmp_path):
    values = random_image((5, 7, 3, 4))
    inrstore.convert(write_nifti(tmp_path / "a.nii", values), tmp_path / "a.ozx", max_error=2, chunks=(2, 3, 4))
    assert inrstore.verify(tmp_path / "a.ozx").max_error <= 2
    assert np.abs(inrstore.open(tmp_path / "a.ozx").image.values.T.astype(int) - values).max() <= 2
