"""Verify finds every kind of damage; info and the reader refuse hostile stores."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import zarr
from common import check_refused, needs_torch, patch_header, random_image, real_scan, reseal, tree, write_nifti

import inrstore
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError, QualityError, StoreError
from inrstore.store import layout, manifest, reader
from inrstore.store.reader import Store

FORMATS = pytest.mark.parametrize("zarr_format", [3, 2])


@pytest.fixture
def source(tmp_path):
    """A small 4-D image."""
    return write_nifti(tmp_path / "a.nii", random_image((5, 4, 6, 3)), extension=b"longer than most" * 100)


@pytest.fixture
def make(tmp_path, source, monkeypatch):
    """A function that makes a store of several chunks."""
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 40)

    def run(**options):
        inrstore.convert(source, tmp_path / "s.zarr", **({"max_error": 2} | options))
        return tmp_path / "s.zarr"

    return run


def chunks_of(store):
    opened = Store(store)
    return [store / opened.key(index) for index in opened.grid]


# ---- good stores -------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    "options",
    [
        {"max_error": 2},
        pytest.param({"psnr": 25, "max_error": None}, marks=needs_torch),
        {"lossless": True, "max_error": None},
    ],
)
def test_a_good_store_is_found_good(make, source, options, zarr_format):
    store = make(zarr_format=zarr_format, **options)
    alone, against = inrstore.verify(store), inrstore.verify(store, source)
    assert alone.against is None
    assert alone.same_file is None
    assert against.same_file is True
    assert against.extra_files == ()
    for name in ("psnr", "psnr_range", "rmse", "max_error"):
        assert getattr(against, name) == pytest.approx(getattr(alone, name))
    assert json.loads(json.dumps(against.to_dict(), allow_nan=False))["chunks"] > 1


def test_a_source_compressed_anew_is_the_same_image(make, source, tmp_path):
    store = make()
    packed = tmp_path / "again.nii.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    report = inrstore.verify(store, packed)
    assert report.same_file is False
    assert report.psnr == pytest.approx(inrstore.verify(store, source).psnr)


def test_verify_changes_nothing(make, source, tmp_path):
    store = make()
    before = tree(tmp_path)
    inrstore.verify(store, source)
    assert tree(tmp_path) == before


def test_info_tells_sizes_and_modes_and_decodes_nothing(make, monkeypatch):
    store = make()

    def never(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(reader, "decode_chunk", never)
    info = inrstore.info(store)
    assert info.shape == (3, 6, 4, 5)
    assert info.dims == ("t", "z", "y", "x")
    assert info.zarr_format == 3
    assert sum(info.modes.values()) == info.chunks == len(info.chunk_list) > 1
    assert info.image_bytes == sum(path.stat().st_size for path in chunks_of(store))
    assert info.image_bytes < info.stored_bytes
    assert json.loads(json.dumps(info.to_dict(), allow_nan=False))["promised"] == {"max_error": 2.0}


# ---- damage ------------------------------------------------------------------------------------------------


@FORMATS
def test_a_missing_chunk_is_named(make, tmp_path, zarr_format):
    store = make(zarr_format=zarr_format)
    lost = chunks_of(store)[1]
    lost.unlink()
    key = lost.relative_to(store).as_posix()
    check_refused(lambda: inrstore.verify(store), StoreError, key, "missing", folder=tmp_path)
    check_refused(lambda: inrstore.verify(store, fast=True), StoreError, key, "missing", folder=tmp_path)
    check_refused(lambda: inrstore.info(store), StoreError, key, "missing", folder=tmp_path)
    check_refused(lambda: inrstore.open(store), StoreError, key, "missing", folder=tmp_path)
    check_refused(lambda: inrstore.export(store, tmp_path / "o.nii"), StoreError, key, folder=tmp_path)


@FORMATS
@pytest.mark.parametrize("name", ["x", "t", "nifti"])
def test_a_missing_small_array_is_named(make, tmp_path, zarr_format, name):
    store = make(zarr_format=zarr_format)
    (store / layout.chunk_key(zarr_format, name, (0,))).unlink()
    check_refused(lambda: inrstore.verify(store), StoreError, name, "missing", folder=tmp_path)


@FORMATS
def test_a_missing_array_is_named(make, tmp_path, zarr_format):
    store = make(zarr_format=zarr_format)
    shutil.rmtree(store / "nifti")
    check_refused(lambda: inrstore.verify(store), StoreError, "nifti/", "missing", folder=tmp_path)
    shutil.rmtree(store / "image")
    check_refused(lambda: inrstore.verify(store), StoreError, "image", folder=tmp_path)


@pytest.mark.parametrize("fast", [False, True])
def test_every_bad_file_is_named(make, tmp_path, fast):
    store = make()
    chunks = chunks_of(store)
    data = bytearray(chunks[0].read_bytes())
    data[-6] ^= 4
    chunks[0].write_bytes(data)
    chunks[1].write_bytes(chunks[1].read_bytes()[:-3])
    chunks[-1].unlink()
    text = str(check_refused(lambda: inrstore.verify(store, fast=fast), StoreError, "3 of", folder=tmp_path))
    for path in (chunks[0], chunks[1], chunks[-1]):
        assert path.relative_to(store).as_posix() in text
    assert "changed" in text
    assert "missing" in text


def test_every_flipped_bit_of_a_chunk_is_found(make, tmp_path):
    store = make()
    path = chunks_of(store)[0]
    good = path.read_bytes()
    for position in range(0, len(good) * 8, 11):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(StoreError, match="changed"):
            inrstore.verify(store, fast=True)
        with pytest.raises(StoreError, match="changed"):  # also for those who do not verify
            inrstore.export(store, tmp_path / "o.nii")
    path.write_bytes(good)
    inrstore.verify(store)


def test_a_forged_chunk_is_found_by_decoding_it(make, tmp_path):
    """Whoever changes a chunk and the manifest still has to get past the digest of the decoded image."""
    store = make(lossless=True, max_error=None)
    path = chunks_of(store)[0]
    opened = Store(store)
    voxels = opened.chunk(next(iter(opened.grid))) + 1
    (forged,) = encode_chunks([np.ascontiguousarray(voxels)], Target(lossless=True))
    path.write_bytes(forged)
    old, new = opened.manifest[path.relative_to(store).as_posix()], manifest.digest(forged)

    def change(document):
        own = document["attributes"]["inrstore"]["manifest"]
        own["digests"] = own["digests"].replace(old, new)

    reseal(store, change)
    inrstore.verify(store, fast=True)
    check_refused(lambda: inrstore.verify(store), StoreError, "decoded image", folder=tmp_path)


@FORMATS
def test_a_changed_root_file_breaks_its_seal(make, tmp_path, zarr_format):
    store = make(zarr_format=zarr_format)
    path = store / layout.root_key(zarr_format)
    path.write_text(path.read_text().replace('"scl_slope":1.0', '"scl_slope":2.0'))
    for fast in (True, False):
        words = layout.root_key(zarr_format), "changed"
        check_refused(lambda fast=fast: inrstore.verify(store, fast=fast), StoreError, *words, folder=tmp_path)


@FORMATS
def test_a_store_without_its_manifest_is_incomplete_to_every_command(make, tmp_path, source, zarr_format):
    store = make(zarr_format=zarr_format)
    path = store / layout.root_key(zarr_format)
    whole = path.read_bytes()
    document = json.loads(whole)
    own = document["attributes"] if zarr_format == 3 else document
    del own["inrstore"]["manifest"]
    for write in (lambda: path.write_text(json.dumps(document)), path.unlink):
        write()
        for action in (inrstore.verify, inrstore.info, inrstore.open, lambda s: inrstore.export(s, tmp_path / "o.nii")):
            check_refused(lambda action=action: action(store), StoreError, "incomplete", folder=tmp_path)
    if zarr_format == 3:
        with pytest.raises(FileNotFoundError):
            zarr.open_group(str(store), mode="r")


def test_a_subset_decodes_its_part_of_the_chunks(make, tmp_path):
    store = make()
    count = len(Store(store).grid)
    decoded = [inrstore.verify(store, subset=f"{n}/3").chunks_decoded for n in (1, 2, 3)]
    assert sum(decoded) == count
    assert max(decoded) - min(decoded) <= 1
    assert inrstore.verify(store, fast=True).chunks_decoded == 0
    for bad in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "²/3"):
        check_refused(lambda bad=bad: inrstore.verify(store, subset=bad), ConfigurationError, bad, folder=tmp_path)


@pytest.mark.parametrize("name", ["x", "nifti"])
def test_damage_of_a_small_array_is_found(make, tmp_path, name):
    store = make()
    path = store / name / "c/0"
    good = path.read_bytes()
    for damaged in (good[:-1], good[: len(good) // 2], b"", good[:2] + bytes([good[2] ^ 1]) + good[3:]):
        path.write_bytes(damaged)
        check_refused(lambda: inrstore.verify(store), StoreError, f"{name}/c/0", folder=tmp_path)


def test_chunks_in_each_others_place_are_found(make, tmp_path):
    store = make()
    one, other = chunks_of(store)[:2]
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)
    for fast in (True, False):
        check_refused(lambda fast=fast: inrstore.verify(store, fast=fast), StoreError, "2 of", folder=tmp_path)


def test_extra_files_are_reported(make):
    store = make()
    (store / "image/c/9").mkdir()
    (store / "image/c/9/junk").write_text("x")
    (store / "notes.txt").write_text("x")
    assert inrstore.verify(store).extra_files == ("image/c/9/junk", "notes.txt")


def test_another_source_is_refused(make, source, tmp_path):
    store = make()
    other = write_nifti(tmp_path / "b.nii", random_image((5, 4, 6, 3), seed=1), extension=b"longer than most" * 100)
    check_refused(lambda: inrstore.verify(store, other), QualityError, "promised", folder=tmp_path)
    shape = write_nifti(tmp_path / "c.nii", random_image((5, 4, 3, 3)))
    check_refused(lambda: inrstore.verify(store, shape), StoreError, "(3, 3, 4, 5)", folder=tmp_path)
    kind = write_nifti(tmp_path / "d.nii", random_image((5, 4, 6, 3), "int32"))
    check_refused(lambda: inrstore.verify(store, kind), StoreError, "int32", folder=tmp_path)
    header = tmp_path / "e.nii"
    shutil.copy(source, header)
    patch_header(header, scl_slope=3.0)
    check_refused(lambda: inrstore.verify(store, header), StoreError, "header", folder=tmp_path)


def test_a_store_worse_than_it_says_is_found(make, source, tmp_path):
    store = make()

    def change(document):
        document["attributes"]["inrstore"]["quality"]["asked"] = {"max_error": 0.5}

    reseal(store, change)
    check_refused(lambda: inrstore.verify(store, source), QualityError, "0.5 promised", folder=tmp_path)


# ---- what is no store, and what is meant to harm -----------------------------------------------------------


def test_what_is_no_store_is_refused(tmp_path, source):
    check_refused(lambda: inrstore.verify(tmp_path / "none.zarr"), StoreError, "no such store", folder=tmp_path)
    check_refused(lambda: inrstore.verify(source), StoreError, "no such store", folder=tmp_path)
    (tmp_path / "empty.zarr").mkdir()
    check_refused(lambda: inrstore.verify(tmp_path / "empty.zarr"), StoreError, "no such store", folder=tmp_path)
    other = tmp_path / "other.zarr"
    other.mkdir()
    (other / "zarr.json").write_text('{"zarr_format":3,"node_type":"group","attributes":{}}')
    check_refused(lambda: inrstore.info(other), StoreError, "not an inrstore store", folder=tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"zarr_format":9}', "[" * 100_000])
def test_damaged_metadata_is_refused(make, tmp_path, text):
    store = make()
    for name in ("zarr.json", "image/zarr.json"):
        good = (store / name).read_text()
        (store / name).write_text(text)
        check_refused(lambda: Store(store), StoreError, str(store), folder=tmp_path)
        (store / name).write_text(good)


@pytest.mark.parametrize(
    "old, new, word",
    [
        ('"version":1', '"version":2', "layout version"), ('"dtype":"<i2"', '"dtype":"O"', "voxels"),
        ('"dtype":"<i2"', '"dtype":"<f8"', "voxels"), ('"dtype":"<i2"', '"dtype":"<i2,<i2"', "voxels"),
    ],
)  # fmt: skip
def test_forged_attributes_are_refused(make, tmp_path, old, new, word):
    store = make()

    def change(document):
        text = json.dumps(document["attributes"]["inrstore"], separators=(",", ":"))
        assert old in text
        document["attributes"]["inrstore"] = json.loads(text.replace(old, new))

    reseal(store, change)
    check_refused(lambda: Store(store), StoreError, word, folder=tmp_path)


def test_a_forged_chunk_shape_is_refused_before_anything_is_allocated(make, tmp_path):
    store = make()

    def change(document):
        image = document["consolidated_metadata"]["metadata"]["image"]
        image["shape"] = image["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 20] * 4
        own = document["attributes"]["inrstore"]["manifest"]
        own["digests"] = own["digests"][: manifest.DIGEST_CHARACTERS * 6]

    reseal(store, change)
    check_refused(lambda: Store(store), StoreError, "larger than allowed", folder=tmp_path)


def test_more_chunks_than_digests_are_refused_before_they_are_counted_through(make, tmp_path):
    store = make()

    def change(document):
        document["consolidated_metadata"]["metadata"]["image"]["shape"] = [1 << 40] * 4

    reseal(store, change)
    check_refused(lambda: Store(store), StoreError, "manifest", folder=tmp_path)


HOSTILE = ["pickle", "msgpack2", "json2", "numcodecs.pickle", "sharding_indexed", "vlen-utf8"]


@pytest.mark.parametrize("codec", HOSTILE)
@pytest.mark.parametrize("place", ["image", "x", "deep"])
def test_codecs_that_are_not_allowed_are_refused_v3(make, tmp_path, codec, place):
    store = make()

    def change(document):
        array = document["consolidated_metadata"]["metadata"]["x" if place == "deep" else place]
        bad = {"name": codec, "configuration": {}}
        array["codecs"].append({"name": "bytes", "configuration": {"codecs": [bad]}} if place == "deep" else bad)

    reseal(store, change)
    for action in (inrstore.open, inrstore.info, inrstore.verify):
        check_refused(lambda action=action: action(store), StoreError, codec, "not allowed", folder=tmp_path)


@pytest.mark.parametrize("codec", HOSTILE)
@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_codecs_that_are_not_allowed_are_refused_v2(make, tmp_path, codec, place):
    store = make(zarr_format=2)
    documents = json.loads((store / ".zmetadata").read_bytes())
    array = documents["metadata"]["image/.zarray"]
    array[place] = {"id": codec} if place == "compressor" else [{"id": codec}]
    data = layout.encode_json(documents)
    (store / ".zmetadata").write_bytes(data)
    (store / "image/.zarray").write_bytes(layout.encode_json(array))
    root = json.loads((store / ".zattrs").read_bytes())
    root["inrstore"]["manifest"] |= {"documents": manifest.digest(data), "seal": manifest.NO_SEAL}
    (store / ".zattrs").write_bytes(manifest.seal(layout.encode_json(root)))
    for action in (inrstore.open, inrstore.info, inrstore.verify):
        check_refused(lambda action=action: action(store), StoreError, codec, "not allowed", folder=tmp_path)


def test_a_gzip_bomb_in_a_small_array_allocates_little(make, tmp_path):
    store = make()
    (store / "nifti/c/0").write_bytes(gzip.compress(bytes(64 << 20)))
    for action in (inrstore.verify, lambda where: inrstore.export(where, tmp_path / "o.nii")):
        with pytest.raises(StoreError, match="nifti/c/0"):
            action(store)  # imports what it needs
        tracemalloc.start()
        try:
            check_refused(lambda action=action: action(store), StoreError, "nifti/c/0", folder=tmp_path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.real
def test_a_real_scan_verifies(tmp_path):
    source = real_scan("sub-s03")
    inrstore.convert(source, tmp_path / "s.zarr", max_error=20)
    report = inrstore.verify(tmp_path / "s.zarr", source)
    assert report.same_file
    assert 0 < report.max_error <= 20
    assert np.isfinite(report.psnr)


# ---- every file that a command uses, changed -----------------------------------------------------------------


def uses(store, folder):
    """Every command that reads a store, each with what it makes of it."""
    return {
        "open": lambda: inrstore.open(store).image.values,
        "info": lambda: inrstore.info(store),
        "export": lambda: inrstore.export(store, folder / "o.nii"),
        "verify": lambda: inrstore.verify(store),
    }


@FORMATS
def test_no_command_uses_metadata_that_were_changed(make, tmp_path, zarr_format):
    store = make(zarr_format=zarr_format)
    if zarr_format == 3:
        edits = [("image/zarr.json", '"shape":[3,', '"shape":[2,'), ("image/zarr.json", '"default"', '"v2"'),
                 ("x/zarr.json", '"scale_factor":2', '"scale_factor":3')]  # fmt: skip
    else:
        edits = [("image/.zarray", '"shape":[3,', '"shape":[2,'), (".zmetadata", '"shape":[3,', '"shape":[2,'),
                 ("x/.zattrs", '"scale_factor":2', '"scale_factor":3')]  # fmt: skip
    root = layout.root_key(zarr_format)
    edits += [(root, '"scl_slope":1.0', '"scl_slope":2.0'), (root, '"space":"mm"', '"space":"um"'),
              (root, '"affine":[[-2', '"affine":[[-3')]  # fmt: skip
    for name, old, new in edits:
        path = store / name
        good = path.read_text()
        assert old in good, (name, old)
        path.write_text(good.replace(old, new))
        for action in uses(store, tmp_path).values():
            check_refused(action, StoreError, name, "changed", folder=tmp_path)
        path.write_text(good)
    inrstore.verify(store)


@FORMATS
def test_no_command_uses_chunks_that_were_swapped(make, tmp_path, zarr_format):
    store = make(zarr_format=zarr_format)
    one, other = chunks_of(store)[:2]
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)
    for action in uses(store, tmp_path).values():
        check_refused(action, StoreError, "image/", "changed", folder=tmp_path)


def test_no_command_uses_a_chunk_of_another_store(make, tmp_path):
    store = make()
    other = write_nifti(tmp_path / "b.nii", random_image((5, 4, 6, 3), seed=1))
    inrstore.convert(other, tmp_path / "other.zarr", max_error=2)
    shutil.copy(chunks_of(tmp_path / "other.zarr")[0], chunks_of(store)[0])
    for action in uses(store, tmp_path).values():
        check_refused(action, StoreError, "changed", folder=tmp_path)
