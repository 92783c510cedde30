"""Stores in a bucket: written chunk by chunk, resumed after any death, read lazily, against a server process."""

from __future__ import annotations

import os
import time
import zipfile
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import zarr
from common import files_of, random_image, write_nifti
from servers import fresh_processes, needs_moto, s3_server, web_server

import inrstore
from inrstore import files
from inrstore.errors import DestinationExistsError, DestinationHeldError, StoreError, WriteError
from inrstore.files.claim import Claim
from inrstore.files.remote import ObjectPlace
from inrstore.sources import read_source
from inrstore.store import layout
from inrstore.store.container import publish
from inrstore.store.convert import convert_image
from inrstore.store.options import Options
from inrstore.store.quality import Quality

pytestmark = needs_moto

CHUNKS = {f"image/c/{i}": bytes([i]) * (i + 1) for i in range(4)}
MEMBERS = [("zarr.json", b"the group"), ("image/zarr.json", b"the array"), *CHUNKS.items()]
WHOLE = {f"s.zarr/{key}": data for key, data in MEMBERS}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket; the environment says how to reach it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket()


def objects(url: str) -> dict[str, bytes]:
    """Return every object below a URL."""
    here = files.place(url)
    return {entry.key: files.read(here, entry.key, 1 << 26) for entry in here.walk()}


# What is written


def test_a_published_store_is_all_that_is_left(bucket):
    size = publish(f"{bucket}/s.zarr/", MEMBERS)
    assert size == sum(len(data) for _, data in MEMBERS)
    assert objects(bucket) == WHOLE
    with pytest.raises(DestinationExistsError, match=rf"{bucket}/s.zarr.?: exists already"):
        publish(f"{bucket}/s.zarr/", MEMBERS)
    assert objects(bucket) == WHOLE


def test_a_zip_is_one_object_by_one_conditional_put(server, bucket):
    server.requests()
    size = publish(f"{bucket}/s.ozx", MEMBERS)
    assert [method for method, _ in server.requests()].count("PUT") == 1
    ((key, data),) = objects(bucket).items()
    assert (key, len(data)) == ("s.ozx", size)
    with zipfile.ZipFile(BytesIO(data)) as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == dict(MEMBERS)
    with pytest.raises(DestinationExistsError, match=r"s\.ozx: exists already"):
        publish(f"{bucket}/s.ozx", [*MEMBERS, ("more", b"x")])
    assert objects(bucket) == {"s.ozx": data}


def test_objects_of_others_are_never_touched(bucket):
    here = files.place(bucket)
    mine = {"s.zarr/notes.txt": b"mine", "s.zarr.old/zarr.json": b"mine", "t.zarr/image/c/0": b"mine", "u.ozx": b"mine"}
    for key, data in mine.items():
        here.write(key, data)
    for name in ("s.zarr", "t.zarr", "u.ozx"):
        with pytest.raises(DestinationExistsError):
            publish(f"{bucket}/{name}", MEMBERS)
    assert objects(bucket) == mine


@pytest.mark.parametrize("url", ["s3://some-bucket", "s3://some-bucket/"])
def test_a_store_cannot_be_a_whole_bucket(bucket, url):
    with pytest.raises(ValueError, match="cannot be a whole bucket"):
        publish(url, MEMBERS)


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_a_failed_write_says_where_and_leaves_nothing(bucket, monkeypatch, name):
    put, left = ObjectPlace._put, [1]

    def refused(self, key, *rest):
        if key.startswith(name) and "claim" not in key:
            left[0] -= 1
            if left[0] < 0 or name.endswith("ozx"):
                raise PermissionError(13, "access denied", "x")
        return put(self, key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPlace, "_put", refused)
        with pytest.raises(WriteError, match=rf"{bucket}/{name}: cannot be written: access denied"):
            publish(f"{bucket}/{name}", MEMBERS)
    assert objects(bucket) == {}
    publish(f"{bucket}/{name}", MEMBERS)


# Who may write


def test_a_store_is_written_by_one_at_a_time(bucket):
    claim = Claim(ObjectPlace(bucket), "s.zarr.claim", f"{bucket}/s.zarr")
    with pytest.raises(DestinationHeldError, match=rf"s.zarr: being written by .* process {os.getpid()}"):
        publish(f"{bucket}/s.zarr", MEMBERS)
    claim.remove()
    publish(f"{bucket}/s.zarr", MEMBERS)
    assert objects(bucket) == WHOLE


def test_who_was_asleep_too_long_changes_nothing_any_more(bucket, monkeypatch):
    """It loses its claim in the middle; the other's store stays whole."""
    write, done = ObjectPlace.write, []

    def slow(self, key, data):
        write(self, key, data)
        if key == "s.zarr/image/c/1" and not done:
            done.append(key)
            claim = self.fetch("s.zarr.claim", 4096)
            write(self, "s.zarr.claim", claim.data.replace(b'"released": false', b'"released": true'))
            publish(f"{bucket}/s.zarr", MEMBERS)
            monkeypatch.setattr("inrstore.files.claim._clock", lambda: 1e9)

    monkeypatch.setattr(ObjectPlace, "write", slow)
    with pytest.raises(DestinationHeldError, match="taken over by"):
        publish(f"{bucket}/s.zarr", [*MEMBERS[:-1], ("image/c/3", b"of the one asleep")])
    assert done
    assert objects(f"{bucket}/s.zarr") == dict(MEMBERS)


def _race(url: str, start: float) -> str:
    time.sleep(max(0, start - time.time()))
    try:
        publish(url, [*MEMBERS, ("who", str(os.getpid()).encode())])
    except (DestinationHeldError, DestinationExistsError) as error:
        return type(error).__name__
    return "written"


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_of_processes_that_convert_to_one_place_one_wins(bucket, name):
    with fresh_processes(3) as pool:
        for number in range(5):
            url = f"{bucket}/{number}/{name}"
            start = time.time() + (1 if number == 0 else 0.1)
            found = [run.result() for run in [pool.submit(_race, url, start) for _ in range(3)]]
            assert found.count("written") == 1, found
            assert len(objects(f"{bucket}/{number}")) == (1 if name == "s.ozx" else len(MEMBERS) + 1)


# Deaths


def _die_at(count: int) -> None:
    """End this process, without any farewell, before the request with this number that changes something."""
    left = [count]

    def counted(name):
        inner = getattr(ObjectPlace, name)

        def method(self, *args, **named):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return inner(self, *args, **named)

        setattr(ObjectPlace, name, method)

    counted("_put")
    counted("remove_all")


def _publish_and_die(url: str, count: int) -> None:
    _die_at(count)
    publish(url, MEMBERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_a_death_before_any_request_is_made_good_by_the_same_command(bucket, name):
    deaths = 0
    for count in range(100):
        url = f"{bucket}/{count}/{name}"
        try:
            with fresh_processes(1) as pool:
                pool.submit(_publish_and_die, url, count).result()
            break
        except BrokenProcessPool:
            deaths += 1
        try:
            publish(url, MEMBERS)
        except DestinationExistsError:  # it died after publishing
            assert len(objects(url)) == len(MEMBERS)
        found = objects(f"{bucket}/{count}")
        if name == "s.zarr":
            assert {key: data for key, data in found.items() if key != "s.zarr.claim"} == WHOLE
        else:
            assert list(found) == ["s.ozx"]
    assert deaths > (9 if name == "s.zarr" else 0)


def _convert(source: str, url: str) -> None:
    convert_image(read_source(source), url, Options(quality=Quality.of(None, None, None, True)))


@pytest.fixture
def converted(bucket, tmp_path, small):
    """The URL of a store, and the voxels that it holds."""
    values = random_image((5, 4, 6, 3))
    write_nifti(tmp_path / "a.nii", values)
    _convert(str(tmp_path / "a.nii"), f"{bucket}/deep/a.zarr")
    return f"{bucket}/deep/a.zarr", values


def local(folder: Path) -> dict[str, bytes]:
    return {key: (folder / key).read_bytes() for key, _ in files_of(folder)}


# Archives


@pytest.fixture
def dataset(tmp_path):
    """A folder with two images and a text."""
    for number in range(2):
        (tmp_path / f"in/sub-{number}").mkdir(parents=True)
        write_nifti(tmp_path / f"in/sub-{number}/T1w.nii", random_image((5, 4, 6), seed=number))
    (tmp_path / "in/participants.tsv").write_text("participant_id\nsub-0\nsub-1\n")
    return tmp_path / "in"


def test_a_tree_goes_to_a_bucket_and_comes_back(bucket, dataset, tmp_path):
    report = inrstore.convert(dataset, f"{bucket}/study", lossless=True)
    assert (report.complete, report.converted, report.copied) == (True, 2, 1)
    written = objects(bucket)
    assert inrstore.convert(dataset, f"{bucket}/study", lossless=True).resumed == 3
    inrstore.verify(f"{bucket}/study", dataset)
    inrstore.export(f"{bucket}/study", tmp_path / "out")
    assert local(tmp_path / "out") == local(dataset)
    assert {key for key in objects(bucket) if "journal" not in key} == {key for key in written if "journal" not in key}
    files.place(f"{bucket}/study").remove("participants.tsv")
    with pytest.raises(StoreError, match=r"participants.tsv"):
        inrstore.verify(f"{bucket}/study")


def _convert_tree_and_die(source: str, url: str, count: int) -> None:
    _die_at(count)
    inrstore.convert(source, url, lossless=True)


@pytest.mark.slow
def test_an_archive_whose_writer_dies_is_finished_by_the_same_command(bucket, dataset):
    inrstore.convert(dataset, f"{bucket}/whole", lossless=True)
    wanted = {key: data for key, data in objects(f"{bucket}/whole").items() if not key.startswith(".inrstore/")}
    deaths = 0
    for count in range(1, 100, 3):
        url = f"{bucket}/{count}"
        try:
            with fresh_processes(1) as pool:
                pool.submit(_convert_tree_and_die, str(dataset), url, count).result()
            break
        except BrokenProcessPool:
            deaths += 1
        assert inrstore.convert(dataset, url, lossless=True).complete
        found = objects(url)
        assert {key: data for key, data in found.items() if not key.startswith(".inrstore/")} == wanted
        inrstore.verify(url)
    assert deaths > 3


# Reading


def test_a_store_in_a_bucket_opens_with_zarr_xarray_and_inrstore(converted):
    import xarray

    url, values = converted
    store = files.place(url).zarr_store()
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["image"][...], values.T)
    with inrstore.open(url) as dataset:
        np.testing.assert_array_equal(dataset.image.values, values.T)
    with xarray.open_zarr(store, consolidated=False) as dataset:
        np.testing.assert_array_equal(dataset.image.isel(t=1).values, values.T[1])
    below = files.place(url.removesuffix("/deep/a.zarr")).zarr_store("deep/a.zarr")
    assert zarr.open_group(below, mode="r")["image"].shape == values.T.shape


def test_one_voxel_is_one_chunk(server, converted):
    url, values = converted
    chunks = [key for key in objects(url) if key.startswith("image/c/")]
    assert len(chunks) > 2
    image = zarr.open_group(files.place(url).zarr_store(), mode="r")["image"]
    server.requests()
    assert image[2, 3, 1, 4] == values[4, 1, 3, 2]
    assert [path.count("/image/c/") for _, path in server.requests()] == [1]
    dataset = inrstore.open(url)
    assert not any("/image/c/" in path for _, path in server.requests()), "opening reads no chunk"
    np.testing.assert_array_equal(dataset.image[:, 3, 1, 4].values, values[4, 1, 3, :])
    assert [path.count("/image/c/") for _, path in server.requests()] == [1]


@pytest.mark.parametrize("size", [(5, 4, 6, 3), (60, 60, 40, 6)])
def test_one_voxel_of_a_zip_in_a_bucket_costs_four_requests_at_most(server, bucket, tmp_path, monkeypatch, size):
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40 if size[0] == 5 else 30_000)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40 if size[0] == 5 else 180_000)
    values = random_image(size)
    write_nifti(tmp_path / "a.nii", values)
    (tmp_path / "a.bval").write_text(" ".join("1000" for _ in range(size[3])))
    (tmp_path / "a.bvec").write_text("\n".join(" ".join("0.5" for _ in range(size[3])) for _ in range(3)))
    url = f"{bucket}/deep/a.ozx"
    _convert(str(tmp_path / "a.nii"), url)
    server.requests()
    dataset = inrstore.open(url)
    assert dataset.bval.values.tolist() == [1000] * size[3]
    assert dataset.image[2, 3, 1, 4].values == values[4, 1, 3, 2]
    asked = server.requests()
    assert {method for method, _ in asked} <= {"GET", "HEAD"}
    assert len(asked) <= 4, asked
    np.testing.assert_array_equal(dataset.image.values, values.T)


def test_a_zip_behind_a_web_server_opens(tmp_path):
    values = random_image((60, 60, 40, 2))
    write_nifti(tmp_path / "a.nii", values)
    _convert(str(tmp_path / "a.nii"), str(tmp_path / "served/a.ozx"))
    with web_server(tmp_path / "served") as address:
        np.testing.assert_array_equal(inrstore.open(f"{address}/a.ozx").image.values, values.T)
        assert inrstore.verify(f"{address}/a.ozx").lossless


def test_a_missing_chunk_in_a_bucket_is_an_error(converted):
    url, _ = converted
    chunk = next(key for key in objects(url) if key.startswith("image/c/"))
    files.place(url).remove(chunk)
    with pytest.raises(StoreError, match=f"{chunk} is missing"):
        inrstore.open(url)


def test_an_unfinished_store_in_a_bucket_is_none(bucket):
    for key, data in MEMBERS[1:]:
        files.place(f"{bucket}/s.zarr").write(key, data)
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.open(f"{bucket}/s.zarr")
    with pytest.raises(FileNotFoundError):
        zarr.open_group(files.place(f"{bucket}/s.zarr").zarr_store(), mode="r")


def test_an_image_in_a_bucket_is_read(bucket, tmp_path):
    values = random_image((5, 4, 6, 3))
    write_nifti(tmp_path / "a.nii.gz", values)
    files.place(f"{bucket}/in").write("a.nii.gz", (tmp_path / "a.nii.gz").read_bytes())
    np.testing.assert_array_equal(read_source(f"{bucket}/in/a.nii.gz").voxels, values.T)


@pytest.mark.parametrize("store", ["ozx", "zarr"])
def test_an_archive_in_a_bucket_is_updated_merged_and_pruned(bucket, dataset, tmp_path, store):
    where, source = f"{bucket}/archive", dataset
    inrstore.convert(source, where, lossless=True, store=store)
    (tmp_path / "other").mkdir()
    write_nifti(tmp_path / "other/x.nii", random_image((4, 3, 2)))
    inrstore.convert(tmp_path / "other", tmp_path / "theirs", lossless=True, store=store)
    write_nifti(source / "sub-2_T1w.nii", random_image((5, 4, 6), seed=5))
    write_nifti(source / "sub-0/T1w.nii", random_image((5, 4, 6), seed=9))
    report = inrstore.update(source, where)
    if store == "ozx":
        assert report.complete, report.failures
        inrstore.verify(where, source)
    else:  # a folder in a bucket cannot change in one step
        assert [failure["key"] for failure in report.failures] == ["sub-0/T1w.nii"]
        assert "remove it first" in report.failures[0]["reason"]
        inrstore.remove(where, ["sub-0/T1w*"])
        assert inrstore.update(source, where, restore=["sub-0/*"]).complete
    assert inrstore.merge(tmp_path / "theirs", where).stores == 1
    (source / "sub-1/T1w.nii").unlink()
    assert inrstore.update(source, where).gone == 1
    assert inrstore.prune(where).removed == (f"sub-1/T1w.{store}",)
    assert inrstore.verify(where).stores == 3
    assert not [key for key in objects(where) if "sub-1/T1w" in key]
    assert len(inrstore.open_archive(where)) == 3
