"""Mode av1: streams are checked before a library sees them, every decoder gives the same, targets are met closely."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checks import check_equal_bits, decoder, digest, examples, fuzzer, maker, modes, run_python, vectors
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import decode as chunks
from inrstore.chunk import frame, quality
from inrstore.chunk.av1 import encode as av1
from inrstore.chunk.av1 import library, obu
from inrstore.chunk.av1.decode import Header, read_header
from inrstore.chunk.decode import decode_chunk, decode_inside, decode_region, describe_chunk
from inrstore.chunk.encode import encode_as, encode_chunks, seal
from inrstore.chunk.frame import Frame, Reader
from inrstore.chunk.inloop.fit import Plan, fit
from inrstore.chunk.mask import narrow
from inrstore.chunk.modes import AV1
from inrstore.chunk.quality import Target
from inrstore.errors import CorruptChunkError, LimitExceededError, MissingDependencyError
from inrstore.options import EncodeOptions

VALID = {name: vectors("subset", "uncommon")[name] for name, mode in modes().items() if mode == "av1"}
FAST = EncodeOptions(mode="av1", preset="fast", threads=1)
SECTION_15 = {name: data for name, data in vectors("faulty").items() if name.startswith("av1-")}

needs_aomdec = pytest.mark.skipif(shutil.which("aomdec") is None, reason="aomdec of libaom (aom-tools) is not here")


def volume(shape: tuple[int, ...], noise: float, dtype: str = "<i2", scale: float = 170.0, base: float = 0) -> Any:
    """Return waves with a bright ball in zeros, and noise."""
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij", sparse=True)
    waves = sum(np.sin(5 * (i + 1) * axis + i) for i, axis in enumerate(axes))
    inside = sum((axis - 0.5) ** 2 for axis in axes) < 0.2
    values = base + np.where(inside, waves + 3, 0) * scale + np.random.default_rng(1).normal(0, noise, shape)
    kind = np.dtype(dtype)
    return (np.rint(values) if kind.kind in "iu" else values).astype(kind)


def coded(values: Any, rmse: float, options: EncodeOptions = FAST, mask: Any = None) -> bytes:
    """Return the frame in mode av1, or fail."""
    data = encode_as(AV1, values, Target(rmse=rmse), mask, options)
    assert data is not None
    return data


def error_of(values: Any, data: bytes) -> float:
    """Return the root mean square error of a frame."""
    return float(np.sqrt(np.mean((decode_chunk(data).astype(float) - values.astype(float)) ** 2)))


def three() -> list[bytes]:
    """Return the units of a stream of three frames: sequence, key frame, hidden frame, frame, what shows the hidden."""
    return list(maker("av1_streams").units_of(maker("av1_streams").stream("three")))


def of_stream(shape: tuple[int, ...], stream: bytes, dtype: str = "<i2") -> Frame:
    """Return a frame of a stream; what it decodes to is not known."""
    header = Header(len(shape) - 2, len(shape) - 1, 4, 0, -100, 100, 16, -500 << 4)
    return Frame(AV1.number, np.dtype(dtype), shape, 0, memoryview(b"\0" + header.write() + stream))


# ---- streams -----------------------------------------------------------------------------------------------


def test_units_are_taken_apart():
    stream = b"".join(three())
    found = list(obu.units(stream))
    assert [u.kind for u in found] == [obu.SEQUENCE_HEADER, obu.FRAME, obu.FRAME, obu.FRAME, obu.FRAME_HEADER]
    assert [bytes(u.whole) for u in found] == three()
    sequence, key, hidden, inter, shows = three()
    assert obu.temporal_units(stream, 3, 64, 64) == [
        obu.DELIMITER + sequence + key, obu.DELIMITER + hidden + inter, obu.DELIMITER + shows
    ]  # fmt: skip
    said = obu.read_sequence(found[0].payload)
    assert (said.width, said.height) == (64, 64)


@pytest.mark.parametrize(
    "frames, level", [(None, None), (1, None), (6, None), (10, None), (10, 7), (10, 8), (None, 31)]
)
def test_a_display_delay_changes_nothing(frames, level):
    sequence, *others = three()
    late = maker("av1_streams").delayed(sequence, frames, level=level)
    assert obu.read_sequence(memoryview(late)[2:]) == obu.read_sequence(memoryview(sequence)[2:])
    plain, delayed = (of_stream((3, 64, 64), b"".join([unit, *others])) for unit in (sequence, late))
    check_equal_bits(chunks.values_of(delayed), chunks.values_of(plain))


@pytest.mark.parametrize("count", range(1, 5))
def test_sizes_of_units_may_have_up_to_four_bytes(count):
    size = bytes([0x85, 0x80, 0x80, 0x80][: count - 1]) + (b"\0" if count > 1 else b"\5")
    assert [bytes(u.payload) for u in obu.units(b"\x32" + size + b"12345")] == [b"12345"]


@pytest.mark.parametrize("data", [b"\x32", b"\x32\x80", b"\x32\x81\x80\x80\x80\0", b"\x32\2\0", b"\x30\0", b"\xb2\0"])
def test_units_that_are_not_whole_are_refused(data):
    with pytest.raises(CorruptChunkError) as caught:
        list(obu.units(data))
    assert caught.value.field == "av1.stream"


def test_every_truncation_of_a_stream_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(library, "library", lambda: pytest.fail("a stream that is cut was decoded"))
    tool, (sequence, *others) = maker("av1_streams"), three()
    late = b"".join([tool.delayed(sequence, 6), *others])
    for stream, shape in ((tool.stream("three"), (3, 9, 9)), (tool.stream("gray"), (3, 9, 9)),
                          (tool.stream("odd"), (2, 71, 67)), (late, (3, 9, 9))):  # fmt: skip
        for stop in range(len(stream)):
            with pytest.raises(CorruptChunkError) as caught:
                chunks.values_of(of_stream(shape, stream[:stop]))
            assert caught.value.field == "av1.stream"


def test_what_the_specification_forbids_is_refused_before_it_is_decoded(monkeypatch):
    late = {"av1-decoded-crc", "av1-payload-cut", "av1-payload-header-alone", "av1-payload-shows-what-is-not-there",
            "av1-frame-header-of-a-byte", "av1-nothing-to-show",
            "av1-stream-of-two"}  # fmt: skip
    monkeypatch.setattr(library, "library", lambda: pytest.fail("it was decoded"))
    assert len(SECTION_15) > 120
    for name in SECTION_15.keys() - late:
        with pytest.raises(CorruptChunkError):
            decode_chunk(SECTION_15[name])


@pytest.mark.parametrize("name", ["av1-i2-3d", "av1-i2-3d-display-delay"])
def test_both_readers_agree_on_every_bit_of_the_headers(name):
    """Each bit of the sequence header, and of the first bytes of each unit behind it, the other way."""
    data, seen = VALID[name], []
    at = frame.header_size(3) + 1 + 25
    stream = data[at:-4]
    units = list(itertools.accumulate(map(len, maker("av1_streams").units_of(stream)), initial=at))[:-1]
    places = [units[0] + i for i in range(12)] + [first + i for first in units[1:] for i in range(6)]
    for place, bit in itertools.product(places, range(8)):
        if place < len(data) - 4:
            forged = maker().edit(data, place, bytes([data[place] ^ 1 << bit]))
            seen.append(fuzzer().agree(decoder(), forged))
    assert seen.count("both refuse") > 150
    assert seen.count("both decode, equal bits") > 20  # some bits name what a decoder may choose


# ---- headers -----------------------------------------------------------------------------------------------


def test_a_header_comes_back():
    for header in (Header(0, 2, 1, -100, -(2**31), 2**31 - 1, 1, 1 - 2**52),
                   Header(1, 0, 45, 0, 5, 5, 2**32 - 1, 2**52 - 1)):  # fmt: skip
        assert read_header(Reader(memoryview(header.write())), np.dtype("<f8"), (3, 4, 5)) == header


@pytest.mark.parametrize(
    "box, count",
    [((65536, 8, 8), 1 << 28), ((65537, 8, 8), None), ((2**27, 1, 1), None), ((32, 2048, 2048), 1 << 27),
     ((1, 1, 65536), 1 << 22), ((1, 1, 65537), None), ((2, 2048, 2049), None), ((2**18, 1, 1, 2, 256), None)],
)  # fmt: skip
def test_frames_are_limited_with_their_padding(box, count):
    header = Header(len(box) - 2, len(box) - 1, 4, 0, 0, 9, 16, 0)
    if count is None:
        with pytest.raises(LimitExceededError) as caught:
            read_header(Reader(memoryview(header.write())), np.dtype("<i2"), box)
        assert caught.value.field == "av1.rows"
    else:
        read_header(Reader(memoryview(header.write())), np.dtype("<i2"), box)
        _, frames, height, width = header.frames(box)
        assert frames * height * width == count


@given(st.integers(0, 2**32))
@examples(60)
def test_both_readers_decode_any_header_to_the_same_bits(seed):
    rng, tool = np.random.default_rng(seed), maker("av1")
    ndim = int(rng.integers(2, 6))
    rows, columns = (int(axis) for axis in rng.permutation(ndim)[:2])
    shape = [1] * ndim
    frames, stream = [(3, "three"), (12, "twelve"), (3, "gray"), (1, "one")][rng.integers(4)]
    others = [axis for axis in range(ndim) if axis not in (rows, columns)]
    if frames > 1 and not others:
        frames, stream = 1, "fine"
    if others:
        shape[rng.choice(others)] = frames
    shape[rows], shape[columns] = (int(n) for n in rng.integers(1, 65, 2))
    dtype = str(rng.choice(["i1", "u1", "<i2", ">u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", ">f8"]))
    kind = np.dtype(dtype)
    shift, low = int(rng.integers(1, 46)), int(rng.integers(-3000, 3000))
    high = low + int(rng.integers(0, 5000))
    exponent = int(rng.integers(-14, 4) if kind.itemsize == 2 else rng.integers(-100, 90)) if kind.kind == "f" else 0
    if kind.kind in "iu":
        info = np.iinfo(kind)
        low = min(max(low, int(info.min)), int(info.max))
        high = max(low, min(high, int(info.max)))
    gain = int(min(2**32 - 1, rng.integers(1, 8) << max(0, shift - 2)))
    what = maker("inloop").any_filter(rng, 1) if rng.random() < 0.5 else None
    film = tool.Film(name=stream, rows=rows, columns=columns, shift=shift, exponent=exponent, low=low, high=high,
                     gain=gain, offset=int(rng.integers(-500, 500)) << min(shift, 42), correction=what)  # fmt: skip
    data = tool.av1_frame(np.zeros(shape, kind, order=rng.choice(["C", "F"])), film)
    ours, theirs = decode_chunk(data), decoder().decode(data)
    assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    check_equal_bits(ours, theirs)


def test_a_correction_is_for_samples_that_are_few_enough():
    what = maker("inloop").Filter(seed=1).build(1)
    header = Header(1, 2, 4, 0, 0, 9, 16, 0, what)
    for box, right in (((16, 2048, 2048), True), ((17, 2048, 2048), False)):
        if right:
            found = read_header(Reader(memoryview(header.write())), np.dtype("<i2"), box)
            assert found.write() == header.write()
            continue
        with pytest.raises(LimitExceededError) as caught:
            read_header(Reader(memoryview(header.write())), np.dtype("<i2"), box)
        assert caught.value.field == "av1.rows"


# ---- decoders ----------------------------------------------------------------------------------------------


@needs_aomdec
@pytest.mark.parametrize("name", ["av1-i2-3d", "av1-i2-3d-odd-sides", "av1-u2-3d-hidden-frames", "av1-i2-gray",
                                  "av1-i2-screen-content", "av1-i2-3d-wide", "av1-i2-3d-display-delay",
                                  "av1-i2-display-delay-10-tier", "av1-i2-display-delay-gray"])  # fmt: skip
def test_libaom_decodes_a_vector_to_the_same(name, monkeypatch):
    monkeypatch.setenv("AV1_DECODER", "aomdec")
    check_equal_bits(decoder().decode(VALID[name]), decode_chunk(VALID[name]))


@needs_aomdec
def test_libaom_refuses_what_dav1d_refuses(monkeypatch):
    monkeypatch.setenv("AV1_DECODER", "aomdec")
    for name in ("av1-payload-cut", "av1-nothing-to-show", "av1-stream-of-two"):
        with pytest.raises(decoder().Invalid, match="aomdec"):
            decoder().decode(SECTION_15[name])


@needs_aomdec
def test_libaom_decodes_what_is_encoded_here_to_the_same(monkeypatch):
    monkeypatch.setenv("AV1_DECODER", "aomdec")
    for values, rmse in (
        (volume((20, 75, 66), 30), 25),
        (volume((3, 130, 257), 3, "<f4"), 6),
        (volume((90, 91), 9), 9),
    ):
        data = coded(values, rmse)
        check_equal_bits(decoder().decode(data), decode_chunk(data))


def test_a_part_a_mask_and_a_description_can_be_read():
    data = VALID["av1-i2-3d-mask"]
    whole = decode_chunk(data)
    check_equal_bits(np.asarray(decode_region(data, (2, slice(3, 9), slice(None)))), whole[2, 3:9])
    assert decode_inside(data).sum() < whole.size and not whole[~decode_inside(data)].any()
    described = describe_chunk(data)
    assert (described.mode, described.details) == ("av1", {"frames": 3, "height": 64, "width": 64})


def test_bits_are_equal_from_many_threads_at_once():
    once = {name: digest(decode_chunk(data)) for name, data in VALID.items()}
    with ThreadPoolExecutor(8) as pool:
        names = list(VALID) * 4
        for name, values in zip(names, pool.map(lambda n: decode_chunk(VALID[n]), names), strict=True):
            assert digest(values) == once[name]


# ---- encoding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, base", [("<i1", 0), ("<u1", 99), ("<i2", 0), (">u2", 3000), ("<i4", -(2**29)),
                                         ("<u4", 2**28), ("<i8", 0), ("<u8", 2**20), ("<f4", 0), (">f4", 2e5),
                                         ("<f8", -9)])  # fmt: skip
def test_a_chunk_of_every_type_keeps_its_target(dtype, base):
    values = volume((6, 70, 66), 2, dtype, 20, base)
    data = coded(values, 2.5)
    decoded = decode_chunk(data)
    assert (decoded.dtype, decoded.shape) == (values.dtype, values.shape)
    assert quality.meets(values, decoded, Target(rmse=2.5))
    assert values.min() <= decoded.min() and decoded.max() <= values.max()
    check_equal_bits(decoder().decode(data), decoded)


@pytest.mark.parametrize(
    "shape, axis",
    [((64, 64), None), ((65, 131), None), ((40, 200), None), ((9, 64, 71), None), ((70, 9, 66), None),
     ((66, 70, 5), None), ((1, 8, 65, 64), None), ((8, 65, 64, 1), 3), ((2, 3, 1, 90, 2, 77), 2), ((1, 1, 80, 80), 0)],
)  # fmt: skip
def test_a_chunk_of_any_sides_keeps_its_target(shape, axis):
    values, target = volume(shape, 3), Target(rmse=8, channel_axis=axis)
    data = encode_as(AV1, values, target, None, FAST)
    assert data is not None and quality.meets(values, decode_chunk(data), target)
    check_equal_bits(decoder().decode(data), decode_chunk(data))


def test_several_channels_are_no_sequence():
    for shape, axis in (((3, 4, 66, 65), None), ((3, 66, 65), 0), ((66, 65, 2), 2)):
        assert encode_as(AV1, volume(shape, 3), Target(rmse=8, channel_axis=axis), None, FAST) is None


@pytest.mark.parametrize(
    "values, rmse, preset, least",
    [(volume((16, 128, 128), 60), 40, "balanced", 0.99),
     (volume((16, 128, 128), 4), 8, "balanced", 0.9),  # 3 kB: the error jumps by some per cent between steps
     (volume((16, 128, 112), 30, "<f4"), 12, "balanced", 0.99), (volume((12, 80, 72), 60), 55, "fast", 0.99),
     (volume((40, 96, 96), 10, "<u2", base=2000), 12, "fast", 0.99)],
)  # fmt: skip
def test_a_target_is_met_closely(values, rmse, preset, least):
    data = coded(values, rmse, EncodeOptions(mode="av1", preset=preset, threads=1))
    assert least <= error_of(values, data) / rmse <= 1


@pytest.fixture
def narrow_networks(monkeypatch):
    """Small networks, few steps and a quick encoder, of which anything that is smaller is taken."""
    monkeypatch.setitem(av1.EFFORTS, "small", av1.Effort(7, 6, 4, 1))
    monkeypatch.setattr(av1, "_PLANS", (Plan(1, 1, 8, 300, 1024),))
    monkeypatch.setattr(av1, "_NETWORK_SHARE", 1.0)


SMALL = EncodeOptions(mode="av1", preset="small", threads=1)


def beyond(*arguments: Any) -> Any:
    """Return a network whose sums no reader takes."""
    found = fit(*arguments)
    network = replace(found.network, readout=np.full_like(found.network.readout, 1023 * 1023))
    return replace(found, network=network)


def test_a_network_brings_samples_nearer_where_it_pays(narrow_networks, monkeypatch):
    values = volume((16, 128, 128), 40)
    plain = coded(values, 30, EncodeOptions(mode="av1", preset="fast", threads=1))
    monkeypatch.setattr(av1, "_PAYS", 2.0)  # the smaller of both is another test's
    data = coded(values, 30, SMALL)
    details = describe_chunk(data).details
    assert details["network"] == "8 sine" and 60 < details["network_bytes"] < 300
    assert error_of(values, data) <= 30 and data != plain
    check_equal_bits(decoder().decode(data), decode_chunk(data))
    for place, name, value in ((av1, "_PAYS", 0.0), (av1, "fit", beyond),
                               (av1.limits, "MAX_TRANSFORM_VALUES", values.size - 1)):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            assert "network" not in describe_chunk(coded(values, 30, SMALL)).details


def test_a_network_keeps_a_target_within_a_mask(narrow_networks, monkeypatch):
    monkeypatch.setattr(av1, "_PAYS", 2.0)
    values = volume((9, 96, 100), 30, base=5000)
    outline = np.zeros(values.shape, bool)
    outline[1:8, 10:80, 20:90] = True
    values[~outline] = 0
    data = encode_as(AV1, values, Target(rmse=20), narrow(outline, values.shape), SMALL)
    decoded = decode_chunk(data)
    assert "network" in describe_chunk(data).details and not decoded[~outline].any()
    assert quality.meets(values, decoded, Target(rmse=20), None, outline)
    check_equal_bits(decoder().decode(data), decoded)


def test_a_mask_and_values_that_are_no_numbers_are_kept():
    values = volume((8, 70, 72), 3, "<f4")
    outline = values > -1e9
    outline[:, :, 40:] = np.random.default_rng(2).random((8, 70, 32)) < 0.2
    values[3, 5:9, 7] = (np.nan, np.inf, -np.inf, np.nan)
    expected = np.where(outline, values, 0)
    data = coded(expected, 4, mask=narrow(outline, values.shape))
    decoded = decode_chunk(data)
    finite = np.isfinite(expected) & outline
    assert np.sqrt(np.mean((decoded[finite] - expected[finite]).astype(float) ** 2)) <= 4
    check_equal_bits(decoded[3, 5:9, 7], expected[3, 5:9, 7])
    assert not decoded[~outline].any()
    check_equal_bits(decode_inside(data), outline)


def test_what_lies_outside_a_mask_changes_nothing():
    values = volume((4, 80, 70), 3)
    outline = narrow(np.indices((80, 70)).sum(0) > 60, values.shape)
    one = np.where(outline, values, 0)
    frames = [encode_chunks([v], Target(rmse=8), FAST, masks=[outline])[0] for v in (one, values)]
    assert frames[0] == frames[1] and describe_chunk(frames[0]).mode == "av1"


def test_a_box_is_cut_out():
    values = np.zeros((10, 150, 150), "<i2")
    values[2:9, 30:110, 40:120] = volume((7, 80, 80), 3) + 500
    assert describe_chunk(coded(values, 8)).details == {"frames": 7, "height": 80, "width": 80}


def test_automatic_choice_takes_av1_for_one_channel_and_transforms_for_several():
    target, several = Target(rmse=8), np.stack([volume((5, 66, 70), 3)] * 3)
    for values, mode in ((several[0], "av1"), (several[:1], "av1"), (several, "transform")):
        (data,) = encode_chunks([values], target, EncodeOptions(preset="fast"))
        assert describe_chunk(data).mode == mode
    (data,) = encode_chunks([several[0]], Target(rmse=8, channel_axis=0), EncodeOptions(preset="fast"))
    assert describe_chunk(data).mode == "transform"


@pytest.mark.parametrize("target", [Target(rmse=8), Target(max_error=20), Target(lossless=True)])
def test_other_modes_and_other_targets_give_no_av1(target):
    options = {Target(rmse=8): "transform"}.get(target, "auto")
    (data,) = encode_chunks([volume((5, 66, 70), 3)], target, EncodeOptions(preset="fast", mode=options))
    assert describe_chunk(data).mode not in ("av1", "raw")


@pytest.mark.parametrize("values, rmse", [
    (volume((15, 16, 17), 3), 8), (volume((5000,), 3), 8), (volume((5, 66, 70), 3), 0.3),
    (volume((5, 66, 70), 3).astype("<f8") * 1e280, 1e279), (volume((8, 66, 70), 1, "<i8", base=2**60), 8),
    (volume((64, 20_000), 3), 8), (volume((64, 66, 2), 3) > 99, 0.1),
])  # fmt: skip
def test_what_the_mode_does_not_hold_gives_no_bid(values, rmse):
    assert encode_as(AV1, values, Target(rmse=rmse), None, FAST) is None


@pytest.mark.parametrize("values, target, mode", [
    (volume((15, 16, 17), 3), Target(rmse=8), "transform"), (volume((5, 66, 70), 3), Target(rmse=0.5), "transform"),
    (volume((3, 4, 66, 65), 3), Target(rmse=8, channel_axis=0), "transform"),
    (volume((5, 66, 70), 3), Target(max_error=9), "predictor"),
])  # fmt: skip
def test_a_chunk_that_the_mode_asked_for_does_not_hold_is_coded_by_another(values, target, mode):
    (data,) = encode_chunks([values], target, FAST)
    assert describe_chunk(data).mode == mode and quality.meets(values, decode_chunk(data), target)


def test_an_encoder_whose_streams_are_refused_is_an_error_where_it_is_asked_for(monkeypatch):
    sequence, *others = three()
    timing = bytes([*sequence[:2], sequence[2] | 4, *sequence[3:]])
    monkeypatch.setattr(library, "encode", lambda *_, **_options: b"".join([timing, *others]))
    with pytest.raises(MissingDependencyError, match=r"timing information.*another release of av"):
        encode_chunks([volume((3, 66, 70), 3)], Target(rmse=8), FAST)
    (data,) = encode_chunks([volume((3, 66, 70), 3)], Target(rmse=8), EncodeOptions(preset="fast"))
    assert describe_chunk(data).mode == "transform"


@pytest.mark.parametrize("rmse", [99, 400, 1e6])
def test_targets_beyond_the_range_of_the_values_are_no_error(rmse):
    values = volume((5, 66, 70), 3)
    data = encode_as(AV1, values, Target(rmse=rmse), None, FAST)
    assert data is None or quality.meets(values, decode_chunk(data), Target(rmse=rmse))


def test_numbers_far_from_zero_against_their_range_are_no_error():
    for base, dtype in ((2**29, "<i4"), (-(2**29), "<i4"), (2**30 - 99, "<u4"), (2**28, "<i8"), (2**18, "<f4")):
        values = volume((5, 66, 70), 1, dtype, 4, base)
        for rmse in (0.4, 2):
            data = encode_as(AV1, values, Target(rmse=rmse), None, FAST)
            assert data is None or quality.meets(values, decode_chunk(data), Target(rmse=rmse))


def test_threads_change_no_bytes():
    frames = maker("av1_streams").picture(7, 200, 180, 4)
    assert len({library.encode(frames, 40, 7, threads) for threads in (1, 2, 3, 5)}) == 1
    pieces = [volume((4, 66, 70), noise) for noise in (3, 9, 20)]
    made = [encode_chunks(pieces, Target(rmse=12), EncodeOptions(preset="fast", threads=n)) for n in (1, 3)]
    assert made[0] == made[1] and {describe_chunk(data).mode for data in made[0]} == {"av1"}


@pytest.mark.parametrize("height, width", [(64, 64), (64, 65), (71, 64), (65, 66), (66, 127), (129, 65)])
def test_frames_of_odd_sides_come_back(height, width):
    frames = maker("av1_streams").picture(3, height, width, 5)
    stream = library.encode(frames, 1, 7, 1)
    decoded = np.stack(list(library.decode(obu.temporal_units(stream, 3, width, height), width, height)))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).max() < 40 and np.sqrt(np.mean((decoded - 1.0 * frames) ** 2)) < 5


def test_planes_that_are_mostly_padding_are_left_out():
    assert av1._planes((64, 64, 64)) == [(0, 1), (0, 2), (1, 2)]
    assert av1._planes((4, 100, 100)) == [(1, 2)]
    assert av1._planes((1, 100, 1, 100)) == [(1, 3)]
    assert av1._planes((100,)) == av1._planes((1, 1)) == av1._planes((70, 16_385)) == []
    assert av1._planes((8704, 64)) == [(0, 1)] and av1._planes((8705, 64)) == []


# ---- without the library -----------------------------------------------------------------------------------


def test_without_the_library_a_chunk_names_it_and_encoders_take_transforms(monkeypatch):
    values = volume((5, 66, 70), 3)
    monkeypatch.setitem(sys.modules, "av", None)
    assert not library.is_installed()
    with pytest.raises(MissingDependencyError, match="pip install av"):
        decode_chunk(VALID["av1-i2-3d"])
    assert describe_chunk(VALID["av1-i2-3d"]).mode == "av1"
    with pytest.raises(CorruptChunkError):  # what is refused needs no library
        decode_chunk(SECTION_15["av1-padding"])
    (data,) = encode_chunks([values], Target(rmse=8), EncodeOptions(preset="fast"))
    assert describe_chunk(data).mode == "transform"
    with pytest.raises(MissingDependencyError, match="pip install av"):
        encode_chunks([values], Target(rmse=8), FAST)


@pytest.mark.parametrize("name", ["_ENCODER", "_DECODER"])
def test_a_library_that_was_built_without_a_codec_is_none(monkeypatch, name):
    monkeypatch.setattr(library, name, "libnothing")
    assert not library.is_installed()
    with pytest.raises(MissingDependencyError, match="libnothing"):
        encode_chunks([volume((5, 66, 70), 3)], Target(rmse=8), FAST)
    (data,) = encode_chunks([volume((5, 66, 70), 3)], Target(rmse=8), EncodeOptions(preset="fast"))
    assert describe_chunk(data).mode == "transform"


def test_other_chunks_do_not_load_the_library():
    code = "import sys; from inrstore.chunk.decode import decode_chunk; decode_chunk(bytes.fromhex(sys.argv[1])); "
    assert run_python(code + "print('av' in sys.modules)", vectors("subset")["transform-i2-3d"].hex()) == "False"


# ---- damage ------------------------------------------------------------------------------------------------


def test_damaged_streams_are_refused_by_name():
    """Bits of the stream, sealed again: the checksum of the values finds what a decoder lets pass."""
    rng = np.random.default_rng(6)
    for name in ("av1-i2-3d", "av1-u2-3d-hidden-frames", "av1-i2-gray"):
        data = VALID[name]
        begin, refused = frame.header_size(data[7]) + 26, 0
        for _ in range(200):
            place = int(rng.integers(begin, len(data) - 4))
            forged = maker().edit(data, place, bytes([data[place] ^ 1 << int(rng.integers(8))]))
            try:
                check_equal_bits(decode_chunk(forged), decode_chunk(data))  # some bits say nothing of the samples
            except CorruptChunkError as error:
                assert error.field in ("av1.stream", "decoded_crc")
                refused += 1
        assert refused > 100


def test_damaged_frames_kill_no_process():
    """The long run is tools/fuzz_chunks.py --mode av1; its result is kept in tools/results."""
    tally = fuzzer().run(seed=9, count=3000, mode=AV1.number)
    assert tally.failures == [] and tally.processes == 1 and tally.said == ""
    assert tally.slowest[0] < 1.0, tally.slowest
    assert tally.outcomes["CorruptChunkError: av1.stream by dav1d"] > 100 and tally.outcomes["array"] > 100
    assert max(tally.apart) < max(tally.apart[:500]) + (64 << 20)


def test_the_fuzzer_reports_a_process_that_dies_or_hangs():
    from tools.fuzz_apart import Apart

    abort, sleep = "input(); import os; os.abort()", "input(); import time; time.sleep(60)"
    for code, outcome, patience in ((abort, "crash", 30.0), ("", "crash", 30.0), (sleep, "hang", 0.5)):
        with Apart((sys.executable, "-c", code), patience) as apart:
            for _ in range(2):
                assert apart.ask(frame="00")["outcome"] == f"FAILED: {outcome}"
            assert apart.started == 2


# ---- memory and time ---------------------------------------------------------------------------------------


def measure(action: Any) -> tuple[int, float, Any]:
    """Return the peak of traced memory, the seconds, and what an action returns or is refused with."""
    begin = time.process_time()
    tracemalloc.start()
    try:
        result = action()
    except CorruptChunkError as error:
        result = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, time.process_time() - begin, result


@pytest.mark.parametrize("shape", [(32, 2048, 2048), (65536, 8, 8), (1, 1, 65536), (65537, 4, 4), (2, 2049, 2048)])
def test_a_small_stream_for_large_frames_costs_nothing(shape):
    for stream in (b"", b"".join(three()), three()[0] + b"".join(three()[1:]) * 900):
        peak, seconds, error = measure(lambda stream=stream: chunks.values_of(of_stream(shape, stream)))
        assert isinstance(error, CorruptChunkError) and error.field in ("av1.rows", "av1.stream")
        assert peak < 1 << 20 and seconds < 0.5


def test_frames_that_are_shown_again_and_again_cost_what_they_hold():
    """Three bytes show a frame of 64 x 64 once more; of it, one value is wanted."""
    sequence, key, hidden, inter, shows = three()
    count = 60_000
    stream = sequence + key + hidden + inter + shows * (count - 2)
    peak, seconds, values = measure(lambda: chunks.values_of(of_stream((count, 1, 1), stream)))
    assert peak < 64 << 20 and seconds < 20
    assert isinstance(values, CorruptChunkError) or values.shape == (count, 1, 1)


def test_many_hidden_frames_are_refused_soon():
    sequence, key, *_ = three()
    payload = bytes([0b0010_0000, 0])  # an inter frame that is not shown
    for count in (60_000, 30_000):
        stream = sequence + key + (b"\x32" + bytes([len(payload)]) + payload) * (count + 1)
        peak, seconds, error = measure(lambda n=count, s=stream: chunks.values_of(of_stream((n, 1, 1), s)))
        assert isinstance(error, CorruptChunkError) and "more than" in str(error)
        assert peak < 16 << 20 and seconds < 20


_LARGE = """
import resource, sys
import numpy as np
from inrstore.chunk import decode as chunks
from inrstore.chunk.frame import Frame
stream = bytes.fromhex(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
values = chunks.values_of(Frame(7, np.dtype("i1"), (32, 2048, 2048), 0, memoryview(stream)))
assert values.shape == (32, 2048, 2048)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


def test_the_largest_frames_of_a_tiny_stream_are_bounded():
    """Two frames of 2048 x 2048 in 82 bytes, the second 31 times: 2^27 values of one byte, in all some 400 MiB."""
    stream = library.encode(np.full((2, 2048, 2048), 500, np.uint16), 60, 12, 1)
    sequence, key, inter = (bytes(unit.whole) for unit in obu.units(stream))
    forged = of_stream((32, 2048, 2048), sequence + key + inter * 31, "i1").payload
    begin = time.perf_counter()
    assert int(run_python(_LARGE, bytes(forged).hex())) < 700
    assert time.perf_counter() - begin < 30


def test_a_frame_of_its_own_is_sealed_and_opened():
    """A frame with everything by hand: header, stream, and what readers make of them."""
    values = np.zeros((3, 5, 6), "<i2")
    header = Header(1, 2, 1, 0, 0, 1023, 2, 0)  # the samples themselves
    data = seal(AV1, values, b"\0" + header.write() + b"".join(three()))
    frames = library.decode(obu.temporal_units(b"".join(three()), 3, 64, 64), 64, 64)
    check_equal_bits(decode_chunk(data), np.stack([luma[:5, :6] for luma in frames]).astype("<i2"))
    assert struct.unpack_from("<4B", data, 4) == (1, 7, 2, 3)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
def test_an_encode_leaves_the_threads_scheduling_as_it_was():
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)
    library.encode(np.zeros((2, 64, 64), np.uint16), 40, 8, 1)
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)) == before
