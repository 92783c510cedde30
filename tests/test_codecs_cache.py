"""Decoded chunks that are kept: each is decoded once, in bounded memory, and nothing that is read can change them."""

from __future__ import annotations

import math
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr
from checks import check_equal_bits, random_values, vectors

import inrstore
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_as
from inrstore.chunk.modes import TRANSFORM
from inrstore.chunk.quality import Target
from inrstore.codecs import InrCodec, InrNumcodec, decoded
from inrstore.errors import ConfigurationError, CorruptChunkError

VALUES = random_values((6, 20, 30), "<i2", 3, "noise")
FRAMES = {shape: InrNumcodec(lossless=True).encode(np.ascontiguousarray(VALUES[: shape[0]]))
          for shape in ((1, 20, 30), (2, 20, 30), (3, 20, 30))}  # fmt: skip


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Start with nothing kept, and count what is decoded."""
    made: list[str] = []
    monkeypatch.setattr(decoded, "_recent", decoded._Recent(decoded.DEFAULT_BYTES))
    for name in ("decode_chunk", "decode_region"):
        original = getattr(decoded, name)
        monkeypatch.setattr(decoded, name, lambda *a, _o=original, _n=name: (made.append(_n), _o(*a))[1])
    return made


def array(path: Any, zarr_format: int = 3) -> zarr.Array:
    """Write an array of three chunks."""
    more: Any = {"serializer": InrCodec(lossless=True), "compressors": None}
    if zarr_format == 2:
        more = {"compressors": InrNumcodec(lossless=True)}
    made = zarr.create_array(path, shape=(6, 20, 30), chunks=(2, 20, 30), dtype="<i2", zarr_format=zarr_format, **more)
    made[...] = VALUES
    return made


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_reading_slice_by_slice_decodes_each_chunk_once(tmp_path, calls, zarr_format):
    array(tmp_path / "a", zarr_format)
    calls.clear()
    opened = zarr.open_array(tmp_path / "a", mode="r")
    for z in range(6):
        check_equal_bits(opened[z], VALUES[z])
    check_equal_bits(opened[:, 3, 4], VALUES[:, 3, 4])
    check_equal_bits(opened[...], VALUES)
    check_equal_bits(opened.vindex[[0, 5, 2], [1, 2, 3], [4, 5, 6]], VALUES[[0, 5, 2], [1, 2, 3], [4, 5, 6]])
    assert calls == ["decode_chunk"] * 3


def test_dask_and_another_array_of_equal_chunks_decode_nothing_again(tmp_path, calls):
    array(tmp_path / "a")
    array(tmp_path / "b")
    calls.clear()
    for name in "ab":
        lazy = dask.array.from_zarr(str(tmp_path / name))
        assert int(lazy.sum().compute()) == int(VALUES.astype(np.int64).sum())
    assert len(calls) == 3


def test_nothing_is_kept_where_that_is_asked(tmp_path, calls):
    array(tmp_path / "a")
    before = inrstore.cache(0)
    assert before == decoded.DEFAULT_BYTES == 1 << 27 and inrstore.cache() == 0
    calls.clear()
    opened = zarr.open_array(tmp_path / "a", mode="r")
    for z in range(6):
        check_equal_bits(opened[z], VALUES[z])
    assert len(calls) == 6
    assert inrstore.cache(before) == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", True])
def test_what_is_no_number_of_bytes_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=repr(wrong)):
        inrstore.cache(wrong)


def test_the_oldest_go_first_and_what_is_too_large_is_not_kept(calls):
    one, two, three = (FRAMES[n, 20, 30] for n in (1, 2, 3))
    inrstore.cache(3 * 1200 - 1)
    decoded.chunk(one), decoded.chunk(two)
    assert len(calls) == 2
    decoded.chunk(two)  # `one` went when `two` came: both are a byte too many
    assert len(calls) == 2
    decoded.chunk(one), decoded.chunk(two)
    assert len(calls) == 4
    inrstore.cache(3 * 1200)
    decoded.chunk(one), decoded.chunk(two), decoded.chunk(one)
    assert len(calls) == 5
    inrstore.cache(2 * 1200)
    decoded.chunk(one)  # the one that was used last stayed
    assert len(calls) == 5
    decoded.chunk(three), decoded.chunk(three)
    assert len(calls) == 7
    decoded.chunk(one)
    assert len(calls) == 7


def test_a_chunk_that_is_written_anew_is_read_anew(tmp_path):
    written = array(tmp_path / "a")
    check_equal_bits(written[1], VALUES[1])
    written[1, 4:9] = 77  # goes through what is kept, and must leave it alone
    assert (written[1, 4:9] == 77).all()
    check_equal_bits(written[1, 9:], VALUES[1, 9:])
    written[:2] = VALUES[:2]
    check_equal_bits(written[:2], VALUES[:2])


def test_what_is_read_is_the_readers_own(tmp_path):
    opened = array(tmp_path / "a")
    for _ in range(2):
        whole = opened[...]
        part = np.asarray(opened[2:4])
        whole[...] = part[...] = 5
        codec = InrNumcodec(lossless=True)
        alone = codec.decode(FRAMES[2, 20, 30])
        check_equal_bits(alone, VALUES[:2])
        alone[...] = 9
    check_equal_bits(opened[...], VALUES)


def test_damaged_frames_are_refused_each_time(calls):
    whole = FRAMES[2, 20, 30]
    check_equal_bits(decoded.chunk(whole), VALUES[:2])
    damaged = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    for _ in range(3):
        with pytest.raises(CorruptChunkError):
            decoded.chunk(damaged)
    with pytest.raises(CorruptChunkError, match="shape"):
        decoded.chunk(whole, (3, 20, 30), "<i2")  # what the array says is part of what is kept
    with pytest.raises(CorruptChunkError):
        decoded.chunk(b"")
    with pytest.raises(CorruptChunkError):
        decoded.region(b"", (0,), (3,), "<i2")
    assert len(calls) == 7
    assert not decoded._recent._made_now


def test_many_threads_decode_a_chunk_once(calls, monkeypatch):
    started, original = threading.Barrier(8), decoded.decode_chunk

    def slow(*arguments: Any) -> Any:
        threading.Event().wait(0.2)
        return original(*arguments)

    monkeypatch.setattr(decoded, "decode_chunk", slow)

    def read(_number: int) -> Any:
        started.wait()
        return decoded.chunk(FRAMES[3, 20, 30])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    assert len(calls) == 1 and all(a is found[0] for a in found)
    assert not decoded._recent._made_now


def test_what_a_mode_decodes_in_parts_is_not_kept_but_is_used(calls):
    data = next(d for d in vectors("subset").values() if describe_chunk(d).mode == "siren"
                and len(describe_chunk(d).shape) == 3)  # fmt: skip
    info = describe_chunk(data)
    part = (slice(0, 1), slice(None), slice(None))
    first = decoded.region(data, part, info.shape, info.dtype)
    decoded.region(data, part, info.shape, info.dtype)
    assert calls == ["decode_region"] * 2
    whole = decoded.chunk(data, info.shape, info.dtype)
    check_equal_bits(np.ascontiguousarray(decoded.region(data, part, info.shape, info.dtype)), first)
    assert len(calls) == 3 and not whole.flags.writeable


TRANSFORMED = next(d for n, d in vectors("subset").items() if n == "transform-i2-4d")
SHAPE, KIND = describe_chunk(TRANSFORMED).shape, describe_chunk(TRANSFORMED).dtype
SIZE = math.prod(SHAPE) * np.dtype(KIND).itemsize


def part(number: int) -> tuple[int | slice, ...]:
    """Return a small selection of the chunk of a transform."""
    return (number, *(slice(0, max(1, n // 2)) for n in SHAPE[1:]))


def read(selection: tuple[int | slice, ...], data: bytes = TRANSFORMED) -> np.ndarray:
    return np.ascontiguousarray(decoded.region(data, selection, SHAPE, KIND))


def test_a_chunk_whose_parts_share_work_is_decoded_when_a_second_one_is_asked_for(calls):
    whole = decode_chunk(TRANSFORMED)
    for number in range(SHAPE[0]):
        check_equal_bits(read(part(number)), whole[part(number)])
    assert calls == ["decode_region", "decode_chunk"]


def test_where_a_chunk_was_asked_for_again_the_next_is_decoded_at_once(calls):
    frames = [encode_as(TRANSFORM, decode_chunk(TRANSFORMED), Target(rmse=rmse)) for rmse in (3.0, 4.0, 5.0, 6.0)]
    for data in frames[:2]:
        for number in range(SHAPE[0]):
            read(part(number), data)
    assert calls == ["decode_region", "decode_chunk", "decode_chunk"]
    read(part(0), frames[2])
    read(part(0), frames[3])  # the one before was not asked for again
    assert calls[3:] == ["decode_chunk", "decode_region"]


def test_a_large_part_is_a_reason_to_decode_the_chunk(calls):
    whole = decode_chunk(TRANSFORMED)
    large = (slice(0, 2), slice(None), slice(None), slice(None))
    check_equal_bits(read(large), whole[large])
    read(part(0)), read(part(1))
    assert calls == ["decode_chunk"]


def test_parts_stay_parts_where_the_chunk_could_not_be_kept(calls):
    inrstore.cache(SIZE - 1)
    for number in range(SHAPE[0]):
        read(part(number))
    inrstore.cache(0)
    read(part(0)), read(part(0))
    assert {*calls} == {"decode_region"}


def test_parts_of_more_chunks_than_fit_are_never_a_reason_to_decode_them(calls):
    """Going through an image across its chunks would else decode them all for each slice."""
    others = [encode_as(TRANSFORM, decode_chunk(TRANSFORMED), Target(rmse=rmse)) for rmse in (3.0, 4.0, 5.0)]
    inrstore.cache(3 * SIZE - 1)
    for number in (0, 1):
        for data in others:
            read(part(number), data)
    assert calls == ["decode_region"] * 6
    inrstore.cache(3 * SIZE)
    for number in (0, 1, 0):
        for data in others:
            read(part(number), data)
    assert calls[6:] == ["decode_region", *["decode_chunk"] * 3]  # two were asked for a moment ago


def test_a_part_and_what_is_kept_share_the_bytes(calls):
    inrstore.cache(SIZE)
    read(part(0)), read(part(1))
    decoded.chunk(FRAMES[1, 20, 30])
    assert decoded._recent._bytes == 1200 and next(iter(decoded._recent._arrays.values()))[1] is not None
    read(part(0))
    assert decoded._recent._bytes == SIZE
    inrstore.cache(1200)
    assert decoded._recent._bytes == 0 and not decoded._recent._arrays


def test_threads_that_read_slices_decode_the_chunk_once(calls):
    whole, started = decode_chunk(TRANSFORMED), threading.Barrier(8)

    def one(number: int) -> np.ndarray:
        started.wait()
        return read(part(number % SHAPE[0]))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))
    assert sorted(calls) == ["decode_chunk", "decode_region"]
    for number, values in enumerate(found):
        check_equal_bits(values, whole[part(number % SHAPE[0])])


def test_a_damaged_transform_is_refused_by_part_and_whole():
    damaged = TRANSFORMED[:60] + bytes([TRANSFORMED[60] ^ 1]) + TRANSFORMED[61:]
    for _ in range(3):
        with pytest.raises(CorruptChunkError):
            read(part(0), damaged)


def _read_in_child(results: Any) -> None:
    results.put((decoded.chunk(FRAMES[2, 20, 30]).sum().item(), inrstore.cache()))


def test_a_forked_process_begins_with_free_locks():
    inrstore.cache(1 << 20)
    context = multiprocessing.get_context("fork")
    with decoded._recent._lock:  # as another thread may hold it
        results = context.Queue()
        child = context.Process(target=_read_in_child, args=(results,))
        child.start()
    found = results.get(timeout=30)
    child.join(30)
    assert found == (VALUES[:2].sum().item(), 1 << 20) and child.exitcode == 0
