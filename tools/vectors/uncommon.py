"""The uncommon vectors: types, layouts and extremes that are legal, and seldom seen."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.byteplanes import encode as byteplanes
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.network import pack_gain, unpack_gain

from .frames import (
    Array,
    Net,
    altered,
    ball,
    boxed,
    grid_of,
    like,
    payload_of,
    planes_frame,
    repack,
    siren_frame,
    smooth,
    with_exceptions,
    with_mask,
)
from .parts import PARTS


def uncommon() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of rare types, layouts and extremes."""
    rng = np.random.default_rng(100)
    # no axes at all
    yield "raw-f8-0d", encode_as(modes.RAW, np.array(np.pi))
    yield "constant-i4-0d", encode_as(modes.CONSTANT, np.array(-7, "<i4")) or b""
    yield "planes-exact-i2-0d", planes_frame(np.array(-300, "<i2"), None)
    yield (
        "planes-integer-i2-0d",
        planes_frame(np.array(77, "<i2"), Quantiser(-300, 900, np.array([10], np.uint64), None)),
    )
    envelope = Envelope((), (), b"", np.array(True), np.array([np.nan], "<f4"))
    yield (
        "planes-float-f4-0d-exception",
        planes_frame(np.array(1, "<f4"), Quantiser(0.0, 2.0, np.array([0.5]), None), envelope),
    )
    yield "siren-f4-0d", siren_frame(like((), "<f4"), Net(seed=101, layers=2, width=4))
    yield "siren-f4-0d-exception", siren_frame(like((), "<f4"), Net(seed=101, layers=2, width=4), envelope)
    yield "siren-i2-1d-channels-only", siren_frame(like((6,), "<i2"), Net(seed=102, layers=2, width=5, axis=0))
    # eight axes
    shape = (2, 1, 3, 2, 1, 2, 3, 2)
    yield "raw-u1-8d", encode_as(modes.RAW, rng.integers(0, 256, shape).astype("u1"))
    values = smooth(shape, "<i2", 103)
    yield "planes-exact-i2-8d", planes_frame(values, None)
    all_axes = planes_frame(values, None)  # differenced along every axis
    core = _payload_differenced(values, 0xFF)
    yield "planes-exact-i2-8d-all-axes", repack(all_axes, core)
    yield "siren-i2-8d", siren_frame(like(shape, "<i2"), Net(seed=104, layers=3, width=8, axis=2))
    yield "siren-i2-8d-box", siren_frame(
        like(shape, "<i2"), Net(seed=105, layers=2, width=6),
        boxed((0, 0, 1, 0, 0, 1, 0, 0), (2, 1, 3, 1, 1, 2, 2, 2), np.array(9, "<i2")),
    )  # fmt: skip
    # byte orders and memory layouts
    yield "raw-i2-big-endian", encode_as(modes.RAW, rng.integers(-999, 999, (5, 6)).astype(">i2"))
    yield "constant-f4-big-endian", encode_as(modes.CONSTANT, np.full((3, 2), 1.5, ">f4")) or b""
    yield "planes-exact-f8-big-endian", planes_frame(smooth((6, 7), "<f8", 106).astype(">f8"), None)
    yield "siren-i2-big-endian", siren_frame(like((3, 4, 5, 6), ">i2"), Net(seed=107, layers=2, width=8, axis=0))
    yield (
        "siren-f4-big-endian-exceptions",
        siren_frame(
            like((5, 6), ">f4"), Net(seed=108, layers=2, width=6), with_exceptions(envelopes.whole((5, 6)), "<f4", 108)
        ),
    )
    yield "raw-u4-fortran", encode_as(modes.RAW, np.asfortranarray(rng.integers(0, 2**32, (4, 5), dtype=np.uint32)))
    yield "planes-exact-i2-fortran", planes_frame(np.asfortranarray(smooth((5, 6, 7), "<i2", 109)), None)
    yield (
        "siren-u2-fortran-big-endian",
        siren_frame(like((4, 5, 6), ">u2", "F"), Net(seed=110, layers=2, width=8, low=0, high=4000, centre=1500)),
    )
    # bool
    truth = rng.random((9, 10)) < 0.3
    yield "raw-bool", encode_as(modes.RAW, truth)
    yield "constant-bool", encode_as(modes.CONSTANT, np.ones((4, 5), bool)) or b""
    yield "planes-exact-bool", planes_frame(truth, None)
    yield "planes-exact-bool-box", planes_frame(truth, None, boxed((2, 3), (8, 9), np.array(True)))
    # extremes of 64 bits
    extreme = rng.choice(np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64), (5, 6))
    yield "planes-exact-u8-extremes", planes_frame(extreme.astype("<u8"), None)
    yield (
        "planes-integer-u8-extremes",
        planes_frame(extreme, Quantiser(0, 2**64 - 1, np.array([2**62 - 1], np.uint64), None)),
    )
    signed = extreme.view("<i8")
    yield (
        "planes-integer-i8-extremes",
        planes_frame(signed, Quantiser(-(2**63), 2**63 - 1, np.array([2**61 + 1], np.uint64), None)),
    )
    values = rng.integers(-100, 101, (6, 5)).astype("<i8")
    yield "planes-integer-i8-saturating", planes_frame(values, Quantiser(-100, 100, np.array([150], np.uint64), None))
    values = rng.integers(0, 9, (4, 6)).astype("<u8") * np.uint64(2**60)
    yield (
        "planes-integer-u8-channels-last",
        planes_frame(values, grid_of(values, [1e15, 2e18, 3, 9e17, 2**50, 1e19], 1)),
    )
    yield (
        "siren-u8-2to63",
        siren_frame(
            like((6, 7), "<u8"),
            Net(seed=111, layers=2, width=6, exponent=33, low=0, high=2**31 - 1, amplitude=2e9, centre=1e8),
        ),
    )
    yield (
        "siren-i8-exponent-40",
        siren_frame(
            like((6, 7), "<i8"),
            Net(seed=112, layers=2, width=6, exponent=40, low=-(2**23), high=2**23 - 1, amplitude=9e6),
        ),
    )
    yield (
        "siren-u4",
        siren_frame(
            like((6, 7), "<u4"),
            Net(seed=113, layers=2, width=6, exponent=1, low=0, high=2**31 - 1, amplitude=2e9, centre=1e8),
        ),
    )
    # float16 and float edges
    yield "raw-f2", encode_as(modes.RAW, rng.integers(0, 2**16, (7, 8)).astype("<u2").view("<f2"))
    yield "planes-exact-f2", planes_frame(smooth((8, 9), "<f2", 114), None)
    values = smooth((8, 9), "<f2", 115)
    yield "planes-float-f2", planes_frame(values, grid_of(values, 1.3))
    yield "siren-f2-exceptions", siren_frame(
        like((7, 8), "<f2"), Net(seed=116, layers=2, width=6, exponent=-3, low=-20000, high=20000, amplitude=9000),
        with_exceptions(envelopes.whole((7, 8)), "<f2", 116),
    )  # fmt: skip
    yield (
        "siren-f2-subnormal",
        siren_frame(
            like((7, 8), "<f2"), Net(seed=117, layers=2, width=6, exponent=-26, low=-300, high=300, amplitude=200)
        ),
    )
    yield (
        "siren-f4-exponent-minus-100",
        siren_frame(like((7, 8), "<f4"), Net(seed=118, layers=2, width=6, exponent=-100, amplitude=900)),
    )
    yield "siren-f4-exponent-97", siren_frame(
        like((7, 8), "<f4"), Net(seed=119, layers=2, width=6, exponent=97, low=-(2**31) + 128, high=2**31 - 128,
                                 amplitude=3e9),
    )  # fmt: skip
    yield (
        "planes-float-f8-huge",
        planes_frame(
            like((5, 6), "<f8"), Quantiser(-1.7e308, 1.7e308, np.array([1.5e308]), None), core=np.full((5, 6), -1.7e308)
        ),
    )
    overflow = _float_indices((5, 6), [0, 1, 2, 3, 255])
    yield (
        "planes-float-f8-overflow",
        _planes_of_indices((5, 6), "<f8", struct.pack("<dd", -1.7e308, 1.7e308) + struct.pack("<d", 1.5e308), overflow),
    )
    yield "planes-float-f8-wide-index", _planes_of_indices(
        (4, 3), "<f8", struct.pack("<ddd", -1.0, 1e30, 1e11),
        rng.integers(2**53, 2**64, (4, 3), dtype=np.uint64),
    )  # fmt: skip
    for name, low, high in (("low", -0.0, 5.0), ("high", -1.0, -0.0), ("both", -0.0, -0.0)):
        index = _float_indices((3, 4), [0, 1, 2, 9])
        head = struct.pack("<ddd", low, high, 0.5)
        yield f"planes-float-f4-minus-zero-{name}", _planes_of_indices((3, 4), "<f4", head, index)
    # networks at the limits
    yield (
        "siren-width-256",
        siren_frame(like((3, 4, 5), "<i2"), Net(seed=120, layers=2, width=256, spread=20, density=0.01, amplitude=900)),
    )
    yield "siren-16-layers", siren_frame(like((3, 4, 5), "<i2"), Net(seed=121, layers=16, width=8))
    yield "siren-width-1", siren_frame(like((5, 4, 6), "<i2"), Net(seed=122, layers=3, width=1, spread=60))
    yield (
        "siren-channels-in-the-middle",
        siren_frame(like((4, 6, 5, 3), "<i2"), Net(seed=123, layers=3, width=8, axis=1, each=True)),
    )
    yield "siren-channels-last", siren_frame(like((4, 5, 6), "<i2"), Net(seed=124, layers=2, width=8, axis=2))
    yield (
        "siren-many-channels",
        siren_frame(like((300, 2, 2), "<i2"), Net(seed=125, layers=2, width=4, axis=0, spread=6)),
    )
    base = Net(seed=126, layers=2, width=6).build((6, 7))
    zeros = [np.zeros_like(layer.weights) for layer in base.network.layers]
    yield "siren-all-zero", siren_frame(
        like((6, 7), "<i2"),
        altered(base, weights=zeros, biases=np.zeros((2, 6), np.int64), readout=np.zeros((1, 6), np.int64),
                gains=np.zeros(1, np.int64)),
    )  # fmt: skip
    yield "siren-peaks-1023", siren_frame(like((6, 7), "<i2"), altered(
        base, weights=[np.where(base.network.layers[0].weights % 2, 1023, -1023), np.eye(6, dtype=np.int64) * 1023],
        biases=np.array([[1023, -1023, 7, 0, -7, 3]] * 2), readout=np.full((1, 6), 1023),
        gains=unpack_gain(np.array([pack_gain(500.0)])))
    )  # fmt: skip
    yield "siren-shift-4-gain-0", siren_frame(like((6, 7), "<i2"), altered(
        base, shift=4, gains=np.array([0]), offsets=np.array([8 + 16 * 5])))  # fmt: skip
    yield "siren-shift-34-gain-2to27", siren_frame(like((6, 7), "<i4"), altered(
        base, shift=34, gains=unpack_gain(np.array([0xFFFF])), offsets=np.array([1 - 2**22]),
        low=-(2**31), high=2**31 - 1))  # fmt: skip
    yield "siren-offset-minus-2to31", siren_frame(like((6, 7), "<i4"), altered(
        base, shift=24, offsets=np.array([-(2**31)]), low=-(2**31), high=2**31 - 1))  # fmt: skip
    yield "siren-largest-multipliers", siren_frame(like((6, 7), "<i2"), altered(base, multipliers=[2**32 - 1] * 3))
    yield "siren-low-is-high", siren_frame(like((6, 7), "<i2"), altered(base, low=12, high=12))
    plain = payload_of(siren_frame(like((6, 7), "<i2"), base))
    kind_at = 1 + 10 + 2 + 1 + 4 + 4 + 12 + 24 + 1
    one_each = plain[:kind_at] + b"\1" + plain[kind_at + 1 :]
    yield "siren-gain-kind-1-of-one-channel", repack(siren_frame(like((6, 7), "<i2"), base), one_each)
    yield from _architectures(base)
    net = Net(seed=127, layers=2, width=6).build((1, 1, 1))
    yield "siren-one-value", siren_frame(like((1, 1, 1), "<i2"), net)
    yield "planes-exact-one-value", planes_frame(np.full((1, 1), 258, "<i4"), None)
    envelope = Envelope((0, 0), (3, 4), b"", np.ones((3, 4), bool), rng.normal(size=12).astype("<f4"))
    yield "siren-only-exceptions", siren_frame(like((3, 4), "<f4"), Net(seed=128, layers=1, width=3), envelope)
    envelope = Envelope((0, 0), (3, 4), b"", np.zeros((3, 4), bool), np.zeros(0, "<f4"))
    yield "siren-no-exceptions-listed", siren_frame(like((3, 4), "<f4"), Net(seed=128, layers=1, width=3), envelope)
    yield from _masks()
    for part in PARTS:
        yield from part[1]()


def _architectures(base: siren.Siren) -> Iterator[tuple[str, bytes]]:
    """Yield networks whose layers differ, and sums as large as they may be."""
    for name, layers, widths in (
        ("relu", "relu", (12, 12, 12)), ("linear", "linear", (5,)), ("sine-first", "sine relu relu", (16, 9, 12)),
        ("sine-last", "relu linear sine", (9, 4, 14)), ("tanh", "tanh", (12, 12, 11)),
        ("one-unit-between", "relu sine", (7, 1, 6, 256)),
    ):  # fmt: skip
        net = Net(seed=140 + len(widths), layers=0, width=9, widths=widths, activations=layers, axis=0, each=True)
        yield f"siren-i2-{name}", siren_frame(like((3, 4, 5, 6), "<i2"), net)
    net = Net(seed=149, layers=2, width=9, activations="tanh relu", axis=0)
    yield "siren-u2-tanh-one-slice", siren_frame(like((4, 1, 6, 7), "<u2"), replace(net, low=0, high=900, centre=300))
    net = Net(seed=145, layers=2, width=9, activations="relu", exponent=-3)
    yield "siren-f4-relu-box", siren_frame(like((5, 6), "<f4"), net, boxed((1, 0), (5, 4), np.array(1.5, "<f4")))
    yield "siren-i2-relu-0d", siren_frame(like((), "<i2"), Net(seed=146, layers=2, width=3, activations="relu linear"))
    # z of layers that do not wrap up to 2^52 - 1, of a first layer of coordinates and of an inner one
    relu = altered(base, activations=["relu", "linear"])
    weights = [np.zeros((6, 2), np.int64), np.zeros((6, 6), np.int64)]
    weights[0][:4, 1], weights[1][:, :2] = (
        [1000, -1000, 999, 1],
        [[1023, 3], [-1023, 3], [0, 1], [1, 0], [0, 0], [2, -2]],
    )
    biases = np.array([[0, 0, -1023, 1023, 5, -5], [1022, -1022, 1, -1, 0, 7]])
    multipliers = [2**52 // (1000 * 1499), (2**52 - 1022 * (2**32 - 1)) // (1026 * 1023), 2**32 - 1]
    yield "siren-largest-sums", siren_frame(like((2, 1500), "<i2"), altered(
        relu, weights=weights, biases=biases, multipliers=multipliers))  # fmt: skip
    # a z that is a half of a unit, and one less
    halves = np.array([[1, -1, 3, -3, 0, 2], [1, -1, 3, -3, 0, 2]])
    yield "siren-halves", siren_frame(like((6, 7), "<i2"), altered(
        relu, weights=[0 * w for w in weights], biases=halves, multipliers=[1, 1, 2**23], shift=12,
        gains=np.array([4095])))  # fmt: skip
    yield "siren-below-halves", siren_frame(like((6, 7), "<i2"), altered(
        relu, weights=[0 * w for w in weights], biases=halves, multipliers=[1, 1, 2**23 - 1], shift=12,
        gains=np.array([4095])))  # fmt: skip
    for size in (1, 2, 3, 4):
        net = Net(seed=147, layers=1, width=4, axis=0).build((3, 4))
        offsets = np.array([-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1, -1])
        frame_bytes = siren_frame(like((3, 4), "<i4"), altered(net, offsets=offsets, low=-(2**31), high=2**31 - 1))
        yield f"siren-offsets-of-{size}-bytes", frame_bytes
    long = altered(Net(seed=148, layers=1, width=4, axis=0).build((3, 4)), offsets=np.array([-1, 0, 300]))
    yield "siren-offsets-longer-than-needed", _long_offsets(siren_frame(like((3, 4), "<i2"), long), [-1, 0, 300])


def _long_offsets(frame_bytes: bytes, offsets: list[int]) -> bytes:
    """Return a frame with one layer, one gain and offsets of two bytes, these written in four."""
    payload, at = payload_of(frame_bytes), 1 + 10 + 2 + 1 + 2 + 4 + 8 + 18 + 4
    assert payload[at] == 2
    return repack(frame_bytes, payload[:at] + struct.pack("<B3i", 4, *offsets) + payload[at + 7 :])


def _masks() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of rare masks."""
    rng = np.random.default_rng(130)
    outside = np.zeros((1, 1), bool)
    yield "constant-bool-outside", encode_as(modes.CONSTANT, np.zeros((4, 5), bool), mask=outside) or b""
    nan = np.full((3, 4), 0x7FC00123, "<u4").view("<f4")
    yield "constant-f4-nan-outside", repack(encode_as(modes.CONSTANT, nan) or b"", nan[:1, :1].tobytes() + b"\1")
    values = smooth((6, 7), "<i2", 131)
    for name, bit in (("inside", True), ("outside", False)):
        envelope = with_mask(envelopes.whole((6, 7)), np.full((1, 1), bit), np.array(-3, "<i2"))
        yield f"planes-exact-i2-mask-of-no-axes-{name}", planes_frame(values, None, envelope)
    envelope = with_mask(boxed((1, 0), (5, 6), values[0, 0]), np.zeros((4, 6), bool), np.array(9, "<i2"))
    yield "planes-exact-i2-mask-empty", planes_frame(values, None, envelope)
    envelope = with_mask(envelopes.whole((9,)), np.arange(9) % 3 > 0, np.array(1, "<i2"))
    yield (
        "siren-i2-1d-mask-of-channels",
        siren_frame(like((9,), "<i2"), Net(seed=132, layers=2, width=5, axis=0), envelope),
    )
    envelope = with_mask(envelopes.whole(()), np.array(False), np.array(2.5, "<f4"))
    yield "siren-f4-0d-mask", siren_frame(like((), "<f4"), Net(seed=133, layers=2, width=4), envelope)
    shape = (2, 5, 4, 6, 7)
    envelope = with_mask(envelopes.whole(shape), ball(shape), np.array(0, "<u2"))
    yield "planes-exact-u2-mask-of-5-axes", planes_frame(smooth(shape, "<u2", 134), None, envelope)
    shape = (2, 1, 3, 2, 1, 2, 3, 2)
    envelope = with_mask(envelopes.whole(shape), np.asarray(rng.random(shape) < 0.5), np.array(0, "<i2"))
    yield "siren-i2-8d-mask", siren_frame(like(shape, "<i2"), Net(seed=135, layers=2, width=6, axis=2), envelope)
    shape = (17, 24, 20)
    envelope = with_mask(envelopes.whole(shape), np.asarray(rng.random(shape) < 0.4), np.array(0, "u1"))
    yield "planes-exact-u1-mask-of-noise", planes_frame(like(shape, "u1"), None, envelope)
    truth = rng.random((9, 10)) < 0.3
    envelope = with_mask(envelopes.whole((9, 10)), ball((9, 10)), np.array(True))
    yield "planes-exact-bool-mask", planes_frame(truth, None, envelope)
    envelope = with_mask(envelopes.whole((9, 10)), ball((9, 10)), nan[0, 0])
    yield "siren-f4-mask-filled-with-nan", siren_frame(like((9, 10), "<f4"), Net(seed=136, layers=2, width=5), envelope)
    envelope = with_mask(envelopes.whole((7, 8)), ball((1, 8)), np.array(4, "<u2"))
    net = Net(seed=137, layers=2, width=8, low=0, high=4000, centre=1500)
    yield "siren-u2-mask-fortran-big-endian", siren_frame(like((7, 8), ">u2", "F"), net, envelope)
    row = np.zeros((1, 40_000), bool)
    row[0, 100:39_000] = True
    envelope = with_mask(envelopes.whole(row.shape), row, np.array(0, "u1"))
    yield "planes-exact-u1-mask-of-a-long-axis", planes_frame(like(row.shape, "u1"), None, envelope)


def _payload_differenced(values: Array, axes: int) -> bytes:
    """Return an exact planes payload that was differenced along the given axes, whatever pays."""
    from inrstore.chunk.dtypes import ordered

    return b"\0" + struct.pack("<BBB", 0, 255, axes) + byteplanes.pack(ordered(values), axes, 9)


def _float_indices(shape: tuple[int, ...], choice: Sequence[int]) -> Array:
    return np.resize(np.array(choice, np.uint8), shape)


def _planes_of_indices(shape: tuple[int, ...], dtype: str, head: bytes, index: Array) -> bytes:
    """Return a frame of planes kind 2 made of these indices, not of values."""
    width = index.dtype.itemsize
    raw = np.ascontiguousarray(index.reshape(-1, 1).view(np.uint8).T).tobytes()
    payload = b"\0" + struct.pack("<BB", 2, 255) + head + struct.pack("<BB", width, 0) + zlib.compress(raw, 9)
    return seal(modes.BYTEPLANES, like(shape, dtype), payload)
