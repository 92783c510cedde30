"""Grids of levels and byte planes: exact orders, errors of at most half a step, extremes of every type."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from checks import any_array, check_equal_bits, examples, random_values
from hypothesis import assume, given
from hypothesis import strategies as st

from inrstore.chunk.byteplanes import quantiser
from inrstore.chunk.byteplanes.decode import decode
from inrstore.chunk.byteplanes.encode import encode, pack
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.dtypes import ordered, unordered
from inrstore.chunk.frame import Reader

INTEGERS = tuple("|i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8".split())
FLOATS = ("<f2", "<f4", "<f8")


def round_trip(values: np.ndarray, grid: Quantiser | None) -> np.ndarray:
    payload = encode(values, grid)
    reader = Reader(memoryview(payload))
    decoded = decode(reader, values.dtype, values.shape)
    assert reader.remaining == 0
    return decoded


def read_again(grid: Quantiser, dtype: np.dtype, shape: tuple[int, ...]) -> Quantiser:
    return quantiser.read_quantiser(Reader(memoryview(grid.write(dtype))), dtype, shape, grid.axis)


@pytest.mark.parametrize("dtype", [*INTEGERS, "|b1"])
def test_the_order_of_bit_patterns_is_that_of_integers(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "b":
        values = np.array([False, True])
    else:
        info = np.iinfo(kind)
        values = np.array(sorted({info.min, info.min + 1, -1 if info.min else 0, 0, 1, info.max // 2, info.max}), kind)
    patterns = ordered(values)
    assert (np.diff(patterns.astype(object)) > 0).all()
    assert int(patterns[0]) == 0
    check_equal_bits(unordered(patterns.copy(), kind), values)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_order_of_bit_patterns_is_that_of_floats(dtype):
    info = np.finfo(dtype)
    tiny = info.smallest_subnormal
    values = np.array([-np.inf, info.min, -1, -tiny, -0.0, 0.0, tiny, 1, info.max, np.inf], dtype)
    patterns = ordered(values)
    assert (np.diff(patterns.astype(object)) > 0).all()
    noise = random_values((999,), dtype, 1, "noise")
    check_equal_bits(unordered(ordered(noise), np.dtype(dtype)), noise)


@given(any_array((*INTEGERS, *FLOATS, "|b1")))
@examples(250)
def test_exact_planes_keep_every_bit(values):
    values = np.asarray(values, order="C")
    assume(values.size and values.ndim)
    decoded = round_trip(values, None)
    check_equal_bits(decoded, values)
    assert decoded.flags.writeable


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<f4", "<u8"])
@pytest.mark.parametrize("axes", range(8))
def test_differences_along_any_axes_are_undone(dtype, axes):
    values = random_values((4, 5, 3), dtype, 5, "noise")
    payload = struct.pack("<BBB", 0, 255, axes) + pack(ordered(values), axes, 6)
    check_equal_bits(decode(Reader(memoryview(payload)), values.dtype, values.shape), values)


@st.composite
def integers_and_steps(draw: Any) -> tuple[np.ndarray, list[int], int | None]:
    values = draw(any_array(INTEGERS))
    assume(values.size and values.ndim)
    axis = draw(st.none() | st.integers(0, values.ndim - 1))
    bits = 8 * values.dtype.itemsize
    step = st.integers(1, 40) | st.integers(1, 2 ** min(bits, 62) - 1)
    count = 1 if axis is None else values.shape[axis]
    return np.asarray(values, order="C"), draw(st.lists(step, min_size=count, max_size=count)), axis


@given(integers_and_steps())
@examples(250)
def test_integer_levels_are_within_half_a_step_exactly(case):
    values, steps, axis = case
    grid = Quantiser(int(values.min()), int(values.max()), np.array(steps, np.uint64), axis if len(steps) > 1 else None)
    try:
        decoded = round_trip(values, grid)
    except OverflowError:
        return  # too fine to pay: the caller stores the bits
    exact = values.astype(object), decoded.astype(object)
    view = [1] * values.ndim
    if axis is not None:
        view[axis] = len(steps)
    half = np.array([s // 2 for s in steps], object).reshape(view)
    assert (abs(exact[0] - exact[1]) <= half).all()
    assert exact[1].min() >= grid.low and exact[1].max() <= grid.high
    again = read_again(grid, values.dtype, values.shape)
    assert (again.low, again.high, again.steps.tolist()) == (grid.low, grid.high, steps)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_levels_reach_from_the_smallest_to_the_largest_integer(dtype):
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, info.min, info.max, info.max - 1, info.min + 1], dtype)
    for step in (info.max // 100, info.max // 3, info.max, 2):
        grid = Quantiser.over(values, np.array([float(step)]), None)
        step = int(grid.steps[0])
        try:
            decoded = round_trip(values, grid)
        except OverflowError:
            assert step == 2
            continue
        gap = abs(decoded.astype(object) - values.astype(object))
        assert gap.max() <= step // 2


def test_levels_saturate_at_the_largest_value_instead_of_wrapping():
    grid = Quantiser(-(2**63), 2**63 - 1, np.array([2**63 + 5], np.uint64), None)
    index = np.array([0, 1, 2, 255], np.uint8)
    assert grid.values(index, np.dtype("<i8")).tolist() == [-(2**63), 5, 2**63 - 1, 2**63 - 1]
    grid = Quantiser(7, 2**64 - 1, np.array([2**63], np.uint64), None)
    assert grid.values(index, np.dtype("<u8")).tolist() == [7, 2**63 + 7, 2**64 - 1, 2**64 - 1]


@given(st.integers(0, 2**32), st.sampled_from(FLOATS), st.floats(1e-3, 1e3), st.booleans())
@examples(150)
def test_float_levels_are_within_half_a_step_but_for_rounding(seed, dtype, step, channels):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(3, 4, 5)) * 100).astype(dtype)
    steps = step * rng.uniform(0.5, 2, 4 if channels else 1)
    grid = Quantiser.over(values, steps, 1)
    try:
        decoded = round_trip(values, grid)
    except OverflowError:
        return
    rounding = np.spacing(np.abs(values).max().astype(dtype)).astype(float)
    allowed = steps.reshape(1, -1, 1) / 2 + rounding
    assert (np.abs(decoded.astype(float) - values.astype(float)) <= allowed).all()
    assert decoded.min() >= values.min() and decoded.max() <= values.max()
    # The specification's arithmetic, operation by operation, in exact fractions rounded where it says so.
    index = grid.index(values)
    for u, s, got in zip(
        index.ravel()[:10], np.broadcast_to(grid._view(3), values.shape).ravel(), decoded.ravel(), strict=False
    ):
        product = float(Fraction(int(u)) * Fraction(float(s)))
        total = float(Fraction(grid.low) + Fraction(product))
        assert np.dtype(dtype).type(min(max(total, grid.low), grid.high)) == got


def test_a_step_too_fine_to_pay_is_refused_without_a_warning():
    for values, step in (
        (np.array([0.0, 1e300]), 1e-300), (np.array([-1.7e308, 1.7e308]), 1.0), (np.array([0, 255], "u1"), 0.4),
    ):  # fmt: skip
        grid = Quantiser.over(values, np.array([step]), None)
        if values.dtype.kind == "f":
            with pytest.raises(OverflowError):
                grid.index(values)
        else:
            assert grid.steps.tolist() == [1]
            assert grid.index(values).tolist() == [0, 255]


def test_huge_floats_decode_without_a_warning_and_within_range():
    grid = Quantiser(-1.7e308, 1.7e308, np.array([1e308]), None)
    index = np.arange(256, dtype=np.uint8)
    values = grid.values(index, np.dtype("<f8"))
    assert np.isfinite(values).all() and values.max() == 1.7e308 and values[1] == -1.7e308 + 1e308
    grid = Quantiser(-65504.0, 65504.0, np.array([1e4]), None)
    assert np.isfinite(grid.values(index, np.dtype("<f2"))).all()


def test_blocks_cover_a_matrix_once():
    for shape in ((1, 1), (1, 10**6), (10**6, 1), (300, 5000), (3, 131072), (2, 131073)):
        seen = np.zeros(shape, np.uint8)
        for part in quantiser._blocks(shape):
            seen[part] += 1
            assert seen[part].size <= quantiser._BLOCK
        assert (seen == 1).all()
