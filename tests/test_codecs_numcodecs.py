"""The codec of Zarr version 2 behaves as numcodecs' own do, and takes no chunk for that of another array."""

from __future__ import annotations

import array
import tracemalloc
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from checks import check_equal_bits, random_values

from inrstore.chunk import modes
from inrstore.chunk.encode import encode_as
from inrstore.codecs import InrNumcodec
from inrstore.codecs.numcodecs import UNSTATED_BYTES
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError

LOSSLESS = InrNumcodec(lossless=True)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_any_buffer_is_encoded_and_decoded(kind):
    data = b"a text of several bytes, not an array" * 3
    found = LOSSLESS.decode(kind(LOSSLESS.encode(kind(data))))
    assert found.dtype == np.uint8 and found.tobytes() == data


def test_objects_are_a_type_error_as_numcodecs_has_it():
    with pytest.raises(TypeError):
        LOSSLESS.encode(np.array(["a", None], object))
    with pytest.raises(TypeError):
        LOSSLESS.decode(LOSSLESS.encode(np.arange(2)), out=np.empty(2, object))
    with pytest.raises(TypeError):
        LOSSLESS.encode("a text")


def test_dates_keep_every_bit_and_are_never_lossy():
    dates = np.array(["2020-01-01", "NaT", "1999-12-31"], "M8[ns]")
    assert LOSSLESS.decode(LOSSLESS.encode(dates)).view("M8[ns]").tobytes() == dates.tobytes()
    with pytest.raises(ConfigurationError, match="datetime64"):
        InrNumcodec(max_error=2.0).encode(dates)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("into", ["C", "F"])
def test_values_go_where_they_belong_in_out_of_any_memory_layout(order, into):
    values = np.asarray(random_values((4, 5, 6), "<i2", 1, "noise"), order=order)
    out = np.empty(values.shape, "<i2", order=into)
    LOSSLESS.decode(LOSSLESS.encode(values), out=out)
    check_equal_bits(out, values)
    strided = np.zeros((8, 5, 6), "<i2")
    LOSSLESS.decode(LOSSLESS.encode(values), out=strided[::2])
    check_equal_bits(strided[::2], values)
    flat = bytearray(values.nbytes)
    LOSSLESS.decode(LOSSLESS.encode(values), out=flat)
    assert flat == values.tobytes(order="A")


def test_an_out_of_another_size_is_refused_before_anything_is_decoded():
    frame = encode_as(modes.CONSTANT, np.zeros((1 << 13, 1 << 13), "<f8"))
    tracemalloc.start()
    with pytest.raises(ValueError, match="out has 8 bytes"):
        LOSSLESS.decode(frame, out=np.empty(1))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


@pytest.mark.parametrize("filters", [[numcodecs.Zlib()], [numcodecs.Delta("<i2")], [numcodecs.Shuffle(2)]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_filters_of_version_2_come_before_it(tmp_path, filters, order):
    values = random_values((6, 7), "<i2", 1, "noise")
    zarr.create_array(tmp_path / "a", data=values, chunks=(3, 4), zarr_format=2, filters=filters, order=order,
                      compressors=LOSSLESS)  # fmt: skip
    check_equal_bits(zarr.open_array(tmp_path / "a", mode="r")[...], values)


# ---- chunks that belong to another array -------------------------------------------------------------------


def stored(path: Path) -> Path:
    return next(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_a_chunk_of_another_array_is_refused_where_the_codec_says_shape_and_dtype(tmp_path):
    codec = InrNumcodec(lossless=True, chunk_shape=(10, 10), dtype="<i2")
    zarr.create_array(tmp_path / "a", data=np.ones((10, 10), "<i2"), chunks=(10, 10), zarr_format=2, compressors=codec)
    again = zarr.open_array(tmp_path / "a", mode="r")
    assert (again[...] == 1).all()
    for other, field in ((np.zeros((4, 25), "<f2"), "shape"), (np.zeros((10, 10), "<f2"), "dtype"),
                         (np.zeros((1 << 13, 1 << 13)), "shape")):  # fmt: skip
        stored(tmp_path / "a").write_bytes(LOSSLESS.encode(other) if other.size < 200 else
                                           encode_as(modes.CONSTANT, other))  # fmt: skip
        with pytest.raises(CorruptChunkError, match=field):
            again[...]


def test_a_chunk_that_the_codec_does_not_say_is_not_written():
    codec = InrNumcodec(lossless=True, chunk_shape=[4, 5], dtype="i2")
    check_equal_bits(codec.decode(codec.encode(np.arange(20, dtype="<i2"))), np.arange(20, dtype="<i2").reshape(4, 5))
    check_equal_bits(codec.decode(codec.encode(np.ones((4, 5), ">i2"))), np.ones((4, 5), ">i2"))
    for values, word in ((np.zeros((4, 5), "i4"), "int32"), (np.zeros((4, 6), "i2"), r"\(4, 6\)")):
        with pytest.raises(ConfigurationError, match=word):
            codec.encode(values)


def test_shape_and_dtype_are_stored_and_checked():
    codec = InrNumcodec(lossless=True, chunk_shape=(4, 5), dtype=">i2")
    config = {"id": "inrstore", "lossless": True, "chunk_shape": [4, 5], "dtype": ">i2"}
    assert codec.get_config() == config and numcodecs.get_codec(config) == codec
    assert (
        numcodecs.get_codec({"id": "inrstore", "lossless": True, "chunk_shape": []}).get_config()["chunk_shape"] == []
    )
    for wrong in ({"chunk_shape": "12"}, {"chunk_shape": [-1]}, {"chunk_shape": [1.5]}, {"chunk_shape": [1] * 9},
                  {"chunk_shape": [1 << 20, 1 << 20]}, {"dtype": "c8"}, {"dtype": "no"}, {"dtype": "i4,"}):  # fmt: skip
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            numcodecs.get_codec({"id": "inrstore", "lossless": True, **wrong})


def test_a_few_bytes_cannot_ask_for_gigabytes_and_nothing_is_written_that_could_not_be_read():
    small = encode_as(modes.CONSTANT, np.zeros(1, "<f8"))
    shape = (limits := (1 << 27,))
    huge = bytearray(small)
    huge[8:12] = np.array(shape, "<u4").tobytes()  # one axis, so many values
    import google_crc32c

    huge[-4:] = np.array([google_crc32c.value(bytes(huge[:-4]))], "<u4").tobytes()
    tracemalloc.start()
    with pytest.raises(LimitExceededError, match="chunk_shape"):
        LOSSLESS.decode(bytes(huge))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22 and limits
    tracemalloc.stop()
    with pytest.raises(ConfigurationError, match="chunk_shape"):
        LOSSLESS.encode(np.broadcast_to(np.uint8(0), (UNSTATED_BYTES + 1,)))
