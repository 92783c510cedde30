"""Damaged and forged chunks: refused by name, never another exception, in little time and memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import check_equal_bits, decoder, fuzzer, golden, maker, vectors

from inrstore.chunk import decode as chunks
from inrstore.chunk import envelope as envelopes
from inrstore.chunk import frame, modes
from inrstore.chunk.byteplanes import encode as byteplanes
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.decode import decode_chunk, decode_region, describe_chunk
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.layers import SINE, Layer
from inrstore.chunk.inr.network import Coordinates, Network
from inrstore.errors import CorruptChunkError, LimitExceededError

_LATER = ("transform-i2-4d", "transform-i2-3d-mask", "transform-f4-3d-exceptions", "transform-i2-escapes-of-13-bits",
          "av1-i2-3d-mask", "av1-f4-3d")  # fmt: skip
GOLDEN = {**golden(), **{name: vectors("subset", "uncommon")[name] for name in _LATER}}
"""Golden chunks, and vectors of the modes that came after them."""
MARGIN = 32 << 20


def refused(action: Callable[[], Any]) -> str:
    """Return the field that a chunk is refused for."""
    with pytest.raises(CorruptChunkError) as caught:
        action()
    return caught.value.field


# ---- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_every_single_bit_flip_is_found(name):
    data = bytearray(GOLDEN[name])
    missed = []
    for bit in range(8 * len(data)):
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            decode_chunk(bytes(data))
            missed.append(bit)
        except CorruptChunkError:
            pass
        data[bit >> 3] ^= 1 << (bit & 7)
    assert not missed
    assert bytes(data) == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_and_any_byte_appended_is_found(name):
    data = GOLDEN[name]
    for stop in range(len(data)):
        refused(lambda stop=stop: decode_chunk(data[:stop]))
    for byte in range(256):
        assert refused(lambda byte=byte: decode_chunk(data + bytes([byte]))) == "frame_crc"


def test_damage_is_found_by_every_way_in():
    data = bytearray(GOLDEN["siren-i2-4d"])
    data[60] ^= 8
    for way in (decode_chunk, describe_chunk, lambda d: decode_region(d, (0, 0, 0, slice(None)))):
        assert refused(lambda way=way: way(bytes(data))) == "frame_crc"


def test_wrong_decoded_values_are_found():
    """A decoder that went wrong somewhere would be noticed: the checksum of the values is tested too."""
    tool = maker()
    for name, data in GOLDEN.items():
        at = frame.header_size(data[7]) - 8
        forged = tool.edit(data, at, bytes(b ^ 0xFF for b in data[at : at + 4]))
        assert refused(lambda forged=forged: decode_chunk(forged)) == "decoded_crc", name


def test_the_error_survives_pickling():
    import pickle

    with pytest.raises(LimitExceededError) as caught:
        decode_chunk(vectors("faulty")["ndim-9"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.field, str(again)) == (LimitExceededError, "ndim", str(caught.value))


# ---- forged chunks with a correct checksum -----------------------------------------------------------------


def test_mutated_chunks_give_an_array_or_a_named_error():
    """The long run of a million is tools/fuzz_chunks.py; its result is kept in tools/results."""
    tally = fuzzer().run(seed=7, count=20_000)
    assert tally.failures == []
    assert tally.slowest[0] < 1.0, tally.slowest
    assert tally.peak < MARGIN
    reached = {outcome for outcome in tally.outcomes if ":" in outcome}
    assert len(reached) > 35, sorted(reached)  # the parsers behind the checksum are what is tested
    assert tally.outcomes["array"] > 500


def test_both_readers_agree_on_what_is_valid():
    tool, reader = fuzzer(), decoder()
    seen = [tool.agree(reader, data) for _, _, data in tool.cases(seed=8, count=1500)]
    assert seen.count("both decode, equal bits") > 100
    assert seen.count("both refuse") > 500


def test_every_value_of_every_header_byte_is_handled():
    """All 256 values of each byte of the frame's header, sealed again, with the array's shape known and unknown."""
    tool = fuzzer()
    for name in ("raw-i2-1d", "constant-i2-3d", "planes-integer-u2-channels", "siren-i2-3d"):
        data = GOLDEN[name]
        parsed = frame.unpack(data)
        for place in range(4, 8):
            for value in range(256):
                forged = tool.reseal(data[:place] + bytes([value]) + data[place + 1 : -4])
                for known in ((parsed.shape, parsed.dtype), (None, None)):
                    try:
                        values = tool.decode_unchecked(forged, *known)
                        tool.check_array(values, parsed.shape, known[1] or frame.unpack(forged).dtype)
                    except CorruptChunkError:
                        pass


# ---- memory and time ---------------------------------------------------------------------------------------


def measure(action: Callable[[], Any]) -> tuple[int, float]:
    """Return the peak of traced memory and the processor time of an action that may be refused."""
    action_begin = time.process_time()
    tracemalloc.start()
    try:
        action()
    except CorruptChunkError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, time.process_time() - action_begin


def check_bounded(data: bytes, shape: tuple[int, ...] | None, dtype: str, decoded: int, seconds: float = 1.0) -> None:
    """Check that decoding stays within eight times the chunk and a margin, refused or not."""
    bound = 8 * max(decoded, len(data)) + MARGIN
    for action in (lambda: decode_chunk(data, shape, dtype), lambda: describe_chunk(data),
                   lambda: chunks.values_of(frame.unpack(data, shape, np.dtype(dtype)))):  # fmt: skip
        peak, took = measure(action)
        assert peak <= bound, f"{peak >> 20} MiB where {bound >> 20} are allowed"
        assert took < seconds


def zeros_packed(size: int) -> bytes:
    """Return the zlib stream of many zeros."""
    engine, block = zlib.compressobj(1), bytes(1 << 20)
    return b"".join(engine.compress(block) for _ in range(size >> 20)) + engine.flush()


def test_zlib_bombs_cost_no_memory():
    tool, bomb = maker(), zeros_packed(300 << 20)
    whole = encode_as(modes.BYTEPLANES, tool.smooth((8, 9), "<i2", 1))
    planes_bomb = tool.repack(whole, tool.payload_of(whole)[:4] + bomb)
    assert refused(lambda: decode_chunk(planes_bomb, (8, 9), "<i2")) == "byteplanes.data"
    check_bounded(planes_bomb, (8, 9), "<i2", 144)

    real = encode_as(modes.BYTEPLANES, tool.smooth((8, 9), "<f4", 1))
    bitmap = zlib.compress(np.packbits(np.ones(72, bool)).tobytes())
    for streams, field in (((bomb, bitmap), "envelope.exceptions"), ((bitmap, bomb), "envelope.values")):
        inside = b"".join(struct.pack("<I", len(s)) + s for s in streams)
        forged = tool.repack(real, b"\2" + inside + tool.payload_of(real)[1:])
        assert refused(lambda forged=forged: decode_chunk(forged, (8, 9), "<f4")) == field
        check_bounded(forged, (8, 9), "<f4", 288)


@pytest.mark.parametrize(
    "name", ["constant-i2-3d", "planes-exact-i2-3d", "planes-exact-i2-box", "siren-i2-3d", "raw-f4-3d"]
)
def test_a_huge_shape_is_refused_before_anything_is_allocated(name):
    tool, data = maker(), GOLDEN[name]
    parsed = frame.unpack(data)
    huge = tool.edit(data, 8, struct.pack("<III", 512, 512, 512))
    peak, took = measure(lambda: decode_chunk(huge, parsed.shape, parsed.dtype))
    assert peak < 1 << 20 and took < 0.1
    assert refused(lambda: decode_chunk(huge, parsed.shape, parsed.dtype)) == "shape"
    for lengths in ((513, 512, 512), (2**32 - 1,) * 3, (2**31, 2**31, 4), (2**27 + 1, 1, 1)):
        above = tool.edit(data, 8, struct.pack("<III", *lengths))
        with pytest.raises(LimitExceededError) as caught:
            decode_chunk(above)
        assert caught.value.field == "shape"


def test_a_huge_shape_that_nobody_contradicts_costs_in_proportion():
    tool = maker()
    constant = tool.edit(encode_as(modes.CONSTANT, np.full((2, 2, 2), 3, "i1")), 8, struct.pack("<III", 256, 256, 512))
    values = chunks.values_of(frame.unpack(constant))
    assert values.shape == (256, 256, 512) and (values == 3).all()
    check_bounded(constant, None, "i1", 1 << 25, seconds=5)
    # Little data for many values: nothing is allocated for what the data does not hold.
    for name in ("planes-exact-i2-3d", "planes-integer-i2-3d", "planes-exact-f4-exceptions"):
        forged = tool.edit(GOLDEN[name], 8, struct.pack("<III", 512, 512, 512))
        peak, took = measure(lambda forged=forged: decode_chunk(forged))
        assert peak < MARGIN and took < 1, name


def test_parameters_that_the_payload_does_not_earn_are_refused():
    tool, data = maker(), GOLDEN["siren-i2-3d"]
    payload = tool.payload_of(data)
    at = 1 + 10 + 2  # behind flags, the mode's own fields, and the kind and number of inputs
    for layers, width in ((16, 256), (1, 256), (16, 64)):
        body = payload[:at] + bytes([layers]) + bytes([1, width - 1]) * layers + payload[at + 1 + 2 * payload[at] :]
        forged = tool.repack(data, body)
        field = refused(lambda forged=forged: decode_chunk(forged))
        assert field in ("network.outputs", "rans.states", "network.multipliers", "network.peak")
        check_bounded(forged, None, "<i2", 700)


def _zero_network(box: tuple[int, ...], axis: int | None, layers: int, width: int, low: int, high: int) -> siren.Siren:
    channels = 1 if axis is None else box[axis]
    inputs = len(siren.space_axes(box, axis))

    def zeros(*shape: int) -> Any:
        return np.zeros(shape, np.int64)

    first = zeros(width, inputs)
    first[:, :1] = (np.arange(width) % 7 - 3)[:, None]
    matrices = [first, *(zeros(width, width) for _ in range(layers - 1))]
    hidden = tuple(Layer(SINE, matrix, zeros(width), 1 << 22) for matrix in matrices)
    network = Network(Coordinates(inputs), hidden, 1 << 22, zeros(channels, width), np.array([1 << 10]),
                      np.arange(channels) % 50, 20)  # fmt: skip
    return siren.Siren(axis, network, 0, low, high)


@pytest.mark.parametrize(
    "shape, axis, layers, width, dtype",
    [
        ((1 << 20,), None, 1, 32, "i1"),  # one long axis
        ((1 << 20, 1), None, 1, 32, "i1"),
        ((1, 1 << 20), None, 1, 32, "i1"),
        ((16384, 8, 8), 0, 1, 8, "i1"),  # many channels
        ((16384, 1), 0, 1, 250, "i1"),  # close to 2^22 parameters for few values
        ((4_000_000, 1), 0, 1, 1, "i1"),
        ((4096, 1), None, 16, 256, "i1"),  # the largest network
        ((32, 32, 16), None, 2, 256, "<u2"),
    ],
)
def test_networks_of_every_shape_stay_within_memory(shape, axis, layers, width, dtype):
    like = np.zeros(shape, dtype)
    network = _zero_network(shape, axis, layers, width, 0, 127)
    payload = envelopes.write(envelopes.whole(shape), shape) + siren.write(network)
    if len(payload) - 11 < -(-network.network.parameters // 64):  # symbols that cost nothing still have to be paid for
        forged = frame.Frame(modes.SIREN.number, like.dtype, shape, 0, memoryview(payload))
        assert refused(lambda: chunks.values_of(forged))
        heavy = [np.tile([[1] + [0] * 63], (width, width // 64))] * (layers - 1)
        readout = np.tile(np.arange(width) % 64 == 1, (network.network.outputs, 1)).astype(int)
        network = maker().altered(network, weights=[network.network.layers[0].weights, *heavy], readout=readout)
        payload = envelopes.write(envelopes.whole(shape), shape) + siren.write(network)
    data = seal(modes.SIREN, like, payload)
    check_bounded(data, shape, dtype, like.nbytes, seconds=10)


@pytest.mark.parametrize("shape", [(1 << 22,), (1, 1 << 22), (1 << 22, 1), (2, 1 << 20, 2)])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("dtype", ["u1", "f2"])
def test_planes_of_every_shape_stay_within_memory(shape, axis, dtype):
    values = (np.arange(1 << 22) % 251).astype(dtype).reshape(shape)
    axis = None if axis is None else axis % len(shape)
    steps = np.full(1 if axis is None else shape[axis], 3.0)
    # made by hand: choosing the axes to difference would only take time
    grid = Quantiser.over(values, steps, axis)
    index = grid.index(values)
    kind = {"u": 1, "f": 2}[values.dtype.kind]
    head = struct.pack("<BBB", 0, kind, 255 if grid.axis is None else grid.axis) + grid.write(values.dtype)
    payload = head + struct.pack("<BB", 1, 0) + byteplanes.pack(index, 0, 1)
    like = np.zeros(shape, dtype)
    decoded = chunks.values_of(frame.Frame(modes.BYTEPLANES.number, like.dtype, shape, 0, memoryview(payload)))
    assert np.abs(decoded.astype(int) - values.astype(int)).max() <= 1.5
    data = seal(modes.BYTEPLANES, like, payload, decoded)
    check_bounded(data, shape, dtype, like.nbytes, seconds=10)


def test_chance_bytes_are_refused():
    source, tool = random.Random(3), fuzzer()
    for _ in range(3000):
        noise = source.randbytes(source.randrange(80))
        refused(lambda noise=noise: decode_chunk(noise))
        refused(lambda noise=noise: decode_chunk(b"\x89INR" + noise))
        try:
            tool.decode_unchecked(tool.reseal(b"\x89INR\1" + noise), (3, 4), np.dtype("<i2"))
        except CorruptChunkError:
            pass


def test_bytes_and_views_of_them_decode_alike():
    data = GOLDEN["siren-i2-4d"]
    check_equal_bits(decode_chunk(memoryview(data)), decode_chunk(data))
    check_equal_bits(decode_chunk(bytearray(data)), decode_chunk(data))
    check_equal_bits(decode_chunk(np.frombuffer(data, np.uint8).data), decode_chunk(data))
