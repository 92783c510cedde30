"""The vectors of the subset: common types and modes, what every reader meets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.encode import encode_as

from .frames import (
    Net,
    ball,
    boxed,
    grid_of,
    like,
    planes_frame,
    siren_frame,
    smooth,
    with_exceptions,
    with_mask,
)
from .parts import PARTS


def subset() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors of common types and modes."""
    rng = np.random.default_rng(1)
    # raw
    yield "raw-i2-1d", encode_as(modes.RAW, rng.integers(-(2**15), 2**15, 37).astype("<i2"))
    yield "raw-u1-2d", encode_as(modes.RAW, rng.integers(0, 256, (6, 7)).astype("u1"))
    yield "raw-f4-3d", encode_as(modes.RAW, rng.integers(0, 2**32, (3, 4, 5), dtype=np.uint32).view("<f4"))
    yield "raw-f8-4d", encode_as(modes.RAW, rng.normal(size=(2, 3, 2, 3)))
    yield "raw-i2-empty", encode_as(modes.RAW, like((4, 0, 3), "<i2")) or b""
    # constant
    yield "constant-i2-3d", encode_as(modes.CONSTANT, np.full((16, 17, 18), -1234, "<i2")) or b""
    yield "constant-u1-4d", encode_as(modes.CONSTANT, np.full((5, 4, 3, 2), 255, "u1")) or b""
    yield "constant-f4-nan", encode_as(modes.CONSTANT, np.full((4, 4), 0xFFA00001, "<u4").view("<f4")) or b""
    yield "constant-f8-minus-zero", encode_as(modes.CONSTANT, np.full((9,), -0.0)) or b""
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
        planes_frame(values, None, with_exceptions(envelopes.whole(values.shape), "<f4", 4)),
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
    envelope = with_exceptions(envelopes.whole(shape), "<f4", 34)
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
    # masks
    zeros = {kind: np.zeros((), kind) for kind in ("<i2", "<f4", "u1")}
    yield (
        "constant-i2-outside",
        encode_as(modes.CONSTANT, like((6, 7, 8), "<i2"), mask=np.zeros((1, 1, 1), bool)) or b"",
    )
    values = smooth((9, 12, 14), "<i2", 40)
    whole = with_mask(envelopes.whole(values.shape), ball(values.shape), zeros["<i2"])
    yield "planes-exact-i2-mask", planes_frame(values, None, whole)
    shape = (3, 10, 12, 11)
    values = smooth(shape, "<i2", 41)
    envelope = with_mask(boxed((0, 1, 2, 0), (3, 9, 12, 10), zeros["<i2"]), ball((1, 8, 10, 10)), zeros["<i2"])
    yield "planes-integer-i2-mask-box", planes_frame(values, grid_of(values[envelope.box], 21), envelope)
    yield "siren-i2-4d-mask-box", siren_frame(like(shape, "<i2"), Net(seed=42, layers=3, width=8, axis=0), envelope)
    whole = with_mask(envelopes.whole((5, 18, 18, 18)), ball((1, 18, 18, 18)), zeros["<i2"])
    yield (
        "siren-i2-4d-mask-lanes",
        siren_frame(like((5, 18, 18, 18), "<i2"), Net(seed=43, layers=2, width=8, axis=0), whole),
    )
    shape = (8, 9, 10)
    whole = with_exceptions(with_mask(envelopes.whole(shape), ball(shape), zeros["<f4"]), "<f4", 44)
    yield (
        "siren-f4-3d-mask-exceptions",
        siren_frame(like(shape, "<f4"), Net(seed=44, layers=2, width=8, exponent=-8), whole),
    )
    values = smooth(shape, "<f4", 45, 3.0)
    yield "planes-float-f4-mask-exceptions", planes_frame(values, grid_of(values, 0.1), whole)
    values = smooth((14, 15), "u1", 46, 90.0)
    rows = np.arange(14).reshape(14, 1) % 5 > 0
    whole = with_mask(envelopes.whole((14, 15)), rows, zeros["u1"])
    yield "planes-integer-u1-mask-of-rows", planes_frame(values, grid_of(values, 9), whole)
    for part in PARTS:
        yield from part[0]()
