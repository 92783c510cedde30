"""Stores in a bucket: written chunk by chunk, resumed after any death, read lazily, against a server process."""

from __future__ import annotations

import os
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import zarr
from common import files_of, random_image, write_nifti
from servers import fresh_processes, needs_moto, s3_server

import inrstore
from inrstore import files
from inrstore.errors import DestinationExistsError, DestinationHeldError, StoreError, WriteError
from inrstore.sources import read_source
from inrstore.store import layout
from inrstore.store.conversion import Wish
from inrstore.store.convert import convert_image
from inrstore.store.quality import Promise
from inrstore.store.writer import open_partial, sweep_published

pytestmark = needs_moto

JOB = {"source": "a", "seed": 0}
CHUNKS = {f"image/c/{i}": bytes([i]) * (i + 1) for i in range(4)}


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


def write_all(url: str, chunks: dict[str, bytes] = CHUNKS) -> int:
    """Write a store; return how many chunks were there already."""
    partial = open_partial(url, JOB)
    try:
        done = partial.finished()
        for key, data in chunks.items():
            if key not in done:
                partial.write_chunk(key, data)
        partial.write("image/zarr.json", b"the array")
        partial.publish("zarr.json", b"the group")
    except BaseException:
        partial.close()
        raise
    return len(done)


WHOLE = {"s.zarr/zarr.json": b"the group", "s.zarr/image/zarr.json": b"the array"} | {
    f"s.zarr/{key}": data for key, data in CHUNKS.items()
}


# What is written


def test_a_published_store_is_all_that_is_left(bucket):
    assert write_all(f"{bucket}/s.zarr/") == 0
    assert objects(bucket) == WHOLE
    with pytest.raises(DestinationExistsError, match=rf"{bucket}/s.zarr: exists already"):
        write_all(f"{bucket}/s.zarr")
    assert objects(bucket) == WHOLE


def test_finished_chunks_are_kept_and_anything_else_is_not(bucket):
    url = f"{bucket}/s.zarr"
    partial = open_partial(url, JOB)
    for number in range(3):
        partial.write_chunk(f"image/c/{number}", CHUNKS[f"image/c/{number}"])
    partial.write("image/zarr.json", b"old")
    assert partial.read("image/zarr.json") == b"old"
    partial.close()
    files.place(url).write("image/c/1", b"damaged")
    files.place(url).write("image/c/3", b"written, but not noted")
    files.place(url).remove("image/c/2")
    partial = open_partial(url, JOB)
    assert list(partial.finished()) == ["image/c/0"]
    assert objects(url) == {"image/c/0": CHUNKS["image/c/0"]}
    partial.close()
    assert write_all(url) == 1
    assert objects(bucket) == WHOLE


def test_another_job_is_refused_and_told_what_differs(bucket):
    url = f"{bucket}/s.zarr"
    partial = open_partial(url, JOB)
    partial.write_chunk("image/c/0", b"1")
    partial.close()
    with pytest.raises(StoreError, match=r"s.zarr.partial: .*seed was 0, now 1"):
        open_partial(url, {**JOB, "seed": 1})
    assert objects(url) == {"image/c/0": b"1"}


def test_objects_of_others_are_never_touched(bucket):
    here = files.place(bucket)
    here.write("s.zarr/notes.txt", b"mine")
    here.write("s.zarr.old/zarr.json", b"mine")
    with pytest.raises(DestinationExistsError):
        write_all(f"{bucket}/s.zarr")
    assert objects(bucket) == {"s.zarr/notes.txt": b"mine", "s.zarr.old/zarr.json": b"mine"}
    # A store that was copied there while a conversion was interrupted.
    partial = open_partial(f"{bucket}/t.zarr", JOB)
    partial.write_chunk("image/c/0", b"1")
    partial.close()
    here.write("t.zarr/zarr.json", b"a copied store")
    with pytest.raises(DestinationExistsError):
        write_all(f"{bucket}/t.zarr")
    assert objects(f"{bucket}/t.zarr") == {"zarr.json": b"a copied store", "image/c/0": b"1"}


def test_discarding_leaves_nothing(bucket):
    partial = open_partial(f"{bucket}/s.zarr", JOB)
    partial.write_chunk("image/c/0", b"1")
    partial.write("image/zarr.json", b"1")
    partial.discard()
    assert objects(bucket) == {}
    assert write_all(f"{bucket}/s.zarr") == 0


@pytest.mark.parametrize("url", ["s3://some-bucket", "s3://some-bucket/"])
def test_a_store_cannot_be_a_whole_bucket(bucket, url):
    with pytest.raises(ValueError, match="cannot be a whole bucket"):
        open_partial(url, JOB)


def test_a_failed_write_says_where_and_can_be_resumed(bucket, monkeypatch):
    partial = open_partial(f"{bucket}/s.zarr", JOB)
    partial.write_chunk("image/c/0", CHUNKS["image/c/0"])
    with monkeypatch.context() as patch:
        patch.setattr("inrstore.files.remote.ObjectPlace._put", _refused)
        with pytest.raises(WriteError, match=rf"{bucket}/s.zarr/image/c/1: cannot be written: access denied"):
            partial.write_chunk("image/c/1", b"1")
    partial.close()
    assert write_all(f"{bucket}/s.zarr") == 1


def _refused(*_: object) -> None:
    raise PermissionError(13, "access denied", "x")


# Who may write


def test_a_store_is_written_by_one_at_a_time(bucket):
    partial = open_partial(f"{bucket}/s.zarr", JOB)
    with pytest.raises(DestinationHeldError, match=rf"s.zarr: being written by .* process {os.getpid()}"):
        open_partial(f"{bucket}/s.zarr", JOB)
    partial.close()
    write_all(f"{bucket}/s.zarr")


def test_who_was_asleep_too_long_changes_nothing_any_more(bucket, monkeypatch):
    from inrstore.store.partial_remote import RemotePartial

    monkeypatch.setattr("inrstore.files.claim.Claim._refresh", lambda *_: None)
    url = f"{bucket}/s.zarr"
    asleep = RemotePartial(url, JOB, expiry=1)
    asleep.write_chunk("image/c/0", CHUNKS["image/c/0"])
    time.sleep(2.2)
    other = RemotePartial(url, JOB, expiry=1)
    assert list(other.finished()) == ["image/c/0"]
    for action in (
        lambda: asleep.write_chunk("image/c/1", b"wrong"),
        lambda: asleep.write("image/zarr.json", b"wrong"),
        lambda: asleep.publish("zarr.json", b"wrong"),
    ):
        with pytest.raises(DestinationHeldError, match="taken over by"):
            action()
    asleep.discard()
    asleep.close()
    assert objects(url) == {"image/c/0": CHUNKS["image/c/0"]}
    other.close()
    assert write_all(url) == 1
    assert objects(bucket) == WHOLE


def _race(url: str, start: float) -> str:
    time.sleep(max(0, start - time.time()))
    try:
        write_all(url)
    except (DestinationHeldError, DestinationExistsError) as error:
        return type(error).__name__
    return "written"


def test_of_processes_that_convert_to_one_place_one_wins(bucket):
    with fresh_processes(3) as pool:
        for number in range(5):
            url = f"{bucket}/{number}/s.zarr"
            start = time.time() + (1 if number == 0 else 0.1)
            found = [run.result() for run in [pool.submit(_race, url, start) for _ in range(3)]]
            assert found.count("written") == 1, found
            assert objects(f"{bucket}/{number}") == WHOLE


# Deaths


def _die_at(count: int) -> None:
    """End this process, without any farewell, before the request with this number that changes something."""
    from inrstore.files.remote import ObjectPlace

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


def _write_and_die(url: str, count: int) -> int:
    _die_at(count)
    return write_all(url)


def _convert_and_die(source: str, url: str, count: int) -> None:
    layout.CHUNK_VOXELS = layout.LOSSLESS_VALUES = layout.TRANSFORMED_VALUES = 40
    _die_at(count)
    _convert(source, url)


def _convert(source: str, url: str) -> None:
    convert_image(read_source(source), url, Wish(promise=Promise.of(None, None, None, True)))


@pytest.mark.slow
def test_a_death_before_any_request_is_resumed_by_the_same_command(bucket):
    chunks = dict(list(CHUNKS.items())[:2])
    whole = {key: data for key, data in WHOLE.items() if key[-1] not in "23"}
    deaths = 0
    for count in range(100):
        url = f"{bucket}/{count}/s.zarr"
        try:
            with fresh_processes(1) as pool:
                pool.submit(_write_and_die, url, count).result()
            break
        except BrokenProcessPool:
            deaths += 1
        try:
            write_all(url, chunks)
        except DestinationExistsError:  # it died after publishing
            assert sweep_published(url)
        assert {key: data for key, data in objects(f"{bucket}/{count}").items() if key[-1] not in "23"} == whole
        assert not any(".partial/" in key for key in objects(f"{bucket}/{count}"))
    assert deaths > 12


def test_what_a_publisher_left_that_died_is_swept(bucket):
    write_all(f"{bucket}/s.zarr")
    assert not sweep_published(f"{bucket}/s.zarr")
    open_partial(f"{bucket}/t.zarr", JOB).close()
    assert not sweep_published(f"{bucket}/t.zarr"), "it is not published"
    here = files.place(bucket)
    for key, data in objects(f"{bucket}/t.zarr.partial").items():
        here.write(f"s.zarr.partial/{key}", data)
    assert sweep_published(f"{bucket}/s.zarr")
    assert objects(f"{bucket}/s.zarr.partial") == {}


@pytest.fixture
def converted(bucket, tmp_path, small):
    """The URL of a store, and the voxels that it holds."""
    values = random_image((5, 4, 6, 3))
    write_nifti(tmp_path / "a.nii", values)
    _convert(str(tmp_path / "a.nii"), f"{bucket}/deep/a.zarr")
    return f"{bucket}/deep/a.zarr", values


def local(folder: Path) -> dict[str, bytes]:
    return {key: (folder / key).read_bytes() for key, _ in files_of(folder)}


@pytest.mark.slow
def test_a_conversion_that_dies_anywhere_ends_in_the_same_bytes(bucket, tmp_path, small):
    source = write_nifti(tmp_path / "a.nii", random_image((5, 4, 6)))
    _convert(str(source), str(tmp_path / "a.zarr"))
    wanted = local(tmp_path / "a.zarr")
    assert sum(key.startswith("image/c/") for key in wanted) > 1
    with fresh_processes(1) as pool:
        pool.submit(_convert_and_die, str(source), f"{bucket}/never/a.zarr", 1 << 30).result()
    assert objects(f"{bucket}/never/a.zarr") == wanted
    deaths = 0
    for count in range(2, 100, 3):
        url = f"{bucket}/{count}/a.zarr"
        try:
            with fresh_processes(1) as pool:
                pool.submit(_convert_and_die, str(source), url, count).result()
            break
        except BrokenProcessPool:
            deaths += 1
        _convert(str(source), url)
        assert objects(url) == wanted
        assert objects(f"{url}.partial") == {}
    assert deaths > 5


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
    for count in (1, 4, 9, 21, 35, 50):
        url = f"{bucket}/{count}"
        with fresh_processes(1) as pool, pytest.raises(BrokenProcessPool):
            pool.submit(_convert_tree_and_die, str(dataset), url, count).result()
        assert inrstore.convert(dataset, url, lossless=True).complete
        found = objects(url)
        assert {key: data for key, data in found.items() if not key.startswith(".inrstore/")} == wanted
        assert not any(".partial" in key for key in found)
        inrstore.verify(url)


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


def test_a_missing_chunk_in_a_bucket_is_an_error(converted):
    url, _ = converted
    chunk = next(key for key in objects(url) if key.startswith("image/c/"))
    files.place(url).remove(chunk)
    with pytest.raises(StoreError, match=f"{chunk} is missing"):
        inrstore.open(url)


def test_an_unfinished_store_in_a_bucket_is_none(bucket):
    partial = open_partial(f"{bucket}/s.zarr", JOB)
    partial.write_chunk("image/c/0", b"1")
    partial.write("image/zarr.json", b"{}")
    partial.close()
    with pytest.raises(StoreError, match="incomplete"):
        inrstore.open(f"{bucket}/s.zarr")
    with pytest.raises(FileNotFoundError):
        zarr.open_group(files.place(f"{bucket}/s.zarr").zarr_store(), mode="r")


def test_an_image_in_a_bucket_is_read(bucket, tmp_path):
    values = random_image((5, 4, 6, 3))
    write_nifti(tmp_path / "a.nii.gz", values)
    files.place(f"{bucket}/in").write("a.nii.gz", (tmp_path / "a.nii.gz").read_bytes())
    np.testing.assert_array_equal(read_source(f"{bucket}/in/a.nii.gz").voxels, values.T)
