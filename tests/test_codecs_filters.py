"""Codecs before this one change chunks: what is written is readable, or it is not written."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from checks import check_equal_bits

from inrstore.codecs import InrCodec
from inrstore.errors import ConfigurationError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numcodecs' codecs are not in the Zarr specification, and say so
    from zarr.codecs import numcodecs as theirs

LOSSLESS = InrCodec(lossless=True)


def create(path, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.create_array(path, compressors=None, **more)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("shape, chunks", [((16, 16), (16, 16)), ((9, 10, 11), (4, 5, 11)), ((7,), (3,))])
@pytest.mark.parametrize(
    "dtype, made",
    [("<i2", lambda: theirs.Delta(dtype="<i2")),
     ("<f8", lambda: theirs.FixedScaleOffset(offset=0, scale=10, dtype="<f8", astype="<i2")),
     ("<f4", lambda: theirs.BitRound(keepbits=20)),
     ("<f4", lambda: theirs.Quantize(digits=3, dtype="<f4")),
     ("<i2", None)],
)  # fmt: skip
def test_what_a_filter_made_is_read_back(tmp_path, shape, chunks, dtype, made):
    made_one = made() if made else zarr.codecs.TransposeCodec(order=tuple(range(len(shape)))[::-1])
    values = (np.random.default_rng(0).integers(-500, 500, shape) / (1 if dtype == "<i2" else 4)).astype(dtype)
    want = create(tmp_path / "plain", shape=shape, chunks=chunks, dtype=dtype, filters=[made_one])
    got = create(tmp_path / "ours", shape=shape, chunks=chunks, dtype=dtype, filters=[made_one], serializer=LOSSLESS)
    want[...], got[...] = values, values
    check_equal_bits(got[...], want[...])
    check_equal_bits(got[1:3], want[1:3])


class Spec:
    shape = (4, 4)
    dtype = zarr.dtype.parse_dtype("int16", zarr_format=3)
    prototype = zarr.core.buffer.default_buffer_prototype()


@pytest.mark.parametrize(
    "values, codec, word",
    [(np.zeros((4, 4), "i4"), LOSSLESS, "int32"), (np.zeros(15, "i2"), LOSSLESS, "15"),
     (np.zeros((4, 4), "f2"), InrCodec(max_error=1.0), "float16")],
)  # fmt: skip
def test_what_no_reader_would_take_is_not_written(values, codec, word):
    chunk = Spec.prototype.nd_buffer.from_numpy_array(values)
    with pytest.raises(ConfigurationError, match=word):
        codec._encode_sync(chunk, Spec())


@pytest.mark.parametrize(
    "shape, chunks, promise, word",
    [((1,) * 9, (1,) * 9, {"lossless": True}, "9 axes"),
     ((1 << 14, 1 << 14), (1 << 14, 1 << 14), {"lossless": True}, "134217728"),
     ((6, 4, 4, 4), (3, 4, 4, 4), {"rmse": 1.0, "scale": [1, 2, 3, 4, 5, 6]}, "6 entries"),
     ((3, 4, 4), (3, 4, 4), {"rmse": 1.0, "scale": [1, 2, 3]}, "no channel axis"),
     ((4, 4), (4, 4), {"rmse": 1.0, "scale": [1, 2], "channel_axis": 0}, "2 entries")],
)  # fmt: skip
def test_an_array_that_no_chunk_could_be_written_of_is_not_created(tmp_path, shape, chunks, promise, word):
    with pytest.raises(ConfigurationError, match=word):
        create(tmp_path / "a", shape=shape, chunks=chunks, dtype="i2", serializer=InrCodec(**promise))
    assert not (tmp_path / "a" / "zarr.json").exists()


def test_a_scale_for_an_axis_that_a_filter_moves_is_taken(tmp_path):
    codec = InrCodec(rmse=1.0, scale=[1, 2, 3, 4, 5, 6], channel_axis=0, preset="fast")
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 8, 6)).astype("i2")
    moved = zarr.codecs.TransposeCodec(order=(3, 0, 1, 2))
    array = create(tmp_path / "a", shape=values.shape, chunks=values.shape, dtype="i2", filters=[moved],
                   serializer=codec)  # fmt: skip
    array[...] = values
    error = (array[...] - values.astype(float)) / np.arange(1, 7)
    assert np.sqrt(np.mean(error**2)) <= 1.0
