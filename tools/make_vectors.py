"""Write the conformance vectors of the chunk format, and the golden chunks of a release.

python -m tools.make_vectors [--new-version]

`specs/vectors/{subset,uncommon,faulty}` hold frames and an `index.json` each: what a valid frame decodes to, as
the SHA-256 of its values (little-endian, C order), or the error and field that a faulty one must be refused
with. `tests/golden/1` holds the chunks that every later release must decode to the same bits: it is written
once; afterwards a difference is an error, unless `--new-version` says that the format itself is new and has
not been released.

Everything is made from fixed seeds with numpy alone; no network is fitted here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from inrstore.errors import CorruptChunkError
from inrstore.format import chunk as chunks
from inrstore.format import dtypes, frame, normalize, planes, siren
from inrstore.format.levels import Grid
from inrstore.format.normalize import Envelope

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "specs" / "vectors"
GOLDEN = ROOT / "tests" / "golden" / str(frame.VERSION)

Array = npt.NDArray[Any]


# ---- making frames -----------------------------------------------------------------------------------------


def reseal(frame_bytes: bytes) -> bytes:
    """Return a frame with its last four bytes made the checksum of the others again."""
    body = frame_bytes[:-4]
    return body + struct.pack("<I", int(google_crc32c.value(body)))


def edit(frame_bytes: bytes, position: int, new: bytes) -> bytes:
    """Return the frame with bytes replaced at a position, sealed again."""
    return reseal(frame_bytes[:position] + new + frame_bytes[position + len(new) :])


def repack(frame_bytes: bytes, payload: bytes) -> bytes:
    """Return the frame with another payload, its length and the frame's checksum put right."""
    at = frame.header_size(frame_bytes[7])
    return reseal(frame_bytes[: at - 4] + struct.pack("<I", len(payload)) + payload + bytes(4))


def payload_of(frame_bytes: bytes) -> bytes:
    """Return the payload of a valid frame."""
    return frame_bytes[frame.header_size(frame_bytes[7]) : -4]


def patch(frame_bytes: bytes, position: int, new: bytes) -> bytes:
    """Return the frame with bytes of its payload replaced, sealed again."""
    return edit(frame_bytes, frame.header_size(frame_bytes[7]) + position, new)


def smooth(shape: tuple[int, ...], dtype: str, seed: int, amplitude: float = 900.0) -> Array:
    """Return values that vary slowly along every axis, with a little noise."""
    rng = np.random.default_rng(seed)
    total = np.full(shape, amplitude)
    for axis, n in enumerate(shape):
        wave = np.sin(np.arange(n) * rng.uniform(0.2, 0.8) + rng.uniform(0, 6)) * amplitude / (axis + 2)
        total = total + wave.reshape([n if a == axis else 1 for a in range(len(shape))])
    total = total + rng.normal(0, amplitude / 100, shape)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return np.clip(np.rint(total), info.min, info.max).astype(kind)
    return total.astype(kind)


def boxed(start: tuple[int, ...], stop: tuple[int, ...], fill: Array) -> Envelope:
    """Return an envelope with a box and no exceptions."""
    return Envelope(start, stop, fill.tobytes())


def with_exceptions(envelope: Envelope, dtype: str, seed: int) -> Envelope:
    """Return the envelope with a few non-finite values of many bit patterns in its box."""
    rng = np.random.default_rng(seed)
    marks = np.asarray(rng.random(envelope.box_shape) < 0.12)
    marks.reshape(-1)[[0, -1]] = True
    kind = np.dtype(dtype)
    width = kind.itemsize
    exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}[width]
    payloads = rng.integers(0, 1 << {2: 10, 4: 23, 8: 52}[width], int(marks.sum()), dtype=np.uint64)
    pattern = payloads | np.uint64(exponent)
    pattern[0] = exponent  # infinity, beside NaNs with payloads, quiet and signalling
    pattern[-1] |= np.uint64(1 << (8 * width - 1))
    values = pattern.astype(dtypes.bits_dtype(width)).view(kind)
    return replace(envelope, exceptions=marks, values=values)


def planes_frame(like: Array, grid: Grid | None, envelope: Envelope | None = None, core: Array | None = None) -> bytes:
    """Return a frame in mode planes; `like` gives shape, dtype and layout, `core` the values of the box."""
    envelope = envelope or normalize.whole(like.shape)
    if core is None:
        core = np.array(like, like.dtype.newbyteorder("<"), order="C")[envelope.box]
    payload = normalize.write(envelope, like.shape) + planes.encode(np.ascontiguousarray(core), grid)
    return chunks.seal_checked(frame.PLANES, like, payload)


def grid_of(core: Array, step: float | Sequence[float], axis: int | None = None) -> Grid:
    """Return the grid of these steps over an array."""
    return Grid.over(core, np.atleast_1d(np.asarray(step, np.float64)), axis)


@dataclass(frozen=True, kw_only=True)
class Net:
    """A random network to order; see `inrstore.format.siren.Network` for the fields that are passed on."""

    seed: int
    layers: int
    width: int
    axis: int | None = None
    exponent: int = 0
    shift: int = 22
    low: int = -2000
    high: int = 2000
    amplitude: float = 700.0
    centre: float = 0.0
    spread: int = 12
    each: bool = False
    density: float = 1.0
    frequency: float = 0.15

    def build(self, box: tuple[int, ...]) -> siren.Network:
        """Return the network for a box of this shape."""
        rng = np.random.default_rng(self.seed)
        channels = 1 if self.axis is None else box[self.axis]
        inputs = len(box) - (self.axis is not None)

        def weights(rows: int, columns: int, density: float = 1.0) -> npt.NDArray[np.int64]:
            bell = np.rint(rng.laplace(0, self.spread / 2, (rows, columns)))
            kept = rng.random((rows, columns)) < density
            return (np.clip(bell, -1023, 1023) * kept).astype(np.int64)

        sine = [weights(self.width, inputs)] + [
            weights(self.width, self.width, self.density) for _ in range(self.layers - 1)
        ]
        turn = 2**32
        # A step of the first layer turns by about `frequency` for a typical weight; inner sums by about a third.
        first = round(self.frequency * turn / (2 * self.spread))
        inner = round(turn / (3 * 700 * self.spread * max(1, self.width * self.density) ** 0.5))
        multipliers = [first, *(inner + 2 * i for i in range(self.layers - 1)), turn // 64 + 1]
        typical = 700 * self.spread * self.width**0.5
        gain = self.amplitude / typical * (rng.uniform(0.3, 1.5, channels) if self.each else np.ones(1))
        shift = min(self.shift, math.floor(26.9 - math.log2(gain.max())))
        gain *= 2.0**shift
        codes = np.array([siren.pack_gain(float(g)) for g in gain])
        offsets = np.rint(16 * (self.centre + rng.uniform(-0.2, 0.2, channels) * self.amplitude)).astype(np.int64)
        return siren.Network(
            self.axis, sine, weights(self.layers, self.width), multipliers, weights(channels, self.width),
            siren.unpack_gain(codes), offsets, shift, self.exponent, self.low, self.high,
        )  # fmt: skip


def siren_frame(like: Array, net: Net | siren.Network, envelope: Envelope | None = None) -> bytes:
    """Return a frame in mode siren; `like` gives shape, dtype and layout."""
    envelope = envelope or normalize.whole(like.shape)
    network = net.build(envelope.box_shape) if isinstance(net, Net) else net
    return chunks.seal_checked(frame.SIREN, like, normalize.write(envelope, like.shape) + siren.write(network))


def like(shape: tuple[int, ...], dtype: str, order: str = "C") -> Array:
    """Return an empty array that gives shape, dtype and layout to a frame."""
    return np.zeros(shape, dtype, order="F" if order == "F" else "C")


# ---- subset: what every reader meets -----------------------------------------------------------------------


def subset() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of common types and modes."""
    rng = np.random.default_rng(1)
    # raw
    yield "raw-i2-1d", chunks.encode_raw(rng.integers(-(2**15), 2**15, 37).astype("<i2"))
    yield "raw-u1-2d", chunks.encode_raw(rng.integers(0, 256, (6, 7)).astype("u1"))
    yield "raw-f4-3d", chunks.encode_raw(rng.integers(0, 2**32, (3, 4, 5), dtype=np.uint32).view("<f4"))
    yield "raw-f8-4d", chunks.encode_raw(rng.normal(size=(2, 3, 2, 3)))
    yield "raw-i2-empty", chunks.encode_trivial(like((4, 0, 3), "<i2")) or b""
    # constant
    yield "constant-i2-3d", chunks.encode_trivial(np.full((16, 17, 18), -1234, "<i2")) or b""
    yield "constant-u1-4d", chunks.encode_trivial(np.full((5, 4, 3, 2), 255, "u1")) or b""
    yield "constant-f4-nan", chunks.encode_trivial(np.full((4, 4), 0xFFA00001, "<u4").view("<f4")) or b""
    yield "constant-f8-minus-zero", chunks.encode_trivial(np.full((9,), -0.0)) or b""
    # planes, exact
    for dtype, shape in (
        ("<i2", (200,)), ("u1", (20, 12)), ("i1", (11, 9)), ("<i2", (6, 9, 8)), ("<u2", (4, 5, 6, 3)),
        ("<i4", (7, 8, 5)), ("<u4", (12, 10)), ("<i8", (6, 9)), ("<u8", (40,)), ("<f4", (5, 6, 7)),
        ("<f8", (8, 9)),
    ):  # fmt: skip
        amplitude = 60.0 if dtype[-1] == "1" else 900.0
        yield f"planes-exact-{dtype.strip('<')}-{len(shape)}d", planes_frame(smooth(shape, dtype, 2, amplitude), None)
    values = smooth((6, 7, 8), "<i2", 3)
    fill = np.array(-5, "<i2")
    yield "planes-exact-i2-box", planes_frame(values, None, boxed((1, 0, 2), (5, 7, 6), fill))
    values = smooth((7, 8, 6), "<f4", 4)
    yield (
        "planes-exact-f4-exceptions",
        planes_frame(values, None, with_exceptions(normalize.whole(values.shape), "<f4", 4)),
    )
    # planes, steps
    values = smooth((7, 8, 9), "<i2", 5)
    yield "planes-integer-i2-3d", planes_frame(values, grid_of(values, 25))
    values = smooth((5, 4, 6, 7), "<u2", 6, 9000.0)
    steps = [301.0, 97, 1, 4001, 60000]
    yield "planes-integer-u2-channels", planes_frame(values, grid_of(values, steps, 0))
    values = smooth((8, 9), "u1", 7, 90.0)
    core = values[2:7, 1:8]
    yield "planes-integer-u1-box", planes_frame(values, grid_of(core, 9), boxed((2, 1), (7, 8), np.array(3, "u1")))
    values = smooth((90,), "<i4", 8, 5e8)
    yield "planes-integer-i4-wide-index", planes_frame(values, grid_of(values, 12345))
    values = smooth((6, 7, 8), "<f4", 9, 3.0)
    yield "planes-float-f4-3d", planes_frame(values, grid_of(values, 0.1))
    values = smooth((4, 5, 6, 3), "<f4", 10, 1e-3)
    yield "planes-float-f4-channels", planes_frame(values, grid_of(values, [1e-4, 3e-5, 1e-3, 7e-6], 0))
    values = smooth((9, 10), "<f8", 11, 1e9)
    envelope = with_exceptions(boxed((1, 1), (8, 10), np.array(-0.0)), "<f8", 11)
    yield "planes-float-f8-box-exceptions", planes_frame(values, grid_of(values[envelope.box], 3e5), envelope)
    # siren
    yield "siren-i2-4d", siren_frame(like((5, 4, 6, 7), "<i2"), Net(seed=20, layers=3, width=8, axis=0))
    yield (
        "siren-i2-4d-gains",
        siren_frame(like((7, 4, 5, 6), "<i2"), Net(seed=21, layers=4, width=12, axis=0, each=True)),
    )
    yield (
        "siren-i2-4d-lanes",
        siren_frame(like((4, 3, 5, 6), "<i2"), Net(seed=22, layers=4, width=26, axis=0, spread=8)),
    )
    yield "siren-i2-3d", siren_frame(like((6, 7, 8), "<i2"), Net(seed=23, layers=2, width=10))
    yield (
        "siren-u2-3d",
        siren_frame(
            like((5, 9, 8), "<u2"), Net(seed=24, layers=3, width=9, low=0, high=65535, amplitude=9000, centre=30000)
        ),
    )
    yield (
        "siren-u1-2d",
        siren_frame(like((16, 15), "u1"), Net(seed=25, layers=2, width=7, low=0, high=255, amplitude=90, centre=120)),
    )
    yield (
        "siren-i1-2d",
        siren_frame(like((9, 8), "i1"), Net(seed=26, layers=1, width=16, low=-128, high=127, amplitude=60)),
    )
    yield "siren-i2-1d", siren_frame(like((100,), "<i2"), Net(seed=27, layers=1, width=5))
    yield (
        "siren-i4-exponent",
        siren_frame(
            like((6, 5, 4), "<i4"), Net(seed=28, layers=2, width=8, exponent=9, low=-(2**21), high=2**21, amplitude=1e6)
        ),
    )
    yield (
        "siren-f4-exponent",
        siren_frame(
            like((3, 5, 6, 4), "<f4"), Net(seed=29, layers=3, width=8, axis=0, exponent=-13, amplitude=6000, high=2**15)
        ),
    )
    yield (
        "siren-f4-3d-coarse",
        siren_frame(
            like((5, 6, 7), "<f4"),
            Net(seed=30, layers=2, width=6, exponent=40, low=-(2**26), high=2**26 + 1, amplitude=4e7),
        ),
    )
    yield (
        "siren-f8-2d",
        siren_frame(
            like((12, 11), "<f8"),
            Net(seed=31, layers=2, width=8, exponent=-100, low=-(2**31), high=2**31 - 1, amplitude=2e9),
        ),
    )
    shape = (3, 6, 7, 8)
    envelope = boxed((0, 1, 0, 2), (3, 5, 7, 8), np.array(-7, "<i2"))
    yield "siren-i2-4d-box", siren_frame(like(shape, "<i2"), Net(seed=32, layers=3, width=8, axis=0), envelope)
    envelope = boxed((1, 0, 3, 0), (3, 6, 7, 4), np.array(0, "<i2"))
    yield (
        "siren-i2-4d-box-of-channels",
        siren_frame(like(shape, "<i2"), Net(seed=33, layers=2, width=8, axis=0, each=True), envelope),
    )
    shape = (8, 7, 6)
    envelope = with_exceptions(normalize.whole(shape), "<f4", 34)
    yield (
        "siren-f4-3d-exceptions",
        siren_frame(like(shape, "<f4"), Net(seed=34, layers=2, width=8, exponent=-8), envelope),
    )
    envelope = with_exceptions(boxed((2, 1, 0), (7, 6, 5), np.full((), np.nan, "<f4")), "<f4", 35)
    yield (
        "siren-f4-3d-box-exceptions",
        siren_frame(like(shape, "<f4"), Net(seed=35, layers=2, width=8, exponent=-8), envelope),
    )
    yield (
        "siren-i2-3d-limits",
        siren_frame(like((6, 6, 6), "<i2"), Net(seed=36, layers=3, width=8, low=-200, high=150, amplitude=900)),
    )


# ---- uncommon: legal, and seldom seen ----------------------------------------------------------------------


def uncommon() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of rare types, layouts and extremes."""
    rng = np.random.default_rng(100)
    # no axes at all
    yield "raw-f8-0d", chunks.encode_raw(np.array(np.pi))
    yield "constant-i4-0d", chunks.encode_trivial(np.array(-7, "<i4")) or b""
    yield "planes-exact-i2-0d", planes_frame(np.array(-300, "<i2"), None)
    yield "planes-integer-i2-0d", planes_frame(np.array(77, "<i2"), Grid(-300, 900, np.array([10], np.uint64), None))
    envelope = Envelope((), (), b"", np.array(True), np.array([np.nan], "<f4"))
    yield (
        "planes-float-f4-0d-exception",
        planes_frame(np.array(1, "<f4"), Grid(0.0, 2.0, np.array([0.5]), None), envelope),
    )
    yield "siren-f4-0d", siren_frame(like((), "<f4"), Net(seed=101, layers=2, width=4))
    yield "siren-f4-0d-exception", siren_frame(like((), "<f4"), Net(seed=101, layers=2, width=4), envelope)
    yield "siren-i2-1d-channels-only", siren_frame(like((6,), "<i2"), Net(seed=102, layers=2, width=5, axis=0))
    # eight axes
    shape = (2, 1, 3, 2, 1, 2, 3, 2)
    yield "raw-u1-8d", chunks.encode_raw(rng.integers(0, 256, shape).astype("u1"))
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
    yield "raw-i2-big-endian", chunks.encode_raw(rng.integers(-999, 999, (5, 6)).astype(">i2"))
    yield "constant-f4-big-endian", chunks.encode_trivial(np.full((3, 2), 1.5, ">f4")) or b""
    yield "planes-exact-f8-big-endian", planes_frame(smooth((6, 7), "<f8", 106).astype(">f8"), None)
    yield "siren-i2-big-endian", siren_frame(like((3, 4, 5, 6), ">i2"), Net(seed=107, layers=2, width=8, axis=0))
    yield (
        "siren-f4-big-endian-exceptions",
        siren_frame(
            like((5, 6), ">f4"), Net(seed=108, layers=2, width=6), with_exceptions(normalize.whole((5, 6)), "<f4", 108)
        ),
    )
    yield "raw-u4-fortran", chunks.encode_raw(np.asfortranarray(rng.integers(0, 2**32, (4, 5), dtype=np.uint32)))
    yield "planes-exact-i2-fortran", planes_frame(np.asfortranarray(smooth((5, 6, 7), "<i2", 109)), None)
    yield (
        "siren-u2-fortran-big-endian",
        siren_frame(like((4, 5, 6), ">u2", "F"), Net(seed=110, layers=2, width=8, low=0, high=4000, centre=1500)),
    )
    # bool
    truth = rng.random((9, 10)) < 0.3
    yield "raw-bool", chunks.encode_raw(truth)
    yield "constant-bool", chunks.encode_trivial(np.ones((4, 5), bool)) or b""
    yield "planes-exact-bool", planes_frame(truth, None)
    yield "planes-exact-bool-box", planes_frame(truth, None, boxed((2, 3), (8, 9), np.array(True)))
    # extremes of 64 bits
    extreme = rng.choice(np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64), (5, 6))
    yield "planes-exact-u8-extremes", planes_frame(extreme.astype("<u8"), None)
    yield (
        "planes-integer-u8-extremes",
        planes_frame(extreme, Grid(0, 2**64 - 1, np.array([2**62 - 1], np.uint64), None)),
    )
    signed = extreme.view("<i8")
    yield (
        "planes-integer-i8-extremes",
        planes_frame(signed, Grid(-(2**63), 2**63 - 1, np.array([2**61 + 1], np.uint64), None)),
    )
    values = rng.integers(-100, 101, (6, 5)).astype("<i8")
    yield "planes-integer-i8-saturating", planes_frame(values, Grid(-100, 100, np.array([150], np.uint64), None))
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
    yield "raw-f2", chunks.encode_raw(rng.integers(0, 2**16, (7, 8)).astype("<u2").view("<f2"))
    yield "planes-exact-f2", planes_frame(smooth((8, 9), "<f2", 114), None)
    values = smooth((8, 9), "<f2", 115)
    yield "planes-float-f2", planes_frame(values, grid_of(values, 1.3))
    yield "siren-f2-exceptions", siren_frame(
        like((7, 8), "<f2"), Net(seed=116, layers=2, width=6, exponent=-3, low=-20000, high=20000, amplitude=9000),
        with_exceptions(normalize.whole((7, 8)), "<f2", 116),
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
            like((5, 6), "<f8"), Grid(-1.7e308, 1.7e308, np.array([1.5e308]), None), core=np.full((5, 6), -1.7e308)
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
    yield "siren-all-zero", siren_frame(
        like((6, 7), "<i2"),
        replace(base, weights=[0 * w for w in base.weights], biases=0 * base.biases, readout=0 * base.readout,
                gains=np.zeros(1, np.int64)),
    )  # fmt: skip
    yield "siren-peaks-1023", siren_frame(like((6, 7), "<i2"), replace(
        base, weights=[np.where(base.weights[0] % 2, 1023, -1023), np.eye(6, dtype=np.int64) * 1023],
        biases=np.array([[1023, -1023, 7, 0, -7, 3]] * 2), readout=np.full((1, 6), 1023),
        gains=siren.unpack_gain(np.array([siren.pack_gain(500.0)])))
    )  # fmt: skip
    yield "siren-shift-4-gain-0", siren_frame(like((6, 7), "<i2"), replace(
        base, shift=4, gains=np.array([0]), offsets=np.array([8 + 16 * 5])))  # fmt: skip
    yield "siren-shift-34-gain-2to27", siren_frame(like((6, 7), "<i4"), replace(
        base, shift=34, gains=siren.unpack_gain(np.array([0xFFFF])), offsets=np.array([-(2**31)]),
        low=-(2**31), high=2**31 - 1))  # fmt: skip
    yield "siren-largest-multipliers", siren_frame(like((6, 7), "<i2"), replace(base, multipliers=[2**32 - 1] * 3))
    yield "siren-low-is-high", siren_frame(like((6, 7), "<i2"), replace(base, low=12, high=12))
    plain = siren_frame(like((6, 7), "<i2"), base)
    kind_at = 1 + 14 + 4 * 3 + 10 * 4
    one_each = payload_of(plain)[:kind_at] + b"\1" + payload_of(plain)[kind_at + 1 :]
    yield "siren-gain-kind-1-of-one-channel", repack(plain, one_each)
    net = Net(seed=127, layers=2, width=6).build((1, 1, 1))
    yield "siren-one-value", siren_frame(like((1, 1, 1), "<i2"), net)
    yield "planes-exact-one-value", planes_frame(np.full((1, 1), 258, "<i4"), None)
    envelope = Envelope((0, 0), (3, 4), b"", np.ones((3, 4), bool), rng.normal(size=12).astype("<f4"))
    yield "siren-only-exceptions", siren_frame(like((3, 4), "<f4"), Net(seed=128, layers=1, width=3), envelope)
    envelope = Envelope((0, 0), (3, 4), b"", np.zeros((3, 4), bool), np.zeros(0, "<f4"))
    yield "siren-no-exceptions-listed", siren_frame(like((3, 4), "<f4"), Net(seed=128, layers=1, width=3), envelope)


def _payload_differenced(values: Array, axes: int) -> bytes:
    """Return an exact planes payload that was differenced along the given axes, whatever pays."""
    from inrstore.format.levels import ordered

    return b"\0" + struct.pack("<BBB", 0, 255, axes) + planes._pack(ordered(values), axes, 9)


def _float_indices(shape: tuple[int, ...], choice: Sequence[int]) -> Array:
    return np.resize(np.array(choice, np.uint8), shape)


def _planes_of_indices(shape: tuple[int, ...], dtype: str, head: bytes, index: Array) -> bytes:
    """Return a frame of planes kind 2 made of these indices, not of values."""
    width = index.dtype.itemsize
    raw = np.ascontiguousarray(index.reshape(-1, 1).view(np.uint8).T).tobytes()
    payload = b"\0" + struct.pack("<BB", 2, 255) + head + struct.pack("<BB", width, 0) + zlib.compress(raw, 9)
    return chunks.seal_checked(frame.PLANES, like(shape, dtype), payload)


# ---- faulty: what every reader must refuse -----------------------------------------------------------------


def faulty() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield name, bytes, error and field."""
    corrupt, limit, version = "CorruptChunkError", "LimitExceededError", "UnsupportedVersionError"
    raw = chunks.encode_raw(np.arange(12, dtype="<i2").reshape(3, 4))
    constant = chunks.encode_trivial(np.full((3, 4), 7, "<i2")) or b""

    # the frame (section 2)
    yield "magic", edit(raw, 0, b"\x89INS"), corrupt, "magic"
    yield "nothing", b"", corrupt, "magic"
    yield "too-short", raw[:12], corrupt, "frame"
    yield "cut-short", raw[:-1], corrupt, "frame_crc"
    yield "byte-appended", raw + b"\0", corrupt, "frame_crc"
    yield "bit-flipped", raw[:30] + bytes([raw[30] ^ 4]) + raw[31:], corrupt, "frame_crc"
    yield "version-2", edit(raw, 4, b"\2"), version, "version"
    yield "version-0", edit(raw, 4, b"\0"), version, "version"
    yield "mode-4", edit(raw, 5, b"\4"), version, "mode"
    yield "mode-255", edit(raw, 5, b"\xff"), version, "mode"
    yield "dtype-0", edit(raw, 6, b"\0"), corrupt, "dtype"
    yield "dtype-13", edit(raw, 6, b"\x0d"), corrupt, "dtype"
    yield "dtype-bit-5", edit(raw, 6, b"\x22"), corrupt, "dtype"
    yield "dtype-big-endian-byte", edit(chunks.encode_raw(np.arange(5, dtype="i1")), 6, b"\x81"), corrupt, "dtype"
    yield "ndim-9", edit(raw, 7, b"\x09"), limit, "ndim"
    yield "shape-beyond-the-frame", edit(constant, 7, b"\x08"), corrupt, "shape"
    yield "shape-2to27-and-1", edit(constant, 8, struct.pack("<II", 2**27 + 1, 1)), limit, "shape"
    yield "shape-overflowing-64-bits", edit(constant, 8, struct.pack("<II", 2**32 - 1, 2**32 - 1)), limit, "shape"
    yield "shape-of-another-array", edit(raw, 8, struct.pack("<II", 4, 4)), corrupt, "raw.values"
    empty = chunks.encode_raw(np.empty((0, 1), "u1"))
    yield "shape-2to27-and-1-beside-0", edit(empty, 8, struct.pack("<II", 0, 2**27 + 1)), limit, "shape"
    yield "empty-but-constant", edit(constant, 8, struct.pack("<II", 0, 4)), corrupt, "shape"
    at = frame.header_size(2)
    yield "decoded-crc", edit(raw, at - 8, b"\1\2\3\4"), corrupt, "decoded_crc"
    yield "payload-length-short", edit(raw, at - 4, struct.pack("<I", 23)), corrupt, "payload_length"
    yield "payload-length-long", edit(raw, at - 4, struct.pack("<I", 2**32 - 1)), corrupt, "payload_length"

    # raw and constant (section 3)
    yield "raw-value-missing", repack(raw, payload_of(raw)[:-2]), corrupt, "raw.values"
    yield "raw-byte-too-many", repack(raw, payload_of(raw) + b"\0"), corrupt, "raw.values"
    yield "raw-bool-2", repack(
        chunks.encode_raw(np.array([True, False, True])), b"\1\2\0"), corrupt, "payload"  # fmt: skip
    yield "constant-value-missing", repack(constant, b"\7"), corrupt, "constant.value"
    yield "constant-byte-too-many", repack(constant, b"\7\0\0"), corrupt, "constant.value"
    yield "constant-bool-2", repack(chunks.encode_trivial(np.ones(5, bool)) or b"", b"\2"), corrupt, "payload"

    yield from _faulty_envelopes(corrupt)
    yield from _faulty_networks(corrupt, limit)
    yield from _faulty_planes(corrupt)


def _faulty_envelopes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<f4", 200)
    plain = planes_frame(values, None)
    rest = payload_of(plain)[1:]
    yield "envelope-flags-reserved", patch(plain, 0, b"\4"), corrupt, "envelope.flags"
    yield "envelope-missing", repack(plain, b""), corrupt, "envelope.flags"
    whole = planes_frame(smooth((5, 6), "<i2", 201), None)
    yield "exceptions-of-integers", patch(whole, 0, b"\2"), corrupt, "envelope.flags"
    box = planes_frame(values, None, boxed((1, 1), (4, 5), np.array(0, "<f4")))
    yield "box-empty", patch(box, 1, struct.pack("<4I", 1, 4, 4, 4)), corrupt, "envelope.stop"
    yield "box-reversed", patch(box, 1, struct.pack("<4I", 4, 1, 1, 5)), corrupt, "envelope.stop"
    yield "box-outside", patch(box, 1, struct.pack("<4I", 1, 1, 6, 5)), corrupt, "envelope.stop"
    yield "box-start-missing", repack(box, payload_of(box)[:5]), corrupt, "envelope.start"
    yield "box-stop-missing", repack(box, payload_of(box)[:12]), corrupt, "envelope.stop"
    yield "box-fill-missing", repack(box, payload_of(box)[:19]), corrupt, "envelope.fill"
    truth = np.zeros((4, 4), bool)
    truth[1, 2] = True
    fill = planes_frame(truth, None, boxed((1, 1), (3, 4), np.array(False)))
    unused = b"\1" + struct.pack("<4I", 0, 0, 4, 4) + b"\2" + payload_of(planes_frame(truth, None))[1:]
    yield "box-fill-bool-2-unused", repack(fill, unused), corrupt, "envelope.fill"
    yield "box-fill-bool-2", patch(fill, 17, b"\2"), corrupt, "envelope.fill"

    def exceptions(bitmap: bytes, given: bytes) -> bytes:
        streams = b"".join(struct.pack("<I", len(s)) + s for s in (bitmap, given))
        return repack(plain, b"\2" + streams + rest)

    bits, one = np.packbits(np.arange(30) == 3).tobytes(), np.array([np.nan], "<f4").tobytes()
    pack = zlib.compress
    yield "exceptions-not-zlib", exceptions(b"\0" * 9, pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-too-few-bits", exceptions(pack(bits[:-1]), pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-too-many-bits", exceptions(pack(bits + b"\0"), pack(one)), corrupt, "envelope.exceptions"
    padding = bits[:-1] + bytes([bits[-1] | 1])
    yield "exceptions-padding", exceptions(pack(padding), pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-checksum", exceptions(pack(bits)[:-1] + b"!", pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-stream-cut", exceptions(pack(bits)[:-2], pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-bytes-after", exceptions(pack(bits) + b"\0", pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-bomb", exceptions(pack(bytes(1 << 20)), pack(one)), corrupt, "envelope.exceptions"
    long = repack(plain, b"\2" + struct.pack("<I", 2**32 - 1) + rest)
    yield "exceptions-length", long, corrupt, "envelope.exceptions"
    yield "exceptional-value-missing", exceptions(pack(bits), pack(one[:-1])), corrupt, "envelope.values"
    yield "exceptional-value-too-many", exceptions(pack(bits), pack(one * 2)), corrupt, "envelope.values"
    yield "exceptional-values-bomb", exceptions(pack(bits), pack(bytes(1 << 20))), corrupt, "envelope.values"


def _faulty_networks(corrupt: str, limit: str) -> Iterator[tuple[str, bytes, str, str]]:
    layers, width, shape = 2, 6, (3, 4, 5)
    network = Net(seed=210, layers=layers, width=width, axis=0).build(shape)
    whole = siren_frame(like(shape, "<i2"), network)
    payload = payload_of(whole)
    # places in the payload, behind the byte of flags
    axis, layer, wide, exponent, shift, low, high, multipliers = 1, 2, 3, 5, 6, 7, 11, 15
    tables = multipliers + 4 * (layers + 1)
    gain_kind = tables + 10 * (layers + 2)
    offsets = gain_kind + 3
    states = offsets + 4 * shape[0]
    words = states + 4

    yield (
        "siren-of-bool",
        edit(siren_frame(like(shape, "u1"), replace(network, low=0, high=1)), 6, b"\x0c"),
        corrupt,
        "mode",
    )
    yield "siren-channel-axis", patch(whole, axis, b"\3"), corrupt, "siren.channel_axis"
    yield "siren-layers-0", patch(whole, layer, b"\0"), limit, "siren.layers"
    yield "siren-layers-17", patch(whole, layer, b"\x11"), limit, "siren.layers"
    yield "siren-width-0", patch(whole, wide, b"\0\0"), limit, "siren.width"
    yield "siren-width-257", patch(whole, wide, b"\1\1"), limit, "siren.width"
    yield "siren-parameters-not-earned", patch(whole, layer, b"\x10\0\1"), limit, "siren.parameters"
    many = edit(whole, 8, struct.pack("<III", 2**25, 2, 2))
    yield "siren-parameters-above-2to22", many, limit, "siren.parameters"
    yield "siren-exponent-negative", patch(whole, exponent, b"\xff"), corrupt, "siren.exponent"
    yield "siren-exponent-41", patch(whole, exponent, b"\x29"), corrupt, "siren.exponent"
    yield "siren-high-above-type", patch(whole, high, struct.pack("<i", 2**15)), corrupt, "siren.exponent"
    yield "siren-low-below-type", patch(whole, low, struct.pack("<i", -(2**15) - 1)), corrupt, "siren.exponent"
    yield "siren-low-above-high", patch(whole, low, struct.pack("<ii", 2, 1)), corrupt, "siren.low"
    real = siren_frame(like(shape, "<f4"), replace(network, exponent=-4))
    yield "siren-float-exponent-101", patch(real, exponent, b"\x65"), corrupt, "siren.exponent"
    yield "siren-float-exponent-minus-128", patch(real, exponent, b"\x80"), corrupt, "siren.exponent"
    tall = patch(patch(real, exponent, b"\x62"), high, struct.pack("<i", 2**31 - 1))
    yield "siren-float-above-type", tall, corrupt, "siren.exponent"
    yield "siren-shift-3", patch(whole, shift, b"\3"), limit, "siren.shift"
    yield "siren-shift-35", patch(whole, shift, b"\x23"), limit, "siren.shift"
    yield "siren-peak-1024", patch(whole, tables + 8, struct.pack("<H", 1024)), limit, "siren.peak"
    yield "siren-gain-kind-2", patch(whole, gain_kind, b"\2"), corrupt, "siren.gain_kind"
    for name, stop in (
        ("channel_axis", axis), ("layers", layer), ("width", wide + 1), ("exponent", exponent), ("shift", shift),
        ("low", low + 3), ("high", high + 3), ("multipliers", multipliers + 11), ("slope", tables + 3),
        ("bend", tables + 7), ("peak", tables + 9), ("gain_kind", gain_kind), ("gains", gain_kind + 2),
        ("offsets", offsets + 11),
    ):  # fmt: skip
        # A payload cut this short would not earn its parameters: that check comes before most fields.
        earned = stop <= wide + 1 or 64 * (stop - 1) >= 2 * width + width * width + layers * width + shape[0] * width
        expected = (corrupt, f"siren.{name}") if earned else (limit, "siren.parameters")
        yield f"siren-{name.replace('_', '-')}-missing", repack(whole, payload[:stop]), *expected
    yield "siren-states-missing", repack(whole, payload[: words - 1]), corrupt, "rans.states"
    yield "siren-state-below-2to16", patch(whole, states, struct.pack("<I", 2**16 - 1)), corrupt, "rans.states"
    state = struct.unpack_from("<I", payload, states)[0]
    yield "siren-state-changed", patch(whole, states, struct.pack("<I", state ^ 1)), corrupt, "rans.states"
    yield "siren-word-missing", repack(whole, payload[:-2]), corrupt, "rans.words"
    yield "siren-word-too-many", repack(whole, payload + b"\0\0"), corrupt, "rans.words"
    yield "siren-odd-byte", repack(whole, payload + b"\0"), corrupt, "rans.words"
    base = Net(seed=211, layers=2, width=17).build((4, 4))
    for name, heavy in (("hidden", {"weights": [base.weights[0], np.full((17, 17), 1000)]}),
                        ("readout", {"readout": np.full((1, 17), -1000)})):  # fmt: skip
        frame_bytes = _unchecked((4, 4), "<i2", b"\0" + siren.write(replace(base, **heavy)))
        yield f"siren-{name}-row-too-heavy", frame_bytes, limit, "siren.weights"


def _unchecked(shape: tuple[int, ...], dtype: str, payload: bytes) -> bytes:
    """Return a frame in mode siren whose payload no reader can decode."""
    return chunks.seal(frame.SIREN, like(shape, dtype), payload)


def _faulty_planes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<i2", 220)
    exact, steps = planes_frame(values, None), planes_frame(values, grid_of(values, [9.0, 8, 7, 6, 5], 0))
    real = planes_frame(smooth((5, 6), "<f4", 221), grid_of(smooth((5, 6), "<f4", 221), 3.0))
    kind, axis, axes, low, first = 1, 2, 3, 3, 19  # places in the payload
    width = first + 8 * 5
    yield "planes-kind-3", patch(exact, kind, b"\3"), corrupt, "planes.kind"
    yield "planes-kind-missing", repack(exact, b"\0"), corrupt, "planes.kind"
    yield "planes-float-steps-of-integers", patch(steps, kind, b"\2"), corrupt, "planes.kind"
    yield "planes-integer-steps-of-floats", patch(real, kind, b"\1"), corrupt, "planes.kind"
    yield "planes-exact-with-channels", patch(exact, axis, b"\0"), corrupt, "planes.channel_axis"
    yield "planes-channel-axis", patch(steps, axis, b"\2"), corrupt, "planes.channel_axis"
    yield "planes-axes-reserved", patch(exact, axes, b"\4"), corrupt, "planes.axes"
    yield "planes-low-above-high", patch(steps, low, struct.pack("<qq", 2, 1)), corrupt, "planes.range"
    yield "planes-range-outside-type", patch(steps, low, struct.pack("<qq", -(2**15) - 1, 1)), corrupt, "planes.range"
    yield "planes-range-nan", patch(real, low, struct.pack("<dd", np.nan, 1)), corrupt, "planes.range"
    yield "planes-range-infinite", patch(real, low, struct.pack("<dd", 0, np.inf)), corrupt, "planes.range"
    yield "planes-range-above-float32", patch(real, low, struct.pack("<dd", 0, 3.5e38)), corrupt, "planes.range"
    yield "planes-range-missing", repack(steps, payload_of(steps)[:18]), corrupt, "planes.range"
    yield "planes-step-zero", patch(steps, first + 8, bytes(8)), corrupt, "planes.steps"
    for name, value in (("zero", 0.0), ("negative", -1.0), ("nan", np.nan), ("infinite", np.inf)):
        yield f"planes-float-step-{name}", patch(real, first, struct.pack("<d", value)), corrupt, "planes.steps"
    yield "planes-steps-missing", repack(steps, payload_of(steps)[: width - 1]), corrupt, "planes.steps"
    yield "planes-width-0", patch(steps, width, b"\0"), corrupt, "planes.width"
    yield "planes-width-3", patch(steps, width, b"\3"), corrupt, "planes.width"
    yield "planes-width-above-type", patch(steps, width, b"\4"), corrupt, "planes.width"
    body = payload_of(exact)
    raw = zlib.decompress(body[4:])
    yield "planes-not-zlib", repack(exact, body[:4] + b"\0" * 20), corrupt, "planes.data"
    yield "planes-no-data", repack(exact, body[:4]), corrupt, "planes.data"
    yield "planes-data-cut", repack(exact, body[:-1]), corrupt, "planes.data"
    yield "planes-bytes-after-data", repack(exact, body + b"\0"), corrupt, "planes.data"
    yield "planes-value-missing", repack(exact, body[:4] + zlib.compress(raw[:-1])), corrupt, "planes.data"
    yield "planes-value-too-many", repack(exact, body[:4] + zlib.compress(raw + b"\0")), corrupt, "planes.data"
    yield "planes-bomb", repack(exact, body[:4] + zlib.compress(bytes(1 << 20), 9)), corrupt, "planes.data"
    yield "planes-value-changed", repack(exact, body[:4] + zlib.compress(raw[::-1])), corrupt, "decoded_crc"
    truth = np.eye(5, dtype=bool)
    two = zlib.compress(bytes([2]) + bytes(24))
    yield "planes-bool-2", repack(planes_frame(truth, None), b"\0\0\xff\0" + two), corrupt, "payload"


# ---- golden chunks -----------------------------------------------------------------------------------------

GOLDEN_NAMES = (
    "raw-i2-1d", "raw-f4-3d", "raw-i2-empty", "constant-i2-3d", "constant-f4-nan", "planes-exact-i2-3d",
    "planes-exact-u1-2d", "planes-exact-i1-2d", "planes-exact-f4-exceptions", "planes-exact-i2-box",
    "planes-integer-i2-3d", "planes-integer-u2-channels", "planes-float-f4-channels",
    "planes-float-f8-box-exceptions", "siren-i2-4d", "siren-i2-4d-gains", "siren-i2-4d-lanes", "siren-i2-3d",
    "siren-u1-2d", "siren-i2-1d", "siren-f4-exponent", "siren-i4-exponent", "siren-i2-4d-box",
    "siren-f4-3d-box-exceptions", "siren-i2-3d-limits", "planes-exact-i2-0d", "siren-i2-8d",
    "siren-i2-big-endian", "siren-u2-fortran-big-endian", "planes-exact-bool", "planes-integer-u8-extremes",
    "siren-f2-exceptions", "siren-width-256", "siren-16-layers", "siren-channels-in-the-middle",
    "siren-peaks-1023",
)  # fmt: skip
"""Copied from the vectors as they are at the release."""


# ---- writing -----------------------------------------------------------------------------------------------


def describe(frame_bytes: bytes) -> dict[str, Any]:
    """Return the entry of a valid frame in an index."""
    values = chunks.decode_chunk(frame_bytes)
    little = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    return {
        "dtype": values.dtype.str,
        "shape": list(values.shape),
        "order": "F" if fortran else "C",
        "mode": chunks.describe_chunk(frame_bytes).mode,
        "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
    }


def check_refused(name: str, frame_bytes: bytes, error: str, field: str) -> None:
    """Stop unless this package refuses the frame as the vector says."""
    try:
        chunks.decode_chunk(frame_bytes)
    except CorruptChunkError as raised:
        if (type(raised).__name__, raised.field) == (error, field):
            return
        raise SystemExit(f"{name}: refused with {type(raised).__name__} {raised}, not {error} {field}") from raised
    raise SystemExit(f"{name}: not refused")


def write_folder(folder: Path, frames: dict[str, bytes], index: dict[str, dict[str, Any]]) -> None:
    """Replace the contents of a folder of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.chunk"):
        old.unlink()
    for name, data in frames.items():
        (folder / f"{name}.chunk").write_bytes(data)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (folder / "index.json").write_text(f"{{\n{lines}\n}}\n")


def write_golden(frames: dict[str, bytes], *, new_version: bool) -> None:
    """Write the golden chunks once; refuse to change what is there."""
    chosen = {name: frames[name] for name in GOLDEN_NAMES}
    changed = [n for n, data in chosen.items()
               if (f := GOLDEN / f"{n}.chunk").exists() and f.read_bytes() != data]  # fmt: skip
    stray = GOLDEN.exists() and {p.stem for p in GOLDEN.glob("*.chunk")} - set(chosen)
    if (changed or stray) and not new_version:
        raise SystemExit(f"golden chunks are immutable; {', '.join([*changed, *(stray or ())])} would change")
    if GOLDEN.exists() and not changed and not stray and not new_version:
        return
    index = {n: describe(d) | {"file_sha256": hashlib.sha256(d).hexdigest()} for n, d in chosen.items()}
    write_folder(GOLDEN, chosen, index)


def collect(source: Callable[[], Iterator[tuple[str, bytes]]]) -> dict[str, bytes]:
    """Return the frames of a generator by name."""
    frames: dict[str, bytes] = {}
    for name, data in source():
        if name in frames or not data:
            raise SystemExit(f"{name}: twice, or empty")
        frames[name] = data
    return frames


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--new-version", action="store_true", help="write the golden chunks of an unreleased format anew"
    )
    options = parser.parse_args(arguments)

    valid = {"subset": collect(subset), "uncommon": collect(uncommon)}
    for folder, frames in valid.items():
        write_folder(VECTORS / folder, frames, {name: describe(data) for name, data in frames.items()})
    bad: dict[str, bytes] = {}
    index: dict[str, dict[str, Any]] = {}
    for name, data, error, field in faulty():
        check_refused(name, data, error, field)
        if name in bad:
            raise SystemExit(f"{name}: twice")
        bad[name], index[name] = data, {"error": error, "field": field}
    write_folder(VECTORS / "faulty", bad, index)
    write_golden(valid["subset"] | valid["uncommon"], new_version=options.new_version)
    for folder, frames in (*valid.items(), ("faulty", bad)):
        sizes = [len(d) for d in frames.values()]
        print(f"{folder}: {len(sizes)} frames, {sum(sizes)} bytes, largest {max(sizes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
