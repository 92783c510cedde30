"""The frame: echo of shape and dtype, lengths, checksums, sizes."""

from __future__ import annotations

import itertools
import struct
import sys

import google_crc32c
import numpy as np
import pytest
from checks import DTYPES, ROOT, check_equal_bits, decoder, maker, vectors

from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, encode, frame, modes
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_as, encode_chunks, seal
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError, UnsupportedVersionError


def test_the_frame_is_laid_out_as_specified():
    values = np.array([[1, -2, 3]], "<i2")
    data = encode_as(modes.RAW, values)
    body = b"\x89INR" + bytes([1, 0, 2, 2]) + struct.pack("<2I", 1, 3)
    body += struct.pack("<II", google_crc32c.value(values.tobytes()), 6) + values.tobytes()
    assert data == body + struct.pack("<I", google_crc32c.value(body))


def test_the_checksum_is_crc32c():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720
    assert decoder().crc32c(b"123456789") == 0xE3069283
    assert frame.crc_of(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    assert frame.crc_of(np.array([0x0102], ">u2")) == frame.crc_of(np.array([0x0102], "<u2"))
    long = np.arange(1 << 19, dtype="<u2")  # more than one block
    assert frame.crc_of(long) == google_crc32c.value(long.tobytes())
    grid = np.asfortranarray(np.arange(12, dtype="<u4").reshape(3, 4))
    assert frame.crc_of(grid) == google_crc32c.value(np.ascontiguousarray(grid).tobytes())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_a_code_of_its_own(dtype):
    kind = np.dtype(dtype)
    code = dtypes.code_of(kind)
    assert dtypes.dtype_of(code) == kind
    assert bool(code & 0x80) == (kind.str[0] == ">")
    assert code & 0x40 == 0
    values = np.zeros((2, 3), kind)
    values[1, 2] = 1
    for order in "CF":
        decoded = decode_chunk(encode_as(modes.RAW, np.asarray(values, order=order)))
        assert decoded.dtype == kind and decoded.dtype.str == kind.str
        assert decoded.flags[f"{order}_CONTIGUOUS"]
        check_equal_bits(decoded, values)


@pytest.mark.parametrize("dtype", ["c8", "c16", "S3", "U2", "O", "M8[s]", "m8[D]", "V4", "i2,f4", "g", ">c8"])
def test_other_dtypes_are_refused_by_name(dtype):
    kind = np.dtype(dtype)
    if kind.itemsize == 8 and kind.kind == "f":
        pytest.skip("long double is float64 here")
    with pytest.raises(ConfigurationError) as caught:
        dtypes.code_of(kind)
    assert str(kind) in str(caught.value) and "i2" in str(caught.value)


def test_all_other_dtype_codes_are_reserved():
    data = encode_as(modes.RAW, np.zeros(8, "u1"))
    tool, accepted = maker(), set()
    for code in range(256):
        forged = tool.edit(data, 6, bytes([code]))
        try:
            frame.unpack(forged)
            accepted.add(code)
        except CorruptChunkError as error:
            assert error.field == "dtype"
    assert accepted == {c | f | b for c in range(1, 13) for f in (0, 0x40) for b in (0, 0x80)
                        if not (b and c in (1, 5, 12))}  # fmt: skip


def test_a_frame_must_echo_the_arrays_shape_and_dtype():
    data = encode_as(modes.BYTEPLANES, np.arange(24, dtype="<i2").reshape(2, 3, 4))
    assert decode_chunk(data, (2, 3, 4), "<i2").shape == (2, 3, 4)
    assert decode_chunk(data, (2, 3, 4), ">i2").dtype == "<i2"  # byte order is not compared
    for shape in ((4, 3, 2), (24,), (2, 3, 4, 1), (2, 3, 5), ()):
        with pytest.raises(CorruptChunkError) as caught:
            decode_chunk(data, shape, "<i2")
        assert caught.value.field == "shape"
        assert "(2, 3, 4)" in str(caught.value) and str(shape) in str(caught.value)
    for dtype in ("<u2", "<f2", "<i4", "i1", "bool"):
        with pytest.raises(CorruptChunkError) as caught:
            decode_chunk(data, (2, 3, 4), dtype)
        assert caught.value.field == "dtype"


def test_a_later_version_is_told_apart_from_damage():
    tool, data = maker(), encode_as(modes.RAW, np.arange(6, dtype="<i2"))
    later = tool.edit(data, 4, b"\x02")
    with pytest.raises(UnsupportedVersionError, match="version"):
        decode_chunk(later)
    broken = later[:-1] + bytes([later[-1] ^ 1])
    with pytest.raises(CorruptChunkError) as caught:
        decode_chunk(broken)
    assert (type(caught.value), caught.value.field) == (CorruptChunkError, "frame_crc")


def test_every_reserved_mode_is_refused():
    tool, data = maker(), encode_as(modes.RAW, np.arange(6, dtype="<i2"))
    for mode in {*range(256)} - modes.BY_NUMBER.keys():
        with pytest.raises(UnsupportedVersionError) as caught:
            decode_chunk(tool.edit(data, 5, bytes([mode])))
        assert caught.value.field == "mode"


def test_an_empty_shape_that_numpy_cannot_express_is_refused():
    tool = maker()
    empty = encode_as(modes.RAW, np.empty((0, 1, 1, 1), "<f8"))
    for lengths in ((0, 2**32 - 1, 2**32 - 1, 1), (0, 2**20, 2**20, 2**20), (2**32 - 1, 2**31, 0, 2**9)):
        forged = tool.edit(empty, 8, struct.pack("<4I", *lengths))
        for reader, error in ((decode_chunk, LimitExceededError), (decoder().decode, decoder().Invalid)):
            with pytest.raises(error, match="shape"):
                reader(forged)
    with pytest.raises(ConfigurationError, match="shape"):
        encode_as(modes.RAW, np.empty((0, 2**33), "u1"))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 2), (2**27, 0)])
def test_a_chunk_without_values_is_raw_and_comes_back(shape):
    values = np.empty(shape, "<f4")
    (data,) = encode_chunks([values], Target(lossless=True))
    assert data[5] == frame.RAW
    assert decode_chunk(data, shape, "<f4").shape == shape
    tool = maker()
    for mode in (1, 2, 3, 5):
        with pytest.raises(CorruptChunkError) as caught:
            decode_chunk(tool.edit(data, 5, bytes([mode])))
        assert caught.value.field == "shape"
        with pytest.raises(CorruptChunkError):
            chunks.decode_region(tool.edit(data, 5, bytes([mode])), (slice(0, 1),) * len(shape))
        with pytest.raises(CorruptChunkError):
            chunks.describe_chunk(tool.edit(data, 5, bytes([mode])))


def test_sizes_are_known_in_advance():
    for shape, dtype in itertools.product(((), (7,), (3, 4, 5), (2,) * 8), ("u1", "<f8")):
        kind = np.dtype(dtype)
        raw = encode_as(modes.RAW, np.zeros(shape, kind))
        assert len(raw) == frame.max_encoded_size(shape, kind) <= np.zeros(shape, kind).nbytes + 64


def test_more_than_the_limits_is_not_encoded():
    with pytest.raises(ConfigurationError, match="9 axes"):
        encode_as(modes.RAW, np.zeros((1,) * 9, "u1"))
    huge = np.broadcast_to(np.zeros(1, "u1"), ((1 << 27) + 1,))
    with pytest.raises(ConfigurationError, match="values"):
        seal(modes.RAW, huge, b"", huge)
    with pytest.raises(LimitExceededError):
        decode_chunk(vectors("faulty")["shape-2to27-and-1"])


@pytest.mark.parametrize("promise", [{"lossless": True}, {"max_error": 2.0}, {"rmse": 3.0}])
def test_what_is_taken_is_decoded_once_and_what_is_not_never(monkeypatch, promise):
    decoded = []

    def counted(parsed, *context):
        decoded.append(parsed.mode)
        return chunks.values_of(parsed, *context)

    monkeypatch.setattr(encode, "values_of", counted)
    values = maker().smooth((6, 30, 40), "<i2", 3)
    (data,) = encode_chunks([values], Target(**promise))
    assert decoded == [data[5]]


def test_a_frame_is_unpacked_once(monkeypatch):
    count = []
    original = frame.unpack
    monkeypatch.setattr(frame, "unpack", lambda *given: count.append(1) or original(*given))
    for name in ("siren-i2-4d", "planes-exact-i2-3d"):
        data = vectors("subset")[name]
        shape = chunks.describe_chunk(data).shape
        for selection in ((slice(None),) * len(shape), (slice(0, 2),) * len(shape), (0,) * len(shape)):
            count.clear()
            chunks.decode_region(data, selection)
            assert len(count) == 1


def test_describe_looks_at_the_header_alone():
    info = chunks.describe_chunk(vectors("subset")["siren-i2-4d-gains"])
    assert (info.mode, info.dtype, info.shape) == ("siren", "<i2", (7, 4, 5, 6))
    parameters = 12 * 3 + 3 * 144 + 4 * 12 + 7 * 12
    assert 2 < info.details.pop("bits_per_parameter") < 10
    assert info.details == {"layers": 4, "width": 12, "channels": 7, "activations": "sine", "parameters": parameters}
    assert info.frame_bytes == len(vectors("subset")["siren-i2-4d-gains"])
    assert chunks.describe_chunk(vectors("subset")["raw-i2-1d"]).details == {}


def test_the_independent_reader_stands_alone():
    parts = {path.stem for path in (ROOT / "specs").glob("decoder_*.py")}
    assert parts >= {"decoder_parts", "decoder_network", "decoder_predictor", "decoder_neural", "decoder_transform"}
    for name in ("decoder", *parts):
        lines = (ROOT / "specs" / f"{name}.py").read_text().splitlines()
        assert len(lines) < 400
        modules = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
        assert modules <= sys.stdlib_module_names | {"numpy"} | parts
