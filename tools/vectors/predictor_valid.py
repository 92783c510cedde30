"""The valid vectors of mode predictor: what every reader meets, and what is legal and seldom seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inrstore.chunk import envelope as envelopes

from .frames import Array, ball, boxed, like, smooth, with_exceptions, with_mask
from .predictor import Plan, predictor_frame


def subset_predictor() -> Iterator[tuple[str, bytes]]:
    """Yield the common ones: each type, one to four axes."""
    for dtype, shape in (
        ("<i2", (150,)), ("u1", (13, 17)), ("i1", (9, 14)), ("<u2", (12, 11)), ("<i4", (5, 8, 9)), ("<u4", (3, 9, 7)),
        ("<i2", (9, 10, 11)), ("<i2", (5, 4, 7, 8)), ("<u2", (4, 3, 8, 6)),
    ):  # fmt: skip
        amplitude = 60.0 if dtype[-1] == "1" else 900.0
        values = smooth(shape, dtype, 50, amplitude)
        plan = Plan(seed=50, top=4 if shape[-3:-2] == (9,) else 1)
        yield f"predictor-{dtype.strip('<')}-{len(shape)}d", predictor_frame(values, plan)
    values = smooth((6, 7, 8), "<i2", 51).astype("<f4")  # whole numbers, as scanners store them
    yield "predictor-f4-3d", predictor_frame(values, Plan(seed=51, step=1 << 13, top=2))
    values = smooth((8, 9), "<f2", 52, 90.0)
    yield "predictor-f2-2d", predictor_frame(values, Plan(seed=52))
    values = head((10, 12, 11), 53)
    yield "predictor-i2-3d-zeros", predictor_frame(values, Plan(seed=53, zeros=True, top=4, base=2**15))
    values = smooth((3, 7, 8, 9), "<i2", 54)
    box = boxed((0, 1, 2, 0), (3, 6, 8, 8), np.array(-7, "<i2"))
    yield "predictor-i2-4d-box", predictor_frame(values, Plan(seed=54, top=2, sets=3), box)
    values = smooth((8, 10, 9), "<i2", 55)
    mask = with_mask(envelopes.whole(values.shape), ball(values.shape), np.zeros((), "<i2"))
    yield "predictor-i2-3d-mask", predictor_frame(values, Plan(seed=55, top=4), mask)
    values = smooth((5, 6, 7), "<i2", 56).astype("<f4")
    odd = with_exceptions(envelopes.whole(values.shape), "<f4", 56)
    yield "predictor-f4-3d-exceptions", predictor_frame(values, Plan(seed=56, step=1 << 13), odd)
    values = smooth((12, 20, 18), "<i2", 57)
    yield "predictor-i2-3d-slices", predictor_frame(values, Plan(seed=57, top=4, sets=8))
    yield "predictor-i2-3d-exchanged", predictor_frame(smooth((4, 6, 15), "<i2", 58), Plan(exchanged=True))
    yield "predictor-i2-3d-parts", predictor_frame(smooth((4, 14, 13), "<i2", 59), Plan(row_parts=2, column_parts=3))
    values = textured((3, 50, 56), 60)
    yield "predictor-i2-3d-regions", predictor_frame(values, Plan(seed=60, top=2, region=(32, 32), sets=3))
    yield "predictor-i2-3d-lanes", predictor_frame(smooth((4, 9, 10), "<i2", 61), Plan(seed=61, top=2, lanes=6))


def textured(shape: tuple[int, ...], seed: int) -> Array:
    """Return values that differ little from one another, so that many of them take few bytes."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(shape[-1]) / 9) * np.cos(np.arange(shape[-2]) / 7)[:, None]
    return np.rint(6 * wave + (rng.random(shape) < 0.03)).astype("<i2")


def head(shape: tuple[int, ...], seed: int) -> Array:
    """Return values that are 0 outside a ball, and nowhere else."""
    return np.where(ball(shape), np.maximum(smooth(shape, "<i2", seed), 1), 0).astype("<i2")


def uncommon_predictor() -> Iterator[tuple[str, bytes]]:
    """Yield the uncommon ones: shapes, orders, ranges, and fields at their limits."""
    rng = np.random.default_rng(140)
    small = smooth((3, 4, 6, 7), "<i2", 141)
    # shapes
    yield "predictor-i2-0d", predictor_frame(np.array(-300, "<i2"), Plan())
    yield "predictor-u1-one-value", predictor_frame(np.full((1, 1, 1, 1), 200, "u1"), Plan(base=0))
    values = smooth((2, 1, 3, 2, 1, 2, 3, 2), "<i2", 142)
    yield "predictor-i2-8d", predictor_frame(values, Plan(top=8, order=(11, 3, 5, 0, 2, 4, 1, 6, 7, 9, 8, 10)))
    yield "predictor-i2-one-column", predictor_frame(smooth((2, 3, 30, 1), "<i2", 143), Plan())
    yield "predictor-i2-one-column-exchanged", predictor_frame(smooth((2, 3, 30, 1), "<i2", 143), Plan(exchanged=True))
    yield "predictor-u1-long", predictor_frame(smooth((3001,), "u1", 144, 40.0), Plan(column_parts=4, noise=1))
    yield "predictor-i2-parts-beyond", predictor_frame(
        smooth((2, 5, 7), "<i2", 145), Plan(row_parts=3, column_parts=3, exchanged=True))  # fmt: skip
    yield "predictor-i2-parts-of-one-value", predictor_frame(
        smooth((2, 4, 5), "<i2", 146), Plan(row_parts=4, column_parts=5))  # fmt: skip
    many = np.zeros((15750, 2, 2), "u1")
    many[15730:, 0, 0] = many[15735:, 1, 1] = 1
    yield "predictor-u1-two-blocks", predictor_frame(
        many, Plan(sets=1, noise=0, peak=1, escape=1, phased=False))  # fmt: skip
    values = smooth((12, 40, 40), "i1", 147, 9.0)
    yield "predictor-i1-8-lanes", predictor_frame(values, Plan(top=8, sets=4, lanes=3))
    # slices
    for top, z in ((8, 11), (8, 3), (4, 4), (2, 1)):
        values = smooth((z, 5, 6), "<i2", 148)
        yield f"predictor-i2-top-{top}-of-{z}-slices", predictor_frame(values, Plan(top=top))
    # measurements
    yield "predictor-i2-order-reversed", predictor_frame(small, Plan(order=(2, 1, 0), group_spread=300))
    for t in (2, 5, 17, 40):
        values = smooth((t, 2, 3, 4), "<i2", 149)
        yield f"predictor-i2-{t}-measurements", predictor_frame(values, Plan(top=2, group_spread=40))
    values = smooth((300, 1, 2, 2), "<i2", 150, 60.0)
    yield "predictor-i2-300-measurements", predictor_frame(values, Plan(sets=1, group_spread=2))
    yield "predictor-i2-group-shift-0", predictor_frame(small, Plan(group_shift=0))
    yield "predictor-i2-group-shift-14", predictor_frame(small, Plan(group_shift=14, group_spread=9000))
    yield "predictor-i2-group-weights-large", predictor_frame(small, Plan(group_spread=2**34, peak=90))
    # ranges
    noise = rng.integers(0, 2**16, (6, 7, 8)).astype("<u2")
    noise[0, 0, :2] = 0, 65535
    yield "predictor-u2-all-values", predictor_frame(noise, Plan(top=2))
    yield "predictor-i2-low-is-minus-65535", predictor_frame(noise.view("<i2"), Plan(base=65535))
    yield "predictor-f2-all-patterns", predictor_frame(noise.view("<f2"), Plan(base=30_000))
    values = (noise.astype("<u4") << 16).view("<i4")
    yield "predictor-i4-step-2to16", predictor_frame(values, Plan(step=1 << 16))
    values = (rng.integers(-9, 10, (5, 6)) * 200_000_001).astype("<i4")
    yield "predictor-i4-base-in-the-middle", predictor_frame(values, Plan(base=2**31, step=200_000_001))
    values = rng.choice(np.array([0x7FC00001, 0xFFC00001, 0x7F800001, 0xFFFFFFFF], "<u4"), (6, 7)).view("<f4")
    values = np.where(rng.random((6, 7)) < 0.5, values, np.array(0x7FC00009, "<u4").view("<f4"))
    odd = with_exceptions(envelopes.whole((6, 7)), "<f4", 151)
    zero = np.where(rng.random((6, 7)) < 0.5, np.float32(0.0), np.float32(-0.0))
    yield "predictor-f4-zeros-of-both-signs", predictor_frame(zero.astype("<f4"), Plan())
    nan = (0x7FC00000 + rng.integers(0, 1000, (6, 7))).astype("<u4").view("<f4")
    yield "predictor-f4-nan-payloads", predictor_frame(nan, Plan())
    yield "predictor-f4-exceptions-of-nothing", predictor_frame(nan, Plan(), odd)
    steps = np.full((6, 7), 7, "<u2")
    steps[2, 3] = 9
    yield "predictor-u2-low-0-high-0-step-2", predictor_frame(steps, Plan(step=2))
    yield "predictor-u2-range-of-nothing", predictor_frame(np.full((6, 7), 7, "<u2"), Plan(low=0, high=0))
    yield "predictor-u2-largest-base", predictor_frame(np.full((6, 7), 65535, "<u2"), Plan(step=2**32 - 1))
    # weights
    for fraction in (4, 12):
        yield f"predictor-i2-fraction-{fraction}", predictor_frame(small, Plan(fraction=fraction, top=2))
    yield "predictor-i2-clip-1", predictor_frame(small, Plan(clip=1))
    yield "predictor-i2-clip-65535", predictor_frame(small, Plan(clip=65535, fraction=5, noise=1))
    yield "predictor-i2-sets-1", predictor_frame(small, Plan(sets=1))
    yield "predictor-i2-sets-16", predictor_frame(small, Plan(sets=16, top=4))
    yield "predictor-i2-weights-at-the-limit", predictor_frame(small, Plan(clip=65535, noise=300))
    yield "predictor-i2-widths-40", predictor_frame(smooth((4, 5), "<i2", 152), Plan(wide_columns=True))
    yield "predictor-i2-sums-of-2to24-minus-1", predictor_frame(small, Plan(limits=True, clip=300, sets=3))
    plan = Plan(fraction=4, noise=1, clip=65535, activity_scale=4, error_weight=0, sets=1)
    yield "predictor-u2-activity-above-2to20", predictor_frame(noise, plan)
    plan = Plan(base=2**15 + 500, top=2, peak=30, group_spread=900)
    yield "predictor-i2-most-values-negative", predictor_frame(smooth((5, 4, 7, 8), "<i2", 158, 400.0), plan)
    yield "predictor-i2-negative-in-3d", predictor_frame(smooth((5, 7, 8), "<i2", 159, 400.0), Plan(base=2**15 + 500))
    yield "predictor-i2-activity-scale-0", predictor_frame(small, Plan(activity_scale=0, error_weight=0, phased=True))
    yield "predictor-i2-activity-scale-1023", predictor_frame(small, Plan(activity_scale=1023, error_weight=300))
    # tables
    for tail in range(5):
        for phased in (False, True):
            plan = Plan(phased=phased, tail=tail, peak=40, sets=1)
            name = f"predictor-i2-tail-{tail}" + "-phased" * phased
            yield name, predictor_frame(smooth((20, 9), "<i2", 153, 400.0), plan)
    yield "predictor-i2-all-contexts", predictor_frame(small, Plan(all_contexts=True, peak=9))
    yield "predictor-i2-peak-500", predictor_frame(noise[:3].view("<i2"), Plan(peak=500, shift=7))
    yield "predictor-i2-shift-15", predictor_frame(noise[:3].view("<i2"), Plan(peak=1, shift=15))
    yield "predictor-i2-escapes", predictor_frame(small, Plan(peak=1, shift=0, phased=True, escape=2000))
    yield "predictor-i2-escape-1", predictor_frame(small, Plan(peak=1, shift=0, phased=False, escape=1))
    few = rng.integers(0, 2, (9, 10)).astype("u1")
    yield "predictor-u1-beyond-the-range", predictor_frame(few, Plan(overshoot=True, peak=3))
    # zeros
    values = head((9, 11, 12), 154)
    plan = Plan(zeros=True, base=2**15, exchanged=True, top=2, row_parts=2, column_parts=2)
    yield "predictor-i2-zeros-exchanged", predictor_frame(values, plan)
    values = np.where(rng.random((9, 10)) < 0.6, 0, rng.integers(-50, 50, (9, 10))).astype("<i2")
    yield "predictor-i2-zeros-of-both-signs", predictor_frame(values, Plan(zeros=True, base=2**15))
    yield "predictor-i2-zeros-without-any", predictor_frame(smooth((6, 7), "<i2", 155), Plan(zeros=True, base=2**15))
    yield "predictor-i2-nothing-but-zeros", predictor_frame(np.zeros((3, 6, 7), "<i2"), Plan(zeros=True, top=2))
    # regions
    for name, shape, plan in (
        ("last-ones-small", (4, 33, 65), Plan(region=(32, 64), region_shift=2, region_spread=3)),
        ("exchanged-parts", (4, 40, 60), Plan(region=(30, 20), exchanged=True, row_parts=2, top=2)),
        ("in-the-last-stage-only", (9, 30, 40), Plan(region=(16, 40), top=4, sets=16, region_shift=12,
                                                     region_spread=1, fraction=12, clip=1)),
        ("of-a-line", (1, 1, 4096), Plan(region=(1, 2048), column_parts=1, sets=1)),
        ("one", (6, 9, 8), Plan(region=(9, 8), top=2)),
        ("far-apart", (1, 64, 64), Plan(region=(64, 32), region_spread=900, sets=1)),
    ):  # fmt: skip
        yield f"predictor-i2-regions-{name}", predictor_frame(textured(shape, 160), plan)
    values = np.where(ball((4, 48, 44)), np.maximum(textured((4, 48, 44), 161), 1), 0).astype("<i2")
    plan = Plan(zeros=True, base=2**15, region=(24, 44), top=2, lanes=0)
    yield "predictor-i2-regions-of-zeros", predictor_frame(values, plan)
    # lanes
    for lanes in (0, 1, 12):
        yield f"predictor-i2-lanes-{lanes}", predictor_frame(small, Plan(lanes=lanes))
    # layouts and envelopes
    yield "predictor-i2-big-endian", predictor_frame(small.astype(">i2"), Plan())
    values = np.asfortranarray(smooth((5, 6, 7), "<i2", 156).astype("<f4").astype(">f4"))
    yield "predictor-f4-fortran-big-endian", predictor_frame(values, Plan(step=1 << 13))
    shape = (2, 6, 7, 8)
    mask = with_exceptions(boxed((0, 1, 0, 2), (2, 5, 7, 8), np.full((), np.nan, "<f4")), "<f4", 157)
    mask = with_mask(mask, ball((1, 4, 7, 6)), np.full((), np.nan, "<f4"))
    values = smooth(shape, "<i2", 157).astype("<f4")
    yield "predictor-f4-box-mask-exceptions", predictor_frame(values, Plan(step=1 << 13, top=2), mask)
    core = np.full((4, 5), 3, "u1")
    core[1, 2] = 4
    box = boxed((1, 1), (5, 6), np.array(9, "u1"))
    yield "predictor-u1-box", predictor_frame(like((7, 8), "u1"), Plan(), box, core)
